//! `bulkhead ports`: what a firewall has to let in.

use std::io::Write;

use clap::Args;

use super::client::Client;
use super::exit::Failure;
use super::place::Place;
use super::print::{self, Format, Listing, Table};
use crate::api::control::PortView;

/// List the addresses the running proxy listens at
///
/// One row an address, with the audiences that are served there: what a firewall has to let in, and for whom.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead ports\n  \
    bulkhead ports --format json | jq -r '.[] | select(.protocol == \"udp\") | .address'")]
pub struct Ports {
    /// The proxy that is meant.
    #[command(flatten)]
    pub place: Place,
    /// How the list looks.
    #[command(flatten)]
    pub listing: Listing,
}

impl Ports {
    /// Prints the list.
    pub fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let ports: Vec<PortView> = Client::new(&self.place)?.get("/ports")?;
        show(&ports, self.listing.format, out)
    }
}

/// Prints ports, wherever they were learned.
pub fn show(ports: &[PortView], format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    if format == Format::Json {
        return print::json(&ports, out);
    }
    let mut table = Table::new(["ADDRESS", "PROTOCOL", "OWNER", "AUDIENCES"]);
    for port in ports {
        table.row([
            &port.address,
            &port.protocol,
            &port.owner,
            &port.audiences.join(" "),
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
            "ADDRESS    PROTOCOL  OWNER    AUDIENCES\n\
             [::]:8443  https     foreman  foreman host\n\
             [::]:8443  udp       dhcp     -\n"
        );
    }
}
