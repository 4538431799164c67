//! What one instance can see.
//!
//! [`Surroundings`] belong to the plugin and are shared by its instances: its guard, settings, the site, the host's facilities. [`Context`] is the
//! data of one instance's store: its WASI state, its limiter, and the call it serves at the moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::bindings::imports::settings::Value;
use super::bindings::types::Audience;
use super::error::CallError;
use super::limits::{InstanceLimiter, MemoryMeter};
use super::peers::Peers;
use super::pool::Sandbox;
use super::runtimes::Class;
use crate::capability::Facilities;
use crate::capability::wasi::access::PluginAccess;
use crate::capability::wasi::{WasiHost, WasiParts};
use crate::grant::limits::Limits;
use crate::grant::{Action, Decision, Guard};
use crate::telemetry::metrics::PluginMetrics;

/// The end of the chain that the host verified: who asked.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What the request was admitted as.
    pub audience: Audience,
    /// The verified name, lower case.
    pub name: Option<String>,
    /// IP address without port.
    pub address: String,
    /// Scheme, host and port the request was sent to.
    pub origin: String,
    /// For logs, here and at Foreman.
    pub request_id: Arc<str>,
    /// A plugin has written a line of level ERROR while it worked for this request.
    pub error_logged: Arc<AtomicBool>,
}

/// Where the proxy stands, as far as plugins may know.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// Public base URL by audience: foreman, host, public.
    pub public_urls: [Option<String>; 3],
    /// First plain HTTP port that serves the plugin.
    pub http_port: Option<u16>,
    /// First TLS port that serves the plugin.
    pub https_port: Option<u16>,
    /// The Smart Proxy version shown to Foreman.
    pub version: String,
}

/// What all instances of a plugin share.
pub struct Surroundings {
    /// The plugin's guard: its name, its grants, the one `decide`.
    pub guard: Guard,
    /// Values of its settings.
    pub settings: HashMap<String, Value>,
    /// The site as this plugin sees it.
    pub site: Site,
    /// Files, sockets, names and log lines; none in the empty sandbox of `describe`.
    pub access: Option<Arc<PluginAccess>>,
    /// Numbers; none in the empty sandbox.
    pub metrics: Option<Arc<PluginMetrics>>,
    /// Store, secrets, clients; none in the empty sandbox.
    pub facilities: Option<Arc<Facilities>>,
    /// Other plugins.
    pub peers: Peers,
}

impl Surroundings {
    /// The plugin's name.
    #[must_use]
    pub fn plugin(&self) -> &str {
        self.guard.plugin()
    }
}

/// The data of one instance's store.
pub struct Context {
    pub(super) surroundings: Arc<Surroundings>,
    /// The set of instances it belongs to.
    pub(super) set: u64,
    pub(super) table: ResourceTable,
    wasi: WasiParts,
    http: WasiHttpCtx,
    hooks: super::outgoing::WasiHttp,
    limiter: InstanceLimiter,
    peer: Option<Arc<Peer>>,
    deadline: Option<Instant>,
    resting: usize,
}

impl Context {
    pub(super) fn new(
        surroundings: Arc<Surroundings>,
        limits: &Limits,
        meter: Arc<MemoryMeter>,
        set: u64,
    ) -> wasmtime::Result<Self> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles as usize);
        let wasi = WasiParts::new(&surroundings.guard, surroundings.access.as_ref());
        Ok(Self {
            hooks: super::outgoing::WasiHttp::new(surroundings.clone()),
            table,
            wasi,
            http: WasiHttpCtx::new(),
            limiter: InstanceLimiter::new(limits, meter),
            surroundings,
            set,
            peer: None,
            deadline: None,
            resting: 0,
        })
    }

    /// A call begins.
    pub(super) fn enter(&mut self, peer: Option<Arc<Peer>>, deadline: Instant) {
        self.hooks.enter(peer.clone());
        self.peer = peer;
        self.deadline = Some(deadline);
        self.resting = self.table.iter_mut().count();
    }

    /// The call has ended well.
    pub(super) fn leave(&mut self) {
        self.peer = None;
        self.deadline = None;
    }

    /// Host resources that the call left behind.
    pub(super) fn leftovers(&mut self) -> usize {
        self.table.iter_mut().count().saturating_sub(self.resting)
    }

    pub(super) fn limiter(&mut self) -> &mut InstanceLimiter {
        &mut self.limiter
    }

    /// Why memory was refused, if it was.
    pub(super) fn refused(&self) -> Option<&str> {
        self.limiter.refused.as_deref()
    }

    /// Who asked, inside a request.
    pub(super) fn peer(&self) -> Option<&Arc<Peer>> {
        self.peer.as_ref()
    }

    /// Who waits for what this instance does.
    pub(super) fn class(&self) -> Class {
        match self.peer.as_ref().map(|peer| peer.audience) {
            Some(Audience::Host | Audience::Public) => Class::Hosts,
            Some(Audience::Foreman) | None => Class::Control,
        }
    }

    /// The plugin that serves an interface to this one, if the policy lets it call there.
    pub(super) fn callee(&self, interface: &str) -> Result<Arc<Sandbox>, CallError> {
        let effective = self.surroundings.guard.effective();
        let callee = effective
            .call
            .get(interface)
            .map_or("", |grant| grant.plugin.as_str());
        match self
            .surroundings
            .guard
            .decide(&Action::Call { interface, callee })
        {
            Decision::Allow => {}
            Decision::Deny(denial) => return Err(CallError::Denied(denial.reason.clone())),
        }
        self.surroundings.peers.get(callee).ok_or_else(|| {
            CallError::NotReady(format!(
                "plugin `{callee}`, which serves `{interface}`, is not running"
            ))
        })
    }
}

impl WasiHost for Context {
    fn wasi(&mut self) -> (&mut WasiParts, &mut ResourceTable) {
        (&mut self.wasi, &mut self.table)
    }
}

impl WasiHttpView for Context {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.hooks,
        }
    }
}

/// Links everything a component may import. What it may *do* is decided at each call.
pub(super) fn link(linker: &mut Linker<Context>) -> wasmtime::Result<()> {
    crate::capability::wasi::add_to_linker(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    super::imports::link(linker)
}
