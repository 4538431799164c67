//! What Foreman sends for a machine to boot, through HTTP and OMAPI to a real dhcpd, as a real client hears it.

use bulkhead_testkit::dhcpd::{Dhcpd, OMAPI};
use bulkhead_testkit::{Bulkhead, booting, skip};

use crate::JSON;
use crate::dhcp::{configuration, form};

/// Vendor classes of firmware: BIOS, UEFI, UEFI that boots by HTTP.
const BIOS: &str = "PXEClient:Arch:00000:UNDI:002001";
const UEFI: &str = "PXEClient:Arch:00007:UNDI:003016";
const HTTP: &str = "HTTPClient:Arch:00016:UNDI:003016";

const URL: &str = "http://192.0.2.9:8000/httpboot/grub2/shim.efi";

/// A class, what Foreman sends beside name and addresses, and what the client hears.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, &'static str)],
);

const CASES: [Case; 8] = [
    (
        BIOS,
        &[
            ("nextServer", "192.0.2.9"),
            ("filename", "pxelinux.0"),
            ("PXEClient", ""),
        ],
        &[("filename", "pxelinux.0"), ("next_server", "192.0.2.9")],
    ),
    (
        UEFI,
        &[
            ("nextServer", "192.0.2.9"),
            ("filename", "grub2/grubx64.efi"),
            ("PXEClient", "PXEClient"),
        ],
        &[
            ("filename", "grub2/grubx64.efi"),
            ("next_server", "192.0.2.9"),
            ("vendor_class_identifier", "PXEClient"),
        ],
    ),
    (
        HTTP,
        &[("nextServer", "192.0.2.9"), ("filename", URL)],
        &[
            ("filename", URL),
            ("bootfile_name", URL),
            ("vendor_class_identifier", "HTTPClient"),
        ],
    ),
    (
        UEFI,
        &[("nextServer", "localhost"), ("filename", "x")],
        &[("filename", "x"), ("next_server", "127.0.0.1")],
    ),
    (
        "Cisco",
        &[("nextServer", "192.0.2.9"), ("filename", "poap.cfg/x")],
        &[
            ("filename", "poap.cfg/x"),
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
            ("option_150", "192.0.2.9"),
            ("option_143", "vrpfile=c;webfile=w;"),
            // Option 1 of `FM_ZTP`, nine octets: the file.
            (
                "vendor_encapsulated_options",
                "1:9:7a:74:70:2e:63:66:67:2f:78",
            ),
        ],
    ),
    (
        "sun",
        &[
            ("<Sun-Fire>root_path_name", "/export"),
            ("<Sun-Fire>root_server_ip", "192.0.2.3"),
        ],
        &[(
            "vendor_encapsulated_options",
            "2:4:c0:0:2:3:4:7:2f:65:78:70:6f:72:74",
        )],
    ),
];

#[test]
fn what_foreman_sends_for_booting_is_what_machines_hear_from_isc() {
    let dhcpd = match Dhcpd::start("hmac-sha256", "vendor-option-space FM_ZTP;\n") {
        Ok(dhcpd) => dhcpd,
        Err(why) => skip!("{why}"),
    };
    if skip::program("dhclient").is_none() {
        skip!("dhclient is not installed");
    }
    dhcpd.site.enter();
    let bulkhead = Bulkhead::with(configuration(&dhcpd, "", OMAPI));
    let target = bulkhead.foreman();
    for (number, (class, sent, heard)) in CASES.iter().enumerate() {
        let (name, ip) = (
            format!("boot{number}.example.com"),
            format!("192.0.2.{}", 60 + number),
        );
        let mac = format!("02:00:5e:00:56:{number:02x}");
        target
            .post("/dhcp/192.0.2.0", &form(&name, &ip, &mac, sent))
            .assert_is(200, JSON, "");
        let told = booting::told(&dhcpd.client, "client0", &mac, class);
        let own = [("ip_address", ip.as_str()), ("host_name", &name)];
        for (key, value) in own.iter().chain(heard.iter()) {
            assert_eq!(
                told.get(*key).map(String::as_str),
                Some(*value),
                "{class}, {key}: {told:#?}\n{}",
                dhcpd.log()
            );
        }
        // Read back by Foreman, and equal when it is posted again.
        let record = target.get(&format!("/dhcp/192.0.2.0/mac/{mac}")).json();
        assert_eq!(record["ip"], ip.as_str(), "{record}");
        target
            .post("/dhcp/192.0.2.0", &form(&name, &ip, &mac, sent))
            .assert_is(200, JSON, "");
    }
}
