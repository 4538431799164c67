//! Sockets and names: what is reached, what is not, and how soon a revoked connection ends.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::super::names::{Addresses, LookupError, LookupFuture};
use super::*;
use crate::grant::effective::{Inside, NamesGrant, SocketsGrant};
use crate::grant::matchers::host::HostPattern;
use crate::grant::matchers::socket::SocketRule;

fn reaching(rules: &[String], open: u32) -> Slot<SocketsGrant> {
    let allow = rules
        .iter()
        .map(|rule| SocketRule::parse(rule).unwrap())
        .collect();
    Slot::new(SocketsGrant {
        allow,
        open,
        inside: Inside {
            private: true,
            loopback: true,
        },
    })
}

fn reaches(rules: &[String], open: u32) -> Effective {
    rights(|rights| {
        drop(
            rights
                .sockets
                .insert("server".into(), reaching(rules, open)),
        )
    })
}

/// Answers each connection's bytes with the same bytes; tells when connections end.
async fn echo() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Instant>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ended, ends) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let ended = ended.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..read]).await.is_err() {
                        break;
                    }
                }
                let _ = ended.send(Instant::now());
            });
        }
    });
    (address, ends)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_reaches_what_is_granted_and_nothing_else() {
    let (granted, mut ends) = echo().await;
    let (other, mut other_ends) = echo().await;
    let access = access_by(reaches(&[format!("tcp {granted}")], 8), Arc::new(NoNames));
    let mut probe = Probe::start(&access).await;
    probe.ok(&format!("connect c {granted}")).await;
    probe.ok("send c ping").await;
    assert_eq!(probe.ok("receive c").await, "ping");
    probe.ok("close c").await;
    tokio::time::timeout(Duration::from_secs(5), ends.recv())
        .await
        .expect("the connection was not closed");

    assert!(
        probe
            .no(&format!("connect d {other}"))
            .await
            .contains("PermissionDenied")
    );
    probe.no("listen 127.0.0.1:0").await;
    probe.no("listen 0.0.0.0:0").await;
    probe.no(&format!("udp u {granted}")).await;
    assert!(other_ends.try_recv().is_err(), "it was reached");
    assert!(
        denied(&access, &format!("connect by TCP to {other}")),
        "{:?}",
        denials(&access)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_data_passes_both_ways() {
    let (server, _ends) = echo().await;
    let access = access_by(reaches(&[format!("tcp {server}")], 8), Arc::new(NoNames));
    let mut probe = Probe::start(&access).await;
    probe.ok(&format!("connect c {server}")).await;
    // More than the system's buffers hold would block both sides for ever: stay below them.
    probe.ok("send-much c 100000").await;
    let mut received = 0;
    while received < 100_000 {
        received += probe.ok("receive c").await.len();
    }
    assert_eq!(received, 100_000);
}

#[tokio::test]
async fn an_address_in_other_spelling_is_the_same_address() {
    let (server, mut ends) = echo().await;
    let rules = ["tcp 192.0.2.1:1-65535".to_owned()];
    let access = access_by(reaches(&rules, 8), Arc::new(NoNames));
    let mut probe = Probe::start(&access).await;
    let port = server.port();
    for spelling in [
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("[::ffff:7f00:1]:{port}"),
        format!("127.0.0.1:{port}"),
    ] {
        probe.no(&format!("connect c {spelling}")).await;
    }
    assert!(ends.try_recv().is_err());
    assert!(
        denied(&access, &format!("127.0.0.1:{port}")),
        "{:?}",
        denials(&access)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_connection_ends_at_once_on_both_sides() {
    let (server, mut ends) = echo().await;
    let (staying, mut staying_ends) = echo().await;
    let both = [format!("tcp {server}"), format!("tcp {staying}")];
    let access = access_by(reaches(&both, 8), Arc::new(NoNames));
    let mut probe = Probe::start(&access).await;
    probe.ok(&format!("connect c {server}")).await;
    probe.ok(&format!("connect s {staying}")).await;

    // Asleep in a read when the right goes.
    let replace = {
        let (access, staying) = (access.clone(), staying);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            access
                .guard()
                .replace(reaches(&[format!("tcp {staying}")], 8));
            Instant::now()
        })
    };
    let read = tokio::time::timeout(Duration::from_secs(5), probe.act("receive c"))
        .await
        .expect("the reader was not woken");
    assert!(read.starts_with("no "), "{read}");
    let revoked = replace.await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), ends.recv())
        .await
        .expect("the server was not told")
        .unwrap();
    assert!(ended.saturating_duration_since(revoked) < Duration::from_secs(1));
    probe.no("send c more").await;
    probe.no(&format!("connect c {server}")).await;

    probe.ok("send s ping").await;
    assert_eq!(
        probe.ok("receive s").await,
        "ping",
        "the other connection is not disturbed"
    );
    assert!(staying_ends.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_plugin_keeps_no_revoked_connection() {
    let (server, mut ends) = echo().await;
    let access = access_by(reaches(&[format!("tcp {server}")], 8), Arc::new(NoNames));
    let mut probe = Probe::start(&access).await;
    probe.ok(&format!("connect c {server}")).await;
    access.guard().replace(rights(|_| {}));
    tokio::time::timeout(Duration::from_secs(1), ends.recv())
        .await
        .expect("still open after a second");
    drop(probe);
}

#[tokio::test]
async fn udp_reaches_what_is_granted_and_hears_nobody_else() {
    let (granted, other) = (
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
    );
    let (to, elsewhere) = (granted.local_addr().unwrap(), other.local_addr().unwrap());
    let access = access_by(reaches(&[format!("udp {to}")], 8), Arc::new(NoNames));
    let mut probe = Probe::start(&access).await;
    probe.ok("udp u 0.0.0.0:0").await;
    probe.ok(&format!("datagram u {to} ping")).await;
    let mut buffer = [0; 100];
    let (read, from) = tokio::time::timeout(Duration::from_secs(5), granted.recv_from(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&buffer[..read], b"ping");

    probe.no(&format!("datagram u {elsewhere} ping")).await;
    assert!(
        denied(&access, &format!("send a UDP datagram to {elsewhere}")),
        "{:?}",
        denials(&access)
    );
    // A stranger's datagram comes first and is passed over.
    let back = SocketAddr::new([127, 0, 0, 1].into(), from.port());
    other.send_to(b"stranger", back).await.unwrap();
    granted.send_to(b"pong", back).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(5), probe.ok("heard u"))
        .await
        .unwrap();
    assert_eq!(heard, format!("{to} pong"));
    assert!(
        !denied(&access, "receive"),
        "a stranger's datagram is no attempt of the plugin"
    );

    access.guard().replace(rights(|_| {}));
    probe.no(&format!("datagram u {to} again")).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(200), granted.recv_from(&mut buffer))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_plugin_chooses_no_address_of_its_own() {
    let access = access_by(
        reaches(&["udp 127.0.0.1:9".into(), "tcp 127.0.0.1:9".into()], 8),
        Arc::new(NoNames),
    );
    let mut probe = Probe::start(&access).await;
    for address in ["127.0.0.1:0", "0.0.0.0:6969", "[::1]:0"] {
        probe.no(&format!("udp u {address}")).await;
        probe.no(&format!("listen {address}")).await;
    }
    probe.ok("udp u 0.0.0.0:0").await;
    let bare = access_with(|_| {});
    Probe::start(&bare).await.no("udp u 0.0.0.0:0").await;
}

#[tokio::test]
async fn open_sockets_are_bounded_and_given_back() {
    let (server, _ends) = echo().await;
    let rules = [format!("tcp {server}"), "udp 127.0.0.1:9".to_owned()];
    let access = access_by(reaches(&rules, 3), Arc::new(NoNames));
    let (mut one, mut two) = (Probe::start(&access).await, Probe::start(&access).await);
    one.ok(&format!("connect a {server}")).await;
    one.ok("udp b 0.0.0.0:0").await;
    two.ok(&format!("connect c {server}")).await;
    two.no(&format!("connect d {server}")).await;
    one.no("udp d 0.0.0.0:0").await;
    one.ok("close b").await;
    two.ok(&format!("connect d {server}")).await;
    one.no("udp b 0.0.0.0:0").await;
    drop(two);
    one.ok("udp b 0.0.0.0:0").await;
    one.ok(&format!("connect e {server}")).await;
}

/// Knows two names, and remembers what it was asked.
#[derive(Default)]
struct Names {
    asked: Mutex<Vec<String>>,
}

impl NameLookup for Names {
    fn lookup<'a>(&'a self, _plugin: &'a str, name: &'a str) -> LookupFuture<'a> {
        self.asked.lock().unwrap().push(name.to_owned());
        Box::pin(async move {
            // As a real lookup does, it takes a moment.
            tokio::time::sleep(Duration::from_millis(5)).await;
            match name {
                "ns.example" | "other.example" => {
                    let addresses: Vec<IpAddr> = vec![[127, 0, 0, 1].into()];
                    Ok(Addresses {
                        addresses,
                        time_to_live: Duration::from_secs(60),
                    })
                }
                _ => Err(LookupError::Unknown),
            }
        })
    }
}

