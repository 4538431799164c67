//! What the host does for plugins, each behind its grant.
pub mod resolve;
pub mod secrets;
pub mod store;

#[cfg(test)]
pub(crate) mod testing;
