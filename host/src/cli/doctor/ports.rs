//! Addresses to listen at: held by the running proxy, free, or somebody else's.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::finding::{Area, Finding};
use crate::api::control::PortView;
use crate::cli::plan::{Owner, Plan, Wanted};
use crate::grant::matchers::socket::Transport;
use crate::settings::Config;

/// `running`: where the proxy listens that runs already.
pub(super) fn look(config: &Config, plan: &Plan, running: Option<Vec<PortView>>) -> Vec<Finding> {
    let advice = |wanted: &Wanted| match &wanted.owner {
        Owner::Plugin(name) => format!("name another address in [features.{name}]"),
        Owner::Listener(name) => {
            format!("name another address in the [[listener]] called {name:?}")
        }
        Owner::Admin => "name another address in [admin]".to_owned(),
    };
    let look = |wanted: &Wanted| {
        let subject = format!("{} {}", wanted.transport, wanted.address);
        let held = running.iter().flatten().any(|port| port_is(port, wanted));
        if held {
            return Finding::good(Area::Ports, subject, "held by the running proxy");
        }
        let problem =
            |found: String, advice: String| Finding::problem(Area::Ports, &subject, found, advice);
        let owner = &wanted.owner;
        match try_bind(wanted) {
            Ok(()) => Finding::good(Area::Ports, &subject, format!("free for {owner}")),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => problem(
                format!(
                    "{owner} cannot have it, {} has it",
                    holder(wanted.transport, wanted.address)
                ),
                format!("stop that program, or {}", advice(wanted)),
            ),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => problem(
                format!("{owner} may not have it: ports below 1024 need a right"),
                "give the proxy CAP_NET_BIND_SERVICE (AmbientCapabilities= in its systemd unit), have systemd hand over the socket, or use a higher port".into(),
            ),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => problem(
                format!("{owner} cannot have it: no interface of this machine has that address"),
                format!("add the address (`ip addr` lists those there are), or {}", advice(wanted)),
            ),
            Err(error) => problem(format!("{owner} cannot have it: {error}"), advice(wanted)),
        }
    };
    let mut findings: Vec<Finding> = plan.sockets.iter().map(look).collect();
    if config.listeners.is_empty() {
        findings.push(Finding::warning(
            Area::Ports,
            "[[listener]]",
            "the configuration has none, so nobody can reach the proxy over HTTP",
            "add one for Foreman and one for hosts",
        ));
    }
    findings
}

fn port_is(port: &PortView, wanted: &Wanted) -> bool {
    let udp = port.protocol == "udp";
    port.address.parse() == Ok(wanted.address) && udp == (wanted.transport == Transport::Udp)
}

/// Binds for a moment, as the proxy would, and listens to nobody.
fn try_bind(wanted: &Wanted) -> io::Result<()> {
    let (kind, protocol) = match wanted.transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(wanted.address), kind, Some(protocol))?;
    if wanted.address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if wanted.transport == Transport::Tcp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&wanted.address.into())
}

/// Whoever has a port, as well as this user may know.
fn holder(transport: Transport, address: SocketAddr) -> String {
    let somebody = "another program".to_owned();
    let inodes: Vec<u64> = [
        transport.word().to_owned(),
        format!("{}6", transport.word()),
    ]
    .iter()
    .filter_map(|table| fs::read_to_string(format!("/proc/net/{table}")).ok())
    .flat_map(|text| owners(&text, transport, address))
    .collect();
    let Ok(processes) = fs::read_dir("/proc") else {
        return somebody;
    };
    for process in processes.flatten() {
        let path = process.path();
        let number = process.file_name().to_string_lossy().into_owned();
        if !number.bytes().all(|it| it.is_ascii_digit()) {
            continue;
        }
        let Ok(open) = fs::read_dir(path.join("fd")) else {
            continue;
        };
        let has = open
            .flatten()
            .filter_map(|it| fs::read_link(it.path()).ok())
            .any(|link| {
                let link = link.to_string_lossy();
                let inode = link.strip_prefix("socket:[");
                let inode = inode.and_then(|it| it.strip_suffix(']')?.parse().ok());
                inode.is_some_and(|it: u64| inodes.contains(&it))
            });
        if has {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            return format!("{} (process {number})", name.trim());
        }
    }
    somebody
}

