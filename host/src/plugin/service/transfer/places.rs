//! How many transfers run, and which request began which.
//!
//! It refuses a transfer beyond the policy's number, and a second one for a request that was only said again: a client whose first block is late repeats
//! itself, and shall not get the file twice. It refuses nothing else: the same client may ask for another file, or for the same once more. Nor may
//! clients that say nothing keep the others out: they name the time-out themselves, half an hour with repetitions, so where all places are taken one of
//! theirs is taken back.
//!
//! The one idea: a transfer holds its [`Place`], so that however it ends, its place is free and its request may come again.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::sandbox::bindings::exports::reactor::Transfer;
use crate::telemetry::metrics::PluginMetrics;

/// After so long without an acknowledgement a transfer's place may be taken back: several blocks in a row are lost on no usable network.
const SILENT: Duration = Duration::from_secs(5);
/// Transfers looked at for one that is silent, so that a flood of requests costs a bounded time each.
const LOOKED_AT: usize = 64;

/// The places of a plugin's transfers.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Running>>);

#[derive(Default)]
struct Running {
    count: usize,
    begun: HashMap<Asked, Arc<Begun>>,
    /// All that run, those looked at longest ago first, and some that ended.
    queue: VecDeque<Weak<Begun>>,
}

/// What a client asked for. The component makes the same of the same request.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Asked {
    peer: SocketAddr,
    local: String,
    files: String,
    path: String,
    netascii: bool,
    options: Vec<(String, String)>,
}

/// The transfer that came of it.
struct Begun {
    at: Instant,
    /// After which a client may have thought that nobody heard it.
    wait: Duration,
    acknowledged: AtomicBool,
    /// When its client was heard last, in milliseconds since `at`.
    heard: AtomicU64,
    taken_back: Notify,
}

impl Begun {
    /// Whether the request, if it comes now, was said again for want of an answer. Otherwise the client began anew.
    fn is_repeated(&self) -> bool {
        !self.acknowledged.load(Ordering::Relaxed) || self.at.elapsed() < self.wait
    }

    fn is_silent(&self) -> bool {
        let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
        self.at.elapsed().saturating_sub(heard) >= SILENT
    }
}

impl Running {
    /// Takes a place back from a client that is silent. False: none was found.
    fn take_one_back(&mut self) -> bool {
        for _ in 0..LOOKED_AT.min(self.queue.len()) {
            let Some(looked_at) = self.queue.pop_front() else {
                return false;
            };
            match looked_at.upgrade() {
                Some(begun) if begun.is_silent() => {
                    begun.taken_back.notify_one();
                    return true;
                }
                Some(_) => self.queue.push_back(looked_at),
                None => {}
            }
        }
        false
    }
}

