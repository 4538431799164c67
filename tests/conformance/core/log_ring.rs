//! contract/core.md 6 and contract/logs.md: what `/logs` shows.

use bulkhead_testkit::eventually::until;
use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Bulkhead, Configuration, Target, assert_eventually};
use serde_json::{Value, json};

use crate::JSON;

static BULKHEAD: Shared = Shared::new(Bulkhead::trial);

/// Main ring and tail ring of the small program, in records.
const SMALL: (usize, usize) = (20, 5);

static SMALL_RINGS: Shared = Shared::new(|| {
    let log = format!("[log]\nbuffer = {}\nbuffer_errors = {}", SMALL.0, SMALL.1);
    Bulkhead::with(Configuration::standard().section(&log))
});

fn records(target: &Target, query: &str) -> Vec<Value> {
    let answer = target.get(&format!("/logs/{query}"));
    assert_eq!(
        (answer.status, answer.content_type()),
        (200, JSON),
        "{answer}"
    );
    answer.json()["logs"].as_array().expect("an array").clone()
}

/// The shape of `info`: `level` is always null, `level_tail` 3, `failed_modules` always there.
#[test]
fn info_has_exactly_the_keys_foreman_needs() {
    let info = BULKHEAD.get().foreman().get("/logs/").json()["info"].clone();
    assert_eq!(
        info,
        json!({ "size": 2000, "tail_size": 1000, "level": null, "level_tail": 3, "failed_modules": {} })
    );
}

/// The sizes are those of the configuration.
#[test]
fn info_shows_the_configured_sizes() {
    let info = SMALL_RINGS.get().foreman().get("/logs/").json()["info"].clone();
    assert_eq!(
        (&info["size"], &info["tail_size"]),
        (&json!(SMALL.0), &json!(SMALL.1))
    );
}

/// Each record: a float of seconds, a level's name, a message; `backtrace` and `request_id` only where there is one.
#[test]
fn records_have_timestamp_level_and_message() {
    let target = BULKHEAD.get().foreman();
    target
        .request("GET", "/features")
        .header("X-Request-Id", "0123456789abcdef")
        .send();
    let records = records(&target, "");
    assert!(!records.is_empty());
    for record in &records {
        let keys: Vec<&str> = record
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        assert!(
            keys.starts_with(&["timestamp", "level", "message"]),
            "{record}"
        );
        assert!(
            record["timestamp"]
                .as_f64()
                .is_some_and(|seconds| seconds > 1.7e9),
            "{record}"
        );
        let level = record["level"].as_str().unwrap_or_default();
        assert!(
            ["DEBUG", "INFO", "WARN", "ERROR", "FATAL", "UNKNOWN"].contains(&level),
            "{record}"
        );
        assert!(record["message"].is_string(), "{record}");
        for key in ["backtrace", "request_id"] {
            assert!(
                record
                    .get(key)
                    .is_none_or(|value| value.as_str().is_some_and(|text| !text.is_empty())),
                "{record}"
            );
        }
    }
}

/// The request id is the first eight characters of `X-Request-Id`.
#[test]
fn records_carry_the_start_of_the_request_id() {
    let target = BULKHEAD.get().foreman();
    target
        .request("GET", "/features")
        .header("X-Request-Id", "feedc0de-1111-2222-3333-444455556666")
        .send();
    let mine: Vec<Value> = records(&target, "")
        .into_iter()
        .filter(|record| record["request_id"] == "feedc0de")
        .collect();
    assert!(mine.len() >= 2, "Started and Finished: {mine:?}");
}

/// `from_timestamp`: inclusive; junk and absence mean everything.
#[test]
fn from_timestamp_filters_inclusively_and_junk_means_all() {
    let target = BULKHEAD.get().foreman();
    for _ in 0..3 {
        target.get("/features");
    }
    let all = records(&target, "");
    let middle = &all[all.len() / 2]["timestamp"];
    let since = records(&target, &format!("?from_timestamp={middle}"));
    assert_eq!(
        &since[0]["timestamp"], middle,
        "the record of that very moment is shown"
    );
    assert!(since.len() < records(&target, "").len());
    for junk in [
        "?from_timestamp=junk",
        "?from_timestamp=",
        "?from_timestamp",
        "?other=1",
        "?from_timestamp=0",
        "?from_timestamp=-5",
    ] {
        let first = &records(&target, junk)[0];
        assert_eq!(first["timestamp"], all[0]["timestamp"], "{junk}");
    }
    assert!(records(&target, "?from_timestamp=99999999999").is_empty());
    // Foreman sends whole seconds.
    let second = middle.as_f64().unwrap() as u64;
    assert!(!records(&target, &format!("?from_timestamp={second}")).is_empty());
}

/// Reading the log is itself logged: two lines.
#[test]
fn reading_the_log_is_logged() {
    let target = BULKHEAD.get().foreman();
    target
        .request("GET", "/logs/")
        .header("X-Request-Id", "10a0f10a-0000")
        .send();
    // The second is written when the answer has gone out.
    let mine = || {
        records(&target, "")
            .into_iter()
            .filter(|record| record["request_id"] == "10a0f10a")
            .count()
    };
    assert_eventually!(mine() == 2, "{} lines", mine());
}

