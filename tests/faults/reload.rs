//! SIGHUP: a new configuration is taken over while requests go on; a wrong one changes nothing.

use std::time::Duration;

use bulkhead_testkit::load::Load;
use bulkhead_testkit::{Bulkhead, Configuration, Signal, assert_eventually, process};

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
    // It says so once all that changed is in place, which is later than the first answer of the new version.
    assert_eventually!(
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

/// Threads that serve connections step back for Foreman's only where Foreman does not come in: a listener that gets or loses that audience is served by
/// others from then on.
#[test]
fn a_listener_that_foreman_comes_to_use_is_served_by_foremans_threads() {
    const OURS: &str = "serve";
    const HOSTS: &str = "serve-hosts";
    let mut bulkhead = Bulkhead::with(Configuration::standard());
    let standard = bulkhead.configuration.clone();
    let port = bulkhead_testkit::ports::free();
    let target = bulkhead_testkit::Target::plain(bulkhead_testkit::configuration::loopback(port));
    let status = || {
        let asked = target.request("GET", "/tftp/serverName").try_send();
        asked.map(|it| it.status).ok()
    };
    for (audiences, expected, busy, idle) in [
        ("[\"public\"]", 404, HOSTS, OURS),
        ("[\"public\", \"foreman\"]", 200, OURS, HOSTS),
        ("[\"host\"]", 404, HOSTS, OURS),
        ("[\"foreman\"]", 200, OURS, HOSTS),
    ] {
        reload(&mut bulkhead, |_| {
            standard.clone().section(&format!(
                "[[listener]]\nname = \"extra\"\nlisten = [\"127.0.0.1:{port}\"]\naudiences = {audiences}\n\
                 limits = {{ requests_per_address = 1000000, request_burst = 1000000 }}"
            ))
        });
        assert_eventually!(
            status() == Some(expected),
            "{audiences}: {}",
            bulkhead.log()
        );
        let times = || [busy, idle].map(|name| process::thread_time(bulkhead.pid(), name));
        let before = times();
        let load = Load::reconnecting(8, Duration::from_secs(2)).get(&target, "/features");
        assert!(load.failures.is_empty(), "{load}");
        let after = times();
        let [worked, rested] = [after[0] - before[0], after[1] - before[1]];
        assert!(
            worked > Duration::from_millis(100) && rested < worked / 4,
            "{audiences}: {busy} worked {worked:?}, {idle} {rested:?}; {load}"
        );
    }
}

/// Listeners are added, changed and removed, and the others keep even their open connections.
#[test]
fn listeners_come_and_go() {
    let mut bulkhead = Bulkhead::with(Configuration::standard());
    let standard = bulkhead.configuration.clone();
    let witness = Witness::of(&bulkhead);
    let foreman = bulkhead.foreman();
    let mut kept = foreman
        .send(foreman.request("GET", "/features").bytes())
        .unwrap();
    kept.response("GET").unwrap();

    let port = bulkhead_testkit::ports::free();
    let extra = bulkhead_testkit::Target::plain(bulkhead_testkit::configuration::loopback(port));
    let listener = |rest: &str| {
        standard.clone().section(&format!(
            "[[listener]]\nname = \"extra\"\nlisten = [\"127.0.0.1:{port}\"]\n{rest}"
        ))
    };
    let status = |path: &str| {
        extra
            .request("GET", path)
            .try_send()
            .map(|it| it.status)
            .ok()
    };
    reload(&mut bulkhead, |_| listener("audiences = [\"public\"]"));
    assert_eventually!(
        status("/httpboot/") == Some(403),
        "added: {}",
        bulkhead.log()
    );
    assert_eq!(
        status("/tftp/serverName"),
        Some(404),
        "Foreman is not served there"
    );

    // The same socket for another audience: an old connection ends, a new one is served as configured.
    let mut old = extra
        .send(extra.request("GET", "/httpboot/").bytes())
        .unwrap();
    old.response("GET").unwrap();
    reload(&mut bulkhead, |_| listener("audiences = [\"foreman\"]"));
    assert_eventually!(
        status("/tftp/serverName") == Some(200),
        "changed: {}",
        bulkhead.log()
    );
    assert!(
        old.closes_within(Duration::from_secs(5)),
        "a connection of before the change stays"
    );

    // An address that overlaps with the one that goes.
    reload(&mut bulkhead, |_| {
        standard.clone().section(&format!(
            "[[listener]]\nname = \"wide\"\nlisten = [\"0.0.0.0:{port}\"]\naudiences = [\"public\"]"
        ))
    });
    assert_eventually!(
        status("/httpboot/") == Some(403),
        "widened: {}",
        bulkhead.log()
    );

    // One that cannot be had changes nothing, not even what else the file says.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let before = bulkhead.log().lines().count();
    reload(&mut bulkhead, |_| {
        standard.clone().section(&format!(
            "[[listener]]\nname = \"taken\"\nlisten = [\"{}\"]\naudiences = [\"public\"]",
            taken.local_addr().unwrap()
        ))
    });
    assert_eventually!(
        bulkhead
            .log()
            .lines()
            .skip(before)
            .any(|line| line.contains("not taken over") && line.contains("cannot listen")),
        "{}",
        bulkhead.log()
    );
    assert_eq!(status("/httpboot/"), Some(403), "the one before stays");

    reload(&mut bulkhead, |_| standard.clone());
    assert_eventually!(
        status("/httpboot/").is_none(),
        "removed: {}",
        bulkhead.log()
    );
    kept.send(foreman.request("GET", "/features").bytes())
        .unwrap();
    assert_eq!(
        kept.response("GET").unwrap().status,
        200,
        "a connection of another listener did not survive"
    );
    witness.leave();
}

/// Other certificate files in `[tls]`: new handshakes use them; files that cannot be used leave those before.
#[test]
fn certificates_move_to_other_files() {
    let mut bulkhead = Bulkhead::with(Configuration::standard());
    let witness = Witness::of(&bulkhead);
    let of_another_ca = bulkhead_testkit::Authority::root("Another CA");
    let stranger = of_another_ca.client(Some("foreman.example.com"), &["foreman.example.com"]);
    let scratch = bulkhead.configuration.scratch.clone();
    let tried = |bulkhead: &Bulkhead| {
        bulkhead
            .foreman_tls_as(Some(&stranger))
            .request("GET", "/features")
            .try_send()
            .map(|it| it.status)
            .ok()
    };
    assert_ne!(tried(&bulkhead), Some(200));
    let text = bulkhead.configuration.text();
    let ca = scratch.join("tls/ca.pem").display().to_string();
    let other = scratch.join("tls/other-ca.pem").display().to_string();
    scratch.file("proxy.toml", text.replace(&ca, &other));
    bulkhead.signal(Signal::Reload);
    assert_eventually!(
        bulkhead
            .log_lines("not taken over")
            .iter()
            .any(|line| line.contains("other-ca.pem")),
        "{}",
        bulkhead.log()
    );
    assert_eq!(bulkhead.foreman_tls().get("/features").status, 200);
    scratch.file(
        "tls/other-ca.pem",
        format!(
            "{}{}",
            bulkhead.configuration.authority.pem(),
            of_another_ca.pem()
        ),
    );
    bulkhead.signal(Signal::Reload);
    assert_eventually!(tried(&bulkhead) == Some(200), "{}", bulkhead.log());
    assert_eq!(bulkhead.foreman_tls().get("/features").status, 200);
    bulkhead.reconfigure(|configuration| configuration);
    witness.leave();
}

/// Sockets that were opened before the program started: it serves them, by address and by name.
#[test]
fn sockets_handed_over_are_served() {
    let plain = Configuration::standard();
    let port = plain.doors.hosts_http;
    let by_address = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let by_name = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let named = by_name.local_addr().unwrap();
    let configuration = plain.section(&format!(
        "[[listener]]\nname = \"extra\"\nlisten = [\"127.0.0.1:{}\"]\naudiences = [\"public\"]",
        bulkhead_testkit::ports::free()
    ));
    let bulkhead =
        Bulkhead::with_sockets(configuration, &[(&by_address, "x"), (&by_name, "extra")]);
    // The test's own descriptors are gone: who answers is the program.
    drop((by_address, by_name));
    assert_eq!(bulkhead.hosts().get("/httpboot/").status, 403);
    let extra = bulkhead_testkit::Target::plain(named);
    assert_eq!(extra.get("/httpboot/").status, 403);
    assert_eventually!(
        bulkhead.log_lines("handed over").len() == 2,
        "{}",
        bulkhead.log()
    );
}

/// Sockets of services as well, over UDP and TCP: a low port needs no right then.
#[test]
fn sockets_handed_over_to_a_service_are_served() {
    use std::io::{Read as _, Write as _};
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (named, streamed) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    let configuration = Configuration::empty().plugin(
        "echo-reactor",
        bulkhead_fixtures::wasm("echo-reactor"),
        &format!("[listen.echo]\nsockets = [\"udp {named}\", \"tcp {streamed}\"]"),
    );
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let bulkhead = Bulkhead::with_sockets(configuration, &[(&udp, "a"), (&tcp, "b")]);
    drop((udp, tcp));
    client.send_to(b"ping", named).unwrap();
    let mut buffer = [0; 16];
    let size = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..size], b"ping", "{}", bulkhead.log());
    let mut stream = std::net::TcpStream::connect(streamed).unwrap();
    stream.write_all(b"\x00\x02ab").unwrap();
    let mut got = [0; 4];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"\x00\x02ab");
    let said = bulkhead.log();
    assert!(
        !said.contains("does not listen") && !said.contains("nothing in the configuration"),
        "{said}"
    );
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

