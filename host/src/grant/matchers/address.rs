//! What kind of place an IP address is.
//!
//! Refuses to look at names. The one idea: an address is judged by everything it can reach, so an IPv4 address inside an
//! IPv6 one (mapped, compatible, NAT64, 6to4) is judged as well, see [`embedded`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What an address stands for, as far as policies care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    /// Anywhere else: the open network.
    Global,
    /// Ranges for inside use: RFC 1918, RFC 6598, RFC 4193, RFC 3879 (site-local).
    Private,
    /// This machine: 127.0.0.0/8, ::1.
    Loopback,
    /// 169.254.0.0/16 and fe80::/10: one cable far; clouds put their metadata there.
    LinkLocal,
    /// A known address of a cloud's metadata or host agent.
    Metadata,
    /// 224.0.0.0/4, ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// 0.0.0.0 and ::, which many systems take as "this machine".
    Unspecified,
    /// 0.0.0.0/8, 192.0.0.0/24, 240.0.0.0/4: no host lives there.
    Reserved,
}

impl AddressClass {
    /// The class in words, for reasons.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Global => "an ordinary address",
            Self::Private => "a private address",
            Self::Loopback => "an address of this machine (loopback)",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud metadata address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Unspecified => "the unspecified address, which means this machine",
            Self::Reserved => "a reserved address",
        }
    }
}

/// Metadata and host-agent addresses outside the link-local range: AWS (IPv6), Alibaba, Oracle, Azure.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// The class of an address, IPv4-mapped addresses being taken as IPv4. Addresses that carry another one inside have the
/// class of the carrier; ask for [`embedded`] too, as [`classes`] does.
#[must_use]
pub fn class(ip: IpAddr) -> AddressClass {
    match ip.to_canonical() {
        IpAddr::V4(v4) => class_v4(v4),
        IpAddr::V6(v6) => class_v6(v6),
    }
}

fn class_v4(ip: Ipv4Addr) -> AddressClass {
    let [a, b, c, _] = ip.octets();
    if METADATA_V4.contains(&ip) {
        AddressClass::Metadata
    } else if ip.is_unspecified() {
        AddressClass::Unspecified
    } else if ip.is_broadcast() {
        AddressClass::Broadcast
    } else if ip.is_loopback() {
        AddressClass::Loopback
    } else if ip.is_link_local() {
        AddressClass::LinkLocal
    } else if ip.is_multicast() {
        AddressClass::Multicast
    } else if ip.is_private() || (a == 100 && (64..128).contains(&b)) {
        AddressClass::Private
    } else if a == 0 || a >= 240 || (a == 192 && b == 0 && c == 0) {
        AddressClass::Reserved
    } else {
        AddressClass::Global
    }
}

fn class_v6(ip: Ipv6Addr) -> AddressClass {
    let first = ip.segments().first().copied().unwrap_or(0);
    if METADATA_V6.contains(&ip) {
        AddressClass::Metadata
    } else if ip.is_unspecified() {
        AddressClass::Unspecified
    } else if ip.is_loopback() {
        AddressClass::Loopback
    } else if first & 0xffc0 == 0xfe80 {
        AddressClass::LinkLocal
    } else if ip.is_multicast() {
        AddressClass::Multicast
    } else if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0 {
        AddressClass::Private
    } else {
        AddressClass::Global
    }
}

/// The IPv4 address that a gateway or an old stack may make of an IPv6 address: IPv4-compatible (`::a.b.c.d`),
/// NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056).
#[must_use]
pub fn embedded(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = ip.to_canonical() else {
        return None;
    };
    let [a, b, c, _, _, _, g, h] = v6.segments();
    let bits = v6.to_bits();
    let last = Ipv4Addr::from((u32::from(g) << 16) | u32::from(h));
    if bits >> 32 == 0 && bits > 1 {
        return Some(last); // ::a.b.c.d
    }
    if (a, b) == (0x64, 0xff9b) && (bits >> 32 & 0xffff_ffff_ffff_ffff == 0 || c == 1) {
        return Some(last); // 64:ff9b::/96 and the local-use 64:ff9b:1::/48
    }
    if a == 0x2002 {
        return Some(Ipv4Addr::from((u32::from(b) << 16) | u32::from(c)));
    }
    None
}

/// The classes of an address and of the address it carries, if any.
#[must_use]
pub fn classes(ip: IpAddr) -> (AddressClass, Option<AddressClass>) {
    (class(ip), embedded(ip).map(class_v4))
}

/// The address with IPv4-mapped spelling undone and without IPv6 zone and flow label.
#[must_use]
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> AddressClass {
        class(text.parse().unwrap())
    }

    #[test]
    fn every_range_has_its_class() {
        use AddressClass::*;
        for (text, want) in [
            ("192.0.2.1", Global),
            ("8.8.8.8", Global),
            ("2001:db8::1", Global),
            ("10.1.2.3", Private),
            ("172.31.0.1", Private),
            ("172.32.0.1", Global),
            ("192.168.0.1", Private),
            ("100.64.0.1", Private),
            ("100.128.0.1", Global),
            ("fd12::1", Private),
            ("fec0::1", Private),
            ("127.0.0.1", Loopback),
            ("127.255.0.9", Loopback),
            ("::1", Loopback),
            ("169.254.1.1", LinkLocal),
            ("fe80::1", LinkLocal),
            ("169.254.169.254", Metadata),
            ("fd00:ec2::254", Metadata),
            ("100.100.100.200", Metadata),
            ("224.0.0.1", Multicast),
            ("ff02::1", Multicast),
            ("255.255.255.255", Broadcast),
            ("0.0.0.0", Unspecified),
            ("::", Unspecified),
            ("0.1.2.3", Reserved),
            ("240.0.0.1", Reserved),
        ] {
            assert_eq!(of(text), want, "{text}");
        }
    }

    #[test]
    fn mapped_spellings_are_undone() {
        assert_eq!(of("::ffff:127.0.0.1"), AddressClass::Loopback);
        assert_eq!(of("::ffff:169.254.169.254"), AddressClass::Metadata);
    }

    #[test]
    fn carried_addresses_are_found() {
        for text in [
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "::169.254.169.254",
        ] {
            let (_, inner) = classes(text.parse().unwrap());
            assert_eq!(inner, Some(AddressClass::Metadata), "{text}");
        }
        for text in ["::1", "::", "2001:db8::1", "127.0.0.1", "64:ff9b:2::1"] {
            assert_eq!(embedded(text.parse().unwrap()), None, "{text}");
        }
    }
}
