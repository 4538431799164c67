//! Domain names in their one form: lower case, as on the wire without compression (RFC 1035 section 3.1).
//!
//! It refuses labels of more than 63 bytes, names of more than 255, and empty labels.
//!
//! The one idea: a name *is* its wire bytes, so that a question is looked up by the bytes it came in, and every suffix of a name at a label's
//! beginning is a name again.

use std::borrow::Borrow;
use std::fmt;

/// Bytes of the longest name on the wire, with lengths and the root's zero (RFC 1035 section 2.3.4).
pub const LONGEST_NAME: usize = 255;
/// Bytes of the longest label (RFC 1035 section 2.3.4).
pub const LONGEST_LABEL: usize = 63;

/// A name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// The text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a domain name")]
pub struct BadName(pub String);

impl Name {
    /// Reads presentation form. A name without dot at the end is relative to `origin`, if there is one.
    ///
    /// # Errors
    /// Too long, an empty label, an escape that is none.
    pub fn parse(text: &str, origin: Option<&Name>) -> Result<Self, BadName> {
        let bad = || BadName(text.to_owned());
        if text == "." {
            return Ok(Self(Box::new([0])));
        }
        if text == "@"
            && let Some(origin) = origin
        {
            return Ok(origin.clone());
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut label = Vec::new();
        let mut absolute = false;
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            absolute = false;
            match byte {
                b'.' => {
                    push_label(&mut wire, &mut label).ok_or_else(bad)?;
                    absolute = true;
                }
                b'\\' => label.push(unescape(&mut bytes).ok_or_else(bad)?.to_ascii_lowercase()),
                plain => label.push(plain.to_ascii_lowercase()),
            }
        }
        if !absolute {
            push_label(&mut wire, &mut label).ok_or_else(bad)?;
        }
        match origin {
            Some(origin) if !absolute => wire.extend_from_slice(&origin.0),
            _ => wire.push(0),
        }
        match wire.len() <= LONGEST_NAME {
            true => Ok(Self(wire.into_boxed_slice())),
            false => Err(bad()),
        }
    }

    /// A name from the wire bytes of one, without compression and in lower case.
    #[must_use]
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let mut rest = wire;
        loop {
            let (length, following) = rest.split_first()?;
            match usize::from(*length) {
                0 if following.is_empty() && wire.len() <= LONGEST_NAME => {
                    return Some(Self(wire.to_ascii_lowercase().into_boxed_slice()));
                }
                0 => return None,
                length if length <= LONGEST_LABEL => rest = following.get(length..)?,
                _ => return None,
            }
        }
    }

    /// The wire bytes.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is `other` or below it.
    #[must_use]
    pub fn is_within(&self, other: &Name) -> bool {
        suffixes(&self.0).any(|suffix| *suffix == *other.0)
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// The name and every name above it, the root last.
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut next = Some(wire);
    std::iter::from_fn(move || {
        let this = next?;
        next = parent(this);
        Some(this)
    })
}

/// The name above; none above the root.
#[must_use]
pub fn parent(wire: &[u8]) -> Option<&[u8]> {
    match wire.split_first()? {
        (0, _) => None,
        (length, rest) => rest
            .get(usize::from(*length)..)
            .filter(|rest| !rest.is_empty()),
    }
}

/// The first label with its length replaced by `*`.
#[must_use]
pub fn wildcard_below(wire: &[u8]) -> Vec<u8> {
    let mut name = vec![1, b'*'];
    name.extend_from_slice(wire);
    name
}

/// Presentation form in lower case without dot at the end; the root is `.`.
impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.0 == [0] {
            return formatter.write_str(".");
        }
        let mut rest: &[u8] = &self.0;
        let mut first = true;
        while let Some((length, following)) = rest.split_first() {
            let length = usize::from(*length);
            if length == 0 {
                break;
            }
            if !first {
                formatter.write_str(".")?;
            }
            first = false;
            let (label, following) = following.split_at_checked(length).unwrap_or((&[], &[]));
            for byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                        write!(formatter, "\\{}", char::from(*byte))?;
                    }
                    0x21..=0x7e => write!(formatter, "{}", char::from(*byte))?,
                    other => write!(formatter, "\\{other:03}")?,
                }
            }
            rest = following;
        }
        Ok(())
    }
}

fn push_label(wire: &mut Vec<u8>, label: &mut Vec<u8>) -> Option<()> {
    let length = u8::try_from(label.len()).ok()?;
    if label.is_empty() || label.len() > LONGEST_LABEL {
        return None;
    }
    wire.push(length);
    wire.append(label);
    Some(())
}

/// What follows a backslash: three digits, or the byte itself.
pub(crate) fn unescape(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let first = bytes.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let (second, third) = (bytes.next()?, bytes.next()?);
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    let value = digit(first)? * 100 + digit(second)? * 10 + digit(third)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        let name = Name::parse("WWW.Example.com.", None).unwrap();
        assert_eq!(name.wire(), b"\x03www\x07example\x03com\0");
        assert_eq!(name.to_string(), "www.example.com");
        assert_eq!(Name::parse("www.example.com", None).unwrap(), name);
        let origin = Name::parse("example.com", None).unwrap();
        assert_eq!(Name::parse("www", Some(&origin)).unwrap(), name);
        assert_eq!(Name::parse("@", Some(&origin)).unwrap(), origin);
        assert!(name.is_within(&origin) && !origin.is_within(&name));
        assert!(
            !Name::parse("xexample.com", None)
                .unwrap()
                .is_within(&origin)
        );
    }

    #[test]
    fn escapes_survive_the_round() {
        for text in [
            r"a\.b.example.com",
            r"\000x.example.com",
            r"\@.com",
            r"a\\b.c",
            ".",
        ] {
            let name = Name::parse(text, None).unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(Name::from_wire(name.wire()).unwrap(), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = ["a".repeat(60).as_str(); 5].join(".");
        for text in [
            "",
            "a..b",
            ".a",
            "..",
            r"a\25",
            r"a\256",
            "a\\",
            long.as_str(),
            &"a".repeat(64),
        ] {
            assert!(Name::parse(text, None).is_err(), "{text}");
        }
        assert!(Name::from_wire(b"\x03ab\0").is_none());
        assert!(Name::from_wire(b"\x01a\0\0").is_none());
        assert!(Name::from_wire(b"\xc0\x0c").is_none());
    }
}
