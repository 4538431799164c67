//! `bulkhead completions`: a script that makes a shell know the commands.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::exit::Failure;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead completions bash > /etc/bash_completion.d/bulkhead\n  \
    bulkhead completions zsh > ~/.zfunc/_bulkhead\n  \
    bulkhead completions fish > ~/.config/fish/completions/bulkhead.fish")]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        // Made in memory first: the generator cannot report a closed pipe, `write_all` can.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "bulkhead", &mut script);
        Ok(out.write_all(&script)?)
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shells_script_knows_every_command() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            Completions { shell: *shell }.run(&mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(
                    script.contains(command.get_name()),
                    "{shell}: {}",
                    command.get_name()
                );
            }
        }
    }
}
