//! Names to addresses: the one resolver of the host, for itself and for plugins.
//!
//! It refuses to let one plugin's slow names take the resolver from the others. Whether a plugin may resolve a name (a question alone
//! can carry data out) is decided by its callers: `wasi/names.rs` for plugins, the URL rules for the host's own clients.
//!
//! The one idea: whoever connects by name asks here once, has every answer decided, and connects to an address of
//! that very answer. `/etc/hosts` wins over DNS; a name with a dot is taken as complete and never searched for elsewhere.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::grant::matchers::host::AskedHost;

/// How long one name may take in all, retries and further servers included: what `resolv.conf` defaults come to.
const LOOKUP_TIME: Duration = Duration::from_secs(10);

/// How many names one plugin may ask for at once; more wait, within [`LOOKUP_TIME`].
const LOOKUPS_AT_ONCE: usize = 16;

/// The most addresses used of one answer: more are no service to anybody and each costs a decision.
const MAX_ADDRESSES: usize = 16;

/// How many answers are kept in memory.
const CACHED_ANSWERS: u64 = 1_024;

/// How often `/etc/hosts` and `/etc/resolv.conf` are looked at, and how long an answer out of `/etc/hosts` holds.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Where answers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// What `/etc/resolv.conf` says.
    System,
    /// These, over UDP and TCP.
    Fixed(Vec<SocketAddr>),
}

/// A name's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The name as it was asked for: lower case, ASCII, without final dot. An address literal is its own name.
    pub name: String,
    /// At least one; IPv4-mapped ones are told as IPv4.
    pub addresses: Vec<IpAddr>,
    /// How long the answer holds.
    pub ttl: Duration,
}

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Not a host name.
    #[error("{name:?} is not a host name")]
    Malformed {
        /// As it was asked for, cut.
        name: String,
    },
    /// The servers say that there is no such name, or that it has no address.
    #[error("{name} does not resolve")]
    NotFound {
        /// The name.
        name: String,
    },
    /// No server answered in time.
    #[error("no name server answered for {name} within {limit:?}")]
    Timeout {
        /// The name.
        name: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The servers refused, failed, or there are none.
    #[error("cannot resolve {name}: {reason}")]
    Failed {
        /// The name.
        name: String,
        /// The resolver's words.
        reason: String,
    },
}

/// The host's resolver.
#[derive(Debug)]
pub struct Resolver {
    /// Sockets and their tasks live here, never on a runtime that runs components.
    io: Handle,
    servers: Servers,
    hosts_file: PathBuf,
    state: Mutex<State>,
    shares: Mutex<HashMap<String, Arc<Semaphore>>>,
}

#[derive(Default)]
struct State {
    hosts: Arc<Hosts>,
    hosts_changed: Option<SystemTime>,
    dns: Option<TokioResolver>,
    dns_changed: Option<SystemTime>,
    looked: Option<Instant>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "State(dns: {})", self.dns.is_some())
    }
}

impl Resolver {
    /// A resolver whose sockets live on `io`.
    pub fn new(io: Handle, servers: Servers) -> Self {
        Resolver {
            io,
            servers,
            hosts_file: "/etc/hosts".into(),
            state: Mutex::default(),
            shares: Mutex::default(),
        }
    }

