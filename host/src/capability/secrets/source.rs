//! Where a secret lies, and reading it again when it changes.
//!
//! It refuses files that everybody may read, files that are not regular (a FIFO would hang the reader), and files beyond 64 KiB.
//!
//! The one idea: a file's content is kept until its identity (device, inode, size, times) changes; that is looked at no
//! more than once a second.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::KeyProblem;
use super::secret::{Algorithm, Key, Secret};
use crate::grant::effective::{SecretGrant, SecretSource};

/// The largest secret file in bytes: the largest key files are a few hundred.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// How long a key is used without looking at its file: a changed key takes effect within this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The contents of all secret files that were read. One a host.
#[derive(Debug, Default)]
pub struct KeyRing {
    /// `$CREDENTIALS_DIRECTORY`; none when systemd gave none.
    credentials: Option<PathBuf>,
    files: Mutex<HashMap<PathBuf, Kept>>,
}

#[derive(Debug, Clone)]
struct Kept {
    content: Arc<Secret>,
    identity: Identity,
    looked: Instant,
}

/// Device, inode, size, modification and change time.
type Identity = (u64, u64, u64, i64, i64, i64, i64);

impl KeyRing {
    /// `credentials` is the directory that systemd names in `$CREDENTIALS_DIRECTORY`.
    pub fn new(credentials: Option<PathBuf>) -> Self {
        KeyRing {
            credentials,
            files: Mutex::default(),
        }
    }

    /// The key of a grant, as its file is now (or was within the last second).
    pub fn key(&self, grant: &SecretGrant) -> Result<Key, KeyProblem> {
        let mut key = match &grant.source {
            SecretSource::File(path) => Key::parse(grant.format, &*self.content(path)?)?,
            SecretSource::Credential(name) => {
                Key::parse(grant.format, &*self.content(&self.credential(name)?)?)?
            }
            SecretSource::Value(text) => {
                Key::parse(grant.format, &Secret::new(text.clone().into_bytes()))?
            }
        };
        if let (None, Some(name)) = (key.algorithm, &grant.algorithm) {
            key.algorithm = Some(
                Algorithm::parse(name)
                    .ok_or_else(|| KeyProblem::UnknownAlgorithm { name: name.clone() })?,
            );
        }
        if let (true, Some(name)) = (key.name.is_empty(), &grant.key_name) {
            key.name.clone_from(name);
        }
        Ok(key)
    }

    fn content(&self, path: &Path) -> Result<Arc<Secret>, KeyProblem> {
        let former = self.kept().get(path).cloned();
        if let Some(kept) = former
            .as_ref()
            .filter(|kept| kept.looked.elapsed() < LOOK_AGAIN)
        {
            return Ok(kept.content.clone());
        }
        // Not under the lock: a file system that hangs must hold up nobody else's keys.
        let (mut file, metadata) = open(path)?;
        let identity = identity(&metadata);
        let content = match former.filter(|kept| kept.identity == identity) {
            Some(kept) => kept.content,
            None => Arc::new(read(&mut file, path)?),
        };
        self.kept().insert(
            path.to_owned(),
            Kept {
                content: content.clone(),
                identity,
                looked: Instant::now(),
            },
        );
        Ok(content)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<PathBuf, Kept>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn credential(&self, name: &str) -> Result<PathBuf, KeyProblem> {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(KeyProblem::BadCredentialName {
                name: name.to_owned(),
            });
        }
        let directory = self
            .credentials
            .as_ref()
            .ok_or_else(|| KeyProblem::NoCredentials {
                name: name.to_owned(),
            })?;
        Ok(directory.join(name))
    }
}

fn open(path: &Path) -> Result<(File, Metadata), KeyProblem> {
    let unreadable = |error: std::io::Error| KeyProblem::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    // Not blocking, so that a FIFO put in place of the file is refused below instead of hanging the reader.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(KeyProblem::NotAFile {
            path: path.to_owned(),
        });
    }
    if metadata.mode() & 0o007 != 0 {
        return Err(KeyProblem::OpenToAll {
            path: path.to_owned(),
            mode: metadata.mode() & 0o777,
        });
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(KeyProblem::TooLarge {
            path: path.to_owned(),
            limit: MAX_FILE_BYTES,
        });
    }
    Ok((file, metadata))
}

