//! DHCP options: Kea's names and codes, and the names that the Smart Proxy shows.
//!
//! | Smart Proxy | Kea | code | value |
//! |---|---|---|---|
//! | `routers`, `domain_name_servers`, `ntp_servers` | the same with dashes | 3, 6, 42 | addresses |
//! | `domain_name` | `domain-name` | 15 | text |
//! | `interface_mtu` | `interface-mtu` | 26 | integer |
//! | `PXEClient` | `vendor-class-identifier` | 60 | text |
//! | `tftp_server_name` | `tftp-server-name` | 66 | text |
//! | `boot_file_name` | `boot-file-name` | 67 | text |
//!
//! A value that Kea keeps in hexadecimal (`csv-format` false) is shown like any other.

use bulkhead_sdk::dhcp::{DhcpOption, OptionValue};
use serde::{Deserialize, Serialize};

/// Options within an option.
pub(crate) const VENDOR_OPTIONS: u16 = 43;
pub(crate) const VENDOR_CLASS: u16 = 60;
pub(crate) const TFTP_SERVER_NAME: u16 = 66;
pub(crate) const BOOT_FILE_NAME: u16 = 67;
/// Where switches of Huawei look for their firmware.
pub(crate) const FIRMWARE: u16 = 143;
/// RFC 5859.
pub(crate) const TFTP_SERVER_ADDRESS: u16 = 150;

/// What a machine that boots by HTTP wants to hear in option 60 (UEFI specification, section 24.7).
pub(crate) const HTTP_CLIENT: &str = "HTTPClient";

/// How an option's value is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Addresses,
    Integer,
    Text,
}

/// Smart Proxy's name, Kea's name, code, form.
const KNOWN: [(&str, &str, u16, Form); 8] = [
    ("routers", "routers", 3, Form::Addresses),
    ("domain_name", "domain-name", 15, Form::Text),
    (
        "domain_name_servers",
        "domain-name-servers",
        6,
        Form::Addresses,
    ),
    ("ntp_servers", "ntp-servers", 42, Form::Addresses),
    ("interface_mtu", "interface-mtu", 26, Form::Integer),
    (
        "PXEClient",
        "vendor-class-identifier",
        VENDOR_CLASS,
        Form::Text,
    ),
    (
        "tftp_server_name",
        "tftp-server-name",
        TFTP_SERVER_NAME,
        Form::Text,
    ),
    (
        "boot_file_name",
        "boot-file-name",
        BOOT_FILE_NAME,
        Form::Text,
    ),
];

/// What `GET /dhcp` shows of a subnet, in this order.
const OF_SUBNETS: usize = 5;

/// One element of Kea's `option-data`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub(crate) struct Datum {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<u16>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) data: String,
    #[serde(
        default,
        rename = "always-send",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub(crate) always: bool,
    #[serde(default = "dhcp4", skip_serializing_if = "is_dhcp4")]
    pub(crate) space: String,
    /// False: `data` is hexadecimal, whatever the option is declared as. Kea needs no declaration then.
    #[serde(
        default = "yes",
        rename = "csv-format",
        skip_serializing_if = "Clone::clone"
    )]
    csv: bool,
}

fn yes() -> bool {
    true
}

fn dhcp4() -> String {
    "dhcp4".to_owned()
}

fn is_dhcp4(space: &str) -> bool {
    space == "dhcp4"
}

impl Datum {
    /// An option of text, which Kea splits at commas unless they are escaped.
    pub(crate) fn text(code: u16, text: &str) -> Self {
        Self::new(code, text.replace(',', "\\,"))
    }

    /// An option of these octets.
    pub(crate) fn bytes(code: u16, octets: &[u8]) -> Self {
        let data = octets.iter().map(|octet| format!("{octet:02X}")).collect();
        Self {
            csv: false,
            ..Self::new(code, data)
        }
    }

    /// In another space of options than DHCP's own.
    pub(crate) fn within(mut self, space: &str) -> Self {
        space.clone_into(&mut self.space);
        self
    }

