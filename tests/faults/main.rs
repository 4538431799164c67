//! Faults: the real program under hostile clients, hostile plugins, crashes and wrong configurations.
//!
//! What is promised is always the same: Foreman is answered throughout, what is refused is refused at once and cheaply, and
//! nothing is left behind when it ends. A witness ([`witness::Witness`]) asks as Foreman does all the while.

// A test may fail loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod attack;
mod certificates;
mod connections;
mod control;
mod crash;
mod flood;
mod foreman;
mod hostile_plugins;
mod large;
mod memory;
mod reload;
mod road;
mod services;
mod slow_readers;
mod smuggling;
mod storm;
mod witness;
