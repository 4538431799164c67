//! The core API: `/features`, `/v2/features`, `/version`, `/logs` (contract: core API, sections 3, 4, 6).
//!
//! It answers every other path with the contract's 404. Audience and identity are the server's business: `/v2/features` and
//! `/logs` are Foreman's, the other two anybody's.
//!
//! The one idea: feature documents change rarely and are asked often, so they are rendered once per [`Snapshot`] and
//! answered as shared bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};

use super::features::{FeatureView, Features, Snapshot, State};
use crate::settings::Enabled;
use crate::telemetry::ring::LogRing;

/// Bulkhead's own version, shown beside the Smart Proxy version, where Foreman does not look.
pub const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The paths answered here. No plugin may claim them or anything below them.
pub const PATHS: [&str; 4] = ["/features", "/v2/features", "/version", "/logs"];

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The core API over a source of features and the log ring.
pub struct CoreApi {
    features: Arc<dyn Features>,
    ring: Arc<LogRing>,
    documents: ArcSwapOption<Documents>,
}

/// One snapshot's three documents.
struct Documents {
    of: Arc<Snapshot>,
    names: Bytes,
    details: Bytes,
    versions: Bytes,
}

impl CoreApi {
    /// An API that shows these features and this ring.
    #[must_use]
    pub fn new(features: Arc<dyn Features>, ring: Arc<LogRing>) -> Arc<Self> {
        Arc::new(Self {
            features,
            ring,
            documents: ArcSwapOption::empty(),
        })
    }

    /// Whether `/logs` is served to a client that came over TLS, or not over TLS.
    #[must_use]
    pub fn serves_logs(&self, tls: bool) -> bool {
        let logs = self.features.snapshot().logs;
        if tls { logs.https() } else { logs.http() }
    }

    /// Answers a request whose path is already normalised. Anything unknown gets [`not_found`].
    #[must_use]
    pub fn answer(&self, method: &Method, path: &str, query: &str) -> Response {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return not_found();
        }
        let body = match path {
            "/features" => self.documents().names.clone(),
            "/v2/features" => self.documents().details.clone(),
            "/version" => self.documents().versions.clone(),
            "/logs" | "/logs/" => self.ring.to_json(from_timestamp(query)).into(),
            _ => return not_found(),
        };
        respond(StatusCode::OK, body, *method == Method::HEAD)
    }

    /// The same as an axum router, for a server that wants one.
    pub fn router(self: &Arc<Self>) -> Router {
        let api = Arc::clone(self);
        Router::new().fallback(move |request: Request| {
            let api = Arc::clone(&api);
            async move {
                api.answer(
                    request.method(),
                    request.uri().path(),
                    request.uri().query().unwrap_or_default(),
                )
            }
        })
    }

    fn documents(&self) -> Arc<Documents> {
        let snapshot = self.features.snapshot();
        if let Some(documents) = self.documents.load_full()
            && Arc::ptr_eq(&documents.of, &snapshot)
        {
            return documents;
        }
        let documents = Arc::new(Documents::render(snapshot));
        // Two requests may render the same snapshot at once; either result is right.
        self.documents.store(Some(Arc::clone(&documents)));
        documents
    }
}

impl Documents {
    fn render(of: Arc<Snapshot>) -> Self {
        let shown = of.shown_version.as_str();
        let logs = FeatureView {
            name: "logs".into(),
            version: shown.into(),
            http_enabled: of.logs.http(),
            https_enabled: of.logs.https(),
            state: match of.logs {
                Enabled::Off => State::Disabled,
                Enabled::Both | Enabled::Http | Enabled::Https => State::Running,
            },
            settings: Vec::new(),
            capabilities: Vec::new(),
        };
        // By name, each once: Foreman's list is a JSON object.
        let mut by_name: BTreeMap<&str, &FeatureView> = of
            .features
            .iter()
            .map(|view| (view.name.as_str(), view))
            .collect();
        by_name.insert("logs", &logs);

        let running = || {
            by_name
                .iter()
                .filter(|(_, view)| view.state == State::Running)
        };
        let names: Vec<&str> = running().map(|(name, _)| *name).collect();
        let modules: BTreeMap<&str, &str> = running()
            .map(|(name, view)| (*name, released(&view.version)))
            .collect();
        let details: BTreeMap<&str, Detail<'_>> = by_name
            .iter()
            .map(|(name, view)| (*name, Detail::of(view)))
            .collect();
        let (names, details) = (json(&names), json(&details));
        let versions = json(&Versions {
            version: shown,
            modules,
            bulkhead: OWN_VERSION,
        });
        Self {
            names,
            details,
            versions,
            of,
        }
    }
}

