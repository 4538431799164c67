//! The names under which this machine is reached: each leads to an address of this machine, and the address back to the name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;

use super::finding::{Area, Finding};
use crate::sandbox::bindings::types::Audience;
use crate::server::ReverseNames;
use crate::settings::{Config, TrustedHosts};

/// For one look-up: a resolver that takes longer hurts whoever calls.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn look(config: &Config, names: &dyn ReverseNames) -> Vec<Finding> {
    let own = own_addresses();
    let mut findings = Vec::new();
    for name in own_names(config) {
        findings.extend(own_name(&name, &own, names).await);
    }
    findings.extend(callers(config, names).await);
    findings
}

/// The names of this machine that stand in the configuration, or else its own. None on trial, which is on loopback.
pub(super) fn own_names(config: &Config) -> Vec<String> {
    let mut found = public_names(config, |_| true);
    if found.is_empty() && !config.trial {
        found.push(node_name());
    }
    found
}

/// The names that its certificate must hold: those reached over TLS, or else its own if that is whole. A short one is completed in DNS.
pub(super) fn tls_names(config: &Config) -> Vec<String> {
    let found = public_names(config, |scheme| scheme == "https");
    let served = config.listeners.iter().any(|it| it.tls) && !config.trial;
    if found.is_empty() && served {
        return Some(node_name())
            .filter(|it| it.contains('.'))
            .into_iter()
            .collect();
    }
    found
}

fn public_names(config: &Config, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found: Vec<String> = config
        .listeners
        .iter()
        .filter_map(|it| it.public_url.as_deref())
        .filter_map(|url| url::Url::parse(url).ok())
        .filter(|url| wanted(url.scheme()))
        .filter_map(|url| url.host_str().map(str::to_owned))
        .collect();
    found.sort();
    found.dedup();
    found
}

fn node_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// Addresses of this machine's interfaces.
pub(super) fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    interfaces
        .filter_map(|it| it.address)
        .filter_map(|address| {
            let four = address.as_sockaddr_in().map(|it| it.ip().into());
            four.or_else(|| address.as_sockaddr_in6().map(|it| it.ip().into()))
        })
        .collect()
}

async fn own_name(name: &str, own: &[IpAddr], names: &dyn ReverseNames) -> Vec<Finding> {
    let literal = name.trim_matches(['[', ']']).parse::<IpAddr>();
    if let Ok(address) = literal {
        return vec![whose(name, address, own)];
    }
    let addresses = addresses(name, names).await;
    let Some(&first) = addresses.first() else {
        return vec![Finding::problem(
            Area::Names,
            name,
            "this machine's own name leads to no address",
            "add it to your DNS, or to /etc/hosts on this machine, on Foreman and on the hosts",
        )];
    };
    if !addresses.iter().any(|it| own.contains(it)) {
        return vec![whose(name, first, own)];
    }
    let mut findings = vec![Finding::good(
        Area::Names,
        name,
        format!("leads to {first}"),
    )];
    for address in addresses.into_iter().filter(|it| own.contains(it)) {
        let back = tokio::time::timeout(PATIENCE, names.names(address)).await;
        let back = match back {
            Ok(Ok(back)) => back,
            Ok(Err(_)) => Vec::new(),
            Err(_) => {
                findings.push(slow(&address.to_string()));
                continue;
            }
        };
        let same = |it: &String| it.trim_end_matches('.').eq_ignore_ascii_case(name);
        findings.push(if back.iter().any(same) {
            Finding::good(Area::Names, address, format!("leads back to {name}"))
        } else {
            let to = match back.first() {
                Some(other) => format!("leads to {}, not to {name}", other.trim_end_matches('.')),
                None => format!("leads to no name, though {name} leads to it"),
            };
            Finding::warning(
                Area::Names,
                address,
                to,
                format!("add a PTR record for {address} that says {name}; programs that check callers by name look there"),
            )
        });
    }
    findings
}

fn whose(name: &str, address: IpAddr, own: &[IpAddr]) -> Finding {
    if own.contains(&address) {
        return Finding::good(Area::Names, name, "an address of this machine");
    }
    Finding::warning(
        Area::Names,
        name,
        format!("{address} is no address of this machine"),
        "correct the name or `public_url`; behind a load balancer or address translation it may be meant so",
    )
}

