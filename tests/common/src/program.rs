//! The real program under test: started, watched, told things by signals, and always ended by its own process id.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::compiled;
use crate::configuration::{Configuration, FOREMAN, loopback};
use crate::eventually::until_within;
use crate::http::Target;
use crate::identity::Identity;
use crate::process::{self, Usage};
use crate::scratch::Scratch;

/// How long a cold start may take before a test gives up: the promise is 15 s, and tests share the machine.
const START: Duration = Duration::from_secs(60);

/// How long the program may drain before a test ends it the hard way.
const STOP: Duration = Duration::from_secs(30);

/// How long after an answer its line of the log may come.
const LOG_COMES: Duration = Duration::from_millis(500);

/// From where descriptors are numbered that are handed over: above those that tests open meanwhile.
const FIRST_HANDED: i32 = 900;

/// The path of the program that cargo built for these tests.
pub fn executable() -> PathBuf {
    if let Some(path) = std::env::var_os("CARGO_BIN_EXE_bulkhead") {
        return path.into();
    }
    // The test program is target/PROFILE/deps/NAME-HASH, the program target/PROFILE/bulkhead.
    let test = std::env::current_exe().expect("a test program has a path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("it lies below target/PROFILE");
    profile.join("bulkhead")
}

/// A command that ran to its end.
#[derive(Debug)]
pub struct Finished {
    /// How it ended; `None` when it had to be killed after a minute.
    pub status: Option<ExitStatus>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// The exit code, if it ended by itself.
    pub fn code(&self) -> Option<i32> {
        self.status?.code()
    }

    /// Both outputs, for messages and for searching.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs `bulkhead` with these arguments to its end.
pub fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Finished {
    let mut child = command()
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    let out = collect(child.stdout.take());
    let err = collect(child.stderr.take());
    let status = until_within(START, || child.try_wait().ok().flatten());
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    Finished {
        status,
        stdout: out.join().unwrap_or_default(),
        stderr: err.join().unwrap_or_default(),
    }
}

fn collect(source: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            let _ = source.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The program with an environment that leaks nothing of the machine's into it.
fn command() -> Command {
    command_under(&[], &executable())
}

/// A program that takes the same arguments, by way of another one.
fn command_under(starter: &[String], program: &Path) -> Command {
    let mut command = match starter {
        [] => Command::new(program),
        [first, arguments @ ..] => {
            let mut command = Command::new(first);
            command.args(arguments).arg(program);
            command
        }
    };
    command.stdin(Stdio::null());
    for name in [
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "RUST_LOG",
        "JOURNAL_STREAM",
    ] {
        command.env_remove(name);
    }
    command
}

/// What a running program is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Drain and end.
    Terminate,
    /// The same, as from a keyboard.
    Interrupt,
    /// Read the configuration again.
    Reload,
    /// Open the log file again.
    Reopen,
    /// Say what goes on.
    Tell,
    /// End at once, without a chance to do anything.
    Kill,
}

impl From<Signal> for rustix::process::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Terminate => Self::TERM,
            Signal::Interrupt => Self::INT,
            Signal::Reload => Self::HUP,
            Signal::Reopen => Self::USR1,
            Signal::Tell => Self::TTIN,
            Signal::Kill => Self::KILL,
        }
    }
}

/// A running `bulkhead serve`. It is drained and ended when this value and every [`Target`] made from it are gone; if a
/// test fails meanwhile, its log is printed.
#[derive(Debug)]
pub struct Bulkhead {
    /// What it was started with; its directory lives as long as the program.
    pub configuration: Configuration,
    /// The certificate of Foreman.
    pub client: Identity,
    /// From the start of the process to the first `200` of `/readyz`.
    pub ready_after: Duration,
    process: Arc<Process>,
}

/// The process behind it; another one after a restart.
#[derive(Debug)]
struct Process {
    child: Mutex<Child>,
    lines: Arc<Mutex<Vec<String>>>,
    /// The process lives in this directory.
    _scratch: Arc<Scratch>,
}

impl Bulkhead {
    /// TFTP and HTTP boot on free ports, everything else by default.
    pub fn trial() -> Self {
        Self::with(Configuration::standard())
    }

    /// Starts with this configuration and waits until it is ready.
    #[track_caller]
    pub fn with(configuration: Configuration) -> Self {
        Self::start(configuration, &[])
    }

    /// [`Bulkhead::with`], with further environment variables.
    #[track_caller]
    pub fn start(configuration: Configuration, environment: &[(&str, &Path)]) -> Self {
        let mut this = Self::launch(configuration, environment);
        this.wait_until_ready();
        this
    }

