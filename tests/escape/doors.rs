//! Every door, with its grant and without: what opens it is the grant and nothing else.

use std::fs;

use bulkhead_testkit::assert_eventually;

use crate::stage::{SONG, Stage};

/// One attack: what it is called, what the attacker is told, what its success shows, what the denial names.
struct Attack {
    name: &'static str,
    what: &'static str,
    fields: Vec<(&'static str, String)>,
    shows: &'static str,
}

fn attacks(stage: &Stage) -> Vec<Attack> {
    let web = |path: &str| stage.web.url(path);
    let attack = |name, what, fields: &[(&'static str, &str)], shows| Attack {
        name,
        what,
        fields: fields
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect(),
        shows,
    };
    let (tcp, udp) = (
        format!("127.0.0.1:{}", stage.tcp),
        format!("127.0.0.1:{}", stage.udp),
    );
    vec![
        attack("read a file", "read", &[("path", "/data/canary")], SONG),
        attack(
            "read a file of a read-only tree",
            "read",
            &[("path", "/readable/canary")],
            SONG,
        ),
        attack("list a directory", "list", &[("path", "/data")], "canary"),
        attack(
            "write a file",
            "write",
            &[("path", "/data/written"), ("text", "x")],
            "ok",
        ),
        attack(
            "rename a file",
            "rename",
            &[("path", "/data/written"), ("to", "/data/renamed")],
            "ok",
        ),
        attack(
            "remove a file",
            "remove",
            &[("path", "/data/renamed")],
            "ok",
        ),
        attack("connect by TCP", "tcp", &[("address", &tcp)], SONG),
        attack(
            "send by UDP",
            "udp",
            &[("address", &udp), ("text", "ping")],
            SONG,
        ),
        attack(
            "look a name up",
            "resolve",
            &[("name", "localhost")],
            "127.0.0.1",
        ),
        attack(
            "send by HTTP",
            "http",
            &[
                ("slot", "api"),
                ("method", "GET"),
                ("target", "/file/canary"),
            ],
            SONG,
        ),
        attack(
            "ask Foreman",
            "foreman",
            &[
                ("slot", "foreman"),
                ("method", "GET"),
                ("target", "/api/status"),
            ],
            SONG,
        ),
        attack(
            "keep a key",
            "store",
            &[("slot", "keys"), ("key", "a")],
            "ok",
        ),
        attack("see a secret", "reveal", &[("slot", "key")], SONG),
        attack(
            "start a download",
            "download",
            &[
                ("slot", "media"),
                ("url", &web("file/canary")),
                ("path", "fetched"),
            ],
            "ok",
        ),
        attack(
            "have a file sent",
            "file",
            &[("slot", "data"), ("path", "canary")],
            SONG,
        ),
        attack(
            "forward to a web server",
            "forward",
            &[
                ("slot", "api"),
                ("method", "GET"),
                ("target", "/file/canary"),
            ],
            SONG,
        ),
        attack(
            "forward to Foreman",
            "forward",
            &[
                ("slot", "foreman"),
                ("method", "GET"),
                ("target", "/api/status"),
            ],
            SONG,
        ),
    ]
}

#[test]
fn with_its_grant_every_attack_reaches_its_canary() {
    let stage = Stage::granted();
    let mut closed = Vec::new();
    for attack in attacks(&stage) {
        let fields: Vec<(&str, &str)> = attack
            .fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = stage.try_to(attack.what, &fields);
        if !answer.contains(attack.shows) || answer.contains("refused") {
            closed.push(format!("{}: {answer}", attack.name));
        }
    }
    assert!(
        closed.is_empty(),
        "these prove nothing:\n{}",
        closed.join("\n")
    );
    assert_eventually!(
        stage.data.join("fetched").exists(),
        "the download never came:\n{}",
        stage.bulkhead.log()
    );
}

#[test]
fn without_a_grant_no_attack_reaches_anything() {
    let stage = Stage::bare();
    let before = fs::read_dir(&stage.data).unwrap().count();
    for attack in attacks(&stage) {
        let fields: Vec<(&str, &str)> = attack
            .fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = stage.try_to(attack.what, &fields);
        assert!(
            !answer.contains(SONG) && !answer.starts_with("200 ok"),
            "{}: {answer}",
            attack.name
        );
    }
    assert_eq!(stage.reached(), 0, "a socket canary was reached");
    assert_eq!(stage.web.requests().len(), 0, "the web server was reached");
    assert_eq!(stage.foreman.connections(), 0, "Foreman was reached");
    assert_eq!(
        fs::read_dir(&stage.data).unwrap().count(),
        before,
        "the directory was changed"
    );
    for slot in ["api", "foreman", "keys", "key", "media"] {
        stage.assert_denied(slot);
    }
    // A datagram has to leave from somewhere: that is where it is denied.
    for denied in [
        &format!("127.0.0.1:{}", stage.tcp),
        "UDP socket",
        "localhost",
    ] {
        stage.assert_denied(denied);
    }
}

/// A denial teaches: who, what, and the very line that would allow it.
#[test]
fn denials_show_the_line_that_would_allow_them() {
    let stage = Stage::bare();
    let address = format!("127.0.0.1:{}", stage.tcp);
    stage.try_to("tcp", &[("address", &address)]);
    stage.assert_denied(&format!("tcp {address}"));
    let logs = || stage.bulkhead.foreman().get("/logs/").text();
    assert_eventually!(logs().contains(&address), "{}", logs());
    let metrics = || stage.bulkhead.admin().get("/metrics").text();
    let counted =
        |line: &str| line.contains("denial") && line.contains("prober") && !line.ends_with(" 0");
    assert_eventually!(metrics().lines().any(counted), "{}", metrics());
}

/// The same denial again is counted, not printed.
#[test]
fn repeated_denials_are_counted_not_printed() {
    let stage = Stage::bare();
    let address = format!("127.0.0.1:{}", stage.tcp);
    for _ in 0..200 {
        stage.try_to("tcp", &[("address", &address)]);
    }
    stage.assert_denied(&address);
    let printed = stage
        .bulkhead
        .log()
        .lines()
        .filter(|line| line.contains("denied") && line.contains(&address))
        .count();
    assert!(printed < 10, "printed {printed} times");
}