    /// The same with another hosts file.
    pub fn with_hosts_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.hosts_file = path.into();
        self
    }

    /// Resolves a name in any spelling. `plugin` is whose share of lookups it counts in; the empty name is the host itself.
    pub async fn resolve(&self, plugin: &str, name: &str) -> Result<Resolved, ResolveError> {
        let name = match AskedHost::parse(name) {
            None => {
                return Err(ResolveError::Malformed {
                    name: name.chars().take(260).collect(),
                });
            }
            Some(AskedHost::Address(address)) => {
                return Ok(Resolved {
                    name: address.to_string(),
                    addresses: vec![address],
                    ttl: Duration::MAX,
                });
            }
            Some(AskedHost::Name(name)) => name.into_owned(),
        };
        let timeout = || ResolveError::Timeout {
            name: name.clone(),
            limit: LOOKUP_TIME,
        };
        let share = self.share(plugin);
        let waited = Instant::now();
        let place = tokio::time::timeout(LOOKUP_TIME, share.acquire_owned())
            .await
            .map_err(|_| timeout())?;
        let (hosts, dns) = self.sources(&name)?;
        if let Some(addresses) = static_addresses(&hosts, &name) {
            return Ok(Resolved {
                name,
                addresses,
                ttl: LOOK_AGAIN,
            });
        }
        // A name with a dot is complete: the final dot keeps the search list (and who owns its domains) out of it.
        let question = if name.contains('.') {
            format!("{name}.")
        } else {
            name.clone()
        };
        let asking = AbortOnDropHandle::new(self.io.spawn(async move {
            let _place = place;
            dns.lookup_ip(question).await
        }));
        let left = LOOKUP_TIME.saturating_sub(waited.elapsed());
        let answer = tokio::time::timeout(left, asking)
            .await
            .map_err(|_| timeout())?;
        let answer = answer.map_err(|error| ResolveError::Failed {
            name: name.clone(),
            reason: error.to_string(),
        })?;
        let answer = answer.map_err(|error| failed(&name, &error))?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in answer.iter().map(|address| address.to_canonical()) {
            if !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(ResolveError::NotFound { name });
        }
        let ttl = answer
            .valid_until()
            .saturating_duration_since(Instant::now());
        Ok(Resolved {
            name,
            addresses,
            ttl,
        })
    }

    fn share(&self, plugin: &str) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(plugin) {
            return share.clone();
        }
        let share = Arc::new(Semaphore::new(LOOKUPS_AT_ONCE));
        shares.insert(plugin.to_owned(), share.clone());
        share
    }

    /// Hosts file and DNS client, read again when their files changed.
    fn sources(&self, name: &str) -> Result<(Arc<Hosts>, TokioResolver), ResolveError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .looked
            .is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN)
        {
            state.looked = Some(Instant::now());
            let changed = modified(&self.hosts_file);
            if changed != state.hosts_changed {
                state.hosts_changed = changed;
                state.hosts = Arc::new(read_hosts(&self.hosts_file));
            }
            let changed = modified(Path::new("/etc/resolv.conf"));
            if self.servers == Servers::System && changed != state.dns_changed {
                state.dns_changed = changed;
                state.dns = None;
            }
        }
        if state.dns.is_none() {
            state.dns = Some(self.dns().map_err(|error| ResolveError::Failed {
                name: name.to_owned(),
                reason: error.to_string(),
            })?);
        }
        match &state.dns {
            Some(dns) => Ok((state.hosts.clone(), dns.clone())),
            None => Err(ResolveError::Failed {
                name: name.to_owned(),
                reason: "no DNS client".into(),
            }),
        }
    }

    fn dns(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match &self.servers {
            Servers::System => TokioResolver::builder_tokio()?,
            Servers::Fixed(servers) => {
                let servers = servers.iter().map(|server| {
                    let connections =
                        [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                            connection.port = server.port();
                            connection
                        });
                    NameServerConfig::new(server.ip(), true, connections.to_vec())
                });
                let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options: &mut ResolverOpts = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        options.cache_size = CACHED_ANSWERS;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build()
    }
}

fn failed(name: &str, error: &NetError) -> ResolveError {
    let name = name.to_owned();
    match error {
        error if error.is_nx_domain() || error.is_no_records_found() => {
            ResolveError::NotFound { name }
        }
        NetError::Timeout => ResolveError::Timeout {
            name,
            limit: LOOKUP_TIME,
        },
        error => ResolveError::Failed {
            name,
            reason: error.to_string(),
        },
    }
}

/// What `/etc/hosts` says; `localhost` is known without it (RFC 6761 section 6.3).
fn static_addresses(hosts: &Hosts, name: &str) -> Option<Vec<IpAddr>> {
    let parsed = Name::from_ascii(name).ok()?;
    let mut found = Vec::new();
    for kind in [RecordType::AAAA, RecordType::A] {
        if let Some(lookup) = hosts.lookup_static_host(&Query::query(parsed.clone(), kind)) {
            found.extend(
                lookup
                    .answers()
                    .iter()
                    .filter_map(|record| record.data.ip_addr())
                    .map(|address| address.to_canonical()),
            );
        }
    }
    if found.is_empty() && (name == "localhost" || name.ends_with(".localhost")) {
        found = vec![
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V4(Ipv4Addr::LOCALHOST),
        ];
    }
    found.truncate(MAX_ADDRESSES);
    (!found.is_empty()).then_some(found)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .ok()
}

