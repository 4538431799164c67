//! Just outside a grant: the attacker has every kind of access, and tries to stretch each.

use std::fs;
use std::os::unix::fs::symlink;

use crate::stage::{SONG, Stage};

/// Tries each and fails unless every one is refused and shows no canary.
#[track_caller]
fn assert_all_refused(stage: &Stage, what: &str, tries: &[Vec<(&str, &str)>]) {
    let mut open = Vec::new();
    for fields in tries {
        let answer = stage.try_to(what, fields);
        if answer.contains(SONG) || answer.contains("root:") || answer.starts_with("200 ok") {
            open.push(format!("{fields:?}: {answer}"));
        }
    }
    assert!(open.is_empty(), "{what} went through:\n{}", open.join("\n"));
}

#[test]
fn files_end_at_the_granted_tree() {
    let stage = Stage::granted();
    symlink("../outside/canary", stage.data.join("link-out")).unwrap();
    symlink(
        stage.outside.join("canary"),
        stage.data.join("absolute-out"),
    )
    .unwrap();
    symlink("../outside", stage.data.join("directory-out")).unwrap();
    symlink("/proc/self/root", stage.data.join("proc-root")).unwrap();
    let boot = stage.bulkhead.boot().join("canary");
    let (boot, outside) = (
        boot.display().to_string(),
        stage.outside.join("canary").display().to_string(),
    );
    for what in ["read", "list", "remove"] {
        let paths = [
            "/etc/passwd",
            "/",
            "/..",
            "/data/../../etc/passwd",
            "/data/../outside/canary",
            "/data/../outside",
            "/data/link-out",
            "/data/absolute-out",
            "/data/directory-out/canary",
            "/data/directory-out",
            "/data/proc-root/etc/passwd",
            "/proc/self/environ",
            "/root/canary",
            "/boot/canary",
            outside.as_str(),
            boot.as_str(),
        ];
        let tries: Vec<_> = paths
            .iter()
            // Removing a link removes the link, and listing `/` may show the names of the granted trees.
            .filter(|path| {
                what == "read" || !(path.ends_with("-out") || **path == "/" || **path == "/..")
            })
            .map(|path| vec![("path", *path)])
            .collect();
        assert_all_refused(&stage, what, &tries);
    }
    for place in ["outside/canary", "boot/canary", "readable/canary"] {
        assert_eq!(
            fs::read_to_string(stage.bulkhead.configuration.scratch.join(place)).unwrap(),
            SONG
        );
    }
}

#[test]
fn writing_ends_where_it_is_granted() {
    let stage = Stage::granted();
    symlink(&stage.outside, stage.data.join("out")).unwrap();
    symlink(stage.outside.join("new"), stage.data.join("dangling-out")).unwrap();
    let paths = [
        "/readable/new",
        "/readable/canary",
        "/data/../outside/new",
        "/data/out/new",
        "/data/dangling-out",
        "/new",
        "/tmp/new",
    ];
    let tries: Vec<_> = paths
        .iter()
        .map(|path| vec![("path", *path), ("text", "x")])
        .collect();
    assert_all_refused(&stage, "write", &tries);
    for (from, to) in [
        ("/data/canary", "/data/../outside/new"),
        ("/data/canary", "/data/out/new"),
        ("/data/canary", "/readable/new"),
        ("/readable/canary", "/data/stolen"),
        ("/data/out/canary", "/data/stolen"),
        ("/data", "/data2"),
        ("/data/canary", "/data"),
    ] {
        for what in ["rename", "link"] {
            assert_all_refused(&stage, what, &[vec![("path", from), ("to", to)]]);
        }
    }
    // No links at all: whoever serves the tree would follow them.
    assert_all_refused(
        &stage,
        "link",
        &[vec![("path", "/data/canary"), ("to", "/data/hard")]],
    );
    assert_eq!(
        fs::read_dir(&stage.outside).unwrap().count(),
        1,
        "something was written outside"
    );
    assert_eq!(
        fs::read_to_string(stage.outside.join("canary")).unwrap(),
        SONG
    );
}

#[test]
fn quotas_of_bytes_and_files_hold_exactly() {
    let stage = Stage::granted();
    // 20 files are granted, one is there.
    let made: Vec<String> = (0..30)
        .map(|n| stage.try_to("write", &[("path", &format!("/data/{n}")), ("text", "x")]))
        .collect();
    let succeeded = made
        .iter()
        .filter(|answer| answer.starts_with("200 ok"))
        .count();
    assert_eq!(succeeded, 19, "{made:?}");
    assert_eq!(fs::read_dir(&stage.data).unwrap().count(), 20);
    for n in 0..19 {
        stage.try_to("remove", &[("path", &format!("/data/{n}"))]);
    }
    // 1 MiB is granted, the canary takes some of it; queries are short, so it is filled in small pieces.
    let piece = "x".repeat(8 * 1024);
    let fits = (0..19)
        .map(|n| {
            stage.try_to(
                "write",
                &[("path", &format!("/data/{n}")), ("text", &piece)],
            )
        })
        .all(|answer| answer.starts_with("200 ok"));
    assert!(fits, "freed room is given back");
}

