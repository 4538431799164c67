//! Changes that wait while somebody else changes Kea's configuration, and what became of them.
//!
//! The one idea: whoever gets the lock makes the changes of all who wait for it, and tells each what became of its own. A place in the queue lives
//! only as long as somebody stays in it: what a killed host wanted is not made much later, behind the back of whoever was told that it failed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bulkhead_sdk::dhcp;
use bulkhead_sdk::log;
use bulkhead_sdk::store::{self, Change, Error};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::lock::{Lock, SLOT};
use crate::wish::Wish;

/// How long a place lives by itself.
const LIFE: Duration = Duration::from_secs(2);

/// After what time its owner puts it anew.
const RENEWED: Duration = Duration::from_millis(500);

/// How long a verdict waits for whoever wants it.
const VERDICT: Duration = Duration::from_secs(30);

/// Most changes made at once.
const MOST: u32 = 64;

const WAITING: &str = "waiting/";
const DONE: &str = "done/";

/// What became of a change.
pub(crate) type Verdict = Result<bool, Failure>;

/// A place in the queue. Left when it goes out of scope.
pub(crate) struct Place {
    name: String,
    wish: Vec<u8>,
    revision: u64,
    renewed: Instant,
}

/// A change that somebody waits for.
pub(crate) struct Waiting {
    name: String,
    pub(crate) wish: Wish,
}

impl Place {
    /// Takes a place; none where the store has no room, and the change can only be made by its owner.
    pub(crate) fn take(wish: &Wish) -> Result<Option<Self>, Failure> {
        let name = name();
        let wish = serde_json::to_vec(wish).map_err(|why| Failure::Store(why.to_string()))?;
        match store::apply(SLOT, &[put(&name, &wish)]) {
            Ok(revision) => Ok(Some(Self {
                name,
                wish,
                revision,
                renewed: Instant::now(),
            })),
            Err(Error::Full | Error::TooLarge) => Ok(None),
            Err(why) => Err(why.into()),
        }
    }

    /// What became of the change, once somebody made it. Until then the place is kept.
    pub(crate) fn verdict(&mut self) -> Result<Option<Verdict>, Failure> {
        if let told @ Some(_) = self.told()? {
            return Ok(told);
        }
        if self.renewed.elapsed() < RENEWED {
            return Ok(None);
        }
        self.renewed = Instant::now();
        let again = put(&self.name, &self.wish);
        match store::apply(SLOT, &[again.if_revision(self.revision)]) {
            Ok(revision) => self.revision = revision,
            // Told just now, or too late.
            Err(Error::Conflict(_)) => {
                if let told @ Some(_) = self.told()? {
                    return Ok(told);
                }
                self.revision = store::apply(SLOT, &[put(&self.name, &self.wish)])?;
            }
            Err(why) => return Err(why.into()),
        }
        Ok(None)
    }

    fn told(&self) -> Result<Option<Verdict>, Failure> {
        let Some(told) = store::get(SLOT, &format!("{DONE}{}", self.name))? else {
            return Ok(None);
        };
        read_verdict(&told.value).map(Some)
    }
}

/// A verdict as the store keeps it.
pub(crate) fn read_verdict(stored: &[u8]) -> Result<Verdict, Failure> {
    let told: Told =
        serde_json::from_slice(stored).map_err(|why| Failure::Store(why.to_string()))?;
    Ok(told.into())
}

fn put(name: &str, wish: &[u8]) -> Change {
    Change::put(&format!("{WAITING}{name}"), wish).expires_in(LIFE)
}

impl Drop for Place {
    fn drop(&mut self) {
        // What fails here is over when the keys expire.
        let _ = store::apply(
            SLOT,
            &[
                Change::delete(&format!("{WAITING}{}", self.name)),
                Change::delete(&format!("{DONE}{}", self.name)),
            ],
        );
    }
}

/// Names sort by time, so that the first to come is the first to be served.
fn name() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = now.unwrap_or_default().as_nanos();
    // The standard library seeds its hash tables at random, from the host.
    let random = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    format!("{nanoseconds:020}-{random:016x}")
}

