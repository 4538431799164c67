//! The subnets that the operator configured.
//!
//! One text a subnet, a prefix and words: `192.0.2.0/24 range=192.0.2.100-192.0.2.200 routers=192.0.2.1 dns=192.0.2.53 domain=example.com`.
//! It refuses unknown words, ranges outside the subnet, ranges that run backwards, subnets that overlap, and a wire with one subnet only.
//!
//! The one idea: what a subnet does not say, the plugin's settings say for all of them.

use std::net::Ipv4Addr;
use std::rc::Rc;

use bulkhead_sdk::settings;

/// Addresses of the largest subnet. A /12 is far more than one broadcast domain bears.
const SHORTEST_PREFIX: u8 = 12;
/// Options that have a word of their own, or that the subnet itself says.
const WORDS: [(u8, &str); 6] = [
    (1, "the prefix"),
    (3, "`routers=`"),
    (6, "`dns=`"),
    (15, "`domain=`"),
    (26, "`mtu=`"),
    (42, "`ntp=`"),
];

/// The configuration, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// By address.
    pub subnets: Vec<Rc<Subnet>>,
    /// What holds where none of them is: no address, and what the settings say for all.
    pub elsewhere: Rc<Subnet>,
    /// Whether requests for wrong addresses are refused rather than ignored.
    pub authoritative: bool,
    /// Whether a dynamic lease belongs to the hardware address, else to the client identifier where there is one.
    pub by_hardware: bool,
    /// Boot files by architecture, for hosts whose reservation names none.
    pub boot_files: Vec<(Loader, String)>,
    /// Seconds that an offered address is kept for the client.
    pub offer_time: u32,
    /// Seconds that a declined address rests.
    pub decline_time: u32,
    /// Packets of one hardware address in ten seconds.
    pub flood_limit: u32,
    /// Milliseconds to wait for somebody who uses an address before it is offered; 0: do not ask.
    pub probe_time: u32,
}

/// What asks for a boot file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// Firmware of this architecture (option 93, RFC 4578).
    Architecture(u16),
    /// iPXE, which may have come from here already.
    Ipxe,
}

