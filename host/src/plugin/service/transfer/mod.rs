//! Files sent by the trivial file transfer protocol (RFC 1350), with options (RFC 2347 to 2349) and windows (RFC 7440): the component decided the transfer, this
//! moves the blocks.
//!
//! It refuses to write, to send a file to anybody but the peer of the transfer, and to send a byte that the policy no longer grants. Each transfer has a
//! port of its own, as the protocol wants it (`tid`), and one of the places there are (`places`).
//!
//! The one idea: only an acknowledgement that moves the window forward, or a time-out, makes blocks go out. Answering each repeated acknowledgement would double
//! the traffic for ever ("sorcerer's apprentice", RFC 1123 section 4.2.3.1).

mod places;
mod tid;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use self::places::{Place, Places};
use self::tid::Tid;
use crate::capability::files::{FileRefusal, OpenedFile, open_granted};
use crate::capability::wasi::access::PluginAccess;
use crate::grant::{Action, Guard};
use crate::plugin::running::Plugin;
use crate::sandbox::bindings::exports::reactor::Transfer;
use crate::telemetry::metrics::PluginMetrics;

/// Opcodes (RFC 1350 section 5, RFC 2347).
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// Error codes (RFC 1350 appendix).
const NOT_DEFINED: u16 = 0;
const FILE_NOT_FOUND: u16 = 1;
const ACCESS_VIOLATION: u16 = 2;

/// Bytes read from a file at a time: few hops to a file thread, little memory for thousands of transfers.
const PIECE: u64 = 64 << 10;
/// The largest file that is sent with converted line ends; those are menus, and they are converted in memory.
const LARGEST_TEXT: u64 = 8 << 20;
/// What a component may ask for at most: time between repetitions, and their number.
const LONGEST_WAIT: Duration = Duration::from_secs(255);
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// The transfers of a plugin.
#[derive(Default)]
pub(super) struct Transfers(Places);

