//! Configuration types, defaults, errors with file, line and column.

pub mod config;
pub(crate) mod measure;
pub mod problem;
mod read;
pub(crate) mod reader;
pub mod schema;

pub use config::{Config, Enabled, Feature, Listener, TrustedHosts};
pub use problem::{Problem, Problems};
