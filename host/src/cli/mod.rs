//! The command line: one file per command. It refuses to do work itself; it wires the floors below together and prints.
//!
//! Commands that look at a running host, or change it, talk to its control socket ([`client`]). Commands print to a writer they are
//! given, return a [`exit::Failure`], and leave the exit code to [`main`].

pub mod check;
pub mod client;
pub mod compile;
pub mod completions;
pub mod doctor;
pub mod exit;
pub mod host;
pub mod man;
pub mod place;
mod plan;
pub mod plugin;
pub mod policy;
pub mod ports;
pub mod print;
pub mod serve;
pub mod trial;
pub mod workbench;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Failure;

use crate::plugin::registry::Bundled;

/// A Foreman Smart Proxy that runs every feature as a sandboxed WebAssembly component.
#[derive(Debug, Parser)]
#[command(
    name = "bulkhead",
    version,
    about,
    long_about = "A Foreman Smart Proxy that runs every feature as a sandboxed WebAssembly component.\n\n\
        Each plugin reaches only what its policy grants. `bulkhead serve` without any configuration starts a trial on this \
        machine; `bulkhead plugin list` and `bulkhead policy explain` show what runs and what it may do.",
    after_help = exit::CODES,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
// A doc on a variant would replace that of its struct in the help.
#[allow(missing_docs)]
#[derive(Debug, Subcommand)]
pub enum Command {
    Serve(serve::Serve),
    Check(check::Check),
    Doctor(doctor::Doctor),
    #[command(
        subcommand,
        after_help = "Examples:\n  \
            bulkhead plugin list\n  \
            bulkhead plugin inspect ./hello.wasm\n  \
            bulkhead plugin approve hello"
    )]
    Plugin(plugin::Plugin),
    #[command(
        subcommand,
        after_help = "Examples:\n  \
            bulkhead policy explain tftp\n  \
            bulkhead policy denials\n  \
            bulkhead policy allow dhcp 'probe.addresses.allow = [\"192.0.2.0/24\"]'"
    )]
    Policy(policy::Policy),
    Ports(ports::Ports),
    Completions(completions::Completions),
    Man(man::Man),
    #[command(hide = true)]
    CompileComponent(compile::CompileComponent),
}

impl Command {
    fn run(self, bundled: Vec<Bundled>, out: &mut dyn Write) -> Result<(), Failure> {
        match self {
            Self::Serve(serve) => serve.run(bundled),
            Self::Check(check) => check.run(&bundled, out),
            Self::Doctor(doctor) => doctor.run(&bundled, out),
            Self::CompileComponent(compile) => compile.run(&bundled),
            Self::Plugin(plugin) => plugin.run(out),
            Self::Policy(policy) => policy.run(out),
            Self::Ports(ports) => ports.run(&bundled, out),
            Self::Completions(completions) => completions.run(out),
            Self::Man(man) => man.run(out),
        }
    }
}

/// Runs the command the program was called with.
#[must_use]
pub fn main(bundled: Vec<Bundled>) -> ExitCode {
    // Wrong usage ends here, with code 2 and a hint.
    let cli = Cli::parse();
    // Not locked: `serve` runs in here, and the log writes to standard output from its own thread.
    let mut out = io::stdout();
    let failure = match cli
        .command
        .run(bundled, &mut out)
        .and_then(|()| Ok(out.flush()?))
    {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    if failure.is_closed_pipe() {
        // `bulkhead plugin list | head` got all it wanted.
        return ExitCode::SUCCESS;
    }
    // Nowhere else to say that standard error is closed.
    let _ = writeln!(io::stderr(), "bulkhead: {failure}");
    failure.exit_code()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Every command that does something, with its full help text.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        for child in command.get_subcommands() {
            let path = format!("{path} {}", child.get_name());
            if child.has_subcommands() {
                leaves(child, &path, found);
            } else {
                found.push((path, child.clone().render_long_help().to_string()));
            }
        }
    }

    /// A shell's view of a line, as far as the examples need it: blanks, single quotes, nothing after `|`, `>` or `<`.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                '|' | '>' | '<' if !quoted => break,
                ' ' if !quoted => {
                    words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)))
                }
                c => word.push(c),
            }
        }
        words.extend((!word.is_empty()).then_some(word));
        words
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples_and_every_example_is_valid() {
        let mut commands = Vec::new();
        leaves(&Cli::command(), "bulkhead", &mut commands);
        assert!(commands.len() >= 12, "{commands:?}");
        for (path, help) in commands {
            let (_, examples) = help
                .split_once("Examples:")
                .unwrap_or_else(|| panic!("no examples: {path}"));
            let examples: Vec<&str> = examples
                .lines()
                .map(str::trim)
                .filter(|line| line.starts_with("bulkhead "))
                .collect();
            assert!(!examples.is_empty(), "{path}");
            for example in examples {
                assert!(
                    example.starts_with(&path),
                    "an example of {path}: {example}"
                );
                Cli::try_parse_from(words(example))
                    .unwrap_or_else(|error| panic!("{example}: {error}"));
            }
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        let error = Cli::try_parse_from(["bulkhead", "serve", "--confg", "x"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.to_string().contains("--config"),
            "the nearest option is named: {error}"
        );
    }
}
