//! The shipped configurations of `examples/`: each starts as it is, but for its paths and ports, and serves what it says.

use bulkhead_testkit::{Bulkhead, Configuration, ports, run};

/// The example with places and ports of a test.
fn fitted(text: &str) -> Configuration {
    let configuration = Configuration::empty();
    let place = |relative: &str| configuration.scratch.join(relative).display().to_string();
    let doors = configuration.doors;
    let text = text
        .replace("/var/lib/bulkhead", &place("state"))
        .replace("/srv/tftp", &place("boot"))
        .replace("/etc/bulkhead/tls/proxy.pem", &place("tls/server.pem"))
        .replace(
            "/etc/bulkhead/tls/proxy-key.pem",
            &place("tls/server-key.pem"),
        )
        .replace("/etc/bulkhead/tls/ca.pem", &place("tls/ca.pem"))
        .replace("0.0.0.0:8443", &format!("127.0.0.1:{}", doors.foreman_tls))
        .replace("0.0.0.0:8000", &format!("127.0.0.1:{}", doors.hosts_http))
        .replace("0.0.0.0:9443", &format!("127.0.0.1:{}", doors.hosts_tls))
        .replace("127.0.0.1:9180", &format!("127.0.0.1:{}", doors.admin));
    let mut fitted = Configuration::shipped(&text);
    // Written by the configuration that lends its places.
    fitted.doors = doors;
    fitted.scratch = configuration.scratch.clone();
    fitted.server = configuration.server.clone();
    fitted.authority = configuration.authority.clone();
    fitted
}

fn started(text: &str) -> Bulkhead {
    Bulkhead::with(fitted(text))
}

