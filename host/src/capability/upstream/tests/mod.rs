//! The HTTP client against real servers on loopback.

mod kept;
mod overload;
mod streams;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming as HyperIncoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::dial::Dialer;
use super::trust::Trust;
use super::{Foreman, Kind, Upstream, Via};
use crate::capability::resolve::{Resolver, Servers};
use crate::capability::secrets::KeyRing;
use crate::capability::testing::{
    Authority, NameServer, Server, eventually, guard_with, ok, rights,
};
use crate::grant::effective::{
    ForemanGrant, HttpGrant, Injection, Inside, SecretAccess, SecretFormat, SecretGrant,
    SecretSource, Slot, TlsGrant,
};
use crate::grant::matchers::path::{MethodPath, PathPattern};
use crate::grant::matchers::url::BaseUrl;
use crate::grant::{Deny, Effective, Guard, HostRules};
use crate::sandbox::bindings::types::{Forward, Incoming, Outgoing, Source, UpstreamError};

fn client() -> Upstream {
    client_with(Servers::Fixed(Vec::new()), None)
}

fn client_with(servers: Servers, foreman: Option<Foreman>) -> Upstream {
    let io = Handle::current();
    let resolver = Resolver::new(io.clone(), servers).with_hosts_file("/nonexistent");
    Upstream::new(
        Dialer::new(io, Arc::new(resolver)),
        Arc::new(KeyRing::default()),
        foreman,
    )
}

fn grant(url: &str) -> HttpGrant {
    HttpGrant {
        url: BaseUrl::parse(url).unwrap(),
        networks: Vec::new(),
        methods: vec!["GET".into(), "POST".into()],
        paths: vec![PathPattern::any()],
        tls: TlsGrant::default(),
        inject: Vec::new(),
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(2),
        response: 1 << 20,
        connections: 8,
        queue: 64,
        inside: Inside {
            private: true,
            loopback: true,
        },
    }
}

fn slot(grant: HttpGrant) -> impl FnOnce(&mut Effective) {
    move |effective| {
        effective.http.insert("api".into(), Slot::new(grant));
    }
}

fn base(server: &Server) -> String {
    format!("http://127.0.0.1:{}", server.port())
}

fn guard(grant: HttpGrant) -> Guard {
    guard_with(slot(grant))
}

