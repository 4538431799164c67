//! What each kind of grant allows and what it does not, one promise a test.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::deny::Deny;
use super::super::effective::*;
use super::super::guard::{Guard, HostRules};
use super::super::matchers::host::HostPattern;
use super::super::matchers::path::{MethodPath, PathPattern};
use super::super::matchers::socket::{ListenSocket, SocketRule, Transport};
use super::super::matchers::url::{BaseUrl, UrlPattern};
use super::{Action, Decision};

fn guard(grant: impl FnOnce(&mut Effective)) -> Guard {
    let mut effective = Effective::nothing("p");
    grant(&mut effective);
    Guard::new(&HostRules::new(Deny::default()), effective)
}

fn one<G>(slots: &mut Slots<G>, name: &str, grant: G) {
    slots.insert(name.to_owned(), Slot::new(grant));
}

fn fix(guard: &Guard, action: Action<'_>) -> Option<String> {
    match guard.decide(&action) {
        Decision::Allow => panic!("allowed: {action}"),
        Decision::Deny(denial) => denial.fix,
    }
}

fn refused(guard: &Guard, action: Action<'_>) -> String {
    match guard.decide(&action) {
        Decision::Allow => panic!("allowed: {action}"),
        Decision::Deny(denial) => denial.reason,
    }
}

fn allowed(guard: &Guard, action: Action<'_>) -> bool {
    guard.decide(&action).is_allowed()
}

fn sock(addr: &str) -> SocketAddr {
    addr.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tcp(addr: &str) -> Action<'static> {
    Action::TcpConnect {
        addr: sock(addr),
        name: None,
    }
}

fn udp(addr: &str) -> Action<'static> {
    Action::UdpSend { addr: sock(addr) }
}

fn files(target: FilesTarget, access: Access) -> FilesGrant {
    FilesGrant {
        target,
        access,
        quota: FilesQuota::default(),
    }
}

fn sockets(rules: &[&str], inside: Inside) -> SocketsGrant {
    SocketsGrant {
        allow: rules
            .iter()
            .map(|rule| SocketRule::parse(rule).unwrap())
            .collect(),
        open: 1,
        inside,
    }
}

fn downloads(urls: &[&str], inside: Inside) -> DownloadsGrant {
    DownloadsGrant {
        urls: urls
            .iter()
            .map(|url| UrlPattern::parse(url).unwrap())
            .collect(),
        into: "root".to_owned(),
        size: 1,
        time: Duration::ZERO,
        connect_timeout: Duration::ZERO,
        concurrent: 1,
        queue: 1,
        verify: true,
        ca: None,
        inside,
    }
}

fn http(url: &str, inside: Inside) -> HttpGrant {
    HttpGrant {
        url: BaseUrl::parse(url).unwrap(),
        networks: Vec::new(),
        methods: vec!["GET".to_owned()],
        paths: vec![PathPattern::parse("/servers/**").unwrap()],
        tls: TlsGrant::default(),
        inject: Vec::new(),
        timeout: Duration::ZERO,
        connect_timeout: Duration::ZERO,
        response: 1,
        connections: 1,
        queue: 64,
        inside,
    }
}

const NOTHING: Inside = Inside {
    private: false,
    loopback: false,
};

