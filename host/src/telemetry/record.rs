//! One log record, and the two ways to write it as a line.

use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde::ser::SerializeMap;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use super::text;

/// Longest message and longest field value kept, in bytes. The ring holds thousands of records, so one of them must stay small.
pub const MESSAGE_LIMIT: usize = 4096;

/// Longest value of any other field, in bytes: enough for a path or a URL.
const VALUE_LIMIT: usize = 1024;

/// Fields kept of one event, beside those that have a place of their own.
const FIELD_LIMIT: usize = 16;

/// How many characters of a request id a text line and `/logs` show (contract: core API, section 6).
const SHORT_ID: usize = 8;

/// How serious a record is, under the names `/logs` uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// For those who look for a fault.
    Debug,
    /// What happens in ordinary operation.
    Info,
    /// Something an operator should know; it still works.
    Warn,
    /// Something did not work.
    Error,
}

impl Level {
    fn initial(self) -> char {
        match self {
            Self::Debug => 'D',
            Self::Info => 'I',
            Self::Warn => 'W',
            Self::Error => 'E',
        }
    }

    /// The number the journal and syslog use for it.
    #[must_use]
    pub fn priority(self) -> u8 {
        match self {
            Self::Debug => 7,
            Self::Info => 6,
            Self::Warn => 4,
            Self::Error => 3,
        }
    }
}

/// A level that has no such name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such log level: `{0}` (debug, info, warn, error)")]
pub struct UnknownLevel(pub String);

impl std::str::FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, UnknownLevel> {
        match name.to_ascii_lowercase().as_str() {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            _ => Err(UnknownLevel(name.to_owned())),
        }
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            // TRACE exists only in dependencies; the contract has no name below DEBUG.
            _ => Self::Debug,
        }
    }
}

/// One event, read and made safe to print.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it happened.
    pub time: SystemTime,
    /// How serious it is.
    pub level: Level,
    /// The module that wrote it.
    pub target: &'static str,
    /// The plugin it is about.
    pub plugin: Option<String>,
    /// The whole id of the request it belongs to.
    pub request_id: Option<Arc<str>>,
    /// What happened, printable, at most [`MESSAGE_LIMIT`] bytes.
    pub message: String,
    /// Everything else the event says, in its order.
    pub fields: Vec<(&'static str, Value)>,
}

/// A field's value. Numbers and booleans stay what they are in JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Printable text.
    Text(String),
    /// A signed integer.
    Signed(i64),
    /// An unsigned integer.
    Unsigned(u64),
    /// A fraction.
    Float(f64),
    /// Yes or no.
    Boolean(bool),
}

impl Record {
    /// An empty record of now.
    #[must_use]
    pub fn new(level: Level, target: &'static str) -> Self {
        Self {
            time: SystemTime::now(),
            level,
            target,
            plugin: None,
            request_id: None,
            message: String::new(),
            fields: Vec::new(),
        }
    }

    /// Adds what an event says. `message`, `plugin` and `request_id` have places of their own.
    pub fn set(&mut self, name: &'static str, value: Value) {
        let limit = if name == "message" {
            MESSAGE_LIMIT
        } else {
            VALUE_LIMIT
        };
        let value = match value {
            Value::Text(text) => Value::Text(text::printable(text::cut(&text, limit)).into_owned()),
            other => other,
        };
        match (name, value) {
            ("message", Value::Text(text)) => self.message = text,
            ("plugin", Value::Text(text)) => self.plugin = Some(text),
            ("request_id", Value::Text(text)) => self.request_id = Some(text.into()),
            // Left by the bridge from the `log` crate: file and line of a dependency.
            (name, _) if name.starts_with("log.") => {}
            (name, value) if self.fields.len() < FIELD_LIMIT => self.fields.push((name, value)),
            _ => {}
        }
    }

    /// Seconds since 1970 with microseconds, as `/logs` shows and filters them.
    #[must_use]
    pub fn timestamp(&self) -> f64 {
        let micros = self
            .time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_micros();
        // Exact: today's microseconds need 51 of the 53 bits.
        #[allow(clippy::cast_precision_loss)]
        let seconds = micros as f64 / 1_000_000.0;
        seconds
    }

    /// The first characters of the request id.
    #[must_use]
    pub fn short_id(&self) -> Option<&str> {
        self.request_id.as_deref().map(|id| text::cut(id, SHORT_ID))
    }

