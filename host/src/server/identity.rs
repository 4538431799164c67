//! Who is calling, and whether that is enough for an audience.
//!
//! It refuses to guess: Foreman is a certificate with a trusted name, or on plain HTTP (only where the listener allows it) an address
//! whose name is trusted in both directions of the DNS. There is no way to leave the question open: without a list of names an operator
//! has to choose [`TrustedHosts::AnyCertificate`], and that never covers plain HTTP from another machine.
//!
//! The one idea: a name is proven by whom it is asked from. Subject alternative names come first, the common name after them (old Puppet CAs
//! set nothing else); both are compared without regard to case (contract/core.md section 1.1).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::names::ReverseNames;
use crate::sandbox::bindings::types::Audience;

/// The longest name taken from a certificate or the DNS, in bytes (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;
/// The most names looked at of one certificate or address. 16: certificates of Foreman and its proxies have two or three.
const MAX_NAMES: usize = 16;
/// For all DNS lookups of one request, by default. 5 s: Foreman waits 60 s, a stuck resolver should not use them up.
pub const LOOKUP_TIME: Duration = Duration::from_secs(5);

/// What the TLS handshake proved about a client: the names in its verified certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Certificate {
    names: Vec<Arc<str>>,
}

impl Certificate {
    /// Reads the names of a certificate that was verified already. One that cannot be read has no names.
    pub fn read(der: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Self::default();
        };
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let alternative = alternative
            .iter()
            .flat_map(|extension| &extension.value.general_names);
        let alternative = alternative.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        });
        let common = certificate
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok());
        let mut names: Vec<Arc<str>> = Vec::new();
        for name in alternative
            .chain(common)
            .filter_map(clean_name)
            .take(MAX_NAMES)
        {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Self { names }
    }

    /// A certificate with these names, for tests of upper floors.
    pub fn with_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self {
            names: names.into_iter().filter_map(clean_name).collect(),
        }
    }

    /// DNS names of the subject alternative names, then the common name; lower case.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }
}

/// Who sent a request, before anybody asks if that is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The client's address; behind a trusted front what the front said.
    pub address: IpAddr,
    /// True: the address comes from a front, not from the connection.
    pub fronted: bool,
    /// True: the connection is TLS.
    pub secure: bool,
    /// The client's certificate, if it showed one.
    pub certificate: Option<Arc<Certificate>>,
}

/// Which names Foreman may call under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedHosts {
    /// Every certificate of the configured CA. Each enrolled host has one, so an operator has to write this out.
    AnyCertificate,
    /// These names, lower case. An empty list trusts nobody.
    Names(BTreeSet<String>),
}

impl TrustedHosts {
    /// The names as written in the configuration.
    pub fn names<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self::Names(
            names
                .into_iter()
                .map(|name| name.trim().trim_end_matches('.').to_lowercase())
                .collect(),
        )
    }
}

/// What makes a caller Foreman.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The names.
    pub hosts: TrustedHosts,
    /// On plain HTTP: the name found for an address has to lead back to that address.
    pub forward_verify: bool,
    /// On plain HTTP: for all lookups of one request together, usually [`LOOKUP_TIME`].
    pub lookup_time: Duration,
}

/// Whether a listener serves Foreman's audience on plain HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlainForeman {
    /// No.
    #[default]
    Refused,
    /// To programs of this machine, over loopback.
    Loopback,
    /// To trusted names from anywhere, because the operator said so. Names of the DNS are the only proof then.
    TrustedNames,
}

/// Why a caller is not admitted. The texts are those of contract/core.md section 1; always a 403.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A certificate is needed.
    #[error("No client SSL certificate supplied")]
    NoCertificate,
    /// A certificate with a trusted name is needed, and none was shown.
    #[error("could not read client cert from environment")]
    NoCertificateToName,
    /// The certificate holds no name.
    #[error("could not read CN from the client certificate")]
    NoName,
    /// The name is not in the list.
    #[error(
        "Untrusted client {name} attempted to access {path}. Check :trusted_hosts: in settings.yml"
    )]
    Untrusted {
        /// The first of the caller's names.
        name: Arc<str>,
        /// The path below the mount.
        path: String,
    },
    /// The address has no name.
    #[error("unable to resolve hostname for ip address {address}\n\n{why}")]
    Unresolved {
        /// The caller's address.
        address: IpAddr,
        /// What the resolver said.
        why: String,
    },
    /// The name could not be looked up.
    #[error("could not forward verify the remote hostname - {name} ({address})\n\n{why}")]
    NotVerified {
        /// The name found for the address.
        name: Arc<str>,
        /// The caller's address.
        address: IpAddr,
        /// What the resolver said.
        why: String,
    },
    /// The name leads elsewhere.
    #[error("untrusted client has no matching forward DNS lookup - {name} ({address})")]
    Mismatch {
        /// The name found for the address.
        name: Arc<str>,
        /// The caller's address.
        address: IpAddr,
    },
}

