//! contract/dhcp.md, against the real program with a real ISC dhcpd, both in a network of the test's own.
//!
//! Different on purpose: an equal reservation posted again is success with ISC too; an address outside its subnet is refused; a
//! server that does not answer is told with the reason behind the contract's words.

use std::fs;
use std::time::{Duration, Instant};

use bulkhead_testkit::dhcpd::{Dhcpd, OMAPI, lease_address, many_leases};
use bulkhead_testkit::{Bulkhead, Configuration, Target, skip};
use serde_json::json;

use crate::{HTML, JSON};

/// The program and dhcpd.
pub(crate) struct Site {
    pub(crate) dhcpd: Dhcpd,
    pub(crate) bulkhead: Bulkhead,
}

impl Site {
    /// dhcpd and the program in one network; the calling thread is moved there.
    pub(crate) fn start(feature: &str) -> Result<Self, &'static str> {
        Self::start_with(feature, |configuration| configuration)
    }

    fn start_with(
        feature: &str,
        change: impl FnOnce(Configuration) -> Configuration,
    ) -> Result<Self, &'static str> {
        let dhcpd = Dhcpd::start("hmac-sha256", "")?;
        dhcpd.site.enter();
        let configuration = configuration(&dhcpd, feature, OMAPI);
        Ok(Self {
            bulkhead: Bulkhead::with(change(configuration)),
            dhcpd,
        })
    }

    fn leases(&self) -> String {
        fs::read_to_string(self.dhcpd.leases()).unwrap()
    }

    /// What dhcpd does when a client comes and goes: it appends a record. What dhcpd itself writes next, it writes over it.
    fn append(&self, text: &str) {
        use std::io::Write as _;
        let mut file = fs::File::options()
            .append(true)
            .open(self.dhcpd.leases())
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

/// A program that reads the files of that dhcpd, and speaks OMAPI with whoever listens at the port.
pub(crate) fn configuration(dhcpd: &Dhcpd, feature: &str, omapi: u16) -> Configuration {
    let path = |name: &str| format!("{:?}", dhcpd.place.join(name).display().to_string());
    Configuration::empty()
        .feature("dhcp", &format!("enabled = true\nuse_provider = \"dhcp-isc\"\n{feature}"))
        .feature(
            "dhcp-isc",
            &format!(
                "enabled = true\nconfig = {}\nleases = {}\nincludes = [{}, {}]\nomapi_key = {}\nomapi_port = {omapi}",
                path("dhcpd.conf"),
                path("dhcpd.leases"),
                path("omapi.key"),
                path("more.conf"),
                path("omapi.key"),
            ),
        )
}

pub(crate) fn form<'a>(
    name: &'a str,
    ip: &'a str,
    mac: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let mut form = vec![
        ("hostname", name),
        ("name", name),
        ("ip", ip),
        ("mac", mac),
        ("network", "192.0.2.0"),
    ];
    form.extend(more);
    form
}

const BOOT: [(&str, &str); 2] = [("nextServer", "192.0.2.9"), ("filename", "pxelinux.0")];

/// Every route and row, in the order of the contract, on one program.
#[test]
fn every_row_holds_with_isc() {
    let site = match Site::start("ping_free_ip = false") {
        Ok(site) => site,
        Err(why) => skip!("{why}"),
    };
    let target = site.bulkhead.foreman();

    features(&target);
    subnets(&target);
    reservations(&site, &target);
    lookups(&site, &target);
    refusals(&target);
    free_addresses(&site, &target);
    removals(&site, &target);
    clients(&site, &target);
    outages(site, &target);
}

fn features(target: &Target) {
    let features = target.get("/v2/features").json();
    assert_eq!(features["dhcp"]["state"], "running", "{features}");
    assert_eq!(
        features["dhcp"]["settings"],
        json!({"use_provider": "dhcp-isc"})
    );
    let mut capabilities: Vec<_> = features["dhcp"]["capabilities"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one.as_str())
        .collect();
    capabilities.sort_unstable();
    assert_eq!(
        capabilities,
        ["dhcp_filename_hostname", "dhcp_filename_ipv4"]
    );
}

