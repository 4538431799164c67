//! Kernel, operating system, processors, memory, uptime, and whether the machine is a virtual one.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::devices::Devices;

/// Adds the facts of the system. `read`: the text of a slot.
pub(crate) fn tell(
    facts: &mut Map<String, Value>,
    devices: &Devices,
    read: impl Fn(&str) -> String,
) {
    let put = |facts: &mut Map<String, Value>, key: &str, value: &str| {
        if !value.is_empty() {
            facts.insert(key.to_owned(), json!(value));
        }
    };
    let release = read("kernel-release").trim().to_owned();
    put(facts, "kernel", read("kernel-name").trim());
    put(facts, "kernelrelease", &release);
    let version = release.split('-').next().unwrap_or_default();
    put(facts, "kernelversion", version);
    let major: Vec<&str> = version.split('.').take(2).collect();
    put(facts, "kernelmajversion", &major.join("."));

    let processors = Processors::of(&read("processors"));
    operating_system(facts, &read("os-release"), processors.hardware);
    if processors.count > 0 {
        facts.insert("processorcount".to_owned(), json!(processors.count));
        facts.insert(
            "physicalprocessorcount".to_owned(),
            json!(processors.sockets),
        );
        for (number, model) in processors.models.iter().enumerate() {
            put(facts, &format!("processor{number}"), model);
        }
        let shown = json!({
            "count": processors.count,
            "physicalcount": processors.sockets,
            "models": processors.models,
        });
        facts.insert("processors".to_owned(), shown);
    }
    memory(facts, &read("memory"));
    uptime(facts, &read("uptime"));

    if let Some(manufacturer) = &devices.manufacturer {
        put(facts, "manufacturer", manufacturer);
    }
    if let Some(product) = &devices.product {
        put(facts, "productname", product);
    }
    let kind = virtual_kind(devices, processors.hypervisor);
    facts.insert("virtual".to_owned(), json!(kind));
    facts.insert("is_virtual".to_owned(), json!(kind != "physical"));
}

/// `/proc/cpuinfo`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Processors {
    count: usize,
    sockets: usize,
    models: Vec<String>,
    hypervisor: bool,
    hardware: &'static str,
}

impl Processors {
    fn of(text: &str) -> Self {
        let mut this = Self::default();
        let mut sockets = BTreeSet::new();
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match key.trim() {
                "processor" => this.count += 1,
                "physical id" => {
                    sockets.insert(value);
                }
                "model name" => this.models.push(value.to_owned()),
                "flags" => {
                    let mut flags = value.split(' ');
                    this.hypervisor |= flags.clone().any(|flag| flag == "hypervisor");
                    this.hardware = if flags.any(|flag| flag == "lm") {
                        "x86_64"
                    } else {
                        "i686"
                    };
                }
                "CPU architecture" if value == "8" => this.hardware = "aarch64",
                "isa" if value.starts_with("rv64") => this.hardware = "riscv64",
                _ => {}
            }
        }
        this.sockets = sockets.len().max(usize::from(this.count > 0));
        this
    }
}

/// `/etc/os-release`, in the words of Facter.
fn operating_system(facts: &mut Map<String, Value>, text: &str, hardware: &str) {
    let value = |wanted: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key == wanted).then(|| value.trim_matches(['"', '\'']).to_owned())
        })
    };
    let id = value("ID").unwrap_or_default();
    let like = format!(" {id} {} ", value("ID_LIKE").unwrap_or_default());
    let family = [
        (" rhel ", "RedHat"),
        (" fedora ", "RedHat"),
        (" debian ", "Debian"),
        (" suse ", "Suse"),
        (" arch ", "Archlinux"),
        (" alpine ", "Linux"),
    ];
    let family = family.iter().find(|(word, _)| like.contains(word));
    let name = match id.as_str() {
        "" => String::new(),
        "rhel" => "RedHat".to_owned(),
        "centos" => "CentOS".to_owned(),
        "rocky" => "Rocky".to_owned(),
        "almalinux" => "AlmaLinux".to_owned(),
        "ol" => "OracleLinux".to_owned(),
        "opensuse-leap" => "openSUSE".to_owned(),
        "sles" => "SLES".to_owned(),
        other => {
            let mut letters = other.chars();
            letters.next().map_or_else(String::new, |first| {
                first.to_uppercase().chain(letters).collect()
            })
        }
    };
    let full = value("VERSION_ID").unwrap_or_default();
    let major = full.split('.').next().unwrap_or_default();
    let family = family.map_or("", |(_, family)| *family);
    let mut os = Map::new();
    for (key, older, value) in [
        ("name", "operatingsystem", &*name),
        ("family", "osfamily", family),
        ("hardware", "hardwaremodel", hardware),
        ("architecture", "architecture", hardware),
    ] {
        // Debian's own word.
        let value = match (key, value) {
            ("architecture", "x86_64") if family == "Debian" => "amd64",
            ("architecture", "aarch64") if family == "Debian" => "arm64",
            (_, value) => value,
        };
        if !value.is_empty() {
            os.insert(key.to_owned(), json!(value));
            facts.insert(older.to_owned(), json!(value));
        }
    }
    if !full.is_empty() {
        let mut release = Map::from_iter([
            ("full".to_owned(), json!(full)),
            ("major".to_owned(), json!(major)),
        ]);
        if let Some((_, minor)) = full.split_once('.') {
            release.insert("minor".to_owned(), json!(minor));
        }
        os.insert("release".to_owned(), Value::Object(release));
        facts.insert("operatingsystemrelease".to_owned(), json!(full));
        facts.insert("operatingsystemmajrelease".to_owned(), json!(major));
    }
    if let Some(codename) = value("VERSION_CODENAME") {
        os.insert("distro".to_owned(), json!({ "codename": codename }));
    }
    facts.insert("os".to_owned(), Value::Object(os));
}

