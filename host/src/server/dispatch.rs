//! From an admitted request to the plugin's answer on the wire: the component decides, the host moves the bytes.
//!
//! It refuses what a plugin may not say: statuses that are none, headers of the connection, cookies. Whatever goes wrong in a
//! component reaches the client as a status and a request id; the reason is in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue, SERVER, SET_COOKIE};
use http::{Response, StatusCode};

use super::admitted::{Admitted, Caller, Dispatch, Payload};
use super::answer::{Refusal, halt, spread};
use super::body::BoundedBody;
use crate::capability::upstream::NoAnswer;
use crate::capability::wasi::stdio::LineFate;
use crate::capability::{Facilities, files};
use crate::grant::{Action, Decision};
use crate::plugin::registry::{Registry, Routing};
use crate::plugin::routes::RouteTable;
use crate::plugin::running::Plugin;
use crate::sandbox::bindings::types::{
    Answer, FileAnswer, Forward, Head, Headers, Reply, Request, Verdict,
};
use crate::sandbox::imports::via;
use crate::sandbox::{CallError, Peer};
use crate::telemetry::labels::{Rejection, Trap};

/// Hands admitted requests to the plugins of a registry.
pub struct Plugins {
    registry: Arc<Registry>,
    facilities: Arc<Facilities>,
}

impl Plugins {
    /// For the plugins of this registry.
    #[must_use]
    pub fn new(registry: Arc<Registry>, facilities: Arc<Facilities>) -> Self {
        Self {
            registry,
            facilities,
        }
    }
}

impl Dispatch for Plugins {
    type Routing = Routing;

    fn routing(&self) -> Arc<Routing> {
        self.registry.routing()
    }

    fn table(routing: &Routing) -> &RouteTable {
        &routing.table
    }

    async fn dispatch(
        &self,
        routing: Arc<Routing>,
        request: Admitted,
    ) -> Result<Response<Body>, Refusal> {
        let plugin = routing
            .plugins
            .get(&request.plugin)
            .cloned()
            .ok_or(Refusal::NotReady { retry_after: SOON })?;
        drop(routing);
        let secure = request.caller.origin.starts_with("https:");
        if !(if secure {
            plugin.enabled.https()
        } else {
            plugin.enabled.http()
        }) {
            return Err(Refusal::NotFound);
        }
        Served {
            plugin,
            facilities: self.facilities.clone(),
            peer: peer(&request.caller),
        }
        .answer(request)
        .await
    }
}

/// When a plugin that is starting may be ready.
const SOON: Duration = Duration::from_secs(2);

/// One request and who serves it.
struct Served {
    plugin: Arc<Plugin>,
    facilities: Arc<Facilities>,
    peer: Arc<Peer>,
}

impl Served {
    async fn answer(self, request: Admitted) -> Result<Response<Body>, Refusal> {
        let class = Plugin::class(self.peer.audience);
        let head_only = request.head_only;
        let (body, incoming) = match request.body {
            Payload::Nothing => (Vec::new(), None),
            Payload::Whole(held) => (held.bytes().to_vec(), None),
            Payload::Passed(stream) => {
                let limit = self.plugin.sandbox.limits().forward_body;
                let (stream, exceeded) = BoundedBody::new(stream, limit)?;
                (Vec::new(), Some((Body::new(stream), exceeded)))
            }
        };
        let call = Request {
            method: request.method.to_string(),
            route: request.route,
            path: request.path,
            captures: request.captures,
            query: request.query,
            headers: to_list(&request.headers),
            body,
        };
        let began = Instant::now();
        let answer = self
            .plugin
            .sandbox
            .handle(class, self.peer.clone(), call)
            .await;
        self.plugin.metrics.waited(began.elapsed());
        match answer.map_err(|error| self.refuse(&error))? {
            Answer::Reply(reply) => self.reply(reply),
            Answer::File(file) => self.file(file, &request.headers, head_only).await,
            Answer::Forward(forward) => self.forward(forward, incoming).await,
        }
    }

    fn reply(&self, reply: Reply) -> Result<Response<Body>, Refusal> {
        self.log_error(reply.status, &String::from_utf8_lossy(&reply.body));
        let mut response = self.head(
            Head {
                status: reply.status,
                headers: reply.headers,
            },
            Body::from(Bytes::from(reply.body)),
        )?;
        response.headers_mut().remove(CONTENT_LENGTH);
        Ok(response)
    }

