//! Certificates: readable, fitting their key, in force for a while yet, made for this machine's names, signed by whom the others trust.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::finding::{Area, Finding};
use super::names::tls_names;
use crate::settings::Config;

/// When to be warned. A month leaves time for those who sign by hand.
const SOON: i64 = 30;
const DAY: i64 = 24 * 3600;

/// What a certificate is shown as.
enum Role<'a> {
    /// To clients, under these names.
    Server(&'a [String]),
    /// To Foreman.
    Client,
}

pub(super) fn look(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let foreman_ca = config.foreman.as_ref().and_then(|it| it.ca.clone());
    if let Some(tls) = &config.tls {
        if config.trial && !tls.certificate.exists() {
            findings.push(Finding::good(
                Area::Certificates,
                tls.certificate.display(),
                "made at the first start",
            ));
            return findings;
        }
        let names = tls_names(config);
        let signer = foreman_ca.as_ref().or(tls.client_ca.as_ref());
        let pair = (&tls.certificate, &tls.private_key);
        findings.extend(identity(pair, signer, Role::Server(&names), now));
        if let Some(ca) = &tls.client_ca {
            findings.extend(authority(ca, now));
        }
    }
    if let Some(foreman) = &config.foreman {
        let of_tls = config.tls.as_ref();
        let own = of_tls.map(|it| (&it.certificate, &it.private_key));
        let pair = foreman
            .identity
            .as_ref()
            .map(|(one, two)| (one, two))
            .or(own);
        match pair {
            Some(pair) => {
                findings.extend(identity(pair, foreman_ca.as_ref(), Role::Client, now));
            }
            None => findings.push(Finding::warning(
                Area::Certificates,
                "[foreman]",
                "no certificate, so Foreman does not know who asks",
                "name `certificate` and `private_key`",
            )),
        }
        let other = config.tls.as_ref().and_then(|it| it.client_ca.as_ref());
        if let Some(ca) = foreman_ca.as_ref().filter(|it| Some(*it) != other) {
            findings.extend(authority(ca, now));
        }
    }
    // One pair may serve both ways; what is the same is told once.
    let mut told = Vec::new();
    for finding in findings {
        if !told.contains(&finding) {
            told.push(finding);
        }
    }
    told
}

fn wrong(path: &Path, found: impl std::fmt::Display, advice: &str) -> Finding {
    Finding::problem(Area::Certificates, path.display(), found, advice)
}

fn identity(
    (certificate, key): (&PathBuf, &PathBuf),
    signer: Option<&PathBuf>,
    role: Role<'_>,
    now: i64,
) -> Vec<Finding> {
    let chain = match certificates(certificate) {
        Ok(chain) => chain,
        Err(finding) => return vec![finding],
    };
    let mut findings = vec![pair(&chain, certificate, key)];
    findings.extend(rights(key));
    let Some(leaf) = chain.first() else {
        return findings;
    };
    findings.push(in_force(certificate, leaf, now));
    let roots = signer.map(|path| (path, certificates(path)));
    let Some((path, Ok(roots))) = roots else {
        // Told where the file of the authority is looked at.
        return findings;
    };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (store, rest) = (Arc::new(store), chain.get(1..).unwrap_or_default());
    // Time is told above; here it would hide the rest.
    let time = match validity(leaf) {
        // Never in force: nothing more can be said of it.
        Some((from, to)) if to < from => return findings,
        Some((from, to)) => now.clamp(from, to),
        None => now,
    };
    let time = UnixTime::since_unix_epoch(Duration::from_secs(time.unsigned_abs()));
    let not_signed = |error: rustls::Error| {
        wrong(
            certificate,
            format!("does not lead to a CA of {}: {error}", path.display()),
            "append the intermediate certificates to the file, or name the CA that signed it; a server's needs the use `serverAuth`, a client's `clientAuth`",
        )
    };
    let signed = Finding::good(
        Area::Certificates,
        certificate.display(),
        format!("signed by a CA of {}", path.display()),
    );
    match role {
        Role::Client => {
            let verifier = WebPkiClientVerifier::builder_with_provider(store, provider).build();
            if let Ok(verifier) = verifier {
                findings.push(match verifier.verify_client_cert(leaf, rest, time) {
                    Ok(_) => signed,
                    Err(error) => not_signed(error),
                });
            }
        }
        Role::Server(names) => {
            let verifier = WebPkiServerVerifier::builder_with_provider(store, provider).build();
            let Ok(verifier) = verifier else {
                return findings;
            };
            let mut of_another_name = Vec::new();
            for name in names {
                let Ok(server) = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())
                else {
                    continue;
                };
                match verifier.verify_server_cert(leaf, rest, &server, &[], time) {
                    Ok(_) => {}
                    Err(rustls::Error::InvalidCertificate(
                        rustls::CertificateError::NotValidForName
                        | rustls::CertificateError::NotValidForNameContext { .. },
                    )) => of_another_name.push(name.as_str()),
                    Err(error) => {
                        findings.push(not_signed(error));
                        return findings;
                    }
                }
            }
            findings.push(signed);
            if names.is_empty() {
                return findings;
            }
            findings.push(match of_another_name.as_slice() {
                [] => Finding::good(
                    Area::Certificates,
                    certificate.display(),
                    format!("made for {}", names.join(", ")),
                ),
                others => wrong(
                    certificate,
                    format!("not made for {}", others.join(", ")),
                    "have it made anew with these as subject alternative names, or correct `public_url`",
                ),
            });
        }
    }
    findings
}

