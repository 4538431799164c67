//! The feature as Foreman sees it, on a machine made of files.

use super::*;
use bulkhead_sdk::testing::{Host, Installed, TempFolder};

fn machine(folder: &TempFolder) -> Installed {
    let files = [
        ("kernel-name", "ostype", "Linux\n"),
        ("kernel-release", "osrelease", "6.1.0-18-amd64\n"),
        ("hostname", "hostname", "web\n"),
        ("hosts", "hosts", "192.0.2.7 web.example.com web\n"),
        ("resolver", "resolv.conf", ""),
        (
            "os-release",
            "os-release",
            "ID=rocky\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\n",
        ),
        (
            "processors",
            "cpuinfo",
            "processor\t: 0\nphysical id\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu lm hypervisor\n\n\
             processor\t: 1\nphysical id\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu lm hypervisor\n",
        ),
        (
            "memory",
            "meminfo",
            "MemTotal:        4194304 kB\nMemFree: 1 kB\nMemAvailable:    1048576 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
        ),
        ("uptime", "uptime", "176400.12 1.0\n"),
        ("interfaces", "dev", "a\nb\n  lo: 1\n  eth0: 2\n"),
        (
            "routes",
            "route",
            "head\neth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\neth0\t000200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n",
        ),
        (
            "addresses",
            "fib_trie",
            "     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 192.0.2.7\n        /32 host LOCAL\n",
        ),
        (
            "addresses6",
            "if_inet6",
            "20010db8000000000000000000000007 02 40 00 80 eth0\n",
        ),
    ];
    let mut host = Host::new();
    for (slot, file, text) in files {
        let place = folder.path().join(slot);
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join(file), text).unwrap();
        host = host.folder(slot, &place);
    }
    let devices = folder.path().join("devices");
    for (file, text) in [
        ("virtual/dmi/id/sys_vendor", "QEMU\n"),
        ("virtual/dmi/id/product_name", "Standard PC\n"),
        ("virtual/net/lo/address", "00:00:00:00:00:00\n"),
        (
            "pci0000:00/0000:00:03.0/virtio1/net/eth0/address",
            "52:54:00:00:00:07\n",
        ),
        (
            "pci0000:00/0000:00:04.0/power/net/no/address",
            "52:54:00:00:00:08\n",
        ),
    ] {
        let file = devices.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    host.folder("devices", &devices).install()
}

#[test]
fn the_machine_is_told_by_structured_and_older_names() {
    let folder = TempFolder::new();
    let host = machine(&folder);
    let called = host.get::<Facts>("/facts");
    assert_eq!(called.status(), 200);
    let facts: Value = serde_json::from_str(&called.text()).unwrap();
    for (pointer, wanted) in [
        ("/kernel", "\"Linux\""),
        ("/kernelmajversion", "\"6.1\""),
        ("/hostname", "\"web\""),
        ("/fqdn", "\"web.example.com\""),
        ("/os/name", "\"Rocky\""),
        ("/os/family", "\"RedHat\""),
        ("/os/release/major", "\"9\""),
        ("/os/architecture", "\"x86_64\""),
        ("/processors/count", "2"),
        ("/processors/physicalcount", "1"),
        ("/processors/models/1", "\"Some CPU\""),
        ("/memory/system/total_bytes", "4294967296"),
        ("/memory/system/total", "\"4.00 GiB\""),
        ("/memory/system/capacity", "\"75.00%\""),
        ("/memorysize_mb", "\"4096.00\""),
        ("/uptime", "\"2 days\""),
        ("/uptime_seconds", "176400"),
        ("/virtual", "\"kvm\""),
        ("/is_virtual", "true"),
        ("/manufacturer", "\"QEMU\""),
        ("/interfaces", "\"eth0,lo\""),
        ("/ipaddress", "\"192.0.2.7\""),
        ("/macaddress", "\"52:54:00:00:00:07\""),
        ("/macaddress_eth0", "\"52:54:00:00:00:07\""),
        ("/netmask_eth0", "\"255.255.255.0\""),
        ("/networking/primary", "\"eth0\""),
        ("/networking/ip", "\"192.0.2.7\""),
        ("/networking/ip6", "\"2001:db8::7\""),
        ("/networking/interfaces/eth0/network", "\"192.0.2.0\""),
        ("/networking/interfaces/lo/ip", "\"127.0.0.1\""),
    ] {
        let found = facts.pointer(pointer).map(ToString::to_string);
        assert_eq!(found.as_deref(), Some(wanted), "{pointer}: {facts:#}");
    }
    assert_eq!(facts.pointer("/networking/interfaces/no"), None);
    assert_eq!(host.get::<Facts>("/facts/").text(), called.text());
}

#[test]
fn one_fact_is_an_object_and_what_is_not_is_404() {
    let folder = TempFolder::new();
    let host = machine(&folder);
    assert_eq!(
        host.get::<Facts>("/facts/kernel").text(),
        r#"{"kernel":"Linux"}"#
    );
    let os = host.get::<Facts>("/facts/os").text();
    assert!(os.starts_with(r#"{"os":{"#), "{os}");
    for absent in ["nonsense", "os.name"] {
        let called = host.get::<Facts>(&format!("/facts/{absent}"));
        assert_eq!(
            (called.status(), called.text()),
            (404, format!("Fact {absent} not found"))
        );
    }
}

#[test]
fn a_machine_that_shows_nothing_has_few_facts_and_no_errors() {
    let folder = TempFolder::new();
    let mut host = Host::new().folder("devices", folder.path());
    for (slot, _, _) in FILES {
        host = host.folder(slot, folder.path());
    }
    let host = host.install();
    let called = host.get::<Facts>("/facts");
    assert_eq!(called.status(), 200, "{}", called.text());
    // False is as good as absent, as Facter's own server has it.
    assert_eq!(host.get::<Facts>("/facts/is_virtual").status(), 404);
    assert_eq!(host.get::<Facts>("/facts/kernel").status(), 404);
}
