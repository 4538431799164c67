//! What the host worked out about components and keeps from one start to the next: machine code and manifests.
//!
//! Machine code is trusted code: whoever writes the cache owns the host. So it lives in a directory of the state directory that only
//! the host's user may enter, every entry is authenticated with a key that never leaves it, and nothing made elsewhere is ever accepted.
//! An entry ends with its authentication code: what stands before it is as the maker wrote it, so that machine code can be mapped
//! instead of read.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::sandbox::Engine;

/// The cache directory cannot be trusted or used.
#[derive(Debug, thiserror::Error)]
#[error("compile cache {}: {reason}", path.display())]
pub struct CacheError {
    /// The directory or file.
    pub path: PathBuf,
    /// What is wrong, and the way out.
    pub reason: String,
}

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Machine code.
    Code,
    /// What a component says it is.
    Manifest,
}

impl Kind {
    /// The extension of its files. Another form of the content gets another one, so that entries of other versions are not looked at.
    fn extension(self) -> &'static str {
        match self {
            Self::Code => "elf",
            Self::Manifest => "manifest-1",
        }
    }
}

/// The cache.
pub(super) struct Cache {
    directory: PathBuf,
    key: [u8; 64],
    engine: String,
}

/// Entries kept; the longest unused go first. Two a component.
const MAX_ENTRIES: usize = 512;
const MAC_LENGTH: u64 = 32;
/// Bytes that are looked at together when an entry is checked.
const CHECKED_AT_ONCE: usize = 64 * 1024;

impl Cache {
    /// Opens the cache, making it when missing.
    pub(super) fn open(engine: &Engine, directory: PathBuf) -> Result<Self, CacheError> {
        let fail = |path: &Path, reason: String| CacheError {
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
            directory,
            key,
            engine: engine_name(engine),
        })
    }

    /// Where the entry of a component is. `digest` is the component's identity.
    fn path(&self, kind: Kind, digest: &str) -> PathBuf {
        let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.directory
            .join(format!("{digest}-{}.{}", self.engine, kind.extension()))
    }

    /// Whether there is an entry, authentic or not.
    pub(super) fn has(&self, kind: Kind, digest: &str) -> bool {
        self.path(kind, digest).exists()
    }

    /// The content of an authentic entry.
    pub(super) fn read(&self, kind: Kind, digest: &str) -> Option<Vec<u8>> {
        let (mut file, length) = self.checked(kind, digest)?;
        let mut content = vec![0; usize::try_from(length).ok()?];
        file.rewind()
            .and_then(|()| file.read_exact(&mut content))
            .ok()?;
        Some(content)
    }

    /// An authentic entry as the open file that was checked, and the length of its content.
    pub(super) fn checked(&self, kind: Kind, digest: &str) -> Option<(File, u64)> {
        let path = self.path(kind, digest);
        let mut file = File::open(&path).ok()?;
        match self.check(&path, &mut file) {
            Some(length) => {
                // Marks it as used, for `evict`.
                let _ = File::options()
                    .append(true)
                    .open(&path)
                    .and_then(|file| file.set_modified(SystemTime::now()));
                Some((file, length))
            }
            None => {
                tracing::warn!(path = %path.display(), "cache entry is not authentic; made anew");
                None
            }
        }
    }

    fn check(&self, path: &Path, file: &mut File) -> Option<u64> {
        let length = file.metadata().ok()?.len().checked_sub(MAC_LENGTH)?;
        let mut mac = self.mac(path);
        let mut piece = vec![0; CHECKED_AT_ONCE];
        let mut content = (&mut *file).take(length);
        loop {
            match content.read(&mut piece).ok()? {
                0 => break,
                count => mac.update(piece.get(..count)?),
            }
        }
        let mut code = [0; MAC_LENGTH as usize];
        file.read_exact(&mut code).ok()?;
        mac.verify_slice(&code).ok()?;
        Some(length)
    }

    /// Writes an entry, whole or not at all.
    pub(super) fn write(&self, kind: Kind, digest: &str, content: &[u8]) {
        let written = self.begin(kind, digest).and_then(|mut part| {
            part.file.write_all(content)?;
            self.finish(part)
        });
        if let Err(error) = written {
            let path = self.path(kind, digest);
            tracing::warn!(path = %path.display(), %error, "compile cache not written; the next start does the work again");
        }
    }

    /// Begins an entry; it counts when it is [finished](Self::finish).
    pub(super) fn begin(&self, kind: Kind, digest: &str) -> std::io::Result<Part> {
        let path = self.path(kind, digest);
        let part = path.with_extension(format!("part-{}", uuid::Uuid::new_v4().simple()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        Ok(Part { path, part, file })
    }

    /// Authenticates what was written and puts it in its place.
    pub(super) fn finish(&self, mut part: Part) -> std::io::Result<()> {
        let mut mac = self.mac(&part.path);
        part.file.rewind()?;
        let mut piece = vec![0; CHECKED_AT_ONCE];
        loop {
            match part.file.read(&mut piece)? {
                0 => break,
                count => mac.update(piece.get(..count).unwrap_or_default()),
            }
        }
        part.file.write_all(&mac.finalize().into_bytes())?;
        part.file.sync_all()?;
        std::fs::rename(&part.part, &part.path)?;
        self.evict();
        Ok(())
    }

    /// The beginning of an entry's authentication code: its name, so that no entry can stand in for another.
    fn mac(&self, path: &Path) -> Hmac<Sha256> {
        let mut mac =
            <Hmac<Sha256> as Mac>::new(hmac::digest::Key::<Hmac<Sha256>>::from_slice(&self.key));
        mac.update(
            path.file_name()
                .map(std::ffi::OsStr::as_encoded_bytes)
                .unwrap_or_default(),
        );
        mac
    }

    fn evict(&self) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return;
        };
        let mut found: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.file_name() != "key")
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        found.sort();
        let surplus = found.len().saturating_sub(MAX_ENTRIES);
        for (_, path) in found.into_iter().take(surplus) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// An entry that is being written. Dropped unfinished, it is gone.
