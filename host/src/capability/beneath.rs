//! Walks a path below a directory without ever leaving it, whatever another process does to the tree meanwhile.
//!
//! It refuses `..` above the directory, absolute symbolic links (unless they point back into the directory and the caller
//! asks for that), and walking through anything that is not a directory. It never opens a device, a FIFO or a socket.
//!
//! The one idea: each name is opened on its own, as a bare handle (`O_PATH`) that does not follow links, below the handle of the
//! directory before it. A symbolic link is read from its own handle and its text walked by the same rules. So there is no moment
//! between checking a path and using it: what was checked is the handle, and a file is later opened through its handle.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

/// Symbolic links followed in one walk; Linux itself stops at 40.
const MAX_LINKS: usize = 40;
/// Bytes of a path as given; Linux's own limit for one system call.
const MAX_PATH: usize = 4096;
/// Names walked in one path, with those of followed links. It bounds the handles that a walk holds open at a time.
const MAX_DEPTH: usize = 256;

/// Why a walk ended without a place.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The path, or a symbolic link in it, leads out of the directory.
    #[error("the path leads out of the granted directory")]
    LeadsOut,
    /// A directory in the middle of the path does not exist.
    #[error("no such directory")]
    NotFound,
    /// Something in the middle of the path, or before a trailing slash, is not a directory.
    #[error("not a directory")]
    NotDirectory,
    /// More than 40 symbolic links.
    #[error("too many symbolic links")]
    Loop,
    /// Longer than 4096 bytes, or deeper than 256 names.
    #[error("the path is too long")]
    TooLong,
    /// Empty, or with a zero byte.
    #[error("not a path")]
    Invalid,
    /// What the system said.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What happens to a symbolic link at the end of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLink {
    /// It is followed.
    Follow,
    /// It is the place found.
    Keep,
}

/// How symbolic links with an absolute target are read.
#[derive(Debug, Clone, Copy)]
pub enum AbsoluteLinks<'a> {
    /// They lead out.
    Refuse,
    /// A target below one of these paths, which all name the walked directory, goes on from the directory; any other leads out.
    Rebase(&'a [&'a Path]),
}

/// What is at the end of a path.
#[derive(Debug)]
pub enum Node {
    /// Nothing, but the directory that would hold it exists.
    Missing,
    /// A bare handle to it.
    Directory(Arc<OwnedFd>, Metadata),
    /// A bare handle to it.
    File(OwnedFd, Metadata),
    /// A symbolic link, with its bare handle.
    Link(OwnedFd, Metadata),
    /// A device, FIFO or socket. There is no handle to it.
    Special(Metadata),
}

/// The end of a walk.
#[derive(Debug)]
pub struct Place {
    /// The directory that holds the name.
    pub parent: Arc<OwnedFd>,
    /// The name in it; none when the path ends at the directory where the walk began, or goes up to a directory.
    pub name: Option<OsString>,
    /// What is there.
    pub node: Node,
    /// The path ended in `/`, `.` or `..`: it can only name a directory. Matters when the node is missing.
    pub wants_directory: bool,
}

/// Walks `path` from `start`.
///
/// # Errors
/// Each variant of [`WalkError`] says when.
pub fn walk(
    start: &Arc<OwnedFd>,
    path: &OsStr,
    last: LastLink,
    absolute: AbsoluteLinks<'_>,
) -> Result<Place, WalkError> {
    let mut walk = Walk {
        start,
        stack: Vec::new(),
        rest: Vec::new(),
        must_be_directory: false,
    };
    if path.is_empty() {
        return Err(WalkError::Invalid);
    }
    if path.as_bytes().starts_with(b"/") {
        return Err(WalkError::LeadsOut);
    }
    walk.push_path(path)?;
    let mut links = 0;
    while let Some(name) = walk.rest.pop() {
        if name == ".." {
            // Up means back to the handle we came by, never to what the system thinks is above.
            walk.stack.pop().ok_or(WalkError::LeadsOut)?;
            continue;
        }
        let parent = walk.here();
        let is_last = walk.rest.is_empty();
        let handle = match rustix::fs::openat(
            &*parent,
            &name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(handle) => File::from(handle),
            Err(rustix::io::Errno::NOENT) if is_last => {
                return Ok(Place {
                    parent,
                    name: Some(name),
                    node: Node::Missing,
                    wants_directory: walk.must_be_directory,
                });
            }
            Err(rustix::io::Errno::NOENT) => return Err(WalkError::NotFound),
            Err(rustix::io::Errno::NOTDIR) => return Err(WalkError::NotDirectory),
            Err(rustix::io::Errno::NAMETOOLONG) => return Err(WalkError::TooLong),
            Err(error) => return Err(WalkError::Io(error.into())),
        };
        let metadata = handle.metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            if walk.stack.len() >= MAX_DEPTH {
                return Err(WalkError::TooLong);
            }
            walk.stack.push((Arc::new(handle.into()), name, metadata));
            continue;
        }
        if kind.is_symlink() && (!is_last || walk.must_be_directory || last == LastLink::Follow) {
            links += 1;
            if links > MAX_LINKS {
                return Err(WalkError::Loop);
            }
            let target =
                rustix::fs::readlinkat(&handle, "", Vec::new()).map_err(io::Error::from)?;
            walk.follow(OsString::from_vec(target.into_bytes()), absolute)?;
            continue;
        }
        if !is_last || walk.must_be_directory {
            return Err(WalkError::NotDirectory);
        }
        let handle = OwnedFd::from(handle);
        let node = if kind.is_file() {
            Node::File(handle, metadata)
        } else if kind.is_symlink() {
            Node::Link(handle, metadata)
        } else {
            Node::Special(metadata)
        };
        return Ok(Place {
            parent,
            name: Some(name),
            node,
            wants_directory: false,
        });
    }
    walk.end_at_directory()
}