fn read(file: &mut File, path: &Path) -> Result<Secret, KeyProblem> {
    let mut bytes = Vec::with_capacity(usize::try_from(MAX_FILE_BYTES).unwrap_or_default());
    let outcome = file.take(MAX_FILE_BYTES).read_to_end(&mut bytes);
    let secret = Secret::new(bytes);
    outcome
        .map(|_| secret)
        .map_err(|error| KeyProblem::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

fn identity(metadata: &Metadata) -> Identity {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::effective::{SecretAccess, SecretFormat};
    use std::os::unix::fs::PermissionsExt as _;

    fn file(directory: &tempfile::TempDir, name: &str, text: &str, mode: u32) -> SecretGrant {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        raw(SecretSource::File(path))
    }

    fn raw(source: SecretSource) -> SecretGrant {
        SecretGrant {
            source,
            format: SecretFormat::Raw,
            algorithm: None,
            key_name: None,
            access: SecretAccess::Use,
        }
    }

    #[test]
    fn a_file_everybody_may_read_is_refused_and_a_group_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        let ring = KeyRing::default();
        let open = ring
            .key(&file(&directory, "open", "s3cr3t", 0o644))
            .unwrap_err();
        assert!(
            matches!(open, KeyProblem::OpenToAll { mode: 0o644, .. }),
            "{open}"
        );
        assert!(open.to_string().contains("chmod"), "{open}");
        ring.key(&file(&directory, "group", "s3cr3t", 0o640))
            .unwrap();
        ring.key(&file(&directory, "owner", "s3cr3t", 0o600))
            .unwrap();
    }

    #[test]
    fn a_changed_file_is_read_again_within_a_second() {
        let directory = tempfile::tempdir().unwrap();
        let ring = KeyRing::default();
        let source = file(&directory, "key", "old", 0o600);
        assert_eq!(ring.key(&source).unwrap().secret.expose(), b"old");
        file(&directory, "next", "new", 0o600);
        std::fs::rename(directory.path().join("next"), directory.path().join("key")).unwrap();
        std::thread::sleep(LOOK_AGAIN + Duration::from_millis(50));
        assert_eq!(ring.key(&source).unwrap().secret.expose(), b"new");
    }

    #[test]
    fn a_removed_file_is_no_longer_a_key() {
        let directory = tempfile::tempdir().unwrap();
        let ring = KeyRing::default();
        let source = file(&directory, "key", "old", 0o600);
        ring.key(&source).unwrap();
        std::fs::remove_file(directory.path().join("key")).unwrap();
        std::thread::sleep(LOOK_AGAIN + Duration::from_millis(50));
        assert!(matches!(
            ring.key(&source),
            Err(KeyProblem::Unreadable { .. })
        ));
    }

    #[test]
    fn special_and_huge_files_are_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let ring = KeyRing::default();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(matches!(
            ring.key(&raw(SecretSource::File(fifo))),
            Err(KeyProblem::NotAFile { .. })
        ));
        assert!(matches!(
            ring.key(&raw(SecretSource::File(directory.path().into()))),
            Err(KeyProblem::NotAFile { .. })
        ));
        let huge = file(&directory, "huge", &"x".repeat(70_000), 0o600);
        assert!(matches!(ring.key(&huge), Err(KeyProblem::TooLarge { .. })));
    }

    #[test]
    fn credentials_come_from_their_directory_only() {
        let directory = tempfile::tempdir().unwrap();
        file(&directory, "tsig", "aGVsbG8=", 0o400);
        let ring = KeyRing::new(Some(directory.path().into()));
        assert_eq!(
            ring.key(&SecretGrant {
                format: SecretFormat::Base64,
                ..raw(SecretSource::Credential("tsig".into()))
            })
            .unwrap()
            .secret
            .expose(),
            b"hello"
        );
        for name in ["../tsig", "", ".", "/etc/shadow"] {
            assert!(
                matches!(
                    ring.key(&raw(SecretSource::Credential(name.into()))),
                    Err(KeyProblem::BadCredentialName { .. })
                ),
                "{name}"
            );
        }
        assert!(matches!(
            KeyRing::default().key(&raw(SecretSource::Credential("tsig".into()))),
            Err(KeyProblem::NoCredentials { .. })
        ));
    }

    #[test]
    fn the_grant_names_what_the_source_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let ring = KeyRing::default();
        let named = |grant| SecretGrant {
            algorithm: Some("hmac-sha1".into()),
            key_name: Some("k".into()),
            ..grant
        };
        let key = ring
            .key(&named(raw(SecretSource::Value("s3cr3t".into()))))
            .unwrap();
        assert_eq!(
            (key.name.as_str(), key.algorithm),
            ("k", Some(Algorithm::Sha1))
        );
        let bind = file(
            &directory,
            "bind",
            "key own { algorithm hmac-sha512; secret aGk=; };",
            0o600,
        );
        let key = ring
            .key(&named(SecretGrant {
                format: SecretFormat::BindKey,
                ..bind
            }))
            .unwrap();
        assert_eq!(
            (key.name.as_str(), key.algorithm),
            ("own", Some(Algorithm::Sha512))
        );
    }
}
