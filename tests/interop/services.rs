//! Network services: the host holds the sockets, a component answers what arrives.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, ports, skip};

const PATIENCE: Duration = Duration::from_secs(10);

fn echo(sockets: &str) -> Configuration {
    Configuration::empty().plugin(
        "echo-reactor",
        bulkhead_fixtures::wasm("echo-reactor"),
        &format!("[listen.echo]\nsockets = [{sockets}]"),
    )
}

fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// Every datagram is answered, none answered twice, and one that costs the instance costs no more than that.
#[test]
fn datagrams_are_answered_and_a_crash_costs_one_batch() {
    let port = ports::free();
    let bulkhead = Bulkhead::with(echo(&format!("\"udp 127.0.0.1:{port}\"")));
    let socket = client(port);
    socket.send(b"ping").unwrap();
    assert_eq!(receive(&socket).unwrap(), b"ping", "{}", bulkhead.log());
    socket.send(b"twice").unwrap();
    assert_eq!(receive(&socket).unwrap(), b"twice");
    assert_eq!(receive(&socket).unwrap(), b"twice");
    let large = vec![7; 60_000];
    socket.send(&large).unwrap();
    assert_eq!(receive(&socket).unwrap(), large);
    for round in 0..3 {
        socket.send(b"trap").unwrap();
        assert_eventually!(
            bulkhead.log_lines("the service's call failed").len() > round,
            "{}",
            bulkhead.log()
        );
        socket.send(b"again").unwrap();
        assert_eq!(receive(&socket).unwrap(), b"again", "{}", bulkhead.log());
    }
    let metrics = || bulkhead.admin().get("/metrics").text();
    assert_eventually!(
        metrics().contains("bulkhead_service_crashes_total{plugin=\"echo-reactor\"} 3"),
        "{}",
        metrics()
    );
}

/// How much of this a metric counts for the plugin.
fn counted(bulkhead: &Bulkhead, metric: &str) -> usize {
    bulkhead.counted(metric, "echo-reactor")
}

