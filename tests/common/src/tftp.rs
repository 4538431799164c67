//! A TFTP client that sends what it is told, byte for byte, and shows what comes back (RFC 1350, RFC 2347).
//!
//! It repeats nothing and acknowledges nothing by itself; only [`Client::fetch`] behaves as a client does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// After which a client says again what it said last, and how often it does.
const SILENCE: Duration = Duration::from_secs(1);
const TRIES: usize = 20;

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// A block, with its number.
    Data(u16, Vec<u8>),
    /// Options that are acknowledged, in order.
    Options(Vec<(String, String)>),
    /// An error, with its code.
    Error(u16, String),
}

impl Packet {
    /// Panics at anything a server may not send.
    #[track_caller]
    fn read(bytes: &[u8]) -> Self {
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let texts = |from: usize| -> Vec<String> {
            let bytes = bytes[from..].strip_suffix(&[0]).expect("a NUL at the end");
            let texts = bytes.split(|byte| *byte == 0);
            texts
                .map(|it| String::from_utf8_lossy(it).into_owned())
                .collect()
        };
        match number(0) {
            3 => Self::Data(number(2), bytes[4..].to_vec()),
            5 => Self::Error(number(2), texts(4).join("\0")),
            6 => Self::Options(
                texts(2)
                    .chunks(2)
                    .map(|pair| (pair[0].clone(), pair[1].clone()))
                    .collect(),
            ),
            _ => panic!("no packet of a server: {bytes:?}"),
        }
    }
}

/// A read request with its options.
pub fn request(name: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![0, 1];
    let pairs = options.iter().flat_map(|(name, value)| [*name, *value]);
    for text in [name, mode].into_iter().chain(pairs) {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// One client: its port, the server's, and the transfer's once that is known.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub socket: UdpSocket,
    server: SocketAddr,
    transfer: Option<SocketAddr>,
}

impl Client {
    /// One on loopback, with a port of its own.
    pub fn new(server: SocketAddr) -> Self {
        let own: IpAddr = match server.is_ipv4() {
            true => Ipv4Addr::LOCALHOST.into(),
            false => Ipv6Addr::LOCALHOST.into(),
        };
        Self::at((own, 0).into(), server)
    }

    /// One at this address.
    pub fn at(own: SocketAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(own).expect("a free port");
        Self {
            socket,
            server,
            transfer: None,
        }
    }

    /// Sends to the server's port, from where another transfer begins.
    pub fn ask(&mut self, bytes: &[u8]) {
        self.transfer = None;
        self.socket.send_to(bytes, self.server).expect("loopback");
    }

    /// Where the transfer comes from, after the first packet of it.
    #[track_caller]
    pub fn transfer(&self) -> SocketAddr {
        self.transfer.expect("a packet was heard")
    }

    /// Sends to the transfer's port.
    #[track_caller]
    pub fn say(&self, bytes: &[u8]) {
        self.socket
            .send_to(bytes, self.transfer())
            .expect("loopback");
    }

    /// Acknowledges a block.
    #[track_caller]
    pub fn acknowledge(&self, number: u16) {
        let [high, low] = number.to_be_bytes();
        self.say(&[0, 4, high, low]);
    }

    /// Sends an error.
    #[track_caller]
    pub fn refuse(&self, code: u8, text: &str) {
        self.say(&[&[0, 5, 0, code], text.as_bytes(), &[0]].concat());
    }

    /// The next packet; `None`: nothing came for so long.
    #[track_caller]
    pub fn hear_within(&mut self, patience: Duration) -> Option<Packet> {
        self.socket
            .set_read_timeout(Some(patience))
            .expect("a time");
        let mut buffer = vec![0; 65_536];
        let (size, from) = self.socket.recv_from(&mut buffer).ok()?;
        self.transfer.get_or_insert(from);
        Some(Packet::read(&buffer[..size]))
    }

    /// The next packet.
    #[track_caller]
    pub fn hear(&mut self) -> Packet {
        self.hear_within(PATIENCE).expect("a packet")
    }

    /// The next packet has to be this block; answers its bytes.
    #[track_caller]
    pub fn block(&mut self, number: u16) -> Vec<u8> {
        match self.hear() {
            Packet::Data(found, bytes) if found == number => bytes,
            other => panic!("instead of block {number}: {}", brief(&other)),
        }
    }

    /// Fetches a file as a client does that repeats itself when it hears nothing. An error: what the server said.
    #[track_caller]
    pub fn fetch(
        &mut self,
        name: &str,
        mode: &str,
        options: &[(&str, &str)],
    ) -> Result<Vec<u8>, (u16, String)> {
        let request = request(name, mode, options);
        let (mut size, mut window) = (512, 1);
        let (mut got, mut whole, mut fresh, mut told) = (Vec::new(), 0_u16, 0, false);
        let mut silent = 0;
        self.ask(&request);
        loop {
            match self.hear_within(SILENCE) {
                None => {
                    silent += 1;
                    assert!(silent < TRIES, "the server fell silent");
                    match self.transfer {
                        None => self.ask(&request),
                        Some(_) => self.acknowledge(whole),
                    }
                    continue;
                }
                Some(Packet::Error(code, text)) => return Err((code, text)),
                Some(Packet::Options(options)) => {
                    for (name, value) in options {
                        let value = || value.parse().expect("a number");
                        match name.as_str() {
                            "blksize" => size = value(),
                            "windowsize" => window = value(),
                            _ => {}
                        }
                    }
                    self.acknowledge(0);
                }
                Some(Packet::Data(number, bytes)) => {
                    let ahead = number.wrapping_sub(whole);
                    if ahead != 1 {
                        if usize::from(ahead) <= window && !told {
                            self.acknowledge(whole);
                            (fresh, told) = (0, true);
                        }
                        continue;
                    }
                    (whole, fresh, told) = (number, fresh + 1, false);
                    let ended = bytes.len() < size;
                    got.extend(bytes);
                    if fresh == window || ended {
                        self.acknowledge(whole);
                        fresh = 0;
                    }
                    if ended {
                        return Ok(got);
                    }
                }
            }
            silent = 0;
        }
    }
}

/// A packet in a message: not all of its bytes.
fn brief(packet: &Packet) -> String {
    match packet {
        Packet::Data(number, bytes) => format!("block {number} of {} bytes", bytes.len()),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_the_protocol_has_them() {
        assert_eq!(
            Packet::read(b"\0\x03\0\x07ab"),
            Packet::Data(7, b"ab".to_vec())
        );
        assert_eq!(
            Packet::read(b"\0\x05\0\x01gone\0"),
            Packet::Error(1, "gone".into())
        );
        assert_eq!(
            Packet::read(b"\0\x06tsize\x005\0blksize\08\0"),
            Packet::Options(vec![
                ("tsize".into(), "5".into()),
                ("blksize".into(), "8".into())
            ])
        );
        assert_eq!(
            request("a", "octet", &[("tsize", "0")]),
            b"\0\x01a\0octet\0tsize\x000\0"
        );
    }
}