#[test]
fn an_empty_policy_allows_nothing() {
    let guard = Guard::empty("p");
    for action in [
        Action::FileOpen {
            slot: "root",
            path: "x",
            write: false,
        },
        Action::FileLink {
            slot: "root",
            path: "x",
        },
        tcp("192.0.2.1:53"),
        udp("192.0.2.1:53"),
        Action::UdpReceive {
            addr: sock("192.0.2.1:53"),
        },
        Action::TcpBind {
            addr: sock("0.0.0.0:0"),
        },
        Action::UdpBind {
            addr: sock("0.0.0.0:0"),
        },
        Action::TcpListen {
            addr: sock("0.0.0.0:80"),
        },
        Action::Listen {
            slot: "s",
            transport: Transport::Udp,
            addr: sock("0.0.0.0:67"),
        },
        Action::DatagramSend {
            slot: "s",
            peer: sock("192.0.2.1:68"),
            heard: true,
        },
        Action::Resolve {
            name: "example.com",
        },
        Action::Http {
            slot: "api",
            method: "GET",
            url: "https://h/",
        },
        Action::HttpAddress {
            slot: "api",
            ip: ip("192.0.2.1"),
            port: 443,
        },
        Action::Foreman {
            slot: "f",
            method: "GET",
            path: "/register",
        },
        Action::Store {
            slot: "s",
            write: false,
        },
        Action::Secret {
            slot: "s",
            reveal: false,
        },
        Action::Call {
            interface: "dns-provider",
            callee: "x",
        },
        Action::Download {
            slot: "d",
            url: "http://h/",
        },
        Action::DownloadAddress {
            slot: "d",
            host: "h",
            ip: ip("192.0.2.1"),
            port: 80,
        },
        Action::Watch {
            slot: "w",
            path: "/var/lib/dhcpd.leases",
        },
        Action::Probe {
            slot: "p",
            ip: ip("192.0.2.1"),
        },
        Action::Link {
            slot: "l",
            interface: "eth0",
        },
        Action::ResponseHeader { name: "set-cookie" },
    ] {
        assert!(!allowed(&guard, action), "{action}");
    }
}

#[test]
fn reading_grants_no_writing() {
    let guard = guard(|e| {
        one(
            &mut e.files,
            "root",
            files(FilesTarget::Directory("/srv".into()), Access::Read),
        )
    });
    assert!(allowed(
        &guard,
        Action::FileOpen {
            slot: "root",
            path: "a",
            write: false
        }
    ));
    let write = Action::FileOpen {
        slot: "root",
        path: "a",
        write: true,
    };
    assert_eq!(
        fix(&guard, write).unwrap(),
        "files.root.access = \"read-write\""
    );
    assert!(!allowed(
        &guard,
        Action::FileOpen {
            slot: "other",
            path: "a",
            write: false
        }
    ));
    assert!(!allowed(
        &guard,
        Action::FileLink {
            slot: "root",
            path: "a"
        }
    ));
}

#[test]
fn a_grant_of_one_file_shows_that_file_only() {
    let target = FilesTarget::File("/etc/dhcp/dhcpd.conf".into());
    let guard = guard(|e| one(&mut e.files, "conf", files(target, Access::ReadWrite)));
    let open = |path, write| {
        allowed(
            &guard,
            Action::FileOpen {
                slot: "conf",
                path,
                write,
            },
        )
    };
    assert!(
        open("dhcpd.conf", false)
            && open("dhcpd.conf", true)
            && open("./dhcpd.conf", false)
            && open(".", false)
    );
    for path in [
        "dhcpd.leases",
        "../passwd",
        "dhcpd.conf/..",
        "/etc/dhcp/dhcpd.conf",
        "./../dhcp/dhcpd.conf",
    ] {
        assert!(!open(path, false), "{path}");
    }
    assert!(!open(".", true));
}

#[test]
fn sockets_count_protocol_address_and_port() {
    let guard = guard(|e| {
        one(
            &mut e.sockets,
            "dns",
            sockets(&["tcp 192.0.2.1:53"], NOTHING),
        )
    });
    assert!(allowed(&guard, tcp("192.0.2.1:53")));
    assert!(allowed(&guard, tcp("[::ffff:192.0.2.1]:53")));
    assert!(!allowed(&guard, tcp("192.0.2.1:54")));
    assert!(!allowed(&guard, tcp("192.0.2.2:53")));
    assert_eq!(
        fix(&guard, udp("192.0.2.1:53")).unwrap(),
        "sockets.dns.allow = [\"udp 192.0.2.1:53\"]"
    );
}

