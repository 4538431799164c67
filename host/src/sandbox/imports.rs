//! The host side of every `foreman:proxy` import: each function hands the guard and typed arguments to a capability, which decides.
//!
//! In the empty sandbox of `describe` there are no facilities: whatever is asked there is denied.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wasmtime::component::{HasSelf, Linker};

use super::bindings::imports::{
    caller, downloads, foreman, http_client, log, probe, secrets, settings, site, store, watch,
};
use super::bindings::types::{Audience, Incoming, Outgoing, UpstreamError};
use super::context::{Context, Peer};
use crate::capability::Facilities;
use crate::capability::upstream::{Kind, Via};
use crate::capability::wasi::stdio::LineFate;
use crate::telemetry::text;

/// Links all of them.
pub(super) fn link(linker: &mut Linker<Context>) -> wasmtime::Result<()> {
    type Own = HasSelf<Context>;
    caller::add_to_linker::<_, Own>(linker, |it| it)?;
    site::add_to_linker::<_, Own>(linker, |it| it)?;
    settings::add_to_linker::<_, Own>(linker, |it| it)?;
    log::add_to_linker::<_, Own>(linker, |it| it)?;
    foreman::add_to_linker::<_, Own>(linker, |it| it)?;
    http_client::add_to_linker::<_, Own>(linker, |it| it)?;
    store::add_to_linker::<_, Own>(linker, |it| it)?;
    secrets::add_to_linker::<_, Own>(linker, |it| it)?;
    downloads::add_to_linker::<_, Own>(linker, |it| it)?;
    watch::add_to_linker::<_, Own>(linker, |it| it)?;
    probe::add_to_linker::<_, Own>(linker, |it| it)?;
    super::providers::link(linker)
}

/// Why nothing works in `describe`.
const EMPTY: &str = "`describe` runs in an empty sandbox";

impl Context {
    fn facilities(&self) -> Option<Arc<Facilities>> {
        self.surroundings.facilities.clone()
    }

    /// What an upstream is told about the request that is being served.
    pub(super) fn via(&self) -> Via {
        via(self.peer().map(AsRef::as_ref))
    }

    /// Takes what it needs and leaves the context alone: a store may not be shared between threads while the future waits.
    fn exchange(
        &self,
        kind: Kind,
        request: Outgoing,
    ) -> impl Future<Output = Result<Incoming, UpstreamError>> + Send + use<> {
        let (surroundings, via) = (self.surroundings.clone(), self.via());
        async move {
            match &surroundings.facilities {
                Some(facilities) => {
                    facilities
                        .upstream
                        .send(&surroundings.guard, kind, &via, request)
                        .await
                }
                None => Err(UpstreamError::Denied(EMPTY.into())),
            }
        }
    }
}

/// What an upstream is told about a request.
#[must_use]
pub fn via(peer: Option<&Peer>) -> Via {
    Via {
        request_id: peer.map(|it| it.request_id.to_string()),
        client: peer
            .filter(|it| it.audience != Audience::Foreman)
            .and_then(|it| it.address.parse().ok()),
    }
}

impl caller::Host for Context {
    async fn current(&mut self) -> Option<caller::Peer> {
        self.peer().map(|peer| caller::Peer {
            audience: peer.audience,
            name: peer.name.clone(),
            address: peer.address.clone(),
            origin: peer.origin.clone(),
            request_id: peer.request_id.to_string(),
        })
    }
}

impl site::Host for Context {
    async fn public_url(&mut self, audience: Audience) -> Option<String> {
        let [foreman, host, public] = &self.surroundings.site.public_urls;
        match audience {
            Audience::Foreman => foreman.clone(),
            Audience::Host => host.clone(),
            Audience::Public => public.clone(),
        }
    }

    async fn http_port(&mut self) -> Option<u16> {
        self.surroundings.site.http_port
    }

    async fn https_port(&mut self) -> Option<u16> {
        self.surroundings.site.https_port
    }

    async fn version(&mut self) -> String {
        self.surroundings.site.version.clone()
    }
}

impl settings::Host for Context {
    async fn get(&mut self, name: String) -> Option<settings::Value> {
        self.surroundings.settings.get(&name).cloned()
    }
}

impl log::Host for Context {
    async fn write(&mut self, level: log::Level, message: String) {
        let Some(access) = &self.surroundings.access else {
            return;
        };
        let plugin = self.surroundings.plugin();
        let LineFate::Log { dropped } = access.lines().take() else {
            if let Some(metrics) = &self.surroundings.metrics {
                metrics.log_lines_suppressed.inc();
            }
            return;
        };
        if dropped > 0 {
            tracing::warn!(
                plugin,
                dropped,
                "log lines beyond limits.log-lines were dropped"
            );
        }
        if let (log::Level::Error, Some(peer)) = (level, self.peer()) {
            peer.error_logged.store(true, Ordering::Relaxed);
        }
        let message = text::printable(&message);
        match level {
            log::Level::Debug => tracing::debug!(plugin, "{message}"),
            log::Level::Info => tracing::info!(plugin, "{message}"),
            log::Level::Warn => tracing::warn!(plugin, "{message}"),
            log::Level::Error => tracing::error!(plugin, "{message}"),
        }
    }
}

