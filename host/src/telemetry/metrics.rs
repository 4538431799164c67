//! Numbers for Prometheus, one struct with a typed method for each thing worth counting.
//!
//! Every label has a bounded set of values: methods, statuses and reasons are enums, listeners and plugins are what the operator
//! installed (and at most [`PLUGIN_LIMIT`] of them). Nothing that a client or a plugin writes becomes a label.
//!
//! The one idea: whoever works for a plugin holds its [`PluginMetrics`], whose counters are looked up once, so that counting is an
//! atomic addition. The registry is read only when `/metrics` is asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{
    ConnectionRejection, DownloadEnd, InstanceState, Method, Rejection, Status, Trap,
};
use super::process::ProcessCollector;

/// Plugins with series of their own. A folder with more is counted under [`OVERFLOW`], so that a script that drops files in a loop
/// cannot make the metrics endless.
pub const PLUGIN_LIMIT: usize = 256;

/// The label of everything beyond [`PLUGIN_LIMIT`].
const OVERFLOW: &str = "(others)";

/// Upper bounds in seconds, from a pooled call (tens of microseconds) to the default deadline (30 s) and beyond.
const LATENCY: [f64; 14] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    listener: Arc<str>,
    plugin: Arc<str>,
    method: Method,
    status: Status,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabel {
    plugin: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    plugin: Arc<str>,
    reason: Rejection,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TrapLabels {
    plugin: Arc<str>,
    kind: Trap,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DenialLabels {
    plugin: Arc<str>,
    capability: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InstanceLabels {
    plugin: Arc<str>,
    state: InstanceState,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DownloadLabels {
    plugin: Arc<str>,
    result: DownloadEnd,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionRejectionLabels {
    listener: Arc<str>,
    reason: ConnectionRejection,
}

/// Every number the program keeps. Made once, shared by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    plugins: Mutex<HashMap<Arc<str>, Arc<PluginMetrics>>>,
    /// Log lines that could not be written.
    pub log_lines_lost: Counter,
    /// Instance slots of the pool: all there are, and those in use.
    pub pool_slots: Gauge,
    /// Instance slots in use.
    pub pool_slots_used: Gauge,
    /// Configuration reloads that took effect.
    pub reloads: Counter,
    /// Configuration reloads refused because something in it is wrong.
    pub reloads_refused: Counter,
}

#[derive(Clone, Debug)]
struct Families {
    requests: Family<RequestLabels, Counter>,
    duration: Family<PluginLabel, Histogram, fn() -> Histogram>,
    queued: Family<PluginLabel, Gauge>,
    forwards: Family<PluginLabel, Gauge>,
    forward_wait: Family<PluginLabel, Histogram, fn() -> Histogram>,
    queue_wait: Family<PluginLabel, Histogram, fn() -> Histogram>,
    rejections: Family<RejectionLabels, Counter>,
    traps: Family<TrapLabels, Counter>,
    denials: Family<DenialLabels, Counter>,
    instances: Family<InstanceLabels, Gauge>,
    memory: Family<PluginLabel, Gauge>,
    log_lines_suppressed: Family<PluginLabel, Counter>,
    downloads: Family<DownloadLabels, Counter>,
    downloads_running: Family<PluginLabel, Gauge>,
    download_bytes: Family<PluginLabel, Counter>,
    datagrams_received: Family<PluginLabel, Counter>,
    datagrams_sent: Family<PluginLabel, Counter>,
    datagrams_dropped: Family<PluginLabel, Counter>,
    service_crashes: Family<PluginLabel, Counter>,
    transfers_running: Family<PluginLabel, Gauge>,
    transfers_done: Family<PluginLabel, Counter>,
    transfers_failed: Family<PluginLabel, Counter>,
    transfer_bytes: Family<PluginLabel, Counter>,
    connections: Family<ListenerLabel, Gauge>,
    connections_accepted: Family<ListenerLabel, Counter>,
    connection_rejections: Family<ConnectionRejectionLabels, Counter>,
}

fn latency() -> Histogram {
    Histogram::new(LATENCY)
}

impl Default for Families {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(latency),
            queued: Family::default(),
            forwards: Family::default(),
            forward_wait: Family::new_with_constructor(latency),
            queue_wait: Family::new_with_constructor(latency),
            rejections: Family::default(),
            traps: Family::default(),
            denials: Family::default(),
            instances: Family::default(),
            memory: Family::default(),
            log_lines_suppressed: Family::default(),
            downloads: Family::default(),
            downloads_running: Family::default(),
            download_bytes: Family::default(),
            datagrams_received: Family::default(),
            datagrams_sent: Family::default(),
            datagrams_dropped: Family::default(),
            service_crashes: Family::default(),
            transfers_running: Family::default(),
            transfers_done: Family::default(),
            transfers_failed: Family::default(),
            transfer_bytes: Family::default(),
            connections: Family::default(),
            connections_accepted: Family::default(),
            connection_rejections: Family::default(),
        }
    }
}

impl Families {
    #[rustfmt::skip] // One line a metric: this is the list an operator's documentation is checked against.
    fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Requests answered; plugin `core` is the host itself, `none` matched no route", self.requests.clone());
        registry.register_with_unit("request_duration", "From the complete request head to the complete answer head", Unit::Seconds, self.duration.clone());
        registry.register("queued_calls", "Calls waiting for an instance", self.queued.clone());
        registry.register_with_unit("queue_wait", "How long calls waited for an instance", Unit::Seconds, self.queue_wait.clone());
        registry.register("forwards", "Forwarded requests whose upstream has not answered yet, those that wait for a connection included", self.forwards.clone());
        registry.register_with_unit("forward_wait", "From the plugin's forward to the head of the upstream's answer, waiting for a connection included", Unit::Seconds, self.forward_wait.clone());
        registry.register("rejections", "Requests turned away before the plugin ran", self.rejections.clone());
        registry.register("traps", "Calls that ended badly and cost their instance", self.traps.clone());
        registry.register("denials", "Actions the policy did not allow", self.denials.clone());
        registry.register("instances", "Instances of a plugin", self.instances.clone());
        registry.register_with_unit("memory", "Linear memory of a plugin's instances", Unit::Bytes, self.memory.clone());
        registry.register("log_lines_suppressed", "Log lines beyond a plugin's rate", self.log_lines_suppressed.clone());
        registry.register("downloads", "Downloads that ended", self.downloads.clone());
        registry.register("downloads_running", "Downloads queued or running", self.downloads_running.clone());
        registry.register_with_unit("downloaded", "Bytes received by downloads", Unit::Bytes, self.download_bytes.clone());
        registry.register("datagrams_received", "Datagrams and framed messages that arrived for a service", self.datagrams_received.clone());
        registry.register("datagrams_sent", "Datagrams and framed messages that a service sent", self.datagrams_sent.clone());
        registry.register("datagrams_dropped", "Datagrams lost to a full queue or a crash, and answers that could not be sent", self.datagrams_dropped.clone());
        registry.register("service_crashes", "Batches of datagrams whose call failed", self.service_crashes.clone());
        registry.register("transfers_running", "Files being sent block by block", self.transfers_running.clone());
        registry.register("transfers_done", "Files sent block by block to their end", self.transfers_done.clone());
        registry.register("transfers_failed", "Files not sent to their end", self.transfers_failed.clone());
        registry.register_with_unit("transferred", "Bytes sent block by block, repetitions included", Unit::Bytes, self.transfer_bytes.clone());
        registry.register("connections", "Open client connections", self.connections.clone());
        registry.register("connections_accepted", "Client connections accepted", self.connections_accepted.clone());
        registry.register("connection_rejections", "Client connections closed before their first request", self.connection_rejections.clone());
    }
}

impl Metrics {
    /// Everything at zero. `version` is Bulkhead's own.
    #[must_use]
    pub fn new(version: &str) -> Arc<Self> {
        let mut registry = Registry::with_prefix("bulkhead");
        let families = Families::default();
        families.register(&mut registry);
        registry.register(
            "build",
            "The running version",
            Info::new([("version", version.to_owned())]),
        );
        let (log_lines_lost, reloads, reloads_refused) =
            (Counter::default(), Counter::default(), Counter::default());
        let (pool_slots, pool_slots_used) = (Gauge::default(), Gauge::default());
        registry.register(
            "log_lines_lost",
            "Log lines the output was too slow or full for",
            log_lines_lost.clone(),
        );
        registry.register(
            "reloads",
            "Configuration reloads that took effect",
            reloads.clone(),
        );
        registry.register(
            "reloads_refused",
            "Configuration reloads refused as wrong",
            reloads_refused.clone(),
        );
        registry.register(
            "pool_slots",
            "Instance slots of the pool",
            pool_slots.clone(),
        );
        registry.register(
            "pool_slots_used",
            "Instance slots in use",
            pool_slots_used.clone(),
        );
        registry.register_collector(Box::new(ProcessCollector));
        Arc::new(Self {
            registry,
            families,
            plugins: Mutex::default(),
            log_lines_lost,
            pool_slots,
            pool_slots_used,
            reloads,
            reloads_refused,
        })
    }

    /// The numbers of one plugin; `core` for the host itself, `none` for requests that belong to nobody. The same name gets the same
    /// numbers. Keep what this returns: it takes a lock.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Arc<PluginMetrics> {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = plugins.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = if plugins.len() < PLUGIN_LIMIT {
            name.into()
        } else {
            OVERFLOW.into()
        };
        let made = plugins
            .entry(Arc::clone(&name))
            .or_insert_with(|| Arc::new(PluginMetrics::new(&self.families, name)));
        Arc::clone(made)
    }

    /// The numbers of one listener, by the name the operator gave it.
    #[must_use]
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let label = ListenerLabel {
            listener: name.into(),
        };
        Arc::new(ListenerMetrics {
            open: self.families.connections.get_or_create_owned(&label),
            accepted: self
                .families
                .connections_accepted
                .get_or_create_owned(&label),
            families: self.families.clone(),
            name: label.listener,
        })
    }

    /// The body of `GET /metrics`, in OpenMetrics text form.
    #[must_use]
    pub fn render(&self) -> String {
        let mut body = String::with_capacity(16 * 1024);
        // Writing to a String cannot fail.
        let _ = text::encode(&mut body, &self.registry);
        body
    }
}

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One plugin's numbers, resolved.
#[derive(Debug)]
pub struct PluginMetrics {
    name: Arc<str>,
    families: Families,
    duration: Histogram,
    queue_wait: Histogram,
    forwards: Gauge,
    forward_wait: Histogram,
    /// Calls waiting for an instance.
    pub queued: Gauge,
    /// Instances that wait.
    pub idle: Gauge,
    /// Instances in a call.
    pub busy: Gauge,
    /// Bytes of linear memory of all instances.
    pub memory: Gauge,
    /// Log lines beyond the plugin's rate.
    pub log_lines_suppressed: Counter,
    /// Downloads queued or running.
    pub downloads_running: Gauge,
    /// Bytes received by downloads.
    pub download_bytes: Counter,
    /// Datagrams that arrived for its service.
    pub datagrams_received: Counter,
    /// Datagrams its service sent.
    pub datagrams_sent: Counter,
    /// Datagrams that were lost, and answers that could not be sent.
    pub datagrams_dropped: Counter,
    /// Batches whose call failed.
    pub service_crashes: Counter,
    /// Files being sent block by block.
    pub transfers_running: Gauge,
    /// Files sent so to their end.
    pub transfers_done: Counter,
    /// Files not sent to their end.
    pub transfers_failed: Counter,
    /// Bytes sent so.
    pub transfer_bytes: Counter,
}

