//! Kea: the feature `dhcp` and its provider `dhcp-kea` in the real program, before real servers of three versions, and a real client
//! that boots from what was reserved.
//!
//! Kea 2.2 is this machine's own (Debian 12), 2.6 and 3.0 run from folders that `debootstrap` makes once. A suite that is out of reach is
//! told loudly, and the rest runs.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bulkhead_testkit::debian::{Missing, Suite};
use bulkhead_testkit::identity::Authority;
use bulkhead_testkit::kea::{Door, Kea, Setup};
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::provisioning::{Outcomes, Range};
use bulkhead_testkit::stranger::Stranger;
use bulkhead_testkit::{Bulkhead, Configuration, Signal, Target, assert_eventually, skip};
use serde_json::{Value, json};

/// What holds Kea in other suites of Debian.
pub(crate) const PACKAGES: [&str; 2] = ["kea-dhcp4-server", "kea-ctrl-agent"];

/// The policy as it is shipped.
const KEA_POLICY: &str = include_str!("../../policies/dhcp-kea.toml");

/// The address of the machine that boots in these tests, its MAC address and its file.
const BOOTING: (&str, &str, &str) = ("192.0.2.77", "02:00:5e:00:53:01", "grub2/grubx64.efi");

pub(crate) fn setup(suite: Option<Suite>, door: Door, hooks: &[&'static str]) -> Setup {
    Setup {
        suite,
        door,
        hooks: hooks.to_vec(),
        credentials: None,
        interfaces: Vec::new(),
        dhcp4: json!({
            "authoritative": true,
            "subnet4": [{
                "id": 1, "subnet": "192.0.2.0/24",
                "pools": [{ "pool": "192.0.2.100 - 192.0.2.199" }],
                "option-data": [
                    { "name": "routers", "data": "192.0.2.1" },
                    { "name": "domain-name-servers", "data": "192.0.2.2, 192.0.2.3" },
                ],
            }],
            "shared-networks": [{ "name": "shared", "subnet4": [{ "id": 2, "subnet": "198.51.100.0/25" }] }],
        }),
    }
}

/// A program that speaks with that Kea, or with whoever stands before it.
fn bulkhead(kea: &Kea, url: &str) -> Bulkhead {
    Bulkhead::with(speaking(Configuration::empty(), kea, url))
}

/// A configuration with which the program speaks with that Kea, or with whoever stands before it.
pub(crate) fn speaking(configuration: Configuration, kea: &Kea, url: &str) -> Configuration {
    let mut lines = format!("enabled = true\ndhcp_kea_url = {url:?}\n");
    if let Some((user, password)) = kea.credentials() {
        let file = configuration
            .scratch
            .file("kea.credentials", format!("{user}:{password}\n"));
        lines.push_str(&format!(
            "dhcp_kea_credentials = {:?}\n",
            file.display().to_string()
        ));
    }
    configuration.feature("dhcp-kea", &lines).feature(
        "dhcp",
        "enabled = true\nuse_provider = \"dhcp-kea\"\nping_free_ip = false",
    )
}

/// The fields that Foreman sends.
pub(crate) fn form<'a>(
    name: &'a str,
    ip: &'a str,
    mac: &'a str,
    file: &'a str,
) -> Vec<(&'a str, &'a str)> {
    vec![
        ("hostname", name),
        ("name", name),
        ("mac", mac),
        ("ip", ip),
        ("network", "192.0.2.0"),
        ("nextServer", "192.0.2.9"),
        ("filename", file),
        ("related_macs", ""),
    ]
}

fn addresses(found: &Value) -> BTreeSet<String> {
    let list = found.as_array().expect("a list");
    list.iter()
        .map(|one| {
            let address = one.get("ip").or_else(|| one.get("ip-address"));
            address
                .and_then(Value::as_str)
                .expect("an address")
                .to_owned()
        })
        .collect()
}

fn reserved(kea: &Kea) -> BTreeSet<String> {
    addresses(&Value::Array(kea.reservations()))
}

