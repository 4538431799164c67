//! What a machine shall boot: by its reservation, else by its architecture.
//!
//! Firmware that boots over HTTP (vendor class `HTTPClient`) takes only URLs, and only from an answer that says `HTTPClient` back. It is told name
//! servers only where the URL has a name. All other firmware takes file names of the TFTP server. A file of the wrong kind is left out: nothing is better than a boot that hangs.

use std::net::Ipv4Addr;

use crate::packet::{Reply, Request, code};
use crate::reservation::Reserved;
use crate::subnets::{Config, Loader, Subnet};

const HTTP_CLIENT: &[u8] = b"HTTPClient";

/// Fills in boot file and server. `own`: this server's address.
pub fn fill(
    reply: &mut Reply,
    request: &Request,
    config: &Config,
    subnet: &Subnet,
    reserved: Option<&Reserved>,
    own: Ipv4Addr,
) {
    let is_http = request
        .option(code::VENDOR_CLASS)
        .is_some_and(|it| it.starts_with(HTTP_CLIENT));
    let Some(file) = file(request, config, subnet, reserved, is_http) else {
        return;
    };
    let named = reserved.and_then(|it| it.text("nextServer"));
    let server = named.and_then(|text| text.parse().ok());
    let server = server.or(subnet.next_server).unwrap_or(own);
    reply.next_server = server;
    // A name is for clients that can look it up; the address stands in the header anyway.
    if request.wants(code::TFTP_SERVER) {
        let text = named.map_or_else(|| server.to_string(), str::to_owned);
        reply.option(code::TFTP_SERVER, text.into_bytes());
    }
    let bytes = file.into_bytes();
    if is_http || bytes.len() > 127 || request.wants(code::BOOT_FILE) {
        reply.option(code::BOOT_FILE, bytes.clone());
    }
    if is_http {
        reply.option(code::VENDOR_CLASS, HTTP_CLIENT);
        // Told name servers, firmware writes them into the path of what it loaded, and GRUB 2.06 then finds neither its network nor its menu.
        if names_an_address(&bytes) {
            reply.without(code::DNS);
        }
    }
    reply.file = bytes;
}

/// Whether a URL is reached without asking for a name.
fn names_an_address(url: &[u8]) -> bool {
    let text = String::from_utf8_lossy(url);
    let Some((_, rest)) = text.split_once("://") else {
        return false;
    };
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    host.parse::<Ipv4Addr>().is_ok()
}

fn file(
    request: &Request,
    config: &Config,
    subnet: &Subnet,
    reserved: Option<&Reserved>,
    is_http: bool,
) -> Option<String> {
    let of = |loader: Loader| {
        let found = config.boot_files.iter().find(|(it, _)| *it == loader);
        found.map(|(_, file)| file.as_str())
    };
    let is_ipxe = request
        .option(code::USER_CLASS)
        .is_some_and(|it| it.ends_with(b"iPXE"));
    if is_ipxe && let Some(script) = of(Loader::Ipxe) {
        return Some(script.to_owned());
    }
    let architecture = request
        .option(code::ARCHITECTURE)
        .and_then(|it| it.first_chunk::<2>());
    let by_architecture = architecture
        .map(|it| u16::from_be_bytes(*it))
        .and_then(|it| of(Loader::Architecture(it)));
    let fits = |file: &&str| file.contains("://") == is_http || (is_ipxe && !is_http);
    let reserved = reserved.and_then(|it| it.text("filename"));
    // What Foreman wrote for this host is given as it is to whoever can use it.
    let reserved = reserved.filter(|file| !is_http || file.contains("://"));
    reserved
        .or_else(|| by_architecture.filter(fits))
        .or_else(|| subnet.filename.as_deref().filter(fits))
        .map(str::to_owned)
}
