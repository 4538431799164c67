//! One promise a key: changing the key changes what the policy grants. And the words of mistakes.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::super::deny::Deny;
use super::super::effective::*;
use super::super::explain::{explain, reach};
use super::super::guard::{Guard, HostRules};
use super::super::{Action, Limits};
use super::{Policy, Resolution};
use crate::sandbox::bindings::imports::settings::Value;
use crate::sandbox::bindings::types::{Lifetime, Manifest, Need, Setting, SettingKind};

fn need(capability: &str, slot: &str, access: &str) -> Need {
    Need {
        capability: capability.to_owned(),
        slot: slot.to_owned(),
        access: access.to_owned(),
        reason: "tests it".to_owned(),
        required: true,
    }
}

fn setting(name: &str) -> Setting {
    Setting {
        name: name.to_owned(),
        kind: SettingKind::Text,
        default: None,
        required: false,
        exposed: false,
        choices: Vec::new(),
        help: String::new(),
    }
}

fn manifest(needs: Vec<Need>) -> Manifest {
    Manifest {
        name: "p".to_owned(),
        version: "1.0.0".to_owned(),
        summary: String::new(),
        mounts: Vec::new(),
        routes: Vec::new(),
        needs,
        settings: ["place", "servers", "check", "seconds", "empty"]
            .map(setting)
            .to_vec(),
        lifetime: Lifetime::Automatic,
    }
}

fn values() -> HashMap<String, Value> {
    HashMap::from([
        ("place".to_owned(), Value::Text("/srv/place".to_owned())),
        (
            "servers".to_owned(),
            Value::Texts(vec![
                "192.0.2.1".to_owned(),
                "ns.example.com:5353".to_owned(),
            ]),
        ),
        ("check".to_owned(), Value::Boolean(false)),
        ("seconds".to_owned(), Value::Integer(7)),
        ("empty".to_owned(), Value::Text(String::new())),
    ])
}

fn policy(text: &str) -> Policy {
    Policy::parse(Path::new("p.toml"), &format!("plugin = \"p\"\n{text}")).unwrap()
}

pub(super) fn resolve_with(text: &str, needs: &[(&str, &str, &str)], deny: &Deny) -> Resolution {
    let needs = needs
        .iter()
        .map(|(capability, slot, access)| need(capability, slot, access))
        .collect();
    policy(text).resolve(&manifest(needs), &values(), &Limits::default(), deny)
}

fn resolve(text: &str, needs: &[(&str, &str, &str)]) -> Resolution {
    resolve_with(text, needs, &Deny::default())
}

/// The rights a policy gives to a plugin with one need.
fn given(text: &str, need: (&str, &str, &str)) -> Effective {
    let resolution = resolve(text, &[need]);
    assert_eq!(resolution.problems, [], "{text}");
    assert_eq!(resolution.missing, [], "{text}");
    resolution.effective
}

fn mistakes(text: &str) -> String {
    Policy::parse(Path::new("p.toml"), text)
        .map_or_else(|problems| problems.to_string(), |_| "none".to_owned())
}

const FILES: (&str, &str, &str) = ("files", "root", "read-write");

#[test]
fn files_directory_file_access_and_quota_count() {
    let root = |keys: &str| {
        given(
            &format!("[files.root]\naccess = \"read-write\"\n{keys}"),
            FILES,
        )
        .files["root"]
            .share()
    };
    assert_eq!(
        root("directory = \"/srv/tftp/\"").target,
        FilesTarget::Directory("/srv/tftp".into())
    );
    assert_eq!(
        root("directory = { setting = \"place\" }").target,
        FilesTarget::Directory("/srv/place".into())
    );
    assert_eq!(
        root("file = \"/etc/x.conf\"").target,
        FilesTarget::File("/etc/x.conf".into())
    );
    let default = root("directory = \"/srv\"");
    assert_eq!(
        (default.access, default.quota),
        (Access::ReadWrite, FilesQuota::default())
    );
    let quota = root("directory = \"/srv\"\nquota = { bytes = \"1GiB\", files = 5 }").quota;
    assert_eq!(
        quota,
        FilesQuota {
            bytes: 1 << 30,
            files: 5
        }
    );
    let read = given(
        "[files.root]\ndirectory = \"/srv\"",
        ("files", "root", "read"),
    );
    assert_eq!(read.files["root"].access, Access::Read);
}

