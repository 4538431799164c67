//! Many hosts at once that each ask for a free address and reserve it, as Foreman does, and what must be true afterwards whatever happened.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::http::{Response, Target};

/// How long callers at once may take in all: a limit for hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A range of addresses in a subnet.
#[derive(Debug, Clone, Copy)]
pub struct Range<'a> {
    /// The subnet's own address.
    pub network: &'a str,
    /// The first address.
    pub from: &'a str,
    /// The last address.
    pub to: &'a str,
}

/// The MAC address of one of the hosts.
pub fn mac(number: usize) -> String {
    format!("02:bb:00:00:{:02x}:{:02x}", number / 256, number % 256)
}

/// What became of all the hosts: an address, or the clear answer that none is free.
#[derive(Debug)]
pub struct Outcomes(Vec<Option<String>>);

impl Outcomes {
    /// That many hosts at once. `meanwhile` gets the number of those that are done as it grows.
    pub fn of(
        target: &Target,
        hosts: usize,
        range: Range<'_>,
        meanwhile: impl FnOnce(&AtomicUsize),
    ) -> Self {
        let done = AtomicUsize::new(0);
        let outcomes = std::thread::scope(|scope| {
            let done = &done;
            let threads: Vec<_> = (0..hosts)
                .map(|number| scope.spawn(move || provision(target, number, range, done)))
                .collect();
            meanwhile(done);
            threads
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(outcome) => outcome,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        });
        Self(outcomes)
    }

    /// Waits until so many are done, for something to happen in the middle.
    pub fn wait_for(done: &AtomicUsize, count: usize) {
        let begun = Instant::now();
        while done.load(Ordering::Relaxed) < count && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many were told that no address is free.
    pub fn without(&self) -> usize {
        self.0.iter().filter(|outcome| outcome.is_none()).count()
    }

    /// Fails the test if an address was given twice or is not on the server; answers how many were given.
    #[track_caller]
    pub fn assert_no_address_twice(&self, target: &Target, network: &str) -> usize {
        let got: Vec<&String> = self.0.iter().flatten().collect();
        let distinct: HashSet<&String> = got.iter().copied().collect();
        assert_eq!(got.len(), distinct.len(), "an address was given twice");
        let all = target.get(&format!("/dhcp/{network}")).json();
        let mut by_address: BTreeMap<&str, usize> = BTreeMap::new();
        for record in all["reservations"].as_array().expect("a list") {
            let address = record["ip"].as_str().expect("an address");
            *by_address.entry(address).or_default() += 1;
        }
        assert!(
            by_address.values().all(|&count| count == 1),
            "{by_address:?}"
        );
        for address in &distinct {
            assert!(
                by_address.contains_key(address.as_str()),
                "{address} is not on the server"
            );
        }
        distinct.len()
    }
}

/// One of many hosts: asks for an address and reserves it, again whenever the program is busy or away.
fn provision(
    target: &Target,
    number: usize,
    range: Range<'_>,
    done: &AtomicUsize,
) -> Option<String> {
    let Range { network, from, to } = range;
    let (mac, name) = (mac(number), format!("host{number}.example.com"));
    let end = Instant::now() + PATIENCE;
    let persist = |send: &dyn Fn() -> io::Result<Response>| loop {
        assert!(Instant::now() < end, "host {number} waits for ever");
        match send() {
            Ok(answer) if answer.status != 503 => return answer,
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    loop {
        let path = format!("/dhcp/{network}/unused_ip?mac={mac}&from={from}&to={to}");
        let answer = persist(&|| target.request("GET", &path).try_send());
        assert_eq!(answer.status, 200, "{answer}");
        let ip = answer.json()["ip"].as_str()?.to_owned();
        let path = format!("/dhcp/{network}");
        let fields = [
            ("name", name.as_str()),
            ("hostname", &name),
            ("ip", &ip),
            ("mac", &mac),
        ];
        let answer = persist(&|| target.request("POST", &path).form(&fields).try_send());
        match answer.status {
            200 => {
                done.fetch_add(1, Ordering::Relaxed);
                return Some(ip);
            }
            409 => {}
            _ => panic!("{answer}"),
        }
    }
}
