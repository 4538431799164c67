//! Certificates made for one test: an authority, servers' and clients' identities, and each form of PEM in which
//! administrators keep keys.

use std::sync::{Arc, LazyLock};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A 2048-bit RSA key (PKCS#8), made for these tests and good for nothing else: `ring` cannot make one.
const RSA_KEY: &str = include_str!("rsa-key-for-tests.pem");

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// The cryptography that all clients and servers of these tests use.
pub fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// How a private key is written into its PEM file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// `BEGIN PRIVATE KEY`, an elliptic curve key (P-256).
    Pkcs8,
    /// `BEGIN EC PRIVATE KEY` (SEC1).
    Sec1,
    /// `BEGIN RSA PRIVATE KEY` (PKCS#1).
    Pkcs1,
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
    /// The certificates between this authority and its root, nearest first, itself included; empty for a root.
    between: Vec<String>,
    /// The certificate of the root, which clients trust.
    root: CertificateDer<'static>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Authority")
            .field("depth", &self.between.len())
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// A self-signed root.
    pub fn root(name: &str) -> Self {
        let params = authority_params(name);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("a root can sign itself");
        let root = certificate.der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
            between: Vec::new(),
            root,
        }
    }

    /// An intermediate authority below this one.
    pub fn intermediate(&self, name: &str) -> Self {
        let params = authority_params(name);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("an authority can sign");
        let mut between = vec![certificate.pem()];
        between.extend(self.between.iter().cloned());
        Self {
            issuer: Issuer::new(params, key),
            certificate,
            between,
            root: self.root.clone(),
        }
    }

    /// This authority's certificate as PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A server's identity for these DNS names or addresses.
    pub fn server(&self, names: &[&str]) -> Identity {
        self.server_with(names, KeyForm::Pkcs8)
    }

    /// A server's identity whose key file has this form.
    pub fn server_with(&self, names: &[&str], form: KeyForm) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("test names are valid");
        params.distinguished_name = common_name(names.first().map_or("server", String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, form)
    }

    /// A server's identity whose time is over.
    pub fn expired_server(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("test names are valid");
        params.distinguished_name = common_name(names.first().map_or("server", String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.issue(params, KeyForm::Pkcs8)
    }

    /// The identity of a proxy, which is a server to some and Foreman's client: one certificate for both.
    pub fn proxy(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("test names are valid");
        params.distinguished_name = common_name(names.first().map_or("proxy", String::as_str));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue(params, KeyForm::Pkcs8)
    }

    /// A client's identity with this common name (none: no CN at all) and these DNS names.
    pub fn client(&self, common_name_of: Option<&str>, dns_names: &[&str]) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name_of.map_or_else(
            || {
                let mut name = DistinguishedName::new();
                name.push(DnType::OrganizationName, "Acme");
                name
            },
            common_name,
        );
        params.subject_alt_names = dns_names
            .iter()
            .map(|name| SanType::DnsName((*name).try_into().expect("test names are valid")))
            .collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, KeyForm::Pkcs8)
    }

    fn issue(&self, mut params: CertificateParams, form: KeyForm) -> Identity {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = match form {
            KeyForm::Pkcs1 => {
                KeyPair::from_pem(RSA_KEY).expect("the RSA key of the tests is valid")
            }
            KeyForm::Pkcs8 | KeyForm::Sec1 => KeyPair::generate().expect("a key can be made"),
        };
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("an authority can sign");
        let mut chain_pem = certificate.pem();
        for one in &self.between {
            chain_pem.push_str(one);
        }
        let key_pem = match form {
            KeyForm::Pkcs8 => key.serialize_pem(),
            KeyForm::Sec1 => pem("EC PRIVATE KEY", inner_key(key.serialized_der())),
            KeyForm::Pkcs1 => pem("RSA PRIVATE KEY", inner_key(key.serialized_der())),
        };
        Identity { chain_pem, key_pem }
    }

    /// How a client that trusts this authority's root connects, with or without an identity of its own.
    pub fn client_config(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        self.client_config_for(identity, rustls::ALL_VERSIONS)
    }

    /// [`Authority::client_config`] for some versions of TLS only.
    pub fn client_config_for(
        &self,
        identity: Option<&Identity>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.root.clone())
            .expect("a root made here is valid");
        client_config(roots, identity, versions)
    }
}

/// How a client connects that trusts the certificates of a PEM text.
pub fn client_config_trusting(pem: &str, identity: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots
            .add(certificate.expect("a PEM certificate"))
            .expect("a valid root");
    }
    client_config(roots, identity, rustls::ALL_VERSIONS)
}

fn client_config(
    roots: RootCertStore,
    identity: Option<&Identity>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("the provider knows these versions")
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain(), identity.key())
            .expect("a matching key"),
        None => builder.with_no_client_auth(),
    };
    // Foreman opens a new connection for every call and resumes none.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// A certificate with its key, as the two PEM texts an administrator has.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, then each intermediate one.
    pub chain_pem: String,
    /// The private key.
    pub key_pem: String,
}

impl Identity {
    /// The chain for rustls.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.chain_pem.as_bytes())
            .map(|one| one.expect("a certificate"))
            .collect()
    }

    /// The key for rustls.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("a private key")
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// The key inside a PKCS#8 envelope (RFC 5208 section 5): the third element of the outer sequence, an octet string. For RSA
/// that is PKCS#1, for elliptic curves SEC1.
fn inner_key(pkcs8: &[u8]) -> &[u8] {
    let (_, outer, _) = element(pkcs8);
    let (_, _version, rest) = element(outer);
    let (_, _algorithm, rest) = element(rest);
    let (tag, key, _) = element(rest);
    assert_eq!(
        tag, 0x04,
        "a PKCS#8 envelope holds its key in an octet string"
    );
    key
}

/// One DER element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (tag, first) = (der[0], usize::from(der[1]));
    let (length, head) = if first < 0x80 {
        (first, 2)
    } else {
        let bytes = first & 0x7f;
        let length = der[2..2 + bytes]
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        (length, 2 + bytes)
    };
    (tag, &der[head..head + length], &der[head + length..])
}

fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (index, chunk) in der.chunks(3).enumerate() {
        if index % 16 == 0 {
            text.push('\n');
        }
        let bits = chunk
            .iter()
            .fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > chunk.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    format!("-----BEGIN {label}-----{text}\n-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_key_is_one_that_rustls_can_read() {
        let authority = Authority::root("Test CA");
        for (form, label) in [
            (KeyForm::Pkcs8, "-----BEGIN PRIVATE KEY-----"),
            (KeyForm::Sec1, "-----BEGIN EC PRIVATE KEY-----"),
            (KeyForm::Pkcs1, "-----BEGIN RSA PRIVATE KEY-----"),
        ] {
            let identity = authority.server_with(&["localhost"], form);
            assert!(identity.key_pem.starts_with(label), "{}", identity.key_pem);
            provider()
                .key_provider
                .load_private_key(identity.key())
                .expect("a usable key");
        }
    }
}
