//! What is fed, good examples of it, and what must hold for any text.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use bulkhead::grant::matchers::host::{AskedHost, HostPattern};
use bulkhead::grant::matchers::path::{MethodPath, PathPattern, check_path};
use bulkhead::grant::matchers::socket::{ListenSocket, SocketRule, Transport};
use bulkhead::grant::matchers::url::{BaseUrl, TargetUrl, UrlPattern};
use bulkhead::grant::{Action, Deny, Guard, HostRules, Limits, Policy, edit};
use bulkhead::plugin::manifest::check;
use bulkhead::sandbox::bindings::types::{
    Audience, BodyMode, Lifetime, Manifest, Need, Route, Setting, SettingKind,
};

pub(crate) const POLICIES: &[&str] = &[
    include_str!("../../policies/tftp.toml"),
    include_str!("../../policies/httpboot.toml"),
    r#"plugin = "p"
approved = ["sha256:0000000000000000000000000000000000000000000000000000000000000000"]
[files.root]
directory = { setting = "root" } # a comment
access = "read-write"
quota = { bytes = "1GiB", files = 5 }
[sockets.server]
allow = ["tcp 192.0.2.1:53", { setting = "server", protocol = "udp", port = 53 }]
[secrets.key]
file = "/etc/key"
[http.api]
url = "https://pdns:8081/api"
inject = { x-api-key = "secret:key" }
[foreman.f]
allow = ["GET /register", "POST /unattended/**"]
[limits]
memory = "64MiB"
"#,
];

/// A policy is read or refused with places inside the text; what is read can be read again, and grants nothing to a plugin that
/// asks for nothing.
pub(crate) fn policy(text: &str) {
    let path = Path::new("fuzz.toml");
    let lines = u32::try_from(text.split('\n').count()).unwrap();
    match Policy::parse(path, text) {
        Err(problems) => {
            assert!(!problems.0.is_empty());
            assert!(
                problems
                    .0
                    .iter()
                    .all(|problem| (1..=lines).contains(&problem.line) && problem.column >= 1)
            );
        }
        Ok(policy) => {
            let manifest = manifest_of(policy.plugin(), Vec::new());
            let resolution = policy.resolve(
                &manifest,
                &HashMap::new(),
                &Limits::default(),
                &Deny::default(),
            );
            let guard = Guard::new(&HostRules::new(Deny::default()), resolution.effective);
            let metadata: SocketAddr = "169.254.169.254:80".parse().unwrap();
            assert!(
                !guard
                    .decide(&Action::TcpConnect {
                        addr: metadata,
                        name: None
                    })
                    .is_allowed()
            );
            assert!(
                !guard
                    .decide(&Action::FileOpen {
                        slot: "root",
                        path: "x",
                        write: false
                    })
                    .is_allowed()
            );
            assert_eq!(Policy::parse(path, policy.text()).as_ref(), Ok(&policy));
        }
    }
}

pub(crate) const LINES: &[&str] = &[
    r#"files.root.access = "read-write""#,
    r#"sockets.server.allow = ["udp 192.0.2.9:53"]"#,
    r#"names.zones = { allow = ["ns.example.com"] }"#,
    "limits.memory = \"1GiB\"\nlimits.queue = 3",
    r#"files."root".quota.files = 7"#,
];

/// A line is added or refused; what was added is TOML, holds the old policy's plugin, and adding it again changes nothing.
pub(crate) fn line(line: &str) {
    for policy in POLICIES {
        if let Ok(text) = edit::add_line(policy, line) {
            assert_eq!(
                edit::add_line(&text, line).as_deref().ok(),
                Some(text.as_str()),
                "added twice"
            );
            let (before, after): (toml::Table, toml::Table) =
                (policy.parse().unwrap(), text.parse().unwrap());
            assert_eq!(before.get("plugin"), after.get("plugin"));
            assert_eq!(before.get("approved"), after.get("approved"));
        }
    }
}

