//! TFTP packet by packet: what the server says to clients that do what the standards allow, and to those that do not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bulkhead_testkit::eventually::until_within;
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::tftp::{Client, Packet, request};
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, ports, skip};

/// How long nothing has to come where nothing may.
const SILENCE: Duration = Duration::from_millis(300);

/// The server, with further settings.
fn serving(settings: &str) -> (Bulkhead, SocketAddr) {
    serving_at("127.0.0.1", settings)
}

fn serving_at(address: &str, settings: &str) -> (Bulkhead, SocketAddr) {
    let listen: SocketAddr = format!("{address}:{}", ports::free()).parse().unwrap();
    let configuration = Configuration::empty();
    let boot = configuration.boot().display().to_string();
    let settings =
        format!("enabled = true\ntftproot = {boot:?}\nlisten = [\"udp {listen}\"]\n{settings}");
    let bulkhead = Bulkhead::with(configuration.feature("tftp-server", &settings));
    (bulkhead, listen)
}

/// So many bytes of which no block is like another.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|it| (it % 65_521 % 251) as u8).collect()
}

fn put(bulkhead: &Bulkhead, name: &str, bytes: &[u8]) {
    std::fs::write(bulkhead.boot().join(name), bytes).unwrap();
}

/// A number of the service's.
fn counted(bulkhead: &Bulkhead, metric: &str) -> usize {
    let metrics = bulkhead.admin().get("/metrics").text();
    let line = format!("bulkhead_{metric}{{plugin=\"tftp-server\"}} ");
    let value = metrics.lines().find_map(|it| it.strip_prefix(&line));
    value.and_then(|it| it.parse().ok()).unwrap_or_default()
}

/// No transfer runs, and so many ended without their file.
#[track_caller]
fn ends_with_failures(bulkhead: &Bulkhead, failures: usize) {
    let now = || {
        (
            counted(bulkhead, "transfers_running"),
            counted(bulkhead, "transfers_failed_total"),
        )
    };
    assert_eventually!(now() == (0, failures), "{:?}", now());
}

#[test]
fn nothing_is_written_and_nothing_outside_is_read() {
    let (bulkhead, server) = serving("");
    put(&bulkhead, "menu", b"default");
    std::fs::write(bulkhead.boot().join("../secret"), b"secret").unwrap();
    std::os::unix::fs::symlink("../secret", bulkhead.boot().join("out")).unwrap();
    let mut client = Client::new(server);
    for name in ["new", "menu"] {
        let mut write = request(name, "octet", &[("tsize", "3")]);
        write[1] = 2;
        client.ask(&write);
        assert!(matches!(client.hear(), Packet::Error(2, _)), "{name}");
        client.ask(b"\0\x03\0\x01new");
        assert_eq!(client.hear_within(SILENCE), None, "{name}");
    }
    assert!(!bulkhead.boot().join("new").exists());
    assert_eq!(
        std::fs::read(bulkhead.boot().join("menu")).unwrap(),
        b"default"
    );
    for (name, code) in [
        ("missing", 1),
        ("menu/deeper", 1),
        ("", 1),
        ("../secret", 2),
        ("..\\secret", 2),
        ("boot/../../secret", 2),
        ("out", 2),
    ] {
        let refused = Client::new(server).fetch(name, "octet", &[]).unwrap_err();
        assert_eq!(refused.0, code, "{name}: {refused:?}");
    }
    for (what, bytes) in [
        ("mode mail", &b"\0\x01menu\0mail\0"[..]),
        ("no mode", b"\0\x01menu"),
        ("opcode 9", b"\0\x09menu\0octet\0"),
    ] {
        client.ask(bytes);
        assert!(matches!(client.hear(), Packet::Error(4, _)), "{what}");
    }
}

/// RFC 2347: a client that does not like what was acknowledged says error 8, and that is the end. So is any other error at any time.
#[test]
fn an_error_of_the_client_ends_the_transfer() {
    let (bulkhead, server) = serving("");
    put(&bulkhead, "file", &content(2000));
    let mut client = Client::new(server);
    client.ask(&request("file", "octet", &[("tsize", "0")]));
    assert!(matches!(client.hear(), Packet::Options(_)));
    client.refuse(8, "User aborted the transfer");
    // Firmware that only wanted the size, and knows it now: nothing failed.
    assert_eq!(bulkhead.log_lines("size of a file told").len(), 1);
    ends_with_failures(&bulkhead, 0);
    // It asks again at once, from the same port.
    let asks = request("file", "octet", &[("blksize", "1000")]);
    client.ask(&asks);
    assert!(matches!(client.hear(), Packet::Options(_)));
    client.acknowledge(0);
    client.block(1);
    client.refuse(3, "Disk full");
    ends_with_failures(&bulkhead, 1);
    // Nothing more comes, though a block would be repeated after a second.
    assert_eq!(client.hear_within(Duration::from_millis(1500)), None);
}

