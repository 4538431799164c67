//! Addresses that nobody may have, though no machine has them as Foreman knows machines; and a provider that does not see who has what.

use super::*;

fn client(entry: Entry, identifier: &str) -> Entry {
    let identifier = Identifier::Client(identifier.to_owned());
    match entry {
        Entry::Reservation(found) => Entry::Reservation(Reservation {
            identifier,
            ..found
        }),
        Entry::Lease(found) => Entry::Lease(Lease {
            identifier,
            ..found
        }),
    }
}

#[test]
fn what_is_reserved_for_no_card_is_no_hosts_record_and_not_free() {
    let server = server();
    let port = client(reservation("port", "192.0.2.50", ""), "72:61:63:6b:31");
    let option = client(
        reservation("option", "192.0.2.51", ""),
        "01:aa:bb:cc:dd:ee:02",
    );
    server.entries.borrow_mut().extend([port, option]);
    let host = host(&server);
    for address in ["192.0.2.50", "192.0.2.51"] {
        let (status, text) = get(&host, &format!("/dhcp/192.0.2.0/ip/{address}"));
        assert_eq!(
            (status, text),
            (
                404,
                format!("No DHCP records for IP 192.0.2.0/{address} found")
            )
        );
        let wanted = [("ip", address), ("mac", "aa:bb:cc:dd:ee:02")];
        assert_eq!(
            post(&host, &wanted),
            (409, format!("Record 192.0.2.0/{address} already exists"))
        );
    }
    assert_eq!(free(&host, "from=192.0.2.50&to=192.0.2.51"), None);
    let (_, listed) = get(&host, "/dhcp/192.0.2.0");
    assert!(!listed.contains("192.0.2.5"), "{listed}");
    assert!(listed.contains("192.0.2.40"), "{listed}");
}

#[test]
fn a_lease_shows_the_card_that_its_client_identifier_names() {
    let server = server();
    let of_a_card = client(lease("192.0.2.60", ""), "01:aa:bb:cc:dd:ee:03");
    let of_no_card = client(lease("192.0.2.61", ""), "ff:00:01:02:03");
    server.entries.borrow_mut().extend([of_a_card, of_no_card]);
    let host = host(&server);
    let (status, text) = get(&host, "/dhcp/192.0.2.0/ip/192.0.2.60");
    assert_eq!(status, 200);
    assert!(
        text.contains(r#""name":"lease-aabbccddee03","ip":"192.0.2.60","mac":"aa:bb:cc:dd:ee:03""#),
        "{text}"
    );
    let (status, _) = get(&host, "/dhcp/192.0.2.0/ip/192.0.2.61");
    assert_eq!(status, 404, "Foreman takes no record without a MAC address");
    let (_, listed) = get(&host, "/dhcp/192.0.2.0");
    assert!(listed.contains("192.0.2.61"), "{listed}");
    assert_eq!(free(&host, "from=192.0.2.60&to=192.0.2.61"), None);
}

#[test]
fn a_provider_that_sees_subnets_but_not_who_has_what_is_not_working() {
    let server = server();
    let _host = host(&server);
    assert_eq!(Dhcp::status().into_record().problem, None);
    *server.blind.borrow_mut() = Some(Error::Unsupported("leases are not readable".into()));
    let told = Dhcp::status().into_record().problem;
    assert_eq!(told.as_deref(), Some("leases are not readable"));
    *server.blind.borrow_mut() = Some(Error::Timeout("late".into()));
    assert_eq!(Dhcp::status().into_record().problem, None);
}
