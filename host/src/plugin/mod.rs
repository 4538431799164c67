//! A plugin from file to running: inspect, fit, compile (cached), probe, swap, watch the directory.

pub mod compile;
pub mod inspect;
pub mod library;
pub mod manifest;
pub mod watch;
