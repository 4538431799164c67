//! The many ways in which `dhcpd.conf` may be written. Whatever dhcpd takes is read like that: a mistake about one statement can cost all of the configuration.

use serde_json::json;

use crate::JSON;
use crate::dhcp_files::isc;

/// "Keywords in the file are case-insensitive" (`dhcpd.conf(5)`), and dhcpd reads numbers of addresses as decimal ones whatever zeros they begin with. Read otherwise,
/// the subnet would be missing, and the host's address would be given away.
#[test]
fn keywords_may_be_written_in_any_case() {
    let config = "SUBNET 192.0.2.0 NetMask 255.255.255.000 { Option Routers 192.0.2.1; Option Domain-Name \"Example.com\"; Range Dynamic-Bootp 192.0.2.010 192.0.2.020; }\n\
        Group { Host A { Hardware Ethernet AA:bb:cc:dd:ee:01; Fixed-Address 192.0.2.040; FileName \"Boot\"; Next-Server 192.0.2.9; Option Host-Name \"A.example.com\"; } }\n";
    let bulkhead = isc(config, "", "");
    let target = bulkhead.foreman();
    target.get("/dhcp").assert_is(
        200,
        JSON,
        r#"[{"network":"192.0.2.0","netmask":"255.255.255.0","options":{"routers":["192.0.2.1"],"domain_name":[["Example.com"]],"range":["192.0.2.10","192.0.2.20"]}}]"#,
    );
    target.get("/dhcp/192.0.2.0/mac/aa:bb:cc:dd:ee:01").assert_is(
        200,
        JSON,
        r#"{"name":"A","ip":"192.0.2.40","mac":"aa:bb:cc:dd:ee:01","subnet":"192.0.2.0/255.255.255.0","type":"reservation","deleteable":false,"hostname":"A.example.com","hardware_type":"ethernet","filename":"Boot","nextServer":"192.0.2.9"}"#,
    );
    target
        .get("/dhcp/192.0.2.0/unused_ip?from=192.0.2.40&to=192.0.2.40")
        .assert_is(200, JSON, r#"{"ip":null}"#);
}

/// dhcpd begins a comment wherever a word ends, takes secrets without quotes (`/` is a digit of base64), and whatever name a key has. Read otherwise, no
/// brace would fit, and nothing of the configuration would be known.
#[test]
fn comments_keys_and_secrets_may_be_written_as_dhcpd_takes_them() {
    let config = "key secret { algorithm hmac-md5; secret ab//cd==; };# no \"string\"\n\
        key other {algorithm hmac-md5;secret //8=;}\nomapi-key secret;\n\
        subnet 192.0.2.0 netmask 255.255.255.0# { a comment\n{ option routers 192.0.2.1# the gateway; its name\n; }\n\
        host secret { hardware ethernet aa:bb:cc:dd:ee:01# card }\n; fixed-address 192.0.2.40# desk\n; }\n";
    let bulkhead = isc(config, "", "");
    let target = bulkhead.foreman();
    target.get("/dhcp").assert_is(
        200,
        JSON,
        r#"[{"network":"192.0.2.0","netmask":"255.255.255.0","options":{"routers":["192.0.2.1"]}}]"#,
    );
    let host = target.get("/dhcp/192.0.2.0/mac/aa:bb:cc:dd:ee:01").json();
    assert_eq!(
        (&host["name"], &host["ip"]),
        (&json!("secret"), &json!("192.0.2.40"))
    );
}
