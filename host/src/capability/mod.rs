//! What the host does for plugins, each behind its grant.
pub mod secrets;
pub mod store;
