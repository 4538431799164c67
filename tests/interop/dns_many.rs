//! Many at once, with each provider: of 200 creations of one name one wins, and of 1,000 creations and removals none is lost and none is left.
//!
//! What a server holds, it is asked itself.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use bulkhead_testkit::bind::Bind;
use bulkhead_testkit::dns::{Way, ask_all, question};
use bulkhead_testkit::pdns::{API_KEY, PowerDns};
use bulkhead_testkit::{Bulkhead, Configuration, Target, ports, skip};
use hickory_proto::op::{Message, ResponseCode};

/// Creations of one name.
const RIVALS: u8 = 200;
/// Names created and removed.
const PAIRS: usize = 1_000;
/// Clients at once.
const CLIENTS: usize = 16;

fn create(target: &Target, fqdn: &str, value: &str) -> u16 {
    let answer = target.post("/dns/", &[("fqdn", fqdn), ("value", value), ("type", "A")]);
    if ![200, 409].contains(&answer.status) {
        eprintln!("{fqdn} {value}: {} {}", answer.status, answer.text());
    }
    answer.status
}

/// The addresses of each name, as the server has them: none where there is no such name.
fn held(server: SocketAddr, names: &[String]) -> Vec<Vec<String>> {
    let questions: Vec<_> = names.iter().map(|name| question(name, "A")).collect();
    let answers = ask_all(server, Way::Udp, &questions);
    let addresses = |bytes: &Vec<u8>| {
        let message = Message::from_vec(bytes).unwrap();
        let code = message.metadata.response_code;
        assert!(
            [ResponseCode::NoError, ResponseCode::NXDomain].contains(&code),
            "{message:?}"
        );
        let records = message.answers.iter();
        records.map(|record| record.data.to_string()).collect()
    };
    answers.iter().map(addresses).collect()
}

/// All at once: one 200, all others 409, and the winner's value is the only one.
fn one_wins(target: &Target, server: SocketAddr) {
    let name = "race.example.net".to_owned();
    assert_eq!(
        held(server, std::slice::from_ref(&name)),
        [Vec::<String>::new()]
    );
    let outcomes: Vec<(String, u16)> = std::thread::scope(|scope| {
        let rivals: Vec<_> = (0..RIVALS)
            .map(|number| {
                let name = &name;
                scope.spawn(move || {
                    let value = format!("198.51.100.{number}");
                    let status = create(target, name, &value);
                    (value, status)
                })
            })
            .collect();
        rivals.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let mut counts = BTreeMap::new();
    for (_, status) in &outcomes {
        *counts.entry(*status).or_insert(0) += 1;
    }
    assert_eq!(
        counts,
        BTreeMap::from([(200, 1), (409, usize::from(RIVALS) - 1)])
    );
    let winner = outcomes.iter().find(|(_, status)| *status == 200).unwrap();
    assert_eq!(held(server, &[name]), [vec![winner.0.clone()]]);
}

/// Created by some at once, seen, removed, seen to be gone.
fn none_is_lost_and_none_is_left(target: &Target, server: SocketAddr) {
    let names: Vec<String> = (0..PAIRS)
        .map(|number| format!("p{number}.example.net"))
        .collect();
    let address = |number: usize| format!("10.1.{}.{}", number / 250, number % 250);
    let nothing = vec![Vec::<String>::new(); PAIRS];
    assert_eq!(held(server, &names), nothing);
    let each = |work: &(dyn Fn(usize) -> u16 + Sync)| {
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let done = &done;
                scope.spawn(move || {
                    for number in (client..PAIRS).step_by(CLIENTS) {
                        assert_eq!(work(number), 200, "{number}");
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), PAIRS);
    };
    each(&|number| create(target, &names[number], &address(number)));
    let all: Vec<Vec<String>> = (0..PAIRS).map(|number| vec![address(number)]).collect();
    assert_eq!(held(server, &names), all);
    each(&|number| target.delete(&format!("/dns/{}/A", names[number])).status);
    assert_eq!(held(server, &names), nothing);
}

#[test]
fn with_bind() {
    if !Bind::is_installed() {
        skip!("BIND (named, dig, nsupdate) is not installed");
    }
    let bind = Bind::start();
    let servers = [bind.address().to_string()];
    let key = Some(bind.key_file("hmac-sha256"));
    let bulkhead = Bulkhead::with(Configuration::empty().dns_rfc2136(&servers, key));
    one_wins(&bulkhead.foreman(), bind.address());
    let before = bind.transfer("example.net");
    none_is_lost_and_none_is_left(&bulkhead.foreman(), bind.address());
    assert_eq!(bind.transfer("example.net"), before);
}

#[test]
fn with_powerdns() {
    if !PowerDns::is_installed() {
        skip!("PowerDNS (pdns_server, its SQLite backend, sqlite3, dig) is not installed");
    }
    let pdns = PowerDns::with_zones(&["example.net"]);
    let key = pdns.key_file(API_KEY);
    let bulkhead = Bulkhead::with(Configuration::empty().dns_powerdns(&pdns.url(), &key));
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, pdns.port));
    one_wins(&bulkhead.foreman(), server);
    none_is_lost_and_none_is_left(&bulkhead.foreman(), server);
}

#[test]
fn with_builtin() {
    let port = ports::free();
    let bulkhead = Bulkhead::with(Configuration::empty().dns_builtin(port, &["example.net"], ""));
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    one_wins(&bulkhead.foreman(), server);
    none_is_lost_and_none_is_left(&bulkhead.foreman(), server);
}
