//! From what a plugin asks to what the host would send: decided, complete, and not yet sent.
//!
//! It refuses, by the guard's one decision, every method, path and URL that the slot's grant does not cover.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use tokio::sync::watch;

use super::dial::Origin;
use super::pool::PoolKey;
use super::trust::Trust;
use super::{Foreman, Kind, NO_FOREMAN};
use crate::capability::secrets::KeyRing;
use crate::grant::effective::{HttpGrant, Injection, TlsGrant};
use crate::grant::matchers::url::TargetUrl;
use crate::grant::{Action, Guard};
use crate::sandbox::bindings::types::UpstreamError;

/// A decided request.
pub(super) struct Plan {
    pub(super) right: Right,
    /// As of before the decision: whatever changes afterwards wakes it.
    pub(super) rights: watch::Receiver<u64>,
    pub(super) key: PoolKey,
    pub(super) method: Method,
    /// Path and query as they go on the wire.
    pub(super) target: String,
    pub(super) inject: Vec<(HeaderName, HeaderValue)>,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    /// Bytes of a body that is handed over whole.
    pub(super) response: u64,
    pub(super) connections: usize,
    /// Requests that may wait for a connection.
    pub(super) queue: usize,
}

/// The right that a request stands on, to be asked again when rights change.
#[derive(Debug, Clone)]
pub(super) enum Right {
    Foreman {
        slot: String,
        method: String,
        path: String,
    },
    Http {
        slot: String,
        method: String,
        url: String,
        address: Option<(IpAddr, u16)>,
    },
}

impl Right {
    pub(super) fn action(&self) -> Action<'_> {
        match self {
            Right::Foreman { slot, method, path } => Action::Foreman { slot, method, path },
            Right::Http {
                slot, method, url, ..
            } => Action::Http { slot, method, url },
        }
    }

    /// The same right, with the address it is used at.
    pub(super) fn at(&self, ip: IpAddr, at_port: u16) -> Self {
        match self.clone() {
            Right::Http {
                slot, method, url, ..
            } => Right::Http {
                slot,
                method,
                url,
                address: Some((ip, at_port)),
            },
            foreman @ Right::Foreman { .. } => foreman,
        }
    }

    fn holds(&self, guard: &Guard) -> bool {
        let address = match self {
            Right::Http {
                slot,
                address: Some((ip, port)),
                ..
            } => guard.still_allows(&Action::HttpAddress {
                slot,
                ip: *ip,
                port: *port,
            }),
            _ => true,
        };
        address && guard.still_allows(&self.action())
    }

    /// Resolves when the right is gone, with a text for logs.
    pub(super) async fn gone(self, guard: Guard, mut rights: watch::Receiver<u64>) -> String {
        loop {
            if rights.changed().await.is_err() || !self.holds(&guard) {
                return format!(
                    "plugin `{}` may no longer {}",
                    guard.plugin(),
                    self.action()
                );
            }
        }
    }
}

impl Plan {
    pub(super) fn make(
        guard: &Guard,
        kind: Kind,
        slot: &str,
        method: &str,
        target: &str,
        foreman: Option<&Arc<Foreman>>,
        ring: &KeyRing,
    ) -> Result<Self, UpstreamError> {
        match kind {
            Kind::Foreman => Self::foreman(guard, slot, method, target, foreman),
            Kind::Http => Self::http(guard, slot, method, target, ring),
        }
    }

    fn foreman(
        guard: &Guard,
        slot: &str,
        method: &str,
        target: &str,
        foreman: Option<&Arc<Foreman>>,
    ) -> Result<Self, UpstreamError> {
        let rights = guard.generation();
        let right = Right::Foreman {
            slot: slot.into(),
            method: method.into(),
            path: target.into(),
        };
        decide(guard, &right.action())?;
        let effective = guard.effective();
        let grant = effective.foreman.get(slot).ok_or_else(|| gone(slot))?;
        let foreman = foreman.ok_or_else(|| UpstreamError::Unreachable(NO_FOREMAN.into()))?;
        let url = foreman
            .url
            .join(target)
            .map_err(|problem| UpstreamError::Denied(format!("the path {problem}")))?;
        let (origin, target) = split(&url)?;
        let key = PoolKey {
            plugin: guard.plugin().into(),
            slot: format!("foreman.{slot}"),
            origin,
            trust: foreman.trust.clone(),
        };
        Ok(Plan {
            right,
            rights,
            key,
            method: parse_method(method)?,
            target,
            inject: Vec::new(),
            timeout: grant.timeout,
            connect_timeout: foreman.connect_timeout,
            response: grant.response,
            connections: places(grant.connections),
            queue: usize::try_from(grant.queue).unwrap_or(usize::MAX),
        })
    }