#[test]
fn sockets_allow_open_and_inside_count() {
    let need = ("sockets", "server", "");
    let server =
        |keys: &str| given(&format!("[sockets.server]\n{keys}"), need).sockets["server"].share();
    let rules = |keys: &str| {
        server(keys)
            .allow
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        rules("allow = [\"tcp 192.0.2.1:53\"]"),
        ["tcp 192.0.2.1:53"]
    );
    let from = "allow = [{ setting = \"servers\", protocol = \"udp\", port = 53 }, \"tcp *:80\"]";
    assert_eq!(
        rules(from),
        ["udp 192.0.2.1:53", "udp ns.example.com:5353", "tcp *:80"]
    );
    assert_eq!(server("allow = [\"tcp *:1\"]").open, 16);
    assert_eq!(server("allow = [\"tcp *:1\"]\nopen = 3").open, 3);
    assert_eq!(server("allow = [\"tcp *:1\"]").inside, Inside::default());
    assert!(
        server("allow = [\"tcp *:1\"]\nprivate-addresses = true")
            .inside
            .private
    );
    assert!(
        server("allow = [\"tcp *:1\"]\nloopback = true")
            .inside
            .loopback
    );
    let narrowed = given(
        "[sockets.server]\nallow = [\"tcp *:1\", \"udp *:1\"]",
        ("sockets", "server", "udp"),
    );
    assert_eq!(
        narrowed.sockets["server"].allow.len(),
        1,
        "the need asks for udp only"
    );
}

#[test]
fn names_allow_counts() {
    let effective = given(
        "[names.zones]\nallow = [\"ns.example.com\", \"*.example.org\"]",
        ("names", "zones", ""),
    );
    assert_eq!(
        effective.names["zones"].to_string(),
        "resolve ns.example.com, *.example.org"
    );
}

#[test]
fn every_http_key_counts() {
    let text = |keys: &str| {
        format!(
            "[secrets.key]\nfile = \"/etc/k\"\n[http.api]\nurl = \"https://pdns:8081/api\"\n{keys}"
        )
    };
    let api = |keys: &str| given(&text(keys), ("http", "api", "")).http["api"].share();
    let default = api("");
    assert_eq!(default.url.to_string(), "https://pdns:8081/api");
    assert_eq!(default.methods, ["GET"]);
    assert_eq!(default.paths[0].to_string(), "/**");
    assert_eq!(default.tls, TlsGrant::default());
    assert_eq!(api("methods = [\"PATCH\"]").methods, ["PATCH"]);
    assert_eq!(
        api("paths = [\"/servers/**\"]").paths[0].to_string(),
        "/servers/**"
    );
    assert_eq!(
        api("ca = \"/etc/ca.pem\"").tls.ca.as_deref(),
        Some(Path::new("/etc/ca.pem"))
    );
    let identity = api("certificate = \"/c\"\nkey = \"/k\"")
        .tls
        .identity
        .clone();
    assert_eq!(identity, Some(("/c".into(), "/k".into())));
    let inject = api("inject = { authorization = \"Bearer secret:key\" }")
        .inject
        .clone();
    assert_eq!(
        (inject[0].header.as_str(), inject[0].prefix.as_str()),
        ("authorization", "Bearer ")
    );
    assert_eq!(inject[0].secret.source, SecretSource::File("/etc/k".into()));
    assert_eq!(api("timeout = \"5s\"").timeout, Duration::from_secs(5));
    assert_eq!(
        api("connect-timeout = { setting = \"seconds\" }").connect_timeout,
        Duration::from_secs(7)
    );
    assert_eq!(api("response = \"1KiB\"").response, 1024);
    assert_eq!(api("connections = 2").connections, 2);
    assert!(
        api("private-addresses = true").inside.private && api("loopback = true").inside.loopback
    );
}

#[test]
fn a_secret_that_fills_headers_is_not_the_plugins() {
    let text = "[secrets.key]\nfile = \"/etc/k\"\naccess = \"reveal\"\n[http.api]\nurl = \"https://h\"\ninject = { x-key = \"secret:key\" }";
    let resolution = resolve(text, &[("http", "api", "")]);
    assert!(resolution.effective.secrets.is_empty());
    assert_eq!(resolution.warnings, []);
}

