//! The native side of a comparison: axum routes behind the product's own listener stack, without any sandbox, in the process that serves the
//! components.
//!
//! This program, called again with `serve`, *is* the product: the same library, the same bundled plugins, the same allocator. Beside it, on threads of
//! their own, it serves the native routes. So both sides share one build, one process and one pair of cores, and the load generator stands
//! beside both alike.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{any, get};
use bulkhead::api::core::CoreApi;
use bulkhead::api::features::{Features, Snapshot};
use bulkhead::plugin::registry::Bundled;
use bulkhead::plugin::routes::{Audiences, Claim, RouteTable};
use bulkhead::sandbox::bindings::types::{Audience, BodyMode, Route};
use bulkhead::server::{
    Admitted, Dispatch, Drain, Endpoint, Fronts, LOOKUP_TIME, Limits, Listener, Payload,
    PlainForeman, Refusal, Rules, Server, ServerParts, Serves, SystemNames, Trust, TrustedHosts,
    bind,
};
use bulkhead::telemetry::metrics::Metrics;
use bulkhead::telemetry::ring::LogRing;
use bulkhead_testkit::identity::{Identity, client_config_trusting};
use bulkhead_testkit::{Bulkhead, Configuration, Target};
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The variable with the path of the file that is served as `/native/file`; without it and [`FOREMAN`] there are no native routes.
const FILE: &str = "BULKHEAD_BENCH_FILE";

/// The variable with the directory of the certificates for Foreman; its port is in the file `port` there.
const FOREMAN: &str = "BULKHEAD_BENCH_FOREMAN";

/// The path that is passed on to Foreman.
pub(crate) const PROXY_PATH: &str = "/native/register";

/// What the line begins with that says where the native routes are.
const LISTENS: &str = "native routes at ";

/// Bytes read from the file at a time: as much as the product reads.
const PIECE: usize = 256 * 1024;

/// Starts the product with native routes beside it, and answers the way to these.
pub(crate) fn start(configuration: Configuration, file: &Path) -> (Bulkhead, Target) {
    start_with(configuration, FILE, file)
}

/// The same with a reverse proxy to the Foreman that the configuration names, which listens on this port.
pub(crate) fn start_proxy(configuration: Configuration, foreman: u16) -> (Bulkhead, Target) {
    let port = configuration.scratch.file("tls/port", foreman.to_string());
    let certificates = port.parent().expect("a file is in a directory").to_owned();
    start_with(configuration, FOREMAN, &certificates)
}

fn start_with(configuration: Configuration, variable: &str, path: &Path) -> (Bulkhead, Target) {
    let own = std::env::current_exe().expect("a program has a path");
    let bulkhead = Bulkhead::start(configuration.program(own), &[(variable, path)]);
    let line = bulkhead.log_lines(LISTENS);
    let address = line
        .first()
        .and_then(|line| line.strip_prefix(LISTENS)?.parse().ok());
    let address: SocketAddr = address.unwrap_or_else(|| panic!("it does not say where: {line:?}"));
    (bulkhead, Target::plain(address))
}

/// The product's `main`, if this process was started to be the product or the child in which it compiles.
pub(crate) fn be_the_product_if_asked() -> Option<ExitCode> {
    let command = std::env::args().nth(1)?;
    if !matches!(command.as_str(), "serve" | "compile-component") {
        return None;
    }
    let named = |variable| std::env::var_os(variable).map(PathBuf::from);
    let router = match (named(FILE), named(FOREMAN)) {
        (Some(file), _) => Some(answers(file.into())),
        (None, Some(certificates)) => Some(passing(&certificates)),
        (None, None) => None,
    };
    if let Some(router) = router {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(serve(router));
        });
    }
    let bundled = bulkhead_bundle::PLUGINS
        .iter()
        .map(|it| Bundled {
            name: it.name,
            wasm: it.wasm,
            digest: it.digest,
            policy: it.policy,
        })
        .collect();
    Some(bulkhead::cli::main(bundled))
}

fn answers(file: Arc<Path>) -> Router {
    Router::new()
        .route(
            "/native/json",
            get(async || axum::Json(serde_json::json!({ "answer": "fine" }))),
        )
        .route("/native/file", get(move || send(file.clone())))
}

