//! From a component's bytes to machine code, through the cache.
//!
//! Machine code from the cache is mapped, not copied: only what runs takes memory, and what is not needed for a while the system may take back.
//! Compiling is itself work that hostile input can make endless, and leaves much memory behind: it is done
//! in a child process with limits on CPU time, memory and wall time.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wasmtime::component::Component;

use super::cache::{Cache, CacheError, Kind};
use super::inspect::Wasm;
use crate::sandbox::Engine;
use crate::sandbox::bindings::types::Manifest;
use crate::settings::config::CompileLimits;

/// Who wrote the component, which decides where it is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Embedded in this binary: compiled in a child process, or in this one where no child can be had.
    FirstParty,
    /// A file of the plugin directory: compiled in a child process with limits.
    ThirdParty,
}

/// Why there is no machine code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The bytes are no component, or no valid one.
    #[error("not a valid component: {0}")]
    Invalid(String),
    /// Compiling took too long or too much.
    #[error("compiling was stopped: {0}")]
    Limit(String),
    /// The machine code is there, and found no room where it was to be written.
    #[error("machine code not written: {0}")]
    Unwritten(String),
}

/// With this the child's words begin when only its output failed.
const UNWRITTEN: &str = "output: ";

/// Compiles components, through the cache.
pub struct Compiler {
    engine: Engine,
    cache: Cache,
    limits: CompileLimits,
    program: PathBuf,
}

