//! The threads components run on: never those that serve sockets.
//!
//! Epochs make a looping component yield, but it still takes every other turn of its thread, and a runtime whose threads are always
//! busy starves its own timers and sockets. So components have runtimes of their own, by who waits for them, and the kernel shares the cores:
//! the runtime of Foreman's plugins at normal priority, the one of everybody else niced, and a third, niced to the end of the scale, that
//! calls are moved to when they have used more CPU time than an honest request needs (see `metered`).

use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// Who waits for a call, and thus on which threads it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Foreman's audience, and providers on their behalf.
    Control,
    /// Client hosts and the public.
    Hosts,
    /// Work nobody waits for, and calls that have been demoted.
    Heavy,
}

/// The runtimes. Dropping it waits a bounded time for file operations that hang.
pub struct Runtimes {
    control: Option<Runtime>,
    hosts: Option<Runtime>,
    heavy: Option<Runtime>,
    services: Option<Runtime>,
    host_connections: Option<Runtime>,
    handles: Handles,
}

/// Cheap handles to the runtimes.
#[derive(Clone, Debug)]
pub struct Handles {
    control: Handle,
    hosts: Handle,
    heavy: Handle,
}

impl Handles {
    /// The runtime of a class.
    #[must_use]
    pub fn of(&self, class: Class) -> &Handle {
        match class {
            Class::Control => &self.control,
            Class::Hosts => &self.hosts,
            Class::Heavy => &self.heavy,
        }
    }
}

/// How far threads step back that work for hosts: with 5, a thread of Foreman's gets three times the time of one of theirs.
const HOSTS: i32 = 5;
/// Threads that wait for files, a runtime. A hanging file system takes these and no others (platform: a blocked open never ends).
const BLOCKING_THREADS: usize = 64;
/// How long an idle file thread is kept: a burst should not leave threads behind.
const BLOCKING_KEEP: Duration = Duration::from_secs(1);
/// How long shutting down waits for file operations that do not return.
const SHUTDOWN: Duration = Duration::from_secs(2);

impl Runtimes {
    /// Starts the threads: a worker a core and runtime.
    pub fn start() -> std::io::Result<Self> {
        let control = runtime("plugin", 0)?;
        let hosts = runtime("plugin-hosts", HOSTS)?;
        let heavy = runtime("plugin-heavy", 15)?;
        let services = runtime("services", HOSTS)?;
        let host_connections = runtime("serve-hosts", HOSTS)?;
        let handles = Handles {
            control: control.handle().clone(),
            hosts: hosts.handle().clone(),
            heavy: heavy.handle().clone(),
        };
        Ok(Self {
            control: Some(control),
            hosts: Some(hosts),
            heavy: Some(heavy),
            services: Some(services),
            host_connections: Some(host_connections),
            handles,
        })
    }

    /// The threads on which sockets of network services are served. No component runs there, and no HTTP: packets of a flood delay neither.
    #[must_use]
    pub fn services(&self) -> Handle {
        match &self.services {
            Some(services) => services.handle().clone(),
            // Only while it is being dropped.
            None => self.handles.control.clone(),
        }
    }

    /// The threads on which connections are served of listeners that Foreman does not use. A flood of hosts, their handshakes and their
    /// bodies take what Foreman's connections leave.
    #[must_use]
    pub fn host_connections(&self) -> Handle {
        match &self.host_connections {
            Some(threads) => threads.handle().clone(),
            // Only while it is being dropped.
            None => self.handles.hosts.clone(),
        }
    }

    /// Handles for those who spawn calls.
    #[must_use]
    pub fn handles(&self) -> Handles {
        self.handles.clone()
    }
}

impl Drop for Runtimes {
    fn drop(&mut self) {
        for runtime in [
            self.services.take(),
            self.host_connections.take(),
            self.control.take(),
            self.hosts.take(),
            self.heavy.take(),
        ]
        .into_iter()
        .flatten()
        {
            // From within async code `shutdown_timeout` may not block.
            if Handle::try_current().is_ok() {
                runtime.shutdown_background();
            } else {
                runtime.shutdown_timeout(SHUTDOWN);
            }
        }
    }
}

fn runtime(name: &'static str, nice: i32) -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_name(name)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_KEEP)
        .on_thread_start(move || {
            if nice != 0 {
                // On Linux "process" 0 means the calling thread. Lower priority needs no right; failing only costs fairness.
                if let Err(error) = rustix::process::setpriority_process(None, nice) {
                    tracing::debug!(%error, nice, "thread priority not set");
                }
            }
        })
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_hosts_are_niced_and_those_of_foreman_are_not() {
        let runtimes = Runtimes::start().unwrap();
        let nice = |class| {
            let handle = runtimes.handles().of(class).clone();
            handle
                .block_on(
                    handle.spawn(async { rustix::process::getpriority_process(None).unwrap() }),
                )
                .unwrap()
        };
        assert_eq!(nice(Class::Control), nice_of_test());
        assert_eq!(nice(Class::Hosts), nice_of_test().max(5));
        assert_eq!(nice(Class::Heavy), nice_of_test().max(15));
    }

    fn nice_of_test() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }
}