/// Occupies the reactor, and has so many datagrams wait behind that.
fn queue_up(bulkhead: &Bulkhead, socket: &UdpSocket, many: usize) {
    socket.send(b"slow").unwrap();
    assert_eventually!(counted(bulkhead, "datagrams_received") == 1);
    for number in 0..many {
        socket.send(number.to_string().as_bytes()).unwrap();
        if number % 50 == 0 {
            // The kernel's buffer is not what is looked at here.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What was accepted before the program is told to stop is answered before it ends, over UDP and on connections.
#[test]
fn what_waits_is_answered_before_the_program_ends() {
    let port = ports::free();
    let bulkhead = Bulkhead::with(echo(&format!(
        "\"udp 127.0.0.1:{port}\", \"tcp 127.0.0.1:{port}\""
    )));
    let socket = client(port);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // So many answers fit the client's buffer at once.
    queue_up(&bulkhead, &socket, 200);
    stream.write_all(b"\0\x05hello").unwrap();
    assert_eventually!(counted(&bulkhead, "datagrams_received") == 202);
    let reading = std::thread::spawn(move || {
        let answers = (0..201).map(|_| receive(&socket).unwrap());
        answers.collect::<Vec<_>>()
    });
    bulkhead.signal(bulkhead_testkit::program::Signal::Terminate);
    let answers = reading.join().unwrap();
    assert_eq!(answers[0], b"slow");
    for (number, answer) in answers[1..].iter().enumerate() {
        assert_eq!(*answer, number.to_string().as_bytes());
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"\0\x05hello");
    let ended = bulkhead.wait_for_end(PATIENCE);
    assert!(ended.is_some_and(|it| it.success()), "{}", bulkhead.log());
}

/// When more waits than can, the oldest make room for the newest, and are counted.
#[test]
fn the_oldest_datagrams_make_room() {
    const ROOM: usize = 8192;
    let port = ports::free();
    let bulkhead = Bulkhead::with(echo(&format!("\"udp 127.0.0.1:{port}\"")));
    let socket = client(port);
    let reading = std::thread::spawn({
        let socket = socket.try_clone().unwrap();
        move || {
            let mut answers = Vec::new();
            while answers.last().is_none_or(|it| it != b"end") {
                answers.push(receive(&socket).unwrap());
            }
            answers
        }
    });
    queue_up(&bulkhead, &socket, 10_000);
    let counts =
        || ["datagrams_received", "datagrams_dropped"].map(|metric| counted(&bulkhead, metric));
    assert_eventually!(
        counts()[1] > 0 && counts()[0] - counts()[1] == ROOM + 1,
        "{:?}",
        counts()
    );
    // An answer may be lost at the client, which is not looked at here.
    assert_eventually!({
        socket.send(b"end").unwrap();
        reading.is_finished()
    });
    let answers = reading.join().unwrap();
    assert!(!answers.contains(&b"0".to_vec()) && answers.len() > ROOM / 10);
}

/// A connection to a service.
fn connected(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Messages of a TCP stream are framed by the host, several may be on the way, and answers go back on their connection.
#[test]
fn framed_messages_are_answered_on_their_connection() {
    let port = ports::free();
    let bulkhead = Bulkhead::with(echo(&format!("\"tcp 127.0.0.1:{port}\"")));
    let (mut one, mut other) = (connected(port), connected(port));
    one.write_all(b"\x00\x03abc\x00\x02de").unwrap();
    other.write_all(b"\x00\x01").unwrap();
    other.write_all(b"x").unwrap();
    let mut got = [0; 9];
    one.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"\x00\x03abc\x00\x02de", "{}", bulkhead.log());
    let mut got = [0; 3];
    other.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"\x00\x01x");
}

/// A client may ask much before it reads anything (RFC 7766 section 6.2.1.1): it is read slower, and loses no answer. Others do not wait for it.
#[test]
fn whoever_asks_much_at_once_gets_every_answer() {
    let port = ports::free();
    let bulkhead = Bulkhead::with(echo(&format!("\"tcp 127.0.0.1:{port}\"")));
    let framed = |number: u16, length: u16| {
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend(number.to_be_bytes());
        frame.resize(usize::from(length) + 2, b'.');
        frame
    };
    // Small ones, faster than a batch is answered; and more than the buffers on the way hold.
    for (many, length) in [(5_000, 20), (1_500, 16_000)] {
        let mut asking = connected(port);
        let mut reading = asking.try_clone().unwrap();
        let all: Vec<u8> = (0..many)
            .flat_map(|number| framed(number, length))
            .collect();
        // It closes its side when it has asked: the answers come nevertheless.
        let asker = std::thread::spawn(move || {
            asking.write_all(&all)?;
            asking.shutdown(Shutdown::Write)
        });
        std::thread::sleep(Duration::from_millis(500));
        let mut other = connected(port);
        other.write_all(&framed(7, 2)).unwrap();
        let mut got = [0; 4];
        other.read_exact(&mut got).unwrap();
        assert_eq!(got[..], framed(7, 2));
        let mut numbers = Vec::new();
        let mut answer = vec![0; usize::from(length) + 2];
        while numbers.len() < usize::from(many) {
            if let Err(error) = reading.read_exact(&mut answer) {
                panic!(
                    "after {} answers: {error}\n{}",
                    numbers.len(),
                    bulkhead.log()
                );
            }
            numbers.push(u16::from_be_bytes([answer[2], answer[3]]));
        }
        asker.join().unwrap().unwrap();
        assert_eq!(reading.read(&mut answer).unwrap(), 0, "and then the end");
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..many));
    }
    assert_eq!(counted(&bulkhead, "datagrams_dropped"), 0);
}

