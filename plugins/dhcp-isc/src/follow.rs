//! The files of dhcpd, followed: what was appended is read, what was replaced is read anew.
//!
//! The one idea: every call looks first whether the leases file has changed. That costs one look at the file, and what dhcpd has
//! written is seen by the very next call, whenever the host tells of the change. dhcpd only appends, so what stood last must still
//! stand there; where it does not, somebody copied another file over this one, and that is read anew as well.
//!
//! A configuration that cannot be read while dhcpd runs leaves the last good one in place (dhcpd itself reads it at its start only);
//! at the start, and after dhcpd has written its leases file anew, it is an error until it is mended.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bulkhead_sdk::log;
use bulkhead_sdk::watch::{self, File, LARGEST_READ};

use crate::config::{self, Configuration};
use crate::error::Problem;
use crate::index::Index;
use crate::journal::Journal;

/// The slot of `dhcpd.conf`.
pub const CONFIG_SLOT: &str = "config";

/// The slot of the files that it includes.
pub const INCLUDES_SLOT: &str = "includes";

/// The slot of the leases file.
pub const LEASES_SLOT: &str = "leases";

/// Bytes of one configuration file: beyond it is no configuration.
const LONGEST_CONFIG: u64 = 64 << 20;

/// How often the leases file may be replaced while it is read, before that is an error.
const REPLACED: usize = 5;

/// Bytes that are compared to see that a file was appended to: a record's end, with its times and MAC address.
const TAIL: usize = 256;

/// The followed files and the index made of them.
#[derive(Default)]
pub struct Followed {
    loaded: Option<Loaded>,
    /// What the configuration files were when they were last read, whether that went well or not.
    seen: Vec<(String, Option<Stamp>)>,
}

type Stamp = (u64, u64, u64);

struct Loaded {
    index: Index,
    journal: Journal,
    /// The leases file that was read, and how far.
    identity: u64,
    read: u64,
    /// The last bytes that were read.
    tail: Vec<u8>,
    /// When the file was changed, as far as it was read.
    modified: u64,
}

impl Followed {
    /// The index as the files are now.
    ///
    /// # Errors
    /// A file cannot be read, or the configuration is none.
    pub fn now(&mut self, config: &str, leases: &str) -> Result<&mut Index, Problem> {
        let file = watch::about(LEASES_SLOT, leases)
            .map_err(|why| unreadable(LEASES_SLOT, leases, &why))?;
        let caught_up = match &mut self.loaded {
            Some(loaded) => loaded.catch_up(leases, &file)?,
            None => false,
        };
        if !caught_up {
            self.loaded = None;
            let configuration = self.configuration(config)?;
            self.load(configuration, leases)?;
        }
        let loaded = self.loaded.as_mut().ok_or_else(|| Problem::File {
            path: leases.to_owned(),
            why: "it was not read".to_owned(),
        })?;
        Ok(&mut loaded.index)
    }

    /// Reads the configuration again if one of its files changed.
    ///
    /// # Errors
    /// It cannot be read now; the last good one is still in place.
    pub fn config_changed(&mut self, config: &str, leases: &str) -> Result<(), Problem> {
        let unchanged = !self.seen.is_empty()
            && self
                .seen
                .iter()
                .all(|(path, stamp)| *stamp == stamp_of(slot_of(path, config), path));
        if unchanged || self.loaded.is_none() {
            return Ok(());
        }
        let configuration = self.configuration(config)?;
        self.load(configuration, leases)
    }

    fn configuration(&mut self, config: &str) -> Result<Configuration, Problem> {
        self.seen.clear();
        let seen = &mut self.seen;
        config::read(config, &mut |path| {
            let slot = slot_of(path, config);
            seen.push((path.to_owned(), stamp_of(slot, path)));
            whole(slot, path)
        })
    }

    fn load(&mut self, configuration: Configuration, path: &str) -> Result<(), Problem> {
        let begun = Instant::now();
        let mut index = Index::new(configuration.clone());
        for _ in 0..REPLACED {
            let file = watch::about(LEASES_SLOT, path)
                .map_err(|why| unreadable(LEASES_SLOT, path, &why))?;
            let mut loaded = Loaded {
                index,
                journal: Journal::default(),
                identity: file.identity,
                read: 0,
                tail: Vec::new(),
                modified: 0,
            };
            if loaded.catch_up(path, &file)? {
                log::info(format!(
                    "read {path}: {} bytes in {} ms",
                    loaded.read,
                    begun.elapsed().as_millis()
                ));
                self.loaded = Some(loaded);
                return Ok(());
            }
            index = Index::new(configuration.clone());
        }
        Err(Problem::File {
            path: path.to_owned(),
            why: "it is replaced faster than it can be read".to_owned(),
        })
    }
}

impl Loaded {
    /// Reads what was appended to the file as it was looked at. False: it is another one, or no longer what it was.
    fn catch_up(&mut self, path: &str, file: &File) -> Result<bool, Problem> {
        if self.identity != file.identity || self.read > file.size {
            return Ok(false);
        }
        if self.read == file.size && self.modified == file.modified {
            return Ok(true);
        }
        let now = now();
        loop {
            let known = u64::try_from(self.tail.len()).unwrap_or(0);
            let chunk = watch::read(LEASES_SLOT, path, self.read - known, LARGEST_READ)
                .map_err(|why| unreadable(LEASES_SLOT, path, &why))?;
            let appended = chunk.bytes.strip_prefix(self.tail.as_slice());
            let Some(appended) = appended.filter(|_| chunk.file.identity == self.identity) else {
                return Ok(false);
            };
            self.read += u64::try_from(appended.len()).unwrap_or(0);
            self.journal.feed(appended, &mut self.index, now);
            let is_all = appended.is_empty() || self.read >= file.size;
            let from = chunk.bytes.len().saturating_sub(TAIL);
            self.tail = chunk.bytes.get(from..).unwrap_or_default().to_vec();
            if is_all {
                break;
            }
        }
        self.modified = file.modified;
        self.journal.settle(&mut self.index, now);
        Ok(true)
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn slot_of(path: &str, config: &str) -> &'static str {
    if path == config {
        CONFIG_SLOT
    } else {
        INCLUDES_SLOT
    }
}

fn stamp_of(slot: &str, path: &str) -> Option<Stamp> {
    let File {
        identity,
        size,
        modified,
    } = watch::about(slot, path).ok()?;
    Some((identity, size, modified))
}

fn whole(slot: &str, path: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    loop {
        let offset = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let chunk = watch::read(slot, path, offset, LARGEST_READ)
            .map_err(|why| unreadable(slot, path, &why))?;
        if chunk.bytes.is_empty() {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&chunk.bytes);
        if offset > LONGEST_CONFIG {
            return Err(Problem::File {
                path: path.to_owned(),
                why: "it is too long for a configuration".to_owned(),
            });
        }
    }
}

fn unreadable(slot: &str, path: &str, why: &watch::Error) -> Problem {
    let why = match why {
        watch::Error::Denied(_) if slot == INCLUDES_SLOT => {
            "add it to the setting `includes` of [features.dhcp-isc]".to_owned()
        }
        watch::Error::Denied(why) => format!("denied: {why}"),
        watch::Error::Absent => {
            format!("there is no such file; the setting `{slot}` of [features.dhcp-isc] names it")
        }
        watch::Error::Failed(why) => why.clone(),
    };
    Problem::File {
        path: path.to_owned(),
        why,
    }
}
