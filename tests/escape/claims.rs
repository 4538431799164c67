//! What a plugin says of itself is believed as far as its digest is approved, and no further.

use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually};

use crate::stage::SONG;

/// The state of a plugin as its operator sees it.
fn state(bulkhead: &Bulkhead, name: &str) -> String {
    let plugins = bulkhead.admin().get("/plugins").json();
    let found = plugins
        .as_array()
        .into_iter()
        .flatten()
        .find(|plugin| plugin["name"] == name);
    found
        .and_then(|plugin| plugin["state"].as_str())
        .unwrap_or_default()
        .to_owned()
}

/// A file nobody approved waits, and nothing of it is served.
#[test]
fn an_unapproved_file_waits() {
    let configuration = Configuration::standard()
        .plugin("prober", bulkhead_fixtures::wasm("prober"), "")
        .policy("prober", "approved = [\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"]");
    let bulkhead = Bulkhead::launch(configuration, &[]);
    assert_eventually!(
        bulkhead
            .foreman()
            .request("GET", "/tftp/serverName")
            .try_send()
            .is_ok_and(|answer| answer.status == 200)
    );
    assert_eventually!(
        state(&bulkhead, "prober") == "pending",
        "{}",
        bulkhead.admin().get("/plugins")
    );
    let answer = bulkhead.foreman().get("/prober/environment");
    assert!(matches!(answer.status, 404 | 503), "{answer}");
}

/// A file under another plugin's file name inherits nothing: its manifest says who it is, its digest whether that counts.
#[test]
fn a_file_name_makes_nobody_another_plugin() {
    let configuration = Configuration::standard();
    configuration
        .scratch
        .file("plugins/tftp.wasm", bulkhead_fixtures::wasm("prober"));
    configuration.scratch.file("boot/canary", SONG);
    let bulkhead = Bulkhead::launch(configuration, &[]);
    assert_eventually!(
        bulkhead
            .foreman()
            .request("GET", "/tftp/serverName")
            .try_send()
            .is_ok_and(|answer| answer.status == 200),
        "the real TFTP serves:\n{}",
        bulkhead.log()
    );
    let answer = bulkhead.foreman().get("/prober/read?path=/root/canary");
    assert!(!answer.text().contains(SONG), "{answer}");
    assert_ne!(answer.status, 200, "{answer}");
}

/// What is no component at all is named and harms nobody.
#[test]
fn files_that_are_no_plugin_are_named() {
    let configuration = Configuration::standard();
    for (name, content) in [
        ("empty", Vec::new()),
        ("text", b"this is no component".to_vec()),
        ("half", bulkhead_fixtures::wasm("hello")[..5_000].to_vec()),
        ("module", b"\0asm\x01\0\0\0".to_vec()),
    ] {
        configuration
            .scratch
            .file(&format!("plugins/{name}.wasm"), content);
    }
    let bulkhead = Bulkhead::launch(configuration, &[]);
    assert_eventually!(
        bulkhead
            .foreman()
            .request("GET", "/tftp/serverName")
            .try_send()
            .is_ok_and(|answer| answer.status == 200),
        "{}",
        bulkhead.log()
    );
    for name in ["empty.wasm", "text.wasm", "half.wasm", "module.wasm"] {
        assert_eventually!(
            !bulkhead.log_lines(name).is_empty(),
            "{name} is not named:\n{}",
            bulkhead.log()
        );
    }
}
