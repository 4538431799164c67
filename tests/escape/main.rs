//! Escape: a plugin whose author means harm gets nothing more than its policy says.
//!
//! The attacker is the fixture `prober`, which tries on request to reach whatever it is told to. Every attack is tried twice: with a
//! grant, where it must reach its canary (or the attack would prove nothing), and without, where the canary must be
//! untouched and the audit must hold the denial. Then come attacks that lie just outside a grant.
//!
//! | Files | What they hold |
//! |---|---|
//! | `matrix`, `scene` | every attack twice, in one program whose policy changes under it |
//! | `impostors`, `client`, `dhcp` | first-party plugins whose author turned, under the policies that are shipped |
//! | `doors`, `beyond`, `stage` | every door with its grant and without, and what lies just outside a grant |
//! | `services`, `transfers`, `rebinding`, `trees`, `tricks` | servers, names, directories and answers that try to be something else |
//! | `limits` | limits that show over several calls |
//! | `masks`, `claims` | who a file is believed to be |
//! | `dropin`, `swaps` | the life of a file in the plugin directory |
//! | `policies`, `revocation` | what an operator writes holds, at once |
//! | `example` | the showcase, `examples/escape` |

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
mod transfers;
mod trees;
mod tricks;
