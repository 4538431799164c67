//! Clients that ask for much and read nothing, by the thousand: what the program keeps for them is bounded.

use std::time::Duration;

use bulkhead_testkit::crowd::{aside, connect, source};
use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually};
use tokio::io::AsyncWriteExt as _;

use crate::connections::raise_descriptor_limit;
use crate::memory::most_while;
use crate::witness::Witness;

const READERS: usize = 10_000;

/// So many connections, each from one of a hundred addresses, ask for this and read nothing for this long.
fn ask_and_read_nothing(bulkhead: &Bulkhead, path: &str, time: Duration) {
    let target = bulkhead.hosts().address;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    aside(async {
        let mut open = Vec::with_capacity(READERS);
        for number in 0..READERS {
            // Refused or closed: that is the program's right.
            if let Ok(mut stream) = connect(source(number % 100), target).await
                && stream.write_all(request.as_bytes()).await.is_ok()
            {
                open.push(stream);
            }
        }
        tokio::time::sleep(time).await;
    });
}

/// The most that the program may take meanwhile, in bytes. Some 60 KiB for each of the 4,096 connections that a listener has by default; the HTTP
/// library alone would keep 250 KiB.
const MEMORY: u64 = 400 << 20;

/// What the allocator may keep for later.
const KEPT: u64 = 150 << 20;

/// Files and templates, ten thousand at a time: memory stays bounded and is given back, and Foreman does not notice.
#[test]
fn ten_thousand_slow_readers_do_not_exhaust_memory() {
    raise_descriptor_limit();
    let templates = "enabled = true\ntemplate_url = \"http://proxy.example.com\"";
    for path in ["/httpboot/large", "/unattended/provision"] {
        // All limits as they are by default.
        let configuration = Configuration::standard().listener_keys("limits = {}");
        let foreman = Foreman::answering(&configuration.authority, |_| {
            reply("200 OK", "text/plain", &"x".repeat(300_000))
        });
        std::fs::write(configuration.boot().join("large"), vec![7; 32 << 20]).unwrap();
        let configuration = configuration
            .foreman(&foreman)
            .feature("templates", templates);
        let bulkhead = Bulkhead::with(configuration);
        let idle = bulkhead.usage();
        let witness = Witness::of(&bulkhead);
        let most = most_while(&bulkhead, || {
            ask_and_read_nothing(&bulkhead, path, Duration::from_secs(10));
        });
        witness.leave();
        println!("{path}: idle {}, at most {most} bytes", idle.resident);
        assert!(most <= MEMORY, "{path}: {most} bytes");
        // Some work for each thread, so that it looks at what it can give back.
        assert_eventually!(
            (0..20).all(|_| bulkhead.foreman().get("/features").status == 200)
                && (0..20).all(|_| bulkhead.hosts().get("/httpboot/none").status == 404)
                && bulkhead.usage().resident <= idle.resident + KEPT,
            "{path}: {:?}, idle {idle:?}",
            bulkhead.usage()
        );
        assert_eventually!(
            bulkhead.usage().descriptors <= idle.descriptors + 64,
            "{path}: {:?}, idle {idle:?}",
            bulkhead.usage()
        );
    }
}