#[test]
fn foreman_keys_count() {
    let f = |keys: &str| {
        given(
            &format!("[foreman.f]\nallow = [\"GET /register\"]\n{keys}"),
            ("foreman", "f", ""),
        )
        .foreman["f"]
            .share()
    };
    assert_eq!(f("").allow[0].to_string(), "GET /register");
    assert_eq!(
        (f("").timeout, f("timeout = \"180s\"").timeout),
        (Duration::from_secs(60), Duration::from_secs(180))
    );
    assert_eq!(f("response = \"1KiB\"").response, 1024);
    assert_eq!(f("connections = 2").connections, 2);
}

#[test]
fn store_keys_count() {
    let s = |keys: &str| {
        given(
            &format!("[store.s]\naccess = \"read-write\"\n{keys}"),
            ("store", "s", "read-write"),
        )
        .store["s"]
            .share()
    };
    assert_eq!(s("").space, Space::Own);
    assert_eq!(
        s("space = \"shared:leases\"").space,
        Space::Shared("leases".to_owned())
    );
    assert_eq!(s("bytes = \"1KiB\"").bytes, 1024);
    assert_eq!(s("keys = 5").keys, 5);
}

#[test]
fn secret_keys_count() {
    let s = |keys: &str| {
        given(&format!("[secrets.s]\n{keys}"), ("secrets", "s", "use")).secrets["s"].share()
    };
    assert_eq!(
        s("file = \"/etc/k\"").source,
        SecretSource::File("/etc/k".into())
    );
    assert_eq!(
        s("credential = \"tsig\"").source,
        SecretSource::Credential("tsig".to_owned())
    );
    assert_eq!(
        s("value = { setting = \"place\" }").source,
        SecretSource::Value("/srv/place".to_owned())
    );
    assert_eq!(s("file = \"/k\"").format, SecretFormat::Raw);
    assert_eq!(
        s("file = \"/k\"\nformat = \"bind-key\"").format,
        SecretFormat::BindKey
    );
    assert_eq!(
        s("file = \"/k\"\nformat = \"basic-auth\"").format,
        SecretFormat::BasicAuth
    );
    assert_eq!(
        s("file = \"/k\"\nformat = \"base64\"").format,
        SecretFormat::Base64
    );
    assert_eq!(
        s("file = \"/k\"\nalgorithm = \"hmac-sha256\"")
            .algorithm
            .as_deref(),
        Some("hmac-sha256")
    );
    assert_eq!(
        s("file = \"/k\"\nname = \"k\"").key_name.as_deref(),
        Some("k")
    );
    assert_eq!(
        s("file = \"/k\"\naccess = \"reveal\"").access,
        SecretAccess::Use,
        "the plugin asks for use only"
    );
    let seen = given(
        "[secrets.s]\nfile = \"/k\"\naccess = \"reveal\"",
        ("secrets", "s", "reveal"),
    );
    assert_eq!(seen.secrets["s"].access, SecretAccess::Reveal);
    assert!(
        !format!("{:?}", s("value = { setting = \"place\" }")).contains("/srv/place"),
        "secrets are not shown"
    );
}

#[test]
fn a_call_is_known_by_its_interface() {
    let effective = given(
        "[call.provider]\nplugin = { setting = \"name\" }"
            .replace("{ setting = \"name\" }", "\"dns-x\"")
            .as_str(),
        ("call", "provider", "dns-provider"),
    );
    assert_eq!(effective.call["dns-provider"].plugin, "dns-x");
}

