//! The bodies of `host` and `lease` declarations, in `dhcpd.conf` and in the leases file.
//!
//! What the index needs is read at once; every other statement is kept as it stands, for [`crate::options`].

use std::borrow::Cow;
use std::net::Ipv4Addr;

use crate::address::{Hardware, dotted_quad};
use crate::lexer::{Lexer, Token, keyword};
use crate::time;

/// What stands in a `host`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostBody {
    /// None: a host without one, or of a kind that Foreman does not know. dhcpd serves it; it is no reservation here.
    pub hardware: Option<Hardware>,
    /// Its addresses. Names are left out: dhcpd resolves them, this does not.
    pub addresses: Vec<u32>,
    /// Made by OMAPI.
    pub dynamic: bool,
    /// Removed by OMAPI.
    pub deleted: bool,
    /// Everything else, and `hardware`.
    pub kept: Vec<u8>,
}

/// What stands in a `lease`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseBody {
    /// None: nobody has it (or ever had), or [`LeaseBody::is_strange`].
    pub hardware: Option<Hardware>,
    /// It has hardware of a kind or length that Foreman does not know.
    pub is_strange: bool,
    /// Seconds since 1970.
    pub starts: Option<i64>,
    /// Seconds since 1970.
    pub ends: Option<i64>,
    /// `active`, `free`, `abandoned`, ...
    pub state: Option<Vec<u8>>,
    /// The state it goes to when it ends.
    pub next_state_is_free: bool,
    /// Everything else, `hardware` and `next binding state`.
    pub kept: Vec<u8>,
}

/// Reads up to the closing brace. None: the text ends first.
pub fn host(lexer: &mut Lexer<'_>) -> Option<HostBody> {
    let mut body = HostBody::default();
    loop {
        let start = lexer.at();
        let word = match lexer.next()? {
            Token::Close => return Some(body),
            Token::Word(word) if begins_another(word, lexer) => {
                lexer.seek(start);
                return Some(body);
            }
            Token::Word(word) => keyword(word),
            Token::End => continue,
            _ => Cow::default(),
        };
        match word.as_ref() {
            b"dynamic" => {
                body.dynamic = true;
                lexer.skip_statement()?;
            }
            b"deleted" => {
                body.deleted = true;
                lexer.skip_statement()?;
            }
            b"fixed-address" => addresses(lexer, &mut body.addresses)?,
            b"hardware" => {
                body.hardware = hardware(lexer)?;
                keep(&mut body.kept, lexer, start);
            }
            b"option" | b"supersede" => {
                lexer.skip_value()?;
                keep(&mut body.kept, lexer, start);
            }
            b"filename" | b"next-server" | b"vendor-option-space" => {
                lexer.skip_statement()?;
                keep(&mut body.kept, lexer, start);
            }
            _ => lexer.skip_statement()?,
        }
    }
}

/// Reads up to the closing brace. None: the text ends first.
pub fn lease(lexer: &mut Lexer<'_>) -> Option<LeaseBody> {
    let mut body = LeaseBody::default();
    loop {
        let start = lexer.at();
        match lexer.next()? {
            Token::Close => return Some(body),
            Token::Word(keyword) if begins_another(keyword, lexer) => {
                lexer.seek(start);
                return Some(body);
            }
            Token::Word(b"starts") => body.starts = time::read(lexer)?,
            Token::Word(b"ends") => body.ends = time::read(lexer)?,
            Token::Word(b"hardware") => {
                body.hardware = hardware(lexer)?;
                body.is_strange = body.hardware.is_none();
                keep(&mut body.kept, lexer, start);
            }
            Token::Word(b"binding") => {
                body.state = state(lexer)?.map(<[u8]>::to_vec);
            }
            Token::Word(b"next") => {
                // `binding`
                lexer.next()?;
                body.next_state_is_free = state(lexer)? == Some(b"free");
                keep(&mut body.kept, lexer, start);
            }
            Token::Word(b"option" | b"supersede") => {
                lexer.skip_value()?;
                keep(&mut body.kept, lexer, start);
            }
            Token::Word(
                b"uid" | b"client-hostname" | b"tstp" | b"tsfp" | b"atsfp" | b"cltt" | b"filename"
                | b"next-server",
            ) => {
                lexer.skip_statement()?;
                keep(&mut body.kept, lexer, start);
            }
            Token::End => {}
            _ => lexer.skip_statement()?,
        }
    }
}

