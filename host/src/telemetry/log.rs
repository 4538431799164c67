//! The program's log: set up once at start, its level and its file changed while it runs.
//!
//! Code everywhere uses `tracing`'s macros with fields. One layer reads each event once into a [`Record`] and hands it to the
//! ring (for `/logs`) and to the output. An event belongs to the request of its task ([`super::context`]) unless it names another by
//! a field `request_id`; a field `plugin` says whom it is about.
//!
//! Dependencies are heard from WARN on only: their chatter would flood `/logs` and might show what Bulkhead would not.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use super::context;
use super::output::{Format, Output, OutputError, Target};
use super::record::{Level, Record, Value};
use super::ring::LogRing;

/// Every module of this crate logs under it.
const OWN_TARGET: &str = "bulkhead";

/// How long [`Logging::finish`] waits for a slow output before the program ends anyway.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the operator chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where lines go.
    pub target: Target,
    /// Their shape.
    pub format: Format,
    /// Less serious events are neither written nor kept in the ring.
    pub level: Level,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            target: Target::Stdout,
            format: Format::Text,
            level: Level::Info,
        }
    }
}

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No way to write lines.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A process has one log.
    #[error("the log has been started before")]
    AlreadyStarted,
}

/// The running log.
#[derive(Clone, Debug)]
pub struct Logging {
    output: Output,
    filter: reload::Handle<Targets, Registry>,
}

impl Logging {
    /// Starts the process's log. A target that cannot be opened is replaced by standard output, with a warning: a proxy that cannot write
    /// its log file serves all the same. `lost` counts lines that could not be written.
    pub fn start(options: &Options, ring: &Arc<LogRing>, lost: &Counter) -> Result<Self, LogError> {
        let open = |target| Output::start(target, options.format, Arc::clone(ring), lost.clone());
        let (output, problem) = match open(&options.target) {
            Ok(output) => (output, None),
            Err(problem) => (open(&Target::Stdout)?, Some(problem)),
        };
        let (filter, handle) = reload::Layer::new(targets(options.level));
        let events = EventLayer {
            ring: Arc::clone(ring),
            output: Some(output.clone()),
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(events)
            .try_init()
            .map_err(|_| LogError::AlreadyStarted)?;
        log_panics();
        if let Some(problem) = problem {
            tracing::warn!(%problem, "logging to standard output instead");
        }
        Ok(Self {
            output,
            filter: handle,
        })
    }

    /// Changes the level at once.
    pub fn set_level(&self, level: Level) {
        // Fails only when the subscriber is gone, and with it everything that logs.
        let _ = self.filter.reload(targets(level));
    }

    /// Opens the log file anew (signal USR1, after rotation).
    pub fn reopen(&self) {
        self.output.reopen();
        tracing::info!("Logging file reopened via USR1 signal");
    }

    /// Writes out what is left, before the program ends.
    pub fn finish(&self) {
        if !self.output.flush(FAREWELL) {
            // The one place where the log itself cannot help.
            let _ = io::Write::write_all(
                &mut io::stderr(),
                b"bulkhead: the last log lines could not be written in time\n",
            );
        }
    }
}

/// A panic in one of the host's own tasks is a bug that operators should see where they look: in the log and in `/logs`.
fn log_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(
            place,
            "panic: {}",
            panic.payload_as_str().unwrap_or("of unknown kind")
        );
        // Standard error still gets it: the log's own thread may be what panicked.
        usual(panic);
    }));
}

/// Targets of this program that are words instead of module paths; `plugin` is what components print.
const OWN_WORDS: [&str; 6] = [
    "downloads",
    "plugin",
    "resolve",
    "secrets",
    "store",
    "upstream",
];

fn targets(level: Level) -> Targets {
    let own = match level {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    };
    Targets::new()
        .with_default(own.min(LevelFilter::WARN))
        .with_target(OWN_TARGET, own)
        .with_targets(OWN_WORDS.map(|word| (word, own)))
}

