//! The `store` capability (in the making).
pub mod backend;
pub mod embedded;
mod writer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod embedded_tests;
