//! Denials, remembered and told.
//!
//! Each denial that is new becomes one log event with its lesson; the same denial repeated is only counted. A plugin that
//! invents ever new denials is held to [`EVENTS_PER_MINUTE`] events, the rest is counted. The host keeps the last
//! [`REMEMBERED`] different denials for `bulkhead policy denials` and `/logs`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::action::Capability;
use super::denial::Denial;

/// Different denials kept for showing, of all plugins together: a screen or two, and at most about 1 MiB.
pub const REMEMBERED: usize = 512;
/// Log events for denials of one plugin in a minute; beyond it they are counted only.
pub const EVENTS_PER_MINUTE: u32 = 60;

/// Called once for each denial, for counters: plugin and capability.
pub type OnDenial = Box<dyn Fn(&str, Capability) + Send + Sync>;

/// The host's memory of denials.
#[derive(Default)]
pub struct Audit {
    inner: Mutex<Inner>,
    on_denial: OnceLock<OnDenial>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Inner {
    order: u64,
    seen: HashMap<Key, Remembered>,
    budgets: HashMap<Arc<str>, Budget>,
}

type Key = (Arc<str>, String, String);

struct Budget {
    since: Instant,
    events: u32,
    silent: u64,
}

/// One denial and how often it happened.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// What was refused.
    pub denial: Denial,
    /// How often.
    pub count: u64,
    /// First time.
    pub first: SystemTime,
    /// Last time.
    pub last: SystemTime,
    order: u64,
}

impl Audit {
    /// Has a counter called for each denial. Only the first call counts.
    pub fn on_denial(&self, counter: OnDenial) {
        let _ = self.on_denial.set(counter);
    }

    /// Records one denial.
    pub fn record(&self, denial: &Denial) {
        if let Some(counter) = self.on_denial.get() {
            counter(&denial.plugin, denial.capability);
        }
        let told = self
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(denial, Instant::now());
        match told {
            Told::Known => {}
            Told::New => tracing::warn!(
                plugin = %denial.plugin,
                capability = %denial.capability,
                slot = %denial.slot,
                action = %denial.action,
                rule = %denial.rule,
                reason = %denial.reason,
                fix = denial.fix.as_deref().unwrap_or(""),
                instead = denial.instead.as_deref().unwrap_or(""),
                "{}",
                denial.lesson()
            ),
            Told::Silenced => tracing::warn!(
                plugin = %denial.plugin,
                "plugin `{}` causes more than {EVENTS_PER_MINUTE} different denials a minute; further ones are counted only",
                denial.plugin
            ),
        }
    }

    /// Remembered denials, the latest last; of one plugin, or of all.
    #[must_use]
    pub fn denials(&self, plugin: Option<&str>) -> Vec<Remembered> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> = inner
            .seen
            .values()
            .filter(|known| plugin.is_none_or(|name| *known.denial.plugin == *name))
            .cloned()
            .collect();
        found.sort_by_key(|known| known.order);
        found
    }

    /// How often plugins were denied something without it being told, by plugin.
    #[must_use]
    pub fn silent(&self, plugin: &str) -> u64 {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.budgets.get(plugin).map_or(0, |budget| budget.silent)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    New,
    Known,
    Silenced,
}

impl Inner {
    fn note(&mut self, denial: &Denial, now: Instant) -> Told {
        self.order += 1;
        let key = (
            Arc::clone(&denial.plugin),
            denial.action.clone(),
            denial.rule.clone(),
        );
        if let Some(known) = self.seen.get_mut(&key) {
            known.count += 1;
            known.last = SystemTime::now();
            known.order = self.order;
            return Told::Known;
        }
        if self.seen.len() >= REMEMBERED {
            self.forget_one();
        }
        let time = SystemTime::now();
        self.seen.insert(
            key,
            Remembered {
                denial: denial.clone(),
                count: 1,
                first: time,
                last: time,
                order: self.order,
            },
        );
        let budget = self
            .budgets
            .entry(Arc::clone(&denial.plugin))
            .or_insert(Budget {
                since: now,
                events: 0,
                silent: 0,
            });
        if now.duration_since(budget.since) >= Duration::from_secs(60) {
            budget.since = now;
            budget.events = 0;
        }
        budget.events = budget.events.saturating_add(1);
        match budget.events.cmp(&(EVENTS_PER_MINUTE + 1)) {
            std::cmp::Ordering::Less => Told::New,
            std::cmp::Ordering::Equal => {
                budget.silent += 1;
                Told::Silenced
            }
            std::cmp::Ordering::Greater => {
                budget.silent += 1;
                Told::Known
            }
        }
    }

    /// The oldest denial of the plugin that fills most of the memory, so that a loud plugin cannot push out the quiet ones'.
    fn forget_one(&mut self) {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for (plugin, _, _) in self.seen.keys() {
            *counts.entry(plugin).or_default() += 1;
        }
        let loudest = counts
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map(|(plugin, _)| plugin.to_owned());
        let oldest = self
            .seen
            .iter()
            .filter(|((plugin, _, _), _)| Some(&**plugin) == loudest.as_deref())
            .min_by_key(|(_, known)| known.order)
            .map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.seen.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(plugin: &str, action: &str) -> Denial {
        Denial {
            plugin: plugin.into(),
            capability: Capability::Names,
            slot: String::new(),
            action: action.to_owned(),
            rule: "names".to_owned(),
            reason: "because".to_owned(),
            fix: None,
            instead: None,
        }
    }

    #[test]
    fn a_repeated_denial_is_counted_not_told() {
        let mut inner = Inner::default();
        let now = Instant::now();
        assert_eq!(inner.note(&denial("a", "x"), now), Told::New);
        assert_eq!(inner.note(&denial("a", "x"), now), Told::Known);
        assert_eq!(inner.note(&denial("a", "y"), now), Told::New);
        assert_eq!(inner.note(&denial("b", "x"), now), Told::New);
    }

    #[test]
    fn a_flood_of_new_denials_is_told_once_and_leaves_others_alone() {
        let audit = Audit::default();
        audit.record(&denial("quiet", "x"));
        for n in 0..2000 {
            audit.record(&denial("loud", &format!("{n}")));
        }
        assert_eq!(audit.denials(None).len(), REMEMBERED);
        assert_eq!(audit.denials(Some("quiet")).len(), 1);
        assert_eq!(audit.silent("loud"), 2000 - u64::from(EVENTS_PER_MINUTE));
        assert_eq!(audit.silent("quiet"), 0);
    }

    #[test]
    fn every_denial_reaches_the_counter() {
        use std::sync::atomic::{AtomicU64, Ordering};
        let audit = Audit::default();
        let count = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&count);
        audit.on_denial(Box::new(move |_, _| {
            seen.fetch_add(1, Ordering::Relaxed);
        }));
        for _ in 0..5 {
            audit.record(&denial("a", "x"));
        }
        assert_eq!(count.load(Ordering::Relaxed), 5);
        assert_eq!(audit.denials(Some("a")).first().unwrap().count, 5);
    }
}
