//! DHCP packets on the wire (RFC 2131 section 2, options of RFC 2132, long ones of RFC 3396).
//!
//! It refuses what is no request of a client. It forgives what clients get wrong inside options: nothing here is decoded before it is needed, so
//! a host name that is not UTF-8 loses the name, not the packet.
//!
//! The one idea: options stay bytes by number. What a relay put into option 82 must go back exactly as it came (RFC 3046 section 2.2),
//! and a codec that understands options cannot promise that.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Bytes before the options.
const FIXED: usize = 236;
/// What DHCP options begin with (RFC 2131 section 3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Bytes of the smallest packet that old relays and clients accept (RFC 1542 section 2.1).
const SMALLEST: usize = 300;
/// Bytes of the largest IP datagram that every client takes (RFC 2131 section 2), and of the largest that is not fragmented on Ethernet.
const DATAGRAMS: (u16, u16) = (576, 1500);
/// Bytes of the headers of IP and UDP.
const HEADERS: u16 = 28;
/// Where `sname` is, its bytes, and those of `file`, which follows (RFC 2131 section 2).
const NAME_AT: usize = 44;
const NAME: usize = 64;
const FILE: usize = 128;
/// Bytes of the option that says that `sname` or `file` hold options.
const OVERLOAD: usize = 3;
/// What options end with.
const END: u8 = 255;
/// The flag of a client that cannot receive unicast yet.
const BROADCAST: u16 = 0x8000;

/// Option numbers used here (RFC 2132 and those named).
pub mod code {
    /// Subnet mask.
    pub const MASK: u8 = 1;
    /// Routers.
    pub const ROUTERS: u8 = 3;
    /// DNS servers.
    pub const DNS: u8 = 6;
    /// Host name.
    pub const HOST_NAME: u8 = 12;
    /// Domain.
    pub const DOMAIN: u8 = 15;
    /// The interface's MTU.
    pub const MTU: u8 = 26;
    /// Time servers.
    pub const NTP: u8 = 42;
    /// The address that the client asks for.
    pub const REQUESTED: u8 = 50;
    /// Seconds of the lease.
    pub const LEASE_TIME: u8 = 51;
    /// Options in `sname` and `file`.
    pub const OVERLOAD: u8 = 52;
    /// What the packet is.
    pub const MESSAGE: u8 = 53;
    /// The server's address.
    pub const SERVER: u8 = 54;
    /// What the client wants to know.
    pub const PARAMETERS: u8 = 55;
    /// What the vendor class has to say; for PXE, of boot servers (RFC 4578 refers to PXE 2.1).
    pub const VENDOR: u8 = 43;
    /// Why not.
    pub const TEXT: u8 = 56;
    /// Bytes of the largest IP datagram that the client takes.
    pub const LARGEST: u8 = 57;
    /// Seconds until the client renews.
    pub const RENEWAL: u8 = 58;
    /// Seconds until the client asks any server.
    pub const REBINDING: u8 = 59;
    /// What kind of client it is.
    pub const VENDOR_CLASS: u8 = 60;
    /// The client's identifier.
    pub const CLIENT_ID: u8 = 61;
    /// The TFTP server's name.
    pub const TFTP_SERVER: u8 = 66;
    /// The boot file's name.
    pub const BOOT_FILE: u8 = 67;
    /// User class (RFC 3004), where iPXE says its name.
    pub const USER_CLASS: u8 = 77;
    /// What the relay added (RFC 3046).
    pub const RELAY: u8 = 82;
    /// The client's architecture (RFC 4578).
    pub const ARCHITECTURE: u8 = 93;
    /// The machine's UUID (RFC 4578), echoed.
    pub const UUID: u8 = 97;
    /// The subnet that the client is in (RFC 3011).
    pub const SUBNET_SELECTION: u8 = 118;
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Message {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

impl Message {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Discover,
            3 => Self::Request,
            4 => Self::Decline,
            7 => Self::Release,
            8 => Self::Inform,
            _ => return None,
        })
    }
}