/// The main ring holds so many records; of those that fall out, errors go on to the tail ring and are shown first.
#[test]
fn errors_outlive_the_main_ring_and_come_first() {
    let bulkhead = SMALL_RINGS.get();
    let target = bulkhead.foreman();
    let refused = target.get("/tftp/PXEGrub2/an-error-to-remember");
    assert_eq!(refused.status, 403);
    for _ in 0..3 * SMALL.0 {
        target.get("/features");
    }
    let records = records(&target, "");
    assert!(
        records.len() <= SMALL.0 + SMALL.1,
        "{} records",
        records.len()
    );
    let first = &records[0];
    assert_eq!(first["level"], "ERROR", "{first}");
    assert!(
        records[..records.len() - SMALL.0]
            .iter()
            .all(|record| record["level"] == "ERROR"),
        "{records:#?}"
    );
    assert!(
        records.iter().any(|record| record["message"]
            .as_str()
            .unwrap_or_default()
            .contains("an-error-to-remember")),
        "{records:#?}"
    );
    let infos = records
        .iter()
        .filter(|record| record["level"] == "INFO")
        .count();
    assert!(
        infos >= SMALL.0 - SMALL.1,
        "the main ring holds the newest: {records:#?}"
    );
    let main = &records[records.len() - SMALL.0..];
    let times: Vec<f64> = main
        .iter()
        .filter_map(|record| record["timestamp"].as_f64())
        .collect();
    assert!(times.is_sorted(), "oldest first: {times:?}");
}

/// A record is kept only if its level is logged.
#[test]
fn records_below_the_log_level_are_not_kept() {
    let bulkhead = Bulkhead::with(Configuration::empty().section("[log]\nlevel = \"error\""));
    let target = bulkhead.foreman();
    target.get("/features");
    let records = records(&target, "");
    assert!(
        records
            .iter()
            .all(|record| record["level"] == "ERROR" || record["level"] == "FATAL"),
        "{records:#?}"
    );
}

/// Sizes have to be more than one.
#[test]
fn ring_sizes_of_one_are_refused() {
    for line in ["buffer = 1", "buffer = 0", "buffer_errors = 1"] {
        let configuration = Configuration::empty().section(&format!("[log]\n{line}"));
        let path = configuration.write();
        let finished = bulkhead_testkit::run(["check", "--config", path.to_str().unwrap()]);
        assert_eq!(finished.code(), Some(3), "{line}: {}", finished.text());
    }
}

/// Whatever a client sends becomes valid text.
#[test]
fn odd_bytes_become_valid_text() {
    let target = BULKHEAD.get().foreman();
    let bytes = [
        b"GET /features?\xff\xfe\x80 HTTP/1.1\r\nHost: ".as_slice(),
        target.host().as_bytes(),
        b"\r\n\r\n",
    ]
    .concat();
    // Accepted or refused, the log has to stay readable.
    let _ = target
        .send(bytes)
        .and_then(|mut connection| connection.response("GET"));
    let answer = target.get("/logs/");
    assert!(std::str::from_utf8(&answer.body).is_ok());
    answer.json();
}

/// A deliberate error is logged as one.
#[test]
fn refused_requests_are_logged_as_errors() {
    let target = BULKHEAD.get().foreman();
    target.get("/tftp/PXEGrub2/nonsense");
    error_about(&target, "Invalid MAC address: nonsense");
}

/// A line that a plugin writes belongs to the request it was written for.
#[test]
fn lines_of_plugins_carry_the_request_id() {
    let target = BULKHEAD.get().foreman();
    target
        .request("GET", "/tftp/PXEGrub2/with-an-id")
        .header("X-Request-Id", "badbadba-d")
        .send();
    let error = error_about(&target, "Invalid MAC address: with-an-id");
    assert_eq!(error["request_id"], "badbadba", "{error}");
}

/// An error that the host answers for a plugin, of a file here, is logged as one; and a success is not.
#[test]
fn refused_files_are_logged_as_errors() {
    let bulkhead = BULKHEAD.get();
    std::fs::write(bulkhead.boot().join("there"), "x").unwrap();
    for (name, id) in [("there", "f11e0001"), ("absent", "f11e0002")] {
        bulkhead
            .hosts()
            .request("GET", &format!("/httpboot/{name}"))
            .header("X-Request-Id", id)
            .send();
    }
    let target = bulkhead.foreman();
    let error = error_where(&target, |record| record["request_id"] == "f11e0002");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("httpboot: Not found"), "{error}");
    assert!(
        records(&target, "")
            .iter()
            .all(|record| record["level"] != "ERROR" || record["request_id"] != "f11e0001")
    );
}

/// A deliberate error stands there once.
#[test]
fn an_error_is_logged_once() {
    let target = BULKHEAD.get().foreman();
    target
        .request("GET", "/tftp/PXEGrub2/once-and-only-once")
        .header("X-Request-Id", "0ce00001")
        .send();
    let of_it = |record: &Value| record["request_id"] == "0ce00001";
    error_where(&target, of_it);
    assert_eventually!(
        records(&target, "").iter().any(|record| of_it(record)
            && record["message"]
                .as_str()
                .unwrap_or_default()
                .starts_with("Finished ")),
        "the request never finished"
    );
    let errors = records(&target, "")
        .into_iter()
        .filter(|record| of_it(record) && record["level"] == "ERROR")
        .count();
    assert_eq!(errors, 1);
}

/// The record of level ERROR that says this.
#[track_caller]
fn error_about(target: &Target, message: &str) -> Value {
    error_where(target, |record| {
        record["message"]
            .as_str()
            .unwrap_or_default()
            .contains(message)
    })
}

#[track_caller]
fn error_where(target: &Target, is_it: impl Fn(&Value) -> bool) -> Value {
    let found = until(|| {
        records(target, "")
            .into_iter()
            .find(|record| record["level"] == "ERROR" && is_it(record))
    });
    found.unwrap_or_else(|| panic!("no such error: {:#?}", records(target, "")))
}
