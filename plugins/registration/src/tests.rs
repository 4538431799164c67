use super::*;
use bulkhead_sdk::Audience;
use bulkhead_sdk::bindings::imports::foreman::proxy::caller::Peer;
use bulkhead_sdk::bindings::imports::foreman::proxy::types::{
    Forward as Sent, Source, UpstreamError as Cause,
};
use bulkhead_sdk::export::on_upstream;
use bulkhead_sdk::testing::{Called, Host};

const URL: &str = "url=https%3A%2F%2Fproxy.example.com%3A8443";

fn host() -> Host {
    Host::new().caller(Peer {
        audience: Audience::Public,
        name: None,
        address: "192.0.2.7".to_owned(),
        origin: "https://proxy.example.com:8443".to_owned(),
        request_id: "id".to_owned(),
    })
}

#[track_caller]
fn sent(called: Called) -> Sent {
    match called {
        Called::Forward(forward) => forward,
        other => panic!("not forwarded: {other:?}"),
    }
}

#[test]
fn a_get_carries_its_query_and_our_url() {
    let host = host().install();
    for path in ["/register", "/register/"] {
        let asked = format!("{path}?a[]=1&repo_data[][repo]=x&url=evil&bare&empty=");
        let forward = sent(host.get::<Registration>(&asked));
        assert_eq!(
            forward.path,
            format!("/register?a[]=1&repo_data[][repo]=x&empty=&{URL}")
        );
    }
}

#[test]
fn the_setting_wins_over_the_url_asked() {
    let host = host()
        .setting("registration_url", "https://hosts.example.com/")
        .install();
    let forward = sent(host.get::<Registration>("/register"));
    assert_eq!(
        forward.path,
        "/register?url=https%3A%2F%2Fhosts.example.com"
    );
}

#[test]
fn a_form_drops_the_query_and_everything_else_is_json() {
    let host = host().install();
    for (kind, path, sent_as) in [
        (FORM, format!("/register?{URL}"), FORM),
        (
            "application/x-www-form-urlencoded; charset=utf-8",
            format!("/register?{URL}"),
            FORM,
        ),
        (
            "text/plain",
            format!("/register?a=1&{URL}"),
            "application/json",
        ),
    ] {
        let headers = [("content-type", kind), ("authorization", "Bearer x")];
        let forward = sent(host.call::<Registration>("POST", "/register?a=1", &headers, b""));
        assert_eq!((forward.path, forward.body), (path, Source::Incoming));
        let types: Vec<_> = forward
            .headers
            .iter()
            .filter(|(name, _)| name == "content-type")
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(types, [sent_as]);
        assert!(
            forward
                .headers
                .contains(&("authorization".to_owned(), "Bearer x".to_owned()))
        );
    }
}

fn head(status: u16, content_type: Option<&str>) -> Head {
    let headers = content_type.map(|kind| ("Content-Type".to_owned(), kind.to_owned()));
    Head {
        status,
        headers: headers.into_iter().collect(),
    }
}

#[test]
fn successes_are_200_and_foremans_scripts_pass() {
    let _host = host().install();
    for (status, kind, told) in [
        (200, Some("text/plain"), 200),
        (201, None, 200),
        (422, Some("text/plain; charset=utf-8"), 422),
        (401, Some("text/plain"), 401),
    ] {
        let verdict = on_upstream::<Registration>(Vec::new(), Ok(head(status, kind)));
        let Verdict::Pass(head) = verdict else {
            panic!("replaced")
        };
        assert_eq!((head.status, head.headers), (told, html()));
    }
}

#[test]
fn every_other_answer_is_a_failing_script() {
    let _host = host().install();
    let cases = [
        (Ok(head(502, Some("text/html"))), 502),
        (Ok(head(404, Some("application/json"))), 404),
        (Ok(head(500, None)), 500),
        (Err(Cause::Timeout(5)), 500),
        (Err(Cause::Unreachable("x".to_owned())), 500),
        (Err(Cause::Tls("x".to_owned())), 500),
        (Err(Cause::Protocol("x".to_owned())), 500),
        (Err(Cause::Denied("x".to_owned())), 500),
    ];
    for (got, status) in cases {
        let Verdict::Replace(reply) = on_upstream::<Registration>(Vec::new(), got) else {
            panic!("passed on")
        };
        assert_eq!(
            (reply.status, reply.body.as_slice()),
            (status, FAILING_SCRIPT.as_bytes())
        );
    }
    assert_eq!(FAILING_SCRIPT.len(), 36);
}
