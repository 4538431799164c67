//! OMAPI on the wire: a header of six 32-bit numbers, two lists of named values, and a signature. Numbers are big-endian.
//!
//! Lengths are checked against [`LONGEST`] before anything is set aside for them.

/// Version and header length, which both sides send first.
pub const GREETING: [u8; 8] = [0, 0, 0, 100, 0, 0, 0, 24];

/// Bytes of the header.
pub const HEADER: usize = 24;

/// Bytes of one message. A host object with long statements has a few KiB.
pub const LONGEST: usize = 256 << 10;

/// What a message wants, or is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Find or create an object.
    Open,
    /// Send an object's values again.
    Refresh,
    /// Here are values: a change, or the answer to the two above.
    Update,
    /// An object changed.
    Notify,
    /// The outcome of an operation.
    Status,
    /// Remove an object.
    Delete,
}

impl Operation {
    fn number(self) -> u32 {
        match self {
            Self::Open => 1,
            Self::Refresh => 2,
            Self::Update => 3,
            Self::Notify => 4,
            Self::Status => 5,
            Self::Delete => 6,
        }
    }

    fn of(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Open,
            2 => Self::Refresh,
            3 => Self::Update,
            4 => Self::Notify,
            5 => Self::Status,
            6 => Self::Delete,
            _ => return None,
        })
    }
}

/// Named values, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values(Vec<(String, Vec<u8>)>);

impl Values {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, name: &str, value: u32) -> Self {
        self.bytes(name, value.to_be_bytes())
    }

    /// The bytes of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_slice())
    }

    /// The number of a name.
    #[must_use]
    pub fn get_number(&self, name: &str) -> Option<u32> {
        self.get(name)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn write(&self, out: &mut Vec<u8>) -> Option<()> {
        for (name, value) in &self.0 {
            out.extend_from_slice(
                &u16::try_from(name.len())
                    .ok()
                    .filter(|&length| length > 0)?
                    .to_be_bytes(),
            );
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&u32::try_from(value.len()).ok()?.to_be_bytes());
            out.extend_from_slice(value);
        }
        out.extend_from_slice(&[0, 0]);
        Some(())
    }
}

/// A message without its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The handle of the authenticator that signs; 0: unsigned.
    pub authenticator: u32,
    /// Bytes of the signature.
    pub signature_length: u32,
    /// What it wants.
    pub operation: Operation,
    /// Which object.
    pub handle: u32,
    /// This message's own number.
    pub id: u32,
    /// The number of the message that it answers; 0: none.
    pub answers: u32,
    /// Values about the message: `type`, `create`, `result`.
    pub message: Values,
    /// Values of the object.
    pub object: Values,
}

impl Message {
    /// The bytes that go on the wire before the signature. The first four are not signed. None: a name or value is too long.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let header = [
            self.authenticator,
            self.signature_length,
            self.operation.number(),
            self.handle,
            self.id,
            self.answers,
        ];
        let mut out: Vec<u8> = header
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect();
        self.message.write(&mut out)?;
        self.object.write(&mut out)?;
        (out.len() <= LONGEST).then_some(out)
    }
}

/// What became of the bytes received so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// A message, how many bytes it takes without its signature, and how many with it.
    Whole {
        /// The message.
        message: Message,
        /// Bytes before the signature.
        unsigned: usize,
        /// Bytes in all.
        length: usize,
    },
    /// At least this many bytes are needed.
    Partial(usize),
    /// No message of OMAPI's; why.
    Broken(&'static str),
}

/// Reads a message from the beginning of what was received.
#[must_use]
pub fn read(bytes: &[u8]) -> Read {
    let mut reader = Reader { bytes, at: 0 };
    match reader.message() {
        Ok(message) => {
            let unsigned = reader.at;
            let signature = usize::try_from(message.signature_length).unwrap_or(usize::MAX);
            match unsigned.checked_add(signature) {
                Some(length) if signature <= 64 && length <= bytes.len() => Read::Whole {
                    message,
                    unsigned,
                    length,
                },
                Some(length) if signature <= 64 => Read::Partial(length),
                _ => Read::Broken("a signature longer than any known one"),
            }
        }
        Err(Stop::Needs(length)) if length > LONGEST => {
            Read::Broken("a message longer than any dhcpd sends")
        }
        Err(Stop::Needs(length)) => Read::Partial(length),
        Err(Stop::Broken(why)) => Read::Broken(why),
    }
}

