//! What every whole-program test stands on: the real `bulkhead` program in a directory of its own, and clients and servers
//! that show each byte.
//!
//! It refuses to be clever: no client here adds a header, follows a redirect or repeats a request unless a test says so, since
//! the contract with Foreman is one of exact bytes. It uses no library of the product, so a mistake there cannot hide
//! itself here.
//!
//! The one idea: a test is three things, a program ([`Bulkhead`]), a door into it ([`Target`]) and what came back
//! ([`Response`]):
//!
//! ```no_run
//! use bulkhead_testkit::Bulkhead;
//! let bulkhead = Bulkhead::trial();
//! let answer = bulkhead.foreman().get("/features");
//! assert_eq!(answer.status, 200);
//! ```

pub mod bind;
pub mod booting;
pub mod clock;
mod compiled;
pub mod configuration;
pub mod crowd;
pub mod debian;
pub mod dhcp_wire;
pub mod dhcpd;
pub mod dns;
pub mod eventually;
pub mod exchange;
pub mod foreman;
pub mod http;
pub mod identity;
pub mod kea;
pub mod load;
pub mod medium;
pub mod namer;
pub mod namespace;
pub mod notify;
pub mod pdns;
pub mod ports;
pub mod preload;
pub mod process;
pub mod program;
pub mod provisioning;
pub mod scratch;
pub mod servers;
pub mod skip;
pub mod slow_disk;
pub mod stranger;
pub mod tftp;
pub mod zone;

pub use configuration::Configuration;
pub use http::{Connection, Response, Target};
pub use identity::{Authority, Identity};
pub use program::{Bulkhead, Finished, Shared, Signal, run};
pub use scratch::Scratch;
