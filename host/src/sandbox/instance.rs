//! One program (a compiled component, linked for one plugin) and its instances.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{Component, InstancePre, Linker};

use super::bindings::exports;
use super::context::{Context, Surroundings};
use super::engine::Engine;
use super::limits::MemoryMeter;
use crate::grant::limits::Limits;

/// A component linked against the host, ready to be instantiated quickly.
pub struct Program {
    engine: Engine,
    pre: InstancePre<Context>,
    lifecycle: exports::lifecycle::GuestIndices,
    feature: Option<exports::feature::GuestIndices>,
    reactor: Option<exports::reactor::GuestIndices>,
    dns_provider: Option<exports::dns_provider::GuestIndices>,
    dhcp_provider: Option<exports::dhcp_provider::GuestIndices>,
    serves_others: bool,
    http: Option<
        wasmtime_wasi_http::p2::bindings::exports::wasi::http::incoming_handler::GuestIndices,
    >,
}

/// The component does not fit this host.
#[derive(Debug, thiserror::Error)]
#[error("does not fit this host: {0}")]
pub struct Misfit(pub String);

impl Program {
    /// Links a component. `foreign` are interfaces of other plugins that it imports (see `bridge`).
    pub fn link(engine: &Engine, component: &Component) -> Result<Self, Misfit> {
        let mut linker = Linker::new(engine.inner());
        super::context::link(&mut linker).map_err(|error| Misfit(format!("{error:#}")))?;
        super::bridge::link(&mut linker, component, engine)
            .map_err(|error| Misfit(format!("{error:#}")))?;
        let pre = linker
            .instantiate_pre(component)
            .map_err(|error| Misfit(format!("{error:#}")))?;
        component
            .initialize_copy_on_write_image()
            .map_err(|error| Misfit(format!("{error:#}")))?;
        let lifecycle = exports::lifecycle::GuestIndices::new(&pre).map_err(|error| {
            Misfit(format!(
                "it does not export `foreman:proxy/lifecycle@0.1.0` (describe, status, start, wake), which every plugin must: {error:#}"
            ))
        })?;
        let serves_others = component
            .component_type()
            .exports(engine.inner())
            .any(|(name, _)| !super::bridge::is_served_by_host(name));
        Ok(Self {
            serves_others,
            engine: engine.clone(),
            lifecycle,
            feature: exports::feature::GuestIndices::new(&pre).ok(),
            reactor: exports::reactor::GuestIndices::new(&pre).ok(),
            dns_provider: exports::dns_provider::GuestIndices::new(&pre).ok(),
            dhcp_provider: exports::dhcp_provider::GuestIndices::new(&pre).ok(),
            http: wasmtime_wasi_http::p2::bindings::exports::wasi::http::incoming_handler::GuestIndices::new(&pre).ok(),
            pre,
        })
    }

    /// True if it answers HTTP routes, by `feature` or by `wasi:http`.
    #[must_use]
    pub fn is_feature(&self) -> bool {
        self.feature.is_some() || self.http.is_some()
    }

    /// True if it exports the reactor of services.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.reactor.is_some()
    }

    /// True if others call it: routes, or an interface of its own. What the host does not know, an author's own interface, counts.
    #[must_use]
    pub fn is_called(&self) -> bool {
        self.is_feature()
            || self.dns_provider.is_some()
            || self.dhcp_provider.is_some()
            || self.serves_others
    }

    /// The engine it was linked for.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A fresh instance with nothing in its memory but what the component brings.
    pub(crate) async fn instantiate(
        &self,
        surroundings: &Arc<Surroundings>,
        limits: &Limits,
        meter: &Arc<MemoryMeter>,
        set: u64,
    ) -> wasmtime::Result<Live> {
        let generation = surroundings.guard.generation_now();
        let mut store = Store::new(
            self.engine.inner(),
            Context::new(surroundings.clone(), limits, meter.clone(), set)?,
        );
        store.limiter(|context| context.limiter());
        store.set_hostcall_fuel(usize::try_from(limits.transfer).unwrap_or(usize::MAX));
        store.set_max_component_handles(limits.handles as usize);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let instance = match self.pre.instantiate_async(&mut store).await {
            Ok(instance) => instance,
            // The limiter knows which limit it was.
            Err(error) => {
                return Err(match store.data_mut().limiter().refused.take() {
                    Some(refused) => error.context(refused),
                    None => error,
                });
            }
        };
        let lifecycle = self.lifecycle.load(&mut store, &instance)?;
        let feature = self
            .feature
            .as_ref()
            .map(|it| it.load(&mut store, &instance))
            .transpose()?;
        let reactor = self
            .reactor
            .as_ref()
            .map(|it| it.load(&mut store, &instance))
            .transpose()?;
        let dns_provider = self
            .dns_provider
            .as_ref()
            .map(|it| it.load(&mut store, &instance))
            .transpose()?;
        let dhcp_provider = self
            .dhcp_provider
            .as_ref()
            .map(|it| it.load(&mut store, &instance))
            .transpose()?;
        let http = self
            .http
            .as_ref()
            .map(|it| it.load(&mut store, &instance))
            .transpose()?;
        Ok(Live {
            store,
            instance,
            lifecycle,
            feature,
            reactor,
            dns_provider,
            dhcp_provider,
            http,
            uses: 0,
            generation,
        })
    }
}

/// A live instance: used by one call at a time.
pub struct Live {
    pub(crate) store: Store<Context>,
    pub(crate) instance: wasmtime::component::Instance,
    pub(crate) lifecycle: exports::lifecycle::Guest,
    pub(crate) feature: Option<exports::feature::Guest>,
    pub(crate) reactor: Option<exports::reactor::Guest>,
    pub(crate) dns_provider: Option<exports::dns_provider::Guest>,
    pub(crate) dhcp_provider: Option<exports::dhcp_provider::Guest>,
    pub(crate) http:
        Option<wasmtime_wasi_http::p2::bindings::exports::wasi::http::incoming_handler::Guest>,
    pub(crate) uses: u32,
    /// The policy's generation it was made under: which directories it sees was settled then.
    pub(crate) generation: u64,
}
