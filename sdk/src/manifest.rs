//! What a plugin says of itself: routes, needs and settings.
//!
//! A manifest grants nothing. Needs are requests to the operator, routes are checked by the host before they reach a function.
//!
//! Each route stands on one line with the function that answers it, so the two cannot drift apart: the host answers with the
//! route's index, and that index is the function's place here.

use crate::answer::{Answer, IntoAnswer};
use crate::bindings::imports::foreman::proxy::types::{
    self, Audience, BodyMode, Lifetime, SettingKind,
};
use crate::request::Request;

type Handler = Box<dyn Fn(&Request) -> Answer + Send + Sync>;

/// A plugin's manifest, made line by line.
pub struct Manifest {
    record: types::Manifest,
    handlers: Vec<Handler>,
}

impl Manifest {
    /// A manifest without routes. `name` is `[a-z][a-z0-9-]*` and the feature's key in `/v2/features`; `version` is usually
    /// `env!("CARGO_PKG_VERSION")`; `summary` is one line for the operator.
    #[must_use]
    pub fn new(name: &str, version: &str, summary: &str) -> Self {
        let record = types::Manifest {
            name: name.to_owned(),
            version: version.to_owned(),
            summary: summary.to_owned(),
            mounts: Vec::new(),
            routes: Vec::new(),
            needs: Vec::new(),
            settings: Vec::new(),
            lifetime: Lifetime::Automatic,
        };
        Self {
            record,
            handlers: Vec::new(),
        }
    }

    /// Owns the path prefix `mount`; every route stands below one of the plugin's mounts.
    #[must_use]
    pub fn mount(mut self, mount: &str) -> Self {
        self.record.mounts.push(mount.to_owned());
        self
    }

    /// Answers `route` with `handler`, a function from `&Request` to anything that is an answer ([`IntoAnswer`]).
    #[must_use]
    pub fn route<A: IntoAnswer>(
        mut self,
        route: Route,
        handler: impl Fn(&Request) -> A + Send + Sync + 'static,
    ) -> Self {
        self.record.routes.push(route.record);
        self.handlers.push(Box::new(move |request| {
            handler(request).into_answer(request)
        }));
        self
    }

    /// Says that the plugin needs something.
    #[must_use]
    pub fn need(mut self, need: Need) -> Self {
        self.record.needs.push(need.record);
        self
    }

    /// Adds a setting that operators may give.
    #[must_use]
    pub fn setting(mut self, setting: Setting) -> Self {
        self.record.settings.push(setting.record);
        self
    }

    /// Keeps one instance for all calls, in turn: for a plugin that holds an index in memory. Other plugins are reused or
    /// made fresh as the host sees fit, and keep nothing in memory that matters.
    #[must_use]
    pub fn single_instance(mut self) -> Self {
        self.record.lifetime = Lifetime::Single;
        self
    }

    /// Starts a new instance for every call.
    #[must_use]
    pub fn fresh_instances(mut self) -> Self {
        self.record.lifetime = Lifetime::Fresh;
        self
    }

    /// The plain record, as the host gets it.
    #[must_use]
    pub fn record(&self) -> &types::Manifest {
        &self.record
    }

    /// Runs the function of route `index`; none when there is no such route.
    #[must_use]
    pub fn answer(&self, index: u32, request: &Request) -> Option<Answer> {
        let handler = self.handlers.get(usize::try_from(index).ok()?)?;
        Some(handler(request))
    }
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.record.fmt(formatter)
    }
}

/// One route, made by [`get`], [`post`], [`put`], [`patch`] or [`delete`]. It is Foreman's unless it says otherwise: the
/// strictest audience is the default.
#[derive(Debug, Clone)]
pub struct Route {
    record: types::Route,
}

impl Route {
    fn new(method: &str, pattern: &str, body: BodyMode) -> Self {
        let record = types::Route {
            method: method.to_owned(),
            pattern: pattern.to_owned(),
            audience: Audience::Foreman,
            body,
        };
        Self { record }
    }

    /// Opens the route to client hosts that show a certificate.
    #[must_use]
    pub fn for_hosts(mut self) -> Self {
        self.record.audience = Audience::Host;
        self
    }

    /// Opens the route to everybody who reaches the listener.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.record.audience = Audience::Public;
        self
    }

    /// Leaves the request's body with the host, which streams it into a forward; the function sees none.
    #[must_use]
    pub fn body_passed(mut self) -> Self {
        self.record.body = BodyMode::Passed;
        self
    }

    /// Hands the whole body over. The default of POST, PUT and PATCH.
    #[must_use]
    pub fn body_whole(mut self) -> Self {
        self.record.body = BodyMode::Whole;
        self
    }
}

