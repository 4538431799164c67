//! Adding and removing reservations: look, tell dhcpd, and look whether it did.
//!
//! dhcpd refuses a second host of one name or MAC address, but takes any number of hosts at one address, because bonded
//! interfaces need that. This plugin is one instance and makes one change at a time ([`turns`]), so between its look and dhcpd's answer no
//! other caller of it can take the address.
//!
//! dhcpd also takes a host whose statements it cannot parse, and leaves the statements out. So what it wrote is read back, and a
//! host without its boot file is removed again rather than called a success.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bulkhead_sdk::dhcp::{self, DhcpOption, Entry, Identifier, OptionValue, Reservation};
use bulkhead_sdk::log;
use bulkhead_sdk::names::LookupError;

use crate::address::Hardware;
use crate::body::HostBody;
use crate::error::Problem;
use crate::follow::now;
use crate::index::{Host, Index};
use crate::omapi::message::Values;
use crate::omapi::session::{Outcome, Server, Session, Verdict};
use crate::{names, options, statements, turns};

/// How long dhcpd may take to write what it acknowledged. It writes before it answers; a slow disk delays what others see.
const WRITTEN: Duration = Duration::from_millis(500);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// The index as the files are at the moment.
pub type Look = fn(&mut dyn FnMut(&mut Index)) -> Result<(), Problem>;

/// A reservation in the terms of dhcpd.
struct Wanted {
    subnet: String,
    name: String,
    address: u32,
    hardware: Hardware,
    statements: String,
    /// What the host will look like when it is read back.
    options: Vec<DhcpOption>,
    /// MAC addresses of the same machine, whose reservations may share the address.
    related: Vec<Hardware>,
}

/// Writes a reservation. False: an equal one was there.
///
/// # Errors
/// It cannot be written as it is, another one is in its way, or dhcpd will not or does not answer.
pub async fn add(look: Look, server: &Server, wanted: Reservation) -> Result<bool, Problem> {
    let wanted = Wanted::of(wanted).await?;
    if !wanted.is_free(look)? {
        return Ok(false);
    }
    let mut session = Session::open(server).await?;
    match session.create(wanted.values()).await {
        Ok(Ok(_)) => {}
        Ok(Err(verdict)) => {
            // It may have made the host before it refused its statements.
            let known = [Verdict::EXISTS, Verdict::KEY_CONFLICT].contains(&verdict.code);
            if !known && wanted.is_there(look)? {
                forget(look, server, &wanted.name).await?;
            }
            return Err(refused(&verdict));
        }
        Err(problem) => {
            // Nobody knows whether dhcpd did it; its file does.
            return match wanted.is_written(look)? {
                true => Ok(true),
                false => Err(problem),
            };
        }
    }
    if wanted.settle(look).await? {
        return Ok(true);
    }
    log::warn(format!(
        "dhcpd took {} without its statements `{}`; it is removed again",
        wanted.name, wanted.statements
    ));
    forget(look, server, &wanted.name).await?;
    Err(Problem::Refused(
        "dhcpd took the host, but not its statements; its log says why (is every option in them declared in dhcpd.conf?)".to_owned(),
    ))
}

/// Removes the reservations of an address, or of a MAC address. False: there were none.
///
/// # Errors
/// What is there is a lease or stands in `dhcpd.conf`, or dhcpd will not or does not answer.
pub async fn remove(
    look: Look,
    server: &Server,
    subnet: &str,
    address: Option<u32>,
    hardware: Option<Hardware>,
) -> Result<bool, Problem> {
    let mut found = Ok(Vec::new());
    let mut lease = None;
    look(&mut |index| {
        found = hosts(index, subnet, address, hardware);
        lease = lease_in_the_way(index, subnet, address, hardware);
    })?;
    let found = found?;
    if let Some(fixed) = found.iter().find(|host| !host.dynamic) {
        let shown = fixed
            .addresses
            .first()
            .map(|&address| Ipv4Addr::from_bits(address).to_string());
        return Err(Problem::NotDeletable(format!(
            "{} ({} / {})",
            fixed.name,
            shown.unwrap_or_default(),
            fixed.hardware
        )));
    }
    if found.is_empty() {
        return lease.map_or(Ok(false), |lease| Err(Problem::NotDeletable(lease)));
    }
    for host in &found {
        forget(look, server, &host.name).await?;
    }
    Ok(true)
}

