//! What a plugin may do, in one sentence: the first thing an operator wants to read of a policy.
//!
//! It hides nothing: each grant has its part of the sentence, and the last words are "nothing else". Limits of size and time stand in
//! [`explain`](super::explain)'s table.
//!
//! The one idea: the sentence is made of the same [`Effective`] rights that `decide` reads, so it cannot say less than what is allowed.

use std::fmt::Display;
use std::net::IpAddr;

use super::effective::*;
use super::matchers::socket::{ListenSocket, SocketRule, Transport};

/// `dns-rfc2136 may exchange messages with 192.0.2.1 port 53 by UDP and TCP; and use ...; nothing else.`
#[must_use]
pub fn sentence(effective: &Effective) -> String {
    let parts = parts(effective);
    match parts.as_slice() {
        [] => format!(
            "{} may reach nothing outside its sandbox.",
            effective.plugin
        ),
        parts => format!(
            "{} may {}; nothing else.",
            effective.plugin,
            parts.join("; ")
        ),
    }
}

/// One part a slot, in the order in which the capabilities stand in [`Effective`], servers first.
fn parts(effective: &Effective) -> Vec<String> {
    // Naming all fields makes a new capability a compile error here instead of a silence.
    let Effective {
        plugin: _,
        files,
        sockets,
        names,
        http,
        foreman,
        store,
        secrets,
        call,
        downloads,
        listen,
        watch,
        probe,
        link,
        limits: _,
        asked: _,
        left: _,
    } = effective;
    let mut parts = Vec::new();
    parts.extend(listen.values().map(|slot| listening(slot)));
    parts.extend(link.values().map(|slot| linked(slot)));
    parts.extend(sockets.values().map(|slot| connecting(slot)));
    parts.extend(names.values().map(|slot| resolving(slot)));
    parts.extend(http.values().map(|slot| requesting(slot)));
    parts.extend(foreman.values().map(|slot| asking_foreman(slot)));
    parts.extend(call.iter().map(|(name, slot)| calling(name, slot)));
    parts.extend(secrets.values().map(|slot| holding(slot)));
    parts.extend(files.values().map(|slot| opening(slot)));
    parts.extend(watch.values().map(|slot| watching(slot)));
    parts.extend(downloads.values().map(|slot| fetching(slot, files)));
    parts.extend(probe.values().map(|slot| probing(slot)));
    parts.extend(store.values().map(|slot| keeping(slot)));
    parts
}

fn listening(grant: &ListenGrant) -> String {
    let places = grouped(grant.sockets.iter().map(|socket| {
        let ListenSocket { transport, address } = *socket;
        let host = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => "every IPv4 address".to_owned(),
            IpAddr::V6(ip) if ip.is_unspecified() => "every IPv6 address".to_owned(),
            ip => ip.to_string(),
        };
        (format!("port {} of {host}", address.port()), transport)
    }));
    let mut text = format!("answer what arrives at {places}");
    if let Some(interface) = &grant.interface {
        text.push_str(&format!(" on {interface}"));
    }
    if grant.broadcast {
        text.push_str(", by broadcast too");
    }
    if !grant.peers.is_empty() {
        text.push_str(&format!(" and send unasked to {}", rules(&grant.peers)));
    }
    text
}

fn linked(grant: &LinkGrant) -> String {
    format!(
        "speak UDP port {} on {}, also with machines that have no address yet",
        grant.port,
        list(&grant.interfaces)
    )
}

fn connecting(grant: &SocketsGrant) -> String {
    format!("exchange messages with {}", rules(&grant.allow))
}

fn resolving(grant: &NamesGrant) -> String {
    let names: Vec<String> = grant.allow.iter().map(ToString::to_string).collect();
    match names.iter().any(|name| name == "*") {
        true => "have any name resolved".to_owned(),
        false => format!("have {} resolved", list(&names)),
    }
}

