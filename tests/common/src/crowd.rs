//! Many clients at once, each from one of many addresses of loopback.
//!
//! They share one thread that stands back for every other: in the field they are other machines, and a test of the program shall not
//! measure how they crowd it out. They send what they are told, byte for byte, and keep what came back.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// How far the thread of a crowd stands back.
const NICE: i32 = 10;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// Addresses they come from; client `n` has number `n` modulo this.
    pub addresses: usize,
    /// How long each waits for its answer.
    pub patience: Duration,
}

/// What one client got.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The client.
    pub number: usize,
    /// The status.
    pub status: u16,
    /// `Retry-After` in seconds.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: String,
    /// From before it connected.
    pub waited: Duration,
}

/// One of the many addresses of loopback; no test's server listens there.
pub fn source(number: usize) -> Ipv4Addr {
    let low = u8::try_from(number % 250).expect("below 250");
    let high = u8::try_from(number / 250 % 250).expect("below 250");
    Ipv4Addr::new(127, 16, high, low + 1)
}

/// Connects from an address.
pub async fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Makes this thread stand back for those of the program under test.
pub fn stand_back() {
    // Failing costs only precision.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// Runs clients on a thread of their own, which stands back.
pub fn aside<T: Send>(clients: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            stand_back();
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(clients)
        });
        thread.join().expect("clients do not panic")
    })
}

impl Crowd {
    /// All of these clients ask at once, each on a connection of its own.
    pub fn ask(
        &self,
        target: SocketAddr,
        clients: impl IntoIterator<Item = usize>,
        path: &str,
    ) -> Vec<Result<Answer, String>> {
        let clients: Vec<usize> = clients.into_iter().collect();
        aside(async {
            let mut tasks = tokio::task::JoinSet::new();
            for number in clients {
                tasks.spawn(self.one(target, number, path.to_owned()));
            }
            tasks.join_all().await
        })
    }

    /// All of these clients ask at once; who is told to come back does so when told. Answers what each was told in turn.
    pub fn ask_until_served(
        &self,
        target: SocketAddr,
        clients: usize,
        path: &str,
    ) -> Vec<Result<Vec<Answer>, String>> {
        aside(async {
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..clients {
                let (this, path) = (*self, path.to_owned());
                tasks.spawn(async move {
                    let mut told = Vec::new();
                    loop {
                        let answer = this.one(target, number, path.clone()).await?;
                        let again = answer.retry_after;
                        told.push(answer);
                        match again {
                            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                            None => return Ok(told),
                        }
                    }
                });
            }
            tasks.join_all().await
        })
    }

    /// One client asks.
    pub fn one(
        &self,
        target: SocketAddr,
        number: usize,
        path: String,
    ) -> impl Future<Output = Result<Answer, String>> + Send + use<> {
        let (from, patience) = (source(number % self.addresses.max(1)), self.patience);
        async move {
            let began = Instant::now();
            let exchange = async {
                let mut stream = connect(from, target).await?;
                let mark = if path.contains('?') { '&' } else { '?' };
                let request = format!(
                    "GET {path}{mark}client={number} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(request.as_bytes()).await?;
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).await?;
                Ok::<_, std::io::Error>(bytes)
            };
            let bytes = tokio::time::timeout(patience, exchange)
                .await
                .map_err(|_| format!("client {number}: no answer within {patience:?}"))?
                .map_err(|error| format!("client {number}: {error}"))?;
            read(number, &bytes, began.elapsed())
                .ok_or_else(|| format!("client {number}: {:?}", String::from_utf8_lossy(&bytes)))
        }
    }
}

fn read(number: usize, bytes: &[u8], waited: Duration) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |wanted: &str| {
        head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    };
    Some(Answer {
        number,
        status: head.get(9..12)?.parse().ok()?,
        retry_after: header("retry-after").and_then(|value| value.parse().ok()),
        body: body.to_owned(),
        waited,
    })
}
