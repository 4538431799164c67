//! What the host does for plugins, each behind its grant.
pub mod beneath;
pub mod wasi;
