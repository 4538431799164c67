//! Whom the host believes in TLS, and as whom it speaks.
//!
//! It refuses to connect without checking the server's name and certificate, but where the operator wrote `verify = false` for
//! downloads; private keys are read here and never leave.
//!
//! The one idea: a [`Trust`] names files; what is made of them is kept and made anew when one of the files changes, so that renewed
//! certificates are used without a restart.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// How often the files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The largest certificate or key file in bytes; the whole trust of a distribution is about 250 KiB.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Whom to believe and as whom to speak.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Trust {
    /// A PEM file of the only CAs to believe; none: those of the system.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's certificate chain and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// False: any certificate is believed. For downloads only, when the operator says so.
    pub verify: bool,
}

impl Default for Trust {
    fn default() -> Self {
        Trust {
            ca: None,
            identity: None,
            verify: true,
        }
    }
}

/// Why no TLS client can be made of a [`Trust`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustProblem {
    /// A file cannot be read.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A file holds no certificate, or no private key.
    #[error("{path}: holds no {what} in PEM form")]
    Missing {
        /// The file.
        path: PathBuf,
        /// "certificate" or "private key".
        what: &'static str,
    },
    /// The system trusts nobody.
    #[error("the system has no CA certificates; name a `ca` file")]
    NoSystemTrust,
    /// Certificate and key do not fit, or are of a kind that TLS cannot use.
    #[error("{path}: {reason}")]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// The TLS library's words.
        reason: String,
    },
}

/// TLS clients by trust.
#[derive(Debug, Default)]
pub struct TlsClients {
    kept: Mutex<HashMap<Trust, Kept>>,
}

#[derive(Debug, Clone)]
struct Kept {
    config: Arc<ClientConfig>,
    files: Vec<Option<(u64, SystemTime)>>,
    looked: Instant,
}

impl TlsClients {
    /// The client of a trust, made of its files as they are now (or were two seconds ago).
    pub async fn get(self: &Arc<Self>, trust: &Trust) -> Result<Arc<ClientConfig>, TrustProblem> {
        let former = self.kept().get(trust).cloned();
        if let Some(kept) = former
            .as_ref()
            .filter(|kept| kept.looked.elapsed() < LOOK_AGAIN)
        {
            return Ok(kept.config.clone());
        }
        // Reading the system's trust takes milliseconds, a hanging file system for ever.
        let (clients, wanted) = (self.clone(), trust.clone());
        let renewing = tokio::task::spawn_blocking(move || clients.renew(&wanted, former)).await;
        renewing.unwrap_or_else(|error| {
            Err(TrustProblem::Unusable {
                path: trust.ca.clone().unwrap_or_default(),
                reason: error.to_string(),
            })
        })
    }

    fn renew(
        &self,
        trust: &Trust,
        former: Option<Kept>,
    ) -> Result<Arc<ClientConfig>, TrustProblem> {
        let files = trust.files();
        let config = match former.filter(|kept| kept.files == files) {
            Some(same) => same.config,
            None => match client(trust) {
                Ok(config) => Arc::new(config),
                // Files are often replaced one after the other: the old pair serves until the new one is whole.
                Err(problem) => {
                    let Some(old) = self.kept().get(trust).map(|kept| kept.config.clone()) else {
                        return Err(problem);
                    };
                    tracing::warn!(target: "upstream", problem = %problem, "changed TLS files are not usable, the former ones stay");
                    return Ok(old);
                }
            },
        };
        self.kept().insert(
            trust.clone(),
            Kept {
                config: config.clone(),
                files,
                looked: Instant::now(),
            },
        );
        Ok(config)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Trust, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trust {
    /// All files that are named.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let identity = self
            .identity
            .iter()
            .flat_map(|(certificate, key)| [certificate, key]);
        self.ca.iter().chain(identity)
    }

    /// Why no TLS client can be made of it.
    pub fn usable(&self) -> Result<(), TrustProblem> {
        client(self).map(drop)
    }

    fn files(&self) -> Vec<Option<(u64, SystemTime)>> {
        let stamp = |path: &PathBuf| {
            fs::metadata(path)
                .and_then(|data| Ok((data.len(), data.modified()?)))
                .ok()
        };
        self.paths().map(stamp).collect()
    }
}

fn client(trust: &Trust) -> Result<ClientConfig, TrustProblem> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |error: rustls::Error| TrustProblem::Unusable {
        path: trust.ca.clone().unwrap_or_default(),
        reason: error.to_string(),
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = if trust.verify {
        builder.with_root_certificates(roots(trust.ca.as_deref())?)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelieveAnybody(provider)))
    };
    let mut config = match &trust.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let private =
                PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| TrustProblem::Missing {
                    path: key.clone(),
                    what: "private key",
                })?;
            let mut config = builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| TrustProblem::Unusable {
                    path: certificate.clone(),
                    reason: error.to_string(),
                })?;
            // Where a server asks for certificates, a session can be resumed only if it was set up for that. Kept connections save more handshakes.
            config.resumption = Resumption::disabled();
            config
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TrustProblem> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| TrustProblem::Unusable {
                        path: path.to_owned(),
                        reason: error.to_string(),
                    })?;
            }
        }
        None => {
            // Single broken certificates in the system's store are common and no reason to stop.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TrustProblem::NoSystemTrust);
            }
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustProblem> {
    let missing = || TrustProblem::Missing {
        path: path.to_owned(),
        what: "certificate",
    };
    let found = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| missing())?;
    if found.is_empty() {
        Err(missing())
    } else {
        Ok(found)
    }
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, TrustProblem> {
    let unreadable = |reason: String| TrustProblem::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let metadata = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(unreadable("not a regular file of a sensible size".into()));
    }
    fs::read(path)
        .map(zeroize::Zeroizing::new)
        .map_err(|error| unreadable(error.to_string()))
}

/// Believes any certificate, but still wants the handshake to be signed with its key.
#[derive(Debug)]
struct BelieveAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
