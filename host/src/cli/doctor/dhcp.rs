//! Other DHCP servers on a wire: a question as a new machine asks it (RFC 2131, DHCPDISCOVER), and who offers.
//!
//! Nothing is requested, so nobody's lease is taken; an offered address is free again within a minute or so. The hardware address is made up, and marked as
//! administered locally.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Protocol, Socket, Type};

use super::Plan;
use super::finding::{Area, Finding};
use super::names::own_addresses;
use crate::settings::Config;

/// For offers. Servers that probe an address first take a second.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between two questions; the first may be lost.
const AGAIN: Duration = Duration::from_secs(2);
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Bytes before the options.
const FIXED: usize = 236;

/// An offer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    server: Ipv4Addr,
    address: Ipv4Addr,
}

/// `more`: interfaces that the operator names.
pub(super) fn look(config: &Config, plan: &Plan, more: &[String]) -> Vec<Finding> {
    let mut names: Vec<&String> = plan.interfaces.iter().chain(more).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return vec![Finding::unknown(
            Area::Dhcp,
            "no interface",
            "nobody was asked",
            "name one: --interface NAME, or `interfaces` of [features.dhcp-builtin]",
        )];
    }
    let own = own_addresses();
    let look = |name: &&String| {
        let mut found = match ask(name) {
            Ok(offers) => judge(name, &offers, &own),
            Err(error) => vec![cannot(name, &error)],
        };
        if plan.interfaces.contains(name) && link_exists(name) {
            found.extend(unanswered(
                name,
                first_address(name),
                &subnets(config, name),
            ));
        }
        found
    };
    names.iter().flat_map(look).collect()
}

/// Why machines on an interface of ours get no answer, whoever asks.
fn unanswered(interface: &str, own: Option<Ipv4Addr>, subnets: &[Ipv4Net]) -> Option<Finding> {
    let Some(own) = own else {
        return Some(Finding::problem(
            Area::Dhcp,
            interface,
            "it has no IPv4 address: nobody there is answered",
            format!(
                "give it one in the network of the machines: ip addr add ADDRESS/LENGTH dev {interface}"
            ),
        ));
    };
    let is_inside = subnets.is_empty() || subnets.iter().any(|it| it.contains(&own));
    (!is_inside).then(|| {
        Finding::warning(
            Area::Dhcp,
            interface,
            format!("its address {own} is in none of the `subnets`: machines there get no answer, only those behind a relay"),
            "add its network to `subnets` of [features.dhcp-builtin], or correct its address",
        )
    })
}

/// The subnets that an interface must be in. None where another server gives the addresses.
fn subnets(config: &Config, interface: &str) -> Vec<Ipv4Net> {
    let texts = |name: &str| -> Vec<&str> {
        let feature = config.features.get("dhcp-builtin");
        let setting = feature.and_then(|it| it.settings.get(name)?.0.as_array());
        let values = setting.into_iter().flatten();
        values.filter_map(toml::Value::as_str).collect()
    };
    if !texts("interfaces").contains(&interface) {
        return Vec::new();
    }
    let prefix = |text: &str| text.split_whitespace().next()?.parse().ok();
    texts("subnets").into_iter().filter_map(prefix).collect()
}

fn link_exists(interface: &str) -> bool {
    getifaddrs().is_ok_and(|mut all| all.any(|it| it.interface_name == interface))
}

/// The address by which machines on an interface know `dhcp-builtin`.
fn first_address(interface: &str) -> Option<Ipv4Addr> {
    let mut all = getifaddrs().ok()?;
    all.find_map(|it| {
        let is_it = it.interface_name == interface;
        Some(it.address?.as_sockaddr_in()?.ip()).filter(|_| is_it)
    })
}

