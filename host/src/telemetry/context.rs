//! Which request a log line belongs to.
//!
//! A task-local value rather than a tracing span: setting it costs nothing that a request would feel, and a plugin's call, which
//! runs as a task of its own, carries it over with one line:
//!
//! ```
//! use bulkhead::telemetry::context;
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! context::with_request("850ca7f1-0000".into(), async {
//!     let id = context::request_id();
//!     let call = async { assert_eq!(context::request_id().as_deref(), Some("850ca7f1-0000")) };
//!     tokio::spawn(context::carried(id, call)).await.unwrap();
//! })
//! .await;
//! # });
//! ```

use std::future::Future;
use std::sync::Arc;

tokio::task_local! {
    static REQUEST_ID: Arc<str>;
}

/// Runs a future as part of the request with this id. Every event inside is logged with it.
pub async fn with_request<F: Future>(id: Arc<str>, future: F) -> F::Output {
    REQUEST_ID.scope(id, future).await
}

/// Like [`with_request`] for an id that may be missing: work that no request asked for runs as it is.
pub async fn carried<F: Future>(id: Option<Arc<str>>, future: F) -> F::Output {
    match id {
        Some(id) => REQUEST_ID.scope(id, future).await,
        None => future.await,
    }
}

/// The id of the request this task works for.
#[must_use]
pub fn request_id() -> Option<Arc<str>> {
    REQUEST_ID.try_with(Arc::clone).ok()
}
