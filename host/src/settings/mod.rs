//! Configuration types, defaults, errors with file, line and column.
