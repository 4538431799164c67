//! The feature `tftp`: writes the files from which machines boot, as Foreman asks.
//!
//! It serves no TFTP: a TFTP server on the same machine reads the same directory. It writes below the slot `root` only, which
//! the policy binds to the setting `tftproot`; a boot file is fetched by the host into the same directory.
//!
//! The one idea: a *variant* (PXELinux, PXEGrub2, ...) decides the names of a host's files; what stands in them is Foreman's.

mod boot_file;
mod variant;

use bulkhead_sdk::files::{FileError, Folder};
use bulkhead_sdk::prelude::*;

use variant::Variant;

const CREATE_FAILED: &str = "TFTP: Failed to create pxe config file";
const DEFAULT_FAILED: &str = "TFTP: Failed to create PXE default file";
const DELETE_FAILED: &str = "TFTP: Failed to delete pxe config file";
const FETCH_FAILED: &str = "TFTP: Failed to fetch boot file";
const READ_FAILED: &str = "TFTP: Failed to retrieve pxe config file";

struct Tftp;

impl Plugin for Tftp {
    fn describe() -> Manifest {
        Manifest::new(
            "tftp",
            env!("CARGO_PKG_VERSION"),
            "Writes boot menus and fetches boot files for Foreman",
        )
        .mount("/tftp")
        .route(get("/tftp/serverName"), server_name)
        .route(post("/tftp/fetch_boot_file"), fetch_boot_file)
        .route(post("/tftp/create_default"), create_default)
        .route(post("/tftp/:variant/create_default"), create_default)
        .route(get("/tftp/:variant/:mac"), read)
        .route(post("/tftp/:variant/:mac"), create)
        .route(delete("/tftp/:variant/:mac"), remove)
        .route(post("/tftp/:mac"), create)
        .route(delete("/tftp/:mac"), remove)
        .need(Need::files(
            "root",
            Access::ReadWrite,
            "writes and removes one boot menu per host",
        ))
        .need(Need::downloads(
            "boot-files",
            "fetches kernels and initial RAM disks from installation media",
        ))
        .setting(
            Setting::path("tftproot", "The directory that the TFTP server serves")
                .default("/var/lib/tftpboot")
                .required(),
        )
        .setting(
            Setting::text(
                "tftp_servername",
                "The TFTP server's name for DHCP, when it is not the proxy's own",
            )
            .exposed(),
        )
        .setting(
            Setting::integer(
                "tftp_connect_timeout",
                "Seconds to wait for an installation medium to answer",
            )
            .default(10)
            .required(),
        )
        .setting(
            Setting::boolean(
                "verify_server_cert",
                "Check the TLS certificate of installation media",
            )
            .default(true)
            .required(),
        )
    }
}

bulkhead_sdk::export_feature!(Tftp);

/// The name that Foreman gives to DHCP. JSON, though the type says text: Foreman reads it so.
fn server_name(_: &Request) -> String {
    let name = settings::text("tftp_servername").unwrap_or_default();
    serde_json::json!({ "serverName": name }).to_string()
}

/// Writes the host's boot menu; older Foreman versions call the field `syslinux_config`.
fn create(request: &Request) -> Result<(), Failure> {
    let (mac, variant) = host_of(request)?;
    let menu = request
        .bytes("pxeconfig")
        .or_else(|| request.bytes("syslinux_config"));
    let menu = menu
        .ok_or("Invalid parameters received")
        .or_bad_request(CREATE_FAILED)?;
    write_all(&variant.host_files(&mac), menu).or_bad_request(CREATE_FAILED)
}

/// Writes the menu for hosts without one of their own.
fn create_default(request: &Request) -> Result<(), Failure> {
    let variant = variant_of(request)?;
    let menu = request
        .bytes("menu")
        .ok_or("Default config not supplied")
        .or_bad_request(DEFAULT_FAILED)?;
    write_all(&variant.default_files(), menu).or_bad_request(DEFAULT_FAILED)
}

/// Reads the first of the host's files; all of them are equal.
fn read(request: &Request) -> Result<Vec<u8>, Failure> {
    let (mac, variant) = host_of(request)?;
    let first = variant
        .host_files(&mac)
        .into_iter()
        .next()
        .unwrap_or_default();
    let content = Folder::slot("root").read(&first).map_err(|why| match why {
        FileError::NotFound => format!("File {} not found", full_path(&first)),
        other => explain(&other, &first),
    });
    content.or_not_found(READ_FAILED)
}

/// Removes the host's files. None there is fine: Foreman removes those of every variant.
fn remove(request: &Request) -> Result<(), Failure> {
    let (mac, variant) = host_of(request)?;
    for file in variant.host_files(&mac) {
        Folder::slot("root")
            .remove(&file)
            .map_err(|why| explain(&why, &file))
            .or_bad_request(DELETE_FAILED)?;
    }
    Ok(())
}

/// Starts to fetch a kernel or the like; 200 before the transfer has begun, its failure is in the log.
fn fetch_boot_file(request: &Request) -> Result<(), Failure> {
    boot_file::fetch(request.text("prefix"), request.text("path")).or_bad_request(FETCH_FAILED)
}

/// Checked in this order: first the MAC address, then the variant.
fn host_of(request: &Request) -> Result<(MacAddress, Variant), Failure> {
    let mac = request.parse_or("mac", Failure::forbidden)?;
    Ok((mac, variant_of(request)?))
}

/// Routes without a variant are those of the oldest Foreman versions, which knew only one.
fn variant_of(request: &Request) -> Result<Variant, Failure> {
    match request.text("variant") {
        Some(_) => request.parse_or("variant", Failure::forbidden),
        None => Ok(Variant::Pxelinux),
    }
}

fn write_all(files: &[String], content: &[u8]) -> Result<(), String> {
    files.iter().try_for_each(|file| {
        Folder::slot("root")
            .write_whole(file, content)
            .map_err(|why| explain(&why, file))
    })
}

fn explain(why: &FileError, file: &str) -> String {
    format!("{why} - {}", full_path(file))
}

/// The path as the operator knows it, for messages: the plugin itself sees only its slot.
fn full_path(file: &str) -> String {
    let root = settings::text("tftproot").unwrap_or_default();
    format!("{}/{file}", root.trim_end_matches('/'))
}

#[cfg(test)]
mod tests;
