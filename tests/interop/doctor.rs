//! `bulkhead doctor` against real faults: a second DHCP server on the wire, a taken port, a Foreman whose clock is off, a directory of somebody else.

use std::fs::Permissions;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::skip::program;
use bulkhead_testkit::{Authority, Configuration, Scratch, assert_eventually, program, skip};

/// What it found, and its exit code.
struct Report {
    findings: Vec<serde_json::Value>,
    code: Option<i32>,
}

impl Report {
    fn of(arguments: &[&str]) -> Self {
        let mut command = Command::new(program::executable());
        command.args(["doctor", "--format", "json"]).args(arguments);
        Self::from(command)
    }

    fn from(mut command: Command) -> Self {
        let output = command.output().expect("the program can be started");
        let findings = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self {
            findings,
            code: output.status.code(),
        }
    }

    /// The one finding of this level in this area whose subject contains these words.
    #[track_caller]
    fn one(&self, area: &str, level: &str, subject: &str) -> String {
        let found = self.findings.iter().find(|it| {
            it["area"] == area
                && it["level"] == level
                && it["subject"]
                    .as_str()
                    .is_some_and(|it| it.contains(subject))
        });
        let found =
            found.unwrap_or_else(|| panic!("no {area} {level} {subject}: {:#?}", self.findings));
        assert_eq!(found["advice"].is_string(), level != "good", "{found}");
        found["found"].as_str().unwrap().to_owned()
    }
}

