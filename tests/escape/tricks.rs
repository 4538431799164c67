//! Tricks that no grant is for: headers that come late, cookies for others, many memories, floods that drive a terminal, calls whose caller is gone.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_testkit::foreman::Foreman;
use bulkhead_testkit::load::Load;
use bulkhead_testkit::medium::Medium;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, run};

use crate::masks::digest;
use crate::stage::{SONG, quoted};

/// Trailer fields of a streamed body, by which a client would say what its head may not: they go no further than the host.
#[test]
fn trailers_of_a_streamed_body_never_pass() {
    let web = Medium::start();
    web.put("canary", SONG);
    let grants = format!(
        "[http.api]\nurl = \"http://{}/\"\nmethods = [\"POST\"]\n",
        web.address
    );
    let bulkhead = Bulkhead::with(Configuration::empty().plugin(
        "prober",
        bulkhead_fixtures::wasm("prober"),
        &grants,
    ));
    let body = "5\r\nhello\r\n0\r\nHost: evil.example.com\r\nX-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n\
                X-Forwarded-Host: evil.example.com\r\nAuthorization: Bearer stolen\r\nTransfer-Encoding: evil\r\n\r\n";
    let head = |target: &str, host: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nTE: trailers\r\nTrailer: Host, X-Forwarded-For\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
    };
    // Sent straight to the server they are seen there, or their absence would show nothing.
    let mut straight = TcpStream::connect(web.address).unwrap();
    straight
        .write_all(format!("{}{body}", head("/file/canary", "x")).as_bytes())
        .unwrap();
    straight.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = straight.read_to_end(&mut Vec::new());
    let seen = |n: usize| {
        let request = web.requests().get(n).cloned();
        request.map(|it| format!("{}{}", it.head, String::from_utf8_lossy(&it.body)))
    };
    assert!(
        seen(0).is_some_and(|it| it.contains("Bearer stolen")),
        "{:?}",
        seen(0)
    );

    let target = bulkhead.foreman();
    let path = "/prober/pass?slot=api&target=/file/canary";
    let mut connection = target
        .send(format!("{}{body}", head(path, &target.host())))
        .unwrap();
    let answer = connection.response("POST").unwrap();
    assert!(answer.text().contains(SONG), "{answer}");
    let arrived = seen(1).expect("the body was forwarded");
    assert!(arrived.contains("hello"), "{arrived}");
    for word in ["evil", "203.0.113.9", "stolen", "railer"] {
        assert!(!arrived.contains(word), "{word} passed: {arrived}");
    }
}

/// A plugin answers on a shared origin: it sets no cookie and no rule for the other pages there, nor does an upstream that it passes on.
#[test]
fn no_answer_sets_a_cookie_or_a_rule_for_others() {
    let configuration = Configuration::empty();
    let foreman = Foreman::answering(&configuration.authority, |_| {
        b"HTTP/1.1 200 OK\r\nSet-Cookie: _session_id=theirs\r\nX-Runtime: 0.1\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    let bulkhead = Bulkhead::with(configuration.foreman(&foreman).plugin(
        "prober",
        bulkhead_fixtures::wasm("prober"),
        "[foreman.foreman]\nallow = [\"GET /api/**\"]",
    ));
    let target = bulkhead.foreman();
    let with = |name: &str| target.get(&format!("/prober/header?name={name}&value=stolen"));
    // Others it may set, or the trick would prove nothing.
    let answer = with("x-own");
    assert_eq!(
        (answer.status, answer.header("x-own")),
        (200, Some("stolen")),
        "{answer}"
    );
    for name in [
        "set-cookie",
        "Set-Cookie",
        "strict-transport-security",
        "alt-svc",
        "clear-site-data",
        "x-accel-redirect",
        "x-sendfile",
        "transfer-encoding",
        "connection",
    ] {
        let answer = with(name);
        assert_eq!(answer.status, 200, "{name}: {answer}");
        assert!(!answer.to_string().contains("stolen"), "{name}: {answer}");
        let told = format!("set the response header `{}`", name.to_lowercase());
        assert_eventually!(
            bulkhead
                .log_lines("may not")
                .iter()
                .any(|line| line.contains(&told)),
            "no denial: {told}\n{}",
            bulkhead.log()
        );
    }
    for header in ["x-split%0d%0aset-cookie:%20a", "x%20y", ""] {
        let answer = target.get(&format!("/prober/header?name={header}&value=stolen"));
        assert_eq!(answer.status, 500, "{answer}");
        assert!(!answer.to_string().contains("stolen"), "{answer}");
    }
    let answer = target.get("/prober/header?name=x-own&value=a%0d%0aset-cookie:%20stolen");
    assert_eq!(
        (answer.status, answer.header("set-cookie")),
        (500, None),
        "{answer}"
    );
    let answer = target.get("/prober/forward?slot=foreman&method=GET&target=/api/status");
    assert_eq!(
        (answer.status, answer.header("x-runtime")),
        (200, Some("0.1")),
        "{answer}"
    );
    assert_eq!(answer.header("set-cookie"), None, "{answer}");
}

