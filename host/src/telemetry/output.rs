//! Where log lines leave the process: standard output, a file, the journal.
//!
//! It never makes its caller wait. One thread of its own formats and writes; between it and everybody else stands a bounded
//! queue. When a pipe stalls or a disk is full, lines are dropped, counted, and the loss is said in the log as soon as it
//! moves again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use super::record::{Level, Record, Value};
use super::ring::LogRing;

/// Records that may wait for a slow output. A second of a busy proxy; most of them are shared with the ring.
const QUEUE: usize = 4096;

/// Bytes written at once: large enough to make a flood cheap, small enough to stay in a pipe's buffer.
const BATCH: usize = 64 * 1024;

/// Where the journal listens (systemd's native protocol).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The shape of a line on standard output and in a file. The journal has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// For people: `2026-11-23T18:36:14 850ca7f1 [I] Started GET /features `.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A place for log lines.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Target {
    /// Standard output; what systemd and container engines collect.
    #[default]
    Stdout,
    /// A file, appended to, opened anew by [`Output::reopen`].
    File(PathBuf),
    /// The systemd journal, with `PLUGIN` and `REQUEST_ID` as fields of their own.
    Journald,
}

/// Why a target cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The log file.
    #[error("cannot open log file {path}: {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No journal here.
    #[error("cannot reach the journal at {path}: {source}", path = .path.display())]
    Journal {
        /// Its socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The writing thread.
    #[error("cannot start the log thread: {0}")]
    Thread(io::Error),
}

/// The sending side of the log thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Output {
    queue: SyncSender<Order>,
    lost: Counter,
    reopen: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Order {
    Write(Arc<Record>),
    Flush(SyncSender<()>),
}

impl Output {
    /// Opens the target and starts the thread. `lost` counts the lines that could not be written. Problems of the log itself
    /// go to the ring as well, since the target may be what is broken.
    pub fn start(
        target: &Target,
        format: Format,
        ring: Arc<LogRing>,
        lost: Counter,
    ) -> Result<Self, OutputError> {
        Self::with_sink(Sink::open(target)?, format, ring, lost)
    }

    fn with_sink(
        sink: Sink,
        format: Format,
        ring: Arc<LogRing>,
        lost: Counter,
    ) -> Result<Self, OutputError> {
        let (queue, orders) = sync_channel(QUEUE);
        let reopen = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            sink,
            format,
            ring,
            lost: lost.clone(),
            said: lost.get(),
            reopen: Arc::clone(&reopen),
        };
        thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(&orders))
            .map_err(OutputError::Thread)?;
        Ok(Self {
            queue,
            lost,
            reopen,
        })
    }

    /// Writes a record soon, or counts it as lost when too many wait already.
    pub fn write(&self, record: Arc<Record>) {
        if self.queue.try_send(Order::Write(record)).is_err() {
            self.lost.inc();
        }
    }

    /// Opens the log file anew before the next line is written, so that a rotated file gets no more lines. If that fails, the old file
    /// stays in use and an error says so.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    /// Waits until everything logged so far is written, at most this long. Answers whether it is.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let (written, wait) = sync_channel(1);
        let mut order = Order::Flush(written);
        while let Err(error) = self.queue.try_send(order) {
            let TrySendError::Full(back) = error else {
                return false;
            };
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
            order = back;
        }
        wait.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .is_ok()
    }
}

struct Writer {
    sink: Sink,
    format: Format,
    ring: Arc<LogRing>,
    lost: Counter,
    /// How many lost lines the log has admitted so far.
    said: u64,
    reopen: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut batch = Batch::default();
        while let Ok(order) = orders.recv() {
            if self.reopen.swap(false, Ordering::AcqRel)
                && let Err(error) = self.sink.reopen()
            {
                self.complain(
                    Level::Error,
                    &format!("{error}; going on with the old one"),
                    &mut batch,
                );
            }
            let mut next = Some(order);
            let mut flushed = None;
            while let Some(order) = next {
                match order {
                    Order::Write(record) => batch.push(&record, self.format, &self.sink),
                    Order::Flush(done) => flushed = Some(done),
                }
                next = if batch.bytes() < BATCH && flushed.is_none() {
                    orders.try_recv().ok()
                } else {
                    None
                };
            }
            self.emit(&mut batch);
            self.admit_losses(&mut batch);
            if let Some(done) = flushed {
                // Nobody waits any more: fine.
                let _ = done.try_send(());
            }
        }
    }

    fn emit(&mut self, batch: &mut Batch) {
        let lost = self.sink.write(batch);
        self.lost.inc_by(lost);
        batch.clear();
    }

    fn admit_losses(&mut self, batch: &mut Batch) {
        let lost = self.lost.get();
        if lost > self.said {
            let text = format!(
                "{} log lines were lost: the log's output is too slow or full",
                lost - self.said
            );
            self.said = lost;
            self.complain(Level::Warn, &text, batch);
            // A line that says lines are lost is not counted when it is lost too, else it would go on for ever.
            let _ = self.sink.write(batch);
            batch.clear();
        }
    }

    fn complain(&self, level: Level, text: &str, batch: &mut Batch) {
        let mut record = Record::new(level, "bulkhead::telemetry");
        record.set("message", Value::Text(text.to_owned()));
        batch.push(&record, self.format, &self.sink);
        self.ring.push(Arc::new(record));
    }
}

