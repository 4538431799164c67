//! Who waits for a place, and whose turn it is.
//!
//! It refuses who comes when as many wait as may; if another client has more waiting than this one would have, the last of those is refused
//! instead. Who gives up waiting leaves at once and takes nobody's place.
//!
//! The one idea: each client has a line of its own, and the lines are served in turn. One machine that asks a thousand times delays
//! another by one turn, not by a thousand, and cannot keep it out of a full line.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// The shortest and the longest time after which one is asked to come back: shorter brings back a crowd, longer looks like an outage.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// How often a request is handed from task to task while it holds a place: sent, answered, given back.
const HANDED_ON: u32 = 3;

/// So many of the last uses of a place are remembered.
const REMEMBERED: usize = 64;

/// The address that stands for a client: of IPv6 that of its network of 64 bits, from which a single machine may take any.
pub(crate) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

/// As many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// A number of places, and who waits for one.
#[derive(Debug)]
pub(crate) struct Line {
    places: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: usize,
    waiting: usize,
    next_ticket: u64,
    /// By client; those without an address (the plugin asks by itself) are one client. Never an empty one.
    lines: HashMap<Option<IpAddr>, VecDeque<(u64, oneshot::Sender<Permit>)>>,
    /// Those who were admitted before and come back for the rest: they are served first, and sent away by nobody.
    again: VecDeque<(u64, oneshot::Sender<Permit>)>,
    /// Whose turn it is; each client of `lines` once.
    turns: VecDeque<Option<IpAddr>>,
    /// How long places were held lately, oldest first.
    held: VecDeque<Duration>,
}

/// The right to a place until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    line: Option<Arc<Line>>,
    since: Instant,
    /// How long it took until its task ran, once it was its turn.
    delay: Duration,
    /// Nothing was done with it, so it says nothing about how long places are held.
    unused: bool,
}

/// One that waits; leaves the line when dropped.
struct Waiting<'a> {
    line: &'a Line,
    client: Option<IpAddr>,
    ticket: u64,
}

