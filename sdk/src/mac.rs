//! MAC addresses as Foreman sends them: 6 groups (Ethernet) or 20 (InfiniBand) of one or two hexadecimal digits, joined by `:`.
//!
//! The text is kept as sent: file names are made of it without padding (`a:b:c:d:e:f` stays so), so parsing into octets and back
//! would change them. Dashes, dots and bare digits are refused. Source: `contract/tftp.md`.

use std::fmt;
use std::str::FromStr;

/// A valid MAC address, as sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MacAddress(String);

/// The text is no MAC address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidMacAddress(String);

impl MacAddress {
    /// The text as sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `aa:bb:cc:dd:ee:0f`
    #[must_use]
    pub fn colon_lower(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// `0a:0b:0c:0d:0e:0f` for `A:b:C:d:e:F`: the one form of an address, for comparing and for other programs.
    #[must_use]
    pub fn canonical(&self) -> String {
        let groups = self.0.split(':');
        let padded: Vec<String> = groups
            .map(|group| format!("{group:0>2}").to_ascii_lowercase())
            .collect();
        padded.join(":")
    }

    /// `aa-bb-cc-dd-ee-0f`
    #[must_use]
    pub fn dash_lower(&self) -> String {
        self.0.to_ascii_lowercase().replace(':', "-")
    }

    /// `AA-BB-CC-DD-EE-0F`
    #[must_use]
    pub fn dash_upper(&self) -> String {
        self.0.to_ascii_uppercase().replace(':', "-")
    }

    /// `AABBCCDDEE0F`
    #[must_use]
    pub fn bare_upper(&self) -> String {
        self.0.to_ascii_uppercase().replace(':', "")
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMacAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut groups = 0_usize;
        let well_formed = text.split(':').all(|group| {
            groups += 1;
            matches!(group.len(), 1 | 2) && group.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        match (well_formed, groups) {
            (true, 6 | 20) => Ok(Self(text.to_owned())),
            _ => Err(InvalidMacAddress(text.to_owned())),
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for InvalidMacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Invalid MAC address: {}", self.0)
    }
}

impl std::error::Error for InvalidMacAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_and_twenty_groups_are_valid() {
        for text in [
            "aa:bb:cc:dd:ee:ff",
            "AA:BB:CC:DD:EE:FF",
            "a:b:c:d:e:f",
            &["0a"; 20].join(":"),
        ] {
            assert_eq!(text.parse::<MacAddress>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn every_other_form_is_refused() {
        let eight = ["aa"; 8].join(":");
        for text in [
            "",
            "aa",
            "aa-bb-cc-dd-ee-ff",
            "aabbccddeeff",
            "aa:bb:cc:dd:ee",
            "aa:bb:cc:dd:ee:",
            ":aa:bb:cc:dd:ee",
            "aa:bb:cc:dd:ee:fg",
            "aaa:bb:cc:dd:ee:ff",
            "aa:bb:cc:dd:ee:ff\n",
            "äa:bb:cc:dd:ee:ff",
            &eight,
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn file_name_forms_keep_short_groups() {
        let mac: MacAddress = "A:b:C:d:E:0f".parse().unwrap();
        assert_eq!(mac.dash_lower(), "a-b-c-d-e-0f");
        assert_eq!(mac.dash_upper(), "A-B-C-D-E-0F");
        assert_eq!(mac.bare_upper(), "ABCDE0F");
        assert_eq!(mac.colon_lower(), "a:b:c:d:e:0f");
        assert_eq!(mac.canonical(), "0a:0b:0c:0d:0e:0f");
    }

    #[test]
    fn the_error_says_what_was_sent() {
        assert_eq!(
            "x".parse::<MacAddress>().unwrap_err().to_string(),
            "Invalid MAC address: x"
        );
    }
}