    async fn file(
        &self,
        answer: FileAnswer,
        headers: &HeaderMap,
        head_only: bool,
    ) -> Result<Response<Body>, Refusal> {
        match &self.plugin.sandbox.surroundings().access {
            Some(access) => Ok(files::answer(access, answer, headers, head_only)
                .await
                .unwrap_or_else(|refusal| {
                    self.log_error(refusal.status().as_u16(), &refusal.to_string());
                    halt(
                        refusal.status(),
                        refusal.to_string(),
                        headers.get(http::header::ACCEPT),
                    )
                })),
            None => Err(self.misbehaved("it has no files".into())),
        }
    }

    async fn forward(
        &self,
        forward: Forward,
        incoming: Option<(Body, Arc<AtomicBool>)>,
    ) -> Result<Response<Body>, Refusal> {
        let (incoming, exceeded) = incoming.unzip();
        if forward.keep.len() > MAX_KEEP {
            return Err(self.misbehaved(format!(
                "`forward.keep` has {} bytes, at most {MAX_KEEP} are allowed",
                forward.keep.len()
            )));
        }
        let class = Plugin::class(self.peer.audience);
        let via = via(Some(&self.peer));
        let waiting = self.plugin.metrics.forwarding();
        let got = self
            .facilities
            .upstream
            .forward(&self.plugin.guard, &via, &forward, incoming)
            .await;
        drop(waiting);
        let (head, body) = match got {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                // A cookie of the upstream is for the upstream's own name. Answers here set none, so that passing it on would be denied each time.
                parts.headers.remove(SET_COOKIE);
                let head = Head {
                    status: parts.status.as_u16(),
                    headers: to_list(&parts.headers),
                };
                (Ok((head, parts.headers.get(CONTENT_LENGTH).cloned())), body)
            }
            Err(NoAnswer::Busy {
                reason,
                retry_after,
            }) => {
                self.plugin.metrics.rejected(if reason.contains("no turn") {
                    Rejection::QueueTime
                } else {
                    Rejection::QueueFull
                });
                tracing::warn!(plugin = &*self.plugin.name, reason, "request turned away");
                return Err(Refusal::Busy {
                    retry_after: spread(retry_after),
                });
            }
            // The upstream cannot know why its request broke off; the client is told.
            Err(NoAnswer::Failed(_)) if exceeded.is_some_and(|it| it.load(Ordering::Relaxed)) => {
                return Err(Refusal::BodyTooLarge {
                    limit: self.plugin.sandbox.limits().forward_body,
                });
            }
            Err(NoAnswer::Failed(error)) => (Err(error), Body::empty()),
        };
        let (told, length) = match head {
            Ok((head, length)) => (Ok(head), length),
            Err(error) => (Err(error), None),
        };
        let passable = told.is_ok();
        let verdict = self
            .plugin
            .sandbox
            .on_upstream(class, self.peer.clone(), forward.keep, told)
            .await
            .map_err(|error| self.refuse(&error))?;
        match verdict {
            Verdict::Replace(reply) => self.reply(reply),
            Verdict::Pass(_) if !passable => {
                Err(self.misbehaved("it passes an upstream's answer that there is none of".into()))
            }
            Verdict::Pass(head) => {
                self.log_error(head.status, "the upstream answered so");
                let mut response = self.head(head, body)?;
                // The length is the upstream's own: the body is, too.
                response.headers_mut().remove(CONTENT_LENGTH);
                if let Some(length) = length {
                    response.headers_mut().insert(CONTENT_LENGTH, length);
                }
                Ok(response)
            }
        }
    }

    /// Foreman's users look for the reason of a failed call in the log, so every error that is answered stands there once: by the plugin's own word, or
    /// else by the text that the client gets. These lines count among the plugin's own, since anybody may ask for what is not there.
    fn log_error(&self, status: u16, text: &str) {
        if status < 400 || self.peer.error_logged.load(Ordering::Relaxed) {
            return;
        }
        if let Some(access) = &self.plugin.sandbox.surroundings().access
            && access.lines().take() == LineFate::Drop
        {
            self.plugin.metrics.log_lines_suppressed.inc();
            return;
        }
        let line = text.lines().find(|line| !line.trim().is_empty());
        let line: String = line.unwrap_or_default().chars().take(MAX_REASON).collect();
        tracing::error!(
            plugin = &*self.plugin.name,
            status,
            "{}",
            crate::telemetry::text::printable(&line)
        );
    }

    /// The head a plugin wants, as far as it may say it.
    fn head(&self, head: Head, body: Body) -> Result<Response<Body>, Refusal> {
        let status = StatusCode::from_u16(head.status)
            .ok()
            .filter(|status| (200..600).contains(&status.as_u16()))
            .ok_or_else(|| {
                self.misbehaved(format!("{} is no status to answer with", head.status))
            })?;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        if head.headers.len() > MAX_HEADERS {
            return Err(self.misbehaved(format!(
                "{} headers, at most {MAX_HEADERS} are allowed",
                head.headers.len()
            )));
        }
        for (name, value) in head.headers {
            let (Ok(parsed), Ok(value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_str(&value),
            ) else {
                return Err(self.misbehaved(format!(
                    "the header {:?} cannot be sent",
                    crate::telemetry::text::printable(&name)
                )));
            };
            if parsed == CONTENT_LENGTH || parsed == DATE || parsed == SERVER {
                continue;
            }
            if let Decision::Allow = self.plugin.guard.decide(&Action::ResponseHeader {
                name: parsed.as_str(),
            }) {
                response.headers_mut().append(parsed, value);
            }
        }
        Ok(response)
    }

    /// A plugin that says what it may not.
    fn misbehaved(&self, what: String) -> Refusal {
        self.plugin.metrics.trapped(Trap::Answer);
        tracing::error!(
            plugin = &*self.plugin.name,
            reason = what,
            "the plugin's answer is not sent"
        );
        Refusal::Failed {
            request_id: self.peer.request_id.to_string(),
        }
    }

    /// A call that gave no answer.
    fn refuse(&self, error: &CallError) -> Refusal {
        let metrics = &self.plugin.metrics;
        let request_id = || self.peer.request_id.to_string();
        match error {
            CallError::Busy {
                retry_after,
                reason,
            } => {
                metrics.rejected(if reason.contains("queue-time") {
                    Rejection::QueueTime
                } else {
                    Rejection::QueueFull
                });
                tracing::warn!(plugin = &*self.plugin.name, reason, "request turned away");
                Refusal::Busy {
                    retry_after: spread(*retry_after),
                }
            }
            CallError::NotReady(reason) => {
                metrics.rejected(Rejection::NotReady);
                tracing::warn!(plugin = &*self.plugin.name, reason, "request turned away");
                Refusal::NotReady {
                    retry_after: spread(SOON),
                }
            }
            CallError::Deadline(_) => {
                metrics.trapped(Trap::Deadline);
                tracing::error!(plugin = &*self.plugin.name, %error, "call ended");
                Refusal::Deadline {
                    request_id: request_id(),
                }
            }
            CallError::CpuLimit(_) => {
                metrics.trapped(Trap::Cpu);
                tracing::error!(plugin = &*self.plugin.name, %error, "call ended");
                Refusal::Deadline {
                    request_id: request_id(),
                }
            }
            CallError::Trapped { kind, .. } => {
                metrics.trapped(if *kind == "memory" {
                    Trap::Memory
                } else {
                    Trap::Trap
                });
                tracing::error!(plugin = &*self.plugin.name, %error, "call failed");
                Refusal::Failed {
                    request_id: request_id(),
                }
            }
            CallError::Missing(_) | CallError::Denied(_) => {
                metrics.trapped(Trap::Answer);
                tracing::error!(plugin = &*self.plugin.name, %error, "call failed");
                Refusal::Failed {
                    request_id: request_id(),
                }
            }
        }
    }
}

/// Bytes a plugin may keep for `on-upstream`, as `wit/types.wit` says.
const MAX_KEEP: usize = 64 << 10;
/// Characters of an error's text in the log.
const MAX_REASON: usize = 500;
/// Header lines of an answer: what clients accept at least.
const MAX_HEADERS: usize = 100;

fn peer(caller: &Caller) -> Arc<Peer> {
    Arc::new(Peer {
        audience: caller.audience,
        name: caller.name.as_deref().map(str::to_owned),
        address: caller.address.to_string(),
        origin: caller.origin.clone(),
        request_id: caller.request_id.clone(),
        error_logged: Arc::default(),
    })
}

fn to_list(headers: &HeaderMap) -> Headers {
    headers
        .iter()
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect()
}
