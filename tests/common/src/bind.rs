//! A real BIND 9 on loopback: zones that keys may update, zones that nobody may, and what `dig` sees of them.
//!
//! The one idea: whatever a test believes about a record, [`Bind::dig`] says, not the program under test.

use std::fs::Permissions;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::clock;
use crate::configuration::Configuration;
use crate::eventually::until_within;
use crate::ports;
use crate::scratch::Scratch;
use crate::skip::program;
use crate::zone;

/// How long BIND may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// TSIG's algorithms; each has a key `key-ALGORITHM`.
pub const ALGORITHMS: [&str; 5] = [
    "hmac-md5",
    "hmac-sha1",
    "hmac-sha256",
    "hmac-sha384",
    "hmac-sha512",
];

/// The key's bytes as BIND writes them.
const SECRET: &str = "YSBzZWNyZXQgZm9yIHRlc3RzLCAzMiBieXRlcyBsb25n";

/// Zones that every key may update.
const OPEN: [&str; 5] = [
    "example.com",
    "sub.example.com",
    "2.0.192.in-addr.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa",
    "example.net",
];

/// How a server differs from the usual one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// Listens on `::1` only.
    pub v6_only: bool,
    /// Answers longer than a datagram may be: nothing fits but a truncated one.
    pub truncates: bool,
    /// Serves [`crate::zone`] too, and answers with what was asked for and nothing more.
    pub serves_large_zone: bool,
    /// Seconds that its clock is ahead.
    pub clock_ahead: u32,
    /// Holds no zone: it is a resolver that asks the server at this port of 127.0.0.1.
    pub resolves_by: Option<u16>,
}

/// A running BIND; ended with this value.
#[derive(Debug)]
pub struct Bind {
    setup: Setup,
    /// UDP and TCP.
    pub port: u16,
    scratch: Scratch,
    child: Option<Child>,
}

impl Bind {
    /// Whether this machine has BIND with its tools.
    pub fn is_installed() -> bool {
        ["named", "dig", "nsupdate"]
            .iter()
            .all(|name| program(name).is_some())
    }

    /// The usual server.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    /// A server of another kind.
    #[track_caller]
    pub fn with(setup: Setup) -> Self {
        // Between finding a port and BIND's taking it, another program may: then another port is tried.
        for _ in 0..5 {
            let mut this = Self {
                setup,
                port: ports::free(),
                scratch: Scratch::new(),
                child: None,
            };
            this.write();
            if this.run() {
                return this;
            }
        }
        panic!("BIND never gets both its sockets");
    }

    fn write(&self) {
        let place = self.scratch.join("").display().to_string();
        let place = place.trim_end_matches('/');
        let mut text = String::new();
        for kind in ALGORITHMS {
            let key = format!("key \"key-{kind}\" {{ algorithm {kind}; secret \"{SECRET}\"; }};\n");
            self.key(&format!("{kind}.key"), &key);
            text.push_str(&key);
        }
        let (v4, v6) = match self.setup.v6_only {
            true => ("none;", "::1;"),
            false => ("127.0.0.1;", "none;"),
        };
        let size = match self.setup.truncates {
            true => "max-udp-size 512; edns-udp-size 512;",
            false => "",
        };
        let minimal = match self.setup.serves_large_zone {
            true => "yes",
            false => "no",
        };
        let recursion = match self.setup.resolves_by {
            Some(port) => {
                format!("recursion yes; forward only; forwarders {{ 127.0.0.1 port {port}; }};")
            }
            None => "recursion no;".to_owned(),
        };
        text.push_str(&format!(
            "options {{ directory \"{place}\"; listen-on port {port} {{ {v4} }}; listen-on-v6 port {port} {{ {v6} }}; {recursion} \
             pid-file none; session-keyfile \"{place}/session.key\"; dnssec-validation no; minimal-responses {minimal}; zero-no-soa-ttl no; \
             tcp-clients 500; {size} }};\ncontrols {{}};\n",
            port = self.port
        ));
        if self.setup.resolves_by.is_some() {
            self.scratch.file("named.conf", text);
            return;
        }
        let grants: String = ALGORITHMS
            .iter()
            .map(|kind| format!("grant key-{kind} zonesub any; "))
            .collect();
        for name in OPEN {
            text.push_str(&self.zone(name, &format!("update-policy {{ {grants} }};")));
        }
        text.push_str(&self.zone("unsigned.test", "allow-update { 127.0.0.1; ::1; };"));
        text.push_str(&self.zone("closed.test", ""));
        if self.setup.serves_large_zone {
            self.scratch.file(zone::ZONE, zone::text());
            text.push_str(&format!(
                "zone \"{0}\" {{ type primary; file \"{0}\"; check-names ignore; }};\n",
                zone::ZONE
            ));
        }
        // A zone whose file is not there is served as SERVFAIL.
        text.push_str("zone \"broken.test\" { type primary; file \"missing\"; };\n");
        self.scratch.file("named.conf", text);
    }

