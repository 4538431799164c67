//! `bulkhead man`: manual pages, made from the same definitions as the help.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_mangen::Man as Page;

use super::Cli;
use super::exit::Failure;

/// Print the manual page, or write one for each command
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead man | man -l -\n  \
    bulkhead man --dir /usr/local/share/man/man1")]
pub struct Man {
    /// Write bulkhead.1 and one page for each command into this directory, which is made if it does not exist
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl Man {
    /// Prints or writes the pages.
    pub fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let Some(directory) = self.dir else {
            return Ok(Page::new(Cli::command()).render(out)?);
        };
        let failed = |source| Failure::File {
            path: directory.clone(),
            source,
        };
        fs::create_dir_all(&directory).map_err(failed)?;
        clap_mangen::generate_to(Cli::command(), &directory).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_gets_a_page() {
        let directory = tempfile::tempdir().unwrap();
        let pages = directory.path().join("man1");
        Man {
            dir: Some(pages.clone()),
        }
        .run(&mut Vec::new())
        .unwrap();
        for name in [
            "bulkhead.1",
            "bulkhead-serve.1",
            "bulkhead-plugin-list.1",
            "bulkhead-policy-allow.1",
        ] {
            let page = fs::read_to_string(pages.join(name)).unwrap();
            assert!(page.contains(".TH"), "{name}");
        }
    }

    #[test]
    fn the_printed_page_names_the_exit_codes() {
        let mut page = Vec::new();
        Man { dir: None }.run(&mut page).unwrap();
        assert!(String::from_utf8(page).unwrap().contains("Exit codes"));
    }
}
