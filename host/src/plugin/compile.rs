//! From a component's bytes to machine code, through a cache.
//!
//! Machine code is trusted code: whoever writes the cache owns the host. So the cache lives in a directory of the state directory that only
//! the host's user may enter, every entry is authenticated with a key that never leaves it, the entry is loaded from the very bytes
//! that were checked, and nothing compiled elsewhere is ever accepted. Compiling is itself work that hostile input can make endless: third parties' components
//! are compiled in a child process with limits on CPU time, memory and wall time.

use std::hash::{Hash, Hasher};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wasmtime::component::Component;

use crate::sandbox::Engine;
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
    /// The cache directory cannot be trusted or used.
    #[error("compile cache {}: {reason}", path.display())]
    Cache {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// The bytes are no component, or no valid one.
    #[error("not a valid component: {0}")]
    Invalid(String),
    /// Compiling took too long or too much.
    #[error("compiling was stopped: {0}")]
    Limit(String),
}

/// Compiles components, through the cache.
pub struct Compiler {
    engine: Engine,
    directory: PathBuf,
    key: [u8; 64],
    limits: CompileLimits,
    program: PathBuf,
}

/// Entries kept; the longest unused go first.
const MAX_ENTRIES: usize = 256;
const MAC_LENGTH: usize = 32;

impl Compiler {
    /// Opens the cache, making it when missing. `program` is this program, which is run again as `program compile-component` for third
    /// parties' components.
    pub fn open(
        engine: Engine,
        directory: PathBuf,
        limits: CompileLimits,
        program: PathBuf,
    ) -> Result<Self, CompileError> {
        let fail = |path: &Path, reason: String| CompileError::Cache {
            path: path.to_owned(),
            reason,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|error| fail(&directory, error.to_string()))?;
        let found = std::fs::symlink_metadata(&directory)
            .map_err(|error| fail(&directory, error.to_string()))?;
        let me = rustix::process::geteuid().as_raw();
        if !found.is_dir() || found.uid() != me || found.mode() & 0o077 != 0 {
            return Err(fail(
                &directory,
                format!(
                    "it must be a directory of user {me} with mode 0700, it belongs to user {} with mode {:04o}; whoever can write there could run code as the proxy. Remove it and start again",
                    found.uid(),
                    found.mode() & 0o7777
                ),
            ));
        }
        let key = read_or_make_key(&directory.join("key"))
            .map_err(|error| fail(&directory.join("key"), error.to_string()))?;
        Ok(Self {
            engine,
            directory,
            key,
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
    pub async fn component(&self, wasm: &[u8], origin: Origin) -> Result<Component, CompileError> {
        refuse_others(wasm)?;
        let path = self.directory.join(self.entry_name(wasm));
        if let Some(code) = self.read(&path) {
            match self.load(&code) {
                Ok(component) => return Ok(component),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cache entry does not load; compiling anew")
                }
            }
        }
        let code = match origin {
            // In a child as well: the compiler leaves tens of megabytes in the process it ran in.
            Origin::FirstParty => match self.compile_in_child(wasm).await {
                Err(error @ CompileError::Limit(_)) => {
                    tracing::warn!(%error, "compiling in this process instead");
                    self.engine
                        .inner()
                        .precompile_component(wasm)
                        .map_err(|error| CompileError::Invalid(format!("{error:#}")))?
                }
                compiled => compiled?,
            },
            Origin::ThirdParty => self.compile_in_child(wasm).await?,
        };
        if let Err(error) = self.write(&path, &code) {
            tracing::warn!(path = %path.display(), %error, "compile cache not written; the next start compiles again");
        }
        self.load(&code)
    }

    /// Compiles what is not in the cache yet, as many at once as there are cores. What fails is told when it is asked for.
    pub async fn warm_up(&self, components: &[&[u8]]) {
        use futures::StreamExt as _;
        let missing = components
            .iter()
            .filter(|wasm| !self.directory.join(self.entry_name(wasm)).exists());
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        futures::stream::iter(missing)
            .for_each_concurrent(cores, async |wasm| {
                if let Ok(code) = self.compile_in_child(wasm).await {
                    let path = self.directory.join(self.entry_name(wasm));
                    let _ = self.write(&path, &code);
                }
            })
            .await;
    }

    fn entry_name(&self, wasm: &[u8]) -> String {
        struct Sha(Sha256);
        impl Hasher for Sha {
            fn finish(&self) -> u64 {
                0
            }
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }
        }
        let mut engine = Sha(Sha256::new());
        self.engine
            .inner()
            .precompile_compatibility_hash()
            .hash(&mut engine);
        let digest = Sha256::digest(wasm);
        format!(
            "{}-{}.code",
            hex(&digest),
            hex(engine.0.finalize().get(..8).unwrap_or_default())
        )
    }

    fn mac(&self, path: &Path, code: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            <Hmac<Sha256> as Mac>::new(hmac::digest::Key::<Hmac<Sha256>>::from_slice(&self.key));
        mac.update(
            path.file_name()
                .map(std::ffi::OsStr::as_encoded_bytes)
                .unwrap_or_default(),
        );
        mac.update(code);
        mac
    }

    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let mut bytes = std::fs::read(path).ok()?;
        let code = bytes.split_off(MAC_LENGTH.min(bytes.len()));
        if self.mac(path, &code).verify_slice(&bytes).is_ok() {
            // Marks it as used, for `evict`.
            let _ = std::fs::File::options()
                .append(true)
                .open(path)
                .and_then(|file| file.set_modified(std::time::SystemTime::now()));
            Some(code)
        } else {
            tracing::warn!(path = %path.display(), "cache entry is not authentic; compiling anew");
            None
        }
    }

