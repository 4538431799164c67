//! TLS of a listener: its certificate, the CA of its clients, and their renewal while it runs.
//!
//! It refuses TLS below 1.2, client certificates that do not chain to the configured CA, and files it cannot use whole: a set of files
//! that does not fit together never replaces one that works. It does not offer session resumption: a resumed session would bring back an
//! identity that was verified earlier, perhaps against a CA or a date that no longer holds, and Foreman opens full sessions anyway.
//!
//! The one idea: a [`Tls`] is a swap of finished configurations. A handshake takes the one of its moment; open connections keep theirs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};

/// The oldest TLS a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OldestTls {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

/// Where a listener's certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, then the intermediates up to the root, in PEM. All are sent.
    pub certificate: PathBuf,
    /// The server's key in PEM: PKCS#8, PKCS#1 or SEC1, without a password.
    pub key: PathBuf,
    /// The CA certificates, in PEM, that client certificates have to chain to. None: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// The oldest TLS spoken.
    pub oldest: OldestTls,
}

/// Why TLS cannot be set up. Names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not PEM.
    #[error("{}: is not valid PEM: {why}", file.display())]
    NotPem {
        /// Which.
        file: PathBuf,
        /// Where it breaks.
        why: String,
    },
    /// The file holds no certificate.
    #[error("{}: holds no certificate (a section that begins with `-----BEGIN CERTIFICATE-----`)", file.display())]
    NoCertificate {
        /// Which.
        file: PathBuf,
    },
    /// The file holds no key.
    #[error("{}: holds no private key (PKCS#8, PKCS#1 or SEC1 in PEM)", file.display())]
    NoKey {
        /// Which.
        file: PathBuf,
    },
    /// The key has a password, and nobody is there to type it.
    #[error("{}: the private key is encrypted; store it without a password and protect the file instead", file.display())]
    EncryptedKey {
        /// Which.
        file: PathBuf,
    },
    /// A CA certificate that cannot be used.
    #[error("{}: CA certificate {number} cannot be used: {why}", file.display())]
    BadCa {
        /// Which.
        file: PathBuf,
        /// Counted from 1.
        number: usize,
        /// Why.
        why: String,
    },
    /// Key and certificate do not fit, or their kind is not supported.
    #[error("{} and {}: cannot be used together: {why}", certificate.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        why: String,
    },
    /// The TLS library refused the settings.
    #[error("TLS cannot be set up: {0}")]
    Unusable(String),
}

/// What came of looking for newer files.
#[derive(Debug)]
pub enum Reload {
    /// The files are those in use, or known to be unusable.
    Unchanged,
    /// New handshakes use the new files.
    Reloaded,
    /// The files changed, but cannot be used; those loaded before stay in use.
    Failed(TlsError),
}

/// The TLS of one listener.
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
    /// What the files looked like when they were last tried.
    seen: Mutex<Vec<Stamp>>,
}

/// Tells one version of a file from another without reading it: a renewal by rename changes the inode, one in place the time or size.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    changed: Option<SystemTime>,
    size: u64,
    inode: u64,
}

impl Tls {
    /// Loads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        // Looked at before they are read: a change in between is found by the next `refresh`.
        let seen = files.stamps();
        let config = files.build()?;
        Ok(Self {
            files,
            current: ArcSwap::from_pointee(config),
            seen: Mutex::new(seen),
        })
    }

    /// The files this was loaded from.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Loads the files anew if they changed. Blocks on the file system; call it every few seconds from a thread that may.
    pub fn refresh(&self) -> Reload {
        let stamps = self.files.stamps();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == stamps {
            return Reload::Unchanged;
        }
        *seen = stamps;
        match self.files.build() {
            Ok(config) => {
                self.current.store(Arc::new(config));
                Reload::Reloaded
            }
            Err(error) => Reload::Failed(error),
        }
    }

    /// The configuration for a handshake that begins now.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

impl TlsFiles {
    /// All that are named.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.certificate, &self.key]
            .into_iter()
            .chain(&self.client_ca)
    }

    fn stamps(&self) -> Vec<Stamp> {
        self.paths().map(|file| Stamp::of(file)).collect()
    }

    fn build(&self) -> Result<ServerConfig, TlsError> {
        let versions: &[&SupportedProtocolVersion] = match self.oldest {
            OldestTls::Tls12 => &[&version::TLS13, &version::TLS12],
            OldestTls::Tls13 => &[&version::TLS13],
        };
        let provider = Arc::new(ring::default_provider());
        let unusable = |error: rustls::Error| TlsError::Unusable(error.to_string());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(unusable)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(read_ca(file)?), provider)
                        .allow_unauthenticated()
                        // A client with several certificates chooses by itself, as with the Ruby proxy (contract/core.md section 2).
                        .clear_root_hint_subjects()
                        .build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| TlsError::Unusable(error.to_string()))?,
                )
            }
        };
        let (chain, key) = (read_certificates(&self.certificate)?, read_key(&self.key)?);
        let mut config =
            builder
                .with_single_cert(chain, key)
                .map_err(|error| TlsError::Mismatch {
                    certificate: self.certificate.clone(),
                    key: self.key.clone(),
                    why: error.to_string(),
                })?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl Stamp {
    fn of(file: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        match fs::metadata(file) {
            Ok(data) => Self {
                changed: data.modified().ok(),
                size: data.len(),
                inode: data.ino(),
            },
            Err(_) => Self {
                changed: None,
                size: 0,
                inode: 0,
            },
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|source| TlsError::Unreadable {
        file: file.to_owned(),
        source,
    })
}

fn not_pem(file: &Path, error: &pem::Error) -> TlsError {
    TlsError::NotPem {
        file: file.to_owned(),
        why: error.to_string(),
    }
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|error| not_pem(file, &error))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate {
            file: file.to_owned(),
        });
    }
    Ok(certificates)
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(file)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if is_encrypted(&bytes) => TlsError::EncryptedKey {
            file: file.to_owned(),
        },
        pem::Error::NoItemsFound => TlsError::NoKey {
            file: file.to_owned(),
        },
        error => not_pem(file, &error),
    })
}

