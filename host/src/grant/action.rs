//! Everything a plugin can attempt. A capability describes what it is about to do as an [`Action`] and asks
//! [`Guard::decide`](super::Guard::decide); the match there is exhaustive, so a new action cannot be forgotten.
//!
//! Actions borrow: asking costs no allocation. Each has a sentence in plain language (`Display`) for logs and people.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A kind of access. The words are those of manifests and policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Named directories and files.
    Files,
    /// Outgoing TCP and UDP.
    Sockets,
    /// Sockets the host holds for a service.
    Listen,
    /// Resolving names.
    Names,
    /// HTTP requests to named servers.
    Http,
    /// Requests to Foreman with the host's identity.
    Foreman,
    /// Durable keys and values.
    Store,
    /// Keys and passwords, used or revealed.
    Secrets,
    /// Interfaces of other plugins.
    Call,
    /// Files fetched by the host.
    Downloads,
    /// News of changed files.
    Watch,
    /// Asking whether an address is in use.
    Probe,
    /// Frames on a network interface.
    Link,
    /// What every plugin has, bounded: answers.
    Answers,
}

impl Capability {
    /// All that a need or a policy section can name.
    pub const GRANTABLE: [Self; 13] = [
        Self::Files,
        Self::Sockets,
        Self::Listen,
        Self::Names,
        Self::Http,
        Self::Foreman,
        Self::Store,
        Self::Secrets,
        Self::Call,
        Self::Downloads,
        Self::Watch,
        Self::Probe,
        Self::Link,
    ];

    /// The word in manifests, policies, metrics and logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Sockets => "sockets",
            Self::Listen => "listen",
            Self::Names => "names",
            Self::Http => "http",
            Self::Foreman => "foreman",
            Self::Store => "store",
            Self::Secrets => "secrets",
            Self::Call => "call",
            Self::Downloads => "downloads",
            Self::Watch => "watch",
            Self::Probe => "probe",
            Self::Link => "link",
            Self::Answers => "answers",
        }
    }

    /// Reads a word of a manifest or policy.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::GRANTABLE
            .into_iter()
            .find(|capability| capability.word() == word)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One attempt of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// Opens, lists, creates, renames or removes something below a files slot.
    FileOpen {
        /// The slot.
        slot: &'a str,
        /// Relative to the slot; for a grant of one file its name, or `.` for the directory that shows it.
        path: &'a str,
        /// True: contents or names may change.
        write: bool,
    },
    /// Makes, or leads to, a link. Never allowed: other programs would follow it.
    FileLink {
        /// The slot.
        slot: &'a str,
        /// Relative to the slot.
        path: &'a str,
    },
    /// Opens a TCP connection.
    TcpConnect {
        /// The address as it will be used.
        addr: SocketAddr,
        /// The name the host itself resolved for this connection; None: whatever names are on record for the address.
        name: Option<&'a str>,
    },
    /// Sends one datagram, or connects a UDP socket.
    UdpSend {
        /// The other side.
        addr: SocketAddr,
    },
    /// Binds a TCP socket, also implicitly before a connect.
    TcpBind {
        /// The local address.
        addr: SocketAddr,
    },
    /// Listens or accepts on a TCP socket of its own. Never allowed: the host listens.
    TcpListen {
        /// The local address.
        addr: SocketAddr,
    },
    /// Binds a UDP socket, also implicitly before a send.
    UdpBind {
        /// The local address.
        addr: SocketAddr,
    },
    /// Takes a datagram on a UDP socket of its own: covered by the right to send to the peer.
    UdpReceive {
        /// The other side.
        addr: SocketAddr,
    },
    /// Has the host listen for it.
    Listen {
        /// The slot.
        slot: &'a str,
        /// The protocol.
        transport: super::matchers::socket::Transport,
        /// Where.
        addr: SocketAddr,
    },
    /// Sends a datagram by a listening socket of the host.
    DatagramSend {
        /// The slot.
        slot: &'a str,
        /// The other side.
        peer: SocketAddr,
        /// True: the host received a datagram from this very peer in the batch being answered (or lately).
        heard: bool,
    },
    /// Sends by a slot of the host's sockets from an address that is not the slot's. Never allowed: it would speak for somebody else.
    SendFrom {
        /// The slot.
        slot: &'a str,
        /// The address it wants to be.
        addr: SocketAddr,
        /// True: the slot is one of `link`, else of `listen`.
        link: bool,
    },
    /// Resolves a name to addresses.
    Resolve {
        /// As the plugin wrote it.
        name: &'a str,
    },
    /// Sends an HTTP request.
    Http {
        /// The slot.
        slot: &'a str,
        /// Upper case.
        method: &'a str,
        /// The absolute URL as it will be sent.
        url: &'a str,
    },
    /// Connects to an address that the host of an allowed HTTP request resolved to.
    HttpAddress {
        /// The slot.
        slot: &'a str,
        /// The address that will be used.
        ip: IpAddr,
        /// The port.
        port: u16,
    },
    /// Sends a request to Foreman.
    Foreman {
        /// The slot.
        slot: &'a str,
        /// Upper case.
        method: &'a str,
        /// Path, with or without query, below Foreman's URL.
        path: &'a str,
    },
    /// Reads or changes durable keys.
    Store {
        /// The slot.
        slot: &'a str,
        /// True: changes.
        write: bool,
    },
    /// Uses a secret, or asks to see it.
    Secret {
        /// The slot.
        slot: &'a str,
        /// True: to see it.
        reveal: bool,
    },
    /// Calls another plugin.
    Call {
        /// The interface's name, e.g. `dns-provider`.
        interface: &'a str,
        /// The plugin that serves it.
        callee: &'a str,
    },
    /// Has a file fetched; also each redirect.
    Download {
        /// The slot.
        slot: &'a str,
        /// The absolute URL of this hop.
        url: &'a str,
    },
    /// Connects to an address that a download's host resolved to.
    DownloadAddress {
        /// The slot.
        slot: &'a str,
        /// The host of this hop's URL.
        host: &'a str,
        /// The address that will be used.
        ip: IpAddr,
        /// The port.
        port: u16,
    },
    /// Reads a watched file.
    Watch {
        /// The slot.
        slot: &'a str,
        /// As the plugin names it: absolute, or relative to the slot's directory.
        path: &'a str,
    },
    /// Asks whether an address answers.
    Probe {
        /// The slot.
        slot: &'a str,
        /// The address.
        ip: IpAddr,
    },
    /// Sends a frame on an interface.
    Link {
        /// The slot.
        slot: &'a str,
        /// The interface's name.
        interface: &'a str,
    },
    /// Sets a header of its answer.
    ResponseHeader {
        /// Lower case.
        name: &'a str,
    },
}

