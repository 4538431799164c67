//! The index alone, fed as the journal feeds it.

use super::*;

pub(crate) fn index() -> Index {
    let text =
        b"subnet 192.0.2.0 netmask 255.255.255.0 { } subnet 198.51.100.0 netmask 255.255.255.0 { }";
    Index::new(crate::config::read("/dhcpd.conf", &mut |_| Ok(text.to_vec())).unwrap())
}

const PREFIX: &str = "192.0.2.0/24";

fn mac(last: u8) -> Hardware {
    Hardware::parse(format!("00:aa:aa:aa:aa:{last:02x}").as_bytes()).unwrap()
}

fn address(last: u8) -> u32 {
    Ipv4Addr::new(192, 0, 2, last).to_bits()
}

fn host(last: u8, mac_last: u8) -> HostBody {
    HostBody {
        hardware: Some(mac(mac_last)),
        addresses: vec![address(last)],
        dynamic: true,
        ..HostBody::default()
    }
}

fn lease(state: &str, mac_last: Option<u8>) -> LeaseBody {
    LeaseBody {
        hardware: mac_last.map(mac),
        state: Some(state.into()),
        ..LeaseBody::default()
    }
}

fn at(index: &Index, last: u8) -> usize {
    index.by_address(PREFIX, address(last), 0).unwrap().len()
}

#[test]
fn hosts_of_a_bond_share_an_address() {
    let mut index = index();
    index.put_host("a-01", host(9, 1));
    index.put_host("a-02", host(9, 2));
    assert_eq!(at(&index, 9), 2);
    index.remove_host("a-01");
    assert_eq!(at(&index, 9), 1);
    assert!(index.by_hardware(PREFIX, mac(1), 0).unwrap().is_empty());
}

#[test]
fn a_mac_address_has_one_host_in_a_subnet_and_a_name_one_in_all() {
    let mut index = index();
    index.put_host("a", host(9, 1));
    index.put_host("b", host(10, 1));
    assert_eq!((at(&index, 9), at(&index, 10)), (0, 1));
    let used = |index: &Index, last| index.in_use(PREFIX, &[address(last)], 0).unwrap()[0];
    assert!(used(&index, 9), "dhcpd still has both");
    index.remove_host("a");
    assert!(!used(&index, 9) && used(&index, 10));
    index.put_host("b", host(11, 2));
    assert_eq!((at(&index, 10), at(&index, 11)), (0, 1));
    assert!(index.by_hardware(PREFIX, mac(1), 0).unwrap().is_empty());
}

#[test]
fn the_newest_lease_of_an_address_and_of_a_mac_address_counts() {
    let mut index = index();
    index.put_lease(address(5), lease("active", Some(1)), 0);
    index.put_lease(address(6), lease("active", Some(1)), 0);
    assert_eq!((at(&index, 5), at(&index, 6)), (0, 1));
    assert_eq!(index.entries(PREFIX, None, 9, 0).unwrap().entries.len(), 1);
    // dhcpd has not given up the older one.
    assert_eq!(index.in_use(PREFIX, &[address(5)], 0).unwrap(), [true]);
    index.put_lease(address(5), lease("free", Some(1)), 0);
    assert_eq!((at(&index, 5), at(&index, 6)), (0, 1));
    assert_eq!(index.in_use(PREFIX, &[address(5)], 0).unwrap(), [false]);
    index.put_lease(address(6), lease("active", Some(2)), 0);
    assert!(index.by_hardware(PREFIX, mac(1), 0).unwrap().is_empty());
    index.put_lease(address(6), lease("free", Some(2)), 0);
    assert_eq!(at(&index, 6), 0);
}

#[test]
fn a_lease_that_ended_and_becomes_free_is_gone() {
    let mut index = index();
    let ending = LeaseBody {
        ends: Some(100),
        next_state_is_free: true,
        ..lease("active", Some(1))
    };
    index.put_lease(address(5), ending, 50);
    assert_eq!(index.by_address(PREFIX, address(5), 99).unwrap().len(), 1);
    assert_eq!(index.by_address(PREFIX, address(5), 101).unwrap().len(), 0);
    assert_eq!(index.in_use(PREFIX, &[address(5)], 101).unwrap(), [false]);
}

#[test]
fn an_abandoned_address_is_in_use_by_nobody_we_know() {
    let mut index = index();
    index.put_lease(address(5), lease("abandoned", None), 0);
    index.put_lease(address(6), lease("backup", None), 0);
    assert_eq!(at(&index, 5), 0);
    assert_eq!(
        index.in_use(PREFIX, &[address(5), address(6)], 0).unwrap(),
        [true, false]
    );
}

#[test]
fn pages_hold_everything_once_and_reservations_first() {
    let mut index = index();
    for last in 1..=20 {
        index.put_host(&format!("h{last}"), host(100 + last / 3, last));
        index.put_lease(address(last), lease("active", Some(100 + last)), 0);
    }
    for limit in [1, 3, 7, 1_000] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = index.entries(PREFIX, cursor.as_deref(), limit, 0).unwrap();
            assert!(page.entries.len() <= usize::try_from(limit).unwrap());
            seen.extend(page.entries.iter().map(|entry| match entry {
                Entry::Reservation(found) => (0, found.name.clone()),
                Entry::Lease(found) => (1, found.address.clone()),
            }));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 40, "{limit}");
        assert!(seen.is_sorted_by_key(|(kind, _)| *kind));
        seen.dedup();
        assert_eq!(seen.len(), 40);
    }
    assert!(index.entries(PREFIX, Some("junk"), 1, 0).is_err());
    assert!(matches!(
        index.entries("192.0.2.0/25", None, 1, 0),
        Err(Problem::UnknownSubnet(_))
    ));
}
