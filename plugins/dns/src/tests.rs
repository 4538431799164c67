use bulkhead_sdk::testing::{Called, Host, Installed};

use super::*;

fn host() -> Installed {
    Host::new()
        .setting("dns_ttl", 600)
        .dns_provider(Vec::new())
        .install()
}

fn post(host: &Installed, fqdn: &str, value: &str, kind: &str) -> (u16, String) {
    let form = [("fqdn", fqdn), ("value", value), ("type", kind)];
    let called = host.post_form::<Dns>("/dns/", &form);
    (called.status(), called.text())
}

fn delete(host: &Installed, target: &str) -> (u16, String) {
    let called = host.delete::<Dns>(target);
    (called.status(), called.text())
}

fn done() -> (u16, String) {
    (200, String::new())
}

#[test]
fn a_record_is_created_once_and_an_equal_one_is_success() {
    let host = host();
    assert_eq!(post(&host, "a.example.com", "192.0.2.1", "a"), done());
    assert_eq!(post(&host, "A.example.com", "192.0.2.1", "A"), done());
    let found = dns::find("a.example.com", RecordType::A).unwrap();
    assert_eq!((found.len(), found[0].ttl), (1, 600));
}

#[test]
fn another_value_is_a_conflict_in_the_smart_proxys_words() {
    let host = host();
    assert_eq!(post(&host, "a.example.com", "192.0.2.1", "A"), done());
    assert_eq!(
        post(&host, "a.example.com", "192.0.2.2", "A"),
        (409, "'a.example.com 'is already in use".to_owned())
    );
    assert_eq!(
        post(&host, "a.example.com", "1.2.0.192.in-addr.arpa", "PTR"),
        done()
    );
    assert_eq!(
        post(&host, "b.example.com", "1.2.0.192.in-addr.arpa", "PTR"),
        (409, "'1.2.0.192.in-addr.arpa' is already in use".to_owned())
    );
}

#[test]
fn every_field_is_required_but_may_be_empty() {
    let host = host();
    let missing = (
        400,
        "'create' requires fqdn, value, and type parameters".to_owned(),
    );
    for form in [
        &[("fqdn", "a.b"), ("value", "192.0.2.1")][..],
        &[("type", "A")],
        &[],
    ] {
        let called = host.post_form::<Dns>("/dns", form);
        assert_eq!((called.status(), called.text()), missing);
    }
    let nested = host.post_form::<Dns>(
        "/dns",
        &[("fqdn", "a.b"), ("value", "192.0.2.1"), ("type[]", "A")],
    );
    assert_eq!((nested.status(), nested.text()), missing);
    assert_eq!(
        post(&host, "", "192.0.2.1", "A"),
        (400, "Invalid DNS name ".to_owned())
    );
}

#[test]
fn removal_takes_the_type_from_the_path_alone() {
    let host = host();
    assert_eq!(post(&host, "a.example.com", "2001:db8::1", "AAAA"), done());
    assert_eq!(delete(&host, "/dns/a.example.com?type=AAAA"), done());
    assert_eq!(
        dns::find("a.example.com", RecordType::Aaaa).unwrap().len(),
        1
    );
    assert_eq!(delete(&host, "/dns/a.example.com/AAAA"), done());
    assert_eq!(
        dns::find("a.example.com", RecordType::Aaaa).unwrap().len(),
        0
    );
    assert_eq!(
        delete(&host, "/dns/a.example.com/a"),
        (400, "unrecognized 'type' parameter: a".to_owned())
    );
}

#[test]
fn removing_what_is_not_there_is_success() {
    let host = host();
    for target in [
        "/dns/a.example.com",
        "/dns/a.example.com/",
        "/dns/1.2.0.192.in-addr.arpa",
        "/dns/_s._tcp.b/SRV",
    ] {
        assert_eq!(delete(&host, target), done(), "{target}");
    }
    assert_eq!(host.delete::<Dns>("/dns/"), Called::NoRoute);
}

#[test]
fn no_error_of_a_provider_reads_as_removed() {
    for error in [
        Error::Refused("x".into()),
        Error::NotAuthoritative("x".into()),
        Error::Other("x".into()),
        Error::Unreachable("x".into()),
        Error::Timeout("x".into()),
    ] {
        let failure = refusal(error);
        assert!(failure.status() >= 400 && failure.status() != 404);
        assert_eq!(failure.message(), "Update errors: x");
    }
}

#[test]
fn a_time_to_live_that_dns_cannot_carry_fails_the_feature() {
    let _host = Host::new().setting("dns_ttl", -1).install();
    assert!(Dns::status().into_record().problem.is_some());
}
