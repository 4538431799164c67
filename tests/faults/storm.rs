//! Storms of registrations: who waits, who is turned away, and that Foreman's own calls never notice.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bulkhead_testkit::crowd::{Answer, Crowd, aside, stand_back};
use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::{Bulkhead, Configuration, Signal, assert_eventually};

use crate::connections::raise_descriptor_limit;
use crate::control::assert_undisturbed;
use crate::memory::most_while;
use crate::witness::Witness;

const SCRIPT: &str = "#!/bin/sh\n";

/// What the shipped policy lets Foreman see at a time.
const RENDERINGS: usize = 40;
/// What the shipped policy lets wait.
const QUEUE: usize = 2000;
/// What the proxy may take in a storm, in bytes.
const MEMORY: u64 = 150 << 20;

/// What the allocator may keep of a storm that is over: a third of what it took. A connection that stayed would keep some 38 KiB.
const KEPT: u64 = 72 << 20;

/// Five thousand at once, and those of the round before are not gone yet.
const LIMITS: &str = "limits = { connections = 12000 }";

/// Hosts of a site: some behind one address.
const SITE: Crowd = Crowd {
    addresses: 250,
    patience: Duration::from_secs(180),
};

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
        // Foreman is another machine.
        stand_back();
        let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(time);
        seen.now.fetch_sub(1, Ordering::SeqCst);
        reply("200 OK", "text/plain", SCRIPT)
    });
    (foreman, count)
}

