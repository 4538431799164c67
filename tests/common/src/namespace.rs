//! Networks of a test's own: namespaces with interfaces, joined by virtual wires. Nothing in them reaches the machine's networks.
//!
//! It refuses to guess: without the rights or without `ip` there is no namespace, and the test skips itself loudly. A namespace and all of its
//! interfaces vanish with its value; processes in it are ended by whoever started them.
//!
//! The one idea: a thread *enters* a namespace, and from then on whatever it opens or starts is in there, so the rest of the test kit works unchanged:
//!
//! ```no_run
//! use bulkhead_testkit::{Bulkhead, namespace::Namespace};
//! let Some(site) = Namespace::new("site") else { return };
//! site.enter();
//! let bulkhead = Bulkhead::trial();
//! ```

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::LinkNameSpaceType;

/// A network namespace with a loopback interface.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one; `None` where that is not allowed or `ip` (iproute2) is missing. `label` is for people who look at `ip netns`.
    pub fn new(label: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bh-{}-{count}-{label}", std::process::id());
        let made = Command::new("ip")
            .args(["netns", "add", &name])
            .output()
            .ok()?;
        if !made.status.success() {
            return None;
        }
        let this = Self { name };
        this.ip(&["link", "set", "lo", "up"]);
        Some(this)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside: `ip(&["addr", "add", "192.0.2.1/24", "dev", "eth0"])`.
    #[track_caller]
    pub fn ip(&self, arguments: &[&str]) {
        let output = Command::new("ip")
            .args(["-n", &self.name])
            .args(arguments)
            .output()
            .expect("`ip` can be started");
        assert!(
            output.status.success(),
            "ip {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// A wire to another namespace: an interface at each end, up, with these addresses (`192.0.2.1/24`; empty: none).
    #[track_caller]
    pub fn wire(&self, interface: &str, address: &str, other: &Self, far: &str, far_address: &str) {
        self.ip(&[
            "link",
            "add",
            interface,
            "type",
            "veth",
            "peer",
            "name",
            far,
            "netns",
            other.name(),
        ]);
        for (place, interface, address) in [(self, interface, address), (other, far, far_address)] {
            if !address.is_empty() {
                place.ip(&["addr", "add", address, "dev", interface]);
            }
            place.ip(&["link", "set", interface, "up"]);
        }
    }

    /// A command that runs inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a program inside to its end.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program)
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Moves the calling thread, and whatever it starts from now on, into the namespace. A test runs on a thread of its own, so this is for the rest
    /// of the test.
    #[track_caller]
    pub fn enter(&self) {
        let door = File::open(format!("/run/netns/{}", self.name)).expect("the namespace exists");
        rustix::thread::move_into_link_name_space(door.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("a namespace of one's own can be entered");
    }

    /// Does something inside, on a thread of its own, and comes back with what it made.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                work()
            });
            match thread.join() {
                Ok(made) => made,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .output();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn two_namespaces_talk_over_their_wire_and_to_nobody_else() {
        let (Some(one), Some(other)) = (Namespace::new("one"), Namespace::new("other")) else {
            crate::skip!("no network namespaces here: they need root and `ip`");
        };
        one.wire("eth0", "192.0.2.1/24", &other, "eth0", "192.0.2.2/24");
        let listener = one.inside(|| TcpListener::bind("192.0.2.1:80").expect("it is up"));
        other.inside(|| TcpStream::connect("192.0.2.1:80").expect("the wire works"));
        assert!(listener.accept().is_ok());
        assert!(
            TcpListener::bind("192.0.2.1:80").is_err(),
            "the address is not this machine's"
        );
    }
}
