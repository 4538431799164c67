use super::*;
use bulkhead_sdk::bindings::imports::foreman::proxy::types::{
    Forward as Sent, Source, UpstreamError as Cause,
};
use bulkhead_sdk::export::on_upstream;
use bulkhead_sdk::testing::{Called, Host, Installed};

fn host() -> Installed {
    Host::new().install()
}

#[track_caller]
fn sent(called: Called) -> Sent {
    match called {
        Called::Forward(forward) => forward,
        other => panic!("not forwarded: {other:?}"),
    }
}

#[track_caller]
fn replaced(verdict: Verdict) -> (u16, String) {
    match verdict {
        Verdict::Replace(reply) => (reply.status, String::from_utf8(reply.body).unwrap()),
        other => panic!("passed on: {other:?}"),
    }
}

fn head(status: u16) -> Head {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Head {
        status,
        headers: vec![
            header("content-type", "application/json"),
            header("x-other", "1"),
        ],
    }
}

#[test]
fn facts_go_to_foreman_unchanged() {
    let forward = sent(host().call::<Discovery>("POST", "/discovery/create", &[], b"{\"a\": 1}"));
    assert_eq!(
        (
            forward.slot.as_str(),
            forward.method.as_str(),
            forward.path.as_str()
        ),
        ("discovered-hosts", "POST", "/api/v2/discovered_hosts/facts")
    );
    assert_eq!(forward.body, Source::Bytes(b"{\"a\": 1}".to_vec()));
}

#[test]
fn facts_that_are_no_json_never_reach_foreman() {
    for body in [&b""[..], b"{", b"a=1", b"{}x"] {
        let called = host().call::<Discovery>("POST", "/discovery/create", &[], body);
        assert_eq!(called.status(), 400, "{body:?}");
    }
}

#[test]
fn nodes_are_reached_by_address_only() {
    let host = host();
    for (method, asked, slot, url) in [
        (
            "GET",
            "/discovery/192.0.2.5/inventory/facter",
            "nodes",
            "https://192.0.2.5:8443/inventory/facter",
        ),
        (
            "GET",
            "/discovery/192.0.2.5/facts",
            "nodes",
            "https://192.0.2.5:8443/inventory/facter",
        ),
        (
            "PUT",
            "/discovery/2001:db8::5/power/reboot",
            "nodes",
            "https://[2001:db8::5]:8443/power/reboot",
        ),
        (
            "PUT",
            "/discovery/192.0.2.5/power/kexec",
            "nodes",
            "https://192.0.2.5:8443/power/kexec",
        ),
        (
            "PUT",
            "/discovery/192.0.2.5/reboot",
            "old-nodes",
            "http://192.0.2.5:8443/bmc/192.0.2.5/chassis/power/cycle",
        ),
    ] {
        let forward = sent(host.call::<Discovery>(method, asked, &[], b""));
        assert_eq!(
            (
                forward.slot.as_str(),
                forward.method.as_str(),
                forward.path.as_str()
            ),
            (slot, method, url)
        );
    }
    for name in [
        "localhost",
        "192.0.2.5:22",
        "192.0.2.5@evil",
        "1",
        "evil.example.com",
    ] {
        let called = host.get::<Discovery>(&format!("/discovery/{name}/facts"));
        assert_eq!(called.status(), 400, "{name}");
    }
}

#[test]
fn success_is_an_empty_200_and_refusals_are_500_with_the_code() {
    let _host = host();
    let told = |status| replaced(on_upstream::<Discovery>(FOREMAN.to_vec(), Ok(head(status))));
    assert_eq!(told(201), (200, String::new()));
    assert_eq!(
        told(422),
        (
            500,
            "Discovery failed, code 422, reason: Unprocessable Entity".to_owned()
        )
    );
    let silent = on_upstream::<Discovery>(FOREMAN.to_vec(), Err(Cause::Timeout(1)));
    assert_eq!(replaced(silent).0, 500);
}

#[test]
fn a_nodes_answer_goes_on_with_its_status_and_type_alone() {
    let _host = host();
    for status in [200, 404, 500] {
        let Verdict::Pass(passed) = on_upstream::<Discovery>(NODE.to_vec(), Ok(head(status)))
        else {
            panic!("replaced")
        };
        assert_eq!((passed.status, passed.headers.len()), (status, 1));
    }
    let silent = on_upstream::<Discovery>(NODE.to_vec(), Err(Cause::Unreachable("x".to_owned())));
    assert_eq!(replaced(silent).0, 500);
}
