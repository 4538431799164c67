//! One connection from accept to close.
//!
//! It refuses plain HTTP on a TLS port with a short answer in plain HTTP, and a handshake that fails or takes too long without one. It holds no
//! request: hyper does, behind the gate.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::admitted::Dispatch;
use super::answer::Refusal;
use super::connections::Lease;
use super::endpoint::Endpoint;
use super::gate::{Gate, Peer};
use super::head::may_begin_request;
use super::identity::Certificate;
use super::outgoing::Outgoing;
use super::rates::Rates;
use super::service::Server;
use super::shares::Shares;
use super::stall::StallGuard;
use crate::telemetry::labels::ConnectionRejection;
use crate::telemetry::metrics::ListenerMetrics;

/// The first byte of a TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// What a connection that has asked nothing has for its first request when it shall leave. 1 s: its client connected for that request, which some
/// round trips of TCP and TLS on a slow line come before.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// What hyper may buffer beyond the largest head: room for one write of a streamed body.
const BUFFER_BEYOND_HEAD: usize = 64 * 1024;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By either side, between requests or after the last answer.
    Done,
    /// Given up while it waited for its client, for the sake of a new one.
    Evicted,
    /// The TLS handshake failed or took too long.
    Handshake,
    /// Its client spoke something else than the listener does, or broken HTTP.
    Refused,
    /// Its client stopped reading or vanished.
    Lost,
    /// Cut off because the listener stops.
    CutOff,
}

/// When connections have to leave.
#[derive(Clone, Default)]
pub(super) struct Leaving {
    /// After the present request, or the first.
    pub(super) soon: CancellationToken,
    /// At once.
    pub(super) now: CancellationToken,
}

/// Acknowledges the client's last message of the handshake at once. We send no answer to it (no session tickets), so the kernel would wait 40 ms
/// for something to send along, and a client with Nagle's algorithm would hold back its request as long.
fn acknowledge(stream: &TcpStream) {
    if let Err(error) = rustix::net::sockopt::set_tcp_quickack(stream, true) {
        tracing::debug!(%error, "the kernel acknowledges when it likes");
    }
}

/// What all requests of one connection have in common.
pub(super) struct Connection {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// The client's certificate, verified in the handshake.
    pub(super) certificate: Option<Arc<Certificate>>,
    pub(super) memory: Shares,
    pub(super) rates: Arc<Rates>,
    pub(super) metrics: Arc<ListenerMetrics>,
    pub(super) outgoing: Arc<Outgoing>,
    leaving: Leaving,
    /// Cancelled at the first request.
    asked: CancellationToken,
}

/// A connection that was accepted and not spoken to.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) memory: Shares,
    pub(super) rates: Arc<Rates>,
    pub(super) metrics: Arc<ListenerMetrics>,
    pub(super) leaving: Leaving,
    pub(super) lease: Lease,
}

impl Connection {
    /// Whether the connection is to be closed after the present request.
    pub(super) fn is_closing(&self) -> bool {
        self.leaving.soon.is_cancelled()
    }

    /// Ends when the connection has to leave and has had its time for a first request.
    async fn may_leave(&self) {
        self.leaving.soon.cancelled().await;
        // Asked or out of time: either way there is nothing more to wait for.
        let _ = tokio::time::timeout(FIRST_REQUEST, self.asked.cancelled()).await;
    }
}

impl Accepted {
    /// Speaks with the client until one side has had enough.
    pub(super) async fn serve<D: Dispatch>(self, server: Arc<Server<D>>) {
        let (peer, metrics) = (self.peer, self.metrics.clone());
        let _open = metrics.connected();
        let end = self.speak(server).await;
        tracing::debug!(client = %peer, ?end, "connection ended");
        match end {
            End::Handshake => metrics.rejected(ConnectionRejection::Handshake),
            End::Refused => metrics.rejected(ConnectionRejection::Head),
            End::Evicted => metrics.rejected(ConnectionRejection::Evicted),
            End::Done | End::Lost | End::CutOff => {}
        }
    }