    fn zone(&self, name: &str, rights: &str) -> String {
        let mut records = format!(
            "$TTL 300\n@ SOA ns.{name}. root.{name}. 1 300 300 300 300\n NS ns.{name}.\nns A 127.0.0.1\n"
        );
        if name == "example.com" {
            // More than 512 bytes, so that the answer is truncated over UDP where datagrams are short.
            for number in 0..60 {
                records.push_str(&format!("many A 198.51.100.{number}\n"));
            }
        }
        self.scratch.file(name, records);
        format!("zone \"{name}\" {{ type primary; file \"{name}\"; {rights} }};\n")
    }

    /// False: it did not get both sockets.
    fn run(&mut self) -> bool {
        let log = std::fs::File::create(self.scratch.join("log")).expect("a log file");
        let mut command = Command::new("named");
        if self.setup.clock_ahead != 0 {
            clock::ahead(&mut command, self.setup.clock_ahead, &self.scratch);
        }
        let child = command
            .args(["-g", "-n2", "-c"])
            .arg(self.scratch.join("named.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("BIND can be started");
        self.child = Some(child);
        let up = until_within(PATIENCE, || {
            let log = self.log();
            if log.contains("address in use") {
                return Some(false);
            }
            (log.contains("running") && self.dig("ns.example.net", "A") == "127.0.0.1\n")
                .then_some(true)
        });
        match up {
            Some(up) => {
                if !up {
                    self.stop();
                }
                up
            }
            None => panic!("BIND does not start:\n{}", self.log()),
        }
    }

    /// Ends it; its zones stay.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = i32::try_from(child.id())
                .ok()
                .and_then(rustix::process::Pid::from_raw)
                .expect("a process id");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            if until_within(PATIENCE, || child.try_wait().ok().flatten()).is_none() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    /// Starts it again on the same port and zones.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        assert!(self.run(), "its port was taken meanwhile");
    }

    /// What it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.join("log")).unwrap_or_default()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match self.setup.v6_only {
            true => (Ipv6Addr::LOCALHOST, self.port).into(),
            false => (Ipv4Addr::LOCALHOST, self.port).into(),
        }
    }

    /// The file of the key of this algorithm, in BIND's own form.
    pub fn key_file(&self, algorithm: &str) -> PathBuf {
        self.scratch.join(format!("{algorithm}.key"))
    }

    /// A key file with any name, algorithm and secret.
    pub fn foreign_key(&self, name: &str, algorithm: &str, secret: &str) -> PathBuf {
        self.key(
            &format!("foreign-{name}-{algorithm}.key"),
            &format!("key \"{name}\" {{ algorithm {algorithm}; secret \"{secret}\"; }};\n"),
        )
    }

    /// A file that others may not read: a key that they may is not used.
    fn key(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch.file(name, text);
        private(&path);
        path
    }

    /// `dig +short`: one value a line, sorted.
    pub fn dig(&self, name: &str, kind: &str) -> String {
        let text = self.dig_whole(&["+short", name, kind]);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// `dig` with these arguments.
    pub fn dig_whole(&self, arguments: &[&str]) -> String {
        let output = Command::new("dig")
            .arg(format!("@{}", self.address().ip()))
            .args(["-p", &self.port.to_string(), "+time=5", "+tries=2"])
            .args(arguments)
            .output()
            .expect("dig can be started");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// All of a zone by transfer: name, time to live, class, type, value.
    pub fn transfer(&self, zone: &str) -> Vec<String> {
        let text = self.dig_whole(&["+noall", "+answer", "+onesoa", zone, "AXFR"]);
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|line| !line.is_empty() && !line.contains(" SOA "))
            .collect();
        lines.sort();
        lines
    }
}

/// Takes everybody else's rights away.
pub fn private(path: &Path) {
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).expect("rights can be set");
}

impl Drop for Bind {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the last lines of BIND:");
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("    {line}");
            }
        }
        self.stop();
    }
}

impl Configuration {
    /// Enables `dns` with `dns-rfc2136` on these servers (`HOST:PORT`), signed with a key or not.
    pub fn dns_rfc2136(self, servers: &[String], key: Option<PathBuf>) -> Self {
        let key = key.map_or_else(String::new, |key| {
            format!("dns_key = {:?}", key.display().to_string())
        });
        self.feature("dns", "enabled = true\nuse_provider = \"dns-rfc2136\"")
            .feature(
                "dns-rfc2136",
                &format!("enabled = true\ndns_server = {servers:?}\n{key}"),
            )
    }

    /// Enables `dns` with `dns-builtin` at a port of 127.0.0.1 and `::1`, by UDP and TCP.
    pub fn dns_builtin(self, port: u16, zones: &[&str], lines: &str) -> Self {
        let listen = [
            format!("udp 127.0.0.1:{port}"),
            format!("tcp 127.0.0.1:{port}"),
            format!("udp [::1]:{port}"),
            format!("tcp [::1]:{port}"),
        ];
        self.feature("dns", "enabled = true").feature(
            "dns-builtin",
            &format!(
                "enabled = true\nlisten = {listen:?}\nzones = {zones:?}\nnameservers = [\"ns.example.com\"]\n{lines}"
            ),
        )
    }
}
