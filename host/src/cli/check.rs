//! `bulkhead check`: everything `serve` would refuse, without starting.

use std::io::Write;

use clap::Args;

use super::exit::Failure;
use super::place::Place;
use super::print::Listing;

/// Check the configuration and all policies without starting
///
/// Shows every problem at once, with file, line, column and what was expected. Exit code 3 if there is one.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead check\n  \
    bulkhead check --config ./proxy.toml\n  \
    bulkhead check --format json | jq -r '.[].message'")]
pub struct Check {
    /// Where configuration and state are.
    #[command(flatten)]
    pub place: Place,

    /// How problems are shown.
    #[command(flatten)]
    pub listing: Listing,
}

impl Check {
    /// Prints the problems.
    pub fn run(self, _out: &mut dyn Write) -> Result<(), Failure> {
        Err(Failure::Unavailable { command: "check" })
    }
}
