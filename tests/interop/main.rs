//! Interop: real clients and real plugins with the real program, as people will put them together.
//!
//! Clients are programs of the machine (`curl`); a test that misses its program says so loudly and fails in continuous
//! integration. Plugins are the example `hello`, a component that speaks `wasi:http`, and the throw-away guests that tried
//! the contract.

// A test may fail loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod curl;
mod dhcp_builtin;
mod dhcp_hostile;
mod dhcp_proxy;
mod dhcp_walk;
mod dns;
mod dns_builtin;
mod dns_hostile;
mod dns_many;
mod dns_powerdns;
mod doctor;
mod guests;
#[macro_use]
mod kea;
mod kea_boot;
mod low_ports;
mod services;
mod tftp;
mod tftp_wire;
mod trial;
