//! What the host does for plugins, each behind its grant.
pub mod resolve;
pub mod secrets;
pub mod store;
pub mod upstream;

#[cfg(test)]
pub(crate) mod testing;
