//! What a plugin may do, resolved: every setting looked up, every place and limit concrete. Made from manifest, policy and
//! settings; read by [`decide`](super::decide) and by the capabilities, which take their targets from here.
//!
//! A slot that is not here does not exist for the plugin. There is no default grant.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::IpNet;

use super::action::Capability;
use super::limits::Limits;
use super::matchers::host::HostPattern;
use super::matchers::path::{MethodPath, PathPattern};
use super::matchers::socket::{ListenSocket, SocketRule};
use super::matchers::url::{BaseUrl, UrlPattern};

/// Everything one plugin may do.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The plugin.
    pub plugin: Arc<str>,
    /// Named directories and files.
    pub files: Slots<FilesGrant>,
    /// Outgoing TCP and UDP.
    pub sockets: Slots<SocketsGrant>,
    /// Names it may resolve. (Names in socket rules may be resolved as well.)
    pub names: Slots<NamesGrant>,
    /// HTTP servers.
    pub http: Slots<HttpGrant>,
    /// Requests to Foreman.
    pub foreman: Slots<ForemanGrant>,
    /// Durable keys and values.
    pub store: Slots<StoreGrant>,
    /// Secrets the plugin itself may use or see.
    pub secrets: Slots<SecretGrant>,
    /// Calls, by interface.
    pub call: Slots<CallGrant>,
    /// Files fetched by the host.
    pub downloads: Slots<DownloadsGrant>,
    /// Sockets the host holds for it.
    pub listen: Slots<ListenGrant>,
    /// Files it is told about.
    pub watch: Slots<WatchGrant>,
    /// Addresses it may ask about.
    pub probe: Slots<ProbeGrant>,
    /// Interfaces it may send frames on.
    pub link: Slots<LinkGrant>,
    /// What it may use up.
    pub limits: Limits,
    /// What it asked for, granted or not: a policy can grant nothing else. None: not known.
    pub asked: Option<Arc<[Asked]>>,
    /// Values that its policy leaves to its settings: no line of policy can say them.
    pub left: Arc<[Left]>,
}

/// A value that a policy leaves to a setting of the plugin: `directory = { setting = "tftproot" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The dotted key as a line of policy begins with it: `files.root.directory`.
    pub key: String,
    /// The setting.
    pub setting: String,
}

/// A need of a manifest, as far as a policy's lines depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The capability.
    pub capability: Capability,
    /// The slot.
    pub slot: String,
    /// The access: `tcp`, or the interface of a call.
    pub access: String,
}

/// The grants of one capability by slot (for [`Effective::call`], by interface).
pub type Slots<G> = BTreeMap<String, Slot<G>>;

/// One granted slot. Behaves as the grant itself.
#[derive(Debug, Clone)]
pub struct Slot<G> {
    grant: Arc<G>,
    /// How often it was used; shared with later versions of the same slot.
    pub uses: Uses,
}

impl<G> Slot<G> {
    /// A slot that was never used.
    pub fn new(grant: G) -> Self {
        Self {
            grant: Arc::new(grant),
            uses: Uses::default(),
        }
    }

    /// The grant, to keep while the effective rights change.
    #[must_use]
    pub fn share(&self) -> Arc<G> {
        Arc::clone(&self.grant)
    }
}

impl<G> std::ops::Deref for Slot<G> {
    type Target = G;
    fn deref(&self) -> &G {
        &self.grant
    }
}

/// Counts allowed actions of one slot.
#[derive(Debug, Clone, Default)]
pub struct Uses(Arc<AtomicU64>);

impl Uses {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Allowed actions since the host started.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Reading only, or changing as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// `read`.
    Read,
    /// `read-write`.
    ReadWrite,
}

impl Access {
    /// The word in policies and manifests.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadWrite => "read-write",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "read" => Some(Self::Read),
            "read-write" => Some(Self::ReadWrite),
            _ => None,
        }
    }

    /// Whether changing is included.
    #[must_use]
    pub fn writes(self) -> bool {
        self == Self::ReadWrite
    }
}

/// A directory with everything below it, or one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesTarget {
    /// An absolute path of a directory, seen by the plugin as `/SLOT`.
    Directory(PathBuf),
    /// An absolute path of a file, seen by the plugin as `/SLOT/FILENAME`.
    File(PathBuf),
}

/// A files slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesGrant {
    /// The place.
    pub target: FilesTarget,
    /// Reading only, or changing as well.
    pub access: Access,
    /// How much may lie there. Holds for read-write only.
    pub quota: FilesQuota,
}

impl FilesGrant {
    /// The directory to pre-open: the target itself, or the directory that holds the one file.
    #[must_use]
    pub fn directory(&self) -> Option<&std::path::Path> {
        match &self.target {
            FilesTarget::Directory(path) => Some(path),
            FilesTarget::File(path) => path.parent(),
        }
    }

