//! `dhcpd.conf`, as far as the Smart Proxy shows it: subnets with their own options and ranges, and hosts.
//!
//! What stands in a group, pool or shared network does not reach the subnets in it, as in the Smart Proxy; hosts count wherever
//! they stand. Everything else (classes, conditions, keys, zones) is skipped, whatever it holds.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use bulkhead_sdk::dhcp::DhcpOption;

use crate::address::{Prefix, dotted_quad};
use crate::body::{self, HostBody};
use crate::error::Problem;
use crate::lexer::{Lexer, Token, keyword, unquoted};
use crate::options;

/// Files included by included files, and blocks within blocks: deeper is a loop or an attack.
const DEEPEST: usize = 32;

/// Most files of one configuration.
const MOST_FILES: usize = 1_000;

/// What is said of a `subnet` that is none.
const NO_SUBNET: &str = "this is not `subnet ADDRESS netmask MASK {`";

/// Most subnets: what the interface can hand over.
const MOST_SUBNETS: usize = 4_096;

/// A `subnet` declaration.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// Its network.
    pub prefix: Prefix,
    /// `range` statements directly in it: first and last address.
    pub ranges: Vec<(u32, u32)>,
    /// `option` statements directly in it.
    pub options: Vec<DhcpOption>,
}

/// A whole configuration, includes and all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configuration {
    /// In the order of the files.
    pub subnets: Vec<Declared>,
    /// In the order of the files.
    pub hosts: Vec<(String, HostBody)>,
    /// The files read.
    pub files: Vec<String>,
}

/// Reads a configuration; `open` gives the text of a file by its path.
///
/// # Errors
/// A file cannot be read, or is none that dhcpd would accept as far as it is looked at.
pub fn read(
    path: &str,
    open: &mut dyn FnMut(&str) -> Result<Vec<u8>, Problem>,
) -> Result<Configuration, Problem> {
    let mut reading = Reading {
        directory: path
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory)
            .to_owned(),
        open,
        found: Configuration::default(),
    };
    reading.file(path, None, 0)?;
    Ok(reading.found)
}

struct Reading<'o> {
    directory: String,
    open: &'o mut dyn FnMut(&str) -> Result<Vec<u8>, Problem>,
    found: Configuration,
}

/// Where in which file a problem is.
struct Place<'a> {
    path: &'a str,
    lexer: Lexer<'a>,
}

impl Place<'_> {
    fn problem(&self, at: usize, why: impl Into<String>) -> Problem {
        Problem::Syntax {
            path: self.path.to_owned(),
            line: self.lexer.line(at),
            why: why.into(),
        }
    }

    /// The text ended inside the statement that begins at this place.
    fn unfinished(&self, at: usize) -> Problem {
        self.problem(at, "this statement is never finished")
    }
}