fn running(bulkhead: &Bulkhead) -> Vec<String> {
    let features = bulkhead.foreman_tls().get("/v2/features").json();
    let features = features.as_object().expect("an object").clone();
    let mut names: Vec<String> = features
        .into_iter()
        .filter(|(_, feature)| feature["state"] == "running")
        .map(|(name, _)| name)
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn the_whole_site_in_one_process() {
    let bulkhead = started(include_str!("../../examples/site-all-in-one.toml"));
    assert_eq!(
        running(&bulkhead),
        [
            "discovery",
            "httpboot",
            "logs",
            "registration",
            "templates",
            "tftp"
        ]
    );
    assert_eq!(bulkhead.hosts().get("/httpboot/none").status, 404);
    // There is no Foreman here; hosts are told so over TLS, and over plain HTTP nobody registers.
    assert_eq!(bulkhead.hosts_tls_as(None).get("/register").status, 500);
    assert_eq!(bulkhead.hosts().get("/register").status, 404);
}

/// What the book shows of a configuration's ports is what the command prints.
#[test]
fn the_book_shows_the_ports_of_a_profile() {
    let page = include_str!("../../docs/src/operators/firewall.md");
    let (_, shown) = page.split_once("--profile client\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let example = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/site-profiles.toml"
    );
    let told = run(["ports", "--config", example, "--profile", "client"]);
    assert_eq!(told.stdout, shown, "{}", told.text());
}

/// Every port that an example opens for others is closed by the page's rules to whoever they do not name, by IPv6 as well.
#[test]
fn the_books_firewall_closes_the_ports_of_the_examples() {
    let page = include_str!("../../docs/src/operators/firewall.md");
    let (_, rules) = page.split_once("table inet bulkhead").unwrap();
    let (rules, _) = rules.split_once("```").unwrap();
    let closed = rules
        .lines()
        .find(|line| line.trim_end().ends_with("} drop") && !line.contains("saddr"))
        .expect("a line that closes ports for everybody");
    for name in ["all-in-one", "profiles", "provisioning", "client"] {
        let example = format!(
            "{}/../examples/site-{name}.toml",
            env!("CARGO_MANIFEST_DIR")
        );
        let told = run(["ports", "--config", &example]).stdout;
        let ports: Vec<&str> = told
            .lines()
            .filter_map(|line| line.strip_prefix("0.0.0.0:")?.split(' ').next())
            .collect();
        assert!(!ports.is_empty(), "{name}: {told}");
        for port in ports {
            assert!(closed.contains(port), "{name}: {port} in {closed}");
        }
    }
}

/// Tokens go along with a registration, so no listener without TLS takes one, whichever profile is chosen or none.
#[test]
fn no_example_registers_over_plain_http() {
    for name in ["all-in-one", "profiles", "client"] {
        let example = format!(
            "{}/../examples/site-{name}.toml",
            env!("CARGO_MANIFEST_DIR")
        );
        let told = run(["ports", "--config", &example]).stdout;
        let registering: Vec<_> = told
            .lines()
            .filter(|line| line.contains("registration"))
            .collect();
        assert!(!registering.is_empty(), "{name}: {told}");
        for line in registering {
            assert!(line.contains(" https "), "{name}: {line}");
        }
    }
}

#[test]
fn provisioning_by_itself() {
    let bulkhead = started(include_str!("../../examples/site-provisioning.toml"));
    assert_eq!(
        running(&bulkhead),
        ["discovery", "httpboot", "logs", "templates", "tftp"]
    );
    assert_eq!(bulkhead.hosts().get("/register").status, 404, "not here");
}

#[test]
fn hosts_by_themselves() {
    let bulkhead = started(include_str!("../../examples/site-client.toml"));
    assert_eq!(running(&bulkhead), ["logs", "registration", "templates"]);
    assert_eq!(bulkhead.foreman_tls().get("/tftp/serverName").status, 404);
}

/// One file, three programs at once: each serves its profile and nothing of the others.
#[test]
fn three_instances_of_one_configuration() {
    let text = include_str!("../../examples/site-profiles.toml");
    let [client, content] = [ports::free(), ports::free()];
    let [client_admin, content_admin] = [ports::free(), ports::free()];
    let text = text
        .replace("0.0.0.0:8444", &format!("127.0.0.1:{client}"))
        .replace("0.0.0.0:8445", &format!("127.0.0.1:{content}"))
        .replace("127.0.0.1:9181", &format!("127.0.0.1:{client_admin}"))
        .replace("127.0.0.1:9182", &format!("127.0.0.1:{content_admin}"));
    let whole = fitted(&text);
    let instance = |name: &str, foreman_tls: u16, admin: u16| {
        let mut one = whole.clone().profile(name);
        (one.doors.foreman_tls, one.doors.admin) = (foreman_tls, admin);
        Bulkhead::with(one)
    };
    let provisioning = instance("provisioning", whole.doors.foreman_tls, whole.doors.admin);
    let client = instance("client", client, client_admin);
    let content = instance("content", content, content_admin);

    assert_eq!(
        running(&provisioning),
        ["discovery", "httpboot", "logs", "templates", "tftp"]
    );
    assert_eq!(running(&client), ["logs", "registration", "templates"]);
    // Pulp is not there, and Foreman is told so.
    let features = content.foreman_tls().get("/v2/features").json();
    assert_eq!(features["pulpcore"]["state"], "running", "{features:#}");
    for absent in ["tftp", "templates", "registration", "discovery"] {
        assert_ne!(features[absent]["state"], "running", "{absent}");
    }
    assert_eq!(client.foreman_tls().get("/tftp/serverName").status, 404);
    assert_eq!(provisioning.hosts().get("/register").status, 404);
    assert_ne!(client.hosts_tls_as(None).get("/register").status, 404);

    // Each has a state of its own, and commands find it.
    let command = |words: &[&str], profile: &str| {
        let words = words.iter().map(|&word| word.to_owned());
        let done = run(words.chain(whole.clone().profile(profile).options()));
        assert_eq!(done.code(), Some(0), "{}", done.text());
        done.stdout
    };
    let listed = command(&["plugin", "list"], "client");
    let state = |plugin: &str| {
        let row = listed.lines().find(|row| row.starts_with(plugin));
        row.and_then(|row| row.split_whitespace().nth(2))
    };
    assert_eq!(
        [state("registration "), state("tftp ")],
        [Some("running"), Some("disabled")],
        "{listed}"
    );

    // What is planned is what is open, features included, whether it runs or not.
    for profile in ["provisioning", "client", "content"] {
        let planned = command(&["ports"], profile);
        assert_eq!(planned, command(&["ports", "--running"], profile));
        let expected: &[(u16, &[&str])] = match profile {
            "provisioning" => &[
                (
                    whole.doors.foreman_tls,
                    &[
                        "https",
                        "foreman",
                        "foreman",
                        "discovery",
                        "templates",
                        "tftp",
                    ],
                ),
                (
                    whole.doors.hosts_http,
                    &[
                        "http",
                        "installers",
                        "public",
                        "discovery",
                        "httpboot",
                        "templates",
                    ],
                ),
                (whole.doors.admin, &["http", "admin", "-", "-"]),
            ],
            "client" => &[
                (
                    client.configuration.doors.foreman_tls,
                    &["https", "foreman-client", "foreman", "templates"],
                ),
                (
                    whole.doors.hosts_tls,
                    &[
                        "https",
                        "hosts",
                        "host",
                        "public",
                        "registration",
                        "templates",
                    ],
                ),
                (client_admin, &["http", "admin", "-", "-"]),
            ],
            _ => &[
                (
                    content.configuration.doors.foreman_tls,
                    &["https", "foreman-content", "foreman", "pulpcore"],
                ),
                (content_admin, &["http", "admin", "-", "-"]),
            ],
        };
        let rows: Vec<Vec<&str>> = planned
            .lines()
            .skip(1)
            .map(|row| row.split_whitespace().collect())
            .collect();
        let expected: Vec<Vec<String>> = expected
            .iter()
            .map(|(port, words)| {
                let address = std::iter::once(format!("127.0.0.1:{port}"));
                address
                    .chain(words.iter().map(|&it| it.to_owned()))
                    .collect()
            })
            .collect();
        assert_eq!(rows, expected, "{planned}");
    }

    // A profile that is not there, for the program and for a command.
    for words in [&["serve"][..], &["ports"], &["check"], &["doctor"]] {
        let words = words.iter().map(|&word| word.to_owned());
        let refused = run(words.chain(whole.clone().profile("dmz").options()));
        assert_eq!(refused.code(), Some(3), "{}", refused.text());
        let told =
            "there is no profile `dmz`; the configuration has: client, content, provisioning";
        assert!(refused.stderr.contains(told), "{}", refused.text());
    }
}

/// The example of the configuration holds every key that the book lists, and the program knows each of them.
#[test]
fn the_example_holds_every_key_of_the_book() {
    let example = include_str!("../../examples/proxy.toml");
    let assigned = |line: &str, key: &str| {
        let line = line.trim_start_matches('#');
        line.strip_prefix(key)
            .is_some_and(|rest| rest.starts_with(" = "))
    };
    let book = include_str!("../../docs/src/operators/configuration.md");
    let reference = include_str!("../../docs/src/operators/policy-reference.md");
    let (_, limits) = reference.split_once("\n## limits\n").unwrap();
    let (limits, _) = limits.split_once("\n## ").unwrap();
    let keys: Vec<&str> = book
        .lines()
        .chain(limits.lines())
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key)
        .collect();
    assert!(keys.len() > 60, "{keys:?}");
    for key in keys {
        assert!(
            example.lines().any(|line| assigned(line, key)),
            "`{key}` is not in the example"
        );
    }
    let whole: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|it: char| it.is_ascii_lowercase()) => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(whole.contains("\ncompile_time = "), "{whole}");
    let configuration = fitted(&whole);
    let path = configuration.write();
    let told = run(["check", "--config", path.to_str().unwrap()]).text();
    assert!(!told.contains("unknown key"), "{told}");
}