    /// The octets of an option that is written in hexadecimal.
    pub(crate) fn octets(&self) -> Option<Vec<u8>> {
        let data = self.data.strip_prefix("0x").unwrap_or(&self.data);
        let digits: Vec<u8> = data
            .bytes()
            .filter(|byte| !matches!(byte, b' ' | b':'))
            .map(|digit| char::from(digit).to_digit(16))
            .map(|digit| digit.and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        let whole = !self.csv && digits.len().is_multiple_of(2);
        let octets = digits.chunks(2).map(|pair| match pair {
            [high, low] => high << 4 | low,
            _ => 0,
        });
        whole.then(|| octets.collect())
    }

    fn new(code: u16, data: String) -> Self {
        let name = KNOWN
            .iter()
            .find(|(_, _, known, _)| *known == code)
            .map(|(_, name, ..)| (*name).to_owned());
        Self {
            code: Some(code),
            name: name.unwrap_or_default(),
            data,
            always: false,
            space: dhcp4(),
            csv: true,
        }
    }

    /// Sent whether the client asks for it or not.
    pub(crate) fn always(mut self) -> Self {
        self.always = true;
        self
    }

    /// The code, also where only the name is written.
    pub(crate) fn code(&self) -> Option<u16> {
        self.code.or_else(|| {
            KNOWN
                .iter()
                .find(|(_, name, ..)| *name == self.name)
                .map(|(.., code, _)| *code)
        })
    }

    pub(crate) fn is(&self, code: u16) -> bool {
        is_dhcp4(&self.space) && self.code() == Some(code)
    }

    /// The text of an option of text, also where it is written in hexadecimal.
    pub(crate) fn plain(&self) -> String {
        let text = self
            .octets()
            .and_then(|octets| String::from_utf8(octets).ok());
        text.filter(|text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
            .unwrap_or_else(|| self.data.replace("\\,", ","))
    }

    /// What makes two of them equal: space, code or name, and data without the blanks that Kea may add.
    pub(crate) fn key(&self) -> (String, String, String) {
        let name = self
            .code()
            .map_or_else(|| self.name.clone(), |code| code.to_string());
        let data = match self.octets().filter(|octets| !octets.is_empty()) {
            Some(octets) => format!("{octets:02x?}"),
            None => self.data.replace(", ", ","),
        };
        (self.space.clone(), name, data)
    }

    /// Under the name that the Smart Proxy shows.
    pub(crate) fn shown(&self) -> DhcpOption {
        let known = KNOWN
            .iter()
            .find(|(_, _, code, _)| self.is(*code))
            .map(|(name, _, _, form)| (*name, *form));
        let (name, form) = match known {
            Some((name, form)) => (name.to_owned(), form),
            None if self.name.is_empty() => (
                format!("option_{}", self.code.unwrap_or_default()),
                Form::Text,
            ),
            None => (self.name.replace(['-', '.'], "_"), Form::Text),
        };
        DhcpOption {
            name,
            value: self.value(form),
        }
    }

    fn value(&self, form: Form) -> OptionValue {
        let octets = self.octets().filter(|octets| !octets.is_empty());
        match (form, octets) {
            (Form::Addresses, Some(octets)) if octets.len().is_multiple_of(4) => {
                OptionValue::Texts(octets.chunks(4).map(dotted).collect())
            }
            (Form::Addresses, _) => OptionValue::Texts(
                self.data
                    .split(',')
                    .map(|one| one.trim().to_owned())
                    .filter(|one| !one.is_empty())
                    .collect(),
            ),
            (Form::Integer, Some(octets)) if octets.len() <= 4 => OptionValue::Integer(
                octets
                    .iter()
                    .fold(0, |number, octet| number << 8 | i64::from(*octet)),
            ),
            (Form::Integer, _) => match self.data.trim().parse() {
                Ok(number) => OptionValue::Integer(number),
                Err(_) => OptionValue::Text(self.data.clone()),
            },
            (Form::Text, _) => OptionValue::Text(self.plain()),
        }
    }
}

/// Four octets as an address.
fn dotted(octets: &[u8]) -> String {
    let parts: Vec<String> = octets.iter().map(ToString::to_string).collect();
    parts.join(".")
}

/// What is shown of a subnet whose options are these, the nearest scope first.
pub(crate) fn of_subnet(scopes: &[&[Datum]]) -> Vec<DhcpOption> {
    KNOWN
        .iter()
        .take(OF_SUBNETS)
        .filter_map(|(_, _, code, _)| {
            let mut all = scopes.iter().flat_map(|scope| scope.iter());
            all.find(|datum| datum.is(*code)).map(Datum::shown)
        })
        .collect()
}

/// An option as Foreman sends it, if Kea has one for it.
pub(crate) fn wanted(option: &DhcpOption) -> Option<Datum> {
    let (_, _, code, form) = KNOWN.iter().find(|(name, ..)| *name == option.name)?;
    Some(match &option.value {
        OptionValue::Text(text) if *form == Form::Text => Datum::text(*code, text),
        OptionValue::Text(text) => Datum::new(*code, text.clone()),
        OptionValue::Integer(number) => Datum::new(*code, number.to_string()),
        OptionValue::Boolean(value) => Datum::new(*code, value.to_string()),
        OptionValue::Texts(texts) => Datum::new(*code, texts.join(",")),
        OptionValue::Groups(groups) => Datum::new(*code, groups.concat().join(",")),
    })
}
