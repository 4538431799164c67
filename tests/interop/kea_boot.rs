//! What machines that boot hear from Kea, and boot servers that Foreman names instead of giving their address.

use std::io::Write as _;

use bulkhead_testkit::debian::{Missing, Suite};
use bulkhead_testkit::kea::{Door, Kea, Setup};
use bulkhead_testkit::namer::Namer;
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::{Bulkhead, Configuration, Response, Target, booting, skip};

use crate::kea::{PACKAGES, form, setup, speaking};

const URL: &str = "http://192.0.2.9:8000/httpboot/grub2/shim.efi";

/// The shipped policy of `dhcp-kea`.
const POLICY: &str = include_str!("../../policies/dhcp-kea.toml");

type Pairs = &'static [(&'static str, &'static str)];

/// A vendor class, what Foreman sends beside name and addresses, and what the client hears: the same as from ISC (`tests/conformance/dhcp_boot.rs`).
const CASES: [(&str, Pairs, Pairs); 6] = [
    (
        "PXEClient:Arch:00000:UNDI:002001",
        &[("nextServer", "192.0.2.9"), ("filename", "pxelinux.0")],
        &[("filename", "pxelinux.0"), ("next_server", "192.0.2.9")],
    ),
    (
        "PXEClient:Arch:00007:UNDI:003016",
        &[
            ("nextServer", "localhost"),
            ("filename", "grub2/grubx64.efi"),
        ],
        &[
            ("filename", "grub2/grubx64.efi"),
            ("next_server", "127.0.0.1"),
        ],
    ),
    (
        "HTTPClient:Arch:00016:UNDI:003016",
        &[("nextServer", "192.0.2.9"), ("filename", URL)],
        &[
            ("filename", URL),
            ("bootfile_name", URL),
            ("vendor_class_identifier", "HTTPClient"),
        ],
    ),
    (
        "Cisco",
        &[("nextServer", "192.0.2.9"), ("filename", "poap.cfg/x")],
        &[
            ("bootfile_name", "poap.cfg/x"),
            ("tftp_server_name", "192.0.2.9"),
        ],
    ),
    (
        "Cisco",
        &[("nextServer", "localhost"), ("filename", "POAP.cfg/x")],
        &[
            ("next_server", "127.0.0.1"),
            ("bootfile_name", "POAP.cfg/x"),
            ("tftp_server_name", "localhost"),
        ],
    ),
    (
        "huawei",
        &[
            ("nextServer", "192.0.2.9"),
            ("filename", "ztp.cfg/x"),
            ("ztp_vendor", "huawei"),
            ("ztp_firmware[core]", "c"),
            ("ztp_firmware[web]", "w"),
        ],
        &[
            ("filename", "ztp.cfg/x"),
            ("next_server", "192.0.2.9"),
            ("option_150", "192.0.2.9"),
            ("option_143", "vrpfile=c;webfile=w;"),
            // Option 1, nine octets: the file.
            (
                "vendor_encapsulated_options",
                "1:9:7a:74:70:2e:63:66:67:2f:78",
            ),
        ],
    ),
];

/// A switch of Huawei without firmware of its own.
const PLAIN_ZTP: (&str, Pairs, Pairs) = (
    "huawei",
    &[
        ("nextServer", "192.0.2.9"),
        ("filename", "ztp.cfg/x"),
        ("ztp_vendor", "huawei"),
    ],
    &[
        ("option_150", "192.0.2.9"),
        (
            "vendor_encapsulated_options",
            "1:9:7a:74:70:2e:63:66:67:2f:78",
        ),
    ],
);