/// A record that was never finished, because the machine stopped: the next one begins inside it.
fn begins_another(keyword: &[u8], lexer: &Lexer<'_>) -> bool {
    if !matches!(keyword, b"lease" | b"host") {
        return false;
    }
    let mut ahead = lexer.clone();
    matches!(
        (ahead.next(), ahead.next()),
        (Some(Token::Word(_) | Token::Quoted(_)), Some(Token::Open))
    )
}

fn keep(kept: &mut Vec<u8>, lexer: &Lexer<'_>, start: usize) {
    kept.extend_from_slice(lexer.between(start, lexer.at()).trim_ascii());
}

/// Behind `hardware`: the kind, the address. The inner None: of a kind or length that Foreman does not know.
fn hardware(lexer: &mut Lexer<'_>) -> Option<Option<Hardware>> {
    let found = match (lexer.next()?, lexer.next()?) {
        (Token::Word(_), Token::Word(address)) => Hardware::parse(address),
        (_, Token::End) => return Some(None),
        _ => None,
    };
    lexer.skip_statement()?;
    Some(found)
}

/// Behind `binding`: `state X;`
fn state<'a>(lexer: &mut Lexer<'a>) -> Option<Option<&'a [u8]>> {
    let found = match (lexer.next()?, lexer.next()?) {
        (Token::Word(b"state"), Token::Word(state)) => Some(state),
        (_, Token::End) => return Some(None),
        _ => None,
    };
    lexer.skip_statement()?;
    Some(found)
}

fn addresses(lexer: &mut Lexer<'_>, into: &mut Vec<u32>) -> Option<()> {
    loop {
        match lexer.next()? {
            Token::End => return Some(()),
            Token::Word(word) => into.extend(dotted_quad(word).map(Ipv4Addr::to_bits)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lexer(text: &str) -> Lexer<'_> {
        Lexer::new(text.as_bytes())
    }

    #[test]
    fn a_host_is_read_as_dhcpd_writes_it() {
        let text = "dynamic;\n hardware ethernet aa:bb:cc:dd:ee:01;\n fixed-address 192.0.2.40, name.example.com, 192.0.2.41;\n supersede host-name = \"}\";\n}";
        let body = host(&mut lexer(text)).unwrap();
        assert_eq!(body.addresses, [0xc000_0228, 0xc000_0229]);
        assert!(body.dynamic && !body.deleted && body.hardware.is_some());
        assert_eq!(
            body.kept,
            b"hardware ethernet aa:bb:cc:dd:ee:01;supersede host-name = \"}\";"
        );
        assert_eq!(host(&mut lexer("dynamic; hardware ethernet")), None);
    }

    #[test]
    fn a_lease_is_read_as_dhcpd_writes_it() {
        let text = "starts 1 2026/11/23 10:00:00; ends never; cltt 1 2026/11/23 10:00:00; binding state active; next binding state free;\n\
            rewind binding state free; hardware ethernet 00:aa:aa:aa:aa:01; uid \"\\001};\"; set vendor-class-identifier = \"PXE\"; }";
        let body = lease(&mut lexer(text)).unwrap();
        assert_eq!(body.state.as_deref(), Some(&b"active"[..]));
        assert!(body.next_state_is_free && body.starts.is_some() && body.ends.is_some());
        assert_eq!(
            String::from_utf8(body.kept).unwrap(),
            "cltt 1 2026/11/23 10:00:00;next binding state free;hardware ethernet 00:aa:aa:aa:aa:01;uid \"\\001};\";"
        );
    }

    #[test]
    fn a_record_that_was_never_finished_ends_where_the_next_begins() {
        let mut lexer =
            lexer("starts 1 2026/11/23 10:00:00; binding state active;\nlease 192.0.2.2 { }");
        assert!(lease(&mut lexer).is_some());
        assert_eq!(lexer.next(), Some(Token::Word(b"lease")));
    }

    #[test]
    fn hardware_of_other_lengths_is_none_that_foreman_knows() {
        let body = host(&mut lexer(
            "hardware ethernet 00:01:02:03:04:05:06:07; fixed-address 192.0.2.1; }",
        ))
        .unwrap();
        assert_eq!(body.hardware, None);
    }
}
