//! Kea's lease file, for servers without `lease_cmds`: comma-separated values, one line a change, the last line of an address wins.
//!
//! Kea tidies up now and then: it renames `NAME` to `NAME.1`, begins a new `NAME`, and lets a helper make `NAME.2` of the old `NAME.2` and
//! `NAME.1`, by way of `NAME.completed`. So the leases are what these say together, in that order, as Kea itself reads them when it starts.
//!
//! The one idea: a file that only grew is read on where the last reading ended. Anything else is read anew.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bulkhead_sdk::settings;
use bulkhead_sdk::watch::{self, Error};

use crate::failure::Failure;
use crate::host::colons;
use crate::lease::Held;
use crate::prefix::Prefix;

/// The `watch` slot.
pub(crate) const SLOT: &str = "leases";

/// The setting that names the directory of the file.
pub(crate) const DIRECTORY: &str = "dhcp_kea_lease_directory";

/// What is said where leases cannot be read either way.
const UNREADABLE: &str = "leases are not readable: load Kea's hook library `lease_cmds`, or set `dhcp_kea_lease_directory`";

/// How often a file is read anew because it was replaced while it was read.
const TRIES: u32 = 5;

/// The leases of one file and its predecessors.
#[derive(Default)]
pub(crate) struct Leases {
    name: String,
    /// Identity and size of the older files, and identity of the present one.
    older: Vec<Option<(u64, u64)>>,
    present: Option<u64>,
    /// Bytes of the present file that are read, and the beginning of its last line.
    offset: u64,
    tail: Vec<u8>,
    columns: Columns,
    leases: BTreeMap<Ipv4Addr, Held>,
}

thread_local! {
    static LEASES: RefCell<Leases> = RefCell::default();
}

/// Hands the present leases to `work`.
pub(crate) fn with<T>(name: &str, work: impl FnOnce(&Leases) -> T) -> Result<T, Failure> {
    LEASES.with_borrow_mut(|leases| {
        if leases.name != name {
            *leases = Leases {
                name: name.to_owned(),
                ..Leases::default()
            };
        }
        if let Err(why) = leases.refresh() {
            *leases = Leases::default();
            return Err(why);
        }
        Ok(work(leases))
    })
}

impl Leases {
    pub(crate) fn get(&self, address: Ipv4Addr) -> Option<Held> {
        self.leases.get(&address).cloned()
    }

    /// At most `limit` of that subnet, behind that address.
    pub(crate) fn after(&self, prefix: Prefix, after: Option<Ipv4Addr>, limit: usize) -> Vec<Held> {
        self.leases
            .range(prefix.first()..=prefix.last())
            .map(|(_, lease)| lease)
            .filter(|lease| after.is_none_or(|after| lease.address > after))
            .take(limit)
            .cloned()
            .collect()
    }

    fn refresh(&mut self) -> Result<(), Failure> {
        for _ in 0..TRIES {
            let older = self.look()?;
            let present = about(&self.name)?;
            let grown = self.present.is_some()
                && self.present == present.map(|(identity, _)| identity)
                && self.older == older
                && present.is_some_and(|(_, size)| size >= self.offset);
            if !grown {
                self.begin(&older)?;
                self.present = present.map(|(identity, _)| identity);
            }
            if present.is_none() {
                // Between the renaming and the new file there is none; where there never was one, the path is wrong.
                if older.iter().all(Option::is_none) {
                    return Err(Failure::Refused(format!(
                        "there is no lease file `{}` in the directory of `dhcp_kea_lease_directory`",
                        self.name
                    )));
                }
                return Ok(());
            }
            if self.read_on()? && self.look()? == older {
                return Ok(());
            }
            self.present = None;
        }
        Err(Failure::Late("Kea replaces its lease file all the time"))
    }

    /// What there is of the older files: `NAME.completed` stands for the other two.
    fn look(&self) -> Result<Vec<Option<(u64, u64)>>, Failure> {
        ["completed", "2", "1"]
            .iter()
            .map(|end| about(&format!("{}.{end}", self.name)))
            .collect()
    }

    fn begin(&mut self, older: &[Option<(u64, u64)>]) -> Result<(), Failure> {
        self.leases.clear();
        self.older = older.to_vec();
        let completed = older.first().is_some_and(Option::is_some);
        let ends: &[&str] = if completed {
            &["completed"]
        } else {
            &["2", "1"]
        };
        for end in ends {
            let name = format!("{}.{end}", self.name);
            self.start_of_file();
            let mut identity = None;
            while let Some(read) = self.chunk(&name, &mut identity)? {
                if !read {
                    break;
                }
            }
        }
        self.start_of_file();
        Ok(())
    }

    fn start_of_file(&mut self) {
        self.offset = 0;
        self.tail.clear();
        self.columns = Columns::default();
    }