fn read_hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    if let Ok(file) = fs::File::open(path)
        && let Err(error) = hosts.read_hosts_conf(file)
    {
        tracing::warn!(target: "resolve", path = %path.display(), %error, "the hosts file is not understood");
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::testing::NameServer;

    #[tokio::test]
    async fn addresses_in_odd_spellings_are_addresses_and_junk_is_refused() {
        let resolver = Resolver::new(Handle::current(), Servers::Fixed(Vec::new()));
        for loopback in [
            "127.0.0.1",
            "0x7f.1",
            "2130706433",
            "0177.0.0.1",
            "::ffff:127.0.0.1",
            "[::ffff:7f00:1]",
        ] {
            assert_eq!(
                resolver.resolve("p", loopback).await.unwrap().addresses,
                [IpAddr::from([127, 0, 0, 1])],
                "{loopback}"
            );
        }
        for wrong in [
            "",
            ".",
            "a b",
            "a/b",
            "user@host",
            "host:80",
            "a..b",
            &"a.".repeat(130),
            "a\0b",
        ] {
            assert!(
                matches!(
                    resolver.resolve("p", wrong).await,
                    Err(ResolveError::Malformed { .. })
                ),
                "{wrong:?}"
            );
        }
    }

    #[tokio::test]
    async fn answers_come_with_addresses_and_time_to_live() {
        let server = NameServer::start().await;
        server.set("ns.example.com", 30, &["192.0.2.1", "2001:db8::1"]);
        let resolver = Resolver::new(Handle::current(), Servers::Fixed(vec![server.address()]));
        let mut found = resolver.resolve("p", "NS.example.com.").await.unwrap();
        found.addresses.sort();
        assert_eq!(
            found.addresses,
            [
                "192.0.2.1".parse::<IpAddr>().unwrap(),
                "2001:db8::1".parse().unwrap()
            ]
        );
        assert!(
            found.ttl <= Duration::from_secs(30) && found.ttl > Duration::from_secs(25),
            "{:?}",
            found.ttl
        );
        assert_eq!(found.name, "ns.example.com");
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_told_from_a_server_that_fails() {
        let server = NameServer::start().await;
        let resolver = Resolver::new(Handle::current(), Servers::Fixed(vec![server.address()]));
        assert_eq!(
            resolver.resolve("p", "no.example.com").await,
            Err(ResolveError::NotFound {
                name: "no.example.com".into()
            })
        );
        assert!(
            server
                .questions()
                .iter()
                .all(|question| question == "no.example.com."),
            "{:?}",
            server.questions()
        );
    }

    #[tokio::test]
    async fn the_hosts_file_wins_over_dns_and_is_read_again() {
        let server = NameServer::start().await;
        server.set("box.example.com", 30, &["192.0.2.1"]);
        let directory = tempfile::tempdir().unwrap();
        let hosts = directory.path().join("hosts");
        fs::write(&hosts, "192.0.2.77 box.example.com box\n").unwrap();
        let resolver = Resolver::new(Handle::current(), Servers::Fixed(vec![server.address()]))
            .with_hosts_file(&hosts);
        assert_eq!(
            resolver
                .resolve("p", "box.example.com")
                .await
                .unwrap()
                .addresses,
            ["192.0.2.77".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(
            resolver.resolve("p", "box").await.unwrap().addresses,
            ["192.0.2.77".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(
            resolver
                .resolve("p", "localhost")
                .await
                .unwrap()
                .addresses
                .len(),
            2
        );
        assert!(server.questions().is_empty());
    }

    #[tokio::test]
    async fn one_plugins_slow_names_do_not_hold_up_another() {
        let server = NameServer::start().await;
        server.set("fast.example.com", 30, &["192.0.2.1"]);
        server.silence("slow.example.com");
        let resolver = Arc::new(Resolver::new(
            Handle::current(),
            Servers::Fixed(vec![server.address()]),
        ));
        let slow: Vec<_> = (0..LOOKUPS_AT_ONCE * 2)
            .map(|_| {
                let resolver = resolver.clone();
                tokio::spawn(async move { resolver.resolve("greedy", "slow.example.com").await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let started = Instant::now();
        resolver.resolve("other", "fast.example.com").await.unwrap();
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "{:?}",
            started.elapsed()
        );
        for task in slow {
            task.abort();
        }
    }
}
