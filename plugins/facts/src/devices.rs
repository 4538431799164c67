//! What the kernel's tree of devices says: hardware addresses, and who made the machine.
//!
//! An interface stands somewhere below the bus it is plugged into, so it is searched for. The search keeps to directories of buses and
//! ends after a number of steps, however the tree looks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_sdk::files::Folder;

/// The slot.
const SLOT: &str = "devices";
/// Directories looked into at most: a large server has some thousand below its buses.
const MOST: usize = 4000;
/// How deep an interface may stand: bridges in bridges, a bus, the card, its port.
const DEEPEST: usize = 12;
/// Directories that hold no interface.
const ELSEWHERE: [&str; 16] = [
    "power",
    "msi_irqs",
    "firmware_node",
    "iommu",
    "hwmon",
    "drm",
    "sound",
    "input",
    "block",
    "thermal",
    "wakeup",
    "tty",
    "queues",
    "statistics",
    "i2c-adapter",
    "graphics",
];

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    /// Interfaces with their hardware address.
    pub(crate) addresses: BTreeMap<String, String>,
    /// `/sys/devices/virtual/dmi/id`: manufacturer and product.
    pub(crate) manufacturer: Option<String>,
    pub(crate) product: Option<String>,
}

/// Looks at the tree.
pub(crate) fn seen() -> Devices {
    let Ok(top) = Folder::slot(SLOT).at("virtual") else {
        return Devices::default();
    };
    let mut seen = Devices {
        manufacturer: line(&top.join("dmi/id/sys_vendor")),
        product: line(&top.join("dmi/id/product_name")),
        ..Devices::default()
    };
    interfaces(&top.join("net"), &mut seen.addresses);
    let Some(root) = top.parent() else {
        return seen;
    };
    let mut waiting: Vec<(PathBuf, usize)> = directories(root)
        .filter(|(name, _)| name != "virtual")
        .map(|(_, path)| (path, 1))
        .collect();
    for _ in 0..MOST {
        let Some((place, depth)) = waiting.pop() else {
            break;
        };
        for (name, path) in directories(&place) {
            if name == "net" {
                interfaces(&path, &mut seen.addresses);
            } else if depth < DEEPEST && !ELSEWHERE.contains(&name.as_str()) {
                waiting.push((path, depth + 1));
            }
        }
    }
    seen
}

/// The interfaces of one `net` directory.
fn interfaces(net: &Path, addresses: &mut BTreeMap<String, String>) {
    for (name, path) in directories(net) {
        let address = line(&path.join("address"));
        if let Some(address) = address.filter(|it| it.contains(':') && it != "00:00:00:00:00:00") {
            addresses.insert(name, address);
        }
    }
}

/// Real directories below one; links lead to places that are found by themselves.
fn directories(place: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            )
        })
}

fn line(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
