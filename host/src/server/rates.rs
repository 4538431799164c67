//! How often one client may ask, of routes that are not Foreman's.
//!
//! It refuses what comes faster than an address may ask for long, once its burst is used up. Foreman's routes are not counted: whoever calls
//! those was verified. It is no defence against many addresses; the lines (`sandbox/line.rs`) are.
//!
//! The one idea: of each address one moment is kept, the one at which its burst will be whole again. A request moves it by the time one request
//! earns; who would move it further than the burst reaches is too early. An address whose moment has passed needs no entry.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::sandbox::line::client_of;

/// Addresses known at a time. Each request keeps an address known for as long as it takes to earn one, so with the defaults that many
/// are known at 6 million requests a second; beyond it new addresses are not counted, since so many are no single client.
const MOST_KNOWN: usize = 1 << 16;

/// The first look for addresses that need no entry any more, at so many.
const FIRST_SWEEP: usize = 1024;

/// Between two of those looks: one takes a millisecond when all that may be known are.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// The longest time after which one is asked to come back: longer looks like an outage.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The requests of a listener's clients.
pub(super) struct Rates {
    /// What one request costs: the time in which an address earns one.
    cost: Duration,
    /// What an address may owe.
    burst: Duration,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// When the burst of each will be whole again.
    whole: HashMap<IpAddr, Instant>,
    /// Sweep when there are so many.
    sweep_at: usize,
    swept: Option<Instant>,
}

impl Rates {
    /// `rate`: requests a second for long; `burst`: requests at once. Both from 1.
    pub(super) fn new(rate: usize, burst: usize) -> Self {
        let count = |number: usize| u32::try_from(number.max(1)).unwrap_or(u32::MAX);
        let cost = Duration::from_secs(1) / count(rate);
        Self {
            cost,
            burst: cost.saturating_mul(count(burst)),
            known: Mutex::default(),
        }
    }

    /// A request of this address arrived. The error: when those that were turned away may come again. That is when half a burst is
    /// earned, since many machines may stand behind an address.
    pub(super) fn charge(&self, address: IpAddr) -> Result<(), Duration> {
        self.charge_at(address, Instant::now())
            .map_err(|early| early.max(self.burst / 2).min(LONGEST_WAIT))
    }

    fn charge_at(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let address = client_of(address);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = known.whole.get(&address).copied().unwrap_or(now).max(now);
        let after = whole + self.cost;
        if let Some(early) = after
            .duration_since(now)
            .checked_sub(self.burst)
            .filter(|early| !early.is_zero())
        {
            return Err(early);
        }
        known.remember(address, after, now);
        Ok(())
    }
}

impl Known {
    fn remember(&mut self, address: IpAddr, whole: Instant, now: Instant) {
        if let Some(moment) = self.whole.get_mut(&address) {
            *moment = whole;
            return;
        }
        if self.whole.len() >= self.sweep_at.max(FIRST_SWEEP)
            && self.swept.is_none_or(|last| now >= last + SWEEP_PAUSE)
        {
            self.whole.retain(|_, whole| *whole > now);
            self.sweep_at = self.whole.len().saturating_mul(2).min(MOST_KNOWN);
            self.swept = Some(now);
        }
        if self.whole.len() < MOST_KNOWN {
            self.whole.insert(address, whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_address_has_its_burst_and_then_its_rate() {
        let rates = Rates::new(10, 5);
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(rates.charge_at(address(1), start), Ok(()));
        }
        let early = rates.charge_at(address(1), start).unwrap_err();
        assert_eq!(early, Duration::from_millis(100));
        assert_eq!(rates.charge_at(address(1), start + early), Ok(()));
        assert!(rates.charge_at(address(1), start + early).is_err());
        // Who is turned away is not punished for asking.
        for _ in 0..100 {
            let _ = rates.charge_at(address(1), start + early);
        }
        assert_eq!(rates.charge_at(address(1), start + 2 * early), Ok(()));
        let later = start + Duration::from_secs(60);
        let again = (0..100)
            .take_while(|_| rates.charge_at(address(1), later).is_ok())
            .count();
        assert_eq!(again, 5, "a burst does not grow beyond itself");
    }

    #[test]
    fn one_address_costs_another_nothing() {
        let rates = Rates::new(1, 1);
        let now = Instant::now();
        while rates.charge_at(address(1), now).is_ok() {}
        assert_eq!(rates.charge_at(address(2), now), Ok(()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let rates = Rates::new(1, 2);
        let now = Instant::now();
        let charge = |text: &str| rates.charge_at(text.parse().unwrap(), now);
        assert!(charge("2001:db8::1").is_ok() && charge("2001:db8::2").is_ok());
        assert!(charge("2001:db8::3").is_err());
        assert!(charge("2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn addresses_are_forgotten_when_their_burst_is_whole_again() {
        let rates = Rates::new(1000, 10);
        let start = Instant::now();
        for number in 0..200_000_u32 {
            let now = start + Duration::from_micros(100) * number;
            let _ = rates.charge_at(IpAddr::from(number.to_be_bytes()), now);
        }
        // Those of a second, at the pace of this test.
        assert!(rates.known.lock().unwrap().whole.len() <= 20_000);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let rates = Rates::new(1, 10);
        let now = Instant::now();
        for number in 0..2 * u32::try_from(MOST_KNOWN).unwrap() {
            assert!(
                rates
                    .charge_at(IpAddr::from(number.to_be_bytes()), now)
                    .is_ok()
            );
        }
        assert_eq!(rates.known.lock().unwrap().whole.len(), MOST_KNOWN);
    }
}
