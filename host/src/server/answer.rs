//! What the host answers by itself, and the headers that every answer carries. The one place where errors become HTTP.
//!
//! It never shows a stack trace, a reason that belongs in the log, or a path of the machine: an internal error is a request id.
//!
//! The one idea: a [`Refusal`] says what happened; status, text and shape follow from it here. The shapes are those of
//! contract/core.md section 3: a web server's HTML page for broken HTTP, plain text labelled by `Accept` for everything
//! deliberate (`halt`), and the one 404 for whatever is not there.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};

use super::identity::IdentityError;
use super::path::PathError;

const HTML: &str = "text/html;charset=utf-8";
const JSON: &str = "application/json";
const X_CASCADE: HeaderName = HeaderName::from_static("x-cascade");
const X_FRAME_OPTIONS: HeaderName = HeaderName::from_static("x-frame-options");
const X_XSS_PROTECTION: HeaderName = HeaderName::from_static("x-xss-protection");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");
const X_ORIGIN: HeaderName = HeaderName::from_static("x-origin");

/// Why the host answers by itself instead of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The head has no single reading.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    /// The path has no single reading.
    #[error("the request is malformed: {0}")]
    Path(#[from] PathError),
    /// The request line is longer than the limit, in bytes.
    #[error("the request line is longer than {limit} bytes")]
    RequestLineTooLong {
        /// Bytes.
        limit: usize,
    },
    /// The head is larger than the limit, in bytes.
    #[error("the request head is larger than {limit} bytes")]
    HeadTooLarge {
        /// Bytes.
        limit: usize,
    },
    /// More header lines than the limit.
    #[error("the request has more than {limit} header lines")]
    TooManyHeaders {
        /// Lines.
        limit: usize,
    },
    /// The head began and did not end in time.
    #[error("the request head did not arrive in time")]
    HeadTimeout,
    /// POST, PUT or PATCH without a length.
    #[error("a request with this method has to say how long its body is")]
    LengthRequired,
    /// Not HTTP/1.0 or 1.1.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    VersionNotSupported,
    /// Plain HTTP on a port that speaks TLS.
    #[error("this port speaks HTTPS; the request came as plain HTTP")]
    PlainOnTls,
    /// The body is larger than the route or the listener allows, in bytes.
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge {
        /// Bytes.
        limit: u64,
    },
    /// The body began and did not go on, or did not end in time.
    #[error("the request body did not arrive in time")]
    BodyTimeout,
    /// The body broke off or its chunks are malformed.
    #[error("the request body is malformed or incomplete")]
    BodyBroken,
    /// Nothing is there for this caller.
    #[error("Requested url was not found")]
    NotFound,
    /// The caller is not who the route is for.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A trial listener was called under a name that is not its own, or by a web page.
    #[error(
        "This proxy runs on trial: it answers only programs on this machine that call it by its own name"
    )]
    NotOwnName,
    /// The answer would show JSON to a page of another site.
    #[error("Forbidden")]
    ForeignPage,
    /// Too much is going on: the plugin's calls and queue, or the memory for bodies.
    #[error("Too many requests at the moment, try again later")]
    Busy {
        /// When to come back.
        retry_after: Duration,
    },
    /// This client asks more often than one may.
    #[error("Too many requests from this address, try again later")]
    TooOften {
        /// When to come back.
        retry_after: Duration,
    },
    /// The plugin is starting or being replaced.
    #[error("This feature is not ready yet, try again later")]
    NotReady {
        /// When to come back.
        retry_after: Duration,
    },
    /// The plugin did not answer within its time.
    #[error("This feature did not answer in time (request {request_id})")]
    Deadline {
        /// For finding the reason in the log.
        request_id: String,
    },
    /// The plugin failed; why is in the log.
    #[error("Internal error (request {request_id})")]
    Failed {
        /// For finding the reason in the log.
        request_id: String,
    },
}

/// Spreads callers that come back, so that they do not come back together: up to twice the time.
pub(super) fn spread(time: Duration) -> Duration {
    time + time.mul_f64(rand::random::<f64>())
}