#[test]
fn sockets_end_at_the_granted_addresses() {
    let stage = Stage::granted();
    let doors = stage.bulkhead.configuration.doors;
    let mut addresses: Vec<String> = [
        doors.admin,
        doors.foreman_http,
        doors.hosts_http,
        stage.udp,
        stage.tcp ^ 1,
        22,
        53,
        7911,
    ]
    .iter()
    .map(|port| format!("127.0.0.1:{port}"))
    .collect();
    let tcp = stage.tcp;
    addresses.extend([
        format!("0.0.0.0:{tcp}"),
        format!("127.0.0.2:{tcp}"),
        format!("[::1]:{tcp}"),
        format!("[::]:{tcp}"),
        format!("[::ffff:127.0.0.2]:{tcp}"),
        format!("[64:ff9b::7f00:1]:{tcp}"),
        "169.254.169.254:80".to_owned(),
        "[::ffff:169.254.169.254]:80".to_owned(),
        "[fd00:ec2::254]:80".to_owned(),
        "255.255.255.255:9".to_owned(),
        "224.0.0.1:9".to_owned(),
    ]);
    let tries: Vec<_> = addresses
        .iter()
        .map(|address| vec![("address", address.as_str()), ("text", "x")])
        .collect();
    assert_all_refused(&stage, "tcp", &tries);
    let udp: Vec<_> = tries
        .iter()
        .filter(|one| one[0].1 != format!("127.0.0.1:{}", stage.udp))
        .cloned()
        .collect();
    let reached = stage.reached();
    for fields in &udp {
        // A datagram that was refused has no answer either: the canary decides.
        stage.try_to("udp", fields);
    }
    assert_eq!(stage.reached(), reached, "a socket canary was reached");
    let listen = ["127.0.0.1:0", "0.0.0.0:0", "[::]:0", "127.0.0.1:8080"]
        .map(|address| vec![("address", address)]);
    assert_all_refused(&stage, "listen", &listen);
}

#[test]
fn names_end_at_the_granted_ones() {
    let stage = Stage::granted();
    let names = [
        "example.com",
        "localhost.example.com",
        "secrets-carried-out.example.com",
        "xlocalhost",
        "127.0.0.2",
        "2130706434",
        "0x7f000002",
        "metadata.google.internal",
        "",
    ];
    // Addresses in text are no names; a resolver that takes them answers what the guest already knows, but must ask nobody.
    let tries: Vec<_> = names
        .iter()
        .filter(|name| !name.starts_with(|c: char| c.is_ascii_digit()))
        .map(|name| vec![("name", *name)])
        .collect();
    assert_all_refused(&stage, "resolve", &tries);
    stage.assert_denied("example.com");
}

#[test]
fn requests_end_at_the_granted_paths() {
    let stage = Stage::granted();
    let outside = stage.web.url("status/200");
    let elsewhere = format!(
        "http://127.0.0.1:{}/metrics",
        stage.bulkhead.configuration.doors.admin
    );
    let userinfo = format!(
        "http://127.0.0.1:{}@127.0.0.1:{}/file/canary",
        stage.web.address.port(),
        stage.bulkhead.configuration.doors.admin
    );
    let targets = [
        "/status/200",
        "/",
        "/file",
        "/filecanary",
        "/file/../status/200",
        "/file/%2e%2e/status/200",
        "/file/.%2e/status/200",
        "/file//../status/200",
        "//status/200",
        "/file\\..\\status\\200",
        "/file;/../status/200",
        "/file/..;/status/200",
        "/file/%2e%2e%2fstatus/200",
        "file/canary",
        "/file/canary HTTP/1.1\r\nX: y",
        "/file/canary\r\n\r\nGET /status/200 HTTP/1.1",
        outside.as_str(),
        elsewhere.as_str(),
        userinfo.as_str(),
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
    ];
    for method in [
        "GET",
        "POST",
        "get",
        "CONNECT",
        "GET /status/200 HTTP/1.1\r\nX:",
    ] {
        let tries: Vec<_> = targets
            .iter()
            .map(|target| vec![("slot", "api"), ("method", method), ("target", *target)])
            .collect();
        assert_all_refused(&stage, "http", &tries);
        assert_all_refused(&stage, "forward", &tries);
    }
    let other_slots = ["foreman", "keys", "data", "nonsense", ""].map(|slot| {
        vec![
            ("slot", slot),
            ("method", "GET"),
            ("target", "/file/canary"),
        ]
    });
    assert_all_refused(&stage, "http", &other_slots);
    for request in stage.web.requests() {
        assert!(request.line().starts_with("GET /file/"), "{request:?}");
        assert!(!request.line().contains(".."), "{request:?}");
    }
}

