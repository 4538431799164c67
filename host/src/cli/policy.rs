//! `bulkhead policy`: what plugins may do, did, and were denied.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::client::Client;
use super::exit::Failure;
use super::place::Place;
use super::plugin::segment;
use super::print::{self, Format, Listing, Table};
use super::workbench;
use crate::api::control::{DenialView, Done, Explanation, NeedView};
use crate::api::socket::Allowance;
use crate::grant;
use crate::sandbox::bindings::types::Manifest;
use crate::settings::problem::utf8;

/// See and change what plugins may do
// A doc on a variant would replace that of its struct in the help.
#[allow(missing_docs)]
#[derive(Debug, Subcommand)]
pub enum Policy {
    Explain(Explain),
    Check(Check),
    Diff(Diff),
    Allow(Allow),
    Denials(Denials),
}

/// Show what a plugin asked for, was granted and used
///
/// First what it may do, in one sentence. Then one row a need: the capability, the author's reason, what the policy gives, how often it was used since start. What is granted and
/// never used can go.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead policy explain tftp\n  \
    bulkhead policy explain tftp --format json | jq '.needs[] | select(.used == 0)'")]
pub struct Explain {
    /// The plugin
    #[arg(value_name = "PLUGIN")]
    pub plugin: String,
    /// The proxy that is meant.
    #[command(flatten)]
    pub place: Place,
    /// How it looks.
    #[command(flatten)]
    pub listing: Listing,
}

/// Check a policy file
///
/// Shows every problem with line, column and the nearest valid name. Needs no running proxy. Exit code 3 if there is one.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  bulkhead policy check policies/tftp.toml")]
pub struct Check {
    /// The policy file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How problems are shown.
    #[command(flatten)]
    pub listing: Listing,
}

/// Show what a new version of a plugin newly asks for
///
/// Compares needs, routes and settings of two files. Neither is run outside an empty sandbox.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  bulkhead policy diff hello-1.0.wasm hello-1.1.wasm")]
pub struct Diff {
    /// The version that runs
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// The version that shall run
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// How it looks.
    #[command(flatten)]
    pub listing: Listing,
}

/// Add a line to a plugin's policy and apply it
///
/// Writes the policy file, keeps its comments, and applies it to the running proxy at once. A denial in the log shows the exact line.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead policy allow dhcp 'probe.addresses.allow = [\"192.0.2.0/24\"]'\n  \
    bulkhead policy allow templates 'limits.concurrency = 32'")]
pub struct Allow {
    /// The plugin
    #[arg(value_name = "PLUGIN")]
    pub plugin: String,
    /// The line, as TOML
    #[arg(value_name = "LINE")]
    pub line: String,
    /// The proxy that is meant.
    #[command(flatten)]
    pub place: Place,
}

/// List the actions that were denied
///
/// Each denial stands once, with the number of times it happened since start and the line that would allow it, if anything may.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead policy denials\n  \
    bulkhead policy denials --plugin templates\n  \
    bulkhead policy denials --format json | jq -r '.[].fix'")]
pub struct Denials {
    /// Only those of this plugin
    #[arg(long, value_name = "PLUGIN")]
    pub plugin: Option<String>,
    /// The proxy that is meant.
    #[command(flatten)]
    pub place: Place,
    /// How the list looks.
    #[command(flatten)]
    pub listing: Listing,
}