#[test]
fn implicit_binds_come_with_an_outgoing_rule_and_others_never() {
    let guard = guard(|e| {
        one(
            &mut e.sockets,
            "dns",
            sockets(&["udp 192.0.2.1:53"], NOTHING),
        )
    });
    assert!(allowed(
        &guard,
        Action::UdpBind {
            addr: sock("0.0.0.0:0")
        }
    ));
    assert!(allowed(
        &guard,
        Action::UdpBind {
            addr: sock("[::]:0")
        }
    ));
    assert!(!allowed(
        &guard,
        Action::TcpBind {
            addr: sock("0.0.0.0:0")
        }
    ));
    assert!(!allowed(
        &guard,
        Action::UdpBind {
            addr: sock("0.0.0.0:67")
        }
    ));
    assert!(!allowed(
        &guard,
        Action::UdpBind {
            addr: sock("127.0.0.1:0")
        }
    ));
}

#[test]
fn a_name_rule_covers_what_the_host_resolved_and_nothing_else() {
    let guard = guard(|e| {
        one(
            &mut e.sockets,
            "dns",
            sockets(&["tcp ns.example.com:53"], NOTHING),
        )
    });
    assert!(allowed(
        &guard,
        Action::Resolve {
            name: "NS.Example.Com."
        }
    ));
    assert!(!allowed(
        &guard,
        Action::Resolve {
            name: "secret-data.example.com"
        }
    ));
    assert!(!allowed(&guard, tcp("192.0.2.1:53")));
    guard.record_resolved(
        "ns.example.com",
        &[ip("192.0.2.1")],
        Duration::from_secs(60),
    );
    assert!(allowed(&guard, tcp("192.0.2.1:53")));
    assert!(!allowed(&guard, tcp("192.0.2.1:54")));
    assert!(!allowed(&guard, tcp("192.0.2.2:53")));
    guard.record_resolved(
        "other.example.com",
        &[ip("192.0.2.2")],
        Duration::from_secs(60),
    );
    assert!(!allowed(&guard, tcp("192.0.2.2:53")));
}

#[test]
fn an_open_connection_outlives_its_name_but_not_its_rule() {
    let guard = guard(|e| {
        one(
            &mut e.sockets,
            "dns",
            sockets(&["tcp ns.example.com:53"], NOTHING),
        )
    });
    guard.record_resolved(
        "ns.example.com",
        &[ip("192.0.2.1")],
        Duration::from_secs(60),
    );
    let open = guard.connected(sock("192.0.2.1:53"));
    assert!(guard.keeps(&open));
    let mut changed = guard.generation();
    guard.replace(Effective::nothing("p"));
    assert!(changed.has_changed().unwrap());
    assert_eq!(*changed.borrow_and_update(), 1);
    assert!(!guard.keeps(&open));
}

#[test]
fn a_name_cannot_be_turned_on_this_machine() {
    let guard = guard(|e| {
        one(
            &mut e.sockets,
            "dns",
            sockets(&["tcp ns.example.com:53", "tcp *.example.net:53"], NOTHING),
        )
    });
    let resolves = |name: &str, address: &str| {
        guard.record_resolved(name, &[ip(address)], Duration::from_secs(60))
    };
    resolves("ns.example.com", "127.0.0.1");
    resolves("ns.example.com", "169.254.169.254");
    resolves("ns.example.com", "10.0.0.1");
    resolves("a.example.net", "10.0.0.2");
    assert!(!allowed(&guard, tcp("127.0.0.1:53")));
    assert!(!allowed(&guard, tcp("169.254.169.254:53")));
    assert!(
        allowed(&guard, tcp("10.0.0.1:53")),
        "a name written out may lead to a private address"
    );
    assert!(!allowed(&guard, tcp("10.0.0.2:53")), "a wildcard may not");
}

