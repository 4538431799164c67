//! The zones that the operator configured: which names this server answers for, and what stands at their tops.
//!
//! The one idea: a zone is a name in the setting `zones`; everything else has a default, and a zone file's own SOA and NS records win.

use std::net::{Ipv4Addr, Ipv6Addr};

use bulkhead_sdk::{Audience, settings, site};

use crate::name::Name;
use crate::rdata::Soa;

/// The configured zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zones {
    /// Longest names first, so that the first that holds a name is its zone.
    pub zones: Vec<Zone>,
    /// Seconds of SOA and NS records.
    pub ttl: u32,
}

/// One zone as the settings have it. The serial is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its name.
    pub origin: Name,
    /// Its start of authority, with serial 0.
    pub soa: Soa,
    /// Its name servers.
    pub servers: Vec<Name>,
}

impl Zones {
    /// Reads the settings.
    ///
    /// # Errors
    /// The setting's name and what is wrong with it.
    pub fn of_settings() -> Result<Self, String> {
        let seconds = |name: &str| {
            let given = settings::integer(name).unwrap_or(0);
            let fits = u32::try_from(given).ok().filter(|it| *it <= 0x7fff_ffff);
            fits.ok_or_else(|| {
                format!("{name} is {given}; it must be from 0 to 2147483647 seconds")
            })
        };
        let name = |setting: &str, text: &str| {
            Name::parse(text, None).map_err(|problem| format!("{setting}: {problem}"))
        };
        let servers = settings::texts("nameservers").unwrap_or_default();
        let servers: Vec<Name> = servers
            .iter()
            .map(|text| name("nameservers", text))
            .collect::<Result<_, _>>()?;
        let own = own_name();
        let mailbox = settings::text("hostmaster").unwrap_or_default();
        let mut zones: Vec<Zone> = Vec::new();
        for text in settings::texts("zones").unwrap_or_default() {
            let origin = match reverse_zone(&text)? {
                Some(reverse) => reverse,
                None => name("zones", &text)?,
            };
            if zones.iter().any(|zone| zone.origin == origin) {
                return Err(format!("zones: {origin} stands there twice"));
            }
            let below =
                |label: &str| Name::parse(label, Some(&origin)).map_err(|it| it.to_string());
            let servers = match (servers.as_slice(), &own) {
                ([], Some(own)) => vec![own.clone()],
                ([], None) => vec![below("ns")?],
                (given, _) => given.to_vec(),
            };
            let mailbox = match mailbox.as_str() {
                "" => below("hostmaster")?,
                text => name("hostmaster", &as_name(text))?,
            };
            let soa = Soa {
                primary: servers.first().cloned().unwrap_or_else(|| origin.clone()),
                mailbox,
                serial: 0,
                refresh: seconds("soa_refresh")?,
                retry: seconds("soa_retry")?,
                expire: seconds("soa_expire")?,
                minimum: seconds("negative_ttl")?,
            };
            zones.push(Zone {
                origin,
                soa,
                servers,
            });
        }
        zones.sort_by_key(|zone| std::cmp::Reverse(zone.origin.wire().len()));
        Ok(Self {
            zones,
            ttl: seconds("ttl")?,
        })
    }

    /// The zone of a name.
    #[must_use]
    pub fn of(&self, name: &Name) -> Option<&Zone> {
        self.zones.iter().find(|zone| name.is_within(&zone.origin))
    }
}

/// The name under which Foreman reaches this proxy, unless that is an address.
fn own_name() -> Option<Name> {
    let url = site::public_url(Audience::Foreman)?;
    let (_, rest) = url.split_once("://")?;
    let host = rest
        .split(['/', ':'])
        .next()
        .filter(|host| host.contains('.'))?;
    let is_name = host.parse::<Ipv4Addr>().is_err();
    Name::parse(host, None).ok().filter(|_| is_name)
}

/// A mail address as a name (RFC 1035 section 8): dots before the `@` are no ends of labels.
fn as_name(mailbox: &str) -> String {
    match mailbox.split_once('@') {
        Some((local, domain)) => format!("{}.{domain}", local.replace('.', "\\.")),
        None => mailbox.to_owned(),
    }
}

/// `192.0.2.0/24` and `2001:db8::/32` stand for their reverse zones. None: a name, as is `0/25.2.0.192.in-addr.arpa` (RFC 2317).
fn reverse_zone(text: &str) -> Result<Option<Name>, String> {
    let Some((address, length)) = text.split_once('/').filter(|(_, rest)| !rest.contains('.'))
    else {
        return Ok(None);
    };
    let wrong = |why: &str| format!("zones: `{text}` {why}");
    let length: usize = length.parse().map_err(|_| wrong("is no network"))?;
    let (digits, top, step, most) = if let Ok(v4) = address.parse::<Ipv4Addr>() {
        let octets: Vec<String> = v4.octets().iter().map(ToString::to_string).collect();
        (octets, "in-addr.arpa", 8, 32)
    } else {
        let v6: Ipv6Addr = address.parse().map_err(|_| wrong("is no network"))?;
        let nibble = |byte: &u8| [format!("{:x}", byte >> 4), format!("{:x}", byte & 15)];
        (
            v6.octets().iter().flat_map(nibble).collect(),
            "ip6.arpa",
            4,
            128,
        )
    };
    if length == 0 || length > most || !length.is_multiple_of(step) {
        return Err(wrong(&format!(
            "must end at a multiple of {step} bits to be a reverse zone; name the zones themselves"
        )));
    }
    let labels: Vec<String> = digits.into_iter().take(length / step).rev().collect();
    let name = format!("{}.{top}", labels.join("."));
    Name::parse(&name, None)
        .map(Some)
        .map_err(|it| it.to_string())
}
