//! The proof: machines without an operating system boot from one program, and no other server runs.
//!
//! Two network namespaces: in one the real program with the shipped `examples/site-standalone.toml`, in the other a machine with BIOS and one with
//! UEFI. Foreman (its stand-in, with mutual TLS) reserves addresses, writes boot menus and names, as it does when a host is created. What happened is read from
//! the machines' serial consoles and from what reached Foreman.

// A test may fail loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod machine;
mod media;

use std::fs;
use std::path::Path;

use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::skip::program;
use bulkhead_testkit::{Bulkhead, Configuration, skip};

use machine::{Firmware, Machine};
use media::Media;

/// One machine of the site.
struct Host {
    name: &'static str,
    mac: &'static str,
    address: &'static str,
    /// Loader that Foreman names for it.
    filename: &'static str,
    tap: &'static str,
}

const BIOS: Host = Host {
    name: "bios.example.com",
    mac: "52:54:00:12:34:56",
    address: "192.0.2.55",
    filename: "pxelinux.0",
    tap: "tap0",
};

const UEFI: Host = Host {
    name: "uefi.example.com",
    mac: "52:54:00:ab:cd:ef",
    address: "192.0.2.66",
    filename: "http://192.0.2.1:8000/httpboot/grub2/grubx64.efi",
    tap: "tap1",
};

/// The menu that Foreman writes for machines it does not know: go and look for one's own.
const GRUB_DEFAULT: &str = "regexp --set=1:a --set=2:b --set=3:c --set=4:d --set=5:e --set=6:f \
'^(..):(..):(..):(..):(..):(..)' \"$net_default_mac\"\nconfigfile $prefix/grub.cfg-01-$a-$b-$c-$d-$e-$f\n";

const PARAMETERS: &str = "console=ttyS0 panic=-1 foreman.url=http://192.0.2.1:8000";

/// A machine with BIOS: PXE, TFTP, and the system that Foreman wants.
#[test]
fn a_machine_with_bios_boots_from_one_program_and_no_other_server() {
    boots(&BIOS, Firmware::Bios, Addresses::Own);
}

/// The same machine where another server (dnsmasq) gives the addresses, and this one only says what to boot: ProxyDHCP with the code of a real card's ROM.
#[test]
fn a_machine_with_bios_boots_beside_another_dhcp_server() {
    if program("dnsmasq").is_none() {
        skip!("dnsmasq is missing");
    }
    boots(&BIOS, Firmware::Bios, Addresses::Dnsmasq);
}

/// A machine with UEFI: HTTP boot, and the same system.
#[test]
fn a_machine_with_uefi_boots_from_one_program_and_no_other_server() {
    boots(&UEFI, Firmware::Uefi, Addresses::Own);
}

/// Who gives machines their addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Addresses {
    Own,
    Dnsmasq,
}

fn boots(host: &Host, firmware: Firmware, addresses: Addresses) {
    for needed in [
        "qemu-system-x86_64",
        "ip",
        "grub-mkimage",
        "busybox",
        "apt-get",
    ] {
        if program(needed).is_none() {
            skip!("{needed} is missing");
        }
    }
    let (Some(site), Some(lan)) = (Namespace::new("site"), Namespace::new("lan")) else {
        skip!("no network namespaces here: they need root");
    };
    let media = match Media::prepare() {
        Ok(media) => media,
        Err(missing) => skip!("{missing}"),
    };
    cable(&site, &lan);
    site.enter();

    let configuration = standalone();
    let authority = configuration.authority.clone();
    let foreman = Foreman::answering(&authority, |_| {
        reply("200 OK", "text/plain", "#!/bin/sh hello from Foreman\n")
    });
    let configuration = configuration.replace("https://foreman.example.com", &foreman.url());
    let dnsmasq = (addresses == Addresses::Dnsmasq).then(|| Dnsmasq::start(&lan, host));
    let configuration = match &dnsmasq {
        Some(_) => {
            configuration.replace("interfaces = [\"eth0\"]", "proxy_interfaces = [\"eth0\"]")
        }
        None => configuration,
    };
    let bulkhead = Bulkhead::with(configuration);
    media
        .install(&bulkhead.boot())
        .expect("boot files can be put in place");

    create(&bulkhead, host);
    // A second look, as Foreman's: what was reserved is listed.
    let listed = bulkhead.foreman_tls().get("/dhcp/192.0.2.0").text();
    assert!(listed.contains(host.address), "{listed}");

    let mut machine =
        Machine::start(&lan, host.tap, host.mac, firmware).expect("the machine can be switched on");
    let steps = machine.booted();
    let all = || {
        format!(
            "{}: {steps:?}\nconsole:\n{}\nprogram:\n{}",
            host.name,
            machine.console(),
            bulkhead.log()
        )
    };
    let kernel = steps.first().cloned().unwrap_or_default();
    assert!(
        kernel.starts_with("KERNEL ") && kernel.contains(&format!("host={}", host.name)),
        "it did not boot what Foreman wrote for it: {}",
        all()
    );
    let expected = [
        format!("ADDRESS {}", host.address),
        "PROVISION #!/bin/sh hello from Foreman".to_owned(),
        "BUILT".to_owned(),
        "DONE".to_owned(),
    ];
    assert_eq!(steps.get(1..).unwrap_or_default(), expected, "{}", all());
    resolves(&lan, host);
    for path in ["/unattended/provision", "/unattended/built"] {
        let told = foreman.requests().iter().any(|request| {
            request.line().contains(path) && request.header("x-forwarded-for") == Some(host.address)
        });
        assert!(told, "Foreman never heard {path}: {:?}", foreman.requests());
    }
}

