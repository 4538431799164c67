//! The leases file, which dhcpd only appends to, until it writes a new one and renames it over the old: the last record of an
//! address or of a host's name is the one that counts.
//!
//! The one idea: bytes are fed as they come, in any pieces; whole records go to the index, the rest waits for its end.

use std::net::Ipv4Addr;

use crate::body;
use crate::index::Index;
use crate::lexer::{Lexer, Token, unquoted};

/// Bytes of one record. dhcpd's own are below 10 KiB; a larger one is no record and is passed over.
const LONGEST_RECORD: usize = 1 << 20;

/// What was read and is not yet a whole record.
#[derive(Debug, Default)]
pub struct Journal {
    pending: Vec<u8>,
    /// The length at which to look at the waiting rest again: doubled each time, so that a huge unfinished record costs linear time.
    look_again: usize,
}

impl Journal {
    /// Takes further bytes, puts whole records into the index, and answers how many there were. `now`: seconds since 1970.
    pub fn feed(&mut self, bytes: &[u8], index: &mut Index, now: i64) -> usize {
        self.pending.extend_from_slice(bytes);
        match self.pending.len() < self.look_again {
            true => 0,
            false => self.settle(index, now),
        }
    }

    /// Looks at what is waiting: at the end of the file there is nothing to wait for.
    pub fn settle(&mut self, index: &mut Index, now: i64) -> usize {
        let mut lexer = Lexer::new(&self.pending);
        let (mut end, mut records) = (0, 0);
        while let Some(put) = record(&mut lexer, index, now) {
            end = lexer.at();
            records += usize::from(put);
        }
        self.pending.drain(..end);
        if self.pending.len() > LONGEST_RECORD {
            self.pending.clear();
        }
        self.look_again = if self.pending.len() < 4_096 {
            0
        } else {
            2 * self.pending.len()
        };
        records
    }
}

/// Reads one statement. None: it is not whole yet. False: none of ours.
fn record(lexer: &mut Lexer<'_>, index: &mut Index, now: i64) -> Option<bool> {
    match lexer.next()? {
        Token::Word(b"lease") => {
            let address = match lexer.next()? {
                Token::Word(word) => std::str::from_utf8(word)
                    .ok()
                    .and_then(|text| text.parse::<Ipv4Addr>().ok()),
                _ => None,
            };
            let (Some(address), Token::Open) = (address, lexer.next()?) else {
                lexer.skip_statement()?;
                return Some(false);
            };
            index.put_lease(address.to_bits(), body::lease(lexer)?, now);
            Some(true)
        }
        Token::Word(b"host") => {
            let name = match lexer.next()? {
                Token::Word(raw) | Token::Quoted(raw) => unquoted(raw),
                _ => return lexer.skip_statement().map(|()| false),
            };
            let Token::Open = lexer.next()? else {
                lexer.skip_statement()?;
                return Some(false);
            };
            let body = body::host(lexer)?;
            index.put_host(&name, body);
            Some(true)
        }
        Token::End | Token::Close => Some(false),
        _ => lexer.skip_statement().map(|()| false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tests::index;

    const FILE: &str = "# dhcpd\nauthoring-byte-order little-endian;\nserver-duid \"\\000}{\\001\";\n
lease 192.0.2.10 { starts 1 2026/11/23 10:00:00; ends 1 2036/11/23 10:00:00; binding state active; next binding state free; hardware ethernet 00:aa:aa:aa:aa:01; uid \"};\"; }
lease 192.0.2.11 { starts 1 2026/11/23 10:00:00; ends never; binding state active; hardware ethernet 00:aa:aa:aa:aa:02; }
host a.example.com { dynamic; hardware ethernet 00:aa:aa:aa:aa:03; fixed-address 192.0.2.40; supersede host-name = \"a\"; }
lease 192.0.2.11 { binding state free; hardware ethernet 00:aa:aa:aa:aa:02; }
failover peer \"x\" state { my state normal; }
";

    fn addresses(index: &Index) -> Vec<String> {
        let page = index.entries("192.0.2.0/24", None, 1_000, 0).unwrap();
        page.entries
            .iter()
            .map(|entry| match entry {
                bulkhead_sdk::dhcp::Entry::Reservation(found) => {
                    format!("{} {}", found.name, found.address)
                }
                bulkhead_sdk::dhcp::Entry::Lease(found) => found.address.clone(),
            })
            .collect()
    }

    #[test]
    fn the_pieces_in_which_a_file_arrives_do_not_matter() {
        for size in [1, 2, 7, 64, 10_000] {
            let (mut journal, mut index) = (Journal::default(), index());
            for piece in FILE.as_bytes().chunks(size) {
                journal.feed(piece, &mut index, 0);
            }
            assert_eq!(
                addresses(&index),
                ["a.example.com 192.0.2.40", "192.0.2.10"],
                "{size}"
            );
        }
    }

    #[test]
    fn a_half_written_record_waits_for_its_end() {
        let (mut journal, mut index) = (Journal::default(), index());
        let (whole, half) = FILE.split_at(FILE.find("host").unwrap() + 30);
        journal.feed(whole.as_bytes(), &mut index, 0);
        assert_eq!(addresses(&index), ["192.0.2.10", "192.0.2.11"]);
        journal.feed(half.as_bytes(), &mut index, 0);
        assert_eq!(
            addresses(&index),
            ["a.example.com 192.0.2.40", "192.0.2.10"]
        );
    }

    #[test]
    fn a_record_cut_by_a_crash_costs_nothing_but_itself() {
        let (mut journal, mut index) = (Journal::default(), index());
        journal.feed(
            b"lease 192.0.2.9 { starts 1 2026/11/23 10:00:00;\n",
            &mut index,
            0,
        );
        journal.feed(FILE.as_bytes(), &mut index, 0);
        assert_eq!(
            addresses(&index),
            ["a.example.com 192.0.2.40", "192.0.2.10"]
        );
    }

    #[test]
    fn what_is_no_record_takes_no_memory_and_little_time() {
        let (mut journal, mut index) = (Journal::default(), index());
        for _ in 0..3_000 {
            journal.feed(&[b'x'; 1_024], &mut index, 0);
        }
        assert!(journal.pending.len() <= 2 * LONGEST_RECORD + 1_024);
    }
}
