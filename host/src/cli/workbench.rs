//! Looking at component files without a running host: an engine, threads and an empty sandbox, for as long as a command runs.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::exit::Failure;
use crate::plugin::compile;
use crate::plugin::inspect::{self, Surface};
use crate::plugin::library::read_component;
use crate::sandbox::bindings::types::{Audience, BodyMode, Lifetime, Manifest, SettingKind};
use crate::sandbox::{Engine, EngineConfig, Runtimes};
use crate::settings::config::CompileLimits;

/// What a component file is.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// The file.
    pub file: PathBuf,
    /// Its identity.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Whether this program can run it.
    pub fits: bool,
    /// Why not.
    pub problem: Option<String>,
    /// Imports and exports, read from the bytes.
    #[serde(flatten)]
    pub surface: Surface,
    /// What it says it is; none if it could not be asked.
    pub manifest: Option<ManifestView>,
}

/// A manifest for people and programs.
#[derive(Debug, Serialize)]
pub struct ManifestView {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub summary: String,
    /// `automatic`, `pooled`, `fresh` or `single`.
    pub lifetime: &'static str,
    /// Path prefixes.
    pub mounts: Vec<String>,
    /// Routes.
    pub routes: Vec<RouteView>,
    /// Needs.
    pub needs: Vec<NeedView>,
    /// Settings.
    pub settings: Vec<SettingView>,
}

/// One route.
#[derive(Debug, Serialize)]
pub struct RouteView {
    /// Method.
    pub method: String,
    /// Pattern.
    pub pattern: String,
    /// `foreman`, `host` or `public`.
    pub audience: &'static str,
    /// `none`, `whole` or `passed`.
    pub body: &'static str,
}

/// One need.
#[derive(Debug, Serialize)]
pub struct NeedView {
    /// Capability.
    pub capability: String,
    /// Slot.
    pub slot: String,
    /// Access.
    pub access: String,
    /// Whether it cannot run without.
    pub required: bool,
    /// Why.
    pub reason: String,
}

/// One setting.
#[derive(Debug, Serialize)]
pub struct SettingView {
    /// Name.
    pub name: String,
    /// `text`, `integer`, `boolean`, `url`, `texts` or `path`.
    pub kind: &'static str,
    /// Default in TOML notation.
    pub default: Option<String>,
    /// Whether a value must be there.
    pub required: bool,
    /// Whether Foreman sees it.
    pub exposed: bool,
    /// What it is for.
    pub help: String,
}

/// Reads, compiles and describes a component file.
pub fn look(file: &Path) -> Result<(Inspection, Option<Manifest>), Failure> {
    let limits = CompileLimits::default();
    let wasm = read_component(file, limits.size).map_err(|source| Failure::File {
        path: file.to_owned(),
        source,
    })?;
    let start = |error: &dyn std::fmt::Display| Failure::Start(error.to_string());
    let engine = Engine::new(&EngineConfig::for_machine()).map_err(|error| start(&error))?;
    let runtimes = Runtimes::start().map_err(|error| start(&error))?;
    let digest = inspect::digest(&wasm);
    let size = wasm.len() as u64;
    let refused = |problem: String, surface: Surface| Inspection {
        file: file.to_owned(),
        digest: digest.clone(),
        size,
        fits: false,
        problem: Some(problem),
        surface,
        manifest: None,
    };
    let asking = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| start(&error))?;
    let program = std::env::current_exe().map_err(|error| start(&error))?;
    // In a child with limits: what nobody has looked at yet may be made to keep a compiler busy.
    let compiled = asking.block_on(compile::once(&engine, &program, &limits, &wasm));
    let component = match compiled {
        Ok(component) => component,
        Err(error) => {
            let nothing = Surface {
                imports: Vec::new(),
                exports: Vec::new(),
            };
            return Ok((refused(error.to_string(), nothing), None));
        }
    };
    let surface = inspect::surface(&engine, &component);
    match asking.block_on(inspect::describe(&engine, &component, runtimes.handles())) {
        Ok(manifest) => {
            let inspection = Inspection {
                file: file.to_owned(),
                digest,
                size,
                fits: true,
                problem: None,
                surface,
                manifest: Some(view(&manifest)),
            };
            Ok((inspection, Some(manifest)))
        }
        Err(error) => Ok((refused(error.to_string(), surface), None)),
    }
}

fn view(manifest: &Manifest) -> ManifestView {
    ManifestView {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        summary: manifest.summary.clone(),
        lifetime: match manifest.lifetime {
            Lifetime::Automatic => "automatic",
            Lifetime::Pooled => "pooled",
            Lifetime::Fresh => "fresh",
            Lifetime::Single => "single",
        },
        mounts: manifest.mounts.clone(),
        routes: manifest
            .routes
            .iter()
            .map(|route| RouteView {
                method: route.method.clone(),
                pattern: route.pattern.clone(),
                audience: match route.audience {
                    Audience::Foreman => "foreman",
                    Audience::Host => "host",
                    Audience::Public => "public",
                },
                body: match route.body {
                    BodyMode::None => "none",
                    BodyMode::Whole => "whole",
                    BodyMode::Passed => "passed",
                },
            })
            .collect(),
        needs: manifest
            .needs
            .iter()
            .map(|need| NeedView {
                capability: need.capability.clone(),
                slot: need.slot.clone(),
                access: need.access.clone(),
                required: need.required,
                reason: need.reason.clone(),
            })
            .collect(),
        settings: manifest
            .settings
            .iter()
            .map(|setting| SettingView {
                name: setting.name.clone(),
                kind: match setting.kind {
                    SettingKind::Text => "text",
                    SettingKind::Integer => "integer",
                    SettingKind::Boolean => "boolean",
                    SettingKind::Url => "url",
                    SettingKind::Texts => "texts",
                    SettingKind::Path => "path",
                },
                default: setting.default.clone(),
                required: setting.required,
                exposed: setting.exposed,
                help: setting.help.clone(),
            })
            .collect(),
    }
}
