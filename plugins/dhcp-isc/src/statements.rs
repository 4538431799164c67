//! What dhcpd is told of a host beside its addresses: boot file, next server, host name, vendor options, as statements of
//! `dhcpd.conf`.
//!
//! Every value is printable ASCII between quotes, or an address. Quotes and backslashes are refused, escaped or not: dhcpd understands
//! them in a message, writes them to its leases file without their escapes, and after its next start has lost every host that
//! stands behind them. It writes a host's name without quotes, so that is letters, digits, `-`, `_` and `.`, or is refused.

use std::net::Ipv4Addr;

use bulkhead_sdk::dhcp::DhcpOption;

use crate::error::Problem;
use crate::options::text;

/// Options of SUN machines: the attribute, dhcpd's name, whether it is an address.
const SUN: [(&str, &str, bool); 8] = [
    ("jumpstart_server_path", "JumpStart-server", false),
    ("sysid_server_path", "sysid-config-file-server", false),
    ("install_server_name", "install-server-hostname", false),
    ("install_server_ip", "install-server-ip-address", true),
    ("install_path", "install-path", false),
    ("root_server_hostname", "root-server-hostname", false),
    ("root_server_ip", "root-server-ip-address", true),
    ("root_path_name", "root-path-name", false),
];

/// Longest value: an option holds 255 bytes, a statement of several options a few times that.
const LONGEST_VALUE: usize = 1_024;

/// The header's field of a file name holds 128 octets with its final zero (RFC 2131 section 2).
const FILE_FIELD: usize = 127;

/// Finds the addresses of a name. The outer error: nobody could be asked; None: there is no such name.
pub type Resolve<'r> = &'r dyn Fn(&str) -> Result<Option<Ipv4Addr>, String>;

/// The statements for these options, joined by blanks.
///
/// # Errors
/// A value that dhcpd could not take as it is; the next server's name cannot be looked up.
pub fn of(options: &[DhcpOption], resolve: Resolve<'_>) -> Result<String, Problem> {
    let mut statements = Vec::new();
    let filename = given(options, "filename");
    let next_server = given(options, "nextServer");
    if let Some(filename) = filename {
        statements.push(format!("filename = {};", quoted("filename", filename)?));
    }
    let address = match next_server {
        Some(server) => Some(address_of(server, resolve)?),
        None => None,
    };
    if let Some(address) = &address {
        statements.push(format!("next-server = {address};"));
    }
    if let Some(name) = given(options, "hostname") {
        statements.push(format!("option host-name = {};", quoted("hostname", name)?));
    }
    sun(options, &mut statements)?;
    let begins =
        |prefix: &str| filename.is_some_and(|name| name.to_ascii_lowercase().starts_with(prefix));
    if let Some(filename) = filename.filter(|_| begins("ztp.cfg")) {
        if let Some(address) = &address {
            statements.push(format!("option option-150 = {address};"));
        }
        statements.push(format!(
            "option FM_ZTP.config-file-name = {};",
            quoted("filename", filename)?
        ));
        if let (Some("huawei"), Some(core), Some(web)) = (
            given(options, "ztp_vendor"),
            given(options, "ztp_firmware[core]"),
            given(options, "ztp_firmware[web]"),
        ) {
            let value = quoted("ztp_firmware", &format!("vrpfile={core};webfile={web};"))?;
            statements.push(format!("option option-143 = {value};"));
        }
    }
    if let Some(filename) = filename.filter(|_| begins("poap.cfg")) {
        if let Some(server) = next_server {
            statements.push(format!(
                "option tftp-server-name = {};",
                quoted("nextServer", server)?
            ));
        }
        statements.push(format!(
            "option bootfile-name = {};",
            quoted("filename", filename)?
        ));
    }
    statements.extend(firmware(options, filename)?);
    Ok(statements.join(" "))
}

/// What firmware wants to hear beside the boot file. One that boots by HTTP takes URLs, and only from an answer that calls itself `HTTPClient` (UEFI
/// specification, section 24.7); a name that the header's field does not hold is an option.
fn firmware(options: &[DhcpOption], filename: Option<&str>) -> Result<Vec<String>, Problem> {
    let mut statements = Vec::new();
    let file = filename.unwrap_or_default();
    let lower = file.to_ascii_lowercase();
    let is_url = lower.starts_with("http://") || lower.starts_with("https://");
    let class = match is_url {
        true => Some("HTTPClient"),
        false => given(options, "PXEClient"),
    };
    if let Some(class) = class {
        let class = quoted("PXEClient", class)?;
        statements.push(format!("option vendor-class-identifier = {class};"));
    }
    if is_url || file.len() > FILE_FIELD {
        let file = quoted("filename", file)?;
        statements.push(format!("option bootfile-name = {file};"));
    }
    Ok(statements)
}