macro_rules! programs {
    ($($program:literal),+) => {
        $(if skip::program($program).is_none() {
            skip!("there is no {} on this machine", $program);
        })+
    };
}

macro_rules! namespace {
    ($label:literal) => {
        match Namespace::new($label) {
            Some(namespace) => namespace,
            None => skip!("no network namespaces here: they need root and `ip`"),
        }
    };
}

/// A suite of Debian; what is out of reach ends the test with a loud word, in CI too.
macro_rules! suite {
    ($name:literal) => {
        match Suite::with($name, &PACKAGES) {
            Ok(suite) => suite,
            Err(Missing::OutOfReach(reason)) => {
                let _ = writeln!(
                    std::io::stderr().lock(),
                    "\n*** NOT TESTED: the Kea of Debian {}: {reason}\n",
                    $name
                );
                return;
            }
            Err(Missing::Failed(reason)) => panic!("{reason}"),
        }
    };
}

/// From creating to booting to removing, on one Kea. `client` is where a machine boots from it.
fn life_of_a_reservation(setup: Setup, version: &str) {
    let server = namespace!("kea");
    let client = namespace!("client");
    server.wire("dhcp0", "192.0.2.1/24", &client, "eth0", "");
    let (address, mac, file) = BOOTING;
    client.ip(&["link", "set", "eth0", "down"]);
    client.ip(&["link", "set", "eth0", "address", mac]);
    client.ip(&["link", "set", "eth0", "up"]);
    server.enter();
    let kea = Kea::start(Setup {
        interfaces: vec!["dhcp0"],
        ..setup
    });
    assert!(kea.version().starts_with(version), "{}", kea.version());
    let bulkhead = bulkhead(&kea, &kea.url());
    let foreman = bulkhead.foreman();

    // The feature runs, and shows Kea's subnets.
    assert_eventually!(
        foreman.get("/v2/features").json()["dhcp"]["state"] == "running",
        "{}",
        foreman.get("/v2/features").text()
    );
    assert_eq!(
        foreman.get("/dhcp").json(),
        json!([
            { "network": "192.0.2.0", "netmask": "255.255.255.0", "options": {
                "routers": ["192.0.2.1"], "domain_name_servers": ["192.0.2.2", "192.0.2.3"], "range": ["192.0.2.100", "192.0.2.199"] } },
            { "network": "198.51.100.0", "netmask": "255.255.255.128", "options": {} },
        ])
    );

    // Created; an equal one is success; any other is a conflict.
    let wanted = form("boot.example.com", address, mac, file);
    foreman
        .post("/dhcp/192.0.2.0", &wanted)
        .assert_is(200, "application/json", "");
    foreman
        .post("/dhcp/192.0.2.0", &wanted)
        .assert_is(200, "application/json", "");
    for (ip, mac) in [(address, "02:00:5e:00:53:02"), ("192.0.2.78", mac)] {
        let answer = foreman.post("/dhcp/192.0.2.0", &form("other.example.com", ip, mac, file));
        assert_eq!(answer.status, 409, "{answer}");
    }
    let refused = foreman.post(
        "/dhcp/192.0.2.0",
        &form("out.example.com", "203.0.113.1", "02:00:5e:00:53:03", file),
    );
    assert_eq!(refused.status, 400, "{refused}");
    assert!(refused.text().contains("203.0.113.1"), "{refused}");

    // Read back.
    let record = foreman.get(&format!("/dhcp/192.0.2.0/mac/{mac}")).json();
    for (key, value) in [
        ("name", "boot.example.com"),
        ("ip", address),
        ("mac", mac),
        ("subnet", "192.0.2.0/255.255.255.0"),
        ("type", "reservation"),
        ("hostname", "boot.example.com"),
        ("filename", file),
        ("nextServer", "192.0.2.9"),
    ] {
        assert_eq!(record[key], value, "{record:#}");
    }
    assert_eq!(record["deleteable"], true);
    assert_eq!(
        foreman.get(&format!("/dhcp/192.0.2.0/ip/{address}")).json(),
        json!([record])
    );
    assert_eq!(
        foreman.get("/dhcp/192.0.2.0").json(),
        json!({ "reservations": [record], "leases": [] })
    );

    // Kea has it, also when it starts again; and a machine boots from it.
    assert_eq!(reserved(&kea), BTreeSet::from([address.to_owned()]));
    assert!(kea.configuration_file().contains(&format!("{address:?}")));
    let lease = boot(&client);
    for line in [
        format!("fixed-address {address};"),
        format!("filename {file:?};"),
        "option routers 192.0.2.1;".to_owned(),
    ] {
        assert!(
            lease.contains(&line),
            "no `{line}` in\n{lease}\n{}",
            kea.log()
        );
    }
    let both = foreman.get("/dhcp/192.0.2.0").json();
    assert_eq!(
        addresses(&both["leases"]),
        BTreeSet::from([address.to_owned()])
    );
    assert_eq!(both["leases"][0]["type"], "lease");
    assert_eq!(both["leases"][0]["state"], "active");

    // What is reserved or leased is never suggested.
    let said = kea.ask(
        "lease4-add",
        json!({ "ip-address": "192.0.2.150", "hw-address": "02:00:5e:00:53:09", "subnet-id": 1 }),
    );
    assert_eq!(said["result"], 0, "{said}");
    let free = foreman
        .get("/dhcp/192.0.2.0/unused_ip?from=192.0.2.150&to=192.0.2.151")
        .json();
    assert_eq!(free["ip"], "192.0.2.151");
    let free = foreman
        .get(&format!(
            "/dhcp/192.0.2.0/unused_ip?from={address}&to={address}"
        ))
        .json();
    assert_eq!(free["ip"], Value::Null);

    // Removed, and removed again: the lease is no reservation, and stays Kea's to end.
    for way in [
        format!("ip/{address}"),
        format!("ip/{address}"),
        format!("mac/{mac}"),
    ] {
        foreman.delete(&format!("/dhcp/192.0.2.0/{way}")).assert_is(
            200,
            "text/html;charset=utf-8",
            "",
        );
    }
    let left = foreman.get(&format!("/dhcp/192.0.2.0/mac/{mac}")).json();
    assert_eq!(left["type"], "lease", "{left}");
    assert_eq!(reserved(&kea), BTreeSet::new());
    assert!(!kea.configuration_file().contains(&format!("{address:?}")));
    let answer = foreman.delete("/dhcp/192.0.2.0/mac/02:00:5e:00:53:44");
    assert_eq!(answer.status, 200, "{answer}");
}

