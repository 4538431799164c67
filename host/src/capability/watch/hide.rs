//! Blanks the secrets of `key` statements in configurations of ISC's servers: `key omapi { algorithm hmac-md5; secret "..."; };`.
//!
//! It refuses to guess by the shape of a value: whatever stands between the word `secret` and its semicolon is blanked, byte by byte, so that
//! every other byte stays where it was. In a comment, where nothing ends a value, the rest of the line goes. Where a block follows the word, it
//! is somebody's name.
//!
//! The one idea: too much is better than too little, but never a byte outside the statement.

/// Blanks in place.
pub(super) fn isc_key_secrets(text: &mut [u8]) {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at = match (byte, text.get(at + 1)) {
            (b'#', _) | (b'/', Some(b'/')) => comment(text, at, b"\n"),
            (b'/', Some(b'*')) => comment(text, at, b"*/"),
            (b'"', _) => string_end(text, at),
            _ if is_word(byte) => {
                let end = word_end(text, at);
                match text.get(at..end) {
                    Some(word) if word.eq_ignore_ascii_case(b"secret") => value(text, end),
                    _ => end,
                }
            }
            _ => at + 1,
        };
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn word_end(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| is_word(**byte)).count()
}

/// After the closing quote; a backslash takes the quote's meaning away.
fn string_end(text: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// Blanks what follows the word in a comment (an old key is still a secret) up to the end of the line.
fn comment(text: &mut [u8], from: usize, ending: &[u8]) -> usize {
    let rest = text.get(from + 1..).unwrap_or_default();
    let end = rest
        .windows(ending.len())
        .position(|window| window == ending)
        .map_or(text.len(), |found| from + 1 + found);
    let mut at = from;
    while at < end {
        match text.get(at) {
            Some(byte) if is_word(*byte) => {
                let stop = word_end(text, at).min(end);
                let is_secret = text
                    .get(at..stop)
                    .is_some_and(|word| word.eq_ignore_ascii_case(b"secret"));
                at = stop;
                if is_secret {
                    while at < end && text.get(at) != Some(&b'\n') {
                        blank(text, at);
                        at += 1;
                    }
                }
            }
            _ => at += 1,
        }
    }
    end + ending.len().min(text.len() - end)
}

/// Blanks up to the semicolon. Quotes stay, and comments in between are no part of the value. Base64 knows `/` as a digit, so `//` begins a
/// comment only where it is a word of its own; dhcpd knows no such comments at all.
fn value(text: &mut [u8], from: usize) -> usize {
    let blanks = text.get(from..).unwrap_or_default();
    let blanks = blanks.iter().take_while(|byte| **byte <= b' ').count();
    // A key, a host or whatever else is called `secret`.
    if text.get(from + blanks) == Some(&b'{') {
        return from;
    }
    let mut at = from;
    let mut before = b' ';
    while let Some(&byte) = text.get(at) {
        let is_apart = !is_digit(before) && !text.get(at + 2).copied().is_some_and(is_digit);
        before = byte;
        match (byte, text.get(at + 1)) {
            (b';', _) => return at,
            (b'#', _) => at = comment(text, at, b"\n"),
            (b'/', Some(b'/')) if is_apart => at = comment(text, at, b"\n"),
            (b'/', Some(b'*')) => at = comment(text, at, b"*/"),
            (b'"', _) => {
                let end = string_end(text, at);
                for inside in at + 1..end.saturating_sub(1).max(at + 1) {
                    blank(text, inside);
                }
                if text.get(end.wrapping_sub(1)) != Some(&b'"') {
                    blank(text, end.wrapping_sub(1));
                }
                at = end;
            }
            _ => {
                blank(text, at);
                at += 1;
            }
        }
    }
    at
}

/// True for what a word in base64 is made of.
fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

fn blank(text: &mut [u8], at: usize) {
    if let Some(byte) = text.get_mut(at)
        && *byte != b'\n'
    {
        *byte = b' ';
    }
}

#[cfg(test)]
mod tests {
    fn hidden(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        super::isc_key_secrets(&mut bytes);
        assert_eq!(bytes.len(), text.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn secrets_are_blanks_of_the_same_length() {
        for (text, shown) in [
            (
                "key omapi { algorithm hmac-md5; secret \"c2VjcmV0==\"; };\nomapi-port 7911;",
                "key omapi { algorithm hmac-md5; secret \"          \"; };\nomapi-port 7911;",
            ),
            ("secret abc+/d==; x", "secret         ; x"),
            ("SECRET\n\"a\\\"b\"\n;", "SECRET\n\"    \"\n;"),
            ("secret /* old */ ab;", "secret /* old */   ;"),
            ("secret ab # note\ncd; y", "secret    # note\n  ; y"),
            ("secret ab//cd==;\n}; y", "secret         ;\n}; y"),
            ("secret //cd==;\n}; y", "secret       ;\n}; y"),
            ("secret a//;\n}; y", "secret    ;\n}; y"),
            ("secret // old\ncd; y", "secret // old\n  ; y"),
            ("secret \"never ends", "secret \"          "),
            ("secret abc", "secret    "),
        ] {
            assert_eq!(hidden(text), shown, "{text}");
        }
    }

    #[test]
    fn everything_else_stays() {
        for text in [
            "option host-name \"my secret name\"; next;",
            "# keep these\nhost a { hardware ethernet 00:11:22:33:44:55; }",
            "secretary x; top-secret y; // nothing\n/* a */ b",
            "host secret { hardware ethernet 00:11:22:33:44:55; }",
            "\"unclosed",
            "",
        ] {
            assert_eq!(hidden(text), text);
        }
    }

    #[test]
    fn a_key_may_be_called_secret() {
        assert_eq!(
            hidden("key secret { secret ab; }; omapi-key secret; x"),
            "key secret { secret   ; }; omapi-key secret; x"
        );
    }

    #[test]
    fn old_keys_in_comments_are_secrets_too() {
        assert_eq!(
            hidden("# secret \"abc\";\nrange a b;"),
            "# secret       \nrange a b;"
        );
        assert_eq!(
            hidden("/* secret abc;\n kept */ x"),
            "/* secret     \n kept */ x"
        );
    }
}
