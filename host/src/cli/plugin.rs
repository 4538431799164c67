//! `bulkhead plugin`: what is installed, what a file would be, and the two decisions an operator takes about a version.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::client::Client;
use super::exit::Failure;
use super::place::Place;
use super::print::{self, Format, Listing, Table};
use super::workbench::{self, Inspection};
use crate::api::control::{Done, PluginView};
use crate::api::socket::Approval;

/// See, approve and roll back plugins
// A doc on a variant would replace that of its struct in the help.
#[allow(missing_docs)]
#[derive(Debug, Subcommand)]
pub enum Plugin {
    List(List),
    Inspect(Inspect),
    Approve(Approve),
    Rollback(Rollback),
}

/// List the plugins of the running proxy
///
/// Shows each plugin's state and, if it does not serve, why and which lines its policy lacks.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead plugin list\n  \
    bulkhead plugin list --format json | jq -r '.[] | select(.state == \"pending\") | .name'")]
pub struct List {
    /// The proxy that is meant.
    #[command(flatten)]
    pub place: Place,
    /// How the list looks.
    #[command(flatten)]
    pub listing: Listing,
}

/// Show what a plugin file is and asks for, without running it
///
/// Name, version, digest, size, imports, routes with their audience, needs with their reasons, settings with defaults, and whether it fits
/// this proxy. Needs no running proxy.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead plugin inspect ./hello.wasm\n  \
    bulkhead plugin inspect ./hello.wasm --format json")]
pub struct Inspect {
    /// The component file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How it looks.
    #[command(flatten)]
    pub listing: Listing,
}

/// Approve the waiting file of a plugin
///
/// A policy holds for approved files only. A new file, or a new version of a known plugin, waits until it is approved; look at it with
/// `bulkhead plugin inspect` and `bulkhead policy diff` first.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead plugin approve hello\n  \
    bulkhead plugin approve hello --digest sha256:9f86...")]
pub struct Approve {
    /// The plugin
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Approve only if the waiting file is this one
    #[arg(long, value_name = "sha256:HEX")]
    pub digest: Option<String>,
    /// The proxy that is meant.
    #[command(flatten)]
    pub place: Place,
}

/// Return to the version of a plugin that ran before
///
/// The previous version is kept compiled, so this takes effect at once. The file in the plugin directory stays; it is not tried again until it
/// changes.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  bulkhead plugin rollback hello")]
pub struct Rollback {
    /// The plugin
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The proxy that is meant.
    #[command(flatten)]
    pub place: Place,
}

impl Plugin {
    /// Runs one of them.
    pub fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        match self {
            Self::List(list) => {
                let plugins: Vec<PluginView> = Client::new(&list.place)?.get("/plugins")?;
                show(&plugins, list.listing.format, out)
            }
            Self::Inspect(Inspect { file, listing }) => {
                let (inspection, _) = workbench::look(&file)?;
                show_inspection(&inspection, listing.format, out)?;
                match inspection.problem {
                    None => Ok(()),
                    Some(problem) => Err(Failure::Unfit { file, problem }),
                }
            }
            Self::Approve(Approve {
                name,
                digest,
                place,
            }) => {
                let done: Done = Client::new(&place)?.post(
                    &format!("/plugins/{}/approve", segment(&name)),
                    &Approval { digest },
                )?;
                Ok(print::line(out, &done.message)?)
            }
            Self::Rollback(Rollback { name, place }) => {
                let nothing = serde_json::Map::new();
                let done: Done = Client::new(&place)?
                    .post(&format!("/plugins/{}/rollback", segment(&name)), &nothing)?;
                Ok(print::line(out, &done.message)?)
            }
        }
    }
}

