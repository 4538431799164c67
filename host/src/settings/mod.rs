//! Configuration types, defaults, errors with file, line and column.

pub mod limits;
