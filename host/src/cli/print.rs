//! How lists look: aligned columns for people, JSON for programs. No colours: the output is the same in a terminal, a file and
//! a mail.
//!
//! Much of what is printed was written by plugin authors, so nothing is printed that could act on the terminal.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;
use time::{OffsetDateTime, UtcOffset};

use super::exit::Failure;
use crate::telemetry::text::printable;

/// `--format`.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Listing {
    /// Shape of the output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Shapes of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// Columns as wide as their widest cell, but for the last one.
#[derive(Debug)]
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: [&str; N]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned)],
        }
    }

    /// Adds a row. An empty cell shows as `-`.
    pub fn row(&mut self, cells: [&str; N]) {
        self.rows.push(cells.map(|cell| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                printable(cell).into_owned()
            }
        }));
    }

    /// Prints it.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                // Writing to a String cannot fail.
                let _ = write!(line, "{cell:width$}  ");
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Prints a value as JSON, without a character that a terminal would obey.
pub fn json(value: &impl Serialize, out: &mut dyn Write) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Line feeds here are JSON's own: those in values are escaped already.
        if c == '\n'
            || matches!(
                printable(c.encode_utf8(&mut [0; 4])),
                std::borrow::Cow::Borrowed(_)
            )
        {
            safe.push(c);
        } else {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        }
    }
    Ok(writeln!(out, "{safe}")?)
}

/// One line of text from elsewhere.
pub fn line(out: &mut dyn Write, text: &str) -> io::Result<()> {
    writeln!(out, "{}", printable(text))
}

/// Seconds since 1970 as local time.
#[must_use]
pub fn moment(seconds: f64) -> String {
    // Rounded down to seconds on purpose.
    #[allow(clippy::cast_possible_truncation)]
    let time =
        OffsetDateTime::from_unix_timestamp(seconds as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let time = time.to_offset(UtcOffset::local_offset_at(time).unwrap_or(UtcOffset::UTC));
    let shape = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    time.format(shape).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_the_end() {
        let mut table = Table::new(["NAME", "STATE", "REASON"]);
        table.row(["tftp", "running", ""]);
        table.row(["httpboot", "pending", "no grant"]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        let expected =
            "NAME      STATE    REASON\ntftp      running  -\nhttpboot  pending  no grant\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_plugins_text_cannot_act_on_the_terminal() {
        let mut table = Table::new(["REASON"]);
        table.row(["\u{1b}[2Jgone\nnext"]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        json(&["\u{9b}2J\u{202e}\n"], &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.chars().all(|c| c == '\n' || !c.is_control()), "{out:?}");
        assert!(
            out.ends_with("[\n  \"\\u009b2J\\u202e\\n\"\n]\n"),
            "{out:?}"
        );
    }

    #[test]
    fn escaped_json_is_still_the_same_value() {
        let mut out = Vec::new();
        json(&["a\u{9b}\u{202e}\u{7f}é\n"], &mut out).unwrap();
        assert_eq!(
            serde_json::from_slice::<Vec<String>>(&out).unwrap(),
            ["a\u{9b}\u{202e}\u{7f}é\n"]
        );
    }
}
