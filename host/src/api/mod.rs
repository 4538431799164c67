//! What the host itself answers: the Smart Proxy core API for Foreman, health and metrics for the operator's tools, and the
//! control socket for `bulkhead`'s own commands.
//!
//! It refuses to decide who may ask: the server checks audience and identity before it calls in here. It holds no state of its
//! own either; it shows snapshots that the floors below keep.

pub mod admin;
pub mod control;
pub mod core;
pub mod features;
pub mod socket;