fn requesting(grant: &HttpGrant) -> String {
    let mut text = format!(
        "send {} requests for {} below {}",
        list(&grant.methods),
        list(&grant.paths),
        grant.url
    );
    if !grant.networks.is_empty() {
        text.push_str(&format!(
            ", whose host stands for any address of {}",
            list(&grant.networks)
        ));
    }
    if grant.tls.unverified {
        text.push_str(", whoever answers there");
    }
    for injection in &grant.inject {
        text.push_str(&format!(
            ", with the header {} that the host fills from {}",
            injection.header,
            source(&injection.secret.source)
        ));
    }
    text
}

fn asking_foreman(grant: &ForemanGrant) -> String {
    format!(
        "send Foreman {} with this proxy's certificate",
        list(&grant.allow)
    )
}

fn calling(interface: &str, grant: &CallGrant) -> String {
    let short = interface
        .rsplit_once('/')
        .map_or(interface, |(_, name)| name);
    let short = short.split_once('@').map_or(short, |(name, _)| name);
    format!("call the plugin {} as its {short}", grant.plugin)
}

fn holding(grant: &SecretGrant) -> String {
    let source = source(&grant.source);
    match grant.access {
        SecretAccess::Use => format!("have the host use {source}, which it does not see"),
        SecretAccess::Reveal => format!("see {source}"),
    }
}

fn source(source: &SecretSource) -> String {
    match source {
        SecretSource::File(path) => format!("the secret in {}", path.display()),
        SecretSource::Credential(name) => format!("the credential {name}"),
        SecretSource::Value(_) => "the secret of a setting".to_owned(),
    }
}

fn opening(grant: &FilesGrant) -> String {
    let place = match &grant.target {
        FilesTarget::Directory(path) => format!("what lies below {}", path.display()),
        FilesTarget::File(path) => format!("the file {}", path.display()),
    };
    match grant.access {
        Access::Read => format!("read {place}"),
        Access::ReadWrite => format!("read and write {place}"),
    }
}

fn watching(grant: &WatchGrant) -> String {
    let place = match &grant.place {
        WatchPlace::Directory(path) => format!("what lies below {}", path.display()),
        WatchPlace::Files(paths) => {
            let paths: Vec<String> = paths.iter().map(|it| it.display().to_string()).collect();
            list(&paths)
        }
    };
    let hidden = match grant.hide {
        Hide::Nothing => "",
        Hide::IscKeySecrets => ", without the secrets of keys in it",
    };
    format!("read and follow {place}{hidden}")
}

fn fetching(grant: &DownloadsGrant, files: &Slots<FilesGrant>) -> String {
    let place = files
        .get(&grant.into)
        .and_then(|slot| slot.directory())
        .map_or_else(
            || format!("its files slot {}", grant.into),
            |path| path.display().to_string(),
        );
    let unverified = if grant.verify {
        ""
    } else {
        ", from whoever answers there"
    };
    format!(
        "have the host download {} into {place}{unverified}",
        list(&grant.urls)
    )
}

fn probing(grant: &ProbeGrant) -> String {
    format!(
        "have the host ask whether addresses of {} are in use",
        list(&grant.allow)
    )
}

fn keeping(grant: &StoreGrant) -> String {
    let whose = match &grant.space {
        Space::Own => "data of its own".to_owned(),
        Space::Shared(name) => format!("the data that plugins share as `{name}`"),
    };
    match grant.access {
        Access::Read => format!("read {whose}"),
        Access::ReadWrite => format!("keep {whose}"),
    }
}

fn rules(rules: &[SocketRule]) -> String {
    grouped(rules.iter().map(|rule| {
        let host = match rule.host.to_string() {
            any if any == "*" => "any host".to_owned(),
            host => host,
        };
        let place = match rule.ports.to_string() {
            any if any == "*" => format!("{host} at any port"),
            port => format!("{host} port {port}"),
        };
        (place, rule.transport)
    }))
}