/// Posted, posted again, heard by a machine, read back; on one Kea. What its version keeps option 143 for decides over a switch's firmware.
fn machines_hear(setup: Setup, takes_firmware: bool) {
    let server = namespace!("boot");
    let client = namespace!("machine");
    server.wire("dhcp0", "192.0.2.1/24", &client, "eth0", "");
    server.enter();
    let kea = Kea::start(Setup {
        interfaces: vec!["dhcp0"],
        ..setup
    });
    let bulkhead = Bulkhead::with(speaking(Configuration::empty(), &kea, &kea.url()));
    let foreman = bulkhead.foreman();
    for (number, (class, sent, heard)) in CASES.iter().chain([&PLAIN_ZTP]).enumerate() {
        let (name, ip) = (format!("boot{number}"), format!("192.0.2.{}", 60 + number));
        let mac = format!("02:00:5e:00:58:{number:02x}");
        let mut wanted = form(&name, &ip, &mac, "");
        wanted.retain(|(key, _)| *key != "nextServer" && *key != "filename");
        wanted.extend(*sent);
        let has_firmware = sent.iter().any(|(key, _)| key.starts_with("ztp_firmware"));
        if has_firmware && !takes_firmware {
            let answer = foreman.post("/dhcp/192.0.2.0", &wanted);
            assert_eq!(answer.status, 400, "{answer}");
            assert!(answer.text().contains("leave it out"), "{answer}");
            continue;
        }
        for _ in 0..2 {
            let answer = foreman.post("/dhcp/192.0.2.0", &wanted);
            assert_eq!(answer.status, 200, "{class}: {answer}");
        }
        let told = booting::told(&client, "eth0", &mac, class);
        let own = [("ip_address", ip.as_str()), ("host_name", &name)];
        for (key, value) in own.iter().chain(heard.iter()) {
            assert_eq!(
                told.get(*key).map(String::as_str),
                Some(*value),
                "{class}, {key}: {told:#?}"
            );
        }
        let record = foreman.get(&format!("/dhcp/192.0.2.0/mac/{mac}")).json();
        let file = sent.iter().find(|(key, _)| *key == "filename");
        assert_eq!(
            record["filename"],
            file.map_or("", |(_, file)| *file),
            "{record}"
        );
    }
}

#[test]
fn what_foreman_sends_for_booting_is_what_machines_hear_from_kea() {
    programs!("kea-dhcp4", "kea-ctrl-agent", "dhclient");
    machines_hear(setup(None, Door::Agent, &["lease_cmds"]), true);
}

/// Kea 3 knows option 143 as something else, and says so.
#[test]
fn what_foreman_sends_for_booting_is_what_machines_hear_from_kea_3() {
    programs!("dhclient");
    let suite = suite!("sid");
    let hooks = &["lease_cmds", "host_cmds"];
    machines_hear(setup(Some(suite), Door::Direct, hooks), false);
}

fn post(target: &Target, last: u8, server: &str) -> Response {
    let (name, ip) = (format!("n{last}"), format!("192.0.2.{last}"));
    let mac = format!("02:00:5e:00:5a:{last:02x}");
    let mut wanted = form(&name, &ip, &mac, "x");
    wanted.retain(|(key, _)| *key != "nextServer");
    wanted.push(("nextServer", server));
    target.post("/dhcp/192.0.2.0", &wanted)
}

/// Kea takes addresses only: a name without one is refused, whether nobody has it, nobody can be asked, or the policy leaves it out.
#[test]
fn a_boot_server_by_name_is_looked_up_for_kea_if_the_policy_has_it() {
    programs!("kea-dhcp4", "kea-ctrl-agent");
    namespace!("names").inside(|| {
        let kea = Kea::start(setup(None, Door::Agent, &["lease_cmds"]));
        let namer = Namer::start(&[
            ("tftp.example.com", "192.0.2.9"),
            ("data.example.net", "192.0.2.9"),
        ]);
        let narrowed = POLICY.replace("allow = [\"*\"]", "allow = [\"*.example.com\"]");
        assert_ne!(narrowed, POLICY);
        let grants = narrowed.replace("plugin = \"dhcp-kea\"\n", "");
        let configuration = speaking(Configuration::empty(), &kea, &kea.url())
            .name_server("127.0.0.1")
            .policy("dhcp-kea", &grants);
        let bulkhead = Bulkhead::with(configuration);
        let target = bulkhead.foreman();
        let refused = |last: u8, server: &str, why: &str| {
            let answer = post(&target, last, server);
            assert_eq!(answer.status, 400, "{answer}");
            assert!(answer.text().contains(why), "{answer}");
            let path = format!("/dhcp/192.0.2.0/ip/192.0.2.{last}");
            assert_eq!(target.get(&path).status, 404);
        };
        assert_eq!(post(&target, 60, "tftp.example.com").status, 200);
        assert_eq!(post(&target, 61, "192.0.2.9").status, 200);
        refused(
            62,
            "nobody.example.com",
            "the next server nobody.example.com has no IPv4 address, and Kea takes no name",
        );
        refused(
            63,
            "data.example.net",
            "cannot look up the next server data.example.net: the policy does not let this name be asked for",
        );
        assert_eq!(namer.asked("data.example.net"), 0, "no question leaves");
        assert!(namer.asked("tftp.example.com") > 0);
        drop(namer);
        refused(
            64,
            "late.example.com",
            "cannot look up the next server late.example.com: ",
        );
        let record = target.get("/dhcp/192.0.2.0/ip/192.0.2.60").json();
        assert_eq!(record[0]["nextServer"], "192.0.2.9", "{record}");
    });
}