    fn write(&self, path: &Path, code: &[u8]) -> std::io::Result<()> {
        let part = path.with_extension(format!("part-{}", uuid::Uuid::new_v4().simple()));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        let written = file
            .write_all(&self.mac(path, code).finalize().into_bytes())
            .and_then(|()| file.write_all(code))
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&part, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&part);
        }
        self.evict();
        written
    }

    fn evict(&self) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return;
        };
        let mut found: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|it| it == "code"))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        found.sort();
        let surplus = found.len().saturating_sub(MAX_ENTRIES);
        for (_, path) in found.into_iter().take(surplus) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn load(&self, code: &[u8]) -> Result<Component, CompileError> {
        load(&self.engine, code)
    }

    async fn compile_in_child(&self, wasm: &[u8]) -> Result<Vec<u8>, CompileError> {
        in_child(&self.engine, &self.program, &self.limits, wasm).await
    }
}

/// A component that is only looked at: compiled in a child process with limits like any other, and kept nowhere.
pub async fn once(
    engine: &Engine,
    program: &Path,
    limits: &CompileLimits,
    wasm: &[u8],
) -> Result<Component, CompileError> {
    refuse_others(wasm)?;
    load(engine, &in_child(engine, program, limits, wasm).await?)
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
    // They are loaded from memory, not from a file that could change afterwards.
    #[allow(unsafe_code)]
    let component = unsafe { Component::deserialize(engine.inner(), code) };
    component.map_err(|error| CompileError::Invalid(format!("{error:#}")))
}

async fn in_child(
    engine: &Engine,
    program: &Path,
    limits: &CompileLimits,
    wasm: &[u8],
) -> Result<Vec<u8>, CompileError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        CompileError::Limit(format!("the compiling process {what}: {error}"))
    };
    let mut child = tokio::process::Command::new(program)
        .arg("compile-component")
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
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("does not start", &error))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) = (stdin, stdout, stderr) else {
        return Err(failed("has no pipes", &""));
    };
    let work = async {
        let feed = async {
            // A child that refuses early closes its end; its own words say why.
            let _ = stdin.write_all(wasm).await;
            drop(stdin);
        };
        let (mut code, mut words) = (Vec::new(), Vec::new());
        let (_, read, _) = tokio::join!(
            feed,
            stdout.read_to_end(&mut code),
            stderr.read_to_end(&mut words)
        );
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
    match status.code() {
        Some(0) => Ok(code),
        Some(1) if words != "out of memory" => Err(CompileError::Invalid(words)),
        _ => Err(CompileError::Limit(format!(
            "the compiling process ended with {status} (engine.compile_memory and engine.compile_time limit it) {words}"
        ))),
    }
}

/// The child's side of a third party's compilation: limits itself, then reads WebAssembly from standard input and writes machine code to standard
/// output.
pub fn compile_child(reservation: Option<u64>, seconds: u64, memory: u64) -> Result<(), String> {
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
    let mut wasm = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut wasm)
        .map_err(|error| error.to_string())?;
    let engine = Engine::compiler(reservation).map_err(|error| error.to_string())?;
    let code = engine
        .precompile_component(&wasm)
        .map_err(|error| format!("{error:#}"))?;
    std::io::stdout()
        .lock()
        .write_all(&code)
        .map_err(|error| error.to_string())
}

fn read_or_make_key(path: &Path) -> std::io::Result<[u8; 64]> {
    match std::fs::read(path) {
        Ok(bytes) => bytes
            .try_into()
            .map_err(|_| std::io::Error::other("it must hold 64 bytes; remove it and start again")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut key = [0u8; 64];
            rand::fill(&mut key);
            let part = path.with_extension("part");
            let _ = std::fs::remove_file(&part);
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&part)?;
            file.write_all(&key)?;
            file.sync_all()?;
            std::fs::rename(&part, path)?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::EngineConfig;
    use std::os::unix::fs::PermissionsExt;

    /// The smallest component: nothing in it.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn open(directory: &Path) -> Result<Compiler, CompileError> {
        let engine = Engine::new(&EngineConfig {
            instances: 32,
            ..EngineConfig::default()
        })
        .unwrap();
        Compiler::open(
            engine,
            directory.to_owned(),
            CompileLimits::default(),
            PathBuf::from("/nonexistent"),
        )
    }

    #[tokio::test]
    async fn a_cache_entry_that_was_tampered_with_is_compiled_anew() {
        let place = tempfile::tempdir().unwrap();
        let compiler = open(&place.path().join("cache")).unwrap();
        compiler.component(EMPTY, Origin::FirstParty).await.unwrap();
        let path = compiler.directory.join(compiler.entry_name(EMPTY));
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(compiler.read(&path).is_none());
        compiler.component(EMPTY, Origin::FirstParty).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), good);
    }

    #[test]
    fn a_cache_others_can_enter_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("cache");
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(open(&directory), Err(CompileError::Cache { .. })));
    }

    #[tokio::test]
    async fn machine_code_is_never_accepted() {
        let place = tempfile::tempdir().unwrap();
        let compiler = open(&place.path().join("cache")).unwrap();
        let code = compiler.engine.inner().precompile_component(EMPTY).unwrap();
        let refused = compiler.component(&code, Origin::FirstParty).await;
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