fn subnets(target: &Target) {
    let expected = json!([
        {"network": "192.0.2.0", "netmask": "255.255.255.0", "options": {
            "routers": ["192.0.2.1"], "domain_name": [["example.com"]], "domain_name_servers": ["192.0.2.2", "192.0.2.3"],
            "ntp_servers": [["192.0.2.4"], ["192.0.2.5"]], "interface_mtu": 1500, "range": ["192.0.2.220", "192.0.2.240"]}},
        {"network": "198.51.100.0", "netmask": "255.255.255.0", "options": {}}
    ]);
    for path in ["/dhcp", "/dhcp/"] {
        let answer = target.get(path);
        assert_eq!((answer.status, answer.content_type()), (200, JSON));
        assert_eq!(answer.json(), expected);
    }
}

fn reservations(site: &Site, target: &Target) {
    let a = form("a.example.com", "192.0.2.40", "AA:BB:CC:DD:EE:01", &BOOT);
    target.post("/dhcp/192.0.2.0", &a).assert_is(200, JSON, "");
    let record = r#"{"name":"a.example.com","ip":"192.0.2.40","mac":"aa:bb:cc:dd:ee:01","subnet":"192.0.2.0/255.255.255.0","type":"reservation","deleteable":true,"hostname":"a.example.com","hardware_type":"ethernet","filename":"pxelinux.0","nextServer":"192.0.2.9"}"#;
    target
        .get("/dhcp/192.0.2.0/mac/aa:bb:cc:dd:ee:01")
        .assert_is(200, JSON, record);
    target
        .get("/dhcp/192.0.2.0/mac/AA:bb:CC:dd:EE:01")
        .assert_is(200, JSON, record);
    target
        .get("/dhcp/192.0.2.0/ip/192.0.2.40")
        .assert_is(200, JSON, &format!("[{record}]"));
    assert!(
        site.leases().contains("host a.example.com {"),
        "dhcpd knows it:\n{}",
        site.leases()
    );
    // Equal: success, whatever dhcpd adds to what it is told.
    target.post("/dhcp/192.0.2.0", &a).assert_is(200, JSON, "");
    for (name, ip, mac, more) in [
        (
            "a.example.com",
            "192.0.2.40",
            "aa:bb:cc:dd:ee:01",
            &[("filename", "other")][..],
        ),
        ("b.example.com", "192.0.2.40", "aa:bb:cc:dd:ee:02", &[]),
        ("b.example.com", "192.0.2.41", "aa:bb:cc:dd:ee:01", &[]),
    ] {
        target
            .post("/dhcp/192.0.2.0", &form(name, ip, mac, more))
            .assert_is(409, JSON, &format!("Record 192.0.2.0/{ip} already exists"));
    }
    target
        .post(
            "/dhcp/198.51.100.0",
            &form("b.example.com", "198.51.100.41", "aa:bb:cc:dd:ee:01", &[]),
        )
        .assert_is(409, JSON, "Hardware address conflict.");
    target
        .post("/dhcp/192.0.2.0", &form("a.example.com", "192.0.2.41", "aa:bb:cc:dd:ee:02", &[]))
        .assert_is(
            400,
            JSON,
            "Failed to add DHCP reservation for a.example.com (192.0.2.41 / aa:bb:cc:dd:ee:02): Entry already exists",
        );
    // A bond; Foreman sends the empty list as a bare key.
    target
        .request("POST", "/dhcp/192.0.2.0")
        .body(
            "application/x-www-form-urlencoded",
            "name=a-01&hostname=a-01&ip=192.0.2.40&mac=aa:bb:cc:dd:ee:03&related_macs[]=aa:bb:cc:dd:ee:01",
        )
        .send()
        .assert_is(200, JSON, "");
    assert_eq!(
        target
            .get("/dhcp/192.0.2.0/ip/192.0.2.40")
            .json()
            .as_array()
            .unwrap()
            .len(),
        2
    );
    target
        .request("POST", "/dhcp/192.0.2.0")
        .body(
            "application/x-www-form-urlencoded",
            "name=vrp&ip=192.0.2.42&mac=aa:bb:cc:dd:ee:04&nextServer=192.0.2.9&filename=ztp.cfg/x&ztp_vendor=huawei&ztp_firmware[core]=c&ztp_firmware[web]=w&related_macs",
        )
        .send()
        .assert_is(200, JSON, "");
    assert!(
        site.leases().contains("vrpfile=c;webfile=w;"),
        "{}",
        site.leases()
    );
    let sun = [
        ("<Sun-Fire>root_path_name", "/export"),
        ("<Sun-Fire>root_server_ip", "192.0.2.3"),
    ];
    target
        .post(
            "/dhcp/192.0.2.0",
            &form("sun", "192.0.2.43", "aa:bb:cc:dd:ee:05", &sun),
        )
        .assert_is(200, JSON, "");
    let sun = target.get("/dhcp/192.0.2.0/mac/aa:bb:cc:dd:ee:05").json();
    assert_eq!(
        (
            &sun["vendor"],
            &sun["root_path_name"],
            &sun["root_server_ip"]
        ),
        (&json!("sun"), &json!("/export"), &json!("192.0.2.3"))
    );
}

