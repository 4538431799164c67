//! Which component a policy is for.
//!
//! A policy's rights belong to a digest, not to a name: another file that calls itself `tftp` inherits nothing. The operator
//! approves a digest with `bulkhead plugin approve`, which is kept here in the state directory together with the fingerprint
//! of the manifest (frozen from then on), or by `approved` in the policy file. First-party components are approved by the
//! binary that embeds them and never looked up here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::edit::write_whole;

/// `sha256:` and 64 lower-case hexadecimal digits: the identity of a component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: `sha256:` and 64 hexadecimal digits")]
pub struct NoDigest(String);

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let lower = text.to_ascii_lowercase();
        let hex = lower.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(lower))
        } else {
            Err(NoDigest(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;
    fn try_from(text: String) -> Result<Self, NoDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a component stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It may have its policy's rights.
    Approved,
    /// Nobody approved any component of this name.
    New,
    /// Another component of this name was approved.
    Changed {
        /// The approved digest, the latest first.
        approved: Vec<Digest>,
    },
    /// The digest was approved when its manifest was another: it answered differently then.
    ManifestChanged,
    /// The digest was approved by a version of this program that noted manifests in another form, so that nobody can tell.
    OldForm,
}

/// The approvals an operator gave by command.
#[derive(Debug)]
pub struct Approvals {
    path: PathBuf,
    known: Mutex<Known>,
}

type Known = BTreeMap<String, Vec<Approval>>;

/// Approved versions kept for one plugin: the running one, those to roll back to, and some history.
const KEPT: usize = 8;

/// One approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The component.
    pub digest: Digest,
    /// The fingerprint of its manifest at that time.
    pub manifest: String,
    /// Seconds since 1970.
    pub at: u64,
}

/// The file of approvals cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct ApprovalsError {
    /// The file.
    pub path: PathBuf,
    /// What went wrong.
    pub reason: String,
}

impl Approvals {
    /// Reads the file; a missing one means no approvals. A broken one is an error, never an empty list.
    pub fn open(path: PathBuf) -> Result<Self, ApprovalsError> {
        let known = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let help = "restore it from a backup, or remove it and approve the plugins of the plugin directory anew";
                failed(&path, &format!("{error}; {help}"))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Known::new(),
            Err(error) => return Err(failed(&path, &error)),
        };
        Ok(Self {
            path,
            known: Mutex::new(known),
        })
    }

    /// Approves a component of a plugin with the manifest it has now. Durable on return.
    pub fn approve(
        &self,
        plugin: &str,
        digest: &Digest,
        manifest: &str,
    ) -> Result<(), ApprovalsError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = known.clone();
        let list = next.entry(plugin.to_owned()).or_default();
        list.retain(|approval| approval.digest != *digest);
        let at = std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |time| time.as_secs());
        list.insert(
            0,
            Approval {
                digest: digest.clone(),
                manifest: manifest.to_owned(),
                at,
            },
        );
        list.truncate(KEPT);
        let text = serde_json::to_vec_pretty(&next).map_err(|error| failed(&self.path, &error))?;
        write_whole(&self.path, &text).map_err(|error| failed(&self.path, &error))?;
        *known = next;
        Ok(())
    }

    /// Where a component stands, by these approvals and by the digests its policy lists.
    #[must_use]
    pub fn standing(
        &self,
        plugin: &str,
        digest: &Digest,
        manifest: &str,
        by_policy: &[Digest],
    ) -> Standing {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let list = known.get(plugin).map(Vec::as_slice).unwrap_or_default();
        if let Some(approval) = list.iter().find(|approval| approval.digest == *digest) {
            return if approval.manifest == manifest || without_form(manifest) == approval.manifest {
                Standing::Approved
            } else if form(&approval.manifest) != form(manifest) {
                Standing::OldForm
            } else {
                Standing::ManifestChanged
            };
        }
        if by_policy.contains(digest) {
            return Standing::Approved;
        }
        let approved: Vec<_> = list
            .iter()
            .map(|approval| &approval.digest)
            .chain(by_policy)
            .cloned()
            .collect();
        if approved.is_empty() {
            Standing::New
        } else {
            Standing::Changed { approved }
        }
    }
}

