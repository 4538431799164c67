//! Where a host keeps its configuration and its state: the options every command that concerns a host shares.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::Failure;

/// Read when `--config` is not given and it exists.
pub const DEFAULT_CONFIG: &str = "/etc/bulkhead/proxy.toml";

/// The state directory of a host that root runs.
const SYSTEM_STATE: &str = "/var/lib/bulkhead";

/// `--config` and `--state`.
#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// Configuration file [default: /etc/bulkhead/proxy.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Directory for everything the proxy writes
    ///
    /// Default: `state` of the configuration file, else the directory systemd gives, else /var/lib/bulkhead for root and
    /// ~/.local/state/bulkhead for other users.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

impl Place {
    /// The configuration file, if there is one.
    #[must_use]
    pub fn config_file(&self) -> Option<PathBuf> {
        let usual = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.exists());
        self.config.clone().or_else(usual)
    }

    /// The state directory of the host that uses this configuration. Of the file only the key `state` is read: a running host
    /// must stay controllable while its configuration is being edited.
    pub fn state_directory(&self) -> Result<PathBuf, Failure> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        match self.config_file() {
            Some(file) => Ok(configured_state(&file)?.unwrap_or_else(default_state)),
            None => Ok(default_state()),
        }
    }
}

/// The state directory when neither option nor configuration names one.
#[must_use]
pub fn default_state() -> PathBuf {
    // systemd may give several, separated by colons; ours is the first.
    let given = env::var("STATE_DIRECTORY")
        .ok()
        .and_then(|given| given.split(':').next().map(PathBuf::from));
    if let Some(given) = given.filter(|path| path.is_absolute()) {
        return given;
    }
    let home = |variable: &str| {
        env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(SYSTEM_STATE);
    }
    let states =
        home("XDG_STATE_HOME").or_else(|| home("HOME").map(|home| home.join(".local/state")));
    states.map_or_else(
        || PathBuf::from(SYSTEM_STATE),
        |states| states.join("bulkhead"),
    )
}

fn configured_state(file: &Path) -> Result<Option<PathBuf>, Failure> {
    let text = fs::read_to_string(file).map_err(|source| Failure::File {
        path: file.to_owned(),
        source,
    })?;
    let table: toml::Table = text
        .parse()
        .map_err(|error| Failure::Configuration(format!("{}: {error}", file.display())))?;
    let state = table.get("state").and_then(toml::Value::as_str);
    // A relative path starts where the file that names it is.
    Ok(state.map(|state| file.parent().unwrap_or(Path::new(".")).join(state)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> (tempfile::TempDir, Place) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxy.toml");
        fs::write(&file, text).unwrap();
        (
            folder,
            Place {
                config: Some(file),
                state: None,
            },
        )
    }

    #[test]
    fn the_option_wins_over_the_file() {
        let (_folder, mut place) = place("state = \"/srv/one\"");
        assert_eq!(place.state_directory().unwrap(), Path::new("/srv/one"));
        place.state = Some("/srv/two".into());
        assert_eq!(place.state_directory().unwrap(), Path::new("/srv/two"));
    }

    #[test]
    fn a_relative_state_directory_is_beside_the_file() {
        let (folder, place) = place("state = \"state\"");
        assert_eq!(
            place.state_directory().unwrap(),
            folder.path().join("state")
        );
    }

    #[test]
    fn a_file_with_other_mistakes_still_leads_to_the_host() {
        let (_folder, place) = place("state = \"/srv/one\"\nunknown_key = true");
        assert!(place.state_directory().is_ok());
    }

    #[test]
    fn a_missing_file_is_named() {
        let place = Place {
            config: Some("/nowhere/proxy.toml".into()),
            state: None,
        };
        assert!(
            place
                .state_directory()
                .unwrap_err()
                .to_string()
                .starts_with("/nowhere/proxy.toml: ")
        );
    }
}