/// PKCS#8 says so in its title; PKCS#1 and SEC1 have a header line that the PEM reader does not know.
fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn read_ca(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (certificate, number) in read_certificates(file)?.into_iter().zip(1..) {
        roots.add(certificate).map_err(|error| TlsError::BadCa {
            file: file.to_owned(),
            number,
            why: error.to_string(),
        })?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder {
        dir: tempfile::TempDir,
        files: TlsFiles,
    }

    /// A key with a certificate of its own, which is its own client CA as well.
    fn folder() -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let files = TlsFiles {
            certificate: at("cert.pem"),
            key: at("key.pem"),
            client_ca: Some(at("cert.pem")),
            oldest: OldestTls::Tls12,
        };
        let folder = Folder { dir, files };
        folder.renew();
        folder
    }

    impl Folder {
        fn renew(&self) {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            self.write("cert.pem", &made.cert.pem());
            self.write("key.pem", &made.signing_key.serialize_pem());
        }

        fn write(&self, name: &str, text: &str) {
            let temporary = self.dir.path().join("new");
            fs::write(&temporary, text).unwrap();
            fs::rename(temporary, self.dir.path().join(name)).unwrap();
        }

        fn error(&self) -> String {
            Tls::load(self.files.clone()).err().unwrap().to_string()
        }
    }

    #[test]
    fn every_error_names_its_file() {
        let folder = folder();
        let path = |name: &str| folder.dir.path().join(name).display().to_string();
        folder.write("key.pem", "nothing");
        assert!(
            folder
                .error()
                .starts_with(&format!("{}: holds no private key", path("key.pem"))),
            "{}",
            folder.error()
        );
        folder.write(
            "key.pem",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        assert!(
            folder.error().contains("is encrypted"),
            "{}",
            folder.error()
        );
        folder.write(
            "key.pem",
            &rcgen::KeyPair::generate().unwrap().serialize_pem(),
        );
        assert!(
            folder.error().contains("cannot be used together"),
            "{}",
            folder.error()
        );
        folder.write("cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
        assert!(
            folder
                .error()
                .starts_with(&format!("{}: is not valid PEM", path("cert.pem"))),
            "{}",
            folder.error()
        );
        folder.write(
            "cert.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
        assert!(
            folder.error().contains("CA certificate 1 cannot be used"),
            "{}",
            folder.error()
        );
        folder.write("cert.pem", "");
        assert!(
            folder.error().contains("holds no certificate"),
            "{}",
            folder.error()
        );
        fs::remove_file(folder.dir.path().join("cert.pem")).unwrap();
        assert!(
            folder
                .error()
                .starts_with(&format!("{}: cannot be read", path("cert.pem"))),
            "{}",
            folder.error()
        );
    }

    #[test]
    fn changed_files_are_loaded_and_broken_ones_do_not_replace_good_ones() {
        let folder = folder();
        let tls = Tls::load(folder.files.clone()).unwrap();
        let first = tls.current();
        assert!(matches!(tls.refresh(), Reload::Unchanged));

        folder.write("key.pem", "half written");
        assert!(matches!(
            tls.refresh(),
            Reload::Failed(TlsError::NoKey { .. })
        ));
        assert!(
            matches!(tls.refresh(), Reload::Unchanged),
            "one error for one change"
        );
        assert!(Arc::ptr_eq(&first, &tls.current()));

        folder.renew();
        assert!(matches!(tls.refresh(), Reload::Reloaded));
        assert!(!Arc::ptr_eq(&first, &tls.current()));
    }

    /// Test keys made for these tests and used nowhere else.
    const RSA_PKCS8: &str = include_str!("tls/test-rsa-pkcs8.pem");
    const RSA_PKCS1: &str = include_str!("tls/test-rsa-pkcs1.pem");
    const EC_SEC1: &str = include_str!("tls/test-ec-sec1.pem");
    const RSA_CERTIFICATE: &str = include_str!("tls/test-rsa-cert.pem");
    const EC_CERTIFICATE: &str = include_str!("tls/test-ec-cert.pem");

    #[test]
    fn keys_are_read_in_all_three_forms() {
        let folder = folder();
        for (certificate, key) in [
            (RSA_CERTIFICATE, RSA_PKCS8),
            (RSA_CERTIFICATE, RSA_PKCS1),
            (EC_CERTIFICATE, EC_SEC1),
        ] {
            folder.write("cert.pem", certificate);
            folder.write("key.pem", key);
            Tls::load(folder.files.clone()).unwrap();
        }
    }
}
