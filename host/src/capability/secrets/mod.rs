//! The `secrets` capability: a plugin signs, verifies and fills headers with secrets it never sees.
//!
//! It refuses to show a secret but to a plugin whose policy grants `access = "reveal"`, and to put one into a log, an error or an
//! answer: every error here is made of paths, names and sizes.

mod key_file;
pub mod secret;
pub mod source;

use std::path::PathBuf;
use std::sync::Arc;

pub use secret::{Algorithm, Key, Secret};
pub use source::KeyRing;

use crate::capability::throttle::Throttle;
use crate::grant::effective::SecretGrant;
use crate::grant::{Action, Guard};
use crate::sandbox::bindings::imports::secrets as contract;

/// The longest message that a plugin may have signed or verified: a DNS message over TCP is at most 64 KiB.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// The capability itself; one a host, cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    ring: Arc<KeyRing>,
    log: Arc<Throttle>,
}

impl Secrets {
    /// With the keys of this ring.
    pub fn new(ring: Arc<KeyRing>) -> Self {
        Secrets {
            ring,
            log: Arc::default(),
        }
    }

    /// Name and algorithm of a slot's key.
    pub fn about(&self, guard: &Guard, slot: &str) -> Result<contract::Key, contract::Error> {
        let key = self.key(guard, slot, false)?;
        let algorithm = key
            .algorithm
            .map(|algorithm| algorithm.name().to_owned())
            .unwrap_or_default();
        Ok(contract::Key {
            name: key.name.clone(),
            algorithm,
        })
    }

    /// The HMAC of a message.
    pub fn sign(
        &self,
        guard: &Guard,
        slot: &str,
        message: &[u8],
    ) -> Result<Vec<u8>, contract::Error> {
        let (key, algorithm) = self.signing(guard, slot, message)?;
        Ok(algorithm.sign(&key.secret, message))
    }

    /// Whether a MAC is that of a message; compared in constant time.
    pub fn verify(
        &self,
        guard: &Guard,
        slot: &str,
        message: &[u8],
        mac: &[u8],
    ) -> Result<bool, contract::Error> {
        let (key, algorithm) = self.signing(guard, slot, message)?;
        Ok(algorithm.verify(&key.secret, message, mac))
    }

    /// The secret's bytes, for a plugin that was granted to see them.
    pub fn reveal(&self, guard: &Guard, slot: &str) -> Result<Vec<u8>, contract::Error> {
        Ok(self.key(guard, slot, true)?.secret.expose().to_vec())
    }

    fn signing(
        &self,
        guard: &Guard,
        slot: &str,
        message: &[u8],
    ) -> Result<(Key, Algorithm), contract::Error> {
        let key = self.key(guard, slot, false)?;
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(contract::Error::Unusable(format!(
                "a message of {} bytes; at most {MAX_MESSAGE_BYTES}",
                message.len()
            )));
        }
        let algorithm = key.algorithm.ok_or_else(|| {
            contract::Error::Unusable(format!(
                "secret {slot:?} names no algorithm; add `algorithm = \"hmac-sha256\"` to its grant"
            ))
        })?;
        Ok((key, algorithm))
    }

    fn key(&self, guard: &Guard, slot: &str, reveal: bool) -> Result<Key, contract::Error> {
        guard
            .decide(&Action::Secret { slot, reveal })
            .check()
            .map_err(|denial| contract::Error::Denied(denial.to_string()))?;
        let effective = guard.effective();
        let grant = effective.secrets.get(slot).ok_or_else(|| {
            contract::Error::Denied(format!("secret {slot:?} is no longer granted"))
        })?;
        self.usable(guard, slot, grant)
    }

    fn usable(
        &self,
        guard: &Guard,
        slot: &str,
        grant: &SecretGrant,
    ) -> Result<Key, contract::Error> {
        self.ring.key(grant).map_err(|problem| {
            if let Some(suppressed) = self.log.pass(guard.plugin()) {
                tracing::warn!(target: "secrets", plugin = guard.plugin(), slot, problem = %problem, suppressed, "a granted secret is not usable");
            }
            // The plugin learns that, not where: paths of the host are none of its business.
            contract::Error::Unusable(format!("secret {slot:?} is not usable; the host's log says why"))
        })
    }
}

