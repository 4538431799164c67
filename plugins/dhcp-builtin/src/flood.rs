//! How many packets each client sent lately, so that one gone wild is not answered for ever.

use std::collections::HashMap;

use bulkhead_sdk::log;

use crate::identity::Client;

/// Seconds over which packets of one sender are counted.
const WINDOW: i64 = 10;
/// Senders that are counted at a time. Beyond it new ones are let through: a flood of invented senders cannot lock out the others.
const MOST_SENDERS: usize = 65_536;

/// Counts packets by sender.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    counts: HashMap<Client, u32>,
    window: i64,
}

impl Senders {
    /// Begins to count anew when the time for it has come. True: it has.
    pub(crate) fn turn(&mut self, now: i64) -> bool {
        let is_over = now - self.window >= WINDOW || now < self.window;
        if is_over {
            self.window = now;
            self.counts.clear();
        }
        is_over
    }

    /// Counts a packet. True: it is one too many.
    pub(crate) fn is_flooding(&mut self, client: &Client, limit: u32) -> bool {
        if let Some(count) = self.counts.get_mut(client) {
            *count = count.saturating_add(1);
            if *count == limit.saturating_add(1) {
                log::warn(format!(
                    "{client} sends more than {limit} packets in {WINDOW} s; the rest is dropped"
                ));
            }
            return *count > limit;
        }
        if self.counts.len() < MOST_SENDERS {
            self.counts.insert(client.clone(), 1);
        }
        false
    }
}
