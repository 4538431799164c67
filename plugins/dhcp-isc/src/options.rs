//! Options and parameters as the Smart Proxy shows them, read from the statements of dhcpd's files.
//!
//! The one idea: statements are kept as they stand in the file, and read only when somebody asks for the record. What this
//! plugin wants to write is read by the same function, so "equal" compares like with like.

use std::net::Ipv4Addr;

use bulkhead_sdk::dhcp::{DhcpOption, OptionValue};

use crate::lexer::{Lexer, Token, keyword, unquoted};
use crate::time;

/// Names whose Smart Proxy name is not made by replacing `.` and `-` with `_`; their value is one text.
const RENAMED: [(&str, &str); 14] = [
    ("next-server", "nextServer"),
    ("server.next-server", "nextServer"),
    ("filename", "filename"),
    ("server.filename", "filename"),
    ("host-name", "hostname"),
    ("SUNW.root-server-ip-address", "root_server_ip"),
    ("SUNW.root-server-hostname", "root_server_hostname"),
    ("SUNW.root-path-name", "root_path_name"),
    ("SUNW.install-server-ip-address", "install_server_ip"),
    ("SUNW.install-server-hostname", "install_server_name"),
    ("SUNW.install-path", "install_path"),
    ("SUNW.sysid-config-file-server", "sysid_server_path"),
    ("SUNW.JumpStart-server", "jumpstart_server_path"),
    ("vendor-option-space", "vendor"),
];

/// The names that Foreman reads of a subnet. Those of other options are shown as they are spelled.
const OF_SUBNETS: [&str; 5] = [
    "routers",
    "domain_name",
    "domain_name_servers",
    "ntp_servers",
    "interface_mtu",
];

/// Sets an option, in place of one of the same name.
pub fn set(options: &mut Vec<DhcpOption>, name: &str, value: OptionValue) {
    match options.iter_mut().find(|known| known.name == name) {
        Some(known) => known.value = value,
        None => options.push(DhcpOption {
            name: name.to_owned(),
            value,
        }),
    }
}

/// The text of an option.
#[must_use]
pub fn text<'a>(options: &'a [DhcpOption], name: &str) -> Option<&'a str> {
    let option = options.iter().find(|option| option.name == name)?;
    match &option.value {
        OptionValue::Text(text) => Some(text),
        _ => None,
    }
}

/// Options of a whole body: a host's or a lease's kept statements.
#[must_use]
pub fn of_body(body: &[u8], mut options: Vec<DhcpOption>) -> Vec<DhcpOption> {
    let mut lexer = Lexer::new(body);
    while let Some(token) = lexer.next() {
        let read = match token {
            Token::Word(keyword) => statement(keyword, &mut lexer, &mut options),
            _ => Some(()),
        };
        if read.is_none() {
            break;
        }
    }
    options
}

/// Reads one statement behind its keyword into `options`. None: the text ends first.
pub fn statement(begun: &[u8], lexer: &mut Lexer<'_>, options: &mut Vec<DhcpOption>) -> Option<()> {
    let begun = keyword(begun);
    match begun.as_ref() {
        b"option" | b"supersede" => match lexer.next()? {
            Token::Word(name) => value(&String::from_utf8_lossy(name), lexer, options),
            Token::End => Some(()),
            _ => lexer.skip_statement(),
        },
        b"filename" => value("filename", lexer, options),
        b"next-server" => value("next-server", lexer, options),
        b"vendor-option-space" => value("vendor-option-space", lexer, options),
        b"hardware" => {
            if let Token::Word(kind) = lexer.next()? {
                set(
                    options,
                    "hardware_type",
                    OptionValue::Text(String::from_utf8_lossy(&keyword(kind)).into_owned()),
                );
            }
            lexer.skip_statement()
        }
        b"tstp" | b"tsfp" | b"atsfp" | b"cltt" => {
            if let Some(seconds) = time::read(lexer)? {
                set(
                    options,
                    &String::from_utf8_lossy(&begun),
                    OptionValue::Text(time::written(seconds)),
                );
            }
            Some(())
        }
        b"next" => {
            let words = (lexer.next()?, lexer.next()?, lexer.next()?);
            if let (Token::Word(b"binding"), Token::Word(b"state"), Token::Word(state)) = words {
                set(
                    options,
                    "next_state",
                    OptionValue::Text(String::from_utf8_lossy(state).into_owned()),
                );
            }
            lexer.skip_statement()
        }
        // With their quotes, as the Smart Proxy shows them.
        b"uid" | b"client-hostname" => {
            if let Token::Quoted(raw) | Token::Word(raw) = lexer.next()? {
                let name = String::from_utf8_lossy(&begun).replace('-', "_");
                set(
                    options,
                    &name,
                    OptionValue::Text(String::from_utf8_lossy(raw).into_owned()),
                );
            }
            lexer.skip_statement()
        }
        _ => lexer.skip_statement(),
    }
}

