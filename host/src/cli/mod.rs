//! The command line: one file per command. It refuses to do work itself; it wires the floors below together.