/// What `dhclient` keeps of the lease it gets.
fn boot(client: &Namespace) -> String {
    let folder = bulkhead_testkit::Scratch::new();
    let leases = folder.join("leases");
    let output = client
        .command("dhclient")
        .args(["-4", "-1", "-d", "-sf", "/bin/true", "-pf"])
        .arg(folder.join("pid"))
        .arg("-lf")
        .arg(&leases)
        .arg("eth0")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let _running = Ends(output.expect("dhclient can be started"));
    let mut text = String::new();
    assert_eventually!(
        {
            text = std::fs::read_to_string(&leases).unwrap_or_default();
            text.contains('}')
        },
        "dhclient got no lease"
    );
    text
}

/// A process that ends with its value.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn kea_2_2_through_the_agent() {
    programs!("kea-dhcp4", "kea-ctrl-agent", "dhclient");
    life_of_a_reservation(setup(None, Door::Agent, &["lease_cmds"]), "2.");
}

#[test]
fn kea_2_6_through_the_agent_with_a_password() {
    programs!("dhclient");
    let suite = suite!("trixie");
    life_of_a_reservation(
        Setup {
            credentials: Some(("foreman", "pass:word")),
            ..setup(Some(suite), Door::Agent, &["lease_cmds"])
        },
        "2.6",
    );
}

