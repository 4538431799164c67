//! Calls of first-party provider interfaces, joined by typed bindings: a quarter of the dynamic bridge's cost. Each call goes to the
//! plugin that the caller's policy names, runs under that plugin's limits, and its failure becomes the interface's own error.

use std::future::Future;

use wasmtime::component::{HasSelf, Linker};

use super::bindings::exports;
use super::bindings::imports::{dhcp_provider, dhcp_types, dns_provider, dns_types};
use super::context::Context;
use super::error::CallError;
use super::instance::Live;
use super::pool::CallFuture;

/// Links all of them.
pub(super) fn link(linker: &mut Linker<Context>) -> wasmtime::Result<()> {
    type Own = HasSelf<Context>;
    dns_provider::add_to_linker::<_, Own>(linker, |it| it)?;
    dhcp_provider::add_to_linker::<_, Own>(linker, |it| it)
}

/// An interface that plugins serve to each other.
trait Interface: Sized + 'static {
    /// Its full name.
    const NAME: &'static str;
    /// Its error.
    type Error: Send + 'static;
    /// The callee's export of it.
    fn exported(live: &mut Live) -> (Option<&Self>, &mut wasmtime::Store<Context>);
    /// What the caller is told when the call itself failed.
    fn failed(error: CallError) -> Self::Error;
}

impl Interface for exports::dns_provider::Guest {
    const NAME: &'static str = "foreman:proxy/dns-provider@0.1.0";
    type Error = dns_types::Error;

    fn exported(live: &mut Live) -> (Option<&Self>, &mut wasmtime::Store<Context>) {
        (live.dns_provider.as_ref(), &mut live.store)
    }

    fn failed(error: CallError) -> Self::Error {
        use dns_types::Error;
        match error {
            CallError::Deadline(_) | CallError::Busy { .. } => Error::Timeout(error.to_string()),
            CallError::Denied(reason) => Error::Refused(reason),
            CallError::NotReady(reason) => Error::Unreachable(reason),
            other => Error::Other(broken("dns", &other)),
        }
    }
}

impl Interface for exports::dhcp_provider::Guest {
    const NAME: &'static str = "foreman:proxy/dhcp-provider@0.1.0";
    type Error = dhcp_types::Error;

    fn exported(live: &mut Live) -> (Option<&Self>, &mut wasmtime::Store<Context>) {
        (live.dhcp_provider.as_ref(), &mut live.store)
    }

    fn failed(error: CallError) -> Self::Error {
        use dhcp_types::Error;
        match error {
            CallError::Deadline(_) | CallError::Busy { .. } => Error::Timeout(error.to_string()),
            CallError::Denied(reason) => Error::Refused(reason),
            CallError::NotReady(reason) => Error::Unreachable(reason),
            other => Error::Other(broken("dhcp", &other)),
        }
    }
}

/// The caller learns that the provider broke, the log learns how.
fn broken(interface: &str, error: &CallError) -> String {
    tracing::error!(interface, %error, "the provider failed");
    format!("the provider failed ({})", error.kind())
}

impl Context {
    /// One call of the plugin that serves an interface to this one.
    fn provided<G, R, F>(
        &self,
        call: F,
    ) -> impl Future<Output = Result<R, G::Error>> + Send + use<G, R, F>
    where
        G: Interface,
        R: Send + 'static,
        F: for<'a> FnOnce(
                &'a G,
                &'a mut wasmtime::Store<Context>,
            ) -> CallFuture<'a, Result<R, G::Error>>
            + Send
            + 'static,
    {
        let callee = self.callee(G::NAME);
        let (class, peer) = (self.class(), self.peer().cloned());
        async move {
            let callee = callee.map_err(G::failed)?;
            let called = callee.call_by_plugin(class, peer, move |live| match G::exported(live) {
                (Some(guest), store) => call(guest, store),
                (None, _) => Box::pin(async {
                    Err(wasmtime::Error::msg(format!(
                        "it does not export `{}`",
                        G::NAME
                    )))
                }),
            });
            called.await.map_err(G::failed)?
        }
    }
}

type Dns = exports::dns_provider::Guest;
type Dhcp = exports::dhcp_provider::Guest;

impl dns_provider::Host for Context {
    async fn find(
        &mut self,
        name: String,
        kind: dns_types::RecordType,
    ) -> Result<Vec<dns_types::DnsRecord>, dns_types::Error> {
        self.provided(move |guest: &Dns, store| {
            Box::pin(async move { guest.call_find(store, &name, kind).await })
        })
        .await
    }

    async fn create(&mut self, wanted: dns_types::DnsRecord) -> Result<bool, dns_types::Error> {
        self.provided(move |guest: &Dns, store| {
            Box::pin(async move { guest.call_create(store, &wanted).await })
        })
        .await
    }

    async fn remove(
        &mut self,
        name: String,
        kind: dns_types::RecordType,
        value: Option<String>,
    ) -> Result<bool, dns_types::Error> {
        self.provided(move |guest: &Dns, store| {
            Box::pin(async move {
                guest
                    .call_remove(store, &name, kind, value.as_deref())
                    .await
            })
        })
        .await
    }
}

impl dhcp_provider::Host for Context {
    async fn subnets(&mut self) -> Result<Vec<dhcp_types::Subnet>, dhcp_types::Error> {
        self.provided(move |guest: &Dhcp, store| {
            Box::pin(async move { guest.call_subnets(store).await })
        })
        .await
    }

    async fn entries(
        &mut self,
        subnet: String,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<dhcp_types::Page, dhcp_types::Error> {
        self.provided(move |guest: &Dhcp, store| {
            Box::pin(async move {
                guest
                    .call_entries(store, &subnet, cursor.as_deref(), limit)
                    .await
            })
        })
        .await
    }

    async fn by_address(
        &mut self,
        subnet: String,
        address: String,
    ) -> Result<Vec<dhcp_types::Entry>, dhcp_types::Error> {
        self.provided(move |guest: &Dhcp, store| {
            Box::pin(async move { guest.call_by_address(store, &subnet, &address).await })
        })
        .await
    }

    async fn by_identifier(
        &mut self,
        subnet: String,
        who: dhcp_types::Identifier,
    ) -> Result<Vec<dhcp_types::Entry>, dhcp_types::Error> {
        self.provided(move |guest: &Dhcp, store| {
            Box::pin(async move { guest.call_by_identifier(store, &subnet, &who).await })
        })
        .await
    }

    async fn in_use(
        &mut self,
        subnet: String,
        addresses: Vec<String>,
    ) -> Result<Vec<bool>, dhcp_types::Error> {
        self.provided(move |guest: &Dhcp, store| {
            Box::pin(async move { guest.call_in_use(store, &subnet, &addresses).await })
        })
        .await
    }

    async fn add(&mut self, wanted: dhcp_types::Reservation) -> Result<bool, dhcp_types::Error> {
        self.provided(move |guest: &Dhcp, store| {
            Box::pin(async move { guest.call_add(store, &wanted).await })
        })
        .await
    }

    async fn remove(
        &mut self,
        subnet: String,
        address: Option<String>,
        who: Option<dhcp_types::Identifier>,
    ) -> Result<bool, dhcp_types::Error> {
        self.provided(move |guest: &Dhcp, store| {
            Box::pin(async move {
                guest
                    .call_remove(store, &subnet, address.as_deref(), who.as_ref())
                    .await
            })
        })
        .await
    }
}
