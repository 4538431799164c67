//! The host side of every `foreman:proxy` import: each function asks the guard, then a capability, and speaks the contract's types.

use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker};

use super::bindings::imports::{caller, log, settings, site};
use super::bindings::types::Audience;
use super::context::{Context, Peer, Surroundings};

/// Links all of them.
pub(super) fn link(linker: &mut Linker<Context>) -> wasmtime::Result<()> {
    caller::add_to_linker::<_, HasSelf<Context>>(linker, |it| it)?;
    site::add_to_linker::<_, HasSelf<Context>>(linker, |it| it)?;
    settings::add_to_linker::<_, HasSelf<Context>>(linker, |it| it)?;
    log::add_to_linker::<_, HasSelf<Context>>(linker, |it| it)?;
    Ok(())
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
        let _ = (level, message);
    }
}

/// Outgoing requests of `wasi:http` components.
pub(super) struct Outgoing {
    surroundings: Arc<Surroundings>,
    peer: Option<Arc<Peer>>,
}

impl Outgoing {
    pub(super) fn new(surroundings: Arc<Surroundings>) -> Self {
        Self { surroundings, peer: None }
    }

    pub(super) fn enter(&mut self, peer: Option<Arc<Peer>>) {
        self.peer = peer;
    }
}

impl wasmtime_wasi_http::WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        _request: http::Request<wasmtime_wasi_http::WasiBody>,
        _options: Option<wasmtime_wasi_http::RequestOptions>,
        _fut: Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>,
    ) -> Box<
        dyn Future<
                Output = Result<
                    (
                        http::Response<wasmtime_wasi_http::WasiBody>,
                        Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>,
                    ),
                    wasmtime_wasi_http::Error,
                >,
            > + Send,
    > {
        let _ = (&self.surroundings, &self.peer);
        Box::new(async { Err(wasmtime_wasi_http::Error::HttpRequestDenied) })
    }
}