/// The number of the form of a fingerprint (`1:sha256:...`). The first ones had none, and were of whatever form.
fn form(fingerprint: &str) -> Option<&str> {
    let (form, _) = fingerprint.split_once(':')?;
    form.bytes().all(|b| b.is_ascii_digit()).then_some(form)
}

/// The fingerprint as it was written before forms had numbers: whoever wrote the same text then had the same form.
fn without_form(fingerprint: &str) -> &str {
    fingerprint
        .split_once(':')
        .map_or(fingerprint, |(_, rest)| rest)
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> ApprovalsError {
    ApprovalsError {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: char) -> Digest {
        format!("sha256:{}", letter.to_string().repeat(64))
            .parse()
            .unwrap()
    }

    #[test]
    fn another_file_of_the_same_name_inherits_nothing() {
        let place = tempfile::tempdir().unwrap();
        let approvals = Approvals::open(place.path().join("approvals.json")).unwrap();
        assert_eq!(
            approvals.standing("tftp", &digest('a'), "m", &[]),
            Standing::New
        );
        approvals.approve("tftp", &digest('a'), "m").unwrap();
        assert_eq!(
            approvals.standing("tftp", &digest('a'), "m", &[]),
            Standing::Approved
        );
        let changed = Standing::Changed {
            approved: vec![digest('a')],
        };
        assert_eq!(approvals.standing("tftp", &digest('b'), "m", &[]), changed);
        assert_eq!(
            approvals.standing("dns", &digest('a'), "m", &[]),
            Standing::New
        );
    }

    #[test]
    fn the_manifest_is_frozen_at_approval() {
        let place = tempfile::tempdir().unwrap();
        let approvals = Approvals::open(place.path().join("approvals.json")).unwrap();
        approvals.approve("tftp", &digest('a'), "honest").unwrap();
        assert_eq!(
            approvals.standing("tftp", &digest('a'), "greedy", &[digest('a')]),
            Standing::ManifestChanged
        );
    }

    #[test]
    fn an_approval_of_another_form_is_asked_for_again_and_never_taken_for_a_changed_manifest() {
        let place = tempfile::tempdir().unwrap();
        let approvals = Approvals::open(place.path().join("approvals.json")).unwrap();
        let (now, same) = (format!("1:{}", digest('c')), digest('c').to_string());
        for (old, standing) in [
            ("Manifest { name: \"tftp\" }", Standing::OldForm),
            (digest('d').to_string().as_str(), Standing::OldForm),
            ("2:sha256:cc", Standing::OldForm),
            (
                format!("1:{}", digest('d')).as_str(),
                Standing::ManifestChanged,
            ),
            (same.as_str(), Standing::Approved),
            (now.as_str(), Standing::Approved),
        ] {
            approvals.approve("tftp", &digest('a'), old).unwrap();
            assert_eq!(
                approvals.standing("tftp", &digest('a'), &now, &[]),
                standing,
                "{old}"
            );
        }
    }

    #[test]
    fn approvals_outlive_a_restart_and_a_broken_file_is_no_empty_one() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("approvals.json");
        Approvals::open(path.clone())
            .unwrap()
            .approve("tftp", &digest('a'), "m")
            .unwrap();
        let again = Approvals::open(path.clone()).unwrap();
        assert_eq!(
            again.standing("tftp", &digest('a'), "m", &[]),
            Standing::Approved
        );
        std::fs::write(&path, "{").unwrap();
        assert!(Approvals::open(path).is_err());
    }

    #[test]
    fn a_policy_can_approve_by_digest() {
        let place = tempfile::tempdir().unwrap();
        let approvals = Approvals::open(place.path().join("approvals.json")).unwrap();
        assert_eq!(
            approvals.standing("x", &digest('a'), "m", &[digest('a')]),
            Standing::Approved
        );
        assert!("sha256:12".parse::<Digest>().is_err());
        assert!("md5:0".parse::<Digest>().is_err());
    }
}
