//! contract/core.md 5: from settings to running, disabled or failed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, run};
use serde_json::{Value, json};

/// Starts with one feature that cannot run, and answers what Foreman is shown of it and of the failed modules.
pub(crate) fn failing(feature: &str, lines: &str) -> (Bulkhead, Value, String) {
    let bulkhead = Bulkhead::launch(Configuration::standard().feature(feature, lines), &[]);
    let target = bulkhead.foreman();
    let state = || {
        let answer = target.request("GET", "/v2/features").try_send().ok()?;
        Some(answer.json()[feature]["state"].as_str()?.to_owned())
    };
    assert_eventually!(
        state().as_deref() == Some("failed"),
        "{feature} did not fail:\n{}",
        bulkhead.log()
    );
    let entry = target.get("/v2/features").json()[feature].clone();
    let failed = target.get("/logs/").json()["info"]["failed_modules"][feature].clone();
    (
        bulkhead,
        entry,
        failed.as_str().unwrap_or_default().to_owned(),
    )
}

/// Step 2 and the observed example: an empty value of a setting that must not be empty fails the feature, and only it.
#[test]
fn an_empty_setting_fails_the_feature_alone() {
    for (feature, setting) in [("tftp", "tftproot"), ("httpboot", "root_dir")] {
        let (bulkhead, entry, reason) =
            failing(feature, &format!("enabled = true\n{setting} = \"\""));
        assert_eq!(entry["state"], "failed");
        assert_eq!(
            (&entry["http_enabled"], &entry["https_enabled"]),
            (&json!(false), &json!(false))
        );
        assert_eq!(entry["capabilities"], json!([]));
        let expected = format!("Parameter '{setting}' is expected to have a non-empty value");
        assert!(reason.contains(&expected), "{reason:?}");
        let other = if feature == "tftp" {
            "httpboot"
        } else {
            "tftp"
        };
        let features = bulkhead.foreman().get("/v2/features").json();
        assert_eq!(features[other]["state"], "running", "{features:#}");
        assert_eq!(bulkhead.foreman().get("/features").status, 200);
    }
}

