//! The functions that a component imports from the host, answered by the thread's double.

use std::path::PathBuf;

use super::with;

/// The directory of a slot; of one that was not granted, a place that cannot exist.
pub(crate) fn folder(slot: &str) -> PathBuf {
    with(|host| host.folders.get(slot).cloned())
        .unwrap_or_else(|| PathBuf::from("/dev/null/not-granted").join(slot))
}

pub(crate) mod caller {
    use crate::bindings::imports::foreman::proxy::caller::Peer;
    use crate::testing::with;

    pub(crate) fn current() -> Option<Peer> {
        with(|host| host.caller.clone())
    }
}

pub(crate) mod site {
    use crate::bindings::imports::foreman::proxy::types::Audience;
    use crate::testing::with;

    pub(crate) fn public_url(audience: Audience) -> Option<String> {
        with(|host| {
            host.public_urls
                .iter()
                .find(|(known, _)| *known == audience)
                .map(|(_, url)| url.clone())
        })
    }

    pub(crate) fn http_port() -> Option<u16> {
        with(|host| host.http_port)
    }

    pub(crate) fn https_port() -> Option<u16> {
        with(|host| host.https_port)
    }

    pub(crate) fn version() -> String {
        "3.11.0".to_owned()
    }
}

pub(crate) mod settings {
    use crate::bindings::imports::foreman::proxy::settings::Value;
    use crate::testing::with;

    pub(crate) fn get(name: &str) -> Option<Value> {
        with(|host| host.settings.get(name).cloned())
    }
}

pub(crate) mod log {
    use crate::bindings::imports::foreman::proxy::log::Level;
    use crate::testing::with;

    pub(crate) fn write(level: Level, message: &str) {
        with(|host| host.logs.push((level, message.to_owned())));
    }
}

pub(crate) mod foreman {
    use crate::bindings::imports::foreman::proxy::types::{Incoming, Outgoing, UpstreamError};
    use crate::testing::with;

    pub(crate) fn send(request: &Outgoing) -> Result<Incoming, UpstreamError> {
        with(|host| match &host.foreman {
            Some(answer) => answer(request),
            None => Err(UpstreamError::Denied(format!(
                "slot {} is not granted",
                request.slot
            ))),
        })
    }
}

pub(crate) mod http_client {
    use crate::bindings::imports::foreman::proxy::types::{Incoming, Outgoing, UpstreamError};
    use crate::testing::with;

    pub(crate) fn send(request: &Outgoing) -> Result<Incoming, UpstreamError> {
        with(|host| match &host.http {
            Some(answer) => answer(request),
            None => Err(UpstreamError::Denied(format!(
                "slot {} is not granted",
                request.slot
            ))),
        })
    }
}

pub(crate) mod store {
    use crate::bindings::imports::foreman::proxy::store::{Change, Entry, Error, History};
    use crate::testing::store::Store;
    use crate::testing::with;

    fn granted<T>(
        slot: &str,
        work: impl FnOnce(&mut Store) -> Result<T, Error>,
    ) -> Result<T, Error> {
        with(|host| match host.stores.get_mut(slot) {
            Some(store) => work(store),
            None => Err(Error::Denied(format!("slot {slot} is not granted"))),
        })
    }

    pub(crate) fn get(slot: &str, key: &str) -> Result<Option<Entry>, Error> {
        granted(slot, |store| Ok(store.get(key)))
    }

    pub(crate) fn scan(
        slot: &str,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Entry>, Error> {
        granted(slot, |store| Ok(store.scan(prefix, after, limit)))
    }

    pub(crate) fn apply(slot: &str, changes: &[Change]) -> Result<u64, Error> {
        granted(slot, |store| store.apply(changes))
    }

    pub(crate) fn changes(slot: &str, since: u64, limit: u32) -> Result<History, Error> {
        granted(slot, |store| Ok(store.changes(since, limit)))
    }
}

pub(crate) mod secrets {
    use crate::bindings::imports::foreman::proxy::secrets::{Error, Key};
    use crate::testing::{Secret, with};