/// One subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its first address.
    pub network: Ipv4Addr,
    /// Its prefix's length.
    pub length: u8,
    /// What is handed out, first and last.
    pub ranges: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Seconds of a lease.
    pub lease_time: u32,
    /// Options for its clients.
    pub routers: Vec<Ipv4Addr>,
    /// DNS servers.
    pub dns: Vec<Ipv4Addr>,
    /// Domain.
    pub domain: Option<String>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// The interface's MTU.
    pub mtu: Option<u16>,
    /// Where boot files are; none: this machine.
    pub next_server: Option<Ipv4Addr>,
    /// The boot file for every client whose reservation names none.
    pub filename: Option<String>,
    /// The wire that it shares with the other subnets that say this name.
    pub shared: Option<String>,
    /// Options by number, for what has no word here.
    pub others: Vec<(u8, Vec<u8>)>,
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// The setting and what is wrong with it.
    pub fn of_settings() -> Result<Self, String> {
        let number = |name: &str, least: u32, most: u32| {
            let given = settings::integer(name).unwrap_or(i64::from(least));
            let fits = u32::try_from(given)
                .ok()
                .filter(|it| (least..=most).contains(it));
            fits.ok_or_else(|| format!("{name} is {given}; it must be from {least} to {most}"))
        };
        let addresses = |name: &str| -> Result<Vec<Ipv4Addr>, String> {
            let given = settings::texts(name).unwrap_or_default();
            given
                .iter()
                .map(|text| address(text).map_err(|it| format!("{name}: {it}")))
                .collect()
        };
        let defaults = Subnet {
            network: Ipv4Addr::UNSPECIFIED,
            length: 0,
            ranges: Vec::new(),
            lease_time: number("lease_time", 60, 0x7fff_ffff)?,
            routers: Vec::new(),
            dns: addresses("dns_servers")?,
            domain: settings::text("domain").filter(|it| !it.is_empty()),
            ntp: addresses("ntp_servers")?,
            mtu: None,
            next_server: match settings::text("next_server").unwrap_or_default().as_str() {
                "" => None,
                text => Some(address(text).map_err(|it| format!("next_server: {it}"))?),
            },
            filename: None,
            shared: None,
            others: Vec::new(),
        };
        on_one_or_the_other()?;
        let mut subnets: Vec<Rc<Subnet>> = Vec::new();
        for text in settings::texts("subnets").unwrap_or_default() {
            let subnet =
                Subnet::parse(&text, &defaults).map_err(|it| format!("subnets: `{text}`: {it}"))?;
            if let Some(other) = subnets.iter().find(|other| other.overlaps(&subnet)) {
                return Err(format!(
                    "subnets: {} overlaps {}",
                    subnet.prefix(),
                    other.prefix()
                ));
            }
            subnets.push(Rc::new(subnet));
        }
        subnets.sort_by_key(|subnet| subnet.network);
        none_shares_alone(&subnets)?;
        let mut boot_files = Vec::new();
        for text in settings::texts("boot_files").unwrap_or_default() {
            let parsed = text.split_once('=').and_then(|(loader, file)| {
                let loader = match loader.trim() {
                    "ipxe" => Loader::Ipxe,
                    number => Loader::Architecture(number.parse().ok()?),
                };
                Some((loader, file.trim().to_owned()))
            });
            boot_files.push(parsed.ok_or_else(|| format!("boot_files: `{text}` should be `ARCHITECTURE=FILE`, for example `7=grub2/grubx64.efi`"))?);
        }
        Ok(Self {
            subnets,
            elsewhere: Rc::new(defaults),
            authoritative: settings::boolean("authoritative").unwrap_or(true),
            by_hardware: settings::text("identity").is_none_or(|it| it == "hardware"),
            boot_files,
            offer_time: number("offer_time", 1, 3_600)?,
            decline_time: number("decline_time", 0, 0x7fff_ffff)?,
            flood_limit: number("flood_limit", 1, 1_000_000)?,
            probe_time: number("probe_time", 0, 2_000)?,
        })
    }

    /// The subnet that an address lies in.
    #[must_use]
    pub fn holding(&self, address: Ipv4Addr) -> Option<&Rc<Subnet>> {
        // Subnets do not overlap, so only the last one that begins at or before the address can hold it.
        let after = self
            .subnets
            .partition_point(|subnet| subnet.network <= address);
        self.subnets
            .get(after.checked_sub(1)?)
            .filter(|subnet| subnet.holds(address))
    }

    /// The subnet of an address, if it is on one wire with this one.
    #[must_use]
    pub fn on_wire<'a>(
        &'a self,
        subnet: &'a Rc<Subnet>,
        address: Ipv4Addr,
    ) -> Option<&'a Rc<Subnet>> {
        self.wire(subnet).find(|it| it.holds(address))
    }

    /// The subnets on one wire with this one, itself first.
    pub fn wire<'a>(&'a self, subnet: &'a Rc<Subnet>) -> impl Iterator<Item = &'a Rc<Subnet>> {
        let others = subnet.shared.as_deref().into_iter().flat_map(move |name| {
            let all = self.subnets.iter();
            all.filter(move |it| it.shared.as_deref() == Some(name) && it.network != subnet.network)
        });
        std::iter::once(subnet).chain(others)
    }

    /// The subnet of a prefix, `192.0.2.0/24`.
    #[must_use]
    pub fn named(&self, prefix: &str) -> Option<&Rc<Subnet>> {
        self.subnets.iter().find(|subnet| subnet.prefix() == prefix)
    }
}

