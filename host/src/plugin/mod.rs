//! A plugin from file to running: inspect, fit, compile (cached), probe, swap, watch the directory.
//!
//! | file | concept |
//! |---|---|
//! | `manifest` | what a plugin says it is, checked |
//! | `inspect` | finding that out in an empty sandbox |
//! | `compile` | machine code, through a cache nobody else can write |
//! | `library` | copies of third parties' components and their history |
//! | `fingerprint` | what stands for a manifest in an approval |
//! | `load` | every step between "found" and "serves" |
//! | `routes` | which plugin answers a path |
//! | `running` | a plugin that serves |
//! | `registry` | all of them: what runs, what waits and why |
//! | `watch` | news of the plugin and policy directories |

pub mod compile;
pub mod fingerprint;
pub mod inspect;
pub mod library;
pub mod load;
pub mod manifest;
pub mod registry;
pub mod routes;
pub mod running;
pub mod service;
pub mod watch;
