//! The `watch` capability: files of this machine that a plugin reads and follows, but never writes.
//!
//! It refuses what is not a regular file (looked at before it is opened, so that a FIFO blocks nobody), what belongs to the host even if a link
//! leads there, and paths the policy does not name. Secrets that the policy hides are blanks in what it gives.
//!
//! The one idea: nothing stays open. Each call opens the path anew and describes the file it found, so a plugin sees by the identity when another
//! file took its place. [`hide`] blanks, [`follow`] tells of changes.

pub mod follow;
mod hide;

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use rustix::fs::OFlags;

use super::beneath::{AbsoluteLinks, LastLink, Node, WalkError, open_directory, open_found, walk};
use super::wasi::access::PluginAccess;
use crate::grant::effective::{Hide, WatchPlace};
use crate::grant::policy::real_place;
use crate::grant::{Action, Deny, Guard};
use crate::sandbox::bindings::imports::watch as contract;

/// Bytes of one read; the contract's bound.
pub const LARGEST_READ: u32 = 1 << 20;
/// A file with hidden secrets is read whole, since what is a secret depends on what stands before it. Configurations are small.
const LARGEST_HIDDEN: u64 = 16 << 20;

/// What the file at a path is now.
pub async fn about(
    access: &PluginAccess,
    slot: &str,
    path: &str,
) -> Result<contract::File, contract::Error> {
    let (place, _) = granted(access.guard(), slot, path)?;
    let (name, deny) = (path.to_owned(), access.guard().host().deny());
    let found = access
        .blocking()
        .run(move || open(&place, &name, &deny).map(|(_, found)| describe(&found)));
    noted(access, slot, path, found.await.map_err(failed)?)
}

/// A part of the file at a path.
pub async fn read(
    access: &PluginAccess,
    slot: &str,
    path: &str,
    offset: u64,
    limit: u32,
) -> Result<contract::Chunk, contract::Error> {
    let (place, hide) = granted(access.guard(), slot, path)?;
    let (name, deny) = (path.to_owned(), access.guard().host().deny());
    let limit = limit.min(LARGEST_READ) as usize;
    let chunk = access.blocking().run(move || {
        let (file, found) = open(&place, &name, &deny)?;
        let bytes = match hide {
            Hide::Nothing => read_part(&file, offset, limit, found.len()),
            Hide::IscKeySecrets if found.len() > LARGEST_HIDDEN => Err(io::Error::other(
                "larger than 16 MiB, so its secrets cannot be hidden",
            )),
            Hide::IscKeySecrets => read_hidden(&file, offset, limit, found.len()),
        };
        Ok(contract::Chunk {
            file: describe(&found),
            bytes: bytes.map_err(failed)?,
        })
    });
    noted(access, slot, path, chunk.await.map_err(failed)?)
}

/// What is refused only where the path is walked is a denial as well.
fn noted<T>(
    access: &PluginAccess,
    slot: &str,
    path: &str,
    outcome: Result<T, contract::Error>,
) -> Result<T, contract::Error> {
    if let Err(contract::Error::Denied(reason)) = &outcome {
        access.note_refusal(&Action::Watch { slot, path }, reason);
    }
    outcome
}

fn granted(guard: &Guard, slot: &str, path: &str) -> Result<(WatchPlace, Hide), contract::Error> {
    guard
        .decide(&Action::Watch { slot, path })
        .check()
        .map_err(|denial| contract::Error::Denied(denial.to_string()))?;
    let effective = guard.effective();
    let grant = effective
        .watch
        .get(slot)
        .ok_or_else(|| contract::Error::Denied(format!("watch {slot:?} is no longer granted")))?;
    Ok((grant.place.clone(), grant.hide))
}

fn failed(error: io::Error) -> contract::Error {
    match error.kind() {
        io::ErrorKind::NotFound => contract::Error::Absent,
        _ => contract::Error::Failed(error.to_string()),
    }
}

/// Opens for reading. Blocks.
fn open(place: &WatchPlace, path: &str, deny: &Deny) -> Result<(File, Metadata), contract::Error> {
    let file = match place {
        WatchPlace::Files(_) => open_named(Path::new(path)).map_err(failed)?,
        WatchPlace::Directory(directory) => open_below(directory, path)?,
    };
    // Where a link led in the end. What belongs to the host stays its own, whoever placed the link.
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(failed)?;
    if let Some(found) = deny.path(&real) {
        return Err(contract::Error::Denied(format!(
            "{} is {}: {}",
            path,
            real.display(),
            found.reason
        )));
    }
    let found = file.metadata().map_err(failed)?;
    Ok((file, found))
}

fn not_regular() -> io::Error {
    io::Error::other("not a regular file")
}

fn open_named(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    // Should a FIFO have come in between, this neither waits for its writer nor takes a terminal.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC).bits();
    let file = File::options()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(not_regular()),
    }
}

fn open_below(directory: &Path, path: &str) -> Result<File, contract::Error> {
    let root = open_directory(&real_place(directory)).map_err(failed)?;
    let found = walk(
        &root,
        OsStr::new(path),
        LastLink::Follow,
        AbsoluteLinks::Refuse,
    );
    match found {
        Ok(place) => match place.node {
            Node::File(handle, _) => open_found(&handle, OFlags::RDONLY).map_err(failed),
            Node::Missing => Err(contract::Error::Absent),
            Node::Directory(..) | Node::Link(..) | Node::Special(_) => Err(failed(not_regular())),
        },
        Err(WalkError::NotFound) => Err(contract::Error::Absent),
        Err(WalkError::Io(error)) => Err(failed(error)),
        Err(error @ WalkError::LeadsOut) => Err(contract::Error::Denied(error.to_string())),
        Err(error) => Err(contract::Error::Failed(error.to_string())),
    }
}

fn describe(found: &Metadata) -> contract::File {
    let since = |time: io::Result<std::time::SystemTime>| {
        let time = time.ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(time)
    };
    // An inode is used again soon after its file is gone; the time of birth, where the file system has one, tells the two apart.
    let born = since(found.created()).map_or(0, |time| {
        u64::try_from(time.as_nanos() & u128::from(u64::MAX)).unwrap_or(0)
    });
    let mix = |word: u64| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    contract::File {
        identity: mix(mix(mix(found.dev()) ^ found.ino()) ^ born),
        size: found.len(),
        modified: since(found.modified()).map_or(0, |time| {
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
        }),
    }
}

fn read_part(file: &File, offset: u64, limit: usize, size: u64) -> io::Result<Vec<u8>> {
    let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    // A file that grows meanwhile gives its new bytes to the next call.
    let mut bytes = vec![0; left.min(limit)];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn read_hidden(file: &File, offset: u64, limit: usize, size: u64) -> io::Result<Vec<u8>> {
    let mut whole = read_part(file, 0, usize::MAX, size)?;
    hide::isc_key_secrets(&mut whole);
    let from = usize::try_from(offset).map_or(whole.len(), |offset| offset.min(whole.len()));
    let to = from.saturating_add(limit).min(whole.len());
    whole.truncate(to);
    Ok(whole.split_off(from))
}

#[cfg(test)]
mod tests;