/// Each place once, with its protocols; places with the same protocols together.
fn grouped(places: impl Iterator<Item = (String, Transport)>) -> String {
    let mut known: Vec<(String, Vec<Transport>)> = Vec::new();
    for (place, transport) in places {
        match known.iter_mut().find(|(it, _)| *it == place) {
            Some((_, transports)) => transports.push(transport),
            None => known.push((place, vec![transport])),
        }
    }
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (place, mut transports) in known {
        transports.sort_unstable();
        transports.dedup();
        let words: Vec<&str> = transports
            .iter()
            .rev()
            .map(|it| match it {
                Transport::Tcp => "TCP",
                Transport::Udp => "UDP",
            })
            .collect();
        let words = list(&words);
        match groups.iter_mut().find(|(it, _)| *it == words) {
            Some((_, places)) => places.push(place),
            None => groups.push((words, vec![place])),
        }
    }
    let groups: Vec<String> = groups
        .iter()
        .map(|(words, places)| format!("{} by {words}", list(places)))
        .collect();
    list(&groups)
}

/// `a`, `a and b`, `a, b and c`.
fn list<T: Display>(items: &[T]) -> String {
    match items {
        [] => "nothing".to_owned(),
        [one] => one.to_string(),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(ToString::to_string).collect();
            format!("{} and {last}", first.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::grant::{Deny, Limits, Policy};
    use crate::sandbox::bindings::imports::settings::Value;
    use crate::sandbox::bindings::types::{Lifetime, Manifest, Need, Setting, SettingKind};

    /// The sentence of a policy, whose plugin asks for all that it grants.
    fn told(text: &str, values: &[(&str, Value)]) -> String {
        let table: toml::Table = text.parse().unwrap();
        let name = table["plugin"].as_str().unwrap().to_owned();
        let mut needs = Vec::new();
        for (capability, slots) in table.iter().filter(|(key, _)| *key != "limits") {
            for (slot, grant) in slots.as_table().into_iter().flatten() {
                let given = grant.get("access").and_then(toml::Value::as_str);
                let access = match capability.as_str() {
                    "call" => format!("foreman:proxy/{slot}@0.1.0"),
                    _ => given.unwrap_or_default().to_owned(),
                };
                needs.push(Need {
                    capability: capability.clone(),
                    slot: slot.clone(),
                    access,
                    reason: "is tested".to_owned(),
                    required: true,
                });
            }
        }
        let setting = |(name, value): &(&str, Value)| Setting {
            name: (*name).to_owned(),
            kind: match value {
                Value::Texts(_) => SettingKind::Texts,
                Value::Boolean(_) => SettingKind::Boolean,
                Value::Integer(_) => SettingKind::Integer,
                _ => SettingKind::Text,
            },
            default: None,
            required: false,
            exposed: false,
            choices: Vec::new(),
            help: String::new(),
        };
        let manifest = Manifest {
            name,
            version: "1.0.0".to_owned(),
            summary: String::new(),
            mounts: Vec::new(),
            routes: Vec::new(),
            needs,
            settings: values.iter().map(setting).collect(),
            lifetime: Lifetime::Automatic,
        };
        let values: HashMap<String, Value> = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let policy = Policy::parse(Path::new("p.toml"), text).unwrap();
        let resolution = policy.resolve(&manifest, &values, &Limits::default(), &Deny::default());
        assert!(resolution.problems.is_empty(), "{:?}", resolution.problems);
        sentence(&resolution.effective)
    }

    fn text(value: &str) -> Value {
        Value::Text(value.to_owned())
    }

    fn texts(values: &[&str]) -> Value {
        Value::Texts(values.iter().map(|&it| it.to_owned()).collect())
    }

    /// Each policy that comes with the program, with settings as a site has them. The sentences are read in review: `sentence/shipped.txt`.
    #[test]
    fn each_shipped_policy_is_a_sentence() {
        macro_rules! shipped {
            ($($name:literal: $($setting:literal = $value:expr),*;)*) => {
                [$((
                    $name,
                    told(include_str!(concat!("../../../policies/", $name, ".toml")), &[$(($setting, $value)),*]),
                )),*]
            };
        }
        let told = shipped! {
            "dhcp": "use_provider" = text("dhcp-kea");
            "dhcp-builtin": "interfaces" = texts(&["eth1"]), "proxy_interfaces" = texts(&["eth2"]);
            "dhcp-isc": "config" = text("/etc/dhcp/dhcpd.conf"), "includes" = texts(&["/etc/dhcp/hosts.conf"]),
                "leases" = text("/var/lib/dhcp/dhcpd.leases"), "server" = text("192.0.2.67"), "omapi_port" = Value::Integer(7911),
                "omapi_key" = text("/etc/bulkhead/omapi.key");
            "dhcp-kea": "dhcp_kea_url" = text("http://127.0.0.1:8000"), "dhcp_kea_credentials" = text("/etc/bulkhead/kea.credentials"),
                "dhcp_kea_lease_directory" = text("/var/lib/kea");
            "discovery": "node_url" = text("https://node:8443"), "node_networks" = texts(&["192.0.2.0/24"]);
            "dns": "use_provider" = text("dns-rfc2136");
            "dns-builtin": "listen" = texts(&["udp 0.0.0.0:53", "tcp 0.0.0.0:53", "udp [::]:53", "tcp [::]:53"]),
                "zone_directory" = text("/etc/bulkhead/zones");
            "dns-powerdns": "powerdns_rest_url" = text("http://192.0.2.53:8081/api/v1/servers/localhost"),
                "powerdns_rest_api_key" = text("/etc/bulkhead/powerdns.key");
            "dns-rfc2136": "dns_server" = texts(&["192.0.2.1", "ns2.example.com:5353"]), "dns_key" = text("/etc/bulkhead/dns.key");
            "facts": ;
            "httpboot": "root_dir" = text("/srv/tftp");
            "pulpcore": "pulp_url" = text("https://pulp.example.com"), "ssl_ca" = text("/etc/bulkhead/ca.pem");
            "registration": ;
            "templates": ;
            "tftp": "tftproot" = text("/srv/tftp"), "verify_server_cert" = Value::Boolean(false), "tftp_connect_timeout" = Value::Integer(10);
            "tftp-server": "listen" = texts(&["udp 0.0.0.0:69"]), "tftproot" = text("/srv/tftp");
        };
        let shipped = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../policies"))
            .unwrap()
            .filter_map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.strip_suffix(".toml").map(str::to_owned)
            });
        for name in shipped {
            assert!(told.iter().any(|(it, _)| *it == name), "{name} is missing");
        }
        let told: String = told.iter().map(|(_, text)| format!("{text}\n")).collect();
        assert_eq!(
            told,
            include_str!("sentence/shipped.txt"),
            "now it is:\n{told}"
        );
    }

    #[test]
    fn a_plugin_without_grants_reaches_nothing() {
        assert_eq!(
            told("plugin = \"p\"", &[]),
            "p may reach nothing outside its sandbox."
        );
    }

    #[test]
    fn rights_that_no_shipped_policy_gives_are_told_too() {
        assert_eq!(
            told(
                "plugin = \"p\"\n[sockets.s]\nallow = [\"tcp 192.0.2.1:22\", \"udp *:*\", \"tcp 192.0.2.2:22\"]\n[names.n]\nallow = [\"a.example.com\"]\n\
                 [secrets.s]\ncredential = \"token\"\naccess = \"reveal\"\n[files.f]\nfile = \"/srv/f\"\naccess = \"read\"\n[store.t]\nspace = \"shared:x\"\n",
                &[]
            ),
            "p may exchange messages with 192.0.2.1 port 22 and 192.0.2.2 port 22 by TCP and any host at any port by UDP; have a.example.com \
             resolved; see the credential token; read the file /srv/f; read the data that plugins share as `x`; nothing else."
        );
    }
}
