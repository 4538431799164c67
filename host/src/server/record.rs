//! One request in the log and the metrics: a line when it starts, a line and a count when its answer has been sent or given up.

use std::borrow::Cow;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::answer::Refusal;
use crate::sandbox::bindings::types::Audience;
use crate::telemetry::metrics::{ListenerMetrics, Metrics, PluginMetrics};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");
/// The longest request or session id taken over, in bytes. 128: twice what Foreman or any tracing system sends.
const MAX_ID: usize = 128;
/// The most bytes of a path or query in a log line. 1 KiB: the rest of a 16 KiB request line tells nobody anything.
const MAX_LOGGED: usize = 1024;
/// Query parameters that are credentials: provisioning tokens, registration tokens, passwords.
const CREDENTIALS: [&str; 5] = ["token", "jwt", "password", "secret", "auth_token"];

/// The id of a request: `X-Request-Id` if it is printable and short, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> Arc<str> {
    match given_id(headers, &X_REQUEST_ID) {
        Some(id) => id.into(),
        None => uuid::Uuid::new_v4().to_string().into(),
    }
}

fn given_id<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let id = headers.get(name)?.to_str().ok()?;
    let usable =
        !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then_some(id)
}

/// The numbers, with those at hand that nearly every request needs.
pub(super) struct Counts {
    metrics: Arc<Metrics>,
    core: Arc<PluginMetrics>,
    nobody: Arc<PluginMetrics>,
}

impl Counts {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            core: metrics.plugin("core"),
            nobody: metrics.plugin("none"),
            metrics,
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// Follows one request. Its drop writes the last line.
pub(super) struct Record {
    counts: Arc<Counts>,
    listener: Arc<ListenerMetrics>,
    began: Instant,
    client: IpAddr,
    id: Arc<str>,
    method: Method,
    path: String,
    /// Who answers; none: the host itself.
    plugin: Option<Arc<str>>,
    /// None: nobody answers that path.
    audience: Option<Audience>,
    status: Option<StatusCode>,
    bytes: u64,
    complete: bool,
}

impl Record {
    /// The request's head is complete.
    pub(super) fn begin(
        counts: Arc<Counts>,
        listener: Arc<ListenerMetrics>,
        parts: &Parts,
        client: IpAddr,
        id: Arc<str>,
    ) -> Self {
        let path = shorten(parts.uri.path()).to_owned();
        let query = hide_credentials(shorten(parts.uri.query().unwrap_or_default()));
        // All requests that a user's session at Foreman caused carry one such id. Only Foreman sends it; nobody gets an invented one.
        let session = given_id(&parts.headers, &X_SESSION_ID);
        tracing::info!(request_id = %id, %client, session, "Started {} {path} {query}", parts.method);
        Self {
            counts,
            listener,
            began: Instant::now(),
            client,
            id,
            method: parts.method.clone(),
            path,
            plugin: None,
            audience: None,
            status: None,
            bytes: 0,
            complete: false,
        }
    }

    /// The request's id.
    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Who will answer (none: the host), and for which audience.
    pub(super) fn is_for(&mut self, plugin: Option<Arc<str>>, audience: Audience) {
        self.plugin = plugin;
        self.audience = Some(audience);
    }

    /// The host answers by itself. What is the caller's fault is an ordinary event; what is ours was logged where it happened.
    pub(super) fn refused(&self, refusal: &Refusal) {
        let status = refusal.status();
        if status != StatusCode::NOT_FOUND {
            tracing::warn!(request_id = %self.id, client = %self.client, status = status.as_u16(), "{refusal}");
        }
    }

    /// The answer's head is ready; its body carries the record on.
    pub(super) fn answered(mut self, response: Response<Body>) -> Response<Recorded> {
        let status = response.status();
        self.count(status);
        let empty = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.complete = empty || self.method == Method::HEAD;
        response.map(|body| {
            self.complete |= http_body::Body::is_end_stream(&body);
            Recorded { body, record: self }
        })
    }

    fn count(&mut self, status: StatusCode) {
        self.status = Some(status);
        let whose = match (&self.plugin, self.audience) {
            (Some(plugin), _) => self.counts.metrics.plugin(plugin),
            (None, Some(_)) => self.counts.core.clone(),
            (None, None) => self.counts.nobody.clone(),
        };
        self.listener
            .answered(&whose, &self.method, status, self.began.elapsed());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let milliseconds = self.began.elapsed().as_secs_f64() * 1000.0;
        let Some(status) = self.status else {
            tracing::info!(
                request_id = %self.id, client = %self.client, by = self.plugin.as_deref(),
                "Gave up {} {} ({milliseconds:.2} ms): the connection ended before the answer", self.method, self.path,
            );
            return;
        };
        tracing::info!(
            request_id = %self.id, client = %self.client, by = self.plugin.as_deref(), bytes = self.bytes, complete = self.complete,
            "Finished {} {} with {} ({milliseconds:.2} ms)", self.method, self.path, status.as_u16(),
        );
    }
}

/// The body of an answer, followed to its end.
pub(super) struct Recorded {
    body: Body,
    record: Record,
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let size = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.record.bytes = self.record.bytes.saturating_add(size);
                self.record.complete = self.body.is_end_stream();
            }
            Poll::Ready(None) => self.record.complete = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The gate let only ASCII through, so every place is a boundary of characters.
fn shorten(text: &str) -> &str {
    text.get(..MAX_LOGGED).unwrap_or(text)
}

fn hide_credentials(query: &str) -> Cow<'_, str> {
    let is_credential = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        CREDENTIALS
            .iter()
            .any(|credential| name.eq_ignore_ascii_case(credential))
    };
    if !query.split('&').any(is_credential) {
        return Cow::Borrowed(query);
    }
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_credential(pair) => Cow::Owned(format!("{name}=[hidden]")),
        _ => Cow::Borrowed(pair),
    });
    Cow::Owned(pairs.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_request_keeps_its_id_if_it_can_be_printed() {
        let id = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            request_id(&headers).to_string()
        };
        assert_eq!(id(b"3e93e73f-1"), "3e93e73f-1");
        for bad in [&b""[..], b"two words", b"\xff", &[b'a'; 129]] {
            assert_eq!(id(bad).len(), 36, "a new one instead of {bad:?}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }

    #[test]
    fn credentials_are_not_logged() {
        assert_eq!(hide_credentials("a=b&token=abc&c"), "a=b&token=[hidden]&c");
        assert_eq!(hide_credentials("Token=abc"), "Token=[hidden]");
        assert_eq!(hide_credentials("tokens=abc&x=token"), "tokens=abc&x=token");
    }

    #[test]
    fn log_lines_stay_short() {
        assert_eq!(shorten(&"a".repeat(5000)).len(), MAX_LOGGED);
        assert_eq!(shorten("short"), "short");
    }
}
