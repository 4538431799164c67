//! The raw bytes of a request head, judged before the HTTP library sees them.
//!
//! It refuses every head that two readers could cut differently (request smuggling): a length given twice or in two ways, an unknown transfer
//! coding, bare line feeds, folded lines, spaces before the colon, control characters. It also refuses what is merely
//! too large. It does not interpret: method, target and fields are parsed by hyper afterwards.
//!
//! The one idea: what passes here has exactly one reading, so it does not matter that hyper is more lenient (it drops a
//! `Content-Length` beside a `Transfer-Encoding` without a word).

use http::Uri;

use super::answer::Refusal;
use super::limits::Limits;

/// How the body after a head is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// No body follows.
    Nothing,
    /// That many bytes follow, at least one.
    Length(u64),
    /// Chunks follow.
    Chunked,
}

/// Looks for the end of a head in a buffer that grows.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    /// Where the line begins that is not complete yet.
    line: usize,
    /// Complete lines before it, the request line included.
    lines: usize,
}

/// What the scanner knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// More bytes are needed.
    Incomplete,
    /// The head is this many bytes long, the empty line included.
    Complete(usize),
}

impl HeadScanner {
    /// Whether no complete line has been seen.
    pub(super) fn is_fresh(&self) -> bool {
        self.line == 0
    }

    /// Looks at all that has been received since the head began. Call it again with the same bytes and more behind them.
    pub(super) fn scan(&mut self, buffer: &[u8], limits: &Limits) -> Result<Scan, Refusal> {
        loop {
            let rest = buffer.get(self.line..).unwrap_or_default();
            let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
                self.check_size(buffer.len(), limits)?;
                return Ok(Scan::Incomplete);
            };
            let end = self.line.saturating_add(length).saturating_add(1);
            let line = rest.get(..length).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(Refusal::Malformed(
                    "a line of the head ends without a carriage return",
                ));
            };
            self.check_size(end, limits)?;
            if line.is_empty() {
                return Ok(Scan::Complete(end));
            }
            self.line = end;
            self.lines = self.lines.saturating_add(1);
            if self.lines > limits.header_lines.saturating_add(1) {
                return Err(Refusal::TooManyHeaders {
                    limit: limits.header_lines,
                });
            }
        }
    }

    fn check_size(&self, size: usize, limits: &Limits) -> Result<(), Refusal> {
        if self.lines == 0 && size > limits.request_line {
            return Err(Refusal::RequestLineTooLong {
                limit: limits.request_line,
            });
        }
        if size > limits.head {
            return Err(Refusal::HeadTooLarge { limit: limits.head });
        }
        Ok(())
    }
}

/// Checks a complete head and says what follows it.
pub(super) fn inspect(head: &[u8]) -> Result<Framing, Refusal> {
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = RequestLine::parse(lines.next().unwrap_or_default())?;
    let mut length = None;
    let mut chunked = false;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = split_field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let given = parse_length(value)?;
            if length.replace(given).is_some() {
                return Err(Refusal::Malformed("Content-Length is given twice"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") || chunked {
                return Err(Refusal::Malformed(
                    "the only transfer coding understood is one chunked",
                ));
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(Refusal::Malformed(
            "both Content-Length and Transfer-Encoding are given",
        )),
        (None, true) if request_line.old => {
            Err(Refusal::Malformed("HTTP/1.0 has no Transfer-Encoding"))
        }
        (None, true) => Ok(Framing::Chunked),
        (Some(0), false) => Ok(Framing::Nothing),
        (Some(length), false) => Ok(Framing::Length(length)),
        (None, false) if request_line.needs_length => Err(Refusal::LengthRequired),
        (None, false) => Ok(Framing::Nothing),
    }
}

/// Whether a connection that begins with this byte may be HTTP at all. TLS begins with 0x16, SSLv2 with 0x80.
pub(super) fn may_begin_request(byte: u8) -> bool {
    is_token(byte) || matches!(byte, b'\r' | b'\n')
}

struct RequestLine {
    /// HTTP/1.0.
    old: bool,
    /// POST, PUT and PATCH have to say how long their body is.
    needs_length: bool,
}

impl RequestLine {
    fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let mut words = line.split(|byte| *byte == b' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        let (Some(method), Some(target), Some(version), None) =
            (method, target, version, words.next())
        else {
            return Err(Refusal::Malformed(
                "the request line is not method, target and version",
            ));
        };
        if method.is_empty() || method.len() > 32 || !method.iter().copied().all(is_token) {
            return Err(Refusal::Malformed("the method is not a token"));
        }
        // What hyper cannot read it refuses with an empty body, which is a success to a shell.
        if !target.iter().all(|byte| (0x21..0x7f).contains(byte)) || Uri::try_from(target).is_err()
        {
            return Err(Refusal::Malformed(
                "the request target is no URL, or holds bytes that belong escaped",
            ));
        }
        let old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ if version.starts_with(b"HTTP/") => return Err(Refusal::VersionNotSupported),
            _ => {
                return Err(Refusal::Malformed(
                    "the request line does not end with an HTTP version",
                ));
            }
        };
        Ok(Self {
            old,
            needs_length: matches!(method, b"POST" | b"PUT" | b"PATCH"),
        })
    }
}

/// Splits `Name: value`, the value without surrounding blanks.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
    let (name, value) = line.split_at_checked(colon).unwrap_or_default();
    let value = value.strip_prefix(b":").unwrap_or_default().trim_ascii();
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(Refusal::Malformed(
            "a header line does not begin with a name and a colon",
        ));
    }
    if !value
        .iter()
        .all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f))
    {
        return Err(Refusal::Malformed(
            "a header value holds a control character",
        ));
    }
    Ok((name, value))
}

fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = if digits {
        text.parse::<u64>().ok()
    } else {
        None
    };
    // hyper keeps the two largest values for itself.
    length
        .filter(|length| *length < u64::MAX - 2)
        .ok_or(Refusal::Malformed("Content-Length is not a number"))
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(head: &str) -> Result<Framing, Refusal> {
        match HeadScanner::default().scan(head.as_bytes(), &Limits::default())? {
            Scan::Complete(length) => inspect(&head.as_bytes()[..length]),
            Scan::Incomplete => panic!("incomplete: {head:?}"),
        }
    }

    fn malformed(head: &str) {
        assert!(
            matches!(judge(head), Err(Refusal::Malformed(_))),
            "{head:?}: {:?}",
            judge(head)
        );
    }

    #[test]
    fn ordinary_heads_pass() {
        assert_eq!(
            judge("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Ok(Framing::Nothing)
        );
        assert_eq!(judge("GET / HTTP/1.0\r\n\r\n"), Ok(Framing::Nothing));
        assert_eq!(
            judge("POST /dns/ HTTP/1.1\r\nContent-Length: 12\r\n\r\n"),
            Ok(Framing::Length(12))
        );
        assert_eq!(
            judge("POST /dns/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
            Ok(Framing::Nothing)
        );
        assert_eq!(
            judge("POST / HTTP/1.1\r\nTransfer-Encoding:  Chunked \r\n\r\n"),
            Ok(Framing::Chunked)
        );
        assert_eq!(
            judge("DELETE /a HTTP/1.1\r\nX: \u{e9}\t,\r\nY:\r\n\r\n"),
            Ok(Framing::Nothing)
        );
    }

    #[test]
    fn smuggling_pairs_are_refused() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5\r\ncontent-length: 5",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: 0x5",
            "Content-Length: -1",
            "Content-Length:",
            "Content-Length: 18446744073709551615",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding : chunked",
            "Content-Length : 5",
            " Transfer-Encoding: chunked",
            "X: a\r\n folded: b",
            "X: a\r\n\tTransfer-Encoding: chunked",
            "X: a\rTransfer-Encoding: chunked",
            "X: a\0b",
            ": empty",
            "no colon",
        ] {
            malformed(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n"));
        }
        malformed("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        malformed("POST / HTTP/1.1\nContent-Length: 5\n\n");
        malformed("POST / HTTP/1.1\r\nContent-Length: 5\nX: y\r\n\r\n");
    }

    #[test]
    fn request_lines_have_three_words() {
        for line in [
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
            "GET / http/1.1",
            "GET\t/ HTTP/1.1",
        ] {
            malformed(&format!("{line}\r\n\r\n"));
        }
        assert_eq!(
            judge("PRI * HTTP/2.0\r\n\r\n"),
            Err(Refusal::VersionNotSupported)
        );
    }

    #[test]
    fn a_body_without_length_is_refused_where_a_body_is_expected() {
        for method in ["POST", "PUT", "PATCH"] {
            assert_eq!(
                judge(&format!("{method} / HTTP/1.1\r\n\r\n")),
                Err(Refusal::LengthRequired)
            );
        }
        assert_eq!(judge("DELETE / HTTP/1.1\r\n\r\n"), Ok(Framing::Nothing));
    }

    #[test]
    fn sizes_are_refused_before_the_head_is_complete() {
        let limits = Limits {
            request_line: 100,
            head: 1000,
            header_lines: 5,
            ..Limits::default()
        };
        let scan = |text: &str| HeadScanner::default().scan(text.as_bytes(), &limits);
        assert_eq!(
            scan(&format!("GET /{}", "a".repeat(90))),
            Ok(Scan::Incomplete)
        );
        assert_eq!(
            scan(&format!("GET /{}", "a".repeat(100))),
            Err(Refusal::RequestLineTooLong { limit: 100 })
        );
        assert_eq!(
            scan(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(1000))),
            Err(Refusal::HeadTooLarge { limit: 1000 })
        );
        let many = "A: b\r\n".repeat(6);
        assert_eq!(
            scan(&format!("GET / HTTP/1.1\r\n{many}")),
            Err(Refusal::TooManyHeaders { limit: 5 })
        );
        let few = "A: b\r\n".repeat(5);
        assert!(matches!(
            scan(&format!("GET / HTTP/1.1\r\n{few}\r\n")),
            Ok(Scan::Complete(_))
        ));
    }

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        let mut scanner = HeadScanner::default();
        for end in 0..head.len() - 4 {
            assert_eq!(
                scanner.scan(&head[..end], &Limits::default()),
                Ok(Scan::Incomplete)
            );
        }
        assert_eq!(
            scanner.scan(head, &Limits::default()),
            Ok(Scan::Complete(head.len() - 4))
        );
    }

    #[test]
    fn tls_and_binary_are_told_from_http_by_the_first_byte() {
        assert!(may_begin_request(b'G') && may_begin_request(b'\r'));
        for byte in [0x16, 0x80, 0x00, 0xff, b' ', b'{'] {
            assert!(!may_begin_request(byte));
        }
    }
}
