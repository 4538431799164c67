//! A real PowerDNS Authoritative Server on loopback, with its API and a database of its own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bind::private;
use crate::configuration::{Configuration, loopback};
use crate::eventually::until_within;
use crate::http::Target;
use crate::ports;
use crate::scratch::Scratch;
use crate::skip::program;

/// How long it may take to start.
const START: Duration = Duration::from_secs(30);

/// Where Debian puts the tables.
const SCHEMA: &str = "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql";

/// The API's key.
pub const API_KEY: &str = "a key for tests";

/// A running PowerDNS; ended with this value.
#[derive(Debug)]
pub struct PowerDns {
    /// DNS.
    pub port: u16,
    /// The API.
    pub api: u16,
    scratch: Scratch,
    child: Option<Child>,
}

impl PowerDns {
    /// Whether this machine has it, with SQLite.
    pub fn is_installed() -> bool {
        ["pdns_server", "sqlite3", "dig"]
            .iter()
            .all(|name| program(name).is_some())
            && std::path::Path::new(SCHEMA).exists()
    }

    /// Starts with these zones.
    #[track_caller]
    pub fn with_zones(zones: &[&str]) -> Self {
        let scratch = Scratch::new();
        let database = scratch.join("pdns.db");
        let schema = std::fs::read_to_string(SCHEMA).expect("the tables");
        let made = Command::new("sqlite3")
            .arg(&database)
            .arg(schema)
            .status()
            .expect("sqlite3 can be started");
        assert!(made.success(), "sqlite3 makes no tables");
        let (port, api) = (ports::free(), ports::free());
        let place = scratch.join("");
        scratch.file(
            "pdns.conf",
            format!(
                "launch=gsqlite3\ngsqlite3-database={database}\ngsqlite3-pragma-synchronous=0\nlocal-address={ip}\nlocal-port={port}\nwebserver=yes\n\
                 webserver-address={ip}\nwebserver-port={api}\nwebserver-allow-from={ip}\napi=yes\napi-key={API_KEY}\nsocket-dir={place}\n\
                 cache-ttl=0\nquery-cache-ttl=0\nnegquery-cache-ttl=0\nzone-cache-refresh-interval=0\ndaemon=no\nguardian=no\nsetuid=\nsetgid=\nsecurity-poll-suffix=\n",
                database = database.display(),
                place = place.display(),
                ip = Ipv4Addr::LOCALHOST,
            ),
        );
        let log = std::fs::File::create(scratch.join("log")).expect("a log file");
        let child = Command::new("pdns_server")
            .arg(format!("--config-dir={}", place.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("PowerDNS can be started");
        let this = Self {
            port,
            api,
            scratch,
            child: Some(child),
        };
        let api = Target::plain(loopback(api));
        let up = until_within(START, || {
            let answer = api
                .request("GET", "/api/v1/servers/localhost")
                .header("X-API-Key", API_KEY)
                .try_send();
            answer
                .is_ok_and(|answer| answer.status == 200)
                .then_some(())
        });
        assert!(up.is_some(), "PowerDNS does not start:\n{}", this.log());
        for zone in zones {
            let body = format!(
                "{{\"name\":\"{zone}.\",\"kind\":\"Native\",\"nameservers\":[\"ns.example.com.\"]}}"
            );
            api.request("POST", "/api/v1/servers/localhost/zones")
                .header("X-API-Key", API_KEY)
                .body("application/json", body)
                .send()
                .assert_status(201);
        }
        this
    }

    /// What `powerdns_rest_url` has to be.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/servers/localhost", self.api)
    }

    /// The API key in a file; with another text, a wrong one.
    pub fn key_file(&self, text: &str) -> PathBuf {
        let path = self.scratch.file(&format!("api-key-{}", text.len()), text);
        private(&path);
        path
    }

    /// `dig +short`.
    pub fn dig(&self, name: &str, kind: &str) -> String {
        let output = Command::new("dig")
            .args([
                "@127.0.0.1",
                "-p",
                &self.port.to_string(),
                "+short",
                "+time=5",
                name,
                kind,
            ])
            .output()
            .expect("dig can be started");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.join("log")).unwrap_or_default()
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for PowerDns {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- PowerDNS said:\n{}", self.log());
        }
        self.stop();
    }
}

impl Configuration {
    /// Enables `dns` with `dns-powerdns` at this API, with the key in this file.
    pub fn dns_powerdns(self, url: &str, key: &Path) -> Self {
        self.feature(
            "dns",
            "enabled = true\nuse_provider = \"dns-powerdns\"\ndns_ttl = 600",
        )
        .feature(
            "dns-powerdns",
            &format!(
                "enabled = true\npowerdns_rest_url = {url:?}\npowerdns_rest_api_key = {:?}",
                key.display().to_string()
            ),
        )
    }
}
