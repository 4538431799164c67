//! Events for kept instances: timers, watched files, keys that others changed.
//!
//! A service hears of them between two batches (see `feed`); any other kept instance has a task of its own here, ended with its version.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::plugin::running::Plugin;
use crate::sandbox::bindings::exports::lifecycle::Event;
use crate::sandbox::events::Events;
use crate::sandbox::{CallError, Sandbox};

/// Between two tries while the instance is starting or has no turn.
const AGAIN: Duration = Duration::from_millis(20);

/// The tasks, by plugin.
#[derive(Default)]
pub(super) struct Wakers(Mutex<HashMap<Arc<str>, Woken>>);

/// A plugin, and the task that wakes it.
type Woken = (Arc<Plugin>, AbortOnDropHandle<()>);

impl Wakers {
    /// Has every kept instance that runs, and is no service, hear of events.
    pub(super) fn settle(&self, running: &[Arc<Plugin>], threads: &Handle) {
        let kept = |plugin: &&Arc<Plugin>| {
            let is_service = plugin
                .reactor
                .as_ref()
                .is_some_and(|reactor| Arc::ptr_eq(reactor, &plugin.sandbox));
            plugin.sandbox.is_kept() && !is_service
        };
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|_, (plugin, _)| running.iter().any(|it| Arc::ptr_eq(it, plugin)));
        for plugin in running.iter().filter(kept) {
            tasks.entry(plugin.name.clone()).or_insert_with(|| {
                let task = threads.spawn(follow(plugin.clone()));
                (plugin.clone(), AbortOnDropHandle::new(task))
            });
        }
    }

    pub(super) fn close(&self) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.clear();
    }
}

async fn follow(plugin: Arc<Plugin>) {
    let mut events = Events::of(&plugin.sandbox);
    loop {
        let happened = next(&mut events).await;
        if let Some(events) = &mut events {
            wake(&plugin, &plugin.sandbox, events, happened).await;
        }
    }
}

/// The next events; never, where there are none.
pub(super) async fn next(events: &mut Option<Events>) -> Vec<Event> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

/// Tells an instance what happened. One that is lost by it needs no telling: its successor starts with everything as it is.
pub(super) async fn wake(
    plugin: &Plugin,
    sandbox: &Arc<Sandbox>,
    events: &mut Events,
    happened: Vec<Event>,
) {
    loop {
        match sandbox.wake(happened.clone()).await {
            Ok(timer) => return events.ask(timer),
            Err(CallError::NotReady(_) | CallError::Busy { .. }) => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => {
                tracing::error!(plugin = &*plugin.name, %error, "`wake` failed");
                return;
            }
        }
    }
}
