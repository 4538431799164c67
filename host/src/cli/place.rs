//! Where a host keeps its configuration and its state: the options every command that concerns a host shares.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use toml::de::DeTable;

use super::exit::Failure;
use crate::settings::problem::utf8;
use crate::settings::{Config, Problem, Problems};

/// Read when `--config` is not given and it exists.
pub const DEFAULT_CONFIG: &str = "/etc/bulkhead/proxy.toml";

/// The state directory of a host that root runs.
const SYSTEM_STATE: &str = "/var/lib/bulkhead";

/// Below the state directory of the file: one directory a profile.
const PROFILES: &str = "profiles";

/// `--config`, `--profile` and `--state`: which host is meant.
#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// Configuration file [default: /etc/bulkhead/proxy.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The instance that serves this profile of the configuration: its features and listeners only
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,

    /// Directory for everything the proxy writes
    ///
    /// Default: `state` of the configuration file, else the directory systemd gives, else /var/lib/bulkhead for root and
    /// ~/.local/state/bulkhead for other users. With --profile: `profiles/NAME` in it, so that instances of one file do not meet.
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

    /// The configuration of the host that is meant: the file's, or the part of it that the profile names; without a file, a trial's.
    pub fn configuration(&self) -> Result<Config, Failure> {
        match self.survey()? {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(Failure::Configuration(Problems(problems).to_string())),
        }
    }

    /// [`Place::configuration`], as far as it can be made out, and every mistake in it.
    pub fn survey(&self) -> Result<(Option<Config>, Vec<Problem>), Failure> {
        let state = self.state_directory()?;
        let Some(file) = self.config_file() else {
            return match &self.profile {
                None => Ok((Some(Config::trial(&state)), Vec::new())),
                Some(profile) => Err(Failure::Configuration(format!(
                    "there is no profile `{profile}` without a configuration: name the file with --config (or make {DEFAULT_CONFIG})"
                ))),
            };
        };
        let (config, problems) = Config::survey(&file, &state);
        let Some(mut config) = config else {
            return Ok((None, problems));
        };
        config.state = state;
        if let Some(profile) = &self.profile {
            let wrong = |reason| Failure::Configuration(format!("{}: {reason}", file.display()));
            config = config.with_profile(profile).map_err(wrong)?;
        }
        Ok((Some(config), problems))
    }

    /// The state directory of the host that uses this configuration. Of the file only the key `state` is read: a running host
    /// must stay controllable while its configuration is being edited.
    pub fn state_directory(&self) -> Result<PathBuf, Failure> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        let whole = match self.config_file() {
            Some(file) => configured_state(&file)?.unwrap_or_else(default_state),
            None => default_state(),
        };
        match &self.profile {
            None => Ok(whole),
            Some(profile) if is_name(profile) => Ok(whole.join(PROFILES).join(profile)),
            Some(profile) => Err(Failure::Configuration(format!(
                "`{profile}` is no name of a profile: lower-case letters, digits and `-`"
            ))),
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
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
    let bytes = fs::read(file).map_err(|source| Failure::File {
        path: file.to_owned(),
        source,
    })?;
    let text = utf8(file, bytes).map_err(|problem| Failure::Configuration(problem.to_string()))?;
    let (table, mistakes) = DeTable::parse_recoverable(&text);
    let state = table.get_ref().get("state");
    let state = state.and_then(|it| it.get_ref().as_str());
    if state.is_none() && !mistakes.is_empty() {
        let (_, problems) = Config::survey(file, &default_state());
        return Err(Failure::Configuration(Problems(problems).to_string()));
    }
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
                profile: None,
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
    fn each_profile_has_a_state_of_its_own() {
        let (_folder, mut place) = place("state = \"/srv/one\"");
        place.profile = Some("client".into());
        assert_eq!(
            place.state_directory().unwrap(),
            Path::new("/srv/one/profiles/client")
        );
        for wrong in ["", "..", "a/b", "Client"] {
            place.profile = Some(wrong.into());
            let told = place.state_directory().unwrap_err().to_string();
            assert!(told.contains("is no name of a profile"), "{told}");
        }
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
            ..Place::default()
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