fn judge(interface: &str, offers: &[Offer], own: &[IpAddr]) -> Vec<Finding> {
    let mut by_server = BTreeMap::new();
    for offer in offers {
        by_server.entry(offer.server).or_insert(offer.address);
    }
    if by_server.is_empty() {
        return vec![Finding::good(
            Area::Dhcp,
            interface,
            format!("nobody offered an address within {} s", PATIENCE.as_secs()),
        )];
    }
    let tell = |(server, address): (Ipv4Addr, Ipv4Addr)| {
        if own.contains(&server.into()) {
            Finding::good(
                Area::Dhcp,
                interface,
                format!("{server}, this machine, offered {address}"),
            )
        } else {
            Finding::problem(
                Area::Dhcp,
                interface,
                format!("another DHCP server, {server}, offered {address}"),
                "two servers on one wire give machines the wrong boot file: switch that one off, or leave `interfaces` of [features.dhcp-builtin] empty and let Foreman manage that one",
            )
        }
    };
    by_server.into_iter().map(tell).collect()
}

fn cannot(interface: &str, error: &io::Error) -> Finding {
    let unknown =
        |found: String, advice: &str| Finding::unknown(Area::Dhcp, interface, found, advice);
    match error.kind() {
        io::ErrorKind::PermissionDenied => unknown(
            "this user may not ask: that needs port 68 and the interface".into(),
            "run it as root, or with CAP_NET_BIND_SERVICE and CAP_NET_RAW",
        ),
        io::ErrorKind::AddrInUse => unknown(
            "a DHCP client of this machine has port 68 and shares it with nobody".into(),
            "stop that client for a moment, or run this on another machine of the network",
        ),
        _ if error.raw_os_error() == Some(libc::ENODEV) => Finding::problem(
            Area::Dhcp,
            interface,
            "there is no such interface",
            "correct the name; `ip link` lists those there are",
        ),
        // Linux refuses a broadcast as unreachable where the interface that the socket is bound to is down.
        _ if matches!(
            error.raw_os_error(),
            Some(libc::ENETDOWN | libc::ENETUNREACH)
        ) =>
        {
            Finding::problem(
                Area::Dhcp,
                interface,
                "the interface is down",
                format!("ip link set {interface} up"),
            )
        }
        _ => unknown(
            format!("asking failed: {error}"),
            "look at the interface with `ip addr`",
        ),
    }
}

fn ask(interface: &str) -> io::Result<Vec<Offer>> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68)).into())?;
    let socket = UdpSocket::from(socket);
    let random = uuid::Uuid::new_v4().into_bytes();
    let transaction = [random[0], random[1], random[2], random[3]];
    let mac = [0x02, random[4], random[5], random[6], random[7], random[8]];
    let question = discover(transaction, mac);
    let begun = Instant::now();
    let (mut asked, mut offers) = (0, Vec::new());
    let mut buffer = [0; 1500];
    while let Some(left) = PATIENCE
        .checked_sub(begun.elapsed())
        .filter(|it| !it.is_zero())
    {
        if begun.elapsed() >= AGAIN * asked {
            socket.send_to(&question, (Ipv4Addr::BROADCAST, 67))?;
            asked += 1;
        }
        socket.set_read_timeout(Some(left.min(AGAIN)))?;
        match socket.recv_from(&mut buffer) {
            Ok((size, from)) => {
                let bytes = buffer.get(..size).unwrap_or_default();
                offers.extend(offer(bytes, transaction, from.ip()));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(offers)
}

/// A question that is answered to everybody, since nobody has the made-up address.
fn discover(transaction: [u8; 4], mac: [u8; 6]) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0];
    bytes.extend(transaction);
    bytes.extend([0, 0, 0x80, 0]);
    bytes.resize(28, 0);
    bytes.extend(mac);
    bytes.resize(FIXED, 0);
    bytes.extend(COOKIE);
    bytes.extend([53, 1, 1, 55, 3, 1, 3, 6, 255]);
    // Older servers and relays want the size of BOOTP.
    bytes.resize(300, 0);
    bytes
}