/// Certificate and key belong together.
fn pair(chain: &[CertificateDer<'static>], certificate: &Path, path: &Path) -> Finding {
    let key = match PrivateKeyDer::from_pem_file(path) {
        Ok(key) => key,
        Err(error) => {
            return wrong(
                path,
                format!("holds no private key that can be read: {error}"),
                "it must be PEM without a password, readable by the proxy's user",
            );
        }
    };
    let provider = rustls::crypto::ring::default_provider();
    match rustls::sign::CertifiedKey::from_der(chain.to_vec(), key, &provider) {
        Ok(_) => Finding::good(
            Area::Certificates,
            path.display(),
            format!("the key of {}", certificate.display()),
        ),
        Err(error) => wrong(
            path,
            format!("does not go with {}: {error}", certificate.display()),
            "name the key that the certificate was made with",
        ),
    }
}

/// A key is nobody else's.
fn rights(key: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(key).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| {
        Finding::warning(
            Area::Certificates,
            key.display(),
            format!(
                "mode {:04o}: every user of this machine may have the key",
                mode & 0o7777
            ),
            format!("chmod o= {}", key.display()),
        )
    })
}

fn authority(path: &Path, now: i64) -> Vec<Finding> {
    match certificates(path) {
        Ok(all) => all.iter().map(|it| in_force(path, it, now)).collect(),
        Err(finding) => vec![finding],
    }
}

fn in_force(path: &Path, certificate: &CertificateDer<'_>, now: i64) -> Finding {
    let Some((from, to)) = validity(certificate) else {
        return wrong(
            path,
            "holds something that is no certificate",
            "name another file",
        );
    };
    let renew = "have it made anew; the proxy takes over the new file by itself";
    if to < from {
        let found = format!("ends on {}, before it begins", day(to));
        return wrong(path, found, renew);
    }
    if now < from {
        return wrong(
            path,
            format!("in force only from {}", day(from)),
            "look at this machine's clock; it may be behind",
        );
    }
    match (to - now) / DAY {
        _ if now > to => wrong(path, format!("expired on {}", day(to)), renew),
        days if days < SOON => Finding::warning(
            Area::Certificates,
            path.display(),
            format!("expires in {days} days, on {}", day(to)),
            renew,
        ),
        _ => Finding::good(
            Area::Certificates,
            path.display(),
            format!("in force until {}", day(to)),
        ),
    }
}

fn validity(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    Some((
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    ))
}

