//! What the process itself uses, read from `/proc` when somebody asks.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Resident memory, open files and threads of this process. A number the system does not give is left out.
#[derive(Debug, Clone, Copy)]
pub struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut gauge = |name, help, unit, value: Option<i64>| {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        gauge(
            "process_resident_memory",
            "Resident memory of the process",
            Some(&Unit::Bytes),
            resident_memory(),
        )?;
        gauge(
            "process_threads",
            "Threads of the process",
            None,
            status("Threads:"),
        )?;
        gauge(
            "process_open_files",
            "Open file descriptors of the process",
            None,
            open_files(),
        )
    }
}

/// Resident memory of this process in bytes.
#[must_use]
pub fn resident_memory() -> Option<i64> {
    status("VmRSS:").map(|kib| kib * 1024)
}

fn status(name: &str) -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_files() -> Option<i64> {
    i64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn the_process_has_memory_files_and_threads() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCollector));
        let mut body = String::new();
        text::encode(&mut body, &registry).unwrap();
        for name in [
            "process_resident_memory_bytes ",
            "process_threads ",
            "process_open_files ",
        ] {
            let line = body.lines().find(|line| line.starts_with(name)).unwrap();
            assert!(
                line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() > 0,
                "{line}"
            );
        }
    }
}
