//! The feature `dhcp`: shows subnets, reservations and leases, makes and removes reservations, and finds free addresses.
//!
//! It opens no socket and no file: it checks what was asked, and the granted provider (`dhcp-builtin`, `dhcp-isc`, `dhcp-kea`) knows the server. Its
//! own is one thing: which addresses it suggested lately, kept in the store, so that no two callers get the same.
//!
//! The one idea: [`network`] finds the subnet that a path names, [`wanted`] turns a form into one well-formed reservation, [`free`]
//! picks an address, [`record`] shows what the provider knows, [`refusal`] turns its errors into answers.

mod free;
mod network;
mod record;
mod refusal;
mod wanted;

use std::net::Ipv4Addr;

use bulkhead_sdk::answer::JSON_TYPE;
use bulkhead_sdk::dhcp::{self, Entry, Error, Identifier};
use bulkhead_sdk::params::Value;
use bulkhead_sdk::prelude::*;

use network::{Network, address};
use refusal::{asking, removing, writing};

/// Entries fetched at a time: what the interface hands over at most.
const PAGE: u32 = 1_000;

/// Between the two lists of a subnet's records.
const LEASES: &[u8] = b"],\"leases\":[";

/// Bytes that a record takes at most, as a rule.
const ROOM: usize = 16 << 10;

struct Dhcp;

impl Plugin for Dhcp {
    fn describe() -> Manifest {
        Manifest::new(
            "dhcp",
            env!("CARGO_PKG_VERSION"),
            "Makes DHCP reservations and finds free addresses for Foreman",
        )
        .mount("/dhcp")
        .route(get("/dhcp"), subnets)
        .route(get("/dhcp/"), subnets)
        .route(get("/dhcp/:network"), entries)
        .route(get("/dhcp/:network/unused_ip"), unused_ip)
        .route(get("/dhcp/:network/ip/:ip_address"), by_address)
        .route(get("/dhcp/:network/mac/:mac_address"), by_mac)
        .route(post("/dhcp/:network"), create)
        .route(delete("/dhcp/:network/ip/:ip_address"), remove_address)
        .route(delete("/dhcp/:network/mac/:mac_address"), remove_mac)
        .need(Need::call(
            "dhcp-provider",
            dhcp::INTERFACE,
            "has one provider read and write the DHCP server; it holds no socket and no file itself",
        ))
        .need(Need::store(
            free::HELD,
            Access::ReadWrite,
            "remembers which addresses it suggested lately, so that no two hosts get the same",
        ))
        .need(
            Need::probe(
                free::PROBE,
                "asks whether somebody uses an address that nobody reserved, before it is suggested",
            )
            .optional(),
        )
        .setting(
            Setting::text("use_provider", "The plugin that reads and writes the DHCP server")
                .default("dhcp-builtin")
                .required()
                .exposed(),
        )
        .setting(
            Setting::boolean("ping_free_ip", "Probe an address before it is suggested, and skip one that answers")
                .default(true),
        )
        .setting(
            Setting::boolean(
                "probe_refused_is_used",
                "Skip an address that refuses the probe's TCP connection as well; firewalls refuse for addresses that nobody uses",
            )
            .default(false),
        )
        .setting(
            Setting::integer(
                "blacklist_duration_minutes",
                "Seconds (whatever its name says) for which an address that was suggested is not suggested again",
            )
            .default(free::DEFAULT_HOLD),
        )
    }

    fn start() -> Result<(), String> {
        free::tell_hold();
        Ok(())
    }

    fn status() -> Status {
        if let Err(failure) = free::hold() {
            return Status::failing(failure.message());
        }
        // A provider that still starts, or whose server is away for a while, is no reason to vanish from Foreman: calls say so.
        match readable() {
            Ok(()) | Err(Error::Unreachable(_) | Error::Timeout(_)) => Status::working()
                .capability("dhcp_filename_ipv4")
                .capability("dhcp_filename_hostname"),
            Err(error) => Status::failing(refusal::words(&error)),
        }
    }
}

bulkhead_sdk::export_feature!(Dhcp);

/// Whether the provider sees subnets, and what is in use in one of them: without that it can be asked for nothing else.
fn readable() -> Result<(), Error> {
    let subnets = dhcp::subnets()?;
    let Some(subnet) = subnets.first() else {
        return Ok(());
    };
    let first = subnet.prefix.split('/').next().unwrap_or_default();
    dhcp::in_use(&subnet.prefix, &[first.to_owned()]).map(drop)
}

fn subnets(_: &Request) -> Result<Json<Vec<serde_json::Value>>, Failure> {
    let subnets = dhcp::subnets().map_err(asking)?;
    Ok(Json(subnets.iter().filter_map(record::subnet).collect()))
}

