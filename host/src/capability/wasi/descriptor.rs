//! What a plugin's file handle stands for, and the right it lives by.
//!
//! The one idea: a handle remembers the policy's generation under which it was allowed. While that is the current one, using the
//! handle costs one comparison. After a change of policy the first use asks again; a handle whose right is gone stays useless.

use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

use super::access::{PluginAccess, Taken};
use super::mount::Mount;
use super::quota::CountedFile;
use crate::grant::Action;

/// The longest path of a handle, in bytes, counted from the slot's directory. It bounds what a plugin can make the host remember.
const MAX_HANDLE_PATH: usize = 4096;

/// An open file or directory of one instance.
#[derive(Debug, Clone)]
pub(super) struct Descriptor {
    pub(super) node: Node,
    pub(super) right: Arc<Right>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    /// The mount's own directory, looked up anew at each use.
    Root,
    /// A directory below it.
    Directory(OpenDirectory),
    File(OpenFile),
}

#[derive(Debug, Clone)]
pub(super) struct OpenDirectory {
    pub(super) handle: Arc<OwnedFd>,
    /// Its place among the plugin's open files.
    pub(super) _place: Arc<Taken>,
}

#[derive(Debug, Clone)]
pub(super) struct OpenFile {
    pub(super) file: Arc<PlacedFile>,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// An open file with its place among the plugin's open files.
#[derive(Debug)]
pub(super) struct PlacedFile {
    pub(super) file: CountedFile,
    pub(super) _place: Taken,
}

/// A handle's right: which slot, which path, reading or writing.
#[derive(Debug)]
pub(super) struct Right {
    access: Arc<PluginAccess>,
    mount: Arc<Mount>,
    /// Below the slot's directory, as the plugin spelled it.
    path: PathBuf,
    write: bool,
    seen: AtomicU64,
}

impl Right {
    pub(super) fn root(access: Arc<PluginAccess>, mount: Arc<Mount>) -> Self {
        Self {
            access,
            mount,
            path: PathBuf::new(),
            write: false,
            seen: AtomicU64::new(0),
        }
    }

    pub(super) fn mount(&self) -> &Arc<Mount> {
        &self.mount
    }

    pub(super) fn access(&self) -> &Arc<PluginAccess> {
        &self.access
    }

    /// The right to `path` below this handle, asked now.
    ///
    /// # Errors
    /// Denied, or a path too long to remember.
    pub(super) fn below(&self, path: &str, write: bool) -> Result<Self, ErrorCode> {
        let path = self.path.join(Path::new(path));
        if path.as_os_str().len() > MAX_HANDLE_PATH {
            return Err(ErrorCode::NameTooLong);
        }
        // Read before asking: a change in between makes the next use ask again.
        let generation = self.access.generation();
        let right = Self {
            access: self.access.clone(),
            mount: self.mount.clone(),
            path,
            write,
            seen: AtomicU64::new(generation),
        };
        right.ask()?;
        Ok(right)
    }

    /// Whether the handle may still be used.
    ///
    /// # Errors
    /// Denied since the policy changed.
    pub(super) fn check(&self) -> Result<(), ErrorCode> {
        let generation = self.access.generation();
        if self.seen.load(Ordering::Relaxed) == generation {
            return Ok(());
        }
        self.ask()?;
        self.seen.store(generation, Ordering::Relaxed);
        Ok(())
    }

    fn ask(&self) -> Result<(), ErrorCode> {
        // The slot may have been bound to another place: then this handle leads to one that is no longer granted.
        if !self
            .access
            .mounts()
            .iter()
            .any(|mount| Arc::ptr_eq(mount, &self.mount))
        {
            self.note_refusal(
                "the policy grants the slot another place, or none, since it was opened",
            );
            return Err(ErrorCode::NotPermitted);
        }
        let path = self.path.to_string_lossy();
        let action = Action::FileOpen {
            slot: self.mount.slot(),
            path: &path,
            write: self.write,
        };
        if self.access.guard().decide(&action).is_allowed() {
            Ok(())
        } else {
            Err(ErrorCode::NotPermitted)
        }
    }

    /// Audits what the host's own rules refused.
    pub(super) fn note_refusal(&self, reason: &str) {
        let path = self.path.to_string_lossy();
        let action = Action::FileOpen {
            slot: self.mount.slot(),
            path: &path,
            write: self.write,
        };
        self.access.note_refusal(&action, reason);
    }

    /// Refuses to make a link, and audits it.
    pub(super) fn refuse_link(&self, path: &str) -> ErrorCode {
        let path = self.path.join(Path::new(path));
        let action = Action::FileLink {
            slot: self.mount.slot(),
            path: &path.to_string_lossy(),
        };
        // There is no policy under which the answer is yes.
        let _ = self.access.guard().decide(&action);
        ErrorCode::NotPermitted
    }
}

impl Descriptor {
    pub(super) fn file(&self) -> Result<&OpenFile, ErrorCode> {
        match &self.node {
            Node::File(file) => Ok(file),
            Node::Root | Node::Directory(_) => Err(ErrorCode::BadDescriptor),
        }
    }
}

impl OpenFile {
    pub(super) fn for_reading(&self) -> Result<&Arc<PlacedFile>, ErrorCode> {
        if self.readable {
            Ok(&self.file)
        } else {
            Err(ErrorCode::BadDescriptor)
        }
    }

    pub(super) fn for_writing(&self) -> Result<&Arc<PlacedFile>, ErrorCode> {
        if self.writable {
            Ok(&self.file)
        } else {
            Err(ErrorCode::BadDescriptor)
        }
    }
}

impl Deref for PlacedFile {
    type Target = CountedFile;

    fn deref(&self) -> &CountedFile {
        &self.file
    }
}
