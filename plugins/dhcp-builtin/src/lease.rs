//! A lease as the store keeps it: one line, `active 1764000000 1764003600 hw/aa:bb:cc:dd:ee:ff host-name`.

use std::net::Ipv4Addr;

use bulkhead_sdk::store::Change;

use crate::identity::Client;

/// Bytes of the longest host name that is kept; a label of DNS.
const LONGEST_HOST_NAME: usize = 63;

/// What a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Somebody's until it ends.
    Active,
    /// Given back; still the first choice for whom it was.
    Free,
    /// Somebody found it in use; nobody's until it ends.
    Declined,
}

impl State {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Free => "free",
            Self::Declined => "declined",
        }
    }
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Whose it is or was.
    pub client: Client,
    /// What the client calls itself; empty if nothing fit to be shown.
    pub host_name: String,
    /// Seconds since 1970.
    pub starts: i64,
    /// Seconds since 1970.
    pub ends: i64,
    /// What it is.
    pub state: State,
}

impl Lease {
    /// Whether somebody has the address now.
    #[must_use]
    pub fn is_held(&self, now: i64) -> bool {
        self.state != State::Free && self.ends > now
    }

    /// The change that writes it.
    #[must_use]
    pub fn change(&self) -> Change {
        Change::put(&format!("l/{:08x}", u32::from(self.address)), self.value())
    }

    fn value(&self) -> Vec<u8> {
        let word = self.state.word();
        format!(
            "{word} {} {} {} {}",
            self.starts, self.ends, self.client, self.host_name
        )
        .into_bytes()
    }

    /// Reads an entry of the store.
    #[must_use]
    pub fn read(key: &str, value: &[u8]) -> Option<Self> {
        let address = u32::from_str_radix(key.strip_prefix("l/")?, 16).ok()?;
        let text = std::str::from_utf8(value).ok()?;
        let mut words = text.splitn(5, ' ');
        let state = match words.next()? {
            "active" => State::Active,
            "free" => State::Free,
            "declined" => State::Declined,
            _ => return None,
        };
        Some(Self {
            address: Ipv4Addr::from(address),
            state,
            starts: words.next()?.parse().ok()?,
            ends: words.next()?.parse().ok()?,
            client: Client::parse(words.next()?)?,
            host_name: words.next().unwrap_or_default().to_owned(),
        })
    }
}

/// A host name that can be kept and shown; empty for one that cannot.
#[must_use]
pub fn host_name(bytes: Option<&[u8]>) -> String {
    let bytes = bytes.unwrap_or_default();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    match bytes.len() <= LONGEST_HOST_NAME && bytes.iter().all(plain) {
        true => String::from_utf8_lossy(bytes).into_owned(),
        false => String::new(),
    }
}
