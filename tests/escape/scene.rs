//! The scene of the matrix: one running program with the attacker in it, policies that change under it, and canaries all around.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bulkhead_testkit::exchange::form_encoded;
use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::medium::Medium;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, scratch};

use crate::stage::{SONG, quoted};

/// What the attacker is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Whatever the attacks are after.
    Everything,
    /// The same slots, but something beside it.
    Beside,
    /// Nothing.
    Nothing,
    /// Everything, but little of it.
    Tight,
}

/// The running program and all that an attack may be after.
pub(crate) struct Scene {
    bulkhead: Bulkhead,
    /// Holds `inside` (granted beside), `outside`, and nothing else.
    tree: PathBuf,
    tight: PathBuf,
    one: PathBuf,
    ports: BTreeMap<&'static str, u16>,
    reached: Arc<AtomicUsize>,
    web: Medium,
    other: Medium,
    foreman: Foreman,
    digest: String,
    phase: Phase,
}

/// How often something was denied, by what was tried and why.
type Denials = BTreeMap<String, u64>;

impl Scene {
    /// Starts everything, in [`Phase::Nothing`].
    pub(crate) fn set() -> Self {
        let configuration = Configuration::standard();
        let scratch = configuration.scratch.clone();
        let reached = Arc::new(AtomicUsize::new(0));
        let mut ports = BTreeMap::new();
        for (name, address) in [
            ("tcp", "127.0.0.1:0"),
            ("tcp2", "127.0.0.2:0"),
            ("tcp6", "[::1]:0"),
        ] {
            ports.insert(name, sing_tcp(address, reached.clone()));
        }
        for (name, address, answers) in [
            ("udp", "127.0.0.1:0", true),
            ("udp6", "[::1]:0", true),
            ("mute", "127.0.0.1:0", false),
        ] {
            ports.insert(name, sing_udp(address, answers, reached.clone()));
        }
        let (web, other) = (Medium::start(), Medium::start());
        for medium in [&web, &other] {
            medium.put("canary", SONG);
        }
        web.put("canary?x=/granted/", SONG);
        web.put("large", vec![b'x'; 200_000]);
        web.redirect("out", &other.url("file/canary"));
        ports.insert("web", web.address.port());
        ports.insert("other", other.address.port());
        let foreman = Foreman::answering(&configuration.authority, |_| {
            reply("200 OK", "text/plain", SONG)
        });
        let section = format!(
            "[foreman]\nurl = {:?}\nca = {}\ncertificate = {}\nprivate_key = {}",
            foreman.url(),
            quoted(&scratch.join("tls/ca.pem")),
            quoted(&scratch.join("tls/client.pem")),
            quoted(&scratch.join("tls/client-key.pem")),
        );
        let proxy = configuration
            .authority
            .client(Some("proxy.example.com"), &["proxy.example.com"]);
        scratch.file("tls/client.pem", &proxy.chain_pem);
        scratch.file("tls/client-key.pem", &proxy.key_pem);
        scratch.file("secret", SONG);
        let configuration = configuration
            .section(&section)
            .feature(
                "dhcp-builtin",
                "enabled = true\nsubnets = [\"10.77.0.0/24\"]",
            )
            .plugin("dns-double", bulkhead_fixtures::wasm("dns-double"), "")
            .plugin("prober", bulkhead_fixtures::wasm("prober"), "");
        let policy = fs::read_to_string(scratch.join("policies/prober.toml")).unwrap();
        let scene = Self {
            tree: scratch.directory("tree"),
            tight: scratch.directory("tight"),
            one: scratch.directory("one"),
            digest: policy,
            bulkhead: Bulkhead::with(configuration),
            ports,
            reached,
            web,
            other,
            foreman,
            phase: Phase::Nothing,
        };
        scene.reset();
        scene
    }

