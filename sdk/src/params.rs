//! Request parameters as Foreman sends them: flat or nested (`a[]=`, `a[b]=`, `a[][b]=`), with or without a value.
//!
//! Values are bytes, since a boot menu is written byte for byte as received; [`Params::text`] gives those that are UTF-8.
//!
//! A key is read once into a path of segments, then the value is placed along that path. Source: `contract/core.md` section 3.

use std::fmt;

/// Most parameters of one request; beyond it the request is refused, since every further one costs time and memory.
pub const MAX_PARAMS: usize = 4096;

/// Deepest nesting of one key.
pub const MAX_DEPTH: usize = 32;

/// One parameter's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A key without `=`.
    Nil,
    /// The value, percent-decoded; any bytes.
    Text(Vec<u8>),
    /// `a[]=1&a[]=2`
    List(Vec<Value>),
    /// `a[b]=1`
    Map(Params),
}

/// Parameters by name, in order of their first appearance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    entries: Vec<(String, Value)>,
}

impl Params {
    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entries
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    /// The plain value of `name`, any bytes. None when it is missing, a bare key, or nested.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        match self.get(name)? {
            Value::Text(bytes) => Some(bytes),
            Value::Nil | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// As [`Params::bytes`], if it is UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    /// The nested parameters below `name`.
    #[must_use]
    pub fn map(&self, name: &str) -> Option<&Params> {
        match self.get(name)? {
            Value::Map(params) => Some(params),
            Value::Nil | Value::Text(_) | Value::List(_) => None,
        }
    }

    /// The values of `name[]`.
    #[must_use]
    pub fn list(&self, name: &str) -> Option<&[Value]> {
        match self.get(name)? {
            Value::List(values) => Some(values),
            Value::Nil | Value::Text(_) | Value::Map(_) => None,
        }
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }

    /// How many names there are at this level.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No names at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets `name` at this level, whatever stood there.
    pub fn set(&mut self, name: &str, value: Value) {
        *self.slot(name) = value;
    }

    /// Takes over every name of `winner`; its values replace ours.
    pub fn merge(&mut self, winner: Params) {
        for (name, value) in winner.entries {
            self.set(&name, value);
        }
    }

    /// Places `value` under a key as written in a form, e.g. `a[b][]`.
    ///
    /// # Errors
    /// When the key uses a name both as a plain value and as a list or map, or nests too deep.
    pub fn insert(&mut self, key: &str, value: Value) -> Result<(), BadNesting> {
        let (name, segments) = split(key)?;
        if name.is_empty() {
            return Ok(());
        }
        place(self.slot(name), name, &segments, value)
    }

    /// The place of `name`, made as [`Value::Nil`] when new.
    fn slot(&mut self, name: &str) -> &mut Value {
        let index = match self.entries.iter().position(|(known, _)| known == name) {
            Some(index) => index,
            None => {
                self.entries.push((name.to_owned(), Value::Nil));
                self.entries.len() - 1
            }
        };
        // `index` was found or made just now.
        #[allow(clippy::indexing_slicing)]
        &mut self.entries[index].1
    }

    fn holds(&self, name: &str, segments: &[Segment<'_>]) -> bool {
        let Some(value) = self.get(name) else {
            return false;
        };
        match (segments.split_first(), value) {
            (None, _) => true,
            (Some((Segment::Append, _)), _) => false,
            (Some((Segment::Key(next), rest)), Value::Map(params)) => params.holds(next, rest),
            (Some((Segment::Key(_), _)), _) => false,
        }
    }
}

/// Why a key cannot be placed among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadNesting {
    /// The name stands for a plain value and something nested at once.
    Mixed {
        /// The name.
        name: String,
        /// What this key makes of it.
        expected: &'static str,
        /// What an earlier key made of it.
        found: &'static str,
    },
    /// More than [`MAX_DEPTH`] levels.
    TooDeep,
}

impl fmt::Display for BadNesting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mixed {
                name,
                expected,
                found,
            } => write!(
                formatter,
                "expected {expected} (got {found}) for param `{name}'"
            ),
            Self::TooDeep => formatter.write_str("parameters are nested too deep"),
        }
    }
}

impl std::error::Error for BadNesting {}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Segment<'a> {
    /// `[]`
    Append,
    /// `[name]`
    Key(&'a str),
}

/// `a[b][]` is `a`, then key `b`, then append. Brackets that do not pair up are part of the name.
fn split(key: &str) -> Result<(&str, Vec<Segment<'_>>), BadNesting> {
    let Some(open) = key.find('[') else {
        return Ok((key, Vec::new()));
    };
    let (name, mut rest) = key.split_at(open);
    let mut segments = Vec::new();
    while !rest.is_empty() {
        let Some((inner, after)) = rest
            .strip_prefix('[')
            .and_then(|inside| inside.split_once(']'))
        else {
            return Ok((key, Vec::new()));
        };
        if inner.contains('[') {
            return Ok((key, Vec::new()));
        }
        segments.push(if inner.is_empty() {
            Segment::Append
        } else {
            Segment::Key(inner)
        });
        if segments.len() > MAX_DEPTH {
            return Err(BadNesting::TooDeep);
        }
        rest = after;
    }
    Ok((name, segments))
}

