//! Many callers at once, through HTTP: no address is given twice, whoever keeps the reservations.

use std::sync::Barrier;

use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::provisioning::{Outcomes, Range, mac};
use bulkhead_testkit::{Bulkhead, Configuration, Signal, Target, skip};

use crate::HTML;
use crate::dhcp::Site;

/// How many ask at once.
const HOSTS: usize = 500;

/// A range of 200 in each of two subnets, so that the second round finds nothing of the first.
const RANGES: [Range<'static>; 2] = [
    Range {
        network: "198.51.100.0",
        from: "198.51.100.21",
        to: "198.51.100.220",
    },
    Range {
        network: "192.0.2.0",
        from: "192.0.2.11",
        to: "192.0.2.210",
    },
];

fn builtin() -> Bulkhead {
    Bulkhead::with(
        Configuration::empty()
            .feature("dhcp", "enabled = true\nping_free_ip = false")
            .feature(
                "dhcp-builtin",
                "enabled = true\nsubnets = [\"192.0.2.0/24\", \"198.51.100.0/24\"]",
            ),
    )
}

/// 500 hosts at once in a range of 200: 200 addresses, 300 clear answers, no address twice; and again with a kill in the middle.
fn five_hundred_at_once(bulkhead: &mut Bulkhead) {
    let target = bulkhead.foreman();
    let [calm, killed] = RANGES;
    let outcomes = Outcomes::of(&target, HOSTS, calm, |_| {});
    assert_eq!(outcomes.assert_no_address_twice(&target, calm.network), 200);
    assert_eq!(outcomes.without(), 300);
    for number in 0..HOSTS {
        let path = format!("/dhcp/{}/mac/{}", calm.network, mac(number));
        target.delete(&path).assert_is(200, HTML, "");
    }
    let outcomes = Outcomes::of(&target, HOSTS, killed, |done| {
        Outcomes::wait_for(done, 60);
        bulkhead.restart_after(Signal::Kill);
    });
    let got = outcomes.assert_no_address_twice(&target, killed.network);
    // What was suggested to somebody whose answer the kill swallowed stays held: at most one for each call under way.
    assert!(
        (200 - 2 * 16..=200).contains(&got),
        "{got} of 200 addresses were given"
    );
}

/// Eight different machines want one address at the same moment: one gets it, the others are told.
fn one_of_many_wins(target: &Target) {
    const RIVALS: usize = 8;
    for round in 0..20 {
        let ip = format!("192.0.2.{}", 20 + round);
        let start = Barrier::new(RIVALS);
        let mut statuses: Vec<u16> = std::thread::scope(|scope| {
            let rivals: Vec<_> = (0..RIVALS)
                .map(|rival| {
                    let (ip, start) = (&ip, &start);
                    scope.spawn(move || {
                        let name = format!("rival{round}-{rival}.example.com");
                        let mac = format!("02:cc:00:00:{round:02x}:{rival:02x}");
                        let fields = [("name", name.as_str()), ("ip", ip), ("mac", &mac)];
                        start.wait();
                        target.post("/dhcp/192.0.2.0", &fields).status
                    })
                })
                .collect();
            rivals
                .into_iter()
                .map(|rival| rival.join().unwrap())
                .collect()
        });
        statuses.sort_unstable();
        assert_eq!(statuses[0], 200, "{ip}: {statuses:?}");
        assert!(
            statuses[1..].iter().all(|&status| status == 409),
            "{ip}: {statuses:?}"
        );
        let kept = target.get(&format!("/dhcp/192.0.2.0/ip/{ip}")).json();
        assert_eq!(kept.as_array().unwrap().len(), 1, "{kept}");
    }
}

#[test]
fn no_two_hosts_get_one_address_from_isc_however_many_ask_and_whatever_happens() {
    let mut site = match Site::start("ping_free_ip = false") {
        Ok(site) => site,
        Err(why) => skip!("{why}"),
    };
    five_hundred_at_once(&mut site.bulkhead);
}

#[test]
fn no_two_hosts_get_one_address_from_the_builtin_server_however_many_ask_and_whatever_happens() {
    five_hundred_at_once(&mut builtin());
}

/// "Addresses that answer are skipped", however many there are: more than may be probed in a second is no reason to have none.
#[test]
fn who_asks_where_most_addresses_answer_gets_one_that_does_not() {
    const ASKED: usize = 16;
    let Some(site) = Namespace::new("crowd") else {
        skip!("network namespaces need root and `ip`");
    };
    site.enter();
    // 10.9.0.1 to .191 are this machine's, and nobody has the others.
    for taken in ["10.9.0.0/25", "10.9.0.128/26"] {
        site.ip(&["route", "add", "local", taken, "dev", "lo"]);
    }
    let bulkhead = Bulkhead::with(
        Configuration::empty()
            .feature("dhcp", "enabled = true")
            .feature(
                "dhcp-builtin",
                "enabled = true\nsubnets = [\"10.9.0.0/24\"]",
            ),
    );
    let target = bulkhead.foreman();
    let mut given: Vec<u8> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..ASKED)
            .map(|number| {
                let path = format!("/dhcp/10.9.0.0/unused_ip?mac=02:dd:00:00:00:{number:02x}");
                let target = &target;
                scope.spawn(move || {
                    let found = target.get(&path).json();
                    let last = found["ip"].as_str()?.strip_prefix("10.9.0.")?;
                    last.parse().ok()
                })
            })
            .collect();
        let given = asking.into_iter().map(|caller| caller.join().unwrap());
        given.flatten().collect()
    });
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), ASKED, "{given:?}\n{}", bulkhead.log());
    assert!(given.iter().all(|&last| last >= 192), "{given:?}");
}

#[test]
fn of_many_reservations_of_one_address_at_once_isc_gets_one() {
    let site = match Site::start("") {
        Ok(site) => site,
        Err(why) => skip!("{why}"),
    };
    one_of_many_wins(&site.bulkhead.foreman());
}

#[test]
fn of_many_reservations_of_one_address_at_once_the_builtin_server_keeps_one() {
    one_of_many_wins(&builtin().foreman());
}