    /// Rewrites the attacker's policy, and waits until it holds.
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.reset();
        let told = |bulkhead: &Bulkhead| {
            let lines = bulkhead.log();
            (
                lines.matches("it holds from now on").count(),
                lines.matches("Successfully initialized 'prober'").count(),
            )
        };
        let before = told(&self.bulkhead);
        let grants = self.grants(phase);
        // Renamed into place: half a policy is a policy with a mistake.
        let scratch = &self.bulkhead.configuration.scratch;
        let new = scratch.file("new-policy", format!("{}\n{grants}", self.digest));
        fs::rename(new, scratch.join("policies/prober.toml")).unwrap();
        self.phase = phase;
        assert_eventually!(
            {
                let now = told(&self.bulkhead);
                // Other limits need other instances.
                now.0 > before.0 && (phase != Phase::Tight || now.1 > before.1)
            },
            "the policy of {phase:?} is not taken over:\n{}",
            self.bulkhead.log()
        );
    }

    fn grants(&self, phase: Phase) -> String {
        let scratch = &self.bulkhead.configuration.scratch;
        let port = |name: &str| self.ports[name];
        let (tree, inside) = (quoted(&self.tree), quoted(&self.tree.join("inside")));
        let (tight, one) = (quoted(&self.tight), quoted(&self.one));
        let (web, other, secret) = (port("web"), port("other"), quoted(&scratch.join("secret")));
        let (quota, bytes, keys, open) = match phase {
            Phase::Tight => ("{ bytes = \"4KiB\", files = 16 }", "1KiB", 10, 2),
            _ => ("{ bytes = \"8MiB\", files = 1000 }", "8MiB", 1_000_000, 64),
        };
        let probes = if phase == Phase::Tight { 10 } else { 1000 };
        let web_limits = match phase {
            Phase::Tight => "response = \"10KiB\"\ntimeout = \"200ms\"\n",
            _ => "",
        };
        let download = match phase {
            Phase::Tight => "10KiB",
            _ => "1MiB",
        };
        let limits = match phase {
            Phase::Tight => {
                "[limits]\nmemory = \"16MiB\"\ncpu = \"300ms\"\ntime = \"1s\"\nreply-body = \"100KiB\"\nhandles = 100\nrandom = \"1KiB\"\ntransfer = \"200KiB\"\n"
            }
            _ => "",
        };
        match phase {
            Phase::Nothing => String::new(),
            Phase::Beside => format!(
                "[files.data]\ndirectory = {inside}\naccess = \"read-write\"\n\
                 [files.tight]\ndirectory = {tight}\naccess = \"read\"\n\
                 [files.one]\nfile = {own}\n\
                 [downloads.media]\nurls = [\"http://127.0.0.1:{web}/granted/*\", \"http://127.0.0.1:{web}/redirect/*\"]\ninto = \"data\"\n\
                 [sockets.peer]\nallow = [\"tcp 127.0.0.1:1\"]\n\
                 [sockets.peer-udp]\nallow = [\"udp 127.0.0.1:1\", \"udp [::1]:1\"]\n\
                 [names.zone]\nallow = [\"beside.example.com\"]\n\
                 [http.api]\nurl = \"http://127.0.0.1:{web}/\"\npaths = [\"/granted/**\"]\n\
                 [foreman.foreman]\nallow = [\"GET /api/**\"]\n\
                 [store.keys]\naccess = \"read\"\n\
                 [secrets.key]\nfile = {secret}\naccess = \"use\"\n\
                 [call.provider]\nplugin = \"dns-other\"\n\
                 [watch.news]\ndirectory = {inside}\n\
                 [watch.listed]\nfiles = [{listed}]\n\
                 [probe.net]\nallow = [\"192.0.2.0/24\"]\n",
                listed = quoted(&self.tree.join("inside/own")),
                own = quoted(&self.one.join("own")),
            ),
            Phase::Everything | Phase::Tight => format!(
                "[files.data]\ndirectory = {tree}\naccess = \"read-write\"\nquota = {quota}\n\
                 [files.tight]\ndirectory = {tight}\naccess = \"read-write\"\n\
                 [files.one]\ndirectory = {one}\n\
                 [downloads.media]\nurls = [\"http://127.0.0.1:{web}\", \"http://127.0.0.1:{other}\"]\ninto = \"data\"\nsize = \"{download}\"\n\
                 [sockets.peer]\nallow = [\"tcp 127.0.0.1:{tcp}\", \"tcp localhost:{tcp}\", \"tcp 127.0.0.2:{tcp2}\", \"tcp [::1]:{tcp6}\"]\nopen = {open}\n\
                 [sockets.peer-udp]\nallow = [\"udp 127.0.0.1:{udp}\", \"udp [::1]:{udp6}\", \"udp 127.0.0.1:{mute}\"]\nopen = {open}\n\
                 [names.zone]\nallow = [\"localhost\"]\n\
                 [http.api]\nurl = \"http://127.0.0.1:{web}/\"\nmethods = [\"GET\", \"POST\", \"PUT\", \"DELETE\"]\n{web_limits}\
                 [http.other]\nurl = \"http://127.0.0.1:{other}/\"\n\
                 [foreman.foreman]\nallow = [\"GET /**\", \"POST /**\", \"DELETE /**\"]\n\
                 [store.keys]\naccess = \"read-write\"\nbytes = \"{bytes}\"\nkeys = {keys}\n\
                 [store.shared]\nspace = \"shared:pool\"\naccess = \"read-write\"\n\
                 [secrets.key]\nfile = {secret}\naccess = \"reveal\"\n\
                 [secrets.mac]\nfile = {secret}\nalgorithm = \"hmac-sha256\"\nname = \"mac\"\n\
                 [call.provider]\nplugin = \"dns-double\"\n\
                 [call.leases]\nplugin = \"dhcp-builtin\"\n\
                 [watch.news]\ndirectory = {tree}\n\
                 [watch.listed]\nfiles = [{listed}]\n\
                 [probe.net]\nallow = [\"127.0.0.0/8\"]\nrate = {probes}\n{limits}",
                listed = quoted(&self.tree.join("outside/canary")),
                tcp = port("tcp"),
                tcp2 = port("tcp2"),
                tcp6 = port("tcp6"),
                udp = port("udp"),
                udp6 = port("udp6"),
                mute = port("mute"),
            ),
        }
    }

    /// Puts every canary back on its perch.
    pub(crate) fn reset(&self) {
        let (inside, outside) = (self.tree.join("inside"), self.tree.join("outside"));
        for directory in [&inside, &outside, &self.tight, &self.one] {
            let _ = fs::remove_dir_all(directory);
        }
        for file in fs::read_dir(&self.tree).unwrap().flatten() {
            let _ = fs::remove_file(file.path());
        }
        for directory in [
            &inside.join("deep"),
            &outside.join("empty"),
            &self.tight,
            &self.one,
        ] {
            fs::create_dir_all(directory).unwrap();
        }
        for canary in [
            outside.join("canary"),
            self.tight.join("canary"),
            self.one.join("canary"),
        ] {
            fs::write(canary, SONG).unwrap();
        }
        for own in [inside.join("own"), self.one.join("own")] {
            fs::write(own, "mine").unwrap();
        }
        for (target, link) in [
            ("../outside/canary", "link-out"),
            ("link-out", "link-to-link"),
            ("../outside", "directory-out"),
        ] {
            symlink(target, inside.join(link)).unwrap();
        }
        symlink(outside.join("canary"), inside.join("absolute-out")).unwrap();
    }

    /// Has the attacker try something; answers the status and its own words.
    pub(crate) fn attack(&self, what: &str, fields: &str) -> String {
        let query: Vec<String> = fields
            .split('&')
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| {
                let value = self.fill(value, self.phase);
                format!("{name}={}", form_encoded(&value))
            })
            .collect();
        let path = format!("/prober/{what}?{}", query.join("&"));
        let answer = self.bulkhead.foreman().get(&path);
        format!("{} {}", answer.status, answer.text())
    }

    /// Puts the scene's names into a text.
    pub(crate) fn fill(&self, text: &str, phase: Phase) -> String {
        let (base, inner) = match phase {
            Phase::Everything | Phase::Tight => ("/data/inside", "inside/"),
            Phase::Beside | Phase::Nothing => ("/data", ""),
        };
        let mut text = text
            .replace("{base}", base)
            .replace("{inner}", inner)
            .replace("{tree}", &self.tree.display().to_string())
            .replace("{phase}", &format!("{phase:?}"));
        for (name, port) in &self.ports {
            text = text.replace(&format!("{{{name}}}"), &port.to_string());
        }
        text
    }

    /// All that no attack may change: files, and how often what is not granted beside was reached.
    pub(crate) fn world(&self) -> (Vec<(String, Vec<u8>)>, usize) {
        let mut files = Vec::new();
        for place in [&self.tree.join("outside"), &self.tight, &self.one] {
            files.extend(scratch::files_below(place));
        }
        // Directories are no files, but they are entries.
        for place in [&self.tree.join("outside"), &self.tight] {
            let entries = fs::read_dir(place).unwrap().count();
            files.push((format!("{} entries", place.display()), vec![entries as u8]));
        }
        let elsewhere = self
            .web
            .requests()
            .iter()
            .filter(|it| !it.line().starts_with("GET /redirect/"))
            .count();
        let foreman = self
            .foreman
            .requests()
            .iter()
            .filter(|it| !it.line().starts_with("GET /api/"))
            .count();
        let reached = self.reached.load(Ordering::Relaxed);
        (
            files,
            elsewhere + foreman + reached + self.other.requests().len(),
        )
    }

    fn granted(&self, file: &str) -> PathBuf {
        match self.phase {
            Phase::Everything | Phase::Tight => self.tree.join(file),
            Phase::Beside | Phase::Nothing => self.tree.join("inside").join(file),
        }
    }

    /// Whether a file of the granted tree comes into being; waits for what runs in the background.
    pub(crate) fn comes(&self, file: &str) -> bool {
        let patience = match self.phase {
            Phase::Everything => Duration::from_secs(20),
            // A refused download is over in milliseconds; what came later would be found by the next look at the tree.
            _ => Duration::from_secs(2),
        };
        let start = Instant::now();
        while start.elapsed() < patience {
            if self.is_there(file) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Whether a file of the granted tree is there.
    pub(crate) fn is_there(&self, file: &str) -> bool {
        self.granted(file).exists()
    }

    /// All denials of the attacker so far.
    pub(crate) fn denials(&self) -> Denials {
        let found = self.control("/policy/denials?plugin=prober");
        let mut denials = Denials::new();
        for denial in found.as_array().into_iter().flatten() {
            let word = |key: &str| denial[key].as_str().unwrap_or_default().to_owned();
            let text = format!("{} ({}): {}", word("action"), word("rule"), word("reason"));
            *denials.entry(text).or_default() += denial["count"].as_u64().unwrap_or_default();
        }
        denials
    }

    /// Whether a denial that names this was counted since; waits a little for what is denied in the background.
    pub(crate) fn denied_since(&self, before: &Denials, what: &str) -> bool {
        let start = Instant::now();
        loop {
            if self
                .new_denials(before)
                .iter()
                .any(|text| text.contains(what))
            {
                return true;
            }
            if start.elapsed() > Duration::from_secs(3) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn new_denials(&self, before: &Denials) -> Vec<String> {
        self.denials()
            .into_iter()
            .filter(|(text, count)| before.get(text).is_none_or(|known| known < count))
            .map(|(text, _)| text)
            .collect()
    }

    /// Asks the running program by its control socket.
    fn control(&self, path: &str) -> serde_json::Value {
        let socket = self
            .bulkhead
            .configuration
            .scratch
            .join("state/control.sock");
        let mut stream = UnixStream::connect(&socket).expect("the control socket answers");
        let request = format!("GET {path} HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

fn sing_tcp(address: &str, reached: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Ends with the test program.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            reached.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let mut buffer = [0; 64];
                let _ = stream.read(&mut buffer);
                let _ = stream.write_all(SONG.as_bytes());
            });
        }
    });
    port
}

fn sing_udp(address: &str, answers: bool, reached: Arc<AtomicUsize>) -> u16 {
    let socket = UdpSocket::bind(address).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            reached.fetch_add(1, Ordering::Relaxed);
            if answers {
                let _ = socket.send_to(SONG.as_bytes(), peer);
            }
        }
    });
    port
}
