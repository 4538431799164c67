//! A plugin from file to running: inspect, fit, compile (cached), probe, swap, watch the directory.

pub mod routes;
