//! contract/plugins/discovery.md: new machines hand in facts, Foreman commands them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::{Duration, Instant};

use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::{Authority, Bulkhead, Configuration, Response, assert_eventually, run};
use serde_json::json;

use crate::HTML;
use crate::site::{bulkhead, foreman_got, foreman_got_any, node_got};

const JSON: &str = "application/json";

fn create(bulkhead: &Bulkhead, body: impl AsRef<[u8]>) -> Response {
    let hosts = bulkhead.hosts();
    let request = hosts.request("POST", "/discovery/create");
    request.body(JSON, body).send()
}

/// Anybody may hand in facts, over both schemes; they reach Foreman byte for byte, by the proxy's certificate. A success is an empty 200.
#[test]
fn facts_of_a_new_machine_reach_foreman() {
    let bulkhead = bulkhead();
    // As large as facts of a machine with many disks are; spaces and order are the machine's own.
    let facts = format!(
        "{{ \"mark\" : \"large\",\n\"z\":\"{}\", \"a\":\"\u{e4}\" }}",
        "x".repeat(500_000)
    );
    for target in [bulkhead.hosts(), bulkhead.hosts_tls_as(None)] {
        let request = target.request("POST", "/discovery/create?a=1&url=evil");
        request.body(JSON, &facts).send().assert_is(200, HTML, "");
        let got = foreman_got("POST /api/v2/discovered_hosts/facts");
        assert_eq!(
            got.line(),
            "POST /api/v2/discovered_hosts/facts HTTP/1.1",
            "no query of a stranger"
        );
        assert!(got.body == facts.as_bytes(), "{} bytes", got.body.len());
        assert!(got.certificate.is_some());
    }
    for status in ["200 OK", "202 Accepted", "204 No Content"] {
        create(&bulkhead, format!("{{\"case\":\"{status}\"}}")).assert_is(200, HTML, "");
    }
}

