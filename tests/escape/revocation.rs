//! A right that is taken away ends within a second, everywhere: in open connections, datagrams, files, watched files, downloads, streamed answers, pooled
//! connections, listening sockets and the transfers of services. Neighbours notice nothing.
//!
//! The second is counted from the moment the policy was written, to the program's own time of the first refusal or to the last that anybody heard. What the
//! machine itself stood still meanwhile (tests share it) is measured and not counted.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bulkhead_testkit::load::Load;
use bulkhead_testkit::medium::Medium;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, ports};

use crate::masks::masked;
use crate::stage::{SONG, quoted};

/// The promise.
const BOUND: Duration = Duration::from_secs(1);

/// How long this machine stood still, bit by bit: a thread that only wants to wake up every few milliseconds.
#[derive(Clone, Default)]
struct Stalls(Arc<Mutex<Vec<(Instant, Duration)>>>);

impl Stalls {
    const STEP: Duration = Duration::from_millis(5);

    fn watch() -> Self {
        let this = Self::default();
        let weak = Arc::downgrade(&this.0);
        std::thread::spawn(move || {
            while let Some(stalls) = weak.upgrade() {
                let start = Instant::now();
                std::thread::sleep(Self::STEP);
                let late = start.elapsed().saturating_sub(Self::STEP * 2);
                if !late.is_zero() {
                    stalls.lock().unwrap().push((start, late));
                }
            }
        });
        this
    }

    /// How long it stood still between then and now.
    fn since(&self, then: Instant) -> Duration {
        let stalls = self.0.lock().unwrap();
        stalls
            .iter()
            .filter(|(at, _)| *at >= then)
            .map(|(_, late)| *late)
            .sum()
    }
}

/// When the policies were written.
struct Revoked {
    at: Instant,
    by_clock: SystemTime,
    stalls: Stalls,
}

impl Revoked {
    /// Fails if something went on for longer than promised.
    #[track_caller]
    fn ended(&self, what: &str, after: Duration) {
        let stood_still = self.stalls.since(self.at);
        println!(
            "{what}: ended {after:?} after the policy was written; the machine stood still for {stood_still:?}"
        );
        assert!(
            after < BOUND + stood_still,
            "{what} went on for {after:?} (still: {stood_still:?})"
        );
    }

    #[track_caller]
    fn last_heard(&self, what: &str, last: &Last) {
        let last = last.lock().unwrap().expect("it was heard");
        self.ended(what, last.saturating_duration_since(self.at));
    }
}

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

/// A web server that keeps its connection open, and notes when the other side closes it.
fn keep_alive(closed: &Last) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let closed = closed.clone();
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else {
            return;
        };
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        now(&closed);
    });
    port
}

/// A TFTP client that takes its time: it would take minutes for its file.
fn fetch_slowly(server: u16, heard: &Last) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket
        .send_to(b"\0\x01large\0octet\0", ("127.0.0.1", server))
        .unwrap();
    let heard = heard.clone();
    std::thread::spawn(move || {
        let mut packet = [0; 600];
        while let Ok((length, peer)) = socket.recv_from(&mut packet) {
            // DATA; anything else ends it.
            if length < 4 || packet[1] != 3 {
                return;
            }
            now(&heard);
            std::thread::sleep(Duration::from_millis(5));
            let _ = socket.send_to(&[0, 4, packet[2], packet[3]], peer);
        }
    });
}