/// A component of which every further memory would be within the limit, and all of them together are not.
fn with_memories(wasm: &[u8], count: u8, pages: u8) -> Vec<u8> {
    use wasmparser::{Parser, Payload};
    let mut depth = 0_u32;
    let mut modules = 0_u8;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } => {
                modules += u8::from(depth == 0);
                depth += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    // One more core module, which has a memory of so many pages and nothing else, and so many instances of it.
    let module = [b"\0asm\x01\0\0\0".as_slice(), &[5, 4, 1, 0], &varint(pages)].concat();
    let mut longer = wasm.to_vec();
    longer.extend([1, u8::try_from(module.len()).unwrap()]);
    longer.extend(module);
    longer.extend([2, 1 + 3 * count, count]);
    for _ in 0..count {
        longer.extend([0, modules, 0]);
    }
    longer
}

/// Two bytes, so that the length of what holds it does not depend on the value.
fn varint(value: u8) -> [u8; 2] {
    [value | 0x80, value >> 7]
}

/// Three memories of 4 MiB beside its own: the limit is on their sum, not on each. Thirty-two are too many in number, whatever they hold: the places for
/// memories are few, and every plugin needs one.
#[test]
fn many_memories_are_one_sum() {
    let few = with_memories(bulkhead_fixtures::wasm("prober"), 3, 64);
    let many = with_memories(bulkhead_fixtures::wasm("prober"), 31, 1);
    let configuration = Configuration::empty();
    configuration.scratch.file("plugins/prober.wasm", &few);
    let policy = |limit: &str| {
        let approved = [digest(&few), digest(&many)];
        format!("plugin = \"prober\"\napproved = {approved:?}\n[limits]\n{limit}\n")
    };
    configuration
        .scratch
        .file("policies/prober.toml", policy("memory = \"8MiB\""));
    let bulkhead = Bulkhead::launch(configuration, &[]);
    let plugins = || {
        let answer = bulkhead.admin().request("GET", "/plugins").try_send();
        answer.map(|it| it.text()).unwrap_or_default()
    };
    assert_eventually!(
        plugins().contains("limits.memory = 8388608 bytes is used up"),
        "{}\n{}",
        plugins(),
        bulkhead.log()
    );
    assert_eq!(bulkhead.foreman().get("/prober/caller").status, 404);
    let scratch = &bulkhead.configuration.scratch;
    let put = |place: &str, content: &[u8]| {
        let new = scratch.file("plugins/.new", content);
        std::fs::rename(new, scratch.join(place)).unwrap();
    };
    put(
        "policies/prober.toml",
        policy("memory = \"32MiB\"").as_bytes(),
    );
    let serves = || bulkhead.foreman().get("/prober/caller").status == 200;
    assert_eventually!(serves(), "{}\n{}", plugins(), bulkhead.log());
    put("plugins/prober.wasm", &many);
    assert_eventually!(
        plugins().contains("32 memories") || plugins().contains("memories"),
        "{}\n{}",
        plugins(),
        bulkhead.log()
    );
    assert!(serves(), "the last good version is gone: {}", plugins());
}