    async fn speak<D: Dispatch>(self, server: Arc<Server<D>>) -> End {
        // Nagle's algorithm delays every second piece of a streamed body by 40 ms.
        if let Err(error) = self.stream.set_nodelay(true) {
            tracing::debug!(%error, "the connection was gone before it was served");
            return End::Lost;
        }
        let stream = StallGuard::new(self.stream, self.endpoint.limits.send_stall);
        let connection = Connection {
            endpoint: self.endpoint,
            peer: self.peer,
            local: self.local,
            certificate: None,
            memory: self.memory,
            rates: self.rates,
            metrics: self.metrics,
            outgoing: Arc::default(),
            leaving: self.leaving,
            asked: CancellationToken::new(),
        };
        match connection.endpoint.tls.clone() {
            None => Box::pin(connection.speak(stream, server, &self.lease)).await,
            Some(tls) => {
                let acceptor = TlsAcceptor::from(tls.current());
                tokio::select! {
                    end = connection.secure(stream, acceptor, server, &self.lease) => end,
                    () = self.lease.place().evicted() => End::Evicted,
                }
            }
        }
    }
}

impl Connection {
    /// Shakes hands, then speaks.
    async fn secure<D: Dispatch>(
        mut self,
        stream: StallGuard<TcpStream>,
        acceptor: TlsAcceptor,
        server: Arc<Server<D>>,
        lease: &Lease,
    ) -> End {
        let shake = async {
            let mut first = [0; 1];
            match stream.get_ref().peek(&mut first).await {
                Ok(1) if first == [TLS_HANDSHAKE] => acceptor
                    .accept(stream)
                    .await
                    .map_err(|error| error.to_string()),
                Ok(1) if first.into_iter().all(may_begin_request) => {
                    let limits = self.endpoint.limits.clone();
                    let mut gate = Gate::new(
                        stream,
                        limits,
                        lease.place().clone(),
                        server.rules().server.clone(),
                        self.logged(),
                    );
                    gate.refuse(Refusal::PlainOnTls);
                    gate.shutdown().await.map_err(|error| error.to_string())?;
                    Err("plain HTTP on a TLS port".to_owned())
                }
                Ok(_) => Err("not TLS".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(self.endpoint.limits.handshake, shake) => shaken,
            () = self.may_leave() => return End::CutOff,
        };
        match shaken {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates();
                let certificate = chain
                    .and_then(<[_]>::first)
                    .map(|certificate| Certificate::read(certificate));
                self.certificate = certificate.map(Arc::new);
                acknowledge(stream.get_ref().0.get_ref());
                Box::pin(self.speak(stream, server, lease)).await
            }
            Ok(Err(reason)) => {
                tracing::info!(client = %self.peer, listener = %self.endpoint.name, %reason, "TLS handshake failed");
                End::Handshake
            }
            Err(_) => {
                tracing::info!(client = %self.peer, listener = %self.endpoint.name, reason = "time", "TLS handshake failed");
                End::Handshake
            }
        }
    }

    fn logged(&self) -> Peer {
        Peer {
            client: self.peer,
            listener: self.endpoint.name.clone(),
        }
    }

    /// Serves requests.
    async fn speak<S, D>(self, stream: S, server: Arc<Server<D>>, lease: &Lease) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        D: Dispatch,
    {
        let limits = self.endpoint.limits.clone();
        let place = lease.place();
        let now = self.leaving.now.clone();
        let gate = Gate::new(
            stream,
            limits.clone(),
            place.clone(),
            server.rules().server.clone(),
            self.logged(),
        )
        .telling(self.outgoing.clone());
        let connection = Arc::new(self);
        // On the heap only while a request runs: a connection that waits shall be small.
        let service = service_fn(|request| {
            connection.asked.cancel();
            Box::pin(server.clone().serve(connection.clone(), request))
        });
        let mut http = pin!(
            http1::Builder::new()
                // The gate times heads; hyper needs no clock of its own.
                .header_read_timeout(None)
                // A client may close its sending side and still wait for the answer.
                .half_close(true)
                // GRUB 2.06 knows `Content-Length` in this form only, and waits for the end of the connection else.
                .title_case_headers(true)
                .max_headers(limits.header_lines.saturating_add(1))
                .max_buf_size(limits.head.saturating_add(BUFFER_BEYOND_HEAD))
                .serve_connection(TokioIo::new(gate), service)
        );
        let old = tokio::time::sleep(limits.connection_age);
        let leave = async {
            tokio::select! {
                () = connection.may_leave() => {}
                () = old => {}
            }
        };
        let mut leave = pin!(leave);
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                outcome = http.as_mut() => return match outcome {
                    Ok(()) if place.was_refused() => End::Refused,
                    Ok(()) => End::Done,
                    Err(error) => {
                        tracing::debug!(%error, "connection ended early");
                        End::Lost
                    }
                },
                () = place.evicted() => return End::Evicted,
                () = now.cancelled() => return End::CutOff,
                () = leave.as_mut(), if !told => {
                    told = true;
                    http.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
