//! Component files with broken bytes, through the whole way of a file in the plugin directory: compiled in a child process, described in an empty sandbox of
//! this very process, looked at by `plugin inspect`.
//!
//! Whatever the bytes are: a component that runs, or a reason in words. This process stays, and so do its other components.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bulkhead::plugin::compile::{Compiler, Origin};
use bulkhead::plugin::inspect;
use bulkhead::sandbox::{Engine, EngineConfig, Runtimes};
use bulkhead::settings::config::CompileLimits;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Limits of the child: small, so that a component that makes the compiler work for long does not use up the target's time.
const TIME: Duration = Duration::from_secs(20);

/// Breaks a component in one to four places. Sizes and counts stand in few bytes everywhere, so single bytes matter most.
fn broken(good: &[u8], seed: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = good.to_vec();
    // A single break is often one that leaves a component, whose code then does something else.
    let breaks = if random.random() {
        1
    } else {
        random.random_range(2..=4)
    };
    for _ in 0..breaks {
        // The beginning has the types of all interfaces; every second break is there.
        let reach = if random.random() {
            bytes.len().min(4096)
        } else {
            bytes.len()
        };
        let at = random.random_range(0..reach.max(1));
        let end = (at + random.random_range(1..64)).min(bytes.len());
        match random.random_range(0..7) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => {
                // A number of five bytes: the largest there is.
                bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f]);
            }
            _ => bytes[at..end].fill(random.random()),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// Seconds for the target, and the first seed; see [`super::run`].
fn budget() -> (Duration, u64) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    (
        Duration::from_secs(number("BULKHEAD_FUZZ_SECONDS").unwrap_or(2)),
        number("BULKHEAD_FUZZ_SEED").unwrap_or_else(rand::random),
    )
}

#[test]
fn component_files() {
    let good = bulkhead_fixtures::wasm("dns-double");
    let place = tempfile::tempdir().unwrap();
    let engine = Engine::new(&EngineConfig {
        instances: 32,
        ..EngineConfig::default()
    })
    .unwrap();
    let limits = CompileLimits {
        time: TIME,
        ..CompileLimits::default()
    };
    let program = Path::new(env!("CARGO_BIN_EXE_bulkhead"));
    let compiler = Compiler::open(
        engine.clone(),
        place.path().join("cache"),
        limits,
        program.into(),
    )
    .unwrap();
    let runtimes = Runtimes::start().unwrap();
    let asking = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let look = |wasm: &[u8]| -> Result<String, String> {
        asking.block_on(async {
            let digest = inspect::digest(wasm);
            let wasm = inspect::Wasm {
                bytes: wasm,
                digest: &digest,
            };
            let component = match compiler.component(&wasm, Origin::ThirdParty).await {
                Ok(component) => component,
                Err(error) => return Err(error.to_string()),
            };
            inspect::describe(&engine, &component, runtimes.handles())
                .await
                .map(|manifest| manifest.name)
                .map_err(|error| error.to_string())
        })
    };
    assert_eq!(look(good).as_deref(), Ok("dns-double"));
    let (time, first) = budget();
    let end = Instant::now() + time;
    let mut seed = first;
    let (mut fit, mut refused) = (0, std::collections::BTreeMap::<String, u32>::new());
    // At least a few, however slow the machine is.
    while Instant::now() < end || seed.wrapping_sub(first) < 20 {
        let wasm = broken(good, seed);
        let repeat = format!("BULKHEAD_FUZZ_SEED={seed}");
        let begun = Instant::now();
        match look(&wasm) {
            Ok(name) => {
                assert!(name.len() <= 32, "{repeat}: {name:?}");
                fit += 1;
            }
            Err(reason) => {
                assert!(
                    reason.len() > 10 && !reason.contains("panicked"),
                    "{repeat}: {reason:?}"
                );
                *refused
                    .entry(reason.chars().take(24).collect())
                    .or_default() += 1;
            }
        }
        assert!(
            begun.elapsed() < TIME * 2,
            "{repeat}: {:?}",
            begun.elapsed()
        );
        seed = seed.wrapping_add(1);
    }
    println!(
        "target component files: {} from seed {first}, {fit} still fit, refused: {refused:?}",
        seed.wrapping_sub(first)
    );
    // Nothing that came by has hurt this process.
    assert_eq!(look(good).as_deref(), Ok("dns-double"));

    // The same by the command an operator would use: a reason and an exit code, never a signal.
    for seed in first..first.saturating_add(3) {
        let file = place.path().join("broken.wasm");
        std::fs::write(&file, broken(good, seed)).unwrap();
        let seen = Command::new(program)
            .args(["plugin", "inspect"])
            .arg(&file)
            .output()
            .unwrap();
        let words = format!(
            "{}{}",
            String::from_utf8_lossy(&seen.stdout),
            String::from_utf8_lossy(&seen.stderr)
        );
        assert!(
            seen.status.code().is_some(),
            "BULKHEAD_FUZZ_SEED={seed}: {}",
            seen.status
        );
        assert!(
            words.contains("fits") && !words.contains("panicked"),
            "BULKHEAD_FUZZ_SEED={seed}: {words}"
        );
    }
}