#[test]
fn every_downloads_key_counts() {
    let text = |keys: &str| {
        format!(
            "[files.root]\ndirectory = \"/srv\"\naccess = \"read-write\"\n[downloads.d]\nurls = [\"http://*\"]\ninto = \"root\"\n{keys}"
        )
    };
    let d = |keys: &str| {
        let resolution = resolve(&text(keys), &[FILES, ("downloads", "d", "")]);
        assert!(resolution.is_complete(), "{:?}", resolution.problems);
        resolution.effective.downloads["d"].share()
    };
    let default = d("");
    assert_eq!(
        (
            default.urls[0].to_string().as_str(),
            default.into.as_str(),
            default.verify
        ),
        ("http://*", "root", true)
    );
    assert_eq!(d("size = \"1KiB\"").size, 1024);
    assert_eq!(d("time = \"5s\"").time, Duration::from_secs(5));
    assert_eq!(d("concurrent = 1").concurrent, 1);
    assert_eq!(d("queue = 0").queue, 0);
    assert!(!d("verify = { setting = \"check\" }").verify);
    assert_eq!(d("ca = \"/ca\"").ca.as_deref(), Some(Path::new("/ca")));
    assert_eq!(
        d("connect-timeout = { setting = \"seconds\" }").connect_timeout,
        Duration::from_secs(7)
    );
    assert!(d("private-addresses = true").inside.private && d("loopback = true").inside.loopback);
}

#[test]
fn downloads_go_only_where_the_plugin_may_write() {
    let text = "[downloads.d]\nurls = [\"http://*\"]\ninto = \"root\"\n[files.root]\ndirectory = \"/srv\"\naccess = \"read-write\"";
    let resolution = resolve(text, &[("files", "root", "read"), ("downloads", "d", "")]);
    assert!(resolution.effective.downloads.is_empty());
    assert_eq!(
        resolution.missing[0].problem,
        "files slot `root`, which they go into, is not granted for writing"
    );
}

#[test]
fn listen_watch_probe_and_link_keys_count() {
    let l = |keys: &str| {
        given(
            &format!("[listen.l]\nsockets = [\"udp 0.0.0.0:67\"]\n{keys}"),
            ("listen", "l", ""),
        )
        .listen["l"]
            .share()
    };
    assert_eq!(l("").sockets[0].to_string(), "udp 0.0.0.0:67");
    assert_eq!(l("interface = \"eth0\"").interface.as_deref(), Some("eth0"));
    assert_eq!(
        l("peers = [\"udp 10.0.0.0/8:68\"]").peers[0].to_string(),
        "udp 10.0.0.0/8:68"
    );
    assert!(!l("").broadcast && l("broadcast = true").broadcast);
    let watch = given(
        "[watch.w]\nfile = \"/var/lib/dhcpd.leases\"",
        ("watch", "w", ""),
    );
    assert_eq!(
        (&watch.watch["w"].place, watch.watch["w"].hide),
        (
            &WatchPlace::Files(vec!["/var/lib/dhcpd.leases".into()]),
            Hide::Nothing
        )
    );
    let w =
        |keys: &str| given(&format!("[watch.w]\n{keys}"), ("watch", "w", "")).watch["w"].share();
    assert_eq!(
        w("directory = \"/etc/dhcp\"").place,
        WatchPlace::Directory("/etc/dhcp".into())
    );
    assert_eq!(
        w("files = [\"/etc/a\", \"/etc/b\"]\nhide = \"isc-key-secrets\"").to_string(),
        "read and follow /etc/a, /etc/b, without the secrets of keys"
    );
    assert_eq!(
        w("files = { setting = \"place\" }").place,
        WatchPlace::Files(vec!["/srv/place".into()])
    );
    let limits = |keys: &str| l(keys).limits;
    assert_eq!(limits(""), ListenLimits::default());
    assert_eq!(
        limits("connections = 3\nconnections-per-address = 2\nidle = \"7s\"\ntransfers = 5"),
        ListenLimits {
            connections: 3,
            connections_per_address: 2,
            idle: Duration::from_secs(7),
            transfers: 5
        }
    );
    let probe = given(
        "[probe.p]\nallow = [\"10.0.0.0/8\"]\nrate = 3",
        ("probe", "p", ""),
    );
    assert_eq!(
        (probe.probe["p"].to_string(), probe.probe["p"].rate),
        ("10.0.0.0/8, 3 a second".to_owned(), 3)
    );
    let link = |keys: &str| {
        given(
            &format!("[link.l]\ninterfaces = [\"eth0\"]{keys}"),
            ("link", "l", ""),
        )
    };
    assert_eq!(link("").link["l"].interfaces, ["eth0"]);
    assert_eq!(link("").link["l"].port, 67);
    assert_eq!(link("\nport = 6767").link["l"].port, 6767);
}

