//! One running plugin: engine, instances, pool, limits, calls between plugins.
pub mod bindings;
