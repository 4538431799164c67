//! Names of addresses and addresses of names, as this machine sees them: `/etc/hosts`, then the servers of `/etc/resolv.conf`.
//!
//! Used only to tell who calls over plain HTTP. Plugins resolve names through their own grant, never through this.

use std::net::IpAddr;

use futures::FutureExt;
use futures::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::proto::rr::{RData, RecordType};

/// Something that knows names and addresses. Errors are texts for people.
pub trait ReverseNames: Send + Sync + 'static {
    /// The names of an address, any case, perhaps with a trailing dot.
    fn names(&self, address: IpAddr) -> BoxFuture<'_, Result<Vec<String>, String>>;
    /// The addresses of a name, of the same family as `like`.
    fn addresses<'a>(
        &'a self,
        name: &'a str,
        like: IpAddr,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, String>>;
}

/// The machine's own resolver. Answers are cached for their time to live; `/etc/hosts` is read once, when this is made.
pub struct SystemNames {
    resolver: Option<TokioResolver>,
}

/// Why names cannot be looked up. Not fatal: a proxy on TLS needs none.
#[derive(Debug, thiserror::Error)]
#[error("the machine's resolver cannot be used: {0}")]
pub struct ResolverError(String);

impl SystemNames {
    /// Reads the machine's configuration.
    pub fn new() -> Result<Self, ResolverError> {
        let builder =
            TokioResolver::builder_tokio().map_err(|error| ResolverError(error.to_string()))?;
        let mut builder = builder;
        builder.options_mut().use_hosts_file = ResolveHosts::Always;
        let resolver = builder
            .build()
            .map_err(|error| ResolverError(error.to_string()))?;
        Ok(Self {
            resolver: Some(resolver),
        })
    }

    /// Knows no names, for machines without a resolver.
    pub fn none() -> Self {
        Self { resolver: None }
    }

    fn resolver(&self) -> Result<&TokioResolver, String> {
        self.resolver
            .as_ref()
            .ok_or_else(|| "this machine has no resolver".to_owned())
    }
}

impl ReverseNames for SystemNames {
    fn names(&self, address: IpAddr) -> BoxFuture<'_, Result<Vec<String>, String>> {
        async move {
            let found = self
                .resolver()?
                .reverse_lookup(address)
                .await
                .map_err(|error| error.to_string())?;
            let names = found
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::PTR(name) => Some(name.0.to_ascii()),
                    _ => None,
                });
            Ok(names.collect())
        }
        .boxed()
    }

    fn addresses<'a>(
        &'a self,
        name: &'a str,
        like: IpAddr,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        let kind = if like.is_ipv4() {
            RecordType::A
        } else {
            RecordType::AAAA
        };
        async move {
            // With the dot: the name is complete, no search domain is tried.
            let name = format!("{name}.");
            let found = self
                .resolver()?
                .lookup(name, kind)
                .await
                .map_err(|error| error.to_string())?;
            Ok(found
                .answers()
                .iter()
                .filter_map(|record| record.data.ip_addr())
                .collect())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hosts_file_is_consulted_in_both_directions() {
        let system = match SystemNames::new() {
            Ok(system) => system,
            Err(error) => {
                eprintln!("SKIPPED: {error}");
                return;
            }
        };
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let names = system.names(loopback).await.unwrap();
        assert!(
            names
                .iter()
                .any(|name| name.trim_end_matches('.') == "localhost"),
            "{names:?}"
        );
        assert!(
            system
                .addresses("localhost", loopback)
                .await
                .unwrap()
                .contains(&loopback)
        );
    }

    #[tokio::test]
    async fn without_a_resolver_nothing_has_a_name() {
        assert!(
            SystemNames::none()
                .names("127.0.0.1".parse().unwrap())
                .await
                .is_err()
        );
    }
}