/// Reads events into records. Usable without the global log, for tests:
/// `tracing_subscriber::registry().with(EventLayer::into_ring(ring))`.
#[derive(Debug)]
pub struct EventLayer {
    ring: Arc<LogRing>,
    output: Option<Output>,
}

impl EventLayer {
    /// A layer that only fills the ring.
    #[must_use]
    pub fn into_ring(ring: Arc<LogRing>) -> Self {
        Self { ring, output: None }
    }
}

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut record = Record::new((*metadata.level()).into(), metadata.target());
        event.record(&mut Reader(&mut record));
        if record.request_id.is_none() {
            record.request_id = context::request_id();
        }
        let record = Arc::new(record);
        if let Some(output) = &self.output {
            output.write(Arc::clone(&record));
        }
        self.ring.push(record);
    }
}

struct Reader<'a>(&'a mut Record);

impl Visit for Reader<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.set(field.name(), Value::Text(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.set(field.name(), Value::Text(value.to_owned()));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.set(field.name(), Value::Text(value.to_string()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.set(field.name(), Value::Signed(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.set(field.name(), Value::Unsigned(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.set(field.name(), Value::Float(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.set(field.name(), Value::Boolean(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the ring holds after some code ran under the given level.
    fn logged(level: Level, code: impl FnOnce()) -> Vec<serde_json::Value> {
        let ring = Arc::new(LogRing::new(100, 100).unwrap());
        let subscriber = tracing_subscriber::registry()
            .with(targets(level))
            .with(EventLayer::into_ring(Arc::clone(&ring)));
        tracing::subscriber::with_default(subscriber, code);
        let body: serde_json::Value = serde_json::from_slice(&ring.to_json(0.0)).unwrap();
        body["logs"].as_array().unwrap().clone()
    }

    #[test]
    fn what_components_print_and_the_host_does_for_them_is_shown() {
        let logs = logged(Level::Info, || {
            tracing::info!(target: "plugin", plugin = "hello", "printed");
            tracing::info!(target: "downloads", plugin = "tftp", "downloaded");
            tracing::debug!(target: "upstream", "answered");
        });
        let messages: Vec<_> = logs
            .iter()
            .map(|line| line["message"].as_str().unwrap())
            .collect();
        assert_eq!(messages, ["hello: printed", "tftp: downloaded"]);
    }

    #[test]
    fn an_event_becomes_a_record_with_its_fields() {
        let logs = logged(Level::Info, || {
            tracing::error!(
                plugin = "tftp",
                request_id = "850ca7f1-2b3c",
                bytes = 3,
                "write failed"
            );
        });
        assert_eq!(logs[0]["message"], "tftp: write failed bytes=3");
        assert_eq!(logs[0]["level"], "ERROR");
        assert_eq!(logs[0]["request_id"], "850ca7f1");
    }

    #[test]
    fn events_carry_the_id_of_their_task() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let logs = logged(Level::Info, || {
            runtime.block_on(context::with_request("3e93e73f-0000".into(), async {
                tracing::info!("inside")
            }));
            tracing::info!("outside");
        });
        assert_eq!(logs[0]["request_id"], "3e93e73f");
        assert_eq!(logs[1].get("request_id"), None);
    }

    #[test]
    fn events_below_the_level_are_not_kept() {
        let logs = logged(Level::Warn, || {
            tracing::info!("too small");
            tracing::warn!("kept");
        });
        assert_eq!(logs.len(), 1);
    }

    #[test]
    fn dependencies_are_heard_from_warnings_on_even_at_debug() {
        let logs = logged(Level::Debug, || {
            tracing::debug!("our own");
            tracing::info!(target: "hyper::proto", "chatter");
            tracing::warn!(target: "rustls", "trouble");
        });
        let messages: Vec<_> = logs
            .iter()
            .map(|log| log["message"].as_str().unwrap())
            .collect();
        assert_eq!(messages, ["our own", "trouble"]);
    }
}
