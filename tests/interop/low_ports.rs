//! Ports below 1024 for network servers: a process without rights does not get them and says what is missing; with the one right it needs, or with sockets that
//! somebody else opened, it serves.
//!
//! The program runs as nobody here, in a network of the test's own.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use std::time::Duration;

use bulkhead_testkit::dns::{Way, ask_all, question, try_udp};
use bulkhead_testkit::servers::{DNS, TFTP, Wire, asks_dhcp, asks_dns, asks_tftp};
use bulkhead_testkit::skip::program as installed;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, program, skip};

/// Nobody's user and group on every Linux.
const NOBODY: u32 = 65_534;

/// The three servers, to be run by nobody with these capabilities.
fn by_nobody(capabilities: &str) -> Configuration {
    by_nobody_under(&[], capabilities)
}

/// By way of another program first.
fn by_nobody_under(starter: &[&str], capabilities: &str) -> Configuration {
    let configuration = Configuration::empty().with_servers();
    // Nobody may not come to where the program was built.
    let copy = configuration.scratch.join("bulkhead");
    fs::copy(program::executable(), &copy).unwrap();
    // Once as root, so that what is compiled is there; then all of it is nobody's.
    drop(Bulkhead::with(configuration.clone()));
    fs::set_permissions(
        configuration.scratch.path(),
        PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    own(configuration.scratch.path());
    let mut words: Vec<String> = starter.iter().map(|&word| word.to_owned()).collect();
    words.extend([
        "setpriv".to_owned(),
        format!("--reuid={NOBODY}"),
        format!("--regid={NOBODY}"),
        "--clear-groups".to_owned(),
    ]);
    if !capabilities.is_empty() {
        words.push(format!("--inh-caps={capabilities}"));
        words.push(format!("--ambient-caps={capabilities}"));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    configuration.program(copy).under(&words)
}

/// Makes everything below this nobody's.
fn own(place: &Path) {
    let owner = format!("{NOBODY}:{NOBODY}");
    let done = Command::new("chown")
        .args(["-R", &owner])
        .arg(place)
        .status();
    assert!(done.unwrap().success());
}

/// The test's networks, if all is here that is needed.
macro_rules! wire {
    () => {{
        if installed("setpriv").is_none() {
            skip!("setpriv is not installed");
        }
        let Some(wire) = Wire::new() else {
            skip!("no network namespaces here: they need root and `ip`");
        };
        wire.site.enter();
        // The default, which a container may have changed.
        let start = "echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start";
        assert!(wire.site.run("sh", &["-c", start]).status.success());
        wire
    }};
}

#[test]
fn without_a_right_the_servers_say_which_one_they_need() {
    let _wire = wire!();
    let bulkhead = Bulkhead::with(by_nobody(""));
    for server in ["dns-builtin", "tftp-server", "dhcp-builtin"] {
        let said = bulkhead.log_lines("the service does not listen");
        assert!(
            said.iter()
                .any(|line| line.contains(server) && line.contains("CAP_NET_BIND_SERVICE")),
            "{server}:\n{}",
            bulkhead.log()
        );
    }
    // Nobody has the ports.
    for address in [DNS, TFTP] {
        UdpSocket::bind(address).unwrap();
    }
}

#[test]
fn with_cap_net_bind_service_dns_and_tftp_have_their_ports() {
    let _wire = wire!();
    let bulkhead = Bulkhead::with(by_nobody("+net_bind_service"));
    assert!(asks_dns(), "{}", bulkhead.log());
    assert!(asks_tftp(), "{}", bulkhead.log());
}

/// DHCP sends frames to machines that have no address yet.
#[test]
fn with_cap_net_raw_as_well_dhcp_has_its_interface() {
    let wire = wire!();
    let bulkhead = Bulkhead::with(by_nobody("+net_bind_service,+net_raw"));
    let relay = wire.relay();
    assert!(asks_dns(), "{}", bulkhead.log());
    assert!(asks_tftp(), "{}", bulkhead.log());
    assert!(asks_dhcp(&relay, 1), "{}", bulkhead.log());
}

/// As a socket unit of systemd has them opened: the program has no right at all.
#[test]
fn sockets_handed_over_need_no_right() {
    let _wire = wire!();
    let configuration = by_nobody("");
    let (dns, tftp) = (
        UdpSocket::bind(DNS).unwrap(),
        UdpSocket::bind(TFTP).unwrap(),
    );
    let stream = TcpListener::bind(DNS).unwrap();
    let bulkhead = Bulkhead::with_sockets(
        configuration,
        &[(&dns, "dns"), (&stream, "dns"), (&tftp, "tftp")],
    );
    drop((dns, tftp, stream));
    assert!(asks_dns(), "{}", bulkhead.log());
    assert!(asks_tftp(), "{}", bulkhead.log());
    let questions = [question("www.example.com", "A")];
    let answer = ask_all(DNS.parse().unwrap(), Way::Tcp, &questions);
    assert!(answer[0].ends_with(&[192, 0, 2, 80]));
    let said = bulkhead.log_lines("the service does not listen");
    assert!(
        said.iter().all(|line| line.contains("dhcp-builtin")),
        "{said:?}"
    );
}

/// By systemd's own tool: the first datagram has the program started, which finds it in the socket it is handed.
#[test]
fn systemd_starts_it_when_somebody_asks() {
    const TOOL: &str = "systemd-socket-activate";
    if installed(TOOL).is_none() {
        skip!("{TOOL} is not installed");
    }
    let _wire = wire!();
    let starter = [TOOL, "--datagram", "--listen", DNS, "--listen", TFTP];
    let bulkhead = Bulkhead::launch(by_nobody_under(&starter, ""), &[]);
    let taken = |address: &str| UdpSocket::bind(address).is_err();
    assert_eventually!(taken(DNS) && taken(TFTP), "{}", bulkhead.log());
    assert_eq!(
        bulkhead.log_lines("Smart proxy has launched"),
        Vec::<String>::new()
    );
    let first = question("www.example.com", "A");
    let answer = try_udp(DNS.parse().unwrap(), &first, Duration::from_secs(60));
    assert!(
        answer.is_some_and(|it| it.ends_with(&[192, 0, 2, 80])),
        "{}",
        bulkhead.log()
    );
    assert!(asks_tftp(), "{}", bulkhead.log());
}
