//! IPv4 prefixes and hardware addresses, parsed once and compared as numbers.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A network, written `192.0.2.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    network: u32,
    length: u8,
}

impl Prefix {
    /// Of a network address and a netmask. None when the mask has holes or the address has bits outside it.
    #[must_use]
    pub fn new(network: Ipv4Addr, mask: Ipv4Addr) -> Option<Self> {
        let (network, mask) = (network.to_bits(), mask.to_bits());
        let contiguous = mask.leading_ones() + mask.trailing_zeros() == 32;
        let length = u8::try_from(mask.leading_ones()).ok()?;
        (contiguous && network & !mask == 0).then_some(Self { network, length })
    }

    /// The lowest address.
    #[must_use]
    pub fn network(self) -> u32 {
        self.network
    }

    /// Whether the address lies inside.
    #[must_use]
    pub fn contains(self, address: u32) -> bool {
        (address ^ self.network) & self.mask() == 0
    }

    /// The mask's bits.
    #[must_use]
    pub fn mask(self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.length))
            .unwrap_or(0)
    }
}

impl FromStr for Prefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (network, length) = text.split_once('/').ok_or(())?;
        let network = Ipv4Addr::from_str(network).map_err(drop)?;
        let length: u32 = length.parse().map_err(drop)?;
        if length > 32 {
            return Err(());
        }
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        Self::new(network, Ipv4Addr::from_bits(mask)).ok_or(())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", Ipv4Addr::from_bits(self.network), self.length)
    }
}

/// An address as dhcpd reads it: four decimal numbers, whatever zeros they begin with.
#[must_use]
pub fn dotted_quad(word: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut numbers = std::str::from_utf8(word).ok()?.split('.');
    for octet in &mut octets {
        let number = numbers.next()?;
        *octet = number
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| number.parse().ok())??;
    }
    numbers.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// A hardware address of 6 octets (Ethernet) or 20 (InfiniBand). Others exist, and are none that Foreman knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hardware {
    long: bool,
    octets: [u8; 20],
}

impl Hardware {
    /// Reads groups of one or two hexadecimal digits joined by `:`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut octets = [0; 20];
        let mut count = 0;
        for group in text.split(|&byte| byte == b':') {
            let slot = octets.get_mut(count)?;
            *slot = match *group {
                [low] => digit(low)?,
                [high, low] => digit(high)? << 4 | digit(low)?,
                _ => return None,
            };
            count += 1;
        }
        matches!(count, 6 | 20).then_some(Self {
            long: count == 20,
            octets,
        })
    }

    /// The octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        let length = if self.long { 20 } else { 6 };
        self.octets.get(..length).unwrap_or_default()
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// `aa:bb:cc:dd:ee:0f`
impl fmt::Display for Hardware {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, octet) in self.octets().iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(out, "{colon}{octet:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Hardware {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_network_with_a_mask_without_holes() {
        let prefix = |network: &str, mask: &str| {
            Prefix::new(network.parse().unwrap(), mask.parse().unwrap())
        };
        assert_eq!(
            prefix("192.0.2.0", "255.255.255.0").unwrap().to_string(),
            "192.0.2.0/24"
        );
        assert_eq!(
            prefix("0.0.0.0", "0.0.0.0").unwrap().to_string(),
            "0.0.0.0/0"
        );
        assert_eq!(
            prefix("192.0.2.1", "255.255.255.255").unwrap().to_string(),
            "192.0.2.1/32"
        );
        assert_eq!(prefix("192.0.2.1", "255.255.255.0"), None);
        assert_eq!(prefix("192.0.2.0", "255.0.255.0"), None);
        assert_eq!(
            "192.0.2.0/24".parse(),
            prefix("192.0.2.0", "255.255.255.0").ok_or(())
        );
        for bad in ["192.0.2.0", "192.0.2.1/24", "192.0.2.0/33", "x/24"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dotted_quad_is_decimal_whatever_it_begins_with() {
        for text in ["192.0.2.54", "192.0.2.054", "192.000.002.054"] {
            assert_eq!(
                dotted_quad(text.as_bytes()),
                Some(Ipv4Addr::new(192, 0, 2, 54)),
                "{text}"
            );
        }
        for bad in [
            "",
            "192.0.2",
            "192.0.2.",
            "192.0.2.1.1",
            "192.0.2.256",
            "192.0.2.+1",
            "192.0.2.x",
        ] {
            assert_eq!(dotted_quad(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_hardware_address_has_one_form() {
        assert_eq!(
            Hardware::parse(b"A:b:C:d:E:0f").unwrap().to_string(),
            "0a:0b:0c:0d:0e:0f"
        );
        assert!(Hardware::parse(["0a"; 20].join(":").as_bytes()).is_some());
        for bad in [
            "",
            "aa",
            "aa:bb:cc:dd:ee",
            "aa:bb:cc:dd:ee:fg",
            "aa:bb:cc:dd:ee:fff",
            "aa::cc:dd:ee:ff",
        ] {
            assert!(Hardware::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Hardware::parse(["0a"; 8].join(":").as_bytes()).is_none());
        assert!(Hardware::parse(["0a"; 21].join(":").as_bytes()).is_none());
    }
}