/// What is read only at start: a reload says so of each key that changed, and of no other, and the rest of the file holds at once.
#[test]
fn keys_that_wait_for_the_next_start_are_named() {
    let waiting = [
        ("drain", "drain = \"7s\"", ""),
        ("engine", "", "[engine]\nwarm_slots = 3"),
        (
            "log.target and log.format",
            "",
            "[log]\ntarget = \"./other.log\"",
        ),
        (
            "log.buffer and log.buffer_errors",
            "",
            "[log]\nbuffer = 100",
        ),
    ];
    let mut bulkhead = Bulkhead::with(Configuration::empty().tftp(""));
    let standard = bulkhead.configuration.clone();
    let said = |bulkhead: &Bulkhead, key: &str| {
        let line = format!("{key}: changed in the file, it takes effect at the next start");
        bulkhead.log_lines(&line).len()
    };
    for (position, (key, top, section)) in waiting.into_iter().enumerate() {
        let name = format!("n{position}.example.com");
        reload(&mut bulkhead, |_| {
            let changed = standard.clone().top(top).section(section);
            changed.tftp(&format!("tftp_servername = {name:?}"))
        });
        assert_eventually!(said(&bulkhead, key) == 1, "{key}: {}", bulkhead.log());
        assert_eventually!(
            server_name(&bulkhead) == name,
            "the rest of the file does not hold: {}",
            bulkhead.log()
        );
        for (other, _, _) in waiting.iter().skip(position + 1) {
            assert_eq!(said(&bulkhead, other), 0, "{other}: {}", bulkhead.log());
        }
        // Back to what runs: nothing waits any more.
        reload(&mut bulkhead, |_| standard.clone().tftp(""));
        assert_eventually!(server_name(&bulkhead).is_empty(), "{}", bulkhead.log());
        assert_eq!(said(&bulkhead, key), 1, "{}", bulkhead.log());
    }
    // Where the state is: another directory is not even made.
    let elsewhere = standard.scratch.join("elsewhere");
    let text = standard.tftp("").text();
    let state = bulkhead.configuration.scratch.join("state");
    let moved = text.replace(
        &format!("state = {:?}", state.display().to_string()),
        &format!("state = {:?}", elsewhere.display().to_string()),
    );
    assert_ne!(text, moved);
    bulkhead.configuration.scratch.file("proxy.toml", moved);
    bulkhead.signal(Signal::Reload);
    assert_eventually!(said(&bulkhead, "state") == 1, "{}", bulkhead.log());
    assert!(!elsewhere.exists());
}

/// A setting that a plugin's list refuses is a mistake in the file like any other: nothing of that file is taken over.
#[test]
fn a_setting_that_a_plugin_refuses_leaves_the_running_configuration_in_place() {
    let mut bulkhead =
        Bulkhead::with(Configuration::empty().tftp("tftp_servername = \"one.example.com\""));
    for (wrong, said) in [
        ("verify_server_cert = \"yes\"", "true/false"),
        ("tftp_servernam = \"x\"", "`tftp_servername`"),
    ] {
        let before = bulkhead.log().lines().count();
        reload(&mut bulkhead, |configuration| {
            configuration.tftp(&format!("tftp_connect_timeout = 3\n{wrong}"))
        });
        assert_eventually!(
            bulkhead
                .log()
                .lines()
                .skip(before)
                .any(|line| line.contains("not taken over") && line.contains(said)),
            "{wrong}: {}",
            bulkhead.log()
        );
        assert_eq!(server_name(&bulkhead), "one.example.com");
    }
}
