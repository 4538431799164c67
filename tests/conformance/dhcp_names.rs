//! Boot servers that Foreman names instead of giving their address: names that exist, that do not, that nobody can be asked for, and that a narrowed policy
//! leaves out. With ISC; with Kea in `tests/interop/kea_boot.rs`.

use std::time::{Duration, Instant};

use bulkhead_testkit::dhcpd::{Dhcpd, OMAPI};
use bulkhead_testkit::namer::Namer;
use bulkhead_testkit::{Bulkhead, Response, Target, booting, skip};

use crate::JSON;
use crate::dhcp::{configuration, form};

/// A look-up ends within 10 seconds; the rest is for a machine that is busy.
const LONGEST: Duration = Duration::from_secs(25);

/// The shipped policy of `dhcp-isc`.
const POLICY: &str = include_str!("../../policies/dhcp-isc.toml");

fn post(target: &Target, last: u8, server: &str) -> Response {
    let (name, ip) = (format!("n{last}"), format!("192.0.2.{last}"));
    let mac = format!("02:00:5e:00:59:{last:02x}");
    let begun = Instant::now();
    let more = [("nextServer", server), ("filename", "x")];
    let answer = target.post("/dhcp/192.0.2.0", &form(&name, &ip, &mac, &more));
    let took = begun.elapsed();
    assert!(took < LONGEST, "{server}: {took:?}");
    answer
}

fn record(target: &Target, last: u8) -> serde_json::Value {
    target
        .get(&format!("/dhcp/192.0.2.0/ip/192.0.2.{last}"))
        .json()[0]
        .clone()
}

/// "A name is resolved by DNS; no such name: the quoted name itself; resolver unreachable: 400 with the socket error."
#[test]
fn a_boot_server_by_name_is_looked_up_for_isc() {
    let dhcpd = match Dhcpd::start("hmac-sha256", "") {
        Ok(dhcpd) => dhcpd,
        Err(why) => skip!("{why}"),
    };
    dhcpd.site.enter();
    let namer = Namer::start(&[("tftp.example.com", "192.0.2.9")]);
    let bulkhead = Bulkhead::with(configuration(&dhcpd, "", OMAPI).name_server("127.0.0.1"));
    let target = bulkhead.foreman();

    post(&target, 60, "tftp.example.com").assert_is(200, JSON, "");
    assert_eq!(record(&target, 60)["nextServer"], "192.0.2.9");
    if skip::program("dhclient").is_some() {
        let told = booting::told(&dhcpd.client, "client0", "02:00:5e:00:59:3c", "PXEClient");
        assert_eq!(told["next_server"], "192.0.2.9", "{told:#?}");
    }

    // dhcpd keeps the name; the log says what comes of it. The same again is the same.
    for _ in 0..2 {
        post(&target, 61, "nobody.example.com").assert_is(200, JSON, "");
    }
    let leases = std::fs::read_to_string(dhcpd.leases()).unwrap();
    assert!(leases.contains("nobody.example.com"), "{leases}");
    assert_eq!(record(&target, 61)["nextServer"], "nobody.example.com");
    let told = bulkhead.log_lines("no address of the next server nobody.example.com");
    assert!(!told.is_empty(), "{}", bulkhead.log());

    // Nobody answers at the name server's port any more.
    drop(namer);
    let answer = post(&target, 62, "late.example.com");
    assert_eq!(answer.status, 400, "{answer}");
    let told = "Failed to add DHCP reservation for n62 (192.0.2.62 / 02:00:5e:00:59:3e): cannot look up the next server late.example.com: ";
    assert!(answer.text().starts_with(told), "{answer}");
    assert_eq!(target.get("/dhcp/192.0.2.0/ip/192.0.2.62").status, 404);
}

/// The docs' advice for who does not want every name asked for.
#[test]
fn a_narrowed_policy_leaves_other_boot_servers_out_of_isc() {
    let dhcpd = match Dhcpd::start("hmac-sha256", "") {
        Ok(dhcpd) => dhcpd,
        Err(why) => skip!("{why}"),
    };
    dhcpd.site.enter();
    let namer = Namer::start(&[
        ("tftp.example.com", "192.0.2.9"),
        ("data.example.net", "192.0.2.9"),
    ]);
    let narrowed = POLICY.replace("allow = [\"*\"]", "allow = [\"*.example.com\"]");
    assert_ne!(narrowed, POLICY);
    let grants = narrowed.replace("plugin = \"dhcp-isc\"\n", "");
    let configuration = configuration(&dhcpd, "", OMAPI).name_server("127.0.0.1");
    let bulkhead = Bulkhead::with(configuration.policy("dhcp-isc", &grants));
    let target = bulkhead.foreman();
    post(&target, 60, "tftp.example.com").assert_is(200, JSON, "");
    post(&target, 61, "192.0.2.9").assert_is(200, JSON, "");
    let answer = post(&target, 62, "data.example.net");
    assert_eq!(answer.status, 400, "{answer}");
    assert!(
        answer
            .text()
            .contains("cannot look up the next server data.example.net"),
        "{answer}"
    );
    assert_eq!(target.get("/dhcp/192.0.2.0/ip/192.0.2.62").status, 404);
    assert_eq!(namer.asked("data.example.net"), 0, "no question leaves");
    assert!(namer.asked("tftp.example.com") > 0);
    let denied = bulkhead.log_lines("may not");
    assert!(
        denied.iter().any(|line| line.contains("data.example.net")),
        "{denied:?}"
    );
}
