//! A real ISC DHCP server in a network of its own, with two subnets and an OMAPI key.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::eventually::until_within;
use crate::namespace::Namespace;
use crate::scratch::Scratch;
use crate::skip::program;

/// The port of OMAPI.
pub const OMAPI: u16 = 7911;

/// The name of its key.
pub const KEY_NAME: &str = "foreman-omapi";

/// The key's secret, and in base64.
pub const SECRET: &[u8] = b"a secret for tests, 32 bytes long";
/// See [`SECRET`].
pub const SECRET_BASE64: &str = "YSBzZWNyZXQgZm9yIHRlc3RzLCAzMiBieXRlcyBsb25n";

/// How long dhcpd may take to start.
const START: Duration = Duration::from_secs(20);

/// A running `dhcpd`. Its configuration is written in the ways that it takes: keywords in any case, numbers with leading zeros.
#[derive(Debug)]
pub struct Dhcpd {
    /// The server's network; interface `dhcp0`, 192.0.2.1/24 and 198.51.100.1/24.
    pub site: Namespace,
    /// The network of a client; interface `client0`, without an address.
    pub client: Namespace,
    /// Where its files are.
    pub place: Scratch,
    child: Option<Child>,
}

impl Dhcpd {
    /// Starts one. `None`, with the reason, where the machine cannot. `algorithm` of the key, `extra` lines for `dhcpd.conf`.
    pub fn start(algorithm: &str, extra: &str) -> Result<Self, &'static str> {
        if program("dhcpd").is_none() {
            return Err("dhcpd (isc-dhcp-server) is not installed");
        }
        let namespaces = Namespace::new("dhcpd").zip(Namespace::new("client"));
        let (site, client) = namespaces.ok_or("network namespaces need root and `ip`")?;
        site.wire("dhcp0", "192.0.2.1/24", &client, "client0", "");
        site.ip(&["addr", "add", "198.51.100.1/24", "dev", "dhcp0"]);
        let place = Scratch::new();
        place.file("dhcpd.leases", "");
        place.file(
            "omapi.key",
            format!("key {KEY_NAME} {{ algorithm {algorithm}; secret \"{SECRET_BASE64}\"; }};\n"),
        );
        place.file(
            "more.conf",
            "Host included { Hardware Ethernet 00:11:22:33:44:02; Fixed-Address 198.51.100.020; }\n",
        );
        let include = |name: &str| format!("include \"{}\";\n", place.join(name).display());
        place.file(
            "dhcpd.conf",
            format!(
                "omapi-port {OMAPI};\n{key}omapi-key {KEY_NAME};\n\
                 default-lease-time 600; max-lease-time 7200; ping-check false; authoritative;\n\
                 option option-150 code 150 = ip-address;\noption option-143 code 143 = text;\n\
                 option space FM_ZTP;\noption FM_ZTP.config-file-name code 1 = text;\n\
                 option space SUNW;\noption SUNW.root-server-ip-address code 2 = ip-address;\noption SUNW.root-path-name code 4 = text;\n\
                 shared-network site {{\n\
                 subnet 192.0.2.0 netmask 255.255.255.0 {{ option routers 192.0.2.1; option domain-name \"example.com\"; option domain-name-servers 192.0.2.2, 192.0.2.3; \
                 option ntp-servers 192.0.2.4, 192.0.2.5; option interface-mtu 1500; range 192.0.2.220 192.0.2.240; }}\n\
                 Subnet 198.51.100.0 NetMask 255.255.255.000 {{ }}\n}}\n\
                 group {{ host fixed {{ hardware ethernet 00:11:22:33:44:01; fixed-address 192.0.2.10; filename \"fixed.0\"; }} }}\n{more}{extra}\n",
                key = include("omapi.key"),
                more = include("more.conf"),
            ),
        );
        let mut dhcpd = Self {
            site,
            client,
            place,
            child: None,
        };
        dhcpd.run();
        Ok(dhcpd)
    }

    /// Starts it (again) and waits until it takes connections.
    #[track_caller]
    pub fn run(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.place.join("dhcpd.log"))
            .expect("a log");
        // Debian's package lets it write as root only where it says so; the test's folder is elsewhere.
        let child = self
            .site
            .command("dhcpd")
            .args(["-4", "-f", "-d", "-user", "root", "-group", "root", "-cf"])
            .arg(self.config())
            .arg("-lf")
            .arg(self.leases())
            .arg("-pf")
            .arg(self.place.join("dhcpd.pid"))
            .arg("dhcp0")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dhcpd can be started");
        self.child = Some(child);
        let ready = until_within(START, || {
            self.site
                .inside(|| TcpStream::connect(("127.0.0.1", OMAPI)).is_ok())
                .then_some(())
        });
        assert!(ready.is_some(), "dhcpd does not listen:\n{}", self.log());
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends it a signal, by its own process id.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .expect("a process id");
        rustix::process::kill_process(pid, signal).expect("it can be told");
    }

    /// `dhcpd.conf`
    pub fn config(&self) -> PathBuf {
        self.place.join("dhcpd.conf")
    }

    /// The leases file.
    pub fn leases(&self) -> PathBuf {
        self.place.join("dhcpd.leases")
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.join("dhcpd.log")).unwrap_or_default()
    }

    /// What `dhclient` gets for a MAC address: its lease file's text.
    #[track_caller]
    pub fn dhclient(&self, mac: &str) -> String {
        self.client.ip(&["link", "set", "client0", "down"]);
        self.client.ip(&["link", "set", "client0", "address", mac]);
        self.client.ip(&["link", "set", "client0", "up"]);
        let name = mac.replace(':', "");
        let lease = self.place.join(format!("dhclient-{name}.leases"));
        let output = self
            .client
            .command("timeout")
            .args([
                "30",
                "dhclient",
                "-4",
                "-1",
                "-v",
                "-sf",
                "/bin/true",
                "-lf",
            ])
            .arg(&lease)
            .arg("-pf")
            .arg(self.place.join(format!("dhclient-{name}.pid")))
            .args(["-cf", "/dev/null", "client0"])
            .output()
            .expect("dhclient can be started");
        // It stays in the background to renew; this one has nothing to renew.
        let _ = self
            .client
            .command("dhclient")
            .args(["-4", "-x", "-sf", "/bin/true", "-pf"])
            .arg(self.place.join(format!("dhclient-{name}.pid")))
            .output();
        fs::read_to_string(&lease).unwrap_or_else(|_| panic!("{output:?}\n{}", self.log()))
    }

    /// The path as text.
    pub fn text(path: &Path) -> String {
        path.display().to_string()
    }
}

