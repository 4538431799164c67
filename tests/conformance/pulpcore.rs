//! contract/plugins/pulp.md: the Pulp server beside this proxy, as Foreman is told of it.

use std::sync::{Arc, Mutex};

use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::{Authority, Bulkhead, Configuration, assert_eventually};
use serde_json::{Value, json};

use crate::JSON;
use crate::core::life_cycle::failing;
use crate::site::{PULP, bulkhead};

/// With this Pulp and further settings.
fn with_pulp(configuration: Configuration, pulp: &str, lines: &str) -> Bulkhead {
    let ca = configuration.scratch.join("tls/ca.pem");
    let settings = format!(
        "enabled = true\npulp_url = {pulp:?}\ncontent_app_url = \"https://content.example.com/pulp/content\"\nssl_ca = {:?}\n{lines}",
        ca.display().to_string()
    );
    Bulkhead::with(configuration.feature("pulpcore", &settings))
}

fn shown(bulkhead: &Bulkhead) -> Value {
    bulkhead.foreman_tls().get("/v2/features").json()["pulpcore"].clone()
}

/// Settings as given, capabilities as Pulp says.
#[test]
fn foreman_learns_what_pulp_serves() {
    let bulkhead = bulkhead();
    assert_eventually!(shown(&bulkhead)["capabilities"] == json!(["core", "rpm"]));
    let settings = &shown(&bulkhead)["settings"];
    assert_eq!(settings["content_app_url"], "https://content.example.com");
    assert_eq!(settings["mirror"], true);
    assert_eq!(settings["username"], "admin");
    assert!(settings["password"].is_null() && settings["rhsm_url"].is_null());
    assert_eq!(
        settings["client_authentication"],
        json!(["password", "client_certificate"])
    );
    assert!(settings.get("ssl_ca").is_none());
}

/// Every exposed setting, the password among them: to Foreman, to nobody else, and into no log.
#[test]
fn settings_are_shown_to_foreman_alone() {
    let configuration = Configuration::empty();
    let pulp = Foreman::without_clients(&configuration.server, |_| reply("200 OK", JSON, PULP));
    let lines = "username = \"admin\"\npassword = \"SECRET\"\nclient_authentication = [\"client_certificate\"]\n\
        rhsm_url = \"https://rhsm.example.com/rhsm\"";
    let bulkhead = with_pulp(configuration, &pulp.url(), lines);
    assert_eventually!(shown(&bulkhead)["capabilities"] == json!(["core", "rpm"]));
    assert_eq!(
        shown(&bulkhead),
        json!({
            "http_enabled": true,
            "https_enabled": true,
            "settings": {
                "pulp_url": pulp.url(),
                "content_app_url": "https://content.example.com/pulp/content",
                "mirror": false,
                "username": "admin",
                "password": "SECRET",
                "client_authentication": ["client_certificate"],
                "rhsm_url": "https://rhsm.example.com/rhsm",
            },
            "state": "running",
            "capabilities": ["core", "rpm"],
        })
    );
    for target in [bulkhead.hosts(), bulkhead.hosts_tls_as(None)] {
        assert_eq!(target.get("/v2/features").status, 404);
    }
    assert_eq!(
        bulkhead.foreman_tls_as(None).get("/v2/features").status,
        403
    );
    assert!(!bulkhead.log().contains("SECRET"), "{}", bulkhead.log());
    for request in pulp.requests() {
        assert_eq!(request.line(), "GET /pulp/api/v3/status/ HTTP/1.1");
        assert!(!request.head.contains("SECRET"), "{}", request.head);
    }
}

/// Pulp's own status, to Foreman, with Pulp's own code.
#[test]
fn the_status_is_pulps() {
    let bulkhead = bulkhead();
    let answer = bulkhead.foreman_tls().get("/pulpcore/status");
    answer.assert_is(200, JSON, PULP);
    assert_eq!(bulkhead.hosts().get("/pulpcore/status").status, 404);
    let stranger = bulkhead.foreman_tls_as(None);
    assert_eq!(stranger.get("/pulpcore/status").status, 403);
    assert_eq!(bulkhead.foreman_tls().get("/pulpcore/x").status, 404);
}