/// Real dnsmasq at the other end of a wire, and then nobody; without rights it says so.
#[test]
fn another_dhcp_server_on_the_wire_is_found() {
    if program("dnsmasq").is_none() {
        skip!("dnsmasq is missing");
    }
    let (Some(site), Some(far)) = (Namespace::new("site"), Namespace::new("far")) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.wire("eth0", "192.0.2.1/24", &far, "eth1", "192.0.2.9/24");
    let state = Scratch::new();
    let place = state.path().display().to_string();
    let mut rogue = far
        .command("dnsmasq")
        .args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--port=0",
            "--interface=eth1",
        ])
        .args(["--dhcp-range=192.0.2.150,192.0.2.160,2m", "--leasefile-ro"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("dnsmasq can be started");
    assert_eventually!(
        String::from_utf8_lossy(&far.run("ss", &["-lun"]).stdout).contains(":67 "),
        "dnsmasq does not listen"
    );
    site.enter();
    let report = Report::of(&["--state", &place, "--interface", "eth0"]);
    let _ = rogue.kill();
    let _ = rogue.wait();
    let found = report.one("dhcp", "problem", "eth0");
    assert!(
        found.contains("another DHCP server, 192.0.2.9, offered 192.0.2.1"),
        "{found}"
    );
    assert_eq!(report.code, Some(1));

    let report = Report::of(&["--state", &place, "--interface", "eth0"]);
    let found = report.one("dhcp", "good", "eth0");
    assert!(found.contains("nobody offered"), "{found}");
    assert_eq!(report.code, Some(0), "{:#?}", report.findings);

    let report = Report::of(&["--state", &place, "--interface", "nope0"]);
    report.one("dhcp", "problem", "nope0");

    // A user without rights may not come to where the program was built.
    let open = Scratch::new();
    std::fs::set_permissions(open.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = open.path().join("bulkhead");
    std::fs::copy(program::executable(), &copy).unwrap();
    let mut command = Command::new(copy);
    command
        .args([
            "doctor",
            "--format",
            "json",
            "--interface",
            "eth0",
            "--state",
            "/nowhere",
        ])
        .current_dir("/")
        .uid(65_534)
        .gid(65_534);
    let report = Report::from(command);
    let found = report.one("dhcp", "unknown", "eth0");
    assert!(found.contains("may not ask"), "{found}");
    report.one("directories", "problem", "state");
}

/// An interface of `dhcp-builtin` on which nobody is answered is told, though nobody else answers there either.
#[test]
fn an_interface_that_nobody_is_answered_on_is_told() {
    let (Some(site), Some(far)) = (Namespace::new("site"), Namespace::new("far")) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.wire("eth0", "10.77.0.1/24", &far, "eth1", "");
    site.enter();
    let settings = "enabled = true\ninterfaces = [\"eth0\"]\nsubnets = [\"192.0.2.0/24\"]";
    let configuration = Configuration::empty().feature("dhcp-builtin", settings);
    let file = configuration.write().display().to_string();
    let look = || Report::of(&["--config", &file]);
    let found = look().one("dhcp", "warning", "eth0");
    assert!(found.contains("10.77.0.1 is in none"), "{found}");
    site.ip(&["address", "flush", "dev", "eth0"]);
    let found = look().one("dhcp", "problem", "eth0");
    assert!(found.contains("no IPv4 address"), "{found}");
    site.ip(&["address", "add", "192.0.2.1/24", "dev", "eth0"]);
    let found = look().one("dhcp", "good", "eth0");
    assert!(found.contains("nobody offered"), "{found}");
    site.ip(&["link", "set", "eth0", "down"]);
    let found = look().one("dhcp", "problem", "eth0");
    assert!(found.contains("the interface is down"), "{found}");
}

/// A Foreman that runs, whose clock is an hour behind, and a port that somebody has.
#[test]
fn what_a_configured_site_misses_is_found() {
    let configuration = Configuration::standard();
    let foreman = Foreman::answering(&configuration.authority, |_| {
        let mut answer = reply("200 OK", "text/plain", "hello");
        let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        let date = format!("Date: {}\r\n", httpdate::fmt_http_date(hour_ago));
        let line = answer.windows(2).position(|it| it == b"\r\n").unwrap() + 2;
        answer.splice(line..line, date.into_bytes());
        answer
    });
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let missing = configuration.scratch.join("missing").display().to_string();
    let configuration = configuration.foreman(&foreman).feature(
        "tftp-server",
        &format!("enabled = true\ntftproot = {missing:?}\nlisten = [\"udp 127.0.0.1:{port}\"]"),
    );
    let file = configuration.write().display().to_string();
    let report = Report::of(&["--config", &file]);
    assert_eq!(report.code, Some(1));
    let found = report.one("ports", "problem", &format!("udp 127.0.0.1:{port}"));
    assert!(
        found.contains("plugin `tftp-server` cannot have it")
            && found.contains(&format!("process {}", std::process::id())),
        "{found}"
    );
    let found = report.one("foreman", "good", "https://");
    assert!(found.contains("took the client certificate"), "{found}");
    let found = report.one("clock", "problem", "this machine");
    assert!(found.contains("ahead of Foreman's"), "{found}");
    report.one("certificates", "good", "client.pem");
    let found = report.one("directories", "problem", "tftp-server");
    assert!(found.contains("No such file"), "{found}");
    report.one("directories", "good", "tftp (files slot `root`)");
    report.one("plugins", "unknown", "the proxy");

    // A Foreman that is reached and not trusted, or does not trust us: each has advice of its own.
    let (ours, others) = (
        &configuration.authority,
        Arc::new(Authority::root("others")),
    );
    let names = ["localhost", "127.0.0.1"];
    for (identity, clients, found, advice) in [
        (
            ours.server(&["other.example.com"]),
            ours,
            "not trusted",
            "a name that its certificate is made for",
        ),
        (
            ours.expired_server(&names),
            ours,
            "expired",
            "have Foreman's certificate renewed",
        ),
        (
            others.server(&names),
            ours,
            "UnknownIssuer",
            "name in `ca` of [foreman]",
        ),
        (
            ours.server(&names),
            &others,
            "refuses the proxy's certificate",
            "SSLCACertificateFile",
        ),
    ] {
        foreman.present(&identity, clients);
        let report = Report::of(&["--config", &file]);
        let told = report.one("foreman", "problem", "https://");
        assert!(told.contains(found), "{told}");
        let all = serde_json::to_string(&report.findings).unwrap();
        assert!(all.contains(advice), "{advice}: {all}");
    }

    // Nobody there, and a configuration with a mistake.
    drop(foreman);
    let report = Report::of(&["--config", &file]);
    let found = report.one("foreman", "problem", "https://");
    assert!(found.contains("not reached"), "{found}");
    std::fs::write(&file, "nonsense = 1").unwrap();
    let output = Command::new(program::executable())
        .args(["doctor", "--config", &file])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

/// Ports, directories and files seen by a user without rights.
#[test]
fn what_a_user_without_rights_misses_is_told() {
    let Some(site) = Namespace::new("site") else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    let start = "echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start";
    assert!(site.run("sh", &["-c", start]).status.success());
    site.enter();
    let configuration = Configuration::empty();
    let scratch = configuration.scratch.clone();
    let (boot, leases) = (configuration.boot(), scratch.file("dhcpd.leases", ""));
    let config = scratch.file("dhcpd.conf", "subnet 192.0.2.0 netmask 255.255.255.0 { }\n");
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    mode(&boot, 0o700);
    let quoted = |path: &std::path::Path| format!("{:?}", path.display().to_string());
    let configuration = configuration
        .feature(
            "tftp-server",
            &format!(
                "enabled = true\ntftproot = {}\nlisten = [\"udp 127.0.0.1:69\"]",
                quoted(&boot)
            ),
        )
        .feature(
            "dhcp-isc",
            &format!(
                "enabled = true\nconfig = {}\nleases = {}",
                quoted(&config),
                quoted(&leases)
            ),
        );
    let file = configuration.write();
    let copy = scratch.join("bulkhead");
    std::fs::copy(program::executable(), &copy).unwrap();
    mode(&copy, 0o755);
    mode(&file, 0o644);
    for place in ["", "state", "policies", "plugins", "tls"] {
        mode(&scratch.join(place), 0o755);
    }
    mode(&config, 0o644);
    mode(&leases, 0o600);
    let as_nobody = || {
        let mut command = Command::new(&copy);
        command
            .args(["doctor", "--format", "json", "--config"])
            .arg(&file)
            .current_dir("/")
            .uid(65_534)
            .gid(65_534);
        command
    };
    // Without its key it does not come so far.
    let refused = as_nobody().output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        told.contains("server-key.pem") && told.contains("Permission denied"),
        "{told}"
    );
    for file in std::fs::read_dir(scratch.join("tls")).unwrap() {
        mode(&file.unwrap().path(), 0o644);
    }
    let as_nobody = || Report::from(as_nobody());
    let report = as_nobody();
    assert_eq!(report.code, Some(1));
    let found = report.one("ports", "problem", "udp 127.0.0.1:69");
    assert!(found.contains("may not have it"), "{found}");
    let found = report.one("directories", "problem", "tftp-server (files slot `root`)");
    assert!(
        found.contains("user 65534 may not read it (mode 0700, owner 0"),
        "{found}"
    );
    let found = report.one("directories", "unknown", "state");
    assert!(
        found.contains("belongs to user 0, and this is user 65534"),
        "{found}"
    );
    let found = report.one("directories", "problem", "dhcp-isc (watch slot `leases`)");
    assert!(found.contains("this user may not open it"), "{found}");
    report.one("certificates", "warning", "server-key.pem");
    // With the rights all of these are good.
    mode(&boot, 0o755);
    as_nobody().one("directories", "good", "tftp-server (files slot `root`)");
    let file = file.display().to_string();
    let report = Report::of(&["--config", &file]);
    report.one("ports", "good", "udp 127.0.0.1:69");
    report.one("directories", "good", "state");
}

/// Names that lead nowhere or elsewhere, of this machine and of those who call over plain HTTP.
#[test]
fn names_that_lead_nowhere_are_told() {
    let report = |url: &str| {
        let configuration = Configuration::empty()
            .trusted_hosts(&["localhost", "foreman.invalid"])
            .listener_keys(&format!("public_url = {url:?}"));
        Report::of(&["--config", &configuration.write().display().to_string()])
    };
    let nowhere = report("http://proxy.invalid:8000");
    let found = nowhere.one("names", "problem", "proxy.invalid");
    assert!(found.contains("leads to no address"), "{found}");
    let found = nowhere.one("names", "problem", "foreman.invalid");
    assert!(found.contains("stands in `trusted_hosts`"), "{found}");
    nowhere.one("names", "good", "localhost");
    assert_eq!(nowhere.code, Some(1));
    let elsewhere = report("http://192.0.2.200:8000");
    let found = elsewhere.one("names", "warning", "192.0.2.200");
    assert!(found.contains("is no address of this machine"), "{found}");
    let here = report("http://127.0.0.1:8000");
    here.one("names", "good", "127.0.0.1");
}

/// Beside the proxy that runs its ports are its own, and its plugins are asked for.
#[test]
fn a_proxy_that_runs_is_not_in_its_own_way() {
    let port = bulkhead_testkit::ports::free();
    let configuration = Configuration::standard();
    let boot = configuration.boot().display().to_string();
    let settings =
        format!("enabled = true\ntftproot = {boot:?}\nlisten = [\"udp 127.0.0.1:{port}\"]");
    let bulkhead =
        bulkhead_testkit::Bulkhead::with(configuration.feature("tftp-server", &settings));
    let file = bulkhead.configuration.path().display().to_string();
    let report = Report::of(&["--config", &file]);
    let doors = bulkhead.configuration.doors;
    for socket in [
        format!("udp 127.0.0.1:{port}"),
        format!("tcp 127.0.0.1:{}", doors.foreman_tls),
        format!("tcp 127.0.0.1:{}", doors.admin),
    ] {
        let found = report.one("ports", "good", &socket);
        assert!(found.contains("held by the running proxy"), "{found}");
    }
    for plugin in ["tftp", "tftp-server", "httpboot"] {
        report.one("plugins", "good", plugin);
    }
    let other = report
        .findings
        .iter()
        .filter(|it| it["level"] == "problem" && it["area"] != "names");
    assert_eq!(other.count(), 0, "{:#?}", report.findings);
}