/// A request on its way to an upstream; counted while it lives.
#[derive(Debug)]
pub struct Forwarding<'a> {
    metrics: &'a PluginMetrics,
    since: Instant,
}

impl Drop for Forwarding<'_> {
    fn drop(&mut self) {
        self.metrics.forwards.dec();
        self.metrics
            .forward_wait
            .observe(self.since.elapsed().as_secs_f64());
    }
}

impl PluginMetrics {
    fn new(families: &Families, name: Arc<str>) -> Self {
        let label = PluginLabel {
            plugin: Arc::clone(&name),
        };
        let instances = |state| {
            families.instances.get_or_create_owned(&InstanceLabels {
                plugin: Arc::clone(&name),
                state,
            })
        };
        Self {
            duration: families.duration.get_or_create_owned(&label),
            queue_wait: families.queue_wait.get_or_create_owned(&label),
            queued: families.queued.get_or_create_owned(&label),
            forwards: families.forwards.get_or_create_owned(&label),
            forward_wait: families.forward_wait.get_or_create_owned(&label),
            idle: instances(InstanceState::Idle),
            busy: instances(InstanceState::Busy),
            memory: families.memory.get_or_create_owned(&label),
            log_lines_suppressed: families.log_lines_suppressed.get_or_create_owned(&label),
            downloads_running: families.downloads_running.get_or_create_owned(&label),
            download_bytes: families.download_bytes.get_or_create_owned(&label),
            datagrams_received: families.datagrams_received.get_or_create_owned(&label),
            datagrams_sent: families.datagrams_sent.get_or_create_owned(&label),
            datagrams_dropped: families.datagrams_dropped.get_or_create_owned(&label),
            service_crashes: families.service_crashes.get_or_create_owned(&label),
            transfers_running: families.transfers_running.get_or_create_owned(&label),
            transfers_done: families.transfers_done.get_or_create_owned(&label),
            transfers_failed: families.transfers_failed.get_or_create_owned(&label),
            transfer_bytes: families.transfer_bytes.get_or_create_owned(&label),
            families: families.clone(),
            name,
        }
    }

