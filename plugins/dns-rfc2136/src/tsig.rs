//! Signatures of whole messages by a shared key (TSIG, RFC 8945).
//!
//! It refuses to hold a key: what a signature covers is laid out here, the HMAC itself is the [`Signer`]'s, who in a component
//! is the host. It takes nothing from an answer before its signature was checked but the reason why the server signed none.
//!
//! The one idea: the record stands last in a message, so signing appends and [`detach`] cuts off.

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

/// Seconds that the clocks of both sides may differ, as RFC 8945 section 10 recommends.
const FUDGE: u16 = 300;
/// Bytes of a message's header.
const HEADER: usize = 12;
const TYPE_TSIG: u16 = 250;
const CLASS_ANY: u16 = 255;

/// The key of one side, used but not seen.
pub trait Signer {
    /// The key's name.
    fn name(&self) -> &Name;
    /// The algorithm's name on the wire, e.g. `hmac-sha256.`
    fn algorithm(&self) -> &Name;
    /// The HMAC of a message.
    ///
    /// # Errors
    /// Why the key cannot be used.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String>;
    /// Whether `mac` is the HMAC of the message, compared in constant time.
    ///
    /// # Errors
    /// Why the key cannot be used.
    fn verify(&self, message: &[u8], mac: &[u8]) -> Result<bool, String>;
}

/// The record, as it stood in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tsig {
    /// The key's name.
    pub key: Name,
    /// The algorithm's name.
    pub algorithm: Name,
    /// Seconds since 1970.
    pub time: u64,
    /// Seconds that clocks may differ.
    pub fudge: u16,
    /// The signature; empty when the server could not sign.
    pub mac: Vec<u8>,
    /// The message's id before any forwarder changed it.
    pub original_id: u16,
    /// 0, or why the server did not accept the request: 16 BADSIG, 17 BADKEY, 18 BADTIME, 22 BADTRUNC.
    pub error: u16,
    /// With BADTIME the server's time in 6 bytes.
    pub other: Vec<u8>,
}

impl Tsig {
    /// What the server says against the request, if anything.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        Some(match self.error {
            0 => return None,
            16 => "BADSIG: the key's secret or algorithm differs from the server's".to_owned(),
            17 => format!(
                "BADKEY: the server knows no key {} with {}",
                self.key, self.algorithm
            ),
            18 => {
                let server = self
                    .other
                    .iter()
                    .fold(0_u64, |time, &byte| time << 8 | u64::from(byte));
                format!(
                    "BADTIME: the clocks differ; ours said {}, the server's {server} (seconds since 1970)",
                    self.time
                )
            }
            22 => "BADTRUNC: the server wants a longer signature".to_owned(),
            other => format!("TSIG error {other}"),
        })
    }
}

/// Why a message could not be read or signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TsigError {
    /// The bytes are not a message.
    #[error("the message is broken: {0}")]
    Malformed(&'static str),
    /// The key cannot be used.
    #[error("the key cannot be used: {0}")]
    Key(String),
}

/// Signs a request. Answers the whole message and the MAC, which the server's answer covers too.
///
/// # Errors
/// When the key cannot be used.
pub fn sign(
    message: &[u8],
    id: u16,
    now: u64,
    signer: &dyn Signer,
) -> Result<(Vec<u8>, Vec<u8>), TsigError> {
    let mut tsig = Tsig {
        key: signer.name().clone(),
        algorithm: signer.algorithm().clone(),
        time: now,
        fudge: FUDGE,
        mac: Vec::new(),
        original_id: id,
        error: 0,
        other: Vec::new(),
    };
    let mut covered = message.to_vec();
    variables(&tsig, &mut covered)?;
    tsig.mac = signer.sign(&covered).map_err(TsigError::Key)?;
    let mut signed = message.to_vec();
    append(&tsig, &mut signed)?;
    Ok((signed, tsig.mac))
}