/// RFC 2347 to 2349 and 7440: what is known and within its bounds is acknowledged, in the client's order; everything else is as if it were not there.
#[test]
fn known_options_within_their_bounds_are_acknowledged() {
    let (bulkhead, server) = serving("max_block_size = 65464\nmax_window_size = 65535");
    let (small, small_server) = serving("");
    let file = content(100_000);
    for it in [&bulkhead, &small] {
        put(it, "file", &file);
    }
    let acknowledged = |server, options: &[(&str, &str)]| {
        let mut client = Client::new(server);
        client.ask(&request("file", "octet", options));
        let answer = client.hear();
        client.refuse(8, "thank you");
        match answer {
            Packet::Options(options) => {
                let pairs = options
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"));
                pairs.collect::<Vec<_>>().join(" ")
            }
            // Without options the first block comes at once, of the plain size.
            Packet::Data(1, bytes) => {
                assert_eq!(bytes, file[..512]);
                String::new()
            }
            other => panic!("{other:?}"),
        }
    };
    for (name, value, expected) in [
        ("blksize", "8", "blksize=8"),
        ("blksize", "65464", "blksize=65464"),
        ("blksize", "0", ""),
        ("blksize", "7", ""),
        // More than there is: the most there is.
        ("blksize", "65465", "blksize=65464"),
        ("blksize", "99999999999999999999", ""),
        ("blksize", "-8", ""),
        ("blksize", "8x", ""),
        ("blksize", "", ""),
        ("tsize", "0", "tsize=100000"),
        ("TSize", "0", "tsize=100000"),
        ("timeout", "1", "timeout=1"),
        ("timeout", "255", "timeout=255"),
        ("timeout", "0", ""),
        ("timeout", "256", ""),
        ("timeout", "soon", ""),
        ("windowsize", "1", "windowsize=1"),
        ("windowsize", "65535", "windowsize=65535"),
        ("windowsize", "0", ""),
        ("multicast", "", ""),
        ("rollover", "0", ""),
        ("utimeout", "100000", ""),
    ] {
        let got = acknowledged(server, &[(name, value)]);
        assert_eq!(got, expected, "{name}={value}");
    }
    let several = [
        ("rollover", "1"),
        ("timeout", "9"),
        ("blksize", "1500"),
        ("x-vendor", "y"),
        ("tsize", "0"),
        ("windowsize", "100"),
    ];
    assert_eq!(
        acknowledged(server, &several),
        "timeout=9 blksize=1500 tsize=100000 windowsize=100"
    );
    // The operator allows less.
    assert_eq!(
        acknowledged(small_server, &several),
        "timeout=9 blksize=1468 tsize=100000 windowsize=64"
    );
    // What is acknowledged holds.
    for size in ["8", "1500", "65464"] {
        let got = Client::new(server).fetch("file", "octet", &[("blksize", size)]);
        assert!(got.as_ref() == Ok(&file), "blocks of {size}");
    }
}

/// Bytes after the last option, no NUL at the end, an option without a value: what firmware really sends.
#[test]
fn odd_requests_are_answered() {
    let (bulkhead, server) = serving("");
    put(&bulkhead, "file", b"content");
    let whole = request("file", "octet", &[]);
    let mut padded = whole.clone();
    padded.resize(512, 0);
    let mut filled = request("file", "octet", &[("blksize", "1024")]);
    filled.push(0);
    filled.resize(516, 0xff);
    for (what, bytes) in [
        ("padded", padded),
        ("filled", filled),
        ("no NUL at the end", whole[..whole.len() - 1].to_vec()),
        (
            "an option without a value",
            [&whole, &b"blksize\0"[..]].concat(),
        ),
        ("half an option", [&whole, &b"blksize\x00102"[..]].concat()),
        ("any case", request("file", "OcTeT", &[("BLKSIZE", "1024")])),
        ("slashes", request("//file", "octet", &[])),
        ("backslashes", request("\\file", "octet", &[])),
    ] {
        let mut client = Client::new(server);
        client.ask(&bytes);
        let mut answer = client.hear();
        if matches!(answer, Packet::Options(_)) {
            client.acknowledge(0);
            answer = client.hear();
        }
        assert_eq!(answer, Packet::Data(1, b"content".to_vec()), "{what}");
        client.acknowledge(1);
    }
    ends_with_failures(&bulkhead, 0);
}