pub(crate) const URLS: &[&str] = &[
    "http://mirror.example.com/pub/x.img?a=b",
    "https://[2001:db8::1]:8443/a/b",
    "http://127.0.0.1/",
    "https://MIRROR.example.com.",
    "https://user@mirror.example.com/",
];

/// What we take for a URL, the URL standard takes for the same server and path; and patterns do not panic.
pub(crate) fn url(text: &str) {
    if let Ok(ours) = TargetUrl::parse(text) {
        let theirs = url::Url::parse(text).expect("the URL standard reads it too");
        assert_eq!(theirs.scheme(), ours.scheme.word());
        assert_eq!(theirs.path(), ours.path);
        assert_eq!(theirs.port_or_known_default(), Some(ours.port));
        assert!(theirs.username().is_empty() && theirs.password().is_none());
        let host = theirs.host_str().unwrap_or_default().trim_end_matches('.');
        assert_eq!(AskedHost::parse(host).expect("a host"), ours.host);
        for pattern in [
            "http://*",
            "https://mirror.example.com/pub/**",
            "http://127.0.0.1",
        ] {
            let _ = UrlPattern::parse(pattern).unwrap().covers(&ours);
        }
    }
    if let Ok(pattern) = UrlPattern::parse(text) {
        assert_eq!(
            UrlPattern::parse(&pattern.to_string()).as_ref(),
            Ok(&pattern),
            "patterns are written as they are read"
        );
    }
    if let Ok(base) = BaseUrl::parse(text) {
        assert_eq!(
            BaseUrl::parse(&base.to_string()).as_ref(),
            Ok(&base),
            "bases are written as they are read"
        );
        let joined = base.join("/x/y?z").unwrap();
        assert_eq!(
            base.below(&TargetUrl::parse(&joined).unwrap()),
            Some("/x/y")
        );
    }
}

pub(crate) const PATHS: &[&str] = &[
    "/unattended/provision",
    "/a/b/c/",
    "/servers/**",
    "/x/*.img",
    "GET /register",
    "* /**",
    "/a%20b",
];

/// A path that is accepted is its own normal form, once and twice decoded; patterns never cover what they should not see.
pub(crate) fn path(text: &str) {
    if check_path(text).is_ok() {
        let parsed = url::Url::parse(&format!("http://h{text}")).expect("a URL");
        assert_eq!(parsed.path(), text);
        let once = percent_encoding::percent_decode_str(text)
            .decode_utf8_lossy()
            .into_owned();
        let twice = percent_encoding::percent_decode_str(&once)
            .decode_utf8_lossy()
            .into_owned();
        for form in [text, &once, &twice] {
            assert!(!form.split(['/', '\\']).any(|part| part == ".."), "{form}");
            assert_eq!(form.matches('/').count(), text.matches('/').count());
        }
        let below = PathPattern::parse("/unattended/**").unwrap();
        assert_eq!(below.covers(text), text.starts_with("/unattended/"));
    }
    if let Ok(pattern) = PathPattern::parse(text) {
        let _ = pattern.covers(text);
        let _ = pattern.covers(&"/a".repeat(2000));
        assert_eq!(
            PathPattern::parse(&pattern.to_string()).as_ref(),
            Ok(&pattern)
        );
    }
    if let Ok(rule) = MethodPath::parse(text) {
        assert_eq!(MethodPath::parse(&rule.to_string()).as_ref(), Ok(&rule));
    }
}

pub(crate) const HOSTS: &[&str] = &[
    "ns.example.com",
    "*.example.com",
    "*",
    "10.0.0.0/8",
    "192.0.2.1",
    "2001:db8::/32",
    "[::1]",
    "::ffff:10.0.0.1",
    "bücher.example",
    "0x7f.1",
];