#[test]
fn kea_3_through_the_agent_and_directly_with_host_cmds_and_without() {
    programs!("dhclient");
    let suite = suite!("sid");
    let both: &[&'static str] = &["lease_cmds", "host_cmds"];
    std::thread::scope(|scope| {
        for (door, hooks, credentials) in [
            (Door::Agent, both, None),
            (Door::Direct, both, Some(("foreman", "secret"))),
            (Door::Direct, &["lease_cmds"], None),
        ] {
            let suite = suite.clone();
            scope.spawn(move || {
                let setup = Setup {
                    credentials,
                    ..setup(Some(suite), door, hooks)
                };
                life_of_a_reservation(setup, "3.");
            });
        }
    });
}

/// Stands between the program and Kea: hands everything on, and so many times, while a change of ours is under test, changes the
/// configuration as well.
fn meddler(kea: &Kea, times: u32, made: Arc<AtomicU32>) -> Stranger {
    let target = Target::plain(kea.address());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8001));
    Stranger::at(address, move |mut stream| {
        while let Some(body) = read_request(&mut stream) {
            if body.contains("\"config-test\"") {
                let mine = made.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
                    (count < times).then_some(count + 1)
                });
                if let Ok(count) = mine {
                    meddle(&target, count);
                }
            }
            let answer = send(&target, &body);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            if stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&answer))
                .is_err()
            {
                return;
            }
        }
    })
}

fn send(target: &Target, body: &str) -> Vec<u8> {
    let request = target.request("POST", "/").body("application/json", body);
    request.send().body
}

/// Somebody else's reservation, by `config-set`.
fn meddle(target: &Target, count: u32) {
    let read: Value = serde_json::from_slice(&send(
        target,
        r#"{"command":"config-get","service":["dhcp4"]}"#,
    ))
    .expect("JSON");
    let mut dhcp4 = read[0]["arguments"]["Dhcp4"].clone();
    dhcp4["shared-networks"][0]["subnet4"][0]["reservations"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "hw-address": format!("02:00:5e:00:60:{count:02x}"), "ip-address": format!("198.51.100.{}", 10 + count) }));
    let set =
        json!({ "command": "config-set", "service": ["dhcp4"], "arguments": { "Dhcp4": dhcp4 } });
    let said: Value = serde_json::from_slice(&send(target, &set.to_string())).expect("JSON");
    assert_eq!(said[0]["result"], 0, "{said}");
}

/// The body of the next request on a connection.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0_u8];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0_usize);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

/// Fifty at once where only the whole configuration can be set, while somebody else sets it as well, and ten more whose records Kea does not take.
#[test]
fn nothing_is_lost_when_many_and_others_change_the_configuration() {
    programs!("kea-dhcp4", "kea-ctrl-agent");
    const MANY: u8 = 50;
    const WRONG: u8 = 10;
    const OTHERS: u32 = 5;
    namespace!("many").inside(|| {
        let kea = Kea::start(setup(None, Door::Agent, &["lease_cmds"]));
        let made = Arc::new(AtomicU32::new(0));
        let _meddler = meddler(&kea, OTHERS, made.clone());
        let bulkhead = bulkhead(&kea, "http://127.0.0.1:8001/");
        let target = bulkhead.foreman();
        std::thread::scope(|scope| {
            for number in 1..=WRONG {
                let target = &target;
                scope.spawn(move || {
                    let (name, ip) = (format!("w{number}"), format!("192.0.2.{}", 200 + number));
                    let mac = format!("02:00:5e:00:57:{number:02x}");
                    let mut wrong = form(&name, &ip, &mac, "pxelinux.0");
                    wrong.retain(|(key, _)| *key != "nextServer");
                    wrong.push(("nextServer", "255.255.255.255"));
                    let answer = target.post("/dhcp/192.0.2.0", &wrong);
                    assert_eq!(answer.status, 400, "{number}: {answer}");
                    assert!(answer.text().contains("255.255.255.255"), "{answer}");
                });
            }
            for number in 1..=MANY {
                let target = &target;
                scope.spawn(move || {
                    let (name, ip) = (
                        format!("h{number}.example.com"),
                        format!("192.0.2.{number}"),
                    );
                    let mac = format!("02:00:5e:00:54:{number:02x}");
                    let answer =
                        target.post("/dhcp/192.0.2.0", &form(&name, &ip, &mac, "pxelinux.0"));
                    assert_eq!(answer.status, 200, "{number}: {answer}");
                });
            }
        });
        let ours = (1..=MANY).map(|number| format!("192.0.2.{number}"));
        let theirs = (0..OTHERS).map(|number| format!("198.51.100.{}", 10 + number));
        let wanted: BTreeSet<String> = ours.chain(theirs).collect();
        assert_eq!(made.load(Ordering::SeqCst), OTHERS);
        assert_eq!(reserved(&kea), wanted);
        assert!(
            wanted
                .iter()
                .all(|ip| kea.configuration_file().contains(&format!("{ip:?}")))
        );
        let listed = target.get("/dhcp/192.0.2.0").json();
        assert_eq!(addresses(&listed["reservations"]).len(), usize::from(MANY));
    });
}

