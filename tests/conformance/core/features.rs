//! contract/core.md 4: the feature listing, which Foreman reads at every save and refresh of the proxy.

use bulkhead_testkit::configuration::SHOWN_VERSION;
use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Bulkhead, Configuration};
use serde_json::{Value, json};

use crate::JSON;

static BULKHEAD: Shared = Shared::new(Bulkhead::trial);

/// `GET /features`: the sorted names of what runs.
#[test]
fn features_is_the_sorted_list_of_what_runs() {
    let bulkhead = BULKHEAD.get();
    for target in [
        bulkhead.foreman(),
        bulkhead.foreman_tls_as(None),
        bulkhead.foreman_tls(),
    ] {
        target
            .get("/features")
            .assert_is(200, JSON, "[\"httpboot\",\"logs\",\"tftp\"]");
    }
}

/// A feature enabled only for one of HTTP and HTTPS is listed on both.
#[test]
fn a_feature_of_one_scheme_is_listed_on_both_and_served_on_one() {
    let configuration = Configuration::standard();
    let root = configuration.boot().display().to_string();
    let bulkhead = Bulkhead::with(
        configuration.feature("tftp", &format!("enabled = \"https\"\ntftproot = {root:?}")),
    );
    for target in [bulkhead.foreman(), bulkhead.foreman_tls()] {
        target
            .get("/features")
            .assert_is(200, JSON, "[\"httpboot\",\"logs\",\"tftp\"]");
        let tftp = &target.get("/v2/features").json()["tftp"];
        assert_eq!(
            (&tftp["http_enabled"], &tftp["https_enabled"]),
            (&json!(false), &json!(true))
        );
    }
    assert_eq!(bulkhead.foreman_tls().get("/tftp/serverName").status, 200);
    bulkhead
        .foreman()
        .get("/tftp/serverName")
        .assert_is(404, JSON, "Requested url was not found");
}

/// `GET /version`: the whole version on top, modules without `-develop`.
#[test]
fn version_shows_the_smart_proxy_version_and_modules_without_develop() {
    let version = BULKHEAD.get().foreman().get("/version").json();
    assert_eq!(version["version"], SHOWN_VERSION);
    let modules = version["modules"].as_object().expect("an object");
    let mut names: Vec<&str> = modules.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["httpboot", "logs", "tftp"]);
    for (name, version) in modules {
        let version = version.as_str().expect("a text");
        assert!(
            !version.is_empty() && !version.contains("develop"),
            "{name}: {version}"
        );
    }
    // Foreman reads the first integers of the text: they have to be those of the version shown.
    assert_eq!(modules["logs"], "3.11.0");
}

/// Bulkhead's own version stands beside it, where Foreman does not look.
#[test]
fn version_shows_bulkheads_own_version_beside_it() {
    let version = BULKHEAD.get().foreman().get("/version").json();
    assert_eq!(version["bulkhead"], env!("CARGO_PKG_VERSION"));
}

/// `GET /v2/features`: the fields of a running feature, and no others.
#[test]
fn v2_shows_every_field_of_a_running_feature() {
    let bulkhead = BULKHEAD.get();
    let features = bulkhead.foreman_tls().get("/v2/features").json();
    assert_eq!(
        features["tftp"],
        json!({
            "http_enabled": true,
            "https_enabled": true,
            "settings": { "tftp_servername": null },
            "state": "running",
            "capabilities": [],
        })
    );
    assert_eq!(
        features["logs"],
        json!({ "http_enabled": true, "https_enabled": true, "settings": {}, "state": "running", "capabilities": [] })
    );
}

/// Exposed settings: the value in the file, `null` when unset.
#[test]
fn exposed_settings_show_their_value() {
    let configuration = Configuration::empty().tftp("tftp_servername = \"192.0.2.7\"");
    let bulkhead = Bulkhead::with(configuration);
    let tftp = &bulkhead.foreman().get("/v2/features").json()["tftp"];
    assert_eq!(tftp["settings"], json!({ "tftp_servername": "192.0.2.7" }));
    assert_eq!(
        bulkhead.foreman().get("/tftp/serverName").text(),
        "{\"serverName\":\"192.0.2.7\"}"
    );
}