/// Formatted records that wait for one write.
#[derive(Default)]
struct Batch {
    lines: String,
    count: u64,
    /// For the journal: one datagram a record.
    datagrams: Vec<Vec<u8>>,
}

impl Batch {
    fn push(&mut self, record: &Record, format: Format, sink: &Sink) {
        self.count += 1;
        match (sink, format) {
            (Sink::Journal(_), _) => self.datagrams.push(journal_entry(record)),
            (_, Format::Text) => record.write_line(&mut self.lines),
            (_, Format::Json) => record.write_json(&mut self.lines),
        }
    }

    fn bytes(&self) -> usize {
        self.lines.len() + self.datagrams.iter().map(Vec::len).sum::<usize>()
    }

    fn clear(&mut self) {
        self.lines.clear();
        self.datagrams.clear();
        self.count = 0;
    }
}

enum Sink {
    Stdout,
    File { path: PathBuf, file: File },
    Journal(UnixDatagram),
}

impl Sink {
    fn open(target: &Target) -> Result<Self, OutputError> {
        match target {
            Target::Stdout => Ok(Self::Stdout),
            Target::File(path) => Ok(Self::File {
                path: path.clone(),
                file: open(path)?,
            }),
            Target::Journald => Self::journal(Path::new(JOURNAL)),
        }
    }

    fn journal(path: &Path) -> Result<Self, OutputError> {
        let connect = || {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            Ok(socket)
        };
        connect()
            .map(Self::Journal)
            .map_err(|source| OutputError::Journal {
                path: path.to_owned(),
                source,
            })
    }

    fn reopen(&mut self) -> Result<(), OutputError> {
        if let Self::File { path, file } = self {
            *file = open(path)?;
        }
        Ok(())
    }

    /// Writes a batch and answers how many of its records were lost.
    fn write(&mut self, batch: &Batch) -> u64 {
        let written = match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout
                    .write_all(batch.lines.as_bytes())
                    .and_then(|()| stdout.flush())
            }
            Self::File { file, .. } => file.write_all(batch.lines.as_bytes()),
            Self::Journal(socket) => {
                let failed = batch
                    .datagrams
                    .iter()
                    .filter(|entry| socket.send(entry).is_err())
                    .count();
                return u64::try_from(failed).unwrap_or(u64::MAX);
            }
        };
        if written.is_ok() { 0 } else { batch.count }
    }
}

/// Readable for the group, so that a log collector needs no root; not for everybody, since paths and host names stand in it.
fn open(path: &Path) -> Result<File, OutputError> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path);
    file.map_err(|source| OutputError::File {
        path: path.to_owned(),
        source,
    })
}

