//! A load generator: so many connections, one request after another on each, every latency kept.
//!
//! It runs on one thread of its own, so that on a machine of two cores the program under test has the other one. It
//! refuses to correct for pauses (a request that is late makes the next one late): compare runs of this generator with each
//! other, not with those of another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::http::Target;

/// How long one exchange may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to do and for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// Connections at once.
    pub connections: usize,
    /// How long to go on.
    pub duration: Duration,
    /// Rest between two requests of one connection; zero: none.
    pub rest: Duration,
    /// A new connection, handshake included, for every request: as Foreman does.
    pub reconnect: bool,
}

impl Load {
    /// As fast as it goes, connections kept.
    pub fn full(connections: usize, duration: Duration) -> Self {
        Self {
            connections,
            duration,
            rest: Duration::ZERO,
            reconnect: false,
        }
    }

    /// A calm neighbour: four connections, a request every 2 ms on each.
    pub fn calm(duration: Duration) -> Self {
        Self {
            connections: 4,
            duration,
            rest: Duration::from_millis(2),
            reconnect: false,
        }
    }

    /// A new connection for every request.
    pub fn reconnecting(connections: usize, duration: Duration) -> Self {
        Self {
            reconnect: true,
            ..Self::full(connections, duration)
        }
    }

    /// Sends `GET path` and answers what was measured. Only 200 counts as success.
    pub fn get(&self, target: &Target, path: &str) -> Measured {
        self.run(
            target,
            &target.request("GET", path).bytes(),
            &Arc::default(),
        )
    }

    /// Sends these bytes as each request until the time is over or `stop` is set.
    pub fn run(&self, target: &Target, request: &[u8], stop: &Arc<AtomicBool>) -> Measured {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let started = Instant::now();
        let work = Connection {
            door: Door::new(target),
            request: request.into(),
            end: started + self.duration,
            stop: stop.clone(),
            load: self.clone(),
        };
        let all = tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..self.connections {
                tasks.spawn_local(work.clone().run());
            }
            tasks.join_all().await
        });
        let mut measured = Measured {
            elapsed: started.elapsed(),
            ..Measured::default()
        };
        for one in all {
            measured.latencies.extend(one.latencies);
            measured.failures.extend(one.failures);
            measured.bytes += one.bytes;
        }
        measured.latencies.sort_unstable();
        measured
    }
}

/// What a run showed.
#[derive(Debug, Default, Clone)]
pub struct Measured {
    /// Latencies of the successful requests in microseconds, ascending.
    pub latencies: Vec<u32>,
    /// Why each of the others failed.
    pub failures: Vec<String>,
    /// Wall time of the whole run.
    pub elapsed: Duration,
    /// Bytes of bodies received.
    pub bytes: u64,
}

impl Measured {
    /// Successful requests a second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Bytes of bodies a second.
    pub fn throughput(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency below which this share of the requests stayed; 0.5 is the median.
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = ((last as f64) * share).round() as usize;
        Duration::from_micros(
            self.latencies
                .get(index)
                .copied()
                .unwrap_or(u32::MAX)
                .into(),
        )
    }
}

/// What a neighbour may cost beyond twice the quiet figure: a quiet p99 can be 100 µs, and twice of that is noise.
const GRACE: Duration = Duration::from_millis(5);

impl Measured {
    /// Whether 99 of 100 requests took at most twice what they take in quiet, or 5 ms more, whichever is more.
    pub fn is_undisturbed(&self, quiet: &Self) -> bool {
        let calm = quiet.percentile(0.99);
        self.percentile(0.99) <= (calm * 2).max(calm + GRACE)
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{:.0}/s, p50 {:?}, p99 {:?}, {} failed",
            self.rate(),
            self.percentile(0.5),
            self.percentile(0.99),
            self.failures.len()
        )?;
        self.failures
            .first()
            .map_or(Ok(()), |first| write!(out, " (first: {first})"))
    }
}

#[derive(Clone)]
struct Door {
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Door {
    fn new(target: &Target) -> Self {
        let tls = target.tls.as_ref().map(|config| {
            let name = ServerName::try_from(target.name.clone()).expect("a valid server name");
            (TlsConnector::from(Arc::clone(config)), name)
        });
        Self {
            address: target.address,
            tls,
        }
    }

    async fn open(&self) -> std::io::Result<Box<dyn Socket>> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(socket),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), socket).await?),
        })
    }
}

trait Socket: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Socket for T {}

#[derive(Clone)]
struct Connection {
    door: Door,
    request: Arc<[u8]>,
    end: Instant,
    stop: Arc<AtomicBool>,
    load: Load,
}

impl Connection {
    async fn run(self) -> Measured {
        let mut measured = Measured::default();
        let mut open: Option<Box<dyn Socket>> = None;
        let mut buffer = vec![0_u8; 256 * 1024];
        while Instant::now() < self.end && !self.stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let exchange = tokio::time::timeout(PATIENCE, async {
                let mut socket = match open.take() {
                    Some(socket) => socket,
                    None => self
                        .door
                        .open()
                        .await
                        .map_err(|error| format!("connect: {error}"))?,
                };
                socket
                    .write_all(&self.request)
                    .await
                    .map_err(|error| format!("send: {error}"))?;
                let received = receive(&mut socket, &mut buffer).await?;
                Ok::<_, String>((socket, received))
            });
            match exchange
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
            {
                Ok((socket, received)) => {
                    if received.status == 200 {
                        measured
                            .latencies
                            .push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
                        measured.bytes += received.length;
                    } else {
                        measured
                            .failures
                            .push(format!("status {}", received.status));
                    }
                    if !self.load.reconnect && !received.last {
                        open = Some(socket);
                    }
                }
                Err(problem) => {
                    measured.failures.push(problem);
                    // A dead server must not make this loop spin.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            if !self.load.rest.is_zero() {
                tokio::time::sleep(self.load.rest).await;
            }
        }
        measured
    }
}

struct Received {
    status: u16,
    length: u64,
    /// The server closes the connection after this response.
    last: bool,
}

/// Reads one response that has a content length.
async fn receive(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
) -> Result<Received, String> {
    let mut filled = 0;
    let head = loop {
        let count = socket
            .read(&mut buffer[filled..])
            .await
            .map_err(|error| format!("receive: {error}"))?;
        if count == 0 {
            return Err("closed before a whole response head".to_owned());
        }
        let from = filled.saturating_sub(3);
        filled += count;
        if let Some(end) = buffer[from..filled]
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
        {
            break from + end + 4;
        }
    };
    let text = std::str::from_utf8(&buffer[..head])
        .map_err(|_| "a response head that is no text".to_owned())?;
    let status = text
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .ok_or("no status")?;
    let header = |wanted: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then_some(value.trim())
        })
    };
    let length = header("content-length")
        .and_then(|value| value.parse::<u64>().ok())
        .ok_or_else(|| format!("a response of status {status} without content length"))?;
    let last = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let mut got = (filled - head) as u64;
    while got < length {
        let count = socket
            .read(buffer)
            .await
            .map_err(|error| format!("receive: {error}"))?;
        if count == 0 {
            return Err(format!("closed after {got} of {length} bytes"));
        }
        got += count as u64;
    }
    Ok(Received {
        status,
        length,
        last,
    })
}
