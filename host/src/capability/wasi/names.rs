//! `wasi:sockets/ip-name-lookup` for plugins: resolving is a right of its own, name by name.
//!
//! It refuses every name that the policy does not grant, before any question leaves the host: a question can carry data out.
//! Addresses in any spelling are not questions and are answered as they are.
//!
//! What a granted name resolved to is remembered for the answer's time to live, because only then may the plugin reach these
//! addresses under rules that give the name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{Host, HostResolveAddressStream, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketResult, subscribe};

use super::WasiView;

/// Addresses remembered per plugin; beyond it the ones that end first are forgotten.
const MAX_REMEMBERED: usize = 1024;
/// The longest an answer is remembered, whatever its time to live says.
const MAX_TIME_TO_LIVE: Duration = Duration::from_secs(24 * 60 * 60);

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
    fn lookup(&self, plugin: &str, name: &str) -> Pin<Box<dyn Future<Output = Result<Addresses, LookupError>> + Send>>;
}

/// What was resolved for one plugin.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    names: Mutex<HashMap<(IpAddr, String), Instant>>,
}

impl Remembered {
    fn keep(&self, name: &str, answer: &Addresses) {
        let now = Instant::now();
        let ends = now + answer.time_to_live.min(MAX_TIME_TO_LIVE);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, ends| *ends > now);
        for address in &answer.addresses {
            if names.len() >= MAX_REMEMBERED
                && let Some(first) = names.iter().min_by_key(|(_, ends)| **ends).map(|(key, _)| key.clone())
            {
                names.remove(&first);
            }
            names.insert((address.to_canonical(), name.to_owned()), ends);
        }
    }

    /// The names that have resolved to an address and still do, in alphabetical order.
    pub(super) fn names_of(&self, address: IpAddr) -> Vec<String> {
        let now = Instant::now();
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let found = names.iter().filter(|((known, _), ends)| *known == address && **ends > now);
        let mut found: Vec<_> = found.map(|((_, name), _)| name.clone()).collect();
        found.sort();
        found
    }
}

/// A lookup of a plugin; what the table keeps under the number of the plugin's handle.
enum Lookup {
    Asking(Pin<Box<dyn Future<Output = Result<Addresses, LookupError>> + Send>>),
    Answered(std::vec::IntoIter<IpAddr>),
    Failed(LookupError),
}

impl Lookup {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self::Asking(question) = self else { return Poll::Ready(()) };
        let Poll::Ready(answer) = question.as_mut().poll(context) else { return Poll::Pending };
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
    fn resolve_addresses(&mut self, network: Resource<Network>, name: String) -> SocketResult<Resource<ResolveAddressStream>> {
        self.table.get(&network)?;
        let lookup = match canonical(&name).ok_or(ErrorCode::InvalidArgument)? {
            Canonical::Address(address) => Lookup::Answered(vec![address].into_iter()),
            Canonical::Name(name) => {
                let access = self.parts.access.clone();
                if !access.may_resolve(&name) {
                    return Err(ErrorCode::AccessDenied.into());
                }
                Lookup::Asking(Box::pin(async move {
                    let answer = access.resolver().lookup(access.guard().plugin(), &name).await?;
                    access.remembered().keep(&name, &answer);
                    Ok(answer)
                }))
            }
        };
        Ok(Resource::new_own(self.table.push(lookup)?.rep()))
    }
}

impl HostResolveAddressStream for WasiView<'_> {
    fn resolve_next_address(&mut self, stream: Resource<ResolveAddressStream>) -> SocketResult<Option<IpAddress>> {
        let lookup = self.table.get_mut(&Resource::<Lookup>::new_borrow(stream.rep()))?;
        if lookup.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Err(ErrorCode::WouldBlock.into());
        }
        match lookup {
            Lookup::Answered(addresses) => Ok(addresses.next().map(|address| address.to_canonical().into())),
            Lookup::Failed(LookupError::Unknown) => Err(ErrorCode::NameUnresolvable.into()),
            Lookup::Failed(LookupError::Temporary) => Err(ErrorCode::TemporaryResolverFailure.into()),
            Lookup::Failed(LookupError::Permanent) => Err(ErrorCode::PermanentResolverFailure.into()),
            Lookup::Asking(_) => Err(ErrorCode::WouldBlock.into()),
        }
    }

    fn subscribe(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, Resource::<Lookup>::new_borrow(stream.rep()))
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Lookup>::new_own(stream.rep()))?;
        Ok(())
    }
}

enum Canonical {
    Address(IpAddr),
    Name(String),
}

/// One spelling per name or address; none for what is neither.
fn canonical(name: &str) -> Option<Canonical> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Some(Canonical::Address(address.to_canonical()));
    }
    match url::Host::parse(name).ok()? {
        url::Host::Ipv4(address) => Some(Canonical::Address(address.into())),
        url::Host::Ipv6(address) => Some(Canonical::Address(IpAddr::V6(address).to_canonical())),
        url::Host::Domain(domain) => {
            let domain = domain.strip_suffix('.').unwrap_or(&domain);
            (!domain.is_empty() && domain.len() <= 253).then(|| Canonical::Name(domain.to_owned()))
        }
    }
}

/// Resolves nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNames;

impl NameLookup for NoNames {
    fn lookup(&self, _plugin: &str, _name: &str) -> Pin<Box<dyn Future<Output = Result<Addresses, LookupError>> + Send>> {
        Box::pin(async { Err(LookupError::Permanent) })
    }
}

impl<L: NameLookup> NameLookup for Arc<L> {
    fn lookup(&self, plugin: &str, name: &str) -> Pin<Box<dyn Future<Output = Result<Addresses, LookupError>> + Send>> {
        L::lookup(self, plugin, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_its_time_to_live() {
        let remembered = Remembered::default();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let answer = |milliseconds| Addresses { addresses: vec![address], time_to_live: Duration::from_millis(milliseconds) };
        remembered.keep("short.example", &answer(20));
        remembered.keep("long.example", &answer(60_000));
        assert_eq!(remembered.names_of(address), ["long.example", "short.example"]);
        assert!(remembered.names_of("192.0.2.2".parse().unwrap()).is_empty());
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(remembered.names_of(address), ["long.example"]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let remembered = Remembered::default();
        for number in 0..3000_u32 {
            let answer = Addresses { addresses: vec![std::net::Ipv4Addr::from(number).into()], time_to_live: Duration::from_secs(60) };
            remembered.keep("many.example", &answer);
        }
        assert_eq!(remembered.names.lock().unwrap().len(), MAX_REMEMBERED);
    }

    #[test]
    fn odd_spellings_of_addresses_are_addresses() {
        for loopback in ["127.0.0.1", "0x7f.1", "2130706433", "::ffff:127.0.0.1", "[::ffff:7f00:1]"] {
            assert!(matches!(canonical(loopback), Some(Canonical::Address(IpAddr::V4(address))) if address.is_loopback()), "{loopback}");
        }
        assert!(matches!(canonical("NS.Example."), Some(Canonical::Name(name)) if name == "ns.example"));
        for wrong in ["", ".", "a b", "a/b", "a\0b"] {
            assert!(canonical(wrong).is_none(), "{wrong:?}");
        }
    }
}