#[test]
fn inside_addresses_are_reached_in_so_many_words() {
    let with = |rules: &[&str], inside| guard(|e| one(&mut e.sockets, "s", sockets(rules, inside)));
    let any = ["tcp *:80"];
    assert!(allowed(&with(&any, NOTHING), tcp("192.0.2.1:80")));
    assert!(!allowed(&with(&any, NOTHING), tcp("10.0.0.1:80")));
    assert!(allowed(
        &with(
            &any,
            Inside {
                private: true,
                ..NOTHING
            }
        ),
        tcp("10.0.0.1:80")
    ));
    assert!(!allowed(
        &with(
            &any,
            Inside {
                private: true,
                ..NOTHING
            }
        ),
        tcp("127.0.0.1:80")
    ));
    assert!(allowed(
        &with(
            &any,
            Inside {
                loopback: true,
                ..NOTHING
            }
        ),
        tcp("127.0.0.1:80")
    ));
    assert!(allowed(
        &with(&["tcp 127.0.0.0/8:80"], NOTHING),
        tcp("127.0.0.1:80")
    ));
    assert!(!allowed(
        &with(
            &["tcp 169.254.169.254:80"],
            Inside {
                private: true,
                loopback: true
            }
        ),
        tcp("169.254.169.254:80")
    ));
}

#[test]
fn the_operators_rules_win_over_any_grant() {
    let host = HostRules::new(Deny::default());
    let mut effective = Effective::nothing("p");
    one(
        &mut effective.sockets,
        "s",
        sockets(&["tcp 192.0.2.1:8443", "tcp 127.0.0.1:9180"], NOTHING),
    );
    let guard = Guard::new(&host, effective);
    assert!(allowed(&guard, tcp("192.0.2.1:8443")) && allowed(&guard, tcp("127.0.0.1:9180")));
    host.set_deny(Deny {
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        listeners: vec![sock("127.0.0.1:9180")],
        ..Deny::default()
    });
    assert_eq!(guard.generation_now(), 1);
    assert!(refused(&guard, tcp("192.0.2.1:8443")).contains("denied to all plugins"));
    assert!(refused(&guard, tcp("127.0.0.1:9180")).contains("a listener of this host"));
    assert_eq!(fix(&guard, tcp("127.0.0.1:9180")), None);
}

#[test]
fn resolving_is_a_right_of_its_own() {
    let guard = guard(|e| {
        let allow = ["ns.example.com", "*.example.org"]
            .map(|name| HostPattern::parse(name).unwrap())
            .to_vec();
        one(&mut e.names, "zones", NamesGrant { allow });
        one(&mut e.sockets, "any", sockets(&["tcp *:443"], NOTHING));
    });
    assert!(allowed(
        &guard,
        Action::Resolve {
            name: "ns.example.com"
        }
    ));
    assert!(allowed(
        &guard,
        Action::Resolve {
            name: "a.example.org"
        }
    ));
    let other = Action::Resolve {
        name: "c2VjcmV0.evil.example",
    };
    assert_eq!(
        fix(&guard, other),
        Some("names.zones.allow = [\"c2vjcmv0.evil.example\"]".to_owned())
    );
    assert!(!allowed(&guard, Action::Resolve { name: "127.0.0.1" }));
}

#[test]
fn http_counts_server_method_and_path() {
    let guard = guard(|e| {
        one(
            &mut e.http,
            "api",
            http("https://pdns:8081/api/v1", NOTHING),
        )
    });
    let send = |method, url| Action::Http {
        slot: "api",
        method,
        url,
    };
    assert!(allowed(
        &guard,
        send("GET", "https://pdns:8081/api/v1/servers/a?x=1")
    ));
    assert_eq!(
        fix(&guard, send("POST", "https://pdns:8081/api/v1/servers/a")).unwrap(),
        "http.api.methods = [\"POST\"]"
    );
    assert_eq!(
        fix(&guard, send("GET", "https://pdns:8081/api/v1/zones")).unwrap(),
        "http.api.paths = [\"/zones\"]"
    );
    for url in [
        "http://pdns:8081/api/v1/servers/a",
        "https://pdns/api/v1/servers/a",
        "https://pdns.evil:8081/api/v1/servers/a",
        "https://pdns:8081/api/v1/servers/../x",
        "https://pdns:8081/api/v1/servers/%2e%2e/x",
        "https://pdns:8081@evil/api/v1/servers/a",
        "https://pdns:8081/api/v1/servers//a",
        "/servers/a",
    ] {
        assert!(!allowed(&guard, send("GET", url)), "{url}");
    }
}

