//! Conformance: what Foreman, hosts and operators see of the real program, held against the contract.
//!
//! One file a contract file (`core/` one a section); a test's name is the promise, its doc the row. Bytes are compared
//! whole wherever Foreman could notice a difference. Where this project promises something else than the original on purpose
//! (a certificate's SAN before its CN, absolute links into the boot directory, atomic files), the test's doc says so.
//!
//! The tests know nothing of the implementation: they start the program, speak HTTP and look at files.

// A test may fail loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod boot_files;
mod core;
mod dhcp;
mod dhcp_boot;
mod dhcp_files;
mod dhcp_forms;
mod dhcp_hostile;
mod dhcp_names;
mod dhcp_races;
mod dhcp_spelling;
mod discovery;
mod dns;
mod examples;
mod facts;
mod foreman_client;
mod fronts;
mod httpboot;
mod logs;
mod pulpcore;
mod registration;
mod site;
mod templates;
mod tftp;
mod traps;

/// The types in which errors and pages are labelled (contract/core.md 3.1).
const HTML: &str = "text/html;charset=utf-8";
const JSON: &str = "application/json";