fn request(method: &str, target: &str) -> Outgoing {
    Outgoing {
        slot: "api".into(),
        method: method.into(),
        target: target.into(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout: None,
    }
}

async fn send(
    client: &Upstream,
    guard: &Guard,
    outgoing: Outgoing,
) -> Result<Incoming, UpstreamError> {
    client
        .send(guard, Kind::Http, &Via::default(), outgoing)
        .await
}

async fn get(client: &Upstream, guard: &Guard) -> Result<Incoming, UpstreamError> {
    send(client, guard, request("GET", "/")).await
}

async fn echo(request: Request<HyperIncoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let shown = format!("{} {}\n{:?}\n", head.method, head.uri, head.headers);
    let body = body.collect().await.unwrap().to_bytes();
    ok([shown.as_bytes(), &body].concat())
}

fn text_of(answer: &Incoming) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

async fn read_head(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte).await {
            Ok(1) => seen.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// A server that reads each request's head and answers with these bytes, then waits.
async fn answering(bytes: &'static [u8]) -> Server {
    Server::raw(move |mut stream, _| async move {
        while read_head(&mut stream).await {
            let _ = stream.write_all(bytes).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_granted_request_arrives_as_asked_and_marked() {
    let server = Server::http(echo).await;
    let guard = guard(grant(&format!("{}/api", base(&server))));
    let via = Via {
        request_id: Some("id-7".into()),
        client: Some("192.0.2.1".parse().unwrap()),
    };
    let mut outgoing = request("POST", "/servers?x=1");
    outgoing.headers = vec![
        ("Accept".into(), "text/plain".into()),
        ("host".into(), "evil".into()),
    ];
    outgoing.body = b"hello".to_vec();
    let answer = client()
        .send(&guard, Kind::Http, &via, outgoing)
        .await
        .unwrap();
    let text = text_of(&answer);
    assert_eq!(answer.status, 200);
    assert!(
        text.starts_with("POST /api/servers?x=1\n") && text.ends_with("\nhello"),
        "{text}"
    );
    for header in [
        "\"accept\": \"text/plain\"",
        "\"x-request-id\": \"id-7\"",
        "\"x-forwarded-for\": \"192.0.2.1\"",
        "\"content-length\": \"5\"",
        "\"host\": \"127.0.0.1:",
    ] {
        assert!(text.contains(header), "{header} in {text}");
    }
    assert!(!text.contains("evil"), "{text}");
}

#[tokio::test]
async fn what_the_grant_does_not_cover_is_denied_and_never_sent() {
    let (server, other) = (Server::http(echo).await, Server::http(echo).await);
    let narrow = HttpGrant {
        paths: vec![PathPattern::parse("/servers/**").unwrap()],
        methods: vec!["GET".into()],
        ..grant(&base(&server))
    };
    let guard = guard(narrow);
    let client = client();
    let absolute = format!("{}/servers/a", base(&other));
    let decimal = format!("http://2130706433:{}/servers/a", other.port());
    let refused = [
        ("POST", "/servers/a"),
        ("get", "/servers/a"),
        ("GET", "/zones"),
        ("GET", "/servers/../zones"),
        ("GET", "/servers/%2e%2e/zones"),
        ("GET", "//servers/a"),
        ("GET", "/servers/a;x"),
        ("GET", &absolute),
        ("GET", &decimal),
        ("GET", "/servers/a\r\nx: y"),
        ("GET", "servers/a"),
        ("GET", ""),
        ("CONNECT", "/servers/a"),
        ("GET", "http://user@127.0.0.1/servers/a"),
    ];
    for (method, target) in refused {
        let answer = send(&client, &guard, request(method, target)).await;
        assert!(
            matches!(answer, Err(UpstreamError::Denied(_))),
            "{method} {target}: {answer:?}"
        );
    }
    assert!(matches!(
        send(
            &client,
            &guard,
            Outgoing {
                slot: "other".into(),
                ..request("GET", "/servers/a")
            }
        )
        .await,
        Err(UpstreamError::Denied(_))
    ));
    assert_eq!((server.connections(), other.connections()), (0, 0));
    send(
        &client,
        &guard,
        request("GET", &format!("{}/servers/a", base(&server))),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_name_that_leads_inside_is_denied_unless_granted() {
    let (server, names) = (Server::http(echo).await, NameServer::start().await);
    names.set("api.example.com", 0, &["127.0.0.1"]);
    let client = client_with(Servers::Fixed(vec![names.address()]), None);
    let url = format!("http://api.example.com:{}", server.port());
    let outside = guard(HttpGrant {
        inside: Inside::default(),
        ..grant(&url)
    });
    assert!(matches!(
        get(&client, &outside).await,
        Err(UpstreamError::Denied(_))
    ));
    assert_eq!(server.connections(), 0);
    assert!(
        text_of(&get(&client, &guard(grant(&url))).await.unwrap())
            .contains("\"host\": \"api.example.com:")
    );
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_decided_again_for_each_connection() {
    let (server, names) = (Server::http(echo).await, NameServer::start().await);
    names.flip(
        "api.example.com",
        0,
        &[&["127.0.0.1"], &["169.254.169.254"]],
    );
    let client = client_with(Servers::Fixed(vec![names.address()]), None);
    let guard = guard(grant(&format!("http://api.example.com:{}", server.port())));
    get(&client, &guard).await.unwrap();
    eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    // The kept connection leads where it led; a new one is decided by the new answer.
    get(&client, &guard).await.unwrap();
    guard.replace(rights(slot(grant(&format!(
        "http://api.example.com:{}",
        server.port()
    )))));
    let answer = get(&client, &guard).await;
    assert!(
        matches!(answer, Err(UpstreamError::Denied(_))),
        "{answer:?}"
    );
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn redirects_are_answers() {
    let server = answering(
        b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let answer = get(&client(), &guard(grant(&base(&server)))).await.unwrap();
    assert_eq!(answer.status, 302);
    assert!(
        answer
            .headers
            .contains(&("location".into(), "http://169.254.169.254/".into()))
    );
}

#[tokio::test]
async fn answers_beyond_the_limits_are_refused() {
    static LONG_HEAD: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000)).into_bytes()
    });
    static MANY: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(1_000)).into_bytes()
    });
    let unhttp: [&'static [u8]; 6] = [
        &LONG_HEAD,
        &MANY,
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ];
    for bytes in unhttp {
        let server = answering(bytes).await;
        let answer = get(&client(), &guard(grant(&base(&server)))).await;
        assert!(
            matches!(answer, Err(UpstreamError::Protocol(_))),
            "{}: {answer:?}",
            String::from_utf8_lossy(&bytes[..40.min(bytes.len())])
        );
    }
    let server = Server::http(|_| async { ok(vec![0; 1001]) }).await;
    let small = |response| {
        guard(HttpGrant {
            response,
            ..grant(&base(&server))
        })
    };
    assert!(matches!(
        get(&client(), &small(1000)).await,
        Err(UpstreamError::Protocol(_))
    ));
    assert_eq!(get(&client(), &small(1001)).await.unwrap().body.len(), 1001);
}

#[tokio::test]
async fn slow_servers_cost_the_time_out_and_no_more() {
    let silent = Server::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        std::future::pending().await
    })
    .await;
    let dripping = Server::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            .await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for server in [silent, dripping] {
        let guard = guard(HttpGrant {
            timeout: Duration::from_millis(300),
            ..grant(&base(&server))
        });
        let started = Instant::now();
        let answer = get(&client(), &guard).await;
        assert!(
            matches!(answer, Err(UpstreamError::Timeout(300))),
            "{answer:?}"
        );
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn a_plugin_may_shorten_the_time_out_but_not_stretch_it() {
    let server = Server::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        std::future::pending().await
    })
    .await;
    let guard = guard(HttpGrant {
        timeout: Duration::from_millis(300),
        ..grant(&base(&server))
    });
    for (asked, given) in [(100, 100), (10_000, 300)] {
        let answer = send(
            &client(),
            &guard,
            Outgoing {
                timeout: Some(asked),
                ..request("GET", "/")
            },
        )
        .await;
        assert!(
            matches!(answer, Err(UpstreamError::Timeout(ms)) if ms == given),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn an_unreachable_server_is_told_as_such() {
    let server = Server::raw(|stream, _| async move {
        let _ = stream.set_zero_linger();
        drop(stream);
    })
    .await;
    let answer = get(&client(), &guard(grant(&base(&server)))).await;
    assert!(
        matches!(answer, Err(UpstreamError::Unreachable(_))),
        "{answer:?}"
    );
    let url = base(&server);
    drop(server);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let answer = get(&client(), &guard(grant(&url))).await;
    assert!(
        matches!(&answer, Err(UpstreamError::Unreachable(text)) if text.contains("refused")),
        "{answer:?}"
    );
    let names = NameServer::start().await;
    let client = client_with(Servers::Fixed(vec![names.address()]), None);
    let answer = get(&client, &guard(grant("http://nowhere.example.com"))).await;
    assert!(
        matches!(&answer, Err(UpstreamError::Unreachable(text)) if text.contains("does not resolve")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_secret_is_filled_into_its_header_and_the_plugin_cannot_set_it() {
    let server = Server::http(echo).await;
    let injection = |value: &str| Injection {
        header: "authorization".into(),
        prefix: "Bearer ".into(),
        slot: "token".into(),
        secret: SecretGrant {
            source: SecretSource::Value(value.into()),
            format: SecretFormat::Raw,
            algorithm: None,
            key_name: None,
            access: SecretAccess::Use,
        },
    };
    let filled = guard(HttpGrant {
        inject: vec![injection("s3cr3t")],
        ..grant(&base(&server))
    });
    let outgoing = Outgoing {
        headers: vec![("Authorization".into(), "Bearer mine".into())],
        ..request("GET", "/")
    };
    let answer = send(&client(), &filled, outgoing).await.unwrap();
    // The server shows what it got with `{:?}`; sensitive marks do not cross the wire.
    assert!(
        text_of(&answer).contains("\"authorization\": \"Bearer s3cr3t\"")
            && !text_of(&answer).contains("mine")
    );
    for unusable in ["", "a\nb"] {
        let broken = guard(HttpGrant {
            inject: vec![injection(unusable)],
            ..grant(&base(&server))
        });
        let answer = get(&client(), &broken).await;
        assert!(
            matches!(&answer, Err(UpstreamError::Denied(text)) if !text.contains("a\nb")),
            "{answer:?}"
        );
    }
}