/// systemd's native journal protocol: `NAME=value` lines. Values hold no line feed, since records are printable, so the
/// length-prefixed form is never needed, and their size stays far below a datagram's.
fn journal_entry(record: &Record) -> Vec<u8> {
    let mut entry = format!(
        "PRIORITY={}\nSYSLOG_IDENTIFIER=bulkhead\nTARGET={}\nMESSAGE={}\n",
        record.level.priority(),
        record.target,
        record.text()
    );
    for (name, value) in [
        ("PLUGIN", record.plugin.as_deref()),
        ("REQUEST_ID", record.request_id.as_deref()),
    ] {
        if let Some(value) = value {
            entry.push_str(name);
            entry.push('=');
            entry.push_str(value);
            entry.push('\n');
        }
    }
    entry.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn ring() -> Arc<LogRing> {
        Arc::new(LogRing::new(100, 100).unwrap())
    }

    fn record(message: &str) -> Arc<Record> {
        let mut record = Record::new(Level::Info, "bulkhead");
        record.set("message", Value::Text(message.into()));
        Arc::new(record)
    }

    #[test]
    fn a_rotated_file_gets_no_more_lines_after_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (
            folder.path().join("proxy.log"),
            folder.path().join("proxy.log.1"),
        );
        let output = Output::start(
            &Target::File(path.clone()),
            Format::Text,
            ring(),
            Counter::default(),
        )
        .unwrap();
        output.write(record("before"));
        assert!(output.flush(PATIENCE));
        std::fs::rename(&path, &rotated).unwrap();
        output.reopen();
        output.write(record("after"));
        assert!(output.flush(PATIENCE));
        assert!(
            std::fs::read_to_string(&rotated)
                .unwrap()
                .ends_with("[I] before\n")
        );
        let fresh = std::fs::read_to_string(&path).unwrap();
        assert!(
            fresh.ends_with("[I] after\n") && fresh.lines().count() == 1,
            "{fresh}"
        );
    }

    #[test]
    fn a_failed_reopen_keeps_the_old_file_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        let path = logs.join("proxy.log");
        let ring = ring();
        let output = Output::start(
            &Target::File(path),
            Format::Text,
            Arc::clone(&ring),
            Counter::default(),
        )
        .unwrap();
        let moved = folder.path().join("moved");
        std::fs::rename(&logs, &moved).unwrap();
        output.reopen();
        output.write(record("still here"));
        assert!(output.flush(PATIENCE));
        let text = std::fs::read_to_string(moved.join("proxy.log")).unwrap();
        assert!(
            text.contains("going on with the old one") && text.ends_with("still here\n"),
            "{text}"
        );
        assert!(
            String::from_utf8(ring.to_json(0.0))
                .unwrap()
                .contains("going on with the old one")
        );
    }

    #[test]
    fn a_full_disk_loses_counted_lines_and_nobody_waits() {
        let lost = Counter::default();
        let ring = ring();
        let output = Output::start(
            &Target::File("/dev/full".into()),
            Format::Text,
            Arc::clone(&ring),
            lost.clone(),
        )
        .unwrap();
        for _ in 0..50 {
            output.write(record("x"));
        }
        assert!(output.flush(PATIENCE));
        assert_eq!(lost.get(), 50);
        assert!(
            String::from_utf8(ring.to_json(0.0))
                .unwrap()
                .contains("log lines were lost")
        );
    }

    #[test]
    fn a_stalled_journal_never_blocks_those_who_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let lost = Counter::default();
        let output = Output::with_sink(
            Sink::journal(&path).unwrap(),
            Format::Text,
            ring(),
            lost.clone(),
        )
        .unwrap();
        let start = Instant::now();
        for _ in 0..3 * QUEUE {
            output.write(record("x"));
        }
        assert!(start.elapsed() < PATIENCE);
        assert!(lost.get() > 0, "nothing reads, so something must be lost");
        assert!(!output.flush(Duration::from_millis(20)));
    }

    #[test]
    fn the_journal_gets_priority_plugin_and_request_as_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        journal.set_read_timeout(Some(PATIENCE)).unwrap();
        let output = Output::with_sink(
            Sink::journal(&path).unwrap(),
            Format::Text,
            ring(),
            Counter::default(),
        )
        .unwrap();
        let mut told = Record::new(Level::Warn, "bulkhead::plugin");
        told.set("message", Value::Text("slow\nPRIORITY=0".into()));
        told.set("plugin", Value::Text("dns".into()));
        told.set("request_id", Value::Text("850ca7f1-1".into()));
        output.write(Arc::new(told));
        let mut entry = [0; 1000];
        let length = journal.recv(&mut entry).unwrap();
        assert_eq!(
            std::str::from_utf8(&entry[..length]).unwrap(),
            "PRIORITY=4\nSYSLOG_IDENTIFIER=bulkhead\nTARGET=bulkhead::plugin\nMESSAGE=dns: slow\\nPRIORITY=0\nPLUGIN=dns\nREQUEST_ID=850ca7f1-1\n"
        );
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = Output::start(
            &Target::File("/nowhere/proxy.log".into()),
            Format::Text,
            ring(),
            Counter::default(),
        )
        .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot open log file /nowhere/proxy.log: "),
            "{error}"
        );
    }
}
