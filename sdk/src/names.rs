//! Addresses of names, asked for without waiting: the standard library's look-up holds the instance until the answer is there, and does not tell a name
//! that does not exist from a name server that does not answer.
//!
//! Each name is decided by the policy's `names` grants.

use std::net::IpAddr;
use std::time::Duration;

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupError {
    /// There is no such name, or it has no address.
    Absent,
    /// Nobody could be asked, or the policy does not let this name be asked for; why.
    Failed(String),
}

/// What a look-up comes to.
pub type Found = Result<Vec<IpAddr>, LookupError>;

/// A look-up under way.
#[derive(Debug)]
pub struct Question(system::Question);

impl Question {
    /// Asks for the addresses of a name.
    #[must_use]
    pub fn ask(name: &str) -> Self {
        Self(system::Question::ask(name))
    }

    /// The answer, if it is there within that time. Not to be asked again afterwards.
    pub fn answer(&mut self, patience: Duration) -> Option<Found> {
        self.0.answer(patience)
    }
}

/// All addresses of a name, however long the host takes for it (10 seconds at most).
///
/// # Errors
/// See [`LookupError`].
pub fn addresses_of(name: &str) -> Found {
    let mut question = Question::ask(name);
    loop {
        if let Some(found) = question.answer(Duration::from_secs(60)) {
            return found;
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod system {
    use super::{Duration, Found, LookupError};
    use std::net::ToSocketAddrs as _;

    #[derive(Debug)]
    pub(super) struct Question(String);

    impl Question {
        pub(super) fn ask(name: &str) -> Self {
            Self(name.to_owned())
        }

        pub(super) fn answer(&mut self, _: Duration) -> Option<Found> {
            Some(match (self.0.as_str(), 0).to_socket_addrs() {
                Ok(found) => Ok(found.map(|address| address.ip()).collect()),
                Err(why) if why.to_string().contains("not known") => Err(LookupError::Absent),
                Err(why) => Err(LookupError::Failed(why.to_string())),
            })
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod system {
    use super::{Duration, Found, LookupError};
    use std::net::IpAddr;

    use wasip2::clocks::monotonic_clock;
    use wasip2::io::poll;
    use wasip2::sockets::instance_network::instance_network;
    use wasip2::sockets::ip_name_lookup::{ResolveAddressStream, resolve_addresses};
    use wasip2::sockets::network::{ErrorCode, IpAddress};

    #[derive(Debug)]
    pub(super) struct Question {
        stream: Result<ResolveAddressStream, ErrorCode>,
        found: Vec<IpAddr>,
    }

    impl Question {
        pub(super) fn ask(name: &str) -> Self {
            Self {
                stream: resolve_addresses(&instance_network(), name),
                found: Vec::new(),
            }
        }

        pub(super) fn answer(&mut self, patience: Duration) -> Option<Found> {
            let stream = match &self.stream {
                Ok(stream) => stream,
                Err(code) => return Some(Err(error(*code))),
            };
            let nanoseconds = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
            let late = monotonic_clock::subscribe_duration(nanoseconds);
            loop {
                match stream.resolve_next_address() {
                    Ok(Some(address)) => self.found.push(ip(address)),
                    Ok(None) if self.found.is_empty() => return Some(Err(LookupError::Absent)),
                    Ok(None) => return Some(Ok(std::mem::take(&mut self.found))),
                    Err(ErrorCode::WouldBlock) if late.ready() => return None,
                    Err(ErrorCode::WouldBlock) => {
                        poll::poll(&[&stream.subscribe(), &late]);
                    }
                    Err(code) => return Some(Err(error(code))),
                }
            }
        }
    }

    fn error(code: ErrorCode) -> LookupError {
        LookupError::Failed(
            match code {
                ErrorCode::NameUnresolvable => return LookupError::Absent,
                ErrorCode::AccessDenied => "the policy does not let this name be asked for",
                ErrorCode::TemporaryResolverFailure => "no name server answered",
                ErrorCode::PermanentResolverFailure => "the name servers refused or failed",
                ErrorCode::InvalidArgument => "it is no host name",
                other => other.name(),
            }
            .to_owned(),
        )
    }

    fn ip(address: IpAddress) -> IpAddr {
        match address {
            IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
            IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_machine_knows_has_addresses() {
        let found = addresses_of("localhost").unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    }
}
