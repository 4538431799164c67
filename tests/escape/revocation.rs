//! A right that is taken away ends within a second, everywhere: in open connections, datagrams, files, downloads, streamed answers and pooled
//! connections. Neighbours notice nothing.
//!
//! The bound below is looser than the promise, because tests share the machine; what was measured is printed.

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkhead_testkit::load::Load;
use bulkhead_testkit::medium::Medium;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually};

use crate::stage::{SONG, quoted};

/// What the promise of one second is held to on a busy machine.
const BOUND: Duration = Duration::from_secs(3);

/// When something last happened.
type Last = Arc<Mutex<Option<Instant>>>;

fn now(last: &Last) {
    *last.lock().unwrap() = Some(Instant::now());
}

fn listen_tcp(last: &Last) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let last = last.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 256];
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                now(&last);
            }
        }
    });
    port
}

fn listen_udp(last: &Last) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let last = last.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while socket.recv_from(&mut buffer).is_ok() {
            now(&last);
        }
    });
    port
}

#[test]
fn a_right_that_is_taken_away_ends_within_a_second_and_disturbs_nobody() {
    let configuration = Configuration::standard();
    let scratch = configuration.scratch.clone();
    let data = scratch.directory("data");
    let (tcp_last, udp_last) = (Last::default(), Last::default());
    let (tcp, udp) = (listen_tcp(&tcp_last), listen_udp(&udp_last));
    let web = Medium::start();
    web.put("canary", SONG);
    let port = web.address.port();
    let grants = format!(
        "[files.data]\ndirectory = {data}\naccess = \"read-write\"\n\
         [downloads.media]\nurls = [\"http://127.0.0.1:{port}\"]\ninto = \"data\"\nsize = \"100GiB\"\n\
         [sockets.peer]\nallow = [\"tcp 127.0.0.1:{tcp}\"]\n\
         [sockets.peer-udp]\nallow = [\"udp 127.0.0.1:{udp}\"]\n\
         [http.api]\nurl = \"http://127.0.0.1:{port}/\"\ntimeout = \"60s\"\n\
         [limits]\ntime = \"60s\"\ncpu = \"30s\"\n",
        data = quoted(&data),
    );
    let bulkhead =
        Bulkhead::with(configuration.plugin("prober", bulkhead_fixtures::wasm("prober"), &grants));
    let target = bulkhead.foreman();
    let stay = |path: String| {
        let target = target.clone();
        std::thread::spawn(move || (target.get(&path).text(), Instant::now()))
    };
    let kept = [
        (
            "tcp",
            stay(format!("/prober/stay?what=tcp&address=127.0.0.1:{tcp}")),
        ),
        (
            "udp",
            stay(format!("/prober/stay?what=udp&address=127.0.0.1:{udp}")),
        ),
        (
            "file",
            stay("/prober/stay?what=file&path=/data/stays".to_owned()),
        ),
    ];
    // A body that is passed through without end, and a download that never is whole.
    let streamed_last = Last::default();
    let streamed = std::thread::spawn({
        let (target, last) = (target.clone(), streamed_last.clone());
        move || {
            let request = target.request(
                "GET",
                "/prober/forward?slot=api&method=GET&target=/endless/x",
            );
            let mut connection = target.send(request.bytes()).unwrap();
            connection.patience(Duration::from_secs(30));
            now(&last);
            let ended = connection.closes_within(Duration::from_secs(30));
            now(&last);
            ended
        }
    });
    let url = web.url("endless/y");
    let started = target.get(&format!("/prober/download?slot=media&url={url}&path=never"));
    assert!(started.text().starts_with("ok"), "{started}");
    assert!(
        target
            .get("/prober/http?slot=api&method=GET&target=/file/canary")
            .text()
            .contains(SONG)
    );
    let neighbour = Arc::new(AtomicBool::new(false));
    let load = std::thread::spawn({
        let (target, stop) = (bulkhead.foreman(), neighbour.clone());
        move || {
            let request = target.request("GET", "/tftp/serverName").bytes();
            Load::calm(Duration::from_secs(120)).run(&target, &request, &stop)
        }
    });
    let parts = || {
        fs::read_dir(&data)
            .unwrap()
            .flatten()
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(".bulkhead-part")
            })
            .count()
    };
    assert_eventually!(
        parts() == 1
            && data.join("stays").exists()
            && tcp_last.lock().unwrap().is_some()
            && udp_last.lock().unwrap().is_some()
            && streamed_last.lock().unwrap().is_some(),
        "not everything is under way:\n{}",
        bulkhead.log()
    );
    // Well after the start, where the host looks at everything anyway.
    std::thread::sleep(Duration::from_secs(1));
    let policy = scratch.join("policies/prober.toml");
    let approved = fs::read_to_string(&policy).unwrap();
    let approved: String = approved.lines().take(2).collect::<Vec<_>>().join("\n");
    let new = scratch.file(
        "new-policy",
        format!("{approved}\n[limits]\ntime = \"60s\"\ncpu = \"30s\"\n"),
    );
    let revoked = Instant::now();
    fs::rename(new, &policy).unwrap();

    for (what, stays) in kept {
        let (answer, ended) = stays.join().unwrap();
        let after = ended.duration_since(revoked);
        println!("{what}: ended {after:?} after the policy changed: {answer}");
        assert!(
            answer.starts_with("ok") && answer.contains("then"),
            "{what}: {answer}"
        );
        assert!(after < BOUND, "{what} went on for {after:?}");
    }
    assert!(streamed.join().unwrap(), "the streamed body was not ended");
    for (what, last) in [
        ("tcp", &tcp_last),
        ("udp", &udp_last),
        ("stream", &streamed_last),
    ] {
        let last = last.lock().unwrap().unwrap();
        let after = last.saturating_duration_since(revoked);
        println!("{what}: the other side heard of it last after {after:?}");
        assert!(after < BOUND, "{what} was heard {after:?} later");
    }
    assert_eventually!(parts() == 0, "the download goes on");
    let gone = revoked.elapsed();
    println!("download: its part was gone at the latest after {gone:?}");
    // A pooled connection of before is no way either, and files are closed.
    for attempt in [
        "/prober/http?slot=api&method=GET&target=/file/canary",
        "/prober/read?path=/data/stays",
        "/prober/list?path=/data",
    ] {
        let answer = target.get(attempt);
        assert!(answer.text().starts_with("refused"), "{attempt}: {answer}");
    }
    neighbour.store(true, Ordering::Relaxed);
    let measured = load.join().unwrap();
    assert!(
        measured.failures.is_empty(),
        "{:?}",
        measured.failures.first()
    );
    assert!(measured.latencies.len() > 10);
}