/// Asks a service again and again, and notes each answer.
fn ask_again_and_again(server: u16, heard: &Last, stop: &Arc<AtomicBool>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let (heard, stop) = (heard.clone(), stop.clone());
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let _ = socket.send_to(b"ping", ("127.0.0.1", server));
            if socket.recv(&mut [0; 64]).is_ok() {
                now(&heard);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn a_right_that_is_taken_away_ends_within_a_second_and_disturbs_nobody() {
    let configuration = Configuration::standard();
    let scratch = configuration.scratch.clone();
    let data = scratch.directory("data");
    let (tcp_last, udp_last) = (Last::default(), Last::default());
    let (pool_closed, file_heard, echo_heard) = (Last::default(), Last::default(), Last::default());
    let pool = keep_alive(&pool_closed);
    let (tftp, echo) = (ports::free(), ports::free());
    let news = scratch.file("news", "old");
    scratch.file("boot/large", vec![b'x'; 8 << 20]);
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
         [http.other]\nurl = \"http://127.0.0.1:{pool}/\"\n\
         [watch.listed]\nfiles = [{news}]\n\
         [limits]\ntime = \"60s\"\ncpu = \"30s\"\n",
        data = quoted(&data),
        news = quoted(&news),
    );
    let served = format!("[listen.tftp]\nsockets = [\"udp 127.0.0.1:{tftp}\"]\n");
    let files = "[files.root]\ndirectory = { setting = \"tftproot\" }\n";
    let boot = quoted(&configuration.boot());
    let configuration = configuration
        .plugin("prober", bulkhead_fixtures::wasm("prober"), &grants)
        .plugin(
            "echo-reactor",
            bulkhead_fixtures::wasm("echo-reactor"),
            &format!("[listen.echo]\nsockets = [\"udp 127.0.0.1:{echo}\"]"),
        )
        .feature("tftp-server", &format!("enabled = true\ntftproot = {boot}"))
        .policy("tftp-server", &format!("{served}{files}"));
    let bulkhead = Bulkhead::with(configuration);
    let target = bulkhead.foreman();
    let stay = |path: String| {
        let target = target.clone();
        std::thread::spawn(move || target.get(&path).text())
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
        (
            "watched file",
            stay(format!(
                "/prober/stay?what=watch&slot=listed&path={}",
                news.display()
            )),
        ),
    ];
    let over = Arc::new(AtomicBool::new(false));
    fetch_slowly(tftp, &file_heard);
    ask_again_and_again(echo, &echo_heard, &over);
    let kept_open = target.get("/prober/http?slot=other&method=GET&target=/");
    assert!(kept_open.text().starts_with("ok 200"), "{kept_open}");
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
            && streamed_last.lock().unwrap().is_some()
            && file_heard.lock().unwrap().is_some()
            && echo_heard.lock().unwrap().is_some(),
        "not everything is under way:\n{}",
        bulkhead.log()
    );
    // Well after the start, where the host looks at everything anyway.
    std::thread::sleep(Duration::from_secs(1));
    let approved = |plugin: &str| {
        let policy = fs::read_to_string(scratch.join(format!("policies/{plugin}.toml"))).unwrap();
        policy.lines().take(2).collect::<Vec<_>>().join("\n")
    };
    let put = |plugin: &str, text: String| {
        let new = scratch.file(&format!("new-{plugin}"), text);
        (new, scratch.join(format!("policies/{plugin}.toml")))
    };
    let prober = approved("prober");
    let fewer = [
        put(
            "prober",
            format!("{prober}\n[limits]\ntime = \"60s\"\ncpu = \"30s\"\n"),
        ),
        put("echo-reactor", approved("echo-reactor")),
        put("tftp-server", format!("plugin = \"tftp-server\"\n{served}")),
    ];
    let stalls = Stalls::watch();
    let revoked = Revoked {
        at: Instant::now(),
        by_clock: SystemTime::now(),
        stalls,
    };
    for (new, policy) in fewer {
        fs::rename(new, policy).unwrap();
    }

    for (what, stays) in kept {
        let answer = stays.join().unwrap();
        let at = answer
            .split_once("then at ")
            .and_then(|(_, rest)| rest.split(':').next()?.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{what}: {answer}"));
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at);
        revoked.ended(
            what,
            at.duration_since(revoked.by_clock).unwrap_or_default(),
        );
    }
    assert!(streamed.join().unwrap(), "the streamed body was not ended");
    assert_eventually!(
        pool_closed.lock().unwrap().is_some(),
        "the kept connection stays open:\n{}",
        bulkhead.log()
    );
    for (what, last) in [
        ("tcp, as the other side heard it", &tcp_last),
        ("udp, as the other side heard it", &udp_last),
        ("stream", &streamed_last),
        ("pooled connection", &pool_closed),
        ("transfer of a file", &file_heard),
        ("service", &echo_heard),
    ] {
        revoked.last_heard(what, last);
    }
    // Nothing comes late either.
    std::thread::sleep(Duration::from_millis(500));
    revoked.last_heard("transfer of a file, later", &file_heard);
    revoked.last_heard("service, later", &echo_heard);
    over.store(true, Ordering::Relaxed);
    assert_eventually!(parts() == 0, "the download goes on");
    println!(
        "download: its part was gone at the latest after {:?}",
        revoked.at.elapsed()
    );
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

/// A plugin that is being loaded meanwhile keeps no socket open: whoever waits for the port has it within a second.
#[test]
fn a_socket_closes_within_a_second_also_while_others_are_loaded() {
    let port = ports::free();
    let grants =
        format!("[listen.echo]\nsockets = [\"udp 127.0.0.1:{port}\", \"tcp 127.0.0.1:{port}\"]");
    let bulkhead = Bulkhead::with(Configuration::empty().plugin(
        "echo-reactor",
        bulkhead_fixtures::wasm("echo-reactor"),
        &grants,
    ));
    let scratch = bulkhead.configuration.scratch.clone();
    let mut open = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    open.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    open.write_all(b"\x00\x02hi").unwrap();
    open.read_exact(&mut [0; 4]).unwrap();
    // Each of these takes the loader a second of processor time, one after the other.
    const SLOW: usize = 6;
    for number in 0..SLOW {
        let text = format!("name=spins{number};mount=/spins{number};describe=spins;");
        scratch.file(&format!("plugins/spins{number}.wasm"), masked(&text));
    }
    let told = || bulkhead.log_lines("`describe` failed").len();
    assert_eventually!(told() > 0, "{}", bulkhead.log());
    let policy = scratch.join("policies/echo-reactor.toml");
    let text = fs::read_to_string(&policy).unwrap();
    let approved: Vec<&str> = text.lines().take(2).collect();
    let new = scratch.file("new-policy", approved.join("\n"));
    let stalls = Stalls::watch();
    let revoked = Revoked {
        at: Instant::now(),
        by_clock: SystemTime::now(),
        stalls,
    };
    fs::rename(new, &policy).unwrap();
    assert_eventually!(
        UdpSocket::bind(("127.0.0.1", port)).is_ok(),
        "the socket stays open:\n{}",
        bulkhead.log()
    );
    revoked.ended("socket", revoked.at.elapsed());
    assert!(
        matches!(open.read(&mut [0; 4]), Ok(0) | Err(_)),
        "the connection stays open"
    );
    revoked.ended("connection", revoked.at.elapsed());
    assert!(
        told() < SLOW,
        "nothing was being loaded any more, so nothing is proven"
    );
}
