//! Bytes that nobody may see by accident.
//!
//! [`Secret`] refuses to be printed, serialised, compared or copied; it is wiped when dropped. [`Key`] is a secret with the public
//! things that may be told about it: its name and algorithm.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use zeroize::Zeroizing;

use super::KeyProblem;
use crate::grant::effective::SecretFormat;

/// Secret bytes, wiped on drop. `Debug` shows the length only.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Secret(Zeroizing::new(bytes))
    }

    /// The bytes themselves. Whoever calls this answers for where they go.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Secret({} bytes)", self.0.len())
    }
}

/// The keyed hashes of TSIG (RFC 8945 section 6) and OMAPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `hmac-md5`: broken as a hash, still the default of old OMAPI and DNS keys.
    Md5,
    /// `hmac-sha1`
    Sha1,
    /// `hmac-sha256`
    Sha256,
    /// `hmac-sha384`
    Sha384,
    /// `hmac-sha512`
    Sha512,
}

impl Algorithm {
    /// Understands the names of key files and of TSIG, in any case, with or without the final dot.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        match name.trim_end_matches('.') {
            "hmac-md5" | "hmac-md5.sig-alg.reg.int" => Some(Algorithm::Md5),
            "hmac-sha1" => Some(Algorithm::Sha1),
            "hmac-sha256" => Some(Algorithm::Sha256),
            "hmac-sha384" => Some(Algorithm::Sha384),
            "hmac-sha512" => Some(Algorithm::Sha512),
            _ => None,
        }
    }

    /// The contract's name.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "hmac-md5",
            Algorithm::Sha1 => "hmac-sha1",
            Algorithm::Sha256 => "hmac-sha256",
            Algorithm::Sha384 => "hmac-sha384",
            Algorithm::Sha512 => "hmac-sha512",
        }
    }

    /// The HMAC of a message (RFC 2104).
    pub fn sign(self, secret: &Secret, message: &[u8]) -> Vec<u8> {
        match self {
            Algorithm::Md5 => mac::<Hmac<md5::Md5>>(secret, message),
            Algorithm::Sha1 => mac::<Hmac<sha1::Sha1>>(secret, message),
            Algorithm::Sha256 => mac::<Hmac<sha2::Sha256>>(secret, message),
            Algorithm::Sha384 => mac::<Hmac<sha2::Sha384>>(secret, message),
            Algorithm::Sha512 => mac::<Hmac<sha2::Sha512>>(secret, message),
        }
    }

    /// Compares in constant time. Only the whole MAC counts: a truncated one is wrong.
    pub fn verify(self, secret: &Secret, message: &[u8], mac: &[u8]) -> bool {
        use subtle::ConstantTimeEq;
        self.sign(secret, message).ct_eq(mac).into()
    }
}

fn mac<M: Mac + hmac::digest::KeyInit>(secret: &Secret, message: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length, so there is nothing to fail; an empty MAC would match nothing.
    <M as Mac>::new_from_slice(secret.expose())
        .map(|keyed| keyed.chain_update(message).finalize().into_bytes().to_vec())
        .unwrap_or_default()
}

/// A secret and what may be told about it.
#[derive(Debug)]
pub struct Key {
    /// The key's public name; empty when its source has none.
    pub name: String,
    /// None: its source names none.
    pub algorithm: Option<Algorithm>,
    /// The secret bytes.
    pub secret: Secret,
}

impl Key {
    /// Reads a key from the bytes of its source.
    pub fn parse(format: SecretFormat, source: &Secret) -> Result<Self, KeyProblem> {
        let nameless = |bytes: Vec<u8>| Key {
            name: String::new(),
            algorithm: None,
            secret: Secret::new(bytes),
        };
        let key = match format {
            SecretFormat::Raw => nameless(without_line_end(source.expose()).to_vec()),
            SecretFormat::Base64 => nameless(decode(source.expose())?),
            SecretFormat::BasicAuth => nameless(basic_auth(source.expose())?),
            SecretFormat::BindKey => super::key_file::parse(
                std::str::from_utf8(source.expose()).map_err(|_| KeyProblem::NotText)?,
            )?,
        };
        if key.secret.expose().is_empty() {
            return Err(KeyProblem::Empty);
        }
        Ok(key)
    }
}

