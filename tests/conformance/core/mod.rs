//! contract/core.md, one file a section.

mod authorisation;
mod features;
mod http;
pub(crate) mod life_cycle;
mod log_ring;
mod paths;
mod process;
mod requests;
mod tls;