#[test]
fn every_limit_counts() {
    let default = Limits::default();
    for (line, change) in [
        (
            "memory = \"1MiB\"",
            Limits {
                memory: 1 << 20,
                ..default.clone()
            },
        ),
        (
            "memory = \"1GiB\"",
            Limits {
                memory: 1 << 30,
                memory_total: 1 << 30,
                ..default.clone()
            },
        ),
        (
            "memory-total = \"100MiB\"",
            Limits {
                memory_total: 100 << 20,
                ..default.clone()
            },
        ),
        (
            "cpu = \"200ms\"",
            Limits {
                cpu: Duration::from_millis(200),
                ..default.clone()
            },
        ),
        (
            "time = \"9s\"",
            Limits {
                time: Duration::from_secs(9),
                ..default.clone()
            },
        ),
        (
            "concurrency = 2",
            Limits {
                concurrency: 2,
                ..default.clone()
            },
        ),
        (
            "queue = 0",
            Limits {
                queue: 0,
                ..default.clone()
            },
        ),
        (
            "queue-time = \"1s\"",
            Limits {
                queue_time: Duration::from_secs(1),
                ..default.clone()
            },
        ),
        (
            "warm = 0",
            Limits {
                warm: 0,
                ..default.clone()
            },
        ),
        (
            "reuse = 1",
            Limits {
                reuse: 1,
                ..default.clone()
            },
        ),
        (
            "handles = 9",
            Limits {
                handles: 9,
                ..default.clone()
            },
        ),
        (
            "transfer = \"1MiB\"",
            Limits {
                transfer: 1 << 20,
                ..default.clone()
            },
        ),
        (
            "random = \"1KiB\"",
            Limits {
                random: 1024,
                ..default.clone()
            },
        ),
        (
            "file-calls = 1",
            Limits {
                file_calls: 1,
                ..default.clone()
            },
        ),
        (
            "log-lines = 1",
            Limits {
                log_lines: 1,
                ..default.clone()
            },
        ),
        (
            "request-body = \"2MiB\"",
            Limits {
                request_body: 2 << 20,
                ..default.clone()
            },
        ),
        (
            "forward-body = \"2MiB\"",
            Limits {
                forward_body: 2 << 20,
                ..default.clone()
            },
        ),
        (
            "reply-body = \"2MiB\"",
            Limits {
                reply_body: 2 << 20,
                ..default.clone()
            },
        ),
    ] {
        assert_ne!(change, default, "{line}");
        assert_eq!(
            resolve(&format!("[limits]\n{line}"), &[]).effective.limits,
            change,
            "{line}"
        );
    }
}

#[test]
fn a_need_without_a_grant_waits_and_says_which_lines_are_missing() {
    let resolution = resolve("", &[FILES, ("sockets", "server", "udp")]);
    assert!(!resolution.is_complete());
    let missing = &resolution.missing[0];
    assert_eq!(
        missing.to_string(),
        "it needs files `root` (tests it), but the policy grants nothing for it"
    );
    assert_eq!(
        missing.lines,
        [
            "files.root.directory = \"/path/to/directory\"",
            "files.root.access = \"read-write\""
        ]
    );
    assert_eq!(
        resolution.missing[1].lines,
        ["sockets.server.allow = [\"udp HOST:PORT\"]"]
    );
}

#[test]
fn a_grant_without_a_need_gives_nothing_and_is_named() {
    let resolution = resolve("[files.rot]\ndirectory = \"/srv\"", &[FILES]);
    assert!(resolution.effective.files.is_empty());
    assert_eq!(
        resolution.warnings[0].to_string(),
        "p.toml:2:1: `files.rot` grants what the plugin does not ask for; it gives nothing; did you mean `root`?"
    );
}

#[test]
fn a_grant_that_gives_less_is_given_and_named() {
    let resolution = resolve("[files.root]\ndirectory = \"/srv\"", &[FILES]);
    assert_eq!(resolution.effective.files["root"].access, Access::Read);
    assert_eq!(
        resolution.missing[0].lines,
        ["files.root.access = \"read-write\""]
    );
    let more = resolve(
        "[files.root]\ndirectory = \"/srv\"\naccess = \"read-write\"",
        &[("files", "root", "read")],
    );
    assert_eq!(
        more.effective.files["root"].access,
        Access::Read,
        "the plugin asks for reading only"
    );
    assert!(more.is_complete());
}

