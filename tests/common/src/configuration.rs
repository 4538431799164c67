//! The `proxy.toml` of one test: listeners on free ports, certificates of an own authority, features and their settings.
//!
//! Everything a test does not mention is as an administrator would have it after reading the first page of the book: mutual
//! TLS and loopback HTTP for Foreman, plain HTTP for hosts, TFTP and HTTP boot on one directory.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::foreman::Foreman;
use crate::identity::{Authority, Identity};
use crate::ports;
use crate::scratch::Scratch;

/// The Smart Proxy version these programs show to Foreman.
pub const SHOWN_VERSION: &str = "3.11.0-develop";

/// The name of the client that every test trusts: Foreman.
pub const FOREMAN: &str = "foreman.example.com";

/// In a test one address stands for many clients. Tests of the limits set their own.
const ANY_RATE: &str = "limits = { requests_per_address = 1000000, request_burst = 1000000 }\n";

/// Which listeners a program has, by what they are for.
#[derive(Debug, Clone, Copy)]
pub struct Doors {
    /// Foreman's audience over HTTP on loopback.
    pub foreman_http: u16,
    /// Foreman's audience over TLS.
    pub foreman_tls: u16,
    /// Hosts and the public over HTTP.
    pub hosts_http: u16,
    /// Hosts and the public over TLS.
    pub hosts_tls: u16,
    /// Metrics and health.
    pub admin: u16,
}

impl Doors {
    fn free() -> Self {
        Self {
            foreman_http: ports::free(),
            foreman_tls: ports::free(),
            hosts_http: ports::free(),
            hosts_tls: ports::free(),
            admin: ports::free(),
        }
    }
}

/// The address of a port of this machine.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A configuration with its directory, written out by [`Configuration::write`]. Copies share the directory.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// Where everything of this program lives: `proxy.toml`, `state/`, `tls/`, `boot/`, `policies/`, `plugins/`.
    pub scratch: Arc<Scratch>,
    /// The authority of the server's and the clients' certificates.
    pub authority: Arc<Authority>,
    /// The server's certificate.
    pub server: Identity,
    /// The ports.
    pub doors: Doors,
    pub(crate) program: Option<PathBuf>,
    trusted_hosts: Option<String>,
    features: Vec<(String, String)>,
    listener_keys: String,
    sections: String,
    top: String,
    shipped: Option<String>,
    bundled: bool,
    under: Vec<String>,
    profile: Option<String>,
}

impl Configuration {
    /// TFTP and HTTP boot on `boot/`, any certificate of the test's authority trusted.
    pub fn standard() -> Self {
        Self::empty().tftp("").httpboot("")
    }

    /// No feature but `logs`.
    pub fn empty() -> Self {
        let scratch = Scratch::new();
        let authority = Authority::root("Bulkhead test CA");
        let server = authority.server(&["localhost", "127.0.0.1"]);
        scratch.directory("boot");
        scratch.directory("state");
        scratch.directory("policies");
        scratch.directory("plugins");
        Self {
            scratch: Arc::new(scratch),
            authority: Arc::new(authority),
            server,
            doors: Doors::free(),
            program: None,
            trusted_hosts: Some("\"any-certificate\"".to_owned()),
            features: Vec::new(),
            listener_keys: String::new(),
            sections: String::new(),
            top: String::new(),
            shipped: None,
            bundled: true,
            under: Vec::new(),
            profile: None,
        }
    }

    /// A configuration that comes with the program, whole as it is, but for its places: `/var/lib/bulkhead`, `/etc/bulkhead` and `/srv/tftp` become
    /// directories of the test. Its listeners keep their ports, so the test enters a namespace of its own first.
    pub fn shipped(text: &str) -> Self {
        let mut this = Self::empty();
        let places = [
            ("/var/lib/bulkhead", "state"),
            ("/etc/bulkhead", ""),
            ("/srv/tftp", "boot"),
        ];
        let text = places.iter().fold(text.to_owned(), |text, (place, own)| {
            let own = this.scratch.join(own).display().to_string();
            text.replace(place, own.trim_end_matches('/'))
        });
        this.server = this
            .authority
            .proxy(&["localhost", "127.0.0.1", "proxy.example.com"]);
        (
            this.doors.foreman_tls,
            this.doors.hosts_http,
            this.doors.admin,
        ) = (8443, 8000, 9180);
        this.shipped = Some(text);
        this
    }