#[test]
fn http_addresses_are_checked_after_resolving() {
    let named = guard(|e| one(&mut e.http, "api", http("https://pdns:8081", NOTHING)));
    let address = |text, port| Action::HttpAddress {
        slot: "api",
        ip: ip(text),
        port,
    };
    assert!(allowed(&named, address("192.0.2.1", 8081)));
    assert!(allowed(&named, address("10.0.0.1", 8081)));
    assert!(!allowed(&named, address("192.0.2.1", 80)));
    assert_eq!(
        fix(&named, address("127.0.0.1", 8081)).unwrap(),
        "http.api.loopback = true"
    );
    assert_eq!(fix(&named, address("169.254.169.254", 8081)), None);
    assert!(!allowed(&named, address("64:ff9b::7f00:1", 8081)));
    let local = guard(|e| one(&mut e.http, "api", http("http://127.0.0.1:8000", NOTHING)));
    assert!(allowed(&local, address("127.0.0.1", 8000)));
    assert!(!allowed(&local, address("127.0.0.2", 8000)));
    let localhost = guard(|e| one(&mut e.http, "api", http("http://localhost:8000", NOTHING)));
    assert!(allowed(&localhost, address("::1", 8000)));
}

#[test]
fn foreman_counts_method_and_normal_path() {
    let allow = ["GET /register", "POST /register", "GET /unattended/**"]
        .map(|rule| MethodPath::parse(rule).unwrap())
        .to_vec();
    let guard = guard(|e| {
        let grant = ForemanGrant {
            allow,
            timeout: Duration::ZERO,
            response: 1,
            connections: 1,
            queue: 64,
        };
        one(&mut e.foreman, "f", grant);
    });
    let send = |method, path| Action::Foreman {
        slot: "f",
        method,
        path,
    };
    assert!(allowed(&guard, send("GET", "/register?token=x")));
    assert!(allowed(
        &guard,
        send("GET", "/unattended/provision?token=x")
    ));
    assert_eq!(
        fix(&guard, send("DELETE", "/api/hosts/1?x=y")).unwrap(),
        "foreman.f.allow = [\"DELETE /api/hosts/1\"]"
    );
    for path in [
        "/unattended/%2e%2e/api",
        "/unattended/../api",
        "//api",
        "/unattended/..;/api",
        "/unattended\\..\\api",
        "http://evil/",
        "/unattended/%2f..%2fapi",
    ] {
        assert!(!allowed(&guard, send("GET", path)), "{path}");
    }
}

#[test]
fn downloads_count_url_and_address_of_each_hop() {
    let guard = guard(|e| {
        one(
            &mut e.downloads,
            "d",
            downloads(&["https://*.example.com/pub/**", "http://mirror"], NOTHING),
        )
    });
    let fetch = |url| Action::Download { slot: "d", url };
    assert!(allowed(&guard, fetch("https://a.example.com/pub/x")));
    assert!(!allowed(&guard, fetch("https://a.example.com/private")));
    assert_eq!(
        fix(&guard, fetch("http://other/x?y")).unwrap(),
        "downloads.d.urls = [\"http://other\"]"
    );
    let from = |host, address, port| Action::DownloadAddress {
        slot: "d",
        host,
        ip: ip(address),
        port,
    };
    assert!(allowed(&guard, from("a.example.com", "192.0.2.1", 443)));
    assert_eq!(
        fix(&guard, from("a.example.com", "10.0.0.1", 443)).unwrap(),
        "downloads.d.private-addresses = true"
    );
    assert!(allowed(&guard, from("mirror", "10.0.0.1", 80)));
    assert_eq!(
        fix(&guard, from("mirror", "127.0.0.1", 80)).unwrap(),
        "downloads.d.loopback = true"
    );
    assert!(!allowed(&guard, from("evil", "192.0.2.1", 80)));
    assert!(!allowed(&guard, from("mirror", "192.0.2.1", 25)));
}

