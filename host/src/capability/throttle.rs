//! Log lines that a plugin can provoke, bounded.
//!
//! It refuses to let a plugin that hammers on something broken fill the operator's log: a few lines a second pass, the rest are counted and
//! the next line that passes says how many there were.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines that pass in one [`WINDOW`] for one plugin: enough to see that several things are wrong.
const LINES: u32 = 5;

/// The time that the lines are counted over.
const WINDOW: Duration = Duration::from_secs(1);

/// Counts lines by plugin.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    plugins: Mutex<HashMap<String, Seen>>,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl Throttle {
    /// Some: the line may be written; it should tell the number, of lines that were not written before it.
    pub(crate) fn pass(&self, plugin: &str) -> Option<u64> {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = plugins.get_mut(plugin) else {
            plugins.insert(
                plugin.to_owned(),
                Seen {
                    since: Instant::now(),
                    lines: 1,
                    suppressed: 0,
                },
            );
            return Some(0);
        };
        if seen.since.elapsed() >= WINDOW {
            seen.since = Instant::now();
            seen.lines = 0;
        }
        seen.lines = seen.lines.saturating_add(1);
        if seen.lines > LINES {
            seen.suppressed = seen.suppressed.saturating_add(1);
            return None;
        }
        Some(std::mem::take(&mut seen.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_few_lines_and_a_number() {
        let throttle = Throttle::default();
        let passed = (0..1000)
            .filter(|_| throttle.pass("noisy").is_some())
            .count();
        assert_eq!(passed, 5);
        assert_eq!(throttle.pass("quiet"), Some(0));
        std::thread::sleep(WINDOW);
        assert_eq!(throttle.pass("noisy"), Some(995));
    }
}