impl Policy {
    /// Runs one of them.
    pub fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        match self {
            Self::Explain(Explain {
                plugin,
                place,
                listing,
            }) => {
                let explanation: Explanation =
                    Client::new(&place)?.get(&format!("/policy/{}/explain", segment(&plugin)))?;
                show_explanation(&explanation, listing.format, out)
            }
            Self::Check(Check { file, listing }) => {
                let bytes = std::fs::read(&file).map_err(|source| Failure::File {
                    path: file.clone(),
                    source,
                })?;
                let problems = match utf8(&file, bytes) {
                    Ok(text) => grant::policy::Policy::parse(&file, &text)
                        .err()
                        .map(|it| it.0)
                        .unwrap_or_default(),
                    Err(broken) => vec![broken],
                };
                show_problems(
                    &problems,
                    listing.format,
                    out,
                    &format!("{}: good", file.display()),
                )
            }
            Self::Diff(Diff { old, new, listing }) => {
                let changes = grant::diff::diff(&manifest(&old)?, &manifest(&new)?);
                if listing.format == Format::Json {
                    return print::json(&changes, out);
                }
                if changes.is_empty() {
                    print::line(out, "Both ask for the same.")?;
                }
                for change in &changes {
                    print::line(out, &change.to_string())?;
                }
                Ok(())
            }
            Self::Allow(Allow {
                plugin,
                line,
                place,
            }) => {
                let done: Done = Client::new(&place)?.post(
                    &format!("/policy/{}/allow", segment(&plugin)),
                    &Allowance { line },
                )?;
                Ok(print::line(out, &done.message)?)
            }
            Self::Denials(Denials {
                plugin,
                place,
                listing,
            }) => {
                let mut denials: Vec<DenialView> = Client::new(&place)?.get("/policy/denials")?;
                denials.retain(|denial| {
                    plugin
                        .as_ref()
                        .is_none_or(|plugin| denial.plugin == *plugin)
                });
                show_denials(&denials, listing.format, out)
            }
        }
    }
}

fn manifest(file: &std::path::Path) -> Result<Manifest, Failure> {
    let (seen, manifest) = workbench::look(file)?;
    manifest.ok_or_else(|| Failure::Unfit {
        file: file.to_owned(),
        problem: seen.problem.unwrap_or_default(),
    })
}

/// Problems as a list; an error if there is one, so that scripts see it.
pub(super) fn show_problems<P: serde::Serialize + std::fmt::Display>(
    problems: &[P],
    format: Format,
    out: &mut dyn Write,
    good: &str,
) -> Result<(), Failure> {
    if format == Format::Json {
        print::json(&problems, out)?;
    } else if problems.is_empty() {
        print::line(out, good)?;
    }
    if problems.is_empty() {
        return Ok(());
    }
    let text: Vec<_> = problems.iter().map(ToString::to_string).collect();
    Err(Failure::Configuration(text.join("\n")))
}

fn show_explanation(
    explanation: &Explanation,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if format == Format::Json {
        return print::json(explanation, out);
    }
    let Explanation {
        plugin,
        digest,
        policy,
        without,
        sentence,
        needs,
        warnings,
    } = explanation;
    print::line(out, &format!("{plugin}  {digest}"))?;
    let without = without.as_ref();
    let without = without.map_or_else(String::new, |what| format!(" is not there: {what}"));
    print::line(out, &format!("policy {policy}{without}"))?;
    writeln!(out)?;
    print::line(out, sentence)?;
    writeln!(out)?;
    let mut table = Table::new([
        "CAPABILITY",
        "SLOT",
        "ACCESS",
        "GRANTED",
        "USED",
        "DENIED",
        "ASKED FOR BECAUSE",
    ]);
    for need in needs {
        let granted = need.granted.as_deref().unwrap_or(if need.required {
            "nothing (required)"
        } else {
            "nothing"
        });
        let denied = if need.denied == 0 {
            String::new()
        } else {
            need.denied.to_string()
        };
        table.row([
            &need.capability,
            &need.slot,
            &need.access,
            granted,
            &used(need),
            &denied,
            &need.reason,
        ]);
    }
    table.print(out)?;
    for warning in warnings {
        print::line(out, &format!("Warning: {warning}"))?;
    }
    Ok(())
}

fn used(need: &NeedView) -> String {
    match (need.granted.is_some(), need.used) {
        (false, _) => String::new(),
        (true, 0) => "never".into(),
        (true, times) => times.to_string(),
    }
}

