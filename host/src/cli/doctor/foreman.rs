//! Foreman: reached as the proxy reaches it, with the client certificate; and its clock beside this machine's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::finding::{Area, Finding};
use crate::capability::upstream::trust::TlsClients;
use crate::cli::host::foreman_trust;
use crate::settings::{Config, config::Foreman};

/// For the whole exchange.
const PATIENCE: Duration = Duration::from_secs(15);
/// What a `Date` header cannot tell (whole seconds), and the way there.
const CLOSE: Duration = Duration::from_secs(3);
/// Beyond it certificates and tokens begin to be refused.
const FAR: Duration = Duration::from_secs(60);

/// What Foreman said.
struct Said {
    status: StatusCode,
    date: Option<SystemTime>,
    /// It asked who we are. None: without TLS.
    asked: Option<bool>,
    at: SystemTime,
}

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let Some(foreman) = &config.foreman else {
        return vec![
            Finding::unknown(
                Area::Foreman,
                "[foreman]",
                "the configuration names no Foreman",
                "name its `url`; templates, registration and discovery need it",
            ),
            Finding::unknown(
                Area::Clock,
                "this machine",
                "compared with nobody's clock",
                "with a [foreman] it is compared with Foreman's",
            ),
        ];
    };
    let url = &foreman.url;
    let said = tokio::time::timeout(PATIENCE, ask(foreman)).await;
    let said = said.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())));
    match said {
        Err(reason) => vec![Finding::problem(
            Area::Foreman,
            url,
            format!("not reached: {reason}"),
            "look at `url` and `ca` of [foreman], at the name in DNS, at firewalls between, and whether Foreman runs",
        )],
        Ok(said) => {
            let mut findings = vec![answer(foreman, &said)];
            findings.extend(said.date.map(|date| clock(date, said.at)));
            findings
        }
    }
}

fn answer(foreman: &Foreman, said: &Said) -> Finding {
    let url = &foreman.url;
    let status = said.status;
    if status.is_server_error() {
        return Finding::problem(
            Area::Foreman,
            url,
            format!("answers {status}"),
            "look into Foreman's own log; this proxy is not the cause",
        );
    }
    match said.asked {
        None => Finding::warning(
            Area::Foreman,
            url,
            format!("answers {status}, without encryption"),
            "use https; over plain HTTP Foreman cannot know who asks",
        ),
        Some(false) => Finding::warning(
            Area::Foreman,
            url,
            format!("answers {status}, but asks for no client certificate"),
            "Foreman's web server has to ask (Apache: `SSLVerifyClient optional`), or it refuses what the proxy hands on",
        ),
        Some(true) => Finding::good(
            Area::Foreman,
            url,
            format!("answers {status}, and took the client certificate"),
        ),
    }
}

fn clock(theirs: SystemTime, ours: SystemTime) -> Finding {
    let (apart, word) = match ours.duration_since(theirs) {
        Ok(apart) => (apart, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let found = format!("{} s {word} Foreman's", apart.as_secs());
    let advice = "have chrony or systemd-timesyncd set both clocks; certificates, tokens and DNS signatures depend on them";
    if apart > FAR {
        Finding::problem(Area::Clock, "this machine", found, advice)
    } else if apart > CLOSE {
        Finding::warning(Area::Clock, "this machine", found, advice)
    } else {
        Finding::good(Area::Clock, "this machine", "the same as Foreman's")
    }
}

async fn ask(foreman: &Foreman) -> Result<Said, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let url = &foreman.url;
    let host = url.host_str().ok_or("its URL has no host")?.to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let plain = host.trim_matches(['[', ']']).to_owned();
    let stream = tokio::time::timeout(
        foreman.connect_timeout,
        TcpStream::connect((plain.as_str(), port)),
    );
    let stream = stream
        .await
        .map_err(|_| format!("{host}:{port} does not answer"))?
        .map_err(|error| format!("{host}:{port}: {error}"))?;
    if url.scheme() != "https" {
        return exchange(stream, url, None).await;
    }
    let trust = foreman_trust(foreman);
    let client = Arc::new(TlsClients::default()).get(&trust).await;
    let mut client = (*client.map_err(|error| told(&error))?).clone();
    let spy = Arc::new(Spy {
        asked: AtomicBool::new(false),
        inner: client.client_auth_cert_resolver.clone(),
    });
    client.client_auth_cert_resolver = spy.clone();
    let name = ServerName::try_from(plain).map_err(|error| told(&error))?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(client))
        .connect(name, stream)
        .await
        .map_err(|error| told(&error))?;
    exchange(stream, url, Some(spy)).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &url::Url,
    spy: Option<Arc<Spy>>,
) -> Result<Said, String> {
    let told = |error: hyper::Error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(told)?;
    tokio::spawn(connection);
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    let request = Request::builder()
        .uri(url.path())
        .header(header::HOST, host)
        .header(header::USER_AGENT, "bulkhead doctor")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(told)?;
    let date = answer.headers().get(header::DATE);
    Ok(Said {
        status: answer.status(),
        date: date.and_then(|it| httpdate::parse_http_date(it.to_str().ok()?).ok()),
        asked: spy.map(|it| it.asked.load(Ordering::Relaxed)),
        at: SystemTime::now(),
    })
}

/// Notes whether the server asked for a certificate.
#[derive(Debug)]
struct Spy {
    asked: AtomicBool,
    inner: Arc<dyn ResolvesClientCert>,
}

impl ResolvesClientCert for Spy {
    fn resolve(
        &self,
        hints: &[&[u8]],
        schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.inner.resolve(hints, schemes)
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    #[test]
    fn a_clock_that_is_off_is_told() {
        let now = SystemTime::now();
        for (apart, level, words) in [
            (0, Level::Good, "the same"),
            (20, Level::Warning, "20 s ahead of"),
            (7200, Level::Problem, "7200 s ahead of"),
        ] {
            let found = clock(now - Duration::from_secs(apart), now);
            assert!(
                found.level == level && found.found.contains(words),
                "{found:?}"
            );
        }
        let behind = clock(now + Duration::from_secs(90), now);
        assert!(behind.found.contains("90 s behind"), "{behind:?}");
    }

    #[test]
    fn what_foreman_says_is_judged() {
        let foreman = Foreman {
            url: "https://foreman.example.com".parse().unwrap(),
            ca: None,
            identity: None,
            connect_timeout: PATIENCE,
        };
        let said = |status: u16, asked| Said {
            status: StatusCode::from_u16(status).unwrap(),
            date: None,
            asked,
            at: SystemTime::now(),
        };
        for (said, level) in [
            (said(302, Some(true)), Level::Good),
            (said(200, Some(false)), Level::Warning),
            (said(200, None), Level::Warning),
            (said(503, Some(true)), Level::Problem),
        ] {
            assert_eq!(answer(&foreman, &said).level, level, "{}", said.status);
        }
    }
}
