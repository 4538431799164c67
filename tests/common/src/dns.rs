//! Many DNS questions to one server, quickly, by UDP or TCP. Answers come back as their bytes: what they mean is the test's to judge.
//!
//! The one idea: questions are told apart by their ids, so a window of them is under way at once, over one socket.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// Questions under way at once.
const WINDOW: usize = 64;
/// How long an answer may take; a datagram may be lost, and is sent again so often.
const PATIENCE: Duration = Duration::from_secs(3);
const TRIES: usize = 5;

/// Questions under way, by their ids.
type Open = HashMap<u16, Vec<u8>>;
/// Messages.
type Answers = Vec<Vec<u8>>;

/// How a question travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Datagrams.
    Udp,
    /// One connection.
    Tcp,
}

/// A question of class IN without recursion. The name is in presentation form, `\\DDD` included.
pub fn question(name: &str, kind: &str) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut label = Vec::new();
    let mut rest = name.trim_end_matches('.').bytes();
    let mut end = |label: &mut Vec<u8>| {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.append(label);
    };
    while let Some(byte) = rest.next() {
        match byte {
            b'.' => end(&mut label),
            b'\\' => {
                let first = rest.next().expect("an escape");
                if first.is_ascii_digit() {
                    let digits = [
                        first,
                        rest.next().expect("a digit"),
                        rest.next().expect("a digit"),
                    ];
                    let text = std::str::from_utf8(&digits).expect("digits");
                    label.push(text.parse().expect("a byte"));
                } else {
                    label.push(first);
                }
            }
            plain => label.push(plain),
        }
    }
    if !label.is_empty() {
        end(&mut label);
    }
    bytes.push(0);
    bytes.extend(number(kind).to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// Adds EDNS (RFC 6891): the client's payload, a version, the flag "DNSSEC OK".
pub fn with_edns(mut question: Vec<u8>, payload: u16, version: u8, dnssec_ok: bool) -> Vec<u8> {
    question[11] += 1;
    question.extend([0, 0, 41]);
    question.extend(payload.to_be_bytes());
    question.extend([0, version, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    question
}

fn number(kind: &str) -> u16 {
    const KINDS: [(&str, u16); 13] = [
        ("A", 1),
        ("NS", 2),
        ("CNAME", 5),
        ("SOA", 6),
        ("PTR", 12),
        ("MX", 15),
        ("TXT", 16),
        ("AAAA", 28),
        ("SRV", 33),
        ("DS", 43),
        ("SSHFP", 44),
        ("ANY", 255),
        ("CAA", 257),
    ];
    let known = KINDS.iter().find(|(name, _)| *name == kind);
    let plain = || {
        kind.strip_prefix("TYPE")
            .and_then(|digits| digits.parse().ok())
    };
    known
        .map(|(_, number)| *number)
        .or_else(plain)
        .unwrap_or_else(|| panic!("no type {kind}"))
}

/// Asks all, and answers the answers in the questions' order. Ids are given here.
///
/// # Panics
/// When one gets no answer.
pub fn ask_all(server: SocketAddr, way: Way, questions: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut asker: Box<dyn FnMut(&Open) -> Answers> = match way {
        Way::Udp => {
            let socket = udp(server);
            Box::new(move |open| over_udp(&socket, open))
        }
        Way::Tcp => {
            let mut stream = TcpStream::connect(server).expect("the server takes connections");
            stream.set_nodelay(true).expect("an option");
            stream
                .set_read_timeout(Some(PATIENCE * 5))
                .expect("a time-out");
            Box::new(move |open| over_tcp(&mut stream, open))
        }
    };
    let mut answers = Vec::with_capacity(questions.len());
    for (turn, window) in questions.chunks(WINDOW).enumerate() {
        let id = |at: usize| ((turn * WINDOW + at) % 65_536) as u16;
        let mut open: Open = window
            .iter()
            .enumerate()
            .map(|(at, question)| {
                let mut bytes = question.clone();
                bytes[..2].copy_from_slice(&id(at).to_be_bytes());
                (id(at), bytes)
            })
            .collect();
        let mut got: HashMap<u16, Vec<u8>> = HashMap::new();
        for _ in 0..TRIES {
            for answer in asker(&open) {
                let id = u16::from_be_bytes([answer[0], answer[1]]);
                if open.remove(&id).is_some() {
                    got.insert(id, answer);
                }
            }
            if open.is_empty() {
                break;
            }
        }
        assert!(open.is_empty(), "{server} {way:?}: no answer to {open:?}");
        answers.extend((0..window.len()).map(|at| got.remove(&id(at)).expect("asked")));
    }
    answers
}

/// Sends one message as it is; None: no answer within that time.
pub fn try_udp(server: SocketAddr, message: &[u8], patience: Duration) -> Option<Vec<u8>> {
    let socket = udp(server);
    socket.send(message).expect("sent");
    socket.set_read_timeout(Some(patience)).expect("a time-out");
    let mut bytes = vec![0; 65_535];
    let length = socket.recv(&mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

fn udp(server: SocketAddr) -> UdpSocket {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).expect("a socket");
    socket.connect(server).expect("an address");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    socket
}

fn over_udp(socket: &UdpSocket, open: &Open) -> Vec<Vec<u8>> {
    for question in open.values() {
        let _ = socket.send(question);
    }
    let mut answers = Vec::new();
    let mut bytes = vec![0; 65_535];
    while answers.len() < open.len() {
        match socket.recv(&mut bytes) {
            Ok(length) if length >= 12 => answers.push(bytes[..length].to_vec()),
            Ok(_) => {}
            // Nobody listens yet, or an answer is lost.
            Err(_) => {
                std::thread::sleep(Duration::from_millis(50));
                break;
            }
        }
    }
    answers
}

fn over_tcp(stream: &mut TcpStream, open: &Open) -> Vec<Vec<u8>> {
    let mut framed = Vec::new();
    for question in open.values() {
        framed.extend(u16::try_from(question.len()).expect("short").to_be_bytes());
        framed.extend(question);
    }
    stream.write_all(&framed).expect("the server reads");
    (0..open.len())
        .map(|_| {
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("an answer by TCP");
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut bytes).expect("a whole answer");
            bytes
        })
        .collect()
}