/// HTTP boot shows the ports of the listeners it is served on; Foreman makes boot URLs of them.
#[test]
fn httpboot_shows_the_ports_it_is_served_on() {
    let bulkhead = BULKHEAD.get();
    let doors = bulkhead.configuration.doors;
    let settings = &bulkhead.foreman().get("/v2/features").json()["httpboot"]["settings"];
    assert_eq!(
        settings,
        &json!({ "http_port": doors.hosts_http, "https_port": doors.hosts_tls })
    );
}

/// A port of a scheme for which HTTP boot is switched off is `null`.
#[test]
fn httpboot_shows_null_for_a_scheme_that_is_off() {
    let configuration = Configuration::empty();
    let root = configuration.boot().display().to_string();
    let bulkhead = Bulkhead::with(configuration.feature(
        "httpboot",
        &format!("enabled = \"http\"\nroot_dir = {root:?}"),
    ));
    let httpboot = bulkhead.foreman().get("/v2/features").json()["httpboot"].clone();
    assert_eq!(
        httpboot["settings"],
        json!({ "http_port": bulkhead.configuration.doors.hosts_http, "https_port": null })
    );
    assert_eq!(
        (&httpboot["http_enabled"], &httpboot["https_enabled"]),
        (&json!(true), &json!(false))
    );
}

/// A disabled feature is listed with its state; its paths are nobody's.
#[test]
fn disabled_features_are_listed_and_not_served() {
    let bulkhead = Bulkhead::with(Configuration::empty().feature("tftp", "enabled = false"));
    let target = bulkhead.foreman();
    assert_eq!(
        target.get("/v2/features").json()["tftp"],
        json!({
            "http_enabled": false,
            "https_enabled": false,
            "settings": { "tftp_servername": null },
            "state": "disabled",
            "capabilities": [],
        })
    );
    target.get("/features").assert_is(200, JSON, "[\"logs\"]");
    target
        .get("/tftp/serverName")
        .assert_is(404, JSON, "Requested url was not found");
    bulkhead
        .foreman_tls_as(None)
        .get("/tftp/serverName")
        .assert_is(404, JSON, "Requested url was not found");
}

/// A feature that is not mentioned is as disabled as one that is switched off.
#[test]
fn features_nobody_enabled_are_disabled() {
    let bulkhead = Bulkhead::with(Configuration::empty());
    let features = bulkhead.foreman().get("/v2/features").json();
    for name in ["tftp", "httpboot"] {
        assert_eq!(features[name]["state"], "disabled", "{features:#}");
    }
    assert_eq!(
        features["logs"]["state"], "running",
        "logs is on by default"
    );
}

/// `logs` is on by default and can be switched off.
#[test]
fn logs_can_be_switched_off() {
    let bulkhead = Bulkhead::with(
        Configuration::empty()
            .tftp("")
            .feature("logs", "enabled = false"),
    );
    let target = bulkhead.foreman();
    target.get("/features").assert_is(200, JSON, "[\"tftp\"]");
    assert_eq!(
        target.get("/v2/features").json()["logs"]["state"],
        "disabled"
    );
    target
        .get("/logs/")
        .assert_is(404, JSON, "Requested url was not found");
}

/// Root and providers are no features.
#[test]
fn only_features_are_listed() {
    let features = BULKHEAD.get().foreman().get("/v2/features").json();
    let names = features.as_object().expect("an object").keys();
    for name in names {
        assert!(
            !name.contains('_') && name != "root" && !name.starts_with("dns-"),
            "{name} is no feature"
        );
    }
    let valid = |entry: &Value| {
        [
            "http_enabled",
            "https_enabled",
            "settings",
            "state",
            "capabilities",
        ]
        .iter()
        .all(|key| entry.get(key).is_some())
    };
    assert!(
        features.as_object().unwrap().values().all(valid),
        "{features:#}"
    );
}