#[test]
fn a_download_from_any_host_reaches_no_address_of_this_machine() {
    let guard = guard(|e| {
        one(
            &mut e.downloads,
            "d",
            downloads(
                &["http://*"],
                Inside {
                    private: true,
                    loopback: false,
                },
            ),
        )
    });
    for url in [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/",
        "http://0/",
    ] {
        assert!(
            !allowed(&guard, Action::Download { slot: "d", url }),
            "{url}"
        );
    }
    assert!(allowed(
        &guard,
        Action::Download {
            slot: "d",
            url: "http://10.0.0.1/"
        }
    ));
    assert!(allowed(
        &guard,
        Action::Download {
            slot: "d",
            url: "http://h/"
        }
    ));
}

#[test]
fn a_service_answers_whom_it_heard_and_nobody_else() {
    let grant = |peers: &[&str], broadcast| ListenGrant {
        sockets: vec![ListenSocket::parse("udp 0.0.0.0:67").unwrap()],
        interface: None,
        peers: peers
            .iter()
            .map(|rule| SocketRule::parse(rule).unwrap())
            .collect(),
        broadcast,
        limits: ListenLimits::default(),
    };
    let strict = guard(|e| one(&mut e.listen, "dhcp", grant(&[], false)));
    let send = |peer: &str, heard| Action::DatagramSend {
        slot: "dhcp",
        peer: sock(peer),
        heard,
    };
    assert!(allowed(&strict, send("10.0.0.5:68", true)));
    assert!(allowed(&strict, send("[fe80::1]:547", true)));
    assert_eq!(
        fix(&strict, send("10.0.0.5:68", false)).unwrap(),
        "listen.dhcp.peers = [\"udp 10.0.0.5:68\"]"
    );
    assert_eq!(
        fix(&strict, send("255.255.255.255:68", true)).unwrap(),
        "listen.dhcp.broadcast = true"
    );
    let free = guard(|e| one(&mut e.listen, "dhcp", grant(&["udp 10.0.0.0/8:68"], true)));
    assert!(allowed(&free, send("255.255.255.255:68", false)));
    assert!(allowed(&free, send("10.0.0.5:68", false)));
    assert!(!allowed(&free, send("10.0.0.5:69", false)));
    let listen = |addr: &str| Action::Listen {
        slot: "dhcp",
        transport: Transport::Udp,
        addr: sock(addr),
    };
    assert!(allowed(&strict, listen("0.0.0.0:67")));
    assert!(!allowed(&strict, listen("0.0.0.0:68")));
}

#[test]
fn store_secrets_and_calls_count_access() {
    let guard = guard(|e| {
        one(
            &mut e.store,
            "leases",
            StoreGrant {
                space: Space::Own,
                access: Access::Read,
                bytes: 1,
                keys: 1,
            },
        );
        let secret = SecretGrant {
            source: SecretSource::Credential("tsig".to_owned()),
            format: SecretFormat::Raw,
            algorithm: None,
            key_name: None,
            access: SecretAccess::Use,
        };
        one(&mut e.secrets, "tsig", secret);
        one(
            &mut e.call,
            "dns-provider",
            CallGrant {
                plugin: "dns-rfc2136".to_owned(),
            },
        );
    });
    assert!(allowed(
        &guard,
        Action::Store {
            slot: "leases",
            write: false
        }
    ));
    assert_eq!(
        fix(
            &guard,
            Action::Store {
                slot: "leases",
                write: true
            }
        )
        .unwrap(),
        "store.leases.access = \"read-write\""
    );
    assert!(allowed(
        &guard,
        Action::Secret {
            slot: "tsig",
            reveal: false
        }
    ));
    assert_eq!(
        fix(
            &guard,
            Action::Secret {
                slot: "tsig",
                reveal: true
            }
        )
        .unwrap(),
        "secrets.tsig.access = \"reveal\""
    );
    assert!(allowed(
        &guard,
        Action::Call {
            interface: "dns-provider",
            callee: "dns-rfc2136"
        }
    ));
    let other = Action::Call {
        interface: "dns-provider",
        callee: "evil",
    };
    assert_eq!(
        fix(&guard, other).unwrap(),
        "call.dns-provider.plugin = \"evil\""
    );
}

