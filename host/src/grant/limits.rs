//! What one plugin may use up. Each limit has a default with its reason; `[limits]` in a policy changes it for that plugin.

use std::time::Duration;

/// The limits of one plugin. Each field is a key of `[limits]`, with `-` for `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory of one instance, all its memories together.
    pub memory: u64,
    /// Bytes of linear memory of all instances of the plugin together.
    pub memory_total: u64,
    /// CPU time of one call.
    pub cpu: Duration,
    /// Wall time of one call, waiting included.
    pub time: Duration,
    /// Calls at once.
    pub concurrency: u32,
    /// Calls that may wait for their turn.
    pub queue: u32,
    /// How long a call waits for its turn before it is refused.
    pub queue_time: Duration,
    /// Warm instances kept for pooled calls.
    pub warm: u32,
    /// Calls a pooled instance answers before it is replaced.
    pub reuse: u32,
    /// Component handles and host resources an instance may hold.
    pub handles: u32,
    /// Bytes that one call to the host, or the answer to one of its calls, may carry out of the component. Where it is not named it follows
    /// `reply_body`.
    pub transfer: u64,
    /// Bytes of randomness one host call may fetch.
    pub random: u64,
    /// File operations under way at a time.
    pub file_calls: u32,
    /// Log lines a second; more are counted instead.
    pub log_lines: u32,
    /// Bytes of a request body handed over whole.
    pub request_body: u64,
    /// Bytes of a request body streamed into a forward.
    pub forward_body: u64,
    /// Bytes of a reply's body.
    pub reply_body: u64,
}

/// Bytes for what stands around a reply's body: its headers, at most 100 of them, as the component lays them out.
pub(crate) const HEAD_ROOM: u64 = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A Rust component starts at 1.1 MiB; Python needs 40 MiB.
            memory: 64 << 20,
            // Four instances at their limit.
            memory_total: 256 << 20,
            // CPU, time, log lines and bodies are promised by the contract (`wit/`).
            cpu: Duration::from_secs(5),
            time: Duration::from_secs(30),
            // More calls at once only share the same cores.
            concurrency: 16,
            // A rack of hosts that installs at once.
            queue: 256,
            // Foreman gives up after 60 s; waiting longer than half of that helps nobody.
            queue_time: Duration::from_secs(30),
            warm: 4,
            // Bounds what a leak in a guest can gather.
            reuse: 1000,
            // A guest needs tens.
            handles: 4096,
            // One reply with its head.
            transfer: (8 << 20) + HEAD_ROOM,
            // Keys and tokens are small.
            random: 64 << 10,
            // A network file system that hangs holds no more threads than this.
            file_calls: 16,
            log_lines: 100,
            request_body: 1 << 20,
            // Reports and facts are a few MiB.
            forward_body: 64 << 20,
            reply_body: 8 << 20,
        }
    }
}
