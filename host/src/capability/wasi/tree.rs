//! What plugins do in a granted directory, in the host's file system: open, create, remove, rename, look.
//!
//! It refuses to open anything but regular files and directories, to rename symbolic links (a relative one would lead elsewhere), to
//! tell where an absolute link leads, and every name but the granted one under a grant of a single file.
//!
//! All functions block, and none looks a path up twice: each walks once (see `beneath`) and acts on what the walk has found.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, Timestamps};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode, MetadataHashValue,
};

use super::descriptor::Node;
use super::errors::FileError;
use super::mount::{Mount, OnlyFile};
use super::quota::CountedFile;
use crate::capability::beneath::{self, AbsoluteLinks, LastLink, Place, open_found, walk};

/// Tries to open or create a name that others remove and create at the same time.
const OPEN_ATTEMPTS: usize = 8;
/// Why other names are refused under a grant of one file, and changing its name too.
const ONE_FILE: &str = "the slot grants one file by its name";
/// Directory entries read at a time; it bounds the memory of listing a huge directory.
const ENTRIES_AT_A_TIME: usize = 256;

/// A directory that paths start from.
#[derive(Debug)]
pub(super) struct Start {
    handle: Arc<OwnedFd>,
    only: Option<OnlyFile>,
}

/// What a plugin asks for when it opens a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenRequest {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) create: bool,
    pub(super) exclusive: bool,
    pub(super) truncate: bool,
    pub(super) directory: bool,
    pub(super) follow: bool,
}

impl OpenRequest {
    /// Whether granting it takes the right to write.
    pub(super) fn changes(&self) -> bool {
        self.write || self.create || self.truncate
    }
}

impl Start {
    /// The directory of a descriptor.
    pub(super) fn of(mount: &Mount, node: &Node) -> Result<Self, FileError> {
        match node {
            Node::Root => {
                let root = mount.root()?;
                Ok(Self {
                    handle: root.handle,
                    only: root.only,
                })
            }
            Node::Directory(directory) => Ok(Self {
                handle: directory.handle.clone(),
                only: None,
            }),
            Node::File(_) => Err(FileError::Refused(ErrorCode::NotDirectory)),
        }
    }

    fn find(&self, path: &str, follow: bool) -> Result<Place, FileError> {
        let last = if follow {
            LastLink::Follow
        } else {
            LastLink::Keep
        };
        let Some(only) = &self.only else {
            return Ok(walk(
                &self.handle,
                OsStr::new(path),
                last,
                AbsoluteLinks::Refuse,
            )?);
        };
        if let Some(real) = only.real_name(OsStr::new(path)) {
            // The operator's link was followed when the mount found its directory; another one is not.
            return Ok(walk(
                &self.handle,
                real,
                LastLink::Keep,
                AbsoluteLinks::Refuse,
            )?);
        }
        if path.split('/').all(|part| part.is_empty() || part == ".")
            && !path.is_empty()
            && !path.starts_with('/')
        {
            return Ok(walk(
                &self.handle,
                OsStr::new("."),
                last,
                AbsoluteLinks::Refuse,
            )?);
        }
        Err(FileError::Forbidden(ONE_FILE))
    }

    /// A place whose name the plugin wants to add, change or remove.
    fn find_name(&self, path: &str) -> Result<(Place, OsString), FileError> {
        if self.only.is_some() {
            return Err(FileError::Forbidden(ONE_FILE));
        }
        let mut place = self.find(path, false)?;
        match place.name.take() {
            Some(name) => Ok((place, name)),
            None => Err(FileError::Refused(ErrorCode::Busy)),
        }
    }

    fn is_single_file(&self) -> bool {
        self.only.is_some()
    }
}

/// What opening a path has opened.
#[derive(Debug)]
pub(super) enum Opened {
    /// The mount's own directory.
    Root,
    /// A directory below it.
    Directory(Arc<OwnedFd>),
    /// A regular file.
    File(CountedFile),
}

/// Opens a path.
pub(super) fn open(
    mount: &Mount,
    from: &Node,
    path: &str,
    ask: OpenRequest,
) -> Result<Opened, FileError> {
    let start = Start::of(mount, from)?;
    for _ in 0..OPEN_ATTEMPTS {
        // Creating exclusively never follows a link: a dangling one would place the file where it points.
        let place = start.find(path, ask.follow && !ask.exclusive)?;
        match open_place(mount, &start, place, ask) {
            // Somebody else was faster; look again.
            Err(FileError::Io(error))
                if error.kind() == io::ErrorKind::AlreadyExists && !ask.exclusive => {}
            result => return result,
        }
    }
    Err(FileError::Refused(ErrorCode::Busy))
}