/// Reads `[=] words, words;` as the value of `name`.
fn value(name: &str, lexer: &mut Lexer<'_>, options: &mut Vec<DhcpOption>) -> Option<()> {
    let mut groups = vec![Vec::new()];
    let mut depth = 0_usize;
    loop {
        match lexer.next()? {
            Token::End if depth == 0 => break,
            Token::Comma => groups.push(Vec::new()),
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            Token::Word(raw) | Token::Quoted(raw) => {
                if let Some(last) = groups.last_mut() {
                    last.push(unquoted(raw));
                }
            }
            Token::End | Token::Equals => {}
        }
    }
    // `option NAME code 150 = ip-address` declares a type; it has no value.
    if groups
        .first()
        .and_then(|group| group.first())
        .is_some_and(|word| word == "code")
    {
        return Some(());
    }
    let plain = name.strip_prefix("server.").unwrap_or(name);
    if let Some((_, shown)) = RENAMED
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(plain))
    {
        let text = groups.into_iter().flatten().collect::<Vec<_>>().join(" ");
        set(options, shown, OptionValue::Text(renamed(shown, text)));
        return Some(());
    }
    let mut shown = name.replace(['.', '-'], "_");
    if let Some(known) = OF_SUBNETS
        .iter()
        .find(|known| known.eq_ignore_ascii_case(&shown))
    {
        shown = (*known).to_owned();
    }
    let value = match shown.as_str() {
        "routers" | "domain_name_servers" => {
            OptionValue::Texts(groups.into_iter().flatten().collect())
        }
        "interface_mtu" => {
            let words: Vec<String> = groups.into_iter().flatten().collect();
            match words.first().and_then(|word| word.parse().ok()) {
                Some(number) => OptionValue::Integer(number),
                None => OptionValue::Texts(words),
            }
        }
        _ => OptionValue::Groups(groups),
    };
    set(options, &shown, value);
    Some(())
}

fn renamed(shown: &str, text: String) -> String {
    match shown {
        "nextServer" | "root_server_ip" | "install_server_ip" => dotted(&text).unwrap_or(text),
        "vendor" if text == "SUNW" => "sun".to_owned(),
        _ => text,
    }
}

/// `c0:00:02:09`, as dhcpd writes an address, in the usual form.
fn dotted(text: &str) -> Option<String> {
    let mut octets = [0; 4];
    let mut groups = text.split(':');
    for octet in &mut octets {
        *octet = u8::from_str_radix(groups.next()?, 16).ok()?;
    }
    groups
        .next()
        .is_none()
        .then(|| Ipv4Addr::from(octets).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Vec<(String, OptionValue)> {
        of_body(body.as_bytes(), Vec::new())
            .into_iter()
            .map(|option| (option.name, option.value))
            .collect()
    }

    fn text(name: &str, value: &str) -> (String, OptionValue) {
        (name.to_owned(), OptionValue::Text(value.to_owned()))
    }

    #[test]
    fn what_dhcpd_writes_of_a_host_is_read() {
        let body = "hardware ethernet aa:bb:cc:dd:ee:01; supersede server.filename = \"pxelinux.0\"; supersede server.next-server = c0:00:02:09;\n\
             supersede host-name = \"a\\\"b\"; supersede SUNW.root-server-ip-address = c0:00:02:03; supersede server.vendor-option-space = \"SUNW\";\n\
             supersede option-150 = c0:00:02:09; dynamic;";
        assert_eq!(
            read(body),
            [
                text("hardware_type", "ethernet"),
                text("filename", "pxelinux.0"),
                text("nextServer", "192.0.2.9"),
                text("hostname", "a\"b"),
                text("root_server_ip", "192.0.2.3"),
                text("vendor", "sun"),
                (
                    "option_150".to_owned(),
                    OptionValue::Groups(vec![vec!["c0:00:02:09".to_owned()]])
                ),
            ]
        );
    }

    #[test]
    fn options_are_flat_where_foreman_wants_them_flat() {
        let list = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            read(
                "option routers 192.0.2.1, 192.0.2.2; option domain-name \"example.com\"; option ntp-servers a b, c; option interface-mtu 1500;"
            ),
            [
                (
                    "routers".to_owned(),
                    OptionValue::Texts(list(&["192.0.2.1", "192.0.2.2"]))
                ),
                (
                    "domain_name".to_owned(),
                    OptionValue::Groups(vec![list(&["example.com"])])
                ),
                (
                    "ntp_servers".to_owned(),
                    OptionValue::Groups(vec![list(&["a", "b"]), list(&["c"])])
                ),
                ("interface_mtu".to_owned(), OptionValue::Integer(1500)),
            ]
        );
    }

    #[test]
    fn a_declared_type_has_no_value() {
        assert_eq!(
            read("option x code 150 = { integer 8, text }; option y 1;").len(),
            1
        );
    }

    #[test]
    fn leases_keep_the_quotes_of_names_and_identifiers() {
        assert_eq!(
            read(
                "cltt 1 2026/11/23 10:00:00; next binding state free; uid \"\\001\\000\"; client-hostname \"foo\"; uid 01:02;"
            ),
            [
                text("cltt", "2026-11-23 10:00:00 UTC"),
                text("next_state", "free"),
                text("uid", "01:02"),
                text("client_hostname", "\"foo\""),
            ]
        );
    }

    #[test]
    fn a_later_statement_replaces_an_earlier_one_in_its_place() {
        assert_eq!(
            read("filename \"a\"; next-server tftp.example.com; filename \"b\";"),
            [
                text("filename", "b"),
                text("nextServer", "tftp.example.com")
            ]
        );
    }
}
