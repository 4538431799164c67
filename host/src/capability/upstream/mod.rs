//! The `foreman` and `http` capabilities: requests that the host sends for plugins.
//!
//! It refuses what the policy does not name (method, path, server, address), redirects (the plugin asks again and is decided
//! anew), answers beyond the limits, and to keep a stream or connection going under a right that was taken away. It never uses a
//! proxy of the environment.
//!
//! The one idea: decide, wait for a place, take or open a connection to an address that was decided, send once. A second try happens
//! only where the first cannot have reached anybody: on a kept connection that the server had closed.
//!
//! - [`plan`]: the decision, and what will be sent
//! - [`headers`]: which headers pass
//! - [`dial`], [`trust`]: connecting, TLS
//! - [`pool`]: kept connections
//! - [`answers`]: whether there is time left for an answer
//! - [`crate::sandbox::line`]: who waits for one, in turn
//! - [`body`]: streamed bodies

mod answers;
pub mod body;
pub mod dial;
pub(crate) mod error;
pub mod headers;
mod plan;
mod pool;
pub mod trust;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::body::{Body, Bytes};
use futures::FutureExt as _;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use body::{AnswerBody, BodyTimes, Progress, Upload};
use dial::Dialer;
pub use headers::Via;
pub(crate) use plan::decide;
use plan::{Plan, Right};
use pool::{Connection, Place, PoolKey, Pools};
use trust::Trust;

use crate::capability::secrets::KeyRing;
use crate::capability::throttle::Throttle;
use crate::grant::matchers::url::BaseUrl;
use crate::grant::{Action, Guard};
use crate::sandbox::bindings::types::{Forward, Incoming, Outgoing, Source, UpstreamError};
use crate::sandbox::line::Full;

/// How long a streamed answer may stand still.
const BODY_IDLE: Duration = Duration::from_secs(60);

/// How long a streamed answer may take in all: what large images need over slow lines.
const BODY_TOTAL: Duration = Duration::from_secs(3600);

/// How young a kept connection must be for a request that cannot be sent twice: a server that is about to close an idle
/// connection has waited longer than this.
const YOUTH: Duration = Duration::from_secs(1);

/// Why nothing is sent to Foreman when the configuration names none.
pub const NO_FOREMAN: &str = "no Foreman is configured (`[foreman] url`)";

/// Which interface a request comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `foreman.send`, or a forward to a `foreman` slot.
    Foreman,
    /// `http-client.send`, or a forward to a `http` slot.
    Http,
}

/// How the host reaches Foreman.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreman {
    /// Foreman's URL.
    pub url: BaseUrl,
    /// Its CA, and the certificate with which the proxy makes itself known.
    pub trust: Trust,
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
}

/// The host's HTTP client; one a host, cheap to clone.
#[derive(Debug, Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dialer: Dialer,
    pools: Pools,
    ring: Arc<KeyRing>,
    foreman: ArcSwapOption<Foreman>,
    /// Nobody waits for a turn any more.
    stopping: CancellationToken,
    log: Throttle,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub enum NoAnswer {
    /// Nothing was sent: as many requests as may wait for a connection, or its turn did not come in time for an answer.
    Busy {
        /// For the log.
        reason: String,
        /// When it may be tried again.
        retry_after: Duration,
    },
    /// It was sent, or cannot be.
    Failed(UpstreamError),
}

impl From<UpstreamError> for NoAnswer {
    fn from(error: UpstreamError) -> Self {
        NoAnswer::Failed(error)
    }
}

/// A request's body.
enum Outbound {
    /// At hand, can be sent twice.
    Bytes(Bytes),
    /// Streamed from the client.
    Stream(Body),
}

impl Upstream {
    /// A client that connects by `dialer` and fills headers from `ring`.
    pub fn new(dialer: Dialer, ring: Arc<KeyRing>, foreman: Option<Foreman>) -> Self {
        let pools = Pools::new(dialer.io().clone());
        let foreman = ArcSwapOption::from(foreman.map(Arc::new));
        Upstream {
            shared: Arc::new(Shared {
                dialer,
                pools,
                ring,
                foreman,
                stopping: CancellationToken::new(),
                log: Throttle::default(),
            }),
        }
    }

    /// The program stops: whoever waits for a turn is turned away, and who has one may end.
    pub fn turn_away(&self) {
        self.shared.stopping.cancel();
    }

    /// Where Foreman is from now on.
    pub fn set_foreman(&self, foreman: Option<Foreman>) {
        self.shared.foreman.store(foreman.map(Arc::new));
    }

