//! The life of one request, from a complete head to the last byte of its answer.
//!
//! It refuses, in this order: a foreign name or page (trial), a path without a single reading, a path that is nobody's or another
//! audience's (404), a caller who is not who the audience asks for (403), an unknown route (404), a body that is late or too large. Only what
//! passes all of it is [`Admitted`] and reaches a plugin. No component code has any part in these decisions.
//!
//! The one idea: everything a decision needs is gathered once, in [`Arrival`]; nothing later reads the raw request again.

use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, Uri};
use hyper::body::Incoming;
use tower::ServiceExt;

use super::admitted::{Admitted, Caller, Dispatch, Payload};
use super::answer::{Manners, Refusal, spread};
use super::body::{TimedBody, begin, discard, hold};
use super::connection::Connection;
use super::endpoint::Serves;
use super::fronts::{Forwarded, Fronts};
use super::identity::{Identity, Trust, verify};
use super::limits::{FIRST_PART, UNWANTED_BODY};
use super::names::ReverseNames;
use super::outgoing::Paced;
use super::own_names::split_port;
use super::path::NormalPath;
use super::record::{Counts, Record, Recorded, request_id};
use super::shares::Share;
use crate::api::core::CoreApi;
use crate::plugin::routes::{Audiences, Outcome, RouteTable};
use crate::sandbox::bindings::types::{Audience, BodyMode};
use crate::telemetry::context;
use crate::telemetry::labels::Rejection;
use crate::telemetry::metrics::Metrics;

/// Below these the host itself answers, on every listener but the admin one; the paths below `/v2` and `/logs` to Foreman only.
const CORE_MOUNTS: [(&str, Audience); 4] = [
    ("/features", Audience::Public),
    ("/version", Audience::Public),
    ("/v2", Audience::Foreman),
    (LOGS, Audience::Foreman),
];
/// The host's own feature.
const LOGS: &str = "/logs";
/// Headers about one connection, not about the request (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
/// The longest host name with port: 255 bytes of name, a colon and five digits.
const MAX_HOST: usize = 261;

/// What an operator can change while the server runs.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Who is Foreman.
    pub trust: Trust,
    /// Whose word about client addresses counts.
    pub fronts: Fronts,
    /// The `Server` header, `foreman-proxy/<Smart Proxy version>`.
    pub server: HeaderValue,
}

/// What a server is made of.
pub struct ServerParts<D> {
    /// Hands requests to plugins.
    pub dispatch: D,
    /// Answers below the core mounts, once audience and identity were checked.
    pub core: Arc<CoreApi>,
    /// Answers everything on admin listeners.
    pub admin: Router,
    /// The rules to begin with.
    pub rules: Rules,
    /// Looks up names of addresses.
    pub resolver: Box<dyn ReverseNames>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// Serves requests of all listeners.
pub struct Server<D> {
    dispatch: D,
    core: Arc<CoreApi>,
    admin: Router,
    rules: ArcSwap<Rules>,
    resolver: Box<dyn ReverseNames>,
    counts: Arc<Counts>,
}

/// A request as far as decisions need it.
struct Arrival {
    path: NormalPath,
    query: String,
    identity: Identity,
    /// `https://proxy.example.com:8443`.
    origin: String,
    parts: Parts,
}

impl<D: Dispatch> Server<D> {
    /// Puts the parts together.
    pub fn new(parts: ServerParts<D>) -> Self {
        Self {
            dispatch: parts.dispatch,
            core: parts.core,
            admin: parts.admin,
            rules: ArcSwap::from_pointee(parts.rules),
            resolver: parts.resolver,
            counts: Arc::new(Counts::new(parts.metrics)),
        }
    }

    /// Puts other rules in force, for the next request on.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        self.counts.metrics()
    }

