//! Which IPv4 addresses this machine has, asked of the kernel seldom: a list costs it a dozen system calls, and every frame needs one.
//!
//! It refuses to take an address for a foreign one by old knowledge: before it says no it looks again. It may say yes for [`BELIEVED`] after an address went.

use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;

/// How long a list is believed: addresses change seldom.
const BELIEVED: Duration = Duration::from_secs(2);

/// The addresses.
pub(super) struct Addresses {
    look: fn() -> Vec<Address>,
    known: Mutex<Option<(Instant, Vec<Address>)>>,
}

/// One of them.
#[derive(Debug, Clone)]
struct Address {
    interface: String,
    ip: Ipv4Addr,
    prefix: u32,
}

impl Addresses {
    pub(super) fn new() -> Self {
        Self::seen_by(look)
    }

    fn seen_by(look: fn() -> Vec<Address>) -> Self {
        Self {
            look,
            known: Mutex::default(),
        }
    }

    /// Whether an address is one of this machine's.
    pub(super) fn is_own(&self, ip: Ipv4Addr) -> bool {
        let mut known = self.lock();
        let is_known = |known: &Option<(Instant, Vec<Address>)>| {
            let believed = known.as_ref().filter(|(at, _)| at.elapsed() <= BELIEVED);
            believed.is_some_and(|(_, all)| all.iter().any(|own| own.ip == ip))
        };
        if is_known(&known) {
            return true;
        }
        *known = Some((Instant::now(), (self.look)()));
        is_known(&known)
    }

    /// The first address of an interface, with its prefix length: `192.0.2.1/24`.
    pub(super) fn of_interface(&self, interface: &str) -> Option<(Ipv4Addr, String)> {
        let mut known = self.lock();
        if known.as_ref().is_none_or(|(at, _)| at.elapsed() > BELIEVED) {
            *known = Some((Instant::now(), (self.look)()));
        }
        let (_, all) = known.as_ref()?;
        let own = all.iter().find(|own| own.interface == interface)?;
        Some((own.ip, format!("{}/{}", own.ip, own.prefix)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Vec<Address>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As the kernel has them. None can be had where it does not tell.
fn look() -> Vec<Address> {
    let Ok(all) = getifaddrs() else {
        return Vec::new();
    };
    all.filter_map(|found| {
        let mask = found.netmask?.as_sockaddr_in()?.ip();
        Some(Address {
            interface: found.interface_name,
            ip: found.address?.as_sockaddr_in()?.ip(),
            prefix: mask.to_bits().count_ones(),
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        static MACHINE: RefCell<(usize, Vec<Ipv4Addr>)> = const { RefCell::new((0, Vec::new())) };
    }

    fn machine_has(last: &[u8]) {
        let all = last.iter().map(|it| Ipv4Addr::new(192, 0, 2, *it));
        MACHINE.with_borrow_mut(|machine| machine.1 = all.collect());
    }

    fn looks() -> usize {
        MACHINE.with_borrow(|machine| machine.0)
    }

    fn addresses() -> Addresses {
        Addresses::seen_by(|| {
            MACHINE.with_borrow_mut(|(looks, all)| {
                *looks += 1;
                let address = |ip: &Ipv4Addr| Address {
                    interface: "eth0".into(),
                    ip: *ip,
                    prefix: 24,
                };
                all.iter().map(address).collect()
            })
        })
    }

    /// As if so much time had gone by.
    fn age(addresses: &Addresses, by: Duration) {
        let mut known = addresses.lock();
        let (at, _) = known.as_mut().unwrap();
        *at = at.checked_sub(by).unwrap();
    }

    const ONE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const TWO: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    #[test]
    fn many_frames_cost_one_look() {
        machine_has(&[1]);
        let addresses = addresses();
        for _ in 0..1_000 {
            assert!(addresses.is_own(ONE));
            let own = addresses.of_interface("eth0").map(|(_, text)| text);
            assert_eq!(own.as_deref(), Some("192.0.2.1/24"));
        }
        assert_eq!(looks(), 1);
        assert!(addresses.of_interface("eth1").is_none());
    }

    #[test]
    fn a_new_address_is_seen_at_once_and_one_that_went_after_a_while() {
        machine_has(&[1]);
        let addresses = addresses();
        assert!(addresses.is_own(ONE));
        machine_has(&[2]);
        assert!(addresses.is_own(ONE), "it is believed for a while");
        assert!(addresses.is_own(TWO));
        assert!(!addresses.is_own(ONE), "and asked for before a no");
        assert_eq!(addresses.of_interface("eth0").map(|it| it.0), Some(TWO));
        machine_has(&[1]);
        age(&addresses, BELIEVED + Duration::from_millis(1));
        assert!(!addresses.is_own(TWO));
        assert_eq!(addresses.of_interface("eth0").map(|it| it.0), Some(ONE));
    }

    #[test]
    fn this_machine_has_its_loopback() {
        let addresses = Addresses::new();
        let own = addresses.of_interface("lo").map(|(_, text)| text);
        assert_eq!(own.as_deref(), Some("127.0.0.1/8"));
        assert!(addresses.is_own(Ipv4Addr::LOCALHOST));
        assert!(!addresses.is_own(Ipv4Addr::new(192, 0, 2, 254)));
    }
}
