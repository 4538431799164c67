//! A request as a route's function sees it: admitted, routed and with its parameters read.

use std::str::FromStr;

use crate::bindings::imports::foreman::proxy::types;
use crate::failure::Failure;
use crate::form::BadForm;
use crate::params::{Params, Value};
use crate::{form, multipart};

/// One request. The host has checked audience, identity, limits and route already.
#[derive(Debug, Clone)]
pub struct Request {
    record: types::Request,
    params: Params,
}

impl Request {
    /// Reads the parameters: the query, then a form body, then what the pattern captured; the later wins.
    ///
    /// # Errors
    /// 400 when the query or the form is broken.
    pub(crate) fn read(record: types::Request) -> Result<Self, Failure> {
        let read = || -> Result<Params, BadForm> {
            let mut params = form::read(record.query.as_bytes())?;
            params.merge(read_body(&record)?);
            Ok(params)
        };
        let params = read().map_err(|problem| Failure::invalid_query(&problem.to_string()))?;
        Ok(Self::with_captures(record, params))
    }

    /// Reads captures only: on a route whose body is passed on, the query is for the upstream to judge.
    pub(crate) fn unread(record: types::Request) -> Self {
        Self::with_captures(record, Params::default())
    }

    fn with_captures(record: types::Request, mut params: Params) -> Self {
        for (name, value) in &record.captures {
            params.set(name, Value::Text(value.clone().into_bytes()));
        }
        Self { record, params }
    }

    /// The method, upper case.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.record.method
    }

    /// The normalised, percent-decoded path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.record.path
    }

    /// The raw query without `?`.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.record.query
    }

    /// The value of the first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.record.headers, name)
    }

    /// All headers, names in lower case.
    #[must_use]
    pub fn headers(&self) -> &[(String, String)] {
        &self.record.headers
    }

    /// The whole body; empty when the route takes none or passes it on.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.record.body
    }

    /// The media type of the body, lower case, without parameters.
    #[must_use]
    pub fn media_type(&self) -> Option<String> {
        media_type(&self.record.headers)
    }

    /// All parameters. On a route with `body_passed` only the pattern's captures.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// A parameter as text; none when it is missing, bare, nested or not UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.params.text(name)
    }

    /// A parameter as bytes; none when it is missing, bare or nested.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.params.bytes(name)
    }

    /// What the pattern captured under `name`, read as `T` (a number, an address, a [`crate::MacAddress`], ...).
    ///
    /// # Errors
    /// 400 with the type's own words; see [`Request::parse_or`] for another status.
    pub fn parse<T>(&self, name: &str) -> Result<T, Failure>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        self.parse_or(name, Failure::bad_request)
    }

    /// As [`Request::parse`], with the error made by `refuse`, e.g. `Failure::forbidden`.
    ///
    /// # Errors
    /// What `refuse` makes of the type's own words.
    pub fn parse_or<T>(
        &self,
        name: &str,
        refuse: impl FnOnce(String) -> Failure,
    ) -> Result<T, Failure>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        self.text(name)
            .unwrap_or_default()
            .parse()
            .map_err(|why: T::Err| refuse(why.to_string()))
    }
}

pub(crate) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

fn media_type(headers: &[(String, String)]) -> Option<String> {
    let value = header(headers, "content-type")?;
    let media_type = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    (!media_type.is_empty()).then_some(media_type)
}

/// A POST without any content type counts as a form; other types are not parameters.
fn read_body(record: &types::Request) -> Result<Params, BadForm> {
    if record.body.is_empty() {
        return Ok(Params::default());
    }
    match media_type(&record.headers).as_deref() {
        Some("application/x-www-form-urlencoded") => form::read(&record.body),
        None if record.method == "POST" => form::read(&record.body),
        Some("multipart/form-data") => {
            let boundary = header(&record.headers, "content-type").and_then(multipart::boundary);
            multipart::read(
                &record.body,
                boundary.ok_or(BadForm::Multipart("no boundary"))?,
            )
        }
        _ => Ok(Params::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(query: &str, content_type: Option<&str>, body: &str) -> types::Request {
        types::Request {
            method: "POST".to_owned(),
            route: 0,
            path: "/x".to_owned(),
            captures: vec![("mac".to_owned(), "captured".to_owned())],
            query: query.to_owned(),
            headers: content_type
                .map(|value| ("content-type".to_owned(), value.to_owned()))
                .into_iter()
                .collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn the_body_wins_over_the_query_and_captures_over_both() {
        let form = Some("application/x-www-form-urlencoded; charset=utf-8");
        let request =
            Request::read(record("a=query&b=query&mac=query", form, "a=body&mac=body")).unwrap();
        assert_eq!(
            (request.text("a"), request.text("b"), request.text("mac")),
            (Some("body"), Some("query"), Some("captured"))
        );
    }

    #[test]
    fn json_is_no_form_and_a_post_without_type_is_one() {
        assert_eq!(
            Request::read(record("", Some("application/json"), "a=1"))
                .unwrap()
                .text("a"),
            None
        );
        assert_eq!(
            Request::read(record("", None, "a=1")).unwrap().text("a"),
            Some("1")
        );
    }

    #[test]
    fn a_multipart_body_is_read() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"menu\"\r\n\r\nx\r\n--b--\r\n";
        let request =
            Request::read(record("", Some("multipart/form-data; boundary=b"), body)).unwrap();
        assert_eq!(request.text("menu"), Some("x"));
    }

    #[test]
    fn broken_escapes_are_a_400_with_the_contracts_text() {
        let failure = Request::read(record("a=%zz", None, "")).unwrap_err();
        assert_eq!(
            (failure.status(), failure.message()),
            (400, "Invalid query parameters: invalid %-encoding (%zz)")
        );
    }

    #[test]
    fn a_passed_request_leaves_the_query_unread() {
        let request = Request::unread(record("a=%zz", None, ""));
        assert_eq!(
            (request.query(), request.text("mac")),
            ("a=%zz", Some("captured"))
        );
    }
}
