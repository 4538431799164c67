//! The first minute: `bulkhead serve` without a configuration, and the lines it prints.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bulkhead_testkit::scratch::files_below;
use bulkhead_testkit::{Scratch, Target, program, skip};

/// The ports of a trial are fixed, so that the printed lines can be.
const PORTS: [u16; 4] = [8000, 8443, 8080, 9180];

/// A cold start compiles all plugins.
const START: Duration = Duration::from_secs(60);

struct Trial {
    child: Child,
    lines: Vec<String>,
    state: Scratch,
}

impl Trial {
    /// Starts a trial and reads what it prints until it has printed three `curl` lines.
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
        while this.curl_lines().len() < 3 {
            match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => this.lines.push(line),
                Err(_) => panic!("no three curl lines in:\n{}", this.lines.join("\n")),
            }
        }
        // What else belongs to the greeting.
        while let Ok(line) = receiver.recv_timeout(Duration::from_millis(300)) {
            this.lines.push(line);
        }
        this
    }

    fn curl_lines(&self) -> Vec<String> {
        self.lines
            .iter()
            .map(|line| line.trim())
            .filter(|line| line.starts_with("curl "))
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
    if bulkhead_testkit::skip::program("curl").is_none() {
        skip!("there is no curl on this machine");
    }
    if let Some(port) = PORTS
        .iter()
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, **port)).is_err())
    {
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
    for feature in ["tftp", "httpboot"] {
        assert!(
            greeting.contains(feature),
            "{feature} is not named:\n{greeting}"
        );
    }
    let mut outputs = String::new();
    for line in trial.curl_lines() {
        let output = Command::new("sh")
            .arg("-c")
            .arg(&line)
            .output()
            .expect("a shell");
        assert!(output.status.success(), "{line}\n{output:?}");
        outputs.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    assert!(
        outputs.contains("\"state\":\"running\""),
        "none of the lines shows the features:\n{outputs}"
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

    // Hosts have their own door.
    assert_eq!(target(8080).get("/httpboot/").status, 403);
    assert_eq!(target(8080).get("/tftp/serverName").status, 404);
    assert_eq!(target(9180).get("/readyz").status, 200);
}
