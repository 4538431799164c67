//! One question and its answer, by UDP and TCP, over several servers.
//!
//! It refuses an answer that does not belong to the question, and, when there is a key, one that the key did not sign: such an
//! answer can at worst say "no" earlier than the time-out would.
//!
//! The one idea: every server gets an equal share of the time that is left; its share goes to two datagrams, then a connection. One behind a firewall
//! that lets no datagrams through is remembered for a while, and asked by TCP at once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bulkhead_sdk::udp::UdpSocket;
use hickory_proto::op::{Message, ResponseCode};

use crate::error::Problem;
use crate::message;
use crate::tsig::{self, Signer};

/// Parts of a server's share that its two datagrams and its connection may wait: the Smart Proxy's 5, 8 and 13 seconds.
const PARTS: [u32; 3] = [5, 8, 13];
/// How long a server that answers by TCP alone is asked so at once: a firewall may change.
const DEAF: Duration = Duration::from_secs(600);
/// Datagrams of somebody else that are passed over while waiting for one answer; beyond it, TCP is asked.
const MOST_STRANGERS: usize = 64;

/// Asks and gets the server's word. A seam for tests.
pub trait Ask {
    /// Sends a request and waits for its answer, whatever its response code.
    ///
    /// # Errors
    /// When there is no answer, or none to be trusted.
    fn ask(&self, request: &Message) -> Result<Answer, Problem>;
}

/// An answer, and who gave it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Address and port.
    pub server: String,
    /// The message, without its signature.
    pub message: Message,
}

/// The servers of one operation. What answered first is asked first from then on.
pub struct Servers<'a> {
    addresses: Vec<SocketAddr>,
    signer: Option<&'a dyn Signer>,
    end: Instant,
    first: Cell<usize>,
}

/// What came of a packet.
enum Judged {
    Good(Box<Message>),
    Truncated,
    /// Not an answer to this request: keep waiting.
    Stranger(String),
    Bad(Problem),
}

impl<'a> Servers<'a> {
    /// Addresses in order of preference; all that is asked of them ends after `time`.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>, signer: Option<&'a dyn Signer>, time: Duration) -> Self {
        Self {
            addresses,
            signer,
            end: Instant::now() + time,
            first: Cell::new(0),
        }
    }

    fn ask_one(
        &self,
        address: SocketAddr,
        request: &Message,
        share: Duration,
    ) -> Result<Answer, Problem> {
        let server = address.to_string();
        let bytes = request
            .to_vec()
            .map_err(|why| Problem::Invalid(why.to_string()))?;
        let (bytes, mac) = match self.signer {
            Some(signer) => tsig::sign(&bytes, request.metadata.id, now(), signer)
                .map_err(|why| Problem::Key(why.to_string()))?,
            None => (bytes, Vec::new()),
        };
        let sent = Sent {
            server: &server,
            request,
            bytes: &bytes,
            mac: &mac,
            signer: self.signer,
        };
        let whole: u32 = PARTS.iter().sum();
        let [first, second, third] = PARTS.map(|part| share * part / whole);
        let mut lost = Problem::Timeout(server.clone());
        let mut tried = None;
        if is_deaf(address) {
            match sent.by_tcp(address, third) {
                Ok(message) => return Ok(Answer { server, message }),
                Err(problem) => tried = Some(problem),
            }
            DEAF_SERVERS.with_borrow_mut(|deaf| deaf.remove(&address));
        }
        for time in [first, second] {
            match sent.by_udp(address, time) {
                Ok(Some(message)) => return Ok(Answer { server, message }),
                Ok(None) => {}
                // Truncated, or nobody listens there: TCP may do better, a second datagram not.
                Err(Problem::Unreachable { why, .. }) => {
                    lost = Problem::Unreachable {
                        server: server.clone(),
                        why,
                    };
                    break;
                }
                Err(problem) => return Err(problem),
            }
        }
        let is_silent = matches!(lost, Problem::Timeout(_));
        match tried.map_or_else(|| sent.by_tcp(address, third), Err) {
            Ok(message) => {
                if is_silent {
                    DEAF_SERVERS.with_borrow_mut(|deaf| deaf.insert(address, Instant::now()));
                }
                Ok(Answer { server, message })
            }
            Err(Problem::Unreachable { .. }) if is_silent => Err(lost),
            Err(problem) => Err(problem),
        }
    }
}

