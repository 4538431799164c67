//! Working with policies, by the commands an operator has: what stands in the file is what holds, and what a denial says can be used as it stands.

use std::fs;
use std::net::TcpListener;

use bulkhead_testkit::{Bulkhead, Configuration, Finished, assert_eventually, run};

use crate::masks::masked;
use crate::stage::{SONG, quoted};

/// A program with the attacker, which has one right, and a policy with words of its operator in it.
fn start() -> Bulkhead {
    let configuration = Configuration::standard();
    let data = configuration.scratch.directory("data");
    fs::write(data.join("canary"), SONG).unwrap();
    let grants = format!(
        "# what the operator thought\n[files.data]  # and here\ndirectory = {}\n[names.nobody]\nallow = [\"x.example.com\"]",
        quoted(&data)
    );
    Bulkhead::with(configuration.plugin("prober", bulkhead_fixtures::wasm("prober"), &grants))
}

fn policy(bulkhead: &Bulkhead, arguments: &[&str]) -> Finished {
    let config = bulkhead.configuration.path();
    let config = config.to_str().unwrap();
    let words = ["policy"].into_iter().chain(arguments.iter().copied());
    run(words.chain(["--config", config]))
}

fn file(bulkhead: &Bulkhead) -> String {
    let path = bulkhead.configuration.scratch.join("policies/prober.toml");
    fs::read_to_string(path).unwrap()
}

/// A row of `policy explain`, by its slot.
fn explained(bulkhead: &Bulkhead, slot: &str) -> String {
    let told = policy(bulkhead, &["explain", "prober"]);
    assert_eq!(told.code(), Some(0), "{}", told.text());
    let row = told
        .stdout
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(slot));
    row.unwrap_or_default().to_owned()
}

#[test]
fn explain_shows_what_was_asked_granted_used_and_never_used() {
    let bulkhead = start();
    assert!(
        explained(&bulkhead, "data").contains("never"),
        "{}",
        explained(&bulkhead, "data")
    );
    for _ in 0..3 {
        let answer = bulkhead.foreman().get("/prober/read?path=/data/canary");
        assert!(answer.text().contains(SONG), "{answer}");
    }
    let row = explained(&bulkhead, "data");
    for words in ["files", "read-write", "data", "tries whether it gets there"] {
        assert!(row.contains(words), "{words}: {row}");
    }
    assert!(row.split_whitespace().any(|word| word == "3"), "{row}");
    assert!(
        explained(&bulkhead, "keys").contains("nothing"),
        "{}",
        explained(&bulkhead, "keys")
    );
    bulkhead.foreman().get("/prober/store?slot=keys&key=a");
    let row = explained(&bulkhead, "keys");
    assert!(
        row.split_whitespace().any(|word| word == "1"),
        "a denial is not counted: {row}"
    );
    // A grant without a need gives nothing, and is named.
    let told = policy(&bulkhead, &["explain", "prober"]);
    assert!(
        told.stdout.contains("Warning: ") && told.stdout.contains("`names.nobody`"),
        "{}",
        told.stdout
    );
}

/// Each denial that says "allow with" is right: the line is taken as it stands, holds at once, and the file keeps every word.
#[test]
fn the_line_of_a_denial_allows_what_was_denied() {
    let bulkhead = start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let news = bulkhead.configuration.scratch.file("news", "new");
    let attempts = [
        format!("hold?address={address}&count=1"),
        "resolve?name=localhost".to_owned(),
        "store?slot=keys&key=a".to_owned(),
        "keys?what=scan&slot=shared".to_owned(),
        format!("watch?slot=listed&path={}", news.display()),
        "probe?slot=net&address=127.0.0.1&count=1".to_owned(),
        "write?path=/data/new&text=x".to_owned(),
    ];
    let refused = |attempt: &str| {
        let answer = bulkhead.foreman().get(&format!("/prober/{attempt}"));
        answer.text().starts_with("refused")
    };
    for attempt in &attempts {
        assert!(refused(attempt), "{attempt} is not denied to begin with");
    }
    let denials = policy(&bulkhead, &["denials", "--format", "json"]);
    let denials: Vec<serde_json::Value> = serde_json::from_str(&denials.stdout).unwrap();
    let lines: Vec<&str> = denials
        .iter()
        .filter_map(|denial| denial["fix"].as_str())
        .collect();
    assert!(lines.len() >= attempts.len(), "{lines:?}");
    for line in &lines {
        let done = policy(&bulkhead, &["allow", "prober", line]);
        assert_eq!(done.code(), Some(0), "{line}: {}", done.text());
        assert!(
            done.stdout.contains("it holds from now on"),
            "{line}: {}",
            done.text()
        );
    }
    // At once: the command returns when it holds.
    for attempt in &attempts {
        assert!(
            !refused(attempt),
            "{attempt} is denied in spite of\n{}",
            file(&bulkhead)
        );
    }
    for words in ["# what the operator thought\n", "# and here\n"] {
        assert!(
            file(&bulkhead).contains(words),
            "{words:?} is gone:\n{}",
            file(&bulkhead)
        );
    }
    // What it does not ask for, no line grants, and none is offered.
    bulkhead
        .foreman()
        .get("/prober/http?slot=unheard&method=GET&target=/");
    let denials = policy(&bulkhead, &["denials", "--plugin", "prober"]).stdout;
    let told = denials
        .split("prober: ")
        .find(|text| text.contains("`unheard`"))
        .unwrap_or_default();
    assert!(told.contains("no line can allow it"), "{denials}");
}

