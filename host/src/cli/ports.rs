//! `bulkhead ports`: what a firewall has to let in.

use std::io::Write;
use std::net::SocketAddr;

use clap::Args;

use super::client::Client;
use super::exit::Failure;
use super::place::Place;
use super::plan::{Owner, Plan, Served};
use super::print::{self, Format, Listing, Table};
use crate::api::control::PortView;
use crate::plugin::registry::Bundled;
use crate::sandbox::bindings::types::Audience;
use crate::settings::{Config, Problems};

/// List ports, with the audiences and features that are served there
///
/// One row an address: what a firewall has to let in, and for whom. The list is made from the configuration, whether or not a proxy
/// runs; without a configuration file, from that of a trial. A feature stands where somebody can reach a part of it. Mistakes in the
/// configuration are told after the list (exit code 3).
///
/// Plugins that were dropped into the plugin directory are not looked at, unless with --running.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead ports\n  \
    bulkhead ports --config ./proxy.toml --profile client\n  \
    bulkhead ports --running\n  \
    bulkhead ports --format json | jq -r '.[] | select(.protocol == \"udp\") | .address'")]
pub struct Ports {
    /// The proxy that is meant.
    #[command(flatten)]
    pub place: Place,
    /// Ask the running proxy where it listens, instead of the configuration
    #[arg(long)]
    pub running: bool,
    /// How the list looks.
    #[command(flatten)]
    pub listing: Listing,
}

impl Ports {
    /// Prints the list.
    pub fn run(self, bundled: &[Bundled], out: &mut dyn Write) -> Result<(), Failure> {
        if self.running {
            let ports: Vec<PortView> = Client::new(&self.place)?.get("/ports")?;
            return show(&ports, self.listing.format, out);
        }
        // Asked on a machine that lacks the certificates, it still tells what the firewall has to let in.
        let (config, problems) = self.place.survey()?;
        if let Some(config) = &config {
            show(&configured(config, bundled)?, self.listing.format, out)?;
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Failure::Configuration(Problems(problems).to_string()))
        }
    }
}

/// What a proxy with this configuration would listen at. A plugin that would not run is an error: the list would lack its ports.
fn configured(config: &Config, bundled: &[Bundled]) -> Result<Vec<PortView>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Start(format!("no threads: {error}")))?;
    let plan = Plan::of(config, bundled, &runtime);
    if let Some(reason) = plan.unseen {
        return Err(Failure::Start(reason));
    }
    if let Some((plugin, reason)) = plan.troubles.first() {
        return Err(Failure::Configuration(format!("{plugin}: {reason}")));
    }
    let view = |wanted: super::plan::Wanted| match &wanted.owner {
        Owner::Listener(name) => config
            .listeners
            .iter()
            .find(|it| it.name == *name)
            .map(|it| listener(name, wanted.address, it.tls, &it.audiences, &plan.routes)),
        Owner::Admin => Some(listener("admin", wanted.address, false, &[], &[])),
        Owner::Plugin(name) => Some(PortView {
            address: wanted.address.to_string(),
            protocol: wanted.transport.word().to_owned(),
            owner: name.clone(),
            audiences: Vec::new(),
            features: vec![name.clone()],
        }),
    };
    Ok(plan.sockets.into_iter().filter_map(view).collect())
}

/// A listener as it is shown.
pub(super) fn listener(
    name: &str,
    address: SocketAddr,
    tls: bool,
    audiences: &[Audience],
    served: &[Served],
) -> PortView {
    let word = |audience: &Audience| match audience {
        Audience::Foreman => "foreman".to_owned(),
        Audience::Host => "host".to_owned(),
        Audience::Public => "public".to_owned(),
    };
    let at = |it: &&Served| it.is_at(tls, audiences);
    let mut features: Vec<String> = served
        .iter()
        .filter(at)
        .map(|it| it.plugin.clone())
        .collect();
    features.sort_unstable();
    PortView {
        address: address.to_string(),
        protocol: if tls { "https" } else { "http" }.to_owned(),
        owner: name.to_owned(),
        audiences: audiences.iter().map(word).collect(),
        features,
    }
}

/// Prints ports, wherever they were learned.
fn show(ports: &[PortView], format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    if format == Format::Json {
        return print::json(&ports, out);
    }
    let mut table = Table::new(["ADDRESS", "PROTOCOL", "OWNER", "AUDIENCES", "FEATURES"]);
    for port in ports {
        table.row([
            &port.address,
            &port.protocol,
            &port.owner,
            &port.audiences.join(" "),
            &port.features.join(" "),
        ]);
    }
    Ok(table.print(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_socket_has_no_audience() {
        let port = |protocol: &str, owner: &str, audiences: &[&str]| PortView {
            address: "[::]:8443".into(),
            protocol: protocol.into(),
            owner: owner.into(),
            audiences: audiences.iter().map(ToString::to_string).collect(),
            features: vec!["dhcp".into()],
        };
        let mut out = Vec::new();
        show(
            &[
                port("https", "foreman", &["foreman", "host"]),
                port("udp", "dhcp", &[]),
            ],
            Format::Text,
            &mut out,
        )
        .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ADDRESS    PROTOCOL  OWNER    AUDIENCES     FEATURES\n\
             [::]:8443  https     foreman  foreman host  dhcp\n\
             [::]:8443  udp       dhcp     -             dhcp\n"
        );
    }
}
