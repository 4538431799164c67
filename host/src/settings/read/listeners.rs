//! `[[listener]]`, `[tls]` and `trusted_hosts`: who is served where, and how callers are known.

use std::net::SocketAddr;

use super::super::config::{Config, Listener, ListenerLimits, Tls, TrustedHosts};
use super::super::reader::{Data, Given, Item, Table};
use super::Reader;
use super::words::{address, audience, host_name, http_url};
use crate::sandbox::bindings::types::Audience;

/// What an operator writes to serve Foreman without TLS beyond loopback.
const CONSENT: &str = "i-accept-unencrypted-control";

/// An address that one of the others has already, and its name.
fn shared<'l>(others: &'l [Listener], addresses: &[SocketAddr]) -> Option<(SocketAddr, &'l str)> {
    addresses.iter().find_map(|address| {
        let taken = |other: &&Listener| other.addresses.iter().any(|it| meet(*it, *address));
        let other = others.iter().find(taken)?;
        Some((*address, other.name.as_str()))
    })
}

/// Whether only one of two can be listened at. Port 0 is any free one; `[::]` is of IPv6 only.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || everywhere && one.is_ipv4() == other.is_ipv4())
}

impl Reader<'_> {
    pub(super) fn listeners(&self, root: &Table<'_>) -> Vec<Listener> {
        let Given::Is(items) = self.reading.list(root, "listener") else {
            return Vec::new();
        };
        let mut listeners: Vec<Listener> = Vec::new();
        // Listeners of different profiles may be for different machines.
        let profiles = root.keys().any(|(name, _)| name == "profiles");
        for item in items {
            let Item {
                span,
                data: Data::Table(table),
                ..
            } = item
            else {
                self.reading.problem(
                    &item.span,
                    "`listener` must be written as `[[listener]]`",
                    None,
                );
                continue;
            };
            let listener = self.listener(&table, listeners.len());
            if listeners.iter().any(|it| it.name == listener.name) {
                self.reading.problem(
                    &span,
                    format!("two listeners are called `{}`", listener.name),
                    Some("give each a `name` of its own".into()),
                );
            }
            if !profiles && let Some((address, other)) = shared(&listeners, &listener.addresses) {
                self.reading.problem(
                    &span,
                    format!("`listener.listen`: {address} is where the listener `{other}` listens"),
                    Some("give each an address or port of its own, or make them one listener with all audiences".into()),
                );
            }
            listeners.push(listener);
        }
        listeners
    }

    /// Metrics and health stand at an address of their own.
    pub(super) fn admin_beside(&self, root: &Table<'_>, config: &Config) {
        let mut sections = root.keys().filter(|(name, _)| *name == "admin");
        let span = sections.next().map_or(0..0, |(_, span)| span);
        if config.profiles.is_empty()
            && let Some(admin) = config.admin
            && let Some((address, other)) = shared(&config.listeners, &[admin])
        {
            self.reading.problem(
                &span,
                format!("`admin.listen`: {address} is where the listener `{other}` listens"),
                Some("give it an address or port of its own, or write `listen = \"none\"`".into()),
            );
        }
    }

    fn listener(&self, table: &Table<'_>, position: usize) -> Listener {
        let r = self.reading;
        for key in ["listen", "audiences"] {
            if !table.keys().any(|(name, _)| name == key) {
                r.problem(&table.span, format!("`listener.{key}` is missing"), None);
            }
        }
        let audiences = r.texts(table, "audiences", audience).or(Vec::new());
        let addresses = r.texts(table, "listen", address).or(Vec::new());
        let tls = r.flag(table, "tls").or(false);
        let consent = r
            .parsed(table, "plain_http_for_foreman", |text| {
                if text == CONSENT {
                    Ok(true)
                } else {
                    Err((format!("only \"{CONSENT}\" is accepted here"), None))
                }
            })
            .or(false);
        if !tls
            && !consent
            && audiences.contains(&Audience::Foreman)
            && addresses.iter().any(|it| !it.ip().is_loopback())
        {
            r.problem(
                &table.span,
                "this listener would serve Foreman's control calls over plain HTTP beyond this machine",
                Some(format!("set `tls = true`, or write `plain_http_for_foreman = \"{CONSENT}\"`")),
            );
        }
        let limits = r
            .table(table, "limits")
            .map(|limits| self.listener_limits(&limits))
            .or(ListenerLimits::default());
        let listener = Listener {
            name: r
                .text(table, "name")
                .map(|(text, _)| text)
                .or(format!("listener-{}", position + 1)),
            public_url: r
                .parsed(table, "public_url", http_url)
                .ok()
                .map(|url| url.as_str().trim_end_matches('/').to_owned()),
            plain_http_for_foreman: consent,
            addresses,
            audiences,
            tls,
            limits,
        };
        r.finish(table);
        listener
    }

    fn listener_limits(&self, table: &Table<'_>) -> ListenerLimits {
        let r = self.reading;
        let count = |key| {
            r.count(table, key, 1..=1_000_000_i64)
                .ok()
                .and_then(|it| usize::try_from(it).ok())
        };
        let size = |key| {
            r.size(table, key)
                .ok()
                .and_then(|it| usize::try_from(it).ok())
        };
        let time = |key| r.time(table, key).ok();
        let limits = ListenerLimits {
            connections: count("connections"),
            connections_per_address: count("connections_per_address"),
            requests_per_address: count("requests_per_address"),
            request_burst: count("request_burst"),
            handshake: time("handshake"),
            head_time: time("head_time"),
            idle: time("idle"),
            body_idle: time("body_idle"),
            body_time: time("body_time"),
            passed_body_time: time("passed_body_time"),
            send_stall: time("send_stall"),
            connection_age: time("connection_age"),
            request_line: size("request_line"),
            head: size("head"),
            header_lines: count("header_lines"),
            held_bodies: size("held_bodies"),
        };
        r.finish(table);
        limits
    }

    pub(super) fn trusted_hosts(&self, root: &Table<'_>) -> Option<TrustedHosts> {
        let r = self.reading;
        match r.item(root, "trusted_hosts") {
            Given::Is(Item {
                data: Data::Text(text),
                ..
            }) if text == "any-certificate" => Some(TrustedHosts::AnyCertificate),
            Given::Is(Item {
                data: Data::List(_),
                ..
            }) => {
                let names = r.texts(root, "trusted_hosts", host_name).or(Vec::new());
                Some(TrustedHosts::Names(names))
            }
            Given::Is(item) => {
                r.problem(
                    &item.span,
                    "`trusted_hosts` must be a list of names, or \"any-certificate\"",
                    None,
                );
                None
            }
            _ => None,
        }
    }

    pub(super) fn tls(&self, table: &Table<'_>) -> Tls {
        let tls = Tls {
            certificate: self.required(table, "certificate"),
            private_key: self.required(table, "private_key"),
            client_ca: self.file(table, "client_ca"),
            only_tls13: self
                .reading
                .word(table, "oldest", &[("1.2", false), ("1.3", true)])
                .or(false),
        };
        self.reading.finish(table);
        tls
    }
}