pub(super) struct Part {
    path: PathBuf,
    part: PathBuf,
    file: File,
}

impl Part {
    /// Where the content goes.
    pub(super) fn writer(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Finished, it has another name by now.
        let _ = std::fs::remove_file(&self.part);
    }
}

/// What tells machine code of one engine from that of another, and of one version of this program from another.
fn engine_name(engine: &Engine) -> String {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut sha = Sha(Sha256::new());
    engine
        .inner()
        .precompile_compatibility_hash()
        .hash(&mut sha);
    hex(sha.0.finalize().get(..8).unwrap_or_default())
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
            let mut file = File::options()
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

    const DIGEST: &str = "sha256:00";

    fn open(directory: &Path) -> Result<Cache, CacheError> {
        let engine = Engine::new(&EngineConfig {
            instances: 32,
            ..EngineConfig::default()
        })
        .unwrap();
        Cache::open(&engine, directory.to_owned())
    }

    #[test]
    fn what_was_written_is_read_as_long_as_nobody_touches_it() {
        let place = tempfile::tempdir().unwrap();
        let cache = open(&place.path().join("cache")).unwrap();
        assert!(cache.read(Kind::Manifest, DIGEST).is_none());
        cache.write(Kind::Manifest, DIGEST, b"it");
        assert_eq!(cache.read(Kind::Manifest, DIGEST).unwrap(), b"it");
        assert!(cache.read(Kind::Code, DIGEST).is_none());
        let path = cache.path(Kind::Manifest, DIGEST);
        let good = std::fs::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(cache.read(Kind::Manifest, DIGEST).is_none(), "{position}");
            std::fs::write(&path, &good[..position]).unwrap();
            assert!(cache.read(Kind::Manifest, DIGEST).is_none(), "{position}");
        }
    }

    #[test]
    fn an_entry_does_not_stand_in_for_another() {
        let place = tempfile::tempdir().unwrap();
        let cache = open(&place.path().join("cache")).unwrap();
        cache.write(Kind::Code, DIGEST, b"it");
        std::fs::copy(
            cache.path(Kind::Code, DIGEST),
            cache.path(Kind::Code, "sha256:01"),
        )
        .unwrap();
        assert!(cache.checked(Kind::Code, "sha256:01").is_none());
        assert!(cache.checked(Kind::Code, DIGEST).is_some());
    }

    #[test]
    fn a_cache_others_can_enter_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("cache");
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(open(&directory).is_err());
    }
}
