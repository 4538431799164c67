//! contract/plugins/discovery.md: new machines hand in facts, Foreman commands them.

use bulkhead_testkit::assert_eventually;

use crate::HTML;
use crate::site::{bulkhead, foreman_got, foreman_got_any, node_got};

/// Anybody may hand in facts; a success is an empty 200, everything else a 500 with Foreman's code.
#[test]
fn facts_of_a_new_machine_reach_foreman() {
    let bulkhead = bulkhead();
    let hosts = bulkhead.hosts();
    let create = |body: &str| {
        hosts
            .request("POST", "/discovery/create")
            .body("application/json", body)
            .send()
    };
    create(r#"{"macaddress": "aa:bb:cc:dd:ee:ff"}"#).assert_is(200, HTML, "");
    let got = foreman_got("POST /api/v2/discovered_hosts/facts");
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert!(got.certificate.is_some());
    create(r#"{"bad": 1}"#).assert_is(
        500,
        HTML,
        "Discovery failed, code 422, reason: Unprocessable Entity",
    );
    assert_eq!(create("mark-no-json").status, 400);
    assert_eq!(
        hosts.get("/discovery/127.0.0.1/facts").status,
        404,
        "hosts command nobody"
    );
}

/// Foreman reads facts and restarts machines; statuses and bodies are the machine's.
#[test]
fn foreman_commands_machines_of_the_policys_networks() {
    let bulkhead = bulkhead();
    let foreman = bulkhead.foreman_tls();
    for path in [
        "/discovery/127.0.0.1/facts",
        "/discovery/127.0.0.1/inventory/facter",
    ] {
        foreman
            .get(path)
            .assert_is(200, "application/json", r#"{"kernel":"Linux"}"#);
    }
    let answer = foreman
        .request("PUT", "/discovery/127.0.0.1/power/reboot")
        .body("text/plain", "")
        .send();
    answer.assert_is(200, "application/json", "true");
    let answer = foreman
        .request("PUT", "/discovery/127.0.0.1/power/kexec")
        .body("application/json", r#"{"kernel":"x"}"#)
        .send();
    answer.assert_is(500, "application/json", r#"{"error":"no"}"#);
    assert_eq!(node_got("PUT /power/kexec").body, br#"{"kernel":"x"}"#);
}

/// Names, other networks and other paths are out of reach.
#[test]
fn other_machines_are_out_of_reach() {
    let bulkhead = bulkhead();
    let foreman = bulkhead.foreman_tls();
    assert_eq!(foreman.get("/discovery/localhost/facts").status, 400);
    assert_eq!(foreman.get("/discovery/127.0.0.2/facts").status, 500);
    assert_eventually!(
        bulkhead.log().contains("http.nodes.networks"),
        "{}",
        bulkhead.log()
    );
    assert!(!foreman_got_any("mark-no-json"));
    assert_eq!(
        bulkhead
            .foreman_tls_as(None)
            .get("/discovery/127.0.0.1/facts")
            .status,
        403
    );
}
