//! `wasi:sockets/ip-name-lookup` for plugins: resolving is a right of its own, name by name.
//!
//! It refuses every name that the policy does not grant, before any question leaves the host: a question can carry data out.
//! Addresses in any spelling are not questions and are answered as they are.
//!
//! What a granted name resolved to is recorded with the plugin's guard: for the answer's time to live the plugin may reach these
//! addresses under rules that give the name.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{
    Host, HostResolveAddressStream, ResolveAddressStream,
};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketResult, subscribe};

use super::WasiView;
use crate::capability::resolve::{ResolveError, Resolver};
use crate::grant::Action;
use crate::grant::matchers::host::AskedHost;

/// The answer to a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// In the order to try them.
    pub addresses: Vec<IpAddr>,
    /// How long the answer holds.
    pub time_to_live: Duration,
}

/// Why a lookup has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// There is no such name, or it has no address.
    #[error("the name does not resolve")]
    Unknown,
    /// Trying again later may help.
    #[error("no name server answered")]
    Temporary,
    /// Trying again will not help.
    #[error("the name servers refused")]
    Permanent,
}

/// Whoever resolves names for plugins. Asked only for names that are granted.
pub trait NameLookup: Send + Sync + 'static {
    /// Looks up a name in lower case and ASCII, without final dot, for `plugin`.
    fn lookup<'a>(&'a self, plugin: &'a str, name: &'a str) -> LookupFuture<'a>;
}

/// A lookup under way.
pub type LookupFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Addresses, LookupError>> + Send + 'a>>;

impl NameLookup for Resolver {
    fn lookup<'a>(&'a self, plugin: &'a str, name: &'a str) -> LookupFuture<'a> {
        Box::pin(async move {
            match self.resolve(plugin, name).await {
                Ok(found) => Ok(Addresses {
                    addresses: found.addresses,
                    time_to_live: found.ttl,
                }),
                Err(ResolveError::NotFound { .. } | ResolveError::Malformed { .. }) => {
                    Err(LookupError::Unknown)
                }
                Err(ResolveError::Timeout { .. }) => Err(LookupError::Temporary),
                Err(ResolveError::Failed { .. }) => Err(LookupError::Permanent),
            }
        })
    }
}

/// A lookup of a plugin; what the table keeps under the number of the plugin's handle.
enum Lookup {
    Asking(LookupFuture<'static>),
    Answered(std::vec::IntoIter<IpAddr>),
    Failed(LookupError),
}

impl Lookup {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self::Asking(question) = self else {
            return Poll::Ready(());
        };
        let Poll::Ready(answer) = question.as_mut().poll(context) else {
            return Poll::Pending;
        };
        *self = match answer {
            Ok(answer) => Self::Answered(answer.addresses.into_iter()),
            Err(error) => Self::Failed(error),
        };
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }
}

impl Host for WasiView<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.table.get(&network)?;
        let lookup = match AskedHost::parse(&name).ok_or(ErrorCode::InvalidArgument)? {
            AskedHost::Address(address) => Lookup::Answered(vec![address].into_iter()),
            AskedHost::Name(name) => {
                let access = self.parts.access.clone();
                if !access
                    .guard()
                    .decide(&Action::Resolve { name: &name })
                    .is_allowed()
                {
                    return Err(ErrorCode::AccessDenied.into());
                }
                let name = name.into_owned();
                Lookup::Asking(Box::pin(async move {
                    let answer = access
                        .resolver()
                        .lookup(access.guard().plugin(), &name)
                        .await?;
                    access
                        .guard()
                        .record_resolved(&name, &answer.addresses, answer.time_to_live);
                    Ok(answer)
                }))
            }
        };
        Ok(Resource::new_own(self.table.push(lookup)?.rep()))
    }
}

impl HostResolveAddressStream for WasiView<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let lookup = self
            .table
            .get_mut(&Resource::<Lookup>::new_borrow(stream.rep()))?;
        if lookup
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
        {
            return Err(ErrorCode::WouldBlock.into());
        }
        match lookup {
            Lookup::Answered(addresses) => Ok(addresses
                .next()
                .map(|address| address.to_canonical().into())),
            Lookup::Failed(LookupError::Unknown) => Err(ErrorCode::NameUnresolvable.into()),
            Lookup::Failed(LookupError::Temporary) => {
                Err(ErrorCode::TemporaryResolverFailure.into())
            }
            Lookup::Failed(LookupError::Permanent) => {
                Err(ErrorCode::PermanentResolverFailure.into())
            }
            Lookup::Asking(_) => Err(ErrorCode::WouldBlock.into()),
        }
    }

    fn subscribe(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, Resource::<Lookup>::new_borrow(stream.rep()))
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table
            .delete(Resource::<Lookup>::new_own(stream.rep()))?;
        Ok(())
    }
}

/// Resolves nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNames;

impl NameLookup for NoNames {
    fn lookup<'a>(&'a self, _plugin: &'a str, _name: &'a str) -> LookupFuture<'a> {
        Box::pin(async { Err(LookupError::Permanent) })
    }
}
