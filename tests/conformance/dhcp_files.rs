//! Rows of contract/dhcp.md that need files and no dhcpd: what is read from them, what makes the feature fail, how addresses are held; and the built-in
//! server, which is the default here, where the original has ISC.
//!
//! Different on purpose: `_method` and `X-HTTP-Method-Override` are not honoured. Foreman does not send them, and a form that any web page can post must
//! not delete.

use std::fs;
use std::time::{Duration, Instant};

use bulkhead_testkit::eventually::until_within;
use bulkhead_testkit::{Bulkhead, Configuration, Signal, assert_eventually};
use serde_json::{Value, json};

use crate::{HTML, JSON};

/// A program on an ISC configuration and leases file; nobody listens for OMAPI.
pub(crate) fn isc(config: &str, leases: &str, feature: &str) -> Bulkhead {
    isc_including(&[], config, leases, feature)
}

/// The same with files that the configuration includes, each by its path below the configuration's directory.
fn isc_including(included: &[(&str, &str)], config: &str, leases: &str, feature: &str) -> Bulkhead {
    let configuration = Configuration::empty();
    let file = |name: &str, text: &str| {
        let path = configuration.scratch.file(name, text);
        format!("{:?}", path.display().to_string())
    };
    let includes: Vec<String> = included
        .iter()
        .map(|(name, text)| file(name, text))
        .collect();
    let lines = format!(
        "enabled = true\nconfig = {}\nleases = {}\nincludes = [{}]\nomapi_port = 1",
        file("dhcpd.conf", config),
        file("dhcpd.leases", leases),
        includes.join(", ")
    );
    let feature =
        format!("enabled = true\nuse_provider = \"dhcp-isc\"\nping_free_ip = false\n{feature}");
    Bulkhead::with(
        configuration
            .feature("dhcp", &feature)
            .feature("dhcp-isc", &lines),
    )
}

const SUBNET: &str = "subnet 192.0.2.0 netmask 255.255.255.0 { }\n";

pub(crate) fn builtin(lines: &str) -> Bulkhead {
    Bulkhead::with(
        Configuration::empty()
            .feature("dhcp", "enabled = true\nping_free_ip = false")
            .feature(
                "dhcp-builtin",
                &format!("enabled = true\nsubnets = [\"192.0.2.0/24\"]\n{lines}"),
            ),
    )
}

