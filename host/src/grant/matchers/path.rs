//! Paths of URLs: which are in normal form, and patterns over them.
//!
//! A path is refused when any server could read it as another one: dot segments (also encoded), empty segments, `;`
//! parameters, backslashes, encoded slashes, percent-encoded letters, double encoding. What remains has one meaning, so a
//! pattern can be compared with it byte by byte.
//!
//! In a pattern `*` stands for any text inside one segment, and `**` as the last segment for everything below.

use super::PatternError;

/// Why a path or query is not in normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// It does not begin with `/`.
    #[error("does not begin with `/`")]
    Relative,
    /// `//`.
    #[error("has an empty segment (`//`)")]
    EmptySegment,
    /// `.` or `..`.
    #[error("has a `.` or `..` segment")]
    DotSegment,
    /// `;`, `\`, or a character that must not stand in a URL unencoded.
    #[error("has a character that servers read differently ({0:?})")]
    Character(char),
    /// `%` without two hexadecimal digits.
    #[error("has a broken percent escape")]
    BrokenEscape,
    /// An escape of a character that needs none, or that separates: `%2e`, `%2f`, `%5c`, `%3b`, `%25`, `%00`.
    #[error("has the escape `%{0:02x}`, which servers read differently")]
    Escape(u8),
}

/// Checks that a path (without query) has one meaning only. Never allocates.
pub fn check_path(path: &str) -> Result<(), PathProblem> {
    let inside = path.strip_prefix('/').ok_or(PathProblem::Relative)?;
    let mut segments = inside.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(PathProblem::EmptySegment);
        }
        if segment == "." || segment == ".." {
            return Err(PathProblem::DotSegment);
        }
        check_characters(segment, b"!$&'()*+,=:@")?;
    }
    Ok(())
}

/// Checks a query (without `?`). It takes no part in patterns, but must not end the request line or begin a fragment.
pub fn check_query(query: &str) -> Result<(), PathProblem> {
    let mut bytes = query.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                escape(&mut bytes)?;
            }
            b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' => {
                return Err(PathProblem::Character(char::from(byte)));
            }
            0x21..=0x7e => {}
            other => return Err(PathProblem::Character(char::from(other))),
        }
    }
    Ok(())
}

fn check_characters(segment: &str, allowed: &[u8]) -> Result<(), PathProblem> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let value = escape(&mut bytes)?;
            let ambiguous = value < 0x20
                || value == 0x7f
                || matches!(value, b'/' | b'\\' | b';' | b'%' | b'?' | b'#');
            if ambiguous || is_unreserved(value) {
                return Err(PathProblem::Escape(value));
            }
        } else if !is_unreserved(byte) && !allowed.contains(&byte) {
            return Err(PathProblem::Character(char::from(byte)));
        }
    }
    Ok(())
}

fn escape(bytes: &mut std::str::Bytes<'_>) -> Result<u8, PathProblem> {
    let mut digit = || {
        bytes
            .next()
            .and_then(|b| char::from(b).to_digit(16))
            .and_then(|d| u8::try_from(d).ok())
    };
    match (digit(), digit()) {
        (Some(high), Some(low)) => Ok(high << 4 | low),
        _ => Err(PathProblem::BrokenEscape),
    }
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Splits `/a/b?x=1` into path and query, and checks both.
pub fn split_target(target: &str) -> Result<(&str, &str), PathProblem> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    check_path(path)?;
    check_query(query)?;
    Ok((path, query))
}

/// A pattern over normal paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
}

impl PathPattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let literal = text.replace('*', "x");
        check_path(&literal).map_err(|problem| PatternError::new(text, problem.to_string()))?;
        let mut segments = text.split('/').peekable();
        while let Some(segment) = segments.next() {
            let misplaced =
                segment.contains("**") && (segment != "**" || segments.peek().is_some());
            if misplaced {
                return Err(
                    PatternError::new(text, "`**` stands alone as the last segment")
                        .help("for example `/servers/**`"),
                );
            }
        }
        Ok(Self {
            text: text.to_owned(),
        })
    }

    /// A pattern that covers every normal path.
    #[must_use]
    pub fn any() -> Self {
        Self {
            text: "/**".to_owned(),
        }
    }

    /// Whether the pattern covers a path that [`check_path`] accepted.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let mut wanted = self.text.split('/');
        let mut asked = path.split('/');
        loop {
            match (wanted.next(), asked.next()) {
                (Some("**"), Some(_)) => return true,
                (Some(pattern), Some(segment)) if segment_covers(pattern, segment) => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// `*` in one segment: the pieces between stars appear in order, the first at the start and the last at the end.
/// A bare `*` covers no empty segment. Linear but for `find`, which is bounded by the segment.
fn segment_covers(pattern: &str, segment: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == segment;
    };
    if segment.is_empty() {
        return false;
    }
    let Some(mut left) = segment.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = rest
        .rsplit_once('*')
        .map_or(("", rest), |(middle, last)| (middle, last));
    for piece in middle.split('*').filter(|piece| !piece.is_empty()) {
        let Some((_, after)) = left.split_once(piece) else {
            return false;
        };
        left = after;
    }
    left.ends_with(last)
}

/// A method and a path pattern: `GET /register`, `* /api/**`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodPath {
    /// Upper case. None: every method.
    pub method: Option<String>,
    /// The paths.
    pub path: PathPattern,
}

