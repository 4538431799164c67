//! A real component does what a hostile plugin would, with the grant and without.

mod files;
mod sockets;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use wasmtime::component::{Component, Linker, ResourceTable, TypedFunc};
use wasmtime::{Config, Engine, Store};

use super::access::PluginAccess;
use super::names::{NameLookup, NoNames};
use super::{WasiHost, WasiParts, add_to_linker};
use crate::capability::testing::rights;
use crate::grant::effective::{Access, FilesGrant, FilesQuota, FilesTarget, Slot};
use crate::grant::{Deny, Effective, Guard, HostRules};

struct Host {
    parts: WasiParts,
    table: ResourceTable,
}

impl WasiHost for Host {
    fn wasi(&mut self) -> (&mut WasiParts, &mut ResourceTable) {
        (&mut self.parts, &mut self.table)
    }
}

/// A running instance of the `wasi-probe` guest, and its plugin's guard.
struct Probe {
    store: Store<Host>,
    act: TypedFunc<(String,), (String,)>,
}

fn component() -> &'static (Engine, Component) {
    static COMPILED: OnceLock<(Engine, Component)> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let engine = Engine::new(&Config::new()).unwrap();
        let component = Component::new(&engine, bulkhead_fixtures::wasm("wasi-probe")).unwrap();
        (engine, component)
    })
}

impl Probe {
    async fn start(access: &Arc<PluginAccess>) -> Self {
        let (engine, component) = component();
        let mut linker = Linker::<Host>::new(engine);
        add_to_linker(&mut linker).unwrap();
        let parts = WasiParts::new(access.guard(), Some(access));
        let mut store = Store::new(
            engine,
            Host {
                parts,
                table: ResourceTable::new(),
            },
        );
        let instance = linker
            .instantiate_async(&mut store, component)
            .await
            .unwrap();
        let act = instance.get_typed_func(&mut store, "act").unwrap();
        Self { store, act }
    }

    async fn act(&mut self, line: &str) -> String {
        self.act
            .call_async(&mut self.store, (line.to_owned(),))
            .await
            .unwrap()
            .0
    }

    /// Does it and expects it to work.
    async fn ok(&mut self, line: &str) -> String {
        let answer = self.act(line).await;
        let Some(text) = answer.strip_prefix("ok") else {
            panic!("{line}: {answer}")
        };
        text.trim_start().to_owned()
    }

    /// Does it and expects it to fail.
    async fn no(&mut self, line: &str) -> String {
        let answer = self.act(line).await;
        let Some(text) = answer.strip_prefix("no ") else {
            panic!("{line}: {answer}")
        };
        text.to_owned()
    }
}

fn access_with(grant: impl FnOnce(&mut Effective)) -> Arc<PluginAccess> {
    access_by(rights(grant), Arc::new(NoNames))
}

fn access_by(effective: Effective, names: Arc<dyn NameLookup>) -> Arc<PluginAccess> {
    PluginAccess::new(
        Guard::new(&HostRules::new(Deny::default()), effective),
        names,
    )
}

fn directory(path: &Path, access: Access) -> Slot<FilesGrant> {
    Slot::new(FilesGrant {
        target: FilesTarget::Directory(path.to_owned()),
        access,
        quota: FilesQuota::default(),
    })
}

fn limited(path: &Path, bytes: u64, files: u64) -> Slot<FilesGrant> {
    let target = FilesTarget::Directory(path.to_owned());
    Slot::new(FilesGrant {
        target,
        access: Access::ReadWrite,
        quota: FilesQuota { bytes, files },
    })
}

fn file(path: &Path, access: Access) -> Slot<FilesGrant> {
    Slot::new(FilesGrant {
        target: FilesTarget::File(path.to_owned()),
        access,
        quota: FilesQuota::default(),
    })
}

/// What the audit remembers, as `action: reason`.
fn denials(access: &PluginAccess) -> Vec<String> {
    let remembered = access.guard().host().audit().denials(None);
    remembered
        .into_iter()
        .map(|known| format!("{}: {}", known.denial.action, known.denial.reason))
        .collect()
}

fn denied(access: &PluginAccess, words: &str) -> bool {
    denials(access).iter().any(|denial| denial.contains(words))
}

#[tokio::test]
async fn a_plugin_sees_no_environment_and_no_arguments() {
    let access = access_with(|_| {});
    assert_eq!(Probe::start(&access).await.ok("environment").await, "0 0");
}

#[tokio::test]
async fn the_empty_sandbox_has_nothing() {
    let (engine, component) = component();
    let mut linker = Linker::<Host>::new(engine);
    add_to_linker(&mut linker).unwrap();
    let tree = tempfile::tempdir().unwrap();
    let granted = access_with(|rights| {
        drop(
            rights
                .files
                .insert("root".into(), directory(tree.path(), Access::Read)),
        )
    });
    let parts = WasiParts::new(granted.guard(), None);
    let mut store = Store::new(
        engine,
        Host {
            parts,
            table: ResourceTable::new(),
        },
    );
    let instance = linker
        .instantiate_async(&mut store, component)
        .await
        .unwrap();
    let act: TypedFunc<(String,), (String,)> = instance.get_typed_func(&mut store, "act").unwrap();
    let answer = act
        .call_async(&mut store, ("list /root".to_owned(),))
        .await
        .unwrap()
        .0;
    assert!(answer.starts_with("no "), "{answer}");
}

/// Keeps what is logged on this thread.
#[derive(Clone, Default)]
struct Logged(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_a_plugin_prints_becomes_harmless_log_lines() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let access = access_with(|rights| rights.limits.log_lines = 20);
    let mut probe = Probe::start(&access).await;
    let _guard = tracing::subscriber::set_default(subscriber);
    probe.ok("print hello\u{1b}[31m\rforged").await;
    for _ in 0..1000 {
        probe.ok("print flood").await;
    }
    let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains(r"hello\u{1b}[31m\rforged"), "{text}");
    assert!(
        text.contains("plugin=\"p\"") && text.contains("stdout"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}') && !text.contains('\r'));
    let lines = text.matches("flood").count();
    assert!(
        (10..200).contains(&lines),
        "{lines} of 1000 lines were logged"
    );
}
