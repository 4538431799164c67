//! Breaks good texts.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// Pieces that matter to somebody who reads URLs, addresses, TOML or paths.
const PIECES: [&str; 56] = [
    "/",
    "//",
    "..",
    "/../",
    ".",
    "%2e",
    "%2E%2e",
    "%2f",
    "%5c",
    "%00",
    "%25",
    "%",
    ";",
    "\\",
    "@",
    ":",
    ":0",
    ":65536",
    "?",
    "#",
    "*",
    "**",
    "*.",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    "\n",
    "\r\n",
    "\t",
    "\0",
    " ",
    ",",
    "=",
    "#x",
    "::",
    "::ffff:127.0.0.1",
    "[::1]",
    "127.0.0.1",
    "0x7f.1",
    "2130706433",
    "0177.1",
    "169.254.169.254",
    "localhost",
    "xn--",
    "ß",
    "。",
    "１",
    "\u{202e}",
    "-1",
    "1e999",
    "99999999999999999999",
    "{ setting = \"x\" }",
];

/// Longest text: what is bounded must stay fast at some size, and an operator's file is never larger.
const LONGEST: usize = 20_000;

/// A repeatable source of broken texts.
pub(crate) struct Mutator {
    random: StdRng,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// One example, broken in one to eight places.
    pub(crate) fn text(&mut self, examples: &[&str]) -> String {
        let mut text: Vec<char> = examples
            .choose(&mut self.random)
            .copied()
            .unwrap_or_default()
            .chars()
            .collect();
        for _ in 0..self.random.random_range(1..=8) {
            self.break_once(&mut text, examples);
            text.truncate(LONGEST);
        }
        text.into_iter().collect()
    }

    fn break_once(&mut self, text: &mut Vec<char>, examples: &[&str]) {
        let at = self.random.random_range(0..=text.len());
        let end = (at + self.random.random_range(0..=12)).min(text.len());
        match self.random.random_range(0..7) {
            0 => drop(text.splice(at..end, [])),
            1 => self.insert(text, at..at, PIECES.as_slice()),
            2 => self.insert(text, at..end, PIECES.as_slice()),
            3 => self.insert(text, at..at, examples),
            4 => {
                let copy: Vec<char> = text[at..end].to_vec();
                let times = self.random.random_range(1..200);
                text.splice(at..at, copy.repeat(times));
            }
            5 => {
                let strange =
                    char::from_u32(self.random.random_range(0..0x3000)).unwrap_or('\u{fffd}');
                text.splice(at..end, [strange]);
            }
            _ => text[at..end].reverse(),
        }
    }

    fn insert(&mut self, text: &mut Vec<char>, range: std::ops::Range<usize>, pieces: &[&str]) {
        let piece = pieces.choose(&mut self.random).copied().unwrap_or_default();
        text.splice(range, piece.chars());
    }
}
