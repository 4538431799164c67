//! What was accepted and waits for a reactor.
//!
//! It is bounded. Beyond the bound the oldest datagram makes room: whoever sent it has asked again or given up before whoever sent the newest. A message of a
//! connection never goes lost; its connection waits for room instead, and so is slowed down.
//!
//! The one idea: a queue that is closed takes nothing more and still gives all it holds.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

use super::Arrived;

/// Datagrams that wait, and as many messages of connections.
const MOST: usize = 8192;

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    came: Notify,
    /// For messages of connections.
    room: Semaphore,
}

#[derive(Default)]
struct Waiting {
    datagrams: VecDeque<Arrived>,
    messages: VecDeque<Arrived>,
    closed: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            came: Notify::new(),
            room: Semaphore::new(MOST),
        }
    }

    /// Puts a datagram last. True: one was dropped for it, or it came too late.
    pub(super) fn put(&self, datagram: Arrived) -> bool {
        let mut waiting = self.lock();
        if waiting.closed {
            return true;
        }
        let full = waiting.datagrams.len() >= MOST;
        if full {
            waiting.datagrams.pop_front();
        }
        waiting.datagrams.push_back(datagram);
        drop(waiting);
        self.came.notify_one();
        full
    }

    /// Puts a message of a connection last, once there is room. False: the queue is closed.
    pub(super) async fn put_when_there_is_room(&self, message: Arrived) -> bool {
        // Given back when the message is taken.
        let Ok(place) = self.room.acquire().await else {
            return false;
        };
        let mut waiting = self.lock();
        if waiting.closed {
            return false;
        }
        place.forget();
        waiting.messages.push_back(message);
        drop(waiting);
        self.came.notify_one();
        true
    }

    /// Takes those that came first, at most so many, as soon as there are any: connections' messages have half of the places if both wait. False: the
    /// queue is closed, and nothing is left.
    pub(super) async fn take(&self, into: &mut Vec<Arrived>, most: usize) -> bool {
        loop {
            let came = self.came.notified();
            {
                let mut waiting = self.lock();
                let Waiting {
                    datagrams,
                    messages,
                    closed,
                } = &mut *waiting;
                let of_messages = messages
                    .len()
                    .min((most / 2).max(most.saturating_sub(datagrams.len())));
                let of_datagrams = datagrams.len().min(most - of_messages);
                into.extend(messages.drain(..of_messages));
                into.extend(datagrams.drain(..of_datagrams));
                self.room.add_permits(of_messages);
                if of_messages + of_datagrams > 0 {
                    return true;
                }
                if *closed {
                    return false;
                }
            }
            came.await;
        }
    }

    /// Takes nothing more from now on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.came.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::matchers::socket::Transport;
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    fn arrived(transport: Transport, number: usize) -> Arrived {
        let address = SocketAddr::from(([127, 0, 0, 1], 53));
        Arrived {
            slot: "s".into(),
            transport,
            peer: address,
            local: address,
            port: None,
            bytes: number.to_be_bytes().to_vec(),
            at: Instant::now(),
            turn: None,
        }
    }

    fn numbers(of: &[Arrived]) -> Vec<usize> {
        of.iter()
            .map(|it| usize::from_be_bytes(it.bytes.as_slice().try_into().unwrap()))
            .collect()
    }

    #[tokio::test]
    async fn the_oldest_datagram_makes_room() {
        let queue = Queue::new();
        let dropped = (0..MOST + 3).filter(|&it| queue.put(arrived(Transport::Udp, it)));
        assert_eq!(dropped.count(), 3);
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken, 2).await);
        assert_eq!(numbers(&taken), [3, 4]);
    }

    #[tokio::test]
    async fn a_closed_queue_gives_what_it_holds() {
        let queue = Queue::new();
        assert!(!queue.put(arrived(Transport::Udp, 1)));
        queue.close();
        assert!(queue.put(arrived(Transport::Udp, 2)), "too late");
        assert!(
            !queue
                .put_when_there_is_room(arrived(Transport::Tcp, 3))
                .await
        );
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken, 8).await);
        assert_eq!(numbers(&taken), [1]);
        assert!(!queue.take(&mut taken, 8).await);
    }

    #[tokio::test]
    async fn connections_wait_for_room_and_are_not_passed_over() {
        let queue = Queue::new();
        for number in 0..MOST {
            assert!(
                queue
                    .put_when_there_is_room(arrived(Transport::Tcp, number))
                    .await
            );
            queue.put(arrived(Transport::Udp, number));
        }
        let beyond = queue.put_when_there_is_room(arrived(Transport::Tcp, MOST));
        let waited = tokio::time::timeout(Duration::from_millis(20), beyond).await;
        assert!(waited.is_err(), "there was room");
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken, 8).await);
        assert_eq!(numbers(&taken), [0, 1, 2, 3, 0, 1, 2, 3]);
        assert!(
            queue
                .put_when_there_is_room(arrived(Transport::Tcp, MOST))
                .await
        );
    }

    #[tokio::test]
    async fn whoever_takes_is_woken() {
        let queue = std::sync::Arc::new(Queue::new());
        let taking = tokio::spawn({
            let queue = queue.clone();
            async move {
                let mut taken = Vec::new();
                queue.take(&mut taken, 8).await.then(|| numbers(&taken))
            }
        });
        tokio::task::yield_now().await;
        queue.put(arrived(Transport::Udp, 7));
        assert_eq!(taking.await.unwrap(), Some(vec![7]));
    }
}
