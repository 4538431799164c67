//! The native side of a comparison: axum routes behind the product's own listener stack, without any sandbox, in the process that serves the
//! components.
//!
//! This program, called again with `serve`, *is* the product: the same library, the same bundled plugins, the same allocator. Beside it, on threads of
//! their own, it serves the native routes. So both sides share one build, one process and one pair of cores, and the load generator stands
//! beside both alike.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bulkhead::api::core::CoreApi;
use bulkhead::api::features::{Features, Snapshot};
use bulkhead::plugin::registry::Bundled;
use bulkhead::plugin::routes::{Audiences, Claim, RouteTable};
use bulkhead::sandbox::bindings::types::{Audience, BodyMode, Route};
use bulkhead::server::{
    Admitted, Dispatch, Drain, Endpoint, Fronts, LOOKUP_TIME, Limits, Listener, PlainForeman,
    Refusal, Rules, Server, ServerParts, Serves, SystemNames, Trust, TrustedHosts, bind,
};
use bulkhead::telemetry::metrics::Metrics;
use bulkhead::telemetry::ring::LogRing;
use bulkhead_testkit::{Bulkhead, Configuration, Target};
use http::{HeaderValue, Request, Response};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The variable with the path of the file that is served as `/native/file`; without it there are no native routes.
const FILE: &str = "BULKHEAD_BENCH_FILE";

/// What the line begins with that says where the native routes are.
const LISTENS: &str = "native routes at ";

/// Bytes read from the file at a time: as much as the product reads.
const PIECE: usize = 256 * 1024;

/// Starts the product with native routes beside it, and answers the way to these.
pub(crate) fn start(configuration: Configuration, file: &Path) -> (Bulkhead, Target) {
    let own = std::env::current_exe().expect("a program has a path");
    let bulkhead = Bulkhead::start(configuration.program(own), &[(FILE, file)]);
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
    if let Some(file) = std::env::var_os(FILE).map(PathBuf::from) {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(serve(file.into()));
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