/// How a refusal is shown.
enum Shape {
    /// A page as a web server makes it.
    Page,
    /// Plain text, labelled JSON if the client admits it.
    Halt,
    /// Plain text.
    Text,
}

impl Refusal {
    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Path(_) | Self::PlainOnTls | Self::BodyBroken => {
                StatusCode::BAD_REQUEST
            }
            Self::RequestLineTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge { .. } | Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyHeaders { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeadTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::LengthRequired => StatusCode::LENGTH_REQUIRED,
            Self::VersionNotSupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Identity(_) | Self::NotOwnName | Self::ForeignPage => StatusCode::FORBIDDEN,
            Self::Busy { .. } | Self::NotReady { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooOften { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer to a client that sent this `Accept` header.
    pub fn into_response(self, accept: Option<&HeaderValue>) -> Response<Body> {
        let (kind, text) = match self.shape() {
            Shape::Page => (HTML, self.page()),
            Shape::Halt if self == Self::NotFound || admits_json(accept) => {
                (JSON, self.to_string())
            }
            Shape::Halt => (HTML, escape(&self.to_string())),
            Shape::Text => ("text/plain", self.to_string()),
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        match self {
            Self::NotFound => {
                headers.insert(X_CASCADE, HeaderValue::from_static("pass"));
            }
            Self::Busy { retry_after }
            | Self::TooOften { retry_after }
            | Self::NotReady { retry_after } => {
                let seconds = retry_after
                    .as_secs()
                    .saturating_add(u64::from(retry_after.subsec_nanos() > 0));
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
            }
            _ => {}
        }
        response
    }

    /// The whole answer as bytes, for a connection that speaks no HTTP yet or no longer. It always closes.
    pub(super) fn into_bytes(self, server: &HeaderValue) -> Vec<u8> {
        let page = self.page();
        let (status, length) = (self.status(), page.len());
        let reason = status.canonical_reason().unwrap_or("Error");
        let date = httpdate::fmt_http_date(SystemTime::now());
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\nserver: ", status.as_u16()).into_bytes();
        bytes.extend_from_slice(server.as_bytes());
        let rest = format!(
            "\r\ndate: {date}\r\ncontent-type: {HTML}\r\ncontent-length: {length}\r\nx-content-type-options: nosniff\r\n\
             x-xss-protection: 1; mode=block\r\nx-frame-options: SAMEORIGIN\r\nconnection: close\r\n\r\n{page}"
        );
        bytes.extend_from_slice(rest.as_bytes());
        bytes
    }

    fn shape(&self) -> Shape {
        match self {
            Self::Malformed(_)
            | Self::Path(_)
            | Self::RequestLineTooLong { .. }
            | Self::HeadTooLarge { .. }
            | Self::TooManyHeaders { .. }
            | Self::HeadTimeout
            | Self::LengthRequired
            | Self::VersionNotSupported
            | Self::PlainOnTls
            | Self::BodyTooLarge { .. }
            | Self::BodyTimeout
            | Self::BodyBroken => Shape::Page,
            Self::NotFound
            | Self::Identity(_)
            | Self::Busy { .. }
            | Self::TooOften { .. }
            | Self::NotReady { .. }
            | Self::Deadline { .. }
            | Self::Failed { .. } => Shape::Halt,
            Self::NotOwnName | Self::ForeignPage => Shape::Text,
        }
    }

    /// The texts shown in a page are fixed or hold numbers, so nothing of the request comes back as HTML.
    fn page(&self) -> String {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or("Error");
        format!(
            "<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n<body><h1>{title}</h1>\n<p>{self}</p></body></html>\n"
        )
    }
}

/// Names and paths come from the caller: shown as HTML they must not become markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Whether a client with this `Accept` header takes `application/json`: no header, `*/*`, `application/*`, `application/json` with any parameters.
pub fn admits_json(accept: Option<&HeaderValue>) -> bool {
    let Some(accept) = accept else { return true };
    let Ok(accept) = accept.to_str() else {
        return false;
    };
    accept.trim().is_empty()
        || accept.split(',').any(|range| {
            let kind = range.split(';').next().unwrap_or_default().trim();
            ["*/*", "application/*", "application/json"]
                .iter()
                .any(|known| kind.eq_ignore_ascii_case(known))
        })
}

/// A deliberate error in the form of the Smart Proxy API: the text as it is, labelled JSON if the client admits it.
pub fn halt(status: StatusCode, text: String, accept: Option<&HeaderValue>) -> Response<Body> {
    let kind = if admits_json(accept) { JSON } else { HTML };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// What of a request decides the headers of its answer.
#[derive(Debug)]
pub(super) struct Manners {
    version: Version,
    /// The client wants the connection closed.
    closes: bool,
    /// A page of another site asks: it may not read JSON.
    foreign_page: bool,
    request_id: HeaderValue,
}

impl Manners {
    /// Reads a request's headers. `host` is the host it was sent to, without port.
    pub(super) fn of(version: Version, headers: &HeaderMap, host: &str, request_id: &str) -> Self {
        let closes = headers.get_all(header::CONNECTION).iter().any(|value| {
            value.to_str().is_ok_and(|text| {
                text.split(',')
                    .any(|word| word.trim().eq_ignore_ascii_case("close"))
            })
        });
        Self {
            version,
            closes,
            foreign_page: is_foreign_page(headers, host),
            request_id: HeaderValue::from_str(request_id).unwrap_or(HeaderValue::from_static("")),
        }
    }

    /// Gives an answer the headers that all answers have. `closing`: the host will close the connection.
    pub(super) fn finish(
        &self,
        response: Response<Body>,
        server: &HeaderValue,
        closing: bool,
    ) -> Response<Body> {
        let mut response = match self.foreign_page && has_type(&response, JSON) {
            true => Refusal::ForeignPage.into_response(None),
            false => response,
        };
        let html = has_type(&response, "text/html");
        let headers = response.headers_mut();
        headers.insert(header::SERVER, server.clone());
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        headers.insert(X_REQUEST_ID, self.request_id.clone());
        if html {
            headers.insert(X_XSS_PROTECTION, HeaderValue::from_static("1; mode=block"));
            headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
        }
        // hyper answers HTTP/1.0 and `Connection: close` by itself; two headers would contradict each other.
        if closing {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        } else if self.version == Version::HTTP_11 && !self.closes {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Keep-Alive"));
        }
        response
    }
}

fn has_type(response: &Response<Body>, wanted: &str) -> bool {
    let kind = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    kind.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case(wanted)
}

/// The guard against pages that load JSON as a script: a `Referer` of another host, without `Origin` and not sent by script.
fn is_foreign_page(headers: &HeaderMap, host: &str) -> bool {
    let Some(referer) = headers
        .get(header::REFERER)
        .filter(|referer| !referer.is_empty())
    else {
        return false;
    };
    let by_script = headers
        .get(X_REQUESTED_WITH)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"XMLHttpRequest"));
    if by_script || headers.contains_key(header::ORIGIN) || headers.contains_key(X_ORIGIN) {
        return false;
    }
    match referer.to_str().map(url::Url::parse) {
        Ok(Ok(page)) => page
            .host_str()
            .is_some_and(|page| !page.eq_ignore_ascii_case(host)),
        Ok(Err(url::ParseError::RelativeUrlWithoutBase)) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn shown(refusal: Refusal, accept: Option<&str>) -> (u16, String, String) {
        let accept = accept.map(|accept| HeaderValue::from_str(accept).unwrap());
        let response = refusal.into_response(accept.as_ref());
        let kind = response.headers()[header::CONTENT_TYPE]
            .to_str()
            .unwrap()
            .to_owned();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_unknown_is_the_contracts_404() {
        let response =
            Refusal::NotFound.into_response(Some(&HeaderValue::from_static("text/html")));
        assert_eq!(response.headers()["x-cascade"], "pass");
        let (status, kind, body) = shown(Refusal::NotFound, Some("text/html")).await;
        assert_eq!(
            (status, kind.as_str(), body.as_str()),
            (404, "application/json", "Requested url was not found")
        );
    }

    #[tokio::test]
    async fn deliberate_errors_are_plain_text_labelled_by_accept() {
        let refusal = Refusal::Identity(IdentityError::NoCertificate);
        for accept in [
            None,
            Some("*/*"),
            Some("application/*"),
            Some("text/html, application/json;version=2"),
        ] {
            let (status, kind, body) = shown(refusal.clone(), accept).await;
            assert_eq!(
                (status, kind.as_str()),
                (403, "application/json"),
                "{accept:?}"
            );
            assert_eq!(body, "No client SSL certificate supplied");
        }
        assert_eq!(
            shown(refusal, Some("text/html")).await.1,
            "text/html;charset=utf-8"
        );
    }

    #[tokio::test]
    async fn nothing_of_the_request_becomes_markup() {
        let refusal = IdentityError::Untrusted {
            name: "a.example.com".into(),
            path: "/<script>".to_owned(),
        };
        let (_, _, body) = shown(Refusal::Identity(refusal), Some("text/html")).await;
        assert!(
            body.contains("/&lt;script&gt;") && !body.contains('<'),
            "{body}"
        );
    }

    #[tokio::test]
    async fn broken_http_is_an_html_page() {
        let (status, kind, body) = shown(Refusal::Path(PathError::AboveRoot), None).await;
        assert_eq!((status, kind.as_str()), (400, "text/html;charset=utf-8"));
        assert!(body.contains("<h1>Bad Request</h1>"), "{body}");
    }

    #[tokio::test]
    async fn busy_says_when_to_come_back() {
        let response = Refusal::Busy {
            retry_after: Duration::from_millis(1500),
        }
        .into_response(None);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn bytes_are_a_complete_answer() {
        let bytes =
            Refusal::HeadTimeout.into_bytes(&HeaderValue::from_static("foreman-proxy/3.11.0"));
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 408 Request Timeout\r\nserver: foreman-proxy/3.11.0\r\n"),
            "{head}"
        );
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn json_is_not_shown_to_pages_of_other_sites() {
        let foreign = |pairs: &[(&'static str, &'static str)]| {
            is_foreign_page(&headers(pairs), "proxy.example.com")
        };
        assert!(foreign(&[("referer", "http://evil.example.net/page")]));
        assert!(foreign(&[("referer", "http://[broken")]));
        assert!(!foreign(&[("referer", "https://PROXY.example.com:8443/x")]));
        assert!(!foreign(&[]));
        assert!(!foreign(&[("referer", "")]));
        assert!(!foreign(&[
            ("referer", "http://evil.example.net/"),
            ("x-requested-with", "XMLHttpRequest")
        ]));
        assert!(!foreign(&[
            ("referer", "http://evil.example.net/"),
            ("origin", "http://evil.example.net")
        ]));
    }

    #[test]
    fn every_answer_carries_the_default_headers() {
        let manners = Manners::of(Version::HTTP_11, &HeaderMap::new(), "a", "id-1");
        let server = HeaderValue::from_static("foreman-proxy/3.11.0");
        let answer = manners.finish(Refusal::LengthRequired.into_response(None), &server, false);
        let expected = [
            ("server", "foreman-proxy/3.11.0"),
            ("x-content-type-options", "nosniff"),
            ("x-request-id", "id-1"),
            ("x-frame-options", "SAMEORIGIN"),
            ("x-xss-protection", "1; mode=block"),
            ("connection", "Keep-Alive"),
        ];
        for (name, value) in expected {
            assert_eq!(answer.headers()[name], value);
        }
        let json = manners.finish(Refusal::NotFound.into_response(None), &server, true);
        assert!(!json.headers().contains_key("x-frame-options"));
        assert_eq!(json.headers()["connection"], "close");
    }
}
