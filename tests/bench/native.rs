//! The native side of a comparison: axum routes behind the product's own listener stack, without any sandbox.
//!
//! It runs in a process of its own (this program, called again), as the product does, so that the load generator stands
//! beside both alike.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bulkhead::api::core::CoreApi;
use bulkhead::api::features::{Features, Snapshot};
use bulkhead::plugin::routes::{Audiences, Claim, RouteTable};
use bulkhead::sandbox::bindings::types::{Audience, BodyMode, Route};
use bulkhead::server::{
    Admitted, Dispatch, Drain, Endpoint, Fronts, LOOKUP_TIME, Limits, Listener, PlainForeman,
    Refusal, Rules, Server, ServerParts, Serves, SystemNames, Trust, TrustedHosts, bind,
};
use bulkhead::telemetry::metrics::Metrics;
use bulkhead::telemetry::ring::LogRing;
use bulkhead_testkit::Target;
use http::{HeaderValue, Request, Response};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The first argument that makes this program the native server.
const ROLE: &str = "serve-native";

/// Bytes read from the file at a time: as much as the product reads.
const PIECE: usize = 256 * 1024;

/// The running native server.
pub(crate) struct Native {
    child: Child,
    address: SocketAddr,
}

impl Native {
    /// Starts it; it serves that file as `/native/file`.
    pub(crate) fn start(file: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a program has a path"))
            .arg(ROLE)
            .arg(file)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("it says where it listens");
        let address = line
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("not an address: {line:?}"));
        Self { child, address }
    }

    /// The way in.
    pub(crate) fn target(&self) -> Target {
        Target::plain(self.address)
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // It serves nothing but these measurements.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until killed, if this process was started to.
pub(crate) fn serve_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ROLE {
        return None;
    }
    let file: Arc<Path> = Path::new(&arguments.next()?).into();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(serve(file));
    Some(ExitCode::SUCCESS)
}

async fn serve(file: Arc<Path>) {
    let router = Router::new()
        .route(
            "/native/json",
            get(async || axum::Json(serde_json::json!({ "answer": "fine" }))),
        )
        .route("/native/file", get(move || send(file.clone())));
    let route = |pattern: &str| Route {
        method: "GET".to_owned(),
        pattern: pattern.to_owned(),
        audience: Audience::Public,
        body: BodyMode::None,
    };
    let mut table = RouteTable::new();
    table
        .insert(Claim {
            plugin: "native".into(),
            mounts: vec!["/native".to_owned()],
            routes: vec![route("/native/json"), route("/native/file")],
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
    println!(
        "{}",
        socket.local_addr().expect("a bound socket has an address")
    );
    let endpoint = Endpoint {
        name: "native".into(),
        serves: Serves::Audiences(Audiences::of(&[Audience::Public])),
        tls: None,
        plain_foreman: PlainForeman::default(),
        own_names: None,
        limits: Arc::new(Limits::default()),
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
        let request = Request::builder()
            .method(request.method)
            .uri(request.path)
            .body(Body::empty())
            .map_err(|_| Refusal::Malformed("not a request"))?;
        let Ok(response) = self.router.clone().oneshot(request).await;
        Ok(response)
    }
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