/// Those who call over plain HTTP are known by their names, so these must lead somewhere.
async fn callers(config: &Config, names: &dyn ReverseNames) -> Vec<Finding> {
    let plain = config
        .listeners
        .iter()
        .any(|it| !it.tls && it.audiences.contains(&Audience::Foreman));
    let Some(TrustedHosts::Names(trusted)) = &config.trusted_hosts else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if !plain || config.trial {
        return findings;
    }
    for name in trusted {
        findings.push(match addresses(name, names).await.first() {
            Some(address) => Finding::good(Area::Names, name, format!("leads to {address}")),
            None => Finding::problem(
                Area::Names,
                name,
                "stands in `trusted_hosts` and leads to no address; over plain HTTP callers are known by name",
                "correct the name, or add it to DNS or /etc/hosts",
            ),
        });
    }
    findings
}

async fn addresses(name: &str, names: &dyn ReverseNames) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for like in [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ] {
        if let Ok(Ok(more)) = tokio::time::timeout(PATIENCE, names.addresses(name, like)).await {
            found.extend(more);
        }
    }
    found
}

fn slow(subject: &str) -> Finding {
    Finding::warning(
        Area::Names,
        subject,
        format!("no answer within {} s", PATIENCE.as_secs()),
        "a server in /etc/resolv.conf does not answer; remove or mend it",
    )
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    use super::*;
    use crate::cli::doctor::finding::Level;

    /// Knows one name, and what its address leads back to.
    struct Known(&'static str, &'static str, Option<&'static str>);

    impl ReverseNames for Known {
        fn names(&self, _: IpAddr) -> BoxFuture<'_, Result<Vec<String>, String>> {
            let back = self.2.map(str::to_owned);
            async move { back.map(|it| vec![it]).ok_or_else(|| "none".to_owned()) }.boxed()
        }

        fn addresses<'a>(
            &'a self,
            name: &'a str,
            like: IpAddr,
        ) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
            async move {
                let address: IpAddr = self.1.parse().unwrap();
                match name == self.0 && like.is_ipv4() == address.is_ipv4() {
                    true => Ok(vec![address]),
                    false => Err("none".into()),
                }
            }
            .boxed()
        }
    }

    async fn levels(name: &str, known: Known) -> Vec<(Level, String)> {
        let own = ["127.0.0.1".parse().unwrap()];
        let found = own_name(name, &own, &known).await;
        found.into_iter().map(|it| (it.level, it.found)).collect()
    }

    #[tokio::test]
    async fn a_name_must_lead_here_and_its_address_back() {
        let good = levels(
            "a.example",
            Known("a.example", "127.0.0.1", Some("A.example.")),
        )
        .await;
        assert!(good.iter().all(|it| it.0 == Level::Good), "{good:?}");
        let no_name = levels("b.example", Known("a.example", "127.0.0.1", None)).await;
        assert_eq!(no_name[0].0, Level::Problem, "{no_name:?}");
        let elsewhere = levels("a.example", Known("a.example", "192.0.2.9", None)).await;
        assert_eq!(elsewhere[0].0, Level::Warning, "{elsewhere:?}");
        let silent = levels("a.example", Known("a.example", "127.0.0.1", None)).await;
        assert_eq!(silent[1].0, Level::Warning, "{silent:?}");
        let other = levels(
            "a.example",
            Known("a.example", "127.0.0.1", Some("b.example.")),
        )
        .await;
        assert!(other[1].1.contains("leads to b.example, not"), "{other:?}");
    }

    #[test]
    fn a_certificate_holds_the_names_reached_over_tls() {
        let mut config = Config::trial(std::path::Path::new("/nowhere"));
        config.trial = false;
        for (listener, url) in config
            .listeners
            .iter_mut()
            .zip(["http://hosts.example:8000", "https://proxy.example:8443"])
        {
            listener.public_url = Some(url.to_owned());
        }
        assert_eq!(own_names(&config), ["hosts.example", "proxy.example"]);
        assert_eq!(tls_names(&config), ["proxy.example"]);
        config.listeners.retain(|it| !it.tls);
        for listener in &mut config.listeners {
            listener.public_url = Some("http://192.0.2.1:8000".to_owned());
        }
        assert_eq!(tls_names(&config), [""; 0]);
    }

    #[tokio::test]
    async fn callers_over_plain_http_must_have_addresses() {
        let mut config = Config::trial(std::path::Path::new("/nowhere"));
        config.trial = false;
        config.trusted_hosts = Some(TrustedHosts::Names(vec![
            "a.example".into(),
            "b.example".into(),
        ]));
        let found = callers(&config, &Known("a.example", "192.0.2.9", None)).await;
        let levels: Vec<Level> = found.iter().map(|it| it.level).collect();
        assert_eq!(levels, [Level::Good, Level::Problem]);
        config.listeners.retain(|it| it.tls);
        assert_eq!(
            callers(&config, &Known("a.example", "192.0.2.9", None)).await,
            []
        );
    }
}
