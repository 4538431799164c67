//! One program with every feature that stands before Foreman, and a Foreman, a discovered machine and a Pulp behind it.

use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_testkit::foreman::{Foreman, Recorded, reply};
use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Authority, Bulkhead, Configuration};

/// Where hosts find this proxy, as the configuration says.
pub(crate) const TEMPLATE_URL: &str = "http://proxy.example.com:8000";

/// A script as Foreman makes it.
pub(crate) const SCRIPT: &str = "#!/bin/sh\necho registered\n";

/// What Pulp says of itself.
pub(crate) const PULP: &str = r#"{"versions":[{"component":"core"},{"component":"rpm"}]}"#;

/// Of the program that runs now.
static BEHIND: Mutex<Option<Arc<Behind>>> = Mutex::new(None);

struct Behind {
    foreman: Foreman,
    node: Foreman,
    pulp: Foreman,
}

static BULKHEAD: Shared = Shared::new(|| {
    let configuration = Configuration::empty();
    let stranger = Authority::root("a machine of its own").server(&["discovered"]);
    let behind = Arc::new(Behind {
        foreman: Foreman::answering(&configuration.authority, as_foreman),
        node: Foreman::without_clients(&stranger, as_node),
        pulp: Foreman::without_clients(&configuration.server, |_| {
            reply("200 OK", "application/json", PULP)
        }),
    });
    *BEHIND.lock().unwrap_or_else(PoisonError::into_inner) = Some(behind.clone());
    let ca = configuration
        .scratch
        .join("tls/ca.pem")
        .display()
        .to_string();
    let configuration = configuration
        .foreman(&behind.foreman)
        .feature("templates", &format!("enabled = true\ntemplate_url = {TEMPLATE_URL:?}"))
        .feature("registration", "enabled = true")
        .feature(
            "discovery",
            &format!(
                "enabled = true\nnode_url = \"https://node:{}\"\nnode_networks = [\"127.0.0.1\"]",
                behind.node.address.port()
            ),
        )
        .feature(
            "pulpcore",
            &format!(
                "enabled = true\npulp_url = {:?}\ncontent_app_url = \"https://content.example.com\"\nmirror = true\nusername = \"admin\"\nssl_ca = {ca:?}",
                behind.pulp.url()
            ),
        );
    Bulkhead::with(configuration)
});

/// The program; a test keeps it to its end.
pub(crate) fn bulkhead() -> Arc<Bulkhead> {
    BULKHEAD.get()
}

fn behind() -> Arc<Behind> {
    let behind = BEHIND.lock().unwrap_or_else(PoisonError::into_inner);
    behind.clone().expect("the program runs")
}

/// The request that Foreman got with this text in its head; the texts of tests differ.
#[track_caller]
pub(crate) fn foreman_got(mark: &str) -> Recorded {
    found(&behind().foreman, mark)
}

/// Whether Foreman got any such request.
pub(crate) fn foreman_got_any(mark: &str) -> bool {
    let behind = behind();
    behind
        .foreman
        .requests()
        .iter()
        .any(|one| one.head.contains(mark))
}

/// The request that the discovered machine got.
#[track_caller]
pub(crate) fn node_got(mark: &str) -> Recorded {
    found(&behind().node, mark)
}

#[track_caller]
fn found(server: &Foreman, mark: &str) -> Recorded {
    let requests = server.requests();
    let one = requests.iter().rev().find(|one| one.head.contains(mark));
    one.unwrap_or_else(|| panic!("{mark} did not arrive: {requests:#?}"))
        .clone()
}

fn as_foreman(request: &Recorded) -> Vec<u8> {
    let line = request.line();
    let target = line.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let page = "<html>Foreman's own words</html>";
    match path.rsplit('/').next().unwrap_or_default() {
        "built" => reply("201 Created", "text/plain", ""),
        "script" => b"HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nSet-Cookie: s=1\r\n\
            X-Runtime: 1\r\nETag: \"a\"\r\nContent-Security-Policy: none\r\n\r\n\0#!\n\xff"
            .to_vec(),
        "nf" => reply("404 Not Found", "text/html", page),
        "moved" => b"HTTP/1.1 302 Found\r\nLocation: /unattended/followed\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "empty" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "broken" => reply("500 Internal Server Error", "text/html", page),
        "junk" => b"what?\r\n\r\n".to_vec(),
        "closed" => Vec::new(),
        "facts" => match case_of(&request.body) {
            Some("closed") => Vec::new(),
            Some(status) => reply(status, "text/html", page),
            None => reply("201 Created", "application/json", "{}"),
        },
        "register" if target.contains("case=created") => reply("201 Created", "text/plain", SCRIPT),
        "register" if target.contains("case=refused") => {
            reply("422 Unprocessable Entity", "text/plain; charset=utf-8", "echo no\nexit 1\n")
        }
        "register" if target.contains("case=page") => reply("502 Bad Gateway", "text/html", page),
        "register" if target.contains("case=untyped") => {
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_vec()
        }
        "register" if target.contains("case=closed") => Vec::new(),
        "register" => reply("200 OK", "text/plain", SCRIPT),
        _ => reply("200 OK", "text/plain", "rendered"),
    }
}

/// `CASE` of `{"case":"CASE"}`, which the facts of a test may say.
fn case_of(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    text.strip_prefix("{\"case\":\"")?.strip_suffix("\"}")
}

fn as_node(request: &Recorded) -> Vec<u8> {
    match request.line() {
        line if line.starts_with("GET /inventory/facter") => {
            reply("200 OK", "application/json", r#"{"kernel":"Linux"}"#)
        }
        line if line.starts_with("PUT /power/kexec") => reply(
            "500 Internal Server Error",
            "application/json",
            r#"{"error":"no"}"#,
        ),
        line if line.starts_with("PUT /power/reboot") && request.body == b"away" => {
            b"HTTP/1.1 302 Found\r\nLocation: /inventory/facter\r\nX-Own: 1\r\nContent-Length: 0\r\n\r\n".to_vec()
        }
        line if line.starts_with("PUT /power/reboot") && request.body == b"dead" => Vec::new(),
        _ => reply("200 OK", "application/json", "true"),
    }
}
