//! A Foreman in trouble, as hosts, installers and new machines meet it: a clear status in bounded time, the reason in the log, and all is well again
//! as soon as Foreman is.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkhead_testkit::foreman::{Foreman, Recorded, reply};
use bulkhead_testkit::{Authority, Bulkhead, Configuration, Response, assert_eventually};

use crate::road::{Road, State};

const SCRIPT: &str = "#!/bin/sh\n";
const FAILS: &str = "echo \"Internal Server Error\"\nexit 1\n";
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// As long as the policies below let Foreman work.
const TIMEOUT: &str = "timeout = \"1s\"";
/// Ten times that: the machine has other work.
const BOUND: Duration = Duration::from_secs(10);

/// One request of a host, and what it is told.
struct Asked {
    plugin: &'static str,
    method: &'static str,
    path: &'static str,
    well: &'static str,
    /// When Foreman answers 500.
    refused: (u16, &'static str),
    /// When Foreman gives no answer; `*` is the kind of failure.
    silent: (u16, &'static str),
    /// The line in the log then, up to the kind of failure.
    logged: &'static str,
}

const ASKED: [Asked; 7] = [
    Asked {
        plugin: "registration",
        method: "GET",
        path: "/register",
        well: SCRIPT,
        refused: (500, FAILS),
        silent: (500, FAILS),
        logged: "registration got no answer: ",
    },
    Asked {
        plugin: "registration",
        method: "POST",
        path: "/register",
        well: SCRIPT,
        refused: (500, FAILS),
        silent: (500, FAILS),
        logged: "registration got no answer: ",
    },
    Asked {
        plugin: "templates",
        method: "GET",
        path: "/unattended/provision",
        well: SCRIPT,
        refused: (500, "Failed to proxy /provision: Foreman answered 500"),
        silent: (400, "Failed to proxy /provision: *"),
        logged: "Failed to proxy /provision: ",
    },
    Asked {
        plugin: "templates",
        method: "GET",
        path: "/unattended/template/a/b",
        well: SCRIPT,
        refused: (
            500,
            "Failed to retrieve template hostgroup template: Foreman answered 500",
        ),
        silent: (400, "Failed to retrieve template hostgroup template: *"),
        logged: "Failed to retrieve template hostgroup template: ",
    },
    Asked {
        plugin: "templates",
        method: "POST",
        path: "/unattended/built",
        well: SCRIPT,
        refused: (500, "Failed to proxy /built: Foreman answered 500"),
        silent: (400, "Failed to proxy /built: *"),
        logged: "Failed to proxy /built: ",
    },
    Asked {
        plugin: "templates",
        method: "GET",
        path: "/userdata/user-data",
        well: SCRIPT,
        refused: (
            500,
            "Failed to retrieve user-data userdata template: Foreman answered 500",
        ),
        silent: (500, "Failed to retrieve user-data userdata template: *"),
        logged: "Failed to retrieve user-data userdata template: ",
    },
    Asked {
        plugin: "discovery",
        method: "POST",
        path: "/discovery/create",
        well: "",
        refused: (
            500,
            "Discovery failed, code 500, reason: Internal Server Error",
        ),
        silent: (500, "Discovery failed, Foreman gave no answer"),
        logged: "Foreman did not take a machine's facts: ",
    },
];

/// A Foreman that can be put out of order, the road to it, and a program that waits a second for it.
struct Site {
    bulkhead: Bulkhead,
    foreman: Foreman,
    road: Road,
    mood: Arc<Mutex<&'static str>>,
}

fn answer(mood: &str) -> Vec<u8> {
    match mood {
        "hangs up" => Vec::new(),
        "fails" => reply("500 Internal Server Error", "text/html", "<html>"),
        "junk" => b"\x00\x01 junk\r\n\r\n".to_vec(),
        "endless head" => [b"HTTP/1.1 200 OK\r\nX: ", &[b'x'; 1 << 20][..]].concat(),
        "slow" => {
            std::thread::sleep(Duration::from_secs(3));
            reply("200 OK", "text/plain", SCRIPT)
        }
        _ => reply("200 OK", "text/plain", SCRIPT),
    }
}

fn features(configuration: Configuration) -> Configuration {
    configuration
        .feature("registration", "enabled = true")
        .feature(
            "templates",
            "enabled = true\ntemplate_url = \"http://proxy.example.com\"",
        )
        .feature("discovery", "enabled = true")
}

fn site(answer: impl Fn(&Recorded, &str) -> Vec<u8> + Send + Sync + 'static) -> Site {
    let configuration = Configuration::empty();
    let mood = Arc::new(Mutex::new("well"));
    let asked = mood.clone();
    let foreman = Foreman::answering(&configuration.authority, move |request| {
        let mood = *asked.lock().unwrap();
        answer(request, mood)
    });
    let road = Road::to(foreman.address);
    let url = format!("https://localhost:{}", road.address.port());
    let bulkhead = Bulkhead::with(
        features(configuration)
            .foreman_at(&url)
            .policy(
                "registration",
                &format!("[foreman.register]\nallow = [\"GET /register\", \"POST /register\"]\n{TIMEOUT}"),
            )
            .policy(
                "templates",
                &format!(
                    "[foreman.provisioning]\nallow = [\"GET /unattended/*\", \"GET /unattended/*/*/*\", \"POST /unattended/*\", \"GET /userdata/*\"]\n{TIMEOUT}"
                ),
            )
            .policy(
                "discovery",
                &format!("[foreman.discovered-hosts]\nallow = [\"POST /api/v2/discovered_hosts/facts\"]\n{TIMEOUT}"),
            ),
    );
    Site {
        bulkhead,
        foreman,
        road,
        mood,
    }
}

impl Asked {
    fn ask(&self, bulkhead: &Bulkhead) -> Response {
        let hosts = bulkhead.hosts();
        let request = hosts.request(self.method, self.path);
        let request = match self.method {
            "POST" => request.body("application/json", "{}"),
            _ => request,
        };
        let began = Instant::now();
        let answer = request.send();
        let took = began.elapsed();
        assert!(took < BOUND, "{} took {took:?}", self.path);
        answer
    }

    #[track_caller]
    fn assert_told(&self, now: &str, bulkhead: &Bulkhead, (status, text): (u16, &str)) {
        let answer = self.ask(bulkhead);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (status, text),
            "{now}: {}\n{}",
            self.path,
            bulkhead.log()
        );
    }

    /// Tells the failure, and the log says why: a word for the kind, then what happened.
    #[track_caller]
    fn assert_silent(&self, now: &str, bulkhead: &Bulkhead, kind: &str, why: &str) {
        let (status, text) = self.silent;
        let lines = || bulkhead.log_lines(self.logged);
        let before = lines().len();
        self.assert_told(now, bulkhead, (status, &text.replace('*', kind)));
        assert_eventually!(
            lines()[before..]
                .iter()
                .any(|line| line.contains(self.plugin)
                    && line.contains(kind)
                    && line.contains(why)),
            "{now}: {}: {:#?}",
            self.path,
            &lines()[before..]
        );
    }
}

impl Site {
    fn set(&self, mood: &'static str) {
        *self.mood.lock().unwrap() = mood;
    }

