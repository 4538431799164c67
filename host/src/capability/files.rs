//! Files that the host sends for plugins: the plugin names slot and path, the host opens, checks and moves the bytes.
//!
//! It refuses what leads out of the granted directory, directories, and whatever is not a regular file; none of these is ever
//! opened. Symbolic links are followed as long as they stay below the directory, also absolute ones that point back into it.
//!
//! The one idea: everything is decided on the open file itself, so the length, the time and the bytes belong together even while
//! another program replaces the file.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{Response, StatusCode};
use rustix::fs::OFlags;

use super::beneath::{AbsoluteLinks, LastLink, Node, WalkError, open_found, walk};
use super::downloads::part::PREFIX as UNFINISHED;
use super::wasi::access::PluginAccess;
use super::wasi::mount::Mount;
use super::wasi::quota::CountedFile;
use crate::grant::{Action, Decision};
use crate::sandbox::bindings::types::FileAnswer;

mod body;
mod range;

use body::FileBody;
use range::{Asked, Range};

/// For media types that nobody knows.
const UNKNOWN_MEDIA_TYPE: &str = "application/octet-stream";

/// The extension of boot loaders' menus, which has no media type in the contract; elsewhere it counts as text.
const BOOT_CONFIGURATION: &str = "cfg";

/// Why a file is not sent. The text is what the client gets.
#[derive(Debug, thiserror::Error)]
pub enum FileRefusal {
    /// Nothing is there, or it is a link to nothing.
    #[error("Not found")]
    NotFound,
    /// The path is empty or leads out of the granted directory.
    #[error("Invalid or empty path")]
    LeadsOut,
    /// It is a directory.
    #[error("Directory listing not allowed")]
    Directory,
    /// It is a device, a FIFO or a socket.
    #[error("Not a regular file")]
    NotRegular,
    /// The policy does not grant the slot. Audited.
    #[error("Not allowed")]
    Denied,
    /// The system cannot open it; the reason is for the log.
    #[error("The file cannot be read")]
    Failed(#[source] io::Error),
}

impl FileRefusal {
    /// The status that goes with the text.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::LeadsOut | Self::Directory | Self::Denied => StatusCode::FORBIDDEN,
            Self::NotRegular => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<WalkError> for FileRefusal {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::LeadsOut | WalkError::Invalid => Self::LeadsOut,
            WalkError::NotFound
            | WalkError::NotDirectory
            | WalkError::Loop
            | WalkError::TooLong => Self::NotFound,
            WalkError::Io(error) => error.into(),
        }
    }
}

impl From<io::Error> for FileRefusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            _ => Self::Failed(error),
        }
    }
}

/// A file that is going to be sent.
pub struct OpenedFile {
    file: Arc<CountedFile>,
    length: u64,
    changed: SystemTime,
    media_type: HeaderValue,
    right: StreamRight,
}

