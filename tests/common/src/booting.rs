//! What a DHCP server tells a machine that boots, as a real client hears it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use crate::namespace::Namespace;
use crate::scratch::Scratch;

/// What a machine asks for, and what its options of no standard type are.
const ASKS: &str = "option option-150 code 150 = ip-address;\noption option-143 code 143 = text;\n\
    request subnet-mask, routers, host-name, vendor-class-identifier, tftp-server-name, bootfile-name, vendor-encapsulated-options, option-143, option-150;\n";

/// The answer to a machine with that MAC address and vendor class (`PXEClient:Arch:00007`), by `dhclient`'s names: `ip_address`, `next_server`,
/// `filename`, `bootfile_name`.
#[track_caller]
pub fn told(
    client: &Namespace,
    interface: &str,
    mac: &str,
    class: &str,
) -> BTreeMap<String, String> {
    client.ip(&["link", "set", interface, "down"]);
    client.ip(&["link", "set", interface, "address", mac]);
    client.ip(&["link", "set", interface, "up"]);
    let place = Scratch::new();
    let heard = place.join("heard");
    let script = place.file(
        "script",
        format!(
            "#!/bin/sh\ncase \"$reason\" in BOUND) env > {0}.new && mv {0}.new {0};; esac\n",
            heard.display()
        ),
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))
        .expect("a script can be made");
    let config = place.file(
        "dhclient.conf",
        format!("{ASKS}send vendor-class-identifier \"{class}\";\n"),
    );
    let mut running = client
        .command("dhclient")
        .args(["-4", "-1", "-d", "-sf"])
        .arg(&script)
        .arg("-cf")
        .arg(&config)
        .arg("-lf")
        .arg(place.join("leases"))
        .arg("-pf")
        .arg(place.join("pid"))
        .arg(interface)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("dhclient can be started");
    let text = crate::eventually::until_within(std::time::Duration::from_secs(60), || {
        std::fs::read_to_string(&heard).ok()
    });
    let _ = running.kill();
    let _ = running.wait();
    let text = text.unwrap_or_else(|| panic!("dhclient got no lease for {mac}"));
    text.lines()
        .filter_map(|line| line.strip_prefix("new_")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
