//! Every key that a policy may hold changes something. The keys are taken from the reader itself, so a new one without a row here fails: a key that is
//! read and not obeyed would be a hole with a sign on it that says "closed".

use super::super::deny::Deny;
use super::tests::{known_keys, resolve_with};

/// Section, key, and two bodies of the section that differ in that key alone.
const KEYS: &[(&str, &str, &str, &str)] = &[
    ("files", "directory", "directory = \"/srv/a\"", "directory = \"/srv/b\""),
    ("files", "file", "file = \"/srv/a\"", "file = \"/srv/b\""),
    ("files", "access", "directory = \"/srv/a\"", "directory = \"/srv/a\"\naccess = \"read-write\""),
    ("files", "quota", "directory = \"/srv/a\"\naccess = \"read-write\"", "directory = \"/srv/a\"\naccess = \"read-write\"\nquota = { bytes = \"1MiB\" }"),
    ("files", "quota", "directory = \"/srv/a\"\naccess = \"read-write\"", "directory = \"/srv/a\"\naccess = \"read-write\"\nquota = { files = 7 }"),
    ("sockets", "allow", "allow = [\"tcp 192.0.2.1:1\"]", "allow = [\"tcp 192.0.2.1:2\"]"),
    ("sockets", "open", "allow = [\"tcp 192.0.2.1:1\"]", "allow = [\"tcp 192.0.2.1:1\"]\nopen = 3"),
    ("sockets", "private-addresses", "allow = [\"tcp *:1\"]", "allow = [\"tcp *:1\"]\nprivate-addresses = true"),
    ("sockets", "loopback", "allow = [\"tcp *:1\"]", "allow = [\"tcp *:1\"]\nloopback = true"),
    ("names", "allow", "allow = [\"a.example.com\"]", "allow = [\"b.example.com\"]"),
    ("http", "url", "url = \"https://a.example.com\"", "url = \"https://b.example.com\""),
    ("http", "networks", "url = \"https://a.example.com\"", "url = \"https://a.example.com\"\nnetworks = [\"192.0.2.0/24\"]"),
    ("http", "verify", "url = \"https://a.example.com\"", "url = \"https://a.example.com\"\nverify = false"),
    ("http", "queue", "url = \"https://a.example.com\"", "url = \"https://a.example.com\"\nqueue = 3"),
    ("foreman", "queue", "allow = [\"GET /a\"]", "allow = [\"GET /a\"]\nqueue = 3"),
    ("watch", "files", "files = [\"/srv/a\"]", "files = [\"/srv/a\", \"/srv/b\"]"),
    ("watch", "hide", "directory = \"/srv/a\"", "directory = \"/srv/a\"\nhide = \"isc-key-secrets\""),
    ("http", "methods", "url = \"https://a.example.com\"", "url = \"https://a.example.com\"\nmethods = [\"POST\"]"),
    ("http", "paths", "url = \"https://a.example.com\"", "url = \"https://a.example.com\"\npaths = [\"/x\"]"),
    ("http", "ca", "url = \"https://a.example.com\"", "url = \"https://a.example.com\"\nca = \"/etc/ca.pem\""),
    ("http", "certificate", "url = \"https://a.example.com\"\ncertificate = \"/etc/a.pem\"\nkey = \"/etc/k.pem\"", "url = \"https://a.example.com\"\ncertificate = \"/etc/b.pem\"\nkey = \"/etc/k.pem\""),
    ("http", "key", "url = \"https://a.example.com\"\ncertificate = \"/etc/a.pem\"\nkey = \"/etc/k.pem\"", "url = \"https://a.example.com\"\ncertificate = \"/etc/a.pem\"\nkey = \"/etc/l.pem\""),
    ("http", "inject", "url = \"https://a.example.com\"", "url = \"https://a.example.com\"\ninject = { authorization = \"Bearer secret:token\" }"),
    ("http", "timeout", "url = \"https://a.example.com\"", "url = \"https://a.example.com\"\ntimeout = \"3s\""),
    ("http", "connect-timeout", "url = \"https://a.example.com\"", "url = \"https://a.example.com\"\nconnect-timeout = \"3s\""),
    ("http", "response", "url = \"https://a.example.com\"", "url = \"https://a.example.com\"\nresponse = \"3KiB\""),
    ("http", "connections", "url = \"https://a.example.com\"", "url = \"https://a.example.com\"\nconnections = 3"),
    ("http", "private-addresses", "url = \"https://a.example.com\"\nloopback = true", "url = \"https://a.example.com\"\nloopback = true\nprivate-addresses = true"),
    ("http", "loopback", "url = \"https://a.example.com\"", "url = \"https://a.example.com\"\nloopback = true"),
    ("foreman", "allow", "allow = [\"GET /a\"]", "allow = [\"GET /b\"]"),
    ("foreman", "timeout", "allow = [\"GET /a\"]", "allow = [\"GET /a\"]\ntimeout = \"3s\""),
    ("foreman", "response", "allow = [\"GET /a\"]", "allow = [\"GET /a\"]\nresponse = \"3KiB\""),
    ("foreman", "connections", "allow = [\"GET /a\"]", "allow = [\"GET /a\"]\nconnections = 3"),
    ("downloads", "urls", "urls = [\"https://a.example.com\"]\ninto = \"slot\"", "urls = [\"https://b.example.com\"]\ninto = \"slot\""),
    ("downloads", "into", "urls = [\"https://a.example.com\"]\ninto = \"slot\"", "urls = [\"https://a.example.com\"]\ninto = \"more\""),
    ("downloads", "size", "urls = [\"https://a.example.com\"]\ninto = \"slot\"", "urls = [\"https://a.example.com\"]\ninto = \"slot\"\nsize = \"3KiB\""),
    ("downloads", "time", "urls = [\"https://a.example.com\"]\ninto = \"slot\"", "urls = [\"https://a.example.com\"]\ninto = \"slot\"\ntime = \"3s\""),
    ("downloads", "concurrent", "urls = [\"https://a.example.com\"]\ninto = \"slot\"", "urls = [\"https://a.example.com\"]\ninto = \"slot\"\nconcurrent = 3"),
    ("downloads", "queue", "urls = [\"https://a.example.com\"]\ninto = \"slot\"", "urls = [\"https://a.example.com\"]\ninto = \"slot\"\nqueue = 3"),
    ("downloads", "verify", "urls = [\"https://a.example.com\"]\ninto = \"slot\"", "urls = [\"https://a.example.com\"]\ninto = \"slot\"\nverify = false"),
    ("downloads", "ca", "urls = [\"https://a.example.com\"]\ninto = \"slot\"", "urls = [\"https://a.example.com\"]\ninto = \"slot\"\nca = \"/etc/ca.pem\""),
    ("downloads", "connect-timeout", "urls = [\"https://a.example.com\"]\ninto = \"slot\"", "urls = [\"https://a.example.com\"]\ninto = \"slot\"\nconnect-timeout = \"3s\""),
    ("downloads", "private-addresses", "urls = [\"https://a.example.com\"]\ninto = \"slot\"", "urls = [\"https://a.example.com\"]\ninto = \"slot\"\nprivate-addresses = true"),
    ("downloads", "loopback", "urls = [\"https://a.example.com\"]\ninto = \"slot\"", "urls = [\"https://a.example.com\"]\ninto = \"slot\"\nloopback = true"),
    ("store", "space", "", "space = \"shared:pool\""),
    ("store", "access", "", "access = \"read-write\""),
    ("store", "bytes", "", "bytes = \"3KiB\""),
    ("store", "keys", "", "keys = 3"),
    ("secrets", "file", "file = \"/etc/a\"", "file = \"/etc/b\""),
    ("secrets", "credential", "credential = \"a\"", "credential = \"b\""),
    ("secrets", "value", "file = \"/etc/a\"", "value = { setting = \"place\" }"),
    ("secrets", "format", "file = \"/etc/a\"", "file = \"/etc/a\"\nformat = \"base64\""),
    ("secrets", "algorithm", "file = \"/etc/a\"", "file = \"/etc/a\"\nalgorithm = \"hmac-sha256\""),
    ("secrets", "name", "file = \"/etc/a\"", "file = \"/etc/a\"\nname = \"k\""),
    ("secrets", "access", "file = \"/etc/a\"", "file = \"/etc/a\"\naccess = \"reveal\""),
    ("call", "plugin", "plugin = \"a\"", "plugin = \"b\""),
    ("listen", "sockets", "sockets = [\"udp 0.0.0.0:67\"]", "sockets = [\"udp 0.0.0.0:68\"]"),
    ("listen", "interface", "sockets = [\"udp 0.0.0.0:67\"]", "sockets = [\"udp 0.0.0.0:67\"]\ninterface = \"eth0\""),
    ("listen", "peers", "sockets = [\"udp 0.0.0.0:67\"]", "sockets = [\"udp 0.0.0.0:67\"]\npeers = [\"udp 10.0.0.0/8:68\"]"),
    ("listen", "broadcast", "sockets = [\"udp 0.0.0.0:67\"]", "sockets = [\"udp 0.0.0.0:67\"]\nbroadcast = true"),
    ("listen", "connections", "sockets = [\"udp 0.0.0.0:67\"]", "sockets = [\"udp 0.0.0.0:67\"]\nconnections = 3"),
    ("listen", "connections-per-address", "sockets = [\"udp 0.0.0.0:67\"]", "sockets = [\"udp 0.0.0.0:67\"]\nconnections-per-address = 3"),
    ("listen", "idle", "sockets = [\"udp 0.0.0.0:67\"]", "sockets = [\"udp 0.0.0.0:67\"]\nidle = \"3s\""),
    ("listen", "transfers", "sockets = [\"udp 0.0.0.0:67\"]", "sockets = [\"udp 0.0.0.0:67\"]\ntransfers = 3"),
    ("watch", "directory", "directory = \"/srv/a\"", "directory = \"/srv/b\""),
    ("watch", "file", "file = \"/srv/a\"", "file = \"/srv/b\""),
    ("probe", "allow", "allow = [\"10.0.0.0/8\"]", "allow = [\"10.0.0.0/9\"]"),
    ("probe", "rate", "allow = [\"10.0.0.0/8\"]", "allow = [\"10.0.0.0/8\"]\nrate = 3"),
    ("link", "interfaces", "interfaces = [\"eth0\"]", "interfaces = [\"eth1\"]"),
    ("link", "port", "interfaces = [\"eth0\"]", "interfaces = [\"eth0\"]\nport = 3067"),
    ("limits", "memory", "", "memory = \"3MiB\""),
    ("limits", "memory-total", "", "memory-total = \"300MiB\""),
    ("limits", "cpu", "", "cpu = \"3ms\""),
    ("limits", "time", "", "time = \"3ms\""),
    ("limits", "concurrency", "", "concurrency = 3"),
    ("limits", "queue", "", "queue = 3"),
    ("limits", "queue-time", "", "queue-time = \"3ms\""),
    ("limits", "warm", "", "warm = 3"),
    ("limits", "reuse", "", "reuse = 3"),
    ("limits", "handles", "", "handles = 3"),
    ("limits", "transfer", "", "transfer = \"3KiB\""),
    ("limits", "random", "", "random = \"3KiB\""),
    ("limits", "file-calls", "", "file-calls = 3"),
    ("limits", "log-lines", "", "log-lines = 3"),
    ("limits", "request-body", "", "request-body = \"3KiB\""),
    ("limits", "forward-body", "", "forward-body = \"3KiB\""),
    ("limits", "reply-body", "", "reply-body = \"3KiB\""),
];

