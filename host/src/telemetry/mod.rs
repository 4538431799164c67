//! What the host tells its operator: log lines, the ring behind `/logs`, metrics.
//!
//! It refuses to wait: a full disk, a stalled pipe or a flood of lines costs lines (which are counted), never a request.
//!
//! The one idea: an event is read once, becomes a [`record::Record`], and that record goes to the ring and to the output.

pub mod context;
pub mod labels;
pub mod log;
pub mod metrics;
pub mod output;
pub mod process;
pub mod record;
pub mod ring;
pub mod text;