#[test]
fn a_setting_without_value_grants_nothing() {
    let resolution = resolve(
        "[files.root]\ndirectory = { setting = \"empty\" }\naccess = \"read-write\"",
        &[FILES],
    );
    assert!(resolution.effective.files.is_empty());
    assert_eq!(
        resolution.missing[0].problem,
        "the setting `empty` that names the place has no value"
    );
    let resolution = resolve(
        "[files.root]\ndirectory = { setting = \"plase\" }",
        &[FILES],
    );
    assert_eq!(
        resolution.problems[0].to_string(),
        "p.toml:3:25: the plugin has no setting `plase`; did you mean `place`?"
    );
    assert!(resolution.effective.files.is_empty());
}

#[test]
fn what_belongs_to_the_host_cannot_be_granted() {
    let deny = Deny {
        paths: vec!["/srv/place/state".into()],
        ..Deny::default()
    };
    for place in [
        "\"/srv/place/state\"",
        "\"/srv/place/state/tls\"",
        "\"/srv\"",
        "{ setting = \"place\" }",
    ] {
        let resolution = resolve_with(
            &format!("[files.root]\ndirectory = {place}"),
            &[("files", "root", "read")],
            &deny,
        );
        assert!(
            !resolution.is_complete() && resolution.effective.files.is_empty(),
            "{place}"
        );
    }
}

#[test]
fn slots_that_overlap_are_refused() {
    let text = "[files.root]\ndirectory = \"/srv\"\naccess = \"read-write\"\n[files.inner]\ndirectory = \"/srv/ro\"";
    let resolution = resolve(text, &[FILES, ("files", "inner", "read")]);
    assert_eq!(
        resolution.problems[0].message,
        "`files.inner` is read-only, but lies in `files.root`, where the plugin may write"
    );
    let text = "[files.root]\ndirectory = \"/etc/b\"\n[secrets.s]\nfile = \"/etc/b/key\"";
    let resolution = resolve(text, &[("files", "root", "read"), ("secrets", "s", "use")]);
    assert_eq!(
        resolution.problems[0].message,
        "the file of `secrets.s` lies in `files.root`, where the plugin could read it"
    );
}

#[test]
fn a_policy_is_for_its_own_plugin() {
    let policy = Policy::parse(
        Path::new("p.toml"),
        "plugin = \"other\"\n[files.root]\ndirectory = \"/srv\"",
    )
    .unwrap();
    let resolution = policy.resolve(
        &manifest(vec![need("files", "root", "read")]),
        &values(),
        &Limits::default(),
        &Deny::default(),
    );
    assert_eq!(
        resolution.problems[0].message,
        "this policy is for the plugin `other`, not for `p`"
    );
    assert!(resolution.effective.files.is_empty());
}

#[test]
fn a_line_from_a_denial_allows_the_action() {
    let needs = [
        ("sockets", "server", ""),
        ("names", "zones", ""),
        ("foreman", "f", ""),
    ];
    let mut policy = policy(
        "[sockets.server]\nallow = [\"tcp 192.0.2.1:53\"]\n[names.zones]\nallow = [\"a.example\"]\n[foreman.f]\nallow = [\"GET /a\"]",
    );
    let manifest = manifest(
        needs
            .iter()
            .map(|(capability, slot, access)| need(capability, slot, access))
            .collect(),
    );
    let rights = |policy: &Policy| {
        policy
            .resolve(&manifest, &values(), &Limits::default(), &Deny::default())
            .effective
    };
    let guard = Guard::new(&HostRules::new(Deny::default()), rights(&policy));
    for action in [
        Action::TcpConnect {
            addr: "192.0.2.2:53".parse().unwrap(),
            name: None,
        },
        Action::UdpSend {
            addr: "[2001:db8::1]:53".parse().unwrap(),
        },
        Action::TcpConnect {
            addr: "127.0.0.1:7911".parse().unwrap(),
            name: None,
        },
        Action::Resolve { name: "b.example" },
        Action::Foreman {
            slot: "f",
            method: "POST",
            path: "/b/c?d=e",
        },
    ] {
        let denial = guard.decide(&action).check().unwrap_err();
        policy = policy.with_line(denial.fix.as_deref().unwrap()).unwrap();
        guard.replace(rights(&policy));
        assert!(guard.decide(&action).is_allowed(), "{action}");
    }
    assert!(policy.with_line("files.root.acess = 1").is_err());
}

