//! contract/logs.md: the feature around `/logs`. What is in it is held in `core/log_ring.rs`.

use bulkhead_testkit::Bulkhead;
use bulkhead_testkit::program::Shared;
use serde_json::json;

use crate::JSON;

static BULKHEAD: Shared = Shared::new(Bulkhead::trial);

/// One route, with and without slash; nothing below it.
#[test]
fn logs_is_one_route_with_and_without_slash() {
    let target = BULKHEAD.get().foreman();
    for path in [
        "/logs",
        "/logs/",
        "/logs?from_timestamp=0",
        "/logs/?from_timestamp=0",
    ] {
        assert_eq!(target.get(path).status, 200, "{path}");
    }
    for path in ["/logs/x", "/logs/features", "/logs//x"] {
        target
            .get(path)
            .assert_is(404, JSON, "Requested url was not found");
    }
}

/// No settings to show, no capabilities.
#[test]
fn the_feature_exposes_nothing() {
    let features = BULKHEAD.get().foreman().get("/v2/features").json();
    assert_eq!(
        (
            &features["logs"]["settings"],
            &features["logs"]["capabilities"]
        ),
        (&json!({}), &json!([]))
    );
}

/// What Foreman needs of the answer (contract/foreman-client.md 4): it raises when `failed_modules` is missing.
#[test]
fn foreman_finds_what_it_needs() {
    let target = BULKHEAD.get().foreman_tls();
    let answer = target
        .request("GET", "/logs/?from_timestamp=0")
        .as_foreman()
        .send()
        .json();
    assert!(answer["info"]["failed_modules"].is_object(), "{answer}");
    for record in answer["logs"].as_array().expect("an array") {
        assert!(
            record["timestamp"].is_number()
                && record["level"].is_string()
                && record["message"].is_string()
        );
    }
}