#[test]
fn foreman_is_asked_only_what_is_granted() {
    let stage = Stage::granted();
    let targets = [
        "/users/login",
        "/",
        "/apiary",
        "/api/../users",
        "/api/%2e%2e/users",
        "/api/..%2fusers",
        "//users",
        "/api//../users",
        "/api;/../users",
        "/unattended/%2e%2e/api",
        "/api/x\r\nX-Injected: y",
        "https://elsewhere.example.com/api/x",
    ];
    for method in ["GET", "POST", "DELETE"] {
        let tries: Vec<_> = targets
            .iter()
            .map(|target| vec![("slot", "foreman"), ("method", method), ("target", *target)])
            .collect();
        assert_all_refused(&stage, "foreman", &tries);
        assert_all_refused(&stage, "forward", &tries);
    }
    assert_all_refused(
        &stage,
        "foreman",
        &[vec![
            ("slot", "foreman"),
            ("method", "POST"),
            ("target", "/api/status"),
        ]],
    );
    for request in stage.foreman.requests() {
        assert!(
            request.line().starts_with("GET /api/") && !request.line().contains(".."),
            "{request:?}"
        );
        assert_eq!(request.header("x-injected"), None);
    }
}

#[test]
fn downloads_end_at_the_granted_urls_and_directory() {
    let stage = Stage::granted();
    let good = stage.web.url("file/canary");
    let admin = stage.bulkhead.configuration.doors.admin;
    let redirect_out = stage
        .web
        .redirect("out", &format!("http://127.0.0.1:{admin}/metrics"));
    let tries = [
        vec![
            ("slot", "media"),
            ("url", good.as_str()),
            ("path", "../outside/fetched"),
        ],
        vec![("slot", "media"), ("url", good.as_str()), ("path", "")],
        vec![
            ("slot", "media"),
            ("url", "file:///etc/passwd"),
            ("path", "fetched"),
        ],
        vec![
            ("slot", "media"),
            ("url", "http://169.254.169.254/"),
            ("path", "fetched"),
        ],
        vec![
            ("slot", "media"),
            ("url", "http://example.com/"),
            ("path", "fetched"),
        ],
        vec![
            ("slot", "data"),
            ("url", good.as_str()),
            ("path", "fetched"),
        ],
    ];
    assert_all_refused(&stage, "download", &tries);
    // A path is below the directory even where it is written as an absolute one.
    stage.try_to(
        "download",
        &[
            ("slot", "media"),
            ("url", &good),
            ("path", "/etc/bulkhead-was-here"),
        ],
    );
    assert!(!std::path::Path::new("/etc/bulkhead-was-here").exists());
    // A redirect is decided when it is met: the call succeeds, the file never comes.
    stage.try_to(
        "download",
        &[
            ("slot", "media"),
            ("url", &redirect_out),
            ("path", "redirected"),
        ],
    );
    stage.assert_denied("metrics");
    assert!(!stage.data.join("redirected").exists());
    assert_eq!(fs::read_dir(&stage.outside).unwrap().count(), 1);
}

#[test]
fn file_answers_end_at_the_granted_tree() {
    let stage = Stage::granted();
    symlink("../outside/canary", stage.data.join("link-out")).unwrap();
    for (slot, path) in [
        ("data", "../outside/canary"),
        ("data", "/etc/passwd"),
        ("data", "link-out"),
        ("data", "../../../../../../etc/passwd"),
        ("keys", "canary"),
        ("nonsense", "canary"),
        ("", "canary"),
    ] {
        let answer = stage.try_to("file", &[("slot", slot), ("path", path)]);
        assert!(
            !answer.contains(SONG) && !answer.contains("root:"),
            "{slot} {path}: {answer}"
        );
        assert!(!answer.starts_with("200"), "{slot} {path}: {answer}");
    }
}

#[test]
fn the_environment_is_empty() {
    let stage = Stage::granted();
    let answer = stage.try_to("environment", &[]);
    for name in ["PATH", "HOME", "USER", "BULKHEAD", "CREDENTIALS"] {
        assert!(!answer.contains(name), "{answer}");
    }
}

#[test]
fn secrets_appear_nowhere_but_where_they_are_revealed() {
    let stage = Stage::granted();
    assert!(stage.try_to("reveal", &[("slot", "key")]).contains(SONG));
    let tries = ["keys", "data", "nonsense", ""].map(|slot| vec![("slot", slot)]);
    assert_all_refused(&stage, "reveal", &tries);
    assert!(
        !stage.bulkhead.log().contains(SONG),
        "a secret is in the log"
    );
    for path in ["/logs/", "/v2/features", "/features", "/version"] {
        assert!(
            !stage.bulkhead.foreman().get(path).text().contains(SONG),
            "{path}"
        );
    }
    for path in ["/metrics", "/plugins", "/ports"] {
        assert!(
            !stage.bulkhead.admin().get(path).text().contains(SONG),
            "{path}"
        );
    }
}
