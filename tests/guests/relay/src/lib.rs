//! Tries the contract as registration will use it: a public request is forwarded to Foreman with its body streamed, and the
//! answer is rewritten: any success becomes 200, any failure a shell script that fails, since clients pipe the body to a shell.

use bulkhead_sdk::answer::{DEFAULT_TYPE, Forward};
use bulkhead_sdk::http::UpstreamError;
use bulkhead_sdk::plugin::{Head, Reply, Verdict};
use bulkhead_sdk::prelude::*;

/// What a client that trusts us more than it should runs instead of Foreman's script.
const FAILING_SCRIPT: &str = "echo \"Internal Server Error\"\nexit 1\n";

struct Relay;

impl Plugin for Relay {
    fn describe() -> Manifest {
        Manifest::new(
            "relay",
            env!("CARGO_PKG_VERSION"),
            "Forwards /relay to Foreman's /register",
        )
        .mount("/relay")
        .route(get("/relay").public(), fetch)
        .route(post("/relay").public().body_passed(), submit)
        .need(Need::foreman(
            "register",
            "fetches and submits registration scripts",
        ))
    }

    fn on_upstream(keep: Vec<u8>, got: Result<Head, UpstreamError>) -> Verdict {
        match got {
            Ok(head) if (200..300).contains(&head.status) => Verdict::Pass(Head {
                status: 200,
                headers: head.headers,
            }),
            Ok(head) => script(head.status),
            Err(why) => {
                log::error(format!(
                    "no answer to {}: {why}",
                    String::from_utf8_lossy(&keep)
                ));
                script(500)
            }
        }
    }
}

bulkhead_sdk::export_feature!(Relay);

fn fetch(request: &Request) -> Forward {
    forward("GET", request)
}

fn submit(request: &Request) -> Forward {
    let content_type = request.header("content-type").unwrap_or("application/json");
    forward("POST", request)
        .header("content-type", content_type)
        .incoming_body()
}

/// The time of asking is kept on the way, to show that `keep` arrives on whatever instance sees the answer.
fn forward(method: &str, request: &Request) -> Forward {
    let query = request.query();
    let mark = if query.is_empty() { "" } else { "?" };
    let mut forward = Forward::new("register", method, format!("/register{mark}{query}"))
        .keep(format!("{method} /register"));
    if let Some(authorization) = request.header("authorization") {
        forward = forward.header("authorization", authorization);
    }
    forward
}

fn script(status: u16) -> Verdict {
    let headers = vec![("content-type".to_owned(), DEFAULT_TYPE.to_owned())];
    Verdict::Replace(Reply {
        status,
        headers,
        body: FAILING_SCRIPT.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::bindings::imports::foreman::proxy::types::{Source, UpstreamError as Cause};
    use bulkhead_sdk::export::on_upstream;
    use bulkhead_sdk::testing::{Called, Host};

    #[test]
    fn a_post_is_forwarded_with_its_body_streamed() {
        let host = Host::new().install();
        let Called::Forward(forward) = host.call::<Relay>(
            "POST",
            "/relay?a=%zz",
            &[("authorization", "Bearer x")],
            b"",
        ) else {
            panic!("not forwarded");
        };
        assert_eq!(
            (forward.slot.as_str(), forward.path.as_str()),
            ("register", "/register?a=%zz")
        );
        assert_eq!(forward.body, Source::Incoming);
        assert!(
            forward
                .headers
                .contains(&("authorization".to_owned(), "Bearer x".to_owned()))
        );
    }

    #[test]
    fn created_becomes_ok() {
        let head = Head {
            status: 201,
            headers: Vec::new(),
        };
        assert!(matches!(
            on_upstream::<Relay>(Vec::new(), Ok(head)),
            Verdict::Pass(Head { status: 200, .. })
        ));
    }

    #[test]
    fn every_failure_is_a_failing_script() {
        let refused = on_upstream::<Relay>(
            Vec::new(),
            Ok(Head {
                status: 422,
                headers: Vec::new(),
            }),
        );
        let missing = on_upstream::<Relay>(Vec::new(), Err(Cause::Timeout(5)));
        for (verdict, status) in [(refused, 422), (missing, 500)] {
            let Verdict::Replace(reply) = verdict else {
                panic!("passed on")
            };
            assert_eq!(
                (reply.status, reply.body.as_slice()),
                (status, FAILING_SCRIPT.as_bytes())
            );
        }
    }
}
