//! Reading a policy's TOML: typed values by key, every mistake with its line, all at once.
//!
//! The one idea: a key is known because somebody asked for it. A key that nobody asked for is a mistake, so no key can be
//! accepted without being used. `{ setting = "name" }` in place of a value becomes the setting's value here, once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::measure::{parse_size, parse_time};
use super::problem::{Problem, Source};
use crate::sandbox::bindings::imports::settings::Value as SettingValue;
use crate::sandbox::bindings::types::Setting;

/// Where `{ setting = "name" }` gets its value.
#[derive(Clone, Copy)]
pub(crate) enum Settings<'a> {
    /// The plugin is not known yet: the policy is only checked.
    Unknown,
    /// Nowhere: the file is not about one plugin, and such a table is a table like any other.
    Never,
    /// The plugin's settings and their values.
    Known {
        settings: &'a [Setting],
        values: &'a HashMap<String, SettingValue>,
    },
}

/// What stands under a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Given<T> {
    /// Nothing.
    Absent,
    /// A setting that has no value (or, while only checking, none yet).
    Unset(String),
    /// A mistake, already reported.
    Wrong,
    /// A value.
    Is(T),
}

impl<T> Given<T> {
    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> Given<U> {
        match self {
            Self::Absent => Given::Absent,
            Self::Unset(name) => Given::Unset(name),
            Self::Wrong => Given::Wrong,
            Self::Is(value) => Given::Is(f(value)),
        }
    }

    pub(crate) fn and_then<U>(self, f: impl FnOnce(T) -> Option<U>) -> Given<U> {
        match self.map(f) {
            Given::Is(Some(value)) => Given::Is(value),
            Given::Is(None) | Given::Wrong => Given::Wrong,
            Given::Absent => Given::Absent,
            Given::Unset(name) => Given::Unset(name),
        }
    }

    /// The value, or a default when nothing (or an unset setting) stands there. Mistakes take the default too: they are
    /// reported, and a policy with mistakes grants nothing.
    pub(crate) fn or(self, default: T) -> T {
        match self {
            Self::Is(value) => value,
            Self::Absent | Self::Unset(_) | Self::Wrong => default,
        }
    }

    pub(crate) fn ok(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Unset(_) | Self::Wrong => None,
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Item<'t> {
    pub(crate) span: Range<usize>,
    pub(crate) data: Data<'t>,
    /// It is a setting's value: whole numbers are seconds or bytes there.
    from_setting: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Data<'t> {
    Text(String),
    Integer(i64),
    Flag(bool),
    List(Vec<Item<'t>>),
    Table(Table<'t>),
    Other(&'static str),
}

impl Data<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// One table, with the keys that were asked for.
#[derive(Debug, Clone)]
pub(crate) struct Table<'t> {
    entries: &'t DeTable<'t>,
    /// The dotted name, empty for the whole file.
    pub(crate) name: String,
    pub(crate) span: Range<usize>,
    asked: RefCell<Vec<String>>,
}

impl<'t> Table<'t> {
    pub(crate) fn new(entries: &'t DeTable<'t>, name: String, span: Range<usize>) -> Self {
        Self {
            entries,
            name,
            span,
            asked: RefCell::default(),
        }
    }

    fn entry(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.borrow_mut().push(key.to_owned());
        self.entries
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| value)
    }

    /// The dotted name of a key.
    pub(crate) fn dotted(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    /// All values by key. They count as asked for.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'t str, &'t Spanned<DeValue<'t>>)> {
        self.asked
            .borrow_mut()
            .extend(self.entries.keys().map(|key| key.get_ref().to_string()));
        self.entries
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), value))
    }

    /// All keys with their places, asked for or not.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'t str, Range<usize>)> {
        self.entries
            .keys()
            .map(|key| (key.get_ref().as_ref(), key.span()))
    }
}

