//! What the kernel knows about a running program: memory, descriptors, threads, processor time.

use std::fs;
use std::time::Duration;

/// One look at `/proc/PID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub resident: u64,
    /// Open file descriptors, sockets included.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

/// Reads the usage of a process; `None` when it is gone.
pub fn usage(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        status.lines().find_map(|line| {
            line.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        })
    };
    Some(Usage {
        resident: field("VmRSS:")? * 1024,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        threads: field("Threads:")? as usize,
    })
}

/// Processor time a process has used, all threads together.
pub fn processor_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold spaces.
    let rest = stat.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_millis(ticks * 1000 / per_second))
}

/// Processor time that threads of this name have used, those that have ended not counted.
pub fn thread_time(pid: u32, name: &str) -> Duration {
    let mut ticks = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        // A thread may end while it is looked at.
        let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else {
            continue;
        };
        let Some((head, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        if head.ends_with(&format!("({name}")) {
            let fields = rest.split_whitespace().skip(11).take(2);
            ticks += fields.filter_map(|it| it.parse::<u64>().ok()).sum::<u64>();
        }
    }
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}
