//! Reading `key=value` pairs: the query, and a body of type `application/x-www-form-urlencoded`.
//!
//! It refuses broken `%` escapes, as Foreman's Smart Proxy does, instead of guessing what was meant.

use crate::params::{BadNesting, MAX_PARAMS, Params, Value};

/// Why a query or a form cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BadForm {
    /// A `%` without two hexadecimal digits, in this key or value.
    Escape(String),
    Nesting(BadNesting),
    TooMany,
    /// Not multipart as announced; the text says why.
    Multipart(&'static str),
}

impl std::fmt::Display for BadForm {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Escape(part) => write!(formatter, "invalid %-encoding ({part})"),
            Self::Nesting(nesting) => nesting.fmt(formatter),
            Self::TooMany => write!(formatter, "more than {MAX_PARAMS} parameters"),
            Self::Multipart(reason) => write!(formatter, "invalid multipart body ({reason})"),
        }
    }
}

impl From<BadNesting> for BadForm {
    fn from(nesting: BadNesting) -> Self {
        Self::Nesting(nesting)
    }
}

/// Reads pairs joined by `&`. Empty pieces are skipped.
pub(crate) fn read(text: &[u8]) -> Result<Params, BadForm> {
    let mut params = Params::default();
    let pairs = text
        .split(|&byte| byte == b'&')
        .filter(|pair| !pair.is_empty());
    for (count, pair) in pairs.enumerate() {
        if count == MAX_PARAMS {
            return Err(BadForm::TooMany);
        }
        let mut halves = pair.splitn(2, |&byte| byte == b'=');
        let key = decode(halves.next().unwrap_or_default())?;
        let value = match halves.next() {
            Some(value) => Value::Text(decode(value)?),
            None => Value::Nil,
        };
        params.insert(&String::from_utf8_lossy(&key), value)?;
    }
    Ok(params)
}

/// `%41` is `A`, `+` is a space.
fn decode(part: &[u8]) -> Result<Vec<u8>, BadForm> {
    let mut decoded = Vec::with_capacity(part.len());
    let mut bytes = part.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match (
                bytes.next().copied().and_then(digit),
                bytes.next().copied().and_then(digit),
            ) {
                (Some(high), Some(low)) => high * 16 + low,
                _ => return Err(BadForm::Escape(String::from_utf8_lossy(part).into_owned())),
            },
            plain => plain,
        });
    }
    Ok(decoded)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_and_plus_are_decoded() {
        let params = read(b"a=1+2&b%5B%5D=%C3%A4&menu=x%0Ay").unwrap();
        assert_eq!(params.text("a"), Some("1 2"));
        assert_eq!(params.list("b"), Some(&[Value::Text("ä".into())][..]));
        assert_eq!(params.text("menu"), Some("x\ny"));
    }

    #[test]
    fn a_value_keeps_bytes_that_are_not_text() {
        let params = read(b"menu=%ff%00").unwrap();
        assert_eq!(params.bytes("menu"), Some(&[0xff, 0][..]));
        assert_eq!(params.text("menu"), None);
    }

    #[test]
    fn a_bare_key_is_nil_and_an_empty_value_is_not() {
        let params = read(b"related_macs&menu=").unwrap();
        assert_eq!(params.get("related_macs"), Some(&Value::Nil));
        assert_eq!(params.text("menu"), Some(""));
    }

    #[test]
    fn broken_escapes_are_refused_by_name() {
        for (form, part) in [
            ("a=%zz", "%zz"),
            ("a=1&b=x%4", "x%4"),
            ("%=1", "%"),
            ("a=%+1", "%+1"),
        ] {
            assert_eq!(read(form.as_bytes()), Err(BadForm::Escape(part.to_owned())));
        }
    }

    #[test]
    fn a_flood_of_parameters_is_refused() {
        assert_eq!(
            read("a&".repeat(MAX_PARAMS + 1).as_bytes()),
            Err(BadForm::TooMany)
        );
        assert!(read("a&".repeat(MAX_PARAMS).as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_survive_encoding(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let encoded: String = value.iter().map(|byte| format!("%{byte:02X}")).collect();
            let params = read(format!("k={encoded}").as_bytes()).unwrap();
            prop_assert_eq!(params.bytes("k"), Some(&value[..]));
        }

        #[test]
        fn no_input_panics(form in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&form);
        }
    }
}