impl Line {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        let places = places.max(1);
        Arc::new(Self {
            places,
            state: Mutex::new(State {
                free: places,
                ..State::default()
            }),
        })
    }

    /// Waits for this client's turn. `limit`: how many may wait, of all clients together.
    pub(crate) async fn turn(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        limit: usize,
    ) -> Result<Permit, Full> {
        let (receiver, _waiting) = {
            let client = client.map(client_of);
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Ok(self.permit());
            }
            if state.waiting >= limit && !state.displace(client) {
                return Err(Full);
            }
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.waiting += 1;
            let (sender, receiver) = oneshot::channel();
            let line = state.lines.entry(client).or_default();
            line.push_back((ticket, sender));
            if line.len() == 1 {
                state.turns.push_back(client);
            }
            let waiting = Waiting {
                line: self,
                client,
                ticket,
            };
            (receiver, waiting)
        };
        // The sender is dropped by whoever was let in instead.
        receiver.await.map(Permit::taken_up).map_err(|_| Full)
    }

    /// Waits for the turn of somebody who was admitted before: what was begun is ended first, and never refused.
    pub(crate) async fn turn_again(self: &Arc<Self>) -> Permit {
        let (receiver, _waiting) = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return self.permit();
            }
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            let (sender, receiver) = oneshot::channel();
            state.again.push_back((ticket, sender));
            let waiting = Waiting {
                line: self,
                client: None,
                ticket,
            };
            (receiver, waiting)
        };
        match receiver.await {
            Ok(permit) => permit.taken_up(),
            // Nobody drops those senders while their line is there.
            Err(_) => std::future::pending().await,
        }
    }

    /// How many wait now.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.state();
        state.waiting + state.again.len()
    }

    /// How long it takes until those who wait now have been served. A crowd that comes at once makes this machine slow for a moment, and every
    /// place seems to be held long; so the time until tasks run is taken off, and the quicker quarter of the last uses counts.
    pub(crate) fn retry_after(&self) -> Duration {
        let state = self.state();
        let mut held: Vec<Duration> = state.held.iter().copied().collect();
        held.sort_unstable();
        let held = held.get(held.len() / 4).copied().unwrap_or_default();
        let turns = u32::try_from(state.waiting / self.places).unwrap_or(u32::MAX);
        held.saturating_mul(turns).clamp(RETRY.0, RETRY.1)
    }

    fn permit(self: &Arc<Self>) -> Permit {
        Permit {
            line: Some(self.clone()),
            since: Instant::now(),
            delay: Duration::ZERO,
            unused: false,
        }
    }

    /// Hands a place to the next, or keeps it. `held`: how long it was used, if it was.
    fn release(self: &Arc<Self>, held: Option<Duration>) {
        if let Some(held) = held {
            self.state().note(held);
        }
        loop {
            let next = {
                let mut state = self.state();
                let next = state.next();
                state.free += usize::from(next.is_none());
                next
            };
            match next.map(|sender| sender.send(self.permit())) {
                None | Some(Ok(())) => return,
                // It went away just now: the place is the next one's.
                Some(Err(mut permit)) => permit.line = None,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        if let Some((_, sender)) = self.again.pop_front() {
            return Some(sender);
        }
        let client = self.turns.pop_front()?;
        let line = self.lines.get_mut(&client)?;
        let (_, sender) = line.pop_front()?;
        self.waiting -= 1;
        if line.is_empty() {
            self.lines.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        Some(sender)
    }

    /// Sends away the last of the client that has most waiting, if that is more than this one would have.
    fn displace(&mut self, client: Option<IpAddr>) -> bool {
        let own = self.lines.get(&client).map_or(0, VecDeque::len);
        let longest = self.lines.values_mut().max_by_key(|line| line.len());
        let Some(longest) = longest.filter(|line| line.len() > own + 1) else {
            return false;
        };
        // At least one is left, so the line keeps its turn.
        longest.pop_back();
        self.waiting -= 1;
        true
    }

    fn note(&mut self, held: Duration) {
        if self.held.len() == REMEMBERED {
            self.held.pop_front();
        }
        self.held.push_back(held);
    }
}

impl Permit {
    /// Its task runs.
    fn taken_up(mut self) -> Self {
        self.delay = self.since.elapsed();
        self.since = Instant::now();
        self
    }

    /// Gives the place back without having done anything with it.
    pub(crate) fn unused(mut self) {
        self.unused = true;
        drop(self);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.line.state();
        state.again.retain(|(ticket, _)| *ticket != self.ticket);
        let Some(line) = state.lines.get_mut(&self.client) else {
            return;
        };
        let before = line.len();
        line.retain(|(ticket, _)| *ticket != self.ticket);
        let (left, gone) = (line.len(), before - line.len());
        state.waiting -= gone;
        if left == 0 {
            state.lines.remove(&self.client);
            state.turns.retain(|client| *client != self.client);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            let held = self.since.elapsed();
            line.release((!self.unused).then(|| held.saturating_sub(self.delay * HANDED_ON)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex as Order;

    fn client(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn clients_are_served_in_turn_however_often_one_asks() {
        let line = Line::new(1);
        let first = line.turn(None, 0).await.unwrap();
        let order: Arc<Order<Vec<u8>>> = Arc::default();
        let mut tasks = Vec::new();
        for asker in [1, 1, 1, 1, 2, 3] {
            let (line, order) = (line.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let _permit = line.turn(client(asker), 10).await.unwrap();
                order.lock().unwrap().push(asker);
            }));
            settle().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [1, 2, 3, 1, 1, 1]);
    }

    #[tokio::test]
    async fn no_more_have_a_place_than_there_are_and_no_more_wait_than_may() {
        let line = Line::new(2);
        let (_one, two) = (
            line.turn(None, 1).await.unwrap(),
            line.turn(None, 1).await.unwrap(),
        );
        let waiting = tokio::spawn({
            let line = line.clone();
            async move { line.turn(client(1), 1).await }
        });
        settle().await;
        assert_eq!(line.turn(client(2), 1).await.unwrap_err(), Full);
        drop(two);
        assert!(waiting.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_full_line_has_room_for_who_has_less_waiting_than_another() {
        let line = Line::new(1);
        let held = line.turn(None, 0).await.unwrap();
        let wait = |asker| {
            let line = line.clone();
            // A place is given back at once.
            tokio::spawn(async move { line.turn(client(asker), 4).await.map(drop) })
        };
        let mut greedy = Vec::new();
        for _ in 0..4 {
            greedy.push(wait(1));
            settle().await;
        }
        let polite = [wait(2), wait(3)];
        settle().await;
        // Two of each, or one and one: nobody has more waiting than another would.
        assert_eq!(line.turn(client(1), 4).await.unwrap_err(), Full);
        assert_eq!(line.turn(client(2), 4).await.unwrap_err(), Full);
        drop(held);
        for one in polite {
            assert!(one.await.unwrap().is_ok());
        }
        let mut served = 0;
        for one in greedy {
            served += usize::from(one.await.unwrap().is_ok());
        }
        assert_eq!(served, 2, "the two that came first");
        assert_eq!(line.waiting(), 0);
    }

    #[tokio::test]
    async fn what_was_begun_is_ended_first_and_never_refused() {
        let line = Line::new(1);
        let held = line.turn(None, 0).await.unwrap();
        let order: Arc<Order<Vec<&str>>> = Arc::default();
        let first = tokio::spawn({
            let (line, order) = (line.clone(), order.clone());
            async move {
                let _permit = line.turn(client(1), 1).await.unwrap();
                order.lock().unwrap().push("new");
            }
        });
        settle().await;
        let again = tokio::spawn({
            let (line, order) = (line.clone(), order.clone());
            async move {
                let _permit = line.turn_again().await;
                order.lock().unwrap().push("begun");
            }
        });
        let gone = tokio::spawn({
            let line = line.clone();
            async move { line.turn_again().await }
        });
        settle().await;
        gone.abort();
        let _ = gone.await;
        drop(held);
        again.await.unwrap();
        first.await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["begun", "new"]);
        assert!(line.state().again.is_empty() && line.turn(None, 0).await.is_ok());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let of = |text: &str| client_of(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[tokio::test]
    async fn who_gives_up_leaves_nothing_behind() {
        let line = Line::new(1);
        let held = line.turn(None, 0).await.unwrap();
        for _ in 0..100 {
            let waiting = tokio::spawn({
                let line = line.clone();
                async move { line.turn(client(1), 1).await }
            });
            settle().await;
            waiting.abort();
            let _ = waiting.await;
        }
        {
            let state = line.state();
            assert_eq!(state.waiting, 0);
            assert!(state.lines.is_empty() && state.turns.is_empty());
        }
        drop(held);
        assert!(line.turn(client(2), 0).await.is_ok());
    }

    #[tokio::test]
    async fn a_place_that_was_not_used_is_the_next_ones_and_says_nothing() {
        let line = Line::new(1);
        line.turn(None, 0).await.unwrap().unused();
        assert!(line.state().held.is_empty());
        drop(line.turn(None, 0).await.unwrap());
        assert_eq!(line.state().held.len(), 1);
    }

    #[tokio::test]
    async fn a_longer_line_is_asked_to_come_back_later() {
        let line = Line::new(1);
        assert_eq!(line.retry_after(), RETRY.0);
        line.state().note(Duration::from_secs(3));
        line.state().waiting = 10;
        assert_eq!(line.retry_after(), Duration::from_secs(30));
        line.state().waiting = 10_000;
        assert_eq!(line.retry_after(), RETRY.1);
        // Slow for a moment is not slow.
        line.state().waiting = 10;
        for _ in 0..2 {
            line.state().note(Duration::from_secs(50));
        }
        assert_eq!(line.retry_after(), Duration::from_secs(30));
        for _ in 0..REMEMBERED {
            line.state().note(Duration::from_secs(5));
        }
        assert_eq!(line.retry_after(), Duration::from_secs(50));
        assert_eq!(line.state().held.len(), REMEMBERED);
    }
}
