//! What `serve` prints on trial: what listens where, each feature with its state and what it may reach, and lines to paste.

use std::fmt::Write as _;

use super::host::Host;
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
        let _ = writeln!(text, "  {scheme}://{:<22} {who}", bound.address.to_string());
    }
    text.push_str("\nFeatures\n");
    for view in host.registry().views() {
        let reason = view
            .reason
            .as_ref()
            .map(|it| format!(": {it}"))
            .unwrap_or_default();
        let _ = writeln!(text, "  {:<10} {}{reason}", view.name, view.state);
        if let Some(plugin) = host.registry().running(&view.name) {
            for row in explain::explain(&plugin.manifest, &plugin.guard) {
                let granted = row.granted.unwrap_or_else(|| "nothing".into());
                let _ = writeln!(
                    text,
                    "             may: {} {}: {granted}",
                    row.capability, row.slot
                );
            }
        }
    }
    let _ = writeln!(text, "  {:<10} running (the host's own)", "logs");
    let plain = address(host, "foreman-http");
    let secure = address(host, "foreman");
    let hosts = address(host, "hosts");
    let _ = write!(
        text,
        "\nTry\n  \
         curl -s --cacert {ca} --cert {cert} --key {key} https://{secure}/v2/features\n  \
         curl -s -d 'pxeconfig=set timeout=5' http://{plain}/tftp/PXEGrub2/aa:bb:cc:dd:ee:ff\n  \
         curl -s http://{hosts}/httpboot/grub2/grub.cfg-01-aa-bb-cc-dd-ee-ff\n\n\
         Files are below {state}. Stop with Ctrl-C.\n\n",
        ca = files.ca.display(),
        cert = files.client_certificate.display(),
        key = files.client_key.display(),
        state = host.config().state.display(),
    );
    text
}

fn address(host: &Host, listener: &str) -> String {
    host.bound()
        .iter()
        .find(|it| it.listener == listener)
        .map_or_else(String::new, |it| it.address.to_string())
}
