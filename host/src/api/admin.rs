//! The admin listener: numbers, health and the list of plugins, for monitoring. It changes nothing; that is the control
//! socket's, which has an owner.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};

use super::control::Control;
use crate::telemetry::metrics::{self, Metrics};

/// `/metrics`, `/healthz`, `/readyz`, `/plugins`, `/ports`.
pub fn router(metrics: Arc<Metrics>, control: Arc<dyn Control>) -> Router {
    Router::new()
        .route("/metrics", get(move || numbers(Arc::clone(&metrics))))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route(
            "/plugins",
            get(async |State(control): State<Arc<dyn Control>>| Json(control.plugins())),
        )
        .route(
            "/ports",
            get(async |State(control): State<Arc<dyn Control>>| Json(control.ports())),
        )
        .with_state(control)
}

async fn numbers(metrics: Arc<Metrics>) -> Response {
    (
        [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
        metrics.render(),
    )
        .into_response()
}

/// 200 when every feature that is switched on serves, else 503 with a line for each that does not.
async fn ready(State(control): State<Arc<dyn Control>>) -> Response {
    let unready = control.unready();
    if unready.is_empty() {
        return "ready\n".into_response();
    }
    let mut body = String::new();
    for feature in unready {
        // Writing to a String cannot fail.
        let _ = writeln!(body, "{}: {}", feature.plugin, feature.reason);
    }
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Method, Request};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::api::control::Unready;
    use crate::api::socket::tests::Fixture;

    async fn ask(fixture: Fixture, method: Method, path: &str) -> (StatusCode, String, String) {
        let router = router(Metrics::new("0.1.0"), Arc::new(fixture));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        let response = router.oneshot(request).await.unwrap();
        let kind = response
            .headers()
            .get("content-type")
            .map_or_else(String::new, |kind| kind.to_str().unwrap().to_owned());
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_each_feature_that_does_not_serve_and_why() {
        let (status, _, body) = ask(Fixture::default(), Method::GET, "/readyz").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "ready\n"));
        let unready = vec![Unready {
            plugin: "tftp".into(),
            reason: "no grant for files.root".into(),
        }];
        let (status, _, body) = ask(Fixture { unready }, Method::GET, "/readyz").await;
        assert_eq!(
            (status, body.as_str()),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "tftp: no grant for files.root\n"
            )
        );
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_text() {
        let (status, kind, body) = ask(Fixture::default(), Method::GET, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
        assert!(body.contains("bulkhead_build_info"));
    }

    #[tokio::test]
    async fn the_admin_listener_changes_nothing() {
        for path in [
            "/plugins/tftp/approve",
            "/plugins/tftp/rollback",
            "/policy/tftp/allow",
        ] {
            assert_eq!(
                ask(Fixture::default(), Method::POST, path).await.0,
                StatusCode::NOT_FOUND,
                "{path}"
            );
        }
        assert_eq!(
            ask(Fixture::default(), Method::POST, "/plugins").await.0,
            StatusCode::METHOD_NOT_ALLOWED
        );
    }

    #[tokio::test]
    async fn plugins_are_listed_as_json() {
        let (_, kind, body) = ask(Fixture::default(), Method::GET, "/plugins").await;
        assert_eq!(kind, "application/json");
        assert!(
            body.contains(r#""name":"tftp""#) && body.contains(r#""state":"pending""#),
            "{body}"
        );
    }
}
