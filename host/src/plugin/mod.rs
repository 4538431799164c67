//! A plugin from file to running: inspect, fit, compile (cached), probe, swap, watch the directory.
//!
//! | file | concept |
//! |---|---|
//! | `manifest` | what a plugin says it is, checked |
//! | `inspect` | finding that out in an empty sandbox |
//! | `compile` | machine code, mapped from the cache or made in a child process |
//! | `cache` | what is kept of components from start to start, where nobody else can write |
//! | `library` | copies of third parties' components and their history |
//! | `fingerprint` | what stands for a manifest in an approval |
//! | `settings` | what the configuration says against the plugins' lists, before anything starts |
//! | `load` | every step between "found" and "serves" |
//! | `routes` | which plugin answers a path |
//! | `running` | a plugin that serves |
//! | `registry` | all of them: what runs, what waits and why |
//! | `watch` | news of the plugin and policy directories |

pub mod cache;
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
pub mod settings;
pub mod watch;