impl Compiler {
    /// Opens the cache, making it when missing. `program` is this program, which is run again as `program compile-component`.
    pub fn open(
        engine: Engine,
        directory: PathBuf,
        limits: CompileLimits,
        program: PathBuf,
    ) -> Result<Self, CacheError> {
        let cache = Cache::open(&engine, directory)?;
        Ok(Self {
            engine,
            cache,
            limits,
            program,
        })
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &CompileLimits {
        &self.limits
    }

    /// The machine code of a component, from the cache or compiled now.
    pub async fn component(
        &self,
        wasm: &Wasm<'_>,
        origin: Origin,
    ) -> Result<Component, CompileError> {
        // What is embedded is not even looked at: its pages stay out of memory.
        if origin == Origin::ThirdParty {
            refuse_others(wasm.bytes)?;
        }
        if let Some(component) = self.cached(wasm) {
            return Ok(component);
        }
        let code = match self
            .compile_into_cache(wasm.digest, Input::Bytes(wasm.bytes))
            .await
        {
            Ok(()) => {
                if let Some(component) = self.cached(wasm) {
                    return Ok(component);
                }
                self.compile_in_memory(wasm).await
            }
            Err(Missed::Cache(error)) => {
                tracing::warn!(%error, "compile cache not written; the next start compiles again");
                self.compile_in_memory(wasm).await
            }
            Err(Missed::Compile(error)) => Err(error),
        };
        let code = match code {
            Err(error @ CompileError::Limit(_)) if origin == Origin::FirstParty => {
                tracing::warn!(%error, "compiling in this process instead");
                let code = self.engine.inner().precompile_component(wasm.bytes);
                let code = code.map_err(|error| CompileError::Invalid(format!("{error:#}")))?;
                self.cache.write(Kind::Code, wasm.digest, &code);
                code
            }
            code => code?,
        };
        load(&self.engine, &code)
    }

    /// The machine code the cache has, mapped; read where it cannot be mapped.
    fn cached(&self, wasm: &Wasm<'_>) -> Option<Component> {
        let (file, length) = self.cache.checked(Kind::Code, wasm.digest)?;
        let component = self.map(&file).or_else(|unmapped| {
            tracing::debug!(error = %unmapped, "machine code is read instead of mapped");
            let code = self.cache.read(Kind::Code, wasm.digest);
            let code = code
                .filter(|it| it.len() as u64 == length)
                .ok_or(unmapped)?;
            load(&self.engine, &code)
        });
        component
            .inspect_err(|error| {
                tracing::warn!(digest = wasm.digest, %error, "cache entry does not load; compiling anew")
            })
            .ok()
    }

    async fn compile_in_memory(&self, wasm: &Wasm<'_>) -> Result<Vec<u8>, CompileError> {
        let input = Input::Bytes(wasm.bytes);
        in_child(&self.engine, &self.program, &self.limits, input, None).await
    }

    /// Compiles what this program embeds and is not in the cache yet, as many at once as there are cores. What fails is told when it is asked for. The
    /// child takes it from its own copy of the program, so that its pages stay out of this process.
    pub async fn warm_up(&self, components: &[Wasm<'_>]) {
        use futures::StreamExt as _;
        let missing = components
            .iter()
            .filter(|wasm| !self.cache.has(Kind::Code, wasm.digest));
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        futures::stream::iter(missing)
            .for_each_concurrent(cores, async |wasm| {
                let input = Input::Embedded(wasm.digest);
                let _ = self.compile_into_cache(wasm.digest, input).await;
            })
            .await;
    }

    /// What a component said it is when it was asked before.
    #[must_use]
    pub fn manifest(&self, wasm: &Wasm<'_>) -> Option<Manifest> {
        let text = self.cache.read(Kind::Manifest, wasm.digest)?;
        serde_json::from_slice(&text).ok()
    }

    /// Remembers what a component says it is.
    pub fn remember(&self, wasm: &Wasm<'_>, manifest: &Manifest) {
        match serde_json::to_vec(manifest) {
            Ok(text) => self.cache.write(Kind::Manifest, wasm.digest, &text),
            Err(error) => tracing::warn!(%error, "a manifest is not remembered"),
        }
    }

    /// Maps machine code from a checked file of the cache. Fails where files of the state directory may not be executed.
    fn map(&self, file: &File) -> Result<Component, CompileError> {
        // The very file that was checked, not whatever has its name by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // SAFETY: `deserialize_file` demands a file made by this engine's `precompile_component` that does not change while it is mapped. It was
        // authenticated a moment ago with a key that only the host's user can read. The host itself never writes to an entry, it only
        // replaces and removes whole files; and nobody else can enter the directory: plugins are denied the state directory whatever
        // their policy says, and who acts as the host's user needs no such way to run code as the host.
        #[allow(unsafe_code)]
        let component = unsafe { Component::deserialize_file(self.engine.inner(), path) };
        component.map_err(|error| CompileError::Invalid(format!("{error:#}")))
    }

    /// Compiles in a child that writes into the cache, so that the code never passes through this process.
    async fn compile_into_cache(&self, digest: &str, input: Input<'_>) -> Result<(), Missed> {
        let part = self
            .cache
            .begin(Kind::Code, digest)
            .map_err(Missed::Cache)?;
        let out = part.writer().map_err(Missed::Cache)?;
        let done = in_child(&self.engine, &self.program, &self.limits, input, Some(out));
        done.await.map_err(|error| match error {
            CompileError::Unwritten(why) => Missed::Cache(std::io::Error::other(why)),
            error => Missed::Compile(error),
        })?;
        self.cache.finish(part).map_err(Missed::Cache)
    }
}

/// What a child compiles.
enum Input<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// The component of this digest that the program embeds.
    Embedded(&'a str),
}

/// Why there is no new entry in the cache.
enum Missed {
    /// It cannot be written.
    Cache(std::io::Error),
    /// There is nothing to write.
    Compile(CompileError),
}

/// A component that is only looked at: compiled in a child process with limits like any other, and kept nowhere.
pub async fn once(
    engine: &Engine,
    program: &Path,
    limits: &CompileLimits,
    wasm: &[u8],
) -> Result<Component, CompileError> {
    refuse_others(wasm)?;
    load(
        engine,
        &in_child(engine, program, limits, Input::Bytes(wasm), None).await?,
    )
}

/// Says of bytes that are no component what they are, in better words than a parser's.
fn refuse_others(wasm: &[u8]) -> Result<(), CompileError> {
    let wrong = |what: &str| Err(CompileError::Invalid(what.to_owned()));
    if wasmtime::Engine::detect_precompiled(wasm).is_some() {
        return wrong("it is machine code; only WebAssembly components are accepted");
    }
    match wasm {
        [] => wrong("the file is empty"),
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            wrong("it is a core module; build it as a component, for the target `wasm32-wasip2`")
        }
        [b'\0', b'a', b's', b'm', ..] => Ok(()),
        _ => wrong("it does not begin like WebAssembly"),
    }
}

fn load(engine: &Engine, code: &[u8]) -> Result<Component, CompileError> {
    // SAFETY: `deserialize` demands bytes made by this engine's `precompile_component`. They are: either made in this process or by
    // our own program run as a child a moment ago, or read from the cache and authenticated with a key that only the host's user can read.
    #[allow(unsafe_code)]
    let component = unsafe { Component::deserialize(engine.inner(), code) };
    component.map_err(|error| CompileError::Invalid(format!("{error:#}")))
}

/// Machine code from a child process: written into a file, or else answered.
async fn in_child(
    engine: &Engine,
    program: &Path,
    limits: &CompileLimits,
    input: Input<'_>,
    out: Option<File>,
) -> Result<Vec<u8>, CompileError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        CompileError::Limit(format!("the compiling process {what}: {error}"))
    };
    let (wasm, embedded) = match input {
        Input::Bytes(wasm) => (wasm, None),
        Input::Embedded(digest) => (&[][..], Some(["--embedded", digest])),
    };
    let mut child = tokio::process::Command::new(program)
        .arg("compile-component")
        .args(embedded.into_iter().flatten())
        .arg("--reservation")
        .arg(
            engine
                .reservation()
                .map_or_else(|| "none".to_owned(), |bytes| bytes.to_string()),
        )
        .arg("--seconds")
        .arg(limits.time.as_secs().max(1).to_string())
        .arg("--memory")
        .arg(limits.memory.to_string())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(out.map_or_else(Stdio::piped, Stdio::from))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("does not start", &error))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(mut stderr)) = (stdin, stderr) else {
        return Err(failed("has no pipes", &""));
    };
    let work = async {
        let feed = async {
            // A child that refuses early closes its end; its own words say why.
            let _ = stdin.write_all(wasm).await;
            drop(stdin);
        };
        let (mut code, mut words) = (Vec::new(), Vec::new());
        let answer = async {
            match stdout {
                Some(mut stdout) => stdout.read_to_end(&mut code).await,
                None => Ok(0),
            }
        };
        let (_, read, _) = tokio::join!(feed, answer, stderr.read_to_end(&mut words));
        read.map_err(|error| failed("broke its pipe", &error))?;
        let status = child
            .wait()
            .await
            .map_err(|error| failed("was lost", &error))?;
        Ok((status, code, words))
    };
    let (status, code, words) = tokio::time::timeout(limits.time, work)
        .await
        .map_err(|_| {
            CompileError::Limit(format!("it took longer than {} s", limits.time.as_secs()))
        })??;
    let words = String::from_utf8_lossy(&words);
    let words = words.trim().trim_start_matches("bulkhead: ").to_owned();
    match (status.code(), words.strip_prefix(UNWRITTEN)) {
        (Some(0), _) => Ok(code),
        (Some(1), Some(why)) => Err(CompileError::Unwritten(why.to_owned())),
        (Some(1), None) if words != "out of memory" => Err(CompileError::Invalid(words)),
        _ => Err(CompileError::Limit(format!(
            "the compiling process ended with {status} (engine.compile_memory and engine.compile_time limit it) {words}"
        ))),
    }
}

