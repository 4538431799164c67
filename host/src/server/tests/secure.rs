//! TLS: certificates of clients, of the server, and their renewal.

use std::fs;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::*;

struct Secure {
    _state: tempfile::TempDir,
    files: TrialFiles,
    site: Site,
    tls: Arc<Tls>,
}

async fn secure(setup: Setup) -> Secure {
    let state = tempfile::tempdir().unwrap();
    let files = TrialFiles::prepare(state.path(), "").unwrap();
    let tls = Arc::new(Tls::load(files.tls()).unwrap());
    let site = Site::start(Setup {
        tls: Some(tls.clone()),
        ..setup
    })
    .await;
    Secure {
        _state: state,
        files,
        site,
        tls,
    }
}

fn client(ca: &Path, identity: Option<(&Path, &Path)>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
                .unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

impl Secure {
    fn known(&self) -> TlsConnector {
        client(
            &self.files.ca,
            Some((&self.files.client_certificate, &self.files.client_key)),
        )
    }

    fn unknown(&self) -> TlsConnector {
        client(&self.files.ca, None)
    }

    async fn get(&self, connector: TlsConnector, path: &str) -> Answer {
        Self::get_over(self.site.connect().await, connector, path).await
    }

    async fn get_over(stream: TcpStream, connector: TlsConnector, path: &str) -> Answer {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost:1234\r\nConnection: close\r\n\r\n");
        Answer::parse(&exchange(stream, request.as_bytes()).await)
    }
}

#[tokio::test]
async fn foreman_is_a_certificate_with_a_trusted_name() {
    let secure = secure(Setup {
        trust: TrustedHosts::names([TRIAL_CLIENT]),
        ..Setup::default()
    })
    .await;
    assert_eq!(
        secure.get(secure.known(), "/tftp/serverName").await.status,
        200
    );
    let caller = &secure.site.seen()[0].caller;
    assert_eq!(caller.name.as_deref(), Some(TRIAL_CLIENT));
    assert_eq!(caller.origin, "https://localhost:1234");
    assert_eq!(secure.get(secure.known(), "/v2/features").await.status, 200);
    for path in [
        "/tftp/serverName",
        "/tftp/no/such/path",
        "/v2/features",
        "/logs",
    ] {
        let answer = secure.get(secure.unknown(), path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (403, "could not read client cert from environment"),
            "{path}"
        );
    }
    assert_eq!(secure.get(secure.unknown(), "/features").await.status, 200);
    assert_eq!(secure.get(secure.unknown(), "/boot/a").await.status, 200);
}

#[tokio::test]
async fn a_certificate_with_another_name_is_told_which() {
    let secure = secure(Setup {
        trust: TrustedHosts::names(["foreman.example.com"]),
        ..Setup::default()
    })
    .await;
    let answer = secure.get(secure.known(), "/v2/features").await;
    let text = format!(
        "Untrusted client {TRIAL_CLIENT} attempted to access /features. Check :trusted_hosts: in settings.yml"
    );
    assert_eq!((answer.status, answer.body), (403, text));
}

#[tokio::test]
async fn hosts_need_a_certificate_and_no_trusted_name() {
    let serves = Serves::Audiences(Audiences::of(&[Audience::Host]));
    let secure = secure(Setup {
        serves,
        trust: TrustedHosts::names([]),
        ..Setup::default()
    })
    .await;
    assert_eq!(secure.get(secure.known(), "/hosts/me").await.status, 200);
    for path in ["/hosts/me", "/hosts/none"] {
        let answer = secure.get(secure.unknown(), path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (403, "No client SSL certificate supplied")
        );
    }
    assert_eq!(
        secure.get(secure.known(), "/tftp/serverName").await.status,
        404
    );
}

#[tokio::test]
async fn a_certificate_of_another_ca_fails_the_handshake() {
    let secure = secure(Setup::default()).await;
    let other = tempfile::tempdir().unwrap();
    let foreign = TrialFiles::prepare(other.path(), "").unwrap();
    let connector = client(
        &secure.files.ca,
        Some((&foreign.client_certificate, &foreign.client_key)),
    );
    let name = ServerName::try_from("localhost").unwrap();
    let outcome = connector.connect(name, secure.site.connect().await).await;
    // With TLS 1.3 the client learns of it with the first read.
    if let Ok(mut stream) = outcome {
        let _ = stream
            .write_all(b"GET /tftp/serverName HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        assert!(stream.read(&mut [0; 100]).await.is_err());
    }
    secure
        .site
        .until("counted", |site| {
            site.number(
                "bulkhead_connection_rejections_total{listener=\"test\",reason=\"handshake\"}",
            ) == 1.0
        })
        .await;
    assert!(secure.site.seen().is_empty());
}

#[tokio::test]
async fn draining_shakes_hands_with_those_who_had_connected() {
    let secure = secure(Setup::default()).await;
    let stream = secure.site.connect().await;
    secure
        .site
        .until("it is let in", |site| {
            site.number("bulkhead_connections{") == 1.0
        })
        .await;
    secure.site.stop.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = Secure::get_over(stream, secure.unknown(), "/boot/a").await;
    assert_eq!(answer.status, 200);
    assert_eq!(secure.site.running.await.unwrap(), Drained { cut_off: 0 });
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told_so() {
    let secure = secure(Setup::default()).await;
    let answer = Answer::parse(
        &secure
            .site
            .raw("GET /features HTTP/1.1\r\nHost: a\r\n\r\n")
            .await,
    );
    assert_eq!(
        (answer.status, answer.header("connection")),
        (400, Some("close"))
    );
    assert!(answer.body.contains("speaks HTTPS"), "{}", answer.body);
    assert_eq!(secure.site.raw([0u8; 100]).await, "");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_given_up() {
    let limits = Limits {
        handshake: Duration::from_millis(200),
        ..Limits::default()
    };
    let secure = secure(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let began = std::time::Instant::now();
    let (silent, begun) = tokio::join!(secure.site.raw(""), secure.site.raw(b"\x16\x03\x01"));
    assert_eq!((silent.as_str(), begun.as_str()), ("", ""));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn renewed_certificates_are_used_and_open_connections_live_on() {
    let secure = secure(Setup::default()).await;
    let name = ServerName::try_from("localhost").unwrap();
    let mut open = secure
        .known()
        .connect(name, secure.site.connect().await)
        .await
        .unwrap();
    let shown = |connection: &tokio_rustls::client::TlsStream<TcpStream>| {
        connection.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let old = shown(&open);

    fs::remove_file(&secure.files.server_key).unwrap();
    TrialFiles::prepare(secure.files.ca.parent().unwrap().parent().unwrap(), "").unwrap();
    assert!(matches!(secure.tls.refresh(), Reload::Reloaded));

    let name = ServerName::try_from("localhost").unwrap();
    let fresh = secure
        .known()
        .connect(name, secure.site.connect().await)
        .await
        .unwrap();
    assert_ne!(shown(&fresh), old);
    open.write_all(b"GET /tftp/serverName HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status(&exchange(open, b"").await), 200);
}

#[tokio::test]
async fn sessions_are_not_resumed() {
    let secure = secure(Setup::default()).await;
    let connector = secure.known();
    for _ in 0..3 {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector
            .connect(name, secure.site.connect().await)
            .await
            .unwrap();
        stream
            .write_all(b"GET /features HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        assert_eq!(
            stream.get_ref().1.handshake_kind(),
            Some(rustls::HandshakeKind::Full)
        );
    }
}

#[tokio::test]
async fn changed_rules_hold_for_the_next_request() {
    let secure = secure(Setup {
        trust: TrustedHosts::names([TRIAL_CLIENT]),
        ..Setup::default()
    })
    .await;
    assert_eq!(
        secure.get(secure.known(), "/tftp/serverName").await.status,
        200
    );
    secure.site.server.set_rules(Rules {
        trust: Trust {
            hosts: TrustedHosts::names([]),
            forward_verify: true,
            lookup_time: LOOKUP_TIME,
        },
        fronts: Fronts::default(),
        server: HeaderValue::from_static("foreman-proxy/3.12.0"),
    });
    let answer = secure.get(secure.known(), "/tftp/serverName").await;
    assert_eq!(
        (answer.status, answer.header("server")),
        (403, Some("foreman-proxy/3.12.0"))
    );
}

#[tokio::test]
async fn a_client_with_nagles_algorithm_waits_for_no_acknowledgement() {
    let secure = secure(Setup::default()).await;
    let mut best = PATIENCE;
    for _ in 0..5 {
        let began = std::time::Instant::now();
        assert_eq!(secure.get(secure.known(), "/v2/features").await.status, 200);
        best = best.min(began.elapsed());
    }
    assert!(best < Duration::from_millis(35), "a call takes {best:?}");
}