fn open_place(
    mount: &Mount,
    start: &Start,
    place: Place,
    ask: OpenRequest,
) -> Result<Opened, FileError> {
    let refused = |code| Err(FileError::Refused(code));
    match place.node {
        beneath::Node::Missing if !ask.create => refused(ErrorCode::NoEntry),
        beneath::Node::Missing if place.wants_directory => refused(ErrorCode::IsDirectory),
        beneath::Node::Missing => {
            let name = place.name.unwrap_or_default();
            Ok(Opened::File(mount.quota().create(&*place.parent, &name)?))
        }
        _ if ask.create && ask.exclusive => refused(ErrorCode::Exist),
        beneath::Node::Directory(..) if ask.changes() => refused(ErrorCode::IsDirectory),
        // Only the mount itself knows which of its names may be seen.
        beneath::Node::Directory(..) if start.is_single_file() => Ok(Opened::Root),
        beneath::Node::Directory(handle, _) => Ok(Opened::Directory(handle)),
        _ if ask.directory => refused(ErrorCode::NotDirectory),
        beneath::Node::File(handle, _) => {
            let flags = match (ask.write || ask.truncate, ask.read) {
                (true, true) => OFlags::RDWR,
                (true, false) => OFlags::WRONLY,
                (false, _) => OFlags::RDONLY,
            };
            let file = mount.quota().open(|| open_found(&handle, flags))?;
            if ask.truncate {
                mount.quota().set_length(&file, 0)?;
            }
            Ok(Opened::File(file))
        }
        beneath::Node::Link(..) => refused(ErrorCode::Loop),
        beneath::Node::Special(_) => Err(FileError::Forbidden(
            "only regular files and directories are opened",
        )),
    }
}

/// Describes what a path names.
pub(super) fn stat(start: &Start, path: &str, follow: bool) -> Result<Metadata, FileError> {
    match start.find(path, follow)?.node {
        beneath::Node::Missing => Err(FileError::Refused(ErrorCode::NoEntry)),
        beneath::Node::Directory(_, metadata)
        | beneath::Node::File(_, metadata)
        | beneath::Node::Link(_, metadata)
        | beneath::Node::Special(metadata) => Ok(metadata),
    }
}

/// Describes an open file or directory.
pub(super) fn stat_node(mount: &Mount, node: &Node) -> Result<Metadata, FileError> {
    match node {
        Node::File(open) => Ok(open.file.metadata()?),
        Node::Root | Node::Directory(_) => stat(&Start::of(mount, node)?, ".", false),
    }
}

/// Where a symbolic link leads, if it says so relative to its directory.
pub(super) fn read_link(start: &Start, path: &str) -> Result<String, FileError> {
    let beneath::Node::Link(handle, _) = start.find(path, false)?.node else {
        return Err(FileError::Refused(ErrorCode::Invalid));
    };
    let target = rustix::fs::readlinkat(&handle, "", Vec::new()).map_err(io::Error::from)?;
    if target.as_bytes().starts_with(b"/") {
        return Err(FileError::Forbidden(
            "an absolute link tells where things lie outside of the granted directory",
        ));
    }
    target
        .into_string()
        .map_err(|_| FileError::Refused(ErrorCode::IllegalByteSequence))
}

/// Creates a directory.
pub(super) fn create_directory(mount: &Mount, start: &Start, path: &str) -> Result<(), FileError> {
    let (place, name) = start.find_name(path)?;
    Ok(mount.quota().create_directory(&*place.parent, &name)?)
}

/// Removes a file, a symbolic link or a special file.
pub(super) fn remove_file(mount: &Mount, start: &Start, path: &str) -> Result<(), FileError> {
    let (place, name) = start.find_name(path)?;
    match place.node {
        beneath::Node::Directory(..) => Err(FileError::Refused(ErrorCode::IsDirectory)),
        _ if place.wants_directory => Err(FileError::Refused(ErrorCode::NotDirectory)),
        _ => Ok(mount.quota().remove_file(&*place.parent, &name)?),
    }
}

/// Removes an empty directory.
pub(super) fn remove_directory(mount: &Mount, start: &Start, path: &str) -> Result<(), FileError> {
    let (place, name) = start.find_name(path)?;
    Ok(mount.quota().remove_directory(&*place.parent, &name)?)
}

/// Renames within one mount.
pub(super) fn rename(
    mount: &Mount,
    from: &Start,
    old: &str,
    to: &Start,
    new: &str,
) -> Result<(), FileError> {
    let (source, old) = from.find_name(old)?;
    match source.node {
        beneath::Node::Missing => return Err(FileError::Refused(ErrorCode::NoEntry)),
        beneath::Node::Link(..) => {
            return Err(FileError::Forbidden("a link that is moved leads elsewhere"));
        }
        _ => {}
    }
    let (target, new) = to.find_name(new)?;
    if target.wants_directory && !matches!(source.node, beneath::Node::Directory(..)) {
        return Err(FileError::Refused(ErrorCode::NotDirectory));
    }
    Ok(mount
        .quota()
        .rename(&*source.parent, &old, &*target.parent, &new)?)
}