impl Reading<'_> {
    fn file(&mut self, path: &str, subnet: Option<usize>, depth: usize) -> Result<(), Problem> {
        let text = (self.open)(path)?;
        self.found.files.push(path.to_owned());
        let mut place = Place {
            path,
            lexer: Lexer::new(&text),
        };
        if depth > DEEPEST || self.found.files.len() > MOST_FILES {
            return Err(place.problem(0, "files include each other, or are too many"));
        }
        if self.block(&mut place, subnet, depth)? {
            let at = place.lexer.at();
            return Err(place.problem(at, "`}` closes nothing"));
        }
        Ok(())
    }

    /// Reads statements up to the end of the text (answers false) or of the block (true). `subnet`: the block is this one's own.
    fn block(
        &mut self,
        place: &mut Place<'_>,
        subnet: Option<usize>,
        depth: usize,
    ) -> Result<bool, Problem> {
        loop {
            let start = place.lexer.next_at();
            let Some(token) = place.lexer.next() else {
                let unread = place.lexer.between(start, start + 1);
                return match unread {
                    [b'"'] => Err(place.unfinished(place.lexer.at())),
                    _ => Ok(false),
                };
            };
            let word = match token {
                Token::Close => return Ok(true),
                Token::End => continue,
                Token::Word(word) => keyword(word),
                _ => Cow::default(),
            };
            let done = match word.as_ref() {
                b"include" => {
                    self.include(place, start, subnet, depth)?;
                    Some(())
                }
                b"subnet" => {
                    self.subnet(place, start, depth)?;
                    Some(())
                }
                b"shared-network" | b"group" | b"pool" => {
                    self.scope(place, start, depth)?;
                    Some(())
                }
                b"host" => self.host(&mut place.lexer),
                b"range" => {
                    self.range(place, start, subnet)?;
                    Some(())
                }
                b"option" => match subnet.and_then(|index| self.found.subnets.get_mut(index)) {
                    Some(subnet) => {
                        options::statement(b"option", &mut place.lexer, &mut subnet.options)
                    }
                    None => place.lexer.skip_value(),
                },
                _ => place.lexer.skip_statement(),
            };
            done.ok_or_else(|| place.unfinished(start))?;
        }
    }

    fn include(
        &mut self,
        place: &mut Place<'_>,
        start: usize,
        subnet: Option<usize>,
        depth: usize,
    ) -> Result<(), Problem> {
        let (Some(Token::Quoted(raw) | Token::Word(raw)), Some(Token::End)) =
            (place.lexer.next(), place.lexer.next())
        else {
            return Err(place.problem(start, "`include` names no file"));
        };
        let name = unquoted(raw);
        let path = if name.starts_with('/') {
            name
        } else {
            format!("{}/{name}", self.directory)
        };
        self.file(&path, subnet, depth + 1)
            .map_err(|problem| match problem {
                Problem::File { path, why } => place.problem(
                    start,
                    format!("the included file {path} cannot be read: {why}"),
                ),
                other => other,
            })
    }

    fn inside(
        &mut self,
        place: &mut Place<'_>,
        start: usize,
        subnet: Option<usize>,
        depth: usize,
    ) -> Result<(), Problem> {
        if depth >= DEEPEST {
            return Err(place.problem(start, "blocks are nested too deep"));
        }
        match self.block(place, subnet, depth + 1)? {
            true => Ok(()),
            false => Err(place.problem(start, "this block is never closed")),
        }
    }

    fn scope(&mut self, place: &mut Place<'_>, start: usize, depth: usize) -> Result<(), Problem> {
        loop {
            match place.lexer.next() {
                Some(Token::Open) => return self.inside(place, start, None, depth),
                Some(Token::Word(_) | Token::Quoted(_)) => {}
                _ => return Err(place.problem(start, "a block is missing here")),
            }
        }
    }

    fn subnet(&mut self, place: &mut Place<'_>, start: usize, depth: usize) -> Result<(), Problem> {
        let words = (
            place.lexer.next(),
            place.lexer.next(),
            place.lexer.next(),
            place.lexer.next(),
        );
        let (
            Some(Token::Word(network)),
            Some(Token::Word(netmask)),
            Some(Token::Word(mask)),
            Some(Token::Open),
        ) = words
        else {
            return Err(place.problem(start, NO_SUBNET));
        };
        if keyword(netmask).as_ref() != b"netmask" {
            return Err(place.problem(start, NO_SUBNET));
        }
        let prefix = dotted_quad(network)
            .zip(dotted_quad(mask))
            .and_then(|(network, mask)| Prefix::new(network, mask));
        let Some(prefix) = prefix else {
            return Err(place.problem(start, "the subnet's address and netmask do not fit"));
        };
        if self
            .found
            .subnets
            .iter()
            .any(|known| known.prefix.network() == prefix.network())
        {
            let why = format!(
                "Unable to add subnet {}/{}: it is declared already",
                Ipv4Addr::from_bits(prefix.network()),
                Ipv4Addr::from_bits(prefix.mask())
            );
            return Err(place.problem(start, why));
        }
        if self.found.subnets.len() >= MOST_SUBNETS {
            return Err(place.problem(start, format!("more than {MOST_SUBNETS} subnets")));
        }
        self.found.subnets.push(Declared {
            prefix,
            ranges: Vec::new(),
            options: Vec::new(),
        });
        self.inside(place, start, Some(self.found.subnets.len() - 1), depth)
    }

    fn host(&mut self, lexer: &mut Lexer<'_>) -> Option<()> {
        let name = match lexer.next()? {
            Token::Word(raw) | Token::Quoted(raw) => unquoted(raw),
            _ => return lexer.skip_statement(),
        };
        match lexer.next()? {
            Token::Open => {
                let body = body::host(lexer)?;
                self.found.hosts.push((name, body));
                Some(())
            }
            _ => lexer.skip_statement(),
        }
    }

    fn range(
        &mut self,
        place: &mut Place<'_>,
        start: usize,
        subnet: Option<usize>,
    ) -> Result<(), Problem> {
        let mut words = Vec::new();
        loop {
            match place.lexer.next() {
                Some(Token::Word(word)) if keyword(word).as_ref() == b"dynamic-bootp" => {}
                Some(Token::Word(word)) => words.push(dotted_quad(word)),
                Some(Token::End) => break,
                _ => return Err(place.problem(start, "this is not `range ADDRESS [ADDRESS];`")),
            }
        }
        let Some(subnet) = subnet.and_then(|index| self.found.subnets.get_mut(index)) else {
            return Ok(());
        };
        let (first, last) = match *words.as_slice() {
            [Some(only)] => (only.to_bits(), only.to_bits()),
            [Some(first), Some(last)] => (first.to_bits(), last.to_bits()),
            _ => return Err(place.problem(start, "this is not `range ADDRESS [ADDRESS];`")),
        };
        if first > last || !subnet.prefix.contains(first) || !subnet.prefix.contains(last) {
            return Err(place.problem(
                start,
                format!("this range is not one of the subnet {}", subnet.prefix),
            ));
        }
        subnet.ranges.push((first, last));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(files: &[(&str, &str)]) -> Result<Configuration, Problem> {
        let mut open = |path: &str| {
            let found = files.iter().find(|(name, _)| *name == path);
            found
                .map(|(_, text)| text.as_bytes().to_vec())
                .ok_or_else(|| Problem::File {
                    path: path.to_owned(),
                    why: "no such file".to_owned(),
                })
        };
        read("/etc/dhcp/dhcpd.conf", &mut open)
    }

    fn one(text: &str) -> Result<Configuration, Problem> {
        parse(&[("/etc/dhcp/dhcpd.conf", text)])
    }

    const USUAL: &str = "# usual
        omapi-port 7911; key k { algorithm hmac-md5; secret \"x\"; }; omapi-key k;
        option domain-name \"global\"; option space PXE; option PXE.x code 1 = { integer 8, text };
        class \"pxe\" { match if substring(option vendor-class-identifier, 0, 9) = \"PXEClient\"; if x { filename \"y\"; } else { filename \"z\"; } }
        failover peer \"a\" { primary; } zone a. { primary 127.0.0.1; }
        shared-network s {
          option routers 10.0.0.9;
          subnet 10.0.0.0 netmask 255.255.255.0 { option routers 10.0.0.1, 10.0.0.2; range 10.0.0.10 10.0.0.20; pool { range 10.0.0.100 10.0.0.200; option routers 10.9.9.9; } }
          subnet 10.0.1.0 netmask 255.255.255.128 { range dynamic-bootp 10.0.1.5; host inside { hardware ethernet aa:bb:cc:dd:ee:09; fixed-address 10.0.1.9; } }
        }
        group { filename \"g\"; host a { hardware ethernet aa:bb:cc:dd:ee:01; fixed-address 10.0.0.30; option host-name \"a.example.com\"; } }
        include \"more.conf\";";

    #[test]
    fn only_what_stands_directly_in_a_subnet_is_the_subnets() {
        let found = parse(&[
            ("/etc/dhcp/dhcpd.conf", USUAL),
            (
                "/etc/dhcp/more.conf",
                "host b { hardware ethernet aa:bb:cc:dd:ee:02; fixed-address 10.0.0.31; }",
            ),
        ])
        .unwrap();
        let shown: Vec<String> = found
            .subnets
            .iter()
            .map(|subnet| subnet.prefix.to_string())
            .collect();
        assert_eq!(shown, ["10.0.0.0/24", "10.0.1.0/25"]);
        assert_eq!(found.subnets[0].options.len(), 1);
        assert_eq!(found.subnets[0].ranges, [(0x0a00_000a, 0x0a00_0014)]);
        assert_eq!(found.subnets[1].ranges, [(0x0a00_0105, 0x0a00_0105)]);
        let hosts: Vec<&str> = found.hosts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(hosts, ["inside", "a", "b"]);
        assert_eq!(found.files, ["/etc/dhcp/dhcpd.conf", "/etc/dhcp/more.conf"]);
    }

    /// As dhcpd does, which accepts all of it.
    #[test]
    fn keywords_are_read_without_regard_to_case_and_addresses_with_leading_zeros() {
        let found = one(
            "Shared-Network s { SUBNET 10.0.0.0 NetMask 255.255.255.000 { Range Dynamic-BOOTP 10.0.0.010 10.0.0.020; Option Routers 10.0.0.1; } }
             Group { Host A { Hardware Ethernet AA:bb:cc:dd:ee:01; Fixed-Address 10.000.000.030; Option Host-Name \"A.example.com\"; FileName \"Boot\"; } }",
        )
        .unwrap();
        let usual = one(
            "shared-network s { subnet 10.0.0.0 netmask 255.255.255.0 { range dynamic-bootp 10.0.0.10 10.0.0.20; option routers 10.0.0.1; } }
             group { host A { hardware ethernet aa:bb:cc:dd:ee:01; fixed-address 10.0.0.30; option host-name \"A.example.com\"; filename \"Boot\"; } }",
        )
        .unwrap();
        assert_eq!(found.subnets, usual.subnets);
        let shown = |found: &Configuration| {
            let (name, body) = &found.hosts[0];
            let options = options::of_body(&body.kept, Vec::new());
            (name.clone(), body.hardware, body.addresses.clone(), options)
        };
        assert_eq!(shown(&found), shown(&usual));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, told) in [
            (
                "\nsubnet 10.0.0.0 netmask 255.0.255.0 { }",
                "/etc/dhcp/dhcpd.conf:2: the subnet's address and netmask do not fit",
            ),
            (
                "subnet 10.0.0.0 netmask 255.0.0.0 { range 10.0.0.2 10.0.0.1; }",
                "/etc/dhcp/dhcpd.conf:1: this range is not one of the subnet 10.0.0.0/8",
            ),
            (
                "subnet 10.0.0.0 netmask 255.0.0.0 { range 11.0.0.2; }",
                "/etc/dhcp/dhcpd.conf:1: this range is not one of the subnet 10.0.0.0/8",
            ),
            (
                "subnet 10.0.0.0 netmask 255.0.0.0 { }\nsubnet 10.0.0.0 netmask 255.0.0.0 { }",
                "/etc/dhcp/dhcpd.conf:2: Unable to add subnet 10.0.0.0/255.0.0.0: it is declared already",
            ),
            (
                "subnet 10.0.0.0 netmask 255.0.0.0 {",
                "/etc/dhcp/dhcpd.conf:1: this block is never closed",
            ),
            ("group { } }", "/etc/dhcp/dhcpd.conf:1: `}` closes nothing"),
            (
                "option x \"y",
                "/etc/dhcp/dhcpd.conf:1: this statement is never finished",
            ),
            (
                "include \"x\";",
                "/etc/dhcp/dhcpd.conf:1: the included file /etc/dhcp/x cannot be read: no such file",
            ),
            (
                "include \"dhcpd.conf\";",
                "/etc/dhcp/dhcpd.conf:1: files include each other, or are too many",
            ),
        ] {
            assert_eq!(one(text).unwrap_err().to_string(), told);
        }
        let deep = "group { ".repeat(10_000);
        assert!(
            one(&deep)
                .unwrap_err()
                .to_string()
                .contains("nested too deep")
        );
    }
}