/// RFC 2349: what is not acknowledged is said again after the seconds agreed, not sooner, so often, and then no more.
#[test]
fn silence_is_answered_by_repetition_and_then_by_none() {
    let (bulkhead, server) = serving("retries = 2");
    put(&bulkhead, "file", &content(700));
    let mut client = Client::new(server);
    client.ask(&request("file", "octet", &[]));
    client.block(1);
    let begun = Instant::now();
    for _ in 0..2 {
        client.block(1);
    }
    assert!(begun.elapsed() > Duration::from_millis(1800));
    ends_with_failures(&bulkhead, 1);
    // Three seconds instead of the one that is set.
    client.ask(&request("file", "octet", &[("timeout", "3")]));
    assert!(matches!(client.hear(), Packet::Options(_)));
    let begun = Instant::now();
    assert!(matches!(client.hear(), Packet::Options(_)));
    assert!(begun.elapsed() > Duration::from_millis(2800));
    client.refuse(0, "enough");
}

/// The kernel tells of a closed port when something arrives there: that transfer is not gone on with for retries and minutes.
#[test]
fn a_client_that_closed_its_port_is_not_waited_for() {
    let (bulkhead, server) = serving("retries = 255");
    put(&bulkhead, "file", &content(700));
    let mut client = Client::new(server);
    client.ask(&request("file", "octet", &[]));
    client.block(1);
    assert_eq!(counted(&bulkhead, "transfers_running"), 1);
    drop(client);
    ends_with_failures(&bulkhead, 1);
}

/// RFC 7440: the client tells the last block that arrived in order, and the next window begins behind it.
#[test]
fn a_loss_within_a_window_costs_what_follows_it_and_no_more() {
    let (bulkhead, server) = serving("timeout = 5");
    let file = content(11 * 512);
    put(&bulkhead, "file", &file);
    let mut client = Client::new(server);
    client.ask(&request("file", "octet", &[("windowsize", "4")]));
    assert!(matches!(client.hear(), Packet::Options(_)));
    client.acknowledge(0);
    let window = |client: &mut Client, blocks: std::ops::RangeInclusive<u16>| {
        for number in blocks {
            let bytes = client.block(number);
            let at = usize::from(number - 1) * 512;
            assert!(bytes == file[at..(at + 512).min(file.len())], "{number}");
        }
    };
    window(&mut client, 1..=4);
    // Block 3 was lost.
    client.acknowledge(2);
    window(&mut client, 3..=6);
    // Block 3 again: it says so for each block behind it, and is answered once.
    for _ in 0..3 {
        client.acknowledge(2);
    }
    window(&mut client, 3..=6);
    assert_eq!(client.hear_within(SILENCE), None);
    client.acknowledge(6);
    // An old acknowledgement, delayed by the network.
    client.acknowledge(4);
    window(&mut client, 7..=10);
    assert_eq!(client.hear_within(SILENCE), None);
    client.acknowledge(10);
    window(&mut client, 11..=12);
    client.acknowledge(12);
    ends_with_failures(&bulkhead, 0);
}

/// RFC 1123, 4.2.3.1: who answers each repeated acknowledgement sends everything twice for ever.
#[test]
fn a_repeated_acknowledgement_is_not_answered() {
    let (bulkhead, server) = serving("timeout = 5");
    put(&bulkhead, "file", &content(1200));
    let mut client = Client::new(server);
    client.ask(&request("file", "octet", &[]));
    client.block(1);
    for _ in 0..5 {
        client.acknowledge(1);
    }
    client.block(2);
    client.acknowledge(1);
    assert_eq!(client.hear_within(SILENCE), None);
    client.acknowledge(2);
    client.block(3);
    client.acknowledge(3);
    ends_with_failures(&bulkhead, 0);
    assert_eq!(counted(&bulkhead, "transferred_bytes_total"), 1200);
}