async fn serve(router: Router) {
    let route = |method: &str, pattern: &str, body| Route {
        method: method.to_owned(),
        pattern: pattern.to_owned(),
        audience: Audience::Public,
        body,
    };
    let mut table = RouteTable::new();
    table
        .insert(Claim {
            plugin: "native".into(),
            mounts: vec!["/native".to_owned()],
            routes: vec![
                route("GET", "/native/json", BodyMode::None),
                route("GET", "/native/file", BodyMode::None),
                route("GET", PROXY_PATH, BodyMode::None),
                route("POST", PROXY_PATH, BodyMode::Passed),
            ],
            whole_body_limit: 0,
        })
        .expect("one plugin disputes nothing");
    let none = Arc::new(Snapshot {
        logs: bulkhead::settings::Enabled::Both,
        shown_version: "3.11.0".to_owned(),
        features: Vec::new(),
    });
    let ring = Arc::new(LogRing::new(10, 10).expect("large enough"));
    let server = Arc::new(Server::new(ServerParts {
        dispatch: Routes {
            table: Arc::new(table),
            router,
        },
        core: CoreApi::new(Arc::new(NoFeatures(none)), ring),
        admin: Router::new(),
        rules: Rules {
            trust: Trust {
                hosts: TrustedHosts::AnyCertificate,
                forward_verify: false,
                lookup_time: LOOKUP_TIME,
            },
            fronts: Fronts::default(),
            server: HeaderValue::from_static("foreman-proxy/3.11.0"),
        },
        resolver: Box::new(SystemNames::none()),
        metrics: Metrics::new("0"),
    }));
    let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = socket.local_addr().expect("a bound socket has an address");
    println!("{LISTENS}{address}");
    let endpoint = Endpoint {
        name: "native".into(),
        serves: Serves::Audiences(Audiences::of(&[Audience::Public])),
        tls: None,
        plain_foreman: PlainForeman::default(),
        own_names: None,
        // One address stands for many clients, as on the other side.
        limits: Arc::new(Limits {
            requests_per_address: 1_000_000,
            request_burst: 1_000_000,
            ..Limits::default()
        }),
        threads: tokio::runtime::Handle::current(),
    };
    let drain = Drain {
        stop: CancellationToken::new(),
        time: Duration::from_secs(1),
    };
    Listener::new(socket, endpoint, server).run(drain).await;
}

/// This side lists nothing to Foreman.
struct NoFeatures(Arc<Snapshot>);

impl Features for NoFeatures {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.0.clone()
    }
}

struct Routes {
    table: Arc<RouteTable>,
    router: Router,
}

impl Dispatch for Routes {
    type Routing = RouteTable;

    fn routing(&self) -> Arc<RouteTable> {
        self.table.clone()
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
            Payload::Passed(body) => body,
            Payload::Nothing | Payload::Whole(_) => Body::empty(),
        };
        let mut asked = Request::builder()
            .method(request.method)
            .uri(request.path)
            .body(body)
            .map_err(|_| Refusal::Malformed("not a request"))?;
        *asked.headers_mut() = request.headers;
        let Ok(response) = self.router.clone().oneshot(asked).await;
        Ok(response)
    }
}

/// A reverse proxy of a few lines: one connection for each request, bodies streamed.
fn passing(certificates: &Path) -> Router {
    let read = |name: &str| {
        std::fs::read_to_string(certificates.join(name)).expect("the testkit wrote it")
    };
    let identity = Identity {
        chain_pem: read("client.pem"),
        key_pem: read("client-key.pem"),
    };
    let tls = TlsConnector::from(client_config_trusting(&read("ca.pem"), Some(&identity)));
    let port = read("port").parse().expect("a port");
    Router::new().route(
        PROXY_PATH,
        any(move |request| {
            let tls = tls.clone();
            async move { pass(&tls, port, request).await.expect("Foreman answers") }
        }),
    )
}

async fn pass(
    tls: &TlsConnector,
    port: u16,
    mut request: Request<Body>,
) -> Result<Response<Body>, Box<dyn std::error::Error>> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    socket.set_nodelay(true)?;
    let stream = tls
        .connect(ServerName::try_from("localhost")?, socket)
        .await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    *request.uri_mut() = Uri::from_static("/register");
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("localhost"));
    Ok(sender.send_request(request).await?.map(Body::new))
}

async fn send(file: Arc<Path>) -> Response<Body> {
    let file = tokio::fs::File::open(file)
        .await
        .expect("the large file is there");
    let length = file
        .metadata()
        .await
        .expect("an open file has a size")
        .len();
    let body = Body::from_stream(ReaderStream::with_capacity(file, PIECE));
    Response::builder()
        .header("content-type", "application/octet-stream")
        .header("content-length", length)
        .body(body)
        .expect("valid headers")
}