/// Whether an answer, without its signature, was signed by the same key as the request and is recent.
///
/// # Errors
/// When the key cannot be used.
pub fn verify(
    unsigned: &[u8],
    tsig: &Tsig,
    request_mac: &[u8],
    now: u64,
    signer: &dyn Signer,
) -> Result<bool, TsigError> {
    if tsig.key != *signer.name() || tsig.algorithm != *signer.algorithm() || tsig.mac.is_empty() {
        return Ok(false);
    }
    let mut covered = length(request_mac)?.to_vec();
    covered.extend_from_slice(request_mac);
    covered.extend_from_slice(&tsig.original_id.to_be_bytes());
    covered.extend_from_slice(unsigned.get(2..).unwrap_or_default());
    variables(tsig, &mut covered)?;
    let genuine = signer.verify(&covered, &tsig.mac).map_err(TsigError::Key)?;
    // A refusal for the clock's sake carries a clock that differs.
    let recent = tsig.error == 18 || now.abs_diff(tsig.time) <= u64::from(tsig.fudge);
    Ok(genuine && recent)
}

/// Cuts a signature off. Answers the message as it was before it was signed.
///
/// # Errors
/// When the bytes are not a message.
pub fn detach(message: &[u8]) -> Result<(Vec<u8>, Option<Tsig>), TsigError> {
    let mut reader = Reader {
        bytes: message,
        at: 4,
    };
    let questions = reader.u16()?;
    let records = [reader.u16()?, reader.u16()?, reader.u16()?];
    let additional = records[2];
    for _ in 0..questions {
        reader.name()?;
        reader.take(4)?;
    }
    let total: u32 = records.iter().map(|&count| u32::from(count)).sum();
    for left in (1..=total).rev() {
        let start = reader.at;
        let key = reader.name()?;
        let kind = reader.u16()?;
        reader.take(6)?;
        let data = usize::from(reader.u16()?);
        if kind != TYPE_TSIG {
            reader.take(data)?;
            continue;
        }
        if left != 1 || additional == 0 {
            return Err(TsigError::Malformed("a signature that is not last"));
        }
        let tsig = reader.tsig(key)?;
        if reader.at != message.len() {
            return Err(TsigError::Malformed("bytes after the signature"));
        }
        let mut unsigned = message.get(..start).unwrap_or_default().to_vec();
        for (place, byte) in unsigned
            .iter_mut()
            .skip(10)
            .zip((additional - 1).to_be_bytes())
        {
            *place = byte;
        }
        return Ok((unsigned, Some(tsig)));
    }
    Ok((message.to_vec(), None))
}

/// What a signature covers beside the message (RFC 8945 section 4.3.3).
fn variables(tsig: &Tsig, into: &mut Vec<u8>) -> Result<(), TsigError> {
    into.extend(wire(&tsig.key)?);
    into.extend(CLASS_ANY.to_be_bytes());
    into.extend([0; 4]);
    into.extend(wire(&tsig.algorithm)?);
    into.extend(time(tsig.time));
    into.extend(tsig.fudge.to_be_bytes());
    into.extend(tsig.error.to_be_bytes());
    into.extend(length(&tsig.other)?);
    into.extend(&tsig.other);
    Ok(())
}

fn append(tsig: &Tsig, message: &mut Vec<u8>) -> Result<(), TsigError> {
    let Some(&[high, low]) = message.get(10..HEADER) else {
        return Err(TsigError::Malformed("no header"));
    };
    let count = u16::from_be_bytes([high, low])
        .saturating_add(1)
        .to_be_bytes();
    for (place, byte) in message.iter_mut().skip(10).zip(count) {
        *place = byte;
    }
    let mut data = wire(&tsig.algorithm)?;
    data.extend(time(tsig.time));
    data.extend(tsig.fudge.to_be_bytes());
    data.extend(length(&tsig.mac)?);
    data.extend(&tsig.mac);
    data.extend(tsig.original_id.to_be_bytes());
    data.extend(tsig.error.to_be_bytes());
    data.extend(length(&tsig.other)?);
    data.extend(&tsig.other);
    message.extend(wire(&tsig.key)?);
    message.extend(TYPE_TSIG.to_be_bytes());
    message.extend(CLASS_ANY.to_be_bytes());
    message.extend([0; 4]);
    message.extend(length(&data)?);
    message.extend(data);
    Ok(())
}

