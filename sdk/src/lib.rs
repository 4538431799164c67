//! What the author of a Bulkhead plugin uses.
//!
//! A plugin is a WebAssembly component. This crate lets you write one as plain, blocking Rust: you say once what the plugin is
//! ([`Manifest`]), each route with its function on the same line, and the functions turn a [`Request`] into an answer. A
//! complete feature:
//!
//! ```
//! use bulkhead_sdk::prelude::*;
//!
//! struct Hello;
//!
//! impl Plugin for Hello {
//!     fn describe() -> Manifest {
//!         Manifest::new("hello", "1.0.0", "Greets by name")
//!             .mount("/hello")
//!             .route(get("/hello/:name").public(), hello)
//!     }
//! }
//!
//! fn hello(request: &Request) -> String {
//!     format!("Hello, {}!", request.text("name").unwrap_or("world"))
//! }
//!
//! bulkhead_sdk::export_feature!(Hello);
//! ```
//!
//! What it refuses to do: it opens no door. Each function here that reaches outside ([`files`], [`foreman`], [`store`], ...) asks
//! the host, which decides by the plugin's policy; a call that is not granted answers an error, whatever the plugin says of itself.
//!
//! The one idea: **the component decides, the host moves bytes.** Routing, identity, limits, streaming and files are the
//! host's; a plugin says what shall happen. Therefore a plugin is tested natively, without a host: see [`testing`].

// The export macros name this crate from outside; inside it they need the same name.
extern crate self as bulkhead_sdk;

pub mod answer;
pub mod caller;
pub mod dhcp;
pub mod dns;
pub mod downloads;
pub mod export;
pub mod failure;
pub mod files;
pub mod foreman;
pub mod http;
pub mod log;
pub mod mac;
pub mod manifest;
pub mod names;
pub mod params;
pub mod passing;
pub mod plugin;
pub mod probe;
pub mod reactor;
pub mod request;
pub mod secrets;
pub mod settings;
pub mod site;
pub mod store;
pub mod tcp;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod udp;
pub mod watch;

mod form;
mod host;
mod multipart;

// Generated code follows other rules than ours: it is unsafe by nature (it lays records out in memory for the host) and
// documented in `wit/`.
#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::todo,
    clippy::unimplemented
)]
pub mod bindings;

#[doc(hidden)]
pub use wit_bindgen as __wit_bindgen;

pub use answer::{Answer, IntoAnswer, Json};
pub use bindings::imports::foreman::proxy::types::Audience;
pub use failure::{Explain, Failure};
pub use mac::MacAddress;
pub use manifest::{Access, Manifest, Need, Setting, delete, get, patch, post, put};
pub use plugin::{Event, Plugin, Status};
pub use request::Request;

/// The names that nearly every plugin uses: `use bulkhead_sdk::prelude::*;`.
pub mod prelude {
    pub use crate::answer::{Answer, IntoAnswer, Json};
    pub use crate::failure::{Explain, Failure};
    pub use crate::mac::MacAddress;
    pub use crate::manifest::{Access, Manifest, Need, Setting, delete, get, patch, post, put};
    pub use crate::plugin::{Plugin, Status};
    pub use crate::request::Request;
    pub use crate::{caller, downloads, files, foreman, http, log, secrets, settings, site, store};
}
