//! The seam between the server and the plugins: what is handed over, and to whom.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Method, Response};

use super::answer::Refusal;
use super::body::HeldBody;
use crate::plugin::routes::RouteTable;
use crate::sandbox::bindings::types::Audience;

/// A request that passed limits, audience, identity and routing.
#[derive(Debug)]
pub struct Admitted {
    /// Who answers.
    pub plugin: Arc<str>,
    /// The index of the matched route in the manifest.
    pub route: u32,
    /// `HEAD` is `GET` here.
    pub method: Method,
    /// The request was `HEAD`: only the head of the answer is sent.
    pub head_only: bool,
    /// The normalised path.
    pub path: String,
    /// What the pattern's `:name` and `*name` matched, in order.
    pub captures: Vec<(String, String)>,
    /// The raw query without `?`.
    pub query: String,
    /// Without hop-by-hop and forwarding headers, names in lower case.
    pub headers: HeaderMap,
    /// As the route's body mode says.
    pub body: Payload,
    /// Who asks.
    pub caller: Caller,
}

/// The body of an admitted request.
#[derive(Debug)]
pub enum Payload {
    /// The route takes none.
    Nothing,
    /// All of it. Keep it alive as long as its bytes are used: it holds a share of the listener's memory.
    Whole(HeldBody),
    /// A stream that ends with an error if the client stops sending. Trailers are dropped.
    Passed(Body),
}

/// Who asks, as far as the host verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The audience the request was admitted for.
    pub audience: Audience,
    /// The verified name, lower case.
    pub name: Option<Arc<str>>,
    /// The client's address; behind a trusted front the one that front reported.
    pub address: IpAddr,
    /// Scheme, host and port the request was sent to.
    pub origin: String,
    /// Sent by the client or made by the host.
    pub request_id: Arc<str>,
    /// The name of the listener it came by.
    pub listener: Arc<str>,
}

/// Whoever hands admitted requests to plugins.
///
/// Routes and the plugins behind them change together: the request is dispatched with the very state it was routed by, so the index of a
/// route never meets another version of its plugin.
pub trait Dispatch: Send + Sync + 'static {
    /// The routes and who answers them at one moment.
    type Routing: Send + Sync + 'static;

    /// The state of this moment.
    fn routing(&self) -> Arc<Self::Routing>;

    /// The routes of that state.
    fn table(routing: &Self::Routing) -> &RouteTable;

    /// Answers one request. Errors become HTTP in `answer.rs`.
    ///
    /// The future may be dropped before it ends, when the connection is given up: work that has to be finished is spawned by the implementation.
    fn dispatch(
        &self,
        routing: Arc<Self::Routing>,
        request: Admitted,
    ) -> impl Future<Output = Result<Response<Body>, Refusal>> + Send;
}
