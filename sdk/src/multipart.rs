//! Reading a body of type `multipart/form-data` (RFC 7578).
//!
//! Every part becomes one parameter; what a part says beyond its name (file name, type) is dropped. Nested multiparts and
//! transfer encodings are refused by not being read: their bytes are the value.

use crate::form::BadForm;
use crate::params::{MAX_PARAMS, Params, Value};

/// Longest boundary (RFC 2046 section 5.1.1). A longer one would only make the search slow.
const MAX_BOUNDARY: usize = 70;

/// The `boundary` of a multipart content type. None: absent, empty or too long.
pub(crate) fn boundary(content_type: &str) -> Option<&str> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim().eq_ignore_ascii_case("boundary") && (1..=MAX_BOUNDARY).contains(&value.len()))
            .then_some(value)
    })
}

/// Reads all parts.
pub(crate) fn read(body: &[u8], boundary: &str) -> Result<Params, BadForm> {
    let mut params = Params::default();
    // Each delimiter stands at the beginning of a line; the line break before it belongs to it, not to the part.
    let delimiter = format!("\r\n--{boundary}");
    let opening = delimiter.trim_start().as_bytes();
    let mut rest = match body.strip_prefix(opening) {
        Some(rest) => rest,
        None => after(body, delimiter.as_bytes()).ok_or(BadForm::Multipart("no boundary"))?,
    };
    for _ in 0..MAX_PARAMS {
        if rest.starts_with(b"--") {
            return Ok(params);
        }
        rest = after(rest, b"\r\n").ok_or(BadForm::Multipart("cut off"))?;
        let end = find(rest, delimiter.as_bytes()).ok_or(BadForm::Multipart("cut off"))?;
        let (part, following) = rest.split_at(end);
        rest = following.get(delimiter.len()..).unwrap_or_default();
        let (headers, value) = split_part(part)?;
        if let Some(name) = part_name(headers) {
            params.insert(&name, Value::Text(value.to_vec()))?;
        }
    }
    Err(BadForm::TooMany)
}

/// Headers end at the first empty line; a part may have none.
fn split_part(part: &[u8]) -> Result<(&[u8], &[u8]), BadForm> {
    if let Some(value) = part.strip_prefix(b"\r\n") {
        return Ok((&[], value));
    }
    let end = find(part, b"\r\n\r\n").ok_or(BadForm::Multipart("a part without a body"))?;
    let (headers, value) = part.split_at(end);
    Ok((headers, value.get(4..).unwrap_or_default()))
}

fn part_name(headers: &[u8]) -> Option<String> {
    let headers = String::from_utf8_lossy(headers);
    headers.split("\r\n").find_map(|line| {
        let (field, value) = line.split_once(':')?;
        if !field.trim().eq_ignore_ascii_case("content-disposition") {
            return None;
        }
        value.split(';').skip(1).find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("name")
                .then(|| value.trim().trim_matches('"').to_owned())
        })
    })
}

fn after<'a>(bytes: &'a [u8], needle: &[u8]) -> Option<&'a [u8]> {
    bytes.get(find(bytes, needle)? + needle.len()..)
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: &[u8] = b"preamble\r\n--x y\r\nContent-Disposition: form-data; name=\"menu\"\r\n\r\nline\r\n--x\r\nlast\r\n\
        --x y\r\ncontent-disposition: form-data; name=a[b]; filename=\"f\"\r\nContent-Type: text/plain\r\n\r\n\xff\r\n--x y--\r\nrest";

    #[test]
    fn parts_become_parameters_byte_for_byte() {
        let params = read(BODY, "x y").unwrap();
        assert_eq!(params.text("menu"), Some("line\r\n--x\r\nlast"));
        assert_eq!(params.map("a").unwrap().bytes("b"), Some(&[0xff][..]));
        assert_eq!(params.len(), 2);
    }

    #[test]
    fn the_boundary_is_found_quoted_or_bare() {
        assert_eq!(
            boundary("multipart/form-data; boundary=\"x y\""),
            Some("x y")
        );
        assert_eq!(
            boundary("multipart/form-data; charset=utf-8; Boundary=abc"),
            Some("abc")
        );
        assert_eq!(boundary("multipart/form-data"), None);
        assert_eq!(boundary("multipart/form-data; boundary="), None);
        assert_eq!(
            boundary(&format!("multipart/form-data; boundary={}", "x".repeat(71))),
            None
        );
    }

    #[test]
    fn a_body_that_is_cut_off_is_refused() {
        for end in [
            "--x",
            "--x\r\n",
            "--x\r\nContent-Disposition: form-data; name=a\r\n\r\nvalue",
            "nothing",
        ] {
            assert!(
                matches!(read(end.as_bytes(), "x"), Err(BadForm::Multipart(_))),
                "{end:?} was accepted"
            );
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(body in proptest::collection::vec(prop_oneof![Just(b'-'), Just(b'x'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200)) {
            let _ = read(&body, "x");
        }
    }
}