/// The child's side of a compilation: limits itself, then takes WebAssembly that this program embeds, or else reads it from standard input, and writes
/// machine code to standard output.
pub fn compile_child(
    reservation: Option<u64>,
    seconds: u64,
    memory: u64,
    embedded: Option<&[u8]>,
) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    use std::io::Read as _;
    let limit = |resource, amount| {
        setrlimit(
            resource,
            Rlimit {
                current: Some(amount),
                maximum: Some(amount),
            },
        )
        .map_err(|error| error.to_string())
    };
    limit(Resource::Cpu, seconds)?;
    limit(Resource::As, memory)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, 16)?;
    let mut read = Vec::new();
    let wasm = match embedded {
        Some(wasm) => wasm,
        None => {
            let mut input = std::io::stdin().lock();
            input
                .read_to_end(&mut read)
                .map_err(|error| error.to_string())?;
            &read
        }
    };
    let engine = Engine::compiler(reservation).map_err(|error| error.to_string())?;
    let code = engine
        .precompile_component(wasm)
        .map_err(|error| format!("{error:#}"))?;
    std::io::stdout()
        .lock()
        .write_all(&code)
        .map_err(|error| format!("{UNWRITTEN}{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::EngineConfig;

    /// The smallest component: nothing in it.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn open(directory: PathBuf) -> Compiler {
        let engine = Engine::new(&EngineConfig {
            instances: 32,
            ..EngineConfig::default()
        })
        .unwrap();
        Compiler::open(
            engine,
            directory,
            CompileLimits::default(),
            PathBuf::from("/nonexistent"),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_cache_entry_that_was_tampered_with_is_compiled_anew() {
        let place = tempfile::tempdir().unwrap();
        let compiler = open(place.path().join("cache"));
        let wasm = Wasm {
            bytes: EMPTY,
            digest: &super::super::inspect::digest(EMPTY),
        };
        let made = compiler.component(&wasm, Origin::FirstParty).await.unwrap();
        let entry = std::fs::read_dir(place.path().join("cache"))
            .unwrap()
            .map(|it| it.unwrap().path())
            .find(|it| it.extension().is_some_and(|it| it == "elf"))
            .unwrap();
        let good = std::fs::read(&entry).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&entry, &bad).unwrap();
        assert!(compiler.cache.checked(Kind::Code, wasm.digest).is_none());
        compiler.component(&wasm, Origin::FirstParty).await.unwrap();
        assert_eq!(std::fs::read(&entry).unwrap(), good);
        drop(made);
    }

    #[tokio::test]
    async fn what_the_cache_holds_is_mapped() {
        let place = tempfile::tempdir().unwrap();
        let compiler = open(place.path().join("cache"));
        let wasm = Wasm {
            bytes: EMPTY,
            digest: &super::super::inspect::digest(EMPTY),
        };
        compiler.component(&wasm, Origin::FirstParty).await.unwrap();
        let (file, _) = compiler.cache.checked(Kind::Code, wasm.digest).unwrap();
        compiler.map(&file).unwrap();
    }

    #[tokio::test]
    async fn machine_code_is_never_accepted() {
        let place = tempfile::tempdir().unwrap();
        let compiler = open(place.path().join("cache"));
        let code = compiler.engine.inner().precompile_component(EMPTY).unwrap();
        let wasm = Wasm {
            bytes: &code,
            digest: "sha256:00",
        };
        let refused = compiler.component(&wasm, Origin::ThirdParty).await;
        assert!(matches!(refused, Err(CompileError::Invalid(_))));
    }

    #[test]
    fn what_is_no_component_is_called_what_it_is() {
        let said = |bytes: &[u8]| refuse_others(bytes).unwrap_err().to_string();
        assert!(said(b"").contains("empty"));
        assert!(said(b"\0asm\x01\0\0\0").contains("core module"));
        assert!(said(b"\x7fELF\x02").contains("does not begin like WebAssembly"));
        assert!(refuse_others(EMPTY).is_ok());
    }
}