    /// Answers one request.
    pub(super) async fn serve(
        self: Arc<Self>,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<Paced<Recorded>>, Infallible> {
        let id = request_id(request.headers());
        let response = self.respond(&connection, request, id.clone());
        let response = context::with_request(id, response).await;
        Ok(response.map(|body| Paced::new(body, connection.outgoing.clone())))
    }

    async fn respond(
        &self,
        connection: &Connection,
        request: Request<Incoming>,
        id: Arc<str>,
    ) -> Response<Recorded> {
        let (mut parts, body) = request.into_parts();
        let rules = self.rules();
        let forwarded = rules.fronts.take(connection.peer.ip(), &mut parts.headers);
        let listener = connection.metrics.clone();
        let mut record = Record::begin(
            self.counts.clone(),
            listener,
            &parts,
            forwarded.address,
            id.clone(),
        );
        let host = sent_to(&parts, &forwarded);
        let host_name = host
            .as_ref()
            .ok()
            .and_then(Option::as_deref)
            .map(|host| split_port(host).0);
        let manners = Manners::of(
            parts.version,
            &parts.headers,
            host_name.unwrap_or_default(),
            &id,
        );
        let accept = parts.headers.get(header::ACCEPT).cloned();
        let has_body = !hyper::body::Body::is_end_stream(&body);
        let outcome = match host.and_then(|host| arrive(connection, parts, host, forwarded)) {
            Ok(arrival) => {
                self.answer(connection, &rules, arrival, body, &mut record)
                    .await
            }
            Err(refusal) => Err(refusal),
        };
        // After a refusal nobody reads the body, so the connection cannot go on.
        let closing = connection.is_closing() || (has_body && outcome.is_err());
        let response = outcome.unwrap_or_else(|refusal| {
            record.refused(&refusal);
            refusal.into_response(accept.as_ref())
        });
        record.answered(manners.finish(response, &rules.server, closing))
    }

    /// Finds who answers, checks that this caller may ask, then asks.
    async fn answer(
        &self,
        connection: &Connection,
        rules: &Rules,
        arrival: Arrival,
        body: Incoming,
        record: &mut Record,
    ) -> Result<Response<Body>, Refusal> {
        let served = match connection.endpoint.serves {
            Serves::Admin => return Ok(ask(&self.admin, arrival).await),
            Serves::Audiences(served) => served,
        };
        let path = arrival.path.as_str();
        for (mount, audience) in CORE_MOUNTS {
            let Some(rest) = below(path, mount) else {
                continue;
            };
            if audience == Audience::Foreman && !served.contains(audience) {
                return Err(Refusal::NotFound);
            }
            // Not served is not mounted: 404 without a look at the caller.
            if mount == LOGS && !self.core.serves_logs(arrival.origin.starts_with("https:")) {
                return Err(Refusal::NotFound);
            }
            record.is_for(None, audience);
            self.identify(connection, rules, &arrival, audience, rest)
                .await?;
            return Ok(self
                .core
                .answer(&arrival.parts.method, path, &arrival.query));
        }
        let routing = self.dispatch.routing();
        let route = self
            .choose(
                connection,
                rules,
                D::table(&routing),
                served,
                &arrival,
                record,
            )
            .await?;
        let trusted =
            route.audience == Audience::Foreman || rules.fronts.contains(arrival.identity.address);
        let client = (!trusted).then_some(arrival.identity.address);
        let memory = connection.memory.of(client);
        let body = receive(connection, body, route.body, route.whole_body_limit, memory)
            .await
            .map_err(|refusal| self.bodies_full(connection, &route.plugin, refusal))?;
        let head_only = arrival.parts.method == Method::HEAD;
        let mut headers = arrival.parts.headers;
        strip_hop_by_hop(&mut headers);
        let admitted = Admitted {
            plugin: route.plugin,
            route: route.index,
            method: if head_only {
                Method::GET
            } else {
                arrival.parts.method
            },
            head_only,
            path: arrival.path.into_string(),
            captures: route.captures,
            query: arrival.query,
            headers,
            body,
            caller: Caller {
                audience: route.audience,
                name: route.caller,
                address: arrival.identity.address,
                origin: arrival.origin,
                request_id: record.id().clone(),
                listener: connection.endpoint.name.clone(),
            },
        };
        self.dispatch.dispatch(routing, admitted).await
    }

    /// Looks the route up and checks the caller. The 404 of an unknown path below a mount comes after the 403.
    async fn choose(
        &self,
        connection: &Connection,
        rules: &Rules,
        table: &RouteTable,
        served: Audiences,
        arrival: &Arrival,
        record: &mut Record,
    ) -> Result<Chosen, Refusal> {
        let path = arrival.path.as_str();
        match table.lookup(arrival.parts.method.as_str(), path, served) {
            Outcome::Unknown | Outcome::ForeignAudience => Err(Refusal::NotFound),
            Outcome::UnderMount {
                plugin,
                mount,
                audience,
            } => {
                record.is_for(Some(plugin.clone()), audience);
                let rest = below(path, mount).unwrap_or_default();
                self.identify(connection, rules, arrival, audience, rest)
                    .await?;
                Err(Refusal::NotFound)
            }
            Outcome::Matched(route) => {
                record.is_for(Some(route.plugin.clone()), route.audience);
                let rest = below(path, route.mount).unwrap_or_default();
                let captures = route
                    .captures
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
                let caller = self
                    .identify(connection, rules, arrival, route.audience, rest)
                    .await?;
                if route.audience != Audience::Foreman {
                    self.charge(connection, rules, arrival, route.plugin)?;
                }
                Ok(Chosen {
                    plugin: route.plugin.clone(),
                    index: route.route,
                    audience: route.audience,
                    captures: captures.collect(),
                    body: route.body,
                    whole_body_limit: route.whole_body_limit,
                    caller,
                })
            }
        }
    }

    /// The caller's verified name, if the caller is who the audience asks for. `rest`: the path below the mount.
    async fn identify(
        &self,
        connection: &Connection,
        rules: &Rules,
        arrival: &Arrival,
        audience: Audience,
        rest: &str,
    ) -> Result<Option<Arc<str>>, Refusal> {
        let rest = if rest.is_empty() { "/" } else { rest };
        let plain = connection.endpoint.plain_foreman;
        Ok(verify(
            &arrival.identity,
            audience,
            &rules.trust,
            plain,
            &*self.resolver,
            rest,
        )
        .await?)
    }
}

impl<D: Dispatch> Server<D> {
    /// Counts a request that is not Foreman's. A front that names no client stands for all of them.
    fn charge(
        &self,
        connection: &Connection,
        rules: &Rules,
        arrival: &Arrival,
        plugin: &str,
    ) -> Result<(), Refusal> {
        let address = arrival.identity.address;
        if rules.fronts.contains(address) {
            return Ok(());
        }
        connection.rates.charge(address).map_err(|early| {
            self.metrics()
                .plugin(plugin)
                .rejected(Rejection::ClientRate);
            Refusal::TooOften {
                retry_after: spread(early),
            }
        })
    }

