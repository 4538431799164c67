//! A double of the host, for tests of plugins: set up what the host would know, call routes, look at what the plugin did.
//!
//! ```
//! # use bulkhead_sdk::prelude::*;
//! # struct Hello;
//! # impl Plugin for Hello {
//! #     fn describe() -> Manifest {
//! #         Manifest::new("hello", "1.0.0", "Greets").mount("/hello").route(get("/hello/:name"), hello)
//! #     }
//! # }
//! # fn hello(request: &Request) -> String {
//! #     format!("{}, {}!", settings::text("greeting").unwrap_or_default(), request.text("name").unwrap_or_default())
//! # }
//! use bulkhead_sdk::testing::Host;
//!
//! let host = Host::new().setting("greeting", "Hello").install();
//! assert_eq!(host.get::<Hello>("/hello/you").text(), "Hello, you!");
//! ```
//!
//! It is no sandbox and checks no policy: what was not set up is denied or unknown, the rest is granted. Whether a policy suffices is
//! shown by a test with the real host.
//!
//! The one idea: the double belongs to the thread that installed it, so that tests run side by side.

mod call;
pub(crate) mod imports;
mod store;
mod temp;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::bindings::imports::foreman::proxy::types::{
    Audience, Incoming, Outgoing, UpstreamError,
};
use crate::bindings::imports::foreman::proxy::{caller, downloads, log, secrets, settings};
use crate::dhcp::{self, Entry, Identifier, Page, Reservation, Subnet};

pub use call::{Called, Form};
pub use temp::TempFolder;

type Probe = Box<dyn Fn(&str) -> crate::probe::Outcome>;
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;
type Send = Box<dyn Fn(&Outgoing) -> Result<Incoming, UpstreamError>>;

/// What the host knows and would do. Made with the functions below, then put in place by [`Host::install`].
#[derive(Default)]
pub struct Host {
    pub(crate) settings: BTreeMap<String, settings::Value>,
    pub(crate) folders: BTreeMap<String, PathBuf>,
    pub(crate) caller: Option<caller::Peer>,
    pub(crate) public_urls: Vec<(Audience, String)>,
    pub(crate) http_port: Option<u16>,
    pub(crate) https_port: Option<u16>,
    pub(crate) foreman: Option<Send>,
    pub(crate) http: Option<Send>,
    pub(crate) stores: BTreeMap<String, store::Store>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) downloads: Vec<Download>,
    pub(crate) refuse_downloads: Option<downloads::Error>,
    pub(crate) dns: Option<Vec<crate::dns::DnsRecord>>,
    pub(crate) dhcp: Option<Rc<dyn DhcpServer>>,
    pub(crate) watched: BTreeMap<String, BTreeMap<String, (u64, Vec<u8>)>>,
    pub(crate) watched_on_disk: Vec<String>,
    pub(crate) probe: Option<Probe>,
    pub(crate) logs: Vec<(log::Level, String)>,
}

/// A download the plugin asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// The `downloads` slot.
    pub slot: String,
    /// Where from.
    pub url: String,
    /// Where to, below the slot's directory.
    pub path: String,
}

/// A DHCP provider for tests: what [`crate::dhcp`] calls.
pub trait DhcpServer {
    /// See [`crate::dhcp::DhcpProvider::subnets`]; the same holds for the others.
    ///
    /// # Errors
    /// As the test wants them.
    fn subnets(&self) -> Result<Vec<Subnet>, dhcp::Error>;
    /// A page of entries.
    ///
    /// # Errors
    /// As the test wants them.
    fn entries(&self, subnet: &str, cursor: Option<&str>, limit: u32) -> Result<Page, dhcp::Error>;
    /// Entries of an address.
    ///
    /// # Errors
    /// As the test wants them.
    fn by_address(&self, subnet: &str, address: &str) -> Result<Vec<Entry>, dhcp::Error>;
    /// Entries of an identifier.
    ///
    /// # Errors
    /// As the test wants them.
    fn by_identifier(&self, subnet: &str, who: &Identifier) -> Result<Vec<Entry>, dhcp::Error>;
    /// Which addresses are taken.
    ///
    /// # Errors
    /// As the test wants them.
    fn in_use(&self, subnet: &str, addresses: &[String]) -> Result<Vec<bool>, dhcp::Error>;
    /// Writes a reservation.
    ///
    /// # Errors
    /// As the test wants them.
    fn add(&self, wanted: &Reservation) -> Result<bool, dhcp::Error>;
    /// Removes reservations.
    ///
    /// # Errors
    /// As the test wants them.
    fn remove(
        &self,
        subnet: &str,
        address: Option<&str>,
        who: Option<&Identifier>,
    ) -> Result<bool, dhcp::Error>;
}

pub(crate) struct Secret {
    pub(crate) key: secrets::Key,
    pub(crate) sign: Sign,
    pub(crate) revealed: Option<Vec<u8>>,
}

impl Host {
    /// A host that knows nothing and grants nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a setting its value.
    #[must_use]
    pub fn setting(mut self, name: &str, value: impl Into<settings::Value>) -> Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// Grants a directory to a `files` slot.
    #[must_use]
    pub fn folder(mut self, slot: &str, place: &Path) -> Self {
        self.folders.insert(slot.to_owned(), place.to_owned());
        self
    }

