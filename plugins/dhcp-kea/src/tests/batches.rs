//! Changes that wait are made by whoever holds the lock, all in one, and none is answered for another's mistake.

use crate::queue::Place;
use crate::wish::Wish;

use super::*;

/// An address that this server refuses when it tests, and one that it refuses only when it sets it beside others.
const REFUSED: &str = "192.0.2.66";
const TOUCHY: &str = "192.0.2.67";

/// A server without `host_cmds` that keeps what is set.
struct Server {
    dhcp4: Rc<RefCell<Value>>,
    asked: Asked,
}

impl Server {
    fn new() -> (Self, Double) {
        let this = Self {
            dhcp4: Rc::new(RefCell::new(
                json!({ "subnet4": [{ "id": 1, "subnet": NET, "reservations": [] }] }),
            )),
            asked: Asked::default(),
        };
        let (dhcp4, asked) = (Rc::clone(&this.dhcp4), Rc::clone(&this.asked));
        let answering = move |command: &str, arguments: &Value| {
            asked
                .borrow_mut()
                .push((command.to_owned(), arguments.clone()));
            let done = json!({ "result": 0 });
            let hosts = reserved(&arguments["Dhcp4"]);
            let has = |address: &str| hosts.iter().any(|host| host == address);
            match command {
                "config-get" => json!({ "result": 0, "arguments": { "Dhcp4": *dhcp4.borrow() } }),
                "config-test" if has(REFUSED) => json!({ "result": 1, "text": "not that address" }),
                "config-set" if has(TOUCHY) && hosts.len() > 1 => {
                    json!({ "result": 1, "text": "not beside others" })
                }
                "config-set" => {
                    *dhcp4.borrow_mut() = arguments["Dhcp4"].clone();
                    done
                }
                _ => done,
            }
        };
        (this, kea(true, &[], Box::new(answering)))
    }

    fn times(&self, command: &str) -> usize {
        let asked = self.asked.borrow();
        asked.iter().filter(|(name, _)| name == command).count()
    }

    fn reserved(&self) -> Vec<String> {
        reserved(&self.dhcp4.borrow())
    }
}

fn reserved(dhcp4: &Value) -> Vec<String> {
    let hosts = dhcp4["subnet4"][0]["reservations"].as_array();
    let hosts = hosts.into_iter().flatten();
    hosts
        .map(|host| host["ip-address"].as_str().unwrap().to_owned())
        .collect()
}

fn wanted(address: &str, mac: &str) -> Reservation {
    Reservation {
        address: address.to_owned(),
        identifier: Identifier::Hardware(mac.to_owned()),
        ..reservation()
    }
}

/// Somebody who waits for that reservation.
fn waits_for(address: &str, mac: &str) -> Place {
    let host = Host::wanted(&wanted(address, mac)).unwrap();
    let wish = Wish::Add {
        subnet: NET.to_owned(),
        host: host.written(None),
        related: Vec::new(),
    };
    Place::take(&wish).unwrap().unwrap()
}

/// What somebody who waited is told.
fn told(place: &mut Place) -> Result<bool, Error> {
    let verdict = place.verdict().unwrap().expect("a verdict");
    verdict.map_err(Failure::into_error)
}

#[test]
fn one_change_serves_all_who_wait_and_each_gets_its_own_answer() {
    let (server, double) = Server::new();
    let _host = double.install();
    let mut good = waits_for("192.0.2.30", "02:00:00:00:00:01");
    let mut equal = waits_for("192.0.2.30", "02:00:00:00:00:01");
    let mut rival = waits_for("192.0.2.30", "02:00:00:00:00:02");
    let gone = Wish::Remove {
        subnet: NET.to_owned(),
        address: None,
        id: Some(HostId::of(&Identifier::Hardware(
            "02:00:00:00:00:01".to_owned(),
        ))),
    };
    let mut gone = Place::take(&gone).unwrap().unwrap();
    let mut after = waits_for("192.0.2.30", "02:00:00:00:00:02");

    assert!(DhcpKea::add(reservation()).unwrap());
    assert_eq!(told(&mut good), Ok(true));
    assert_eq!(told(&mut equal), Ok(false));
    assert!(matches!(told(&mut rival), Err(Error::Conflict(_))));
    assert_eq!(told(&mut gone), Ok(true));
    assert_eq!(told(&mut after), Ok(true));
    assert_eq!(server.times("config-set"), 1);
    assert_eq!(server.times("config-write"), 1);
    assert_eq!(server.reserved(), ["192.0.2.20", "192.0.2.30"]);
}