/// Opens a regular file that a walk has found, through its handle: no name is looked up again.
///
/// # Errors
/// What the system says, for instance that the process may not read it.
pub fn open_found(handle: &impl AsFd, flags: OFlags) -> io::Result<File> {
    let link = format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd());
    // NONBLOCK costs nothing on a regular file and bounds the damage if the handle is ever something else.
    let opened = rustix::fs::open(
        link,
        flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK,
        Mode::empty(),
    )?;
    Ok(File::from(opened))
}

/// Opens a directory as the start of walks, by an absolute path without symbolic links (see
/// [`real_place`](crate::grant::policy::real_place)): a link that has taken a directory's place since is not followed.
///
/// # Errors
/// What the system says; `NotADirectory` for anything else, a link among them.
pub fn open_directory(path: &Path) -> io::Result<Arc<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !path.is_absolute() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut here = rustix::fs::open("/", flags, Mode::empty())?;
    for part in path.components() {
        match part {
            Component::Normal(name) => {
                here = rustix::fs::openat(&here, name, flags, Mode::empty())?;
            }
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(Arc::new(here))
}

struct Walk<'a> {
    start: &'a Arc<OwnedFd>,
    /// Directories entered below `start`, with the name each has in the one before.
    stack: Vec<(Arc<OwnedFd>, OsString, Metadata)>,
    /// Names still to walk, the next one last.
    rest: Vec<OsString>,
    /// A trailing slash, or `.` or `..` at the end, was seen: only a directory will do.
    must_be_directory: bool,
}

impl Walk<'_> {
    fn here(&self) -> Arc<OwnedFd> {
        self.stack
            .last()
            .map_or_else(|| self.start.clone(), |(handle, ..)| handle.clone())
    }

    fn push_path(&mut self, path: &OsStr) -> Result<(), WalkError> {
        let bytes = path.as_bytes();
        if bytes.len() > MAX_PATH {
            return Err(WalkError::TooLong);
        }
        if bytes.contains(&0) {
            return Err(WalkError::Invalid);
        }
        let mut names: Vec<&[u8]> = bytes.split(|byte| *byte == b'/').collect();
        // What stands at the very end decides whether a directory is asked for; links in the middle cannot change that.
        if self.rest.is_empty() && matches!(names.last(), Some(&b"" | &b"." | &b"..")) {
            self.must_be_directory = true;
        }
        names.retain(|name| !name.is_empty() && *name != b".");
        if self.rest.len() + names.len() > MAX_DEPTH {
            return Err(WalkError::TooLong);
        }
        self.rest.extend(
            names
                .into_iter()
                .rev()
                .map(|name| OsStr::from_bytes(name).to_owned()),
        );
        Ok(())
    }

    fn follow(&mut self, target: OsString, absolute: AbsoluteLinks<'_>) -> Result<(), WalkError> {
        let path = Path::new(&target);
        if !path.is_absolute() {
            return self.push_path(&target);
        }
        let AbsoluteLinks::Rebase(homes) = absolute else {
            return Err(WalkError::LeadsOut);
        };
        // `..` in the target is not resolved for the comparison: it is walked afterwards, and cannot leave the start.
        let below = homes
            .iter()
            .find_map(|home| path.strip_prefix(home).ok())
            .ok_or(WalkError::LeadsOut)?;
        self.stack.clear();
        // The comparison above drops a trailing slash, which would have asked for a directory.
        self.must_be_directory |= self.rest.is_empty() && target.as_bytes().ends_with(b"/");
        self.push_path(below.as_os_str())
    }

    fn end_at_directory(mut self) -> Result<Place, WalkError> {
        match self.stack.pop() {
            Some((handle, name, metadata)) => Ok(Place {
                parent: self.here(),
                name: Some(name),
                node: Node::Directory(handle, metadata),
                wants_directory: self.must_be_directory,
            }),
            None => {
                let metadata = File::from(self.start.try_clone()?).metadata()?;
                Ok(Place {
                    parent: self.start.clone(),
                    name: None,
                    node: Node::Directory(self.start.clone(), metadata),
                    wants_directory: self.must_be_directory,
                })
            }
        }
    }
}