enum Stop {
    Needs(usize),
    Broken(&'static str),
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.saturating_add(count);
        let found = self.bytes.get(self.at..end).ok_or(Stop::Needs(end))?;
        self.at = end;
        Ok(found)
    }

    fn long(&mut self) -> Result<u32, Stop> {
        let bytes = self
            .take(4)?
            .try_into()
            .map_err(|_| Stop::Broken("no number"))?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn short(&mut self) -> Result<u16, Stop> {
        let bytes = self
            .take(2)?
            .try_into()
            .map_err(|_| Stop::Broken("no number"))?;
        Ok(u16::from_be_bytes(bytes))
    }

    fn message(&mut self) -> Result<Message, Stop> {
        if self.bytes.len() < HEADER {
            return Err(Stop::Needs(HEADER));
        }
        let (authenticator, signature_length) = (self.long()?, self.long()?);
        let operation = Operation::of(self.long()?).ok_or(Stop::Broken("an unknown operation"))?;
        Ok(Message {
            authenticator,
            signature_length,
            operation,
            handle: self.long()?,
            id: self.long()?,
            answers: self.long()?,
            message: self.values()?,
            object: self.values()?,
        })
    }

    fn values(&mut self) -> Result<Values, Stop> {
        let mut values = Values::new();
        loop {
            let length = self.short()?;
            if length == 0 {
                return Ok(values);
            }
            let name = self.take(usize::from(length))?;
            let length = usize::try_from(self.long()?).unwrap_or(usize::MAX);
            let value = self.take(length)?;
            values = values.bytes(&String::from_utf8_lossy(name), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> Message {
        Message {
            authenticator: 7,
            signature_length: 16,
            operation: Operation::Open,
            handle: 0,
            id: 99,
            answers: 0,
            message: Values::new().bytes("type", "host").number("create", 1),
            object: Values::new().bytes("name", "a.example.com"),
        }
    }

    #[test]
    fn a_message_is_laid_out_as_dhcpd_reads_it() {
        let bytes = message().to_bytes().unwrap();
        assert_eq!(
            bytes[..24],
            [
                0, 0, 0, 7, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 0
            ]
        );
        assert_eq!(bytes[24..38], *b"\x00\x04type\x00\x00\x00\x04host");
    }

    #[test]
    fn a_message_is_read_back_and_every_shorter_one_is_partial() {
        let mut bytes = message().to_bytes().unwrap();
        let unsigned = bytes.len();
        bytes.extend([0; 16]);
        for length in 0..bytes.len() {
            assert!(
                matches!(read(&bytes[..length]), Read::Partial(needs) if needs > length),
                "{length}"
            );
        }
        assert_eq!(
            read(&bytes),
            Read::Whole {
                message: message(),
                unsigned,
                length: unsigned + 16
            }
        );
    }

    #[test]
    fn impossible_lengths_are_refused_at_once() {
        let mut bytes = message().to_bytes().unwrap();
        bytes[30..34].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(read(&bytes), Read::Broken(_)));
        let mut bytes = message().to_bytes().unwrap();
        bytes[4..8].copy_from_slice(&65_u32.to_be_bytes());
        assert!(matches!(read(&bytes), Read::Broken(_)));
        assert!(matches!(
            read(b"HTTP/1.1 400 Bad Request\r\n"),
            Read::Broken(_)
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            match read(&bytes) {
                Read::Whole { length, .. } => prop_assert!(length <= bytes.len()),
                Read::Partial(needs) => prop_assert!(needs > bytes.len()),
                Read::Broken(_) => {}
            }
        }
    }
}
