//! One thing that was looked at.

use std::fmt::{self, Display};
use std::io::{self, Write};

use serde::Serialize;

use crate::cli::print;

/// What it belongs to, in the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Area {
    Configuration,
    Ports,
    Names,
    Certificates,
    Foreman,
    Clock,
    Directories,
    Dhcp,
    Plugins,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Good,
    /// Could not be looked at.
    Unknown,
    /// Works, but not for long, or not for everybody.
    Warning,
    /// Something will not work.
    Problem,
}

/// One thing. Its fields are the documented shape of `--format json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub area: Area,
    pub level: Level,
    pub subject: String,
    pub found: String,
    /// What to do; none where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    pub(super) fn good(area: Area, subject: impl Display, found: impl Display) -> Self {
        Self {
            area,
            level: Level::Good,
            subject: subject.to_string(),
            found: found.to_string(),
            advice: None,
        }
    }

    pub(super) fn problem(
        area: Area,
        subject: impl Display,
        found: impl Display,
        advice: impl Display,
    ) -> Self {
        Self {
            level: Level::Problem,
            advice: Some(advice.to_string()),
            ..Self::good(area, subject, found)
        }
    }

    pub(super) fn warning(
        area: Area,
        subject: impl Display,
        found: impl Display,
        advice: impl Display,
    ) -> Self {
        Self {
            level: Level::Warning,
            ..Self::problem(area, subject, found, advice)
        }
    }

    pub(super) fn unknown(
        area: Area,
        subject: impl Display,
        found: impl Display,
        advice: impl Display,
    ) -> Self {
        Self {
            level: Level::Unknown,
            ..Self::problem(area, subject, found, advice)
        }
    }
}

impl Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "Configuration",
            Self::Ports => "Ports",
            Self::Names => "Names",
            Self::Certificates => "Certificates",
            Self::Foreman => "Foreman",
            Self::Clock => "Clock",
            Self::Directories => "Directories",
            Self::Dhcp => "DHCP servers on the wire",
            Self::Plugins => "Plugins and policies",
        })
    }
}

impl Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// The report for people.
pub(super) fn print(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    let mut shown = None;
    for finding in findings {
        if shown != Some(finding.area) {
            writeln!(out, "{}", finding.area)?;
            shown = Some(finding.area);
        }
        let Finding {
            level,
            subject,
            found,
            advice,
            ..
        } = finding;
        print::line(out, &format!("  {level:<8} {subject}: {found}"))?;
        if let Some(advice) = advice {
            print::line(out, &format!("           -> {advice}"))?;
        }
    }
    let count = |level| findings.iter().filter(|it| it.level == level).count();
    writeln!(
        out,
        "{} good, {} unknown, {} to be warned of, {} wrong",
        count(Level::Good),
        count(Level::Unknown),
        count(Level::Warning),
        count(Level::Problem)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_what_was_found_and_what_to_do() {
        let findings = [
            Finding::good(Area::Ports, "tcp 127.0.0.1:8000", "free"),
            Finding::problem(
                Area::Ports,
                "udp 127.0.0.1:53",
                "named (412) has it",
                "stop it",
            ),
            Finding::unknown(
                Area::Clock,
                "this machine",
                "not compared",
                "name a Foreman",
            ),
        ];
        let mut out = Vec::new();
        print(&findings, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Ports\n  good     tcp 127.0.0.1:8000: free\n  problem  udp 127.0.0.1:53: named (412) has it\n           -> stop it\n\
             Clock\n  unknown  this machine: not compared\n           -> name a Foreman\n\
             1 good, 1 unknown, 0 to be warned of, 1 wrong\n"
        );
    }

    #[test]
    fn programs_get_lower_case_words() {
        let finding = Finding::good(Area::Dhcp, "eth0", "nobody else answers");
        assert_eq!(
            serde_json::to_string(&finding).unwrap(),
            r#"{"area":"dhcp","level":"good","subject":"eth0","found":"nobody else answers"}"#
        );
    }
}
