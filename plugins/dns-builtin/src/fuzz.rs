//! What must hold for any message and any zone file, for the fuzz tests of the workspace.

use bulkhead_sdk::settings::Value;
use bulkhead_sdk::testing::Host;

use crate::answer::answer;
use crate::import::{self, ZoneFile};
use crate::index::{Index, SLOT};
use crate::name::Name;
use crate::records;
use crate::zone_file;
use crate::zones::Zones;

const ZONE: &str = "@ NS ns\nns A 192.0.2.1\n*.w A 192.0.2.2\nc CNAME d\nd CNAME c\nsub NS ns.sub\nns.sub A 192.0.2.3\ntxt TXT \"x\"\n";

thread_local! {
    static INDEX: Index = {
        let zones = Value::Texts(vec!["example.com".to_owned()]);
        let _host = Host::new().setting("zones", zones).store(SLOT).install();
        let file = ZoneFile { name: "example.com.zone".to_owned(), text: ZONE.to_owned() };
        let made = Zones::of_settings().and_then(|zones| {
            let origin = Name::parse("example.com", None).map_err(|problem| problem.to_string())?;
            import::import(&zones, &origin, &file).map_err(|problem| problem.to_string())?;
            Index::load(&zones).map_err(|problem| format!("{problem:?}"))
        });
        made.unwrap_or_default()
    };
}

/// A message is answered within its limits, by an answer that is not answered again.
///
/// # Panics
/// When a promise does not hold.
pub fn message(bytes: &[u8]) {
    INDEX.with(|index| {
        for udp in [true, false] {
            let Some(answered) = answer(index, bytes, udp, 1232) else {
                continue;
            };
            assert!(!udp || answered.len() <= 1232, "{} bytes", answered.len());
            assert!(
                answer(index, &answered, udp, 1232).is_none(),
                "answered an answer"
            );
        }
    });
}

/// A zone file is read or refused with a line of it; what is read is inside the zone, and reads the same out of the store.
///
/// # Panics
/// When a promise does not hold.
pub fn file(text: &str) {
    let Ok(zone) = Name::parse("example.com", None) else {
        return;
    };
    match zone_file::parse(text, &zone) {
        Ok(records) => {
            for (owner, record) in records {
                assert!(owner.is_within(&zone), "{owner} is outside");
                let kept = records::to_text(std::slice::from_ref(&record));
                assert_eq!(records::from_text(kept.as_bytes()), [record], "{kept}");
                assert_eq!(Name::parse(&owner.to_string(), None), Ok(owner));
            }
        }
        Err(problem) => assert!((1..=text.lines().count()).contains(&problem.line)),
    }
}