impl<'a> Action<'a> {
    /// The capability it belongs to.
    #[must_use]
    pub fn capability(&self) -> Capability {
        match self {
            Self::FileOpen { .. } | Self::FileLink { .. } => Capability::Files,
            Self::TcpConnect { .. }
            | Self::UdpSend { .. }
            | Self::TcpBind { .. }
            | Self::TcpListen { .. }
            | Self::UdpBind { .. }
            | Self::UdpReceive { .. } => Capability::Sockets,
            Self::Listen { .. } | Self::DatagramSend { .. } => Capability::Listen,
            Self::SendFrom { link: true, .. } => Capability::Link,
            Self::SendFrom { link: false, .. } => Capability::Listen,
            Self::Resolve { .. } => Capability::Names,
            Self::Http { .. } | Self::HttpAddress { .. } => Capability::Http,
            Self::Foreman { .. } => Capability::Foreman,
            Self::Store { .. } => Capability::Store,
            Self::Secret { .. } => Capability::Secrets,
            Self::Call { .. } => Capability::Call,
            Self::Download { .. } | Self::DownloadAddress { .. } => Capability::Downloads,
            Self::Watch { .. } => Capability::Watch,
            Self::Probe { .. } => Capability::Probe,
            Self::Link { .. } => Capability::Link,
            Self::ResponseHeader { .. } => Capability::Answers,
        }
    }

    /// The slot it names; for calls the interface. Empty where the action names none (sockets, names, answers).
    #[must_use]
    pub fn slot(&self) -> &'a str {
        match *self {
            Self::FileOpen { slot, .. }
            | Self::FileLink { slot, .. }
            | Self::Listen { slot, .. }
            | Self::DatagramSend { slot, .. }
            | Self::SendFrom { slot, .. }
            | Self::Http { slot, .. }
            | Self::HttpAddress { slot, .. }
            | Self::Foreman { slot, .. }
            | Self::Store { slot, .. }
            | Self::Secret { slot, .. }
            | Self::Download { slot, .. }
            | Self::DownloadAddress { slot, .. }
            | Self::Watch { slot, .. }
            | Self::Probe { slot, .. }
            | Self::Link { slot, .. } => slot,
            Self::Call { interface, .. } => interface,
            Self::TcpConnect { .. }
            | Self::UdpSend { .. }
            | Self::TcpBind { .. }
            | Self::TcpListen { .. }
            | Self::UdpBind { .. }
            | Self::UdpReceive { .. }
            | Self::Resolve { .. }
            | Self::ResponseHeader { .. } => "",
        }
    }
}

