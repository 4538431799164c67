//! One request, written down part by part and sent on a connection of its own, as Foreman does.

use crate::http::{Response, Target};

/// The content type of Foreman's bodies.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// A request being written.
#[derive(Debug)]
pub struct Exchange<'a> {
    target: &'a Target,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(target: &'a Target, method: &str, path: &str) -> Self {
        let headers = vec![("Host".to_owned(), target.host())];
        Self {
            target,
            method: method.to_owned(),
            path: path.to_owned(),
            headers,
            body: None,
        }
    }

    /// Adds a header; one of that name is replaced.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The headers Foreman's client sends with every call (contract/foreman-client.md section 1).
    pub fn as_foreman(self) -> Self {
        self.header("Accept", "application/json")
            .header(
                "User-Agent",
                "rest-client/2.1.0 (linux x86_64) ruby/3.0.4p208",
            )
            .header("Accept-Encoding", "gzip;q=1.0,deflate;q=0.6,identity;q=0.3")
            .header("X-Request-Id", "3e93e73f-5d8c-4a43-9d3f-7f5b2f8c4d10")
            .header("X-Session-Id", "8c1f0a53-2b64-4a0c-b9a5-0e6d1d3a7b22")
    }

    /// A body of this type, with its length.
    pub fn body(self, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref().to_vec();
        let mut this = self
            .header("Content-Type", content_type)
            .header("Content-Length", &body.len().to_string());
        this.body = Some(body);
        this
    }

    /// A form, encoded as Foreman does: `[` and `]` stay, a space is `+`, other bytes `%XX`.
    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        let encoded = fields
            .iter()
            .map(|(name, value)| format!("{}={}", form_encoded(name), form_encoded(value)))
            .collect::<Vec<_>>()
            .join("&");
        self.body(FORM, encoded)
    }

    /// The bytes as they go on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend(self.body.iter().flatten());
        bytes
    }

    /// Sends it and reads the answer; any failure to get one is an error.
    pub fn try_send(&self) -> std::io::Result<Response> {
        self.target.send(self.bytes())?.response(&self.method)
    }

    /// Sends it and reads the answer; fails the test when there is none.
    #[track_caller]
    pub fn send(&self) -> Response {
        match self.try_send() {
            Ok(response) => response,
            Err(error) => panic!("{} {} got no answer: {error}", self.method, self.path),
        }
    }
}

/// A form field's name or value on the wire.
pub fn form_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' | b'[' | b']' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
