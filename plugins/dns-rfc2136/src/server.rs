//! Which servers the operator named, and the key that the host holds for them.

use std::net::{SocketAddr, ToSocketAddrs as _};

use bulkhead_sdk::prelude::*;
use hickory_proto::rr::Name;

use crate::error::Problem;
use crate::message;
use crate::tsig::Signer;

/// DNS over UDP and TCP.
const PORT: u16 = 53;

/// The addresses of all servers, in the operator's order. A name that does not resolve is passed over while another does.
pub(crate) fn addresses(servers: &[String]) -> Result<Vec<SocketAddr>, Problem> {
    let mut found = Vec::new();
    let mut missing = None;
    for server in servers {
        let (host, port) = split(server)?;
        match (host, port).to_socket_addrs() {
            Ok(addresses) => found.extend(addresses),
            Err(why) => {
                missing = Some(Problem::Unreachable {
                    server: server.clone(),
                    why: why.to_string(),
                })
            }
        }
    }
    match missing {
        Some(problem) if found.is_empty() => Err(problem),
        _ => Ok(found),
    }
}

/// `ns`, `ns:53`, `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]:53`
fn split(server: &str) -> Result<(&str, u16), Problem> {
    let bad = || {
        Problem::Invalid(format!(
            "dns_server: `{server}` is no host with or without a port"
        ))
    };
    if let Some(inside) = server.strip_prefix('[') {
        let (host, rest) = inside.split_once(']').ok_or_else(bad)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, port.parse().map_err(|_| bad())?)),
            None if rest.is_empty() => Ok((host, PORT)),
            None => Err(bad()),
        };
    }
    match server.split_once(':') {
        Some((host, port)) if !port.contains(':') => Ok((host, port.parse().map_err(|_| bad())?)),
        _ => Ok((server, PORT)),
    }
}

/// The key of slot `key`: name and algorithm are known here, the secret stays with the host.
pub(crate) struct HostKey {
    name: Name,
    algorithm: Name,
}

impl HostKey {
    /// None: the operator wants updates unsigned.
    pub(crate) fn granted() -> Result<Option<Self>, Problem> {
        let configured = settings::text("dns_key").is_some_and(|path| !path.is_empty());
        if !configured {
            return Ok(None);
        }
        let key = secrets::about("key").map_err(|why| Problem::Key(words(&why)))?;
        let algorithm = match key.algorithm.as_str() {
            "hmac-md5" => "hmac-md5.sig-alg.reg.int",
            known @ ("hmac-sha1" | "hmac-sha256" | "hmac-sha384" | "hmac-sha512") => known,
            other => {
                return Err(Problem::Key(format!(
                    "its algorithm `{other}` is not one of TSIG's"
                )));
            }
        };
        Ok(Some(Self {
            name: message::name(&key.name)?,
            algorithm: message::name(algorithm)?,
        }))
    }
}

impl Signer for HostKey {
    fn name(&self) -> &Name {
        &self.name
    }

    fn algorithm(&self) -> &Name {
        &self.algorithm
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        secrets::sign("key", message).map_err(|why| words(&why))
    }

    fn verify(&self, message: &[u8], mac: &[u8]) -> Result<bool, String> {
        secrets::verify("key", message, mac).map_err(|why| words(&why))
    }
}

fn words(why: &secrets::Error) -> String {
    match why {
        secrets::Error::Denied(text) | secrets::Error::Unusable(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_carry_a_port() {
        for (text, expected) in [
            ("ns.example.com", ("ns.example.com", 53)),
            ("ns.example.com:5353", ("ns.example.com", 5353)),
            ("192.0.2.1", ("192.0.2.1", 53)),
            ("2001:db8::1", ("2001:db8::1", 53)),
            ("[2001:db8::1]", ("2001:db8::1", 53)),
            ("[2001:db8::1]:54", ("2001:db8::1", 54)),
        ] {
            assert_eq!(split(text).unwrap(), expected);
        }
        for bad in ["ns:x", "[::1", "[::1]x", "ns:70000"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
