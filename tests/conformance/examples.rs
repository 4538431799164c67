//! The shipped configurations of `examples/`: each starts as it is, but for its paths and ports, and serves what it says.

use bulkhead_testkit::{Bulkhead, Configuration};

fn started(text: &str) -> Bulkhead {
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
    let mut started = Configuration::shipped(&text);
    // Written by the configuration that lends its places.
    started.doors = doors;
    started.scratch = configuration.scratch.clone();
    started.server = configuration.server.clone();
    started.authority = configuration.authority.clone();
    Bulkhead::with(started)
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
