//! Escape: a plugin whose author means harm gets nothing more than its policy says.
//!
//! The attacker is the fixture `prober`, which tries on request to reach whatever it is told to. Every attack is tried twice: with a
//! grant, where it must reach its canary (or the attack would prove nothing), and without, where the canary must be
//! untouched and the audit must hold the denial. Then come attacks that lie just outside a grant.

// A test may fail loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod beyond;
mod claims;
mod client;
mod dhcp;
mod doors;
mod dropin;
mod example;
mod impostors;
mod limits;
mod masks;
mod matrix;
mod policies;
mod rebinding;
mod revocation;
mod scene;
mod services;
mod stage;
mod swaps;
mod trees;
mod tricks;
