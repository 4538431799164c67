//! contract/plugins/pulp.md: the Pulp server beside this proxy, as Foreman is told of it.

use bulkhead_testkit::assert_eventually;

use crate::site::{PULP, bulkhead};

/// Settings as given, capabilities as Pulp says.
#[test]
fn foreman_learns_what_pulp_serves() {
    let bulkhead = bulkhead();
    let foreman = bulkhead.foreman_tls();
    let shown = || foreman.get("/v2/features").json()["pulpcore"].clone();
    assert_eventually!(shown()["capabilities"] == serde_json::json!(["core", "rpm"]));
    let settings = &shown()["settings"];
    assert_eq!(settings["content_app_url"], "https://content.example.com");
    assert_eq!(settings["mirror"], true);
    assert_eq!(settings["username"], "admin");
    assert!(settings["password"].is_null() && settings["rhsm_url"].is_null());
    assert_eq!(
        settings["client_authentication"],
        serde_json::json!(["password", "client_certificate"])
    );
    assert!(settings.get("ssl_ca").is_none());
}

/// Pulp's own status, to Foreman.
#[test]
fn the_status_is_pulps() {
    let bulkhead = bulkhead();
    let answer = bulkhead.foreman_tls().get("/pulpcore/status");
    answer.assert_is(200, "application/json", PULP);
    assert_eq!(bulkhead.hosts().get("/pulpcore/status").status, 404);
}
