//! Booting.