/// What the plugin tried, in plain language: "write `PXEGrub2/x` below files slot `root`". Control characters are escaped.
impl fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FileOpen { slot, path, write } => {
                write!(
                    f,
                    "{} `{}` below files slot `{}`",
                    if write { "write" } else { "read" },
                    Shown(path),
                    Shown(slot)
                )
            }
            Self::FileLink { slot, path } => write!(
                f,
                "make a link `{}` below files slot `{}`",
                Shown(path),
                Shown(slot)
            ),
            Self::TcpConnect {
                addr,
                name: Some(name),
            } => write!(f, "connect by TCP to `{}` at {addr}", Shown(name)),
            Self::TcpConnect { addr, name: None } => write!(f, "connect by TCP to {addr}"),
            Self::UdpSend { addr } => write!(f, "send a UDP datagram to {addr}"),
            Self::TcpBind { addr } => write!(f, "bind a TCP socket to {addr}"),
            Self::TcpListen { addr } => write!(f, "listen for TCP connections at {addr}"),
            Self::UdpBind { addr } => write!(f, "bind a UDP socket to {addr}"),
            Self::UdpReceive { addr } => write!(f, "receive a UDP datagram from {addr}"),
            Self::Listen {
                slot,
                transport,
                addr,
            } => {
                write!(
                    f,
                    "have the host listen at {transport} {addr} (listen slot `{}`)",
                    Shown(slot)
                )
            }
            Self::DatagramSend { slot, peer, heard } => write!(
                f,
                "send a datagram to {peer}{} by listen slot `{}`",
                if heard { "" } else { ", which sent none," },
                Shown(slot)
            ),
            Self::SendFrom { slot, addr, link } => write!(
                f,
                "send as {addr} by {} slot `{}`",
                if link { "link" } else { "listen" },
                Shown(slot)
            ),
            Self::Resolve { name } => write!(f, "resolve the name `{}`", Shown(name)),
            Self::Http { slot, method, url } => {
                write!(
                    f,
                    "send {} {} (http slot `{}`)",
                    Shown(method),
                    Shown(without_query(url)),
                    Shown(slot)
                )
            }
            Self::HttpAddress { slot, ip, port } => {
                write!(
                    f,
                    "connect to {} (http slot `{}`)",
                    SocketAddr::new(ip, port),
                    Shown(slot)
                )
            }
            Self::Foreman { slot, method, path } => {
                write!(
                    f,
                    "send Foreman {} {} (foreman slot `{}`)",
                    Shown(method),
                    Shown(without_query(path)),
                    Shown(slot)
                )
            }
            Self::Store { slot, write } => {
                write!(
                    f,
                    "{} stored data (store slot `{}`)",
                    if write { "change" } else { "read" },
                    Shown(slot)
                )
            }
            Self::Secret { slot, reveal } => {
                write!(
                    f,
                    "{} the secret of slot `{}`",
                    if reveal { "see" } else { "use" },
                    Shown(slot)
                )
            }
            Self::Call { interface, callee } => {
                write!(
                    f,
                    "call `{}` of plugin `{}`",
                    Shown(interface),
                    Shown(callee)
                )
            }
            Self::Download { slot, url } => write!(
                f,
                "download {} (downloads slot `{}`)",
                Shown(without_query(url)),
                Shown(slot)
            ),
            Self::DownloadAddress {
                slot,
                host,
                ip,
                port,
            } => write!(
                f,
                "download from `{}` at {} (downloads slot `{}`)",
                Shown(host),
                SocketAddr::new(ip, port),
                Shown(slot)
            ),
            Self::Watch { slot, path } => {
                write!(f, "read `{}` of watch slot `{}`", Shown(path), Shown(slot))
            }
            Self::Probe { slot, ip } => write!(
                f,
                "ask whether {ip} is in use (probe slot `{}`)",
                Shown(slot)
            ),
            Self::Link { slot, interface } => {
                write!(
                    f,
                    "send frames on interface `{}` (link slot `{}`)",
                    Shown(interface),
                    Shown(slot)
                )
            }
            Self::ResponseHeader { name } => write!(f, "set the response header `{}`", Shown(name)),
        }
    }
}

/// Queries carry tokens; logs and denials show URLs without them.
pub(crate) fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(path, _)| path)
}

/// Longest piece of a plugin's text in a sentence, in characters: enough for any path a person can read.
const SHOWN_LENGTH: usize = 200;

/// Text of a plugin, cut and with control and invisible characters escaped, so that it cannot forge a log line or drive a
/// terminal.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for (count, c) in self.0.chars().enumerate() {
            if count == SHOWN_LENGTH {
                return f.write_str("…");
            }
            let plain = c.is_ascii_graphic() || c == ' ' || (!c.is_ascii() && c.is_alphanumeric());
            if plain {
                f.write_char(c)?
            } else {
                write!(f, "{}", c.escape_unicode())?
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_cannot_forge_a_log_line() {
        let action = Action::Resolve {
            name: "a\nERROR \u{1b}[31m",
        };
        assert_eq!(
            action.to_string(),
            "resolve the name `a\\u{a}ERROR \\u{1b}[31m`"
        );
    }

    #[test]
    fn a_sentence_hides_queries() {
        let action = Action::Foreman {
            slot: "register",
            method: "GET",
            path: "/register?token=secret",
        };
        assert_eq!(
            action.to_string(),
            "send Foreman GET /register (foreman slot `register`)"
        );
    }

    #[test]
    fn capabilities_are_read_as_they_are_written() {
        for capability in Capability::GRANTABLE {
            assert_eq!(Capability::parse(capability.word()), Some(capability));
        }
        assert_eq!(Capability::parse("answers"), None);
    }
}
