//! Bulkhead: a Foreman Smart Proxy that runs every feature as a sandboxed WebAssembly component.
//!
//! The floors of the house, upper ones use lower ones and never the other way round:
//! `cli` > `server` > `api` > `plugin` > `sandbox` > `capability` > `grant` > `settings` > `telemetry`.

pub mod api;
pub mod capability;
pub mod cli;
pub mod grant;
pub mod plugin;
pub mod sandbox;
pub mod server;
pub mod settings;
pub mod telemetry;
