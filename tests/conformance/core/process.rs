//! contract/core.md 9: signals, start and end, and what systemd is told.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

use bulkhead_testkit::configuration::loopback;
use bulkhead_testkit::notify::Notifications;
use bulkhead_testkit::{Bulkhead, Configuration, Signal, assert_eventually, run};

/// How long an idle program may take to end.
const END: Duration = Duration::from_secs(5);

/// INT and TERM: exit 0.
#[test]
fn terminate_and_interrupt_end_with_success() {
    for signal in [Signal::Terminate, Signal::Interrupt] {
        let bulkhead = Bulkhead::with(Configuration::empty());
        bulkhead.signal(signal);
        let status = bulkhead.wait_for_end(END);
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(0),
            "{signal:?}:\n{}",
            bulkhead.log()
        );
    }
}

/// USR1: the log file is opened again, so that a rotated one is let go.
#[test]
fn usr1_opens_the_log_file_again() {
    let configuration = Configuration::empty();
    let file = configuration.scratch.join("proxy.log");
    let section = format!("[log]\ntarget = {:?}", file.display().to_string());
    let bulkhead = Bulkhead::with(configuration.section(&section));
    let target = bulkhead.foreman();
    target.get("/features?before");
    assert_eventually!(fs::read_to_string(&file).is_ok_and(|text| text.contains("before")));
    let rotated = bulkhead.configuration.scratch.join("proxy.log.1");
    fs::rename(&file, &rotated).unwrap();
    bulkhead.signal(Signal::Reopen);
    assert_eventually!(
        {
            target.get("/features?after");
            fs::read_to_string(&file).is_ok_and(|text| text.contains("after"))
        },
        "nothing was written to the new file"
    );
    assert!(fs::read_to_string(&rotated).unwrap().contains("before"));
}

/// TTIN: the original prints its threads; here it is told what each plugin does, in the log.
#[test]
fn ttin_tells_what_goes_on() {
    let bulkhead = Bulkhead::with(Configuration::empty().tftp(""));
    bulkhead.signal(Signal::Tell);
    for (plugin, state) in [("tftp", "running"), ("httpboot", "disabled")] {
        let tells = |line: &String| line.contains(plugin) && line.contains(state);
        assert_eventually!(
            bulkhead.log_lines("at the moment").iter().any(tells),
            "{plugin}: {}",
            bulkhead.log()
        );
    }
    assert_eq!(bulkhead.foreman().get("/tftp/serverName").status, 200);
}

/// 5: each feature that runs has been announced, and the sockets after them.
#[test]
fn the_start_is_logged_in_the_known_words() {
    let bulkhead = Bulkhead::with(Configuration::standard());
    for line in [
        "Successfully initialized 'tftp'",
        "Successfully initialized 'httpboot'",
        // Foreman's door and the hosts', each with TLS and without, and the administrator's.
        "Smart proxy has launched on 5 socket(s), waiting for requests",
    ] {
        assert_eventually!(
            bulkhead.log_lines(line).len() == 1,
            "{line}: {}",
            bulkhead.log()
        );
    }
    assert!(
        bulkhead
            .log_lines("Successfully initialized 'dns'")
            .is_empty()
    );
}

/// 7: the line of a log file: `2026-11-23T18:36:14 850ca7f1 [I] Started GET /features `.
#[test]
fn lines_of_a_log_file_have_the_known_form() {
    let configuration = Configuration::empty();
    let file = configuration.scratch.join("proxy.log");
    let section = format!("[log]\ntarget = {:?}", file.display().to_string());
    let bulkhead = Bulkhead::with(configuration.section(&section));
    bulkhead
        .foreman()
        .request("GET", "/features")
        .header("X-Request-Id", "850ca7f1-0000-4000-8000-000000000000")
        .send();
    let line = || {
        let text = fs::read_to_string(&file).ok()?;
        text.lines()
            .find(|line| line.contains("850ca7f1") && line.contains("Started"))
            .map(str::to_owned)
    };
    assert_eventually!(line().is_some());
    let line = line().unwrap();
    let (time, rest) = line.split_at(19);
    // Fields may follow.
    assert!(
        rest.starts_with(" 850ca7f1 [I] Started GET /features "),
        "{line:?}"
    );
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00", "{line:?}");
}

/// READY=1 after all listeners listen.
#[test]
fn systemd_is_told_ready_when_all_listeners_listen() {
    let notifications = Notifications::listen();
    let bulkhead = Bulkhead::launch(
        Configuration::standard(),
        &[("NOTIFY_SOCKET", notifications.path())],
    );
    let ready = notifications.wait_for("READY=1", Duration::from_secs(60));
    assert!(ready.is_ok(), "{ready:?}\n{}", bulkhead.log());
    for target in [
        bulkhead.foreman(),
        bulkhead.foreman_tls(),
        bulkhead.hosts(),
        bulkhead.admin(),
    ] {
        assert!(target.open().is_ok(), "{} does not listen", target.address);
    }
    assert!(bulkhead.foreman().get("/features").status == 200);
}

