//! WASI 0.2 for plugins: everything is linked, and everything is asked.
//!
//! A component built with an ordinary standard library imports all of WASI, whether it uses it or not. So every interface is
//! there, and each use is decided by the plugin's [`Guard`](crate::grant::Guard): a plugin without grants finds no directory, resolves no name and
//! reaches no address. There are no arguments and no environment; what it prints becomes log lines; the randomness of one call is
//! bounded.
//!
//! Clocks, randomness, polling and the bytes of streams are wasmtime's own. Files, TCP and names are ours, because
//! wasmtime's have no quotas, no revocation and no names: they implement the same bindings, and keep their own
//! records in the resource table under the numbers of the plugin's handles.
//!
//! | Part | Holds |
//! |---|---|
//! | [`access`] | what all instances of a plugin share |
//! | [`mount`], [`quota`] | granted directories and files, and how much they may hold |
//! | `files`, `tree`, `descriptor`, `file_streams` | `wasi:filesystem` |
//! | `tcp`, `connection`, `udp`, `sockets`, [`names`] | `wasi:sockets` |
//! | [`stdio`] | standard output and error as log lines |
//! | [`blocking`] | blocking work, bounded per plugin |

pub mod access;
pub mod blocking;
mod connection;
mod descriptor;
mod errors;
mod file_streams;
mod files;
pub mod mount;
pub mod names;
pub mod quota;
mod sockets;
pub mod stdio;
mod tcp;
mod tree;
mod udp;

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliCtxView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksCtxView};
use wasmtime_wasi::p2::bindings::sockets as wasi_sockets;
use wasmtime_wasi::p2::bindings::{LinkOptions, cli, clocks, filesystem, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};
use wasmtime_wasi_io::bindings::wasi::io;

use self::access::{PluginAccess, Taken};
use self::stdio::{Printed, Stream};
use crate::grant::Guard;

/// The data of a store whose component gets WASI.
pub trait WasiHost: Send + 'static {
    /// The instance's WASI parts, and the table of its open resources.
    fn wasi(&mut self) -> (&mut WasiParts, &mut ResourceTable);
}

/// What one instance has of WASI.
pub struct WasiParts {
    access: Arc<PluginAccess>,
    stock: WasiCtx,
    /// The places of the instance's UDP sockets, by the numbers of their handles.
    udp: HashMap<u32, Taken>,
}

/// The parts and the table, borrowed from a store for one call. Only the linker needs the name.
pub struct WasiView<'a> {
    parts: &'a mut WasiParts,
    table: &'a mut ResourceTable,
}

impl WasiParts {
    /// The parts of a new instance. Without `access` it has none: for the empty sandbox in which a plugin describes itself.
    pub fn new(guard: &Guard, access: Option<&Arc<PluginAccess>>) -> Self {
        let access = access
            .cloned()
            .unwrap_or_else(|| PluginAccess::nothing(guard.plugin()));
        let plugin: Arc<str> = access.guard().plugin().into();
        let guard = access.guard().clone();
        let stock = WasiCtxBuilder::new()
            .stdout(Printed::new(
                plugin.clone(),
                Stream::Out,
                access.lines().clone(),
            ))
            .stderr(Printed::new(plugin, Stream::Error, access.lines().clone()))
            .max_random_size(guard.effective().limits.random)
            .allow_udp(true)
            .socket_addr_check(move |address, usage| {
                let allowed = sockets::address_is_allowed(&guard, address, usage);
                Box::pin(std::future::ready(allowed))
            })
            .build();
        Self {
            access,
            stock,
            udp: HashMap::new(),
        }
    }

    /// What all instances of the plugin share.
    pub fn access(&self) -> &Arc<PluginAccess> {
        &self.access
    }
}

/// Names the type of view that a linked interface works on.
struct Ours;

impl HasData for Ours {
    type Data<'a> = WasiView<'a>;
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// Links WASI 0.2 (cli, clocks, random, io, filesystem, sockets) for components of this store's type.
///
/// # Errors
/// When the linker already has one of the interfaces.
pub fn add_to_linker<T: WasiHost>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    add_stock(linker)?;
    filesystem::preopens::add_to_linker::<T, Ours>(linker, view)?;
    filesystem::types::add_to_linker::<T, Ours>(linker, view)?;
    let options = LinkOptions::default();
    wasi_sockets::network::add_to_linker::<T, Ours>(linker, &(&options).into(), view)?;
    wasi_sockets::instance_network::add_to_linker::<T, Ours>(linker, view)?;
    wasi_sockets::tcp_create_socket::add_to_linker::<T, Ours>(linker, view)?;
    wasi_sockets::tcp::add_to_linker::<T, Ours>(linker, view)?;
    wasi_sockets::udp_create_socket::add_to_linker::<T, Ours>(linker, view)?;
    wasi_sockets::udp::add_to_linker::<T, Ours>(linker, view)?;
    wasi_sockets::ip_name_lookup::add_to_linker::<T, Ours>(linker, view)?;
    Ok(())
}

/// What wasmtime implements as we want it.
fn add_stock<T: WasiHost>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    io::error::add_to_linker::<T, Table>(linker, |host| view(host).table)?;
    io::poll::add_to_linker::<T, Table>(linker, |host| view(host).table)?;
    io::streams::add_to_linker::<T, Table>(linker, |host| view(host).table)?;
    clocks::wall_clock::add_to_linker::<T, WasiClocks>(linker, clocks_of)?;
    clocks::monotonic_clock::add_to_linker::<T, WasiClocks>(linker, clocks_of)?;
    random::random::add_to_linker::<T, WasiRandom>(linker, |host| view(host).parts.stock.random())?;
    random::insecure::add_to_linker::<T, WasiRandom>(linker, |host| {
        view(host).parts.stock.random()
    })?;
    random::insecure_seed::add_to_linker::<T, WasiRandom>(linker, |host| {
        view(host).parts.stock.random()
    })?;
    cli::exit::add_to_linker::<T, WasiCli>(linker, cli_of)?;
    cli::environment::add_to_linker::<T, WasiCli>(linker, cli_of)?;
    cli::stdin::add_to_linker::<T, WasiCli>(linker, cli_of)?;
    cli::stdout::add_to_linker::<T, WasiCli>(linker, cli_of)?;
    cli::stderr::add_to_linker::<T, WasiCli>(linker, cli_of)?;
    cli::terminal_input::add_to_linker::<T, WasiCli>(linker, cli_of)?;
    cli::terminal_output::add_to_linker::<T, WasiCli>(linker, cli_of)?;
    cli::terminal_stdin::add_to_linker::<T, WasiCli>(linker, cli_of)?;
    cli::terminal_stdout::add_to_linker::<T, WasiCli>(linker, cli_of)?;
    cli::terminal_stderr::add_to_linker::<T, WasiCli>(linker, cli_of)?;
    Ok(())
}

fn view<T: WasiHost>(host: &mut T) -> WasiView<'_> {
    let (parts, table) = host.wasi();
    WasiView { parts, table }
}

fn clocks_of<T: WasiHost>(host: &mut T) -> WasiClocksCtxView<'_> {
    let WasiView { parts, table } = view(host);
    WasiClocksCtxView {
        ctx: parts.stock.clocks(),
        table,
    }
}

fn cli_of<T: WasiHost>(host: &mut T) -> WasiCliCtxView<'_> {
    let WasiView { parts, table } = view(host);
    WasiCliCtxView {
        ctx: parts.stock.cli(),
        table,
    }
}

#[cfg(test)]
mod tests;