impl foreman::Host for Context {
    async fn send(&mut self, request: Outgoing) -> Result<Incoming, UpstreamError> {
        self.exchange(Kind::Foreman, request).await
    }
}

impl http_client::Host for Context {
    async fn send(&mut self, request: Outgoing) -> Result<Incoming, UpstreamError> {
        self.exchange(Kind::Http, request).await
    }
}

impl store::Host for Context {
    async fn get(
        &mut self,
        slot: String,
        key: String,
    ) -> Result<Option<store::Entry>, store::Error> {
        let facilities = self
            .facilities()
            .ok_or_else(|| store::Error::Denied(EMPTY.into()))?;
        facilities
            .store
            .get(&self.surroundings.guard, &slot, &key)
            .await
    }

    async fn scan(
        &mut self,
        slot: String,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<store::Entry>, store::Error> {
        let facilities = self
            .facilities()
            .ok_or_else(|| store::Error::Denied(EMPTY.into()))?;
        facilities
            .store
            .scan(
                &self.surroundings.guard,
                &slot,
                &prefix,
                after.as_deref(),
                limit,
            )
            .await
    }

    async fn apply(
        &mut self,
        slot: String,
        changes: Vec<store::Change>,
    ) -> Result<u64, store::Error> {
        let facilities = self
            .facilities()
            .ok_or_else(|| store::Error::Denied(EMPTY.into()))?;
        facilities
            .store
            .apply_by(&self.surroundings.guard, &slot, changes, self.set)
            .await
    }

    async fn changes(
        &mut self,
        slot: String,
        since: u64,
        limit: u32,
    ) -> Result<store::History, store::Error> {
        let facilities = self
            .facilities()
            .ok_or_else(|| store::Error::Denied(EMPTY.into()))?;
        facilities
            .store
            .changes(&self.surroundings.guard, &slot, since, limit)
            .await
    }
}

impl secrets::Host for Context {
    async fn about(&mut self, slot: String) -> Result<secrets::Key, secrets::Error> {
        let facilities = self
            .facilities()
            .ok_or_else(|| secrets::Error::Denied(EMPTY.into()))?;
        facilities.secrets.about(&self.surroundings.guard, &slot)
    }

    async fn sign(&mut self, slot: String, message: Vec<u8>) -> Result<Vec<u8>, secrets::Error> {
        let facilities = self
            .facilities()
            .ok_or_else(|| secrets::Error::Denied(EMPTY.into()))?;
        facilities
            .secrets
            .sign(&self.surroundings.guard, &slot, &message)
    }

    async fn verify(
        &mut self,
        slot: String,
        message: Vec<u8>,
        mac: Vec<u8>,
    ) -> Result<bool, secrets::Error> {
        let facilities = self
            .facilities()
            .ok_or_else(|| secrets::Error::Denied(EMPTY.into()))?;
        facilities
            .secrets
            .verify(&self.surroundings.guard, &slot, &message, &mac)
    }

    async fn reveal(&mut self, slot: String) -> Result<Vec<u8>, secrets::Error> {
        let facilities = self
            .facilities()
            .ok_or_else(|| secrets::Error::Denied(EMPTY.into()))?;
        facilities.secrets.reveal(&self.surroundings.guard, &slot)
    }
}

impl downloads::Host for Context {
    async fn fetch(
        &mut self,
        slot: String,
        url: String,
        path: String,
    ) -> Result<(), downloads::Error> {
        let facilities = self
            .facilities()
            .ok_or_else(|| downloads::Error::Denied(EMPTY.into()))?;
        let Some(access) = self.surroundings.access.clone() else {
            return Err(downloads::Error::Denied(EMPTY.into()));
        };
        facilities.downloads.fetch(
            &self.surroundings.guard,
            |slot| access.quota(slot),
            &slot,
            &url,
            &path,
        )
    }

    async fn query(&mut self, slot: String, path: String) -> Option<downloads::Progress> {
        self.facilities()?
            .downloads
            .query(&self.surroundings.guard, &slot, &path)
    }
}

impl watch::Host for Context {
    async fn about(&mut self, slot: String, path: String) -> Result<watch::File, watch::Error> {
        let Some(access) = self.surroundings.access.clone() else {
            return Err(watch::Error::Denied(EMPTY.into()));
        };
        crate::capability::watch::about(&access, &slot, &path).await
    }

    async fn read(
        &mut self,
        slot: String,
        path: String,
        offset: u64,
        limit: u32,
    ) -> Result<watch::Chunk, watch::Error> {
        let Some(access) = self.surroundings.access.clone() else {
            return Err(watch::Error::Denied(EMPTY.into()));
        };
        crate::capability::watch::read(&access, &slot, &path, offset, limit).await
    }
}

impl probe::Host for Context {
    async fn ask(
        &mut self,
        slot: String,
        addresses: Vec<String>,
        timeout: u32,
    ) -> Result<Vec<probe::Outcome>, probe::Error> {
        let facilities = self
            .facilities()
            .ok_or_else(|| probe::Error::Denied(EMPTY.into()))?;
        facilities
            .probe
            .ask(&self.surroundings.guard, &slot, &addresses, timeout)
            .await
    }
}