fn offer(bytes: &[u8], transaction: [u8; 4], from: IpAddr) -> Option<Offer> {
    let is_answer = bytes.first() == Some(&2) && bytes.get(4..8)? == transaction;
    if !is_answer || bytes.get(FIXED..FIXED + 4)? != COOKIE {
        return None;
    }
    let address: [u8; 4] = bytes.get(16..20)?.try_into().ok()?;
    let (mut kind, mut server) = (None, None);
    let mut rest = bytes.get(FIXED + 4..)?;
    while let Some((&code, following)) = rest.split_first() {
        match code {
            0 => rest = following,
            255 => break,
            _ => {
                let (&size, following) = following.split_first()?;
                let data = following.get(..usize::from(size))?;
                match code {
                    53 => kind = data.first().copied(),
                    54 => server = <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from),
                    _ => {}
                }
                rest = following.get(usize::from(size)..)?;
            }
        }
    }
    let sender = match from {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => return None,
    };
    (kind == Some(2)).then(|| Offer {
        server: server.unwrap_or(sender),
        address: address.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));

    fn answer(transaction: [u8; 4], options: &[u8]) -> Vec<u8> {
        let mut bytes = discover(transaction, [2; 6]);
        bytes[0] = 2;
        bytes[16..20].copy_from_slice(&[192, 0, 2, 100]);
        bytes.truncate(FIXED + 4);
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn offers_are_read_and_nothing_else_is_taken_for_one() {
        let good = answer([1, 2, 3, 4], &[0, 53, 1, 2, 54, 4, 192, 0, 2, 9, 255]);
        let expected = Offer {
            server: "192.0.2.9".parse().unwrap(),
            address: "192.0.2.100".parse().unwrap(),
        };
        assert_eq!(offer(&good, [1, 2, 3, 4], FROM), Some(expected));
        assert_eq!(offer(&good, [1, 2, 3, 5], FROM), None, "somebody else's");
        for end in 0..good.len() - 7 {
            assert_eq!(offer(&good[..end], [1, 2, 3, 4], FROM), None, "{end}");
        }
        let nak = answer([1, 2, 3, 4], &[53, 1, 6, 255]);
        assert_eq!(offer(&nak, [1, 2, 3, 4], FROM), None);
        let nameless = answer([1, 2, 3, 4], &[53, 1, 2, 255]);
        let read = offer(&nameless, [1, 2, 3, 4], FROM).unwrap();
        assert_eq!(IpAddr::V4(read.server), FROM);
    }

    #[test]
    fn our_own_offer_is_good_and_another_is_not() {
        let of = |server: &str| Offer {
            server: server.parse().unwrap(),
            address: "192.0.2.100".parse().unwrap(),
        };
        let own = ["192.0.2.1".parse().unwrap()];
        let found = judge(
            "eth0",
            &[of("192.0.2.1"), of("192.0.2.9"), of("192.0.2.9")],
            &own,
        );
        let levels: Vec<Level> = found.iter().map(|it| it.level).collect();
        assert_eq!(levels, [Level::Good, Level::Problem]);
        assert!(found[1].found.contains("192.0.2.9"), "{found:?}");
        assert_eq!(judge("eth0", &[], &own)[0].level, Level::Good);
    }

    #[test]
    fn an_interface_that_nobody_is_answered_on_is_no_good_one() {
        let subnets = ["192.0.2.0/24".parse().unwrap()];
        let own = |text: &str| Some(text.parse().unwrap());
        let level = |own, subnets| unanswered("eth0", own, subnets).map(|it| it.level);
        assert_eq!(level(own("192.0.2.1"), &subnets[..]), None);
        assert_eq!(level(own("10.0.0.1"), &subnets), Some(Level::Warning));
        assert_eq!(
            level(own("10.0.0.1"), &[]),
            None,
            "another gives the addresses"
        );
        assert_eq!(level(None, &subnets), Some(Level::Problem));
    }

    #[test]
    fn what_keeps_it_from_asking_is_told() {
        let (config, plan) = (
            Config::trial(std::path::Path::new("/nowhere")),
            Plan::default(),
        );
        assert_eq!(look(&config, &plan, &[])[0].level, Level::Unknown);
        let name = "no-such0".to_owned();
        let found = look(&config, &plan, &[name]);
        let words = &found[0].found;
        assert!(
            words.contains("no such interface") || words.contains("may not ask"),
            "{found:?}"
        );
        let refused = cannot("eth0", &io::ErrorKind::PermissionDenied.into());
        assert!(refused.level == Level::Unknown && refused.advice.unwrap().contains("CAP_NET_RAW"));
    }
}
