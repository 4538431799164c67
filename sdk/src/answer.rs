//! What a route's function may answer with: a whole reply, a file, or a forward.
//!
//! Large things are never carried by a plugin: a file is named and the host sends it, an upstream's answer is streamed by the host.
//!
//! Content types follow Foreman's Smart Proxy (`contract/core.md` section 3): a plain success is `text/html;charset=utf-8`, even when
//! it is empty, and an error is plain text labelled JSON for a client that accepts JSON.

use crate::bindings::imports::foreman::proxy::types::{
    self, FileAnswer, Forward as ForwardRecord, Reply, Source,
};
use crate::failure::Failure;
use crate::log;
use crate::request::Request;

/// The content type of a success that says nothing else.
pub const DEFAULT_TYPE: &str = "text/html;charset=utf-8";

/// The content type of JSON, without a charset.
pub const JSON_TYPE: &str = "application/json";

/// A finished answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer(types::Answer);

impl Answer {
    /// A reply with status 200 and [`DEFAULT_TYPE`].
    #[must_use]
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::typed(200, DEFAULT_TYPE, body)
    }

    /// A reply with its own status (200 to 599) and content type.
    #[must_use]
    pub fn typed(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self(types::Answer::Reply(Reply {
            status,
            headers,
            body: body.into(),
        }))
    }

    /// A file below a `files` slot. The host sends it, with ranges and conditions, and answers 403 and 404 itself.
    #[must_use]
    pub fn file(slot: &str, path: &str) -> Self {
        Self(types::Answer::File(FileAnswer {
            slot: slot.to_owned(),
            path: path.to_owned(),
            media_type: None,
        }))
    }

    /// The plain record, as the host gets it.
    #[must_use]
    pub fn into_record(self) -> types::Answer {
        self.0
    }
}

impl From<types::Answer> for Answer {
    fn from(record: types::Answer) -> Self {
        Self(record)
    }
}

/// A request that the host sends for the plugin; its answer goes to the client once [`crate::Plugin::on_upstream`] has seen the head.
/// The instance is free meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward(ForwardRecord);

impl Forward {
    /// To a `foreman` or `http` slot. `path` is path and query as they go on the wire.
    #[must_use]
    pub fn new(slot: &str, method: &str, path: impl Into<String>) -> Self {
        Self(ForwardRecord {
            slot: slot.to_owned(),
            method: method.to_owned(),
            path: path.into(),
            headers: Vec::new(),
            body: Source::Nothing,
            keep: Vec::new(),
        })
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.0.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds these headers.
    #[must_use]
    pub fn headers(mut self, headers: impl IntoIterator<Item = (String, String)>) -> Self {
        self.0.headers.extend(headers);
        self
    }

    /// Streams the client's body; only on a route with `body_passed`.
    #[must_use]
    pub fn incoming_body(mut self) -> Self {
        self.0.body = Source::Incoming;
        self
    }

    /// Sends these bytes.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.body = Source::Bytes(bytes.into());
        self
    }

    /// Hands these bytes (at most 64 KiB) to `on_upstream`, on whatever instance it runs.
    #[must_use]
    pub fn keep(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.keep = bytes.into();
        self
    }
}

/// A value answered as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// Anything a route's function may return.
pub trait IntoAnswer {
    /// The answer to `request`.
    fn into_answer(self, request: &Request) -> Answer;
}

impl IntoAnswer for Answer {
    fn into_answer(self, _: &Request) -> Answer {
        self
    }
}

/// 200 with an empty body.
impl IntoAnswer for () {
    fn into_answer(self, _: &Request) -> Answer {
        Answer::ok(Vec::new())
    }
}

impl IntoAnswer for String {
    fn into_answer(self, _: &Request) -> Answer {
        Answer::ok(self)
    }
}

impl IntoAnswer for &str {
    fn into_answer(self, _: &Request) -> Answer {
        Answer::ok(self)
    }
}

impl IntoAnswer for Vec<u8> {
    fn into_answer(self, _: &Request) -> Answer {
        Answer::ok(self)
    }
}

impl<T: serde::Serialize> IntoAnswer for Json<T> {
    fn into_answer(self, request: &Request) -> Answer {
        match serde_json::to_vec(&self.0) {
            Ok(body) => Answer::typed(200, JSON_TYPE, body),
            Err(why) => Failure::internal(format!("cannot write JSON: {why}")).into_answer(request),
        }
    }
}

impl IntoAnswer for Forward {
    fn into_answer(self, _: &Request) -> Answer {
        Answer(types::Answer::Forward(self.0))
    }
}

/// Logged once here, as an error, and answered in the Smart Proxy's form.
impl IntoAnswer for Failure {
    fn into_answer(self, request: &Request) -> Answer {
        failed(&self, request.header("accept"))
    }
}

impl<T: IntoAnswer, E: Into<Failure>> IntoAnswer for Result<T, E> {
    fn into_answer(self, request: &Request) -> Answer {
        match self {
            Ok(value) => value.into_answer(request),
            Err(failure) => failure.into().into_answer(request),
        }
    }
}

pub(crate) fn failed(failure: &Failure, accept: Option<&str>) -> Answer {
    log::error(failure.message());
    let content_type = if !failure.is_always_html() && accepts_json(accept) {
        JSON_TYPE
    } else {
        DEFAULT_TYPE
    };
    let mut answer = Answer::typed(failure.status(), content_type, failure.message());
    if let (Some(seconds), types::Answer::Reply(reply)) = (failure.retry_seconds(), &mut answer.0) {
        reply
            .headers
            .push(("retry-after".to_owned(), seconds.to_string()));
    }
    answer
}

/// No `Accept` at all accepts everything.
fn accepts_json(accept: Option<&str>) -> bool {
    let Some(accept) = accept.filter(|value| !value.trim().is_empty()) else {
        return true;
    };
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media_range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|parameter| matches!(parameter.split_once('='), Some(("q" | "Q", weight)) if weight.parse() == Ok(0.0_f32)));
        matches!(media_range.as_str(), "*/*" | "application/*" | JSON_TYPE) && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_accepted_as_the_contract_lists() {
        for accept in [
            None,
            Some(""),
            Some("*/*"),
            Some("application/*"),
            Some("application/json,version=2"),
            Some("text/html, application/json;q=0.5"),
        ] {
            assert!(accepts_json(accept), "{accept:?}");
        }
        for accept in [
            Some("text/html"),
            Some("text/*"),
            Some("application/json;q=0"),
            Some("application/xml"),
        ] {
            assert!(!accepts_json(accept), "{accept:?}");
        }
    }

    #[test]
    fn an_error_is_plain_text_labelled_as_the_client_likes() {
        let failure = Failure::forbidden("no");
        assert_eq!(failed(&failure, None), Answer::typed(403, JSON_TYPE, "no"));
        assert_eq!(
            failed(&failure, Some("text/html")),
            Answer::typed(403, DEFAULT_TYPE, "no")
        );
        assert_eq!(
            failed(&Failure::invalid_query("x"), None),
            Answer::typed(400, DEFAULT_TYPE, "Invalid query parameters: x")
        );
    }
}
