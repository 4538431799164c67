//! Certificates for a proxy on trial: a CA, a server certificate and a client certificate, made on the first start and kept.
//!
//! It refuses nothing but to lend itself to more: the CA signs these two and is known to nobody. A real site uses the certificates that Foreman's
//! installer makes. What is near its end, missing, unreadable or made for another host name is made anew; the CA only if it is itself.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tls::{OldestTls, TlsFiles};

/// The name in the client certificate, to be listed in `trusted_hosts`.
pub const TRIAL_CLIENT: &str = "bulkhead-trial-client";
/// How long the CA is valid. 10 years: a trial that lasts longer is none.
const CA_LIFE: Duration = Duration::days(3650);
/// How long the other two are valid. 397 days: the most that today's TLS clients accept.
const LEAF_LIFE: Duration = Duration::days(397);
/// What is valid for less than this is made anew at the next start.
const RENEW_BEFORE: Duration = Duration::days(30);
/// Valid from the day before, for clients whose clock is behind.
const BACKDATED: Duration = Duration::days(1);

/// Why the certificates are not there.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// A file or folder cannot be made.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The TLS library cannot make a certificate.
    #[error("cannot make the trial's certificates: {0}")]
    Make(#[from] rcgen::Error),
}

/// Where the trial's certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialFiles {
    /// Verifies both sides.
    pub ca: PathBuf,
    /// For `localhost`, loopback addresses and the host's own name.
    pub server_certificate: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// Named [`TRIAL_CLIENT`].
    pub client_certificate: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

impl TrialFiles {
    /// Makes sure that all files are in `state`/tls and valid for a while yet. `host`: this machine's own name.
    pub fn prepare(state: &Path, host: &str) -> Result<Self, TrialError> {
        Self::prepare_at(state, host, OffsetDateTime::now_utc())
    }

    /// For a listener that asks clients for a certificate of the trial's CA.
    pub fn tls(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.server_certificate.clone(),
            key: self.server_key.clone(),
            client_ca: Some(self.ca.clone()),
            oldest: OldestTls::Tls12,
        }
    }

    fn prepare_at(state: &Path, host: &str, now: OffsetDateTime) -> Result<Self, TrialError> {
        let folder = state.join("tls");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| TrialError::Unwritable {
                path: folder.clone(),
                source,
            })?;
        let files = Self {
            ca: folder.join("ca.pem"),
            server_certificate: folder.join("server.pem"),
            server_key: folder.join("server-key.pem"),
            client_certificate: folder.join("client.pem"),
            client_key: folder.join("client-key.pem"),
        };
        let ca_key_file = folder.join("ca-key.pem");
        let kept = read_key(&ca_key_file).filter(|key| {
            is_current(&files.ca, now, |ca| {
                ca.public_key().raw == key.subject_public_key_info()
            })
        });
        let fresh_ca = kept.is_none();
        let ca_key = match kept {
            Some(key) => key,
            None => make_ca(&files.ca, &ca_key_file, now)?,
        };
        let issuer = Issuer::new(ca_params(now)?, ca_key);
        let names = server_names(host);
        if fresh_ca
            || !is_current(&files.server_certificate, now, |leaf| {
                names_of(leaf) == names
            })
            || read_key(&files.server_key).is_none()
        {
            let usage = ExtendedKeyUsagePurpose::ServerAuth;
            make_leaf(
                &files.server_certificate,
                &files.server_key,
                leaf_params("localhost", names, usage, now)?,
                &issuer,
            )?;
        }
        if fresh_ca
            || !is_current(&files.client_certificate, now, |_| true)
            || read_key(&files.client_key).is_none()
        {
            let (names, usage) = (
                vec![TRIAL_CLIENT.to_owned()],
                ExtendedKeyUsagePurpose::ClientAuth,
            );
            make_leaf(
                &files.client_certificate,
                &files.client_key,
                leaf_params(TRIAL_CLIENT, names, usage, now)?,
                &issuer,
            )?;
        }
        Ok(files)
    }
}

fn server_names(host: &str) -> Vec<String> {
    let mut names = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    // A host name that is no DNS name cannot stand in a certificate; the trial works without it.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let host = host.to_ascii_lowercase();
    if !host.is_empty() && host.chars().all(plain) && !names.contains(&host) {
        names.push(host);
    }
    names
}

fn ca_params(now: OffsetDateTime) -> Result<CertificateParams, TrialError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = common_name("Bulkhead trial CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (now - BACKDATED, now + CA_LIFE);
    Ok(params)
}