/// A host has one form, which is its own form; an address in any spelling is never a name.
pub(crate) fn host(text: &str) {
    if let Some(host) = AskedHost::parse(text) {
        let written = host.to_string();
        assert_eq!(
            AskedHost::parse(&written).as_ref(),
            Some(&host),
            "{text:?} -> {written:?}"
        );
        match &host {
            AskedHost::Name(name) => {
                assert!(
                    name.parse::<IpAddr>().is_err()
                        && name
                            .bytes()
                            .all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())
                );
            }
            AskedHost::Address(ip) => assert_eq!(ip.to_canonical(), *ip),
        }
    }
    if let Ok(pattern) = HostPattern::parse(text) {
        assert_eq!(
            HostPattern::parse(&pattern.to_string()).as_ref(),
            Ok(&pattern)
        );
        assert!(
            !pattern.covers_name("a.evil.example")
                || matches!(pattern, HostPattern::Any)
                || pattern.to_string().contains("evil")
                || pattern.to_string() == "*.example"
        );
    }
}

pub(crate) const RULES: &[&str] = &[
    "tcp 192.0.2.1:53",
    "udp ns.example.com:5000-5010",
    "tcp [2001:db8::/32]:22",
    "udp *:*",
    "udp 0.0.0.0:67",
    "udp [::]:547",
];

/// Rules are written as they are read, and no rule opens the metadata address.
pub(crate) fn rule(text: &str) {
    if let Ok(rule) = SocketRule::parse(text) {
        assert_eq!(SocketRule::parse(&rule.to_string()).as_ref(), Ok(&rule));
        assert!(
            !rule.covers_address(Transport::Tcp, "192.0.2.77".parse().unwrap(), 0),
            "port 0 is no destination"
        );
    }
    if let Ok(socket) = ListenSocket::parse(text) {
        assert_eq!(
            ListenSocket::parse(&socket.to_string()).as_ref(),
            Ok(&socket)
        );
    }
}

pub(crate) const MANIFEST_WORDS: &[&str] = &[
    "tftp",
    "1.0.0",
    "/tftp",
    "GET",
    "/tftp/:variant/*path",
    "files",
    "root",
    "read-write",
    "tftproot",
    "\"/srv\"",
    "writes menus",
];

/// A manifest made of broken words is accepted or refused; what is accepted has an ordinary name.
pub(crate) fn manifest(text: &str) {
    let word = |n: usize| text.split(' ').nth(n).unwrap_or(text).to_owned();
    let mut manifest = manifest_of(text, Vec::new());
    let _ = check(&manifest);
    manifest.name = word(0);
    manifest.version = word(1);
    manifest.mounts = vec![word(2), "/x".to_owned()];
    manifest.routes = vec![Route {
        method: word(3),
        pattern: word(4),
        audience: Audience::Public,
        body: BodyMode::None,
    }];
    manifest.needs = vec![Need {
        capability: word(5),
        slot: word(6),
        access: word(7),
        reason: text.to_owned(),
        required: true,
    }];
    manifest.settings = vec![Setting {
        name: word(8),
        kind: SettingKind::Text,
        default: Some(word(9)),
        required: false,
        exposed: true,
        choices: vec![word(10)],
        help: text.to_owned(),
    }];
    if check(&manifest).is_ok() {
        assert!(
            manifest.name.len() <= 32
                && manifest
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        );
    }
    let policy = Policy::nothing(Path::new("p.toml"), text);
    let resolution = policy.resolve(
        &manifest,
        &HashMap::new(),
        &Limits::default(),
        &Deny::default(),
    );
    assert!(bulkhead::grant::explain::reach(&resolution.effective).is_empty());
}

fn manifest_of(name: &str, needs: Vec<Need>) -> Manifest {
    Manifest {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        summary: String::new(),
        mounts: Vec::new(),
        routes: Vec::new(),
        needs,
        settings: Vec::new(),
        lifetime: Lifetime::Automatic,
    }
}

