use std::cell::RefCell;
use std::rc::Rc;

use bulkhead_sdk::bindings::imports::foreman::proxy::types::{Incoming, Outgoing, UpstreamError};
use bulkhead_sdk::testing::{Host, Installed};

use super::*;

type Sent = Rc<RefCell<Vec<(String, String)>>>;

/// A server with the zones `example.com` and `sub.example.com`, whose every zone has the given record sets.
fn server(sets: &'static str) -> (Installed, Sent) {
    let sent = Sent::default();
    let log = Rc::clone(&sent);
    let answer = move |request: &Outgoing| {
        let ok = |body: &str| {
            Ok(Incoming {
                status: 200,
                headers: Vec::new(),
                body: body.as_bytes().to_vec(),
            })
        };
        match request.method.as_str() {
            "GET" if request.target.starts_with("/zones?") => ok(
                r#"[{"id":"example.com.","name":"example.com."},{"id":"sub.example.com.","name":"sub.example.com."}]"#,
            ),
            "GET" => ok(&format!(r#"{{"rrsets":[{sets}]}}"#)),
            _ => {
                log.borrow_mut().push((
                    request.target.clone(),
                    String::from_utf8(request.body.clone()).unwrap(),
                ));
                Ok(Incoming {
                    status: 204,
                    headers: Vec::new(),
                    body: Vec::new(),
                })
            }
        }
    };
    (Host::new().http(answer).install(), sent)
}

fn wanted(name: &str, kind: RecordType, value: &str) -> DnsRecord {
    DnsRecord {
        name: name.into(),
        kind,
        value: value.into(),
        ttl: 60,
    }
}

#[test]
fn a_record_goes_to_the_zone_with_the_longest_name() {
    let (_host, sent) = server("");
    assert_eq!(
        PowerDns::create(wanted("a.sub.example.com", RecordType::A, "192.0.2.1")),
        Ok(true)
    );
    assert_eq!(
        PowerDns::create(wanted(
            "a.notsub.example.com",
            RecordType::Cname,
            "b.example.com"
        )),
        Ok(true)
    );
    let sent = sent.borrow();
    assert_eq!(sent[0].0, "/zones/sub.example.com.");
    assert_eq!(
        sent[0].1,
        r#"{"rrsets":[{"name":"a.sub.example.com.","type":"A","changetype":"REPLACE","ttl":60,"records":[{"content":"192.0.2.1","disabled":false}]}]}"#
    );
    assert_eq!(sent[1].0, "/zones/example.com.");
    assert!(
        sent[1].1.contains(r#""content":"b.example.com.""#),
        "{}",
        sent[1].1
    );
}

#[test]
fn an_equal_record_is_left_alone_and_another_is_a_conflict() {
    let (_host, sent) = server(
        r#"{"name":"A.example.com.","type":"A","ttl":60,"records":[{"content":"192.0.2.1","disabled":false}]}"#,
    );
    assert_eq!(
        PowerDns::create(wanted("a.example.com", RecordType::A, "192.0.2.1")),
        Ok(false)
    );
    for (kind, value) in [
        (RecordType::A, "192.0.2.2"),
        (RecordType::Cname, "b.example.com"),
    ] {
        assert!(matches!(
            PowerDns::create(wanted("a.example.com", kind, value)),
            Err(Error::Conflict(_))
        ));
    }
    assert!(sent.borrow().is_empty());
    assert_eq!(
        PowerDns::create(wanted("a.example.com", RecordType::Aaaa, "2001:db8::1")),
        Ok(true)
    );
}

#[test]
fn removing_one_value_keeps_the_others() {
    let (_host, sent) = server(
        r#"{"name":"_s._tcp.example.com.","type":"SRV","ttl":60,"records":[{"content":"0 5 1 a.example.com."},{"content":"0 5 2 a.example.com."}]}"#,
    );
    let remove = |value: Option<&str>| {
        PowerDns::remove(
            "_s._tcp.example.com".into(),
            RecordType::Srv,
            value.map(str::to_owned),
        )
    };
    assert_eq!(remove(Some("0 5 9 a.example.com")), Ok(false));
    assert_eq!(remove(Some("0 5 1 a.example.com")), Ok(true));
    assert_eq!(remove(None), Ok(true));
    let sent = sent.borrow();
    assert!(
        sent[0].1.contains("REPLACE")
            && sent[0].1.contains("0 5 2")
            && !sent[0].1.contains("0 5 1"),
        "{}",
        sent[0].1
    );
    assert!(sent[1].1.contains("DELETE"), "{}", sent[1].1);
}

#[test]
fn the_servers_words_reach_the_feature() {
    let refuse = |_: &Outgoing| {
        Ok(Incoming {
            status: 401,
            headers: Vec::new(),
            body: br#"{"error": "Unauthorized"}"#.to_vec(),
        })
    };
    let _host = Host::new().http(refuse).install();
    let refused = PowerDns::create(wanted("a.example.com", RecordType::A, "192.0.2.1"));
    assert_eq!(
        refused,
        Err(Error::Refused("PowerDNS answered 401: Unauthorized".into()))
    );
    let late = Host::new()
        .http(|_: &Outgoing| Err(UpstreamError::Timeout(5)))
        .install();
    assert!(matches!(
        PowerDns::find("a.b".into(), RecordType::A),
        Err(Error::Timeout(_))
    ));
    drop(late);
    let (_host, _) = server("");
    assert!(matches!(
        PowerDns::find("a.test".into(), RecordType::A),
        Err(Error::NotAuthoritative(_))
    ));
}
