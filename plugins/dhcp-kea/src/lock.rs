//! One change of Kea's configuration at a time, among all instances and all hosts that share this plugin's store.
//!
//! The one idea: a key that only one can create. It vanishes by itself a little after its holder has to be finished, so that a killed
//! host blocks nobody for longer; and nobody who holds it may outlive it, since each call ends before.

use std::time::{Duration, Instant};

use bulkhead_sdk::store::{self, Change, Error};

use crate::failure::Failure;

/// The `store` slot.
pub(crate) const SLOT: &str = "locks";

const KEY: &str = "kea-configuration";

/// How much longer than its holder's call a lock lives.
const SLACK: Duration = Duration::from_secs(2);

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
            let claim = Change::put(KEY, "held")
                .if_absent()
                .expires_in(left + SLACK);
            match store::apply(SLOT, &[claim]) {
                Ok(_) => {
                    let revision = store::get(SLOT, KEY)?.map_or(0, |entry| entry.revision);
                    return Ok(Self { revision });
                }
                Err(Error::Conflict(_)) => std::thread::sleep(PAUSE.min(left)),
                Err(why) => return Err(why.into()),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Not another's, should this one have expired. What fails here is over when the key expires.
        let _ = store::apply(SLOT, &[Change::delete(KEY).if_revision(self.revision)]);
    }
}
