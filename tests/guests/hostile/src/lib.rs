//! Misbehaves on request, for tests that show the host and the other plugins unharmed.
//!
//! Every route exists twice: `/hostile/foreman/WHAT` and, for everybody, `/hostile/public/WHAT`. `WHAT` is:
//!
//! | | |
//! |---|---|
//! | `fine` | answers `fine` at once |
//! | `loop` | computes for ever |
//! | `spin-memcpy` | copies memory for ever, mostly inside single instructions |
//! | `memory-bomb` | takes memory until it gets no more |
//! | `trap` | executes an illegal instruction |
//! | `panic` | panics with a message |
//! | `big-reply` | answers with 1 GiB |
//! | `reply/N` | answers with N bytes |
//! | `hang` | sleeps for ever inside a host call |
//! | `handles` | opens 100,000 handles of the host and keeps them |
//! | `log-flood` | writes 100,000 log lines of 10 kB |
//! | `stdout-flood` | writes 100 MB to standard output, without a line break |
//! | `bad-header` | answers with a line break in a header |

use std::hint::black_box;
use std::time::Duration;

use bulkhead_sdk::manifest::Route;
use bulkhead_sdk::prelude::*;

const GIB: usize = 1 << 30;
const MIB: usize = 1 << 20;

struct Hostile;

impl Plugin for Hostile {
    fn describe() -> Manifest {
        let manifest = Manifest::new(
            "hostile",
            env!("CARGO_PKG_VERSION"),
            "Misbehaves on request",
        )
        .mount("/hostile");
        let manifest = misdeeds(manifest, "/hostile/foreman", |route| route);
        misdeeds(manifest, "/hostile/public", Route::public)
    }
}

bulkhead_sdk::export_feature!(Hostile);

fn misdeeds(manifest: Manifest, prefix: &str, audience: impl Fn(Route) -> Route) -> Manifest {
    let route = |what: &str| audience(get(&format!("{prefix}/{what}")));
    manifest
        .route(route("fine"), |_: &Request| "fine")
        .route(route("loop"), compute_for_ever)
        .route(route("spin-memcpy"), copy_for_ever)
        .route(route("memory-bomb"), take_all_memory)
        .route(route("trap"), trap)
        .route(route("panic"), panic_loudly)
        .route(route("big-reply"), |_: &Request| vec![b'x'; GIB])
        .route(route("reply/:bytes"), reply)
        .route(route("hang"), sleep_for_ever)
        .route(route("handles"), |_: &Request| keep_handles(100_000))
        .route(route("log-flood"), flood_log)
        .route(route("stdout-flood"), flood_stdout)
        .route(route("bad-header"), |_: &Request| {
            Answer::typed(200, "text/plain\r\nset-cookie: stolen=1", "split")
        })
}

fn compute_for_ever(_: &Request) {
    let mut number = 0_u64;
    loop {
        number = black_box(number.wrapping_mul(31).wrapping_add(7));
    }
}

fn copy_for_ever(_: &Request) {
    let mut memory = vec![1_u8; 16 * MIB];
    loop {
        black_box(&mut memory).copy_within(..8 * MIB, 8 * MIB);
    }
}

fn take_all_memory(_: &Request) {
    let mut taken = Vec::new();
    loop {
        taken.push(black_box(vec![1_u8; MIB]));
    }
}

/// In a component, aborting is the `unreachable` instruction.
fn trap(_: &Request) {
    std::process::abort();
}

#[allow(clippy::panic)] // It is what the route is for.
fn panic_loudly(_: &Request) {
    panic!("this plugin panics on request");
}

fn reply(request: &Request) -> Result<Vec<u8>, Failure> {
    let bytes: usize = request.parse("bytes")?;
    Ok(vec![b'x'; bytes])
}

fn sleep_for_ever(_: &Request) {
    loop {
        std::thread::sleep(Duration::from_secs(1 << 30));
    }
}

fn flood_log(_: &Request) {
    let line = "flood ".repeat(1700);
    for _ in 0..100_000 {
        log::warn(&line);
    }
}

fn flood_stdout(_: &Request) {
    let chunk = "flood".repeat(20_000);
    for _ in 0..1000 {
        print!("{chunk}");
    }
}

#[cfg(target_arch = "wasm32")]
fn keep_handles(count: u32) -> String {
    let handles: Vec<_> = (0..count)
        .map(|_| wasip2::clocks::monotonic_clock::subscribe_duration(u64::MAX))
        .collect();
    format!("kept {} handles", handles.len())
}

/// Natively there is no host whose handles could be used up.
#[cfg(not(target_arch = "wasm32"))]
fn keep_handles(_: u32) -> String {
    "kept 0 handles".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::testing::Host;

    #[test]
    fn both_audiences_have_every_route() {
        let manifest = Hostile::describe();
        let below = |prefix: &str| -> Vec<String> {
            let patterns = manifest
                .record()
                .routes
                .iter()
                .map(|route| route.pattern.clone());
            patterns
                .filter_map(|pattern| pattern.strip_prefix(prefix).map(str::to_owned))
                .collect()
        };
        assert_eq!(below("/hostile/foreman/"), below("/hostile/public/"));
        assert_eq!(below("/hostile/public/").len(), 13);
    }

    #[test]
    fn it_can_behave() {
        let host = Host::new().install();
        assert_eq!(host.get::<Hostile>("/hostile/public/fine").text(), "fine");
        assert_eq!(
            host.get::<Hostile>("/hostile/foreman/reply/3").text(),
            "xxx"
        );
    }
}