/// Checks a host's name.
///
/// # Errors
/// It would break dhcpd's leases file.
pub fn check_name(name: &str) -> Result<(), Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    // A part that is empty or begins with `_` ends the name for dhcpd when it reads its file again, and the host is lost.
    let begins_well = |part: &str| part.starts_with(|first: char| first != '_');
    let rooted = name.strip_suffix('.').unwrap_or(name);
    let usable = (1..=255).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && rooted.split('.').all(begins_well);
    if usable {
        Ok(())
    } else {
        Err(Problem::Invalid(format!(
            "Invalid host name {name:?}: dhcpd takes letters, digits, `-`, `_` and `.`, and no part that is empty or begins with `_`"
        )))
    }
}

fn given<'a>(options: &'a [DhcpOption], name: &str) -> Option<&'a str> {
    text(options, name).filter(|value| !value.is_empty())
}

fn quoted(name: &str, value: &str) -> Result<String, Problem> {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !matches!(byte, b'"' | b'\\');
    if !value.bytes().all(plain) {
        return Err(Problem::Invalid(format!(
            "{name} holds a quote, a backslash or a character that is not printable ASCII, which dhcpd's leases file cannot hold"
        )));
    }
    if value.len() > LONGEST_VALUE {
        return Err(Problem::Invalid(format!(
            "{name} is longer than {LONGEST_VALUE} bytes"
        )));
    }
    Ok(format!("\"{value}\""))
}