/// Block numbers have 16 bits: after 65,535 comes 0.
#[test]
fn files_of_more_blocks_than_there_are_numbers_arrive() {
    let (bulkhead, server) = serving("");
    for length in [65_535 * 8, 65_536 * 8, 140_000 * 8 + 3] {
        let file = content(length);
        put(&bulkhead, "file", &file);
        let options = [("blksize", "8"), ("windowsize", "64")];
        let got = Client::new(server).fetch("file", "octet", &options);
        assert!(got == Ok(file), "{length} bytes");
    }
}

/// RFC 1350: in mode netascii a line ends with CR LF, and a bare CR is CR NUL, also where a block ends between them.
#[test]
fn text_has_the_line_ends_of_the_network() {
    let (bulkhead, server) = serving("");
    let mut text = b"one\ntwo\rthree\r\n".to_vec();
    // Line ends at every place of a block.
    for length in 0..600 {
        text.extend(vec![b'x'; length % 17]);
        text.extend(if length % 3 == 0 { &b"\r"[..] } else { b"\n" });
    }
    put(&bulkhead, "text", &text);
    let mut expected = Vec::new();
    for byte in &text {
        match byte {
            b'\n' => expected.extend(b"\r\n"),
            b'\r' => expected.extend(b"\r\0"),
            other => expected.push(*other),
        }
    }
    for block in ["8", "9", "511", "512"] {
        let options = [("blksize", block), ("tsize", "0")];
        let got = Client::new(server).fetch("text", "netascii", &options);
        assert!(got.as_ref() == Ok(&expected), "blocks of {block}");
    }
}

/// Over IPv6, from the port of a transfer of its own.
#[test]
fn files_arrive_over_ipv6() {
    let (bulkhead, server) = serving_at("[::1]", "");
    let file = content(70_000);
    put(&bulkhead, "file", &file);
    let mut client = Client::new(server);
    let got = client.fetch("file", "octet", &[("blksize", "1428"), ("windowsize", "8")]);
    assert!(got == Ok(file));
    assert_ne!(client.transfer().port(), server.port());
    let refused = Client::new(server).fetch("missing", "octet", &[]);
    assert_eq!(refused.unwrap_err().0, 1);
}

/// All of them have begun before one goes on.
#[test]
fn three_thousand_transfers_run_at_once() {
    const CLIENTS: usize = 3_000;
    let (bulkhead, server) = serving("timeout = 60");
    let file = content(1_100);
    put(&bulkhead, "file", &file);
    let asks = request("file", "octet", &[]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new(server)).collect();
    for some in clients.chunks_mut(50) {
        // As clients do: who hears nothing asks again.
        for client in some.iter_mut() {
            client.ask(&asks);
        }
        for client in some {
            let first = (0..20).find_map(|_| {
                let heard = client.hear_within(Duration::from_secs(2));
                if heard.is_none() {
                    client.ask(&asks);
                }
                heard
            });
            assert_eq!(first, Some(Packet::Data(1, file[..512].to_vec())));
        }
    }
    assert_eventually!(
        counted(&bulkhead, "transfers_running") == CLIENTS,
        "{}",
        counted(&bulkhead, "transfers_running")
    );
    for client in &mut clients {
        client.acknowledge(1);
        assert!(client.block(2) == file[512..1024]);
        client.acknowledge(2);
        assert!(client.block(3) == file[1024..]);
        client.acknowledge(3);
    }
    ends_with_failures(&bulkhead, 0);
    assert_eq!(counted(&bulkhead, "transfers_done_total"), CLIENTS);
}

/// The server, with so many transfers at once.
fn with_places(transfers: usize, settings: &str) -> (Bulkhead, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let configuration = Configuration::empty();
    let boot = configuration.boot().display().to_string();
    let settings =
        format!("enabled = true\ntftproot = {boot:?}\nlisten = [\"udp {listen}\"]\n{settings}");
    let policy = format!(
        "[listen.tftp]\nsockets = {{ setting = \"listen\" }}\ntransfers = {transfers}\n\
         [files.root]\ndirectory = {{ setting = \"tftproot\" }}\naccess = \"read\""
    );
    let configuration = configuration
        .feature("tftp-server", &settings)
        .policy("tftp-server", &policy);
    (Bulkhead::with(configuration), listen)
}

