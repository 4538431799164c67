//! Storms of registrations, and a Foreman that is slow, broken or away: who waits, who is turned away, and that Foreman's own calls never
//! notice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::{Bulkhead, Configuration, Response, Target, assert_eventually, ports};

use crate::witness::Witness;

const SCRIPT: &str = "#!/bin/sh\n";
const FAILS: &str = "echo \"Internal Server Error\"\nexit 1\n";

/// What the shipped policy lets Foreman see at a time.
const RENDERINGS: usize = 40;

/// Many connections from one address, as a test has no other.
const LIMITS: &str = "limits = { connections = 8000, connections_per_address = 8000 }";

/// How many renderings are under way, and the most there ever were.
#[derive(Default)]
struct Renderings {
    now: AtomicUsize,
    most: AtomicUsize,
}

fn rendering(configuration: &Configuration, time: Duration) -> (Foreman, Arc<Renderings>) {
    let count = Arc::<Renderings>::default();
    let seen = count.clone();
    let foreman = Foreman::answering(&configuration.authority, move |_| {
        let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(time);
        seen.now.fetch_sub(1, Ordering::SeqCst);
        reply("200 OK", "text/plain", SCRIPT)
    });
    (foreman, count)
}

fn with_registration(configuration: Configuration, url: &str) -> Bulkhead {
    Bulkhead::with(
        configuration
            .foreman_at(url)
            .feature("registration", "enabled = true")
            .feature(
                "templates",
                "enabled = true\ntemplate_url = \"http://proxy.example.com\"",
            ),
    )
}

/// Registers that many hosts at once; what each was answered.
fn register(hosts: &Target, count: usize) -> Vec<Response> {
    let answers = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for number in 0..count {
            let answers = &answers;
            std::thread::Builder::new()
                .stack_size(1 << 20)
                .spawn_scoped(scope, move || {
                    let asked = format!("/register?n={number}");
                    let answer = hosts.request("GET", &asked).try_send();
                    answers.lock().unwrap().push(answer.expect("an answer"));
                })
                .expect("a thread");
        }
    });
    answers.into_inner().unwrap()
}

/// 1,000 hosts at once: each is registered, Foreman never sees more than it shall, and its own calls are answered all the while.
#[test]
fn a_storm_of_registrations_is_served_in_turn() {
    let configuration = Configuration::standard().listener_keys(LIMITS);
    let (foreman, renderings) = rendering(&configuration, Duration::from_millis(200));
    let bulkhead = with_registration(configuration, &foreman.url());
    let hosts = bulkhead.hosts();
    let witness = Witness::of(&bulkhead);
    let answers = register(&hosts, 1000);
    witness.leave();
    for answer in &answers {
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, SCRIPT),
            "{answer}"
        );
    }
    assert_eq!(foreman.requests().len(), 1000, "each once");
    assert_eq!(renderings.most.load(Ordering::SeqCst), RENDERINGS);
    assert!(
        foreman.connections() <= 2 * RENDERINGS,
        "connections are kept: {}",
        foreman.connections()
    );
    let resident = bulkhead.usage().resident;
    assert!(resident <= 150 << 20, "{resident} bytes");
}

/// 5,000: what is beyond the line is told when to come back, comes back and is served. Nothing is left behind.
#[test]
fn beyond_the_line_hosts_are_told_to_come_back() {
    let configuration = Configuration::standard().listener_keys(LIMITS);
    let (foreman, renderings) = rendering(&configuration, Duration::from_millis(20));
    let bulkhead = with_registration(configuration, &foreman.url());
    let idle = bulkhead.usage();
    let hosts = bulkhead.hosts();
    let witness = Witness::of(&bulkhead);
    let mut left = 5000;
    let mut turned_away = 0;
    let mut rounds = 0;
    while left > 0 {
        rounds += 1;
        assert!(rounds < 20, "{left} were never served");
        let answers = register(&hosts, left);
        left = answers.iter().filter(|answer| answer.status == 503).count();
        turned_away += left;
        for answer in &answers {
            match answer.status {
                200 => assert_eq!(answer.text(), SCRIPT),
                503 => {
                    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                    assert!((1..=120).contains(&seconds), "{answer}");
                }
                _ => panic!("{answer}"),
            }
        }
    }
    witness.leave();
    assert!(turned_away > 0, "5,000 are more than the line holds");
    assert_eq!(foreman.requests().len(), 5000, "each once");
    assert_eq!(renderings.most.load(Ordering::SeqCst), RENDERINGS);
    assert_eventually!(bulkhead.usage().descriptors <= idle.descriptors + RENDERINGS + 8);
    let metrics = bulkhead.admin().get("/metrics").text();
    assert!(
        metrics.contains("bulkhead_forwards{plugin=\"registration\"} 0"),
        "{metrics}"
    );
    assert!(
        metrics
            .contains("bulkhead_rejections_total{plugin=\"registration\",reason=\"queue-full\"}"),
        "{metrics}"
    );
}

