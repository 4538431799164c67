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

/// How much longer than a request to Kea a lock lives.
const SLACK: Duration = Duration::from_secs(2);

/// For one request and some more.
const LIFE: Duration = REQUEST.saturating_add(SLACK);

/// Between two looks at a taken lock. A change takes some tens of milliseconds.
const PAUSE: Duration = Duration::from_millis(15);

/// The lock, held. Given back when it goes out of scope.
pub(crate) struct Lock {
    revision: u64,
}

impl Lock {
    /// Waits for it.
    pub(crate) fn take(until: Instant) -> Result<Self, Failure> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::Late(
                    "another change of Kea's configuration is under way",
                ));
            }
            let claim = Change::put(KEY, "held").if_absent().expires_in(LIFE);
            match store::apply(SLOT, &[claim]) {
                // The only key of the slot: its revision is the slot's.
                Ok(revision) => return Ok(Self { revision }),
                Err(Error::Conflict(_)) => std::thread::sleep(PAUSE.min(left)),
                Err(why) => return Err(why.into()),
            }
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
            Err(Error::Conflict(_)) => Err(Failure::Late(
                "the lock on Kea's configuration was lost before the change was made",
            )),
            Err(why) => Err(why.into()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Not another's, should this one have expired. What fails here is over when the key expires.
        let _ = store::apply(SLOT, &[Change::delete(KEY).if_revision(self.revision)]);
    }
}