    #[track_caller]
    fn assert_well(&self, after: &str) {
        for asked in &ASKED {
            asked.assert_told(after, &self.bulkhead, (200, asked.well));
        }
    }

    #[track_caller]
    fn assert_all_silent(&self, now: &str, kind: &str, why: &str) {
        for asked in &ASKED {
            asked.assert_silent(now, &self.bulkhead, kind, why);
        }
    }
}

/// A Foreman that answers, but no use.
#[test]
fn a_foreman_that_fails_is_told_apart_and_recovered_from() {
    let site = site(|_, mood| answer(mood));
    for (now, kind, why) in [
        ("hangs up", "unreachable", "closed"),
        ("junk", "broken answer", "does not answer in HTTP"),
        ("endless head", "broken answer", "too large a head"),
        ("slow", "no answer within 1000 ms", ""),
    ] {
        site.assert_well(now);
        site.set(now);
        site.assert_all_silent(now, kind, why);
        site.set("well");
    }
    site.assert_well("after all");
    site.set("fails");
    for asked in &ASKED {
        asked.assert_told("fails", &site.bulkhead, asked.refused);
    }
    for line in [
        "Foreman answered a registration with 500",
        "Failed to proxy /provision: Foreman answered 500",
        "Failed to retrieve user-data userdata template: Foreman answered 500",
        "Discovery failed, code 500",
    ] {
        assert_eventually!(!site.bulkhead.log_lines(line).is_empty(), "{line}");
    }
    site.set("well");
    site.assert_well("after 500");
}

/// A Foreman that is away, in all ways of being away, with connections to it kept from before.
#[test]
fn a_foreman_that_is_away_is_told_apart_and_recovered_from() {
    let site = site(|_, mood| answer(mood));
    for (state, kind, why) in [
        (State::Down, "unreachable", "connection refused"),
        (State::Resetting, "unreachable", "connection reset"),
        (State::Silent, "no answer within 1000 ms", ""),
    ] {
        let now = format!("{state:?}");
        site.assert_well(&now);
        site.road.set(state);
        site.assert_all_silent(&now, kind, why);
        site.road.set(State::Open);
    }
    site.assert_well("after all");
}

/// Certificates: Foreman's own expires and is renewed, is another's, and the proxy's is not known to Foreman.
#[test]
fn certificates_that_do_not_hold_are_told_and_nothing_is_sent() {
    let site = site(|_, mood| answer(mood));
    let authority = site.bulkhead.configuration.authority.clone();
    let other = Authority::root("another");
    let well = authority.server(&NAMES);
    for (now, server, clients, why) in [
        (
            "expired",
            authority.expired_server(&NAMES),
            &*authority,
            "expired",
        ),
        (
            "another's",
            other.server(&NAMES),
            &*authority,
            "UnknownIssuer",
        ),
        (
            "of another name",
            authority.server(&["foreman.example.com"]),
            &*authority,
            "not valid for name",
        ),
        ("not known", well.clone(), &other, "alert"),
    ] {
        site.assert_well(now);
        site.foreman.present(&server, clients);
        // Connections that are kept know nothing of it.
        site.road.set(State::Open);
        let before = site.foreman.requests().len();
        site.assert_all_silent(now, "TLS failed", why);
        assert_eq!(site.foreman.requests().len(), before, "{now}: it was asked");
        site.foreman.present(&well, &authority);
    }
    site.assert_well("after all");
}

/// An answer that breaks off does so for the client as well: half a script must not look whole.
#[test]
fn an_answer_that_breaks_off_does_not_look_whole() {
    let site = site(|_, mood| {
        match mood {
        "of a length" => {
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 100\r\n\r\nhalf"
                .to_vec()
        }
        "in chunks" => {
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
                .to_vec()
        }
        mood => answer(mood),
    }
    });
    for mood in ["of a length", "in chunks"] {
        site.set(mood);
        for asked in ASKED.iter().filter(|it| it.method == "GET") {
            let hosts = site.bulkhead.hosts();
            let error = hosts.request("GET", asked.path).try_send().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
        }
        assert_eventually!(
            site.bulkhead.log_lines("complete=false").len() >= 4,
            "{}",
            site.bulkhead.log()
        );
        site.set("well");
        site.assert_well(mood);
    }
}
