//! Components that export `wasi:http/incoming-handler@0.2` beside `lifecycle` are served through it.
//!
//! The request is the same one a `feature` export would get: routed, admitted and bounded. The answer is collected whole, up to the
//! plugin's transfer limit; streaming is what `forward` and `file` answers are for.

use http_body_util::BodyExt;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use super::bindings::types::{Answer, Reply, Request};
use super::instance::Live;

/// Calls `wasi:http/incoming-handler.handle` and collects the answer.
pub(super) async fn handle(
    live: &mut Live,
    request: Request,
    transfer: u64,
) -> wasmtime::Result<Answer> {
    let Live { store, http, .. } = live;
    let guest = http
        .as_ref()
        .ok_or_else(|| wasmtime::Error::msg("no `wasi:http/incoming-handler` export"))?;
    let origin = store
        .data()
        .peer()
        .map_or_else(|| "http://localhost".to_owned(), |peer| peer.origin.clone());
    let incoming = to_http(request, &origin)?;
    let scheme = if origin.starts_with("https:") {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let incoming = store
        .data_mut()
        .http()
        .new_incoming_request(scheme, incoming)?;
    let (sender, mut receiver) = tokio::sync::oneshot::channel();
    let outparam = store.data_mut().http().new_response_outparam(sender)?;

    // The body is read while the component writes it, else a large answer would wait for itself.
    let collected = async {
        let response = match (&mut receiver).await {
            Ok(Ok(response)) => response,
            Ok(Err(code)) => {
                return Err(wasmtime::Error::msg(format!(
                    "it answered with the error {code:?}"
                )));
            }
            Err(_) => return Err(wasmtime::Error::msg("it returned without an answer")),
        };
        let (parts, body) = response.into_parts();
        let limit = usize::try_from(transfer).unwrap_or(usize::MAX);
        let body = http_body_util::Limited::new(body, limit)
            .collect()
            .await
            .map_err(|error| wasmtime::Error::msg(format!("its answer's body: {error}")))?
            .to_bytes();
        Ok((parts, body))
    };
    let (called, collected) =
        futures::join!(guest.call_handle(store, incoming, outparam), collected);
    called?;
    let (parts, body) = collected?;
    let headers = parts
        .headers
        .iter()
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect();
    Ok(Answer::Reply(Reply {
        status: parts.status.as_u16(),
        headers,
        body: body.to_vec(),
    }))
}

fn to_http(
    request: Request,
    origin: &str,
) -> wasmtime::Result<hyper::Request<http_body_util::Full<bytes::Bytes>>> {
    let path = percent_encoding::utf8_percent_encode(&request.path, PATH).to_string();
    let target = if request.query.is_empty() {
        path
    } else {
        format!("{path}?{}", request.query)
    };
    let mut builder = hyper::Request::builder()
        .method(request.method.as_str())
        .uri(format!("{origin}{target}"));
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    Ok(builder.body(http_body_util::Full::new(bytes::Bytes::from(request.body)))?)
}

/// What may not stand in a path (RFC 3986 section 3.3).
const PATH: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'%');