impl Drop for Dhcpd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes a process hang.
pub const STOP: rustix::process::Signal = rustix::process::Signal::STOP;
/// Lets it go on.
pub const CONTINUE: rustix::process::Signal = rustix::process::Signal::CONT;

/// The address of one of [`many_leases`], counted from 0.
pub fn lease_address(number: u32) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from_bits(0x0a00_0001 + number)
}

/// A leases file with that many active leases, as dhcpd writes them.
pub fn many_leases(count: u32) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("authoring-byte-order little-endian;\n\n");
    for number in 0..count {
        let [_, b, c, d] = (number + 1).to_be_bytes();
        let _ = write!(
            text,
            "lease {} {{\n  starts 3 2026/11/25 10:00:00;\n  ends 3 2036/11/25 22:00:00;\n  cltt 3 2026/11/25 10:00:00;\n  binding state active;\n  \
             next binding state free;\n  rewind binding state free;\n  hardware ethernet 02:00:00:{b:02x}:{c:02x}:{d:02x};\n  \
             uid \"\\001\\002\\000\\000\\{b:03o}\\{c:03o}\\{d:03o}\";\n  set vendor-class-identifier = \"MSFT 5.0\";\n  client-hostname \"host{number}\";\n}}\n",
            lease_address(number)
        );
    }
    text
}