/// One reading of a policy.
pub(crate) struct Reading<'a> {
    source: Source<'a>,
    settings: Settings<'a>,
    /// Where the value of a setting stands, and which.
    filled: RefCell<Vec<(Range<usize>, String)>>,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(source: Source<'a>, settings: Settings<'a>) -> Self {
        Self {
            source,
            settings,
            filled: RefCell::default(),
            problems: RefCell::default(),
        }
    }

    pub(crate) fn problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    pub(crate) fn found_problems(&self) -> usize {
        self.problems.borrow().len()
    }

    /// Whether the file has a section of that dotted name, usable or not.
    pub(crate) fn has_section(&self, name: &str) -> bool {
        let header = format!("[{name}]");
        self.source.text.lines().any(|line| line.trim() == header)
    }

    /// Reports a mistake.
    pub(crate) fn problem(
        &self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        let mut problem = self.source.problem(span, message.into(), help);
        problem.setting = self.setting_at(span);
        self.problems.borrow_mut().push(problem);
    }

    /// The setting whose value stands there.
    fn setting_at(&self, span: &Range<usize>) -> Option<String> {
        let filled = self.filled.borrow();
        let found = filled.iter().find(|(at, _)| at == span);
        found.map(|(_, setting)| setting.clone())
    }

    /// What an operator knows a value by: the setting, else the key of the policy.
    fn called(&self, table: &Table<'_>, key: &str, span: &Range<usize>) -> String {
        match self.setting_at(span) {
            Some(setting) => format!("Setting '{setting}'"),
            None => format!("`{}`", table.dotted(key)),
        }
    }

    /// What stands under a key.
    pub(crate) fn item<'t>(&self, table: &Table<'t>, key: &str) -> Given<Item<'t>> {
        table
            .entry(key)
            .map_or(Given::Absent, |value| self.read(value, &table.dotted(key)))
    }

    fn read<'t>(&self, value: &'t Spanned<DeValue<'t>>, name: &str) -> Given<Item<'t>> {
        let span = value.span();
        let data = match value.get_ref() {
            DeValue::String(text) => Data::Text(text.to_string()),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Data::Integer(number),
                    Err(_) => Data::Other("a number too large"),
                }
            }
            DeValue::Boolean(flag) => Data::Flag(*flag),
            DeValue::Float(_) => Data::Other("a fraction"),
            DeValue::Datetime(_) => Data::Other("a date"),
            DeValue::Array(values) => {
                let (mut items, mut empty) = (Vec::new(), None);
                for value in values.iter() {
                    match self.read(value, name) {
                        // A setting that is a list adds its elements.
                        Given::Is(Item {
                            data: Data::List(more),
                            from_setting: true,
                            ..
                        }) => items.extend(more),
                        Given::Is(item) => items.push(item),
                        Given::Absent => {}
                        // An empty one adds none; alone it leaves the list without a value. While only checking, the others are looked at.
                        Given::Unset(setting) if self.adds_nothing(&setting) => {
                            empty = Some(setting);
                        }
                        Given::Unset(setting) => return Given::Unset(setting),
                        Given::Wrong => return Given::Wrong,
                    }
                }
                match empty {
                    Some(setting) if items.is_empty() => return Given::Unset(setting),
                    _ => Data::List(items),
                }
            }
            DeValue::Table(entries) => {
                let table = Table::new(entries, name.to_owned(), span.clone());
                if !matches!(self.settings, Settings::Never)
                    && entries.len() == 1
                    && let Some(setting) = table.entry("setting")
                {
                    return self.setting(setting);
                }
                Data::Table(table)
            }
        };
        Given::Is(Item {
            span,
            data,
            from_setting: false,
        })
    }

    fn adds_nothing(&self, name: &str) -> bool {
        match &self.settings {
            Settings::Known { values, .. } => {
                matches!(values.get(name), Some(SettingValue::Texts(texts)) if texts.is_empty())
            }
            Settings::Unknown => true,
            Settings::Never => false,
        }
    }

    /// The value of the setting that a text names.
    pub(crate) fn setting<'t>(&self, name: &Spanned<DeValue<'_>>) -> Given<Item<'t>> {
        let span = name.span();
        let DeValue::String(name) = name.get_ref() else {
            self.problem(&span, "`setting` must be the name of a setting", None);
            return Given::Wrong;
        };
        let Settings::Known { settings, values } = self.settings else {
            return Given::Unset(name.to_string());
        };
        if !settings.iter().any(|setting| setting.name == **name) {
            let help = nearest(name, settings.iter().map(|setting| setting.name.as_str()));
            self.problem(&span, format!("the plugin has no setting `{name}`"), help);
            return Given::Wrong;
        }
        self.filled
            .borrow_mut()
            .push((span.clone(), name.to_string()));
        let item = |data| Item {
            span: span.clone(),
            data,
            from_setting: true,
        };
        match values.get(name.as_ref()) {
            None => Given::Unset(name.to_string()),
            Some(SettingValue::Text(text)) if text.is_empty() => Given::Unset(name.to_string()),
            Some(SettingValue::Text(text)) => Given::Is(item(Data::Text(text.clone()))),
            Some(SettingValue::Integer(number)) => Given::Is(item(Data::Integer(*number))),
            Some(SettingValue::Boolean(flag)) => Given::Is(item(Data::Flag(*flag))),
            Some(SettingValue::Texts(texts)) if texts.is_empty() => Given::Unset(name.to_string()),
            Some(SettingValue::Texts(texts)) => Given::Is(item(Data::List(
                texts
                    .iter()
                    .map(|text| item(Data::Text(text.clone())))
                    .collect(),
            ))),
        }
    }

    /// Whether a key takes its value from a setting.
    pub(crate) fn is_setting(&self, table: &Table<'_>, key: &str) -> bool {
        matches!(
            table.entry(key).map(Spanned::get_ref),
            Some(DeValue::Table(_))
        )
    }

    /// The value of the setting that a key names: `setting = "dns_server"` beside other keys.
    pub(crate) fn named_setting<'t>(&self, table: &Table<'t>, key: &str) -> Given<Item<'t>> {
        table
            .entry(key)
            .map_or(Given::Absent, |name| self.setting(name))
    }

    fn expect<'t, T>(
        &self,
        table: &Table<'t>,
        key: &str,
        what: &str,
        take: impl FnOnce(&Item<'t>) -> Option<T>,
    ) -> Given<(T, Range<usize>)> {
        self.item(table, key).and_then(|item| {
            let found = take(&item);
            if found.is_none() {
                self.problem(
                    &item.span,
                    format!(
                        "{} must be {what}, not {}",
                        self.called(table, key, &item.span),
                        item.data.kind()
                    ),
                    None,
                );
            }
            found.map(|value| (value, item.span))
        })
    }

    /// Text and where it stands.
    pub(crate) fn text(&self, table: &Table<'_>, key: &str) -> Given<(String, Range<usize>)> {
        self.expect(table, key, "text", |item| match &item.data {
            Data::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// Text that a parser accepts.
    pub(crate) fn parsed<T>(
        &self,
        table: &Table<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, (String, Option<String>)>,
    ) -> Given<T> {
        self.text(table, key)
            .and_then(|(text, span)| match parse(&text) {
                Ok(value) => Some(value),
                Err((message, help)) => {
                    let called = self.called(table, key, &span);
                    self.problem(&span, format!("{called}: {message}"), help);
                    None
                }
            })
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(
        &self,
        table: &Table<'_>,
        key: &str,
        words: &[(&str, T)],
    ) -> Given<T> {
        self.parsed(table, key, |text| {
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| *value)
                .ok_or_else(|| {
                    let all: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                    (
                        format!("`{text}` is none of {}", all.join(", ")),
                        nearest(text, words.iter().map(|(word, _)| *word)),
                    )
                })
        })
    }

    /// True or false.
    pub(crate) fn flag(&self, table: &Table<'_>, key: &str) -> Given<bool> {
        self.expect(table, key, "true or false", |item| match item.data {
            Data::Flag(flag) => Some(flag),
            _ => None,
        })
        .map(|(flag, _)| flag)
    }

    /// A whole number within bounds.
    pub(crate) fn count<N: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy>(
        &self,
        table: &Table<'_>,
        key: &str,
        bounds: std::ops::RangeInclusive<N>,
    ) -> Given<N> {
        let number = self.expect(table, key, "a whole number", |item| match item.data {
            Data::Integer(number) => Some(number),
            _ => None,
        });
        number.and_then(|(number, span)| {
            let fits = N::try_from(number)
                .ok()
                .filter(|number| bounds.contains(number));
            if fits.is_none() {
                let message = format!(
                    "{} must be from {} to {}",
                    self.called(table, key, &span),
                    bounds.start(),
                    bounds.end()
                );
                self.problem(&span, message, None);
            }
            fits
        })
    }

    /// A size such as `"64MiB"`.
    pub(crate) fn size(&self, table: &Table<'_>, key: &str) -> Given<u64> {
        self.measure(
            table,
            key,
            "a size such as \"64MiB\"",
            parse_size,
            u64::try_from,
        )
    }

    /// A time such as `"30s"`.
    pub(crate) fn time(&self, table: &Table<'_>, key: &str) -> Given<Duration> {
        let seconds = |number| u64::try_from(number).map(Duration::from_secs);
        self.measure(table, key, "a time such as \"30s\"", parse_time, seconds)
    }

    fn measure<T: PartialEq + Default, E>(
        &self,
        table: &Table<'_>,
        key: &str,
        what: &str,
        parse: fn(&str) -> Option<T>,
        number: impl FnOnce(i64) -> Result<T, E>,
    ) -> Given<T> {
        self.item(table, key).and_then(|item| {
            let found = match &item.data {
                Data::Text(text) => parse(text),
                Data::Integer(value) if item.from_setting => number(*value).ok(),
                _ => None,
            };
            let found = found.filter(|value| *value != T::default());
            if found.is_none() {
                self.problem(
                    &item.span,
                    format!("{} must be {what}", self.called(table, key, &item.span)),
                    None,
                );
            }
            found
        })
    }

    /// A list, or a single value taken as a list of one.
    pub(crate) fn list<'t>(&self, table: &Table<'t>, key: &str) -> Given<Vec<Item<'t>>> {
        self.item(table, key).map(|item| match item.data {
            Data::List(items) => items,
            _ => vec![item],
        })
    }

    /// A list of texts that a parser accepts.
    pub(crate) fn texts<T>(
        &self,
        table: &Table<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, (String, Option<String>)>,
    ) -> Given<Vec<T>> {
        self.list(table, key).and_then(|items| {
            let read: Vec<_> = items
                .iter()
                .map(|item| self.parse_item(table, key, item, &parse))
                .collect();
            read.into_iter().collect()
        })
    }

    /// One text of a list.
    pub(crate) fn parse_item<T>(
        &self,
        table: &Table<'_>,
        key: &str,
        item: &Item<'_>,
        parse: impl Fn(&str) -> Result<T, (String, Option<String>)>,
    ) -> Option<T> {
        let Data::Text(text) = &item.data else {
            self.problem(
                &item.span,
                format!(
                    "`{}` must hold texts, not {}",
                    table.dotted(key),
                    item.data.kind()
                ),
                None,
            );
            return None;
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err((message, help)) => {
                self.problem(
                    &item.span,
                    format!("{}: {message}", self.called(table, key, &item.span)),
                    help,
                );
                None
            }
        }
    }

    /// A table.
    pub(crate) fn table<'t>(&self, table: &Table<'t>, key: &str) -> Given<Table<'t>> {
        self.item(table, key).and_then(|item| match item.data {
            Data::Table(inner) => Some(inner),
            other => {
                self.problem(
                    &item.span,
                    format!(
                        "`{}` must be a table, not {}",
                        table.dotted(key),
                        other.kind()
                    ),
                    None,
                );
                None
            }
        })
    }

    /// The tables below a table, by name: slots.
    pub(crate) fn slots<'t>(&self, table: &Table<'t>) -> Vec<(&'t str, Table<'t>)> {
        let mut slots = Vec::new();
        for (name, span) in table.keys() {
            let shaped = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if !shaped {
                self.problem(
                    &span,
                    format!("`{name}` is no name of a slot: lower-case letters, digits and `-`"),
                    None,
                );
            }
            if let Given::Is(slot) = self.table(table, name) {
                slots.push((name, slot));
            }
        }
        slots
    }

    /// Reports what nobody asked for.
    pub(crate) fn finish(&self, table: &Table<'_>) {
        let asked = table.asked.borrow();
        for (key, span) in table.keys() {
            if asked.iter().any(|known| known == key) {
                continue;
            }
            let place = if table.name.is_empty() {
                String::new()
            } else {
                format!(" in `{}`", table.name)
            };
            let mut known: Vec<_> = asked
                .iter()
                .map(String::as_str)
                .filter(|key| *key != "setting")
                .collect();
            known.sort_unstable();
            known.dedup();
            let help = nearest(key, known.iter().copied())
                .unwrap_or_else(|| format!("there are: {}", known.join(", ")));
            self.problem(&span, format!("unknown key `{key}`{place}"), Some(help));
        }
    }
}

/// "did you mean ...", when a name is near enough.
pub(crate) fn nearest<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    let near = |name: &&str| strsim::damerau_levenshtein(text, name);
    let name = names.min_by_key(near)?;
    // A third of the letters may be wrong.
    (near(&name) * 3 <= name.len().max(3)).then(|| format!("did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_only_when_near() {
        assert_eq!(
            nearest("acces", ["access", "directory"].into_iter()).as_deref(),
            Some("did you mean `access`?")
        );
        assert_eq!(nearest("zzz", ["access", "directory"].into_iter()), None);
    }
}
