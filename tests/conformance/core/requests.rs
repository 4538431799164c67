//! contract/core.md 7: request lines and ids.

use bulkhead_testkit::eventually::until;
use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Bulkhead, assert_eventually};

static BULKHEAD: Shared = Shared::new(Bulkhead::trial);

/// `Started GET /features ` (a space before the empty query) and `Finished GET /features with 200 (17.25 ms)`.
/// Deliberately more: fields for people who look for a fault may follow.
#[test]
fn requests_are_logged_when_they_start_and_finish() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    let messages = |id: &str| -> Vec<String> {
        let logs = target.get("/logs/").json()["logs"]
            .as_array()
            .expect("an array")
            .clone();
        logs.iter()
            .filter(|record| record["request_id"] == id && record["level"] == "INFO")
            .map(|record| record["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    target
        .request("GET", "/features")
        .header("X-Request-Id", "a1a1a1a1-x")
        .send();
    // The last line is written when the answer has gone out.
    let finished = |id: &str| {
        let done = |lines: &Vec<String>| lines.iter().any(|line| line.starts_with("Finished "));
        until(|| Some(messages(id)).filter(done)).unwrap_or_else(|| messages(id))
    };
    let lines = finished("a1a1a1a1");
    assert!(lines[0].starts_with("Started GET /features "), "{lines:?}");
    let last = lines.last().expect("a line");
    let took = last
        .strip_prefix("Finished GET /features with 200 (")
        .and_then(|rest| rest.split_once(" ms)"));
    assert!(
        took.is_some_and(|(took, _)| took.parse::<f64>().is_ok()),
        "{last}"
    );

    target
        .request("GET", "/tftp/serverName")
        .header("X-Request-Id", "c3c3c3c3-x")
        .send();
    let lines = finished("c3c3c3c3");
    assert!(
        lines
            .last()
            .unwrap()
            .starts_with("Finished GET /tftp/serverName with 200 ("),
        "a plugin's answer is told in the same words: {lines:?}"
    );

    target
        .request("GET", "/nothing?a=b&c")
        .header("X-Request-Id", "b2b2b2b2-x")
        .send();
    let lines = finished("b2b2b2b2");
    assert!(
        lines[0].starts_with("Started GET /nothing a=b&c"),
        "{lines:?}"
    );
    assert!(
        lines
            .last()
            .unwrap()
            .starts_with("Finished GET /nothing with 404 ("),
        "{lines:?}"
    );
}

/// `X-Session-Id` is taken into the log's context. Deliberately different: none is invented where Foreman sends none.
#[test]
fn foremans_session_is_logged() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    let started = |request: &str, session: &str| {
        target
            .request("GET", "/version")
            .header("X-Request-Id", request)
            .header("X-Session-Id", session)
            .send();
        let line = || {
            let logs = target.get("/logs/").json()["logs"].clone();
            let of_request = |record: &&serde_json::Value| {
                record["request_id"] == request
                    && record["message"]
                        .as_str()
                        .is_some_and(|it| it.starts_with("Started "))
            };
            let found = logs.as_array()?.iter().find(of_request)?;
            found["message"].as_str().map(str::to_owned)
        };
        until(line).expect("the request is logged")
    };
    let line = started("d4d4d4d4", "9b1c-session");
    assert!(line.contains(" session=9b1c-session"), "{line}");
    for none in ["", "two words"] {
        let line = started("e5e5e5e5", none);
        assert!(!line.contains("session"), "{line}");
    }
}

/// Deliberately different: the id is answered as well, so that whoever asks can name it.
#[test]
fn the_request_id_is_answered() {
    let target = BULKHEAD.get().foreman();
    let answer = target
        .request("GET", "/features")
        .header("X-Request-Id", "3e93e73f-5d8c")
        .send();
    assert_eq!(answer.header("x-request-id"), Some("3e93e73f-5d8c"));
    let made = target
        .get("/features")
        .header("x-request-id")
        .expect("one is made")
        .to_owned();
    assert_eq!(made.len(), 36, "a UUID: {made}");
    let other = target
        .get("/features")
        .header("x-request-id")
        .expect("one is made")
        .to_owned();
    assert_ne!(made, other);
}

/// An id that could forge a line of the log is not taken over.
#[test]
fn unprintable_request_ids_are_replaced() {
    let target = BULKHEAD.get().foreman();
    for id in ["\u{1b}[31mred", "x".repeat(4_000).as_str(), "tab\there", ""] {
        let answer = target
            .request("GET", "/features")
            .header("X-Request-Id", id)
            .send();
        if answer.status == 200 {
            let shown = answer.header("x-request-id").unwrap_or_default();
            assert!(
                !shown.is_empty() && shown != id && shown.len() <= 128,
                "{id:?}: {shown:?}"
            );
        } else {
            assert_eq!(answer.status, 400, "{answer}");
        }
    }
}

/// Nothing of a request can forge a line in the log.
#[test]
fn requests_cannot_forge_log_lines() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    target.get("/features?%0a2026-01-01T00:00:00%20[E]%20forged");
    target
        .request("GET", "/tftp/PXEGrub2/%1b[2Jforged%0aforged")
        .send();
    assert_eventually!(
        !bulkhead.log_lines("forged").is_empty(),
        "the requests are not logged"
    );
    for line in bulkhead.log().lines() {
        assert!(!line.starts_with("2026-01-01T00:00:00"), "{line:?}");
        assert!(
            !line.chars().any(|c| c.is_control() && c != '\t'),
            "{line:?}"
        );
    }
}
