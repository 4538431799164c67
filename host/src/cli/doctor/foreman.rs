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

/// Why Foreman said nothing, and what to do.
#[derive(Debug)]
struct Failed {
    found: String,
    advice: &'static str,
}

impl Failed {
    /// It was not reached.
    fn on_the_way(reason: impl std::fmt::Display) -> Self {
        Self {
            found: format!("not reached: {reason}"),
            advice: "look at `url` of [foreman], at the name in DNS, at firewalls between, and whether Foreman runs",
        }
    }

    /// It was reached, and then this happened: told by what TLS says of it, where that is the cause.
    fn in_talking(error: &(dyn std::error::Error + 'static)) -> Self {
        use rustls::CertificateError as Wrong;
        let (found, advice) = match tls_cause(error) {
            None => return Self::on_the_way(chain(error)),
            Some(cause @ rustls::Error::AlertReceived(_)) => (
                format!("reached, and refuses the proxy's certificate: {cause}"),
                "its web server has to trust the CA that signed `certificate` of [foreman] (Apache: `SSLCACertificateFile`), and that has to be in force",
            ),
            Some(cause @ rustls::Error::InvalidCertificate(wrong)) => (
                format!("reached, and not trusted: {cause}"),
                match wrong {
                    Wrong::Expired
                    | Wrong::ExpiredContext { .. }
                    | Wrong::NotValidYet
                    | Wrong::NotValidYetContext { .. } => {
                        "have Foreman's certificate renewed, unless it is this machine's clock that is wrong"
                    }
                    Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => {
                        "write into `url` of [foreman] a name that its certificate is made for, or have it made for this one"
                    }
                    _ => {
                        "name in `ca` of [foreman] the file with the CA that signed Foreman's certificate"
                    }
                },
            ),
            Some(cause) => (
                format!("reached, but no TLS came about: {cause}"),
                "look whether `url` of [foreman] names the port of Foreman's web server, and what that logs",
            ),
        };
        Self { found, advice }
    }
}

/// What TLS says, wherever in the error it stands.
fn tls_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What an I/O error wraps is not its source.
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(|it| it.get_ref());
        if let Some(found) = wrapped.and_then(|it| it.downcast_ref()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
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
    let late = format!("no answer within {} s", PATIENCE.as_secs());
    let said = said.unwrap_or_else(|_| Err(Failed::on_the_way(late)));
    match said {
        Err(failed) => vec![Finding::problem(
            Area::Foreman,
            url,
            failed.found,
            failed.advice,
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

async fn ask(foreman: &Foreman) -> Result<Said, Failed> {
    let url = &foreman.url;
    let host = url
        .host_str()
        .ok_or_else(|| Failed::on_the_way("its URL has no host"))?
        .to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let plain = host.trim_matches(['[', ']']).to_owned();
    let stream = tokio::time::timeout(
        foreman.connect_timeout,
        TcpStream::connect((plain.as_str(), port)),
    );
    let stream = stream
        .await
        .map_err(|_| Failed::on_the_way(format!("{host}:{port} does not answer")))?
        .map_err(|error| Failed::on_the_way(format!("{host}:{port}: {error}")))?;
    if url.scheme() != "https" {
        return exchange(stream, url, None).await;
    }
    let trust = foreman_trust(foreman);
    let client = Arc::new(TlsClients::default()).get(&trust).await;
    let mut client = (*client.map_err(Failed::on_the_way)?).clone();
    let spy = Arc::new(Spy {
        asked: AtomicBool::new(false),
        inner: client.client_auth_cert_resolver.clone(),
    });
    client.client_auth_cert_resolver = spy.clone();
    let name = ServerName::try_from(plain).map_err(Failed::on_the_way)?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(client))
        .connect(name, stream)
        .await
        .map_err(|error| Failed::in_talking(&error))?;
    exchange(stream, url, Some(spy)).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &url::Url,
    spy: Option<Arc<Spy>>,
) -> Result<Said, Failed> {
    let told = |error: hyper::Error| Failed::in_talking(&error);
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
        .map_err(Failed::on_the_way)?;
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