    /// The only name visible in [`Self::directory`], for a grant of one file.
    #[must_use]
    pub fn only_name(&self) -> Option<&str> {
        match &self.target {
            FilesTarget::Directory(_) => None,
            FilesTarget::File(path) => path.file_name().and_then(|name| name.to_str()),
        }
    }
}

/// How much may lie below a read-write slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesQuota {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files and directories.
    pub files: u64,
}

impl Default for FilesQuota {
    /// 10 GiB hold the boot files of many operating systems; 100,000 files the menus of as many hosts.
    fn default() -> Self {
        Self {
            bytes: 10 << 30,
            files: 100_000,
        }
    }
}

/// Which addresses beyond the open network a rule reaches that does not write them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inside {
    /// `private-addresses`: RFC 1918 and the like.
    pub private: bool,
    /// `loopback`: this machine.
    pub loopback: bool,
}

/// A sockets slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketsGrant {
    /// Where it may connect and send to.
    pub allow: Vec<SocketRule>,
    /// Sockets open at a time.
    pub open: u32,
    /// Inside addresses that names and wildcards may reach.
    pub inside: Inside,
}

/// A names slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamesGrant {
    /// The names.
    pub allow: Vec<HostPattern>,
}

/// An HTTP slot: one server (or base path on it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGrant {
    /// The base that targets are written below.
    pub url: BaseUrl,
    /// Addresses that stand in for the host of `url`, which is a placeholder then. Empty: `url` names the one server.
    pub networks: Vec<IpNet>,
    /// Upper case. Never empty.
    pub methods: Vec<String>,
    /// Below the base.
    pub paths: Vec<PathPattern>,
    /// How the server is known and the host makes itself known.
    pub tls: TlsGrant,
    /// Secrets the host fills into headers.
    pub inject: Vec<Injection>,
    /// For the whole exchange.
    pub timeout: Duration,
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
    /// Bytes of an answer's body.
    pub response: u64,
    /// Connections at a time.
    pub connections: u32,
    /// Requests that wait for one of them.
    pub queue: u32,
    /// Inside addresses that the server's name may resolve to, beyond those written out.
    pub inside: Inside,
}

/// TLS towards one server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsGrant {
    /// PEM file of the only CAs trusted there. None: the host's trust store.
    pub ca: Option<PathBuf>,
    /// Client certificate and key, PEM files. The key never enters a sandbox.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// True: whoever answers is believed, without looking at its certificate.
    pub unverified: bool,
}

/// A header filled from a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Lower case.
    pub header: String,
    /// Text before the secret, e.g. `Bearer `.
    pub prefix: String,
    /// The slot's name in `[secrets]`, for messages.
    pub slot: String,
    /// The secret.
    pub secret: SecretGrant,
}

/// A foreman slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForemanGrant {
    /// What may be sent.
    pub allow: Vec<MethodPath>,
    /// For the whole exchange.
    pub timeout: Duration,
    /// Bytes of an answer's body that a plugin waits for. Forwarded bodies are streamed and not bounded by it.
    pub response: u64,
    /// Connections at a time.
    pub connections: u32,
    /// Requests that wait for one of them.
    pub queue: u32,
}

/// Whose keys a store slot holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The plugin's own, by slot.
    Own,
    /// Shared by all whose policy names it.
    Shared(String),
}

/// A store slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreGrant {
    /// Whose keys.
    pub space: Space,
    /// Reading only, or changing as well.
    pub access: Access,
    /// Bytes of keys and values together.
    pub bytes: u64,
    /// Keys.
    pub keys: u64,
}

/// Where a secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, read by the host.
    File(PathBuf),
    /// A systemd credential, `$CREDENTIALS_DIRECTORY/NAME`.
    Credential(String),
    /// The value of a setting. Not shown.
    Value(String),
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Credential(name) => f.debug_tuple("Credential").field(name).finish(),
            Self::Value(_) => f.write_str("Value(..)"),
        }
    }
}

/// How a secret is written in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretFormat {
    /// The bytes as they are, one trailing line end removed.
    Raw,
    /// Base64, white space ignored.
    Base64,
    /// `user:password`, as `authorization: Basic` wants it: in base64 (RFC 7617 section 2).
    BasicAuth,
    /// A BIND key file: `key "name" { algorithm hmac-sha256; secret "..."; };`
    BindKey,
}

/// Using without seeing, or seeing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretAccess {
    /// Sign, verify.
    Use,
    /// Read the bytes, and use.
    Reveal,
}

/// A secrets slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretGrant {
    /// Where it comes from.
    pub source: SecretSource,
    /// How it is written there.
    pub format: SecretFormat,
    /// The algorithm for sources that name none, e.g. `hmac-sha256`.
    pub algorithm: Option<String>,
    /// The key's public name for sources that name none.
    pub key_name: Option<String>,
    /// What the plugin may do with it.
    pub access: SecretAccess,
}