impl MethodPath {
    /// Parses `METHOD /path`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        const SHAPE: &str = "for example `GET /register` or `POST /api/**`";
        let (method, path) = text
            .split_once(' ')
            .ok_or_else(|| PatternError::new(text, "lacks the method").help(SHAPE))?;
        let method = parse_method(method).map_err(|mut error| {
            error.text = text.to_owned();
            error.help(SHAPE)
        })?;
        let path = PathPattern::parse(path.trim_start()).map_err(|mut error| {
            error.text = text.to_owned();
            error
        })?;
        Ok(Self { method, path })
    }

    /// Whether it covers a method (upper case) and a normal path.
    #[must_use]
    pub fn covers(&self, method: &str, path: &str) -> bool {
        self.method.as_deref().is_none_or(|own| own == method) && self.path.covers(path)
    }
}

/// Reads a method, `*` being any.
pub(crate) fn parse_method(text: &str) -> Result<Option<String>, PatternError> {
    if text == "*" {
        return Ok(None);
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(PatternError::new(
            text,
            "has a method that is not in upper case letters",
        ));
    }
    if matches!(text, "CONNECT" | "TRACE") {
        return Err(PatternError::new(
            text,
            "has a method that the host never sends",
        ));
    }
    Ok(Some(text.to_owned()))
}

impl std::fmt::Display for MethodPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method.as_deref().unwrap_or("*"), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_that_servers_read_differently_are_refused() {
        for (path, problem) in [
            ("/unattended/%2e%2e/api", PathProblem::Escape(b'.')),
            ("/unattended/%2E%2E/api", PathProblem::Escape(b'.')),
            ("/unattended/../api", PathProblem::DotSegment),
            ("/unattended/..", PathProblem::DotSegment),
            ("/./a", PathProblem::DotSegment),
            ("//api", PathProblem::EmptySegment),
            ("/a//b", PathProblem::EmptySegment),
            ("/a;b", PathProblem::Character(';')),
            ("/a/..;/b", PathProblem::Character(';')),
            ("/a\\b", PathProblem::Character('\\')),
            ("/a%2fb", PathProblem::Escape(b'/')),
            ("/a%5Cb", PathProblem::Escape(b'\\')),
            ("/a%00", PathProblem::Escape(0)),
            ("/a%3bb", PathProblem::Escape(b';')),
            ("/%61pi", PathProblem::Escape(b'a')),
            ("/a%252e", PathProblem::Escape(b'%')),
            ("/a%", PathProblem::BrokenEscape),
            ("/a%zz", PathProblem::BrokenEscape),
            ("/a b", PathProblem::Character(' ')),
            ("/a\r\nHost: x", PathProblem::Character('\r')),
            ("api", PathProblem::Relative),
            ("", PathProblem::Relative),
            ("http://other/api", PathProblem::Relative),
        ] {
            assert_eq!(check_path(path), Err(problem), "{path}");
        }
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/aa:bb:cc",
            "/a%20b",
            "/~x/@y,z=1",
            "/a%C3%A4",
        ] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn patterns_cover_whole_segments() {
        for (pattern, path, want) in [
            ("/register", "/register", true),
            ("/register", "/register/", false),
            ("/register", "/registers", false),
            ("/servers/**", "/servers/a/b", true),
            ("/servers/**", "/servers/", true),
            ("/servers/**", "/servers", false),
            ("/servers/*", "/servers/a", true),
            ("/servers/*", "/servers/", false),
            ("/servers/*", "/servers/a/b", false),
            ("/x/*.img", "/x/a.img", true),
            ("/x/*.img", "/x/a.img/b", false),
            ("/x/a*b*c", "/x/a-b-c", true),
            ("/x/a*b*c", "/x/acb", false),
            ("/x/a*a", "/x/a", false),
            ("/**", "/", true),
        ] {
            assert_eq!(
                PathPattern::parse(pattern).unwrap().covers(path),
                want,
                "{pattern} {path}"
            );
        }
        assert!(PathPattern::parse("/a/**/b").is_err());
        assert!(PathPattern::parse("/a**").is_err());
        assert!(PathPattern::parse("/../a").is_err());
    }

    #[test]
    fn method_and_path_both_count() {
        let rule = MethodPath::parse("GET /register").unwrap();
        assert!(rule.covers("GET", "/register"));
        assert!(!rule.covers("POST", "/register"));
        assert!(MethodPath::parse("get /register").is_err());
        assert!(MethodPath::parse("/register").is_err());
        assert!(MethodPath::parse("CONNECT /x").is_err());
    }

    proptest! {
        #[test]
        fn an_accepted_path_is_its_own_normal_form(path in "/[a-z./%;\\\\2eEfF0-9]{0,24}") {
            if check_path(&path).is_ok() {
                let parsed = url::Url::parse(&format!("http://h{path}")).unwrap();
                prop_assert_eq!(parsed.path(), path.as_str());
                let twice = percent_encoding::percent_decode_str(&path).decode_utf8_lossy().into_owned();
                prop_assert!(!twice.split('/').any(|s| s == ".."));
            }
        }

        #[test]
        fn targets_never_panic(target in "\\PC{0,60}") {
            let _ = split_target(&target);
            let _ = PathPattern::parse(&target).map(|p| p.covers(&target));
        }
    }
}