/// Reload, status and end are told as well.
#[test]
fn systemd_is_told_reloading_and_stopping() {
    let notifications = Notifications::listen();
    let bulkhead = Bulkhead::start(
        Configuration::standard(),
        &[("NOTIFY_SOCKET", notifications.path())],
    );
    bulkhead.signal(Signal::Reload);
    let reloading = notifications.wait_for("RELOADING=1", Duration::from_secs(10));
    assert!(reloading.is_ok(), "{reloading:?}");
    let ready = notifications.wait_for("READY=1", Duration::from_secs(10));
    assert!(ready.is_ok(), "{ready:?}");
    let status = notifications.wait_for("STATUS", Duration::from_secs(10));
    assert!(
        status.is_ok()
            || ready.is_ok_and(|lines| lines.iter().any(|line| line.starts_with("STATUS="))),
        "{status:?}"
    );
    bulkhead.signal(Signal::Terminate);
    let stopping = notifications.wait_for("STOPPING=1", Duration::from_secs(10));
    assert!(stopping.is_ok(), "{stopping:?}");
}

/// The watchdog is fed at least twice in its time.
#[test]
fn the_watchdog_is_fed() {
    let notifications = Notifications::listen();
    let microseconds = std::path::Path::new("1000000");
    let _bulkhead = Bulkhead::start(
        Configuration::empty(),
        &[
            ("NOTIFY_SOCKET", notifications.path()),
            ("WATCHDOG_USEC", microseconds),
        ],
    );
    for _ in 0..3 {
        let fed = notifications.wait_for("WATCHDOG=1", Duration::from_millis(1_000));
        assert!(fed.is_ok(), "{fed:?}");
    }
}

/// A start that fails says why, names the place and exits with 1.
#[test]
fn a_port_in_use_is_named_and_ends_the_start() {
    let configuration = Configuration::empty();
    let taken = TcpListener::bind(loopback(configuration.doors.foreman_tls)).unwrap();
    let path = configuration.write();
    let finished = run(["serve", "--config", path.to_str().unwrap()]);
    assert_eq!(finished.code(), Some(1), "{}", finished.text());
    let port = taken.local_addr().unwrap().port().to_string();
    let said = format!("{port}: Address already in use (os error 98); `bulkhead doctor` tells");
    assert!(finished.text().contains(&said), "{}", finished.text());
}

/// A configuration file that is not there is an error, not a trial.
#[test]
fn a_missing_configuration_file_ends_the_start() {
    let finished = run(["serve", "--config", "/nonexistent/proxy.toml"]);
    assert!(matches!(finished.code(), Some(1 | 3)), "{finished:?}");
    assert!(
        finished.text().contains("/nonexistent/proxy.toml"),
        "{}",
        finished.text()
    );
}

/// Draining: a request that has begun is finished, a new connection is not taken.
#[test]
fn terminate_finishes_what_has_begun() {
    let bulkhead = Bulkhead::trial();
    let target = bulkhead.foreman();
    let body = format!("pxeconfig={}", "x".repeat(2_000));
    let head = format!(
        "POST /tftp/PXELinux/aa:bb:cc:00:09:01 HTTP/1.1\r\nHost: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        target.host(),
        body.len()
    );
    let mut connection = target.send(head).unwrap();
    connection.send(&body[..1_000]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    bulkhead.signal(Signal::Terminate);
    // Listening ends at once, the request does not.
    assert_eventually!(
        target.open().is_err(),
        "it still listens:\n{}",
        bulkhead.log()
    );
    assert!(
        bulkhead.ended().is_none(),
        "it ended in the middle of a request"
    );
    connection.send(&body[1_000..]).unwrap();
    assert_eq!(connection.response("POST").unwrap().status, 200);
    assert_eq!(
        bulkhead.wait_for_end(END).and_then(|status| status.code()),
        Some(0),
        "{}",
        bulkhead.log()
    );
    let written = fs::read(bulkhead.boot().join("pxelinux.cfg/01-aa-bb-cc-00-09-01")).unwrap();
    assert_eq!(written.len(), 2_000);
}

/// Connections that wait for nothing do not hold up the end.
#[test]
fn idle_connections_do_not_delay_the_end() {
    let bulkhead = Bulkhead::with(Configuration::empty());
    let target = bulkhead.foreman();
    let mut kept = target
        .send(target.request("GET", "/features").bytes())
        .unwrap();
    kept.response("GET").unwrap();
    let _silent = target.open().unwrap();
    let start = Instant::now();
    bulkhead.signal(Signal::Terminate);
    assert!(
        bulkhead.wait_for_end(END).is_some(),
        "{:?}\n{}",
        start.elapsed(),
        bulkhead.log()
    );
}

/// The state directory holds keys and must be nobody else's.
#[test]
fn what_is_written_into_the_state_directory_is_private() {
    let bulkhead = Bulkhead::trial();
    let state = bulkhead.configuration.scratch.join("state");
    let mut open = vec![state];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap().flatten() {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                assert_eq!(
                    metadata.permissions().mode() & 0o077,
                    0,
                    "{}",
                    entry.path().display()
                );
                open.push(entry.path());
            } else {
                // Nobody but the owner may change anything; keys nobody else may read either.
                assert_eq!(metadata.mode() & 0o022, 0, "{}", entry.path().display());
            }
        }
    }
}
