//! `bulkhead serve`: runs the proxy.

use clap::{Args, ValueEnum};

use super::exit::Failure;
use super::place::Place;

/// Run the proxy
///
/// Without a configuration file it starts as a trial: every bundled feature, on loopback only, with certificates it makes for itself.
/// It prints what listens where and a few requests to try.
///
/// Signals: TERM and INT finish running requests and stop; HUP reads configuration and policies again (a wrong one changes nothing); USR1
/// opens the log file anew.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead serve\n  \
    bulkhead serve --state /tmp/try\n  \
    bulkhead serve --config /etc/bulkhead/proxy.toml\n  \
    bulkhead serve --profile dmz --log-format json")]
pub struct Serve {
    /// Where configuration and state are.
    #[command(flatten)]
    pub place: Place,

    /// Serve only the features and listeners of this profile of the configuration
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,

    /// Shape of log lines on standard output, whatever the configuration says
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
}

/// Shapes of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl Serve {
    /// Serves until it is told to stop.
    pub fn run(self) -> Result<(), Failure> {
        Err(Failure::Unavailable { command: "serve" })
    }
}