/// Many more hosts at once than a range has addresses: each address is given once, the others get clear answers; and again with a kill in the
/// middle.
fn more_hosts_than_addresses(setup: Setup, hosts: usize, addresses: usize) {
    let range = |net: &str| {
        let at = |host: usize| format!("{net}.{host}");
        (at(0), at(21), at(20 + addresses))
    };
    namespace!("race").inside(|| {
        let kea = Kea::start(Setup {
            dhcp4: json!({ "subnet4": [
                { "id": 1, "subnet": "192.0.2.0/24" },
                { "id": 2, "subnet": "198.51.100.0/24" },
            ]}),
            ..setup
        });
        let mut bulkhead = bulkhead(&kea, &kea.url());
        let target = bulkhead.foreman();
        let all = |net: &str, meanwhile: &mut dyn FnMut(&AtomicUsize)| {
            let (network, from, to) = range(net);
            let range = Range {
                network: &network,
                from: &from,
                to: &to,
            };
            let outcomes = Outcomes::of(&target, hosts, range, meanwhile);
            (
                outcomes.assert_no_address_twice(&target, &network),
                outcomes.without(),
            )
        };
        assert_eq!(all("192.0.2", &mut |_| {}), (addresses, hosts - addresses));
        assert_eq!(kea.reservations().len(), addresses);
        let (got, _) = all("198.51.100", &mut |done| {
            Outcomes::wait_for(done, addresses / 3);
            bulkhead.restart_after(Signal::Kill);
        });
        // What was suggested to somebody whose answer the kill swallowed stays held: at most one for each call under way.
        let lost = 2 * 16;
        assert!(
            (addresses.saturating_sub(lost)..=addresses).contains(&got),
            "{got} of {addresses} addresses were given"
        );
        assert!(kea.reservations().len() >= addresses + got);
    });
}

#[test]
fn no_two_of_500_hosts_get_one_address_with_host_cmds() {
    let suite = suite!("sid");
    let setup = setup(Some(suite), Door::Direct, &["lease_cmds", "host_cmds"]);
    more_hosts_than_addresses(setup, 500, 200);
}

/// Each change is one of the whole configuration; those who wait share one.
#[test]
fn no_two_hosts_get_one_address_where_the_whole_configuration_is_changed() {
    programs!("kea-dhcp4", "kea-ctrl-agent");
    let setup = setup(None, Door::Agent, &["lease_cmds"]);
    more_hosts_than_addresses(setup, 500, 200);
}

