//! Outgoing requests of `wasi:http` components: the same capability as `http-client`, under the same grants.
//!
//! Such a component names no slot. The first `http` slot whose grant covers the URL is used; if none does, the denial names the first
//! slot, or says that there is none. Bodies are collected whole within the plugin's limits.

use std::sync::Arc;

use http_body_util::BodyExt;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::bindings::types::{Outgoing, UpstreamError};
use super::context::{Peer, Surroundings};
use super::imports::via;
use crate::capability::upstream::Kind;
use crate::grant::Action;

/// The hooks of one instance.
pub(super) struct WasiHttp {
    surroundings: Arc<Surroundings>,
    peer: Option<Arc<Peer>>,
}

type Sent = Result<
    (
        http::Response<WasiBody>,
        Box<dyn Future<Output = Result<(), Error>> + Send>,
    ),
    Error,
>;

impl WasiHttp {
    pub(super) fn new(surroundings: Arc<Surroundings>) -> Self {
        Self {
            surroundings,
            peer: None,
        }
    }

    pub(super) fn enter(&mut self, peer: Option<Arc<Peer>>) {
        self.peer = peer;
    }
}

impl WasiHttpHooks for WasiHttp {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let (surroundings, peer) = (self.surroundings.clone(), self.peer.clone());
        Box::new(async move { send(&surroundings, peer.as_deref(), request, options).await })
    }
}

async fn send(
    surroundings: &Surroundings,
    peer: Option<&Peer>,
    request: http::Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Sent {
    let facilities = surroundings
        .facilities
        .as_ref()
        .ok_or(Error::HttpRequestDenied)?;
    let (head, body) = request.into_parts();
    let url = head.uri.to_string();
    let guard = &surroundings.guard;
    let effective = guard.effective();
    let covers = |slot: &&String| {
        guard.still_allows(&Action::Http {
            slot,
            method: head.method.as_str(),
            url: &url,
        })
    };
    let slot = effective
        .http
        .keys()
        .find(covers)
        .or_else(|| effective.http.keys().next())
        .cloned()
        .unwrap_or_else(|| "http".to_owned());
    let limit = usize::try_from(effective.limits.request_body).unwrap_or(usize::MAX);
    let body = http_body_util::Limited::new(body, limit)
        .collect()
        .await
        .map_err(|_| Error::HttpRequestBodySize(Some(effective.limits.request_body)))?
        .to_bytes();
    let outgoing = Outgoing {
        slot,
        method: head.method.as_str().to_owned(),
        target: url,
        headers: crate::capability::upstream::headers::to_list(&head.headers),
        body: body.to_vec(),
        timeout: options
            .and_then(|it| it.first_byte_timeout)
            .and_then(|it| u32::try_from(it.as_millis().max(1)).ok()),
    };
    let got = facilities
        .upstream
        .send(guard, Kind::Http, &via(peer), outgoing)
        .await
        .map_err(|error| match error {
            UpstreamError::Denied(_) => Error::HttpRequestDenied,
            UpstreamError::Timeout(_) => Error::ConnectionTimeout,
            UpstreamError::Unreachable(_) => Error::DestinationUnavailable,
            UpstreamError::Tls(_) => Error::TlsProtocolError,
            UpstreamError::Protocol(_) => Error::HttpProtocolError,
        })?;
    let mut response = http::Response::builder().status(got.status);
    for (name, value) in got.headers {
        response = response.header(name, value);
    }
    let body = http_body_util::Full::new(bytes::Bytes::from(got.body))
        .map_err(|never| match never {})
        .boxed_unsync();
    let response = response.body(body).map_err(|_| Error::HttpProtocolError)?;
    Ok((response, Box::new(std::future::ready(Ok(())))))
}
