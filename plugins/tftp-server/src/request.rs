//! A read request of the trivial file transfer protocol as it arrives (RFC 1350, RFC 2347, 2348, 2349, 7440).
//!
//! It refuses writes, unknown modes and paths that lead out. It forgives what real firmware gets wrong: bytes after the last option,
//! an option without a value, a missing NUL at the end, any case, backslashes, slashes at the beginning.
//!
//! The one idea: an option that makes no sense is left out, never an error, as RFC 2347 has it; only the path and mode must be right.

/// The most options that are looked at; the others are ignored. There are five in the registry.
const MOST_OPTIONS: usize = 16;
/// Bytes of the longest path that is looked for: what Linux can open.
const LONGEST_PATH: usize = 4095;

/// Why there is no transfer, as the protocol says it (RFC 1350 appendix, "Error Codes").
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The path names nothing that could be there.
    #[error("File not found")]
    NotFound,
    /// The path leads out of the directory.
    #[error("Access violation")]
    LeadsOut,
    /// Somebody wants to write.
    #[error("This server is read-only")]
    ReadOnly,
    /// No request of the protocol, or a mode it does not have.
    #[error("Illegal TFTP operation")]
    Illegal,
}

impl Refusal {
    /// The protocol's number of the error.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::NotFound => 1,
            Self::LeadsOut | Self::ReadOnly => 2,
            Self::Illegal => 4,
        }
    }
}

/// What a datagram asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A file.
    Read(ReadRequest),
    /// Something that is answered with an error.
    Refused(Refusal),
    /// A stray part of a transfer, or an error: answering would only make more of them.
    Nothing,
}

/// A request for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// Relative to the served directory, without `.` and `..`.
    pub path: String,
    /// Mode `netascii`; else `octet`.
    pub netascii: bool,
    /// The options that this server knows, in order, each once.
    pub options: Vec<Wish>,
}

/// An option with a value that makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Bytes a block, 8 to 65,464 (RFC 2348).
    BlockSize(u16),
    /// The file's size is wanted (RFC 2349).
    TransferSize,
    /// Seconds before a block is repeated, 1 to 255 (RFC 2349).
    Timeout(u8),
    /// Blocks before an acknowledgement, 1 to 65,535 (RFC 7440).
    WindowSize(u16),
}

/// Reads one datagram. `root`: the served directory's own path, since some loaders are configured with absolute names.
#[must_use]
pub fn read(datagram: &[u8], root: &str) -> Asked {
    let Some((opcode, rest)) = datagram.split_first_chunk::<2>() else {
        return Asked::Nothing;
    };
    match u16::from_be_bytes(*opcode) {
        1 => match read_request(rest, root) {
            Ok(request) => Asked::Read(request),
            Err(refusal) => Asked::Refused(refusal),
        },
        2 => Asked::Refused(Refusal::ReadOnly),
        3..=6 => Asked::Nothing,
        _ => Asked::Refused(Refusal::Illegal),
    }
}

fn read_request(rest: &[u8], root: &str) -> Result<ReadRequest, Refusal> {
    let mut fields = rest.split(|byte| *byte == 0);
    let name = fields.next().unwrap_or_default();
    let mode = fields.next().ok_or(Refusal::Illegal)?;
    let netascii = match mode.to_ascii_lowercase().as_slice() {
        b"octet" | b"binary" => false,
        b"netascii" => true,
        _ => return Err(Refusal::Illegal),
    };
    let name = std::str::from_utf8(name).map_err(|_| Refusal::NotFound)?;
    let path = path_below(name, root)?;
    let mut options: Vec<Wish> = Vec::new();
    for _ in 0..MOST_OPTIONS {
        let (Some(name), Some(value)) = (fields.next(), fields.next()) else {
            break;
        };
        // Padding: some firmware sends buffers of a fixed size.
        if name.is_empty() {
            break;
        }
        let known = |found: &Wish| options.iter().any(|it| it.name() == found.name());
        if let Some(wish) = wish(name, value).filter(|wish| !known(wish)) {
            options.push(wish);
        }
    }
    Ok(ReadRequest {
        path,
        netascii,
        options,
    })
}

impl Wish {
    /// The option's name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BlockSize(_) => "blksize",
            Self::TransferSize => "tsize",
            Self::Timeout(_) => "timeout",
            Self::WindowSize(_) => "windowsize",
        }
    }
}

fn wish(name: &[u8], value: &[u8]) -> Option<Wish> {
    let number = || {
        let digits = value.trim_ascii();
        let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
        text.parse::<u64>().ok()
    };
    match name.to_ascii_lowercase().as_slice() {
        // A wish beyond what the protocol allows is a wish for the most.
        b"blksize" => {
            let bytes = number()?.min(65_464);
            Some(Wish::BlockSize(u16::try_from(bytes).ok()?)).filter(|_| bytes >= 8)
        }
        b"tsize" => Some(Wish::TransferSize),
        b"timeout" => {
            let seconds = u8::try_from(number()?).ok()?;
            Some(Wish::Timeout(seconds)).filter(|_| seconds > 0)
        }
        b"windowsize" => {
            let blocks = u16::try_from(number()?.min(65_535)).ok()?;
            Some(Wish::WindowSize(blocks)).filter(|_| blocks > 0)
        }
        _ => None,
    }
}

/// The path below the served directory that a client means.
fn path_below(name: &str, root: &str) -> Result<String, Refusal> {
    if name.len() > LONGEST_PATH || name.chars().any(char::is_control) {
        return Err(Refusal::NotFound);
    }
    let name = name.replace('\\', "/");
    let parts = |text: &str| -> Vec<String> {
        let parts = text.split('/').filter(|part| !matches!(*part, "" | "."));
        parts.map(str::to_owned).collect()
    };
    let mut asked = parts(&name);
    let root = parts(root);
    if !root.is_empty() && name.starts_with('/') && asked.starts_with(&root) {
        asked.drain(..root.len());
    }
    if asked.iter().any(|part| part == "..") {
        return Err(Refusal::LeadsOut);
    }
    if asked.is_empty() {
        return Err(Refusal::NotFound);
    }
    Ok(asked.join("/"))
}