impl Subnet {
    fn parse(text: &str, defaults: &Self) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let prefix = words.next().ok_or("is empty")?;
        let (network, length) = prefix
            .split_once('/')
            .ok_or("should begin with a prefix such as 192.0.2.0/24")?;
        let network = address(network)?;
        let length: u8 = length
            .parse()
            .map_err(|_| format!("`{prefix}` is no prefix"))?;
        if !(SHORTEST_PREFIX..=30).contains(&length) {
            return Err(format!("the prefix must be from /{SHORTEST_PREFIX} to /30"));
        }
        let mut subnet = Self {
            network,
            length,
            ..defaults.clone()
        };
        if u32::from(network) & !subnet.mask_bits() != 0 {
            return Err(format!("{network} is not the first address of a /{length}"));
        }
        for word in words {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| format!("`{word}` should be KEY=VALUE"))?;
            subnet.set(key, value)?;
        }
        subnet.ranges.sort_unstable();
        Ok(subnet)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let list = || value.split(',').map(address).collect::<Result<Vec<_>, _>>();
        let number = |least: u32| {
            let number = value.parse::<u32>().ok().filter(|it| *it >= least);
            number.ok_or_else(|| format!("{key}: `{value}` is not a number of at least {least}"))
        };
        match key {
            "range" => {
                let (first, last) = value.split_once('-').ok_or("range should be FIRST-LAST")?;
                let (first, last) = (address(first)?, address(last)?);
                if first > last {
                    return Err(format!("the range {value} runs backwards"));
                }
                if !self.is_usable(first) || !self.is_usable(last) {
                    return Err(format!("the range {value} leaves the subnet"));
                }
                if self
                    .ranges
                    .iter()
                    .any(|(from, to)| first <= *to && *from <= last)
                {
                    return Err(format!("the range {value} overlaps another"));
                }
                self.ranges.push((first, last));
            }
            "routers" => self.routers = list()?,
            "dns" => self.dns = list()?,
            "ntp" => self.ntp = list()?,
            "domain" => self.domain = Some(value.to_owned()),
            "mtu" => {
                self.mtu = Some(u16::try_from(number(68)?).map_err(|_| "mtu: at most 65535")?);
            }
            "lease" => self.lease_time = number(60)?,
            "next-server" => self.next_server = Some(address(value)?),
            "filename" => self.filename = Some(value.to_owned()),
            "shared" if !value.is_empty() => self.shared = Some(value.to_owned()),
            other => {
                let code = other
                    .strip_prefix("option-")
                    .and_then(|it| it.parse::<u8>().ok());
                let code = code.filter(|code| !matches!(code, 0 | 50..=61 | 82 | 97 | 255));
                let code = code.ok_or_else(|| format!("`{other}` is not known; there are: range, routers, dns, ntp, domain, mtu, lease, next-server, filename, shared, option-NUMBER"))?;
                if let Some((_, word)) = WORDS.iter().find(|(it, _)| *it == code) {
                    return Err(format!("{other} is what {word} says"));
                }
                let data =
                    hex(value).ok_or_else(|| format!("{other}: `{value}` is not hexadecimal"))?;
                if self.others.iter().any(|(it, _)| *it == code) {
                    return Err(format!("{other} stands there twice"));
                }
                self.others.push((code, data));
            }
        }
        Ok(())
    }

    fn mask_bits(&self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.length))
            .unwrap_or(0)
    }

    /// Its mask.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.mask_bits())
    }

    /// `192.0.2.0/24`
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}/{}", self.network, self.length)
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask_bits() == u32::from(self.network)
    }

    /// Whether a host can have this address: inside, neither the first nor the last.
    #[must_use]
    pub fn is_usable(&self, address: Ipv4Addr) -> bool {
        let host = u32::from(address) & !self.mask_bits();
        self.holds(address) && host != 0 && host != !self.mask_bits()
    }

    /// Whether an address is handed out dynamically.
    #[must_use]
    pub fn hands_out(&self, address: Ipv4Addr) -> bool {
        let mut ranges = self.ranges.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&address))
            && !self.is_a_servers(address)
    }

    /// Whether clients are told that a router or a server has this address. A range may go over it.
    #[must_use]
    pub fn is_a_servers(&self, address: Ipv4Addr) -> bool {
        let told = [&self.routers, &self.dns, &self.ntp];
        told.into_iter().any(|list| list.contains(&address)) || self.next_server == Some(address)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.holds(other.network) || other.holds(self.network)
    }
}

/// One server an interface: with addresses, or beside another that gives them.
fn on_one_or_the_other() -> Result<(), String> {
    let [full, proxy] =
        ["interfaces", "proxy_interfaces"].map(|name| settings::texts(name).unwrap_or_default());
    match proxy.iter().find(|it| full.contains(it)) {
        Some(both) => Err(format!(
            "proxy_interfaces: {both} stands in `interfaces` as well; either this server gives the addresses there, or another one does"
        )),
        None => Ok(()),
    }
}

/// A name that only one subnet says is most likely a mistyped one.
fn none_shares_alone(subnets: &[Rc<Subnet>]) -> Result<(), String> {
    for subnet in subnets {
        let Some(name) = &subnet.shared else { continue };
        let sharing = subnets.iter().filter(|it| it.shared == subnet.shared);
        if sharing.count() == 1 {
            return Err(format!(
                "subnets: {} is the only one that says shared={name}; the others on its wire must say the same",
                subnet.prefix()
            ));
        }
    }
    Ok(())
}

fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("`{text}` is not an IPv4 address"))
}

