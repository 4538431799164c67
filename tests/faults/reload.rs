//! SIGHUP: a new configuration is taken over while requests go on; a wrong one changes nothing.

use std::time::Duration;

use bulkhead_testkit::load::Load;
use bulkhead_testkit::{Bulkhead, Configuration, Signal, assert_eventually};

use crate::witness::Witness;

fn server_name(bulkhead: &Bulkhead) -> String {
    bulkhead.foreman().get("/tftp/serverName").json()["serverName"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Writes another configuration into the running program's place and tells it.
fn reload(bulkhead: &mut Bulkhead, change: impl FnOnce(Configuration) -> Configuration) {
    bulkhead.reconfigure(change);
    bulkhead.signal(Signal::Reload);
}

#[test]
fn a_changed_setting_is_taken_over() {
    let mut bulkhead =
        Bulkhead::with(Configuration::empty().tftp("tftp_servername = \"one.example.com\""));
    assert_eq!(server_name(&bulkhead), "one.example.com");
    let witness = Witness::of(&bulkhead);
    reload(&mut bulkhead, |configuration| {
        configuration.tftp("tftp_servername = \"two.example.com\"")
    });
    assert_eventually!(
        server_name(&bulkhead) == "two.example.com",
        "{}",
        bulkhead.log()
    );
    assert!(
        !bulkhead.log_lines("tftp_servername").is_empty(),
        "it says what changed:\n{}",
        bulkhead.log()
    );
    witness.leave();
}

#[test]
fn features_come_and_go() {
    let mut bulkhead = Bulkhead::with(Configuration::empty().tftp(""));
    let features = |bulkhead: &Bulkhead| bulkhead.foreman().get("/features").text();
    assert_eq!(features(&bulkhead), "[\"logs\",\"tftp\"]");
    let witness = Witness::of(&bulkhead);
    reload(&mut bulkhead, |configuration| configuration.httpboot(""));
    assert_eventually!(
        features(&bulkhead) == "[\"httpboot\",\"logs\",\"tftp\"]",
        "{}",
        bulkhead.log()
    );
    std::fs::write(bulkhead.boot().join("x"), "boot").unwrap();
    assert_eq!(bulkhead.hosts().get("/httpboot/x").text(), "boot");
    reload(&mut bulkhead, |configuration| {
        configuration.feature("httpboot", "enabled = false")
    });
    assert_eventually!(
        features(&bulkhead) == "[\"logs\",\"tftp\"]",
        "{}",
        bulkhead.log()
    );
    assert_eq!(bulkhead.hosts().get("/httpboot/x").status, 404);
    witness.leave();
}

#[test]
fn a_wrong_configuration_leaves_the_running_one_in_place() {
    let mut bulkhead =
        Bulkhead::with(Configuration::empty().tftp("tftp_servername = \"one.example.com\""));
    let witness = Witness::of(&bulkhead);
    for wrong in [
        "[features.tftp",
        "[nonsense]\nx = 1",
        "[log]\nbuffer = \"many\"",
        "[features.dhcp]\nenabled = \"sometimes\"",
        "[[listener]]\nlisten = [\"not an address\"]\naudiences = [\"foreman\"]",
    ] {
        let before = bulkhead.log().lines().count();
        let text = format!("{}\n{wrong}\n", bulkhead.configuration.text());
        bulkhead.configuration.scratch.file("proxy.toml", text);
        bulkhead.signal(Signal::Reload);
        assert_eventually!(
            bulkhead
                .log()
                .lines()
                .skip(before)
                .any(|line| line.contains("proxy.toml:")),
            "{wrong:?} is not reported with its place:\n{}",
            bulkhead.log()
        );
        assert_eq!(server_name(&bulkhead), "one.example.com");
        assert!(bulkhead.ended().is_none());
    }
    // And a right one afterwards is taken over.
    reload(&mut bulkhead, |configuration| {
        configuration.tftp("tftp_servername = \"two.example.com\"")
    });
    assert_eventually!(
        server_name(&bulkhead) == "two.example.com",
        "{}",
        bulkhead.log()
    );
    witness.leave();
}

#[test]
fn a_policy_that_is_wrong_or_gone_stops_nothing_that_runs() {
    let bulkhead = Bulkhead::trial();
    let witness = Witness::of(&bulkhead);
    bulkhead
        .configuration
        .scratch
        .file("policies/tftp.toml", "plugin = \"tftp\"\n[files.root\n");
    bulkhead.signal(Signal::Reload);
    assert_eventually!(
        !bulkhead.log_lines("tftp.toml").is_empty(),
        "the policy is not reported:\n{}",
        bulkhead.log()
    );
    assert_eq!(bulkhead.foreman().get("/tftp/serverName").status, 200);
    witness.leave();
}

#[cfg(feature = "unfinished")]
#[test]
fn listeners_come_and_go() {
    let mut bulkhead = Bulkhead::with(Configuration::standard());
    let witness = Witness::of(&bulkhead);
    let port = bulkhead_testkit::ports::free();
    let extra = bulkhead_testkit::Target::plain(bulkhead_testkit::configuration::loopback(port));
    reload(&mut bulkhead, |configuration| {
        configuration.section(&format!(
            "[[listener]]\nlisten = [\"127.0.0.1:{port}\"]\ntls = false\naudiences = [\"public\"]"
        ))
    });
    assert_eventually!(
        extra.request("GET", "/httpboot/").try_send().is_ok(),
        "{}",
        bulkhead.log()
    );
    assert_eq!(extra.get("/httpboot/").status, 403);
    witness.leave();
}

/// Twenty reloads under load: no request fails.
#[test]
fn reloads_lose_no_request() {
    let mut bulkhead = Bulkhead::trial();
    let target = bulkhead.foreman();
    let load = std::thread::spawn(move || {
        Load::full(16, Duration::from_secs(5)).get(&target, "/tftp/serverName")
    });
    for n in 0..20 {
        reload(&mut bulkhead, |configuration| {
            configuration.tftp(&format!("tftp_servername = \"n{n}.example.com\""))
        });
        std::thread::sleep(Duration::from_millis(200));
    }
    let measured = load.join().unwrap();
    assert!(measured.failures.is_empty(), "{measured}");
    assert!(measured.latencies.len() > 100, "{measured}");
    assert_eventually!(
        server_name(&bulkhead) == "n19.example.com",
        "{}",
        bulkhead.log()
    );
}