/// Decides if a caller may be served as `audience`, and under which verified name. `path` is the path below the mount, for the error's text.
pub(super) async fn verify(
    identity: &Identity,
    audience: Audience,
    trust: &Trust,
    plain: PlainForeman,
    resolver: &dyn ReverseNames,
    path: &str,
) -> Result<Option<Arc<str>>, IdentityError> {
    let names = identity.certificate.as_deref().map(Certificate::names);
    let first = names.and_then(<[_]>::first).cloned();
    match (audience, &trust.hosts, names) {
        (Audience::Public, _, _) | (Audience::Host, _, Some(_)) => Ok(first),
        (Audience::Host, _, None) => Err(IdentityError::NoCertificate),
        (Audience::Foreman, _, None) if !identity.secure => {
            verify_plain(identity, trust, plain, resolver, path).await
        }
        (Audience::Foreman, TrustedHosts::AnyCertificate, Some(_)) => Ok(first),
        (Audience::Foreman, TrustedHosts::AnyCertificate, None) => {
            Err(IdentityError::NoCertificate)
        }
        (Audience::Foreman, TrustedHosts::Names(_), None) => {
            Err(IdentityError::NoCertificateToName)
        }
        (Audience::Foreman, TrustedHosts::Names(trusted), Some(names)) => {
            match names.iter().find(|name| trusted.contains(&***name)) {
                Some(name) => Ok(Some(name.clone())),
                None => Err(first.map_or(IdentityError::NoName, |name| untrusted(name, path))),
            }
        }
    }
}

async fn verify_plain(
    identity: &Identity,
    trust: &Trust,
    plain: PlainForeman,
    resolver: &dyn ReverseNames,
    path: &str,
) -> Result<Option<Arc<str>>, IdentityError> {
    // An address that a front reported is never "this machine", even if the front says 127.0.0.1: that is the front's machine.
    let local = identity.address.is_loopback() && !identity.fronted;
    let allowed = match plain {
        PlainForeman::Refused => false,
        PlainForeman::Loopback => local,
        PlainForeman::TrustedNames => true,
    };
    match &trust.hosts {
        _ if !allowed => Err(IdentityError::NoCertificate),
        TrustedHosts::AnyCertificate if local => Ok(None),
        TrustedHosts::AnyCertificate => Err(IdentityError::NoCertificate),
        TrustedHosts::Names(trusted) => {
            let lookup = verify_by_dns(
                identity.address,
                trusted,
                trust.forward_verify,
                resolver,
                path,
            );
            match tokio::time::timeout(trust.lookup_time, lookup).await {
                Ok(outcome) => outcome.map(Some),
                Err(_) => Err(IdentityError::Unresolved {
                    address: identity.address,
                    why: format!("no answer within {:?}", trust.lookup_time),
                }),
            }
        }
    }
}

async fn verify_by_dns(
    address: IpAddr,
    trusted: &BTreeSet<String>,
    forward_verify: bool,
    resolver: &dyn ReverseNames,
    path: &str,
) -> Result<Arc<str>, IdentityError> {
    let unresolved = |why| IdentityError::Unresolved { address, why };
    let found = resolver.names(address).await.map_err(unresolved)?;
    let names: Vec<Arc<str>> = found
        .iter()
        .filter_map(|name| clean_name(name))
        .take(MAX_NAMES)
        .collect();
    let first = names
        .first()
        .cloned()
        .ok_or_else(|| unresolved("the address has no name".to_owned()))?;
    let mut refusal = untrusted(first, path);
    // An address may have several names (/etc/hosts lists aliases); one that is trusted and leads back is enough.
    for name in names.into_iter().filter(|name| trusted.contains(&**name)) {
        if !forward_verify {
            return Ok(name);
        }
        refusal = match resolver.addresses(&name, address).await {
            Ok(addresses) if addresses.contains(&address) => return Ok(name),
            Ok(_) => IdentityError::Mismatch { name, address },
            Err(why) => IdentityError::NotVerified { name, address, why },
        };
    }
    Err(refusal)
}

fn untrusted(name: Arc<str>, path: &str) -> IdentityError {
    IdentityError::Untrusted {
        name,
        path: path.to_owned(),
    }
}

/// A name fit for comparing and printing: lower case, without trailing dot. None: nothing that could be a name.
fn clean_name(name: &str) -> Option<Arc<str>> {
    let name = name.trim_end_matches('.');
    let printable = name.chars().all(|c| c.is_ascii_graphic());
    (printable && !name.is_empty() && name.len() <= MAX_NAME)
        .then(|| name.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests;
