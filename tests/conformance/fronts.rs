//! asks.md: whose word about a client counts. The bytes that Foreman gets say it, compared whole for every request that is passed on.

use std::net::Ipv4Addr;

use bulkhead_testkit::crowd::{aside, connect, source};
use bulkhead_testkit::foreman::{Foreman, Recorded, reply};
use bulkhead_testkit::{Bulkhead, Configuration};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The program and the Foreman behind it.
struct Site {
    bulkhead: Bulkhead,
    foreman: Foreman,
}

/// With these keys at the top of `proxy.toml`.
fn site(keys: &str) -> Site {
    let configuration = Configuration::empty();
    let foreman = Foreman::answering(&configuration.authority, |_| {
        reply("200 OK", "text/plain", "x")
    });
    let templates = "enabled = true\ntemplate_url = \"http://proxy.example.com\"";
    let bulkhead = Bulkhead::with(
        configuration
            .top(keys)
            .foreman(&foreman)
            .feature("templates", templates)
            .feature("registration", "enabled = true")
            .feature("discovery", "enabled = true"),
    );
    Site { bulkhead, foreman }
}

/// This machine's 127.0.0.1 is a front.
const FRONT: &str = "fronts = [\"127.0.0.1\"]";
const AT_FRONT: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A request line, a body with its type, and the header lines that Foreman shall get.
type Case<'a> = (&'a str, Option<(&'a str, &'a str)>, Vec<String>);

/// What a client may claim, and what look-alikes of it are.
const CLAIMS: &str = "X-Forwarded-For: 10.9.9.9, 203.0.113.5\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: outer.example.com\r\nX-Forwarded-Server: x\r\nForwarded: for=10.9.9.9\r\nX-Real-IP: 10.9.9.9\r\n\
    Client-IP: 10.9.9.9\r\nTrue-Client-IP: 10.9.9.9\r\nVia: 1.1 x\r\nX_Forwarded_For: 10.9.9.9\r\nX-Forwarded_For: 10.9.9.9\r\n\
    SSL_CLIENT_S_DN: CN=foreman.example.com\r\nSSL-Client-Verify: SUCCESS\r\nX-SSL-Client-Cert: x\r\nREMOTE_USER: admin\r\n\
    Proxy: http://10.9.9.9:3128\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n\
    TE: trailers\r\nTrailer: X-Last\r\nUpgrade: h2c\r\nVersion: 2\r\nAccept-Encoding: gzip\r\nAccept: text/plain\r\n\
    Authorization: Bearer token\r\nX-RHN-Provisioning-MAC-0: eth0 aa:bb:cc:dd:ee:ff\r\nX-Request-Id: id-1\r\nUser-Agent: installer\r\n";

/// What every request to Foreman says, but for its body, with this as the client's address.
fn said(client: &str, own: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = [
        "accept: */*, application/json,version=2, text/plain",
        "authorization: Bearer token",
        "user-agent: installer",
        "x-request-id: id-1",
        "x-rhn-provisioning-mac-0: eth0 aa:bb:cc:dd:ee:ff",
    ]
    .iter()
    .chain(own)
    .map(|&line| line.to_owned())
    .collect();
    lines.push(format!("x-forwarded-for: {client}"));
    lines
}

/// Of a machine without a name: nothing of what it claims goes along, be it ever so harmless.
fn said_of_machine(client: &str) -> Vec<String> {
    let mut lines: Vec<String> = [
        "accept: application/json,version=2",
        "content-length: 2",
        "content-type: application/json",
        concat!("user-agent: Bulkhead/", env!("CARGO_PKG_VERSION")),
        "x-request-id: id-1",
    ]
    .iter()
    .map(|&line| line.to_owned())
    .collect();
    lines.push(format!("x-forwarded-for: {client}"));
    lines
}

