//! Files below the plugin's `files` slots.
//!
//! A slot called `root` is a directory that the component sees as `/root`; where it really is, only the operator knows. Plain
//! `std::fs` works there. A [`Folder`] adds what `std` lacks: paths that cannot lead out, and files replaced whole.
//!
//! It refuses paths with `..`, absolute ones, and empty ones: the host would refuse them too, this only says so earlier.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Failure;

/// A `files` slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    place: PathBuf,
}

/// Why a file could not be read, written or removed. `Display` gives the system's reason only; the caller names the file as its
/// own users know it.
#[derive(Debug)]
pub enum FileError {
    /// The path is empty, absolute, or leads out of the slot.
    LeadsOut,
    /// There is no such file.
    NotFound,
    /// A directory stands where the file should be.
    IsADirectory,
    /// Something else, e.g. no space.
    Io(io::Error),
}

impl Folder {
    /// The directory of a slot.
    #[must_use]
    pub fn slot(name: &str) -> Self {
        Self {
            place: place_of(name),
        }
    }

    /// The content of a file.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        Ok(fs::read(self.at(path)?)?)
    }

    /// Replaces a file as a whole, and makes the directories above it: a reader, and a machine that loses power, sees the old content or the
    /// new one, never a part. The file appears under a temporary name beside its own, is synced and then renamed.
    ///
    /// # Errors
    /// See [`FileError`]; the old file is untouched then.
    pub fn write_whole(&self, path: &str, content: &[u8]) -> Result<(), FileError> {
        let target = self.at(path)?;
        let folder = target.parent().unwrap_or(&self.place);
        if target.is_dir() {
            return Err(FileError::IsADirectory);
        }
        let temporary = folder.join(temporary_name());
        let file = create_with_folders(&temporary, folder)?;
        if let Err(problem) =
            write_synced(file, content).and_then(|()| fs::rename(&temporary, &target))
        {
            let _ = fs::remove_file(&temporary);
            return Err(problem.into());
        }
        // The rename is durable once the directory is synced; a file system that cannot sync directories has to do without.
        if let Ok(directory) = File::open(folder) {
            let _ = directory.sync_all();
        }
        Ok(())
    }

    /// Removes a file. False: there was none.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn remove(&self, path: &str) -> Result<bool, FileError> {
        match fs::remove_file(self.at(path)?).map_err(FileError::from) {
            Ok(()) => Ok(true),
            Err(FileError::NotFound) => Ok(false),
            Err(problem) => Err(problem),
        }
    }

    /// The path as `std::fs` takes it.
    ///
    /// # Errors
    /// [`FileError::LeadsOut`].
    pub fn at(&self, path: &str) -> Result<PathBuf, FileError> {
        if !stays_inside(path) {
            return Err(FileError::LeadsOut);
        }
        Ok(self.place.join(path))
    }
}

/// Whether a relative path names something below its start, component by component: neither empty nor absolute, no `..`.
#[must_use]
pub fn stays_inside(path: &str) -> bool {
    let mut normal = 0_usize;
    let inside = Path::new(path)
        .components()
        .all(|component| match component {
            Component::Normal(_) => {
                normal += 1;
                true
            }
            Component::CurDir => true,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => false,
        });
    inside && normal > 0 && !path.contains('\0')
}

/// The directories nearly always exist, so they are made only when the file cannot be.
fn create_with_folders(path: &Path, folder: &Path) -> io::Result<File> {
    match File::create_new(path) {
        Err(problem)
            if matches!(
                problem.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            fs::create_dir_all(folder)?;
            File::create_new(path)
        }
        result => result,
    }
}

fn write_synced(mut file: File, content: &[u8]) -> io::Result<()> {
    file.write_all(content)?;
    file.sync_all()
}