/// All who wait, but `own`.
pub(crate) fn waiting(own: Option<&Place>) -> Result<Vec<Waiting>, Failure> {
    let mut found = Vec::new();
    for entry in store::scan(SLOT, WAITING, None, MOST)? {
        let name = entry.key.trim_start_matches(WAITING).to_owned();
        if own.is_some_and(|place| place.name == name) {
            continue;
        }
        match serde_json::from_slice(&entry.value) {
            Ok(wish) => found.push(Waiting { name, wish }),
            // Another version's, which answers for it itself.
            Err(why) => log::warn(format!("a waiting change is not understood: {why}")),
        }
    }
    Ok(found)
}

/// True when nobody waits.
pub(crate) fn is_empty() -> Result<bool, Failure> {
    Ok(store::scan(SLOT, WAITING, None, 1)?.is_empty())
}

/// Tells those who wait, and gives the lock back.
pub(crate) fn tell(lock: Lock, waiting: &[Waiting], verdicts: &[Verdict]) {
    let mut changes = Vec::new();
    for (Waiting { name, .. }, verdict) in waiting.iter().zip(verdicts) {
        let told = serde_json::to_vec(&Told::from(verdict)).unwrap_or_default();
        changes.push(Change::put(&format!("{DONE}{name}"), told).expires_in(VERDICT));
        changes.push(Change::delete(&format!("{WAITING}{name}")));
    }
    if let Err(why) = lock.give_back_with(changes) {
        // Whoever gets the lock next finds what they want to be there already.
        log::warn(format!("those who waited are not told: {why}"));
    }
}

/// A verdict on its way through the store.
#[derive(Serialize, Deserialize)]
enum Told {
    Done(bool),
    Failed { kind: Kind, text: String },
}

/// The errors of the interface.
#[derive(Serialize, Deserialize)]
enum Kind {
    Conflict,
    UnknownSubnet,
    NotDeletable,
    Refused,
    Unsupported,
    Unreachable,
    Timeout,
    Other,
}

impl From<&Verdict> for Told {
    fn from(verdict: &Verdict) -> Self {
        let why = match verdict {
            Ok(changed) => return Self::Done(*changed),
            Err(why) => why.clone().into_error(),
        };
        let (kind, text) = match why {
            dhcp::Error::Conflict(text) => (Kind::Conflict, text),
            dhcp::Error::UnknownSubnet => (Kind::UnknownSubnet, String::new()),
            dhcp::Error::NotDeletable(text) => (Kind::NotDeletable, text),
            dhcp::Error::Refused(text) => (Kind::Refused, text),
            dhcp::Error::Unsupported(text) => (Kind::Unsupported, text),
            dhcp::Error::Unreachable(text) => (Kind::Unreachable, text),
            dhcp::Error::Timeout(text) => (Kind::Timeout, text),
            dhcp::Error::Other(text) => (Kind::Other, text),
            // None of this provider's.
            dhcp::Error::Again(_) => (Kind::Timeout, String::new()),
        };
        Self::Failed { kind, text }
    }
}

impl From<Told> for Verdict {
    fn from(told: Told) -> Self {
        let (kind, text) = match told {
            Told::Done(changed) => return Ok(changed),
            Told::Failed { kind, text } => (kind, text),
        };
        Err(Failure::Told(match kind {
            Kind::Conflict => dhcp::Error::Conflict(text),
            Kind::UnknownSubnet => dhcp::Error::UnknownSubnet,
            Kind::NotDeletable => dhcp::Error::NotDeletable(text),
            Kind::Refused => dhcp::Error::Refused(text),
            Kind::Unsupported => dhcp::Error::Unsupported(text),
            Kind::Unreachable => dhcp::Error::Unreachable(text),
            Kind::Timeout => dhcp::Error::Timeout(text),
            Kind::Other => dhcp::Error::Other(text),
        }))
    }
}
