//! The connections of one listener: how many, of whom, and which to give up when there are too many.
//!
//! It refuses a new connection only if every open one is at work. Otherwise the one that has waited longest for its client (a head, a body, or
//! room to send) makes place, so any number of slow or silent clients cannot keep out one that speaks.
//!
//! The one idea: a connection is a [`Place`] whose single atomic word says "at work" or "waiting for the client since".

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// The place is at work for its client: not to be disturbed.
const AT_WORK: u64 = 0;
/// The place was given to another connection.
const EVICTED: u64 = u64::MAX;

/// All places of a listener.
pub(super) struct Connections {
    limit: usize,
    limit_per_address: usize,
    began: Instant,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    places: HashMap<u64, Arc<Place>>,
    of_address: HashMap<IpAddr, usize>,
}

/// One connection's place.
pub(super) struct Place {
    address: IpAddr,
    began: Instant,
    /// `AT_WORK`, `EVICTED`, or one more than the microseconds from `began` to when waiting began.
    state: AtomicU64,
    evicted: CancellationToken,
    refused: AtomicBool,
}

/// Holds a place until dropped.
pub(super) struct Lease {
    connections: Arc<Connections>,
    id: u64,
    place: Arc<Place>,
}

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Listener,
    Address,
}

impl Connections {
    pub(super) fn new(limit: usize, limit_per_address: usize) -> Arc<Self> {
        let open = Mutex::new(Open::default());
        Arc::new(Self {
            limit: limit.max(1),
            limit_per_address: limit_per_address.max(1),
            began: Instant::now(),
            open,
        })
    }

    /// A place for a connection from `address`, perhaps at the cost of one that waits. `counted`: the limit an address has holds for it.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, counted: bool) -> Result<Lease, Full> {
        let mut open = self.lock();
        let of_address = open.of_address.get(&address).copied().unwrap_or(0);
        if counted
            && of_address >= self.limit_per_address
            && !open.evict_longest_waiting(|place| place.address == address)
        {
            return Err(Full::Address);
        }
        if open.places.len() >= self.limit && !open.evict_longest_waiting(|_| true) {
            return Err(Full::Listener);
        }
        let place = Arc::new(Place {
            address,
            began: self.began,
            state: AtomicU64::new(AT_WORK),
            evicted: CancellationToken::new(),
            refused: AtomicBool::new(false),
        });
        place.waits();
        let id = open.next;
        open.next = open.next.wrapping_add(1);
        open.places.insert(id, place.clone());
        let count = open.of_address.entry(address).or_default();
        *count = count.saturating_add(1);
        drop(open);
        Ok(Lease {
            connections: self.clone(),
            id,
            place,
        })
    }

    /// How many connections are open.
    pub(super) fn count(&self) -> usize {
        self.lock().places.len()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn evict_longest_waiting(&mut self, eligible: impl Fn(&Place) -> bool) -> bool {
        loop {
            let waiting = self.places.iter().filter(|(_, place)| eligible(place));
            let waiting = waiting.filter_map(|(id, place)| Some((place.waiting_since()?, *id)));
            let Some((since, id)) = waiting.min() else {
                return false;
            };
            let Some(place) = self.places.get(&id) else {
                return false;
            };
            // Lost only if the client spoke this very moment: look again.
            if place
                .state
                .compare_exchange(since, EVICTED, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                place.evicted.cancel();
                self.remove(id);
                return true;
            }
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(place) = self.places.remove(&id) else {
            return;
        };
        let left = self
            .of_address
            .get(&place.address)
            .map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            self.of_address.remove(&place.address);
        } else {
            self.of_address.insert(place.address, left);
        }
    }
}

impl Place {
    /// From now on the connection waits for its client. Changes nothing if it waits already.
    pub(super) fn waits(&self) {
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX / 2);
        let since = micros.saturating_add(1);
        let _ = self
            .state
            .compare_exchange(AT_WORK, since, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The client made progress, or the host works for it. False: too late, the place was given away.
    pub(super) fn works(&self) -> bool {
        let unless_evicted = |old| if old == EVICTED { None } else { Some(AT_WORK) };
        self.state
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, unless_evicted)
            .is_ok()
    }

    /// Remembers that the client sent something that is no request.
    pub(super) fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether the client sent something that is no request.
    pub(super) fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Ends when the place is given away.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    fn waiting_since(&self) -> Option<u64> {
        let state = self.state.load(Ordering::Acquire);
        (state != AT_WORK && state != EVICTED).then_some(state)
    }
}

impl Lease {
    pub(super) fn place(&self) -> &Arc<Place> {
        &self.place
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connections.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_evicted(lease: &Lease) -> bool {
        lease.place().evicted().now_or_never().is_some()
    }

    #[test]
    fn the_longest_waiting_makes_place() {
        let connections = Connections::new(3, 3);
        let first = connections.enter(address(1), true).unwrap();
        let second = connections.enter(address(2), true).unwrap();
        let third = connections.enter(address(3), true).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(first.place().works());
        first.place().waits();
        let _fourth = connections.enter(address(4), true).unwrap();
        assert!(is_evicted(&second) && !is_evicted(&first) && !is_evicted(&third));
        assert!(
            !second.place().works(),
            "an evicted connection is told so when its head is complete"
        );
        assert_eq!(connections.count(), 3);
        drop(second);
        assert_eq!(connections.count(), 3, "a place is given back once");
    }

    #[test]
    fn connections_at_work_are_not_disturbed() {
        let connections = Connections::new(2, 2);
        let leases = [1, 2].map(|last| connections.enter(address(last), true).unwrap());
        assert!(leases.iter().all(|lease| lease.place().works()));
        assert_eq!(
            connections.enter(address(3), true).err(),
            Some(Full::Listener)
        );
        drop(leases);
        assert!(connections.enter(address(3), true).is_ok());
    }

    #[test]
    fn one_address_takes_places_only_from_itself() {
        let connections = Connections::new(10, 2);
        let other = connections.enter(address(9), true).unwrap();
        let first = connections.enter(address(1), true).unwrap();
        let _second = connections.enter(address(1), true).unwrap();
        let _third = connections.enter(address(1), true).unwrap();
        assert!(is_evicted(&first) && !is_evicted(&other));
        let fronts: Vec<Lease> = (0..5)
            .map(|_| connections.enter(address(7), false).unwrap())
            .collect();
        assert!(
            fronts.iter().all(|lease| !is_evicted(lease)),
            "fronts are not counted by address"
        );
    }

    #[test]
    fn nothing_is_left_when_all_are_gone() {
        let connections = Connections::new(10, 10);
        drop(
            (0..10)
                .map(|last| connections.enter(address(last), true).unwrap())
                .collect::<Vec<_>>(),
        );
        assert_eq!(connections.count(), 0);
        assert!(connections.lock().of_address.is_empty());
    }
}
