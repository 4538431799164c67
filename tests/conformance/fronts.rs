//! asks.md: whose word about a client counts. The bytes that Foreman gets say it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_testkit::crowd::{aside, connect, source};
use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Bulkhead, Configuration};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

static FOREMAN: Mutex<Option<Arc<Foreman>>> = Mutex::new(None);

/// This machine's 127.0.0.1 is a front; its 127.16.0.1 is anybody.
static BULKHEAD: Shared = Shared::new(|| {
    let configuration = Configuration::empty();
    let foreman = Arc::new(Foreman::answering(&configuration.authority, |_| {
        reply("200 OK", "text/plain", "x")
    }));
    *FOREMAN.lock().unwrap_or_else(PoisonError::into_inner) = Some(foreman.clone());
    let templates = "enabled = true\ntemplate_url = \"http://proxy.example.com\"";
    Bulkhead::with(
        configuration
            .top("fronts = [\"127.0.0.1\"]")
            .foreman(&foreman)
            .feature("templates", templates)
            .feature("registration", "enabled = true"),
    )
});

/// What a client may claim, and what look-alikes of it are.
const CLAIMS: &str = "X-Forwarded-For: 10.9.9.9, 203.0.113.5\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: outer.example.com\r\nX-Forwarded-Server: x\r\nForwarded: for=10.9.9.9\r\nX-Real-IP: 10.9.9.9\r\n\
    Client-IP: 10.9.9.9\r\nTrue-Client-IP: 10.9.9.9\r\nVia: 1.1 x\r\nX_Forwarded_For: 10.9.9.9\r\nX-Forwarded_For: 10.9.9.9\r\n\
    SSL_CLIENT_S_DN: CN=foreman.example.com\r\nSSL-Client-Verify: SUCCESS\r\nX-SSL-Client-Cert: x\r\nREMOTE_USER: admin\r\n\
    Proxy: http://10.9.9.9:3128\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n\
    TE: trailers\r\nTrailer: X-Last\r\nUpgrade: h2c\r\n\
    X-RHN-Provisioning-MAC-0: eth0 aa:bb:cc:dd:ee:ff\r\nX-Request-Id: id-1\r\nUser-Agent: installer\r\n";

/// Sends a request with all claims from one of this machine's addresses; the head that Foreman got, its header lines sorted.
fn asked(from_front: bool, path: &str, mark: &str) -> (String, Vec<String>) {
    let bulkhead = BULKHEAD.get();
    let target: SocketAddr = bulkhead.hosts().address;
    let request = format!(
        "GET {path}?mark={mark} HTTP/1.1\r\nHost: inner.example.com\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n{CLAIMS}\r\n"
    );
    let from = if from_front {
        [127, 0, 0, 1].into()
    } else {
        source(0)
    };
    let answer = aside(async {
        let mut stream = connect(from, target).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    });
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let foreman = FOREMAN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let requests = foreman.unwrap().requests();
    let mark = format!("mark={mark}&");
    let got = requests.iter().rev().find(|one| one.line().contains(&mark));
    let got = got.expect("it arrived");
    let mut lines: Vec<String> = got
        .head
        .trim_end()
        .split("\r\n")
        .skip(1)
        .map(str::to_owned)
        .collect();
    lines.sort_unstable();
    (got.line().to_owned(), lines)
}

/// The whole head that Foreman gets, with this as the client's address.
fn expected(client: &str) -> Vec<String> {
    let foreman = FOREMAN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let port = foreman.unwrap().address.port();
    let mut lines = vec![
        "accept: */*, application/json,version=2".to_owned(),
        "content-type: application/json".to_owned(),
        format!("host: localhost:{port}"),
        "user-agent: installer".to_owned(),
        format!("x-forwarded-for: {client}"),
        "x-request-id: id-1".to_owned(),
        "x-rhn-provisioning-mac-0: eth0 aa:bb:cc:dd:ee:ff".to_owned(),
    ];
    lines.sort_unstable();
    lines
}

/// A stranger's claims are gone, look-alikes too; the address is the one it came from. A front's word about it counts, and only the part that
/// the front itself wrote; look-alikes and certificates do not pass even so.
#[test]
fn foreman_gets_the_address_that_the_proxy_saw() {
    let _kept = BULKHEAD.get();
    let (_, lines) = asked(false, "/unattended/provision", "stranger");
    assert_eq!(lines, expected("127.16.0.1"));
    let (_, lines) = asked(true, "/unattended/provision", "front");
    assert_eq!(lines, expected("203.0.113.5"));
}

/// Scheme and host of the URL under which a host registers are a front's to say.
#[test]
fn the_url_of_the_request_is_the_one_that_the_front_was_asked() {
    let _kept = BULKHEAD.get();
    let (line, _) = asked(false, "/register", "r-stranger");
    assert_eq!(
        line,
        "GET /register?mark=r-stranger&url=http%3A%2F%2Finner.example.com HTTP/1.1"
    );
    let (line, _) = asked(true, "/register", "r-front");
    assert_eq!(
        line,
        "GET /register?mark=r-front&url=https%3A%2F%2Fouter.example.com HTTP/1.1"
    );
}
