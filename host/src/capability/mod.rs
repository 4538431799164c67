//! What the host does for plugins, each behind its grant.
pub mod beneath;
pub mod resolve;
pub mod secrets;
pub mod store;
pub mod upstream;
pub mod wasi;

#[cfg(test)]
pub(crate) mod testing;