/// A request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What it is.
    pub message: Message,
    /// Hardware type; 1 is Ethernet, 32 InfiniBand.
    pub hardware_type: u8,
    /// The hardware address, up to 16 octets; empty for InfiniBand.
    pub hardware: Vec<u8>,
    /// The client's number for this exchange.
    pub transaction: u32,
    /// Seconds since the client began.
    pub seconds: u16,
    /// The client cannot receive before it has its address.
    pub broadcast: bool,
    /// The address that the client has and answers ARP for; unspecified if none.
    pub client: Ipv4Addr,
    /// The relay's address; unspecified if none.
    pub relay: Ipv4Addr,
    flags: u16,
    hops: u8,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Request {
    /// Reads a packet. None: not a DHCP request of a client.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_first_chunk::<FIXED>()?;
        let options = rest.strip_prefix(&COOKIE)?;
        let [op, hardware_type, length, hops, fields @ ..] = fixed;
        if *op != 1 || *length > 16 {
            return None;
        }
        let word = |at: usize| -> [u8; 4] {
            let part = fields.get(at..at + 4).and_then(|it| it.try_into().ok());
            part.unwrap_or_default()
        };
        let [s0, s1, f0, f1] = word(4);
        let flags = u16::from_be_bytes([f0, f1]);
        let hardware = fields.get(24..24 + usize::from(*length))?.to_vec();
        let mut known = BTreeMap::new();
        read_options(options, &mut known);
        // `file` and `sname` may hold the rest (RFC 2131 section 4.1).
        let overload = known
            .get(&code::OVERLOAD)
            .and_then(|it| it.first())
            .copied()
            .unwrap_or(0);
        if overload & 1 != 0 {
            read_options(fields.get(104..232)?, &mut known);
        }
        if overload & 2 != 0 {
            read_options(fields.get(40..104)?, &mut known);
        }
        let [message] = known.get(&code::MESSAGE)?.as_slice() else {
            return None;
        };
        Some(Self {
            message: Message::of(*message)?,
            hardware_type: *hardware_type,
            hardware,
            transaction: u32::from_be_bytes(word(0)),
            seconds: u16::from_be_bytes([s0, s1]),
            broadcast: flags & BROADCAST != 0,
            client: Ipv4Addr::from(word(8)),
            relay: Ipv4Addr::from(word(20)),
            flags,
            hops: *hops,
            options: known,
        })
    }

    /// An option's bytes.
    #[must_use]
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.get(&code).map(Vec::as_slice)
    }

    /// An option that is one address; the unspecified one counts as none.
    #[must_use]
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.option(code)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets)).filter(|it| !it.is_unspecified())
    }

    /// Bytes of the largest packet that the client takes (RFC 2132 section 9.10).
    #[must_use]
    pub fn largest(&self) -> usize {
        let (least, most) = DATAGRAMS;
        let said = self
            .option(code::LARGEST)
            .and_then(|it| <[u8; 2]>::try_from(it).ok());
        let said = said.map_or(least, u16::from_be_bytes);
        usize::from(said.clamp(least, most) - HEADERS)
    }

    /// A part of option 82.
    #[must_use]
    pub fn relay_part(&self, part: u8) -> Option<&[u8]> {
        part_of(self.option(code::RELAY)?, part)
    }

    /// Whether the client wants to know this; one that names nothing wants everything.
    #[must_use]
    pub fn wants(&self, code: u8) -> bool {
        self.option(code::PARAMETERS)
            .is_none_or(|list| list.contains(&code))
    }
}

/// A sub-option.
#[must_use]
pub fn part_of(option: &[u8], part: u8) -> Option<&[u8]> {
    let mut rest = option;
    while let Some(([number, length], following)) = rest.split_first_chunk::<2>() {
        let (data, following) = following.split_at_checked(usize::from(*length))?;
        if *number == part {
            return Some(data);
        }
        rest = following;
    }
    None
}

fn read_options(bytes: &[u8], into: &mut BTreeMap<u8, Vec<u8>>) {
    let mut rest = bytes;
    while let Some((code, following)) = rest.split_first() {
        rest = match *code {
            0 => following,
            255 => return,
            code => {
                let Some((length, following)) = following.split_first() else {
                    return;
                };
                let Some((data, following)) = following.split_at_checked(usize::from(*length))
                else {
                    return;
                };
                // One option in several pieces is one option (RFC 3396).
                into.entry(code).or_default().extend_from_slice(data);
                following
            }
        };
    }
}

/// An answer to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What it is.
    pub message: Message,
    /// The client's address to be; unspecified for none.
    pub yours: Ipv4Addr,
    /// The server that the boot file is on.
    pub next_server: Ipv4Addr,
    /// The boot file, where it fits (127 bytes).
    pub file: Vec<u8>,
    options: Vec<(u8, Vec<u8>)>,
}

impl Reply {
    /// An answer without options.
    #[must_use]
    pub fn new(message: Message) -> Self {
        Self {
            message,
            yours: Ipv4Addr::UNSPECIFIED,
            next_server: Ipv4Addr::UNSPECIFIED,
            file: Vec::new(),
            options: vec![(code::MESSAGE, vec![message as u8])],
        }
    }

    /// Adds an option.
    pub fn option(&mut self, code: u8, data: impl Into<Vec<u8>>) {
        self.options.push((code, data.into()));
    }

