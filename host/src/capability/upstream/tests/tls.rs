//! Whom the client believes, and as whom it speaks.

use super::*;

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
        let tls = TlsGrant {
            ca,
            identity: None,
            unverified: false,
        };
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
                unverified: false,
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
                queue: 64,
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