/// `transfers` of the policy: who comes beyond it is answered when it asks again and there is room, also when those before it vanished.
#[test]
fn a_client_that_vanished_makes_room_for_the_next() {
    let (bulkhead, listen) = with_places(2, "retries = 1");
    put(&bulkhead, "file", &content(600));
    let asks = request("file", "octet", &[]);
    let mut vanishing = [Client::new(listen), Client::new(listen)];
    for client in &mut vanishing {
        client.ask(&asks);
        client.block(1);
    }
    let mut third = Client::new(listen);
    third.ask(&asks);
    assert_eq!(third.hear_within(SILENCE), None);
    ends_with_failures(&bulkhead, 2);
    third.ask(&asks);
    third.block(1);
    third.acknowledge(1);
    third.block(2);
    third.acknowledge(2);
    ends_with_failures(&bulkhead, 2);
}

/// A client names the time-out itself (RFC 2349), up to 255 s. Who asks for that and says nothing more keeps nobody out.
#[test]
fn clients_that_say_nothing_keep_nobody_out() {
    let (bulkhead, listen) = with_places(2, "");
    let file = content(600);
    put(&bulkhead, "file", &file);
    let mut silent = [Client::new(listen), Client::new(listen)];
    for client in &mut silent {
        client.ask(&request("file", "octet", &[("timeout", "255")]));
        assert!(matches!(client.hear(), Packet::Options(_)));
    }
    let mut third = Client::new(listen);
    let asks = request("file", "octet", &[]);
    let first = || {
        third.ask(&asks);
        third.hear_within(SILENCE)
    };
    let heard = until_within(Duration::from_secs(10), first);
    assert!(matches!(heard, Some(Packet::Data(1, _))), "{heard:?}");
    third.acknowledge(1);
    third.block(2);
    third.acknowledge(2);
    // One of the two gave way; the other place was not needed.
    assert_eventually!(counted(&bulkhead, "transfers_done_total") == 1);
    assert_eq!(counted(&bulkhead, "transfers_failed_total"), 1);
    assert_eq!(counted(&bulkhead, "transfers_running"), 1);
}

/// Firmware asks from one port again and again: a transfer that it left without a word does not keep it from the next.
#[test]
fn a_client_that_begins_anew_from_the_same_port_is_answered() {
    let (bulkhead, server) = serving("timeout = 60");
    let file = content(1200);
    for name in ["size", "file"] {
        put(&bulkhead, name, &file);
    }
    let mut client = Client::new(server);
    // It only wanted to know the size, and says nothing more.
    client.ask(&request("file", "octet", &[("tsize", "0")]));
    assert!(matches!(client.hear(), Packet::Options(_)));
    // It gets the file, twice in a row by the very same request.
    let options = [("tsize", "0"), ("blksize", "1024")];
    for _ in 0..2 {
        let got = client.fetch("file", "octet", &options);
        assert!(got.as_ref() == Ok(&file));
        assert_eventually!(counted(&bulkhead, "transfers_running") == 1);
    }
}

/// RFC 1350, section 4: a packet from another port than the client's is answered with error 5, and disturbs nothing.
#[test]
fn a_stranger_at_the_port_of_a_transfer_is_told_so() {
    for address in ["127.0.0.1", "[::1]"] {
        let (bulkhead, server) = serving_at(address, "timeout = 5");
        let file = content(1300);
        put(&bulkhead, "file", &file);
        let mut client = Client::new(server);
        client.ask(&request("file", "octet", &[]));
        assert!(client.block(1) == file[..512]);
        let mut stranger = Client::new(client.transfer());
        stranger.ask(b"\0\x04\0\x01");
        assert_eq!(
            stranger.hear(),
            Packet::Error(5, "Unknown transfer ID".into()),
            "{address}"
        );
        assert_eq!(stranger.transfer(), client.transfer());
        // Its acknowledgement counted for nothing.
        assert_eq!(client.hear_within(SILENCE), None);
        client.acknowledge(1);
        assert!(client.block(2) == file[512..1024]);
        // An error is not answered, or two servers would never end; and it is not the client's.
        std::thread::sleep(Duration::from_millis(1100));
        stranger.ask(b"\0\x05\0\0enough\0");
        assert_eq!(stranger.hear_within(SILENCE), None);
        client.acknowledge(2);
        assert!(client.block(3) == file[1024..]);
        client.acknowledge(3);
        ends_with_failures(&bulkhead, 0);
        assert_eq!(counted(&bulkhead, "transferred_bytes_total"), 1300);
    }
}