/// `c0:00:02:09`; for a name that does not exist the name itself, which dhcpd keeps and does not use.
fn address_of(server: &str, resolve: Resolve<'_>) -> Result<String, Problem> {
    let hexadecimal = |address: Ipv4Addr| {
        address
            .octets()
            .map(|octet| format!("{octet:02x}"))
            .join(":")
    };
    if let Ok(address) = server.parse() {
        return Ok(hexadecimal(address));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !server.bytes().all(plain) {
        return Err(Problem::Invalid(format!(
            "nextServer {server:?} is neither an address nor a name"
        )));
    }
    match resolve(server) {
        Ok(Some(address)) => Ok(hexadecimal(address)),
        Ok(None) => quoted("nextServer", server),
        Err(why) => Err(Problem::Invalid(format!(
            "cannot look up the next server {server}: {why}"
        ))),
    }
}

/// Foreman names these `<VENDOR>attribute`, with the vendor's class in the brackets.
fn sun(options: &[DhcpOption], statements: &mut Vec<String>) -> Result<(), Problem> {
    let mut any = false;
    for option in options {
        let Some((vendor, attribute)) = option
            .name
            .strip_prefix('<')
            .and_then(|rest| rest.split_once('>'))
        else {
            continue;
        };
        let vendor = vendor.to_ascii_lowercase();
        if !["sun", "solar", "sparc"]
            .iter()
            .any(|known| vendor.contains(known))
        {
            continue;
        }
        let Some((_, name, is_address)) = SUN.iter().find(|(known, ..)| *known == attribute) else {
            continue;
        };
        let Some(value) = given(options, &option.name) else {
            continue;
        };
        let value = match is_address {
            true => {
                let address: Ipv4Addr = value
                    .parse()
                    .map_err(|_| Problem::Invalid(format!("{attribute} is no address")))?;
                address.to_string()
            }
            false => quoted(attribute, value)?,
        };
        statements.push(format!("option SUNW.{name} {value};"));
        any = true;
    }
    if any {
        statements.push("vendor-option-space SUNW;".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::dhcp::OptionValue;

    fn options(pairs: &[(&str, &str)]) -> Vec<DhcpOption> {
        pairs
            .iter()
            .map(|(name, value)| DhcpOption {
                name: (*name).to_owned(),
                value: OptionValue::Text((*value).to_owned()),
            })
            .collect()
    }

    fn resolve(name: &str) -> Result<Option<Ipv4Addr>, String> {
        match name {
            "tftp.example.com" => Ok(Some(Ipv4Addr::new(192, 0, 2, 9))),
            "down.example.com" => Err("timed out".to_owned()),
            _ => Ok(None),
        }
    }

    fn statements(pairs: &[(&str, &str)]) -> Result<String, String> {
        of(&options(pairs), &resolve).map_err(|problem| problem.to_string())
    }

    #[test]
    fn boot_options_are_written_in_the_smart_proxys_order() {
        assert_eq!(
            statements(&[
                ("hostname", "a.example.com"),
                ("nextServer", "192.0.2.9"),
                ("filename", "pxelinux.0"),
                ("mtu", "1")
            ])
            .unwrap(),
            "filename = \"pxelinux.0\"; next-server = c0:00:02:09; option host-name = \"a.example.com\";"
        );
        assert_eq!(statements(&[]).unwrap(), "");
        assert_eq!(statements(&[("filename", "")]).unwrap(), "");
    }

    #[test]
    fn a_next_server_may_be_a_name() {
        assert_eq!(
            statements(&[("nextServer", "tftp.example.com")]).unwrap(),
            "next-server = c0:00:02:09;"
        );
        assert_eq!(
            statements(&[("nextServer", "tftp.ex")]).unwrap(),
            "next-server = \"tftp.ex\";"
        );
        assert!(
            statements(&[("nextServer", "down.example.com")])
                .unwrap_err()
                .contains("timed out")
        );
        assert!(
            statements(&[("nextServer", "x; y")])
                .unwrap_err()
                .contains("neither an address nor a name")
        );
    }

    #[test]
    fn firmware_is_told_what_it_boots_by() {
        assert_eq!(
            statements(&[
                ("filename", "HTTP://192.0.2.9/httpboot/shim.efi"),
                ("PXEClient", "x")
            ])
            .unwrap(),
            "filename = \"HTTP://192.0.2.9/httpboot/shim.efi\"; option vendor-class-identifier = \"HTTPClient\"; \
             option bootfile-name = \"HTTP://192.0.2.9/httpboot/shim.efi\";"
        );
        assert_eq!(
            statements(&[("filename", "pxelinux.0"), ("PXEClient", "PXEClient")]).unwrap(),
            "filename = \"pxelinux.0\"; option vendor-class-identifier = \"PXEClient\";"
        );
        assert_eq!(
            statements(&[("filename", "pxelinux.0"), ("PXEClient", "")]).unwrap(),
            "filename = \"pxelinux.0\";"
        );
        let long = "x".repeat(128);
        let both = statements(&[("filename", &long)]).unwrap();
        assert_eq!(
            both,
            format!("filename = \"{long}\"; option bootfile-name = \"{long}\";")
        );
    }

    #[test]
    fn no_value_becomes_a_statement_of_its_own() {
        for bad in [
            "a\"; option x \"b",
            "a\\",
            "a\nb",
            "a\0b",
            "a\u{7f}",
            "\u{e4}",
        ] {
            let told = statements(&[("filename", bad)]).unwrap_err();
            assert!(told.starts_with("filename holds a quote"), "{told}");
        }
        assert!(statements(&[("<Sun>root_server_ip", "192.0.2.1; x")]).is_err());
    }

    #[test]
    fn sun_options_and_switches_have_their_own() {
        assert_eq!(
            statements(&[
                ("<Sun-Fire-V210>root_server_ip", "192.0.2.3"),
                ("<sparc>install_path", "/x"),
                ("<HP>install_path", "/y")
            ])
            .unwrap(),
            "option SUNW.root-server-ip-address 192.0.2.3; option SUNW.install-path \"/x\"; vendor-option-space SUNW;"
        );
        assert_eq!(
            statements(&[
                ("filename", "ZTP.cfg/x"),
                ("nextServer", "192.0.2.9"),
                ("ztp_vendor", "huawei"),
                ("ztp_firmware[core]", "c"),
                ("ztp_firmware[web]", "w"),
            ])
            .unwrap(),
            "filename = \"ZTP.cfg/x\"; next-server = c0:00:02:09; option option-150 = c0:00:02:09; \
             option FM_ZTP.config-file-name = \"ZTP.cfg/x\"; option option-143 = \"vrpfile=c;webfile=w;\";"
        );
        assert_eq!(
            statements(&[
                ("filename", "poap.cfg/x"),
                ("nextServer", "tftp.example.com")
            ])
            .unwrap(),
            "filename = \"poap.cfg/x\"; next-server = c0:00:02:09; option tftp-server-name = \"tftp.example.com\"; option bootfile-name = \"poap.cfg/x\";"
        );
    }

    #[test]
    fn a_name_that_would_break_the_leases_file_is_refused() {
        for good in ["a", "a.example.com", "a-01_x", "a.", "a.-1", "1.2_"] {
            assert!(check_name(good).is_ok());
        }
        for bad in [
            "",
            "a b",
            "a;",
            "a{",
            "a\"",
            "-a",
            ".a",
            ".",
            "_a",
            "a..b",
            "a._b",
            "a.b..",
            "a\n",
            "ä",
            &"a".repeat(256),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