/// A line that would make the policy wrong is not written, whatever is wrong with it; a file with a mistake changes nothing and is told.
#[test]
fn a_wrong_line_changes_nothing_and_a_wrong_file_is_told_once() {
    let bulkhead = start();
    let before = file(&bulkhead);
    let state = bulkhead.configuration.scratch.join("state");
    for (line, reason) in [
        ("nonsense".to_owned(), "not TOML"),
        (
            "sockets.peer.alow = [\"tcp 192.0.2.1:1\"]".to_owned(),
            "did you mean `allow`",
        ),
        (
            "sockets.SLOT.allow = [\"tcp 192.0.2.1:1\"]".to_owned(),
            "no name of a slot",
        ),
        (
            format!("files.readable.directory = {}", quoted(&state)),
            "belongs to the host itself",
        ),
    ] {
        let done = policy(&bulkhead, &["allow", "prober", &line]);
        assert_eq!(done.code(), Some(1), "{line}: {}", done.text());
        assert!(done.text().contains(reason), "{line}: {}", done.text());
        assert_eq!(file(&bulkhead), before, "{line}");
    }
    let nobody = policy(&bulkhead, &["allow", "nobody", "names.x.allow = [\"a\"]"]);
    assert!(
        nobody.code() == Some(1) && nobody.text().contains("no plugin `nobody`"),
        "{}",
        nobody.text()
    );

    let scratch = &bulkhead.configuration.scratch;
    let put = |text: &str| {
        let new = scratch.file("new-policy", text);
        fs::rename(new, scratch.join("policies/prober.toml")).unwrap();
    };
    put(&before.replace("directory =", "directroy ="));
    let listed = || bulkhead.admin().get("/plugins").text();
    assert_eventually!(listed().contains("policy not taken over"), "{}", listed());
    assert!(
        listed().contains("did you mean `directory`"),
        "{}",
        listed()
    );
    let reads = || {
        bulkhead
            .foreman()
            .get("/prober/read?path=/data/canary")
            .text()
    };
    assert!(
        reads().contains(SONG),
        "the policy of before is gone: {}",
        reads()
    );
    // Other changes are looked at meanwhile; the mistake is not told again.
    scratch.file("policies/unrelated.toml", "plugin = \"unrelated\"\n");
    std::thread::sleep(std::time::Duration::from_secs(2));
    let told = bulkhead.log_lines("policy not taken over").len();
    assert_eq!(told, 1, "{}", bulkhead.log());
    let checked = run([
        "policy",
        "check",
        scratch.join("policies/prober.toml").to_str().unwrap(),
    ]);
    assert_eq!(checked.code(), Some(3), "{}", checked.text());
    assert!(
        checked.text().contains(":4:1: ") && checked.text().contains("did you mean `directory`"),
        "{}",
        checked.text()
    );
    put(&before);
    assert_eventually!(!listed().contains("policy not taken over"), "{}", listed());
    let checked = run([
        "policy",
        "check",
        scratch.join("policies/prober.toml").to_str().unwrap(),
    ]);
    assert_eq!(checked.code(), Some(0), "{}", checked.text());
}

/// What a new version newly asks for, before it runs.
#[test]
fn diff_shows_what_a_new_version_asks_for() {
    let configuration = Configuration::empty();
    let scratch = &configuration.scratch;
    let place = |name: &str, text: &str| {
        let path = scratch.file(name, masked(text));
        path.to_str().unwrap().to_owned()
    };
    let old = place("old.wasm", "name=mask;mount=/mask;song=a;audience=foreman;");
    let new = place(
        "new.wasm",
        "name=mask;mount=/mask;song=b;audience=public;need=leases;",
    );
    let told = run(["policy", "diff", &old, &new]);
    assert_eq!(told.code(), Some(0), "{}", told.text());
    for line in [
        "+ needs files leases read",
        "+ answers GET /mask/song for everybody",
        "- answers GET /mask/song for Foreman",
    ] {
        assert!(told.stdout.contains(line), "{line}:\n{}", told.stdout);
    }
    let same = run(["policy", "diff", &old, &old]);
    assert!(
        same.stdout.contains("Both ask for the same"),
        "{}",
        same.text()
    );
}
