//! The log records behind `/logs`: the newest ones, and errors that are kept longer (contract: core API, section 6).
//!
//! Two rings. The *main* ring holds the newest records of any level. The record it loses goes to the *tail* ring if it is an
//! error, so that a busy hour does not wash away the reason of this morning's failure. Memory only, lost at restart; there is
//! no way to clear it.
//!
//! Beside the rings stand the failed modules: a module's name and why it does not work, until it works again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::ser::SerializeMap;

use super::record::{Level, Record};

/// Records of any level kept when the operator sets nothing (contract: core API, section 8).
pub const DEFAULT_SIZE: usize = 2000;

/// Older errors kept when the operator sets nothing.
pub const DEFAULT_TAIL_SIZE: usize = 1000;

/// From this level on a record survives in the tail ring.
const TAIL_LEVEL: Level = Level::Error;

/// `info.level_tail` is the number of [`TAIL_LEVEL`] in the contract's list DEBUG, INFO, WARN, ERROR.
const TAIL_LEVEL_NUMBER: u8 = 3;

/// A ring size that cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("log buffer `{name}` must hold at least 2 records, not {size}")]
pub struct TooSmall {
    /// The setting, `buffer` or `buffer_errors`.
    pub name: &'static str,
    /// What it was set to.
    pub size: usize,
}

/// Both rings and the failed modules. Shared by everything that logs.
#[derive(Debug)]
pub struct LogRing {
    rings: Mutex<Rings>,
    failed: Mutex<BTreeMap<String, String>>,
}

#[derive(Debug)]
struct Rings {
    main: Ring,
    tail: Ring,
}

#[derive(Debug)]
struct Ring {
    size: usize,
    records: VecDeque<Arc<Record>>,
}

impl Ring {
    fn new(name: &'static str, size: usize) -> Result<Self, TooSmall> {
        if size < 2 {
            return Err(TooSmall { name, size });
        }
        // Not reserved in advance: an idle proxy need not pay for a ring it may never fill.
        Ok(Self {
            size,
            records: VecDeque::new(),
        })
    }

    fn push(&mut self, record: Arc<Record>) -> Option<Arc<Record>> {
        let evicted = if self.records.len() == self.size {
            self.records.pop_front()
        } else {
            None
        };
        self.records.push_back(record);
        evicted
    }
}

impl LogRing {
    /// A ring of `size` records and a tail of `tail_size` errors, both at least 2.
    pub fn new(size: usize, tail_size: usize) -> Result<Self, TooSmall> {
        let rings = Rings {
            main: Ring::new("buffer", size)?,
            tail: Ring::new("buffer_errors", tail_size)?,
        };
        Ok(Self {
            rings: Mutex::new(rings),
            failed: Mutex::default(),
        })
    }

    /// Keeps a record.
    pub fn push(&self, record: Arc<Record>) {
        let mut rings = locked(&self.rings);
        if let Some(evicted) = rings.main.push(record)
            && evicted.level >= TAIL_LEVEL
        {
            rings.tail.push(evicted);
        }
    }

    /// Says why a module does not work. Survives any number of records.
    pub fn fail_module(&self, name: &str, reason: &str) {
        locked(&self.failed).insert(name.to_owned(), reason.to_owned());
    }

    /// The module works (again), or is gone.
    pub fn clear_module(&self, name: &str) {
        locked(&self.failed).remove(name);
    }

    /// The failed modules and their reasons, by name.
    #[must_use]
    pub fn failed_modules(&self) -> BTreeMap<String, String> {
        locked(&self.failed).clone()
    }

    /// The body of `GET /logs`: records with `timestamp >= from`, older errors first.
    #[must_use]
    pub fn to_json(&self, from: f64) -> Vec<u8> {
        let (size, tail_size, records) = {
            let rings = locked(&self.rings);
            let all = rings.tail.records.iter().chain(&rings.main.records);
            let records: Vec<Arc<Record>> = all
                .filter(|record| record.timestamp() >= from)
                .cloned()
                .collect();
            (rings.main.size, rings.tail.size, records)
        };
        let failed_modules = self.failed_modules();
        let document = Document {
            info: Info {
                size,
                tail_size,
                level: None,
                level_tail: TAIL_LEVEL_NUMBER,
                failed_modules: &failed_modules,
            },
            logs: records.iter().map(|record| Entry(record)).collect(),
        };
        // Text, numbers and string keys only: this serialisation has no way to fail.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

/// A panic while the lock was held left whole records behind, so the rings stay usable.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Serialize)]
struct Document<'a> {
    info: Info<'a>,
    logs: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Info<'a> {
    size: usize,
    tail_size: usize,
    /// Always null in the contract.
    level: Option<u8>,
    level_tail: u8,
    failed_modules: &'a BTreeMap<String, String>,
}

struct Entry<'a>(&'a Record);

