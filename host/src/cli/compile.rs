//! `bulkhead compile-component`: the child process in which third parties' components are compiled. Not for operators.

use clap::Args;

use super::exit::Failure;
use crate::plugin::compile::compile_child;

/// Compile a component from standard input to standard output, within limits
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
}

impl CompileComponent {
    /// Compiles.
    pub fn run(self) -> Result<(), Failure> {
        compile_child(self.reservation.parse().ok(), self.seconds, self.memory)
            .map_err(Failure::Start)
    }
}