/// A crash loop is stopped, shown, and over after a while.
#[test]
fn a_service_that_crashes_again_and_again_rests_and_comes_back() {
    let port = ports::free();
    let bulkhead = Bulkhead::with(echo(&format!("\"udp 127.0.0.1:{port}\"")));
    let socket = client(port);
    for round in 0..5 {
        socket.send(b"trap").unwrap();
        assert_eventually!(
            bulkhead.log_lines("the service's call failed").len() > round,
            "{}",
            bulkhead.log()
        );
    }
    assert_eventually!(
        !bulkhead.log_lines("service in quarantine").is_empty(),
        "{}",
        bulkhead.log()
    );
    // Who asked at the beginning of the rest waits no longer at its end; who asks again, as clients do, is answered.
    socket.send(b"given up").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let answer = (0..30).find_map(|_| {
        socket.send(b"patient").unwrap();
        receive(&socket).ok()
    });
    assert_eq!(
        answer.as_deref(),
        Some(&b"patient"[..]),
        "{}",
        bulkhead.log()
    );
}

/// A port that somebody else has is a reason with advice, and no reason for the others not to run; when it is free the service has it.
#[test]
fn a_port_that_is_taken_is_told_and_taken_when_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let bulkhead = Bulkhead::with(echo(&format!("\"tcp 127.0.0.1:{port}\"")));
    let said = bulkhead.log_lines("the service does not listen").join("\n");
    assert!(
        said.contains(&format!("127.0.0.1:{port}")) && said.contains("another program has it"),
        "{}",
        bulkhead.log()
    );
    drop(taken);
    // Nobody has to say so.
    assert_eventually!(
        TcpStream::connect(("127.0.0.1", port)).is_ok(),
        "{}",
        bulkhead.log()
    );
}

/// A policy that names another port moves the service there; the old one is closed.
#[test]
fn a_policy_moves_the_sockets() {
    let (before, after) = (ports::free(), ports::free());
    let configuration = echo(&format!("\"udp 127.0.0.1:{before}\""));
    let bulkhead = Bulkhead::with(configuration.clone());
    let socket = client(before);
    socket.send(b"here").unwrap();
    assert_eq!(receive(&socket).unwrap(), b"here", "{}", bulkhead.log());
    configuration
        .plugin(
            "echo-reactor",
            bulkhead_fixtures::wasm("echo-reactor"),
            &format!("[listen.echo]\nsockets = [\"udp 127.0.0.1:{after}\"]"),
        )
        .write();
    let socket = client(after);
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert_eventually!(
        socket.send(b"there").is_ok() && receive(&socket).is_ok_and(|got| got == b"there"),
        "{}",
        bulkhead.log()
    );
    assert_eventually!(
        UdpSocket::bind(("127.0.0.1", before)).is_ok(),
        "the old port is still held"
    );
}

/// One interface: broadcasts of a client without an address come in with the interface they came by, answers go out as frames, which need no ARP, or
/// to all.
#[test]
fn a_link_hears_broadcasts_and_sends_frames() {
    let (Some(site), Some(far)) = (Namespace::new("site"), Namespace::new("far")) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.wire("eth0", "192.0.2.1/24", &far, "eth1", "192.0.2.50/24");
    // It answers no ARP, as a machine that has no address yet.
    let deaf = "echo 8 > /proc/sys/net/ipv4/conf/eth1/arp_ignore";
    assert!(far.run("sh", &["-c", deaf]).status.success());
    far.ip(&["route", "add", "default", "dev", "eth1"]);
    let shown = far.run("ip", &["-br", "link", "show", "eth1"]).stdout;
    let shown = String::from_utf8(shown).unwrap();
    let mac = shown.split_whitespace().nth(2).unwrap().to_owned();

    site.enter();
    let bulkhead = Bulkhead::with(Configuration::empty().plugin(
        "echo-reactor",
        bulkhead_fixtures::wasm("echo-reactor"),
        "[link.wire]\ninterfaces = [\"eth0\"]\nport = 6767",
    ));
    let client = far.inside(|| {
        let client = UdpSocket::bind("0.0.0.0:6868").unwrap();
        client.set_broadcast(true).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    });
    let ask = |text: &str| {
        client
            .send_to(text.as_bytes(), "255.255.255.255:6767")
            .unwrap()
    };
    ask(&format!("frame {mac}"));
    let mut buffer = [0; 100];
    let (length, from) = client
        .recv_from(&mut buffer)
        .unwrap_or_else(|error| panic!("{error}: {}", bulkhead.log()));
    assert_eq!(
        std::str::from_utf8(&buffer[..length]).unwrap(),
        "eth0 192.0.2.1/24"
    );
    assert_eq!(from, "192.0.2.1:6767".parse().unwrap());
    ask("broadcast");
    let length = client
        .recv(&mut buffer)
        .unwrap_or_else(|error| panic!("{error}: {}", bulkhead.log()));
    assert_eq!(&buffer[..length], b"broadcast");
}