/// A GET route (and HEAD: the host drops the body). Segments of a pattern are literal, `:name`, or `*name` as the last one.
#[must_use]
pub fn get(pattern: &str) -> Route {
    Route::new("GET", pattern, BodyMode::None)
}

/// A POST route; the function gets the whole body.
#[must_use]
pub fn post(pattern: &str) -> Route {
    Route::new("POST", pattern, BodyMode::Whole)
}

/// A PUT route; the function gets the whole body.
#[must_use]
pub fn put(pattern: &str) -> Route {
    Route::new("PUT", pattern, BodyMode::Whole)
}

/// A PATCH route; the function gets the whole body.
#[must_use]
pub fn patch(pattern: &str) -> Route {
    Route::new("PATCH", pattern, BodyMode::Whole)
}

/// A DELETE route; a body is dropped.
#[must_use]
pub fn delete(pattern: &str) -> Route {
    Route::new("DELETE", pattern, BodyMode::None)
}

/// Whether a plugin reads only, or writes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only.
    Read,
    /// Reads and writes.
    ReadWrite,
}

impl Access {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadWrite => "read-write",
        }
    }
}

/// One thing the plugin needs, with the reason an operator reads when deciding. A slot (`[a-z][a-z0-9-]*`) is the plugin's own
/// name for it; the policy binds the slot to a real directory, address or URL.
#[derive(Debug, Clone)]
pub struct Need {
    record: types::Need,
}

impl Need {
    fn new(capability: &str, slot: &str, access: &str, reason: &str) -> Self {
        let record = types::Need {
            capability: capability.to_owned(),
            slot: slot.to_owned(),
            access: access.to_owned(),
            reason: reason.to_owned(),
            required: true,
        };
        Self { record }
    }

    /// A directory or a single file; see [`crate::files`].
    #[must_use]
    pub fn files(slot: &str, access: Access, reason: &str) -> Self {
        Self::new("files", slot, access.word(), reason)
    }

    /// Files fetched by the host into a `files` slot; see [`crate::downloads`].
    #[must_use]
    pub fn downloads(slot: &str, reason: &str) -> Self {
        Self::new("downloads", slot, "", reason)
    }

    /// Requests to Foreman; see [`crate::foreman`].
    #[must_use]
    pub fn foreman(slot: &str, reason: &str) -> Self {
        Self::new("foreman", slot, "", reason)
    }

    /// Requests to another HTTP server; see [`crate::http`].
    #[must_use]
    pub fn http(slot: &str, reason: &str) -> Self {
        Self::new("http", slot, "", reason)
    }

    /// Durable keys and values; see [`crate::store`].
    #[must_use]
    pub fn store(slot: &str, access: Access, reason: &str) -> Self {
        Self::new("store", slot, access.word(), reason)
    }

    /// A secret that the host signs and verifies with; see [`crate::secrets`].
    #[must_use]
    pub fn secret(slot: &str, reason: &str) -> Self {
        Self::new("secrets", slot, "use", reason)
    }

    /// A secret that the plugin must see itself.
    #[must_use]
    pub fn secret_revealed(slot: &str, reason: &str) -> Self {
        Self::new("secrets", slot, "reveal", reason)
    }

    /// Outgoing TCP connections by `std::net::TcpStream`.
    #[must_use]
    pub fn tcp(slot: &str, reason: &str) -> Self {
        Self::new("sockets", slot, "tcp", reason)
    }

    /// Outgoing UDP datagrams; see [`crate::udp`].
    #[must_use]
    pub fn udp(slot: &str, reason: &str) -> Self {
        Self::new("sockets", slot, "udp", reason)
    }

    /// Datagrams and connections to the same peers, for protocols that use both, such as DNS.
    #[must_use]
    pub fn tcp_and_udp(slot: &str, reason: &str) -> Self {
        Self::new("sockets", slot, "tcp+udp", reason)
    }

    /// Looking names up.
    #[must_use]
    pub fn names(slot: &str, reason: &str) -> Self {
        Self::new("names", slot, "", reason)
    }

    /// A listening socket that the host owns and reads for the plugin; see [`crate::reactor`].
    #[must_use]
    pub fn listen(slot: &str, reason: &str) -> Self {
        Self::new("listen", slot, "", reason)
    }

    /// Calls to the plugin that serves `interface`, by its full name, e.g. [`crate::dns::INTERFACE`].
    #[must_use]
    pub fn call(slot: &str, interface: &str, reason: &str) -> Self {
        Self::new("call", slot, interface, reason)
    }

    /// Reading and following files that it never writes; see [`crate::watch`].
    #[must_use]
    pub fn watch(slot: &str, reason: &str) -> Self {
        Self::new("watch", slot, "", reason)
    }

    /// Asking whether addresses are in use; see [`crate::probe`].
    #[must_use]
    pub fn probe(slot: &str, reason: &str) -> Self {
        Self::new("probe", slot, "", reason)
    }

