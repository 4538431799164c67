//! The control socket, `control.sock` in the state directory: how `bulkhead`'s commands talk to a running host.
//!
//! Only the user the host runs as, and root, may use it: the file's mode says so and the peer's identity is checked on every
//! connection. It serves what the admin listener serves and the changes besides:
//!
//! | request | |
//! |---|---|
//! | `GET /policy/denials` | [`DenialView`](super::control::DenialView)s |
//! | `GET /policy/NAME/explain` | [`Explanation`](super::control::Explanation) |
//! | `POST /policy/NAME/allow` `{"line": ".."}` | [`Done`](super::control::Done) |
//! | `POST /plugins/NAME/approve` `{"digest": ".." or null}` | `Done` |
//! | `POST /plugins/NAME/rollback` `{}` | `Done` |
//!
//! What fails answers `{"error": ".."}`.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Path as Named, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

use super::admin;
use super::control::{Control, ControlError};
use crate::telemetry::metrics::Metrics;

/// Its name in the state directory.
pub const FILE: &str = "control.sock";

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another host answers there.
    #[error("another bulkhead is running with this state directory: it answers at {path}", path = .path.display())]
    AlreadyRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen at {path}: {source}", path = .path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system says; a path over 107 bytes is too long for a socket.
        source: io::Error,
    },
}

/// A bound control socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: OwnersOnly,
    file: SocketFile,
}

impl ControlSocket {
    /// Binds `control.sock` in the state directory, taking over one that a dead host left behind. Needs a tokio runtime.
    pub fn bind(state: &Path) -> Result<Self, SocketError> {
        let path = state.join(FILE);
        let problem = |source| SocketError::Bind {
            path: path.clone(),
            source,
        };
        let listener = match UnixListener::bind(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if std::os::unix::net::UnixStream::connect(&path).is_ok() {
                    return Err(SocketError::AlreadyRunning { path });
                }
                fs::remove_file(&path).map_err(problem)?;
                UnixListener::bind(&path).map_err(problem)?
            }
            bound => bound.map_err(problem)?,
        };
        // The state directory is closed to others already; the mode tells the same to whoever looks.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(problem)?;
        Ok(Self {
            listener: OwnersOnly(listener),
            file: SocketFile(path),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.0
    }

    /// Serves until `stop` is done.
    pub async fn serve(
        self,
        router: Router,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let Self { listener, file } = self;
        let result = axum::serve(listener, router)
            .with_graceful_shutdown(stop)
            .await;
        drop(file);
        result
    }
}

/// Everything the control socket answers.
pub fn router(metrics: Arc<Metrics>, control: Arc<dyn Control>) -> Router {
    let changes = Router::new()
        .route(
            "/policy/denials",
            get(async |State(control): State<Arc<dyn Control>>| Json(control.denials())),
        )
        .route("/policy/{name}/explain", get(explain))
        .route("/policy/{name}/allow", post(allow))
        .route("/plugins/{name}/approve", post(approve))
        .route("/plugins/{name}/rollback", post(rollback))
        .with_state(Arc::clone(&control));
    admin::router(metrics, control).merge(changes)
}

/// The body of `approve`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Approval {
    /// The file that is meant, if it matters.
    pub digest: Option<String>,
}

/// The body of `allow`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Allowance {
    /// A line of TOML for the policy file.
    pub line: String,
}

/// The body of every failure.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What is wrong, for the operator.
    pub error: String,
}

async fn explain(State(control): State<Arc<dyn Control>>, Named(name): Named<String>) -> Response {
    answer(control.explain(&name))
}

async fn allow(
    State(control): State<Arc<dyn Control>>,
    Named(name): Named<String>,
    Json(body): Json<Allowance>,
) -> Response {
    answer(control.allow(name, body.line).await)
}

async fn approve(
    State(control): State<Arc<dyn Control>>,
    Named(name): Named<String>,
    Json(body): Json<Approval>,
) -> Response {
    answer(control.approve(name, body.digest).await)
}

async fn rollback(State(control): State<Arc<dyn Control>>, Named(name): Named<String>) -> Response {
    answer(control.rollback(name).await)
}

