//! Values of the plugin's own settings, as the operator gave them or by default. The host has checked them against the manifest.
//!
//! Each function answers `None` for a setting that is unset, not in the manifest, or of another kind.

use crate::host;

pub use crate::bindings::imports::foreman::proxy::settings::Value;

/// A text, URL or path.
#[must_use]
pub fn text(name: &str) -> Option<String> {
    match host::settings::get(name)? {
        Value::Text(text) => Some(text),
        Value::Integer(_) | Value::Boolean(_) | Value::Texts(_) => None,
    }
}

/// A whole number.
#[must_use]
pub fn integer(name: &str) -> Option<i64> {
    match host::settings::get(name)? {
        Value::Integer(number) => Some(number),
        Value::Text(_) | Value::Boolean(_) | Value::Texts(_) => None,
    }
}

/// True or false.
#[must_use]
pub fn boolean(name: &str) -> Option<bool> {
    match host::settings::get(name)? {
        Value::Boolean(value) => Some(value),
        Value::Text(_) | Value::Integer(_) | Value::Texts(_) => None,
    }
}

/// A list of texts.
#[must_use]
pub fn texts(name: &str) -> Option<Vec<String>> {
    match host::settings::get(name)? {
        Value::Texts(texts) => Some(texts),
        Value::Text(_) | Value::Integer(_) | Value::Boolean(_) => None,
    }
}