#[tokio::test]
async fn a_name_is_resolved_only_when_granted() {
    let names = Arc::new(Names::default());
    let granted = rights(|rights| {
        let allow = vec![
            HostPattern::parse("ns.example").unwrap(),
            HostPattern::parse("gone.example").unwrap(),
        ];
        rights
            .names
            .insert("zones".into(), Slot::new(NamesGrant { allow }));
    });
    let access = access_by(granted, names.clone());
    let mut probe = Probe::start(&access).await;
    assert_eq!(probe.ok("resolve NS.example").await, "127.0.0.1");
    probe.no("resolve gone.example").await;
    probe.no("resolve stolen-data.evil.example").await;
    assert_eq!(probe.ok("resolve 192.0.2.7").await, "192.0.2.7");
    assert_eq!(
        *names.asked.lock().unwrap(),
        ["ns.example", "gone.example"],
        "nothing else left the host"
    );
    assert!(
        denied(&access, "resolve the name `stolen-data.evil.example`"),
        "{:?}",
        denials(&access)
    );
}

#[tokio::test]
async fn a_name_grants_the_addresses_it_was_resolved_to() {
    let (server, _ends) = echo().await;
    let rules = [format!("tcp ns.example:{}", server.port())];
    let access = access_by(reaches(&rules, 8), Arc::new(Names::default()));
    let mut probe = Probe::start(&access).await;
    probe.no(&format!("connect c {server}")).await;
    probe
        .ok(&format!("connect c ns.example:{}", server.port()))
        .await;
    probe.ok("send c ping").await;
    assert_eq!(probe.ok("receive c").await, "ping");
    probe
        .no(&format!("connect d other.example:{}", server.port()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_waits_for_a_revoked_connection_is_woken() {
    // A server that reads nothing, so that the writer fills every buffer and waits.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let held = tokio::spawn(async move { listener.accept().await });
    let access = access_by(reaches(&[format!("tcp {server}")], 8), Arc::new(NoNames));
    let mut probe = Probe::start(&access).await;
    probe.ok(&format!("connect c {server}")).await;
    let revoke = {
        let access = access.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            access.guard().replace(rights(|_| {}));
        })
    };
    let sent =
        tokio::time::timeout(Duration::from_secs(10), probe.act("send-much c 50000000")).await;
    assert!(sent.expect("the writer was not woken").starts_with("no "));
    revoke.await.unwrap();
    drop(held);
}
