//! Everything hosts can do wrong at once, on their listener and at a service's port, while Foreman works on its own.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bulkhead_testkit::crowd::{aside, connect, source, stand_back};
use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, ports};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::connections::raise_descriptor_limit;
use crate::control::assert_undisturbed;

/// Connections at once, over all misdeeds.
const CONNECTIONS: usize = 10_000;
/// From so many addresses: no single one is turned away for its number.
const ADDRESSES: usize = 100;
/// How long it goes on once it is under way.
const FLOOD: Duration = Duration::from_secs(10);
/// Between two connections of one misdoer.
const PAUSE: Duration = Duration::from_millis(500);

const ZONE: &str = "flood.example";

/// TFTP, HTTP boot, registration, templates, and DNS by the built-in server at that port.
fn everything(configuration: Configuration, foreman: &Foreman, dns: u16) -> Bulkhead {
    let templates = "enabled = true\ntemplate_url = \"http://proxy.example.com\"";
    let builtin = format!(
        "enabled = true\nlisten = [\"udp 127.0.0.1:{dns}\", \"tcp 127.0.0.1:{dns}\"]\nzones = [\"{ZONE}\"]"
    );
    Bulkhead::with(
        configuration
            .foreman(foreman)
            .feature("registration", "enabled = true")
            .feature("templates", templates)
            .feature("dns", "enabled = true")
            .feature("dns-builtin", &builtin),
    )
}

/// One way of being a bad client; returns when the connection is done for.
async fn misbehave(kind: usize, mut stream: TcpStream) -> std::io::Result<()> {
    let long = Duration::from_secs(20);
    match kind % 6 {
        // Asks for much and reads nothing.
        0 => {
            stream
                .write_all(b"GET /httpboot/large HTTP/1.1\r\nHost: x\r\n\r\n")
                .await?;
            tokio::time::sleep(long).await;
        }
        // Sends a body byte by byte.
        1 => {
            let head = "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            for _ in 0..20 {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        // Sends half a head and closes its half.
        2 => {
            stream.write_all(b"GET /register HT").await?;
            stream.shutdown().await?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await?;
        }
        // Is no HTTP.
        3 => {
            let noise: Vec<u8> = (0..4096_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect();
            stream.write_all(&noise).await?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await?;
        }
        // Says nothing.
        4 => {
            let mut rest = [0; 1];
            let _ = tokio::time::timeout(long, stream.read(&mut rest)).await;
        }
        // Asks, and leaves before the answer.
        _ => {
            stream
                .write_all(b"GET /unattended/provision?token=1 HTTP/1.1\r\nHost: x\r\n\r\n")
                .await?;
        }
    }
    Ok(())
}

/// Keeps that many misdoers busy until told to stop; counts the connections they made.
async fn flood(target: SocketAddr, stop: Arc<AtomicBool>, made: Arc<AtomicUsize>) {
    let mut misdoers = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        let (stop, made) = (stop.clone(), made.clone());
        misdoers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // Refused, reset, closed: it goes on.
                if let Ok(stream) = connect(source(number % ADDRESSES), target).await {
                    made.fetch_add(1, Ordering::Relaxed);
                    let _ = misbehave(number, stream).await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    misdoers.shutdown().await;
}

/// Slow readers and writers, half-closed connections, garbage and silence, ten thousand at a time: not one write of Foreman's to TFTP or DNS fails.
#[test]
fn a_flood_on_the_hosts_listener_fails_no_control_call() {
    raise_descriptor_limit();
    // All limits as they are by default.
    let configuration = Configuration::standard().listener_keys("limits = {}");
    let foreman = Foreman::answering(&configuration.authority, |_| {
        reply("200 OK", "text/plain", "x")
    });
    std::fs::write(configuration.boot().join("large"), vec![0; 32 << 20]).unwrap();
    let bulkhead = everything(configuration, &foreman, ports::free());
    let idle = bulkhead.usage();
    let (stop, made) = (
        Arc::new(AtomicBool::new(false)),
        Arc::<AtomicUsize>::default(),
    );
    let control = bulkhead.foreman_tls();
    let mut calls = 0;
    let mut most = 0;
    std::thread::scope(|scope| {
        let (stopped, counted) = (stop.clone(), made.clone());
        let target = bulkhead.hosts().address;
        let flooding = scope.spawn(move || aside(flood(target, stopped, counted)));
        let mut under_way = None;
        while under_way.is_none_or(|since: Instant| since.elapsed() < FLOOD) {
            if made.load(Ordering::Relaxed) >= CONNECTIONS {
                under_way.get_or_insert_with(Instant::now);
            }
            calls += 1;
            let (mac, name) = (
                format!("aa:bb:cc:00:{:02x}:{:02x}", calls / 256, calls % 256),
                format!("host{calls}.{ZONE}"),
            );
            let config = format!("default {calls}\n");
            let write = control.post(&format!("/tftp/PXELinux/{mac}"), &[("pxeconfig", &config)]);
            write.assert_status(200);
            let file = format!("pxelinux.cfg/01-{}", mac.replace(':', "-"));
            assert_eq!(
                std::fs::read_to_string(bulkhead.boot().join(file)).unwrap(),
                config
            );
            let record = [("fqdn", &*name), ("value", "192.0.2.7"), ("type", "A")];
            control.post("/dns/", &record).assert_status(200);
            if calls % 2 == 0 {
                control.delete(&format!("/dns/{name}/A")).assert_status(200);
            }
            most = most.max(bulkhead.usage().resident);
        }
        stop.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
    });
    let made = made.load(Ordering::Relaxed);
    println!("{calls} rounds of control calls, {made} connections, at most {most} bytes resident");
    assert!(made >= CONNECTIONS && calls > 50, "{calls} calls, {made}");
    assert_eventually!(
        bulkhead.usage().descriptors <= idle.descriptors + 16,
        "{} descriptors, idle {}",
        bulkhead.usage().descriptors,
        idle.descriptors
    );
    assert_eq!(bulkhead.hosts().get("/register").status, 200);
}

/// Packets at a service's port, as fast as two senders can: Foreman is not disturbed.
#[test]
fn a_flood_of_packets_does_not_disturb_foreman() {
    let configuration = Configuration::standard();
    let foreman = Foreman::answering(&configuration.authority, |_| {
        reply("200 OK", "text/plain", "x")
    });
    let dns = ports::free();
    let bulkhead = everything(configuration, &foreman, dns);
    let record = [
        ("fqdn", "a.flood.example"),
        ("value", "192.0.2.7"),
        ("type", "A"),
    ];
    bulkhead
        .foreman_tls()
        .post("/dns/", &record)
        .assert_status(200);
    let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x05flood\x07example\x00\x00\x01\x00\x01";
    let sent = AtomicUsize::new(0);
    assert_undisturbed(&bulkhead, || {
        let end = Instant::now() + Duration::from_secs(5);
        std::thread::scope(|scope| {
            for number in 0..2 {
                let sent = &sent;
                scope.spawn(move || {
                    stand_back();
                    let socket = UdpSocket::bind((source(number), 0)).unwrap();
                    socket.connect(("127.0.0.1", dns)).unwrap();
                    while Instant::now() < end {
                        for _ in 0..100 {
                            // A full buffer is no failure of the program.
                            if socket.send(question).is_ok() {
                                sent.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
    });
    let sent = sent.load(Ordering::Relaxed);
    println!("{sent} packets");
    assert!(sent > 50_000, "{sent} packets are no flood");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", dns)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    assert_eventually!({
        let mut answer = [0; 512];
        let _ = socket.send(question);
        socket.recv(&mut answer).is_ok()
    });
}
