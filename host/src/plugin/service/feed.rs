//! The one task that calls a plugin's reactor: batches in order of arrival, one at a time.
//!
//! A batch whose call fails is lost (handing it over again would only repeat the crash); what waits behind it is not. A reactor that crashes again and again is
//! left alone for a while, and the operator is told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::Doors;
use super::queue::Queue;
use super::react::React;
use super::wake::{next, wake};
use crate::grant::matchers::socket::Transport;
use crate::plugin::running::Plugin;
use crate::sandbox::CallError;
use crate::sandbox::bindings::exports::reactor;
use crate::sandbox::events::Events;

/// Datagrams a call (`wit/lifecycle.wit`). A call may end in one commit, which on a slow disk takes ten milliseconds: as many as then have arrived at a
/// busy server shall go into the next.
const BATCH: usize = 256;

/// So many crashes within [`WINDOW`], and the reactor rests.
const CRASHES: usize = 5;
const WINDOW: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(10);
/// Between two looks for a new version while nothing happens.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at a reactor that is still starting.
const STARTING: Duration = Duration::from_millis(5);

/// Feeds until the queue is closed and empty, or it is aborted.
pub(super) async fn feed(
    plugin: Arc<ArcSwap<Plugin>>,
    doors: Arc<ArcSwap<Doors>>,
    queue: Arc<Queue>,
) {
    let mut react = React::default();
    let mut crashes = Crashes::default();
    let mut waiting = Vec::with_capacity(BATCH);
    let mut events = None;
    let mut woken: Option<Arc<Plugin>> = None;
    loop {
        let now = plugin.load_full();
        // A version has events of its own: it knows all from before by its `start`.
        if woken.as_ref().is_none_or(|it| !Arc::ptr_eq(it, &now)) {
            events = now.reactor.as_ref().and_then(Events::of);
            woken = Some(now);
        }
        tokio::select! {
            more = queue.take(&mut waiting, BATCH) => if !more {
                return;
            },
            happened = next(&mut events) => {
                if let (Some(plugin), Some(events)) = (&woken, &mut events)
                    && let Some(reactor) = &plugin.reactor
                {
                    wake(plugin, reactor, events, happened).await;
                }
            }
            () = tokio::time::sleep(LOOK) => continue,
        }
        // What came by a socket that is no longer granted, and not yet closed; and what nobody waits for any more.
        let came = waiting.len();
        let rights = plugin.load().guard.effective();
        waiting.retain(|arrived| arrived.is_granted(&rights) && arrived.is_awaited());
        let dropped = (came - waiting.len()) as u64;
        plugin.load().metrics.datagrams_dropped.inc_by(dropped);
        if waiting.is_empty() {
            continue;
        }
        let batch: Vec<_> = waiting.drain(..).map(|it| react.hear(it)).collect();
        let size = batch.len();
        let reactions = loop {
            let now = plugin.load_full();
            let Some(reactor) = &now.reactor else { return };
            match reactor.datagrams(batch.clone()).await {
                // Not called yet: the batch waits for the instance that is being started, or for a turn.
                Err(CallError::NotReady(_) | CallError::Busy { .. }) => {
                    tokio::time::sleep(STARTING).await;
                }
                called => break (now, called),
            }
        };
        match reactions {
            (plugin, Ok(reactions)) => react.to(&plugin, &doors.load(), reactions).await,
            (plugin, Err(error)) => {
                react.is_over();
                plugin.metrics.datagrams_dropped.inc_by(size as u64);
                plugin.metrics.service_crashes.inc();
                tracing::error!(plugin = &*plugin.name, lost = size, %error, "the service's call failed");
                if crashes.too_many() {
                    let reason = format!(
                        "its service crashed {CRASHES} times within {} s and rests for {} s; the last time: {error}",
                        WINDOW.as_secs(),
                        REST.as_secs()
                    );
                    tracing::error!(plugin = &*plugin.name, reason, "service in quarantine");
                    plugin.set_quarantine(Some(reason));
                    tokio::time::sleep(REST).await;
                    plugin.set_quarantine(None);
                }
            }
        }
        react.is_over();
    }
}

/// When a reactor crashed lately.
#[derive(Default)]
struct Crashes(VecDeque<Instant>);

impl Crashes {
    fn too_many(&mut self) -> bool {
        let now = Instant::now();
        self.0.push_back(now);
        while self
            .0
            .front()
            .is_some_and(|first| now.duration_since(*first) > WINDOW)
        {
            self.0.pop_front();
        }
        let many = self.0.len() >= CRASHES;
        if many {
            self.0.clear();
        }
        many
    }
}

impl From<Transport> for reactor::Transport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp => Self::Tcp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reactor_rests_after_a_row_of_crashes_and_begins_anew() {
        let mut crashes = Crashes::default();
        let rests: Vec<bool> = (0..CRASHES * 2).map(|_| crashes.too_many()).collect();
        let expected: Vec<bool> = (1..=CRASHES * 2).map(|it| it % CRASHES == 0).collect();
        assert_eq!(rests, expected);
    }
}
