//! One change of Kea's configuration at a time, among all instances and all hosts that share this plugin's store.
//!
//! The one idea: a key that only one can create. It lives a little longer than one request to Kea may take, and its holder puts it anew before each,
//! so that a killed host blocks the others for less than they wait; and whoever lost it, however that came, goes no step further.

use std::time::{Duration, Instant};

use bulkhead_sdk::store::{self, Change, Error};

use crate::failure::Failure;
use crate::wire::REQUEST;

/// The `store` slot.
pub(crate) const SLOT: &str = "locks";

const KEY: &str = "kea-configuration";

/// Put with every change that was made.
const CHANGED: &str = "kea-configuration-changed";

/// How much longer than a request to Kea a lock lives.
const SLACK: Duration = Duration::from_secs(2);

/// For one request and some more.
const LIFE: Duration = REQUEST.saturating_add(SLACK);

/// How long a change is remembered: longer than any copy is believed, however slow it was read.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Between two looks at a taken lock. A change takes some tenths of a second.
const PAUSE: Duration = Duration::from_millis(15);

const LOST: Failure =
    Failure::Late("the lock on Kea's configuration was lost before the change was made");

/// How far the configuration's changes by this plugin have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(Option<u64>);

impl Generation {
    /// The present one.
    pub(crate) fn now() -> Result<Self, Failure> {
        Ok(Self(store::get(SLOT, CHANGED)?.map(|entry| entry.revision)))
    }
}

/// The lock, held. Given back when it goes out of scope.
pub(crate) struct Lock {
    revision: u64,
}

impl Lock {
    /// Waits for it.
    pub(crate) fn take(until: Instant) -> Result<Self, Failure> {
        loop {
            if let Some(lock) = Self::if_free()? {
                return Ok(lock);
            }
            pause(until)?;
        }
    }

    /// The lock, unless somebody holds it.
    pub(crate) fn if_free() -> Result<Option<Self>, Failure> {
        // A look costs less than an attempt, which is a commit.
        if store::get(SLOT, KEY)?.is_some() {
            return Ok(None);
        }
        let claim = Change::put(KEY, "held").if_absent().expires_in(LIFE);
        match store::apply(SLOT, &[claim]) {
            // The only change of that commit: its revision is the key's.
            Ok(revision) => Ok(Some(Self { revision })),
            Err(Error::Conflict(_)) => Ok(None),
            Err(why) => Err(why.into()),
        }
    }

    /// Before the next request: the lock lives on, if it is still held.
    pub(crate) fn renew(&mut self) -> Result<(), Failure> {
        let again = Change::put(KEY, "held")
            .if_revision(self.revision)
            .expires_in(LIFE);
        match store::apply(SLOT, &[again]) {
            Ok(revision) => {
                self.revision = revision;
                Ok(())
            }
            Err(Error::Conflict(_)) => Err(LOST),
            Err(why) => Err(why.into()),
        }
    }

    /// Gives it back after a change and makes these changes of the slot in the same step, if it is still held.
    pub(crate) fn give_back_with(self, mut changes: Vec<Change>) -> Result<(), Failure> {
        changes.push(Change::put(CHANGED, "").expires_in(REMEMBERED));
        changes.push(self.giving_back());
        match store::apply(SLOT, &changes) {
            Ok(_) => Ok(()),
            Err(Error::Conflict(_)) => Err(LOST),
            Err(why) => Err(why.into()),
        }
    }

    fn giving_back(&self) -> Change {
        Change::delete(KEY).if_revision(self.revision)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Not another's, should this one have expired or be given back. What fails here is over when the key expires.
        let _ = store::apply(SLOT, &[self.giving_back()]);
    }
}

/// Between two looks at a taken lock.
pub(crate) fn pause(until: Instant) -> Result<(), Failure> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Failure::Late(
            "another change of Kea's configuration is under way",
        ));
    }
    std::thread::sleep(PAUSE.min(left));
    Ok(())
}
