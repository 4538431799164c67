//! The OMAPI key that the host holds, and the server that the operator named.

use std::net::SocketAddr;

use bulkhead_sdk::names::LookupError;
use bulkhead_sdk::prelude::*;

use crate::error::Problem;
use crate::names;
use crate::omapi::session::Signer;

/// The slot of the key.
pub(crate) const SLOT: &str = "key";

/// The key of slot `key`: name and algorithm are known here, the secret stays with the host.
pub(crate) struct HostKey {
    key: secrets::Key,
}

impl HostKey {
    /// None: the operator gives none, and dhcpd asks for none.
    pub(crate) fn granted() -> Result<Option<Self>, Problem> {
        let configured = settings::text("omapi_key").is_some_and(|path| !path.is_empty());
        if !configured {
            return Ok(None);
        }
        let mut key = secrets::about(SLOT).map_err(|why| Problem::Key(words(&why)))?;
        if key.algorithm.is_empty() {
            key.algorithm = "hmac-md5".to_owned();
        }
        Ok(Some(Self { key }))
    }
}

impl Signer for HostKey {
    fn name(&self) -> &str {
        &self.key.name
    }

    fn algorithm(&self) -> &str {
        &self.key.algorithm
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        secrets::sign(SLOT, message).map_err(|why| words(&why))
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<bool, String> {
        secrets::verify(SLOT, message, signature).map_err(|why| words(&why))
    }
}

fn words(why: &secrets::Error) -> String {
    match why {
        secrets::Error::Denied(text) | secrets::Error::Unusable(text) => text.clone(),
    }
}

/// The name and the addresses of the setting `server`, with the port of `omapi_port` unless it has one.
pub(crate) async fn server() -> Result<(String, Vec<SocketAddr>), Problem> {
    let server = settings::text("server").unwrap_or_else(|| "127.0.0.1".to_owned());
    let port = settings::integer("omapi_port")
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(7911);
    let name = format!("{server}:{port}");
    let found = names::looked_up(&server).await;
    let addresses = found.map_err(|why| Problem::Unreachable {
        server: name.clone(),
        why: match why {
            LookupError::Absent => "the name has no address".to_owned(),
            LookupError::Failed(why) => why,
        },
    })?;
    let addresses = addresses.into_iter();
    Ok((
        name,
        addresses.map(|ip| SocketAddr::new(ip, port)).collect(),
    ))
}
