//! A real Kea DHCPv4 server, of this machine or out of a folder, with the Control Agent before it or at its own HTTP socket.
//!
//! It starts where the calling thread is: tests call it inside a [`crate::namespace::Namespace`], where all ports are free.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::debian::Suite;
use crate::eventually::until_within;
use crate::http::{Response, Target};
use crate::identity::{Authority, Identity};
use crate::scratch::Scratch;

/// How long Kea may take to start.
const START: Duration = Duration::from_secs(30);

/// The port of its control API.
const PORT: u16 = 8000;

/// The port of its control API over TLS, see [`Kea::secure`].
const SECURE_PORT: u16 = 8443;

/// Who answers at the control API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The Control Agent.
    Agent,
    /// The DHCP server itself, from 3.0 on.
    Direct,
}

/// How a Kea shall be.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where its programs come from; none: this machine's own.
    pub suite: Option<Suite>,
    /// Who answers.
    pub door: Door,
    /// Hook libraries, `lease_cmds`.
    pub hooks: Vec<&'static str>,
    /// User and password that the API asks for.
    pub credentials: Option<(&'static str, &'static str)>,
    /// The network interfaces that it serves.
    pub interfaces: Vec<&'static str>,
    /// Further keys of `Dhcp4`: subnets, options.
    pub dhcp4: Value,
}

/// A running Kea; ended with this value.
#[derive(Debug)]
pub struct Kea {
    setup: Setup,
    name: String,
    scratch: Scratch,
    dhcp: Option<Child>,
    agent: Option<Child>,
    secure: Option<Child>,
}