/// Stopped, hanging, talking nonsense, back again: each told in its own way, in bounded time, and over by itself.
#[test]
fn a_kea_in_trouble_costs_bounded_time_and_nothing_has_to_be_restarted() {
    programs!("kea-dhcp4", "kea-ctrl-agent");
    namespace!("faults").inside(|| {
        let mut kea = Kea::start(setup(None, Door::Agent, &["lease_cmds"]));
        let bulkhead = bulkhead(&kea, &kea.url());
        let foreman = bulkhead.foreman();
        let timed = |patience: u64| {
            let begun = Instant::now();
            let answer = foreman.get("/dhcp/192.0.2.0");
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(patience), "{took:?}: {answer}");
            answer
        };
        assert_eq!(timed(10).status, 200);

        // The server stopped, the agent stays.
        kea.stop();
        let answer = timed(10);
        assert_eq!(answer.status, 503, "{answer}");
        assert!(
            answer.text().contains("unable to forward command"),
            "{answer}"
        );
        // Both stopped.
        kea.stop_all();
        assert_eq!(timed(10).status, 503);
        // Somebody else at that port: no command's answer, no HTTP, and half an answer.
        // A connection that ends too early may as well be one that was reset.
        for (statuses, nonsense) in [
            (
                &[400][..],
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            ),
            (&[400, 503], "SSH-2.0-OpenSSH_9.2p1\r\n"),
            (
                &[503],
                "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[{\"result\": 0,",
            ),
        ] {
            let _stranger = Stranger::at(kea.address(), move |mut stream| {
                let _ = read_request(&mut stream);
                let _ = stream.write_all(nonsense.as_bytes());
            });
            let answer = timed(30);
            assert!(statuses.contains(&answer.status), "{nonsense:?}: {answer}");
        }
        // Brackets without an end to their depth; bytes without end; and one byte now and then.
        let head = "HTTP/1.1 200 OK\r\n\r\n";
        for (statuses, bytes, again, pause) in [
            (&[400][..], "[".repeat(1 << 20), false, Duration::ZERO),
            (&[400, 503], " ".repeat(1 << 20), true, Duration::ZERO),
            (&[504], " ".to_owned(), true, Duration::from_millis(300)),
        ] {
            let _stranger = Stranger::at(kea.address(), move |mut stream| {
                let _ = read_request(&mut stream);
                let _ = stream.write_all(head.as_bytes());
                while stream.write_all(bytes.as_bytes()).is_ok() && again {
                    std::thread::sleep(pause);
                }
            });
            let answer = timed(30);
            assert!(
                statuses.contains(&answer.status),
                "{statuses:?}: {}",
                answer.status
            );
        }
        // Back, then hanging: others are not held up by those who wait.
        kea.run();
        assert_eventually!(timed(30).status == 200, "{}", timed(30));
        kea.hang(true);
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..5).map(|_| scope.spawn(|| timed(29))).collect();
            assert_eq!(foreman.get("/version").status, 200);
            for answer in waiting {
                let answer = answer.join().expect("an answer");
                assert_eq!(answer.status, 504, "{answer}");
            }
        });
        kea.hang(false);
        assert_eventually!(timed(30).status == 200, "{}", timed(30));

        // Restarted under our hands, with what was written still there.
        let wanted = form("a.example.com", "192.0.2.40", "02:00:5e:00:55:01", "x");
        assert_eq!(foreman.post("/dhcp/192.0.2.0", &wanted).status, 200);
        kea.stop();
        kea.run();
        assert_eq!(timed(30).json()["reservations"][0]["ip"], "192.0.2.40");
    });
}

/// Without a way to read leases nothing is given away, and what is said names what to load or to set, and no line of a policy.
#[test]
fn leases_that_cannot_be_read_are_told_with_what_to_do() {
    programs!("kea-dhcp4", "kea-ctrl-agent");
    namespace!("leases").inside(|| {
        let kea = Kea::start(setup(None, Door::Agent, &[]));
        let bulkhead = bulkhead(&kea, &kea.url());
        let foreman = bulkhead.foreman();
        for path in ["/dhcp/192.0.2.0", "/dhcp/192.0.2.0/unused_ip"] {
            foreman.get(path).assert_is(
                501,
                "application/json",
                "leases are not readable: load Kea's hook library `lease_cmds`, or set `dhcp_kea_lease_directory`",
            );
        }
        let log = bulkhead.log();
        assert!(!log.contains("bulkhead policy allow"), "{log}");
    });
}