#[derive(Serialize)]
struct Versions<'a> {
    version: &'a str,
    modules: BTreeMap<&'a str, &'a str>,
    bulkhead: &'a str,
}

#[derive(Serialize)]
struct Detail<'a> {
    http_enabled: bool,
    https_enabled: bool,
    settings: Map<String, Value>,
    state: &'static str,
    capabilities: Vec<&'a str>,
}

impl<'a> Detail<'a> {
    fn of(view: &'a FeatureView) -> Self {
        let served = !matches!(view.state, State::Disabled | State::Failed);
        let mut capabilities: Vec<&str> = view.capabilities.iter().map(String::as_str).collect();
        capabilities.sort_unstable();
        capabilities.dedup();
        Self {
            http_enabled: view.http_enabled && served,
            https_enabled: view.https_enabled && served,
            settings: view.settings.iter().cloned().collect(),
            state: view.state.as_str(),
            capabilities,
        }
    }
}

/// Module versions are shown without the mark of an unreleased one (contract: trap 10).
fn released(version: &str) -> &str {
    version.strip_suffix("-develop").unwrap_or(version)
}

/// Seconds, as text; junk or nothing is the beginning of time.
fn from_timestamp(query: &str) -> f64 {
    // Of repeated parameters the last one counts.
    let given = url::form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "from_timestamp")
        .last();
    let seconds = given.and_then(|(_, value)| value.trim().parse::<f64>().ok());
    seconds.filter(|seconds| seconds.is_finite()).unwrap_or(0.0)
}

/// The contract's answer to an unknown path or a wrong method (core API, section 3).
#[must_use]
pub fn not_found() -> Response {
    let mut response = respond(
        StatusCode::NOT_FOUND,
        Bytes::from_static(b"Requested url was not found"),
        false,
    );
    response
        .headers_mut()
        .insert("x-cascade", HeaderValue::from_static("pass"));
    response
}

/// A JSON answer. To HEAD it says how long the body would be and leaves it out.
fn respond(status: StatusCode, body: Bytes, head_only: bool) -> Response {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(if head_only {
        Body::empty()
    } else {
        Body::from(body)
    });
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
    response
}