#[test]
fn rights_are_explained() {
    let text = "[files.root]\ndirectory = \"/srv\"\naccess = \"read-write\"\nquota = { bytes = \"1GiB\", files = 5 }";
    let manifest = manifest(vec![
        need("files", "root", "read-write"),
        need("names", "zones", ""),
    ]);
    let resolution =
        policy(text).resolve(&manifest, &values(), &Limits::default(), &Deny::default());
    assert_eq!(
        reach(&resolution.effective),
        ["files root: read-write below /srv, at most 1GiB in 5 files"]
    );
    let guard = Guard::new(&HostRules::new(Deny::default()), resolution.effective);
    let _ = guard.decide(&Action::FileOpen {
        slot: "root",
        path: "x",
        write: true,
    });
    let _ = guard.decide(&Action::Resolve { name: "x.example" });
    let rows = explain(&manifest, &guard);
    assert_eq!((rows[0].used, rows[0].denied), (1, 0));
    assert_eq!(
        rows[0].granted.as_deref(),
        Some("read-write below /srv, at most 1GiB in 5 files")
    );
    assert_eq!(
        (rows[1].granted.as_deref(), rows[1].used, rows[1].denied),
        (None, 0, 1)
    );
}

#[test]
fn mistakes_are_told_all_at_once_with_their_places() {
    let told = mistakes(
        r#"plugin = "p"
aproved = []
[files.root]
directry = "/srv"
access = "write"
[files.Upper]
directory = "relative"
quota = { bytes = "1GiB" }
[sockets.s]
allow = ["tcp 10.0.0.1/8:53", "53", 5]
open = 0
[names.n]
allow = []
[http.api]
url = "https://user@h"
methods = ["get"]
paths = ["/a/../b"]
certificate = "/c"
inject = { host = "secret:x", "x-key" = "plain" }
[foreman.f]
allow = ["GET register"]
timeout = "60"
[downloads.d]
urls = ["ftp://h"]
[secrets.s]
value = "hunter2"
[listen.l]
sockets = ["udp 67"]
[telnet.x]
a = 1
[limits]
memory = 64
concurrency = 0
cpus = "1s"
"#,
    );
    let want = r#"p.toml:2:1: unknown key `aproved`; did you mean `approved`?
p.toml:3:1: `files.root` names no place; `directory` or `file`
p.toml:4:1: unknown key `directry` in `files.root`; did you mean `directory`?
p.toml:5:10: `files.root.access`: `write` is none of `read`, `read-write`
p.toml:6:8: `Upper` is no name of a slot: lower-case letters, digits and `-`
p.toml:7:13: `files.Upper.directory`: `relative` is not an absolute path
p.toml:8:9: `files.Upper.quota` holds for read-write only; remove it, or grant `access = "read-write"`
p.toml:10:10: `sockets.s.allow`: `tcp 10.0.0.1/8:53`: `10.0.0.1/8` has bits set behind its prefix; write `10.0.0.0/8`
p.toml:10:31: `sockets.s.allow`: `53`: lacks the protocol; for example `tcp 192.0.2.1:53` or `udp ns.example.com:53`
p.toml:10:37: `sockets.s.allow` must hold texts, not a whole number
p.toml:11:8: `sockets.s.open` must be from 1 to 10000
p.toml:12:1: `names.n.allow` is empty; remove the whole table to grant nothing
p.toml:14:1: `http.api` needs `certificate` and `key` together
p.toml:15:7: `http.api.url`: `https://user@h`: carries user information; for example `https://pdns.example.com:8081/api/v1`
p.toml:16:12: `http.api.methods`: `get`: has a method that is not in upper case letters
p.toml:17:10: `http.api.paths`: `/a/../b`: has a `.` or `..` segment
p.toml:19:12: `host` is no header to inject: lower case, and not one the host sets
p.toml:19:19: there is no usable `[secrets.x]` in this policy
p.toml:19:41: `http.api.inject.x-key` names no secret; for example `secret:api-key` or `Bearer secret:token`
p.toml:21:10: `foreman.f.allow`: `GET register`: does not begin with `/`
p.toml:22:11: `foreman.f.timeout` must be a time such as "30s"
p.toml:23:1: `downloads.d.into` is missing
p.toml:24:9: `downloads.d.urls`: `ftp://h`: begins with neither `http://` nor `https://`; for example `https://mirror.example.com/pub/**` or `http://*`
p.toml:26:9: `secrets.s.value` holds a secret in plain text; use `file` or `credential`
p.toml:28:12: `listen.l.sockets`: `udp 67`: is not an address with a port; for example `udp 0.0.0.0:69` or `tcp [::]:7911`
p.toml:29:2: unknown key `telnet`; there are: approved, call, downloads, files, foreman, http, limits, link, listen, names, plugin, probe, secrets, sockets, store, watch
p.toml:32:10: `limits.memory` must be a size such as "64MiB"
p.toml:33:15: `limits.concurrency` must be from 1 to 1000000
p.toml:34:1: unknown key `cpus` in `limits`; did you mean `cpu`?"#;
    assert_eq!(told, want, "\n{told}");
    assert_eq!(
        mistakes("plugin = \"p\"\nx = ["),
        "p.toml:2:6: not TOML: unclosed array, expected `]`"
    );
    assert_eq!(
        mistakes("plugin = \"p\"\nplugin = \"q\""),
        "p.toml:2:1: not TOML: `plugin` stands here a second time; keep one of them"
    );
    // What a setting will add does not hide what stands beside it.
    let beside = "plugin = \"p\"\n[sockets.s]\nallow = [{ setting = \"server\" }, \"udp\"]";
    assert!(
        mistakes(beside).contains("`udp`: lacks"),
        "{}",
        mistakes(beside)
    );
    assert_eq!(
        mistakes("[limits]"),
        "p.toml:1:1: `plugin` is missing: the plugin this policy is for"
    );
}