#[test]
fn watch_probe_and_link_name_their_places() {
    let guard = guard(|e| {
        one(
            &mut e.watch,
            "leases",
            WatchGrant {
                place: WatchPlace::Files(vec!["/var/lib/dhcpd.leases".into()]),
                hide: Hide::Nothing,
            },
        );
        one(
            &mut e.probe,
            "subnets",
            ProbeGrant {
                allow: vec!["10.0.0.0/8".parse().unwrap()],
                rate: 10,
            },
        );
        one(
            &mut e.link,
            "dhcp",
            LinkGrant {
                interfaces: vec!["eth0".to_owned()],
                port: 67,
            },
        );
    });
    let watch = |path| Action::Watch {
        slot: "leases",
        path,
    };
    assert!(allowed(&guard, watch("/var/lib/dhcpd.leases")));
    assert_eq!(
        fix(&guard, watch("/etc/shadow")).unwrap(),
        "watch.leases.files = [\"/etc/shadow\"]"
    );
    assert!(allowed(
        &guard,
        Action::Probe {
            slot: "subnets",
            ip: ip("10.1.2.3")
        }
    ));
    assert!(!allowed(
        &guard,
        Action::Probe {
            slot: "subnets",
            ip: ip("11.1.2.3")
        }
    ));
    assert!(allowed(
        &guard,
        Action::Link {
            slot: "dhcp",
            interface: "eth0"
        }
    ));
    assert_eq!(
        fix(
            &guard,
            Action::Link {
                slot: "dhcp",
                interface: "eth1"
            }
        )
        .unwrap(),
        "link.dhcp.interfaces = [\"eth1\"]"
    );
}

#[test]
fn response_headers_of_the_host_stay_the_hosts() {
    let guard = Guard::empty("p");
    for name in [
        "content-type",
        "x-cascade",
        "location",
        "cache-control",
        "etag",
    ] {
        assert!(allowed(&guard, Action::ResponseHeader { name }), "{name}");
    }
    for name in [
        "set-cookie",
        "transfer-encoding",
        "content-length",
        "connection",
        "server",
        "x-accel-redirect",
        "Set-Cookie",
        "a b",
        "a\r\nb",
        "",
        "a:b",
    ] {
        assert!(
            !allowed(&guard, Action::ResponseHeader { name }),
            "{name:?}"
        );
    }
}

#[test]
fn use_is_counted_and_goes_on_over_a_policy_change() {
    let make = || {
        let mut effective = Effective::nothing("p");
        one(
            &mut effective.sockets,
            "dns",
            sockets(&["tcp 192.0.2.1:53"], NOTHING),
        );
        effective
    };
    let guard = Guard::new(&HostRules::new(Deny::default()), make());
    for _ in 0..3 {
        assert!(allowed(&guard, tcp("192.0.2.1:53")));
    }
    assert!(guard.still_allows(&tcp("192.0.2.1:53")));
    guard.replace(make());
    assert!(allowed(&guard, tcp("192.0.2.1:53")));
    assert_eq!(
        guard.effective().sockets.get("dns").unwrap().uses.total(),
        4
    );
}

#[test]
fn a_denial_is_remembered_with_its_line() {
    let guard = Guard::empty("tftp");
    let _ = guard.decide(&Action::FileOpen {
        slot: "root",
        path: "a",
        write: true,
    });
    let _ = guard.decide(&Action::FileOpen {
        slot: "root",
        path: "a",
        write: true,
    });
    let known = guard.host().audit().denials(Some("tftp"));
    assert_eq!((known.len(), known[0].count), (1, 2));
    assert_eq!(
        known[0].denial.fix.as_deref(),
        Some("files.root = { directory = \"/path/to/directory\", access = \"read-write\" }")
    );
}