/// What a plugin writes is text: nothing of it reaches a terminal as a command, forges a line, or fills the log.
#[test]
fn floods_with_terminal_codes_are_escaped_and_counted() {
    let bulkhead = Bulkhead::with(Configuration::empty().plugin(
        "prober",
        bulkhead_fixtures::wasm("prober"),
        "",
    ));
    let target = bulkhead.foreman();
    assert_eq!(target.get("/prober/take?what=codes&amount=3").text(), "ok");
    let printed = |text: &str| bulkhead.log_lines(text);
    assert_eventually!(
        !printed("printed 2").is_empty() && !printed("owned").is_empty(),
        "{}",
        bulkhead.log()
    );
    let before = bulkhead.log().lines().count();
    assert_eq!(
        target.get("/prober/take?what=codes&amount=5000").text(),
        "ok"
    );
    // Text of a plugin also stands in denials, errors and paths.
    for path in [
        "/prober/resolve?name=%1b[2Jx.example.com",
        "/prober/http?slot=%1b]0;owned%07&method=GET&target=/",
        "/prober/foreman?slot=foreman&method=G%1b&target=/%1b[31m",
    ] {
        let answer = target.get(path);
        assert!(answer.text().starts_with("refused"), "{answer}");
    }
    assert_eventually!(!printed("may not").is_empty(), "{}", bulkhead.log());
    std::thread::sleep(Duration::from_secs(2));
    let log = bulkhead.log();
    let state = bulkhead.configuration.scratch.join("state");
    let denials = run(["policy", "denials", "--state", state.to_str().unwrap()]);
    let shown = [
        log.clone(),
        target.get("/logs/").text(),
        bulkhead.admin().get("/metrics").text(),
        bulkhead.admin().get("/plugins").text(),
        denials.text(),
    ];
    for text in &shown {
        let wrong = text
            .chars()
            .find(|c| (c.is_control() && *c != '\n') || ['\u{202e}', '\u{2066}'].contains(c));
        assert_eq!(
            wrong,
            None,
            "{}",
            text.lines()
                .find(|line| wrong.is_some_and(|c| line.contains(c)))
                .unwrap_or_default()
        );
    }
    assert!(
        !log.lines()
            .any(|line| line.trim_start().starts_with("ERROR forged")),
        "a line was forged"
    );
    // 5,000 lines were written and as many printed; a hundred a second pass.
    let lines = log.lines().count() - before;
    assert!(lines < 2000, "{lines} lines were printed");
    let metrics = &shown[2];
    let counted = metrics.lines().any(|line| {
        line.starts_with("bulkhead_log_lines_suppressed")
            && line.contains("prober")
            && line
                .rsplit(' ')
                .next()
                .and_then(|it| it.parse::<f64>().ok())
                .is_some_and(|it| it > 4000.0)
    });
    assert!(
        counted,
        "nothing says how many lines are missing:\n{metrics}"
    );
}

/// A caller that leaves ends nothing: its call goes on, its place is free when it is over, and the next caller finds nothing of it.
#[test]
fn a_client_that_leaves_in_mid_call_leaves_nothing_behind() {
    let configuration = Configuration::empty();
    let data = configuration.scratch.directory("data");
    let grants = format!(
        "[files.data]\ndirectory = {}\naccess = \"read-write\"\n[limits]\nconcurrency = 2\nwarm = 2\n",
        quoted(&data)
    );
    let bulkhead =
        Bulkhead::with(configuration.plugin("prober", bulkhead_fixtures::wasm("prober"), &grants));
    let target = bulkhead.foreman();
    for round in 0..6 {
        let path = format!("/prober/late?amount=600&path=/data/late-{round}&text=x");
        let request = target
            .request("GET", &path)
            .header("X-Request-Id", &format!("left-{round}"))
            .header("X-Secret-Of-The-First", "mine")
            .bytes();
        let connection = target.send(request).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        drop(connection);
    }
    let next = target
        .request("GET", "/prober/caller")
        .header("X-Request-Id", "stayed")
        .send();
    assert_eq!(next.status, 200, "{next}\n{}", bulkhead.log());
    assert!(
        next.text().contains("stayed") && !next.text().contains("left-"),
        "{next}"
    );
    for round in 0..6 {
        assert_eventually!(
            data.join(format!("late-{round}")).exists(),
            "the call of round {round} did not go on:\n{}",
            bulkhead.log()
        );
    }
    // Both places are free, and no more instances are there than may be.
    let instances = |state: &str| {
        let metrics = bulkhead.admin().get("/metrics").text();
        let line = metrics.lines().find(|line| {
            line.starts_with("bulkhead_instances")
                && line.contains("\"prober\"")
                && line.contains(state)
        });
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
    };
    assert_eventually!(instances("busy") == Some(0), "{:?}", instances("busy"));
    assert!(
        instances("idle").is_some_and(|it| it <= 2),
        "{:?}",
        instances("idle")
    );
    let load = Load {
        rest: Duration::from_millis(1),
        ..Load::full(2, Duration::from_secs(1))
    };
    let request = target.request("GET", "/prober/caller").bytes();
    let measured = load.run(&target, &request, &Arc::default());
    assert!(
        measured.failures.is_empty(),
        "{:?}",
        measured.failures.first()
    );
}