fn lookups(site: &Site, target: &Target) {
    site.append(
        "lease 192.0.2.12 {\n  starts 1 2026/11/23 10:00:00;\n  ends 6 2030/11/23 10:00:00;\n  cltt 1 2026/11/23 10:00:00;\n  binding state active;\n  \
         next binding state free;\n  rewind binding state free;\n  hardware ethernet 00:aa:aa:aa:aa:01;\n  uid \"\\001\\000\";\n  client-hostname \"foo\";\n}\n",
    );
    let lease = r#"{"name":"lease-00aaaaaaaa01","ip":"192.0.2.12","mac":"00:aa:aa:aa:aa:01","subnet":"192.0.2.0/255.255.255.0","starts":"2026-11-23 10:00:00 UTC","ends":"2030-11-23 10:00:00 UTC","state":"active","type":"lease","cltt":"2026-11-23 10:00:00 UTC","next_state":"free","hardware_type":"ethernet","uid":"\"\\001\\000\"","client_hostname":"\"foo\""}"#;
    target
        .get("/dhcp/192.0.2.0/mac/00:aa:aa:aa:aa:01")
        .assert_is(200, JSON, lease);
    target
        .get("/dhcp/192.0.2.0/ip/192.0.2.12")
        .assert_is(200, JSON, &format!("[{lease}]"));
    let all = target.get("/dhcp/192.0.2.0").json();
    assert_eq!(
        all["leases"],
        json!([serde_json::from_str::<serde_json::Value>(lease).unwrap()])
    );
    let fixed = all["reservations"]
        .as_array()
        .unwrap()
        .iter()
        .find(|record| record["name"] == "fixed")
        .unwrap();
    assert_eq!(fixed["deleteable"], false);
    // Only the subnet's own address has records.
    target
        .get("/dhcp/192.0.2.77")
        .assert_is(200, JSON, r#"{"reservations":[],"leases":[]}"#);
}

fn refusals(target: &Target) {
    for (path, status, text) in [
        (
            "/dhcp/203.0.113.0",
            404,
            "Subnet 203.0.113.0 could not found",
        ),
        (
            "/dhcp/203.0.113.0/unused_ip",
            404,
            "Subnet 203.0.113.0 could not found",
        ),
        (
            "/dhcp/203.0.113.0/ip/203.0.113.1",
            404,
            "Subnet 203.0.113.0 could not found",
        ),
        (
            "/dhcp/192.0.2.0/ip/192.0.2.99",
            404,
            "No DHCP records for IP 192.0.2.0/192.0.2.99 found",
        ),
        (
            "/dhcp/192.0.2.0/mac/AA:00:00:00:00:99",
            404,
            "No DHCP record for MAC 192.0.2.0/aa:00:00:00:00:99 found",
        ),
        ("/dhcp/192.0.2", 400, "Invalid IP Address 192.0.2"),
        (
            "/dhcp/192.0.2.0/ip/192.0.2.256",
            400,
            "Invalid IP Address 192.0.2.256",
        ),
        ("/dhcp/192.0.2.0/mac/aa:bb", 400, "Invalid MAC aa:bb"),
        ("/dhcp/192.0.2.0/", 404, "Requested url was not found"),
    ] {
        target.get(path).assert_is(status, JSON, text);
    }
    for (network, fields, text) in [
        (
            "192.0.2.0",
            form("x", "192.0.2.60", "zz", &[]),
            "Invalid MAC zz",
        ),
        (
            "192.0.2.0",
            form("", "192.0.2.60", "aa:bb:cc:dd:ee:60", &[]),
            "Must provide hostname",
        ),
        (
            "203.0.113.0",
            form("x", "203.0.113.1", "aa:bb:cc:dd:ee:60", &[]),
            "No Subnet detected for: 203.0.113.0",
        ),
        (
            "192.0.2.0",
            form("x", "192.0.2.999", "aa:bb:cc:dd:ee:60", &[]),
            "Invalid IP Address 192.0.2.999",
        ),
    ] {
        target
            .post(&format!("/dhcp/{network}"), &fields)
            .assert_is(400, JSON, text);
    }
    // What would break dhcpd's own file is refused before it is sent.
    for (name, more) in [
        ("a b", &[][..]),
        ("x;}", &[]),
        ("x", &[("filename", "a\"; deny booting; \"")]),
    ] {
        let answer = target.post(
            "/dhcp/192.0.2.0",
            &form(name, "192.0.2.60", "aa:bb:cc:dd:ee:60", more),
        );
        assert_eq!(answer.status, 400, "{answer}");
    }
    target.get("/dhcp/192.0.2.0/ip/192.0.2.60").assert_is(
        404,
        JSON,
        "No DHCP records for IP 192.0.2.0/192.0.2.60 found",
    );
}

fn removals(site: &Site, target: &Target) {
    for (path, text) in [
        (
            "/dhcp/192.0.2.0/mac/00:aa:aa:aa:aa:01",
            "192.0.2.12 / 00:aa:aa:aa:aa:01 is static - unable to delete",
        ),
        (
            "/dhcp/192.0.2.0/mac/00:11:22:33:44:01",
            "fixed (192.0.2.10 / 00:11:22:33:44:01) is static - unable to delete",
        ),
        ("/dhcp/192.0.2.0/mac/x", "Invalid MAC x"),
    ] {
        target.delete(path).assert_is(400, JSON, text);
    }
    // A lease is no conflict, and a reservation comes before it.
    target
        .post(
            "/dhcp/192.0.2.0",
            &form("l", "192.0.2.12", "00:aa:aa:aa:aa:02", &[]),
        )
        .assert_is(200, JSON, "");
    assert_eq!(
        target.get("/dhcp/192.0.2.0/ip/192.0.2.12").json()[0]["type"],
        "reservation"
    );
    for path in [
        "/dhcp/192.0.2.0/ip/192.0.2.99",
        "/dhcp/192.0.2.0/mac/aa:00:00:00:00:99",
        "/dhcp/203.0.113.0/ip/203.0.113.1",
        "/dhcp/192.0.2.0/mac/AA:BB:CC:DD:EE:05",
        "/dhcp/192.0.2.0/mac/AA:BB:CC:DD:EE:05",
        "/dhcp/192.0.2.0/ip/192.0.2.40",
    ] {
        target.delete(path).assert_is(200, HTML, "");
    }
    assert_eq!(target.get("/dhcp/192.0.2.0/ip/192.0.2.40").status, 404);
    let deleted = site.leases().matches("deleted;").count();
    assert!(deleted >= 3, "dhcpd forgot them:\n{}", site.leases());
}

fn free_addresses(site: &Site, target: &Target) {
    let unused = |query: &str| target.get(&format!("/dhcp/192.0.2.0/unused_ip{query}"));
    let one = "?from=192.0.2.150&to=192.0.2.150";
    unused(one).assert_is(200, JSON, r#"{"ip":"192.0.2.150"}"#);
    unused(one).assert_is(200, JSON, r#"{"ip":null}"#);
    let told = site
        .bulkhead
        .log_lines("No free IPs in range 192.0.2.150..192.0.2.150.");
    assert!(
        told.iter()
            .any(|line| line.contains("1 were suggested within 1800 s")),
        "{told:?}"
    );
    unused("?mac=00:11:22:33:44:01").assert_is(200, JSON, r#"{"ip":"192.0.2.10"}"#);
    unused("?mac=00:aa:aa:aa:aa:01").assert_is(200, JSON, r#"{"ip":"192.0.2.12"}"#);
    assert_eq!(unused("").status, 200);
    for (query, text) in [
        (
            "?from=198.51.100.1&to=198.51.100.2",
            "Range does not belong to provided subnet",
        ),
        (
            "?from=192.0.2.9&to=192.0.2.8",
            "192.0.2.9 can't be lower IP address than 192.0.2.8 - change the order?",
        ),
        ("?from=192.0.3.1", "Zero or negative number of indices"),
        ("?mac=x", "Invalid MAC x"),
    ] {
        unused(query).assert_is(400, JSON, text);
    }
}

/// A real client gets the reserved address and its boot file; one without a reservation gets a lease, and the next request sees it.
fn clients(site: &Site, target: &Target) {
    if bulkhead_testkit::skip::program("dhclient").is_none() {
        skip!("dhclient is not installed");
    }
    target
        .post(
            "/dhcp/192.0.2.0",
            &form("c.example.com", "192.0.2.77", "02:00:00:00:00:77", &BOOT),
        )
        .assert_is(200, JSON, "");
    let got = site.dhcpd.dhclient("02:00:00:00:00:77");
    for part in [
        "fixed-address 192.0.2.77;",
        "filename \"pxelinux.0\";",
        "routers 192.0.2.1",
    ] {
        assert!(
            got.contains(part),
            "no {part} in:\n{got}\n{}",
            site.dhcpd.log()
        );
    }
    site.dhcpd.dhclient("02:00:00:00:00:78");
    let lease = target.get("/dhcp/192.0.2.0/mac/02:00:00:00:00:78").json();
    assert_eq!(
        (&lease["type"], &lease["state"]),
        (&json!("lease"), &json!("active"))
    );
}

/// dhcpd stopped, hanging and back: told in bounded time, and no restart of the program is needed.
fn outages(mut site: Site, target: &Target) {
    let add = |last: u8| {
        let (ip, mac) = (
            format!("192.0.2.{last}"),
            format!("aa:bb:cc:dd:ef:{last:02x}"),
        );
        target.post(
            "/dhcp/192.0.2.0",
            &form(&format!("o{last}"), &ip, &mac, &[]),
        )
    };
    site.dhcpd.stop();
    let answer = add(160);
    assert_eq!(answer.status, 400);
    let told = "Failed to add DHCP reservation for o160 (192.0.2.160 / aa:bb:cc:dd:ef:a0): No response from DHCP server";
    assert!(answer.text().starts_with(told), "{answer}");
    site.dhcpd.run();
    assert_eq!(add(160).status, 200);
    site.dhcpd.signal(bulkhead_testkit::dhcpd::STOP);
    let begun = Instant::now();
    let answer = add(161);
    assert!(begun.elapsed() < Duration::from_secs(25));
    assert!(
        answer.status == 400 && answer.text().contains("No response from DHCP server"),
        "{answer}"
    );
    // It was told, and does it once it wakes up: then nothing is doubled.
    site.dhcpd.signal(bulkhead_testkit::dhcpd::CONTINUE);
    assert_eq!(add(161).status, 200);
    assert_eq!(
        target
            .get("/dhcp/192.0.2.0/ip/192.0.2.161")
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

/// An address where somebody answers is passed over, though nobody reserved it.
#[test]
fn an_address_that_answers_is_not_suggested() {
    let policy = "[call.dhcp-provider]\nplugin = { setting = \"use_provider\" }\n[store.held]\naccess = \"read-write\"\n\
        [probe.addresses]\nallow = [\"192.0.2.0/24\"]";
    let site = match Site::start_with("", |configuration| configuration.policy("dhcp", policy)) {
        Ok(site) => site,
        Err(why) => skip!("{why}"),
    };
    let target = site.bulkhead.foreman();
    // 192.0.2.1 is the server's own.
    let ask = || target.get("/dhcp/192.0.2.0/unused_ip?from=192.0.2.1&to=192.0.2.2");
    ask().assert_is(200, JSON, r#"{"ip":"192.0.2.2"}"#);
    ask().assert_is(200, JSON, r#"{"ip":null}"#);
    // Which one answered is told once; then it is held like one that was suggested.
    let told = site
        .bulkhead
        .log_lines("No free IPs in range 192.0.2.1..192.0.2.2.");
    let reasons = [
        "1 answered the probe (192.0.2.1)",
        "2 were suggested within 1800 s",
    ];
    assert!(
        told.iter()
            .any(|line| reasons.iter().any(|reason| line.contains(reason))),
        "{told:?}"
    );
}

/// The benchmark's promises (`tests/bench/dhcp.rs`) with ten times the slack; memory with none, since it does not depend on the day.
#[test]
fn two_hundred_thousand_leases_are_soon_ready_and_followed() {
    let configuration = Configuration::empty();
    let file = |name: &str, text: &str| {
        format!(
            "{:?}",
            configuration.scratch.file(name, text).display().to_string()
        )
    };
    let config = file("dhcpd.conf", "subnet 10.0.0.0 netmask 255.0.0.0 { }\n");
    let leases = file("dhcpd.leases", &many_leases(200_000));
    let path = configuration.scratch.join("dhcpd.leases");
    let bulkhead = Bulkhead::with(
        configuration
            .feature("dhcp", "enabled = true\nuse_provider = \"dhcp-isc\"")
            .feature(
                "dhcp-isc",
                &format!("enabled = true\nconfig = {config}\nleases = {leases}"),
            ),
    );
    let target = bulkhead.foreman();
    let get = |address: String| target.get(&format!("/dhcp/10.0.0.0/ip/{address}"));
    let last = lease_address(199_999).to_string();
    bulkhead_testkit::assert_eventually!(get(last.clone()).status == 200);
    let told = bulkhead.log_lines("bytes in").pop().unwrap();
    let took: u64 = told
        .split("bytes in ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(took < 15_000, "{took} ms");
    let memory = bulkhead.plugin_memory("dhcp-isc");
    assert!(memory <= 128 << 20, "{memory} bytes");
    let appended = many_leases(1)
        .replace("10.0.0.1 ", "10.200.0.1 ")
        .replace("02:00:00:00:00:01", "02:ff:00:00:00:01");
    let begun = Instant::now();
    use std::io::Write as _;
    fs::File::options()
        .append(true)
        .open(path)
        .unwrap()
        .write_all(appended.as_bytes())
        .unwrap();
    while get("10.200.0.1".to_owned()).status != 200 {
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "an appended lease is not seen"
        );
    }
}