/// The docs' `ca`, `certificate` and `key`, with a Control Agent that asks for certificates. It ends every handshake that wants to resume a session.
#[test]
fn a_certificate_that_kea_asks_for_is_shown_in_every_connection() {
    programs!("kea-dhcp4", "kea-ctrl-agent");
    namespace!("certificates").inside(|| {
        let authority = Authority::root("Kea's");
        let mut kea = Kea::start(setup(None, Door::Agent, &["lease_cmds"]));
        let url = kea.secure(&authority, &authority.server(&["127.0.0.1"]));
        let mine = authority.client(Some("bulkhead"), &[]);
        let stranger = Authority::root("another").client(Some("bulkhead"), &[]);
        let configuration = Configuration::empty();
        let file = |name: &str, pem: &str| {
            let path = configuration.scratch.file(name, pem);
            format!("{:?}", path.display().to_string())
        };
        let grants = KEA_POLICY.replace("plugin = \"dhcp-kea\"\n", "").replace(
            "[http.api]\n",
            &format!(
                "[http.api]\nca = {}\ncertificate = {}\nkey = {}\n",
                file("kea-ca.pem", &authority.pem()),
                file("kea-client.pem", &stranger.chain_pem),
                file("kea-client-key.pem", &stranger.key_pem),
            ),
        );
        let bulkhead =
            Bulkhead::with(speaking(configuration, &kea, &url).policy("dhcp-kea", &grants));
        let foreman = bulkhead.foreman();
        // Another authority's certificate is none: Kea ends the handshake, and what it says is told.
        let told = foreman.get("/dhcp");
        assert_eq!(told.status, 503, "{told}");
        assert!(told.text().contains("Kea: TLS failed: "), "{told}");
        let scratch = &bulkhead.configuration.scratch;
        scratch.file("kea-client.pem", &mine.chain_pem);
        scratch.file("kea-client-key.pem", &mine.key_pem);
        assert_eventually!(foreman.get("/dhcp").status == 200);

        // At once, so that each needs a connection of its own, behind one whose session could be resumed.
        std::thread::scope(|scope| {
            for last in 40..48 {
                let foreman = &foreman;
                scope.spawn(move || {
                    let (name, ip) = (format!("h{last}.example.com"), format!("192.0.2.{last}"));
                    let mac = format!("02:00:5e:00:54:{last}");
                    foreman
                        .post("/dhcp/192.0.2.0", &form(&name, &ip, &mac, "x"))
                        .assert_is(200, "application/json", "");
                    let found = foreman.get(&format!("/dhcp/192.0.2.0/mac/{mac}"));
                    assert_eq!(found.status, 200, "{found}");
                });
            }
        });
        assert_eq!(kea.reservations().len(), 8);
    });
}

/// A wrong password is told with Kea's words, and put right without a restart.
#[test]
fn a_wrong_password_is_told_and_put_right() {
    programs!("kea-dhcp4", "kea-ctrl-agent");
    namespace!("password").inside(|| {
        let kea = Kea::start(Setup {
            credentials: Some(("foreman", "right")),
            ..setup(None, Door::Agent, &["lease_cmds"])
        });
        let bulkhead = bulkhead(&kea, &kea.url());
        let foreman = bulkhead.foreman();
        assert_eq!(foreman.get("/dhcp/192.0.2.0").status, 200);
        let scratch = &bulkhead.configuration.scratch;
        scratch.file("kea.credentials", "foreman:wrong\n");
        assert_eventually!(foreman.get("/dhcp/192.0.2.0").text().contains("HTTP 401"));
        assert_eq!(foreman.get("/dhcp/192.0.2.0").status, 400);
        assert!(!bulkhead.log().contains("foreman:wrong"));
        scratch.file("kea.credentials", "foreman:right\n");
        assert_eventually!(foreman.get("/dhcp/192.0.2.0").status == 200);
    });
}