fn day(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .map(|it| it.date().to_string())
        .unwrap_or_default()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Finding> {
    let advice = "name a PEM file with certificates that the proxy's user may read";
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(path, error, advice))?;
    match found.is_empty() {
        true => Err(wrong(path, "holds no certificate", advice)),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;
    use crate::cli::doctor::finding::Level;

    struct Made {
        place: tempfile::TempDir,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Made {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let ca = params.self_signed(&key).unwrap();
            std::fs::write(place.path().join("ca.pem"), ca.pem()).unwrap();
            let issuer = Issuer::new(params, key);
            Self { place, issuer }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.place.path().join(name)
        }

        /// In force from and to these days from now.
        fn identity(&self, name: &str, from: i64, to: i64) -> (PathBuf, PathBuf) {
            let mut params = CertificateParams::new(vec!["proxy.example.com".to_owned()]).unwrap();
            let now = OffsetDateTime::now_utc();
            params.not_before = now + time::Duration::days(from);
            params.not_after = now + time::Duration::days(to) + time::Duration::hours(1);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            let (one, two) = (
                self.path(&format!("{name}.pem")),
                self.path(&format!("{name}-key.pem")),
            );
            std::fs::write(&one, certificate.pem()).unwrap();
            std::fs::write(&two, key.serialize_pem()).unwrap();
            std::fs::set_permissions(&two, std::fs::Permissions::from_mode(0o600)).unwrap();
            (one, two)
        }

        fn look(&self, pair: (&PathBuf, &PathBuf), ca: &str, names: &[&str]) -> Vec<Finding> {
            let names: Vec<String> = names.iter().map(|&it| it.to_owned()).collect();
            let now = OffsetDateTime::now_utc().unix_timestamp();
            identity(pair, Some(&self.path(ca)), Role::Server(&names), now)
        }
    }

    /// What is not good, by level and words.
    #[track_caller]
    fn only(findings: Vec<Finding>, level: Level, words: &str) {
        let bad: Vec<_> = findings
            .iter()
            .filter(|it| it.level != Level::Good)
            .collect();
        assert_eq!(bad.len(), 1, "{findings:#?}");
        assert!(
            bad[0].level == level && bad[0].found.contains(words) && bad[0].advice.is_some(),
            "{bad:?}"
        );
    }

    #[test]
    fn a_good_pair_is_good_in_all_respects() {
        let made = Made::new();
        let (certificate, key) = made.identity("a", -1, 90);
        let found = made.look((&certificate, &key), "ca.pem", &["proxy.example.com"]);
        assert!(found.iter().all(|it| it.level == Level::Good), "{found:#?}");
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn each_fault_is_found() {
        let made = Made::new();
        let names = &["proxy.example.com"][..];
        let (certificate, key) = made.identity("a", -1, 90);
        let (_, other_key) = made.identity("b", -1, 90);
        only(
            made.look((&certificate, &other_key), "ca.pem", names),
            Level::Problem,
            "does not go with",
        );
        only(
            made.look((&certificate, &key), "ca.pem", &["other.example.com"]),
            Level::Problem,
            "not made for other.example.com",
        );
        let stranger = Made::new();
        std::fs::copy(stranger.path("ca.pem"), made.path("stranger.pem")).unwrap();
        only(
            made.look((&certificate, &key), "stranger.pem", names),
            Level::Problem,
            "does not lead to a CA",
        );
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        only(
            made.look((&certificate, &key), "ca.pem", names),
            Level::Warning,
            "0644",
        );
        for (name, from, to, level, words) in [
            ("old", -90, -2, Level::Problem, "expired on"),
            ("young", 2, 90, Level::Problem, "in force only from"),
            ("soon", -90, 10, Level::Warning, "expires in 10 days"),
            ("never", -1, -3, Level::Problem, "before it begins"),
        ] {
            let (certificate, key) = made.identity(name, from, to);
            only(
                made.look((&certificate, &key), "ca.pem", names),
                level,
                words,
            );
        }
        let missing = made.path("missing.pem");
        only(
            made.look((&missing, &key), "ca.pem", names),
            Level::Problem,
            "No such file",
        );
        std::fs::write(&missing, "nothing").unwrap();
        only(
            made.look((&missing, &key), "ca.pem", names),
            Level::Problem,
            "no certificate",
        );
    }
}