impl Site {
    /// Sends a request with all claims from one of this machine's addresses; what Foreman got of it.
    #[track_caller]
    fn asked(&self, from: Ipv4Addr, line: &str, body: Option<(&str, &str)>) -> Recorded {
        let target = self.bulkhead.hosts().address;
        let body = body.map_or_else(
            || "\r\n".to_owned(),
            |(kind, body)| {
                format!(
                    "Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            },
        );
        let request = format!(
            "{line} HTTP/1.1\r\nHost: inner.example.com\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n{CLAIMS}{body}"
        );
        let before = self.foreman.requests().len();
        let answer = aside(async {
            let mut stream = connect(from, target).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
        assert!(answer.starts_with("HTTP/1.1 200 "), "{line}: {answer}");
        let requests = self.foreman.requests();
        assert_eq!(requests.len(), before + 1, "{line} arrives once");
        requests[before].clone()
    }

    /// Fails unless everything that is passed on arrives whole as it should, with this as the client's address.
    #[track_caller]
    fn assert_all_say(&self, from: Ipv4Addr, client: &str) {
        const JSON: &str = "content-type: application/json";
        const FORM: &str = "application/x-www-form-urlencoded";
        let form = format!("content-type: {FORM}");
        let host = format!("host: localhost:{}", self.foreman.address.port());
        let cases: [Case<'_>; 9] = [
            ("GET /unattended/provision", None, said(client, &[JSON])),
            ("GET /unattended/template/a/b", None, said(client, &[JSON])),
            ("GET /userdata/user-data", None, said(client, &[JSON])),
            (
                "POST /unattended/built",
                Some((FORM, "a=1")),
                said(client, &["content-type: text/plain", "content-length: 3"]),
            ),
            (
                "POST /unattended/built",
                Some((FORM, "")),
                said(client, &["content-type: text/plain", "content-length: 0"]),
            ),
            ("GET /register", None, said(client, &[JSON])),
            (
                "POST /register",
                Some((FORM, "host[name]=x")),
                said(client, &[&form, "content-length: 12"]),
            ),
            (
                "POST /register",
                Some(("application/json", "{\"a\":1}")),
                said(client, &[JSON, "content-length: 7"]),
            ),
            (
                "POST /discovery/create",
                Some(("application/json", "{}")),
                said_of_machine(client),
            ),
        ];
        for (line, body, mut expected) in cases {
            expected.push(host.clone());
            expected.sort_unstable();
            let got = self.asked(from, line, body);
            assert_eq!(got.header_lines(), expected, "{line}");
            let sent = body.map_or("", |(_, body)| body);
            assert_eq!(got.body, sent.as_bytes(), "{line}");
        }
    }
}

/// A stranger's claims are gone, look-alikes too; the address is the one it came from. A front's word about it counts, and only the part that
/// the front itself wrote; look-alikes and certificates do not pass even so.
#[test]
fn foreman_gets_the_address_that_the_proxy_saw() {
    let site = site(FRONT);
    site.assert_all_say(source(0), "127.16.0.1");
    site.assert_all_say(AT_FRONT, "203.0.113.5");
}

/// Where no front is named nobody is one, this machine's own address included.
#[test]
fn without_fronts_everybody_is_a_stranger() {
    for keys in ["", "fronts = []"] {
        let site = site(keys);
        site.assert_all_say(source(0), "127.16.0.1");
        site.assert_all_say(AT_FRONT, "127.0.0.1");
        let got = site.asked(AT_FRONT, "GET /register", None);
        assert_eq!(
            got.line(),
            "GET /register?url=http%3A%2F%2Finner.example.com HTTP/1.1"
        );
    }
}

/// Scheme and host of the URL under which a host registers are a front's to say.
#[test]
fn the_url_of_the_request_is_the_one_that_the_front_was_asked() {
    let site = site(FRONT);
    let line = |from| site.asked(from, "GET /register", None).line().to_owned();
    assert_eq!(
        line(source(0)),
        "GET /register?url=http%3A%2F%2Finner.example.com HTTP/1.1"
    );
    assert_eq!(
        line(AT_FRONT),
        "GET /register?url=https%3A%2F%2Fouter.example.com HTTP/1.1"
    );
}