/// Why a secret's source gives no key. Never holds any of its content but the name of an unknown algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// The file cannot be opened or read.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A directory, FIFO, device or socket.
    #[error("{path}: not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Every user of the machine may use the file.
    #[error("{path}: every user may access it (mode {mode:o}); `chmod o= {path}`")]
    OpenToAll {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Beyond the size of any key.
    #[error("{path}: more than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// A credential is named, but systemd gave none.
    #[error(
        "credential {name:?}: the service has no credentials; add `LoadCredential={name}:/path` to its unit"
    )]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// Not the name of a file in one directory.
    #[error("credential {name:?}: not a plain name")]
    BadCredentialName {
        /// The credential.
        name: String,
    },
    /// Not UTF-8.
    #[error("the key file is not text")]
    NotText,
    /// Not base64.
    #[error("the secret is not base64")]
    NotBase64,
    /// No colon.
    #[error("the secret is not of the form `user:password`")]
    NotUserAndPassword,
    /// No bytes.
    #[error("the secret is empty")]
    Empty,
    /// The key file has a form that is not understood.
    #[error(
        "the key file is not of the form `key \"NAME\" {{ algorithm ALGORITHM; secret \"BASE64\"; }};`: expected {what}"
    )]
    Expected {
        /// What should have come.
        what: &'static str,
    },
    /// More than one key.
    #[error("the key file holds several keys; give each its own file")]
    SeveralKeys,
    /// An algorithm the host cannot compute.
    #[error(
        "algorithm {name:?} is none of hmac-md5, hmac-sha1, hmac-sha256, hmac-sha384, hmac-sha512"
    )]
    UnknownAlgorithm {
        /// As the file names it.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::testing::guard_with;
    use crate::grant::effective::{SecretAccess, SecretFormat, SecretSource, Slot};

    fn guard(access: SecretAccess, algorithm: Option<&str>) -> Guard {
        guard_with(|effective| {
            let source = SecretSource::Value("Jefe".into());
            let grant = SecretGrant {
                source,
                format: SecretFormat::Raw,
                algorithm: algorithm.map(Into::into),
                key_name: None,
                access,
            };
            effective.secrets.insert("tsig".into(), Slot::new(grant));
        })
    }

    #[test]
    fn a_key_signs_and_verifies_without_being_seen() {
        let (secrets, guard) = (
            Secrets::default(),
            guard(SecretAccess::Use, Some("hmac-md5")),
        );
        let mac = secrets
            .sign(&guard, "tsig", b"what do ya want for nothing?")
            .unwrap();
        assert_eq!(mac.len(), 16);
        assert!(
            secrets
                .verify(&guard, "tsig", b"what do ya want for nothing?", &mac)
                .unwrap()
        );
        assert!(!secrets.verify(&guard, "tsig", b"what", &mac).unwrap());
        assert_eq!(secrets.about(&guard, "tsig").unwrap().algorithm, "hmac-md5");
        assert!(matches!(
            secrets.reveal(&guard, "tsig"),
            Err(contract::Error::Denied(_))
        ));
    }

    #[test]
    fn revealing_is_a_right_of_its_own() {
        let guard = guard(SecretAccess::Reveal, None);
        assert_eq!(Secrets::default().reveal(&guard, "tsig").unwrap(), b"Jefe");
    }

    #[test]
    fn a_slot_that_is_not_granted_is_denied() {
        let denied = Secrets::default().sign(&guard_with(|_| {}), "tsig", b"x");
        assert!(matches!(denied, Err(contract::Error::Denied(_))));
    }

    #[test]
    fn a_key_without_an_algorithm_signs_nothing() {
        let unusable = Secrets::default().sign(&guard(SecretAccess::Use, None), "tsig", b"x");
        assert!(
            matches!(unusable, Err(contract::Error::Unusable(text)) if text.contains("algorithm"))
        );
    }
}
