//! Renewed certificates under load.

use std::time::Duration;

use bulkhead_testkit::load::Load;
use bulkhead_testkit::{Bulkhead, Configuration, Signal};

/// Ten renewals while connections are made and kept: nobody notices.
#[test]
fn renewals_lose_no_connection() {
    let bulkhead = Bulkhead::with(Configuration::empty());
    let (kept, new) = (bulkhead.foreman_tls(), bulkhead.foreman_tls());
    let kept =
        std::thread::spawn(move || Load::calm(Duration::from_secs(4)).get(&kept, "/v2/features"));
    let new = std::thread::spawn(move || {
        Load::reconnecting(4, Duration::from_secs(4)).get(&new, "/v2/features")
    });
    for _ in 0..10 {
        let server = bulkhead
            .configuration
            .authority
            .server(&["localhost", "127.0.0.1"]);
        // For a moment key and certificate do not belong together: that must do no harm either.
        bulkhead
            .configuration
            .scratch
            .file("tls/server-key.pem", &server.key_pem);
        bulkhead.signal(Signal::Reload);
        std::thread::sleep(Duration::from_millis(150));
        bulkhead
            .configuration
            .scratch
            .file("tls/server.pem", &server.chain_pem);
        bulkhead.signal(Signal::Reload);
        std::thread::sleep(Duration::from_millis(150));
    }
    for (name, run) in [("kept connections", kept), ("new connections", new)] {
        let measured = run.join().unwrap();
        assert!(measured.failures.is_empty(), "{name}: {measured}");
    }
}
