//! Ports nobody else uses.
//!
//! They lie below the range from which the kernel takes ports for outgoing connections, because a test that opens
//! thousands of those would otherwise, sooner or later, sit on the port the program is about to bind.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{LazyLock, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// First and one past the last port handed out: above what services use, below Linux' default ephemeral range (32768).
const RANGE: (u16, u16) = (12_000, 32_000);

static TAKEN: LazyLock<Mutex<BTreeSet<u16>>> = LazyLock::new(Mutex::default);

/// A TCP and UDP port of 127.0.0.1 that is free now and that this process has not handed out before.
pub fn free() -> u16 {
    let mut taken = TAKEN
        .lock()
        .expect("no test panics while it holds the list");
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.subsec_nanos());
    // Several test processes may run at once: they start at different places.
    let mut seed = nanos
        .wrapping_mul(2_654_435_761)
        .wrapping_add(std::process::id().wrapping_mul(40_503));
    for _ in 0..2_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let port = RANGE.0 + ((seed >> 8) % u32::from(RANGE.1 - RANGE.0)) as u16;
        let usable = !taken.contains(&port)
            && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if usable {
            taken.insert(port);
            return port;
        }
    }
    panic!("no free port between {} and {}", RANGE.0, RANGE.1);
}
