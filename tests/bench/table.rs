//! What was measured, beside what was promised.

/// What is promised of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Promise {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
    /// Nothing; it is shown.
    Printed,
}

impl Promise {
    fn is_kept(self, figure: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(figure >= least),
            Self::AtMost(most) => Some(figure <= most),
            Self::Printed => None,
        }
    }
}

struct Row {
    name: String,
    figure: f64,
    promise: Promise,
    unit: &'static str,
}

/// The rows in order of measurement.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// Adds a row, and prints it at once: a run takes a minute.
    pub(crate) fn add(&mut self, name: &str, figure: f64, promise: Promise, unit: &'static str) {
        let row = Row {
            name: name.to_owned(),
            figure,
            promise,
            unit,
        };
        println!("{row}");
        self.0.push(row);
    }

    /// True when a promise was not kept.
    pub(crate) fn is_broken(&self) -> bool {
        self.0
            .iter()
            .any(|row| row.promise.is_kept(row.figure) == Some(false))
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let figure = match self.figure {
            large if large >= 1_000.0 => format!("{large:.0}"),
            middle if middle >= 10.0 => format!("{middle:.1}"),
            small => format!("{small:.3}"),
        };
        write!(out, "{:58} {figure:>10} {:5}", self.name, self.unit)?;
        match self.promise {
            Promise::AtLeast(least) => write!(out, " at least {least}")?,
            Promise::AtMost(most) => write!(out, " at most {most}")?,
            Promise::Printed => {}
        }
        match self.promise.is_kept(self.figure) {
            Some(true) => write!(out, ": kept"),
            Some(false) => write!(out, ": BROKEN"),
            None => Ok(()),
        }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for row in self
            .0
            .iter()
            .filter(|row| row.promise.is_kept(row.figure).is_some())
        {
            writeln!(out, "{row}")?;
        }
        Ok(())
    }
}
