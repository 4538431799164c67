//! `proxy.toml`: everything an operator configures of the host itself.
//!
//! It refuses an unknown key, a value of the wrong kind, a missing file and a combination that would be unsafe by accident; all mistakes
//! of a file are told at once, each with line and column. Reading has no effect: nothing is opened, bound or created here, but files that the configuration names
//! are looked for.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::grant::limits::Limits;
use crate::sandbox::EngineConfig;
use crate::sandbox::bindings::types::Audience;
use crate::telemetry::log::Options as LogOptions;

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from; none on trial.
    pub file: Option<PathBuf>,
    /// `state`: everything the proxy writes.
    pub state: PathBuf,
    /// `version`: the Smart Proxy version shown to Foreman, which warns unless it is near its own.
    pub version: String,
    /// `trusted_hosts`: which names Foreman calls under.
    pub trusted_hosts: Option<TrustedHosts>,
    /// `forward_verify`: on plain HTTP, the name of a caller has to lead back to its address.
    pub forward_verify: bool,
    /// `drain`: how long requests in progress may take when the proxy stops.
    pub drain: Duration,
    /// `fronts`: addresses of reverse proxies whose forwarding headers are believed.
    pub fronts: Vec<IpNet>,
    /// `[[listener]]`.
    pub listeners: Vec<Listener>,
    /// `[tls]`.
    pub tls: Option<Tls>,
    /// `[foreman]`.
    pub foreman: Option<Foreman>,
    /// `[plugins]`.
    pub plugins: Plugins,
    /// `[features.NAME]`.
    pub features: BTreeMap<String, Feature>,
    /// `[engine]`.
    pub engine: Engine,
    /// `[log]`.
    pub log: Log,
    /// `[admin] listen`: metrics and health; none: no admin listener.
    pub admin: Option<SocketAddr>,
    /// `[deny]`: what no plugin may reach, whatever its policy says.
    pub deny: DenyRules,
    /// `[limits]`: what each plugin may use up unless its policy says otherwise.
    pub limits: Limits,
    /// `[profiles.NAME]`.
    pub profiles: BTreeMap<String, Profile>,
    /// It was made up, not configured: pages of other sites are kept out.
    pub trial: bool,
}

/// `trusted_hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedHosts {
    /// `"any-certificate"`: every certificate of the configured CA, and thus every enrolled host.
    AnyCertificate,
    /// These names.
    Names(Vec<String>),
}

/// `[[listener]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// `name`: for logs, metrics and profiles.
    pub name: String,
    /// `listen`.
    pub addresses: Vec<SocketAddr>,
    /// `audiences`.
    pub audiences: Vec<Audience>,
    /// `tls`.
    pub tls: bool,
    /// `public_url`, without trailing slash.
    pub public_url: Option<String>,
    /// `plain_http_for_foreman = "i-accept-unencrypted-control"`.
    pub plain_http_for_foreman: bool,
    /// `[listener.limits]`.
    pub limits: ListenerLimits,
}

impl Listener {
    /// The URL under which its clients reach it.
    #[must_use]
    pub fn base_url(&self) -> String {
        if let Some(url) = &self.public_url {
            return url.clone();
        }
        let scheme = if self.tls { "https" } else { "http" };
        let (ip, port) = self
            .addresses
            .first()
            .map_or((IpAddr::from([127, 0, 0, 1]), 0), |it| (it.ip(), it.port()));
        if ip.is_unspecified() {
            let name = rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned();
            format!("{scheme}://{name}:{port}")
        } else {
            format!("{scheme}://{}", SocketAddr::new(ip, port))
        }
    }
}

/// `[listener.limits]`: what is not given keeps its default (book, chapter "Limits").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerLimits {
    /// `connections`
    pub connections: Option<usize>,
    /// `connections_per_address`
    pub connections_per_address: Option<usize>,
    /// `requests_per_address`
    pub requests_per_address: Option<usize>,
    /// `request_burst`
    pub request_burst: Option<usize>,
    /// `handshake`
    pub handshake: Option<Duration>,
    /// `head_time`
    pub head_time: Option<Duration>,
    /// `idle`
    pub idle: Option<Duration>,
    /// `body_idle`
    pub body_idle: Option<Duration>,
    /// `body_time`
    pub body_time: Option<Duration>,
    /// `passed_body_time`
    pub passed_body_time: Option<Duration>,
    /// `send_stall`
    pub send_stall: Option<Duration>,
    /// `connection_age`
    pub connection_age: Option<Duration>,
    /// `request_line`
    pub request_line: Option<usize>,
    /// `head`
    pub head: Option<usize>,
    /// `header_lines`
    pub header_lines: Option<usize>,
    /// `held_bodies`
    pub held_bodies: Option<usize>,
}