    /// Sends a request with a small body and waits for the whole answer.
    pub async fn send(
        &self,
        guard: &Guard,
        kind: Kind,
        via: &Via,
        request: Outgoing,
    ) -> Result<Incoming, UpstreamError> {
        let mut plan = self.plan(guard, kind, &request.slot, &request.method, &request.target)?;
        if let Some(ms) = request.timeout {
            plan.timeout = plan.timeout.min(Duration::from_millis(ms.into()));
        }
        let late = timeout_of(&plan);
        let limit = plan.response;
        let origin = plan.key.origin.clone();
        let deadline = Instant::now() + plan.timeout;
        let times = BodyTimes {
            idle: plan.timeout,
            total: plan.timeout,
        };
        let answer = self
            .exchange(
                guard,
                plan,
                via,
                &request.headers,
                Outbound::Bytes(request.body.into()),
                times,
                self.shared.dialer.io(),
            )
            .await
            .map_err(|none| match none {
                NoAnswer::Busy { reason, .. } => UpstreamError::Unreachable(reason),
                NoAnswer::Failed(error) => error,
            })?;
        let (head, body) = answer.into_parts();
        let collecting =
            http_body_util::Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX))
                .collect();
        let body = match timeout_at(deadline, collecting).await {
            Err(_) => return Err(late),
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) => {
                return Err(match error.downcast_ref::<body::BodyProblem>() {
                    Some(body::BodyProblem::Revoked(text)) => UpstreamError::Denied(text.clone()),
                    Some(body::BodyProblem::Idle(_) | body::BodyProblem::Endless(_)) => late,
                    Some(problem) => UpstreamError::Unreachable(format!("{origin}: {problem}")),
                    None => UpstreamError::Protocol(format!(
                        "the answer of {origin} is larger than {limit} bytes"
                    )),
                });
            }
        };
        Ok(Incoming {
            status: head.status.as_u16(),
            headers: headers::to_list(&head.headers),
            body: body.to_vec(),
        })
    }

    /// Sends a forward, streaming the client's body if the plugin wants that, and answers as soon as the upstream's head is there.
    /// The slot is a `foreman` slot if there is one of that name, else an `http` slot. A connection that is opened for it lives on the threads
    /// that serve the client: those of hosts work for Foreman's connections no more than hosts do.
    pub async fn forward(
        &self,
        guard: &Guard,
        via: &Via,
        forward: &Forward,
        incoming: Option<Body>,
    ) -> Result<Response<Body>, NoAnswer> {
        let kind = if guard.effective().foreman.contains_key(&forward.slot) {
            Kind::Foreman
        } else {
            Kind::Http
        };
        let plan = self.plan(guard, kind, &forward.slot, &forward.method, &forward.path)?;
        let body = match (&forward.body, incoming) {
            (Source::Incoming, Some(body)) => Outbound::Stream(body),
            (Source::Incoming, None) => {
                return Err(NoAnswer::Failed(UpstreamError::Protocol(
                    "the request's body is not streamed: its route's body mode is not `passed`"
                        .into(),
                )));
            }
            (Source::Bytes(bytes), _) => Outbound::Bytes(bytes.clone().into()),
            (Source::Nothing, _) => Outbound::Bytes(Bytes::new()),
        };
        let times = BodyTimes {
            idle: BODY_IDLE,
            total: BODY_TOTAL,
        };
        Ok(self
            .exchange(
                guard,
                plan,
                via,
                &forward.headers,
                body,
                times,
                &Handle::current(),
            )
            .await?
            .map(Body::new))
    }

    fn plan(
        &self,
        guard: &Guard,
        kind: Kind,
        slot: &str,
        method: &str,
        target: &str,
    ) -> Result<Plan, UpstreamError> {
        Plan::make(
            guard,
            kind,
            slot,
            method,
            target,
            self.shared.foreman.load().as_ref(),
            &self.shared.ring,
        )
    }

    #[allow(clippy::too_many_arguments)] // Each is another thing.
    async fn exchange(
        &self,
        guard: &Guard,
        plan: Plan,
        via: &Via,
        from_plugin: &crate::sandbox::bindings::types::Headers,
        body: Outbound,
        times: BodyTimes,
        io: &Handle,
    ) -> Result<Response<AnswerBody>, NoAnswer> {
        let started = Instant::now();
        let mut headers = headers::of_request(from_plugin, &plan.key.origin.authority(), via)?;
        for (name, value) in &plan.inject {
            headers.insert(name, value.clone());
        }
        let gone = plan.right.clone().gone(guard.clone(), plan.rights.clone());
        let outcome = tokio::select! {
            outcome = self.attempt(guard, &plan, via, headers, body, times, io) => outcome,
            text = gone => Err(NoAnswer::Failed(UpstreamError::Denied(text))),
        };
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let PoolKey {
            plugin,
            slot,
            origin,
            ..
        } = &plan.key;
        match &outcome {
            Ok(answer) => {
                tracing::debug!(target: "upstream", plugin, slot, %origin, method = %plan.method, status = answer.status().as_u16(), milliseconds, "upstream answered")
            }
            // The audit has told it already.
            Err(NoAnswer::Failed(error @ UpstreamError::Denied(_))) => {
                tracing::debug!(target: "upstream", plugin, slot, %origin, method = %plan.method, reason = text(error), "upstream denied")
            }
            // Whoever asked tells it.
            Err(NoAnswer::Busy { .. }) => {}
            Err(NoAnswer::Failed(error)) => {
                if let Some(suppressed) = self.shared.log.pass(plugin) {
                    tracing::warn!(target: "upstream", plugin, slot, %origin, method = %plan.method, milliseconds, error = word(error), reason = text(error), suppressed, "upstream gave no answer");
                }
            }
        }
        outcome
    }

    #[allow(clippy::too_many_arguments)] // Each is another thing.
    async fn attempt(
        &self,
        guard: &Guard,
        plan: &Plan,
        via: &Via,
        headers: HeaderMap,
        body: Outbound,
        times: BodyTimes,
        io: &Handle,
    ) -> Result<Response<AnswerBody>, NoAnswer> {
        let deadline = Instant::now() + plan.timeout;
        let pool = self
            .shared
            .pools
            .get(plan.key.clone(), &plan.rights, plan.connections);
        let busy = |reason: String| NoAnswer::Busy {
            reason,
            retry_after: pool.retry_after(),
        };
        let turn = timeout_at(deadline, pool.place(via.client, plan.queue, io));
        let turn = tokio::select! {
            biased;
            turn = turn => turn,
            () = self.shared.stopping.cancelled() => {
                return Err(busy("no turn before the proxy stops".into()));
            }
        };
        let place = turn
            .map_err(|_| {
                busy(format!(
                    "no turn within the {} ms of `timeout`",
                    plan.timeout.as_millis()
                ))
            })?
            .map_err(|Full| busy(format!("`queue` = {} requests wait already", plan.queue)))?;
        let left = deadline.saturating_duration_since(Instant::now());
        if let Some(needed) = place.too_late(left, plan.timeout) {
            place.unused();
            return Err(busy(format!(
                "no turn in time: {} ms of `timeout` are left, and an answer takes {} ms",
                left.as_millis(),
                needed.as_millis()
            )));
        }
        let (spare, progress, body) = match body {
            Outbound::Bytes(bytes) => (
                is_idempotent(&plan.method).then(|| bytes.clone()),
                None,
                Body::from(bytes),
            ),
            Outbound::Stream(body) => {
                let progress = Progress::start();
                (
                    None,
                    Some(progress.clone()),
                    Body::new(Upload::new(body, progress)),
                )
            }
        };
        let mut request = request(plan, &headers, body)?;
        let youth = if spare.is_some() {
            Duration::MAX
        } else {
            YOUTH
        };
        if let Some(mut connection) = place.idle(youth) {
            match self
                .once(plan, &mut connection, request, deadline, progress.as_ref())
                .await
            {
                Ok(answer) => {
                    return Ok(self.finish(guard, plan, place, connection, answer, times)?);
                }
                // Never written: nobody can have seen it.
                Err(Failure {
                    unsent: Some(unsent),
                    ..
                }) => request = *unsent,
                Err(Failure {
                    error: UpstreamError::Unreachable(error),
                    ..
                }) => match spare {
                    // The server closed while it was being written: asking again does what asking once does.
                    Some(bytes) => request = self::request(plan, &headers, Body::from(bytes))?,
                    None => return Err(UpstreamError::Unreachable(error).into()),
                },
                Err(failure) => {
                    failure.note(&place);
                    return Err(failure.error.into());
                }
            }
        }
        let mut connection = self.connect(guard, plan, &place, deadline).await?;
        let answer = self
            .once(plan, &mut connection, request, deadline, progress.as_ref())
            .await
            .map_err(|failure| {
                failure.note(&place);
                failure.error
            })?;
        Ok(self.finish(guard, plan, place, connection, answer, times)?)
    }

    async fn connect(
        &self,
        guard: &Guard,
        plan: &Plan,
        place: &Place,
        deadline: Instant,
    ) -> Result<Connection, UpstreamError> {
        let PoolKey {
            plugin,
            origin,
            trust,
            ..
        } = &plan.key;
        let decide = |ip, port| match &plan.right {
            Right::Http { slot, .. } => guard
                .decide(&Action::HttpAddress { slot, ip, port })
                .check()
                .map_err(|denial| denial.to_string()),
            // Foreman's address is the operator's own word, in the host's configuration.
            Right::Foreman { .. } => Ok(()),
        };
        let connect_by = deadline.min(Instant::now() + plan.connect_timeout);
        match self
            .shared
            .dialer
            .dial_on(place.io(), plugin, origin, trust, &decide, connect_by)
            .await
        {
            Ok(transport) => place.open(origin, transport).await,
            // Not the server's fault: the time went by while waiting for a place.
            Err(UpstreamError::Unreachable(_)) if Instant::now() >= deadline => {
                Err(timeout_of(plan))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends on one connection and waits for the head.
    async fn once(
        &self,
        plan: &Plan,
        connection: &mut Connection,
        request: Request<Body>,
        deadline: Instant,
        upload: Option<&Progress>,
    ) -> Result<Response<hyper::body::Incoming>, Failure> {
        let origin = &plan.key.origin;
        let sending = connection.sender.try_send_request(request);
        tokio::pin!(sending);
        let mut wait_until = deadline;
        loop {
            tokio::select! {
                outcome = &mut sending => return outcome.map_err(|mut failed| {
                    let unsent = failed.take_message().map(Box::new);
                    Failure { error: error::of_hyper(origin, failed.error()), unsent }
                }),
                () = sleep_until(wait_until) => {
                    // As long as an upload goes on, the upstream is not late.
                    match upload.map(|progress| progress.until(plan.timeout)) {
                        Some(later) if later > Instant::now() => wait_until = later,
                        _ => return Err(Failure { error: timeout_of(plan), unsent: None }),
                    }
                }
            }
        }
    }

    fn finish(
        &self,
        guard: &Guard,
        plan: &Plan,
        place: Place,
        connection: Connection,
        answer: Response<hyper::body::Incoming>,
        times: BodyTimes,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        place.answered();
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(UpstreamError::Protocol(format!(
                "{} switches to another protocol",
                plan.key.origin
            )));
        }
        let gone = plan
            .right
            .at(connection.peer, plan.key.origin.port)
            .gone(guard.clone(), plan.rights.clone())
            .boxed();
        let (mut head, body) = answer.into_parts();
        head.headers = headers::of_answer(head.headers);
        head.extensions.clear();
        Ok(Response::from_parts(
            head,
            AnswerBody::new(body, place, connection, gone, times),
        ))
    }
}

/// A request that failed on one connection.
struct Failure {
    error: UpstreamError,
    /// The request itself, when nothing of it was written.
    unsent: Option<Box<Request<Body>>>,
}

impl Failure {
    /// That nothing came in time says something about how long answers take.
    fn note(&self, place: &Place) {
        if matches!(self.error, UpstreamError::Timeout(_)) {
            place.missed();
        }
    }
}

fn request(plan: &Plan, headers: &HeaderMap, body: Body) -> Result<Request<Body>, UpstreamError> {
    let mut request = Request::new(body);
    *request.method_mut() = plan.method.clone();
    *request.uri_mut() = plan
        .target
        .parse()
        .map_err(|_| UpstreamError::Protocol("the path cannot be sent".into()))?;
    *request.headers_mut() = headers.clone();
    // Servers want to be told of an empty body where they expect one.
    let empty = http_body::Body::is_end_stream(request.body());
    if empty && matches!(plan.method, Method::POST | Method::PUT | Method::PATCH) {
        request.headers_mut().insert(CONTENT_LENGTH, 0.into());
    }
    Ok(request)
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

fn timeout_of(plan: &Plan) -> UpstreamError {
    UpstreamError::Timeout(u32::try_from(plan.timeout.as_millis()).unwrap_or(u32::MAX))
}

/// The kind of an error, for logs and labels.
pub fn word(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Denied(_) => "denied",
        UpstreamError::Timeout(_) => "timeout",
        UpstreamError::Unreachable(_) => "unreachable",
        UpstreamError::Tls(_) => "tls",
        UpstreamError::Protocol(_) => "protocol",
    }
}

/// What an error says, for logs.
pub fn text(error: &UpstreamError) -> &str {
    match error {
        UpstreamError::Denied(text)
        | UpstreamError::Unreachable(text)
        | UpstreamError::Tls(text)
        | UpstreamError::Protocol(text) => text,
        UpstreamError::Timeout(_) => "no answer in time",
    }
}