/// The keys a section knows, taken from what the reader says about an unknown one.
pub(super) fn known_keys(section: &str) -> Vec<String> {
    let told = mistakes(&format!("plugin = \"p\"\n{section}\nunheard-of-key = 1"));
    let line = told
        .lines()
        .find(|line| line.contains("unheard-of-key"))
        .unwrap_or_else(|| panic!("{told}"));
    let (_, keys) = line
        .split_once("there are: ")
        .unwrap_or_else(|| panic!("{line}"));
    keys.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_is_in_the_reference() {
    let book = include_str!("../../../../docs/src/operators/policy-reference.md");
    let mut sections: Vec<_> = super::super::Capability::GRANTABLE
        .iter()
        .map(|it| it.word())
        .collect();
    sections.push("limits");
    for name in sections {
        let header = if name == "limits" {
            "[limits]".to_owned()
        } else {
            format!("[{name}.slot]")
        };
        let (_, chapter) = book
            .split_once(&format!("\n## {name}\n"))
            .unwrap_or_else(|| panic!("no chapter {name}"));
        let chapter = chapter.split("\n## ").next().unwrap();
        let keys = known_keys(&header);
        assert!(keys.len() > 1, "{name}: {keys:?}");
        for key in keys.iter().filter(|key| *key != "reason") {
            assert!(
                chapter.contains(&format!("`{key}`")),
                "`{key}` of {name} is not in the policy reference"
            );
        }
    }
    for key in known_keys("")
        .iter()
        .filter(|key| super::super::Capability::parse(key).is_none() && *key != "limits")
    {
        assert!(
            book.contains(&format!("`{key}`")),
            "`{key}` is not in the policy reference"
        );
    }
}

#[test]
fn shipped_policies_hold_no_mistake() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let mut found = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let policy = Policy::parse(&path, &std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(
            Some(policy.plugin()),
            path.file_stem().and_then(|name| name.to_str())
        );
        found += 1;
    }
    assert!(found > 0);
}