/// Why a transfer ended before its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the client says: {0}")]
    Client(String),
    /// Firmware asks for the size first, ends that transfer with an error, and begins another (RFC 2349 section 4).
    #[error("the client wanted to know the size")]
    OnlySize,
    #[error("the client fell silent")]
    Silent,
    #[error("the client was silent when all places were taken, and others asked")]
    GaveWay,
    #[error("the policy no longer grants it")]
    Revoked,
    #[error(transparent)]
    Refused(#[from] FileRefusal),
    #[error("{0} bytes are too many for mode netascii")]
    TooLargeForText(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Transfers {
    /// Starts one on a task of its own. False: it runs already, or there are too many. The client hears nothing and asks again.
    pub(super) fn start(&self, plugin: &Plugin, peer: SocketAddr, transfer: Transfer) -> bool {
        let Some(access) = plugin.sandbox.surroundings().access.clone() else {
            return false;
        };
        let effective = plugin.guard.effective();
        let most = effective
            .listen
            .get(transfer.slot.as_str())
            .map_or(0, |grant| grant.limits.transfers as usize);
        let numbers = plugin.metrics.clone();
        let Some(place) = self.0.take(peer, &transfer, most, &numbers) else {
            return false;
        };
        let name = plugin.name.clone();
        tokio::spawn(async move {
            let path = transfer.path.clone();
            let ended = tokio::select! {
                ended = run(&access, peer, transfer, &place, &numbers) => ended,
                () = place.taken_back() => Err(Broken::GaveWay),
            };
            match ended {
                Ok(bytes) => {
                    numbers.transfers_done.inc();
                    tracing::info!(plugin = &*name, %peer, path, bytes, "file sent");
                }
                Err(Broken::OnlySize) => {
                    tracing::info!(plugin = &*name, %peer, path, "size of a file told");
                }
                Err(why) => {
                    numbers.transfers_failed.inc();
                    tracing::warn!(plugin = &*name, %peer, path, %why, "file not sent");
                }
            }
        });
        true
    }
}

async fn run(
    access: &Arc<PluginAccess>,
    peer: SocketAddr,
    transfer: Transfer,
    place: &Place,
    numbers: &PluginMetrics,
) -> Result<u64, Broken> {
    let mut tid = Tid::open(peer, &transfer.local)?;
    let right = Right::of(access.guard(), peer, &transfer);
    let opened = open_granted(access, &transfer.files, &transfer.path).await;
    let source = match opened {
        Ok(file) if transfer.netascii => Source::text(file).await,
        Ok(file) => Ok(Source::of(file)),
        Err(refusal) => Err(refusal.into()),
    };
    let mut source = match source {
        Ok(source) => source,
        Err(why) => {
            let (code, text) = said(&why);
            let _ = tid.send(&error(code, text)).await;
            return Err(why);
        }
    };
    let mut sender = Sender {
        tid: &mut tid,
        right: Some(right),
        place: Some(place),
        wait: Duration::from_millis(transfer.timeout.into()).clamp(SHORTEST_WAIT, LONGEST_WAIT),
        retries: transfer.retries,
        block: u64::from(transfer.block_size.max(8)),
        window: u64::from(transfer.window_size.max(1)),
    };
    let sent = sender.send(&mut source, &transfer.options, numbers).await;
    if let Err(why @ (Broken::Revoked | Broken::Io(_) | Broken::Refused(_))) = &sent {
        let (code, text) = said(why);
        let _ = tid.send(&error(code, text)).await;
    }
    sent
}

/// What a transfer needs as long as it runs: its file, and leave to send to its peer. Asked again whenever the policy changed, since a piece of the file that
/// was read before would last a slow client for long.
struct Right<'a> {
    guard: &'a Guard,
    peer: SocketAddr,
    listen: &'a str,
    files: &'a str,
    path: &'a str,
    generation: u64,
}

impl<'a> Right<'a> {
    fn of(guard: &'a Guard, peer: SocketAddr, transfer: &'a Transfer) -> Self {
        Self {
            guard,
            peer,
            listen: &transfer.slot,
            files: &transfer.files,
            path: &transfer.path,
            generation: guard.generation_now(),
        }
    }

    fn holds(&mut self) -> bool {
        let generation = self.guard.generation_now();
        if generation == self.generation {
            return true;
        }
        self.generation = generation;
        let reading = Action::FileOpen {
            slot: self.files,
            path: self.path,
            write: false,
        };
        let sending = Action::DatagramSend {
            slot: self.listen,
            peer: self.peer,
            heard: true,
        };
        self.guard.decide(&reading).is_allowed() && self.guard.decide(&sending).is_allowed()
    }
}

/// The protocol's error for a reason. The reason itself is for the log.
fn said(why: &Broken) -> (u16, &'static str) {
    match why {
        Broken::Refused(FileRefusal::NotFound) => (FILE_NOT_FOUND, "File not found"),
        Broken::Refused(FileRefusal::Failed(_)) | Broken::Io(_) => {
            (NOT_DEFINED, "The file cannot be read")
        }
        Broken::Refused(_) | Broken::Revoked => (ACCESS_VIOLATION, "Access violation"),
        Broken::TooLargeForText(_) => (NOT_DEFINED, "Too large for mode netascii"),
        Broken::Client(_) | Broken::OnlySize | Broken::Silent | Broken::GaveWay => {
            (NOT_DEFINED, "Transfer ended")
        }
    }
}

/// What is sent: a file read piece by piece, or a text in memory.
#[derive(Default)]
struct Source {
    length: u64,
    file: Option<OpenedFile>,
    /// The offset of `piece`.
    at: u64,
    piece: Bytes,
}

impl Source {
    fn of(file: OpenedFile) -> Self {
        Self {
            length: file.length(),
            file: Some(file),
            at: 0,
            piece: Bytes::new(),
        }
    }

    /// Line ends as the network virtual terminal has them: CR LF, and CR NUL for a bare CR (RFC 764).
    async fn text(file: OpenedFile) -> Result<Self, Broken> {
        let length = file.length();
        if length > LARGEST_TEXT {
            return Err(Broken::TooLargeForText(length));
        }
        let bytes = file.read_at(0, length).await?.ok_or(Broken::Revoked)?;
        let piece = as_network_text(&bytes);
        Ok(Self {
            length: piece.len() as u64,
            file: None,
            at: 0,
            piece,
        })
    }

    /// The bytes of a block; fewer only at the end.
    async fn get(&mut self, offset: u64, size: u64) -> Result<Bytes, Broken> {
        let end = (offset + size).min(self.length);
        let held = self.at..self.at + self.piece.len() as u64;
        if (offset < held.start || end > held.end)
            && let Some(file) = &self.file
        {
            let size = PIECE.max(size).min(self.length.saturating_sub(offset));
            self.piece = file.read_at(offset, size).await?.ok_or(Broken::Revoked)?;
            self.at = offset;
            if (self.piece.len() as u64) < end - offset {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        let from = usize::try_from(offset.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let to = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        Ok(if from <= to && to <= self.piece.len() {
            self.piece.slice(from..to)
        } else {
            Bytes::new()
        })
    }
}

fn as_network_text(bytes: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    for &byte in bytes {
        match byte {
            b'\n' => text.extend_from_slice(b"\r\n"),
            b'\r' => text.extend_from_slice(b"\r\0"),
            other => text.push(other),
        }
    }
    text.into()
}

/// The sending side of one transfer.
struct Sender<'a> {
    tid: &'a mut Tid,
    /// None in tests of the protocol alone.
    right: Option<Right<'a>>,
    /// Likewise.
    place: Option<&'a Place>,
    wait: Duration,
    retries: u8,
    block: u64,
    window: u64,
}

/// What came back.
enum Answer {
    /// The number of the last block that arrived in order.
    Acknowledged(u16),
    /// Its port is closed.
    Gone,
    Silence,
}

impl Sender<'_> {
    async fn send(
        &mut self,
        source: &mut Source,
        options: &[(String, String)],
        numbers: &PluginMetrics,
    ) -> Result<u64, Broken> {
        if !options.is_empty() {
            self.agree(options, source.length).await?;
        }
        // The last block is shorter than the others, if need be empty (RFC 1350 section 6).
        let last = source.length / self.block + 1;
        let mut base = 1;
        let mut tries = 0;
        let mut repeated = false;
        // Every block was sent at least once.
        let mut complete = false;
        let mut packet = Vec::with_capacity(4 + usize::try_from(self.block).unwrap_or(0));
        while base <= last {
            let end = (base + self.window - 1).min(last);
            for number in base..=end {
                if self.right.as_mut().is_some_and(|right| !right.holds()) {
                    return Err(Broken::Revoked);
                }
                let bytes = source.get((number - 1) * self.block, self.block).await?;
                packet.clear();
                packet.extend_from_slice(&DATA.to_be_bytes());
                // Numbers wrap around: files of more than 65,535 blocks are common.
                packet.extend_from_slice(&(number as u16).to_be_bytes());
                packet.extend_from_slice(&bytes);
                match self.tid.send(&packet).await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        return self.gone(complete, source);
                    }
                    sent => sent?,
                };
                numbers.transfer_bytes.inc_by(bytes.len() as u64);
            }
            complete |= end == last;
            // One time-out for all that comes: a client that repeats itself sooner would else put off the block it waits for, for ever.
            let until = Instant::now() + self.wait;
            loop {
                match self.answer(until).await? {
                    Answer::Gone => return self.gone(complete, source),
                    Answer::Acknowledged(number) => {
                        let ahead = u64::from(number.wrapping_sub((base - 1) as u16));
                        if (1..=end + 1 - base).contains(&ahead) {
                            base += ahead;
                            (tries, repeated) = (0, false);
                            break;
                        }
                        // In a window the client asks for its beginning by repeating itself: answered once.
                        if ahead == 0 && self.window > 1 && !repeated {
                            repeated = true;
                            break;
                        }
                    }
                    Answer::Silence => {
                        tries += 1;
                        if tries > self.retries {
                            return Err(Broken::Silent);
                        }
                        break;
                    }
                }
            }
        }
        Ok(source.length)
    }

    /// The client closed its port. When every block was sent, it has them all: only its last acknowledgement was lost or is still on its way.
    fn gone(&self, complete: bool, source: &Source) -> Result<u64, Broken> {
        if complete {
            Ok(source.length)
        } else {
            Err(Broken::Client("its port is closed".into()))
        }
    }

    /// Acknowledges options and waits for block 0 to be acknowledged (RFC 2347).
    async fn agree(&mut self, options: &[(String, String)], length: u64) -> Result<(), Broken> {
        let is_size = |name: &str| name.eq_ignore_ascii_case("tsize");
        let asks_size = options.iter().any(|(name, _)| is_size(name));
        let mut packet = OACK.to_be_bytes().to_vec();
        for (name, value) in options {
            packet.extend_from_slice(name.as_bytes());
            packet.push(0);
            if is_size(name) {
                packet.extend_from_slice(length.to_string().as_bytes());
            } else {
                packet.extend_from_slice(value.as_bytes());
            }
            packet.push(0);
        }
        for _ in 0..=self.retries {
            self.tid.send(&packet).await?;
            let until = Instant::now() + self.wait;
            loop {
                let answer = match self.answer(until).await {
                    Err(Broken::Client(_)) if asks_size => return Err(Broken::OnlySize),
                    answer => answer?,
                };
                match answer {
                    Answer::Acknowledged(0) => return Ok(()),
                    Answer::Acknowledged(_) => {}
                    Answer::Gone => return self.gone(false, &Source::default()).map(drop),
                    Answer::Silence => break,
                }
            }
        }
        Err(Broken::Silent)
    }

    /// The next acknowledgement, or silence when the time is over. Packets that are neither acknowledgement nor error are not heard.
    async fn answer(&mut self, until: Instant) -> Result<Answer, Broken> {
        let mut buffer = [0; 516];
        loop {
            let size = match tokio::time::timeout_at(until, self.tid.receive(&mut buffer)).await {
                Err(_elapsed) => return Ok(Answer::Silence),
                // The client's machine says that nobody listens any more.
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return Ok(Answer::Gone);
                }
                Ok(size) => size?,
            };
            let Some(&[high, low, number_high, number_low, ref rest @ ..]) = buffer.get(..size)
            else {
                continue;
            };
            let number = u16::from_be_bytes([number_high, number_low]);
            match u16::from_be_bytes([high, low]) {
                ACK => {
                    if let Some(place) = self.place {
                        place.acknowledged();
                    }
                    return Ok(Answer::Acknowledged(number));
                }
                ERROR => {
                    let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
                    let text = String::from_utf8_lossy(text).into_owned();
                    return Err(Broken::Client(format!("error {number}, {text:?}")));
                }
                _ => {}
            }
        }
    }
}

fn error(code: u16, text: &str) -> Vec<u8> {
    let mut packet = ERROR.to_be_bytes().to_vec();
    packet.extend_from_slice(&code.to_be_bytes());
    packet.extend_from_slice(text.as_bytes());
    packet.push(0);
    packet
}

#[cfg(test)]
mod tests;