/// Changes and verdicts as `dhcp-kea` keeps them in its store.
pub(crate) const WAITING: &[&str] = &[
    r#"{"Add":{"subnet":"192.0.2.0/24","host":{"hw-address":"aa:bb:cc:dd:ee:02","ip-address":"192.0.2.42","hostname":"b","next-server":"192.0.2.9","boot-file-name":"pxelinux.0","option-data":[{"code":150,"csv-format":false,"data":"C0000209"}]},"related":[["hw-address","aa:bb:cc:dd:ee:01"]]}}"#,
    r#"{"Remove":{"subnet":"192.0.2.0/24","address":"192.0.2.40","id":null}}"#,
    r#"{"Remove":{"subnet":"192.0.2.0/24","address":null,"id":["client-id","01:02"]}}"#,
    r#"{"Done":true}"#,
    r#"{"Failed":{"kind":"Conflict","text":"taken"}}"#,
];

/// Answers of Kea's control API, and configurations.
pub(crate) const KEA: &[&str] = &[
    r#"[ { "arguments": { "Dhcp4": { "option-data": [ { "code": 15, "data": "example.com", "name": "domain-name", "space": "dhcp4" } ], "shared-networks": [ { "name": "n", "subnet4": [ { "id": 2, "subnet": "198.51.100.0/24" } ] } ], "subnet4": [ { "id": 1, "pools": [ { "pool": "192.0.2.1-192.0.2.9" } ], "reservations": [ { "hw-address": "aa:bb:cc:dd:ee:01", "ip-address": "192.0.2.10" } ], "subnet": "192.0.2.0/24" } ] }, "hash": "F3" }, "result": 0 } ]"#,
    r#"{ "subnet4": [ { "id": 1, "subnet": "192.0.2.0/24", "reservations": [ { "client-id": "01AABB", "ip-address": "192.0.2.10", "option-data": [ { "name": "boot-file-name", "data": "a\\,b" } ] }, { "duid": "01:02", "hostname": "h" } ] } ] }"#,
    r#"{ "result": 0, "arguments": [ { "hw-address": "aa:bb:cc:dd:ee:01", "next-server": "0.0.0.0" } ], "text": "1 IPv4 host(s) found." }"#,
    r#"[ { "result": 1, "text": "unable to forward command to the dhcp4 service" } ]"#,
    r#"{ "result": 401, "text": "Unauthorized" }"#,
];

pub(crate) const DHCPD_CONF: &[&str] = &[
    r#"omapi-port 7911; key k { algorithm hmac-md5; secret "eA=="; }; # a comment
shared-network s { option domain-name "x"; subnet 10.0.0.0 netmask 255.255.255.0 { option routers 10.0.0.1, 10.0.0.2; range 10.0.0.10 10.0.0.20; pool { range 10.0.0.30; } } }
"#,
    r#"group { filename "pxelinux.0"; host a { hardware ethernet aa:bb:cc:dd:ee:01; fixed-address 10.0.0.30; option host-name "a}"; } }
include "more.conf"; class "x" { match if substring(option vendor-class-identifier, 0, 9) = "PXEClient"; if x { y; } else { z; } }
option x code 150 = { integer 8, text };
"#,
    "subnet 192.0.2.0 netmask 255.255.255.0 { range dynamic-bootp 192.0.2.5; interface-mtu 1500; option interface-mtu 1500; }",
];

pub(crate) const DHCPD_LEASES: &[&str] = &[
    "lease 192.0.2.10 {\n  starts 1 2026/11/23 10:00:00;\n  ends never;\n  cltt epoch 1795600800; # x\n  binding state active;\n  next binding state free;\n  \
     hardware ethernet 00:aa:aa:aa:aa:01;\n  uid \"\\001};\\\"\";\n  client-hostname \"foo\";\n}\n",
    "host a.example.com { dynamic; hardware ethernet 00:aa:aa:aa:aa:03; fixed-address 192.0.2.40; supersede server.next-server = c0:00:02:09; }\n",
    "host a.example.com { dynamic; deleted; }\nserver-duid \"\\000\\001\";\nfailover peer \"x\" state { my state normal; }\n",
    "lease 192.0.2.11 { binding state abandoned; }\nlease 10.0.0.1 { starts 1 2026/11/23 10:00:00;\n",
];