/// A name as one segment of a path. Plugin names need no escape; what an operator mistypes may.
pub(super) fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn show_inspection(seen: &Inspection, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    if format == Format::Json {
        return print::json(seen, out);
    }
    let fits = seen.problem.as_deref().unwrap_or("yes");
    if let Some(manifest) = &seen.manifest {
        print::line(
            out,
            &format!(
                "{} {}: {}",
                manifest.name, manifest.version, manifest.summary
            ),
        )?;
    }
    print::line(
        out,
        &format!("file      {}, {} bytes", seen.file.display(), seen.size),
    )?;
    print::line(out, &format!("digest    {}", seen.digest))?;
    print::line(out, &format!("fits      {fits}"))?;
    if let Some(manifest) = &seen.manifest {
        print::line(out, &format!("lifetime  {}", manifest.lifetime))?;
        print::line(out, &format!("mounts    {}", manifest.mounts.join(" ")))?;
        let mut routes = Table::new(["METHOD", "PATTERN", "AUDIENCE", "BODY"]);
        for route in &manifest.routes {
            routes.row([&route.method, &route.pattern, route.audience, route.body]);
        }
        writeln!(out)?;
        routes.print(out)?;
        let mut needs = Table::new(["NEEDS", "SLOT", "ACCESS", "REQUIRED", "BECAUSE"]);
        for need in &manifest.needs {
            let required = if need.required { "yes" } else { "no" };
            needs.row([
                &need.capability,
                &need.slot,
                &need.access,
                required,
                &need.reason,
            ]);
        }
        writeln!(out)?;
        needs.print(out)?;
        let mut settings = Table::new(["SETTING", "KIND", "DEFAULT", "REQUIRED", "SHOWN", "HELP"]);
        for setting in &manifest.settings {
            let required = if setting.required { "yes" } else { "no" };
            let shown = if setting.exposed { "yes" } else { "no" };
            let default = setting.default.as_deref().unwrap_or_default();
            settings.row([
                &setting.name,
                setting.kind,
                default,
                required,
                shown,
                &setting.help,
            ]);
        }
        writeln!(out)?;
        settings.print(out)?;
    }
    if seen.surface.imports.is_empty() && seen.surface.exports.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nImports")?;
    for import in &seen.surface.imports {
        print::line(out, &format!("  {import}"))?;
    }
    writeln!(out, "\nExports")?;
    for export in &seen.surface.exports {
        print::line(out, &format!("  {export}"))?;
    }
    Ok(())
}

fn show(plugins: &[PluginView], format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    if format == Format::Json {
        return print::json(&plugins, out);
    }
    let mut table = Table::new(["NAME", "VERSION", "STATE", "MOUNTS", "FROM", "REASON"]);
    for plugin in plugins {
        let reason = plugin.reason.as_deref().unwrap_or_default();
        let state = plugin.state.to_string();
        table.row([
            &plugin.name,
            &plugin.version,
            &state,
            &plugin.mounts.join(" "),
            &plugin.origin,
            reason,
        ]);
    }
    table.print(out)?;
    for plugin in plugins {
        if !plugin.missing.is_empty() {
            writeln!(out, "\nThe policy of {} lacks:", plugin.name)?;
            for line in &plugin.missing {
                print::line(out, &format!("  {line}"))?;
            }
        }
        for warning in &plugin.warnings {
            print::line(out, &format!("Warning, {}: {warning}", plugin.name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::tests::with_host;

    fn run(command: Plugin) -> Result<String, Failure> {
        let mut out = Vec::new();
        command.run(&mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_list_shows_state_and_reason() {
        with_host(|place| {
            let text = run(Plugin::List(List {
                place: place.clone(),
                listing: Listing::default(),
            }))
            .unwrap();
            assert_eq!(
                text,
                "NAME  VERSION  STATE    MOUNTS  FROM     REASON\n\
                 tftp  0.1.0    pending  /tftp   bundled  no grant for files.root\n"
            );
        });
    }

    #[test]
    fn the_list_is_json_when_asked() {
        with_host(|place| {
            let listing = Listing {
                format: Format::Json,
            };
            let text = run(Plugin::List(List {
                place: place.clone(),
                listing,
            }))
            .unwrap();
            let plugins: Vec<PluginView> = serde_json::from_str(&text).unwrap();
            assert_eq!(plugins[0].mounts, ["/tftp"]);
        });
    }

    #[test]
    fn another_waiting_file_is_not_approved() {
        with_host(|place| {
            let approve = |digest: &str| {
                run(Plugin::Approve(Approve {
                    name: "tftp".into(),
                    digest: Some(digest.into()),
                    place: place.clone(),
                }))
            };
            assert_eq!(approve("sha256:00").unwrap(), "approved\n");
            assert_eq!(
                approve("sha256:11").unwrap_err().to_string(),
                "another file waits"
            );
        });
    }

    #[test]
    fn a_name_with_slashes_stays_one_segment() {
        with_host(|place| {
            let error = run(Plugin::Rollback(Rollback {
                name: "a/../../policy".into(),
                place: place.clone(),
            }))
            .unwrap_err();
            assert_eq!(
                error.to_string(),
                "disk",
                "it reached `rollback` and nothing else"
            );
        });
    }

    #[test]
    fn missing_lines_and_warnings_follow_the_table() {
        let plugin = PluginView {
            name: "hello".into(),
            version: "1.0.0".into(),
            digest: "sha256:00".into(),
            origin: "/srv/hello.wasm".into(),
            state: crate::api::control::PluginState::Pending,
            reason: None,
            mounts: vec![],
            missing: vec!["[files.root] # and more".into()],
            warnings: vec!["nobody asks for names.x".into()],
            previous: None,
        };
        let mut out = Vec::new();
        show(&[plugin], Format::Text, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("\nThe policy of hello lacks:\n  [files.root] # and more\nWarning, hello: nobody asks for names.x\n"), "{text}");
    }
}
