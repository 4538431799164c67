//! The readers of what comes from outside, for the fuzz tests: any text is read or refused, never a panic.

use std::collections::BTreeMap;

use crate::config::{self, Configuration};
use crate::error::Problem;
use crate::index::Index;
use crate::journal::Journal;
use crate::omapi::message::{self, Read};

/// Reads a text as `dhcpd.conf`; what it includes is empty. Ranges lie in their subnets.
///
/// # Panics
/// If that does not hold.
pub fn configuration(text: &str) {
    let mut main = Some(text.as_bytes().to_vec());
    let found: Result<Configuration, Problem> = config::read("/etc/dhcp/dhcpd.conf", &mut |_| {
        Ok(main.take().unwrap_or_default())
    });
    let Ok(found) = found else {
        return;
    };
    for subnet in &found.subnets {
        for &(first, last) in &subnet.ranges {
            assert!(first <= last && subnet.prefix.contains(first) && subnet.prefix.contains(last));
        }
    }
    shown(&Index::new(found));
}

/// Reads a text as a leases file, at once and in pieces: the outcome is one.
///
/// # Panics
/// If that does not hold.
pub fn leases(text: &str) {
    let read = |size: usize| {
        let configuration =
            b"subnet 192.0.2.0 netmask 255.255.255.0 { } subnet 10.0.0.0 netmask 255.0.0.0 { }";
        let empty =
            config::read("/dhcpd.conf", &mut |_| Ok(configuration.to_vec())).unwrap_or_default();
        let (mut journal, mut index) = (Journal::default(), Index::new(empty));
        for piece in text.as_bytes().chunks(size) {
            journal.feed(piece, &mut index, 0);
        }
        journal.settle(&mut index, 0);
        shown(&index)
    };
    assert_eq!(read(text.len().max(1)), read(61));
}

/// Reads bytes as a message of OMAPI. What is read is written as it was.
///
/// # Panics
/// If that does not hold.
pub fn omapi(text: &str) {
    // Characters up to 255 stand for bytes, so that mutated texts reach every one.
    let bytes: Vec<u8> = text
        .chars()
        .map(|character| u8::try_from(u32::from(character)).unwrap_or(0))
        .collect();
    match message::read(&bytes) {
        Read::Whole {
            message,
            unsigned,
            length,
        } => {
            assert!(unsigned <= length && length <= bytes.len());
            // A name that is not UTF-8 is read, and is none of dhcpd's.
            if bytes.is_ascii() {
                assert_eq!(message.to_bytes().as_deref(), bytes.get(..unsigned));
            }
        }
        Read::Partial(needs) => assert!(needs > bytes.len()),
        Read::Broken(_) => {}
    }
}

/// Everything of an index, page by page.
fn shown(index: &Index) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for subnet in index.subnets() {
        let (mut entries, mut cursor) = (Vec::new(), None::<String>);
        while let Ok(page) = index.entries(&subnet.prefix, cursor.as_deref(), 3, 0) {
            entries.extend(page.entries.iter().map(|entry| format!("{entry:?}")));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        all.insert(subnet.prefix, entries);
    }
    all
}