    fn http(
        guard: &Guard,
        slot: &str,
        method: &str,
        target: &str,
        ring: &KeyRing,
    ) -> Result<Self, UpstreamError> {
        let rights = guard.generation();
        let effective = guard.effective();
        let url = match effective.http.get(slot) {
            Some(grant) if target.starts_with('/') => format!("{}{target}", grant.url),
            _ => target.to_owned(),
        };
        let right = Right::Http {
            slot: slot.into(),
            method: method.into(),
            url: url.clone(),
            address: None,
        };
        decide(guard, &right.action())?;
        let grant: &HttpGrant = effective.http.get(slot).ok_or_else(|| gone(slot))?;
        let (origin, target) = split(&url)?;
        let key = PoolKey {
            plugin: guard.plugin().into(),
            slot: format!("http.{slot}"),
            origin,
            trust: trust(&grant.tls),
        };
        Ok(Plan {
            right,
            rights,
            key,
            method: parse_method(method)?,
            target,
            inject: grant
                .inject
                .iter()
                .map(|injection| fill(guard, ring, injection))
                .collect::<Result<_, _>>()?,
            timeout: grant.timeout,
            connect_timeout: grant.connect_timeout,
            response: grant.response,
            connections: places(grant.connections),
            queue: usize::try_from(grant.queue).unwrap_or(usize::MAX),
        })
    }
}

/// The denial as an upstream error.
pub(crate) fn decide(guard: &Guard, action: &Action<'_>) -> Result<(), UpstreamError> {
    guard
        .decide(action)
        .check()
        .map_err(|denial| UpstreamError::Denied(denial.to_string()))
}

fn trust(tls: &TlsGrant) -> Trust {
    Trust {
        ca: tls.ca.clone(),
        identity: tls.identity.clone(),
        verify: !tls.unverified,
    }
}

fn gone(slot: &str) -> UpstreamError {
    UpstreamError::Denied(format!("slot {slot:?} is no longer granted"))
}

fn places(connections: u32) -> usize {
    usize::try_from(connections).unwrap_or(usize::MAX).max(1)
}

fn split(url: &str) -> Result<(Origin, String), UpstreamError> {
    let parsed = TargetUrl::parse(url)
        .map_err(|problem| UpstreamError::Denied(format!("the URL {problem}")))?;
    let target = if parsed.query.is_empty() {
        parsed.path.to_owned()
    } else {
        format!("{}?{}", parsed.path, parsed.query)
    };
    Ok((Origin::of(&parsed), target))
}

fn parse_method(method: &str) -> Result<Method, UpstreamError> {
    match Method::from_bytes(method.as_bytes()) {
        Ok(Method::CONNECT | Method::TRACE) | Err(_) => Err(UpstreamError::Denied(format!(
            "the host never sends the method {:?}",
            method.chars().take(20).collect::<String>()
        ))),
        Ok(method) => Ok(method),
    }
}

/// A header with a secret in it, marked so that nothing prints it.
fn fill(
    guard: &Guard,
    ring: &KeyRing,
    injection: &Injection,
) -> Result<(HeaderName, HeaderValue), UpstreamError> {
    let unusable = |why: &dyn std::fmt::Display| {
        tracing::warn!(target: "upstream", plugin = guard.plugin(), secret = injection.slot, problem = %why, "a secret for a header is not usable");
        UpstreamError::Denied(format!(
            "secret {:?} cannot be put into header {:?}; the host's log says why",
            injection.slot, injection.header
        ))
    };
    let name =
        HeaderName::from_bytes(injection.header.as_bytes()).map_err(|error| unusable(&error))?;
    let key = ring
        .key(&injection.secret)
        .map_err(|problem| unusable(&problem))?;
    let mut text = zeroize::Zeroizing::new(injection.prefix.clone().into_bytes());
    text.extend_from_slice(key.secret.expose());
    let mut value =
        HeaderValue::from_bytes(&text).map_err(|_| unusable(&"it holds control characters"))?;
    value.set_sensitive(true);
    Ok((name, value))
}