/// Removes a host by its name, on dhcpd and in the index. One that dhcpd does not know (any more) is only forgotten.
async fn forget(look: Look, server: &Server, name: &str) -> Result<(), Problem> {
    let mut session = Session::open(server).await?;
    match session.find(Values::new().bytes("name", name)).await? {
        Ok((handle, _)) => succeeded(session.delete(handle).await?)?,
        Err(verdict) if verdict.code == Verdict::NOT_FOUND => {
            log::info(format!("dhcpd has no host {name} any more"))
        }
        Err(verdict) => return Err(refused(&verdict)),
    }
    let end = Instant::now() + WRITTEN;
    loop {
        let last = Instant::now() >= end;
        let mut gone = false;
        look(&mut |index| {
            if last {
                index.remove_host(name);
            }
            gone = index.host(name).is_none();
        })?;
        if gone {
            return Ok(());
        }
        turns::pause(LOOK).await;
    }
}

fn succeeded(outcome: Outcome<()>) -> Result<(), Problem> {
    match outcome {
        Err(verdict) if verdict.code != Verdict::NOT_FOUND => Err(refused(&verdict)),
        _ => Ok(()),
    }
}

/// dhcpd's verdicts in the Smart Proxy's words.
fn refused(verdict: &Verdict) -> Problem {
    match verdict.code {
        Verdict::KEY_CONFLICT => Problem::Conflict("Hardware address conflict.".to_owned()),
        Verdict::EXISTS => Problem::Refused("Entry already exists".to_owned()),
        _ => Problem::Refused(verdict.text()),
    }
}

fn hosts(
    index: &Index,
    subnet: &str,
    address: Option<u32>,
    hardware: Option<Hardware>,
) -> Result<Vec<Rc<Host>>, Problem> {
    let mut found = match (address, hardware) {
        (Some(address), _) => index.hosts_at(subnet, address)?,
        (None, Some(hardware)) => index.host_of(subnet, hardware)?.into_iter().collect(),
        (None, None) => Vec::new(),
    };
    found.retain(|host| hardware.is_none_or(|hardware| host.hardware == hardware));
    Ok(found)
}

/// `ip / mac` of a lease, when there is nothing else.
fn lease_in_the_way(
    index: &Index,
    subnet: &str,
    address: Option<u32>,
    hardware: Option<Hardware>,
) -> Option<String> {
    let entries = match (address, hardware) {
        (Some(address), _) => index.by_address(subnet, address, now()),
        (None, Some(hardware)) => index.by_hardware(subnet, hardware, now()),
        (None, None) => return None,
    };
    entries.ok()?.into_iter().find_map(|entry| match entry {
        Entry::Lease(lease) => match lease.identifier {
            Identifier::Hardware(mac) | Identifier::Client(mac) => {
                Some(format!("{} / {mac}", lease.address))
            }
        },
        Entry::Reservation(_) => None,
    })
}

impl Wanted {
    async fn of(reservation: Reservation) -> Result<Self, Problem> {
        let Identifier::Hardware(mac) = &reservation.identifier else {
            return Err(Problem::Invalid(
                "dhcpd knows hosts by their MAC addresses here".to_owned(),
            ));
        };
        let hardware = Hardware::parse(mac.as_bytes())
            .ok_or_else(|| Problem::Invalid(format!("Invalid MAC {mac}")))?;
        let address: Ipv4Addr = reservation
            .address
            .parse()
            .map_err(|_| Problem::Invalid(format!("Invalid IP Address {}", reservation.address)))?;
        statements::check_name(&reservation.name)?;
        let found = next_server(&reservation.options).await;
        let statements = statements::of(&reservation.options, &|_| found.clone())?;
        let body = format!("hardware ethernet {hardware};{statements}");
        let mut named = Vec::new();
        options::set(
            &mut named,
            "hostname",
            OptionValue::Text(reservation.name.clone()),
        );
        Ok(Self {
            options: options::of_body(body.as_bytes(), named),
            subnet: reservation.subnet,
            name: reservation.name,
            address: address.to_bits(),
            hardware,
            statements,
            related: related(&reservation.options),
        })
    }

    fn values(&self) -> Values {
        let values = Values::new()
            .bytes("name", self.name.as_str())
            .bytes("ip-address", self.address.to_be_bytes())
            .bytes("hardware-address", self.hardware.octets())
            .number("hardware-type", 1);
        match self.statements.is_empty() {
            true => values,
            false => values.bytes("statements", self.statements.as_str()),
        }
    }