/// A flood at the port of a transfer is answered once a second, and the file arrives all the same.
#[test]
fn a_flood_of_strangers_is_hardly_answered_and_delays_no_transfer() {
    let (bulkhead, server) = serving("");
    let file = content(400_000);
    put(&bulkhead, "file", &file);
    let mut client = Client::new(server);
    client.ask(&request("file", "octet", &[]));
    assert!(client.block(1) == file[..512]);
    let mut stranger = Client::new(client.transfer());
    let begun = Instant::now();
    for _ in 0..20_000 {
        stranger.ask(b"\0\x04\0\x01");
    }
    let mut got = file[..512].to_vec();
    for number in 2..=u16::try_from(file.len() / 512 + 1).unwrap() {
        client.acknowledge(number - 1);
        stranger.ask(b"\0\x04\xff\xff");
        got.extend(client.block(number));
    }
    client.acknowledge(782);
    assert!(got == file);
    let seconds = begun.elapsed().as_secs() + 1;
    let answers = std::iter::from_fn(|| stranger.hear_within(SILENCE)).count() as u64;
    assert!(
        (1..=seconds + 1).contains(&answers),
        "{answers} in {seconds} s"
    );
    ends_with_failures(&bulkhead, 0);
}

/// A tunnel or another link on the way that takes less than a block: what is sent is cut into fragments. And a client that has a link-local address only.
#[test]
fn blocks_larger_than_the_way_takes_arrive() {
    let (Some(site), Some(router), Some(far)) = (
        Namespace::new("site"),
        Namespace::new("router"),
        Namespace::new("far"),
    ) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.wire("eth0", "192.0.2.1/24", &router, "eth0", "192.0.2.254/24");
    router.wire("eth1", "198.51.100.254/24", &far, "eth0", "198.51.100.9/24");
    for (at, interface, address) in [
        (&site, "eth0", "2001:db8:1::1/64"),
        (&router, "eth0", "2001:db8:1::fe/64"),
        (&router, "eth1", "2001:db8:2::fe/64"),
        (&far, "eth0", "2001:db8:2::9/64"),
    ] {
        at.ip(&["addr", "add", address, "dev", interface, "nodad"]);
    }
    for (at, way) in [
        (&site, ["192.0.2.254", "2001:db8:1::fe"]),
        (&far, ["198.51.100.254", "2001:db8:2::fe"]),
    ] {
        for via in way {
            at.ip(&["route", "add", "default", "via", via]);
        }
    }
    let forward =
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    assert!(router.run("sh", &["-c", forward]).status.success());
    // The least that IPv6 has.
    router.ip(&["link", "set", "eth1", "mtu", "1280"]);
    far.ip(&["link", "set", "eth0", "mtu", "1280"]);
    site.enter();
    let configuration = Configuration::empty();
    let boot = configuration.boot().display().to_string();
    let settings = format!(
        "enabled = true\ntftproot = {boot:?}\nlisten = [\"udp 0.0.0.0:69\", \"udp [::]:69\"]"
    );
    let bulkhead = Bulkhead::with(configuration.feature("tftp-server", &settings));
    let file = content(20_000);
    put(&bulkhead, "file", &file);
    let fetch = |at: &Namespace, own: &str, server: &str| {
        let (own, server) = (own.parse().unwrap(), server.parse().unwrap());
        at.inside(|| Client::at(own, server).fetch("file", "octet", &[("blksize", "1428")]))
    };
    let got = fetch(&far, "198.51.100.9:0", "192.0.2.1:69");
    assert!(got.as_ref() == Ok(&file), "{}", bulkhead.log());
    let got = fetch(&far, "[2001:db8:2::9]:0", "[2001:db8:1::1]:69");
    assert!(got.as_ref() == Ok(&file), "{}", bulkhead.log());
    site.ip(&["addr", "add", "fe80::1/64", "dev", "eth0", "nodad"]);
    let index = |at: &Namespace| {
        let shown = at.run("cat", &["/sys/class/net/eth0/ifindex"]).stdout;
        String::from_utf8(shown).unwrap().trim().to_owned()
    };
    router.ip(&["addr", "add", "fe80::fe/64", "dev", "eth0", "nodad"]);
    let link = index(&router);
    let got = fetch(
        &router,
        &format!("[fe80::fe%{link}]:0"),
        &format!("[fe80::1%{link}]:69"),
    );
    assert!(got.as_ref() == Ok(&file), "{}", bulkhead.log());
    ends_with_failures(&bulkhead, 0);
}
