//! What `serve` prints on trial: what listens where, each feature with its state and what it may reach, and lines to paste.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::host::Host;
use crate::api::control::PluginState;
use crate::grant::explain;
use crate::server::TrialFiles;

/// The text.
#[must_use]
pub fn banner(host: &Host, files: &TrialFiles) -> String {
    let mut text = String::from(
        "\nBulkhead runs on trial: on this machine only, without a configuration file.\n\nListening\n",
    );
    for bound in host.bound().iter() {
        let scheme = if bound.tls { "https" } else { "http" };
        let who = match bound.listener.as_str() {
            "admin" => "administrator: /metrics, /healthz, /readyz",
            name if name.starts_with("foreman") => "Foreman",
            _ => "client hosts",
        };
        let place = format!("{scheme}://{}", bound.address);
        let _ = writeln!(text, "  {place:<29} {who}");
    }
    let services = host.registry().services().ports();
    for port in &services {
        let place = format!("{} {}", port.socket.transport, port.socket.address);
        let _ = writeln!(text, "  {place:<29} service {}", port.plugin);
    }
    text.push_str("\nFeatures, providers and services\n");
    let mut off = Vec::new();
    for view in host.registry().views() {
        if view.state == PluginState::Disabled {
            off.push(view.name);
            continue;
        }
        let reason = view
            .reason
            .as_ref()
            .map(|it| format!(": {it}"))
            .unwrap_or_default();
        let _ = writeln!(text, "  {:<13} {}{reason}", view.name, view.state);
        if let Some(plugin) = host.registry().running(&view.name) {
            for row in explain::explain(&plugin.manifest, &plugin.guard) {
                let granted = row.granted.unwrap_or_else(|| "nothing".into());
                let _ = writeln!(
                    text,
                    "                may: {} {}: {granted}",
                    row.capability, row.slot
                );
            }
        }
    }
    let _ = writeln!(text, "  {:<13} running (the host's own)", "logs");
    let _ = writeln!(
        text,
        "  not on trial, since they need another server: {}",
        off.join(", ")
    );
    let plain = address(host, "foreman-http");
    let secure = address(host, "foreman");
    let hosts = address(host, "hosts");
    let service = |plugin: &str| {
        let found = services.iter().find(|it| &*it.plugin == plugin);
        found.map(|it| it.socket.address).unwrap_or(NOWHERE)
    };
    let (names, files_of) = (service("dns-builtin"), service("tftp-server"));
    let _ = write!(
        text,
        "\nTry\n  \
         curl -s --cacert {ca} --cert {cert} --key {key} https://{secure}/v2/features\n  \
         curl -s -d 'pxeconfig=set timeout=5' http://{plain}/tftp/PXEGrub2/aa:bb:cc:dd:ee:ff\n  \
         curl -s http://{hosts}/httpboot/grub2/grub.cfg-01-aa-bb-cc-dd-ee-ff\n  \
         curl -s tftp://{files_of}/grub2/grub.cfg-01-aa-bb-cc-dd-ee-ff\n  \
         curl -s -d 'fqdn=web.trial.example&value=192.0.2.10&type=A' http://{plain}/dns/\n  \
         dig +short @{dns_ip} -p {dns_port} web.trial.example\n  \
         curl -s -d 'hostname=web&ip=192.0.2.10&mac=aa:bb:cc:dd:ee:ff' http://{plain}/dhcp/192.0.2.0\n  \
         curl -s http://{plain}/dhcp/192.0.2.0\n\n\
         DHCP is kept, and answered on no network: that needs an interface in a configuration. Templates and registration\n\
         need Foreman, which a trial does not know.\n\
         Files are below {state}. A plugin of your own goes into {plugins}. Stop with Ctrl-C.\n\n",
        ca = files.ca.display(),
        cert = files.client_certificate.display(),
        key = files.client_key.display(),
        state = host.config().state.display(),
        plugins = host.config().state.join("plugins").display(),
        dns_ip = names.ip(),
        dns_port = names.port(),
    );
    text
}

/// Of a service that does not run; the lines above say why.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn address(host: &Host, listener: &str) -> String {
    host.bound()
        .iter()
        .find(|it| it.listener == listener)
        .map_or_else(String::new, |it| it.address.to_string())
}
