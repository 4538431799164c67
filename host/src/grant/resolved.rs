//! Which addresses the host resolved for which names, and for how long that holds.
//!
//! A socket rule with a name means: the plugin may resolve it, and may connect to what the *host* resolved for it, until
//! the answer's time to live is over. An address a plugin made up, or kept too long, is on no list.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// An answer stays usable at least so long: a plugin must be able to connect after it looked up (TTL 0 is common).
pub const SHORTEST: Duration = Duration::from_secs(30);
/// And at most so long, whatever the answer says.
pub const LONGEST: Duration = Duration::from_secs(3600);
/// Addresses on record for one plugin. A plugin that looks up more loses the ones that end first.
const MOST_ADDRESSES: usize = 4096;
/// Names on record for one address (virtual hosts share addresses).
const MOST_NAMES: usize = 16;

/// The record of one plugin.
#[derive(Debug, Default)]
pub struct Resolved {
    addresses: RwLock<HashMap<IpAddr, Vec<Answer>>>,
}

#[derive(Debug)]
struct Answer {
    name: Box<str>,
    until: Instant,
}

impl Resolved {
    /// Records what a name in its one form (lower case, no trailing dot) resolved to.
    pub fn record(&self, name: &str, addresses: &[IpAddr], ttl: Duration, now: Instant) {
        let until = now + ttl.clamp(SHORTEST, LONGEST);
        let mut table = self
            .addresses
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for ip in addresses {
            let ip = ip.to_canonical();
            if table.len() >= MOST_ADDRESSES && !table.contains_key(&ip) {
                make_room(&mut table, now);
            }
            let answers = table.entry(ip).or_default();
            answers.retain(|answer| answer.until > now && *answer.name != *name);
            if answers.len() >= MOST_NAMES {
                answers.remove(0);
            }
            answers.push(Answer {
                name: name.into(),
                until,
            });
        }
    }

    /// Whether any name on record for the address satisfies a test.
    pub fn any_name(&self, ip: IpAddr, now: Instant, mut test: impl FnMut(&str) -> bool) -> bool {
        let table = self
            .addresses
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        table.get(&ip.to_canonical()).is_some_and(|answers| {
            answers
                .iter()
                .any(|answer| answer.until > now && test(&answer.name))
        })
    }

    /// The names on record for an address.
    pub fn names(&self, ip: IpAddr, now: Instant) -> Vec<Box<str>> {
        let table = self
            .addresses
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let answers = table
            .get(&ip.to_canonical())
            .map(Vec::as_slice)
            .unwrap_or_default();
        answers
            .iter()
            .filter(|answer| answer.until > now)
            .map(|answer| answer.name.clone())
            .collect()
    }
}

/// Drops what has ended, or else the address that ends first.
fn make_room(table: &mut HashMap<IpAddr, Vec<Answer>>, now: Instant) {
    table.retain(|_, answers| {
        answers.retain(|answer| answer.until > now);
        !answers.is_empty()
    });
    if table.len() >= MOST_ADDRESSES {
        let end = |answers: &[Answer]| answers.iter().map(|answer| answer.until).max();
        if let Some(first) = table
            .iter()
            .min_by_key(|(_, answers)| end(answers))
            .map(|(ip, _)| *ip)
        {
            table.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_time_to_live() {
        let table = Resolved::default();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let now = Instant::now();
        table.record("ns.example.com", &[ip], Duration::from_secs(60), now);
        let known = |after| {
            table.any_name(ip, now + Duration::from_secs(after), |name| {
                name == "ns.example.com"
            })
        };
        assert!(known(59));
        assert!(!known(60));
        assert!(table.any_name("::ffff:192.0.2.1".parse().unwrap(), now, |_| true));
    }

    #[test]
    fn the_record_is_bounded() {
        let table = Resolved::default();
        let now = Instant::now();
        for n in 0..(MOST_ADDRESSES as u32 + 100) {
            let ip = IpAddr::from(n.to_be_bytes());
            table.record("x", &[ip], Duration::from_secs(60), now);
        }
        assert_eq!(table.addresses.read().unwrap().len(), MOST_ADDRESSES);
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        for n in 0..100 {
            table.record(&format!("n{n}"), &[ip], Duration::from_secs(60), now);
        }
        assert!(table.any_name(ip, now, |name| name == "n99"));
        assert!(!table.any_name(ip, now, |name| name == "n0"));
    }
}
