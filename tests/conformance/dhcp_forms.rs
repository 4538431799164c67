//! What a form may lack or hold, row by row of contract/dhcp.md, "POST /:network", before the two providers that need no other server, and long
//! hardware addresses before a real dhcpd.

use bulkhead_testkit::skip;
use serde_json::json;

use crate::dhcp::{Site, form};
use crate::dhcp_files::builtin;
use crate::{HTML, JSON};

/// A port of InfiniBand: 20 octets.
const PORT: &str = "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01";

/// "1. mac valid; 2. name; 3. subnet known; 5. ip valid": the first that is wrong is told, and nothing is made.
#[test]
fn what_a_form_lacks_is_told_in_the_contracts_order() {
    let bulkhead = builtin("");
    let target = bulkhead.foreman();
    let mac = ("mac", "aa:bb:cc:dd:ee:01");
    let (name, ip) = (("name", "a"), ("ip", "192.0.2.40"));
    for (network, fields, text) in [
        ("192.0.2.0", vec![], "Invalid MAC "),
        ("192.0.2.0", vec![name, ip], "Invalid MAC "),
        ("192.0.2.0", vec![name, ip, ("mac", "")], "Invalid MAC "),
        (
            "192.0.2.0",
            vec![name, ip, ("mac", "aa:bb:cc:dd:ee:01:02:03")],
            "Invalid MAC aa:bb:cc:dd:ee:01:02:03",
        ),
        ("203.0.113.0", vec![mac], "Must provide hostname"),
        (
            "203.0.113.0",
            vec![mac, ip, ("name", ""), ("hostname", "")],
            "Must provide hostname",
        ),
        (
            "203.0.113.0",
            vec![mac, name],
            "No Subnet detected for: 203.0.113.0",
        ),
        ("192.0.2.0", vec![mac, name], "Invalid IP Address "),
        (
            "192.0.2.0",
            vec![mac, name, ("ip", "")],
            "Invalid IP Address ",
        ),
        (
            "192.0.2.0",
            vec![mac, name, ("ip", "2001:db8::1")],
            "Invalid IP Address 2001:db8::1",
        ),
        (
            "192.0.2.0",
            vec![mac, name, ("ip", "192.0.2.040")],
            "Invalid IP Address 192.0.2.040",
        ),
        (
            "192.0.2.0",
            vec![mac, name, ("ip", "192.0.3.40")],
            "IP 192.0.3.40 does not belong to the subnet 192.0.2.0/24",
        ),
    ] {
        target
            .post(&format!("/dhcp/{network}"), &fields)
            .assert_is(400, JSON, text);
    }
    // Lists and maps are no texts.
    for body in [
        "mac[]=aa:bb:cc:dd:ee:01&name=a&ip=192.0.2.40",
        "mac[x]=aa:bb:cc:dd:ee:01&name=a&ip=192.0.2.40",
        "mac&name=a&ip=192.0.2.40",
    ] {
        target
            .request("POST", "/dhcp/192.0.2.0")
            .body("application/x-www-form-urlencoded", body)
            .send()
            .assert_is(400, JSON, "Invalid MAC ");
    }
    target
        .get("/dhcp/192.0.2.0")
        .assert_is(200, JSON, r#"{"reservations":[],"leases":[]}"#);
    // Either name will do, the path's network wins, and groups may have one digit.
    let fields = [
        ("mac", "A:b:C:d:e:F"),
        ("hostname", "a"),
        ip,
        ("network", "203.0.113.0"),
        ("subnet", "x"),
    ];
    target
        .post("/dhcp/192.0.2.0", &fields)
        .assert_is(200, JSON, "");
    let record = target.get("/dhcp/192.0.2.0/ip/192.0.2.40").json();
    assert_eq!(
        record,
        json!([{ "name": "a", "ip": "192.0.2.40", "mac": "0a:0b:0c:0d:0e:0f", "subnet": "192.0.2.0/255.255.255.0", "type": "reservation",
            "deleteable": true, "hostname": "a" }])
    );
}

/// Made, seen by dhcpd itself, read back after its next start, and removed.
#[test]
fn a_hardware_address_of_twenty_octets_is_reserved_by_isc() {
    let mut site = match Site::start("ping_free_ip = false") {
        Ok(site) => site,
        Err(why) => skip!("{why}"),
    };
    let target = site.bulkhead.foreman();
    let wanted = form("ib.example.com", "192.0.2.50", PORT, &[("filename", "x")]);
    for _ in 0..2 {
        target
            .post("/dhcp/192.0.2.0", &wanted)
            .assert_is(200, JSON, "");
    }
    let path = format!("/dhcp/192.0.2.0/mac/{PORT}");
    let shown = |at: &str| {
        let record = target.get(&path).json();
        assert_eq!(
            (&record["ip"], &record["mac"], &record["filename"]),
            (&json!("192.0.2.50"), &json!(PORT), &json!("x")),
            "{at}: {record}"
        );
    };
    shown("made");
    let leases = std::fs::read_to_string(site.dhcpd.leases()).unwrap();
    assert!(leases.contains(PORT), "{leases}");
    site.dhcpd.stop();
    site.dhcpd.run();
    shown("after a start of dhcpd");
    target.delete(&path).assert_is(200, HTML, "");
    assert_eq!(target.get(&path).status, 404);
}
