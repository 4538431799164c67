//! The readers of what comes from outside, for the fuzz tests: any text is read or refused, never a panic.

use crate::host::Host;
use crate::wish::Wish;
use crate::{config, queue, splice, wire};

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

/// A small configuration: two subnets, one of them with hosts that may be in the way.
const CONFIGURATION: &str = r#"{ "subnet4": [
    { "id": 1, "subnet": "192.0.2.0/24", "reservations": [
        { "hw-address": "aa:bb:cc:dd:ee:01", "ip-address": "192.0.2.40", "hostname": "a" },
        { "client-id": "01:02", "ip-address": "192.0.2.41", "boot-file-name": "x" } ] },
    { "id": 2, "subnet": "198.51.100.0/25" } ] }"#;

/// Reads a text as a change that waits in the store, and as a verdict on one. A change is the same after another way through the store, and what it makes
/// of a configuration is what the plugin thinks that it is.
///
/// # Panics
/// If that does not hold.
pub fn queued(text: &str) {
    if let Ok(verdict) = queue::read_verdict(text.as_bytes()) {
        let _ = verdict.map_err(crate::failure::Failure::into_error);
    }
    let Ok(wish) = serde_json::from_str::<Wish>(text) else {
        return;
    };
    let stored = serde_json::to_string(&wish).unwrap_or_default();
    let again = serde_json::from_str::<Wish>(&stored);
    assert!(again.is_ok(), "it does not come out of the store: {stored}");
    let Ok(again) = again else {
        return;
    };
    let config = config::read(CONFIGURATION);
    assert!(config.is_ok(), "the configuration of this target");
    let Ok(mut config) = config else {
        return;
    };
    let text = again.made_in(&mut config.clone(), CONFIGURATION).ok();
    assert_eq!(wish.made_in(&mut config, CONFIGURATION).ok(), text);
    let Some(Some(text)) = text else {
        return;
    };
    let made = config::read(&text).map(|made| made.subnets);
    assert!(made.is_ok(), "what was written cannot be read: {text}");
    let subnets = made.unwrap_or_default();
    for (thought, written) in config.subnets.iter().zip(&subnets) {
        assert_eq!(thought.hosts.len(), written.hosts.len());
        let mut pairs = thought.hosts.iter().zip(&written.hosts);
        assert!(pairs.all(|(one, other)| one.same(other)));
    }
}