    /// DHCP on one network interface: receiving, and sending to machines without an address; see [`crate::reactor`].
    #[must_use]
    pub fn link(slot: &str, reason: &str) -> Self {
        Self::new("link", slot, "", reason)
    }

    /// Lets the plugin run without it; what uses it answers "denied" then.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.record.required = false;
        self
    }
}

/// One setting of the plugin, with one line of help for the operator.
#[derive(Debug, Clone)]
pub struct Setting {
    record: types::Setting,
}

impl Setting {
    fn new(kind: SettingKind, name: &str, help: &str) -> Self {
        let record = types::Setting {
            name: name.to_owned(),
            kind,
            default: None,
            required: false,
            exposed: false,
            choices: Vec::new(),
            help: help.to_owned(),
        };
        Self { record }
    }

    /// A text.
    #[must_use]
    pub fn text(name: &str, help: &str) -> Self {
        Self::new(SettingKind::Text, name, help)
    }

    /// A whole number.
    #[must_use]
    pub fn integer(name: &str, help: &str) -> Self {
        Self::new(SettingKind::Integer, name, help)
    }

    /// True or false.
    #[must_use]
    pub fn boolean(name: &str, help: &str) -> Self {
        Self::new(SettingKind::Boolean, name, help)
    }

    /// A URL, checked by the host.
    #[must_use]
    pub fn url(name: &str, help: &str) -> Self {
        Self::new(SettingKind::Url, name, help)
    }

    /// A list of texts.
    #[must_use]
    pub fn texts(name: &str, help: &str) -> Self {
        Self::new(SettingKind::Texts, name, help)
    }

    /// A path on the operator's machine. A policy binds a `files` slot to it; the plugin itself never opens it.
    #[must_use]
    pub fn path(name: &str, help: &str) -> Self {
        Self::new(SettingKind::Path, name, help)
    }

    /// The value when the operator gives none.
    #[must_use]
    pub fn default(mut self, value: impl DefaultValue) -> Self {
        self.record.default = Some(value.toml());
        self
    }

    /// The plugin is failed while the setting has no value.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.record.required = true;
        self
    }

    /// Shows the value to Foreman in `/v2/features`. Never for anything secret.
    #[must_use]
    pub fn exposed(mut self) -> Self {
        self.record.exposed = true;
        self
    }

    /// Allows these values only.
    #[must_use]
    pub fn choices(mut self, choices: &[&str]) -> Self {
        self.record.choices = choices.iter().map(|&choice| choice.to_owned()).collect();
        self
    }
}

/// A value that can be a setting's default.
pub trait DefaultValue {
    /// The value in TOML notation.
    fn toml(&self) -> String;
}

impl DefaultValue for &str {
    fn toml(&self) -> String {
        let mut quoted = String::with_capacity(self.len() + 2);
        quoted.push('"');
        for character in self.chars() {
            match character {
                '"' | '\\' => quoted.extend(['\\', character]),
                control if control.is_control() => {
                    quoted.push_str(&format!("\\u{:04X}", u32::from(control)))
                }
                plain => quoted.push(plain),
            }
        }
        quoted.push('"');
        quoted
    }
}

impl DefaultValue for i64 {
    fn toml(&self) -> String {
        self.to_string()
    }
}

impl DefaultValue for bool {
    fn toml(&self) -> String {
        self.to_string()
    }
}

impl DefaultValue for &[&str] {
    fn toml(&self) -> String {
        let values: Vec<String> = self.iter().map(DefaultValue::toml).collect();
        format!("[{}]", values.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_foremans_unless_it_says_otherwise() {
        assert_eq!(get("/x").record.audience, Audience::Foreman);
        assert_eq!(get("/x").public().record.audience, Audience::Public);
        assert_eq!(get("/x").for_hosts().record.audience, Audience::Host);
    }

    #[test]
    fn defaults_are_written_as_toml() {
        assert_eq!(
            Setting::text("a", "")
                .default("say \"a\\b\"\n")
                .record
                .default
                .as_deref(),
            Some(r#""say \"a\\b\"\u000A""#)
        );
        assert_eq!(
            Setting::integer("a", "")
                .default(10)
                .record
                .default
                .as_deref(),
            Some("10")
        );
        assert_eq!(
            Setting::boolean("a", "")
                .default(true)
                .record
                .default
                .as_deref(),
            Some("true")
        );
        assert_eq!(
            Setting::texts("a", "")
                .default(&["x", "y"][..])
                .record
                .default
                .as_deref(),
            Some(r#"["x", "y"]"#)
        );
    }

    #[test]
    fn a_need_is_required_unless_optional() {
        assert!(Need::names("zones", "").record.required);
        assert!(!Need::names("zones", "").optional().record.required);
    }
}
