//! `bulkhead compile-component`: the child process in which components are compiled. Not for operators.

use clap::Args;

use super::exit::Failure;
use crate::plugin::compile::compile_child;
use crate::plugin::registry::Bundled;

/// Compile a component from standard input, or one of the bundled, to standard output, within limits
///
/// The proxy runs this itself.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  bulkhead compile-component --reservation none --seconds 60 --memory 4294967296"
)]
pub struct CompileComponent {
    /// Address space reserved for each memory in bytes, or `none`
    #[arg(long)]
    pub reservation: String,
    /// CPU time in seconds
    #[arg(long)]
    pub seconds: u64,
    /// Address space in bytes
    #[arg(long)]
    pub memory: u64,
    /// Digest of a component that the program embeds, to be compiled instead of standard input
    #[arg(long)]
    pub embedded: Option<String>,
}

impl CompileComponent {
    /// Compiles.
    pub fn run(self, bundled: &[Bundled]) -> Result<(), Failure> {
        let embedded = match &self.embedded {
            None => None,
            Some(digest) => match bundled.iter().find(|it| it.digest == digest) {
                Some(plugin) => Some(plugin.wasm),
                None => {
                    let reason = format!("this program embeds no component {digest}");
                    return Err(Failure::Start(reason));
                }
            },
        };
        let reservation = self.reservation.parse().ok();
        compile_child(reservation, self.seconds, self.memory, embedded).map_err(Failure::Start)
    }
}
