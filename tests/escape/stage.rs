//! The stage of an attack: the real program with the attacker in it, and canaries that sing when they are reached.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bulkhead_testkit::exchange::form_encoded;
use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::medium::Medium;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually};

/// What every canary says. Nobody who may not reach one must ever see it.
pub(crate) const SONG: &str = "the canary sings";

/// The program, the attacker, the canaries.
pub(crate) struct Stage {
    /// The program with the prober in it.
    pub(crate) bulkhead: Bulkhead,
    /// The granted directory, `/data` inside.
    pub(crate) data: PathBuf,
    /// A directory beside it that no policy names.
    pub(crate) outside: PathBuf,
    /// A TCP server that answers with the song.
    pub(crate) tcp: u16,
    /// A UDP server that answers with the song.
    pub(crate) udp: u16,
    /// Connections and datagrams that reached either.
    pub(crate) reached: Arc<AtomicUsize>,
    /// A web server.
    pub(crate) web: Medium,
    /// Foreman.
    pub(crate) foreman: Foreman,
}

impl Stage {
    /// Sets the stage with every grant.
    pub(crate) fn granted() -> Self {
        Self::set(true)
    }

    /// Sets the same stage with an approved plugin that may do nothing.
    pub(crate) fn bare() -> Self {
        Self::set(false)
    }

    fn set(granted: bool) -> Self {
        let configuration = Configuration::standard();
        let scratch = &configuration.scratch;
        let data = scratch.directory("data");
        let outside = scratch.directory("outside");
        for place in [
            "data/canary",
            "readable/canary",
            "outside/canary",
            "boot/canary",
        ] {
            scratch.file(place, SONG);
        }
        let secret = scratch.file("secret", SONG);
        let reached = Arc::new(AtomicUsize::new(0));
        let (tcp, udp) = (sing_tcp(reached.clone()), sing_udp(reached.clone()));
        let web = Medium::start();
        web.put("canary", SONG);
        let foreman = Foreman::answering(&configuration.authority, |_| {
            reply("200 OK", "text/plain", SONG)
        });
        // Named by its host name: that is what Foreman's certificate says.
        let section = format!(
            "[foreman]\nurl = {:?}\nca = {ca}\ncertificate = {certificate}\nprivate_key = {key}",
            foreman.url(),
            ca = quoted(&scratch.join("tls/ca.pem")),
            certificate = quoted(&scratch.join("tls/client.pem")),
            key = quoted(&scratch.join("tls/client-key.pem")),
        );
        let proxy = configuration
            .authority
            .client(Some("proxy.example.com"), &["proxy.example.com"]);
        scratch.file("tls/client.pem", &proxy.chain_pem);
        scratch.file("tls/client-key.pem", &proxy.key_pem);
        let grants = format!(
            "[files.data]\ndirectory = {data}\naccess = \"read-write\"\nquota = {{ bytes = \"1MiB\", files = 20 }}\n\
             [files.readable]\ndirectory = {readable}\naccess = \"read\"\n\
             [downloads.media]\nurls = [\"http://127.0.0.1:{web}/file/*\", \"http://127.0.0.1:{web}/redirect/*\"]\ninto = \"data\"\nsize = \"1MiB\"\nprivate-addresses = true\n\
             [sockets.peer]\nallow = [\"tcp 127.0.0.1:{tcp}\"]\n\
             [sockets.peer-udp]\nallow = [\"udp 127.0.0.1:{udp}\"]\n\
             [names.zone]\nallow = [\"localhost\"]\n\
             [http.api]\nurl = \"http://127.0.0.1:{web}/\"\nmethods = [\"GET\"]\npaths = [\"/file/**\"]\n\
             [foreman.foreman]\nallow = [\"GET /api/**\"]\n\
             [store.keys]\nspace = \"own\"\naccess = \"read-write\"\nbytes = \"64KiB\"\nkeys = 10\n\
             [secrets.key]\nfile = {secret}\nformat = \"raw\"\naccess = \"reveal\"\n",
            data = quoted(&data),
            readable = quoted(&scratch.join("readable")),
            web = web.address.port(),
            secret = quoted(&secret),
        );
        let grants = if granted { grants.as_str() } else { "" };
        let configuration = configuration.section(&section).plugin(
            "prober",
            bulkhead_fixtures::wasm("prober"),
            grants,
        );
        let bulkhead = Bulkhead::with(configuration);
        Self {
            bulkhead,
            data,
            outside,
            tcp,
            udp,
            reached,
            web,
            foreman,
        }
    }

    /// Has the attacker try something; answers its own words, `ok ...` or `refused ...`.
    #[track_caller]
    pub(crate) fn try_to(&self, what: &str, fields: &[(&str, &str)]) -> String {
        let query: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", form_encoded(value)))
            .collect();
        let path = format!("/prober/{what}?{}", query.join("&"));
        let answer = self.bulkhead.foreman().get(&path);
        format!("{} {}", answer.status, answer.text())
    }

    /// Fails unless the audit holds a denial of this plugin that names this.
    #[track_caller]
    pub(crate) fn assert_denied(&self, what: &str) {
        let denied = || {
            let lines = self.bulkhead.log();
            lines.lines().any(|line| {
                line.contains("prober") && line.contains("may not") && line.contains(what)
            })
        };
        assert_eventually!(
            denied(),
            "no denial that names {what:?} in:\n{}",
            self.bulkhead.log()
        );
    }

    /// How often a socket canary was reached.
    pub(crate) fn reached(&self) -> usize {
        self.reached.load(Ordering::Relaxed)
    }
}

pub(crate) fn quoted(path: &std::path::Path) -> String {
    format!("{:?}", path.display().to_string())
}

fn sing_tcp(reached: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Ends with the test program.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            reached.fetch_add(1, Ordering::Relaxed);
            let mut buffer = [0; 64];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(SONG.as_bytes());
        }
    });
    port
}

fn sing_udp(reached: Arc<AtomicUsize>) -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            reached.fetch_add(1, Ordering::Relaxed);
            let _ = socket.send_to(SONG.as_bytes(), peer);
        }
    });
    port
}