    /// Other words in a configuration that comes with the program.
    #[track_caller]
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        let text = self.shipped.as_mut().expect("made by `shipped`");
        assert!(text.contains(from), "{from:?} does not stand in it");
        *text = text.replace(from, to);
        self
    }

    /// The directory that TFTP writes and HTTP boot serves.
    pub fn boot(&self) -> PathBuf {
        self.scratch.join("boot")
    }

    /// Enables TFTP on `boot/`, with further lines of its section.
    pub fn tftp(self, lines: &str) -> Self {
        let root = self.boot().display().to_string();
        self.feature(
            "tftp",
            &format!("enabled = true\ntftproot = {root:?}\n{lines}"),
        )
    }

    /// Enables HTTP boot on `boot/`, with further lines of its section.
    pub fn httpboot(self, lines: &str) -> Self {
        let root = self.boot().display().to_string();
        self.feature(
            "httpboot",
            &format!("enabled = true\nroot_dir = {root:?}\n{lines}"),
        )
    }

    /// Lets TFTP fetch from the test's own media: the shipped policy keeps loopback out.
    pub fn local_media(self) -> Self {
        self.policy(
            "tftp",
            "[files.root]\ndirectory = { setting = \"tftproot\" }\naccess = \"read-write\"\n\
             [downloads.boot-files]\nurls = [\"http://127.0.0.1:*\"]\ninto = \"root\"\nsize = \"8MiB\"\nloopback = true",
        )
    }

    /// Names this Foreman, and the certificate by which it knows the proxy.
    pub fn foreman(self, foreman: &Foreman) -> Self {
        self.foreman_at(&foreman.url())
    }

    /// [`Configuration::foreman`] by its URL, whoever listens there.
    pub fn foreman_at(self, url: &str) -> Self {
        let proxy = self
            .authority
            .client(Some("proxy.example.com"), &["proxy.example.com"]);
        let path = |path: PathBuf| format!("{:?}", path.display().to_string());
        let section = format!(
            "[foreman]\nurl = {url:?}\nca = {}\ncertificate = {}\nprivate_key = {}",
            path(self.scratch.join("tls/ca.pem")),
            path(self.scratch.file("tls/client.pem", &proxy.chain_pem)),
            path(self.scratch.file("tls/client-key.pem", &proxy.key_pem)),
        );
        self.section(&section)
    }

    /// The section of a feature; one given before is replaced.
    pub fn feature(mut self, name: &str, lines: &str) -> Self {
        self.features.retain(|(known, _)| known != name);
        self.features.push((name.to_owned(), lines.to_owned()));
        self
    }

    /// A third party's plugin, enabled and approved: its file, and a policy with these grants.
    pub fn plugin(self, name: &str, wasm: &[u8], grants: &str) -> Self {
        let digest: String = Sha256::digest(wasm)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.scratch.file(&format!("plugins/{name}.wasm"), wasm);
        self.policy(name, &format!("approved = [\"sha256:{digest}\"]\n{grants}"))
            .feature(name, "enabled = true")
    }

    /// The policy of a plugin instead of the one it comes with.
    pub fn policy(self, name: &str, grants: &str) -> Self {
        self.scratch.file(
            &format!("policies/{name}.toml"),
            format!("plugin = {name:?}\n{grants}\n"),
        );
        self
    }

    /// The names `trusted_hosts` lists.
    pub fn trusted_hosts(mut self, names: &[&str]) -> Self {
        self.trusted_hosts = Some(format!("{names:?}"));
        self
    }

    /// Leaves `trusted_hosts` out altogether.
    pub fn without_trusted_hosts(mut self) -> Self {
        self.trusted_hosts = None;
        self
    }

    /// Another server certificate.
    pub fn server(mut self, server: Identity) -> Self {
        self.server = server;
        self
    }

    /// Has the program ask this name server, by a mount of its own over `/etc/resolv.conf`. Needs root and `unshare`, like a namespace.
    pub fn name_server(self, address: &str) -> Self {
        let text = format!("nameserver {address}\noptions timeout:1 attempts:1\n");
        let file = self.scratch.file("resolv.conf", text).display().to_string();
        let mount = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        self.under(&["unshare", "--mount", "sh", "-c", mount, &file])
    }

    /// Runs another program than the one cargo built for tests, which takes the same arguments.
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = Some(program);
        self
    }

    /// Without the plugins that come with the program.
    pub fn unbundled(mut self) -> Self {
        self.bundled = false;
        self
    }

    /// Starts the program by way of another one, whose command line this is, and which must leave it the process id: a tracer, a profiler.
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Serves one profile of it only.
    pub fn profile(mut self, name: &str) -> Self {
        self.profile = Some(name.to_owned());
        self
    }

    /// Where the instance keeps what it writes.
    pub fn state(&self) -> PathBuf {
        match &self.profile {
            None => self.scratch.join("state"),
            Some(profile) => self.scratch.join("state/profiles").join(profile),
        }
    }

    /// The options that say which instance is meant: `--config`, `--profile`.
    pub fn options(&self) -> Vec<String> {
        let mut options = vec!["--config".to_owned(), self.path().display().to_string()];
        if let Some(profile) = &self.profile {
            options.extend(["--profile".to_owned(), profile.clone()]);
        }
        options
    }

    /// The command line of [`Configuration::under`].
    pub(crate) fn starter(&self) -> &[String] {
        &self.under
    }

    /// Further keys for each listener.
    pub fn listener_keys(mut self, lines: &str) -> Self {
        self.listener_keys.push_str(lines);
        self.listener_keys.push('\n');
        self
    }

    /// Further keys at the top of the file.
    pub fn top(mut self, lines: &str) -> Self {
        self.top.push_str(lines);
        self.top.push('\n');
        self
    }

    /// Further sections at the end of the file.
    pub fn section(mut self, text: &str) -> Self {
        self.sections.push_str(text);
        self.sections.push('\n');
        self
    }

    /// The path of the file.
    pub fn path(&self) -> PathBuf {
        self.scratch.join("proxy.toml")
    }

    /// Writes the file and the certificates it names, and answers its path. Writing again is how a test changes a
    /// running program's configuration.
    pub fn write(&self) -> PathBuf {
        self.scratch.file("tls/ca.pem", self.authority.pem());
        for (certificate, key) in [
            ("server.pem", "server-key.pem"),
            ("proxy.pem", "proxy-key.pem"),
        ] {
            self.scratch
                .file(&format!("tls/{certificate}"), &self.server.chain_pem);
            self.scratch
                .file(&format!("tls/{key}"), &self.server.key_pem);
        }
        self.scratch.file("proxy.toml", self.text())
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        if let Some(shipped) = &self.shipped {
            return shipped.clone();
        }
        let path =
            |relative: &str| format!("{:?}", self.scratch.join(relative).display().to_string());
        let mut text = format!(
            "version = {SHOWN_VERSION:?}\nstate = {}\nforward_verify = true\n",
            path("state")
        );
        if let Some(trusted) = &self.trusted_hosts {
            text.push_str(&format!("trusted_hosts = {trusted}\n"));
        }
        text.push_str(&self.top);
        let listeners: [(&str, u16, bool, &str); 4] = [
            (
                "foreman-http",
                self.doors.foreman_http,
                false,
                "[\"foreman\"]",
            ),
            ("foreman", self.doors.foreman_tls, true, "[\"foreman\"]"),
            (
                "hosts-http",
                self.doors.hosts_http,
                false,
                "[\"host\", \"public\"]",
            ),
            (
                "hosts",
                self.doors.hosts_tls,
                true,
                "[\"host\", \"public\"]",
            ),
        ];
        let limits = if self.listener_keys.contains("limits") {
            ""
        } else {
            ANY_RATE
        };
        for (name, port, tls, audiences) in listeners {
            text.push_str(&format!(
                "\n[[listener]]\nname = {name:?}\nlisten = [\"127.0.0.1:{port}\"]\ntls = {tls}\naudiences = {audiences}\n{}{limits}",
                self.listener_keys
            ));
        }
        text.push_str(&format!(
            "\n[tls]\ncertificate = {}\nprivate_key = {}\nclient_ca = {}\n",
            path("tls/server.pem"),
            path("tls/server-key.pem"),
            path("tls/ca.pem")
        ));
        text.push_str(&format!(
            "\n[admin]\nlisten = \"127.0.0.1:{}\"\n",
            self.doors.admin
        ));
        text.push_str(&format!(
            "\n[plugins]\nbundled = {}\ndirectory = {}\npolicies = {}\n",
            self.bundled,
            path("plugins"),
            path("policies")
        ));
        for (name, lines) in &self.features {
            text.push_str(&format!("\n[features.{name}]\n{lines}\n"));
        }
        text.push_str(&self.sections);
        text
    }
}