    /// [`Bulkhead::with`], with listening sockets that are handed over with their names, as systemd does it.
    #[track_caller]
    pub fn with_sockets(
        configuration: Configuration,
        sockets: &[(&dyn rustix::fd::AsFd, &str)],
    ) -> Self {
        use rustix::fd::AsRawFd as _;
        // Tests of one program share its numbers.
        static HANDING: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _alone = HANDING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // Descriptors that follow one another; the child inherits those that are not closed on exec.
        let copies: Vec<_> = sockets
            .iter()
            .map(|(socket, _)| {
                rustix::io::fcntl_dupfd_cloexec(socket, FIRST_HANDED).expect("a descriptor")
            })
            .collect();
        let first = copies.first().map_or(0, |it| it.as_raw_fd());
        for (position, copy) in copies.iter().enumerate() {
            assert_eq!(
                copy.as_raw_fd() as usize,
                first as usize + position,
                "another test took a number"
            );
            rustix::io::fcntl_setfd(copy, rustix::io::FdFlags::empty()).expect("a flag");
        }
        let names: Vec<_> = sockets.iter().map(|(_, name)| *name).collect();
        Self::start(
            configuration,
            &[
                ("LISTEN_FDS", Path::new(&copies.len().to_string())),
                ("LISTEN_FDS_FIRST_FD", Path::new(&first.to_string())),
                ("LISTEN_FDNAMES", Path::new(&names.join(":"))),
            ],
        )
    }

    /// Starts without waiting for readiness.
    pub fn launch(configuration: Configuration, environment: &[(&str, &Path)]) -> Self {
        let client = configuration.authority.client(Some(FOREMAN), &[FOREMAN]);
        compiled::lend(&configuration.state());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let child = Mutex::new(spawn(&configuration, environment, &lines));
        let process = Arc::new(Process {
            child,
            lines,
            _scratch: configuration.scratch.clone(),
        });
        Self {
            configuration,
            client,
            ready_after: Duration::ZERO,
            process,
        }
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        let start = Instant::now();
        let admin = self.admin();
        let ready = until_within(START, || {
            let ended = self.ended().is_some();
            let ready = !ended
                && admin
                    .request("GET", "/readyz")
                    .try_send()
                    .is_ok_and(|answer| answer.status == 200);
            (ready || ended).then_some(ready)
        });
        match ready {
            Some(true) => {
                self.ready_after = start.elapsed();
                compiled::keep(&self.configuration.state());
            }
            Some(false) => panic!(
                "the program ended instead of becoming ready:\n{}",
                self.log()
            ),
            None => panic!("the program was not ready after {START:?}:\n{}", self.log()),
        }
    }

    /// Foreman's door over plain HTTP on loopback.
    pub fn foreman(&self) -> Target {
        self.door(self.configuration.doors.foreman_http, None)
    }

    /// Foreman's door over TLS, with Foreman's certificate.
    pub fn foreman_tls(&self) -> Target {
        self.foreman_tls_as(Some(&self.client))
    }

    /// Foreman's door over TLS as somebody else, or as nobody.
    pub fn foreman_tls_as(&self, client: Option<&Identity>) -> Target {
        self.door(
            self.configuration.doors.foreman_tls,
            Some(self.configuration.authority.client_config(client)),
        )
    }

    /// The hosts' door over plain HTTP.
    pub fn hosts(&self) -> Target {
        self.door(self.configuration.doors.hosts_http, None)
    }

    /// The hosts' door over TLS, with a certificate or without.
    pub fn hosts_tls_as(&self, client: Option<&Identity>) -> Target {
        self.door(
            self.configuration.doors.hosts_tls,
            Some(self.configuration.authority.client_config(client)),
        )
    }

    /// Metrics and health.
    pub fn admin(&self) -> Target {
        self.door(self.configuration.doors.admin, None)
    }

    fn door(&self, port: u16, tls: Option<Arc<ClientConfig>>) -> Target {
        Target {
            tls,
            alive: Some(self.process.clone()),
            ..Target::plain(loopback(port))
        }
    }

