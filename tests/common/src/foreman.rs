//! A stand-in for Foreman: an HTTPS server that lets nobody in without a client certificate of its authority and keeps every
//! request byte for byte.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::identity::{Authority, Identity, provider};

/// How long a connection may stay silent.
const PATIENCE: Duration = Duration::from_secs(30);

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Request line and headers with the empty line, exactly as received.
    pub head: String,
    /// The body; chunked ones stay in their framing.
    pub body: Vec<u8>,
    /// Counts connections from 1, so that a test sees which requests shared one.
    pub connection: usize,
    /// The client's certificate (DER).
    pub certificate: Option<Vec<u8>>,
}

impl Recorded {
    /// The first line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The header lines in order of the alphabet, for comparing them whole.
    pub fn header_lines(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = self.head.trim_end().split("\r\n").skip(1).collect();
        lines.sort_unstable();
        lines
    }

    /// The body without the framing of chunks.
    pub fn content(&self) -> Vec<u8> {
        if self.header("transfer-encoding").is_none() {
            return self.body.clone();
        }
        let mut content = Vec::new();
        let mut rest = &self.body[..];
        while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
            let line = String::from_utf8_lossy(&rest[..end]).into_owned();
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).expect("a chunk begins with its size");
            if size == 0 {
                break;
            }
            content.extend_from_slice(&rest[end + 2..end + 2 + size]);
            rest = &rest[end + 2 + size + 2..];
        }
        content
    }

    /// The value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// What is sent back: raw bytes, made from the request.
type Answer = dyn Fn(&Recorded) -> Vec<u8> + Send + Sync;

/// The running stand-in; it ends with this value.
pub struct Foreman {
    /// Where it listens.
    pub address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    recorded: Arc<Mutex<Vec<Recorded>>>,
    connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl std::fmt::Debug for Foreman {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Foreman")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Foreman {
    /// Starts one that answers every request with this. An empty answer closes the connection, and so does one whose head says so.
    pub fn answering(
        authority: &Authority,
        answer: impl Fn(&Recorded) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let identity = authority.server(&["localhost", "127.0.0.1"]);
        Self::serving(LOOPBACK, server_config(&identity, Some(authority)), answer)
    }

    /// Any other HTTPS server: one that asks no client for a certificate.
    pub fn without_clients(
        identity: &Identity,
        answer: impl Fn(&Recorded) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::without_clients_at(LOOPBACK, identity, answer)
    }

    /// [`Foreman::without_clients`] at an address of this machine.
    pub fn without_clients_at(
        address: IpAddr,
        identity: &Identity,
        answer: impl Fn(&Recorded) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::serving(address, server_config(identity, None), answer)
    }

    fn serving(
        address: IpAddr,
        config: Arc<ServerConfig>,
        answer: impl Fn(&Recorded) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a port can be bound");
        let this = Self {
            address: listener
                .local_addr()
                .expect("a bound socket has an address"),
            config: Arc::new(Mutex::new(config)),
            recorded: Arc::default(),
            connections: Arc::default(),
            stopped: Arc::default(),
        };
        let (config, recorded, connections, stopped) = (
            this.config.clone(),
            this.recorded.clone(),
            this.connections.clone(),
            this.stopped.clone(),
        );
        let answer: Arc<Answer> = Arc::new(answer);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
                let config = lock(&config).clone();
                let (answer, recorded) = (answer.clone(), recorded.clone());
                // A connection that fails is the peer's doing; what matters is what was recorded.
                std::thread::spawn(move || serve(socket, config, number, &*answer, &recorded));
            }
        });
        this
    }

    /// Shows this certificate to new connections, and asks them for one of this authority.
    pub fn present(&self, identity: &Identity, authority: &Authority) {
        *lock(&self.config) = server_config(identity, Some(authority));
    }

    /// Its URL; the certificate is for `localhost`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.recorded).clone()
    }

    /// Connections so far, also those that failed their handshake.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Foreman {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

/// A complete answer of this status, type and body.
pub fn reply(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// How such a server speaks TLS; with `clients`, only to those that show a certificate of theirs.
pub fn server_config(identity: &Identity, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3");
    let builder = match clients {
        Some(authority) => builder.with_client_cert_verifier(verifier(authority)),
        None => builder.with_no_client_auth(),
    };
    let config = builder
        .with_single_cert(identity.chain(), identity.key())
        .expect("a matching key");
    Arc::new(config)
}

fn verifier(authority: &Authority) -> Arc<dyn rustls::server::danger::ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots
        .add(
            CertificateDer::from_pem_slice(authority.pem().as_bytes())
                .expect("an authority has a certificate"),
        )
        .expect("a valid root");
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .expect("a verifier with one root")
}

fn serve(
    socket: TcpStream,
    config: Arc<ServerConfig>,
    number: usize,
    answer: &Answer,
    recorded: &Mutex<Vec<Recorded>>,
) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, socket);
    let mut pending = Vec::new();
    while let Some(mut request) = read_request(&mut stream, &mut pending, number)? {
        request.certificate = stream
            .conn
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|one| one.to_vec());
        let bytes = answer(&request);
        lock(recorded).push(request);
        if bytes.is_empty() {
            return Ok(());
        }
        stream.write_all(&bytes)?;
        stream.flush()?;
        let head = bytes.split(|byte| *byte == b'\n');
        if head
            .take_while(|line| *line != b"\r")
            .any(|line| line == b"Connection: close\r")
        {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads one request; `None` when the connection ends between two.
pub(crate) fn read_request(
    stream: &mut impl Read,
    pending: &mut Vec<u8>,
    connection: usize,
) -> io::Result<Option<Recorded>> {
    let mut buffer = [0_u8; 16 * 1024];
    let mut more = |pending: &mut Vec<u8>| -> io::Result<usize> {
        let count = stream.read(&mut buffer)?;
        pending.extend_from_slice(&buffer[..count]);
        Ok(count)
    };
    let end = loop {
        if let Some(end) = pending.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if more(pending)? == 0 {
            return Ok(None);
        }
    };
    let rest = pending.split_off(end);
    let head = String::from_utf8_lossy(&std::mem::replace(pending, rest)).into_owned();
    let mut request = Recorded {
        head,
        body: Vec::new(),
        connection,
        certificate: None,
    };
    if let Some(length) = request
        .header("content-length")
        .and_then(|value| value.parse::<usize>().ok())
    {
        while pending.len() < length && more(pending)? > 0 {}
        let rest = pending.split_off(length.min(pending.len()));
        request.body = std::mem::replace(pending, rest);
    } else if request.header("transfer-encoding").is_some() {
        while !pending.ends_with(b"0\r\n\r\n") && more(pending)? > 0 {}
        request.body = std::mem::take(pending);
    }
    Ok(Some(request))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
