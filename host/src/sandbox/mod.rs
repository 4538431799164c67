//! One running plugin: engine, instances, pool, limits, calls between plugins.
//!
//! It refuses to know about files on disk, policies or HTTP: it is handed a compiled component and a [`Guard`](crate::grant::Guard),
//! and runs calls. The idea to keep in mind: **a call is a task of the plugin**. Callers only wait for it; a caller that goes away
//! cancels nothing; only the call's own deadline ends it, and then its instance is thrown away.
//!
//! | file | concept |
//! |---|---|
//! | `engine` | the compiler and the pool of memory slots, sized for the machine |
//! | `runtimes` | the threads components run on, never those that serve sockets |
//! | `metered` | CPU time of a call, and its move to the background when it takes long |
//! | `limits` | the limiter of an instance, and the counter of its plugin's memory |
//! | `context` | what an instance can see: the host side of every WIT import |
//! | `instance` | one instance and its exports |
//! | `line` | who waits for a place, and whose turn it is |
//! | `pool` | admission, warm instances, deadlines: [`Sandbox::call`] |
//! | `calls` | the typed calls: `describe`, `status`, `handle`, ... |
//! | `events` | what a kept instance is woken for |
//! | `http_guest` | components that export `wasi:http/incoming-handler` |
//! | `imports`, `outgoing` | the host side of what components import |
//! | `peers` | which plugin serves an interface that another imports |
//! | `unstoppable` | a call of one plugin by another: done where its caller is, finished without it |
//! | `providers` | calls between plugins through the first-party provider interfaces |
//! | `bridge` | calls between plugins through interfaces the host does not know |

pub mod bindings;
pub mod bridge;
pub mod calls;
pub mod context;
pub mod engine;
pub mod error;
pub mod events;
pub mod http_guest;
pub mod imports;
pub mod instance;
pub mod limits;
pub(crate) mod line;
pub mod metered;
mod outgoing;
pub mod peers;
pub mod pool;
mod providers;
pub mod runtimes;
mod unstoppable;

pub use context::Peer;
pub use engine::{Engine, EngineConfig};
pub use error::CallError;
pub use instance::Program;
pub use pool::Sandbox;
pub use runtimes::{Class, Runtimes};