    /// Tells of a body for which the listener had no memory left; other refusals pass.
    fn bodies_full(&self, connection: &Connection, plugin: &str, refusal: Refusal) -> Refusal {
        let Refusal::Busy { retry_after } = refusal else {
            return refusal;
        };
        self.metrics()
            .plugin(plugin)
            .rejected(Rejection::HeldBodies);
        let listener = &connection.endpoint.name;
        tracing::warn!(plugin, %listener, reason = "`held_bodies` of the listener is in use", "request turned away");
        Refusal::Busy {
            retry_after: spread(retry_after),
        }
    }
}

/// A matched route and its caller, freed from the table.
struct Chosen {
    plugin: Arc<str>,
    index: u32,
    audience: Audience,
    captures: Vec<(String, String)>,
    body: BodyMode,
    whole_body_limit: u64,
    caller: Option<Arc<str>>,
}

/// Gathers what decisions need, and refuses what has no single reading.
fn arrive(
    connection: &Connection,
    parts: Parts,
    host: Option<String>,
    forwarded: Forwarded,
) -> Result<Arrival, Refusal> {
    let secure = connection.endpoint.tls.is_some();
    let scheme = if secure { "https" } else { "http" };
    let port = connection.local.port();
    if let Some(own) = &connection.endpoint.own_names
        && !own.admit(host.as_deref(), &parts.headers, scheme, port)
    {
        return Err(Refusal::NotOwnName);
    }
    if !parts.uri.path().starts_with('/') {
        // `OPTIONS *` and `CONNECT host:port` name no resource.
        return Err(Refusal::NotFound);
    }
    let path = NormalPath::parse(parts.uri.path())?;
    let scheme = forwarded.scheme.unwrap_or(scheme);
    let host = host.unwrap_or_else(|| connection.local.to_string());
    Ok(Arrival {
        path,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        identity: Identity {
            address: forwarded.address,
            fronted: forwarded.fronted,
            secure,
            certificate: connection.certificate.clone(),
        },
        origin: format!("{scheme}://{host}"),
        parts,
    })
}

/// Does with a body what the route says.
async fn receive(
    connection: &Connection,
    body: Incoming,
    mode: BodyMode,
    limit: u64,
    memory: Share,
) -> Result<Payload, Refusal> {
    let limits = &connection.endpoint.limits;
    let timed = |time| TimedBody::new(body, limits.body_idle, time);
    match mode {
        BodyMode::None => {
            discard(timed(limits.body_time), UNWANTED_BODY).await?;
            Ok(Payload::Nothing)
        }
        BodyMode::Whole => {
            let held = hold(timed(limits.body_time), limit, memory);
            Ok(Payload::Whole(held.await?))
        }
        BodyMode::Passed => {
            let passed = timed(limits.passed_body_time);
            let begun = begin(passed, FIRST_PART, limits.body_time, memory);
            Ok(Payload::Passed(Body::new(begun.await?)))
        }
    }
}

/// Lets the host's own API answer. It gets the normalised path, and no body: nothing of it takes one.
async fn ask(router: &Router, arrival: Arrival) -> Response<Body> {
    let escaped =
        percent_encoding::utf8_percent_encode(arrival.path.as_str(), percent_encoding::CONTROLS)
            .to_string();
    let target = if arrival.query.is_empty() {
        escaped
    } else {
        format!("{escaped}?{}", arrival.query)
    };
    let Ok(uri) = Uri::try_from(target) else {
        return Refusal::NotFound.into_response(None);
    };
    let mut parts = arrival.parts;
    parts.uri = uri;
    let Ok(response) = router
        .clone()
        .oneshot(Request::from_parts(parts, Body::empty()))
        .await;
    response
}

/// The host and port a request was sent to: of an absolute target, else of the one `Host` header; behind a front what that said.
/// HTTP/1.1 needs exactly one.
fn sent_to(parts: &Parts, forwarded: &Forwarded) -> Result<Option<String>, Refusal> {
    let mut given = parts.headers.get_all(header::HOST).iter();
    let (first, second) = (given.next(), given.next());
    if second.is_some() {
        return Err(Refusal::Malformed("the Host header is given twice"));
    }
    if first.is_none() && parts.version == http::Version::HTTP_11 {
        return Err(Refusal::Malformed("the Host header is missing"));
    }
    let target = parts
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let host = forwarded
        .host
        .as_ref()
        .map(HeaderValue::as_bytes)
        .or(target)
        .or(first.map(HeaderValue::as_bytes));
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return Ok(None);
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_~:[]".contains(byte);
    let text = std::str::from_utf8(host)
        .ok()
        .filter(|_| host.len() <= MAX_HOST && host.iter().all(plain));
    text.map(|host| Some(host.to_ascii_lowercase()))
        .ok_or(Refusal::Malformed("the Host header is not a host name"))
}

/// What of `path` lies below `mount`; the empty text for the mount itself.
fn below<'p>(path: &'p str, mount: &str) -> Option<&'p str> {
    path.strip_prefix(mount)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Removes headers that concern this connection only, among them those that `Connection` names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    #[test]
    fn headers_of_the_connection_go_no_further() {
        let mut all = headers(&[
            ("connection", "keep-alive, X-Private"),
            ("connection", "te"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut all);
        assert_eq!(all, headers(&[("accept", "*/*")]));
    }

    fn host(
        target: &str,
        pairs: &[(&'static str, &'static str)],
        front: Option<&'static str>,
    ) -> Result<Option<String>, Refusal> {
        let mut request = Request::builder().uri(target).body(()).unwrap();
        *request.headers_mut() = headers(pairs);
        let forwarded = Forwarded {
            address: [192, 0, 2, 1].into(),
            fronted: front.is_some(),
            scheme: None,
            host: front.map(HeaderValue::from_static),
        };
        sent_to(&request.into_parts().0, &forwarded)
    }

    #[test]
    fn a_request_names_exactly_one_host() {
        assert_eq!(
            host("/a", &[("host", "Proxy.example.com:8443")], None),
            Ok(Some("proxy.example.com:8443".to_owned()))
        );
        assert_eq!(
            host("/a", &[("host", "[2001:db8::1]:80")], None),
            Ok(Some("[2001:db8::1]:80".to_owned()))
        );
        assert_eq!(
            host("http://b.example.com/a", &[("host", "c")], None),
            Ok(Some("b.example.com".to_owned()))
        );
        assert_eq!(
            host("/a", &[("host", "inner")], Some("outer.example.com")),
            Ok(Some("outer.example.com".to_owned()))
        );
        assert!(host("/a", &[], None).is_err());
        assert!(host("/a", &[("host", "a"), ("host", "a")], None).is_err());
        for bad in ["a/b", "a b", "a@b", "a,b", "\"a\"", "<a>"] {
            assert!(host("/a", &[("host", bad)], None).is_err(), "{bad}");
        }
    }
}