/// `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `certificate`: PEM, the whole chain.
    pub certificate: PathBuf,
    /// `private_key`: PEM.
    pub private_key: PathBuf,
    /// `client_ca`: PEM, the CAs of client certificates.
    pub client_ca: Option<PathBuf>,
    /// `oldest = "1.3"`: TLS 1.3 only.
    pub only_tls13: bool,
}

/// `[foreman]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreman {
    /// `url`.
    pub url: url::Url,
    /// `ca`: PEM; none: the system's trust store.
    pub ca: Option<PathBuf>,
    /// `certificate` and `private_key`: how the proxy makes itself known; those of `[tls]` unless given.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// `connect_timeout`.
    pub connect_timeout: Duration,
}

/// `[plugins]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugins {
    /// `directory`: watched for `.wasm` files.
    pub directory: Option<PathBuf>,
    /// `bundled`: use the plugins that come with the program.
    pub bundled: bool,
    /// `policies`: watched for `NAME.toml`.
    pub policies: Option<PathBuf>,
}

/// On which kinds of listeners a feature is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enabled {
    /// `false`
    Off,
    /// `true`
    Both,
    /// `"http"`
    Http,
    /// `"https"`
    Https,
}

impl Enabled {
    /// Served on plain HTTP.
    #[must_use]
    pub fn http(self) -> bool {
        matches!(self, Self::Both | Self::Http)
    }

    /// Served on TLS.
    #[must_use]
    pub fn https(self) -> bool {
        matches!(self, Self::Both | Self::Https)
    }
}

/// `[features.NAME]`. The plugin's own settings stay as text until its manifest is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// `enabled`
    pub enabled: Enabled,
    /// Where the section begins.
    pub place: Place,
    /// The plugin's settings.
    pub settings: BTreeMap<String, (toml::Value, Place)>,
}

/// A place in the configuration file. All places are equal: moving a setting changes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// From 1; 0: made up.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// `[engine]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Engine {
    /// `instances`, `largest_memory`, `table_elements`, `memory`, `warm_slots`.
    pub pool: EngineConfig,
    /// `compile_time`, `compile_memory`, `plugin_size`.
    pub compile: CompileLimits,
}

/// What compiling a third party's component may cost.
#[derive(Debug, Clone, PartialEq)]
pub struct CompileLimits {
    /// CPU and wall time.
    pub time: Duration,
    /// Bytes of address space.
    pub memory: u64,
    /// The largest component that is read at all, in bytes.
    pub size: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        // An 18 MiB Python component takes 6 to 14 s and stays below 2 GiB on two cores.
        Self {
            time: Duration::from_secs(120),
            memory: 4 << 30,
            size: 64 << 20,
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// `target`, `format`, `level`.
    pub options: LogOptions,
    /// `buffer`: records kept for `/logs`.
    pub buffer: usize,
    /// `buffer_errors`: errors kept beyond them.
    pub buffer_errors: usize,
}

/// `[deny]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DenyRules {
    /// `networks`
    pub networks: Vec<IpNet>,
    /// `ports`
    pub ports: Vec<u16>,
    /// `paths`
    pub paths: Vec<PathBuf>,
}

/// `[profiles.NAME]`: one part of the configuration, for an instance of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// `features`
    pub features: Vec<String>,
    /// `listeners`
    pub listeners: Vec<String>,
    /// `admin`: another address than that of `[admin]`, since instances on one machine cannot share it.
    pub admin: Option<SocketAddr>,
}

/// The Smart Proxy version shown unless configured.
pub const SHOWN_VERSION: &str = "3.13.0";

