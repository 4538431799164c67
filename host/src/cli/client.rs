//! Talks to a running host through the control socket in its state directory.
//!
//! One request a connection, one connection a command: commands are short-lived and the host is on the same machine.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::place::Place;
use crate::api::socket::{FILE, Failure};

/// Approving a plugin compiles it, which takes seconds on a small machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Far beyond what any answer needs.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// Why the host did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error(
        "no running bulkhead found: nothing answers at {path}\nIf one runs, name its state directory (--state DIR) or its configuration (--config FILE).",
        path = .path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("not allowed to control the bulkhead at {path}: run this as the user it runs as, or as root", path = .path.display())]
    NotAllowed {
        /// The socket.
        path: PathBuf,
    },
    /// The host understood and refused.
    #[error("{0}")]
    Refused(String),
    /// It did not answer in time.
    #[error("the running bulkhead did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The connection broke, or the answer is none this version understands.
    #[error("the running bulkhead gave no valid answer: {0}")]
    Broken(String),
}

/// A way to the running host.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The host with this configuration or state directory. Does not connect yet.
    pub fn new(place: &Place) -> Result<Self, super::exit::Failure> {
        Ok(Self::at(&place.state_directory()?))
    }

    fn at(state: &Path) -> Self {
        Self {
            socket: state.join(FILE),
        }
    }

    /// Asks.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.exchange(Method::GET, path, Bytes::new())
    }

    /// Changes.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body =
            serde_json::to_vec(body).map_err(|error| ClientError::Broken(error.to_string()))?;
        self.exchange(Method::POST, path, body.into())
    }

    fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| ClientError::Broken(error.to_string()))?;
        let answer = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, self.send(method, path, body)).await
        });
        let (status, body) = answer.map_err(|_| ClientError::Timeout(PATIENCE))??;
        if !status.is_success() {
            let text =
                |body: &[u8]| format!("{status}: {}", crate::telemetry::text::from_bytes(body));
            return Err(match serde_json::from_slice::<Failure>(&body) {
                Ok(failure) => ClientError::Refused(failure.error),
                Err(_) => ClientError::Broken(text(&body)),
            });
        }
        serde_json::from_slice(&body).map_err(|error| ClientError::Broken(error.to_string()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let broken = |error: &dyn std::fmt::Display| ClientError::Broken(error.to_string());
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        ClientError::NotRunning {
                            path: self.socket.clone(),
                        }
                    }
                    io::ErrorKind::PermissionDenied => ClientError::NotAllowed {
                        path: self.socket.clone(),
                    },
                    _ => broken(&error),
                })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(&error))?;
        // Ends by itself with the exchange; its errors arrive there as well.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "bulkhead")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| broken(&error))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT)
            .collect()
            .await;
        Ok((status, body.map_err(|error| broken(&error))?.to_bytes()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::control::{Done, PluginView};
    use crate::api::socket::tests::Fixture;
    use crate::api::socket::{Approval, ControlSocket, router};
    use crate::telemetry::metrics::Metrics;

    /// A host in this process, controlled through a real socket, while `code` runs.
    pub(crate) fn with_host(code: impl FnOnce(&Place)) {
        let state = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let socket = runtime.block_on(async { ControlSocket::bind(state.path()).unwrap() });
        runtime.spawn(socket.serve(
            router(Metrics::new("0.1.0"), Arc::new(Fixture::default())),
            std::future::pending(),
        ));
        code(&Place {
            state: Some(state.path().to_owned()),
            ..Place::default()
        });
    }

    #[test]
    fn questions_and_changes_reach_the_running_host() {
        with_host(|place| {
            let client = Client::new(place).unwrap();
            let plugins: Vec<PluginView> = client.get("/plugins").unwrap();
            assert_eq!(plugins[0].name, "tftp");
            let done: Done = client
                .post("/plugins/tftp/approve", &Approval { digest: None })
                .unwrap();
            assert_eq!(done.message, "approved");
        });
    }

    #[test]
    fn a_refusal_is_told_in_the_hosts_words() {
        with_host(|place| {
            let answer: Result<Done, _> = Client::new(place)
                .unwrap()
                .post("/plugins/nope/approve", &Approval { digest: None });
            assert_eq!(answer.unwrap_err().to_string(), "there is no plugin `nope`");
        });
    }

    #[test]
    fn without_a_running_host_the_error_says_where_it_looked() {
        let error = Client::at(Path::new("/nowhere"))
            .get::<Done>("/plugins")
            .unwrap_err();
        assert!(
            matches!(&error, ClientError::NotRunning { path } if path == Path::new("/nowhere/control.sock")),
            "{error}"
        );
    }
}