    /// Plugin, message and fields as one text: `tftp: download finished path=/boot/vmlinuz bytes=1024`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.message.len() + 24 * self.fields.len());
        self.write_text(&mut text);
        text
    }

    /// Appends the line a person reads, `2026-11-23T18:36:14 850ca7f1 [I] Started GET /features `, in local time.
    pub fn write_line(&self, line: &mut String) {
        let time = OffsetDateTime::from(self.time);
        let time = time.to_offset(UtcOffset::local_offset_at(time).unwrap_or(UtcOffset::UTC));
        line.push_str(&time.format(&LINE_TIME).unwrap_or_default());
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            " {} [{}] ",
            self.short_id().unwrap_or_default(),
            self.level.initial()
        );
        self.write_text(line);
        line.push('\n');
    }

    /// Appends the line a machine reads: one JSON object, time in UTC.
    pub fn write_json(&self, line: &mut String) {
        if let Ok(json) = serde_json::to_string(&JsonLine(self)) {
            line.push_str(&json);
            line.push('\n');
        }
    }

    fn write_text(&self, text: &mut String) {
        if let Some(plugin) = &self.plugin {
            text.push_str(plugin);
            text.push_str(": ");
        }
        text.push_str(&self.message);
        for (name, value) in &self.fields {
            if !text.is_empty() {
                text.push(' ');
            }
            let _ = match value {
                Value::Text(value) if value.is_empty() || value.contains([' ', '"', '=']) => {
                    write!(text, "{name}={value:?}")
                }
                Value::Text(value) => write!(text, "{name}={value}"),
                Value::Signed(value) => write!(text, "{name}={value}"),
                Value::Unsigned(value) => write!(text, "{name}={value}"),
                Value::Float(value) => write!(text, "{name}={value}"),
                Value::Boolean(value) => write!(text, "{name}={value}"),
            };
        }
    }
}

const LINE_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
const JSON_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

struct JsonLine<'a>(&'a Record);

impl Serialize for JsonLine<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(
            "timestamp",
            &OffsetDateTime::from(record.time)
                .format(&JSON_TIME)
                .unwrap_or_default(),
        )?;
        map.serialize_entry("level", &record.level)?;
        map.serialize_entry("message", &record.message)?;
        if let Some(plugin) = &record.plugin {
            map.serialize_entry("plugin", plugin)?;
        }
        if let Some(id) = &record.request_id {
            map.serialize_entry("request_id", id.as_ref())?;
        }
        map.serialize_entry("target", record.target)?;
        for (name, value) in &record.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> Record {
        let mut record = Record::new(Level::Info, "bulkhead::server");
        record.set("request_id", Value::Text("850ca7f1-2b3c-4d5e".into()));
        record.set("message", Value::Text("Started GET /features ".into()));
        record
    }

    fn line(record: &Record) -> String {
        let mut line = String::new();
        record.write_line(&mut line);
        line
    }

    #[test]
    fn the_text_line_has_the_shape_operators_parse() {
        let line = line(&started());
        let (time, rest) = line.split_at(19);
        assert_eq!(rest, " 850ca7f1 [I] Started GET /features \n");
        assert!(
            time::PrimitiveDateTime::parse(time, LINE_TIME).is_ok(),
            "{time}"
        );
    }

    #[test]
    fn a_line_without_request_keeps_its_columns() {
        let mut record = Record::new(Level::Error, "bulkhead");
        record.set("message", Value::Text("no certificate".into()));
        assert!(line(&record).ends_with("  [E] no certificate\n"));
    }

    #[test]
    fn fields_and_plugin_are_part_of_the_text() {
        let mut record = Record::new(Level::Info, "bulkhead");
        record.set("plugin", Value::Text("tftp".into()));
        record.set("message", Value::Text("download finished".into()));
        record.set("path", Value::Text("/boot/a b".into()));
        record.set("bytes", Value::Unsigned(3));
        assert_eq!(
            record.text(),
            "tftp: download finished path=\"/boot/a b\" bytes=3"
        );
    }

    #[test]
    fn json_is_one_line_with_the_whole_request_id_and_real_numbers() {
        let mut record = started();
        record.set("bytes", Value::Unsigned(3));
        let mut line = String::new();
        record.write_json(&mut line);
        assert_eq!(line.lines().count(), 1);
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["request_id"], "850ca7f1-2b3c-4d5e");
        assert_eq!(json["bytes"], 3);
        assert_eq!(json["level"], "INFO");
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_message_cannot_forge_a_line_and_cannot_grow() {
        let mut record = Record::new(Level::Info, "bulkhead");
        record.set(
            "message",
            Value::Text(format!("a\nb{}", "x".repeat(MESSAGE_LIMIT * 2))),
        );
        assert_eq!(line(&record).lines().count(), 1);
        assert!(record.message.len() <= MESSAGE_LIMIT + 1);
    }

    #[test]
    fn fields_of_one_event_are_bounded() {
        let mut record = Record::new(Level::Info, "bulkhead");
        for _ in 0..1000 {
            record.set("again", Value::Boolean(true));
        }
        assert_eq!(record.fields.len(), FIELD_LIMIT);
    }
}
