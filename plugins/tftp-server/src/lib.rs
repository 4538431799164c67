//! The service `tftp-server`: gives firmware and boot loaders their files over TFTP, and takes none.
//!
//! It opens no file and keeps no socket. It reads the request, and says which file below the slot `root` shall go to whom, in blocks of what
//! size. Writing is refused with the protocol's own error, and a path that leads out as well.
//!
//! The one idea: the component decides each transfer, the host moves the blocks. So the part that reads what anybody may send holds
//! nothing that could be taken from it, and thousands of transfers cost it one decision each.

#[cfg(not(target_arch = "wasm32"))]
pub mod fuzz;
pub mod request;

use std::cell::RefCell;

use bulkhead_sdk::prelude::*;
use bulkhead_sdk::reactor::{Datagram, Reaction, Service, Transfer, Transport};

use request::{Asked, ReadRequest, Refusal, Wish};

/// Bytes a block when the client names none (RFC 1350).
const PLAIN_BLOCK: u16 = 512;

/// The server.
#[derive(Debug)]
pub struct TftpServer;

impl Plugin for TftpServer {
    fn describe() -> Manifest {
        Manifest::new(
            "tftp-server",
            env!("CARGO_PKG_VERSION"),
            "Serves boot files over TFTP, read-only",
        )
        .single_instance()
        .need(Need::listen(
            "tftp",
            "receives the requests of firmware and boot loaders",
        ))
        .need(Need::files(
            "root",
            Access::Read,
            "serves boot loaders, kernels and menus to booting machines",
        ))
        .setting(
            Setting::texts("listen", "Where to listen, for example `udp 0.0.0.0:69`")
                .default(&["udp 0.0.0.0:69", "udp [::]:69"][..])
                .required(),
        )
        .setting(
            Setting::path(
                "tftproot",
                "The directory served, usually that of the feature tftp",
            )
            .default("/var/lib/tftpboot")
            .required(),
        )
        .setting(
            Setting::integer(
                "max_block_size",
                "The largest block in bytes, 512 to 65464. 1468 fits an Ethernet frame",
            )
            .default(1468)
            .required(),
        )
        .setting(
            Setting::integer(
                "max_window_size",
                "The most blocks sent before an acknowledgement, 1 to 65535",
            )
            .default(64)
            .required(),
        )
        .setting(
            Setting::integer(
                "timeout",
                "Seconds before a block is sent again where the client names none, 1 to 255",
            )
            .default(1)
            .required(),
        )
        .setting(
            Setting::integer("retries", "How often a block is sent again, 0 to 255")
                .default(6)
                .required(),
        )
    }

    fn status() -> Status {
        match Limits::of_settings() {
            Ok(_) => Status::working(),
            Err(problem) => Status::failing(problem),
        }
    }

    fn start() -> Result<(), String> {
        LIMITS.set(Some(Limits::of_settings()?));
        Ok(())
    }
}

impl Service for TftpServer {
    fn datagrams(batch: Vec<Datagram>) -> Vec<Reaction> {
        LIMITS.with_borrow(|limits| match limits {
            Some(limits) => batch.iter().filter_map(|it| limits.react(it)).collect(),
            None => Vec::new(),
        })
    }
}

bulkhead_sdk::export_service!(TftpServer);

thread_local! {
    static LIMITS: RefCell<Option<Limits>> = const { RefCell::new(None) };
}

/// What the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limits {
    root: String,
    block_size: u16,
    window_size: u16,
    timeout: u8,
    retries: u8,
}

impl Limits {
    fn of_settings() -> Result<Self, String> {
        let within = |name: &str, least: i64, most: i64| {
            let value = settings::integer(name).unwrap_or(least);
            match (least..=most).contains(&value) {
                true => Ok(value),
                false => Err(format!(
                    "{name} is {value}; it must be from {least} to {most}"
                )),
            }
        };
        let small = |name, least| within(name, least, 255).map(|it| u8::try_from(it).unwrap_or(1));
        let large = |name, least, most| {
            within(name, least, most).map(|it| u16::try_from(it).unwrap_or(PLAIN_BLOCK))
        };
        Ok(Self {
            root: settings::text("tftproot").unwrap_or_default(),
            block_size: large("max_block_size", i64::from(PLAIN_BLOCK), 65_464)?,
            window_size: large("max_window_size", 1, 65_535)?,
            timeout: small("timeout", 1)?,
            retries: small("retries", 0)?,
        })
    }

    /// A request that was said again is answered again: the host knows whether its transfer runs.
    fn react(&self, datagram: &Datagram) -> Option<Reaction> {
        match request::read(&datagram.bytes, &self.root) {
            Asked::Read(request) => Some(Reaction::Transfer(self.transfer(datagram, request))),
            Asked::Refused(refusal) => Some(Reaction::Send(error_to(datagram, &refusal))),
            Asked::Nothing => None,
        }
    }

    fn transfer(&self, datagram: &Datagram, request: ReadRequest) -> Transfer {
        let mut transfer = Transfer {
            slot: datagram.slot.clone(),
            peer: datagram.peer.clone(),
            local: datagram.local.clone(),
            files: "root".to_owned(),
            path: request.path,
            netascii: request.netascii,
            block_size: PLAIN_BLOCK,
            window_size: 1,
            timeout: u32::from(self.timeout) * 1000,
            retries: self.retries,
            options: Vec::new(),
        };
        for wish in request.options {
            let value = match wish {
                Wish::BlockSize(bytes) => {
                    transfer.block_size = bytes.min(self.block_size);
                    transfer.block_size.to_string()
                }
                Wish::WindowSize(blocks) => {
                    transfer.window_size = blocks.min(self.window_size);
                    transfer.window_size.to_string()
                }
                Wish::Timeout(seconds) => {
                    transfer.timeout = u32::from(seconds) * 1000;
                    seconds.to_string()
                }
                // Line ends change the size, and nobody has counted them yet.
                Wish::TransferSize if request.netascii => continue,
                // The host puts in the size.
                Wish::TransferSize => "0".to_owned(),
            };
            transfer.options.push((wish.name().to_owned(), value));
        }
        transfer
    }
}

fn error_to(datagram: &Datagram, refusal: &Refusal) -> Datagram {
    let mut bytes = vec![0, 5];
    bytes.extend(refusal.code().to_be_bytes());
    bytes.extend(refusal.to_string().as_bytes());
    bytes.push(0);
    Datagram {
        slot: datagram.slot.clone(),
        transport: Transport::Udp,
        peer: datagram.peer.clone(),
        local: datagram.local.clone(),
        port: None,
        bytes,
    }
}

#[cfg(test)]
mod tests;