/// Each character is a byte.
pub(crate) const OMAPI: &[&str] = &[
    "\0\0\0\u{1}\0\0\0\0\0\0\0\u{1}\0\0\0\0\0\0\0\u{9}\0\0\0\0\0\u{4}type\0\0\0\u{4}host\0\0\0\u{4}name\0\0\0\u{1}a\0\0",
    "\0\0\0\0\0\0\0\0\0\0\0\u{5}\0\0\0\0\0\0\0\u{9}\0\0\0\u{1}\0\u{6}result\0\0\0\u{4}\0\0\0\u{17}\0\0\0\0",
    "\0\0\0\u{1}\0\0\0\u{4}\0\0\0\u{3}\0\0\0\u{7}\0\0\0\u{9}\0\0\0\u{1}\0\0\0\0abcd",
];

/// A head of 28 bytes, a hardware address, options; see `short_packet`.
pub(crate) const DHCP: &[&str] = &[
    // A PXE ROM asks, by broadcast.
    "\u{1}\u{1}\u{6}\0\0\0\0\u{7}\0\u{4}\u{80}\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0RT\0\0\0\u{1}5\u{1}\u{1}7\u{3}\u{1}\u{3}\u{43}<\u{9}PXEClient]\u{2}\0\u{7}\u{ff}",
    // Beside another server it asks once more, for an entry of a menu.
    "\u{1}\u{1}\u{6}\0\0\0\0\u{7}\0\0\0\0\u{c0}\0\u{2}\u{21}\0\0\0\0\0\0\0\0\0\0\0\0RT\0\0\0\u{1}5\u{1}\u{3}<\u{9}PXEClient]\u{2}\0\u{7}+\u{7}G\u{4}\u{80}\u{1}\0\0\u{ff}\u{ff}",
    // It takes what it was offered.
    "\u{1}\u{1}\u{6}\0\0\0\0\u{7}\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0RT\0\0\0\u{1}5\u{1}\u{3}6\u{4}\u{c0}\0\u{2}\u{1}2\u{4}\u{c0}\0\u{2}d\u{c}\u{2}ab\u{ff}",
    // By a relay, with its option 82 and the subnet that it chose; half of the options in `file`.
    "\u{1}\u{1}\u{6}\u{1}\0\0\0\u{7}\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\u{c0}\0\u{2}\u{fe}RT\0\0\0\u{2}5\u{1}\u{1}4\u{1}\u{3}R\u{a}\u{1}\u{2}ab\u{5}\u{4}\u{c0}\0\u{2}\0=\u{3}\u{1}cd\u{ff}",
    // It renews, declines, releases, asks for options only.
    "\u{1}\u{1}\u{6}\0\0\0\0\u{7}\0\0\0\0\u{c0}\0\u{2}d\0\0\0\0\0\0\0\0\0\0\0\0RT\0\0\0\u{1}5\u{1}\u{3}\u{ff}",
    "\u{1}\u{1}\u{6}\0\0\0\0\u{7}\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0RT\0\0\0\u{1}5\u{1}\u{4}2\u{4}\u{c0}\0\u{2}d\u{ff}",
    "\u{1}\u{1}\u{6}\0\0\0\0\u{7}\0\0\0\0\u{c0}\0\u{2}d\0\0\0\0\0\0\0\0\0\0\0\0RT\0\0\0\u{1}5\u{1}\u{7}\u{ff}",
    "\u{1}\u{1}\u{6}\0\0\0\0\u{7}\0\0\0\0\u{c0}\0\u{2}\u{9}\0\0\0\0\0\0\0\0\0\0\0\0RT\0\0\0\u{1}5\u{1}\u{8}M\u{4}iPXE\u{ff}",
];

