//! What the operator tells a plugin to be: approved, or as it was before.

use super::files::told;
use super::{Place, Record, Registry};
use crate::api::control::{ControlError, Done, PluginState};
use crate::plugin::compile::Origin;
use crate::plugin::inspect::Wasm;

impl Registry {
    /// Approves the file that waits under this name, and loads it.
    pub async fn approve(&self, name: &str, digest: Option<&str>) -> Result<Done, ControlError> {
        let mut work = self.work.lock().await;
        // Who has just put a file there means that one.
        self.settled_files(&mut work, &told).await;
        let record = self
            .records
            .load()
            .get(name)
            .cloned()
            .ok_or_else(|| unknown(name))?;
        let Place::File(path) = &record.place else {
            return Err(ControlError::Refused(format!(
                "`{name}` is part of this program and needs no approval"
            )));
        };
        if digest.is_some_and(|it| it != record.found.digest) {
            return Err(ControlError::Refused(format!(
                "the file that waits is {}, not the one you named",
                record.found.digest
            )));
        }
        self.loader
            .approve(name, &record.found.digest, &record.found.fingerprint)
            .map_err(ControlError::Failed)?;
        let _ = self.library.reinstate(name);
        work.files.remove(path);
        self.settled_files(&mut work, &told).await;
        self.settle();
        let digest = &record.found.digest;
        let runs = self
            .loader
            .running(name)
            .is_some_and(|it| it.digest == *digest);
        let message = match self.records.load().get(name) {
            Some(record) if !runs => {
                let state = || record.state.to_string();
                let reason = record.reason.clone().unwrap_or_else(state);
                format!("{name} {digest} is approved, but does not run: {reason}")
            }
            _ => format!("{name} {digest} is approved and {}", self.state_of(name)),
        };
        Ok(Done { message })
    }

    /// Returns to the version of a plugin that ran before.
    pub async fn rollback(&self, name: &str) -> Result<Done, ControlError> {
        let _work = self.work.lock().await;
        let refused = |text: String| ControlError::Refused(text);
        let record = self
            .records
            .load()
            .get(name)
            .cloned()
            .ok_or_else(|| unknown(name))?;
        let history = self.library.history(name).unwrap_or_default();
        let Some(previous) = history.previous else {
            return Err(refused(format!("no earlier version of `{name}` is known")));
        };
        let wasm = self
            .library
            .read(&previous)
            .ok_or_else(|| refused(format!("the copy of {previous} is gone")))?;
        let wasm = Wasm {
            bytes: &wasm,
            digest: &previous,
        };
        let (_, ready) = self.loader.prepare(&wasm, Origin::ThirdParty, None).await;
        let plugin = ready.map_err(|trouble| {
            refused(format!(
                "{previous} does not run any more: {}",
                trouble.reason()
            ))
        })?;
        self.switch(&record.place, plugin).map_err(refused)?;
        let _ = self.library.rolled_back(name, &history.current, &previous);
        let stays_out = format!(
            "{} stays out until its file changes or is approved",
            history.current
        );
        // What stood there was said of another version.
        self.record(
            name.to_owned(),
            Record {
                state: PluginState::Running,
                reason: Some(format!("rolled back; {stays_out}")),
                missing: Vec::new(),
                ..record
            },
        );
        self.settle();
        Ok(Done {
            message: format!("{name} is back at {previous}; {stays_out}"),
        })
    }
}

fn unknown(name: &str) -> ControlError {
    ControlError::UnknownPlugin(name.to_owned())
}
