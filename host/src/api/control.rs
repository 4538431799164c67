//! What an operator can see and change in a running host: the trait its parts implement, and the plain records that travel to the
//! admin listener, through the control socket and into the tables of `bulkhead`'s commands.
//!
//! The records are the documented shape of `--format json`: fields may be added, never renamed.

use std::fmt;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// A running host, seen by its operator.
pub trait Control: Send + Sync + 'static {
    /// Features the configuration switches on that do not serve yet. Empty: the host is ready.
    fn unready(&self) -> Vec<Unready>;

    /// Every plugin that was found, by name.
    fn plugins(&self) -> Vec<PluginView>;

    /// Every address the host listens at.
    fn ports(&self) -> Vec<PortView>;

    /// What a plugin asked for, was granted and used.
    fn explain(&self, plugin: &str) -> Result<Explanation, ControlError>;

    /// Denials since start, newest last, the same one once with a count.
    fn denials(&self) -> Vec<DenialView>;

    /// Approves the waiting file of a plugin. With `digest`, only if it is that very file.
    fn approve(
        &self,
        plugin: String,
        digest: Option<String>,
    ) -> BoxFuture<'_, Result<Done, ControlError>>;

    /// Returns to the version that ran before.
    fn rollback(&self, plugin: String) -> BoxFuture<'_, Result<Done, ControlError>>;

    /// Adds a line to the plugin's policy file and applies it.
    fn allow(&self, plugin: String, line: String) -> BoxFuture<'_, Result<Done, ControlError>>;
}

/// A feature that should serve and does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unready {
    /// Its plugin.
    pub plugin: String,
    /// Why not.
    pub reason: String,
}

/// Where a plugin is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginState {
    /// Found; being described, compiled or probed.
    Starting,
    /// Serves.
    Running,
    /// Waits for an approval or a grant.
    Pending,
    /// Cannot serve.
    Failed,
    /// Switched off by the configuration.
    Disabled,
    /// Takes no new calls and finishes its last ones.
    Draining,
}

impl fmt::Display for PluginState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
            Self::Draining => "draining",
        })
    }
}

/// One plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginView {
    /// Its name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// `bundled`, or the file it was loaded from.
    pub origin: String,
    /// Where it is in its life.
    pub state: PluginState,
    /// Why it does not run.
    pub reason: Option<String>,
    /// Path prefixes it owns.
    pub mounts: Vec<String>,
    /// Lines of TOML that its policy lacks.
    pub missing: Vec<String>,
    /// What the operator should know although it runs, such as a grant that no need asks for.
    pub warnings: Vec<String>,
    /// The digest `rollback` would return to.
    pub previous: Option<String>,
}

/// One address the host listens at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    /// `192.0.2.1:8443`, `[::]:69`
    pub address: String,
    /// `http`, `https`, `tcp` or `udp`.
    pub protocol: String,
    /// The listener's name, or the plugin whose service it feeds.
    pub owner: String,
    /// Audiences served there; empty for a service's socket.
    pub audiences: Vec<String>,
    /// Plugins that answer somebody there.
    pub features: Vec<String>,
}

/// One plugin's rights, asked, granted and used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The plugin.
    pub plugin: String,
    /// The digest the policy is applied to.
    pub digest: String,
    /// The policy file.
    pub policy: String,
    /// What holds as long as that file is not there; none where it is.
    #[serde(default)]
    pub without: Option<String>,
    /// What it may do, in one sentence.
    pub sentence: String,
    /// One row a need, in the manifest's order.
    pub needs: Vec<NeedView>,
    /// Grants that no need asks for, and other remarks.
    pub warnings: Vec<String>,
}

/// One need and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedView {
    /// The kind of access.
    pub capability: String,
    /// The plugin's name for it.
    pub slot: String,
    /// What it does there.
    pub access: String,
    /// Why, in the author's words.
    pub reason: String,
    /// The plugin cannot run without it.
    pub required: bool,
    /// What the policy gives, in one line; none: nothing.
    pub granted: Option<String>,
    /// How often it was used since start.
    pub used: u64,
    /// How often it was denied since start.
    pub denied: u64,
}

/// One denial, and how often it happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DenialView {
    /// The last time, seconds since 1970.
    pub timestamp: f64,
    /// Who was denied.
    pub plugin: String,
    /// What it tried, in words.
    pub action: String,
    /// The rule that decided.
    pub rule: String,
    /// Why.
    pub reason: String,
    /// The line of TOML that would allow it; none where nothing may.
    pub fix: Option<String>,
    /// What to write into the configuration, where the policy leaves it to a setting.
    #[serde(default)]
    pub instead: Option<String>,
    /// How often since start.
    pub count: u64,
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What happened, one sentence.
    pub message: String,
}

/// A change that was not made, or a question without answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No plugin of that name.
    #[error("there is no plugin `{0}`")]
    UnknownPlugin(String),
    /// It makes no sense now: nothing waits, nothing to return to, another file.
    #[error("{0}")]
    Refused(String),
    /// What was given is wrong, for example a line that is not TOML.
    #[error("{0}")]
    Invalid(String),
    /// It should have worked.
    #[error("{0}")]
    Failed(String),
}
