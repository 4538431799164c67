//! The feature `facts`: what the machine is that the proxy runs on, as the discovery image's proxy tells it.
//!
//! Foreman alone may ask. A plugin sees no machine: it reads a few files that the kernel and the system keep, each granted by itself, and sends
//! nothing anywhere. What one of them does not say is left out; nothing is guessed.
//!
//! The one idea: each request reads the files anew, and each part of the facts is a function from their text.

mod devices;
mod network;
mod system;

use bulkhead_sdk::files::Folder;
use bulkhead_sdk::prelude::*;
use serde_json::{Map, Value};

struct Facts;

/// The slots of single files, each with the file's name and why it is read.
const FILES: [(&str, &str, &str); 13] = [
    ("kernel-name", "ostype", "the fact `kernel`"),
    ("kernel-release", "osrelease", "the kernel's release"),
    ("hostname", "hostname", "the machine's name"),
    ("hosts", "hosts", "the machine's name with its domain"),
    (
        "resolver",
        "resolv.conf",
        "the domain, where nothing else says it",
    ),
    (
        "os-release",
        "os-release",
        "the operating system and its release",
    ),
    (
        "processors",
        "cpuinfo",
        "number and models of the processors",
    ),
    ("memory", "meminfo", "size and use of the memory"),
    ("uptime", "uptime", "how long the machine has been up"),
    ("interfaces", "dev", "names of the network interfaces"),
    (
        "routes",
        "route",
        "networks of the interfaces, and which one is the primary",
    ),
    ("addresses", "fib_trie", "IPv4 addresses"),
    ("addresses6", "if_inet6", "IPv6 addresses"),
];

impl Plugin for Facts {
    fn describe() -> Manifest {
        let manifest = Manifest::new(
            "facts",
            env!("CARGO_PKG_VERSION"),
            "Facts of the machine the proxy runs on",
        )
        .mount("/facts")
        .route(get("/facts"), all)
        .route(get("/facts/"), all)
        .route(get("/facts/:fact"), one)
        .need(
            Need::files(
                "devices",
                Access::Read,
                "hardware addresses of network interfaces, and who made the machine",
            )
            .optional(),
        );
        FILES.iter().fold(manifest, |manifest, (slot, _, reason)| {
            manifest.need(Need::files(slot, Access::Read, reason).optional())
        })
    }
}

bulkhead_sdk::export_feature!(Facts);

fn all(_: &Request) -> Json<Value> {
    Json(Value::Object(gathered()))
}

fn one(request: &Request) -> Result<Json<Value>, Failure> {
    let name = request.text("fact").unwrap_or_default();
    match gathered().remove(name) {
        Some(value) if value != Value::Bool(false) => Ok(Json(Value::Object(Map::from_iter([(
            name.to_owned(),
            value,
        )])))),
        _ => Err(Failure::not_found(format!("Fact {name} not found"))),
    }
}

/// All facts, by structured and by older names.
fn gathered() -> Map<String, Value> {
    let mut facts = Map::new();
    let devices = devices::seen();
    system::tell(&mut facts, &devices, text);
    network::tell(&mut facts, &devices, text);
    facts
}

/// The text of a slot's file; empty when it cannot be read.
fn text(slot: &str) -> String {
    let Some((_, file, _)) = FILES.iter().find(|(known, _, _)| *known == slot) else {
        return String::new();
    };
    match Folder::slot(slot).read(file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(problem) => {
            log::debug(format!("`{slot}` cannot be read: {problem}"));
            String::new()
        }
    }
}

#[cfg(test)]
mod tests;
