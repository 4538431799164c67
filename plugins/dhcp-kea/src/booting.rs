//! What a machine is told beside its boot file and its boot server, by the form of the file's name. None of it is shown again when it only repeats
//! what the reservation says.
//!
//! | `filename` | added |
//! |---|---|
//! | `http://..`, `https://..` | option 67 with the URL, option 60 `HTTPClient`, both sent unasked |
//! | `poap.cfg..` | options 66 (the boot server as Foreman names it) and 67: switches look there |
//! | `ztp.cfg..` | option 150 with the boot server's address, option 43 with the file; for Huawei option 143 with its firmware |
//! | of 128 octets and more | option 67 instead of the header's field, which ends there |

use std::net::Ipv4Addr;

use bulkhead_sdk::dhcp::{DhcpOption, OptionValue};

use crate::failure::Failure;
use crate::options::{
    BOOT_FILE_NAME, Datum, FIRMWARE, HTTP_CLIENT, TFTP_SERVER_ADDRESS, TFTP_SERVER_NAME,
    VENDOR_CLASS, VENDOR_OPTIONS,
};

/// The header's field of a file name holds 128 octets with its final zero (RFC 2131 section 2).
pub(crate) const FILE_FIELD: usize = 127;

/// The option within option 43 in which switches look for their file. Kea takes it as one of a space of its own.
const CONFIG_FILE_NAME: u16 = 1;

/// Kea's name for what stands within option 43.
const WITHIN_VENDOR_OPTIONS: &str = "vendor-encapsulated-options-space";

/// An option's length is one octet (RFC 2132 section 2).
const LONGEST: usize = 255;

/// The options for a file, besides those that Foreman sends.
pub(crate) fn options(
    file: &str,
    address: Option<Ipv4Addr>,
    sent: &[DhcpOption],
) -> Result<Vec<Datum>, Failure> {
    let lower = file.to_ascii_lowercase();
    let mut found = Vec::new();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        found.push(Datum::text(VENDOR_CLASS, HTTP_CLIENT).always());
        found.push(Datum::text(BOOT_FILE_NAME, file).always());
    } else if lower.starts_with("poap.cfg") {
        found.extend(text(sent, "nextServer").map(|name| Datum::text(TFTP_SERVER_NAME, name)));
        found.push(Datum::text(BOOT_FILE_NAME, file));
    } else if file.len() > FILE_FIELD {
        found.push(Datum::text(BOOT_FILE_NAME, file));
    }
    if lower.starts_with("ztp.cfg") {
        let server = address.map(|address| Datum::bytes(TFTP_SERVER_ADDRESS, &address.octets()));
        found.extend(server);
        if file.len() + 2 > LONGEST {
            return Err(too_long("filename"));
        }
        found.push(Datum::text(VENDOR_OPTIONS, ""));
        found.push(Datum::bytes(CONFIG_FILE_NAME, file.as_bytes()).within(WITHIN_VENDOR_OPTIONS));
        found.extend(firmware(sent)?);
    }
    Ok(found)
}

/// True when an option says no more than that a machine with this file and boot server boots.
pub(crate) fn is_implied(datum: &Datum, file: Option<&str>, server: Option<Ipv4Addr>) -> bool {
    let plain = datum.plain();
    let address = server.map(|server| server.octets().to_vec());
    datum.is(BOOT_FILE_NAME) && file == Some(&plain)
        || datum.is(TFTP_SERVER_NAME) && server.is_some_and(|server| server.to_string() == plain)
        || datum.is(VENDOR_CLASS) && plain == HTTP_CLIENT && file.is_some()
        || datum.is(TFTP_SERVER_ADDRESS) && address.is_some() && datum.octets() == address
        || datum.space == WITHIN_VENDOR_OPTIONS
            && datum.code == Some(CONFIG_FILE_NAME)
            && file == Some(&plain)
}

/// Kea's refusal of an option, with the way out where there is one.
pub(crate) fn explained(why: Failure) -> Failure {
    let text = why.to_string();
    if !text.contains(&format!("code: {FIRMWARE})")) {
        return why;
    }
    Failure::Refused(format!(
        "{text}. This Kea keeps option {FIRMWARE} for secure zero touch provisioning (RFC 8572) and has no place for `ztp_firmware`: leave it out, and let \
         the file say which firmware a switch takes"
    ))
}

/// True for an option 43 whose content is written one by one: what Kea says that its octets are differs by version.
pub(crate) fn is_shell(datum: &Datum, all: &[Datum]) -> bool {
    datum.is(VENDOR_OPTIONS) && all.iter().any(|other| other.space == WITHIN_VENDOR_OPTIONS)
}

fn firmware(sent: &[DhcpOption]) -> Result<Option<Datum>, Failure> {
    let (Some("huawei"), Some(core), Some(web)) = (
        text(sent, "ztp_vendor"),
        text(sent, "ztp_firmware[core]"),
        text(sent, "ztp_firmware[web]"),
    ) else {
        return Ok(None);
    };
    let told = format!("vrpfile={core};webfile={web};");
    if told.len() > LONGEST {
        return Err(too_long("ztp_firmware"));
    }
    Ok(Some(Datum::bytes(FIRMWARE, told.as_bytes())))
}

fn too_long(name: &str) -> Failure {
    Failure::Refused(format!("{name} is too long for a DHCP option"))
}

fn text<'s>(sent: &'s [DhcpOption], name: &str) -> Option<&'s str> {
    let option = sent.iter().find(|option| option.name == name)?;
    match &option.value {
        OptionValue::Text(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}
