//! The HTTP client against real servers on loopback.

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
        methods: vec!["GET".into(), "POST".into()],
        paths: vec![PathPattern::any()],
        tls: TlsGrant::default(),
        inject: Vec::new(),
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(2),
        response: 1 << 20,
        connections: 8,
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
async fn connections_are_kept_for_the_same_plugin_only() {
    let server = Server::http(echo).await;
    let client = client();
    let one = guard(grant(&base(&server)));
    let two = Guard::new(
        &HostRules::new(Deny::default()),
        Effective {
            plugin: "two".into(),
            ..rights(slot(grant(&base(&server))))
        },
    );
    for _ in 0..10 {
        get(&client, &one).await.unwrap();
        eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    }
    assert_eq!(server.connections(), 1);
    get(&client, &two).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_changed_policy_closes_idle_connections() {
    let server = Server::http(echo).await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    get(&client, &guard).await.unwrap();
    eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    guard.replace(rights(|_| {}));
    eventually("the idle connection is closed", || {
        client.shared.pools.idle() == 0
    })
    .await;
    assert!(matches!(
        get(&client, &guard).await,
        Err(UpstreamError::Denied(_))
    ));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn idle_connections_are_closed_in_time() {
    let server = Server::http(echo).await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    get(&client, &guard).await.unwrap();
    eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    assert_eq!(client.shared.pools.idle(), 0);
}

/// Answers the first request of each connection, closes at the second one without a word.
async fn closing_at_the_second() -> (Server, Arc<AtomicUsize>) {
    let heads = Arc::new(AtomicUsize::new(0));
    let seen = heads.clone();
    let server = Server::raw(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            if read_head(&mut stream).await {
                seen.fetch_add(1, Ordering::SeqCst);
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                    .await;
                if read_head(&mut stream).await {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    })
    .await;
    (server, heads)
}

#[tokio::test]
async fn a_stale_connection_costs_a_repeatable_request_nothing() {
    let (server, _) = closing_at_the_second().await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    for _ in 0..5 {
        assert_eq!(get(&client, &guard).await.unwrap().body, b"hi");
        eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    }
    assert_eq!(server.connections(), 5);
}

#[tokio::test]
async fn a_request_that_may_have_arrived_is_not_sent_twice() {
    let (server, heads) = closing_at_the_second().await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    get(&client, &guard).await.unwrap();
    eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    let answer = send(&client, &guard, request("POST", "/")).await;
    assert!(
        matches!(answer, Err(UpstreamError::Unreachable(_))),
        "{answer:?}"
    );
    assert_eq!(heads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_older_connection_is_not_trusted_with_what_cannot_be_repeated() {
    let (server, _) = closing_at_the_second().await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    get(&client, &guard).await.unwrap();
    eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    tokio::time::sleep(super::YOUTH + Duration::from_millis(100)).await;
    assert_eq!(
        send(&client, &guard, request("POST", "/"))
            .await
            .unwrap()
            .body,
        b"hi"
    );
    assert_eq!(server.connections(), 2);
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

async fn tls_client(names: &NameServer) -> Upstream {
    names.set("api.example.com", 60, &["127.0.0.1"]);
    names.set("other.example.com", 60, &["127.0.0.1"]);
    client_with(Servers::Fixed(vec![names.address()]), None)
}

#[tokio::test]
async fn a_server_is_believed_by_its_ca_and_name_only() {
    let (authority, stranger, names) = (
        Authority::new(),
        Authority::new(),
        NameServer::start().await,
    );
    let server = Server::https(authority.server("api.example.com", false), echo).await;
    let client = tls_client(&names).await;
    let to = |name: &str, ca: Option<std::path::PathBuf>| {
        let tls = TlsGrant { ca, identity: None };
        guard(HttpGrant {
            tls,
            ..grant(&format!("https://{name}:{}", server.port()))
        })
    };
    assert_eq!(
        get(&client, &to("api.example.com", Some(authority.ca())))
            .await
            .unwrap()
            .status,
        200
    );
    for wrong in [
        to("api.example.com", Some(stranger.ca())),
        to("other.example.com", Some(authority.ca())),
        to("127.0.0.1", Some(authority.ca())),
        to("api.example.com", Some("/nonexistent".into())),
    ] {
        let answer = get(&client, &wrong).await;
        assert!(matches!(answer, Err(UpstreamError::Tls(_))), "{answer:?}");
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn the_client_certificate_is_shown_where_granted() {
    let (authority, names) = (Authority::new(), NameServer::start().await);
    let server = Server::https(authority.server("api.example.com", true), echo).await;
    let client = tls_client(&names).await;
    let with = |identity| {
        guard(HttpGrant {
            tls: TlsGrant {
                ca: Some(authority.ca()),
                identity,
            },
            ..grant(&format!("https://api.example.com:{}", server.port()))
        })
    };
    assert_eq!(
        get(&client, &with(Some(authority.identity("proxy"))))
            .await
            .unwrap()
            .status,
        200
    );
    let answer = get(&client, &with(None)).await;
    assert!(matches!(answer, Err(UpstreamError::Tls(_))), "{answer:?}");
    let answer = get(&client, &with(Some(Authority::new().identity("stranger")))).await;
    assert!(matches!(answer, Err(UpstreamError::Tls(_))), "{answer:?}");
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
            matches!(&answer, Err(UpstreamError::Protocol(text)) if !text.contains("a\nb")),
            "{answer:?}"
        );
    }
}

fn foreman_slot(allow: &str, timeout: Duration) -> impl FnOnce(&mut Effective) {
    let allow = vec![MethodPath::parse(allow).unwrap()];
    move |effective| {
        effective.foreman.insert(
            "f".into(),
            Slot::new(ForemanGrant {
                allow,
                timeout,
                response: 1 << 20,
                connections: 4,
            }),
        );
    }
}

#[tokio::test]
async fn foreman_is_asked_with_the_hosts_identity_below_its_url() {
    let (authority, names) = (Authority::new(), NameServer::start().await);
    let server = Server::https(authority.server("foreman.example.com", true), echo).await;
    names.set("foreman.example.com", 60, &["127.0.0.1"]);
    let foreman = Foreman {
        url: BaseUrl::parse(&format!(
            "https://foreman.example.com:{}/foreman",
            server.port()
        ))
        .unwrap(),
        trust: Trust {
            ca: Some(authority.ca()),
            identity: Some(authority.identity("proxy")),
            verify: true,
        },
        connect_timeout: Duration::from_secs(2),
    };
    let client = client_with(Servers::Fixed(vec![names.address()]), Some(foreman));
    let guard = guard_with(foreman_slot("GET /register", Duration::from_secs(5)));
    let ask = |method: &str, target: &str| Outgoing {
        slot: "f".into(),
        ..request(method, target)
    };
    let answer = client
        .send(
            &guard,
            Kind::Foreman,
            &Via::default(),
            ask("GET", "/register?a=b"),
        )
        .await
        .unwrap();
    assert!(text_of(&answer).starts_with("GET /foreman/register?a=b\n"));
    for (method, target) in [
        ("POST", "/register"),
        ("GET", "/api/hosts"),
        ("GET", "/register/%2e%2e/api"),
        ("GET", "https://elsewhere/register"),
    ] {
        let answer = client
            .send(&guard, Kind::Foreman, &Via::default(), ask(method, target))
            .await;
        assert!(
            matches!(answer, Err(UpstreamError::Denied(_))),
            "{method} {target}: {answer:?}"
        );
    }
    assert_eq!(server.requests(), 1);
    client.set_foreman(None);
    assert!(matches!(
        client
            .send(
                &guard,
                Kind::Foreman,
                &Via::default(),
                ask("GET", "/register")
            )
            .await,
        Err(UpstreamError::Unreachable(_))
    ));
}

fn forward(body: Source) -> Forward {
    Forward {
        slot: "api".into(),
        method: "POST".into(),
        path: "/".into(),
        headers: Vec::new(),
        body,
        keep: Vec::new(),
    }
}

/// A body of `count` pieces of 64 KiB.
fn pieces(count: usize) -> Body {
    let piece = Bytes::from(vec![7u8; 64 * 1024]);
    Body::from_stream(
        futures::stream::iter(0..count).map(move |_| Ok::<_, std::io::Error>(piece.clone())),
    )
}

async fn drain(body: Body) -> Result<usize, axum::Error> {
    let mut total = 0;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        total += piece?.len();
    }
    Ok(total)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_streamed_in_both_directions() {
    let server = Server::http(|request: Request<HyperIncoming>| async move {
        Response::new(Body::new(request.into_body()))
    })
    .await;
    let guard = guard(grant(&base(&server)));
    let answer = client()
        .forward(
            &guard,
            &Via::default(),
            &forward(Source::Incoming),
            Some(pieces(1_000)),
        )
        .await
        .unwrap();
    assert_eq!(drain(answer.into_body()).await.unwrap(), 64_000 * 1024);
}

#[tokio::test]
async fn a_forward_sends_what_the_plugin_says() {
    let server = Server::http(echo).await;
    let guard = guard(grant(&base(&server)));
    let answer = client()
        .forward(
            &guard,
            &Via::default(),
            &forward(Source::Bytes(b"abc".to_vec())),
            None,
        )
        .await
        .unwrap();
    let text = String::from_utf8(
        answer
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap();
    assert!(text.ends_with("\nabc"), "{text}");
    let answer = client()
        .forward(&guard, &Via::default(), &forward(Source::Nothing), None)
        .await
        .unwrap();
    let text = String::from_utf8(
        answer
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap();
    assert!(text.contains("\"content-length\": \"0\""), "{text}");
    assert!(
        client()
            .forward(&guard, &Via::default(), &forward(Source::Incoming), None)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_upload_that_goes_on_is_not_late() {
    let server = Server::http(echo).await;
    let guard = guard(HttpGrant {
        timeout: Duration::from_millis(200),
        response: u64::MAX,
        ..grant(&base(&server))
    });
    let slow = Body::from_stream(futures::stream::iter(0..6).then(|_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
    }));
    client()
        .forward(
            &guard,
            &Via::default(),
            &forward(Source::Incoming),
            Some(slow),
        )
        .await
        .unwrap();
    let stuck = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let answer = client()
        .forward(
            &guard,
            &Via::default(),
            &forward(Source::Incoming),
            Some(stuck),
        )
        .await;
    assert!(
        matches!(answer, Err(UpstreamError::Timeout(200))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_costs_that_request_only() {
    let server = Server::http(echo).await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    let broken = Body::from_stream(futures::stream::iter([
        Ok(Bytes::from_static(b"x")),
        Err(std::io::Error::other("gone")),
    ]));
    assert!(
        client
            .forward(
                &guard,
                &Via::default(),
                &forward(Source::Incoming),
                Some(broken)
            )
            .await
            .is_err()
    );
    get(&client, &guard).await.unwrap();
}

/// A server whose answer never ends.
async fn endless() -> Server {
    Server::http(|_| async {
        let drops = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"drop")), ()))
        });
        Response::new(Body::from_stream(drops))
    })
    .await
}

#[tokio::test]
async fn a_stream_ends_within_a_second_when_its_right_is_taken_away() {
    let server = endless().await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    let answer = client
        .forward(&guard, &Via::default(), &forward(Source::Nothing), None)
        .await
        .unwrap();
    let reading = tokio::spawn(drain(answer.into_body()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!reading.is_finished());
    // A change that leaves this right alone disturbs nothing.
    guard.replace(rights(slot(grant(&base(&server)))));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!reading.is_finished());
    guard.replace(rights(|_| {}));
    let ended = tokio::time::timeout(Duration::from_secs(1), reading)
        .await
        .expect("within a second")
        .unwrap();
    assert!(ended.unwrap_err().to_string().contains("no longer"));
}

#[tokio::test]
async fn a_request_that_waits_for_its_answer_is_denied_when_its_right_is_taken_away() {
    let server = Server::http(|_| std::future::pending::<Response<Body>>()).await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    let waiting = tokio::spawn({
        let (client, guard) = (client.clone(), guard.clone());
        async move { get(&client, &guard).await }
    });
    eventually("the request has arrived", || server.requests() == 1).await;
    guard.replace(rights(|_| {}));
    let answer = tokio::time::timeout(Duration::from_secs(1), waiting)
        .await
        .expect("within a second")
        .unwrap();
    assert!(
        matches!(answer, Err(UpstreamError::Denied(_))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_new_deny_rule_ends_streams_to_its_addresses() {
    let server = endless().await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    let answer = client
        .forward(&guard, &Via::default(), &forward(Source::Nothing), None)
        .await
        .unwrap();
    let reading = tokio::spawn(drain(answer.into_body()));
    let mut deny = Deny::default();
    deny.networks.push("127.0.0.0/8".parse().unwrap());
    guard.host().set_deny(deny);
    let ended = tokio::time::timeout(Duration::from_secs(1), reading)
        .await
        .expect("within a second")
        .unwrap();
    assert!(ended.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_waits_its_turn_on_few_connections() {
    let server = Server::http(|_| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        ok("hi")
    })
    .await;
    let (client, guard) = (
        client(),
        guard(HttpGrant {
            connections: 3,
            ..grant(&base(&server))
        }),
    );
    let answers = futures::future::join_all((0..60).map(|_| get(&client, &guard))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(server.connections() <= 3, "{}", server.connections());
}

#[tokio::test]
async fn waiting_for_a_turn_ends_at_the_deadline() {
    let server = Server::http(|_| std::future::pending::<Response<Body>>()).await;
    let (client, guard) = (
        client(),
        guard(HttpGrant {
            connections: 1,
            timeout: Duration::from_millis(400),
            ..grant(&base(&server))
        }),
    );
    let answers = futures::future::join_all((0..3).map(|_| get(&client, &guard))).await;
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Err(UpstreamError::Timeout(_)))),
        "{answers:?}"
    );
    assert_eq!(server.requests(), 1);
}
