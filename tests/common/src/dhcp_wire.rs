//! DHCP packets byte for byte, and machines that have no address yet (RFC 2131).
//!
//! It refuses to know what a packet should be like: a test says each field and option that matters to it.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use crate::namespace::Namespace;

/// Bytes before the options, with the magic cookie.
const HEAD: usize = 240;
/// How long an answer may take before a test gives up; the question is repeated.
const PATIENCE: Duration = Duration::from_secs(20);
/// Until the question is repeated.
const AGAIN: Duration = Duration::from_secs(2);

/// What option 53 says.
#[allow(missing_docs)]
pub mod kind {
    pub const DISCOVER: u8 = 1;
    pub const OFFER: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const DECLINE: u8 = 4;
    pub const ACK: u8 = 5;
    pub const NAK: u8 = 6;
    pub const RELEASE: u8 = 7;
}

/// A packet of a machine.
#[derive(Debug, Clone)]
pub struct Packet {
    head: [u8; HEAD],
    options: Vec<u8>,
}

impl Packet {
    /// A request of that kind, answered to everybody since the machine can hear nothing else.
    pub fn new(kind: u8, mac: [u8; 6]) -> Self {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&[1, 1, 6, 0]);
        head[4..8].copy_from_slice(&mac[2..]);
        head[10] = 0x80;
        head[28..34].copy_from_slice(&mac);
        head[236..].copy_from_slice(&[99, 130, 83, 99]);
        Self {
            head,
            options: vec![53, 1, kind],
        }
    }

    /// Adds an option.
    pub fn option(mut self, code: u8, data: &[u8]) -> Self {
        let length = u8::try_from(data.len()).expect("it fits one option");
        self.options.extend([code, length]);
        self.options.extend_from_slice(data);
        self
    }

    /// The machine has this address and hears what is sent there.
    pub fn at(mut self, address: &str) -> Self {
        self.head[10] = 0;
        self.address(12, address)
    }

    /// A relay handed it on.
    pub fn relayed_by(self, address: &str) -> Self {
        self.address(24, address)
    }

    fn address(mut self, at: usize, address: &str) -> Self {
        self.head[at..at + 4].copy_from_slice(&octets(address));
        self
    }

    /// As it stands on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        [&self.head[..], &self.options, &[255]].concat()
    }
}

/// The octets of an address, as options hold them.
pub fn octets(address: &str) -> [u8; 4] {
    address
        .parse::<Ipv4Addr>()
        .expect("an IPv4 address")
        .octets()
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer(Vec<u8>);

impl Answer {
    /// Option 53.
    pub fn kind(&self) -> u8 {
        self.option(53).map_or(0, |it| it[0])
    }

    /// The address that the machine gets.
    pub fn address(&self) -> String {
        self.four(16)
    }

    /// The server of its boot file.
    pub fn next_server(&self) -> String {
        self.four(20)
    }

    /// Its boot file, from the field for it.
    pub fn file(&self) -> String {
        let field = self.0[108..236].iter().copied();
        String::from_utf8(field.take_while(|it| *it != 0).collect()).expect("text")
    }

    /// The bytes of an option.
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        let mut rest = self.0.get(HEAD..)?;
        loop {
            match *rest {
                [0, ref after @ ..] => rest = after,
                [found, length, ref after @ ..] if found != 255 => {
                    let (data, after) = after.split_at_checked(usize::from(length))?;
                    if found == code {
                        return Some(data);
                    }
                    rest = after;
                }
                _ => return None,
            }
        }
    }

    fn four(&self, at: usize) -> String {
        let octets: [u8; 4] = self.0[at..at + 4].try_into().expect("four");
        Ipv4Addr::from(octets).to_string()
    }

    fn is_for(&self, packet: &Packet) -> bool {
        self.0.len() >= HEAD && self.0[0] == 2 && self.0[4..8] == packet.head[4..8]
    }
}

/// A socket on the machines' side of a wire, through which any number of machines speak.
#[derive(Debug)]
pub struct Machines {
    socket: UdpSocket,
}

impl Machines {
    /// Machines at this interface, which hear at port 68.
    #[track_caller]
    pub fn new(client: &Namespace, interface: &str) -> Self {
        client.ip(&["route", "replace", "default", "dev", interface]);
        Self::at(client, "0.0.0.0:68")
    }

    /// One machine, or relay, that hears at this address.
    #[track_caller]
    pub fn at(client: &Namespace, address: &str) -> Self {
        let bind = || {
            let socket = UdpSocket::bind(address)?;
            socket.set_broadcast(true)?;
            Ok::<_, std::io::Error>(socket)
        };
        Self {
            socket: client.inside(bind).expect("the port is free"),
        }
    }

    /// Sends to everybody.
    #[track_caller]
    pub fn shout(&self, bytes: &[u8]) {
        self.send(bytes, "255.255.255.255:67");
    }

    /// Sends to a server.
    #[track_caller]
    pub fn send(&self, bytes: &[u8], to: &str) {
        let to: SocketAddrV4 = to.parse().expect("an address with a port");
        self.socket.send_to(bytes, to).expect("the wire is up");
    }

    /// Everything that arrives within this time.
    pub fn hear(&self, time: Duration) -> Vec<Answer> {
        let end = Instant::now() + time;
        let mut heard = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return heard;
            }
            self.socket
                .set_read_timeout(Some(left))
                .expect("a time that is not zero");
            if let Ok(length) = self.socket.recv(&mut buffer) {
                heard.push(Answer(buffer[..length].to_vec()));
            }
        }
    }

    /// The answer to a question to everybody.
    #[track_caller]
    pub fn ask(&self, packet: &Packet) -> Answer {
        self.ask_at(packet, "255.255.255.255:67")
    }

    /// The answer to a question to one server.
    #[track_caller]
    pub fn ask_at(&self, packet: &Packet, to: &str) -> Answer {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            self.send(&packet.bytes(), to);
            let until = Instant::now() + AGAIN;
            let mut buffer = [0; 2048];
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                self.socket
                    .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                    .expect("a time that is not zero");
                let Ok(length) = self.socket.recv(&mut buffer) else {
                    continue;
                };
                let answer = Answer(buffer[..length].to_vec());
                if answer.is_for(packet) {
                    return answer;
                }
            }
        }
        panic!("no answer to {packet:?}");
    }

    /// Whether nobody answers for a while.
    #[track_caller]
    pub fn is_silent(&self, packet: &Packet, time: Duration) -> bool {
        self.shout(&packet.bytes());
        !self.hear(time).iter().any(|it| it.is_for(packet))
    }

    /// The four messages of a new machine: the acknowledgement.
    #[track_caller]
    pub fn boot(&self, mac: [u8; 6]) -> Answer {
        let offer = self.ask(&Packet::new(kind::DISCOVER, mac));
        assert_eq!(offer.kind(), kind::OFFER, "{offer:?}");
        let server = offer.option(54).expect("a server identifier").to_vec();
        let request = Packet::new(kind::REQUEST, mac)
            .option(50, &octets(&offer.address()))
            .option(54, &server);
        let answer = self.ask(&request);
        assert_eq!(
            (answer.kind(), answer.address()),
            (kind::ACK, offer.address()),
            "{answer:?}"
        );
        answer
    }
}