/// Written as the pages come, reservations first as the interface has them: tens of thousands of leases are in memory once.
fn entries(request: &Request) -> Result<Answer, Failure> {
    let network = Network::of(request)?.or_not_found()?;
    let mut body = b"{\"reservations\":[".to_vec();
    let (mut is_first, mut leases_begun) = (true, false);
    let mut cursor: Option<String> = None;
    while let Some(prefix) = network.named() {
        let page = dhcp::entries(prefix, cursor.as_deref(), PAGE).map_err(asking)?;
        for entry in &page.entries {
            let is_lease = matches!(entry, Entry::Lease(_));
            if !is_lease && !record::is_of_a_machine(entry) {
                continue;
            }
            if is_lease && !leases_begun {
                body.extend_from_slice(LEASES);
                (is_first, leases_begun) = (true, true);
            } else if leases_begun && !is_lease {
                return Err(Failure::internal(
                    "the provider gave a reservation behind leases",
                ));
            }
            if !is_first {
                body.push(b',');
            }
            is_first = false;
            if body.capacity() - body.len() < ROOM {
                // Not doubled, as it would be by itself: the old and the new one need room beside each other.
                body.reserve_exact(ROOM + body.len() / 4);
            }
            serde_json::to_writer(&mut body, &record::entry(entry))
                .or_status(500, "cannot write JSON")?;
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if !leases_begun {
        body.extend_from_slice(LEASES);
    }
    body.extend_from_slice(b"]}");
    Ok(Answer::typed(200, JSON_TYPE, body))
}

fn unused_ip(request: &Request) -> Result<Json<serde_json::Value>, Failure> {
    let network = Network::of(request)?.or_not_found()?;
    let mac = match given(request, "mac").filter(|mac| !mac.is_empty()) {
        Some(text) => Some(checked_mac(&text)?),
        None => None,
    };
    let range = free::Range::of(
        &network,
        given(request, "from").as_deref(),
        given(request, "to").as_deref(),
    )?;
    let found = free::find(&network, range, mac.as_ref())?;
    let address = found.map_or(serde_json::Value::Null, |address| {
        address.to_string().into()
    });
    Ok(Json(serde_json::json!({ "ip": address })))
}

fn by_address(request: &Request) -> Result<Json<Vec<serde_json::Value>>, Failure> {
    let wanted = checked_address(request)?;
    let network = Network::of(request)?.or_not_found()?;
    let mut found = known(&network, |prefix| {
        dhcp::by_address(prefix, &wanted.to_string())
    })?;
    found.retain(record::is_of_a_machine);
    let found = preferred(found);
    if found.is_empty() {
        let text = format!("No DHCP records for IP {}/{wanted} found", network.asked);
        return Err(Failure::not_found(text));
    }
    Ok(Json(found.iter().map(record::entry).collect()))
}

fn by_mac(request: &Request) -> Result<Json<serde_json::Value>, Failure> {
    let mac = captured_mac(request)?;
    let network = Network::of(request)?.or_not_found()?;
    let who = Identifier::Hardware(mac.canonical());
    let found = preferred(known(&network, |prefix| dhcp::by_identifier(prefix, &who))?);
    match found.first() {
        Some(entry) => Ok(Json(record::entry(entry))),
        None => Err(Failure::not_found(format!(
            "No DHCP record for MAC {}/{} found",
            network.asked,
            mac.colon_lower()
        ))),
    }
}

/// An equal reservation is success: Foreman repeats what it is not sure of.
fn create(request: &Request) -> Result<Answer, Failure> {
    let wanted = wanted::Wanted::of(request)?;
    wanted.check_neighbours()?;
    match dhcp::add(&wanted.reservation) {
        Ok(true) => {}
        Ok(false) => log::debug(format!(
            "{} is reserved like that already",
            wanted.reservation.address
        )),
        Err(error) => return Err(writing(error, &wanted)),
    }
    Ok(Answer::typed(200, JSON_TYPE, Vec::new()))
}

fn remove_address(request: &Request) -> Result<(), Failure> {
    let address = checked_address(request)?.to_string();
    remove(
        request,
        |prefix| dhcp::by_address(prefix, &address),
        |prefix| dhcp::remove(prefix, Some(&address), None),
    )
}

fn remove_mac(request: &Request) -> Result<(), Failure> {
    let who = Identifier::Hardware(captured_mac(request)?.canonical());
    remove(
        request,
        |prefix| dhcp::by_identifier(prefix, &who),
        |prefix| dhcp::remove(prefix, None, Some(&who)),
    )
}

/// Removing what is not there is success, even in a subnet that is not there: Foreman removes blindly before it builds.
fn remove(
    request: &Request,
    find: impl Fn(&str) -> Result<Vec<Entry>, Error>,
    remove: impl Fn(&str) -> Result<bool, Error>,
) -> Result<(), Failure> {
    let Some(network) = Network::of(request)?.found else {
        return Ok(());
    };
    let found = preferred(known(&network, find)?);
    let (Some(entry), Some(prefix)) = (found.first(), network.named()) else {
        return Ok(());
    };
    match remove(prefix) {
        Ok(_) | Err(Error::UnknownSubnet) => Ok(()),
        Err(error) => Err(removing(error, entry)),
    }
}

/// What is known under the name that the path gives; nothing under an address that is only inside a subnet.
fn known(
    network: &Network,
    find: impl Fn(&str) -> Result<Vec<Entry>, Error>,
) -> Result<Vec<Entry>, Failure> {
    network.named().map_or(Ok(Vec::new()), find).map_err(asking)
}

/// Reservations, or leases where there is no reservation.
fn preferred(mut found: Vec<Entry>) -> Vec<Entry> {
    if found
        .iter()
        .any(|entry| matches!(entry, Entry::Reservation(_)))
    {
        found.retain(|entry| matches!(entry, Entry::Reservation(_)));
    }
    found
}

/// A parameter with a value, though it may be empty.
fn given(request: &Request, name: &str) -> Option<String> {
    match request.params().get(name)? {
        Value::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Nil | Value::List(_) | Value::Map(_) => None,
    }
}

fn checked_address(request: &Request) -> Result<Ipv4Addr, Failure> {
    address(&given(request, "ip_address").unwrap_or_default())
}

fn captured_mac(request: &Request) -> Result<MacAddress, Failure> {
    checked_mac(&given(request, "mac_address").unwrap_or_default())
}

fn checked_mac(text: &str) -> Result<MacAddress, Failure> {
    text.parse()
        .map_err(|_| Failure::bad_request(format!("Invalid MAC {text}")))
}

#[cfg(test)]
mod tests;