    /// Says who is calling.
    #[must_use]
    pub fn caller(mut self, peer: caller::Peer) -> Self {
        self.caller = Some(peer);
        self
    }

    /// Sets the public base URL of an audience.
    #[must_use]
    pub fn public_url(mut self, audience: Audience, url: &str) -> Self {
        self.public_urls.push((audience, url.to_owned()));
        self
    }

    /// Sets the ports on which the plugin is served.
    #[must_use]
    pub fn ports(mut self, http: Option<u16>, https: Option<u16>) -> Self {
        (self.http_port, self.https_port) = (http, https);
        self
    }

    /// Answers requests to Foreman.
    #[must_use]
    pub fn foreman(
        mut self,
        answer: impl Fn(&Outgoing) -> Result<Incoming, UpstreamError> + 'static,
    ) -> Self {
        self.foreman = Some(Box::new(answer));
        self
    }

    /// Answers requests to other servers.
    #[must_use]
    pub fn http(
        mut self,
        answer: impl Fn(&Outgoing) -> Result<Incoming, UpstreamError> + 'static,
    ) -> Self {
        self.http = Some(Box::new(answer));
        self
    }

    /// Grants an empty store to a slot.
    #[must_use]
    pub fn store(mut self, slot: &str) -> Self {
        self.stores.insert(slot.to_owned(), store::Store::default());
        self
    }

    /// Grants the use of a secret whose signature `sign` computes.
    #[must_use]
    pub fn secret(
        mut self,
        slot: &str,
        name: &str,
        algorithm: &str,
        sign: impl Fn(&[u8]) -> Vec<u8> + 'static,
    ) -> Self {
        let key = secrets::Key {
            name: name.to_owned(),
            algorithm: algorithm.to_owned(),
        };
        self.secrets.insert(
            slot.to_owned(),
            Secret {
                key,
                sign: Box::new(sign),
                revealed: None,
            },
        );
        self
    }

    /// Grants the sight of a secret.
    #[must_use]
    pub fn revealed_secret(mut self, slot: &str, bytes: &[u8]) -> Self {
        let key = secrets::Key {
            name: String::new(),
            algorithm: String::new(),
        };
        let secret = Secret {
            key,
            sign: Box::new(|_| Vec::new()),
            revealed: Some(bytes.to_vec()),
        };
        self.secrets.insert(slot.to_owned(), secret);
        self
    }

    /// Grants calls to a DNS provider that begins with these records.
    #[must_use]
    pub fn dns_provider(mut self, records: Vec<crate::dns::DnsRecord>) -> Self {
        self.dns = Some(records);
        self
    }

    /// Grants calls to a DHCP provider.
    #[must_use]
    pub fn dhcp_provider(mut self, server: Rc<dyn DhcpServer>) -> Self {
        self.dhcp = Some(server);
        self
    }

    /// Grants the sight of a file to a `watch` slot. Another `identity` stands for another file at the same path.
    #[must_use]
    pub fn watched(mut self, slot: &str, path: &str, identity: u64, bytes: &[u8]) -> Self {
        let files = self.watched.entry(slot.to_owned()).or_default();
        files.insert(path.to_owned(), (identity, bytes.to_vec()));
        self
    }

    /// Grants a `watch` slot the sight of real files, by their paths.
    #[must_use]
    pub fn watched_on_disk(mut self, slot: &str) -> Self {
        self.watched_on_disk.push(slot.to_owned());
        self
    }

    /// Answers probes of addresses.
    #[must_use]
    pub fn probe(mut self, answer: impl Fn(&str) -> crate::probe::Outcome + 'static) -> Self {
        self.probe = Some(Box::new(answer));
        self
    }

    /// Refuses every download with this error; without it each is taken note of.
    #[must_use]
    pub fn refuse_downloads(mut self, error: downloads::Error) -> Self {
        self.refuse_downloads = Some(error);
        self
    }

    /// Puts the double in place for this thread, until the result is dropped.
    #[must_use]
    pub fn install(self) -> Installed {
        let host = Rc::new(RefCell::new(self));
        let previous = CURRENT.replace(Some(Rc::clone(&host)));
        Installed { host, previous }
    }
}

/// A double in place.
pub struct Installed {
    host: Rc<RefCell<Host>>,
    previous: Option<Rc<RefCell<Host>>>,
}

impl Installed {
    /// The downloads that the plugin started.
    #[must_use]
    pub fn downloads(&self) -> Vec<Download> {
        self.host.borrow().downloads.clone()
    }

    /// The log lines that the plugin wrote.
    #[must_use]
    pub fn logs(&self) -> Vec<(log::Level, String)> {
        self.host.borrow().logs.clone()
    }

    /// Changes the double between two calls.
    pub fn change(&self, change: impl FnOnce(Host) -> Host) {
        let host = self.host.take();
        self.host.replace(change(host));
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        CURRENT.replace(self.previous.take());
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<RefCell<Host>>>> = const { RefCell::new(None) };
}

/// Runs `work` on the thread's double; without one, on a host that grants nothing.
pub(crate) fn with<T>(work: impl FnOnce(&mut Host) -> T) -> T {
    let host = CURRENT.with_borrow(Clone::clone);
    match host {
        Some(host) => work(&mut host.borrow_mut()),
        None => work(&mut Host::default()),
    }
}

impl From<&str> for settings::Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for settings::Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for settings::Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}
