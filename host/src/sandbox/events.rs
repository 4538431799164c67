//! What happens outside that a kept instance wants to know: timers, watched files, keys that others changed.
//!
//! It refuses to repeat: what happened while the instance was busy is told once. A change of settings is no event: settings belong to a version, and a
//! version with new ones is brought up beside the old one.
//!
//! The one idea: nobody is told of what they did themselves, so the store's bell knows who rang it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::bindings::exports::lifecycle::Event;
use super::pool::Sandbox;
use crate::capability::store::bell::Ring;
use crate::capability::watch::follow::Follow;
use crate::grant::Guard;

/// The shortest timer: a plugin that asks for none at all must not spin.
const SHORTEST_TIMER: Duration = Duration::from_millis(1);
/// Between two times that store changes are told: a burst of writes is one event.
const GATHER: Duration = Duration::from_millis(5);

/// The events of one set of instances.
pub struct Events {
    guard: Guard,
    generation: watch::Receiver<u64>,
    set: u64,
    follow: Option<Follow>,
    rings: watch::Receiver<u64>,
    seen: HashMap<String, u64>,
    bell: Arc<crate::capability::store::bell::Bell>,
    timer: Option<Instant>,
    /// Somebody rang; when to look who.
    rung: Option<Instant>,
}

impl Events {
    /// From now on. None in an empty sandbox, where nothing happens.
    #[must_use]
    pub fn of(sandbox: &Arc<Sandbox>) -> Option<Self> {
        let surroundings = sandbox.surroundings();
        let bell = surroundings.facilities.as_ref()?.store.bell().clone();
        let guard = surroundings.guard.clone();
        let mut this = Self {
            generation: guard.generation(),
            set: sandbox.set(),
            follow: Follow::start(&guard.effective()),
            rings: bell.listen(),
            seen: HashMap::new(),
            bell,
            timer: None,
            rung: None,
            guard,
        };
        this.look_at_store();
        Some(this)
    }

    /// When `wake` wants its timer.
    pub fn ask(&mut self, milliseconds: Option<u32>) {
        self.timer = milliseconds
            .map(|ms| Instant::now() + Duration::from_millis(u64::from(ms)).max(SHORTEST_TIMER));
    }

    /// Waits for the next events; never empty. Dropping the future loses none.
    pub async fn next(&mut self) -> Vec<Event> {
        loop {
            let (timer, look) = (self.timer, self.rung);
            tokio::select! {
                () = async { tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)).await }, if timer.is_some() => {
                    self.timer = None;
                    return vec![Event::Timer];
                }
                slots = changed(&mut self.follow) => {
                    return slots.into_iter().map(Event::FileChanged).collect();
                }
                rung = self.rings.changed(), if look.is_none() => {
                    if rung.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.rung = Some(Instant::now() + GATHER);
                }
                () = async { tokio::time::sleep_until(look.unwrap_or_else(Instant::now)).await }, if look.is_some() => {
                    self.rung = None;
                    let slots = self.look_at_store();
                    if !slots.is_empty() {
                        return slots.into_iter().map(Event::StoreChanged).collect();
                    }
                }
                moved = self.generation.changed() => {
                    if moved.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.follow = Follow::start(&self.guard.effective());
                }
            }
        }
    }

    /// The slots that others changed since the last look.
    fn look_at_store(&mut self) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        let effective = self.guard.effective();
        for (slot, grant) in &effective.store {
            let space = crate::capability::store::space(self.guard.plugin(), slot, &grant.space);
            let rings: Vec<Ring> = self.bell.of(&space);
            for ring in rings.iter().filter(|ring| ring.by != self.set) {
                let key = format!("{slot} {}", ring.by);
                let before = self.seen.insert(key, ring.count);
                if before.unwrap_or(0) < ring.count {
                    changed.insert(slot.clone());
                }
            }
        }
        changed
    }
}

async fn changed(follow: &mut Option<Follow>) -> Vec<String> {
    match follow {
        Some(follow) => follow.changed().await,
        None => std::future::pending().await,
    }
}