/// Bytes of hexadecimal digits, with or without colons.
#[must_use]
pub fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    let value = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|it| u8::try_from(it).ok())
    };
    let byte = |[high, low]: &[u8; 2]| Some(value(*high)? * 16 + value(*low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::settings::Value;
    use bulkhead_sdk::testing::Host;

    fn read(subnets: &[&str]) -> Result<Config, String> {
        let texts = subnets.iter().map(|&it| it.to_owned()).collect();
        let _host = Host::new()
            .setting("subnets", Value::Texts(texts))
            .setting("dns_servers", Value::Texts(vec!["192.0.2.53".into()]))
            .setting("lease_time", 3600)
            .setting("offer_time", 60)
            .setting("flood_limit", 30)
            .install();
        Config::of_settings()
    }

    #[test]
    fn a_subnet_says_what_the_settings_do_not() {
        let config = read(&[
            "198.51.100.0/25 range=198.51.100.10-198.51.100.20 range=198.51.100.30-198.51.100.40 routers=198.51.100.1 dns=198.51.100.2,198.51.100.3 mtu=9000 lease=600 option-121=18:0a000001",
            "192.0.2.0/24",
        ])
        .unwrap();
        let [plain, full] = config.subnets.as_slice() else {
            panic!("two")
        };
        assert_eq!(
            (plain.prefix().as_str(), plain.mask().to_string().as_str()),
            ("192.0.2.0/24", "255.255.255.0")
        );
        assert_eq!((plain.dns.len(), plain.lease_time), (1, 3600));
        assert_eq!(
            (full.dns.len(), full.lease_time, full.mtu),
            (2, 600, Some(9000))
        );
        assert_eq!(full.others, [(121, vec![0x18, 10, 0, 0, 1])]);
        assert!(
            full.hands_out(Ipv4Addr::new(198, 51, 100, 40))
                && !full.hands_out(Ipv4Addr::new(198, 51, 100, 25))
        );
        assert_eq!(config.holding(Ipv4Addr::new(198, 51, 100, 127)), Some(full));
        assert_eq!(config.holding(Ipv4Addr::new(198, 51, 100, 128)), None);
        assert_eq!(config.holding(Ipv4Addr::new(1, 1, 1, 1)), None);
    }

    #[test]
    fn an_interface_is_for_one_kind_of_server() {
        let texts = |name: &str| Value::Texts(vec![name.into()]);
        let read = |proxy: &str| {
            let _host = Host::new()
                .setting("interfaces", texts("eth1"))
                .setting("proxy_interfaces", texts(proxy))
                .setting("lease_time", 3600)
                .setting("offer_time", 60)
                .setting("flood_limit", 30)
                .install();
            Config::of_settings().map(drop)
        };
        assert_eq!(read("eth2"), Ok(()));
        assert_eq!(
            read("eth1").unwrap_err(),
            "proxy_interfaces: eth1 stands in `interfaces` as well; either this server gives the addresses there, or another one does"
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, told) in [
            (
                "192.0.2.1/24",
                "192.0.2.1 is not the first address of a /24",
            ),
            (
                "192.0.2.0",
                "should begin with a prefix such as 192.0.2.0/24",
            ),
            ("192.0.2.0/31", "the prefix must be from /12 to /30"),
            (
                "192.0.2.0/24 range=192.0.2.9-192.0.2.1",
                "the range 192.0.2.9-192.0.2.1 runs backwards",
            ),
            (
                "192.0.2.0/24 range=192.0.2.9-192.0.2.255",
                "the range 192.0.2.9-192.0.2.255 leaves the subnet",
            ),
            (
                "192.0.2.0/24 range=192.0.2.9-192.0.2.20 range=192.0.2.20-192.0.2.30",
                "the range 192.0.2.20-192.0.2.30 overlaps another",
            ),
            ("192.0.2.0/24 routers=x", "`x` is not an IPv4 address"),
            (
                "192.0.2.0/24 lease=5",
                "lease: `5` is not a number of at least 60",
            ),
            (
                "192.0.2.0/24 option-3=c0000201",
                "option-3 is what `routers=` says",
            ),
            (
                "192.0.2.0/24 option-1=ffffff00",
                "option-1 is what the prefix says",
            ),
            (
                "192.0.2.0/24 option-150=c0000201 option-150=c0000202",
                "option-150 stands there twice",
            ),
            (
                "192.0.2.0/24 option-53=01",
                "`option-53` is not known; there are: range, routers, dns, ntp, domain, mtu, lease, next-server, filename, shared, option-NUMBER",
            ),
        ] {
            assert_eq!(
                read(&[text]).unwrap_err(),
                format!("subnets: `{text}`: {told}")
            );
        }
        assert_eq!(
            read(&["192.0.2.0/24", "192.0.2.128/25"]).unwrap_err(),
            "subnets: 192.0.2.128/25 overlaps 192.0.2.0/24"
        );
        assert_eq!(
            read(&[
                "192.0.2.0/24 shared=hall",
                "198.51.100.0/24 shared=hull",
                "203.0.113.0/24 shared=hull"
            ])
            .unwrap_err(),
            "subnets: 192.0.2.0/24 is the only one that says shared=hall; the others on its wire must say the same"
        );
    }
}