thread_local! {
    /// Servers that were silent to datagrams and answered by TCP, and when.
    static DEAF_SERVERS: RefCell<HashMap<SocketAddr, Instant>> = RefCell::default();
}

fn is_deaf(address: SocketAddr) -> bool {
    DEAF_SERVERS.with_borrow(|deaf| {
        deaf.get(&address)
            .is_some_and(|since| since.elapsed() < DEAF)
    })
}

impl Ask for Servers<'_> {
    fn ask(&self, request: &Message) -> Result<Answer, Problem> {
        let count = self.addresses.len();
        let first = self.first.get();
        let mut last = Problem::Unreachable {
            server: "dns_server".to_owned(),
            why: "it names no server".to_owned(),
        };
        for turn in 0..count {
            let place = (first + turn) % count;
            let Some(&address) = self.addresses.get(place) else {
                continue;
            };
            let left = self.end.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(count - turn).unwrap_or(1);
            if share.is_zero() {
                return Err(Problem::Timeout(address.to_string()));
            }
            match self.ask_one(address, request, share) {
                // A server that is ill is passed over as long as there is another.
                Ok(answer)
                    if answer.message.metadata.response_code == ResponseCode::ServFail
                        && turn + 1 < count => {}
                Ok(answer) => {
                    self.first.set(place);
                    return Ok(answer);
                }
                Err(problem @ (Problem::Timeout(_) | Problem::Unreachable { .. })) => {
                    last = problem
                }
                Err(problem) => return Err(problem),
            }
        }
        Err(last)
    }
}

/// A request as it goes to one server.
struct Sent<'a> {
    server: &'a str,
    request: &'a Message,
    bytes: &'a [u8],
    mac: &'a [u8],
    signer: Option<&'a dyn Signer>,
}

