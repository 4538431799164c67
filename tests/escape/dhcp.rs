//! What a hostile `dhcp`, `dhcp-isc` or client-facing plugin could reach: the shipped policies, as the running program has them.
//!
//! The doors themselves are tried by the other files here; this shows which ones these plugins have, and that the attacker under the
//! very grants of `dhcp-isc` reads the granted files and nothing beside them, and reaches the one port and no other.

use bulkhead_testkit::program::run;
use bulkhead_testkit::{Bulkhead, Configuration};

use crate::stage::quoted;

/// Capabilities and slots that a plugin asked for and was given, as `policy explain` shows them.
fn granted(bulkhead: &Bulkhead, plugin: &str) -> Vec<String> {
    let config = bulkhead.configuration.path();
    let config = config.to_str().unwrap();
    let shown = run([
        "policy", "explain", plugin, "--format", "json", "--config", config,
    ]);
    assert_eq!(shown.code(), Some(0), "{}", shown.text());
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let mut granted: Vec<String> = shown["needs"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|need| !need["granted"].is_null())
        .map(|need| {
            let word = |key: &str| need[key].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {} {}",
                word("capability"),
                word("slot"),
                word("granted")
            )
        })
        .collect();
    granted.sort();
    granted
}

#[test]
fn the_dhcp_plugins_have_these_doors_and_no_others() {
    let configuration = Configuration::standard();
    let file = |name: &str, text: &str| quoted(&configuration.scratch.file(name, text));
    let config = file("dhcpd.conf", "subnet 192.0.2.0 netmask 255.255.255.0 { }\n");
    let leases = file("dhcpd.leases", "");
    let key = file(
        "omapi.key",
        "key k { algorithm hmac-sha256; secret \"aGVsbG8=\"; };\n",
    );
    let configuration = configuration
        .feature("dhcp", "enabled = true\nuse_provider = \"dhcp-isc\"")
        .feature(
            "dhcp-isc",
            &format!("enabled = true\nconfig = {config}\nleases = {leases}\nomapi_key = {key}\nomapi_port = 7999"),
        );
    let bulkhead = Bulkhead::with(configuration);
    let capabilities = |granted: &[String]| {
        let mut words: Vec<String> = granted
            .iter()
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect();
        words.dedup();
        words
    };
    // No socket, no file, no name, no secret.
    let dhcp = granted(&bulkhead, "dhcp");
    assert_eq!(capabilities(&dhcp), ["call", "probe", "store"], "{dhcp:?}");
    assert!(
        dhcp.iter()
            .any(|line| line.starts_with("call ") && line.contains("dhcp-isc")),
        "{dhcp:?}"
    );
    // Two files to look at, one port, a key to use and names; `files`, the door through which things are written, is none of them.
    let isc = granted(&bulkhead, "dhcp-isc");
    assert_eq!(
        capabilities(&isc),
        ["names", "secrets", "sockets", "watch"],
        "{isc:?}"
    );
    let all = |capability: &str| {
        isc.iter()
            .filter(|line| line.starts_with(capability))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(all("watch").len(), 2, "{isc:?}");
    assert!(
        all("watch")[0].contains("dhcpd.conf") && all("watch")[1].contains("dhcpd.leases"),
        "{isc:?}"
    );
    assert_eq!(all("sockets").len(), 1);
    assert!(all("sockets")[0].contains("127.0.0.1:7999"), "{isc:?}");
    // The plugins of hosts have no way to a lease: none of them may call a provider.
    for other in ["tftp", "httpboot"] {
        let granted = granted(&bulkhead, other);
        assert!(
            !granted
                .iter()
                .any(|line| line.starts_with("call ") || line.contains("dhcp")),
            "{other}: {granted:?}"
        );
    }
    // The secret of a `key` statement reaches nobody, whatever is said of the file.
    assert!(!bulkhead.log().contains("aGVsbG8="));
}