/// These documents hold text, numbers and string keys only, which always serialise.
fn json(document: &impl Serialize) -> Bytes {
    serde_json::to_vec(document).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use http_body_util::BodyExt;
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;
    use crate::telemetry::record::{Level, Record};

    struct Fixed(ArcSwap<Snapshot>);

    impl Features for Fixed {
        fn snapshot(&self) -> Arc<Snapshot> {
            self.0.load_full()
        }
    }

    fn feature(name: &str, state: State) -> FeatureView {
        FeatureView {
            name: name.into(),
            version: "3.11.0-develop".into(),
            http_enabled: true,
            https_enabled: true,
            state,
            settings: vec![],
            capabilities: vec![],
        }
    }

    fn three() -> Vec<FeatureView> {
        let mut tftp = feature("tftp", State::Failed);
        tftp.settings = vec![("tftp_servername".into(), Value::Null)];
        let mut dhcp = feature("dhcp", State::Running);
        dhcp.settings = vec![("use_provider".into(), json!("dhcp_isc"))];
        dhcp.capabilities = ["b", "a", "b"].map(String::from).to_vec();
        vec![tftp, dhcp, feature("bmc", State::Disabled)]
    }

    fn api_with(features: Vec<FeatureView>) -> (Arc<CoreApi>, Arc<Fixed>, Arc<LogRing>) {
        let snapshot = Snapshot {
            logs: Enabled::Both,
            shown_version: "3.11.0-develop".into(),
            features,
        };
        let source = Arc::new(Fixed(ArcSwap::from_pointee(snapshot)));
        let ring = Arc::new(LogRing::new(10, 10).unwrap());
        (
            CoreApi::new(Arc::clone(&source) as Arc<dyn Features>, Arc::clone(&ring)),
            source,
            ring,
        )
    }

    fn body(response: Response) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let bytes = runtime
            .block_on(response.into_body().collect())
            .unwrap()
            .to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn get(api: &CoreApi, path: &str) -> String {
        body(api.answer(&Method::GET, path, ""))
    }

    #[test]
    fn features_are_the_sorted_names_of_running_ones_and_logs() {
        let (api, ..) = api_with(three());
        assert_eq!(get(&api, "/features"), r#"["dhcp","logs"]"#);
    }

    #[test]
    fn v2_features_lists_every_feature_byte_for_byte() {
        let (api, ..) = api_with(three());
        assert_eq!(
            get(&api, "/v2/features"),
            concat!(
                r#"{"bmc":{"http_enabled":false,"https_enabled":false,"settings":{},"state":"disabled","capabilities":[]},"#,
                r#""dhcp":{"http_enabled":true,"https_enabled":true,"settings":{"use_provider":"dhcp_isc"},"state":"running","capabilities":["a","b"]},"#,
                r#""logs":{"http_enabled":true,"https_enabled":true,"settings":{},"state":"running","capabilities":[]},"#,
                r#""tftp":{"http_enabled":false,"https_enabled":false,"settings":{"tftp_servername":null},"state":"failed","capabilities":[]}}"#,
            )
        );
    }

    #[test]
    fn version_keeps_develop_above_and_drops_it_below() {
        let (api, ..) = api_with(three());
        let document: Value = serde_json::from_str(&get(&api, "/version")).unwrap();
        assert_eq!(
            document,
            json!({"version": "3.11.0-develop", "modules": {"dhcp": "3.11.0", "logs": "3.11.0"}, "bulkhead": OWN_VERSION})
        );
    }

    #[test]
    fn answers_are_json_without_charset() {
        let (api, ..) = api_with(three());
        for path in ["/features", "/v2/features", "/version", "/logs", "/logs/"] {
            let response = api.answer(&Method::GET, path, "");
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(
                response.headers()["content-type"],
                "application/json",
                "{path}"
            );
        }
    }

    #[test]
    fn a_trailing_slash_is_fine_for_logs_only() {
        let (api, ..) = api_with(three());
        for path in [
            "/features/",
            "/v2/features/",
            "/version/",
            "/logs//",
            "/",
            "/v2",
            "/logs/x",
        ] {
            assert_eq!(
                api.answer(&Method::GET, path, "").status(),
                StatusCode::NOT_FOUND,
                "{path}"
            );
        }
    }

    #[test]
    fn a_wrong_method_is_the_same_404_as_an_unknown_path() {
        let (api, ..) = api_with(three());
        for (method, path) in [
            (Method::POST, "/features"),
            (Method::OPTIONS, "/logs"),
            (Method::GET, "/nope"),
        ] {
            let response = api.answer(&method, path, "");
            assert_eq!(response.status(), StatusCode::NOT_FOUND);
            assert_eq!(response.headers()["content-type"], "application/json");
            assert_eq!(response.headers()["x-cascade"], "pass");
            assert_eq!(response.headers().get("allow"), None);
            assert_eq!(body(response), "Requested url was not found");
        }
    }

    #[test]
    fn head_has_the_headers_of_get_and_no_body() {
        let (api, ..) = api_with(three());
        let head = api.answer(&Method::HEAD, "/v2/features", "");
        let get = api.answer(&Method::GET, "/v2/features", "");
        assert_eq!(head.headers(), get.headers());
        assert_eq!(body(head), "");
    }

    #[test]
    fn a_new_snapshot_is_seen_at_once_and_an_old_one_is_not_rendered_twice() {
        let (api, source, _) = api_with(three());
        let first = api.documents();
        assert!(Arc::ptr_eq(&first, &api.documents()));
        source.0.store(Arc::new(Snapshot {
            logs: Enabled::Both,
            shown_version: "3.12.0".into(),
            features: vec![],
        }));
        assert_eq!(get(&api, "/features"), r#"["logs"]"#);
    }

    #[test]
    fn from_timestamp_is_a_float_and_junk_is_the_beginning() {
        for (query, seconds) in [
            ("", 0.0),
            ("from_timestamp=", 0.0),
            ("from_timestamp=junk", 0.0),
            ("from_timestamp=nan", 0.0),
            ("from_timestamp=inf", 0.0),
            ("from_timestamp=1795457991", 1_795_457_991.0),
            ("other=1&from_timestamp=1795457991.6", 1_795_457_991.6),
            ("from_timestamp=1&from_timestamp=2", 2.0),
        ] {
            assert_eq!(
                from_timestamp(query).to_bits(),
                f64::to_bits(seconds),
                "{query}"
            );
        }
    }

    #[test]
    fn logs_are_filtered_by_the_query() {
        let (api, _, ring) = api_with(three());
        ring.push(Arc::new(Record::new(Level::Info, "bulkhead")));
        let all = body(api.answer(&Method::GET, "/logs/", "from_timestamp=0"));
        let none = body(api.answer(&Method::GET, "/logs/", "from_timestamp=99999999999"));
        assert!(
            all.contains("\"timestamp\":") && none.ends_with("\"logs\":[]}"),
            "{all} {none}"
        );
    }

    #[test]
    fn the_router_answers_like_the_api() {
        let (api, ..) = api_with(three());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let request = Request::get("/v2/features").body(Body::empty()).unwrap();
        let routed = runtime.block_on(api.router().oneshot(request)).unwrap();
        assert_eq!(body(routed), get(&api, "/v2/features"));
    }
}