/// Sets the times of what a path names.
pub(super) fn set_times(
    start: &Start,
    path: &str,
    follow: bool,
    times: &Timestamps,
) -> Result<(), FileError> {
    let place = start.find(path, follow)?;
    if matches!(place.node, beneath::Node::Missing) {
        return Err(FileError::Refused(ErrorCode::NoEntry));
    }
    let name = place.name.as_deref().unwrap_or(OsStr::new("."));
    // The walk has followed what there was to follow: a link put there since is not.
    rustix::fs::utimensat(&*place.parent, name, times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(io::Error::from)?;
    Ok(())
}

/// Makes a directory's entries durable.
pub(super) fn sync_directory(start: &Start) -> Result<(), FileError> {
    Ok(reopen(&start.handle)?.sync_all()?)
}

/// A directory being listed, a few entries at a time.
pub(super) enum Listing {
    Directory {
        directory: rustix::fs::Dir,
        read: VecDeque<DirectoryEntry>,
    },
    /// The entry of a single-file grant.
    Only(Option<DirectoryEntry>),
}

/// Begins to list a directory.
pub(super) fn list(start: &Start) -> Result<Listing, FileError> {
    if let Some(only) = &start.only {
        let shown = only.shown.to_string_lossy().into_owned();
        let entry = match stat(start, &shown, false) {
            Ok(metadata) => Some(DirectoryEntry {
                type_: kind(&metadata),
                name: shown,
            }),
            Err(error) if error.code() == ErrorCode::NoEntry => None,
            Err(error) => return Err(error),
        };
        return Ok(Listing::Only(entry));
    }
    let directory = rustix::fs::Dir::new(reopen(&start.handle)?).map_err(io::Error::from)?;
    Ok(Listing::Directory {
        directory,
        read: VecDeque::new(),
    })
}

impl Listing {
    /// An entry that is already read; none means that more must be read.
    pub(super) fn at_hand(&mut self) -> Option<DirectoryEntry> {
        match self {
            Self::Directory { read, .. } => read.pop_front(),
            Self::Only(entry) => entry.take(),
        }
    }

    /// Reads more entries and answers the first of them; none at the end.
    pub(super) fn read_on(&mut self) -> Result<Option<DirectoryEntry>, FileError> {
        let Self::Directory { directory, read } = self else {
            return Ok(None);
        };
        while read.len() < ENTRIES_AT_A_TIME {
            let Some(entry) = directory.read() else { break };
            let entry = entry.map_err(io::Error::from)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let type_ = match entry.file_type() {
                rustix::fs::FileType::Unknown => {
                    let fd = directory.fd().map_err(io::Error::from)?;
                    match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => kind_of(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
                        // Gone since.
                        Err(_) => continue,
                    }
                }
                known => kind_of(known),
            };
            // A name that is not UTF-8 cannot be said to a plugin, which could not open it either.
            if let Ok(name) = name.to_str() {
                read.push_back(DirectoryEntry {
                    type_,
                    name: name.to_owned(),
                });
            }
        }
        Ok(read.pop_front())
    }
}

/// Metadata in a plugin's words. Times before 1970 are left out.
pub(super) fn describe(metadata: &Metadata) -> DescriptorStat {
    let time = |seconds: i64, nanoseconds: i64| {
        Some(Datetime {
            seconds: u64::try_from(seconds).ok()?,
            nanoseconds: u32::try_from(nanoseconds).ok()?,
        })
    };
    DescriptorStat {
        type_: kind(metadata),
        link_count: metadata.nlink(),
        size: metadata.len(),
        data_access_timestamp: time(metadata.atime(), metadata.atime_nsec()),
        data_modification_timestamp: time(metadata.mtime(), metadata.mtime_nsec()),
        status_change_timestamp: time(metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// A number that is the same for the same file.
pub(super) fn identity(metadata: &Metadata) -> MetadataHashValue {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, metadata.dev(), metadata.ino()).hash(&mut hasher);
        hasher.finish()
    };
    MetadataHashValue {
        lower: half(0),
        upper: half(1),
    }
}

/// What a file is, in a plugin's words.
pub(super) fn kind(metadata: &Metadata) -> DescriptorType {
    kind_of(rustix::fs::FileType::from_raw_mode(metadata.mode()))
}

fn kind_of(kind: rustix::fs::FileType) -> DescriptorType {
    match kind {
        rustix::fs::FileType::RegularFile => DescriptorType::RegularFile,
        rustix::fs::FileType::Directory => DescriptorType::Directory,
        rustix::fs::FileType::Symlink => DescriptorType::SymbolicLink,
        rustix::fs::FileType::Fifo => DescriptorType::Fifo,
        rustix::fs::FileType::Socket => DescriptorType::Socket,
        rustix::fs::FileType::CharacterDevice => DescriptorType::CharacterDevice,
        rustix::fs::FileType::BlockDevice => DescriptorType::BlockDevice,
        _ => DescriptorType::Unknown,
    }
}

/// A bare handle of a directory made fit for reading it.
fn reopen(directory: &OwnedFd) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(
        directory,
        ".",
        flags,
        Mode::empty(),
    )?))
}