    /// A call waited this long for its instance.
    pub fn waited(&self, time: Duration) {
        self.queue_wait.observe(time.as_secs_f64());
    }

    /// A request is forwarded from now on, until the value is dropped: its upstream has answered, or never will.
    #[must_use]
    pub fn forwarding(&self) -> Forwarding<'_> {
        self.forwards.inc();
        Forwarding {
            metrics: self,
            since: Instant::now(),
        }
    }

    /// A request was turned away before the plugin ran.
    pub fn rejected(&self, reason: Rejection) {
        self.families
            .rejections
            .get_or_create(&RejectionLabels {
                plugin: Arc::clone(&self.name),
                reason,
            })
            .inc();
    }

    /// A call ended badly.
    pub fn trapped(&self, kind: Trap) {
        self.families
            .traps
            .get_or_create(&TrapLabels {
                plugin: Arc::clone(&self.name),
                kind,
            })
            .inc();
    }

    /// The policy refused an action of this capability (a kind of need in `wit/`: `files`, `sockets`, ...).
    pub fn denied(&self, capability: &'static str) {
        self.families
            .denials
            .get_or_create(&DenialLabels {
                plugin: Arc::clone(&self.name),
                capability,
            })
            .inc();
    }

    /// A download ended.
    pub fn downloaded(&self, result: DownloadEnd) {
        self.families
            .downloads
            .get_or_create(&DownloadLabels {
                plugin: Arc::clone(&self.name),
                result,
            })
            .inc();
    }
}

/// One listener's numbers.
#[derive(Debug)]
pub struct ListenerMetrics {
    name: Arc<str>,
    families: Families,
    open: Gauge,
    accepted: Counter,
}

impl ListenerMetrics {
    /// Counts a connection as open for as long as the guard lives.
    #[must_use]
    pub fn connected(&self) -> OpenConnection {
        self.accepted.inc();
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// A connection was closed before its first request.
    pub fn rejected(&self, reason: ConnectionRejection) {
        self.families
            .connection_rejections
            .get_or_create(&ConnectionRejectionLabels {
                listener: Arc::clone(&self.name),
                reason,
            })
            .inc();
    }

    /// A request got its answer's head after this time.
    pub fn answered(
        &self,
        plugin: &PluginMetrics,
        method: impl Into<Method>,
        status: impl Into<Status>,
        time: Duration,
    ) {
        plugin.duration.observe(time.as_secs_f64());
        let labels = RequestLabels {
            listener: Arc::clone(&self.name),
            plugin: Arc::clone(&plugin.name),
            method: method.into(),
            status: status.into(),
        };
        self.families.requests.get_or_create(&labels).inc();
    }
}

/// An open connection, until dropped.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