fn place(
    slot: &mut Value,
    name: &str,
    segments: &[Segment<'_>],
    value: Value,
) -> Result<(), BadNesting> {
    let Some((first, rest)) = segments.split_first() else {
        *slot = value;
        return Ok(());
    };
    match first {
        Segment::Key(key) => {
            if *slot == Value::Nil {
                *slot = Value::Map(Params::default());
            }
            let Value::Map(params) = slot else {
                return Err(mixed(name, "Hash", slot));
            };
            place(params.slot(key), key, rest, value)
        }
        Segment::Append => {
            if *slot == Value::Nil {
                *slot = Value::List(Vec::new());
            }
            let Value::List(values) = slot else {
                return Err(mixed(name, "Array", slot));
            };
            // `a[][x]=1&a[][y]=2` fills one map; a key that the last map has already begins the next one.
            if let (Some(Segment::Key(key)), Some(Value::Map(last))) =
                (rest.first(), values.last_mut())
                && !last.holds(key, rest.get(1..).unwrap_or_default())
            {
                return place(
                    last.slot(key),
                    key,
                    rest.get(1..).unwrap_or_default(),
                    value,
                );
            }
            let mut next = Value::Nil;
            place(&mut next, name, rest, value)?;
            values.push(next);
            Ok(())
        }
    }
}

fn mixed(name: &str, expected: &'static str, found: &Value) -> BadNesting {
    let found = match found {
        Value::Nil => "nothing",
        Value::Text(_) => "String",
        Value::List(_) => "Array",
        Value::Map(_) => "Hash",
    };
    BadNesting::Mixed {
        name: name.to_owned(),
        expected,
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::Text(value.as_bytes().to_vec())
    }

    fn params(pairs: &[(&str, &str)]) -> Params {
        let mut params = Params::default();
        for (key, value) in pairs {
            params.insert(key, text(value)).unwrap();
        }
        params
    }

    #[test]
    fn the_last_of_equal_plain_keys_wins() {
        assert_eq!(params(&[("a", "1"), ("a", "2")]).text("a"), Some("2"));
    }

    #[test]
    fn empty_brackets_make_a_list() {
        assert_eq!(
            params(&[("a[]", "1"), ("a[]", "2")]).list("a"),
            Some(&[text("1"), text("2")][..])
        );
    }

    #[test]
    fn named_brackets_make_a_map() {
        let params = params(&[("host[name]", "x"), ("host[os][id]", "3")]);
        let host = params.map("host").unwrap();
        assert_eq!(host.text("name"), Some("x"));
        assert_eq!(host.map("os").unwrap().text("id"), Some("3"));
    }

    #[test]
    fn a_list_of_maps_begins_the_next_map_at_a_repeated_key() {
        let params = params(&[("r[][a]", "1"), ("r[][b]", "2"), ("r[][a]", "3")]);
        let list = params.list("r").unwrap();
        assert_eq!(list.len(), 2);
        assert!(
            matches!(&list[0], Value::Map(map) if map.text("a") == Some("1") && map.text("b") == Some("2"))
        );
        assert!(matches!(&list[1], Value::Map(map) if map.text("a") == Some("3")));
    }

    #[test]
    fn a_name_cannot_be_plain_and_nested() {
        let mut params = params(&[("a", "1")]);
        assert_eq!(
            params.insert("a[b]", text("2")).unwrap_err().to_string(),
            "expected Hash (got String) for param `a'"
        );
        assert_eq!(
            params.insert("a[]", text("2")).unwrap_err().to_string(),
            "expected Array (got String) for param `a'"
        );
    }

    #[test]
    fn unpaired_brackets_are_part_of_the_name() {
        assert_eq!(params(&[("a[b", "1")]).text("a[b"), Some("1"));
        assert_eq!(params(&[("a[b]c", "1")]).text("a[b]c"), Some("1"));
    }

    #[test]
    fn endless_nesting_is_refused() {
        let key = format!("a{}", "[b]".repeat(MAX_DEPTH + 1));
        assert_eq!(
            Params::default().insert(&key, text("1")),
            Err(BadNesting::TooDeep)
        );
    }

    #[test]
    fn the_winner_of_a_merge_replaces_whole_values() {
        let mut ours = params(&[("a[x]", "1"), ("b", "2")]);
        ours.merge(params(&[("a", "3")]));
        assert_eq!((ours.text("a"), ours.text("b")), (Some("3"), Some("2")));
    }
}