/// What the plugin has of all that it asks for, in so many words.
fn rights(section: &str, body: &str) -> String {
    let header = match section {
        "limits" => "[limits]".to_owned(),
        _ => format!("[{section}.slot]"),
    };
    // What other sections need to make sense: a place for downloads, a secret to inject.
    let around = match section {
        "downloads" => {
            "[files.slot]\ndirectory = \"/srv/d\"\naccess = \"read-write\"\n\
             [files.more]\ndirectory = \"/srv/e\"\naccess = \"read-write\"\n"
        }
        "http" => "[secrets.token]\nfile = \"/etc/token\"\n",
        _ => "",
    };
    let access = match section {
        "sockets" => "tcp",
        "secrets" => "reveal",
        "files" | "store" => "read-write",
        _ => "",
    };
    let text = format!("{around}{header}\n{body}\n");
    let mut needs = vec![(section, "slot", access)];
    if section == "downloads" {
        needs.extend([("files", "slot", "read-write"), ("files", "more", "read-write")]);
    }
    if section == "limits" {
        needs.clear();
    }
    let resolution = resolve_with(&text, &needs, &Deny::default());
    assert!(resolution.problems.is_empty(), "{text}: {:?}", resolution.problems);
    let shown = format!("{:?}", resolution.effective);
    assert!(section == "limits" || shown.contains("\"slot\""), "{text}: nothing is granted");
    shown
}

#[test]
fn every_key_of_a_policy_changes_what_it_grants() {
    for (section, key, one, other) in KEYS {
        assert_ne!(rights(section, one), rights(section, other), "{section}.{key}");
    }
}

#[test]
fn no_key_is_without_a_row() {
    let mut sections: Vec<_> = super::super::Capability::GRANTABLE.iter().map(|it| it.word()).collect();
    sections.push("limits");
    for section in sections {
        let header = match section {
            "limits" => "[limits]".to_owned(),
            _ => format!("[{section}.slot]"),
        };
        for key in known_keys(&header).iter().filter(|key| *key != "reason") {
            assert!(
                KEYS.iter().any(|(known, name, ..)| *known == section && name == key),
                "`{key}` of {section} is read, but no row shows that it changes anything"
            );
        }
    }
}