/// A call slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallGrant {
    /// The plugin that serves the interface.
    pub plugin: String,
}

/// A downloads slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadsGrant {
    /// What may be fetched.
    pub urls: Vec<UrlPattern>,
    /// The files slot it is written to; read-write, its quota counts.
    pub into: String,
    /// Bytes of one file.
    pub size: u64,
    /// For one file, retries included.
    pub time: Duration,
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
    /// Downloads at a time.
    pub concurrent: u32,
    /// Downloads waiting.
    pub queue: u32,
    /// Whether certificates of https servers are checked.
    pub verify: bool,
    /// PEM file of the only CAs trusted. None: the host's trust store.
    pub ca: Option<PathBuf>,
    /// Inside addresses that names and wildcards may reach.
    pub inside: Inside,
}

/// A listen slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenGrant {
    /// The sockets the host holds.
    pub sockets: Vec<ListenSocket>,
    /// The network interface they are bound to; None: all.
    pub interface: Option<String>,
    /// Where it may send to unasked.
    pub peers: Vec<SocketRule>,
    /// Whether it may answer to the broadcast address.
    pub broadcast: bool,
    /// What the sockets may use up.
    pub limits: ListenLimits,
}

/// What the sockets of a listen slot may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenLimits {
    /// TCP connections at a time.
    pub connections: u32,
    /// TCP connections of one address at a time.
    pub connections_per_address: u32,
    /// How long a TCP connection may be silent.
    pub idle: Duration,
    /// File transfers at a time.
    pub transfers: u32,
}

impl Default for ListenLimits {
    /// 256 connections are many for DNS over TCP; 16 keep one address from taking them all; RFC 7766 advises a few seconds of silence;
    /// 4,096 machines may fetch their boot loader at once.
    fn default() -> Self {
        Self {
            connections: 256,
            connections_per_address: 16,
            idle: Duration::from_secs(10),
            transfers: 4096,
        }
    }
}

/// A watch slot: the files the plugin reads and is told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchGrant {
    /// The place.
    pub place: WatchPlace,
    /// What it does not see.
    pub hide: Hide,
}

/// Which files a watch slot shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchPlace {
    /// An absolute path of a directory, with everything below it.
    Directory(PathBuf),
    /// Absolute paths of files, named by them.
    Files(Vec<PathBuf>),
}

impl WatchPlace {
    /// The directory, or the files.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        match self {
            Self::Directory(path) => std::slice::from_ref(path),
            Self::Files(paths) => paths,
        }
    }
}

/// What is blanked in what a plugin reads of watched files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hide {
    /// Nothing.
    Nothing,
    /// The secrets of `key` statements of ISC's servers.
    IscKeySecrets,
}

/// A probe slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeGrant {
    /// Addresses it may ask about.
    pub allow: Vec<IpNet>,
    /// Probes a second.
    pub rate: u32,
}

/// A link slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkGrant {
    /// Interfaces by name.
    pub interfaces: Vec<String>,
    /// The UDP port that is received and sent from.
    pub port: u16,
}

impl Effective {
    /// A plugin that may do nothing, with default limits.
    #[must_use]
    pub fn nothing(plugin: &str) -> Self {
        Self {
            plugin: plugin.into(),
            files: Slots::new(),
            sockets: Slots::new(),
            names: Slots::new(),
            http: Slots::new(),
            foreman: Slots::new(),
            store: Slots::new(),
            secrets: Slots::new(),
            call: Slots::new(),
            downloads: Slots::new(),
            listen: Slots::new(),
            watch: Slots::new(),
            probe: Slots::new(),
            link: Slots::new(),
            limits: Limits::default(),
            asked: None,
            left: Arc::from([]),
        }
    }

    /// Goes on counting where an earlier version of these rights left off.
    pub(crate) fn keep_counting(&mut self, before: &Self) {
        fn carry<G>(now: &mut Slots<G>, before: &Slots<G>) {
            for (name, slot) in now {
                if let Some(old) = before.get(name) {
                    slot.uses = old.uses.clone();
                }
            }
        }
        carry(&mut self.files, &before.files);
        carry(&mut self.sockets, &before.sockets);
        carry(&mut self.names, &before.names);
        carry(&mut self.http, &before.http);
        carry(&mut self.foreman, &before.foreman);
        carry(&mut self.store, &before.store);
        carry(&mut self.secrets, &before.secrets);
        carry(&mut self.call, &before.call);
        carry(&mut self.downloads, &before.downloads);
        carry(&mut self.listen, &before.listen);
        carry(&mut self.watch, &before.watch);
        carry(&mut self.probe, &before.probe);
        carry(&mut self.link, &before.link);
    }
}
