//! The one switch between the real host and its double: in a component these are the generated imports, natively the functions
//! of [`crate::testing`] with the same signatures.

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::bindings::imports::foreman::proxy::{
    caller, dhcp_provider, dns_provider, downloads, foreman, http_client, log, probe, secrets,
    settings, site, store, watch,
};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::imports::{
    caller, dhcp_provider, dns_provider, downloads, foreman, http_client, log, probe, secrets,
    settings, site, store, watch,
};