/// 48 bits.
fn time(seconds: u64) -> impl Iterator<Item = u8> {
    seconds.to_be_bytes().into_iter().skip(2)
}

fn length(bytes: &[u8]) -> Result<[u8; 2], TsigError> {
    let length = u16::try_from(bytes.len())
        .map_err(|_| TsigError::Malformed("a field beyond 65,535 bytes"))?;
    Ok(length.to_be_bytes())
}

/// A name uncompressed and in lower case.
fn wire(name: &Name) -> Result<Vec<u8>, TsigError> {
    let mut bytes = Vec::new();
    name.to_lowercase()
        .emit(&mut BinEncoder::new(&mut bytes))
        .map_err(|_| TsigError::Malformed("a name that cannot be written"))?;
    Ok(bytes)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], TsigError> {
        let end = self.at.saturating_add(count);
        let taken = self
            .bytes
            .get(self.at..end)
            .ok_or(TsigError::Malformed("it ends too early"))?;
        self.at = end;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, TsigError> {
        let bytes = self.take(2)?;
        Ok(bytes
            .iter()
            .fold(0, |number, &byte| number << 8 | u16::from(byte)))
    }

    /// Follows pointers backwards only, so that it ends.
    fn name(&mut self) -> Result<Name, TsigError> {
        let mut labels: Vec<&[u8]> = Vec::new();
        let (mut here, mut after, mut total) = (self.at, None, 0_usize);
        loop {
            let mut place = Reader {
                bytes: self.bytes,
                at: here,
            };
            let &[first] = place.take(1)? else {
                return Err(TsigError::Malformed("it ends too early"));
            };
            match first {
                0 => {
                    self.at = after.unwrap_or(place.at);
                    break;
                }
                1..=63 => {
                    labels.push(place.take(usize::from(first))?);
                    total += usize::from(first) + 1;
                    if total > 254 {
                        return Err(TsigError::Malformed("a name beyond 255 bytes"));
                    }
                    here = place.at;
                }
                192.. => {
                    let &[low] = place.take(1)? else {
                        return Err(TsigError::Malformed("it ends too early"));
                    };
                    let target = usize::from(first & 0x3f) << 8 | usize::from(low);
                    if target >= here {
                        return Err(TsigError::Malformed("a name that points ahead"));
                    }
                    after = after.or(Some(place.at));
                    here = target;
                }
                64..=191 => return Err(TsigError::Malformed("an unknown kind of label")),
            }
        }
        Name::from_labels(labels).map_err(|_| TsigError::Malformed("a name that is none"))
    }

    fn tsig(&mut self, key: Name) -> Result<Tsig, TsigError> {
        let algorithm = self.name()?;
        let time = self
            .take(6)?
            .iter()
            .fold(0, |time, &byte| time << 8 | u64::from(byte));
        let fudge = self.u16()?;
        let size = self.u16()?;
        let mac = self.take(usize::from(size))?.to_vec();
        let (original_id, error) = (self.u16()?, self.u16()?);
        let size = self.u16()?;
        let other = self.take(usize::from(size))?.to_vec();
        Ok(Tsig {
            key,
            algorithm,
            time,
            fudge,
            mac,
            original_id,
            error,
            other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A pointer loop may labour backwards label by label without adding up; the sum of labels ends it.
    #[test]
    fn pointer_loops_end() {
        let mut message = vec![0; 12];
        message[5] = 1;
        message.extend([1, b'a', 0xc0, 12]);
        assert!(detach(&message).is_err());
        message.truncate(12);
        message.extend([0xc0, 12]);
        assert!(detach(&message).is_err());
    }

    proptest! {
        #[test]
        fn junk_is_an_error_or_no_signature(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = detach(&bytes);
        }
    }
}
