//! From a scheme, name and port to an open connection.
//!
//! It refuses every address that its caller does not allow. The name is resolved once; what was allowed is what is connected to, and
//! TLS checks the certificate against the name. No proxy of the environment is used: `http_proxy` would take these
//! decisions elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::trust::{TlsClients, Trust};
use crate::capability::resolve::{ResolveError, Resolver};
use crate::grant::matchers::host::AskedHost;
use crate::grant::matchers::url::{Scheme, TargetUrl};
use crate::sandbox::bindings::types::UpstreamError;

/// The head start of each address before the next one is tried beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// TLS or not.
    pub tls: bool,
    /// A name in lower case, or an address without brackets.
    pub host: String,
    /// The port, never left to the scheme.
    pub port: u16,
}

impl Origin {
    /// Of a URL as it is sent.
    pub fn of(url: &TargetUrl<'_>) -> Self {
        let host = match &url.host {
            AskedHost::Name(name) => name.to_string(),
            AskedHost::Address(address) => address.to_string(),
        };
        Origin {
            tls: url.scheme == Scheme::Https,
            host,
            port: url.port,
        }
    }

    /// The value of the `host` header: without the port when it is the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let own = if self.tls { 443 } else { 80 };
        if self.port == own {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{}://{}",
            if self.tls { "https" } else { "http" },
            self.authority()
        )
    }
}

/// An open connection.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Decides on one address; the error is the denial's text.
pub type Decide<'a> = dyn Fn(IpAddr, u16) -> Result<(), String> + Send + Sync + 'a;

/// What connecting needs; one a host.
#[derive(Debug, Clone)]
pub struct Dialer {
    io: Handle,
    resolver: Arc<Resolver>,
    tls: Arc<TlsClients>,
}

impl Dialer {
    /// Connections live on `io`: never a runtime that runs components.
    pub fn new(io: Handle, resolver: Arc<Resolver>) -> Self {
        Dialer {
            io,
            resolver,
            tls: Arc::default(),
        }
    }

    /// The runtime of the connections.
    pub fn io(&self) -> &Handle {
        &self.io
    }

    /// Connects before `deadline`; answers the address as well. `plugin` is whom the name lookup is charged to.
    pub async fn dial(
        &self,
        plugin: &str,
        origin: &Origin,
        trust: &Trust,
        decide: &Decide<'_>,
        deadline: Instant,
    ) -> Result<(Box<dyn Transport>, IpAddr), UpstreamError> {
        self.dial_on(&self.io, plugin, origin, trust, decide, deadline)
            .await
    }

    /// [`Dialer::dial`], with the connection on other threads.
    pub(super) async fn dial_on(
        &self,
        io: &Handle,
        plugin: &str,
        origin: &Origin,
        trust: &Trust,
        decide: &Decide<'_>,
        deadline: Instant,
    ) -> Result<(Box<dyn Transport>, IpAddr), UpstreamError> {
        let late =
            |what: &str| UpstreamError::Unreachable(format!("{what} {origin} took too long"));
        let tls = match origin.tls {
            true => Some(
                timeout_at(deadline, self.tls.get(trust))
                    .await
                    .map_err(|_| late("preparing TLS for"))?
                    .map_err(|problem| UpstreamError::Tls(problem.to_string()))?,
            ),
            false => None,
        };
        let resolved = timeout_at(deadline, self.resolver.resolve(plugin, &origin.host))
            .await
            .map_err(|_| late("resolving"))?;
        let resolved = resolved
            .map_err(|error: ResolveError| UpstreamError::Unreachable(error.to_string()))?;
        let mut addresses = Vec::new();
        let mut denial = None;
        for address in resolved.addresses {
            match decide(address, origin.port) {
                Ok(()) => addresses.push(SocketAddr::new(address, origin.port)),
                Err(text) => denial = Some(text),
            }
        }
        if let (true, Some(text)) = (addresses.is_empty(), denial) {
            return Err(UpstreamError::Denied(text));
        }
        let origin = origin.clone();
        let connecting = AbortOnDropHandle::new(io.spawn(async move {
            let stream = connect(&origin, addresses).await?;
            let peer = stream
                .peer_addr()
                .map_err(|error| super::error::of_io(&origin, &error))?
                .ip();
            let Some(config) = tls else {
                return Ok((Box::new(stream) as Box<dyn Transport>, peer));
            };
            let name = ServerName::try_from(origin.host.clone()).map_err(|_| {
                UpstreamError::Tls(format!(
                    "{} is not a name that a certificate can hold",
                    origin.host
                ))
            })?;
            let stream = TlsConnector::from(config)
                .connect(name, stream)
                .await
                .map_err(|error| super::error::of_io(&origin, &error))?;
            Ok((Box::new(stream) as Box<dyn Transport>, peer))
        }));
        match timeout_at(deadline, connecting).await {
            Err(_) => Err(late("connecting to")),
            Ok(Err(error)) => Err(UpstreamError::Unreachable(error.to_string())),
            Ok(Ok(outcome)) => outcome,
        }
    }
}

/// Tries the addresses in turn, each with a head start; the first that answers is taken.
async fn connect(origin: &Origin, addresses: Vec<SocketAddr>) -> Result<TcpStream, UpstreamError> {
    let mut waiting = addresses.into_iter();
    let mut trying = FuturesUnordered::new();
    let mut last = UpstreamError::Unreachable(format!("{origin} has no address"));
    let mut next_start = Instant::now();
    loop {
        if trying.is_empty() || Instant::now() >= next_start {
            match waiting.next() {
                Some(address) => {
                    trying.push(TcpStream::connect(address));
                    next_start = Instant::now() + HEAD_START;
                }
                None if trying.is_empty() => return Err(last),
                None => {}
            }
        }
        tokio::select! {
            Some(outcome) = trying.next() => match outcome {
                Ok(stream) => {
                    // Small requests must not wait for the acknowledgement of the former ones.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => {
                    last = super::error::of_io(origin, &error);
                    next_start = Instant::now();
                }
            },
            () = sleep_until(next_start), if waiting.len() > 0 => {}
        }
    }
}