/// Foreman down, resetting, answering 500 or junk, too slow, or with another's certificate: a clear status in bounded time, the reason in the log, and
/// all is well again as soon as Foreman is.
#[test]
fn a_foreman_in_trouble_is_told_apart_and_recovered_from() {
    let configuration = Configuration::standard();
    let mood = Arc::new(Mutex::new("well"));
    let asked = mood.clone();
    let foreman = Foreman::answering(&configuration.authority, move |_| {
        let mood = *asked.lock().unwrap();
        match mood {
            "hangs up" => Vec::new(),
            "fails" => reply("500 Internal Server Error", "text/html", "<html>"),
            "junk" => b"\x00\x01 junk\r\n\r\n".to_vec(),
            "slow" => {
                std::thread::sleep(Duration::from_secs(3));
                reply("200 OK", "text/plain", SCRIPT)
            }
            _ => reply("200 OK", "text/plain", SCRIPT),
        }
    });
    let configuration = configuration.policy(
        "registration",
        "[foreman.register]\nallow = [\"GET /register\", \"POST /register\"]\ntimeout = \"1s\"",
    );
    let bulkhead = with_registration(configuration, &foreman.url());
    let ask = |bulkhead: &Bulkhead, status: u16, body: &str| {
        let start = Instant::now();
        let answer = bulkhead.hosts().get("/register");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (status, body),
            "{}",
            bulkhead.log()
        );
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "bounded: {:?}",
            start.elapsed()
        );
    };
    for (now, said) in [
        ("hangs up", "unreachable"),
        ("fails", "with 500"),
        ("junk", "broken answer"),
        ("slow", "no answer within 1000 ms"),
    ] {
        ask(&bulkhead, 200, SCRIPT);
        *mood.lock().unwrap() = now;
        ask(&bulkhead, 500, FAILS);
        assert_eventually!(bulkhead.log().contains(said), "{now}: {}", bulkhead.log());
        *mood.lock().unwrap() = "well";
    }
    ask(&bulkhead, 200, SCRIPT);

    let stranger = bulkhead_testkit::Authority::root("another").server(&["localhost"]);
    let impostor = Foreman::without_clients(&stranger, |_| reply("200 OK", "text/plain", SCRIPT));
    for (url, said) in [
        (impostor.url(), "TLS failed"),
        (
            format!("https://localhost:{}", ports::free()),
            "unreachable",
        ),
    ] {
        let other = with_registration(Configuration::standard(), &url);
        ask(&other, 500, FAILS);
        assert_eventually!(other.log().contains(said), "{}", other.log());
    }
    assert!(impostor.requests().is_empty(), "nothing was sent to it");
}

/// A large body in either direction: it passes through, and does not stay.
#[test]
fn large_bodies_pass_in_flat_memory() {
    const SIZE: usize = 256 << 20;
    const ALLOWED: u64 = 16 << 20;
    let configuration = Configuration::standard().policy(
        "registration",
        "[foreman.register]\nallow = [\"GET /register\", \"POST /register\"]\ntimeout = \"60s\"\n[limits]\nforward-body = \"1GiB\"",
    );
    let foreman = Foreman::answering(&configuration.authority, |request| {
        let large = request.line().contains("large");
        let body = if large {
            "x".repeat(SIZE)
        } else {
            request.body.len().to_string()
        };
        reply("200 OK", "text/plain", &body)
    });
    let bulkhead = with_registration(configuration, &foreman.url());
    let hosts = bulkhead.hosts();
    assert_eq!(hosts.get("/register").text(), "0");
    let idle = bulkhead.usage().resident;
    let most_while = |work: &mut (dyn FnMut() + Send)| {
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let mut most = 0;
                while !done.load(Ordering::Relaxed) {
                    most = most.max(bulkhead.usage().resident);
                    std::thread::sleep(Duration::from_millis(5));
                }
                most
            });
            work();
            done.store(true, Ordering::Relaxed);
            watching.join().unwrap()
        })
    };
    let down = most_while(&mut || {
        assert_eq!(hosts.get("/register?large=1").body.len(), SIZE);
    });
    let text = "y".repeat(SIZE);
    let up = most_while(&mut || {
        let answer = hosts
            .request("POST", "/register")
            .body("text/plain", &text)
            .send();
        assert_eq!(answer.text(), SIZE.to_string());
    });
    for (direction, most) in [("down", down), ("up", up)] {
        assert!(
            most <= idle + ALLOWED,
            "{direction}: {most} bytes, idle {idle}"
        );
    }
}