    fn granted<T>(slot: &str, work: impl FnOnce(&Secret) -> Result<T, Error>) -> Result<T, Error> {
        with(|host| match host.secrets.get(slot) {
            Some(secret) => work(secret),
            None => Err(Error::Denied(format!("slot {slot} is not granted"))),
        })
    }

    pub(crate) fn about(slot: &str) -> Result<Key, Error> {
        granted(slot, |secret| Ok(secret.key.clone()))
    }

    pub(crate) fn sign(slot: &str, message: &[u8]) -> Result<Vec<u8>, Error> {
        granted(slot, |secret| Ok((secret.sign)(message)))
    }

    pub(crate) fn verify(slot: &str, message: &[u8], mac: &[u8]) -> Result<bool, Error> {
        granted(slot, |secret| Ok((secret.sign)(message) == mac))
    }

    pub(crate) fn reveal(slot: &str) -> Result<Vec<u8>, Error> {
        granted(slot, |secret| {
            secret
                .revealed
                .clone()
                .ok_or_else(|| Error::Denied(format!("slot {slot} may be used, not seen")))
        })
    }
}

pub(crate) mod downloads {
    use crate::bindings::imports::foreman::proxy::downloads::{Error, Progress, Stage};
    use crate::testing::{Download, with};

    pub(crate) fn fetch(slot: &str, url: &str, path: &str) -> Result<(), Error> {
        with(|host| match &host.refuse_downloads {
            Some(error) => Err(error.clone()),
            None => {
                host.downloads.push(Download {
                    slot: slot.to_owned(),
                    url: url.to_owned(),
                    path: path.to_owned(),
                });
                Ok(())
            }
        })
    }

    pub(crate) fn query(slot: &str, path: &str) -> Option<Progress> {
        with(|host| {
            let known = host
                .downloads
                .iter()
                .any(|download| download.slot == slot && download.path == path);
            known.then_some(Progress {
                stage: Stage::Waiting,
                received: 0,
                total: None,
                problem: None,
            })
        })
    }
}

pub(crate) mod dns_provider {
    use crate::bindings::imports::foreman::proxy::dns_types::{DnsRecord, Error, RecordType};
    use crate::testing::with;

    fn granted<T>(work: impl FnOnce(&mut Vec<DnsRecord>) -> Result<T, Error>) -> Result<T, Error> {
        with(|host| match &mut host.dns {
            Some(records) => work(records),
            None => Err(Error::Other("no provider is granted".to_owned())),
        })
    }

    pub(crate) fn find(name: &str, kind: RecordType) -> Result<Vec<DnsRecord>, Error> {
        granted(|records| {
            Ok(records
                .iter()
                .filter(|record| record.name == name && record.kind == kind)
                .cloned()
                .collect())
        })
    }

    pub(crate) fn create(wanted: &DnsRecord) -> Result<bool, Error> {
        let present = find(&wanted.name, wanted.kind)?;
        if present.iter().any(|record| record.value == wanted.value) {
            return Ok(false);
        }
        if !present.is_empty() {
            return Err(Error::Conflict(format!("{} has other data", wanted.name)));
        }
        granted(|records| {
            records.push(wanted.clone());
            Ok(true)
        })
    }

    pub(crate) fn remove(name: &str, kind: RecordType, value: Option<&str>) -> Result<bool, Error> {
        granted(|records| {
            let before = records.len();
            records.retain(|record| {
                record.name != name
                    || record.kind != kind
                    || value.is_some_and(|value| record.value != value)
            });
            Ok(records.len() < before)
        })
    }
}

pub(crate) mod dhcp_provider {
    use crate::dhcp::{Entry, Error, Identifier, Page, Reservation, Subnet};
    use crate::testing::{DhcpServer, with};
    use std::rc::Rc;

    fn granted() -> Result<Rc<dyn DhcpServer>, Error> {
        with(|host| host.dhcp.clone())
            .ok_or_else(|| Error::Other("no provider is granted".to_owned()))
    }

    pub(crate) fn subnets() -> Result<Vec<Subnet>, Error> {
        granted()?.subnets()
    }

    pub(crate) fn entries(subnet: &str, cursor: Option<&str>, limit: u32) -> Result<Page, Error> {
        granted()?.entries(subnet, cursor, limit)
    }