fn leaf_params(
    name: &str,
    names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
    now: OffsetDateTime,
) -> Result<CertificateParams, TrialError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = common_name(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (now - BACKDATED, now + LEAF_LIFE);
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn make_ca(file: &Path, key_file: &Path, now: OffsetDateTime) -> Result<KeyPair, TrialError> {
    let key = KeyPair::generate()?;
    let certificate = ca_params(now)?.self_signed(&key)?;
    write(key_file, &key.serialize_pem())?;
    write(file, &certificate.pem())?;
    Ok(key)
}

fn make_leaf(
    file: &Path,
    key_file: &Path,
    params: CertificateParams,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(), TrialError> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    write(key_file, &key.serialize_pem())?;
    write(file, &certificate.pem())
}

fn read_key(file: &Path) -> Option<KeyPair> {
    KeyPair::from_pem(&fs::read_to_string(file).ok()?).ok()
}

/// Whether the file holds a certificate that is valid long enough and satisfies `is_right`.
fn is_current(
    file: &Path,
    now: OffsetDateTime,
    is_right: impl Fn(&X509Certificate<'_>) -> bool,
) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(file) else {
        return false;
    };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else {
        return false;
    };
    let validity = certificate.validity();
    validity.not_before.to_datetime() <= now
        && now + RENEW_BEFORE < validity.not_after.to_datetime()
        && is_right(&certificate)
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    });
    names.collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// Writes a file that nobody else can read, whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), TrialError> {
    let temporary = path.with_extension("new");
    let written = || {
        if let Err(error) = fs::remove_file(&temporary)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    written().map_err(|source| TrialError::Unwritable {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tls::Tls;
    use std::os::unix::fs::PermissionsExt;

    fn contents(folder: &Path) -> Vec<(PathBuf, String)> {
        let mut all: Vec<_> = fs::read_dir(folder.join("tls"))
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(&path).unwrap();
                (path, text)
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn all_is_made_once_and_kept() {
        let state = tempfile::tempdir().unwrap();
        let files = TrialFiles::prepare(state.path(), "Box.example.com").unwrap();
        let before = contents(state.path());
        assert_eq!(before.len(), 6);
        for (path, _) in &before {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o600,
                "{}",
                path.display()
            );
        }
        Tls::load(files.tls()).unwrap();
        assert_eq!(
            TrialFiles::prepare(state.path(), "box.example.com").unwrap(),
            files
        );
        assert_eq!(contents(state.path()), before);
    }

    #[test]
    fn what_is_near_its_end_is_renewed_under_the_same_ca() {
        let state = tempfile::tempdir().unwrap();
        let files = TrialFiles::prepare(state.path(), "box").unwrap();
        let ca = fs::read_to_string(&files.ca).unwrap();
        let [server, client] = [&files.server_certificate, &files.client_certificate]
            .map(|file| fs::read_to_string(file).unwrap());
        let later = OffsetDateTime::now_utc() + LEAF_LIFE - RENEW_BEFORE;
        TrialFiles::prepare_at(state.path(), "box", later).unwrap();
        assert_eq!(fs::read_to_string(&files.ca).unwrap(), ca);
        assert_ne!(
            fs::read_to_string(&files.server_certificate).unwrap(),
            server
        );
        assert_ne!(
            fs::read_to_string(&files.client_certificate).unwrap(),
            client
        );
        Tls::load(files.tls()).unwrap();
    }

    #[test]
    fn another_host_name_needs_another_server_certificate_only() {
        let state = tempfile::tempdir().unwrap();
        let files = TrialFiles::prepare(state.path(), "one").unwrap();
        let [server, client] = [&files.server_certificate, &files.client_certificate]
            .map(|file| fs::read_to_string(file).unwrap());
        TrialFiles::prepare(state.path(), "two").unwrap();
        assert_ne!(
            fs::read_to_string(&files.server_certificate).unwrap(),
            server
        );
        assert_eq!(
            fs::read_to_string(&files.client_certificate).unwrap(),
            client
        );
    }

    #[test]
    fn a_lost_ca_key_makes_everything_anew() {
        let state = tempfile::tempdir().unwrap();
        let files = TrialFiles::prepare(state.path(), "box").unwrap();
        let before = contents(state.path());
        fs::remove_file(state.path().join("tls/ca-key.pem")).unwrap();
        TrialFiles::prepare(state.path(), "box").unwrap();
        assert!(
            contents(state.path())
                .iter()
                .zip(&before)
                .all(|(new, old)| new.1 != old.1)
        );
        Tls::load(files.tls()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let state = tempfile::tempdir().unwrap();
        let blocked = state.path().join("file");
        fs::write(&blocked, "").unwrap();
        let error = TrialFiles::prepare(&blocked, "box")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&blocked.join("tls").display().to_string()),
            "{error}"
        );
    }
}