impl OpenedFile {
    /// Bytes it had when it was opened.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// At most `size` bytes from `offset`, fewer at the end of the file. `None`: the policy no longer grants it.
    ///
    /// # Errors
    /// What the system says.
    pub async fn read_at(&self, offset: u64, size: u64) -> io::Result<Option<Bytes>> {
        if !self.right.holds() {
            return Ok(None);
        }
        let file = self.file.clone();
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let read = self.right.access.blocking().run(move || {
            use std::os::unix::fs::FileExt as _;
            let mut bytes = vec![0; size];
            let mut filled = 0;
            while let Some(rest) = bytes.get_mut(filled..).filter(|it| !it.is_empty()) {
                match file.read_at(rest, offset + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            bytes.truncate(filled);
            Ok(Bytes::from(bytes))
        });
        read.await?.map(Some)
    }
}

/// What a body that is being sent lives by.
#[derive(Clone)]
struct StreamRight {
    access: Arc<PluginAccess>,
    slot: String,
    path: String,
}

impl StreamRight {
    /// Whether the policy still grants what is being sent.
    fn holds(&self) -> bool {
        self.access.guard().still_allows(&Action::FileOpen {
            slot: &self.slot,
            path: &self.path,
            write: false,
        })
    }
}

/// Answers a request with a file.
///
/// # Errors
/// Each variant of [`FileRefusal`] says when.
pub async fn answer(
    access: &Arc<PluginAccess>,
    answer: FileAnswer,
    headers: &HeaderMap,
    head_only: bool,
) -> Result<Response<Body>, FileRefusal> {
    let mut opened = open_granted(access, &answer.slot, &answer.path).await?;
    if let Some(said) = answer
        .media_type
        .and_then(|said| HeaderValue::from_str(&said).ok())
    {
        opened.media_type = said;
    }
    Ok(respond(opened, headers, head_only))
}

/// Opens a file below a granted slot.
///
/// # Errors
/// Each variant of [`FileRefusal`] says when.
pub async fn open_granted(
    access: &Arc<PluginAccess>,
    slot: &str,
    path: &str,
) -> Result<OpenedFile, FileRefusal> {
    let action = Action::FileOpen {
        slot,
        path,
        write: false,
    };
    if let Decision::Deny(_) = access.guard().decide(&action) {
        return Err(FileRefusal::Denied);
    }
    let last = path.rsplit('/').next().unwrap_or_default();
    if last.starts_with(UNFINISHED) {
        // Half a file is no file yet.
        return Err(FileRefusal::NotFound);
    }
    let mount = access.mount(slot).ok_or(FileRefusal::Denied)?;
    let name = path.to_owned();
    let opened = access
        .blocking()
        .run(move || open(&mount, &name))
        .await
        .map_err(FileRefusal::Failed)?;
    if matches!(opened, Err(FileRefusal::LeadsOut)) && !path.is_empty() {
        access.note_refusal(&action, "the path leads out of the granted directory");
    }
    let (file, length, changed) = opened?;
    let right = StreamRight {
        access: access.clone(),
        slot: slot.to_owned(),
        path: path.to_owned(),
    };
    Ok(OpenedFile {
        file: Arc::new(file),
        length,
        changed,
        media_type: media_type(path),
        right,
    })
}

/// Blocks.
fn open(mount: &Mount, path: &str) -> Result<(CountedFile, u64, SystemTime), FileRefusal> {
    let root = mount.root()?;
    let place = match &root.only {
        Some(only) => {
            let real = only
                .real_name(OsStr::new(path))
                .ok_or(FileRefusal::LeadsOut)?;
            walk(&root.handle, real, LastLink::Keep, AbsoluteLinks::Refuse)?
        }
        None => match walk(
            &root.handle,
            OsStr::new(path),
            LastLink::Follow,
            AbsoluteLinks::Refuse,
        ) {
            // Perhaps only because of an absolute link that points back: the rare case pays for finding that out.
            Err(WalkError::LeadsOut) => {
                let homes = mount.homes();
                let homes: Vec<&Path> = homes.iter().map(AsRef::as_ref).collect();
                walk(
                    &root.handle,
                    OsStr::new(path),
                    LastLink::Follow,
                    AbsoluteLinks::Rebase(&homes),
                )?
            }
            place => place?,
        },
    };
    let handle = match place.node {
        Node::Missing => return Err(FileRefusal::NotFound),
        // The granted directory itself is no path below it.
        Node::Directory(..) if place.name.is_none() => return Err(FileRefusal::LeadsOut),
        Node::Directory(..) => return Err(FileRefusal::Directory),
        Node::Special(_) | Node::Link(..) => return Err(FileRefusal::NotRegular),
        Node::File(handle, _) => handle,
    };
    let file = mount.quota().open(|| open_found(&handle, OFlags::RDONLY))?;
    let metadata = file.metadata()?;
    Ok((
        file,
        metadata.len(),
        metadata.modified().unwrap_or(UNIX_EPOCH),
    ))
}

/// Makes the answer: 200, 206, 304, 412 or 416 (RFC 9110 sections 13 and 14), with a body unless only the head is wanted.
pub fn respond(opened: OpenedFile, headers: &HeaderMap, head_only: bool) -> Response<Body> {
    // Times in headers know whole seconds.
    let changed = whole_seconds(opened.changed);
    let mut response = Response::new(Body::empty());
    let out = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(changed)) {
        out.insert(LAST_MODIFIED, value);
    }
    out.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if date(headers, IF_UNMODIFIED_SINCE).is_some_and(|since| changed > since) {
        *response.status_mut() = StatusCode::PRECONDITION_FAILED;
        return response;
    }
    if !headers.contains_key(IF_NONE_MATCH)
        && date(headers, IF_MODIFIED_SINCE).is_some_and(|since| changed <= since)
    {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    // A range is asked of GET only, and only of the file the client has a part of already.
    let same_file = !headers.contains_key(IF_RANGE) || date(headers, IF_RANGE) == Some(changed);
    let asked = match headers.get(RANGE) {
        Some(range) if !head_only && same_file => range::parse(range, opened.length),
        _ => Asked::Whole,
    };
    let part = match asked {
        Asked::Whole => Range {
            first: 0,
            length: opened.length,
        },
        Asked::Part(part) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            insert(
                &mut response,
                CONTENT_RANGE,
                &part.content_range(opened.length),
            );
            part
        }
        Asked::Unsatisfiable => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            insert(
                &mut response,
                CONTENT_RANGE,
                &format!("bytes */{}", opened.length),
            );
            return response;
        }
    };
    response
        .headers_mut()
        .insert(CONTENT_TYPE, opened.media_type.clone());
    insert(&mut response, CONTENT_LENGTH, &part.length.to_string());
    if !head_only {
        *response.body_mut() = Body::new(FileBody::new(opened, part));
    }
    response
}

fn insert(response: &mut Response<Body>, name: HeaderName, value: &str) {
    // Digits and fixed words are always a header value.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// By the extension; text is said to be UTF-8.
fn media_type(path: &str) -> HeaderValue {
    let own = Path::new(path)
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case(BOOT_CONFIGURATION));
    let Some(guess) = mime_guess::from_path(path).first_raw().filter(|_| !own) else {
        return HeaderValue::from_static(UNKNOWN_MEDIA_TYPE);
    };
    if guess.starts_with("text/") {
        return HeaderValue::from_str(&format!("{guess};charset=utf-8"))
            .unwrap_or(HeaderValue::from_static(UNKNOWN_MEDIA_TYPE));
    }
    HeaderValue::from_static(guess)
}

#[cfg(test)]
mod tests;