/// Everything else is a 500 with Foreman's code.
#[test]
fn refused_facts_are_a_500_with_foremans_code() {
    let bulkhead = bulkhead();
    for status in [
        "302 Found",
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "422 Unprocessable Entity",
        "500 Internal Server Error",
        "503 Service Unavailable",
    ] {
        let (code, reason) = status.split_once(' ').unwrap();
        let reason = if code == "302" {
            "Foreman refused"
        } else {
            reason
        };
        let told = format!("Discovery failed, code {code}, reason: {reason}");
        create(&bulkhead, format!("{{\"case\":\"{status}\"}}")).assert_is(500, HTML, &told);
        assert_eventually!(!bulkhead.log_lines(&told).is_empty());
    }
    let silent = create(&bulkhead, r#"{"case":"closed"}"#);
    silent.assert_is(500, HTML, "Discovery failed, Foreman gave no answer");
    assert_eventually!(
        !bulkhead
            .log_lines("Foreman did not take a machine's facts: unreachable")
            .is_empty()
    );
}

/// What is no JSON object, or too large, never reaches Foreman; hosts command nobody.
#[test]
fn a_stranger_reaches_one_path_of_foreman_with_facts_only() {
    let bulkhead = bulkhead();
    for body in [
        "mark-no-json",
        "",
        "{\"mark-no-json\":1",
        "{}mark-no-json",
        "[\"mark-no-object\"]",
        "\"mark-no-object\"",
        "null",
        "1",
    ] {
        assert_eq!(create(&bulkhead, body).status, 400, "{body:?}");
    }
    let large = format!("{{\"mark-large\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(create(&bulkhead, large).status, 413);
    assert!(!foreman_got_any("mark-"));
    let hosts = bulkhead.hosts();
    for (method, path) in [
        ("GET", "/discovery/127.0.0.1/facts"),
        ("GET", "/discovery/127.0.0.1/inventory/facter"),
        ("PUT", "/discovery/127.0.0.1/power/reboot"),
        ("PUT", "/discovery/127.0.0.1/power/kexec"),
        ("PUT", "/discovery/127.0.0.1/reboot"),
        ("GET", "/discovery/create"),
    ] {
        let answer = hosts.request(method, path).body(JSON, "{}").send();
        assert_eq!(answer.status, 404, "{method} {path}");
    }
    let foreman = bulkhead.foreman_tls();
    let answer = foreman
        .request("POST", "/discovery/create")
        .body(JSON, "{}");
    assert_eq!(answer.send().status, 404, "not Foreman's");
}

/// Foreman reads facts and restarts machines; statuses and bodies are the machine's.
#[test]
fn foreman_commands_machines_of_the_policys_networks() {
    let bulkhead = bulkhead();
    let foreman = bulkhead.foreman_tls();
    for path in [
        "/discovery/127.0.0.1/facts",
        "/discovery/127.0.0.1/inventory/facter",
    ] {
        foreman
            .get(path)
            .assert_is(200, JSON, r#"{"kernel":"Linux"}"#);
        let got = node_got("GET /inventory/facter");
        assert_eq!(got.line(), "GET /inventory/facter HTTP/1.1");
        assert_eq!(got.header("accept"), Some(JSON));
        assert!(got.certificate.is_none(), "the proxy's is for Foreman");
    }
    let put = |path: &str, body: &str| {
        let path = format!("/discovery/127.0.0.1{path}");
        foreman.request("PUT", &path).body(JSON, body).send()
    };
    put("/power/reboot", "").assert_is(200, JSON, "true");
    let kexec = r#"{"kernel":"x","initrd":"y","append":"z"}"#;
    put("/power/kexec", kexec).assert_is(500, JSON, r#"{"error":"no"}"#);
    let got = node_got("PUT /power/kexec");
    assert_eq!(
        (got.body.as_slice(), got.header("content-type")),
        (kexec.as_bytes(), Some(JSON))
    );
    // A machine cannot send Foreman elsewhere; one that says nothing is a 500.
    let away = put("/power/reboot", "away");
    assert_eq!((away.status, away.text()), (302, String::new()));
    assert!(away.header("location").is_none() && away.header("x-own").is_none());
    let dead = put("/power/reboot", "dead");
    assert_eq!(dead.status, 500);
    assert!(
        dead.text()
            .starts_with("Unable to reach the machine: unreachable"),
        "{dead}"
    );
    for (method, path) in [
        ("GET", "/power/reboot"),
        ("POST", "/power/reboot"),
        ("PUT", "/power/off"),
        ("GET", "/inventory"),
    ] {
        let path = format!("/discovery/127.0.0.1{path}");
        let answer = foreman.request(method, &path).body(JSON, "").send();
        assert_eq!(answer.status, 404, "{method} {path}");
    }
}

/// An address of IPv6 stands in the path without brackets, or with them.
#[test]
fn machines_are_reached_by_ipv6_too() {
    let configuration = Configuration::empty();
    let stranger = Authority::root("a machine of its own").server(&["discovered"]);
    let node = Foreman::without_clients_at(Ipv6Addr::LOCALHOST.into(), &stranger, |_| {
        reply("200 OK", JSON, "true")
    });
    let settings = format!(
        "enabled = true\nnode_url = \"https://node:{}\"\nnode_networks = [\"::1\"]",
        node.address.port()
    );
    let bulkhead = Bulkhead::with(configuration.feature("discovery", &settings));
    let foreman = bulkhead.foreman_tls();
    for address in ["::1", "[::1]", "%5B::1%5D"] {
        let answer = foreman.get(&format!("/discovery/{address}/facts"));
        answer.assert_is(200, JSON, "true");
    }
    let host = format!("[::1]:{}", node.address.port());
    for request in node.requests() {
        assert_eq!(request.header("host"), Some(&*host));
    }
}

/// Images of old are restarted over plain HTTP, at their fixed port.
#[test]
fn machines_with_an_old_image_are_power_cycled() {
    // An address of this test alone: the port is the image's.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 33, high, low);
    let listener = TcpListener::bind((address, 8443)).unwrap();
    let node = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() > 0 {
            head.extend(byte);
        }
        socket.write_all(&reply("200 OK", JSON, "true")).unwrap();
        String::from_utf8(head).unwrap()
    });
    let settings = format!("enabled = true\nnode_networks = [\"{address}\"]");
    let bulkhead = Bulkhead::with(Configuration::empty().feature("discovery", &settings));
    let foreman = bulkhead.foreman_tls();
    let cycle = foreman.request("PUT", &format!("/discovery/{address}/reboot"));
    cycle.body(JSON, "").send().assert_is(200, JSON, "true");
    let head = node.join().unwrap();
    let line = format!("PUT /bmc/{address}/chassis/power/cycle HTTP/1.1\r\n");
    assert!(head.starts_with(&line), "{head}");
}

/// A machine that has just been restarted says nothing for a while: Foreman is told within the time of the policy.
#[test]
fn a_silent_machine_is_waited_for_as_long_as_the_policy_says() {
    let configuration = Configuration::empty();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let policy = "[foreman.discovered-hosts]\nallow = [\"POST /api/v2/discovered_hosts/facts\"]\n\
        [http.nodes]\nurl = { setting = \"node_url\" }\nnetworks = { setting = \"node_networks\" }\n\
        verify = false\nmethods = [\"GET\"]\npaths = [\"/inventory/facter\"]\ntimeout = \"1s\"";
    let settings = format!(
        "enabled = true\nnode_url = \"https://node:{}\"\nnode_networks = [\"127.0.0.1\"]",
        silent.local_addr().unwrap().port()
    );
    let bulkhead = Bulkhead::with(
        configuration
            .policy("discovery", policy)
            .feature("discovery", &settings),
    );
    let began = Instant::now();
    let answer = bulkhead.foreman_tls().get("/discovery/127.0.0.1/facts");
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().contains("no answer within 1000 ms"),
        "{answer}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// Names, other networks and other paths are out of reach; nobody but Foreman commands.
#[test]
fn other_machines_are_out_of_reach() {
    let bulkhead = bulkhead();
    let foreman = bulkhead.foreman_tls();
    for name in ["localhost", "127.0.0.1:22", "127.0.0.1@evil", "127.1"] {
        let answer = foreman.get(&format!("/discovery/{name}/facts"));
        let text = format!("Invalid IP address: {name}");
        assert_eq!((answer.status, answer.text()), (400, text));
    }
    assert_eq!(foreman.get("/discovery/127.0.0.2/facts").status, 500);
    assert_eventually!(
        bulkhead.log().contains("http.nodes.networks"),
        "{}",
        bulkhead.log()
    );
    // The line that is offered there leads to the setting, where the networks are said.
    let line = "http.nodes.networks = [\"127.0.0.2\"]";
    let words = ["policy", "allow", "discovery", line].map(str::to_owned);
    let told = run(words.into_iter().chain(bulkhead.configuration.options()));
    assert_eq!(told.code(), Some(1));
    let advice = "add \"127.0.0.2\" to `node_networks` in `[features.discovery]`";
    assert!(told.stderr.contains(advice), "{}", told.text());
    for client in [
        None,
        Some(Authority::root("another").client(Some("foreman.example.com"), &[])),
    ] {
        let target = bulkhead.foreman_tls_as(client.as_ref());
        let answer = target
            .request("GET", "/discovery/127.0.0.1/facts")
            .try_send();
        // A certificate of somebody else's authority ends the handshake.
        assert!(answer.is_err() || answer.is_ok_and(|it| it.status == 403));
    }
}

/// Neither capabilities nor settings.
#[test]
fn foreman_sees_the_feature() {
    let features = bulkhead().foreman_tls().get("/v2/features").json();
    assert_eq!(
        features["discovery"],
        json!({
            "http_enabled": true,
            "https_enabled": true,
            "settings": {},
            "state": "running",
            "capabilities": [],
        })
    );
}
