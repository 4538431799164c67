//! Follows a chunked body through the bytes that pass, to know where it ends.
//!
//! It refuses every chunk line that is not hexadecimal digits, an optional extension and CR LF. It does not decode: hyper does.

/// The most bytes of one chunk's extension. 256: none is in use with the Smart Proxy API.
const MAX_EXTENSION: usize = 256;
/// The most bytes of all trailer fields. 8 KiB; they are dropped anyway.
const MAX_TRAILERS: usize = 8 * 1024;
/// The most digits of a chunk size: 16 would overflow nothing, yet no client sends chunks of exabytes.
const MAX_DIGITS: usize = 15;

/// The chunks are not what RFC 9112 section 7.1 says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is malformed")]
pub(super) struct BadChunk;

/// Where in a chunked body we are.
#[derive(Debug)]
pub(super) struct Chunks {
    state: State,
    /// Digits of a size, bytes of an extension, or bytes of trailers seen.
    count: usize,
    /// Size of the present chunk, or what is left of it.
    left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataEnd,
    DataEndLine,
    /// At the beginning of a trailer line, or of the empty line that ends the body.
    Line,
    Trailer,
    TrailerEnd,
    End,
    Done,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self {
            state: State::Size,
            count: 0,
            left: 0,
        }
    }

    /// Whether the body has ended.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Follows the bytes and says how many belong to the body.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut rest = bytes;
        while self.state != State::Done {
            if self.state == State::Data {
                let here = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(rest.len());
                rest = rest.get(here..).unwrap_or_default();
                self.left = self.left.saturating_sub(here as u64);
                if self.left == 0 {
                    self.state = State::DataEnd;
                }
            }
            let Some((byte, after)) = rest.split_first() else {
                break;
            };
            rest = after;
            self.step(*byte)?;
        }
        Ok(bytes.len().saturating_sub(rest.len()))
    }

    fn step(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
                self.counted(MAX_DIGITS)?;
                self.left = self.left.wrapping_mul(16).wrapping_add(u64::from(digit));
                State::Size
            }
            (State::Size, b';') if self.count > 0 => self.begin(State::Extension),
            (State::Size, b'\r') if self.count > 0 => State::SizeEnd,
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, b'\t' | 0x20..=0x7e | 0x80..) => {
                self.counted(MAX_EXTENSION)?;
                State::Extension
            }
            (State::SizeEnd, b'\n') if self.left == 0 => self.begin(State::Line),
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataEnd, b'\r') => State::DataEndLine,
            (State::DataEndLine, b'\n') => self.begin(State::Size),
            (State::Line, b'\r') => State::End,
            (State::Line | State::Trailer, b'\t' | 0x20..=0x7e | 0x80..) => {
                self.counted(MAX_TRAILERS)?;
                State::Trailer
            }
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::TrailerEnd, b'\n') => State::Line,
            (State::End, b'\n') => State::Done,
            _ => return Err(BadChunk),
        };
        Ok(())
    }

    fn begin(&mut self, state: State) -> State {
        self.count = 0;
        if state == State::Size {
            self.left = 0;
        }
        state
    }

    fn counted(&mut self, limit: usize) -> Result<(), BadChunk> {
        self.count = self.count.saturating_add(1);
        if self.count > limit {
            Err(BadChunk)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn follow(text: &[u8]) -> Result<(usize, bool), BadChunk> {
        let mut chunks = Chunks::new();
        let used = chunks.follow(text)?;
        Ok((used, chunks.is_done()))
    }

    #[test]
    fn the_end_is_where_the_empty_line_is() {
        assert_eq!(follow(b"0\r\n\r\nGET /"), Ok((5, true)));
        assert_eq!(follow(b"5\r\nhello\r\n0\r\n\r\nnext"), Ok((15, true)));
        assert_eq!(
            follow(b"5;a=b\r\nhello\r\n00\r\nX: y\r\n\r\nnext"),
            Ok((26, true))
        );
        assert_eq!(follow(b"5\r\nhel"), Ok((6, false)));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for text in [
            "\r\n",
            ";x\r\n",
            "g\r\n",
            "0x5\r\nhello",
            "-1\r\n",
            "5\nhello",
            "5\r\nhelloX",
            "5\r\nhello\n0\r\n\r\n",
            "5 \r\nhello\r\n",
            "1111111111111111\r\n",
            "0\r\n\n",
            "0\r\nX: y\n",
            "5;\0\r\n",
        ] {
            assert_eq!(follow(text.as_bytes()), Err(BadChunk), "{text:?}");
        }
        assert_eq!(
            follow(format!("1;{}\r\n", "a".repeat(300)).as_bytes()),
            Err(BadChunk)
        );
        assert_eq!(
            follow(format!("0\r\n{}\r\n", "a".repeat(9000)).as_bytes()),
            Err(BadChunk)
        );
    }

    proptest! {
        #[test]
        fn pieces_are_followed_like_the_whole(sizes in proptest::collection::vec(1usize..300, 0..6), cut in 1usize..40) {
            let mut body = Vec::new();
            for size in sizes {
                body.extend(format!("{size:x}\r\n").bytes());
                body.extend(vec![b'\n'; size]);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let length = body.len();
            body.extend(b"POST / HTTP/1.1\r\n");
            let mut chunks = Chunks::new();
            let mut used = 0;
            for piece in body.chunks(cut) {
                used += chunks.follow(piece).unwrap();
            }
            prop_assert!(chunks.is_done());
            prop_assert_eq!(used, length);
        }
    }
}
