//! The request path, normalised once: percent-decoded, without `//`, `.` or `..`.
//!
//! It refuses what could mean different things to different readers: `..` above the root, broken percent escapes, control
//! characters, text that is not UTF-8. A second decoding never happens: `%252e` is the text `%2e` from here on.
//!
//! The one idea: `%2F` and `%2e%2e` are decoded *before* segments are split and resolved (contract/core.md section 3), so
//! routing, policy and plugins see the same path that a file system would.

use std::fmt;

use percent_encoding::percent_decode_str;

/// A path as routes and plugins see it. Begins with `/`; no segment but the last is empty; none is `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath(String);

/// Why a path is refused. Always a 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("the path has a broken percent escape")]
    BrokenEscape,
    /// The decoded bytes are not text.
    #[error("the path is not UTF-8")]
    NotText,
    /// NUL, line breaks and the like, raw or escaped.
    #[error("the path holds a control character")]
    ControlCharacter,
    /// More `..` than segments before it.
    #[error("the path leads above the root")]
    AboveRoot,
}

impl NormalPath {
    /// Normalises the path of a request target (without query).
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        if is_normal(raw) {
            return Ok(Self(raw.to_owned()));
        }
        check_escapes(raw)?;
        let decoded = percent_decode_str(raw)
            .decode_utf8()
            .map_err(|_| PathError::NotText)?;
        if decoded.chars().any(char::is_control) {
            return Err(PathError::ControlCharacter);
        }
        resolve(&decoded).map(Self)
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, without the empty one that a trailing slash makes.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// Whether it ends with `/`. `/dns/` and `/dns` are different routes.
    pub fn has_trailing_slash(&self) -> bool {
        self.0.ends_with('/')
    }

    /// The text, owned.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for NormalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether nothing has to be done, which is so for nearly every request.
fn is_normal(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    let plain = bytes
        .iter()
        .all(|byte| (0x20..0x7f).contains(byte) && *byte != b'%');
    plain
        && !bytes
            .windows(2)
            .any(|pair| matches!(pair, [b'/', b'/' | b'.']))
}

fn check_escapes(raw: &str) -> Result<(), PathError> {
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next(), bytes.next()];
            if !digits
                .iter()
                .all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit()))
            {
                return Err(PathError::BrokenEscape);
            }
        }
    }
    Ok(())
}

/// Removes empty segments, `.` and `..`. As in RFC 3986 section 5.2.4, a dotted last segment leaves a trailing slash.
fn resolve(path: &str) -> Result<String, PathError> {
    let mut kept: Vec<&str> = Vec::new();
    let mut slash = true;
    for segment in path.split('/') {
        slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or(PathError::AboveRoot)?;
            }
            _ => kept.push(segment),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in &kept {
        normal.push('/');
        normal.push_str(segment);
    }
    if slash || kept.is_empty() {
        normal.push('/');
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(raw: &str) -> Result<String, PathError> {
        NormalPath::parse(raw).map(NormalPath::into_string)
    }

    #[test]
    fn ordinary_paths_stay_as_they_are() {
        for path in [
            "/",
            "/features",
            "/dns/",
            "/tftp/PXEGrub2/aa:bb:cc:dd:ee:ff",
            "/dhcp/192.0.2.0/mac/..x",
            "/a/...",
            "/a;b/c",
        ] {
            assert_eq!(normal(path).unwrap(), path);
        }
    }

    #[test]
    fn repeated_slashes_collapse() {
        assert_eq!(normal("//features").unwrap(), "/features");
        assert_eq!(normal("/a///b//").unwrap(), "/a/b/");
        assert_eq!(normal("///").unwrap(), "/");
    }

    #[test]
    fn an_escaped_slash_separates_segments() {
        assert_eq!(normal("/tftp%2FPXEGrub2%2fx").unwrap(), "/tftp/PXEGrub2/x");
        assert_eq!(normal("/a%3Ab").unwrap(), "/a:b");
        assert_eq!(normal("/a+b%20c").unwrap(), "/a+b c");
    }

    #[test]
    fn dots_resolve_inside_and_are_refused_above_the_root() {
        assert_eq!(normal("/a/../b").unwrap(), "/b");
        assert_eq!(normal("/a/b/%2e%2E/c").unwrap(), "/a/c");
        assert_eq!(normal("/a/b/..").unwrap(), "/a/");
        assert_eq!(normal("/a/.").unwrap(), "/a/");
        assert_eq!(normal("/a/./b").unwrap(), "/a/b");
        for path in [
            "/..",
            "/../a",
            "/a/../../b",
            "/%2e%2e",
            "/%2e./x",
            "//../x",
            "/a/%2e%2e%2f%2e%2e%2fb",
        ] {
            assert_eq!(normal(path), Err(PathError::AboveRoot), "{path}");
        }
    }

    #[test]
    fn an_escape_is_decoded_once() {
        assert_eq!(normal("/%252e%252e/a").unwrap(), "/%2e%2e/a");
    }

    #[test]
    fn broken_text_is_refused() {
        assert_eq!(normal("/%zz"), Err(PathError::BrokenEscape));
        assert_eq!(normal("/a%2"), Err(PathError::BrokenEscape));
        assert_eq!(normal("/a%"), Err(PathError::BrokenEscape));
        assert_eq!(normal("/%ff"), Err(PathError::NotText));
        assert_eq!(normal("/a%00"), Err(PathError::ControlCharacter));
        assert_eq!(
            normal("/a%0d%0aSet-Cookie:x"),
            Err(PathError::ControlCharacter)
        );
        assert_eq!(normal("/a\u{7f}"), Err(PathError::ControlCharacter));
        assert_eq!(normal("/%C2%85"), Err(PathError::ControlCharacter));
        assert_eq!(normal(""), Err(PathError::NotAbsolute));
        assert_eq!(normal("*"), Err(PathError::NotAbsolute));
    }

    proptest! {
        #[test]
        fn no_result_holds_dots_or_empty_inner_segments(raw in r"/([ab/.%;]|%2e|%2F|%2f|%25|\.\.|//|%41){0,24}") {
            if let Ok(path) = normal(&raw) {
                prop_assert!(path.starts_with('/'));
                let segments: Vec<&str> = path[1..].split('/').collect();
                for (at, segment) in segments.iter().enumerate() {
                    prop_assert!(!matches!(*segment, "." | ".."), "{path}");
                    prop_assert!(!segment.is_empty() || at + 1 == segments.len(), "{path}");
                }
            }
        }

        #[test]
        fn any_text_is_handled_and_a_result_without_escapes_is_stable(raw in "\\PC{0,40}") {
            if let Ok(path) = normal(&format!("/{raw}")) && !path.contains('%') {
                prop_assert_eq!(normal(&path).unwrap(), path);
            }
        }
    }
}