impl Serialize for Entry<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &self.0.timestamp())?;
        map.serialize_entry("level", &self.0.level)?;
        map.serialize_entry("message", &self.0.text())?;
        if let Some(id) = self.0.short_id() {
            map.serialize_entry("request_id", id)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::Value;
    use serde_json::json;
    use std::time::{Duration, SystemTime};

    /// A record whose timestamp is `second` and a half.
    fn record(second: u64, level: Level, message: &str) -> Arc<Record> {
        let mut record = Record::new(level, "bulkhead");
        record.time = SystemTime::UNIX_EPOCH + Duration::from_millis(second * 1000 + 500);
        record.set("message", Value::Text(message.into()));
        Arc::new(record)
    }

    fn read(ring: &LogRing, from: f64) -> serde_json::Value {
        serde_json::from_slice(&ring.to_json(from)).unwrap()
    }

    fn messages(ring: &LogRing, from: f64) -> Vec<String> {
        let logs = read(ring, from)["logs"].as_array().unwrap().clone();
        logs.iter()
            .map(|log| log["message"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_empty_document_is_exactly_the_contracts() {
        let ring = LogRing::new(2000, 1000).unwrap();
        ring.fail_module("dns", "no server");
        assert_eq!(
            String::from_utf8(ring.to_json(0.0)).unwrap(),
            r#"{"info":{"size":2000,"tail_size":1000,"level":null,"level_tail":3,"failed_modules":{"dns":"no server"}},"logs":[]}"#
        );
    }

    #[test]
    fn one_record_is_exactly_the_contracts() {
        let ring = LogRing::new(2, 2).unwrap();
        let mut with_id = Record::clone(&record(7, Level::Info, "Started GET /features "));
        with_id.request_id = Some("3e93e73f-1111".into());
        ring.push(Arc::new(with_id));
        assert_eq!(
            read(&ring, 0.0)["logs"],
            json!([{"timestamp": 7.5, "level": "INFO", "message": "Started GET /features ", "request_id": "3e93e73f"}])
        );
    }

    #[test]
    fn backtrace_and_request_id_are_absent_when_empty() {
        let ring = LogRing::new(2, 2).unwrap();
        ring.push(record(1, Level::Warn, "w"));
        let logs = read(&ring, 0.0)["logs"].clone();
        assert_eq!(logs[0].as_object().unwrap().len(), 3);
    }

    #[test]
    fn evicted_errors_move_to_the_tail_and_come_first() {
        let ring = LogRing::new(2, 2).unwrap();
        ring.push(record(1, Level::Error, "error 1"));
        ring.push(record(2, Level::Warn, "warn 2"));
        ring.push(record(3, Level::Info, "info 3"));
        assert_eq!(messages(&ring, 0.0), ["error 1", "warn 2", "info 3"]);
        ring.push(record(4, Level::Info, "info 4"));
        assert_eq!(
            messages(&ring, 0.0),
            ["error 1", "info 3", "info 4"],
            "a lost warning is gone"
        );
    }

    #[test]
    fn a_full_tail_loses_its_oldest_error() {
        let ring = LogRing::new(2, 2).unwrap();
        for second in 1..=5 {
            ring.push(record(second, Level::Error, &format!("error {second}")));
        }
        assert_eq!(
            messages(&ring, 0.0),
            ["error 2", "error 3", "error 4", "error 5"]
        );
    }

    #[test]
    fn from_timestamp_is_inclusive() {
        let ring = LogRing::new(4, 2).unwrap();
        ring.push(record(1, Level::Info, "1"));
        ring.push(record(2, Level::Info, "2"));
        assert_eq!(messages(&ring, 2.5), ["2"]);
        assert_eq!(messages(&ring, 2.500_001), Vec::<String>::new());
        assert_eq!(messages(&ring, -3.0), ["1", "2"]);
    }

    #[test]
    fn failed_modules_survive_any_flood_and_go_when_they_work_again() {
        let ring = LogRing::new(2, 2).unwrap();
        ring.fail_module("tftp", "first reason");
        ring.fail_module("tftp", "last reason");
        for second in 0..100 {
            ring.push(record(second, Level::Info, "flood"));
        }
        assert_eq!(
            read(&ring, 0.0)["info"]["failed_modules"],
            json!({"tftp": "last reason"})
        );
        ring.clear_module("tftp");
        assert_eq!(read(&ring, 0.0)["info"]["failed_modules"], json!({}));
    }

    #[test]
    fn sizes_below_two_are_refused() {
        assert_eq!(
            LogRing::new(1, 1000).unwrap_err(),
            TooSmall {
                name: "buffer",
                size: 1
            }
        );
        assert_eq!(
            LogRing::new(2000, 0).unwrap_err(),
            TooSmall {
                name: "buffer_errors",
                size: 0
            }
        );
        assert!(LogRing::new(2, 2).is_ok());
    }
}
