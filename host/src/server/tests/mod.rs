//! The server as clients meet it: real sockets on loopback, a recorder where the plugins would be.

mod contract;
mod hostile;
mod secure;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::core::CoreApi;
use crate::api::features::{Features, Snapshot};
use crate::plugin::routes::{Audiences, Claim, RouteTable};
use crate::sandbox::bindings::types::{Audience, BodyMode, Route};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::ring::LogRing;

/// Longest wait of any test for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Records what plugins would get. Answers depend on the last segment of the path.
#[derive(Default)]
struct Recorder {
    table: Mutex<Arc<RouteTable>>,
    seen: Mutex<Vec<Seen>>,
}

/// One request as a plugin would see it.
#[derive(Debug, Clone)]
struct Seen {
    plugin: String,
    route: u32,
    method: String,
    path: String,
    query: String,
    captures: Vec<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, String>,
    caller: Caller,
}

#[derive(Clone)]
struct Shared(Arc<Recorder>);

impl Dispatch for Shared {
    type Routing = RouteTable;

    fn routing(&self) -> Arc<RouteTable> {
        self.0.table.lock().unwrap().clone()
    }

    fn table(routing: &RouteTable) -> &RouteTable {
        routing
    }

    async fn dispatch(
        &self,
        _: Arc<RouteTable>,
        request: Admitted,
    ) -> Result<Response<Body>, Refusal> {
        let body = match request.body {
            Payload::Nothing => Ok(Bytes::new()),
            Payload::Whole(held) => Ok(held.bytes().clone()),
            Payload::Passed(body) => body
                .collect()
                .await
                .map(|all| all.to_bytes())
                .map_err(|error| error.to_string()),
        };
        let last = request.path.rsplit('/').next().unwrap().to_owned();
        self.0.seen.lock().unwrap().push(Seen {
            plugin: request.plugin.to_string(),
            route: request.route,
            method: request.method.to_string(),
            path: request.path,
            query: request.query,
            captures: request.captures,
            headers: request.headers,
            body,
            caller: request.caller,
        });
        match last.as_str() {
            "busy" => Err(Refusal::Busy {
                retry_after: Duration::from_secs(7),
            }),
            "failed" => Err(Refusal::Failed {
                request_id: "id-1".to_owned(),
            }),
            "large" => Ok(Response::new(Body::from(vec![b'x'; 64 << 20]))),
            "slow" => {
                tokio::time::sleep(Duration::from_millis(400)).await;
                Ok(Response::new(Body::from("slow but done")))
            }
            "json" => {
                let mut response = Response::new(Body::from("[1]"));
                response
                    .headers_mut()
                    .insert("content-type", HeaderValue::from_static("application/json"));
                Ok(response)
            }
            _ => {
                let mut response = Response::new(Body::from("answered"));
                response.headers_mut().insert(
                    "content-type",
                    HeaderValue::from_static("text/html;charset=utf-8"),
                );
                Ok(response)
            }
        }
    }
}

/// No features at all.
struct Nothing(Arc<Snapshot>);

impl Features for Nothing {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.0.clone()
    }
}

/// A running listener.
struct Site {
    address: SocketAddr,
    recorder: Arc<Recorder>,
    metrics: Arc<Metrics>,
    server: Arc<Server<Shared>>,
    stop: CancellationToken,
    running: JoinHandle<Drained>,
}

/// How a listener differs from the usual one.
struct Setup {
    serves: Serves,
    tls: Option<Arc<Tls>>,
    trust: TrustedHosts,
    plain_foreman: PlainForeman,
    own_names: Option<OwnNames>,
    fronts: Fronts,
    limits: Limits,
    address: &'static str,
    drain: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            serves: Serves::Audiences(Audiences::of(&[Audience::Foreman, Audience::Public])),
            tls: None,
            trust: TrustedHosts::AnyCertificate,
            plain_foreman: PlainForeman::Loopback,
            own_names: None,
            fronts: Fronts::default(),
            limits: Limits::default(),
            address: "127.0.0.1:0",
            drain: Duration::from_secs(5),
        }
    }
}

fn route(method: &str, pattern: &str, audience: Audience, body: BodyMode) -> Route {
    Route {
        method: method.into(),
        pattern: pattern.into(),
        audience,
        body,
    }
}

