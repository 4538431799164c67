//! `bulkhead doctor`: what stands between this machine and a proxy that works, and what to do about it.
//!
//! It changes nothing: sockets that it tries are closed at once, and no file is written. It refuses to guess: what it may not look at, or was not told
//! enough for, is shown as `unknown`, with what would let it look.
//!
//! | file | concept |
//! |---|---|
//! | `finding` | one thing looked at: how it is, and what to do |
//! | `ports` | addresses to listen at: free, ours, or whose |
//! | `names` | the names of this machine, in both directions |
//! | `certificates` | validity, chain, key, names, rights of the files |
//! | `foreman` | reached with the client certificate? And its clock beside ours |
//! | `directories` | there, ours, writable, with room |
//! | `dhcp` | other DHCP servers on the wire, and whether ours can answer there |
//! | `plugins` | what runs, waits or failed |

mod certificates;
mod dhcp;
mod directories;
mod finding;
mod foreman;
mod names;
mod plugins;
mod ports;

use std::io::Write;

use clap::Args;

use super::client::Client;
use super::exit::Failure;
use super::place::Place;
use super::plan::Plan;
use super::print::{self, Format, Listing};
use crate::plugin::registry::Bundled;
use crate::settings::Config;
use finding::{Area, Finding, Level};

/// Look for what keeps the proxy from working, and say what to do
///
/// Looks at ports, names, clock, certificates, Foreman, directories, other DHCP servers and plugins; with a running proxy at what that one says of
/// itself as well. Without a configuration file it looks at a trial. Nothing is changed.
///
/// Exit code 0: no problem, though perhaps warnings; 1: at least one problem; 3: the configuration itself is wrong.
///
/// Run it as the user the proxy runs as. Low ports, and asking for other DHCP servers, need that user's capabilities, or root.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead doctor\n  \
    bulkhead doctor --config ./proxy.toml\n  \
    bulkhead doctor --interface eth1\n  \
    bulkhead doctor --format json | jq -r '.[] | select(.level == \"problem\") | .advice'")]
pub struct Doctor {
    /// Where configuration and state are.
    #[command(flatten)]
    pub place: Place,

    /// Look for other DHCP servers on this interface as well; may be there several times
    #[arg(long, value_name = "NAME")]
    pub interface: Vec<String>,

    /// How findings are shown.
    #[command(flatten)]
    pub listing: Listing,
}

impl Doctor {
    /// Looks, and prints what was found.
    pub fn run(self, bundled: &[Bundled], out: &mut dyn Write) -> Result<(), Failure> {
        let config = self.place.configuration()?;
        let findings = self.look(&config, bundled)?;
        match self.listing.format {
            Format::Json => print::json(&findings, out)?,
            Format::Text => finding::print(&findings, out)?,
        }
        let problems = findings.iter().filter(|it| it.level == Level::Problem);
        match problems.count() {
            0 => Ok(()),
            count => Err(Failure::Found(count)),
        }
    }

    fn look(&self, config: &Config, bundled: &[Bundled]) -> Result<Vec<Finding>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Start(format!("no threads: {error}")))?;
        let client = Client::new(&self.place)?;
        let plan = Plan::of(config, bundled, &runtime);
        let mut findings = vec![match &config.file {
            Some(file) => Finding::good(Area::Configuration, file.display(), "good"),
            None => Finding::good(
                Area::Configuration,
                "trial",
                "no configuration file; this is about a trial on loopback",
            ),
        }];
        findings.extend(ports::look(config, &plan, client.get("/ports").ok()));
        let system = match crate::server::SystemNames::new() {
            Ok(system) => system,
            Err(error) => {
                findings.push(Finding::problem(
                    Area::Names,
                    "/etc/resolv.conf",
                    error,
                    "mend the file; names of callers and of Foreman are looked up with it",
                ));
                crate::server::SystemNames::none()
            }
        };
        findings.extend(runtime.block_on(names::look(config, &system)));
        findings.extend(certificates::look(config));
        findings.extend(runtime.block_on(foreman::look(config)));
        findings.extend(directories::look(config, &plan));
        findings.extend(dhcp::look(config, &plan, &self.interface));
        findings.extend(plugins::look(&plan, &client));
        Ok(findings)
    }
}