/// A DHCP server that knows nothing of booting. It ends with its value.
struct Dnsmasq(std::process::Child);

impl Dnsmasq {
    fn start(lan: &Namespace, host: &Host) -> Self {
        let child = lan
            .command("dnsmasq")
            .args(["--no-daemon", "--conf-file=/dev/null", "--port=0"])
            .args(["--user=root", "--group=root", "--interface=switch"])
            .args(["--dhcp-range=192.0.2.10,static", "--leasefile-ro"])
            .args(["--no-ping", "--dhcp-authoritative"])
            .args([
                "--dhcp-option=option:dns-server,192.0.2.1",
                "--dhcp-option=option:router,192.0.2.1",
            ])
            .arg(format!("--dhcp-host={},{}", host.mac, host.address))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        Self(child.expect("dnsmasq can be started"))
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A wire between the two, and at its far end a switch with two sockets.
fn cable(site: &Namespace, lan: &Namespace) {
    site.wire("eth0", "192.0.2.1/24", lan, "uplink", "");
    lan.ip(&["link", "add", "switch", "type", "bridge"]);
    lan.ip(&["addr", "add", "192.0.2.2/24", "dev", "switch"]);
    for tap in [BIOS.tap, UEFI.tap] {
        lan.ip(&["tuntap", "add", tap, "mode", "tap"]);
        lan.ip(&["link", "set", tap, "master", "switch"]);
        lan.ip(&["link", "set", tap, "up"]);
    }
    lan.ip(&["link", "set", "uplink", "master", "switch"]);
    lan.ip(&["link", "set", "switch", "up"]);
}

/// The shipped configuration of a stand-alone site, with this test's places and names.
fn standalone() -> Configuration {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/site-standalone.toml");
    let text = fs::read_to_string(path).expect("the shipped configuration is there");
    Configuration::shipped(&text)
}

/// What Foreman does when somebody creates a host.
#[track_caller]
fn create(bulkhead: &Bulkhead, host: &Host) {
    let foreman = bulkhead.foreman_tls();
    let succeeds = |path: &str, fields: &[(&str, &str)]| {
        let answer = foreman.post(path, fields);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    };
    succeeds(
        "/dhcp/192.0.2.0",
        &[
            ("hostname", host.name),
            ("name", host.name),
            ("ip", host.address),
            ("mac", host.mac),
            ("filename", host.filename),
            ("nextServer", "192.0.2.1"),
            ("network", "192.0.2.0"),
        ],
    );
    succeeds(
        "/dns/",
        &[("fqdn", host.name), ("value", host.address), ("type", "A")],
    );
    let parameters = format!("{PARAMETERS} host={}", host.name);
    let menu = format!(
        "SERIAL 0 115200\nDEFAULT linux\nLABEL linux\n KERNEL boot/vmlinuz\n APPEND initrd=boot/initrd.img {parameters}\n"
    );
    succeeds(
        &format!("/tftp/PXELinux/{}", host.mac),
        &[("pxeconfig", &menu)],
    );
    let menu = format!(
        "set timeout=0\nmenuentry 'linux' {{\n  linux $prefix/../boot/vmlinuz {parameters}\n  initrd $prefix/../boot/initrd.img\n}}\n"
    );
    succeeds(
        &format!("/tftp/PXEGrub2/{}", host.mac),
        &[("pxeconfig", &menu)],
    );
    succeeds("/tftp/PXEGrub2/create_default", &[("menu", GRUB_DEFAULT)]);
}

/// The name that Foreman created is answered on the machines' network.
#[track_caller]
fn resolves(lan: &Namespace, host: &Host) {
    let output = lan.run("dig", &["@192.0.2.1", "+short", "+time=2", host.name, "A"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.trim(), host.address, "{output:?}");
}