fn table() -> Arc<RouteTable> {
    let mut table = RouteTable::new();
    let claim = |plugin: &str, routes: Vec<Route>| Claim {
        plugin: plugin.into(),
        mounts: vec![format!("/{plugin}")],
        routes,
        whole_body_limit: 1000,
    };
    let foreman = Audience::Foreman;
    let tftp = vec![
        route("GET", "/tftp/serverName", foreman, BodyMode::None),
        route("POST", "/tftp/:variant/:mac", foreman, BodyMode::Whole),
        route("GET", "/tftp/:variant/:mac", foreman, BodyMode::None),
        route("DELETE", "/tftp/:variant/:mac", foreman, BodyMode::Whole),
    ];
    let boot = vec![
        route("GET", "/boot/*path", Audience::Public, BodyMode::None),
        route("POST", "/boot/upload", Audience::Public, BodyMode::Passed),
        route("POST", "/boot/none", Audience::Public, BodyMode::None),
    ];
    let hosts = vec![route("GET", "/hosts/me", Audience::Host, BodyMode::None)];
    for claim in [
        claim("tftp", tftp),
        claim("boot", boot),
        claim("hosts", hosts),
    ] {
        table.insert(claim).unwrap();
    }
    Arc::new(table)
}

impl Site {
    async fn start(setup: Setup) -> Self {
        let recorder = Arc::new(Recorder {
            table: Mutex::new(table()),
            ..Recorder::default()
        });
        let metrics = Metrics::new("0.1.0");
        let features = Arc::new(Nothing(Arc::new(Snapshot {
            logs: crate::settings::Enabled::Both,
            shown_version: "3.11.0".into(),
            features: Vec::new(),
        })));
        let server = Arc::new(Server::new(ServerParts {
            dispatch: Shared(recorder.clone()),
            core: CoreApi::new(features, Arc::new(LogRing::new(10, 10).unwrap())),
            admin: Router::new().route("/metrics", get(|| async { "numbers" })),
            rules: Rules {
                trust: Trust {
                    hosts: setup.trust,
                    forward_verify: true,
                    lookup_time: LOOKUP_TIME,
                },
                fronts: setup.fronts,
                server: HeaderValue::from_static("foreman-proxy/3.11.0"),
            },
            resolver: Box::new(SystemNames::none()),
            metrics: metrics.clone(),
        }));
        let endpoint = Endpoint {
            name: "test".into(),
            serves: setup.serves,
            tls: setup.tls,
            plain_foreman: setup.plain_foreman,
            own_names: setup.own_names,
            limits: Arc::new(setup.limits),
            threads: tokio::runtime::Handle::current(),
        };
        let listener = Listener::new(
            bind(setup.address.parse().unwrap()).unwrap(),
            endpoint,
            server.clone(),
        );
        let address = listener.local_address().unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(listener.run(Drain {
            stop: stop.clone(),
            time: setup.drain,
        }));
        Self {
            address,
            recorder,
            metrics,
            server,
            stop,
            running,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a new connection and reads until it closes.
    async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        exchange(self.connect().await, bytes.as_ref()).await
    }

    /// Sends one request with these header lines (each ending in CR LF) and returns the answer.
    async fn ask(&self, line: &str, fields: &str) -> Answer {
        let text = self
            .raw(format!(
                "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"
            ))
            .await;
        Answer::parse(&text)
    }

    fn seen(&self) -> Vec<Seen> {
        self.recorder.seen.lock().unwrap().clone()
    }

    /// A number of `/metrics`, by the beginning of its line.
    fn number(&self, begin: &str) -> f64 {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(begin));
        line.map_or(0.0, |line| {
            line.rsplit(' ').next().unwrap().parse().unwrap()
        })
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "never came true: {what}\n{}",
                self.metrics.render()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether an honest client is served in good time.
    async fn serves_honest_clients(&self) {
        let request = "GET /boot/honest HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let text = tokio::time::timeout(Duration::from_secs(2), self.raw(request)).await;
        let text = text.expect("an honest client waits");
        assert!(
            text.starts_with("HTTP/1.1 200 "),
            "{text:?}\n{}",
            self.metrics.render()
        );
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> String {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut all = Vec::new();
    let talk = async {
        tokio::join!(
            async {
                // The server may close before everything is sent: what it answered counts.
                let _ = writer.write_all(bytes).await;
            },
            async {
                let _ = reader.read_to_end(&mut all).await;
            }
        )
    };
    tokio::time::timeout(PATIENCE, talk)
        .await
        .expect("the server neither answers nor closes");
    String::from_utf8_lossy(&all).into_owned()
}

/// One parsed answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        let mut found = lines
            .filter(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value);
        let first = found.next();
        assert!(
            found.next().is_none(),
            "{name} is there twice: {}",
            self.head
        );
        first
    }
}

fn status(text: &str) -> u16 {
    Answer::parse(text).status
}
