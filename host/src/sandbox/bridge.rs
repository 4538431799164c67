//! Calls between plugins through interfaces the host does not know: the dynamic bridge.
//!
//! A component may import an interface that another plugin exports, as long as its functions take and give plain values. The host
//! joins them by name. It refuses resources, streams and futures at load (they would let one instance reach into another), and lists of
//! more than [`MAX_VALUES`] values in a call: dynamic values are 40 bytes each, so this is for small records; large data is paged.
//! The call is decided by the caller's policy (`call`), runs under the callee's limits, and its failure is typed for the caller when the function's
//! result has a `string` error, else it traps the caller.

use std::sync::Arc;

use wasmtime::component::types::{ComponentItem, Type};
use wasmtime::component::{Component, Linker, Val};

use super::context::{Context, Peer};
use super::engine::Engine;
use super::error::CallError;
use super::instance::Live;
use super::pool::Sandbox;
use super::runtimes::Class;

/// Values (counted one by one, bytes of a `list<u8>` too) that one call may carry each way.
pub const MAX_VALUES: usize = 20_000;

/// Interfaces that the host serves itself.
const SERVED: [&str; 2] = ["wasi:", "foreman:proxy/"];

/// Whether an interface is one that the host knows.
#[must_use]
pub(super) fn is_served_by_host(interface: &str) -> bool {
    SERVED.iter().any(|served| interface.starts_with(served))
}

/// The names of imported interfaces that only another plugin can serve, e.g. `acme:weather/forecast@1.0.0`.
#[must_use]
pub fn foreign_imports(component: &Component, engine: &Engine) -> Vec<String> {
    let ty = component.component_type();
    ty.imports(engine.inner())
        .filter(|(name, _)| !is_served_by_host(name))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Defines every foreign import of the component in the linker.
pub(super) fn link(
    linker: &mut Linker<Context>,
    component: &Component,
    engine: &Engine,
) -> wasmtime::Result<()> {
    let ty = component.component_type();
    for (interface, item) in ty.imports(engine.inner()) {
        if is_served_by_host(interface) {
            continue;
        }
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            return Err(wasmtime::Error::msg(format!(
                "it imports `{interface}`, which is no interface; plugins import whole interfaces"
            )));
        };
        let mut slot = linker.instance(interface)?;
        for (function, item) in instance.exports(engine.inner()) {
            match item.ty {
                ComponentItem::ComponentFunc(ty) => {
                    let plain = ty.params().all(|(_, ty)| is_plain(&ty))
                        && ty.results().all(|ty| is_plain(&ty));
                    if !plain {
                        return Err(wasmtime::Error::msg(format!(
                            "`{interface}`.{function} passes a resource, stream or future; calls between plugins carry plain values"
                        )));
                    }
                    define(&mut slot, interface.to_owned(), function.to_owned())?;
                }
                ComponentItem::Type(_) => {}
                _ => {
                    return Err(wasmtime::Error::msg(format!(
                        "`{interface}`.{function} is neither a function nor a plain type"
                    )));
                }
            }
        }
    }
    Ok(())
}

