//! The `bulkhead` program. Everything it can do is a command in [`bulkhead::cli`].

use std::process::ExitCode;

use bulkhead::plugin::registry::Bundled;

/// Requests allocate on many threads and free on others; mimalloc gives that memory back, where the system's allocator keeps an
/// arena for each thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let bundled = bulkhead_bundle::PLUGINS
        .iter()
        .map(|it| Bundled {
            name: it.name,
            wasm: it.wasm,
            digest: it.digest,
            policy: it.policy,
        })
        .collect();
    bulkhead::cli::main(bundled)
}
