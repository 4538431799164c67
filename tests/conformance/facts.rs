//! contract/facts.md: what the machine is that the proxy runs on.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Bulkhead, Configuration};

use crate::JSON;

static BULKHEAD: Shared =
    Shared::new(|| Bulkhead::with(Configuration::empty().feature("facts", "enabled = true")));

fn bulkhead() -> Arc<Bulkhead> {
    BULKHEAD.get()
}

fn file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// All facts in one object, with and without slash, on both of Foreman's doors; what the machine itself says is what is told.
#[test]
fn all_facts_are_one_object() {
    let bulkhead = bulkhead();
    for path in ["/facts", "/facts/"] {
        for target in [bulkhead.foreman_tls(), bulkhead.foreman()] {
            let answer = target.get(path);
            assert_eq!(
                (answer.status, answer.content_type()),
                (200, JSON),
                "{answer}"
            );
            let facts = answer.json();
            for name in [
                "kernel",
                "hostname",
                "fqdn",
                "interfaces",
                "os",
                "processors",
                "memory",
                "networking",
                "uptime",
                "virtual",
                "is_virtual",
            ] {
                assert!(!facts[name].is_null(), "{name}: {facts:#}");
            }
        }
    }
    let facts = bulkhead.foreman_tls().get("/facts").json();
    let hostname = file("/proc/sys/kernel/hostname");
    assert_eq!(facts["hostname"], hostname.split('.').next().unwrap());
    assert_eq!(facts["kernelrelease"], file("/proc/sys/kernel/osrelease"));
    let processors = file("/proc/cpuinfo").matches("processor\t:").count();
    if processors > 0 {
        assert_eq!(facts["processors"]["count"], processors);
    }
    let memory = file("/proc/meminfo");
    let total: u64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(facts["memory"]["system"]["total_bytes"], total * 1024);
    let interfaces: Vec<&str> = facts["interfaces"].as_str().unwrap().split(',').collect();
    let mut known: Vec<String> = std::fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    known.sort_unstable();
    assert_eq!(interfaces, known);
    for name in interfaces {
        let address = file(&format!("/sys/class/net/{name}/address"));
        let told = &facts["networking"]["interfaces"][name]["mac"];
        if address.contains(':') && address != "00:00:00:00:00:00" {
            assert_eq!(told, &serde_json::json!(address), "{facts:#}");
        } else {
            assert!(told.is_null(), "{name}: {told}");
        }
    }
}

/// Of the interface that leads out: its address, by the older names as well.
#[test]
fn the_primary_interface_is_the_one_that_leads_out() {
    let facts = bulkhead().foreman_tls().get("/facts").json();
    let Some(primary) = facts["networking"]["primary"].as_str() else {
        // A machine without a default route has none.
        assert!(
            !file("/proc/net/route").contains("\t00000000\t"),
            "{facts:#}"
        );
        return;
    };
    let of = &facts["networking"]["interfaces"][primary];
    for (older, key) in [
        ("ipaddress", "ip"),
        ("macaddress", "mac"),
        ("netmask", "netmask"),
    ] {
        assert_eq!(facts[older], of[key], "{facts:#}");
        assert_eq!(facts["networking"][key], of[key], "{facts:#}");
    }
}

/// One fact is an object of one; structured ones are objects themselves. What is not is 404.
#[test]
fn one_fact_by_its_name() {
    let foreman = bulkhead().foreman_tls();
    foreman
        .get("/facts/kernel")
        .assert_is(200, JSON, r#"{"kernel":"Linux"}"#);
    let memory = foreman.get("/facts/memory").json();
    assert!(
        memory["memory"]["system"]["total_bytes"].is_u64(),
        "{memory}"
    );
    assert_eq!(memory.as_object().unwrap().len(), 1);
    for absent in ["nonsense", "a%20b"] {
        let answer = foreman.get(&format!("/facts/{absent}"));
        let name = absent.replace("%20", " ");
        assert_eq!(
            (answer.status, answer.text()),
            (404, format!("Fact {name} not found"))
        );
    }
}

/// Each request looks anew.
#[test]
fn facts_are_fresh() {
    let foreman = bulkhead().foreman_tls();
    let seconds = || foreman.get("/facts/uptime_seconds").json()["uptime_seconds"].as_u64();
    let before = seconds().unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert!(seconds().unwrap() > before);
}

/// Foreman alone may ask; it sees a feature without settings and capabilities, and none at all unless it is enabled.
#[test]
fn foreman_alone_may_ask() {
    let bulkhead = bulkhead();
    let feature = bulkhead.foreman_tls().get("/v2/features").json()["facts"].clone();
    assert_eq!(feature["state"], "running", "{feature}");
    assert_eq!(feature["settings"], serde_json::json!({}));
    assert_eq!(feature["capabilities"], serde_json::json!([]));
    for path in ["/facts", "/facts/kernel"] {
        assert_eq!(bulkhead.hosts().get(path).status, 404, "not here");
        assert_eq!(bulkhead.hosts_tls_as(None).get(path).status, 404);
        assert_eq!(bulkhead.foreman_tls_as(None).get(path).status, 403);
        let post = bulkhead.foreman_tls().post(path, &[]);
        assert_eq!(post.status, 404, "nothing can be posted");
    }
    let without = Bulkhead::with(Configuration::empty());
    assert_eq!(without.foreman_tls().get("/facts").status, 404);
    let listed = without.foreman_tls().get("/features").json();
    assert_eq!(listed, serde_json::json!(["logs"]));
}

/// A file that the operator takes out of the policy takes its facts along, and no more.
#[test]
fn what_the_policy_leaves_out_is_left_out() {
    let policy = "[files.kernel-name]\nfile = \"/proc/sys/kernel/ostype\"";
    let bulkhead = Bulkhead::with(
        Configuration::empty()
            .policy("facts", policy)
            .feature("facts", "enabled = true"),
    );
    let facts = bulkhead.foreman_tls().get("/facts").json();
    assert_eq!(facts["kernel"], "Linux");
    for absent in ["hostname", "memory", "macaddress", "uptime"] {
        assert!(facts[absent].is_null(), "{absent}: {facts:#}");
    }
}

/// A fact that is false is not found by its name, as in the Smart Proxy; among all facts it stands.
#[test]
fn a_false_fact_is_not_found_by_name() {
    let configuration = Configuration::empty();
    let file = configuration
        .scratch
        .file("cpuinfo", "processor\t: 0\nflags\t\t: fpu lm\n");
    let policy = format!(
        "[files.processors]\nfile = {:?}",
        file.display().to_string()
    );
    let bulkhead = Bulkhead::with(
        configuration
            .policy("facts", &policy)
            .feature("facts", "enabled = true"),
    );
    let foreman = bulkhead.foreman_tls();
    assert_eq!(foreman.get("/facts").json()["is_virtual"], false);
    foreman
        .get("/facts/is_virtual")
        .assert_is(404, JSON, "Fact is_virtual not found");
}