impl Sent<'_> {
    /// None: no answer in time, or one that is too long for a datagram.
    fn by_udp(&self, address: SocketAddr, time: Duration) -> Result<Option<Message>, Problem> {
        let end = Instant::now() + time;
        let socket = UdpSocket::connect(address).map_err(|why| self.unreachable(&why))?;
        socket
            .send(self.bytes)
            .map_err(|why| self.unreachable(&why))?;
        for _ in 0..MOST_STRANGERS {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let Some(bytes) = socket.receive(left).map_err(|why| self.unreachable(&why))? else {
                break;
            };
            match self.judge(&bytes) {
                Judged::Good(message) => return Ok(Some(*message)),
                Judged::Bad(problem) => return Err(problem),
                Judged::Truncated => {
                    return Err(Problem::Unreachable {
                        server: self.server.to_owned(),
                        why: "the answer was truncated".to_owned(),
                    });
                }
                Judged::Stranger(_) => {}
            }
        }
        Ok(None)
    }

    fn by_tcp(&self, address: SocketAddr, time: Duration) -> Result<Message, Problem> {
        let end = Instant::now() + time.max(Duration::from_millis(1));
        let mut stream = TcpStream::connect_timeout(&address, time.max(Duration::from_millis(1)))
            .map_err(|why| self.lost(&why))?;
        let length = u16::try_from(self.bytes.len())
            .map_err(|_| Problem::Invalid("the request is too long".to_owned()))?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(self.bytes);
        stream.write_all(&framed).map_err(|why| self.lost(&why))?;
        let mut length = [0; 2];
        self.fill(&mut stream, &mut length, end)?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        self.fill(&mut stream, &mut bytes, end)?;
        match self.judge(&bytes) {
            Judged::Good(message) => Ok(*message),
            Judged::Bad(problem) => Err(problem),
            Judged::Stranger(why) => Err(self.distrust(&why)),
            Judged::Truncated => Err(self.distrust("an answer that is truncated even over TCP")),
        }
    }

    /// Reads until the buffer is full; a server that sends byte by byte gains no time by it.
    fn fill(&self, stream: &mut TcpStream, buffer: &mut [u8], end: Instant) -> Result<(), Problem> {
        let mut at = 0;
        while let Some(rest) = buffer.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Problem::Timeout(self.server.to_owned()));
            }
            stream
                .set_read_timeout(Some(left))
                .map_err(|why| self.lost(&why))?;
            match stream.read(rest) {
                Ok(0) => return Err(self.lost(&io::Error::from(io::ErrorKind::UnexpectedEof))),
                Ok(count) => at += count,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(self.lost(&why)),
            }
        }
        Ok(())
    }

    fn judge(&self, bytes: &[u8]) -> Judged {
        let (unsigned, tsig) = match tsig::detach(bytes) {
            Ok(parts) => parts,
            Err(why) => return Judged::Stranger(why.to_string()),
        };
        let message = match Message::from_vec(&unsigned) {
            Ok(message) => message,
            Err(why) => return Judged::Stranger(format!("a broken answer: {why}")),
        };
        if !message::answers(&message, self.request) {
            return Judged::Stranger("an answer to something else".to_owned());
        }
        // Nothing is believed of it but that TCP shall be tried.
        if message.metadata.truncation {
            return Judged::Truncated;
        }
        let code = message.metadata.response_code;
        let Some(signer) = self.signer else {
            return Judged::Good(Box::new(message));
        };
        let Some(tsig) = tsig else {
            // Without a signature a "yes" is worth nothing, and neither is "there is none".
            return match code {
                ResponseCode::NoError
                | ResponseCode::NXDomain
                | ResponseCode::YXDomain
                | ResponseCode::YXRRSet
                | ResponseCode::NXRRSet => {
                    Judged::Stranger("an answer without signature".to_owned())
                }
                code => Judged::Bad(self.refused(format!("{} (not signed)", words(code)))),
            };
        };
        if let (Some(complaint), true) = (tsig.complaint(), tsig.mac.is_empty() || tsig.error == 18)
        {
            return Judged::Bad(self.refused(format!("{} ({complaint})", words(code))));
        }
        match tsig::verify(&unsigned, &tsig, self.mac, now(), signer) {
            Ok(true) => match tsig.complaint() {
                Some(complaint) => {
                    Judged::Bad(self.refused(format!("{} ({complaint})", words(code))))
                }
                None => Judged::Good(Box::new(message)),
            },
            Ok(false) => Judged::Stranger("an answer whose signature is not the key's".to_owned()),
            Err(why) => Judged::Bad(Problem::Key(why.to_string())),
        }
    }

    fn refused(&self, why: String) -> Problem {
        Problem::Refused {
            server: self.server.to_owned(),
            why,
        }
    }

    fn distrust(&self, why: &str) -> Problem {
        Problem::Answer {
            server: self.server.to_owned(),
            why: why.to_owned(),
        }
    }

    fn lost(&self, why: &io::Error) -> Problem {
        match why.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                Problem::Timeout(self.server.to_owned())
            }
            _ => self.unreachable(why),
        }
    }

    fn unreachable(&self, why: &io::Error) -> Problem {
        Problem::Unreachable {
            server: self.server.to_owned(),
            why: why.to_string(),
        }
    }
}

/// A response code as DNS people write it.
#[must_use]
pub fn words(code: ResponseCode) -> String {
    let word = match code {
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::NotAuth => "NOTAUTH",
        ResponseCode::NotZone => "NOTZONE",
        ResponseCode::YXRRSet => "YXRRSET",
        ResponseCode::NXRRSet => "NXRRSET",
        ResponseCode::YXDomain => "YXDOMAIN",
        other => return format!("response code {}", u16::from(other)),
    };
    word.to_owned()
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