/// Answers of PowerDNS's API: zones, the records of a name, a reason.
pub(crate) const POWERDNS: &[&str] = &[
    r#"[{"account": "", "dnssec": false, "id": "example.com.", "kind": "Native", "name": "example.com.", "serial": 2026112501, "url": "/api/v1/servers/localhost/zones/example.com."}, {"id": "a=2Fb.example.com.", "name": "A.Example.com."}]"#,
    r#"{"id": "example.com.", "name": "example.com.", "rrsets": [{"comments": [], "name": "a.example.com.", "records": [{"content": "192.0.2.1", "disabled": false}, {"content": "192.0.2.2", "disabled": true}], "ttl": 600, "type": "A"}]}"#,
    r#"{"rrsets": [{"name": "a.example.com.", "type": "CNAME", "records": [{"content": "b.example.com."}]}, {"name": "A.example.com.", "type": "SRV", "ttl": 4294967295, "records": [{"content": "0 5 5060 a.example.com."}]}]}"#,
    r#"{"error": "RRset a.example.com. IN CNAME: Conflicts with pre-existing RRset"}"#,
    r#"{"rrsets": []}"#,
];

/// Questions as clients send them: plain, of other types, with EDNS, with two of it, an update, an answer.
pub(crate) const DNS: &[&str] = &[
    "\u{12}\u{34}\u{1}\0\0\u{1}\0\0\0\0\0\0\u{3}www\u{7}example\u{3}com\0\0\u{1}\0\u{1}",
    "\u{12}\u{35}\0\0\0\u{1}\0\0\0\0\0\u{1}\u{1}c\u{7}eXample\u{3}coM\0\0\u{ff}\0\u{ff}\0\0\u{29}\u{4}\u{d0}\0\0\u{80}\0\0\0",
    "\u{12}\u{36}\0\0\0\u{1}\0\0\0\0\0\u{1}\u{1}x\u{1}w\u{7}example\u{3}com\0\0\u{10}\0\u{1}\0\0\u{29}\u{10}\0\0\u{1}\0\0\0\u{6}\u{ff}\u{fe}\0\u{2}ab",
    "\u{12}\u{37}\0\0\0\u{1}\0\0\0\0\0\u{2}\u{2}ns\u{3}sub\u{7}example\u{3}com\0\0\u{2b}\0\u{1}\0\0\u{29}\u{4}\u{d0}\0\0\0\0\0\0\0\0\u{29}\u{4}\u{d0}\0\0\0\0\0\0",
    "\u{12}\u{38}\u{28}\0\0\u{1}\0\0\0\u{1}\0\0\u{7}example\u{3}com\0\0\u{6}\0\u{1}\u{1}a\u{c0}\u{c}\0\u{1}\0\u{1}\0\0\0\u{3c}\0\u{4}\u{c0}\0\u{2}\u{1}",
    "\u{12}\u{39}\u{84}\0\0\u{1}\0\u{1}\0\0\0\0\u{1}a\u{7}example\u{3}com\0\0\u{1}\0\u{1}\u{c0}\u{c}\0\u{1}\0\u{1}\0\0\0\u{3c}\0\u{4}\u{c0}\0\u{2}\u{1}",
];

/// Zone files as people write them.
pub(crate) const ZONE_FILES: &[&str] = &[
    "$TTL 1h ; one hour\n@   IN SOA ns1 hostmaster (\n        2026112501 ; serial\n        1h 15m 2w  ; times\n        5m )\n    IN NS ns1\n    NS ns2.example.net.\nns1 300 IN A 192.0.2.1\n    IN 60 AAAA 2001:db8::1\n",
    "txt TXT \"a;b (c)\" d \"\\\"\\\\\" \\000\\255\n$ORIGIN sub.example.com.\n*   A 192.0.2.9\nwww CNAME @\na\\.b\\032c MX 10 mail.example.net.\n",
    "_sip._tcp SRV 0 5 5060 sip\nodd TYPE65280 \\# 4 0a000001\nodd A \\# 4 0a000002\nssh SSHFP 4 2 123456789abcdef67890123456789abcdef67890123456789abcdef123456789\n@ CAA 0 issue \"ca.example.net\"\nsub DS 12345 8 2 3490A6806D47F17A 34C29E2CE80E8A999FFBE4BE\n1 PTR host.example.com.\n",
    "$INCLUDE x\n$GENERATE 1-3 a$ A 192.0.2.$\n",
];