/// Inodes of the sockets of a table in `/proc/net` that are in the way of an address.
fn owners(table: &str, transport: Transport, address: SocketAddr) -> Vec<u64> {
    let bound = match transport {
        Transport::Tcp => "0A",
        Transport::Udp => "07",
    };
    let lines = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let ip = kernel_address(ip)?;
        let inode = fields.get(9)?.parse().ok()?;
        let meets = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
        (fields.get(3) == Some(&bound) && port == address.port() && meets).then_some(inode)
    });
    lines.collect()
}

/// An address as `/proc/net` writes it: words of 32 bits, each in the machine's order.
fn kernel_address(text: &str) -> Option<IpAddr> {
    let word = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes);
    if text.len() == 8 {
        return word(text).map(|it| Ipv4Addr::from(it).into());
    }
    let mut bytes = [0; 16];
    for (index, place) in bytes.chunks_mut(4).enumerate() {
        place.copy_from_slice(&word(text.get(index * 8..index * 8 + 8)?)?);
    }
    let address = Ipv6Addr::from(bytes);
    Some(
        address
            .to_ipv4_mapped()
            .map_or(address.into(), IpAddr::from),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    fn one(transport: Transport, address: SocketAddr, running: Option<Vec<PortView>>) -> Finding {
        let plan = Plan {
            sockets: vec![Wanted {
                owner: Owner::Listener("foreman".into()),
                transport,
                address,
            }],
            ..Plan::default()
        };
        let config = Config::trial(std::path::Path::new("/nowhere"));
        look(&config, &plan, running).remove(0)
    }

    #[test]
    fn a_taken_port_is_told_with_its_holder() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let me = format!("(process {})", std::process::id());
        for (transport, address) in [
            (Transport::Tcp, tcp.local_addr().unwrap()),
            (Transport::Udp, udp.local_addr().unwrap()),
        ] {
            let finding = one(transport, address, None);
            assert_eq!(finding.level, Level::Problem);
            assert!(finding.found.contains(&me), "{finding:?}");
            assert!(
                finding
                    .advice
                    .unwrap()
                    .contains("[[listener]] called \"foreman\""),
                "{transport}"
            );
            let held = PortView {
                address: address.to_string(),
                protocol: if transport == Transport::Udp {
                    "udp"
                } else {
                    "https"
                }
                .into(),
                owner: "x".into(),
                audiences: Vec::new(),
                features: Vec::new(),
            };
            assert_eq!(one(transport, address, Some(vec![held])).level, Level::Good);
        }
    }

    #[test]
    fn a_free_port_is_good_and_a_strange_address_is_not() {
        let free = one(Transport::Tcp, "127.0.0.1:0".parse().unwrap(), None);
        assert_eq!(free.level, Level::Good, "{free:?}");
        let strange = one(Transport::Udp, "192.0.2.77:5353".parse().unwrap(), None);
        assert!(strange.found.contains("no interface"), "{strange:?}");
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n   \
            1: 0100007F:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0 0\n";
        let of = |address: &str| owners(table, Transport::Udp, address.parse().unwrap());
        assert_eq!(of("192.0.2.1:53"), [4711]);
        assert_eq!(of("127.0.0.1:68"), [4712]);
        assert_eq!(of("192.0.2.1:68"), [] as [u64; 0]);
        let six = kernel_address("0000000000000000FFFF00000100007F").unwrap();
        assert_eq!(six, IpAddr::from([127, 0, 0, 1]));
    }
}
