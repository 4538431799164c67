//! The feature `pulpcore`: tells Foreman of the Pulp server beside this proxy.
//!
//! It moves no content: hosts fetch that from Pulp itself. It reaches the one path of Pulp that says what Pulp can serve.
//!
//! The one idea: the feature is its registration. Foreman reads the settings and capabilities below and then talks to Pulp directly.

use bulkhead_sdk::answer::Forward;
use bulkhead_sdk::http::{self, Outgoing, UpstreamError};
use bulkhead_sdk::plugin::{Head, Reply, Verdict};
use bulkhead_sdk::prelude::*;

const STATUS: &str = "/pulp/api/v3/status/";

struct Pulpcore;

impl Plugin for Pulpcore {
    fn describe() -> Manifest {
        Manifest::new(
            "pulpcore",
            env!("CARGO_PKG_VERSION"),
            "Tells Foreman of the Pulp server beside this proxy",
        )
        .mount("/pulpcore")
        .route(get("/pulpcore/status"), pulp_status)
        .need(Need::http(
            "pulp",
            "asks Pulp which kinds of content it can serve",
        ))
        .setting(
            Setting::url("pulp_url", "The base of Pulp's API")
                .required()
                .exposed(),
        )
        .setting(
            Setting::url("content_app_url", "Where hosts fetch content from")
                .required()
                .exposed(),
        )
        .setting(
            Setting::boolean("mirror", "Whether this Pulp is a mirror of the primary one")
                .default(false)
                .exposed(),
        )
        .setting(
            Setting::text(
                "username",
                "For Foreman, where it shows Pulp no certificate",
            )
            .exposed(),
        )
        .setting(
            Setting::text("password", "For Foreman, which is shown it; nobody else is").exposed(),
        )
        .setting(
            Setting::texts(
                "client_authentication",
                "How Foreman may make itself known to Pulp",
            )
            .choices(&["password", "client_certificate"])
            .default(&["password", "client_certificate"][..])
            .exposed(),
        )
        .setting(
            Setting::url(
                "rhsm_url",
                "What subscription-manager of hosts behind this proxy uses",
            )
            .exposed(),
        )
        .setting(Setting::path(
            "ssl_ca",
            "The CA of Pulp's certificate, when the system does not know it",
        ))
    }

    /// A Pulp that does not answer has no capabilities; the feature stays.
    fn status() -> Status {
        if let Some(url) = settings::text("rhsm_url").filter(|url| !is_https(url)) {
            return Status::failing(format!(
                "`rhsm_url = {url:?}` is no https URL, and subscription-manager takes no other: write `rhsm_url = \"https://...\"`, or leave it out"
            ));
        }
        let components = match http::send(&Outgoing::new("pulp", "GET", STATUS)) {
            Ok(answer) if answer.is_success() => components(answer.body()).unwrap_or_else(|| {
                log::warn("Pulp's answer is no status of Pulp: it has no list `versions`");
                Vec::new()
            }),
            Ok(answer) => {
                log::warn(format!("Pulp answered {}", answer.status()));
                Vec::new()
            }
            Err(error) => {
                log::warn(format!("Pulp gave no answer: {error}"));
                Vec::new()
            }
        };
        components
            .iter()
            .fold(Status::working(), |status, name| status.capability(name))
    }

    fn on_upstream(_: Vec<u8>, got: Result<Head, UpstreamError>) -> Verdict {
        match got {
            Ok(head) => Verdict::Pass(Head {
                status: head.status,
                headers: head
                    .headers
                    .into_iter()
                    .filter(|(name, _)| name.eq_ignore_ascii_case("content-type"))
                    .collect(),
            }),
            Err(error) => {
                log::error(format!("Pulp gave no answer: {error}"));
                Verdict::Replace(Reply {
                    status: 503,
                    headers: vec![("content-type".to_owned(), "application/json".to_owned())],
                    body: b"Pulp gave no answer".to_vec(),
                })
            }
        }
    }
}

bulkhead_sdk::export_feature!(Pulpcore);

fn is_https(url: &str) -> bool {
    url.get(..8)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

fn pulp_status(_: &Request) -> Forward {
    Forward::new("pulp", "GET", STATUS).header("accept", "application/json")
}

/// `{"versions":[{"component":"rpm", ...}, ...]}`. None: it is nothing like that.
fn components(status: &[u8]) -> Option<Vec<String>> {
    let status: serde_json::Value = serde_json::from_slice(status).ok()?;
    let versions = status.get("versions")?.as_array()?;
    let names = versions
        .iter()
        .filter_map(|it| it.get("component")?.as_str());
    Some(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::bindings::imports::foreman::proxy::types::{
        Incoming, UpstreamError as Cause,
    };
    use bulkhead_sdk::export::on_upstream;
    use bulkhead_sdk::testing::{Called, Host};

    fn capabilities(answer: Result<(u16, &'static str), Cause>) -> Vec<String> {
        let _host = Host::new()
            .http(move |asked| {
                assert_eq!(
                    (asked.method.as_str(), asked.target.as_str()),
                    ("GET", STATUS)
                );
                answer.clone().map(|(status, body)| Incoming {
                    status,
                    headers: Vec::new(),
                    body: body.into(),
                })
            })
            .install();
        Pulpcore::status().into_record().capabilities
    }

    #[test]
    fn capabilities_are_pulps_components() {
        let body =
            r#"{"versions":[{"component":"core","version":"3"},{"component":"rpm"},{"x":1}]}"#;
        assert_eq!(capabilities(Ok((200, body))), ["core", "rpm"]);
    }

    #[test]
    fn a_pulp_that_does_not_answer_has_none() {
        for answer in [
            Ok((500, r#"{"versions":[{"component":"core"}]}"#)),
            Ok((200, "junk")),
            Ok((200, r#"{"versions":{}}"#)),
            Err(Cause::Timeout(1)),
        ] {
            assert!(capabilities(answer).is_empty());
        }
    }

    #[test]
    fn subscription_manager_is_told_https_only() {
        let problem = |url: &str| {
            let refuse = |_: &_| Err(Cause::Timeout(1));
            let host = Host::new().http(refuse).setting("rhsm_url", url);
            let _host = host.install();
            Pulpcore::status().into_record().problem
        };
        assert!(problem("http://x").is_some_and(|it| it.contains("https")));
        assert_eq!(problem("HTTPS://x:443/rhsm"), None);
    }

    #[test]
    fn the_status_is_pulps_own() {
        let host = Host::new().install();
        let Called::Forward(forward) = host.get::<Pulpcore>("/pulpcore/status") else {
            panic!("not forwarded")
        };
        assert_eq!(
            (forward.slot.as_str(), forward.path.as_str()),
            ("pulp", STATUS)
        );
        let head = Head {
            status: 404,
            headers: Vec::new(),
        };
        let passed = on_upstream::<Pulpcore>(Vec::new(), Ok(head));
        assert!(matches!(passed, Verdict::Pass(Head { status: 404, .. })));
        let silent = on_upstream::<Pulpcore>(Vec::new(), Err(Cause::Unreachable("x".to_owned())));
        assert!(matches!(
            silent,
            Verdict::Replace(Reply { status: 503, .. })
        ));
    }
}