#[test]
fn what_kea_refuses_fails_alone_wherever_it_stands() {
    for position in 0..5_usize {
        let (server, double) = Server::new();
        let _host = double.install();
        server_forgotten();
        let mut places: Vec<Place> = (0..5_usize)
            .map(|number| match number == position {
                // Its neighbour behind it wants the same MAC address, which the refused one never gets.
                true => waits_for(REFUSED, &format!("02:00:00:00:00:{:02x}", number + 1)),
                false => waits_for(
                    &format!("192.0.2.{}", 30 + number),
                    &format!("02:00:00:00:00:{number:02x}"),
                ),
            })
            .collect();
        assert!(DhcpKea::add(reservation()).unwrap());
        for (number, place) in places.iter_mut().enumerate() {
            match told(place) {
                Ok(true) if number != position => {}
                Err(Error::Refused(text)) if number == position => {
                    assert!(text.contains("not that address"), "{text}");
                }
                other => panic!("{number} of {position}: {other:?}"),
            }
        }
        assert_eq!(server.reserved().len(), 5);
        assert_eq!(server.times("config-set"), 1);
    }
}

#[test]
fn what_kea_tests_as_good_and_does_not_set_fails_alone() {
    let (server, double) = Server::new();
    let _host = double.install();
    let mut good = waits_for("192.0.2.30", "02:00:00:00:00:01");
    let mut touchy = waits_for(TOUCHY, "02:00:00:00:00:02");
    let mut behind = waits_for("192.0.2.31", "02:00:00:00:00:03");
    assert!(DhcpKea::add(reservation()).unwrap());
    assert_eq!(told(&mut good), Ok(true));
    match told(&mut touchy) {
        Err(Error::Refused(text)) => assert!(text.contains("not beside others"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(told(&mut behind), Ok(true));
    assert_eq!(
        server.reserved(),
        ["192.0.2.20", "192.0.2.30", "192.0.2.31"]
    );
}

#[test]
fn whoever_leaves_the_queue_is_not_served() {
    let (server, double) = Server::new();
    let _host = double.install();
    drop(waits_for("192.0.2.30", "02:00:00:00:00:01"));
    assert!(DhcpKea::add(reservation()).unwrap());
    assert_eq!(server.reserved(), ["192.0.2.20"]);
}

/// Kea cannot set only what is unchanged, so the change is looked for after it was set.
#[test]
fn a_change_that_another_set_at_once_over_it_is_made_again() {
    let before = json!({ "subnet4": [{ "id": 1, "subnet": NET, "reservations": [] }] });
    let dhcp4 = Rc::new(RefCell::new(before.clone()));
    let sets = Rc::new(RefCell::new(0_usize));
    let (kept, count) = (Rc::clone(&dhcp4), Rc::clone(&sets));
    let answering = move |command: &str, arguments: &Value| match command {
        "config-get" => json!({ "result": 0, "arguments": { "Dhcp4": *kept.borrow() } }),
        "config-set" => {
            *count.borrow_mut() += 1;
            // The first time, somebody who had read before sets right behind.
            *kept.borrow_mut() = match *count.borrow() {
                1 => before.clone(),
                _ => arguments["Dhcp4"].clone(),
            };
            json!({ "result": 0 })
        }
        _ => json!({ "result": 0 }),
    };
    let _host = kea(true, &[], Box::new(answering)).install();
    server_forgotten();
    assert_eq!(DhcpKea::add(reservation()), Ok(true));
    assert_eq!(reserved(&dhcp4.borrow()), ["192.0.2.20"]);
    assert_eq!(*sets.borrow(), 2);
}
