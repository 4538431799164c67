//! The readers of what comes from outside, for the fuzz tests: any text is read or refused, never a panic.

use crate::host::Host;
use crate::{config, splice, wire};

/// Reads a text as an answer of Kea, and what it holds as a configuration into which a host is written and out of which all are taken.
pub fn answer(text: &str) {
    let Ok(said) = wire::parse(text.as_bytes()) else {
        return;
    };
    let _ = said.read::<Vec<Host>>();
    let Some(arguments) = &said.arguments else {
        return;
    };
    configuration(arguments.get());
}

/// Reads a text as a configuration. What was added is found again, and taking it out leaves what was there before.
///
/// # Panics
/// If that does not hold.
pub fn configuration(text: &str) {
    let Ok(config) = config::read(text) else {
        return;
    };
    for subnet in &config.subnets {
        let _ = subnet.shown();
        let Some(host) = subnet.hosts.first() else {
            continue;
        };
        let Ok((without, removed)) =
            splice::with_removed(text, subnet.id, |other| other.same(host))
        else {
            continue;
        };
        // Two subnets of one number are a configuration that Kea refuses: which one is changed is of no matter.
        let numbers = config.subnets.iter().filter(|other| other.id == subnet.id);
        if numbers.count() > 1 {
            continue;
        }
        assert!(removed >= 1, "a host that was read was not found again");
        let again = config::read(&without).map(|config| {
            let kept = config
                .subnets
                .into_iter()
                .find(|other| other.id == subnet.id);
            kept.map_or(0, |kept| kept.hosts.len())
        });
        assert_eq!(again.ok(), Some(subnet.hosts.len() - removed));
        let added = splice::with_added(&without, subnet.id, host);
        let added = added.and_then(|text| config::read(&text));
        assert!(added.is_ok(), "what was written cannot be read");
    }
}