    /// Whether it has an option.
    #[must_use]
    pub fn has(&self, code: u8) -> bool {
        self.options.iter().any(|(it, _)| *it == code)
    }

    /// Takes an option back.
    pub fn without(&mut self, code: u8) {
        self.options.retain(|(it, _)| *it != code);
    }

    /// Adds an option that is a number of seconds.
    pub fn seconds(&mut self, code: u8, seconds: u32) {
        self.option(code, seconds.to_be_bytes());
    }

    /// Adds an option that is a list of addresses; none for an empty list.
    pub fn addresses(&mut self, code: u8, list: &[Ipv4Addr]) {
        if !list.is_empty() {
            self.option(
                code,
                list.iter().flat_map(Ipv4Addr::octets).collect::<Vec<u8>>(),
            );
        }
    }

    /// The packet, with what must be as in the request.
    #[must_use]
    pub fn write(&self, request: &Request) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SMALLEST + 64);
        let length = u8::try_from(request.hardware.len()).unwrap_or(16);
        bytes.extend([2, request.hardware_type, length, request.hops]);
        bytes.extend(request.transaction.to_be_bytes());
        bytes.extend([0, 0]);
        // A relay cannot reach a client that must go without its address.
        let refused = self.message == Message::Nak && !request.relay.is_unspecified();
        let flags = if refused {
            request.flags | BROADCAST
        } else {
            request.flags
        };
        bytes.extend(flags.to_be_bytes());
        // An address that the client has stays in an ACK (RFC 2131 table 3).
        let client = if self.message == Message::Ack {
            request.client
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        for address in [client, self.yours, self.next_server, request.relay] {
            bytes.extend(address.octets());
        }
        bytes.extend_from_slice(&request.hardware);
        bytes.resize(NAME_AT, 0);
        let relay = request.option(code::RELAY);
        let relay = relay.map_or_else(Vec::new, |it| encoded(code::RELAY, it));
        let has_file = (1..FILE).contains(&self.file.len());
        let [options, in_file, in_name] = self.laid_out(request, relay.len(), has_file);
        bytes.extend_from_slice(&in_name);
        bytes.resize(NAME_AT + NAME, 0);
        bytes.extend_from_slice(if has_file { &self.file } else { &in_file });
        bytes.resize(FIXED, 0);
        bytes.extend(COOKIE);
        bytes.extend_from_slice(&options);
        let overload = u8::from(!in_file.is_empty()) | u8::from(!in_name.is_empty()) << 1;
        if overload != 0 {
            bytes.extend([code::OVERLOAD, 1, overload]);
        }
        // The relay's is the last (RFC 3046 section 2.1).
        bytes.extend_from_slice(&relay);
        bytes.push(END);
        bytes.resize(bytes.len().max(SMALLEST), 0);
        bytes
    }

    /// The options behind the cookie, in `file` and in `sname`: the later ones go where there is room (RFC 2131 section 4.1), and what has room
    /// nowhere is left out. What the client must have comes first.
    fn laid_out(&self, request: &Request, relay: usize, has_file: bool) -> [Vec<u8>; 3] {
        let room = request
            .largest()
            .saturating_sub(FIXED + COOKIE.len() + OVERLOAD + relay + 1);
        let mut areas = [
            (room, Vec::new()),
            (if has_file { 0 } else { FILE - 1 }, Vec::new()),
            (NAME - 1, Vec::new()),
        ];
        let (first, rest) = self.options.split_at(self.options.len().min(1));
        let identifier = request
            .option(code::CLIENT_ID)
            .map(|it| (code::CLIENT_ID, it));
        let own = |(code, data): &'_ (u8, Vec<u8>)| encoded(*code, data);
        let all = first
            .iter()
            .map(own)
            .chain(identifier.map(|(code, data)| encoded(code, data)))
            .chain(rest.iter().map(own));
        for option in all {
            let fitting = areas
                .iter_mut()
                .find(|(room, area)| area.len() + option.len() <= *room);
            if let Some((_, area)) = fitting {
                area.extend(option);
            }
        }
        let [(_, options), (_, mut in_file), (_, mut in_name)] = areas;
        for area in [&mut in_file, &mut in_name] {
            if !area.is_empty() {
                area.push(END);
            }
        }
        [options, in_file, in_name]
    }
}

fn encoded(code: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len() + 2);
    push_option(&mut bytes, code, data);
    bytes
}

fn push_option(bytes: &mut Vec<u8>, code: u8, data: &[u8]) {
    if data.is_empty() {
        bytes.extend([code, 0]);
    }
    for piece in data.chunks(255) {
        bytes.extend([code, u8::try_from(piece.len()).unwrap_or(255)]);
        bytes.extend_from_slice(piece);
    }
}
