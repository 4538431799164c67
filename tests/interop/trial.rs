//! The first minute: `bulkhead serve` without a configuration, and the lines it prints.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bulkhead_testkit::scratch::files_below;
use bulkhead_testkit::{Scratch, Target, assert_eventually, program, run, skip};

/// The ports of a trial are fixed, so that the printed lines can be.
const PORTS: [u16; 5] = [8000, 8443, 8080, 9180, 8053];
const UDP_PORTS: [u16; 2] = [8053, 8069];

/// A cold start compiles all plugins.
const START: Duration = Duration::from_secs(60);

struct Trial {
    child: Child,
    lines: Vec<String>,
    state: Scratch,
}

impl Trial {
    /// Starts a trial and reads what it prints until it has printed its last line.
    fn start() -> Self {
        let state = Scratch::new();
        let mut child = Command::new(program::executable())
            .args(["serve", "--state"])
            .arg(state.path())
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program can be started");
        let (sender, receiver) = mpsc::channel();
        let output = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut this = Self {
            child,
            lines: Vec::new(),
            state,
        };
        let end = Instant::now() + START;
        while !this.lines.iter().any(|it| it.contains("Stop with Ctrl-C")) {
            match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => this.lines.push(line),
                Err(_) => panic!("no greeting in:\n{}", this.lines.join("\n")),
            }
        }
        this
    }

    /// The lines to paste.
    fn lines_to_paste(&self) -> Vec<String> {
        self.lines
            .iter()
            .map(|line| line.trim())
            .filter(|line| line.starts_with("curl ") || line.starts_with("dig "))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn target(port: u16) -> Target {
    Target::plain((Ipv4Addr::LOCALHOST, port).into())
}

/// One test, because the ports are fixed: the printed lines work when pasted, and the promises of a trial hold.
#[test]
fn the_printed_lines_work_when_pasted() {
    for needed in ["curl", "dig"] {
        if bulkhead_testkit::skip::program(needed).is_none() {
            skip!("there is no {needed} on this machine");
        }
    }
    let local = Ipv4Addr::LOCALHOST;
    let taken = PORTS
        .iter()
        .find(|it| TcpListener::bind((local, **it)).is_err());
    let taken = taken.or_else(|| {
        UDP_PORTS
            .iter()
            .find(|it| UdpSocket::bind((local, **it)).is_err())
    });
    if let Some(port) = taken {
        skip!("port {port} of the trial is in use on this machine");
    }
    let trial = Trial::start();
    let greeting = trial.lines.join("\n");
    for port in PORTS {
        assert!(
            greeting.contains(&format!("127.0.0.1:{port}")),
            "port {port} is not named:\n{greeting}"
        );
    }
    for plugin in [
        "tftp",
        "tftp-server",
        "httpboot",
        "dns",
        "dns-builtin",
        "dhcp",
        "dhcp-builtin",
        "facts",
    ] {
        assert!(
            trial
                .lines
                .iter()
                .any(|it| it.split_whitespace().eq([plugin, "running"])),
            "{plugin} does not run:\n{greeting}"
        );
    }
    // They run, and say what they lack.
    for plugin in ["templates", "registration"] {
        let says = |line: &String| {
            let rest = line.trim_start().strip_prefix(plugin);
            rest.is_some_and(|it| {
                it.trim_start() == "running: no Foreman is configured (`[foreman] url`)"
            })
        };
        assert!(trial.lines.iter().any(says), "{plugin}:\n{greeting}");
    }
    // What they may reach is said: the server of names holds its sockets and its records, and DHCP has no network.
    for reach in [
        "may: listen dns: udp 127.0.0.1:8053, tcp 127.0.0.1:8053",
        "may: link network: nothing",
        "may: listen tftp: udp 127.0.0.1:8069",
    ] {
        assert!(greeting.contains(reach), "{reach}:\n{greeting}");
    }
    let mut outputs = Vec::new();
    for line in trial.lines_to_paste() {
        let output = Command::new("sh")
            .arg("-c")
            .arg(&line)
            .output()
            .expect("a shell");
        assert!(output.status.success(), "{line}\n{output:?}");
        outputs.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let [
        features,
        menu,
        http,
        tftp,
        record,
        looked_up,
        reserved,
        listed,
    ] = outputs.as_slice()
    else {
        panic!("other lines than expected:\n{greeting}");
    };
    assert!(features.contains("\"state\":\"running\""), "{features}");
    let written = [menu, record, reserved].map(String::as_str);
    assert_eq!(written, [""; 3], "{greeting}");
    assert_eq!(
        (http.as_str(), tftp.as_str()),
        ("set timeout=5", "set timeout=5")
    );
    assert_eq!(looked_up, "192.0.2.10\n");
    assert!(
        listed.contains("192.0.2.10") && listed.contains("aa:bb:cc:dd:ee:ff"),
        "{listed}"
    );

    // Whatever the lines do, this is promised: a POST whose two files appear below the TFTP root, and a GET that returns them.
    let foreman = target(8000);
    let mac = "aa:bb:cc:dd:ee:01";
    let path = format!("/tftp/PXEGrub2/{mac}");
    assert_eq!(
        foreman
            .post(&path, &[("pxeconfig", "set timeout=1")])
            .status,
        200
    );
    assert_eq!(foreman.get(&path).text(), "set timeout=1");
    let written = files_below(trial.state.path())
        .iter()
        .filter(|(name, _)| {
            name.contains("grub2/grub.cfg-") && (name.ends_with("ee:01") || name.ends_with("ee-01"))
        })
        .count();
    assert_eq!(
        written,
        2,
        "{:?}",
        files_below(trial.state.path())
            .iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    );

    // Over TLS nobody gets in without the generated certificate.
    let answer = Command::new("curl")
        .args([
            "--silent",
            "--insecure",
            "--output",
            "-",
            "--write-out",
            " %{http_code}",
            "https://127.0.0.1:8443/v2/features",
        ])
        .output()
        .expect("curl");
    assert_eq!(
        String::from_utf8_lossy(&answer.stdout),
        "could not read client cert from environment 403"
    );

    // A web page must not reach a trial.
    for (header, value) in [
        ("Host", "evil.example.com"),
        ("Host", "evil.example.com:8000"),
        ("Origin", "http://evil.example.com"),
        ("Origin", "null"),
    ] {
        let answer = foreman
            .request("GET", "/features")
            .header(header, value)
            .send();
        assert_eq!(answer.status, 403, "{header}: {value}: {answer}");
    }
    for host in ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"] {
        assert_eq!(
            foreman
                .request("GET", "/features")
                .header("Host", host)
                .send()
                .status,
            200,
            "{host}"
        );
    }

    // A plugin of one's own goes where the greeting says.
    let plugins = trial.state.path().join("plugins");
    assert!(greeting.contains(&format!(
        "A plugin of your own goes into {}",
        plugins.display()
    )));
    std::fs::write(plugins.join("hello.wasm"), bulkhead_fixtures::wasm("hello")).unwrap();
    let state = trial.state.path().display().to_string();
    let approved = || run(["plugin", "approve", "hello", "--state", &state]).code() == Some(0);
    assert_eventually!(approved());
    assert_eq!(target(8080).get("/hello/you").text(), "Hello, you!\n");

    // What needs Foreman says so.
    let answer = target(8080).get("/unattended/provision?token=x");
    assert!(
        answer.status >= 400 && answer.text().contains("Failed to proxy"),
        "{answer}"
    );

    // Hosts have their own door.
    assert_eq!(target(8080).get("/httpboot/").status, 403);
    assert_eq!(target(8080).get("/tftp/serverName").status, 404);
    assert_eq!(target(9180).get("/readyz").status, 200);
}