/// Addresses are bound before the features are brought up: who calls meanwhile is neither refused nor told of half of them, but waits.
#[test]
fn who_calls_before_the_features_are_there_is_answered_when_they_are() {
    let configuration = Configuration::standard();
    // Nothing compiled yet, and the testkit lends nothing: bringing them up takes its time.
    let compiled = configuration.scratch.directory("state/compiled");
    fs::set_permissions(compiled, fs::Permissions::from_mode(0o700)).unwrap();
    let bulkhead = Bulkhead::launch(configuration, &[]);
    let mut early = None;
    assert_eventually!(
        {
            early = bulkhead.foreman().open().ok();
            early.is_some()
        },
        "{}",
        bulkhead.log()
    );
    let mut early = early.unwrap();
    let is_ready = || bulkhead.log().contains("] ready");
    assert!(!is_ready(), "{}", bulkhead.log());
    early
        .send("GET /features HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    early.patience(Duration::from_secs(120));
    let answer = early.response("GET").unwrap();
    assert_eq!(answer.json(), json!(["httpboot", "logs", "tftp"]));
    assert_eventually!(is_ready(), "{}", bulkhead.log());
}

/// A failed feature keeps its exposed settings with `null`, as the original shows them.
#[test]
fn a_failed_feature_shows_its_settings_as_null() {
    let (_bulkhead, entry, _) = failing("tftp", "enabled = true\ntftproot = \"\"");
    assert_eq!(entry["settings"], json!({ "tftp_servername": null }));
}

/// A failed feature's routes are not mounted.
#[test]
fn a_failed_feature_is_not_served() {
    let (bulkhead, _, _) = failing("tftp", "enabled = true\ntftproot = \"\"");
    let answer = bulkhead.foreman().get("/tftp/serverName");
    assert!(matches!(answer.status, 404 | 503), "{answer}");
}

/// Readiness names what does not serve.
#[test]
fn readiness_names_the_failed_feature() {
    let (bulkhead, _, _) = failing("tftp", "enabled = true\ntftproot = \"\"");
    let answer = bulkhead.admin().get("/readyz");
    assert_eq!(answer.status, 503, "{answer}");
    assert!(answer.text().contains("tftp"), "{answer}");
    assert_eq!(bulkhead.admin().get("/healthz").status, 200);
}

/// A setting of the wrong kind, an unknown one, a value that is not allowed: errors with file, line and column before
/// anything starts, all of them at once.
#[test]
fn wrong_settings_are_all_reported_before_anything_starts() {
    let configuration =
        Configuration::empty().tftp("verify_server_cert = \"yes\"\ntftp_conect_timeout = 10");
    let path = configuration.write();
    let text = configuration.text();
    let line_of = |needle: &str| {
        text.lines()
            .position(|line| line.contains(needle))
            .expect("in the file")
            + 1
    };
    for command in ["check", "serve"] {
        let finished = run([command, "--config", path.to_str().unwrap()]);
        assert_eq!(finished.code(), Some(3), "{command}: {}", finished.text());
        for (needle, hint) in [
            ("verify_server_cert", "true"),
            ("tftp_conect_timeout", "tftp_connect_timeout"),
        ] {
            let place = format!("proxy.toml:{}:", line_of(needle));
            assert!(
                finished.text().contains(&place),
                "{command}: no {place} for {needle} in:\n{}",
                finished.text()
            );
            assert!(
                finished.text().contains(hint),
                "{command}: no {hint:?} in:\n{}",
                finished.text()
            );
        }
    }
}

/// What is wrong with the file does not hide what is wrong with a plugin's settings, nor with a policy.
#[test]
fn mistakes_of_every_kind_are_told_together() {
    let configuration = Configuration::empty()
        .tftp("tftp_conect_timeout = 10")
        .policy("tftp", "[filess.root]\n")
        .section("[engine]\nmemroy = 1");
    let path = configuration.write();
    for command in ["check", "serve"] {
        let finished = run([command, "--config", path.to_str().unwrap()]);
        assert_eq!(finished.code(), Some(3), "{command}: {}", finished.text());
        for mistake in ["memroy", "tftp_conect_timeout", "filess"] {
            assert!(
                finished.text().contains(mistake),
                "{command}: no {mistake} in:\n{}",
                finished.text()
            );
        }
    }
}

/// The validators' messages, each with its place. Where the original fails one feature, here the file is refused; a value that is only missing fails the
/// feature (above), and `check` tells it too.
#[test]
fn refused_values_are_told_in_the_known_words() {
    for (feature, lines, said) in [
        (
            "tftp",
            "tftproot = \"\"",
            "Parameter 'tftproot' is expected to have a non-empty value",
        ),
        (
            "tftp",
            "tftproot = \"here\"",
            "Setting 'tftproot' is expected to be an absolute path",
        ),
        (
            "tftp",
            "tftproot = \"/\"\nverify_server_cert = 1",
            "Setting 'verify_server_cert' is expected to be true/false",
        ),
        (
            "templates",
            "template_url = \"proxy.example.com\"",
            "Setting 'template_url' is missing a scheme",
        ),
        (
            "templates",
            "template_url = 8000",
            "Setting 'template_url' is expected to contain a url",
        ),
        (
            "templates",
            "template_url = \"http://[::1\"",
            "Setting 'template_url' contains an invalid url",
        ),
        (
            "tftp-serve",
            "listen = []",
            "no plugin is called `tftp-serve`",
        ),
    ] {
        let configuration = Configuration::empty().feature(feature, lines);
        let path = configuration.write();
        let finished = run(["check", "--config", path.to_str().unwrap()]);
        assert_eq!(finished.code(), Some(3), "{lines}: {}", finished.text());
        let section = format!("[features.{feature}]");
        let text = configuration.text();
        let begins = text.lines().position(|line| line == section).unwrap() + 1;
        let told = finished.text();
        let line = told.lines().find(|line| line.contains(said));
        let line = line.unwrap_or_else(|| panic!("{lines}: no {said:?} in:\n{told}"));
        let place = line.split("proxy.toml:").nth(1).unwrap_or_default();
        let number: usize = place.split(':').next().unwrap().parse().unwrap();
        let last = begins + lines.lines().count();
        assert!((begins..=last).contains(&number), "{line}");
    }
}

/// A value that is no place, where the policy takes it for one, fails its feature alone. `check` tells it at the setting, and once; whoever looks at the
/// proxy is told which setting it is.
#[test]
fn values_that_are_no_places_are_told_at_the_setting() {
    const PULP: &str = "content_app_url = \"https://c.example.com\"";
    for (feature, lines, key, said) in [
        (
            "discovery",
            "enabled = true\nnode_networks = [\"192.0.2.0/24\", \"banana\"]".to_owned(),
            "node_networks",
            "Setting 'node_networks': `banana`: is neither an address nor a network",
        ),
        (
            "discovery",
            "enabled = true\nnode_url = \"ftp://node:21\"".to_owned(),
            "node_url",
            "Setting 'node_url': `ftp://node:21`: is no http or https URL",
        ),
        (
            "pulpcore",
            format!("enabled = true\n{PULP}\npulp_url = \"https://me:pw@p.example.com\""),
            "pulp_url",
            "Setting 'pulp_url': `https://me:pw@p.example.com`: carries user information",
        ),
        (
            "httpboot",
            "enabled = true\nroot_dir = \"/\"".to_owned(),
            "[features.httpboot]",
            "belongs to the host itself",
        ),
    ] {
        let configuration = Configuration::empty().feature(feature, &lines);
        let path = configuration.write();
        let finished = run(["check", "--config", path.to_str().unwrap()]);
        assert_eq!(finished.code(), Some(3), "{lines}: {}", finished.text());
        let text = configuration.text();
        let line = text.lines().position(|line| line.starts_with(key)).unwrap() + 1;
        let told = finished.text();
        let found: Vec<_> = told.lines().filter(|line| line.contains(said)).collect();
        assert_eq!(found.len(), 1, "{lines}: {told}");
        let place = format!("proxy.toml:{line}:");
        assert!(found[0].contains(&place), "{lines}: {told}");
        let (_kept, _, reason) = failing(feature, &lines);
        assert!(reason.contains(said), "{lines}: {reason}");
    }
}

/// The same for keys of the file itself, which are looked at before any plugin's.
#[test]
fn wrong_keys_are_all_reported_before_anything_starts() {
    let configuration = Configuration::empty().section("[listenr]\nx = 1\n[log]\nlevel = \"loud\"");
    let path = configuration.write();
    for command in ["check", "serve"] {
        let finished = run([command, "--config", path.to_str().unwrap()]);
        assert_eq!(finished.code(), Some(3), "{command}: {}", finished.text());
        for word in ["listenr", "`listener`", "loud", "warn"] {
            assert!(
                finished.text().contains(word),
                "{command}: no {word:?} in:\n{}",
                finished.text()
            );
        }
    }
}

/// `enabled` is `true`, `false`, `"http"` or `"https"`. The original takes anything else for "disabled", quietly; here it is an error.
#[test]
fn odd_values_of_enabled_are_errors() {
    for value in ["\"yes\"", "1", "[]"] {
        let configuration = Configuration::empty();
        let root = configuration.boot().display().to_string();
        let configuration =
            configuration.feature("tftp", &format!("enabled = {value}\ntftproot = {root:?}"));
        let path = configuration.write();
        let finished = run(["check", "--config", path.to_str().unwrap()]);
        assert_eq!(finished.code(), Some(3), "{value}: {}", finished.text());
        assert!(
            finished.text().contains("enabled"),
            "{value}: {}",
            finished.text()
        );
    }
}

/// A configuration without a mistake: `check` says so and starts nothing.
#[test]
fn check_accepts_what_serve_accepts() {
    let configuration = Configuration::standard();
    let path = configuration.write();
    let finished = run(["check", "--config", path.to_str().unwrap()]);
    assert_eq!(finished.code(), Some(0), "{}", finished.text());
}

/// What only a start would find otherwise, each at the key that has to be changed: addresses that two listeners share, certificates and keys that are
/// there and cannot be used. A directory that is not there is told once. `serve` says the same.
#[test]
fn check_tells_what_would_end_the_start() {
    let foreman = "[foreman]\nurl = \"foreman.example.com\"";
    let configuration = Configuration::empty();
    let good = configuration.text();
    let path = configuration.write();
    let scratch = &configuration.scratch;
    scratch.file("tls/text.pem", "no certificate");
    let other = configuration.authority.client(Some("other"), &["other"]);
    scratch.file("tls/other-key.pem", &other.key_pem);
    let doors = configuration.doors;
    let check = |text: &str| {
        scratch.file("proxy.toml", text);
        let told = run(["check", "--config", path.to_str().unwrap()]);
        (told.code(), told.text())
    };
    assert_eq!(check(&good).0, Some(0), "{}", check(&good).1);
    let port = |port: u16| format!("127.0.0.1:{port}");
    let state = good.lines().find_map(|line| line.strip_prefix("state = "));
    let state = state.unwrap().to_owned();
    for (from, to, at, said) in [
        (
            port(doors.hosts_http),
            port(doors.foreman_tls),
            "[[listener]]\nname = \"hosts-http\"",
            "is where the listener `foreman` listens",
        ),
        (
            port(doors.hosts_http),
            format!("0.0.0.0:{}", doors.foreman_tls),
            "[[listener]]\nname = \"hosts-http\"",
            "is where the listener `foreman` listens",
        ),
        (
            port(doors.admin),
            port(doors.foreman_tls),
            "[admin]",
            "is where the listener `foreman` listens",
        ),
        (
            state.clone(),
            format!("{:?}", scratch.join("tls/text.pem/state")),
            "state = ",
            "tls/text.pem is no directory",
        ),
        (
            "\"any-certificate\"".to_owned(),
            "[\"https://foreman.example.com\"]".to_owned(),
            "trusted_hosts = ",
            "is no host's name; write the name that stands in its certificate",
        ),
        (
            "server.pem".to_owned(),
            "text.pem".to_owned(),
            "[tls]",
            "holds no certificate",
        ),
        (
            "server-key.pem".to_owned(),
            "other-key.pem".to_owned(),
            "[tls]",
            "cannot be used together",
        ),
        (
            "[admin]".to_owned(),
            "[foreman]\nca = \"tls/ca.pem\"\nconnect_timeout = \"5s\"\n[admin]".to_owned(),
            "[foreman]",
            "`foreman.url` is missing",
        ),
        (
            "[admin]".to_owned(),
            format!("{foreman}\n[admin]"),
            "url = ",
            "write `https://foreman.example.com`",
        ),
        (
            "[admin]".to_owned(),
            format!(
                "{}\ncertificate = \"tls/text.pem\"\nprivate_key = \"tls/server-key.pem\"\n[admin]",
                foreman.replace("\"f", "\"https://f")
            ),
            "[foreman]",
            "holds no certificate",
        ),
        (
            format!("{:?}", scratch.join("plugins").display().to_string()),
            "\"elsewhere\"".to_owned(),
            "directory = ",
            "mkdir -p",
        ),
    ] {
        let text = good.replacen(&from, &to, 1);
        assert_ne!(text, good, "{from}");
        let line = text
            .lines()
            .take_while(|line| !line.starts_with(at.lines().next_back().unwrap_or(at)));
        // A section is where its heading stands, also where a line below it is known better.
        let place = line.count() + 2 - at.lines().count();
        let (code, told) = check(&text);
        assert_eq!(code, Some(3), "{to}: {told}");
        assert!(told.contains(said), "{to}: no {said:?} in:\n{told}");
        assert!(
            told.contains(&format!("proxy.toml:{place}:")),
            "{to}: not at line {place}:\n{told}"
        );
        assert_eq!(told.trim_end().lines().count(), 1, "{told}");
        let served = run(["serve", "--config", path.to_str().unwrap()]);
        assert_eq!(served.code(), Some(3), "{to}: {}", served.text());
        assert_eq!(served.text(), told, "{to}");
    }
}

/// A file that is no text is told where it ceases to be one.
#[test]
fn a_file_that_is_no_text_is_told_with_its_place() {
    let configuration = Configuration::empty();
    let path = configuration.write();
    let mut bytes = configuration.text().into_bytes();
    let lines = bytes.iter().filter(|it| **it == b'\n').count();
    bytes.extend(b"# caf\xe9\n");
    std::fs::write(&path, bytes).unwrap();
    for command in [
        &["check", "--config"][..],
        &["serve", "--config"],
        &["policy", "check"],
    ] {
        let told = run(command.iter().copied().chain(path.to_str()));
        assert_eq!(told.code(), Some(3), "{}", told.text());
        let place = format!("proxy.toml:{}:6: is no text in UTF-8", lines + 1);
        assert!(told.text().contains(&place), "{}", told.text());
    }
}

/// A provider that nobody is: told at the section of the feature that would call it.
#[test]
fn check_tells_a_provider_that_nobody_is() {
    let section = "[features.dns]\nuse_provider = \"dns-buitin\"";
    let configuration = Configuration::empty().section(section);
    let text = configuration.text();
    let line = text.lines().position(|it| it == "[features.dns]").unwrap() + 1;
    let path = configuration.write();
    let told = run(["check", "--config", path.to_str().unwrap()]);
    assert_eq!(told.code(), Some(3), "{}", told.text());
    let said = format!(
        "proxy.toml:{line}:1: `dns` calls the plugin `dns-buitin`, and there is none; did you mean `dns-builtin`?"
    );
    assert!(told.text().contains(&said), "{}", told.text());
}

/// `policy explain` names the file that would hold, and says that it is not there.
#[test]
fn a_shipped_policy_is_not_taken_for_a_file() {
    let bulkhead = Bulkhead::with(Configuration::standard());
    let path = bulkhead.configuration.path();
    let path = path.to_str().unwrap();
    let told = run(["policy", "explain", "tftp", "--config", path]);
    let said = "policies/tftp.toml is not there: the one that comes with the program holds";
    assert!(told.stdout.contains(said), "{}", told.text());
}

/// What is no plugin is no success.
#[test]
fn inspecting_what_is_no_plugin_fails() {
    let configuration = Configuration::empty();
    let file = configuration.scratch.file("junk.wasm", "junk");
    let told = run(["plugin".as_ref(), "inspect".as_ref(), file.as_os_str()]);
    assert_eq!(told.code(), Some(1), "{}", told.text());
    let said = "junk.wasm: not a valid component";
    assert!(told.stderr.contains(said), "{}", told.text());
}

/// A policy that no plugin will ever be read with: called like another one, or like none by one letter. One for a plugin that may come is good.
#[test]
fn check_tells_a_policy_that_is_for_nobody() {
    for (file, plugin, said) in [
        (
            "tftp",
            "dns",
            Some("call it dns.toml, or write `plugin = \"tftp\"`"),
        ),
        (
            "tftpp",
            "tftpp",
            Some("no plugin is called `tftpp`; did you mean `tftp`?"),
        ),
        ("mine", "mine", None),
    ] {
        let configuration = Configuration::empty();
        let policy = format!("plugin = {plugin:?}\n");
        configuration
            .scratch
            .file(&format!("policies/{file}.toml"), policy);
        let path = configuration.write();
        let told = run(["check", "--config", path.to_str().unwrap()]);
        let Some(said) = said else {
            assert_eq!(told.code(), Some(0), "{}", told.text());
            continue;
        };
        assert_eq!(told.code(), Some(3), "{}", told.text());
        let place = format!("policies/{file}.toml:1:1: ");
        assert!(
            told.text().contains(&place) && told.text().contains(said),
            "{}",
            told.text()
        );
    }
}

/// Broken syntax has its place as well, also for programs, and keeps nobody from the running proxy.
#[test]
fn broken_syntax_is_told_like_any_other_mistake() {
    let bulkhead = Bulkhead::with(Configuration::standard());
    let path = bulkhead.configuration.path();
    let text = bulkhead.configuration.text();
    let broken = text.replace("[admin]", "[admin");
    let line = broken.lines().take_while(|line| *line != "[admin").count() + 1;
    let words = |words: &[&str]| {
        let place = ["--config", path.to_str().unwrap()];
        run(words.iter().copied().chain(place))
    };
    for text in [broken.clone(), broken.replacen("state = ", "#tate = ", 1)] {
        bulkhead.configuration.scratch.file("proxy.toml", &text);
        let told = words(&["check", "--format", "json"]);
        assert_eq!(told.code(), Some(3), "{}", told.text());
        let problems: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!(problems[0]["line"], line, "{problems}");
        let told = words(&["serve"]);
        assert_eq!(told.code(), Some(3), "{}", told.text());
        let place = format!("proxy.toml:{line}:");
        assert!(told.text().contains(&place), "{}", told.text());
    }
    bulkhead.configuration.scratch.file("proxy.toml", &broken);
    let listed = words(&["plugin", "list"]);
    assert_eq!(listed.code(), Some(0), "{}", listed.text());
}