/// An address that the interface gets is spoken from at once, and one that it loses is soon told no more.
#[test]
fn a_link_follows_the_addresses_of_its_interface() {
    let (Some(site), Some(far)) = (Namespace::new("site"), Namespace::new("far")) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.wire("eth0", "192.0.2.1/24", &far, "eth1", "192.0.2.50/24");
    let shown = far.run("ip", &["-br", "link", "show", "eth1"]).stdout;
    let shown = String::from_utf8(shown).unwrap();
    let mac = shown.split_whitespace().nth(2).unwrap().to_owned();
    site.enter();
    let bulkhead = Bulkhead::with(Configuration::empty().plugin(
        "echo-reactor",
        bulkhead_fixtures::wasm("echo-reactor"),
        "[link.wire]\ninterfaces = [\"eth0\"]\nport = 6767",
    ));
    let client = far.inside(|| UdpSocket::bind("192.0.2.50:6868").unwrap());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = |address: &str| {
        let question = format!("frame {mac}");
        client.send_to(question.as_bytes(), address).unwrap();
        let mut buffer = [0; 100];
        let (length, from) = client
            .recv_from(&mut buffer)
            .unwrap_or_else(|error| panic!("{error}: {}", bulkhead.log()));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        (text, from.to_string())
    };
    let first = ("eth0 192.0.2.1/24".to_owned(), "192.0.2.1:6767".to_owned());
    assert_eq!(asked("192.0.2.1:6767"), first);
    // The one known from just now has no such address.
    site.ip(&["addr", "add", "198.51.100.9/24", "dev", "eth0"]);
    far.ip(&["addr", "add", "198.51.100.50/24", "dev", "eth1"]);
    far.ip(&["route", "add", "198.51.100.9/32", "dev", "eth1"]);
    assert_eq!(asked("198.51.100.9:6767").1, "198.51.100.9:6767");
    site.ip(&["addr", "del", "192.0.2.1/24", "dev", "eth0"]);
    site.ip(&["route", "add", "192.0.2.0/24", "dev", "eth0"]);
    assert_eventually!(
        asked("198.51.100.9:6767").0 == "eth0 198.51.100.9/24",
        "{}",
        bulkhead.log()
    );
}

/// A kept instance hears of a changed file, and of the time it asked for.
#[test]
fn a_service_is_woken_by_files_and_timers() {
    let place = tempfile::tempdir().unwrap();
    let news = place.path().join("news");
    let port = ports::free();
    let grants = format!(
        "[listen.echo]\nsockets = [\"udp 127.0.0.1:{port}\"]\n[watch.news]\nfiles = [\"{}\"]",
        news.display()
    );
    let bulkhead = Bulkhead::with(Configuration::empty().plugin(
        "echo-reactor",
        bulkhead_fixtures::wasm("echo-reactor"),
        &grants,
    ));
    let socket = client(port);
    let woken = || {
        socket.send(b"woken").unwrap();
        String::from_utf8(receive(&socket).unwrap()).unwrap()
    };
    assert_eq!(woken(), "", "{}", bulkhead.log());
    std::fs::write(&news, "new").unwrap();
    assert_eventually!(
        woken() == "FileChanged(\"news\") Timer",
        "{}: {}",
        woken(),
        bulkhead.log()
    );
}