impl Config {
    /// The configuration of `serve` without a file: everything on loopback, everything in one directory.
    #[must_use]
    pub fn trial(state: &Path) -> Self {
        let listener = |name: &str, port: u16, tls: bool, audiences: &[Audience]| Listener {
            name: name.into(),
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], port))],
            audiences: audiences.to_vec(),
            tls,
            public_url: None,
            plain_http_for_foreman: false,
            limits: ListenerLimits::default(),
        };
        let files = toml::Value::String(state.join("tftpboot").display().to_string());
        let texts = |texts: &[&str]| {
            toml::Value::Array(texts.iter().map(|&it| toml::Value::from(it)).collect())
        };
        let feature = |settings: &[(&str, toml::Value)]| Feature {
            enabled: Enabled::Both,
            place: Place::default(),
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (value.clone(), Place::default())))
                .collect(),
        };
        Self {
            file: None,
            state: state.to_owned(),
            version: SHOWN_VERSION.into(),
            trusted_hosts: Some(TrustedHosts::Names(vec![
                TRIAL_CLIENT.into(),
                "localhost".into(),
            ])),
            forward_verify: true,
            drain: DRAIN,
            fronts: Vec::new(),
            listeners: vec![
                listener("foreman-http", 8000, false, &[Audience::Foreman]),
                listener("foreman", 8443, true, &[Audience::Foreman]),
                listener("hosts", 8080, false, &[Audience::Host, Audience::Public]),
            ],
            tls: Some(Tls {
                certificate: state.join("tls/server.pem"),
                private_key: state.join("tls/server-key.pem"),
                client_ca: Some(state.join("tls/ca.pem")),
                only_tls13: false,
            }),
            foreman: None,
            plugins: Plugins {
                directory: Some(state.join("plugins")),
                bundled: true,
                policies: Some(state.join("policies")),
            },
            features: BTreeMap::from([
                ("tftp".into(), feature(&[("tftproot", files.clone())])),
                (
                    "tftp-server".into(),
                    feature(&[
                        ("tftproot", files.clone()),
                        ("listen", texts(&[TRIAL_TFTP])),
                    ]),
                ),
                ("httpboot".into(), feature(&[("root_dir", files)])),
                (
                    "templates".into(),
                    feature(&[("template_url", toml::Value::from(TRIAL_HOSTS_URL))]),
                ),
                ("registration".into(), feature(&[])),
                ("facts".into(), feature(&[])),
                ("dns".into(), feature(&[])),
                (
                    "dns-builtin".into(),
                    feature(&[
                        ("listen", texts(&TRIAL_DNS)),
                        ("zones", texts(&["trial.example", TRIAL_NETWORK])),
                    ]),
                ),
                ("dhcp".into(), feature(&[])),
                // Records only: it answers on the wire where an interface is named, and on trial none is.
                (
                    "dhcp-builtin".into(),
                    feature(&[("subnets", texts(&[TRIAL_SUBNET]))]),
                ),
            ]),
            engine: Engine {
                pool: EngineConfig::default(),
                compile: CompileLimits::default(),
            },
            log: Log {
                options: LogOptions::default(),
                buffer: 2000,
                buffer_errors: 1000,
            },
            admin: Some(ADMIN),
            deny: DenyRules::default(),
            limits: Limits::default(),
            profiles: BTreeMap::new(),
            trial: true,
        }
    }

    /// The part of the configuration that a profile names.
    pub fn with_profile(mut self, name: &str) -> Result<Self, String> {
        let Some(profile) = self.profiles.get(name).cloned() else {
            let known: Vec<_> = self.profiles.keys().map(String::as_str).collect();
            return Err(format!(
                "there is no profile `{name}`; the configuration has: {}",
                known.join(", ")
            ));
        };
        self.features
            .retain(|feature, _| profile.features.contains(feature));
        self.listeners
            .retain(|listener| profile.listeners.contains(&listener.name));
        self.admin = profile.admin.or(self.admin);
        Ok(self)
    }
}

/// The feature that the host itself serves.
pub const LOGS: &str = "logs";
/// The name in the trial's client certificate.
pub const TRIAL_CLIENT: &str = "bulkhead-trial-client";
/// Where a trial's own services listen: ports that need no right.
const TRIAL_TFTP: &str = "udp 127.0.0.1:8069";
const TRIAL_DNS: [&str; 2] = ["udp 127.0.0.1:8053", "tcp 127.0.0.1:8053"];
/// How hosts reach a trial.
const TRIAL_HOSTS_URL: &str = "http://127.0.0.1:8080";
/// Addresses that belong to nobody (RFC 5737).
const TRIAL_NETWORK: &str = "192.0.2.0/24";
const TRIAL_SUBNET: &str = "192.0.2.0/24 range=192.0.2.100-192.0.2.200 domain=trial.example";
pub(super) const DRAIN: Duration = Duration::from_secs(20);
pub(super) const ADMIN: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9180);
