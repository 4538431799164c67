//! What a component file is, found out without giving it anything: the data of `plugin inspect` and the first steps of loading.
//!
//! `describe` runs in an empty sandbox: no file, no socket, no setting, no facility; one second, 64 MiB. It runs twice, in two instances, and
//! both must say the same: what is approved is what runs.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::compile::{CompileError, Compiler, Origin};
use super::fingerprint::fingerprint;
use super::manifest::{self, BadManifest};
use crate::grant::limits::Limits;
use crate::grant::{Deny, Effective, Guard, HostRules};
use crate::sandbox::bindings::types::{Lifetime, Manifest};
use crate::sandbox::context::{Site, Surroundings};
use crate::sandbox::peers::Peers;
use crate::sandbox::{CallError, Program, Sandbox, runtimes};

/// Why a component cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no machine code for it.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It cannot be linked.
    #[error(transparent)]
    Misfit(#[from] crate::sandbox::instance::Misfit),
    /// `describe` failed.
    #[error("`describe` failed: {}", in_short(.0))]
    Describe(#[source] CallError),
    /// It answers differently each time.
    #[error("`describe` lies: two calls gave two different manifests")]
    Lies,
    /// It says what no plugin may say.
    #[error(transparent)]
    Manifest(#[from] BadManifest),
}

/// A component's bytes and its identity.
#[derive(Debug, Clone, Copy)]
pub struct Wasm<'a> {
    /// The component.
    pub bytes: &'a [u8],
    /// Its [`digest`]. The bytes of an embedded component are not even looked at while what is known of its digest suffices.
    pub digest: &'a str,
}

/// The identity of a component: the SHA-256 of its bytes, as `sha256:<hex>`.
#[must_use]
pub fn digest(wasm: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(wasm)
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A trap without the addresses of functions that have no names: this stands in a list of plugins.
fn in_short(error: &CallError) -> String {
    let text = error.to_string();
    match (
        text.split_once("error while executing at wasm backtrace"),
        text.rsplit_once(": "),
    ) {
        (Some((before, _)), Some((_, last))) => format!("{before}{last}"),
        _ => text,
    }
}

/// One second for what takes microseconds; the rest of the limits as for any call.
fn limits() -> Limits {
    Limits {
        memory: 64 << 20,
        time: Duration::from_secs(1),
        cpu: Duration::from_secs(1),
        concurrency: 1,
        transfer: 1 << 20,
        warm: 0,
        reply_body: 1 << 20,
        ..Limits::default()
    }
}

/// What a component says it is, asked now or before, and its machine code if that was needed for it.
pub async fn manifest(
    engine: &crate::sandbox::Engine,
    compiler: &Compiler,
    runtimes: &runtimes::Handles,
    wasm: &Wasm<'_>,
    origin: Origin,
) -> Result<(Manifest, Option<Component>), InspectError> {
    if let Some(manifest) = compiler.manifest(wasm) {
        return Ok((manifest, None));
    }
    let component = compiler.component(wasm, origin).await?;
    let manifest = describe(engine, &component, runtimes.clone()).await?;
    compiler.remember(wasm, &manifest);
    Ok((manifest, Some(component)))
}

/// Asks a component for its manifest, in an empty sandbox, twice.
pub async fn describe(
    engine: &crate::sandbox::Engine,
    component: &Component,
    runtimes: runtimes::Handles,
) -> Result<Manifest, InspectError> {
    let program = Program::link(engine, component)?;
    let surroundings = Arc::new(Surroundings {
        guard: Guard::new(
            &HostRules::new(Deny::default()),
            Effective::nothing("describe"),
        ),
        settings: std::collections::HashMap::new(),
        site: Site::default(),
        access: None,
        metrics: None,
        facilities: None,
        peers: Peers::default(),
    });
    let sandbox = Arc::new(Sandbox::new(
        program,
        surroundings,
        limits(),
        Lifetime::Fresh,
        runtimes,
    ));
    let manifest = sandbox.describe().await.map_err(InspectError::Describe)?;
    let again = sandbox.describe().await.map_err(InspectError::Describe)?;
    if fingerprint(&manifest) != fingerprint(&again) {
        return Err(InspectError::Lies);
    }
    manifest::check(&manifest)?;
    Ok(manifest)
}

/// Imports and exports of a component, by name.
#[derive(Debug, Clone, Serialize)]
pub struct Surface {
    /// Interfaces it imports. An upper bound of what it can ask for.
    pub imports: Vec<String>,
    /// Interfaces it exports.
    pub exports: Vec<String>,
}

/// Reads imports and exports from the bytes, not from what the publisher says.
#[must_use]
pub fn surface(engine: &crate::sandbox::Engine, component: &Component) -> Surface {
    let ty = component.component_type();
    Surface {
        imports: ty
            .imports(engine.inner())
            .map(|(name, _)| name.to_owned())
            .collect(),
        exports: ty
            .exports(engine.inner())
            .map(|(name, _)| name.to_owned())
            .collect(),
    }
}