fn define(
    slot: &mut wasmtime::component::LinkerInstance<'_, Context>,
    interface: String,
    function: String,
) -> wasmtime::Result<()> {
    let name = function.clone();
    slot.func_new_async(&name, move |store, ty, params, results| {
        let interface = interface.clone();
        let function = function.clone();
        let error_is_text = ty.results().next().is_some_and(|ty| has_text_error(&ty));
        // What the context knows is taken now: it is not shared between threads while the callee works.
        let context = store.data();
        let (callee, class, peer) = (
            context.callee(&interface),
            context.class(),
            context.peer().cloned(),
        );
        Box::new(async move {
            let outcome = match callee {
                Ok(callee) => {
                    call(
                        &callee,
                        class,
                        peer,
                        interface,
                        function,
                        params.to_vec(),
                        results.len(),
                    )
                    .await
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(values) => {
                    for (slot, value) in results.iter_mut().zip(values) {
                        *slot = value;
                    }
                    Ok(())
                }
                Err(error) if error_is_text => {
                    if let Some(slot) = results.first_mut() {
                        *slot = Val::Result(Err(Some(Box::new(Val::String(error.to_string())))));
                    }
                    Ok(())
                }
                Err(error) => Err(wasmtime::Error::msg(error.to_string())),
            }
        })
    })
}

async fn call(
    callee: &Arc<Sandbox>,
    class: Class,
    peer: Option<Arc<Peer>>,
    interface: String,
    function: String,
    params: Vec<Val>,
    results: usize,
) -> Result<Vec<Val>, CallError> {
    bounded(&params)?;
    let values = callee
        .call_by_plugin(class, peer, move |live| {
            Box::pin(async move {
                let Live {
                    store, instance, ..
                } = live;
                let missing =
                    || wasmtime::Error::msg(format!("it does not export `{interface}`.{function}"));
                let index = instance
                    .get_export_index(&mut *store, None, &interface)
                    .ok_or_else(missing)?;
                let index = instance
                    .get_export_index(&mut *store, Some(&index), &function)
                    .ok_or_else(missing)?;
                let callee = instance.get_func(&mut *store, index).ok_or_else(missing)?;
                let mut values = vec![Val::Bool(false); results];
                callee.call_async(&mut *store, &params, &mut values).await?;
                Ok(values)
            })
        })
        .await?;
    bounded(&values)?;
    Ok(values)
}

fn bounded(values: &[Val]) -> Result<(), CallError> {
    let mut left = MAX_VALUES;
    if values.iter().all(|value| count(value, &mut left)) {
        Ok(())
    } else {
        Err(CallError::Trapped {
            kind: "transfer",
            detail: format!("a call between plugins carries at most {MAX_VALUES} values"),
        })
    }
}

/// Counts a value and all within; false when there are too many.
fn count(value: &Val, left: &mut usize) -> bool {
    let Some(rest) = left.checked_sub(1) else {
        return false;
    };
    *left = rest;
    match value {
        Val::List(items) | Val::Tuple(items) | Val::FixedLengthList(items) => {
            items.iter().all(|it| count(it, left))
        }
        Val::Record(fields) => fields.iter().all(|(_, it)| count(it, left)),
        Val::Map(pairs) => pairs
            .iter()
            .all(|(key, it)| count(key, left) && count(it, left)),
        Val::Variant(_, Some(it))
        | Val::Option(Some(it))
        | Val::Result(Ok(Some(it)) | Err(Some(it))) => count(it, left),
        Val::String(text) => {
            // Text is cheap to move; it is charged by the kilobyte.
            let Some(rest) = left.checked_sub(text.len() / 1024) else {
                return false;
            };
            *left = rest;
            true
        }
        _ => true,
    }
}

fn is_plain(ty: &Type) -> bool {
    match ty {
        Type::Own(_) | Type::Borrow(_) | Type::Future(_) | Type::Stream(_) | Type::ErrorContext => {
            false
        }
        Type::List(list) => is_plain(&list.ty()),
        Type::Record(record) => record.fields().all(|field| is_plain(&field.ty)),
        Type::Tuple(tuple) => tuple.types().all(|ty| is_plain(&ty)),
        Type::Variant(variant) => variant
            .cases()
            .all(|case| case.ty.is_none_or(|ty| is_plain(&ty))),
        Type::Option(option) => is_plain(&option.ty()),
        Type::Result(result) => {
            result.ok().is_none_or(|ty| is_plain(&ty))
                && result.err().is_none_or(|ty| is_plain(&ty))
        }
        Type::Map(map) => is_plain(&map.key()) && is_plain(&map.value()),
        Type::FixedLengthList(list) => is_plain(&list.ty()),
        _ => true,
    }
}

fn has_text_error(ty: &Type) -> bool {
    matches!(ty, Type::Result(result) if matches!(result.err(), Some(Type::String)))
}