    /// False: an equal reservation is there.
    fn is_free(&self, look: Look) -> Result<bool, Problem> {
        let mut found = Ok(Vec::new());
        look(&mut |index| {
            found = index
                .hosts_at(&self.subnet, self.address)
                .and_then(|mut hosts| {
                    hosts.extend(index.host_of(&self.subnet, self.hardware)?);
                    Ok(hosts)
                });
        })?;
        let mut similar = found?;
        similar.retain(|host| {
            !self.related.contains(&host.hardware) || host.hardware == self.hardware
        });
        if similar.iter().any(|host| self.equals(host)) {
            return Ok(false);
        }
        if similar.is_empty() {
            return Ok(true);
        }
        let network = self
            .subnet
            .split_once('/')
            .map_or(self.subnet.as_str(), |(network, _)| network);
        Err(Problem::Conflict(format!(
            "Record {network}/{} already exists",
            Ipv4Addr::from_bits(self.address)
        )))
    }

    fn equals(&self, host: &Host) -> bool {
        let sorted = |mut options: Vec<DhcpOption>| {
            options.sort_by(|one, other| one.name.cmp(&other.name));
            options
        };
        host.name == self.name
            && host.hardware == self.hardware
            && host.addresses.contains(&self.address)
            && sorted(host.options()) == sorted(self.options.clone())
    }

    /// Whether there is a host of that name and MAC address, whatever else it has.
    fn is_there(&self, look: Look) -> Result<bool, Problem> {
        let mut there = false;
        look(&mut |index| {
            let host = index.host(&self.name);
            there = host.is_some_and(|host| host.hardware == self.hardware);
        })?;
        Ok(there)
    }

    fn is_written(&self, look: Look) -> Result<bool, Problem> {
        let mut written = false;
        look(&mut |index| {
            written = index
                .host(&self.name)
                .is_some_and(|host| self.equals(&host))
        })?;
        Ok(written)
    }

    /// Waits until dhcpd has written the host, or puts it into the index on dhcpd's word. False: it wrote something else.
    async fn settle(&self, look: Look) -> Result<bool, Problem> {
        let end = Instant::now() + WRITTEN;
        loop {
            let last = Instant::now() >= end;
            let mut found = None;
            look(&mut |index| {
                found = index.host(&self.name).map(|host| self.equals(&host));
                if found.is_none() && last {
                    index.put_host(&self.name, self.body());
                    found = Some(true);
                }
            })?;
            if let Some(equal) = found {
                return Ok(equal);
            }
            turns::pause(LOOK).await;
        }
    }

    fn body(&self) -> HostBody {
        HostBody {
            hardware: Some(self.hardware),
            addresses: vec![self.address],
            dynamic: true,
            deleted: false,
            kept: format!("hardware ethernet {};{}", self.hardware, self.statements).into_bytes(),
        }
    }
}

/// The MAC addresses that the feature says belong to the same machine.
fn related(options: &[DhcpOption]) -> Vec<Hardware> {
    let listed = options.iter().find(|option| option.name == "related_macs");
    match listed.map(|option| &option.value) {
        Some(OptionValue::Texts(macs)) => macs
            .iter()
            .filter_map(|mac| Hardware::parse(mac.as_bytes()))
            .collect(),
        _ => Vec::new(),
    }
}

/// The next server's address, if Foreman gives a name. One that has none is written as dhcpd keeps it, by its name.
async fn next_server(options: &[DhcpOption]) -> Result<Option<Ipv4Addr>, String> {
    let name = options::text(options, "nextServer").unwrap_or_default();
    if name.is_empty() || name.parse::<Ipv4Addr>().is_ok() {
        return Ok(None);
    }
    match names::looked_up(name).await {
        Ok(found) => match dhcp::first_ipv4(&found) {
            Some(address) => Ok(Some(address)),
            None => Ok(absent(name)),
        },
        Err(LookupError::Absent) => Ok(absent(name)),
        Err(LookupError::Failed(why)) => Err(why),
    }
}

fn absent(name: &str) -> Option<Ipv4Addr> {
    log::warn(format!(
        "there is no address of the next server {name}; machines will ask the DHCP server itself"
    ));
    None
}