impl Kea {
    /// Writes a configuration and starts.
    pub fn start(setup: Setup) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "t{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let mut this = Self {
            setup,
            name,
            scratch: Scratch::new(),
            dhcp: None,
            agent: None,
            secure: None,
        };
        for folder in ["etc", "run", "lib"] {
            private(&this.outside(folder));
        }
        std::fs::write(this.file("etc", "dhcp4.conf"), this.dhcp4().to_string())
            .expect("Kea's folder can be written");
        std::fs::write(this.file("etc", "agent.conf"), this.agent4().to_string())
            .expect("Kea's folder can be written");
        this.run();
        this
    }

    /// The folder as Kea sees it. Kea 3 takes no other.
    fn inside(&self, folder: &str) -> PathBuf {
        match &self.setup.suite {
            None => self.scratch.join(folder),
            Some(_) => PathBuf::from(match folder {
                "etc" => "/etc/kea",
                "run" => "/run/kea",
                _ => "/var/lib/kea",
            }),
        }
    }

    /// The folder as we see it.
    fn outside(&self, folder: &str) -> PathBuf {
        let inside = self.inside(folder);
        match &self.setup.suite {
            None => inside,
            Some(suite) => suite.root.join(inside.strip_prefix("/").unwrap_or(&inside)),
        }
    }

    fn file(&self, folder: &str, end: &str) -> PathBuf {
        self.outside(folder).join(format!("{}-{end}", self.name))
    }

    fn named(&self, folder: &str, end: &str) -> String {
        let path = self.inside(folder).join(format!("{}-{end}", self.name));
        path.display().to_string()
    }

    fn authentication(&self) -> Value {
        match self.setup.credentials {
            None => json!({}),
            Some((user, password)) => json!({ "authentication": {
                "type": "basic", "realm": "test", "clients": [{ "user": user, "password": password }]
            }}),
        }
    }

    fn dhcp4(&self) -> Value {
        let socket = json!({ "socket-type": "unix", "socket-name": self.named("run", "4.sock") });
        let hooks: Vec<Value> = self
            .setup
            .hooks
            .iter()
            .map(|hook| json!({ "library": self.hook(hook) }))
            .collect();
        let mut config = json!({
            "interfaces-config": { "interfaces": self.setup.interfaces },
            "lease-database": { "type": "memfile", "name": self.named("lib", "leases4.csv"), "lfc-interval": 0 },
            "hooks-libraries": hooks,
        });
        match self.setup.door {
            Door::Agent => config["control-socket"] = socket,
            Door::Direct => {
                let http = merged(
                    json!({ "socket-type": "http", "socket-address": "127.0.0.1", "socket-port": PORT }),
                    self.authentication(),
                );
                config["control-sockets"] = json!([socket, http]);
            }
        }
        json!({ "Dhcp4": merged(config, self.setup.dhcp4.clone()) })
    }

    fn agent4(&self) -> Value {
        let agent = json!({
            "http-host": "127.0.0.1", "http-port": PORT,
            "control-sockets": { "dhcp4": { "socket-type": "unix", "socket-name": self.named("run", "4.sock") } },
        });
        json!({ "Control-agent": merged(agent, self.authentication()) })
    }

    fn hook(&self, name: &str) -> String {
        let root = self
            .setup
            .suite
            .as_ref()
            .map_or_else(|| PathBuf::from("/"), |suite| suite.root.clone());
        let folders = std::fs::read_dir(root.join("usr/lib")).expect("/usr/lib");
        let library = folders
            .filter_map(Result::ok)
            .map(|folder| folder.path().join(format!("kea/hooks/libdhcp_{name}.so")))
            .find(|path| path.is_file())
            .unwrap_or_else(|| panic!("Kea has no hook library {name}"));
        let inside = library.strip_prefix(&root).expect("it lies below");
        Path::new("/").join(inside).display().to_string()
    }

    fn command(&self, program: &str, config: &str) -> Command {
        let mut command = match &self.setup.suite {
            None => Command::new(program),
            Some(suite) => suite.command(program),
        };
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.scratch.join(format!("{program}.log")))
            .expect("a log can be written");
        // Everything is logged, unless the test says what.
        if self.setup.dhcp4.get("loggers").is_none() {
            command.arg("-d");
        }
        command
            .args(["-c", &self.named("etc", config)])
            .env("KEA_PIDFILE_DIR", self.inside("run"))
            .env("KEA_LOCKFILE_DIR", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor can be copied"))
            .stderr(log);
        command
    }

    /// Starts what does not run.
    pub fn run(&mut self) {
        if self.dhcp.is_none() {
            let child = self.command("kea-dhcp4", "dhcp4.conf").spawn();
            self.dhcp = Some(child.expect("kea-dhcp4 can be started"));
        }
        if self.setup.door == Door::Agent && self.agent.is_none() {
            let child = self.command("kea-ctrl-agent", "agent.conf").spawn();
            self.agent = Some(child.expect("kea-ctrl-agent can be started"));
        }
        let up = until_within(START, || {
            let said = self.try_ask("version-get", Value::Null)?;
            (said["result"] == 0).then_some(())
        });
        assert!(up.is_some(), "Kea does not start:\n{}", self.log());
    }

    /// Starts one more Control Agent before the same server, over TLS: it shows this certificate and wants one of this authority's. Its URL.
    pub fn secure(&mut self, authority: &Authority, own: &Identity) -> String {
        for (end, pem) in [
            ("ca.pem", authority.pem()),
            ("agent.pem", own.chain_pem.clone()),
            ("agent-key.pem", own.key_pem.clone()),
        ] {
            std::fs::write(self.file("etc", end), pem).expect("Kea's folder can be written");
        }
        let mut config = self.agent4();
        config["Control-agent"] = merged(
            config["Control-agent"].clone(),
            json!({
                "http-port": SECURE_PORT,
                "trust-anchor": self.named("etc", "ca.pem"),
                "cert-file": self.named("etc", "agent.pem"),
                "key-file": self.named("etc", "agent-key.pem"),
            }),
        );
        std::fs::write(self.file("etc", "secure.conf"), config.to_string())
            .expect("Kea's folder can be written");
        let child = self.command("kea-ctrl-agent", "secure.conf").spawn();
        self.secure = Some(child.expect("kea-ctrl-agent can be started"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, SECURE_PORT));
        let up = until_within(START, || TcpStream::connect(address).ok());
        assert!(up.is_some(), "the agent does not start:\n{}", self.log());
        format!("https://127.0.0.1:{SECURE_PORT}/")
    }

    /// Ends the DHCP server, the Control Agent stays.
    pub fn stop(&mut self) {
        end(self.dhcp.take());
    }

    /// Ends all.
    pub fn stop_all(&mut self) {
        self.stop();
        end(self.agent.take());
        end(self.secure.take());
    }

    /// Lets whoever answers hang, or go on.
    pub fn hang(&self, hangs: bool) {
        let signal = if hangs {
            rustix::process::Signal::STOP
        } else {
            rustix::process::Signal::CONT
        };
        for child in [&self.dhcp, &self.agent].into_iter().flatten() {
            if let Some(pid) = i32::try_from(child.id())
                .ok()
                .and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }

    /// The user and password it asks for.
    pub fn credentials(&self) -> Option<(&'static str, &'static str)> {
        self.setup.credentials
    }

    /// The URL of its control API.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{PORT}/")
    }

    /// The address of its control API.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, PORT).into()
    }

    /// Where its leases lie.
    pub fn lease_folder(&self) -> PathBuf {
        self.outside("lib")
    }

    /// The configuration file as it is now.
    pub fn configuration_file(&self) -> String {
        std::fs::read_to_string(self.file("etc", "dhcp4.conf")).unwrap_or_default()
    }

    /// What Kea wrote to its logs.
    pub fn log(&self) -> String {
        ["kea-dhcp4.log", "kea-ctrl-agent.log"]
            .iter()
            .map(|name| std::fs::read_to_string(self.scratch.join(name)).unwrap_or_default())
            .collect()
    }

    /// The version it says.
    pub fn version(&self) -> String {
        let said = self.ask("version-get", Value::Null);
        said["text"].as_str().unwrap_or_default().to_owned()
    }

    /// Asks a command; the one element of the answer.
    pub fn ask(&self, command: &str, arguments: Value) -> Value {
        self.try_ask(command, arguments)
            .unwrap_or_else(|| panic!("Kea does not answer {command}:\n{}", self.log()))
    }

    fn try_ask(&self, command: &str, arguments: Value) -> Option<Value> {
        let mut body = json!({ "command": command, "service": ["dhcp4"] });
        if !arguments.is_null() {
            body["arguments"] = arguments;
        }
        let target = Target::plain(self.address());
        let mut request = target
            .request("POST", "/")
            .body("application/json", body.to_string());
        if let Some((user, password)) = self.setup.credentials {
            let value = base64(format!("{user}:{password}").as_bytes());
            request = request.header("Authorization", &format!("Basic {value}"));
        }
        let answer: Response = request.try_send().ok()?;
        let said: Value = serde_json::from_slice(&answer.body).ok()?;
        Some(match said {
            Value::Array(mut all) => all.swap_remove(0),
            other => other,
        })
    }

    /// Its present configuration, `Dhcp4`.
    pub fn configuration(&self) -> Value {
        self.ask("config-get", Value::Null)["arguments"]["Dhcp4"].clone()
    }

    /// The reservations of all subnets, as the present configuration has them.
    pub fn reservations(&self) -> Vec<Value> {
        let config = self.configuration();
        let networks = config["shared-networks"].as_array().cloned();
        let subnets = |of: &Value| of["subnet4"].as_array().cloned().unwrap_or_default();
        subnets(&config)
            .into_iter()
            .chain(networks.unwrap_or_default().iter().flat_map(subnets))
            .flat_map(|subnet| {
                subnet["reservations"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default()
            })
            .collect()
    }
}

impl Drop for Kea {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let start = log.len().saturating_sub(4000);
            eprintln!(
                "--- Kea's logs end so:\n{}",
                log.get(start..).unwrap_or(&log)
            );
        }
        self.hang(false);
        self.stop_all();
        for folder in ["etc", "run", "lib"] {
            let Ok(entries) = std::fs::read_dir(self.outside(folder)) else {
                continue;
            };
            for entry in entries.filter_map(Result::ok) {
                if entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(&format!("{}-", self.name))
                {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
    }
}

fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        if let Some(pid) = i32::try_from(child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let ended = until_within(Duration::from_secs(10), || child.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Kea 3 wants its folders closed to others.
fn private(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(folder).expect("a folder for Kea can be made");
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o750))
        .expect("a folder's permissions can be set");
}

fn merged(mut into: Value, from: Value) -> Value {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
    into
}

/// Base64 of a few bytes (RFC 4648 section 4).
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .chain(std::iter::repeat(&0))
            .take(3)
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for digit in 0..4 {
            text.push(match digit > three.len() {
                true => '=',
                false => char::from(DIGITS[bits >> (18 - 6 * digit) & 63]),
            });
        }
    }
    text
}
