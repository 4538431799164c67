//! Text of unknown origin made fit for a log line.
//!
//! Plugins, clients and upstreams decide what stands in many messages. A line feed would forge a second log line, an escape
//! code would repaint the administrator's terminal, a right-to-left mark would reorder what it says. So each of them is
//! shown as what it is.

use std::borrow::Cow;
use std::fmt::Write;

/// Escapes everything that would not print as itself: control characters, line separators and marks that reorder text.
///
/// ```
/// use bulkhead::telemetry::text::printable;
/// assert_eq!(printable("plain ✓"), "plain ✓");
/// assert_eq!(printable("a\nb\u{1b}[2J\u{202e}"), "a\\nb\\u{1b}[2J\\u{202e}");
/// ```
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(misleads) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if misleads(c) => {
                // Writing to a String cannot fail.
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// Bytes as text; what is not UTF-8 becomes one `?` each (contract: core API, section 6).
///
/// ```
/// use bulkhead::telemetry::text::from_bytes;
/// assert_eq!(from_bytes(b"caf\xe9 ok"), "caf? ok");
/// ```
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '?'));
    }
    Cow::Owned(text)
}

/// At most `limit` bytes of a text, cut between characters.
///
/// ```
/// use bulkhead::telemetry::text::cut;
/// assert_eq!(cut("häuser", 2), "h");
/// ```
#[must_use]
pub fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

fn misleads(c: char) -> bool {
    c.is_control()
        // Line and paragraph separators, marks that set or override the direction of text.
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_feed_cannot_forge_a_second_line() {
        let forged = printable("harmless\n2026-01-01T00:00:00 0 [I] forged");
        assert_eq!(forged.lines().count(), 1);
    }

    #[test]
    fn eight_bit_terminal_codes_are_escaped() {
        assert_eq!(printable("\u{9b}31m\u{7f}"), "\\u{9b}31m\\u{7f}");
    }

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(
            printable("Started GET /features "),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn every_invalid_byte_is_one_question_mark() {
        assert_eq!(from_bytes(b"\xff\xfe\xe2\x82"), "????");
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        for limit in 0..12 {
            assert!(cut("a€b€c€", limit).len() <= limit);
        }
        assert_eq!(cut("short", 100), "short");
    }
}
