//! What must hold whatever a server answers, for the fuzz tests of the workspace.

use std::cell::RefCell;
use std::rc::Rc;

use bulkhead_sdk::bindings::imports::foreman::proxy::types::{Incoming, Outgoing};
use bulkhead_sdk::dns::{DnsProvider, DnsRecord, RecordType};
use bulkhead_sdk::testing::Host;
use serde_json::Value;

use crate::PowerDns;

const ZONES: &str = r#"[{"id":"example.com.","name":"example.com."}]"#;
const NAME: &str = "a.example.com";
const ADDRESS: &str = "192.0.2.1";

/// Takes the text for the list of zones, for the records of a name, for both, and for an error. What is claimed to be written was sent, and what is
/// sent changes the one name and type that was asked for.
///
/// # Panics
/// When a promise does not hold.
pub fn answer(text: &str) {
    for (zones, sets) in [(text, "{}"), (ZONES, text), (text, text)] {
        for status in [200, 422] {
            let sent = Rc::new(RefCell::new(Vec::new()));
            let log = Rc::clone(&sent);
            let (zones, sets) = (zones.to_owned(), sets.to_owned());
            let answer = move |request: &Outgoing| {
                let (status, body) = match request.method.as_str() {
                    "GET" if request.target.starts_with("/zones?") => (200, zones.clone()),
                    "GET" => (200, sets.clone()),
                    _ => {
                        log.borrow_mut().push(request.clone());
                        (status, sets.clone())
                    }
                };
                Ok(Incoming {
                    status,
                    headers: Vec::new(),
                    body: body.into_bytes(),
                })
            };
            let _host = Host::new().http(answer).install();
            let _ = PowerDns::find(NAME.to_owned(), RecordType::A);
            for kind in [RecordType::A, RecordType::Cname, RecordType::Srv] {
                let wanted = DnsRecord {
                    name: NAME.to_owned(),
                    kind,
                    value: ADDRESS.to_owned(),
                    ttl: 60,
                };
                let created = PowerDns::create(wanted);
                check(&sent.take(), created.ok(), kind, status);
                let removed = PowerDns::remove(NAME.to_owned(), kind, None);
                check(&sent.take(), removed.ok(), kind, status);
            }
        }
    }
}

fn check(sent: &[Outgoing], done: Option<bool>, kind: RecordType, status: u16) {
    assert_eq!(done == Some(true), sent.len() == 1 && status == 200);
    assert!(done != Some(false) || sent.is_empty());
    for request in sent {
        let zone = request.target.strip_prefix("/zones/").unwrap_or("/");
        let is_segment = |byte: u8| byte.is_ascii_alphanumeric() || b".-_%".contains(&byte);
        assert!(zone.bytes().all(is_segment), "{}", request.target);
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let sets = body.get("rrsets").and_then(Value::as_array);
        let sets = sets.map_or(&[][..], Vec::as_slice);
        assert_eq!(sets.len(), 1, "{body}");
        for set in sets {
            assert_eq!(set.get("name"), Some(&Value::from("a.example.com.")));
            assert_eq!(set.get("type"), Some(&Value::from(crate::api::word(kind))));
        }
    }
}
