//! What the floors of the house are told of the configuration, at start and at each reload.

use http::HeaderValue;

use super::{HostError, told};
use crate::capability::upstream::Foreman as UpstreamForeman;
use crate::capability::upstream::trust::Trust as UpstreamTrust;
use crate::grant::Deny;
use crate::grant::matchers::port::Ports;
use crate::grant::matchers::url::BaseUrl;
use crate::server::{Bound, Fronts, LOOKUP_TIME, Rules, Trust, TrustedHosts};
use crate::settings::{self, Config};

/// What is read only at start.
pub(super) fn needs_restart(before: &Config, config: &Config) -> Vec<String> {
    let changed = [
        ("state", before.state != config.state),
        ("drain", before.drain != config.drain),
        (
            "log.target and log.format",
            before.log.options.target != config.log.options.target
                || before.log.options.format != config.log.options.format,
        ),
        (
            "log.buffer and log.buffer_errors",
            (before.log.buffer, before.log.buffer_errors)
                != (config.log.buffer, config.log.buffer_errors),
        ),
        ("engine", before.engine != config.engine),
    ];
    let changed = changed.into_iter().filter(|(_, changed)| *changed);
    changed
        .map(|(key, _)| format!("{key}: changed in the file, it takes effect at the next start"))
        .collect()
}

pub(super) fn server_rules(config: &Config) -> Result<Rules, HostError> {
    let hosts = match &config.trusted_hosts {
        Some(settings::TrustedHosts::AnyCertificate) => TrustedHosts::AnyCertificate,
        Some(settings::TrustedHosts::Names(names)) => {
            TrustedHosts::names(names.iter().map(String::as_str))
        }
        None => TrustedHosts::names([]),
    };
    Ok(Rules {
        trust: Trust {
            hosts,
            forward_verify: config.forward_verify,
            lookup_time: LOOKUP_TIME,
        },
        fronts: Fronts::new(config.fronts.clone()),
        server: HeaderValue::from_str(&format!("foreman-proxy/{}", config.version))
            .map_err(told)?,
    })
}

pub(super) fn foreman(config: &Config) -> Result<Option<UpstreamForeman>, HostError> {
    let Some(foreman) = &config.foreman else {
        return Ok(None);
    };
    Ok(Some(UpstreamForeman {
        url: BaseUrl::parse(foreman.url.as_str()).map_err(told)?,
        trust: foreman_trust(foreman),
        connect_timeout: foreman.connect_timeout,
    }))
}

/// How Foreman is known, and we to it.
pub fn foreman_trust(foreman: &settings::config::Foreman) -> UpstreamTrust {
    UpstreamTrust {
        ca: foreman.ca.clone(),
        identity: foreman.identity.clone(),
        verify: true,
    }
}

/// What no plugin may reach: the operator's rules, the host's own listeners, its state and its policies.
pub(in crate::cli) fn deny(config: &Config, bound: &[Bound]) -> Deny {
    let own = [
        Some(&config.state),
        config.plugins.directory.as_ref(),
        config.plugins.policies.as_ref(),
    ];
    Deny {
        networks: config.deny.networks.clone(),
        ports: config
            .deny
            .ports
            .iter()
            .map(|port| Ports {
                first: *port,
                last: *port,
            })
            .collect(),
        listeners: bound.iter().map(|it| it.address).collect(),
        paths: own
            .into_iter()
            .flatten()
            .chain(&config.deny.paths)
            .cloned()
            .collect(),
        free_paths: if config.trial {
            vec![config.state.join("tftpboot")]
        } else {
            Vec::new()
        },
    }
}
