//! An IPv4 prefix: `192.0.2.0/24`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A network address and the length of its mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    first: u32,
    length: u8,
}

impl Prefix {
    fn hosts(self) -> u32 {
        u32::MAX.checked_shr(u32::from(self.length)).unwrap_or(0)
    }

    /// The network's own address.
    pub(crate) fn first(self) -> Ipv4Addr {
        self.first.into()
    }

    /// The broadcast address.
    pub(crate) fn last(self) -> Ipv4Addr {
        (self.first | self.hosts()).into()
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        (self.first()..=self.last()).contains(&address)
    }
}

/// Reads `192.0.2.0/24`; bits beyond the mask are dropped, as Kea does.
impl FromStr for Prefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, length) = text.split_once('/').ok_or(())?;
        let address: Ipv4Addr = address.trim().parse().map_err(drop)?;
        let length: u8 = length.trim().parse().map_err(drop)?;
        if length > 32 {
            return Err(());
        }
        let whole = Self { first: 0, length };
        Ok(Self {
            first: u32::from(address) & !whole.hosts(),
            length,
        })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.first(), self.length)
    }
}

/// Kea writes a pool as `192.0.2.10-192.0.2.20` or as a prefix.
pub(crate) fn pool(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    if let Some((first, last)) = text.split_once('-') {
        return Some((first.trim().parse().ok()?, last.trim().parse().ok()?));
    }
    let prefix: Prefix = text.trim().parse().ok()?;
    Some((prefix.first(), prefix.last()))
}
