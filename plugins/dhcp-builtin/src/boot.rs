//! What a machine shall boot: by its reservation, else by its architecture.
//!
//! Firmware that boots over HTTP (vendor class `HTTPClient`) takes only URLs, and only from an answer that says `HTTPClient` back. It is told name
//! servers only where the URL has a name. All other firmware takes file names of the TFTP server. A file of the wrong kind is left out: nothing is better than a boot that hangs.
//!
//! The one idea: TFTP and `/httpboot` have the same files, so the boot file of an architecture is one name, which becomes a URL of this proxy for whoever needs one.

use std::net::Ipv4Addr;

use bulkhead_sdk::{Audience, site};

use crate::packet::{Reply, Request, code};
use crate::reservation::Reserved;
use crate::subnets::{Config, Loader, Subnet};

pub(crate) const HTTP_CLIENT: &[u8] = b"HTTPClient";

/// Fills in boot file and server. `own`: this server's address. False: there is nothing to boot.
pub fn fill(
    reply: &mut Reply,
    request: &Request,
    config: &Config,
    subnet: &Subnet,
    reserved: Option<&Reserved>,
    own: Ipv4Addr,
) -> bool {
    let is_http = request
        .option(code::VENDOR_CLASS)
        .is_some_and(|it| it.starts_with(HTTP_CLIENT));
    let Some(file) = file(request, config, subnet, reserved, is_http, own) else {
        return false;
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
    let bytes = file.as_bytes().to_vec();
    if is_http || bytes.len() > 127 || request.wants(code::BOOT_FILE) {
        reply.option(code::BOOT_FILE, bytes.clone());
    }
    if is_http {
        reply.option(code::VENDOR_CLASS, HTTP_CLIENT);
        // Told name servers, firmware writes them into the path of what it loaded, and GRUB 2.06 then finds neither its network nor its menu.
        if address_in(&file).is_some() {
            reply.without(code::DNS);
        }
    }
    reply.file = bytes;
    true
}

/// The address in a URL, which is reached without asking for a name.
fn address_in(url: &str) -> Option<Ipv4Addr> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.split(['/', ':']).next()?;
    host.parse().ok()
}

fn file(
    request: &Request,
    config: &Config,
    subnet: &Subnet,
    reserved: Option<&Reserved>,
    is_http: bool,
    own: Ipv4Addr,
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
    // Firmware may name several, the best first.
    let (architectures, _) = request
        .option(code::ARCHITECTURE)
        .unwrap_or_default()
        .as_chunks::<2>();
    let by_architecture = architectures
        .iter()
        .find_map(|it| of(Loader::Architecture(u16::from_be_bytes(*it))))
        .and_then(|file| match is_http && !file.contains("://") {
            true => url(file, own),
            false => Some(file.to_owned()),
        });
    let fits = |file: &str| file.contains("://") == is_http || (is_ipxe && !is_http);
    let reserved = reserved.and_then(|it| it.text("filename"));
    // What Foreman wrote for this host is given as it is to whoever can use it.
    let reserved = reserved.filter(|file| !is_http || file.contains("://"));
    reserved
        .map(str::to_owned)
        .or_else(|| by_architecture.filter(|it| fits(it)))
        .or_else(|| subnet.filename.clone().filter(|it| fits(it)))
}

/// Where this proxy serves a boot file to machines over plain HTTP, if it does. None as well where only this machine could read it.
fn url(file: &str, own: Ipv4Addr) -> Option<String> {
    let listener = site::public_url(Audience::Public).filter(|it| it.starts_with("http://"))?;
    // A name is this machine's own for itself; firmware that is told no name servers reaches the address.
    let base = match address_in(&listener) {
        Some(address) if address.is_loopback() => return None,
        Some(_) => listener,
        None => format!("http://{own}:{}", site::http_port()?),
    };
    let file = file.trim_start_matches('/');
    Some(format!("{base}/httpboot/{file}"))
}
