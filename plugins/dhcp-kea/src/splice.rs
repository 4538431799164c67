//! Adding and removing reservations in the text of a configuration, every other byte left as Kea wrote it.
//!
//! The one idea: the text is not read into values and written again, which would need many times its size and could change what this
//! plugin does not know. Its parts are found as slices of the text, and the new text is made around them.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::host::Host;

#[derive(Deserialize)]
struct Dhcp4<'a> {
    #[serde(borrow, default)]
    subnet4: Vec<&'a RawValue>,
    #[serde(borrow, default, rename = "shared-networks")]
    shared_networks: Vec<Network<'a>>,
}

#[derive(Deserialize)]
struct Network<'a> {
    #[serde(borrow, default)]
    subnet4: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Subnet<'a> {
    id: u32,
    #[serde(borrow, default)]
    reservations: Option<&'a RawValue>,
}

/// Where `part` lies in `whole`.
fn range(whole: &str, part: &RawValue) -> Option<Range<usize>> {
    let begin = (part.get().as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = begin.checked_add(part.get().len())?;
    (whole.get(begin..end)? == part.get()).then_some(begin..end)
}

fn junk(why: impl std::fmt::Display) -> Failure {
    Failure::Junk(format!("config-get: {why}"))
}

/// The subnet's text, and that of its reservations.
fn subnet(dhcp4: &str, id: u32) -> Result<(&RawValue, Option<&RawValue>), Failure> {
    let parts: Dhcp4<'_> = serde_json::from_str(dhcp4).map_err(junk)?;
    let networks = parts.shared_networks.into_iter();
    for text in parts
        .subnet4
        .into_iter()
        .chain(networks.flat_map(|network| network.subnet4))
    {
        let found: Subnet<'_> = serde_json::from_str(text.get()).map_err(junk)?;
        if found.id == id {
            return Ok((text, found.reservations));
        }
    }
    Err(Failure::UnknownSubnet)
}

fn replaced(whole: &str, place: Range<usize>, with: &str) -> Result<String, Failure> {
    let (before, after) = (whole.get(..place.start), whole.get(place.end..));
    let (Some(before), Some(after)) = (before, after) else {
        return Err(junk("a part lies outside of the text"));
    };
    Ok([before, with, after].concat())
}

/// The text with one more reservation in that subnet.
pub(crate) fn with_added(dhcp4: &str, id: u32, host: &Host) -> Result<String, Failure> {
    let lost = || junk("a part lies outside of the text");
    let host = host.written(None).to_string();
    let (subnet, reservations) = subnet(dhcp4, id)?;
    match reservations {
        Some(list) => {
            let place = range(dhcp4, list).ok_or_else(lost)?;
            let inside = list
                .get()
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
                .ok_or_else(|| junk("`reservations` is no list"))?;
            let comma = if inside.trim().is_empty() { "" } else { ", " };
            replaced(dhcp4, place, &format!("[{inside}{comma}{host}]"))
        }
        None => {
            let place = range(dhcp4, subnet).ok_or_else(lost)?;
            let start = place.start..place.start + 1;
            replaced(dhcp4, start, &format!("{{\"reservations\": [{host}], "))
        }
    }
}

/// The text without the reservations of that subnet for which `goes` is true, and how many those are.
pub(crate) fn with_removed(
    dhcp4: &str,
    id: u32,
    goes: impl Fn(&Host) -> bool,
) -> Result<(String, usize), Failure> {
    let (_, Some(list)) = subnet(dhcp4, id)? else {
        return Ok((dhcp4.to_owned(), 0));
    };
    let all: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(junk)?;
    let mut stay = Vec::with_capacity(all.len());
    for text in &all {
        let host: Host = serde_json::from_str(text.get()).map_err(junk)?;
        if !goes(&host) {
            stay.push(text.get());
        }
    }
    let place = range(dhcp4, list).ok_or_else(|| junk("a part lies outside of the text"))?;
    let text = replaced(dhcp4, place, &format!("[ {} ]", stay.join(", ")))?;
    Ok((text, all.len() - stay.len()))
}
