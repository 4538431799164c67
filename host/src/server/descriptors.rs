//! File descriptors of this process: every connection needs one, and every open file.
//!
//! It refuses nothing: a limit that is too low for what is configured is told, with the numbers, and the proxy serves what it can.
//!
//! The one idea: the soft limit (often 1,024) exists for programs that use `select`; this one does not, so it takes what the hard limit allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::Config;

use super::limits::Limits;

/// Descriptors beside those of clients: listeners, log, store, state, sockets of plugins and their upstream connections.
const OWN: u64 = 512;

/// Raises the soft limit to the hard one. Answers how many descriptors this process may have; `None`: any number.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of file descriptors cannot be raised");
        }
    }
    getrlimit(Resource::Nofile).current
}

/// What to tell the operator if the connections that are configured exceed what may be open; `None`: they fit.
#[must_use]
pub fn shortage(config: &Config, allowed: Option<u64>) -> Option<String> {
    let allowed = allowed?;
    let default = Limits::default().connections;
    let connections: u64 = config
        .listeners
        .iter()
        .map(|it| {
            let each = it.limits.connections.unwrap_or(default) as u64;
            each.saturating_mul(it.addresses.len() as u64)
        })
        .sum();
    (connections.saturating_add(OWN) > allowed).then(|| {
        format!(
            "the listeners may hold {connections} connections together, but the system allows this process {allowed} file descriptors, of which it needs \
             some {OWN} itself; lower `connections` in [listener.limits] or raise the limit (LimitNOFILE= of systemd, `ulimit -Hn`)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_below_the_connections_is_told_with_its_numbers() {
        let config = Config::trial(std::path::Path::new("/nonexistent"));
        // Three listeners of 4,096 connections each.
        assert_eq!(shortage(&config, None), None);
        assert_eq!(shortage(&config, Some(12_288 + OWN)), None);
        let told = shortage(&config, Some(4_096)).unwrap();
        assert!(told.contains("12288") && told.contains("4096"), "{told}");
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