fn with_registration(configuration: Configuration, url: &str) -> Bulkhead {
    raise_descriptor_limit();
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

/// How long Foreman takes to render one. `BULKHEAD_STORM_RENDER_MS=2000` is the long run of the book's page on measuring.
fn render_time() -> Duration {
    let given = std::env::var("BULKHEAD_STORM_RENDER_MS");
    let given = given.map(|it| it.parse().expect("BULKHEAD_STORM_RENDER_MS is a number"));
    Duration::from_millis(given.unwrap_or(200))
}

/// 1,000 hosts at once: each is registered, Foreman never sees more than it shall, its own calls are not disturbed, and little memory is needed.
#[test]
fn a_storm_of_registrations_is_served_in_turn() {
    const HOSTS: usize = 1000;
    // All limits as they are by default.
    let configuration = Configuration::standard().listener_keys("limits = {}");
    let (foreman, renderings) = rendering(&configuration, render_time());
    let bulkhead = with_registration(configuration, &foreman.url());
    let hosts = bulkhead.hosts().address;
    let idle = bulkhead.usage();
    let mut storms = 0;
    let most = most_while(&bulkhead, || {
        assert_undisturbed(&bulkhead, || {
            storms += 1;
            let began = Instant::now();
            let mut longest = Duration::ZERO;
            for answer in SITE.ask(hosts, 0..HOSTS, "/register") {
                let answer = answer.unwrap();
                assert_eq!((answer.status, &*answer.body), (200, SCRIPT), "{answer:?}");
                longest = longest.max(answer.waited);
            }
            println!(
                "storm {storms}: {:?}, the longest wait {longest:?}",
                began.elapsed()
            );
        });
    });
    println!("at most {most} bytes, idle {}", idle.resident);
    assert_eq!(foreman.requests().len(), storms * HOSTS, "each once");
    assert_eq!(renderings.most.load(Ordering::SeqCst), RENDERINGS);
    assert!(
        foreman.connections() <= storms * 2 * RENDERINGS,
        "connections are kept: {}",
        foreman.connections()
    );
    assert!(most <= MEMORY, "{most} bytes");
    assert_eventually!(bulkhead.usage().descriptors <= idle.descriptors + RENDERINGS + 8);
}

/// Who is still in line when the program has to end is told when to come back, rather than cut off without a word.
#[test]
fn who_waits_when_the_program_stops_is_told_to_come_back() {
    const HOSTS: usize = 100;
    let configuration = Configuration::empty().top("drain = \"3s\"");
    let (foreman, renderings) = rendering(&configuration, Duration::from_secs(30));
    let bulkhead = with_registration(configuration, &foreman.url());
    let hosts = bulkhead.hosts().address;
    let answers = std::thread::scope(|scope| {
        let asking = scope.spawn(|| SITE.ask(hosts, 0..HOSTS, "/register"));
        assert_eventually!(
            bulkhead
                .admin()
                .get("/metrics")
                .text()
                .contains("bulkhead_forwards{plugin=\"registration\"} 100\n")
        );
        bulkhead.signal(Signal::Terminate);
        asking.join().unwrap()
    });
    let told = answers
        .iter()
        .filter_map(|answer| answer.as_ref().ok())
        .filter(|answer| answer.status == 503 && answer.retry_after.is_some_and(|it| it > 1))
        .count();
    assert_eq!(told, HOSTS - RENDERINGS, "{answers:?}");
    assert_eq!(renderings.most.load(Ordering::SeqCst), RENDERINGS);
}

/// A body that finds no memory is turned away like what finds no place: counted, with its reason in the log, and told to come back at no common moment.
#[test]
fn a_body_that_finds_no_memory_is_told_to_come_back() {
    let configuration =
        Configuration::empty().listener_keys("limits = { held_bodies = \"64KiB\" }");
    let (foreman, _) = rendering(&configuration, Duration::ZERO);
    let bulkhead = with_registration(configuration, &foreman.url());
    let post = |sent: usize| {
        let head = "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 63000\r\n\r\n";
        let body = "x".repeat(sent);
        bulkhead.hosts().send(format!("{head}{body}")).unwrap()
    };
    let (mut held, mut told) = (Vec::new(), HashSet::new());
    assert_eventually!({
        // It says that more will come, and keeps what has come in memory. Should the next one be faster, there are others.
        held.push(post(62_000));
        let answer = post(63_000).response("POST").unwrap();
        if answer.status == 503 {
            told.insert(answer.header("retry-after").unwrap().to_owned());
        }
        told.len() > 2
    });
    assert!(
        told.iter()
            .all(|it| (5..=10).contains(&it.parse::<u64>().unwrap())),
        "{told:?}"
    );
    let metrics = bulkhead.admin().get("/metrics").text();
    let counted = "bulkhead_rejections_total{plugin=\"registration\",reason=\"held-bodies\"}";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(!bulkhead.log_lines("`held_bodies`").is_empty());
}

/// 5,000: what is beyond the line is told when to come back, does so and is served. Nobody waits longer than the line is long, nothing is left behind.
#[test]
fn beyond_the_line_hosts_are_told_to_come_back() {
    const HOSTS: usize = 5000;
    const RENDERING: Duration = Duration::from_millis(100);
    // A whole line at Foreman's pace.
    let line = RENDERING * u32::try_from(QUEUE / RENDERINGS).unwrap();
    let configuration = Configuration::standard().listener_keys(LIMITS);
    let (foreman, renderings) = rendering(&configuration, RENDERING);
    let bulkhead = with_registration(configuration, &foreman.url());
    let hosts = bulkhead.hosts().address;
    assert_eq!(bulkhead.hosts().get("/register").status, 200);
    let idle = bulkhead.usage();
    let witness = Witness::of(&bulkhead);
    let began = Instant::now();
    let mut told = Vec::new();
    let most = most_while(&bulkhead, || {
        told = SITE.ask_until_served(hosts, HOSTS, "/register");
    });
    let took = began.elapsed();
    let after = bulkhead.usage();
    witness.leave();
    let mut turned_away: Vec<u64> = Vec::new();
    let mut longest = Duration::ZERO;
    for host in told {
        let answers = host.unwrap();
        let (last, before) = answers.split_last().unwrap();
        assert_eq!((last.status, &*last.body), (200, SCRIPT), "{last:?}");
        for answer in before {
            assert_eq!(answer.status, 503, "{answer:?}");
            turned_away.push(answer.retry_after.unwrap());
        }
        longest = longest.max(answers.iter().map(|answer| answer.waited).max().unwrap());
    }
    turned_away.sort_unstable();
    println!(
        "{took:?}, the longest wait {longest:?}, {} turned away for {:?} to {:?} s, at most {most} bytes, {} before and {} after",
        turned_away.len(),
        turned_away.first(),
        turned_away.last(),
        idle.resident,
        after.resident
    );
    assert!(
        turned_away.len() > 1000,
        "5,000 are more than the line holds: {} were turned away",
        turned_away.len()
    );
    // Up to twice the time that the line takes, were Foreman as slow as this machine is while 5,000 connect to it.
    let latest = (line * 6).as_secs();
    assert!(
        turned_away
            .iter()
            .all(|seconds| (2..=latest).contains(seconds))
    );
    let different: HashSet<u64> = turned_away.iter().copied().collect();
    assert!(
        different.len() > 3,
        "they come back together: {different:?}"
    );
    assert!(longest < line * 5, "{longest:?} for a line of {line:?}");
    assert_eq!(foreman.requests().len(), HOSTS + 1, "each once");
    // What thousands of connections needed is given back, and another storm leaves no more behind.
    assert!(
        after.resident <= idle.resident + KEPT,
        "{after:?}, before {idle:?}"
    );
    for host in SITE.ask_until_served(hosts, HOSTS, "/register") {
        assert_eq!(host.unwrap().last().unwrap().status, 200);
    }
    let again = bulkhead.usage();
    assert!(
        again.resident <= idle.resident + KEPT,
        "{again:?}, before {idle:?}"
    );
    assert_eq!(renderings.most.load(Ordering::SeqCst), RENDERINGS);
    assert!(longest < SITE.patience, "{longest:?}");
    assert_eventually!(bulkhead.usage().descriptors <= idle.descriptors + RENDERINGS + 8);
    let metrics = || bulkhead.admin().get("/metrics").text();
    for line in [
        "bulkhead_forwards{plugin=\"registration\"} 0",
        "bulkhead_rejections_total{plugin=\"registration\",reason=\"queue-full\"}",
    ] {
        assert_eventually!(metrics().contains(line), "{}", metrics());
    }
}

/// Polite hosts, one after another from as many addresses: what each was answered.
fn polite(bulkhead: &Bulkhead, hosts: usize) -> Vec<Answer> {
    let target = bulkhead.hosts().address;
    aside(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..hosts {
            // Number 0 is the greedy one's address.
            tasks.spawn(SITE.one(target, number + 1, "/register".to_owned()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let joined = tasks.join_all().await;
        joined.into_iter().map(Result::unwrap).collect()
    })
}

/// While many connections of one address ask without pause, what polite hosts are answered, and the greedy.
fn beside_a_greedy_one(bulkhead: &Bulkhead, connections: usize) -> (Vec<Answer>, Vec<Answer>) {
    const POLITE: usize = 100;
    let target = bulkhead.hosts().address;
    let done = std::sync::atomic::AtomicBool::new(false);
    let greed = Crowd {
        addresses: 1,
        ..SITE
    };
    std::thread::scope(|scope| {
        let greedy = scope.spawn(|| {
            aside(async {
                let mut tasks = tokio::task::JoinSet::new();
                let mut answers = Vec::new();
                for number in 0..connections {
                    tasks.spawn(greed.one(target, number, "/register".to_owned()));
                }
                while let Some(answer) = tasks.join_next().await {
                    answers.push(answer.unwrap().unwrap());
                    if !done.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        tasks.spawn(greed.one(target, 0, "/register".to_owned()));
                    }
                }
                answers
            })
        });
        // The greedy one comes first.
        std::thread::sleep(Duration::from_secs(1));
        let polite = polite(bulkhead, POLITE);
        done.store(true, Ordering::Relaxed);
        (polite, greedy.join().unwrap())
    })
}

#[track_caller]
fn assert_served_soon(polite: &[Answer]) {
    for answer in polite {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.waited < Duration::from_secs(2), "{answer:?}");
    }
}

/// An address that asks without pause is told to come back; those beside it do not notice.
#[test]
fn one_address_asks_no_oftener_than_it_may() {
    const LIMITS: &str = "limits = { requests_per_address = 20, request_burst = 40 }";
    let configuration = Configuration::standard().listener_keys(LIMITS);
    let (foreman, _) = rendering(&configuration, Duration::from_millis(20));
    let bulkhead = with_registration(configuration, &foreman.url());
    let began = Instant::now();
    let (polite, greedy) = beside_a_greedy_one(&bulkhead, 64);
    let most = 40.0 + 20.0 * began.elapsed().as_secs_f64() + 1.0;
    assert_served_soon(&polite);
    let (served, refused): (Vec<_>, Vec<_>) = greedy.iter().partition(|it| it.status == 200);
    assert!(
        served.len() >= 40 && (served.len() as f64) <= most,
        "{}",
        served.len()
    );
    assert!(refused.len() > 40, "{} refused", refused.len());
    for answer in refused {
        assert_eq!(answer.status, 429, "{answer:?}");
        // Half a burst is earned in a second; up to twice that.
        assert!(matches!(answer.retry_after, Some(1 | 2)), "{answer:?}");
    }
    // Foreman's own doors know no such limit, and neither do other listeners.
    for _ in 0..100 {
        assert_eq!(bulkhead.foreman().get("/tftp/serverName").status, 200);
    }
    let metrics = bulkhead.admin().get("/metrics").text();
    assert!(
        metrics
            .contains("bulkhead_rejections_total{plugin=\"registration\",reason=\"client-rate\"}"),
        "{metrics}"
    );
}

/// Without such a limit the lines are fair all the same: an address that fills them keeps nobody out.
#[test]
fn one_address_that_fills_the_line_keeps_nobody_out() {
    const LIMITS: &str = "limits = { connections = 12000, connections_per_address = 12000, \
        requests_per_address = 1000000, request_burst = 1000000 }";
    let configuration = Configuration::standard().listener_keys(LIMITS);
    let (foreman, _) = rendering(&configuration, Duration::from_millis(200));
    let bulkhead = with_registration(configuration, &foreman.url());
    let (polite, greedy) = beside_a_greedy_one(&bulkhead, QUEUE + 1000);
    assert_served_soon(&polite);
    assert!(
        greedy.iter().any(|answer| answer.status == 503),
        "the line was never full"
    );
}