impl Places {
    /// A place for this transfer. `None`: there are `most` already, all with clients that say something, or the request is a repetition.
    pub(super) fn take(
        &self,
        peer: SocketAddr,
        transfer: &Transfer,
        most: usize,
        numbers: &Arc<PluginMetrics>,
    ) -> Option<Place> {
        let asked = Asked {
            peer,
            local: transfer.local.clone(),
            files: transfer.files.clone(),
            path: transfer.path.clone(),
            netascii: transfer.netascii,
            options: transfer.options.clone(),
        };
        let begun = Arc::new(Begun {
            at: Instant::now(),
            wait: Duration::from_millis(transfer.timeout.into()),
            acknowledged: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            taken_back: Notify::new(),
        });
        let mut running = self.lock();
        let repeated = running.begun.get(&asked).is_some_and(|it| it.is_repeated());
        // What is taken back ends by itself, a moment later than the new one begins.
        if repeated || (running.count >= most && !running.take_one_back()) {
            return None;
        }
        if running.queue.len() > 2 * running.count + LOOKED_AT {
            running.queue.retain(|it| it.strong_count() > 0);
        }
        running.queue.push_back(Arc::downgrade(&begun));
        running.count += 1;
        running.begun.insert(asked.clone(), begun.clone());
        numbers.transfers_running.inc();
        Some(Place {
            places: self.clone(),
            asked,
            begun,
            numbers: numbers.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One transfer's place; free when it is dropped.
pub(super) struct Place {
    places: Places,
    asked: Asked,
    begun: Arc<Begun>,
    numbers: Arc<PluginMetrics>,
}

impl Place {
    /// The client has heard of its transfer.
    pub(super) fn acknowledged(&self) {
        let now = u64::try_from(self.begun.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.begun.heard.store(now, Ordering::Relaxed);
        self.begun.acknowledged.store(true, Ordering::Relaxed);
    }

    /// Until somebody else is given the place, because this client says nothing.
    pub(super) async fn taken_back(&self) {
        self.begun.taken_back.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.places.lock();
        running.count = running.count.saturating_sub(1);
        // A later transfer of the same request stands there by itself.
        let own = running.begun.get(&self.asked);
        if own.is_some_and(|it| Arc::ptr_eq(it, &self.begun)) {
            running.begun.remove(&self.asked);
        }
        self.numbers.transfers_running.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn transfer(path: &str, timeout: u32) -> Transfer {
        Transfer {
            slot: "tftp".into(),
            peer: "192.0.2.9:2070".into(),
            local: "192.0.2.1:69".into(),
            files: "root".into(),
            path: path.into(),
            netascii: false,
            block_size: 512,
            window_size: 1,
            timeout,
            retries: 5,
            options: Vec::new(),
        }
    }

    struct Server {
        places: Places,
        numbers: Arc<PluginMetrics>,
        most: usize,
    }

    impl Server {
        fn of(most: usize) -> Self {
            Self {
                places: Places::default(),
                numbers: Metrics::new("test").plugin("t"),
                most,
            }
        }

        fn asked(&self, port: u16, path: &str, timeout: u32) -> Option<Place> {
            let peer = SocketAddr::from(([192, 0, 2, 9], port));
            let transfer = transfer(path, timeout);
            self.places.take(peer, &transfer, self.most, &self.numbers)
        }
    }

    #[test]
    fn a_place_is_free_however_its_transfer_ends() {
        let server = Server::of(1);
        let place = server.asked(1, "a", 1000).unwrap();
        assert!(server.asked(2, "a", 1000).is_none());
        assert_eq!(server.numbers.transfers_running.get(), 1);
        let ended = std::thread::spawn(move || {
            let _place = place;
            panic!("as a test of it");
        });
        assert!(ended.join().is_err());
        assert_eq!(server.numbers.transfers_running.get(), 0);
        assert!(server.asked(2, "a", 1000).is_some());
    }

    #[tokio::test]
    async fn where_all_places_are_taken_those_who_say_nothing_lose_theirs() {
        let server = Server::of(100);
        let silent: Vec<Place> = (0..100)
            .map(|port| server.asked(port, "a", 255_000).unwrap())
            .collect();
        assert!(server.asked(200, "a", 1000).is_none(), "they are new");
        tokio::time::sleep(SILENT + Duration::from_millis(50)).await;
        // This one was heard just now.
        silent[0].acknowledged();
        let others: Vec<Place> = (200..299)
            .map(|port| server.asked(port, "a", 1000).unwrap())
            .collect();
        for place in &silent[1..] {
            place.taken_back().await;
        }
        assert!(server.asked(300, "a", 1000).is_none());
        let moment = Duration::from_millis(50);
        for place in [&silent[0], &others[0]] {
            assert!(
                tokio::time::timeout(moment, place.taken_back())
                    .await
                    .is_err()
            );
        }
        drop((silent, others));
        assert_eq!(server.numbers.transfers_running.get(), 0);
        assert!(server.asked(301, "a", 1000).is_some());
    }

    #[test]
    fn a_request_that_found_no_place_may_come_again_at_once() {
        let server = Server::of(1);
        let place = server.asked(1, "a", 60_000).unwrap();
        assert!(server.asked(2, "b", 60_000).is_none());
        drop(place);
        assert!(server.asked(2, "b", 60_000).is_some());
    }

    #[test]
    fn a_request_said_again_begins_no_second_transfer() {
        let server = Server::of(10);
        let first = server.asked(1, "a", 60_000).unwrap();
        assert!(server.asked(1, "a", 60_000).is_none());
        // It may be on the way still when the first block has arrived.
        first.acknowledged();
        assert!(server.asked(1, "a", 60_000).is_none());
        // Another port, another file.
        assert!(server.asked(2, "a", 60_000).is_some());
        assert!(server.asked(1, "b", 60_000).is_some());
        // Who asks for a file again that it has got gets it again.
        drop(first);
        assert!(server.asked(1, "a", 60_000).is_some());
    }

    #[test]
    fn a_client_that_begins_anew_does_not_wait_for_its_old_transfer() {
        let server = Server::of(10);
        let old = server.asked(1, "a", 0).unwrap();
        assert!(server.asked(1, "a", 0).is_none(), "not acknowledged yet");
        old.acknowledged();
        let new = server.asked(1, "a", 60_000).unwrap();
        // The end of the old one takes nothing from the new one.
        drop(old);
        assert!(server.asked(1, "a", 60_000).is_none());
        drop(new);
        assert_eq!(server.numbers.transfers_running.get(), 0);
    }
}