/// Unique among the instances of all plugins that write to one directory: the time tells instances apart, the number the files of one.
fn temporary_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!(
        ".bulkhead-part-{:x}-{:x}",
        now.as_nanos(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

#[cfg(target_arch = "wasm32")]
fn place_of(slot: &str) -> PathBuf {
    Path::new("/").join(slot)
}

#[cfg(not(target_arch = "wasm32"))]
fn place_of(slot: &str) -> PathBuf {
    crate::testing::imports::folder(slot)
}

impl From<io::Error> for FileError {
    fn from(problem: io::Error) -> Self {
        match problem.kind() {
            // Below a file there is nothing either.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NotFound,
            io::ErrorKind::IsADirectory => Self::IsADirectory,
            _ => Self::Io(problem),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeadsOut => formatter.write_str("path leads out of the directory"),
            Self::NotFound => formatter.write_str("No such file or directory"),
            Self::IsADirectory => formatter.write_str("Is a directory"),
            Self::Io(problem) => match words(problem.kind()) {
                Some(words) => formatter.write_str(words),
                None => problem.fmt(formatter),
            },
        }
    }
}

impl std::error::Error for FileError {}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let status = match &error {
            FileError::LeadsOut => 400,
            FileError::NotFound => 404,
            FileError::IsADirectory => 409,
            FileError::Io(_) => 500,
        };
        Self::new(status, error.to_string())
    }
}

/// What operators meet, in the system's usual words and without an error number: that of the sandbox is not the machine's.
fn words(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::AlreadyExists => "File exists",
        io::ErrorKind::PermissionDenied => "Permission denied",
        io::ErrorKind::QuotaExceeded => "Disk quota exceeded",
        io::ErrorKind::ReadOnlyFilesystem => "Read-only file system",
        io::ErrorKind::StorageFull => "No space left on device",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Host, TempFolder};

    #[test]
    fn a_path_that_leads_out_is_refused() {
        for path in ["", ".", "..", "../x", "a/../x", "/x", "a/../../x", "a\0b"] {
            assert!(!stays_inside(path), "{path:?} stays inside");
        }
        for path in ["x", "a/b", "./a", "a/./b", "a//b", "..x"] {
            assert!(stays_inside(path), "{path:?} leads out");
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let root = TempFolder::new();
        let _host = Host::new().folder("root", root.path()).install();
        let folder = Folder::slot("root");
        folder.write_whole("a/b", b"one").unwrap();
        folder.write_whole("a/b", b"two").unwrap();
        assert_eq!(folder.read("a/b").unwrap(), b"two");
        assert_eq!(fs::read_dir(root.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_in_the_way_is_an_error_and_stays() {
        let root = TempFolder::new();
        let _host = Host::new().folder("root", root.path()).install();
        let folder = Folder::slot("root");
        folder.write_whole("ztp.cfg/x", b"one").unwrap();
        assert!(matches!(
            folder.write_whole("ztp.cfg", b"two"),
            Err(FileError::IsADirectory)
        ));
        assert_eq!(folder.read("ztp.cfg/x").unwrap(), b"one");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_in_the_way_is_an_error_and_stays() {
        let root = TempFolder::new();
        let _host = Host::new().folder("root", root.path()).install();
        let folder = Folder::slot("root");
        folder.write_whole("poap.cfg", b"one").unwrap();
        assert_eq!(
            folder
                .write_whole("poap.cfg/x", b"two")
                .unwrap_err()
                .to_string(),
            "File exists"
        );
        assert_eq!(folder.read("poap.cfg").unwrap(), b"one");
    }

    #[test]
    fn a_question_mark_answers_with_the_status_of_the_error() {
        let root = TempFolder::new();
        let _host = Host::new().folder("root", root.path()).install();
        let folder = Folder::slot("root");
        folder.write_whole("a/b", b"one").unwrap();
        let status = |result: Result<(), FileError>| {
            let answer = || -> Result<(), Failure> { Ok(result?) };
            answer().unwrap_err().status()
        };
        assert_eq!(status(folder.read("../x").map(drop)), 400);
        assert_eq!(status(folder.read("x").map(drop)), 404);
        assert_eq!(status(folder.write_whole("a", b"two")), 409);
        assert_eq!(status(folder.write_whole("a/b/c", b"two")), 500);
    }

    #[test]
    fn removing_an_absent_file_is_fine() {
        let root = TempFolder::new();
        let _host = Host::new().folder("root", root.path()).install();
        let folder = Folder::slot("root");
        folder.write_whole("x", b"one").unwrap();
        assert!(folder.remove("x").unwrap());
        assert!(!folder.remove("x").unwrap());
        assert!(!folder.remove("absent/x").unwrap());
        folder.write_whole("x", b"one").unwrap();
        assert!(!folder.remove("x/below").unwrap());
    }
}