/// A Pulp that is down, answers errors or junk has no capabilities; the feature stays, and all is well again when Pulp is.
#[test]
fn a_pulp_in_trouble_takes_its_capabilities_along_and_nothing_else() {
    let configuration = Configuration::empty();
    let mood = Arc::new(Mutex::new("well"));
    let asked = mood.clone();
    let pulp = Foreman::without_clients(&configuration.server, move |_| {
        match *asked.lock().unwrap() {
            "closed" => Vec::new(),
            "junk" => reply("200 OK", JSON, "junk"),
            "no http" => b"\0\r\n\r\n".to_vec(),
            "well" => reply("200 OK", JSON, PULP),
            status => reply(status, JSON, PULP),
        }
    });
    let bulkhead = with_pulp(configuration, &pulp.url(), "");
    let foreman = bulkhead.foreman_tls();
    let none = json!([]);
    for (now, status, body, said) in [
        (
            "closed",
            503,
            "Pulp gave no answer",
            "Pulp gave no answer: unreachable",
        ),
        ("503 Service Unavailable", 503, PULP, "Pulp answered 503"),
        ("401 Unauthorized", 401, PULP, "Pulp answered 401"),
        ("302 Found", 302, PULP, "Pulp answered 302"),
        ("junk", 200, "junk", "is no status of Pulp"),
        ("no http", 503, "Pulp gave no answer", "broken answer"),
    ] {
        assert_eventually!(shown(&bulkhead)["capabilities"] == json!(["core", "rpm"]));
        *mood.lock().unwrap() = now;
        foreman
            .get("/pulpcore/status")
            .assert_is(status, JSON, body);
        assert_eventually!(shown(&bulkhead)["capabilities"] == none, "{now}");
        assert_eq!(shown(&bulkhead)["state"], "running", "{now}");
        assert_eventually!(bulkhead.log().contains(said), "{now}: {}", bulkhead.log());
        *mood.lock().unwrap() = "well";
    }
    assert_eventually!(shown(&bulkhead)["capabilities"] == json!(["core", "rpm"]));
    foreman.get("/pulpcore/status").assert_is(200, JSON, PULP);
}

/// A Pulp that cannot show who it is learns nothing, and the log says why.
#[test]
fn a_pulp_of_another_authority_is_not_asked() {
    let configuration = Configuration::empty();
    let stranger = Authority::root("another").server(&["localhost"]);
    let pulp = Foreman::without_clients(&stranger, |_| reply("200 OK", JSON, PULP));
    let bulkhead = with_pulp(configuration, &pulp.url(), "");
    let foreman = bulkhead.foreman_tls();
    foreman
        .get("/pulpcore/status")
        .assert_is(503, JSON, "Pulp gave no answer");
    assert_eq!(shown(&bulkhead)["capabilities"], json!([]));
    assert_eventually!(bulkhead.log().contains("TLS failed"), "{}", bulkhead.log());
    assert!(pulp.requests().is_empty());
}

/// What Foreman could make nothing of is a failed feature, with the reason.
#[test]
fn required_settings_and_https_for_subscription_manager() {
    const URLS: &str =
        "pulp_url = \"https://127.0.0.1:1\"\ncontent_app_url = \"https://c.example.com\"";
    for (lines, said) in [
        (
            "pulp_url = \"https://p.example.com\"".to_owned(),
            "Parameter 'content_app_url' is expected to have a non-empty value",
        ),
        (
            "content_app_url = \"https://p.example.com\"".to_owned(),
            "Parameter 'pulp_url' is expected to have a non-empty value",
        ),
        (
            format!("{URLS}\nrhsm_url = \"http://rhsm.example.com\""),
            "`rhsm_url = \"http://rhsm.example.com\"` is no https URL",
        ),
    ] {
        let (_kept, _, reason) = failing("pulpcore", &format!("enabled = true\n{lines}"));
        assert!(reason.contains(said), "{reason}");
    }
}