    /// The directory that TFTP writes and HTTP boot serves.
    pub fn boot(&self) -> PathBuf {
        self.configuration.boot()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Memory, descriptors and threads now.
    #[track_caller]
    pub fn usage(&self) -> Usage {
        process::usage(self.pid()).expect("the program runs")
    }

    /// Bytes of linear memory of a plugin that runs, as the metrics have them; they are counted every few seconds.
    #[track_caller]
    pub fn plugin_memory(&self, plugin: &str) -> u64 {
        let line = format!("bulkhead_memory_bytes{{plugin=\"{plugin}\"}} ");
        let counted = until_within(crate::eventually::PATIENCE, || {
            let metrics = self.admin().get("/metrics").text();
            let bytes = metrics.lines().find_map(|it| it.strip_prefix(&line))?;
            bytes.parse().ok().filter(|bytes| *bytes > 0)
        });
        counted.unwrap_or_else(|| panic!("{plugin} has no memory"))
    }

    /// What a counter of a plugin stands at: `datagrams_received`, `service_crashes`.
    #[track_caller]
    pub fn counted(&self, counter: &str, plugin: &str) -> usize {
        let metrics = self.admin().get("/metrics").text();
        let line = format!("bulkhead_{counter}_total{{plugin=\"{plugin}\"}} ");
        let value = metrics.lines().find_map(|it| it.strip_prefix(&line));
        value.and_then(|it| it.parse().ok()).unwrap_or_default()
    }

    /// Everything it printed so far, both outputs in order of arrival.
    pub fn log(&self) -> String {
        lock(&self.process.lines).join("\n")
    }

    /// The lines printed so far that hold this text. The log waits for nobody and nobody for the log, so a line may come after the answer that it
    /// tells of: while there is none, it has [`LOG_COMES`].
    pub fn log_lines(&self, text: &str) -> Vec<String> {
        let found = || {
            let lines = lock(&self.process.lines);
            let these = lines.iter().filter(|line| line.contains(text));
            Some(these.cloned().collect::<Vec<_>>()).filter(|it| !it.is_empty())
        };
        until_within(LOG_COMES, found).unwrap_or_default()
    }

    /// Sends a signal to this one process.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Waits for its end.
    pub fn wait_for_end(&self, patience: Duration) -> Option<ExitStatus> {
        until_within(patience, || self.ended())
    }

    /// Writes another configuration into its place. The program looks at it when it is told to ([`Signal::Reload`]).
    pub fn reconfigure(&mut self, change: impl FnOnce(Configuration) -> Configuration) {
        self.configuration = change(self.configuration.clone());
        self.configuration.write();
    }

    /// Ends it with this signal and starts it again in the same directory.
    #[track_caller]
    pub fn restart_after(&mut self, signal: Signal) {
        self.signal(signal);
        self.wait_for_end(STOP).expect("the program ends");
        *lock(&self.process.child) = spawn(&self.configuration, &[], &self.process.lines);
        self.wait_until_ready();
    }
}

impl Process {
    fn pid(&self) -> u32 {
        lock(&self.child).id()
    }

    fn ended(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .expect("a process id");
        // It may have ended by itself; whoever cares looks at `ended`.
        let _ = rustix::process::kill_process(pid, signal.into());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the last lines of bulkhead, process {}:", self.pid());
            let lines = lock(&self.lines);
            for line in &lines[lines.len().saturating_sub(60)..] {
                eprintln!("    {line}");
            }
        }
        if self.ended().is_none() {
            self.signal(Signal::Terminate);
            if until_within(STOP, || self.ended()).is_none() {
                let _ = lock(&self.child).kill();
                let _ = lock(&self.child).wait();
                assert!(
                    std::thread::panicking(),
                    "bulkhead did not end within {STOP:?} of SIGTERM"
                );
            }
        }
    }
}

fn spawn(
    configuration: &Configuration,
    environment: &[(&str, &Path)],
    lines: &Arc<Mutex<Vec<String>>>,
) -> Child {
    configuration.write();
    let program = configuration.program.clone().unwrap_or_else(executable);
    let mut child = command_under(configuration.starter(), &program)
        .arg("serve")
        .args(configuration.options())
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    follow(child.stdout.take(), lines.clone());
    follow(child.stderr.take(), lines.clone());
    child
}

fn follow(source: Option<impl Read + Send + 'static>, lines: Arc<Mutex<Vec<String>>>) {
    let Some(source) = source else { return };
    std::thread::spawn(move || {
        let mut reader = BufReader::new(source);
        let mut line = Vec::new();
        // A flood of lines must not fill the memory of the tests.
        const KEPT: usize = 200_000;
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|count| count > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let mut all = lock(&lines);
            if all.len() < KEPT {
                all.push(text);
            }
            drop(all);
            line.clear();
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One program for several tests that do not disturb each other: it starts with the first of them and ends with the last
/// one that holds it. Declare it as `static SHARED: Shared = Shared::new(Bulkhead::trial);`.
#[derive(Debug)]
pub struct Shared {
    make: fn() -> Bulkhead,
    current: Mutex<Weak<Bulkhead>>,
}

impl Shared {
    /// Starts nothing yet.
    pub const fn new(make: fn() -> Bulkhead) -> Self {
        Self {
            make,
            current: Mutex::new(Weak::new()),
        }
    }

    /// The running program, started if there is none.
    pub fn get(&self) -> Arc<Bulkhead> {
        let mut current = lock(&self.current);
        if let Some(running) = current
            .upgrade()
            .filter(|running| running.ended().is_none())
        {
            return running;
        }
        let started = Arc::new((self.make)());
        *current = Arc::downgrade(&started);
        started
    }
}