/// The one place where a control error becomes HTTP.
fn answer<T: Serialize>(result: Result<T, ControlError>) -> Response {
    let error = match result {
        Ok(value) => return Json(value).into_response(),
        Err(error) => error,
    };
    let status = match error {
        ControlError::UnknownPlugin(_) => StatusCode::NOT_FOUND,
        ControlError::Refused(_) => StatusCode::CONFLICT,
        ControlError::Invalid(_) => StatusCode::BAD_REQUEST,
        ControlError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (
        status,
        Json(Failure {
            error: error.to_string(),
        }),
    )
        .into_response()
}

/// Accepts connections of the host's own user and of root; hangs up on everybody else.
#[derive(Debug)]
struct OwnersOnly(UnixListener);

impl axum::serve::Listener for OwnersOnly {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
            match stream.peer_cred() {
                Ok(peer)
                    if peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw() =>
                {
                    return (stream, address);
                }
                Ok(peer) => {
                    tracing::warn!(uid = peer.uid(), "control socket: hung up on another user")
                }
                Err(error) => tracing::warn!(%error, "control socket: hung up on an unknown user"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already, or the next start takes it over.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use axum::body::Body;
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use http::{Method, Request};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::api::control::{
        DenialView, Done, Explanation, NeedView, PluginState, PluginView, PortView, Unready,
    };

    /// A host with one pending plugin, `tftp`.
    #[derive(Default)]
    pub(crate) struct Fixture {
        pub(crate) unready: Vec<Unready>,
    }

    impl Fixture {
        fn known(plugin: &str) -> Result<(), ControlError> {
            if plugin == "tftp" {
                Ok(())
            } else {
                Err(ControlError::UnknownPlugin(plugin.into()))
            }
        }
    }

    impl Control for Fixture {
        fn unready(&self) -> Vec<Unready> {
            self.unready.clone()
        }
        fn plugins(&self) -> Vec<PluginView> {
            vec![PluginView {
                name: "tftp".into(),
                version: "0.1.0".into(),
                digest: "sha256:00".into(),
                origin: "bundled".into(),
                state: PluginState::Pending,
                reason: Some("no grant for files.root".into()),
                mounts: vec!["/tftp".into()],
                missing: vec![],
                warnings: vec![],
                previous: None,
            }]
        }
        fn ports(&self) -> Vec<PortView> {
            vec![]
        }
        fn explain(&self, plugin: &str) -> Result<Explanation, ControlError> {
            Self::known(plugin)?;
            let need = NeedView {
                capability: "files".into(),
                slot: "root".into(),
                access: "read-write".into(),
                reason: "boot menus".into(),
                required: true,
                granted: Some("/srv/tftp".into()),
                used: 7,
                denied: 0,
            };
            Ok(Explanation {
                plugin: plugin.into(),
                digest: "sha256:00".into(),
                policy: "policies/tftp.toml".into(),
                without: None,
                sentence: "tftp may read and write what lies below /srv/tftp; nothing else.".into(),
                needs: vec![need],
                warnings: vec![],
            })
        }
        fn denials(&self) -> Vec<DenialView> {
            vec![]
        }
        fn approve(
            &self,
            plugin: String,
            digest: Option<String>,
        ) -> BoxFuture<'_, Result<Done, ControlError>> {
            async move {
                Self::known(&plugin)?;
                match digest.as_deref() {
                    None | Some("sha256:00") => Ok(Done {
                        message: "approved".into(),
                    }),
                    Some(_) => Err(ControlError::Refused("another file waits".into())),
                }
            }
            .boxed()
        }
        fn rollback(&self, _: String) -> BoxFuture<'_, Result<Done, ControlError>> {
            async { Err(ControlError::Failed("disk".into())) }.boxed()
        }
        fn allow(&self, _: String, line: String) -> BoxFuture<'_, Result<Done, ControlError>> {
            async move {
                if line.contains('=') {
                    Ok(Done { message: line })
                } else {
                    Err(ControlError::Invalid("not TOML".into()))
                }
            }
            .boxed()
        }
    }

    async fn ask(method: Method, path: &str, body: &str) -> (StatusCode, String) {
        let router = router(Metrics::new("0.1.0"), Arc::new(Fixture::default()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json");
        let response = router
            .oneshot(request.body(Body::from(body.to_owned())).unwrap())
            .await
            .unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn each_control_error_has_its_status_and_says_why() {
        for (path, body, status, answer) in [
            (
                "/plugins/tftp/approve",
                r#"{"digest":null}"#,
                StatusCode::OK,
                r#"{"message":"approved"}"#,
            ),
            (
                "/plugins/tftp/approve",
                r#"{"digest":"sha256:11"}"#,
                StatusCode::CONFLICT,
                r#"{"error":"another file waits"}"#,
            ),
            (
                "/plugins/nope/approve",
                r#"{"digest":null}"#,
                StatusCode::NOT_FOUND,
                r#"{"error":"there is no plugin `nope`"}"#,
            ),
            (
                "/plugins/tftp/rollback",
                "{}",
                StatusCode::INTERNAL_SERVER_ERROR,
                r#"{"error":"disk"}"#,
            ),
            (
                "/policy/tftp/allow",
                r#"{"line":"x"}"#,
                StatusCode::BAD_REQUEST,
                r#"{"error":"not TOML"}"#,
            ),
            (
                "/policy/tftp/allow",
                r#"{"line":"a = 1"}"#,
                StatusCode::OK,
                r#"{"message":"a = 1"}"#,
            ),
        ] {
            assert_eq!(
                ask(Method::POST, path, body).await,
                (status, answer.to_owned()),
                "{path}"
            );
        }
        assert_eq!(
            ask(Method::GET, "/policy/denials", "").await,
            (StatusCode::OK, "[]".into())
        );
        assert_eq!(
            ask(Method::GET, "/policy/tftp/explain", "").await.0,
            StatusCode::OK
        );
        assert_eq!(
            ask(Method::GET, "/policy/nope/explain", "").await.0,
            StatusCode::NOT_FOUND
        );
    }

    #[tokio::test]
    async fn the_socket_is_its_owners_alone_and_vanishes_with_the_host() {
        let state = tempfile::tempdir().unwrap();
        let socket = ControlSocket::bind(state.path()).unwrap();
        let path = socket.path().to_owned();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let router = router(Metrics::new("0.1.0"), Arc::new(Fixture::default()));
        let serving = tokio::spawn(socket.serve(router, async {
            let _ = stopped.await;
        }));
        assert!(UnixStream::connect(&path).await.is_ok());
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_hosts_socket_is_taken_over_and_a_living_ones_is_not() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(FILE);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(
            path.exists(),
            "a plain drop leaves the file, like a killed host"
        );
        let living = ControlSocket::bind(state.path()).unwrap();
        let error = ControlSocket::bind(state.path()).unwrap_err();
        assert!(
            matches!(error, SocketError::AlreadyRunning { .. }),
            "{error}"
        );
        assert!(living.path().exists());
    }
}