/// Decodes base64 with or without padding marks, ignoring white space.
pub(super) fn decode(text: &[u8]) -> Result<Vec<u8>, KeyProblem> {
    let dense = Zeroizing::new(
        text.iter()
            .copied()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect::<Vec<u8>>(),
    );
    STANDARD.decode(&*dense).map_err(|_| KeyProblem::NotBase64)
}

/// `user:password` in base64 (RFC 7617 section 2); a user has no colon, a password may.
fn basic_auth(text: &[u8]) -> Result<Vec<u8>, KeyProblem> {
    let text = without_line_end(text);
    if text.is_empty() {
        return Err(KeyProblem::Empty);
    }
    if !text.contains(&b':') {
        return Err(KeyProblem::NotUserAndPassword);
    }
    Ok(STANDARD.encode(text).into_bytes())
}

fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn macs_are_those_of_the_rfcs() {
        // RFC 2202 and RFC 4231, test case 2.
        let secret = Secret::new(b"Jefe".to_vec());
        let message = b"what do ya want for nothing?";
        let expected = [
            (Algorithm::Md5, "750c783e6ab0b503eaa86e310a5db738"),
            (Algorithm::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (
                Algorithm::Sha256,
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                Algorithm::Sha384,
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                Algorithm::Sha512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ];
        for (algorithm, mac) in expected {
            assert_eq!(hex(&algorithm.sign(&secret, message)), mac, "{algorithm:?}");
            assert_eq!(
                Algorithm::parse(&algorithm.name().to_uppercase()),
                Some(algorithm)
            );
        }
    }

    #[test]
    fn only_the_whole_and_right_mac_verifies() {
        let secret = Secret::new(b"k".to_vec());
        let mac = Algorithm::Sha256.sign(&secret, b"message");
        assert!(Algorithm::Sha256.verify(&secret, b"message", &mac));
        assert!(!Algorithm::Sha256.verify(&secret, b"massage", &mac));
        assert!(!Algorithm::Sha256.verify(&secret, b"message", &mac[..16]));
        assert!(!Algorithm::Sha256.verify(&secret, b"message", b""));
        assert!(!Algorithm::Sha256.verify(&Secret::new(b"l".to_vec()), b"message", &mac));
    }

    #[test]
    fn printing_a_secret_tells_its_length_only() {
        let key = Key::parse(SecretFormat::Raw, &Secret::new(b"hunter2\n".to_vec())).unwrap();
        let shown = format!("{key:?} {key:#?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("104") && shown.contains("7 bytes"),
            "{shown}"
        );
    }

    #[test]
    fn formats_read_what_they_name() {
        let read = |format, text: &str| {
            Key::parse(format, &Secret::new(text.as_bytes().to_vec()))
                .map(|key| key.secret.expose().to_vec())
        };
        assert_eq!(read(SecretFormat::Raw, "a b\r\n").unwrap(), b"a b");
        assert_eq!(
            read(SecretFormat::Base64, "aGV s\nbG8=\n").unwrap(),
            b"hello"
        );
        assert_eq!(
            read(SecretFormat::Base64, "not base64!"),
            Err(KeyProblem::NotBase64)
        );
        assert_eq!(
            read(SecretFormat::BasicAuth, "Aladdin:open sesame\n").unwrap(),
            b"QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert_eq!(
            read(SecretFormat::BasicAuth, "Aladdin\n"),
            Err(KeyProblem::NotUserAndPassword)
        );
        assert_eq!(read(SecretFormat::BasicAuth, ""), Err(KeyProblem::Empty));
        assert_eq!(read(SecretFormat::Raw, "\n"), Err(KeyProblem::Empty));
    }
}