/// "Missing starts/ends/state are null"; MACs are lower-cased; a free lease and one whose next state is free and whose end has passed are none; of two
/// leases for one MAC the later counts.
#[test]
fn leases_are_shown_as_the_file_has_them() {
    let leases = "lease 192.0.2.13 { hardware ethernet 00:AA:AA:AA:AA:0D; }\n\
        lease 192.0.2.14 { starts epoch 1795428000; ends never; binding state active; hardware ethernet 00:aa:aa:aa:aa:0e; }\n\
        lease 192.0.2.15 { binding state free; hardware ethernet 00:aa:aa:aa:aa:0f; }\n\
        lease 192.0.2.16 { ends 1 2020/11/23 10:00:00; binding state active; next binding state free; hardware ethernet 00:aa:aa:aa:aa:10; }\n\
        lease 192.0.2.17 { binding state active; hardware ethernet 00:aa:aa:aa:aa:11; }\n\
        lease 192.0.2.18 { binding state active; hardware ethernet 00:aa:aa:aa:aa:11; }\n";
    let bulkhead = isc(SUBNET, leases, "");
    let target = bulkhead.foreman();
    let bare = r#"{"name":"lease-00aaaaaaaa0d","ip":"192.0.2.13","mac":"00:aa:aa:aa:aa:0d","subnet":"192.0.2.0/255.255.255.0","starts":null,"ends":null,"state":null,"type":"lease","hardware_type":"ethernet"}"#;
    target
        .get("/dhcp/192.0.2.0/mac/00:aa:aa:aa:aa:0d")
        .assert_is(200, JSON, bare);
    let all = target.get("/dhcp/192.0.2.0").json();
    let shown: Vec<(&Value, &Value)> = all["leases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lease| (&lease["ip"], &lease["ends"]))
        .collect();
    assert_eq!(
        shown,
        [
            (&json!("192.0.2.13"), &Value::Null),
            (&json!("192.0.2.14"), &json!("2038-01-19 03:14:07 UTC")),
            (&json!("192.0.2.18"), &Value::Null),
        ]
    );
}

/// "A host needs `hardware` and an IP fixed-address inside a known subnet, else ignored"; options by their names; hosts of the configuration are not
/// deletable, `dynamic` ones are.
#[test]
fn hosts_are_shown_as_the_files_have_them() {
    let config = format!(
        "{SUBNET}host a {{ hardware ethernet AA:bb:cc:dd:ee:01; fixed-address 192.0.2.40; filename \"pxelinux.0\"; next-server 192.0.2.9; option host-name \"a.example.com\"; option routers 192.0.2.1, 192.0.2.2; }}\n\
         host named {{ hardware ethernet aa:bb:cc:dd:ee:02; fixed-address host.example.com; }}\n\
         host elsewhere {{ hardware ethernet aa:bb:cc:dd:ee:03; fixed-address 203.0.113.1; }}\n\
         host nobody {{ fixed-address 192.0.2.41; }}\n"
    );
    let leases = "host b { dynamic; hardware ethernet aa:bb:cc:dd:ee:04; fixed-address 192.0.2.42; supersede server.filename = \"grub2/grubx64.efi\"; supersede server.next-server = c0:00:02:09; }\n\
        host gone { dynamic; hardware ethernet aa:bb:cc:dd:ee:05; fixed-address 192.0.2.43; }\nhost gone { dynamic; deleted; }\n";
    let bulkhead = isc(&config, leases, "");
    let all = bulkhead.foreman().get("/dhcp/192.0.2.0").json();
    let subnet = "192.0.2.0/255.255.255.0";
    assert_eq!(
        all["reservations"],
        json!([
            { "name": "a", "ip": "192.0.2.40", "mac": "aa:bb:cc:dd:ee:01", "subnet": subnet, "type": "reservation", "deleteable": false, "hostname": "a.example.com",
              "hardware_type": "ethernet", "filename": "pxelinux.0", "nextServer": "192.0.2.9", "routers": ["192.0.2.1", "192.0.2.2"] },
            { "name": "b", "ip": "192.0.2.42", "mac": "aa:bb:cc:dd:ee:04", "subnet": subnet, "type": "reservation", "deleteable": true, "hostname": "b",
              "hardware_type": "ethernet", "filename": "grub2/grubx64.efi", "nextServer": "192.0.2.9" },
        ])
    );
}

/// "`include \"file\"` (relative to the config's directory; top level and shared-network only)": also where the included file lies elsewhere.
#[test]
fn a_relative_include_lies_beside_the_configuration() {
    let host = |name: &str, last: u8| {
        format!(
            "host {name} {{ hardware ethernet aa:bb:cc:dd:ee:{last:02x}; fixed-address 192.0.2.{last}; }}\n"
        )
    };
    let deep = format!("{}include \"beside.conf\";\n", host("deep", 41));
    let beside = host("beside", 42);
    let bulkhead = isc_including(
        &[
            ("below/deep.conf", &deep),
            ("beside.conf", &beside),
            ("subnets.conf", SUBNET),
        ],
        "shared-network site { include \"subnets.conf\"; }\ninclude \"below/deep.conf\";\n",
        "",
        "",
    );
    let all = bulkhead.foreman().get("/dhcp/192.0.2.0").json();
    let names: Vec<&Value> = all["reservations"]
        .as_array()
        .unwrap_or_else(|| panic!("{all}\n{}", bulkhead.log()))
        .iter()
        .map(|record| &record["name"])
        .collect();
    assert_eq!(names, ["deep", "beside"]);
}

/// A file that is included and not granted is told with the place of its `include`, and with the setting in which it belongs.
#[test]
fn an_include_that_no_setting_names_is_told_with_its_place() {
    let config = format!("{SUBNET}\ninclude \"hosts.conf\";\n");
    let bulkhead = isc(&config, "", "");
    let target = bulkhead.foreman();
    assert_eventually!(target.get("/dhcp").text().contains("dhcpd.conf:3: "));
    let told = target.get("/dhcp").text();
    assert!(
        told.contains("hosts.conf cannot be read: add it to the setting `includes`"),
        "{told}"
    );
}

/// "Only options and `range` written directly in a subnet block count; those of pool, group, shared-network or global scope are not inherited." Neither
/// has a host the options of its group.
#[test]
fn options_around_a_subnet_or_in_its_pools_are_not_its_own() {
    let config = "option domain-name \"global\"; option interface-mtu 9000;\n\
        shared-network site {\n  option routers 192.0.2.254; option ntp-servers 192.0.2.4;\n\
        subnet 192.0.2.0 netmask 255.255.255.0 {\n  option domain-name-servers 192.0.2.2;\n\
        pool { option routers 192.0.2.253; range 192.0.2.10 192.0.2.20; }\n}\n}\n\
        group { filename \"group.0\"; option host-name \"group\";\n\
        subnet 198.51.100.0 netmask 255.255.255.0 { range 198.51.100.10; }\n\
        host a { hardware ethernet aa:bb:cc:dd:ee:01; fixed-address 192.0.2.40; } }\n";
    let bulkhead = isc(config, "", "");
    let target = bulkhead.foreman();
    target.get("/dhcp").assert_is(
        200,
        JSON,
        r#"[{"network":"192.0.2.0","netmask":"255.255.255.0","options":{"domain_name_servers":["192.0.2.2"]}},{"network":"198.51.100.0","netmask":"255.255.255.0","options":{"range":["198.51.100.10","198.51.100.10"]}}]"#,
    );
    target.get("/dhcp/192.0.2.0/mac/aa:bb:cc:dd:ee:01").assert_is(
        200,
        JSON,
        r#"{"name":"a","ip":"192.0.2.40","mac":"aa:bb:cc:dd:ee:01","subnet":"192.0.2.0/255.255.255.0","type":"reservation","deleteable":false,"hostname":"a","hardware_type":"ethernet"}"#,
    );
}

/// "8 octets parse but are then refused, which makes the whole load fail; better: skip." Their address is in use all the same.
#[test]
fn hardware_of_eight_octets_costs_nobody_else_a_record() {
    let config = format!(
        "{SUBNET}host eight {{ hardware ethernet 00:01:02:03:04:05:06:07; fixed-address 192.0.2.40; }}\n\
         host six {{ hardware ethernet aa:bb:cc:dd:ee:01; fixed-address 192.0.2.41; }}\n"
    );
    let leases = "lease 192.0.2.50 { binding state active; hardware ethernet 00:01:02:03:04:05:06:07; }\n\
        lease 192.0.2.51 { binding state active; hardware ethernet aa:bb:cc:dd:ee:02; }\n";
    let bulkhead = isc(&config, leases, "");
    let target = bulkhead.foreman();
    let all = target.get("/dhcp/192.0.2.0").json();
    let addresses = |list: &str| -> Vec<String> {
        let records = all[list].as_array().expect("a list").iter();
        records
            .map(|record| record["ip"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(addresses("reservations"), ["192.0.2.41"]);
    assert_eq!(addresses("leases"), ["192.0.2.51"]);
    for taken in ["192.0.2.40", "192.0.2.41", "192.0.2.50", "192.0.2.51"] {
        target
            .get(&format!(
                "/dhcp/192.0.2.0/unused_ip?from={taken}&to={taken}"
            ))
            .assert_is(200, JSON, r#"{"ip":null}"#);
    }
}

/// The host asks a plugin for its health every 60 seconds.
const HEALTH: Duration = Duration::from_secs(90);

/// "Failed when ..": each with the file, the line and what is wrong, in every answer at once, and to Foreman with the next look at the feature's health.
#[test]
fn what_cannot_be_read_fails_the_feature_and_says_where() {
    let programs = [
        (
            "subnet 192.0.2.0 netmask 255.255.255.0 { range 192.0.2.20 192.0.2.10; }",
            "dhcpd.conf:1: this range is not one of the subnet 192.0.2.0/24",
        ),
        (
            "subnet 192.0.2.0 netmask 255.255.255.0 { range 192.0.2.250 192.0.3.10; }",
            "dhcpd.conf:1: this range is not one of the subnet 192.0.2.0/24",
        ),
        (
            "subnet 192.0.2.0 netmask 255.255.255.0 { }\nsubnet 192.0.2.0 netmask 255.255.255.0 { }",
            "dhcpd.conf:2: Unable to add subnet 192.0.2.0/255.255.255.0",
        ),
    ]
    .map(|(config, reason)| (isc(config, "", ""), reason));
    for (bulkhead, reason) in &programs {
        let target = bulkhead.foreman();
        assert_eventually!(
            target.get("/dhcp").text().contains(reason),
            "{reason}\n{}",
            bulkhead.log()
        );
        let failed = until_within(HEALTH, || {
            let features = target.get("/v2/features").json();
            (features["dhcp"]["state"] == "failed").then_some(())
        });
        assert!(failed.is_some(), "{}", target.get("/v2/features"));
    }
}

/// "file renamed onto it (dhcpd's rewrite): drop all state, re-read config and leases"; and, better than the original, a mistake in the configuration
/// does not make the copy stale: what was good stays until it is mended.
#[test]
fn a_rewritten_leases_file_is_read_anew_with_the_configuration() {
    let bulkhead = isc(
        SUBNET,
        "lease 192.0.2.13 { binding state active; hardware ethernet 00:aa:aa:aa:aa:01; }\n",
        "",
    );
    let target = bulkhead.foreman();
    let get = |address: &str| {
        let path = format!("/dhcp/192.0.2.0/ip/{address}");
        target.get(&path).status
    };
    assert_eq!((get("192.0.2.13"), get("192.0.2.40")), (200, 404));
    let scratch = &bulkhead.configuration.scratch;
    scratch.file(
        "dhcpd.conf",
        format!(
            "{SUBNET}host a {{ hardware ethernet aa:bb:cc:dd:ee:01; fixed-address 192.0.2.40; }}\n"
        ),
    );
    let new = scratch.file(
        "dhcpd.leases.new",
        "lease 192.0.2.14 { binding state active; hardware ethernet 00:aa:aa:aa:aa:02; }\n",
    );
    fs::rename(new, scratch.join("dhcpd.leases")).unwrap();
    assert_eventually!(get("192.0.2.40") == 200, "{}", bulkhead.log());
    assert_eq!((get("192.0.2.13"), get("192.0.2.14")), (404, 200));
}

/// A copy of another server's file, or one that is put back from a backup, may be written over this one: shorter, longer or as long, it is read anew.
#[test]
fn a_leases_file_that_is_copied_over_is_read_anew() {
    let lease = |last: u8| {
        format!(
            "lease 192.0.2.{last} {{ binding state active; hardware ethernet 00:aa:aa:aa:aa:{last:02x}; }}\n"
        )
    };
    let leases = |of: std::ops::Range<u8>| of.map(lease).collect::<String>();
    let bulkhead = isc(SUBNET, &leases(100..110), "");
    let target = bulkhead.foreman();
    let shown = || -> Vec<u8> {
        let all = target.get("/dhcp/192.0.2.0").json();
        let leases = all["leases"].as_array().unwrap();
        let last = |lease: &Value| lease["ip"].as_str()?.rsplit('.').next()?.parse().ok();
        leases.iter().filter_map(last).collect()
    };
    assert_eq!(shown(), (100..110).collect::<Vec<_>>());
    let path = bulkhead.configuration.scratch.join("dhcpd.leases");
    for of in [120..140, 150..170, 180..185] {
        // Not truncated before: nobody has time to look in between.
        let mut file = fs::File::options().write(true).open(&path).unwrap();
        let text = leases(of.clone());
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        file.set_len(u64::try_from(text.len()).unwrap()).unwrap();
        assert_eq!(shown(), of.collect::<Vec<_>>(), "{}", bulkhead.log());
    }
}

/// The address a MAC has is found by the spelling the file has, and not by another; "from" alone and "to" alone bound the range on one side.
#[test]
fn free_addresses_follow_the_contract_letter_by_letter() {
    let leases =
        "host a { dynamic; hardware ethernet aa:bb:cc:dd:ee:04; fixed-address 192.0.2.42; }\n";
    let bulkhead = isc(SUBNET, leases, "");
    let target = bulkhead.foreman();
    let unused = |query: &str| {
        let path = format!("/dhcp/192.0.2.0/unused_ip?{query}");
        target.get(&path)
    };
    let found = r#"{"ip":"192.0.2.42"}"#;
    unused("mac=aa:bb:cc:dd:ee:04").assert_is(200, JSON, found);
    assert_ne!(
        unused("mac=AA:BB:CC:DD:EE:04&from=192.0.2.42&to=192.0.2.49").text(),
        found
    );
    assert_ne!(
        unused("mac=aa:bb:cc:dd:ee:04&from=192.0.2.50&to=192.0.2.60").text(),
        found
    );
    unused("from=192.0.2.254").assert_is(200, JSON, r#"{"ip":"192.0.2.254"}"#);
    unused("to=192.0.2.1").assert_is(200, JSON, r#"{"ip":"192.0.2.1"}"#);
    unused("to=192.0.2.1").assert_is(200, JSON, r#"{"ip":null}"#);
    unused("to=192.0.1.1").assert_is(400, JSON, "Zero or negative number of indices");
    // Any order, each once.
    let order: Vec<String> = (0..12)
        .map(|_| unused("from=192.0.2.100&to=192.0.2.111").text())
        .collect();
    let mut sorted = order.clone();
    sorted.sort_by_key(|text| (text.len(), text.clone()));
    assert_ne!(order, sorted, "the order is random");
    sorted.dedup();
    assert_eq!(sorted.len(), 12);
}

/// "An entry lives `blacklist_duration_minutes` seconds."
#[test]
fn a_suggestion_is_held_for_so_many_seconds() {
    let bulkhead = isc(SUBNET, "", "blacklist_duration_minutes = 2");
    let target = bulkhead.foreman();
    let ask = || {
        let path = "/dhcp/192.0.2.0/unused_ip?from=192.0.2.50&to=192.0.2.50";
        target.get(path).json()["ip"].clone()
    };
    let begun = Instant::now();
    assert_eq!(ask(), "192.0.2.50");
    assert!(ask().is_null());
    assert_eventually!(ask() == "192.0.2.50");
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

/// Better than the original, which forgets: what was suggested before a restart, or before a crash, is not suggested after it.
#[test]
fn a_suggestion_outlives_the_program() {
    let mut bulkhead = isc(SUBNET, "", "");
    let ask = |bulkhead: &Bulkhead, last: u8| {
        let path = format!("/dhcp/192.0.2.0/unused_ip?from=192.0.2.{last}&to=192.0.2.{last}");
        bulkhead.foreman().get(&path).json()["ip"].clone()
    };
    for (last, signal) in [(50, Signal::Terminate), (51, Signal::Kill)] {
        assert_eq!(ask(&bulkhead, last), format!("192.0.2.{last}"));
        bulkhead.restart_after(signal);
        assert_eventually!(bulkhead.foreman().get("/dhcp").status == 200);
        assert!(ask(&bulkhead, last).is_null(), "{last}");
    }
}

/// More records than one page of the interface holds, each once and in order of addresses; several hosts at one address across the border of a page too.
#[test]
fn a_subnet_of_thousands_is_listed_whole() {
    const HOSTS: u32 = 1_500;
    // As many as a subnet of 16 bits holds.
    const LEASES: u32 = 65_000;
    let mut leases = String::new();
    for number in 0..HOSTS {
        // Two of a bond at each address.
        let address = std::net::Ipv4Addr::from_bits(0x0a14_0001 + number / 2);
        let [_, _, high, low] = number.to_be_bytes();
        leases.push_str(&format!(
            "host h{number} {{ dynamic; hardware ethernet 02:01:00:00:{high:02x}:{low:02x}; fixed-address {address}; }}\n"
        ));
    }
    leases.push_str(&bulkhead_testkit::dhcpd::many_leases(LEASES));
    let bulkhead = isc("subnet 10.0.0.0 netmask 255.0.0.0 { }\n", &leases, "");
    let target = bulkhead.foreman();
    let all = target.get("/dhcp/10.0.0.0").json();
    let listed = |list: &str, key: &str| -> Vec<String> {
        let records = all[list].as_array().expect("a list").iter();
        records
            .map(|record| record[key].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let addresses: Vec<std::net::Ipv4Addr> = listed("leases", "ip")
        .iter()
        .map(|address| address.parse().expect("an address"))
        .collect();
    assert_eq!(addresses.len(), LEASES as usize);
    assert!(addresses.is_sorted());
    let mut names = listed("reservations", "name");
    assert_eq!(names.len(), HOSTS as usize);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), HOSTS as usize, "each once");
}

/// Bounded memory: a leases file beyond it costs the index, which is read anew. Meanwhile Foreman is told when to come back, and once the file is small again
/// nothing has to be restarted.
#[test]
fn a_leases_file_beyond_the_memory_is_told_and_over_with_the_next_one() {
    let policy = include_str!("../../policies/dhcp-isc.toml");
    let small = policy.replace("memory = \"128MiB\"", "memory = \"16MiB\"");
    assert_ne!(small, policy);
    let configuration = Configuration::empty();
    let file = |name: &str, text: &str| {
        let path = configuration.scratch.file(name, text);
        format!("{:?}", path.display().to_string())
    };
    let few = bulkhead_testkit::dhcpd::many_leases(100);
    let config = file("dhcpd.conf", "subnet 10.0.0.0 netmask 255.0.0.0 { }\n");
    let leases = file("dhcpd.leases", &few);
    let lines = format!("enabled = true\nconfig = {config}\nleases = {leases}\nomapi_port = 1");
    let bulkhead = Bulkhead::with(
        configuration
            .policy("dhcp-isc", &small.replace("plugin = \"dhcp-isc\"\n", ""))
            .feature("dhcp", "enabled = true\nuse_provider = \"dhcp-isc\"")
            .feature("dhcp-isc", &lines),
    );
    let target = bulkhead.foreman();
    let get = || target.get("/dhcp/10.0.0.0/ip/10.0.0.1");
    assert_eq!(get().status, 200);
    let scratch = &bulkhead.configuration.scratch;
    let many = bulkhead_testkit::dhcpd::many_leases(150_000);
    let replace = |text: &str| {
        let new = scratch.file("dhcpd.leases.new", text);
        fs::rename(new, scratch.join("dhcpd.leases")).expect("a file can be renamed");
    };
    replace(&many);
    assert_eventually!(
        {
            let answer = get();
            answer.status == 503 && answer.header("retry-after").is_some()
        },
        "{}",
        get()
    );
    assert_eq!(target.get("/version").status, 200);
    replace(&few);
    assert_eventually!(get().status == 200, "{}\n{}", get(), bulkhead.log());
}

/// What is checked before any provider is asked, in the contract's words.
#[test]
fn addresses_are_checked_in_every_route() {
    let bulkhead = builtin("");
    let target = bulkhead.foreman();
    for (path, text) in [
        ("/dhcp/x/ip/192.0.2.1", "Invalid IP Address x"),
        ("/dhcp/192.0.2.0/ip/192.0.2", "Invalid IP Address 192.0.2"),
        (
            "/dhcp/192.0.2.0/ip/2001:db8::1",
            "Invalid IP Address 2001:db8::1",
        ),
        (
            "/dhcp/192.0.2.0/mac/aa:bb:cc:dd:ee:01:02:03",
            "Invalid MAC aa:bb:cc:dd:ee:01:02:03",
        ),
        (
            "/dhcp/192.0.2.0/mac/aa-bb-cc-dd-ee-01",
            "Invalid MAC aa-bb-cc-dd-ee-01",
        ),
    ] {
        target.get(path).assert_is(400, JSON, text);
        target.delete(path).assert_is(400, JSON, text);
    }
    target
        .get("/dhcp/x")
        .assert_is(400, JSON, "Invalid IP Address x");
    target
        .get("/dhcp/203.0.113.0/mac/aa:bb:cc:dd:ee:01")
        .assert_is(404, JSON, "Subnet 203.0.113.0 could not found");
    target
        .delete("/dhcp/203.0.113.0/mac/aa:bb:cc:dd:ee:01")
        .assert_is(200, HTML, "");
    let port = "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01";
    target
        .get(&format!("/dhcp/192.0.2.0/mac/{port}"))
        .assert_is(
            404,
            JSON,
            &format!("No DHCP record for MAC 192.0.2.0/{port} found"),
        );
    // A POST is a POST.
    target
        .request("POST", "/dhcp/192.0.2.0/ip/192.0.2.1")
        .header("X-HTTP-Method-Override", "DELETE")
        .form(&[("_method", "delete")])
        .send()
        .assert_is(404, JSON, "Requested url was not found");
}

/// Steps 1 to 8 of creating a reservation, on the default provider, whose records have nothing that Foreman did not send.
#[test]
fn the_built_in_server_is_the_default_and_keeps_what_foreman_sends() {
    let bulkhead = builtin("");
    let target = bulkhead.foreman();
    let features = target.get("/v2/features").json();
    assert_eq!(features["dhcp"]["state"], "running", "{features}");
    assert_eq!(
        features["dhcp"]["settings"],
        json!({ "use_provider": "dhcp-builtin" })
    );
    assert_eq!(
        features["dhcp"]["capabilities"],
        json!(["dhcp_filename_hostname", "dhcp_filename_ipv4"])
    );
    let form = [
        ("hostname", "a.example.com"),
        ("mac", "AA:BB:CC:DD:EE:01"),
        ("ip", "192.0.2.40"),
        ("network", "203.0.113.0"),
        ("subnet", "203.0.113.0/24"),
        ("nextServer", "tftp.example.com"),
        ("filename", "grub2/grubx64.efi"),
        ("type", "reservation"),
        ("PXEClient", ""),
    ];
    for _ in 0..2 {
        target
            .post("/dhcp/192.0.2.0", &form)
            .assert_is(200, JSON, "");
    }
    let record = r#"{"name":"a.example.com","ip":"192.0.2.40","mac":"aa:bb:cc:dd:ee:01","subnet":"192.0.2.0/255.255.255.0","type":"reservation","deleteable":true,"nextServer":"tftp.example.com","filename":"grub2/grubx64.efi","PXEClient":"","hostname":"a.example.com"}"#;
    target
        .get("/dhcp/192.0.2.0/ip/192.0.2.40")
        .assert_is(200, JSON, &format!("[{record}]"));
    let conflict = "Record 192.0.2.0/192.0.2.40 already exists";
    let other = |mac: &str, related: &str| {
        let form = [
            ("name", "b.example.com"),
            ("ip", "192.0.2.40"),
            ("mac", mac),
            ("related_macs[]", related),
        ];
        target.post("/dhcp/192.0.2.0", &form)
    };
    other("aa:bb:cc:dd:ee:02", "aa:bb:cc:dd:ee:03").assert_is(409, JSON, conflict);
    other("aa:bb:cc:dd:ee:02", "aa:bb:cc:dd:ee:01").assert_is(200, JSON, "");
    let bond = target.get("/dhcp/192.0.2.0/ip/192.0.2.40").json();
    assert_eq!(bond.as_array().unwrap().len(), 2, "{bond}");
    assert_eq!(bond[1].get("related_macs"), None, "{bond}");
    target
        .delete("/dhcp/192.0.2.0/ip/192.0.2.40")
        .assert_is(200, HTML, "");
    target
        .get("/dhcp/192.0.2.0")
        .assert_is(200, JSON, r#"{"reservations":[],"leases":[]}"#);
}

/// A server that is away when something should be removed.
#[test]
fn a_removal_without_the_server_is_told() {
    let leases =
        "host a { dynamic; hardware ethernet aa:bb:cc:dd:ee:04; fixed-address 192.0.2.42; }\n";
    let bulkhead = isc(SUBNET, leases, "");
    let answer = bulkhead.foreman().delete("/dhcp/192.0.2.0/ip/192.0.2.42");
    let told = "Failed to remove DHCP reservation for a => a (192.0.2.42 / aa:bb:cc:dd:ee:04): No response from DHCP server";
    assert_eq!(answer.status, 400, "{answer}");
    assert!(answer.text().starts_with(told), "{answer}");
}