fn show_denials(
    denials: &[DenialView],
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if format == Format::Json {
        return print::json(&denials, out);
    }
    if denials.is_empty() {
        writeln!(out, "Nothing was denied since start.")?;
    }
    for denial in denials {
        let times = if denial.count == 1 {
            "once".into()
        } else {
            format!("{} times, last", denial.count)
        };
        print::line(out, &format!("{}: {}", denial.plugin, denial.action))?;
        print::line(
            out,
            &format!("  denied {times} {}", print::moment(denial.timestamp)),
        )?;
        print::line(
            out,
            &format!("  because {} ({})", denial.reason, denial.rule),
        )?;
        match (&denial.fix, &denial.instead) {
            (Some(fix), _) => print::line(out, &format!("  allow with: {fix}"))?,
            (None, Some(change)) => print::line(out, &format!("  allow by a setting: {change}"))?,
            (None, None) => print::line(out, "  no line can allow it")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::tests::with_host;

    fn run(command: Policy) -> Result<String, Failure> {
        let mut out = Vec::new();
        command.run(&mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn explain_shows_asked_granted_and_used() {
        with_host(|place| {
            let explain = |plugin: &str| {
                run(Policy::Explain(Explain {
                    plugin: plugin.into(),
                    place: place.clone(),
                    listing: Listing::default(),
                }))
            };
            assert_eq!(
                explain("tftp").unwrap(),
                "tftp  sha256:00\n\
                 policy policies/tftp.toml\n\
                 \n\
                 tftp may read and write what lies below /srv/tftp; nothing else.\n\
                 \n\
                 CAPABILITY  SLOT  ACCESS      GRANTED    USED  DENIED  ASKED FOR BECAUSE\n\
                 files       root  read-write  /srv/tftp  7     -       boot menus\n"
            );
            assert_eq!(
                explain("nope").unwrap_err().to_string(),
                "there is no plugin `nope`"
            );
        });
    }

    #[test]
    fn a_line_that_the_host_refuses_is_told() {
        with_host(|place| {
            let allow = |line: &str| {
                run(Policy::Allow(Allow {
                    plugin: "tftp".into(),
                    line: line.into(),
                    place: place.clone(),
                }))
            };
            assert_eq!(allow("a = 1").unwrap(), "a = 1\n");
            assert_eq!(allow("a").unwrap_err().to_string(), "not TOML");
        });
    }

    #[test]
    fn a_denial_shows_reason_count_and_the_line_that_would_allow_it() {
        let denial = |count, fix: Option<&str>| DenialView {
            timestamp: 0.0,
            plugin: "dns".into(),
            action: "connect to tcp 192.0.2.1:53".into(),
            rule: "sockets.server".into(),
            reason: "the grant does not name it".into(),
            fix: fix.map(str::to_owned),
            instead: None,
            count,
        };
        let mut out = Vec::new();
        show_denials(
            &[
                denial(3, Some("allow = []")),
                denial(1, None),
                DenialView {
                    instead: Some("add it to `server`".into()),
                    ..denial(1, None)
                },
            ],
            Format::Text,
            &mut out,
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "dns: connect to tcp 192.0.2.1:53");
        assert!(lines[1].starts_with("  denied 3 times, last 19"), "{text}");
        assert_eq!(
            lines[2],
            "  because the grant does not name it (sockets.server)"
        );
        assert_eq!(lines[3], "  allow with: allow = []");
        assert!(lines[5].starts_with("  denied once "), "{text}");
        assert_eq!(lines[7], "  no line can allow it");
        assert_eq!(lines[11], "  allow by a setting: add it to `server`");
    }

    #[test]
    fn no_denials_are_said_in_words() {
        with_host(|place| {
            let denials = Denials {
                plugin: None,
                place: place.clone(),
                listing: Listing::default(),
            };
            assert_eq!(
                run(Policy::Denials(denials)).unwrap(),
                "Nothing was denied since start.\n"
            );
        });
    }
}