    /// Reads the present file to its end. False: it is another one now.
    fn read_on(&mut self) -> Result<bool, Failure> {
        let name = self.name.clone();
        let mut identity = self.present;
        loop {
            match self.chunk(&name, &mut identity)? {
                None => return Ok(false),
                Some(false) => return Ok(true),
                Some(true) => {}
            }
        }
    }

    /// Reads a piece. None: the file is gone or another one; false: that was the end.
    fn chunk(&mut self, name: &str, identity: &mut Option<u64>) -> Result<Option<bool>, Failure> {
        let chunk = match watch::read(SLOT, name, self.offset, watch::LARGEST_READ) {
            Ok(chunk) => chunk,
            Err(Error::Absent) => return Ok(None),
            Err(why) => return Err(failed(name, why)),
        };
        if identity.is_some_and(|known| known != chunk.file.identity)
            || chunk.file.size < self.offset
        {
            return Ok(None);
        }
        *identity = Some(chunk.file.identity);
        self.offset += chunk.bytes.len() as u64;
        let end = chunk.bytes.is_empty() || self.offset >= chunk.file.size;
        let mut bytes = std::mem::take(&mut self.tail);
        bytes.extend_from_slice(&chunk.bytes);
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |last| last + 1);
        self.tail = bytes.split_off(whole);
        for line in bytes.split(|byte| *byte == b'\n') {
            self.line(&String::from_utf8_lossy(line));
        }
        Ok(Some(!end))
    }

    fn line(&mut self, line: &str) {
        if line.starts_with("address,") {
            self.columns = Columns::of(line);
            return;
        }
        // A line that cannot be read is one that Kea skips as well.
        match self.columns.read(line) {
            Some(Change::Held(lease)) => {
                self.leases.insert(lease.address, lease);
            }
            Some(Change::Gone(address)) => {
                self.leases.remove(&address);
            }
            None => {}
        }
    }
}

fn about(name: &str) -> Result<Option<(u64, u64)>, Failure> {
    // Not asked of the host, whose denial would advise a line of the policy where a setting is missing.
    if settings::text(DIRECTORY).is_none_or(|path| path.is_empty()) {
        return Err(Failure::Unsupported(UNREADABLE.to_owned()));
    }
    match watch::about(SLOT, name) {
        Ok(file) => Ok(Some((file.identity, file.size))),
        Err(Error::Absent) => Ok(None),
        Err(why) => Err(failed(name, why)),
    }
}

fn failed(name: &str, why: Error) -> Failure {
    match why {
        Error::Denied(why) => Failure::Unsupported(format!("{UNREADABLE}: {why}")),
        Error::Absent => Failure::Refused(format!("there is no file `{name}`")),
        Error::Failed(why) => Failure::Refused(format!("`{name}` cannot be read: {why}")),
    }
}

/// What a line says.
enum Change {
    Held(Held),
    Gone(Ipv4Addr),
}

/// Which column is where. They differ between versions of Kea, the header says how.
struct Columns {
    address: usize,
    hardware: usize,
    client: usize,
    lasts: usize,
    ends: usize,
    hostname: usize,
    state: usize,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            address: 0,
            hardware: 1,
            client: 2,
            lasts: 3,
            ends: 4,
            hostname: 8,
            state: 9,
        }
    }
}

impl Columns {
    fn of(header: &str) -> Self {
        let usual = Self::default();
        let place = |name: &str, usual: usize| {
            header
                .trim_end()
                .split(',')
                .position(|column| column == name)
                .unwrap_or(usual)
        };
        Self {
            address: place("address", usual.address),
            hardware: place("hwaddr", usual.hardware),
            client: place("client_id", usual.client),
            lasts: place("valid_lifetime", usual.lasts),
            ends: place("expire", usual.ends),
            hostname: place("hostname", usual.hostname),
            state: place("state", usual.state),
        }
    }

    fn read(&self, line: &str) -> Option<Change> {
        let fields: Vec<&str> = line.trim_end().split(',').collect();
        let field = |place: usize| fields.get(place).copied().unwrap_or_default();
        let address: Ipv4Addr = field(self.address).parse().ok()?;
        let lasts: i64 = field(self.lasts).parse().ok()?;
        let ends: i64 = field(self.ends).parse().ok()?;
        let state: u32 = field(self.state).parse().unwrap_or(0);
        // A deleted lease is written with no lifetime at all.
        if lasts == 0 || matches!(state, 2 | 3) {
            return Some(Change::Gone(address));
        }
        Some(Change::Held(Held {
            address,
            hardware: colons(field(self.hardware)),
            client: colons(field(self.client)),
            starts: ends.saturating_sub(lasts),
            lasts,
            state,
            // A comma is written as its HTML entity.
            hostname: field(self.hostname).replace("&#x2c", ","),
        }))
    }
}