/// `/proc/meminfo`, in kB there.
fn memory(facts: &mut Map<String, Value>, text: &str) {
    let bytes = |wanted: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            let number: u64 = value.split_whitespace().next()?.parse().ok()?;
            (key == wanted).then(|| number.saturating_mul(1024))
        })
    };
    let mut memory = Map::new();
    for (part, total, free) in [
        ("system", "MemTotal", "MemAvailable"),
        ("swap", "SwapTotal", "SwapFree"),
    ] {
        let (Some(total), Some(free)) = (bytes(total), bytes(free)) else {
            continue;
        };
        let used = total.saturating_sub(free);
        #[allow(clippy::cast_precision_loss)] // A share of a hundred.
        let share = if total == 0 {
            0.0
        } else {
            used as f64 * 100.0 / total as f64
        };
        let shown = json!({
            "total": sized(total), "total_bytes": total,
            "available": sized(free), "available_bytes": free,
            "used": sized(used), "used_bytes": used,
            "capacity": format!("{share:.2}%"),
        });
        memory.insert(part.to_owned(), shown);
        let older = if part == "system" { "memory" } else { "swap" };
        facts.insert(format!("{older}size"), json!(sized(total)));
        facts.insert(
            format!("{older}size_mb"),
            json!(format!("{:.2}", mebibytes(total))),
        );
        facts.insert(format!("{older}free"), json!(sized(free)));
        facts.insert(
            format!("{older}free_mb"),
            json!(format!("{:.2}", mebibytes(free))),
        );
    }
    if !memory.is_empty() {
        facts.insert("memory".to_owned(), Value::Object(memory));
    }
}

#[allow(clippy::cast_precision_loss)] // Shown with two digits.
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn sized(bytes: u64) -> String {
    let mebibytes = mebibytes(bytes);
    if mebibytes >= 1024.0 {
        format!("{:.2} GiB", mebibytes / 1024.0)
    } else if bytes >= 1 << 20 {
        format!("{mebibytes:.2} MiB")
    } else {
        format!("{bytes} bytes")
    }
}

/// `/proc/uptime`: seconds, with a fraction.
fn uptime(facts: &mut Map<String, Value>, text: &str) {
    let seconds = text.split(['.', ' ']).next().unwrap_or_default();
    let Ok(seconds) = seconds.trim().parse::<u64>() else {
        return;
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let shown = match (days, hours) {
        (1, _) => "1 day".to_owned(),
        (days, _) if days > 1 => format!("{days} days"),
        (_, hours) => format!("{hours}:{:02} hours", minutes % 60),
    };
    let structured = json!({ "seconds": seconds, "hours": hours, "days": days, "uptime": shown });
    facts.insert("system_uptime".to_owned(), structured);
    facts.insert("uptime".to_owned(), json!(shown));
    facts.insert("uptime_seconds".to_owned(), json!(seconds));
    facts.insert("uptime_hours".to_owned(), json!(hours));
    facts.insert("uptime_days".to_owned(), json!(days));
}

/// In the words of Facter, by who made the machine.
fn virtual_kind(devices: &Devices, hypervisor: bool) -> &'static str {
    let made = |text: &Option<String>| text.clone().unwrap_or_default().to_lowercase();
    let made = format!("{} {}", made(&devices.manufacturer), made(&devices.product));
    let known = [
        ("vmware", "vmware"),
        ("virtualbox", "virtualbox"),
        ("virtual machine", "hyperv"),
        ("xen", "xen"),
        ("qemu", "kvm"),
        ("kvm", "kvm"),
        ("openstack", "kvm"),
        ("amazon ec2", "kvm"),
        ("google", "gce"),
    ];
    match known.iter().find(|(word, _)| made.contains(word)) {
        Some((_, kind)) => kind,
        None if hypervisor => "kvm",
        None => "physical",
    }
}