    pub(crate) fn by_address(subnet: &str, address: &str) -> Result<Vec<Entry>, Error> {
        granted()?.by_address(subnet, address)
    }

    pub(crate) fn by_identifier(subnet: &str, who: &Identifier) -> Result<Vec<Entry>, Error> {
        granted()?.by_identifier(subnet, who)
    }

    pub(crate) fn in_use(subnet: &str, addresses: &[String]) -> Result<Vec<bool>, Error> {
        granted()?.in_use(subnet, addresses)
    }

    pub(crate) fn add(wanted: &Reservation) -> Result<bool, Error> {
        granted()?.add(wanted)
    }

    pub(crate) fn remove(
        subnet: &str,
        address: Option<&str>,
        who: Option<&Identifier>,
    ) -> Result<bool, Error> {
        granted()?.remove(subnet, address, who)
    }
}

pub(crate) mod watch {
    use std::fs;
    use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
    use std::time::UNIX_EPOCH;

    use crate::testing::with;
    use crate::watch::{Chunk, Error, File};

    fn found<T>(slot: &str, path: &str, work: impl FnOnce(File, &[u8]) -> T) -> Result<T, Error> {
        with(|host| match host.watched.get(slot) {
            None => Err(Error::Denied(format!("slot {slot} is not granted"))),
            Some(files) => match files.get(path) {
                None => Err(Error::Absent),
                Some((identity, bytes)) => {
                    let file = File {
                        identity: *identity,
                        size: bytes.len() as u64,
                        modified: 0,
                    };
                    Ok(work(file, bytes))
                }
            },
        })
    }

    /// The real file, for a slot that was granted those.
    fn on_disk(slot: &str, path: &str) -> Option<Result<(fs::File, File), Error>> {
        with(|host| host.watched_on_disk.iter().any(|known| known == slot)).then(|| {
            let open = || {
                let file = fs::File::open(path)?;
                let about = file.metadata()?;
                let modified = about
                    .modified()?
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                Ok((
                    file,
                    File {
                        identity: identity(&about),
                        size: about.len(),
                        modified: u64::try_from(modified.as_millis()).unwrap_or(u64::MAX),
                    },
                ))
            };
            open().map_err(failed)
        })
    }

    fn failed(why: std::io::Error) -> Error {
        match why.kind() {
            ErrorKind::NotFound => Error::Absent,
            _ => Error::Failed(why.to_string()),
        }
    }

    #[cfg(unix)]
    fn identity(about: &fs::Metadata) -> u64 {
        std::os::unix::fs::MetadataExt::ino(about)
    }

    #[cfg(not(unix))]
    fn identity(_: &fs::Metadata) -> u64 {
        0
    }

    pub(crate) fn about(slot: &str, path: &str) -> Result<File, Error> {
        match on_disk(slot, path) {
            Some(opened) => opened.map(|(_, about)| about),
            None => found(slot, path, |file, _| file),
        }
    }

    pub(crate) fn read(slot: &str, path: &str, offset: u64, limit: u32) -> Result<Chunk, Error> {
        let limit = limit.min(crate::watch::LARGEST_READ);
        if let Some(opened) = on_disk(slot, path) {
            let (mut content, file) = opened?;
            let mut bytes = Vec::new();
            let read = content
                .seek(SeekFrom::Start(offset))
                .and_then(|_| content.take(limit.into()).read_to_end(&mut bytes));
            return read.map(|_| Chunk { file, bytes }).map_err(failed);
        }
        found(slot, path, |file, bytes| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = bytes.get(from..).unwrap_or_default();
            let limit = usize::try_from(limit).unwrap_or(0);
            Chunk {
                file,
                bytes: rest.iter().take(limit).copied().collect(),
            }
        })
    }
}

pub(crate) mod probe {
    use crate::probe::{Error, Outcome};
    use crate::testing::with;

    pub(crate) fn ask(
        slot: &str,
        addresses: &[String],
        _timeout: u32,
    ) -> Result<Vec<Outcome>, Error> {
        with(|host| match &host.probe {
            Some(answer) => Ok(addresses.iter().map(|address| answer(address)).collect()),
            None => Err(Error::Denied(format!("slot {slot} is not granted"))),
        })
    }
}
