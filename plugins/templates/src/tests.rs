use super::*;
use bulkhead_sdk::bindings::imports::foreman::proxy::types::{
    Forward as Sent, Source, UpstreamError as Cause,
};
use bulkhead_sdk::export::on_upstream;
use bulkhead_sdk::testing::{Called, Host, Installed};

const URL: &str = "url=http%3A%2F%2Fproxy.example.com%3A8000";

fn host() -> Installed {
    Host::new()
        .setting("template_url", "http://proxy.example.com:8000")
        .install()
}

#[track_caller]
fn sent(called: Called) -> Sent {
    match called {
        Called::Forward(forward) => forward,
        other => panic!("not forwarded: {other:?}"),
    }
}

fn answer(asked: &Asked, status: u16) -> Verdict {
    let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
    on_upstream::<Templates>(asked.keep(), Ok(Head { status, headers }))
}

#[track_caller]
fn replaced(verdict: Verdict) -> (u16, String) {
    match verdict {
        Verdict::Replace(reply) => (reply.status, String::from_utf8(reply.body).unwrap()),
        other => panic!("passed on: {other:?}"),
    }
}

#[test]
fn each_route_names_its_path_at_foreman() {
    let host = host();
    for (asked, wanted) in [
        ("/unattended/provision", "/unattended/provision"),
        ("/unattended/a b:c", "/unattended/a+b%3Ac"),
        ("/unattended/template/x/y", "/unattended/template/x/y"),
        ("/userdata/user-data", "/userdata/user-data"),
    ] {
        let forward = sent(host.get::<Templates>(asked));
        assert_eq!(forward.path, format!("{wanted}?{URL}"));
        assert_eq!(
            (forward.method.as_str(), forward.body),
            ("GET", Source::Nothing)
        );
    }
    for other in ["/unattended", "/unattended/a/b", "/userdata/mac/user-data"] {
        assert_eq!(host.get::<Templates>(other), Called::NoRoute, "{other}");
    }
}

#[test]
fn the_clients_parameters_go_along_but_those_that_route() {
    let asked = "/unattended/provision?token=a&url=evil&path=x&kind=y&a[b]=1&splat=z";
    let forward = sent(host().get::<Templates>(asked));
    assert_eq!(
        forward.path,
        format!("/unattended/provision?token=a&a[b]=1&{URL}")
    );
}

#[test]
fn headers_that_find_the_host_go_along() {
    let forward = sent(host().call::<Templates>(
        "GET",
        "/unattended/provision",
        &[
            ("accept", "text/html"),
            ("x-rhn-provisioning-mac-0", "eth0 aa:bb:cc:dd:ee:ff"),
            ("version", "1"),
            ("accept-encoding", "gzip"),
        ],
        b"",
    ));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        forward.headers,
        [
            pair("accept", "*/*, application/json,version=2, text/html"),
            pair("x-rhn-provisioning-mac-0", "eth0 aa:bb:cc:dd:ee:ff"),
            pair("content-type", "application/json"),
        ]
    );
}

#[test]
fn a_post_keeps_its_body_and_repeats_its_fields() {
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let forward =
        sent(host().call::<Templates>("POST", "/unattended/built?token=t", &form, b"a=1&url=evil"));
    assert_eq!(forward.body, Source::Bytes(b"a=1&url=evil".to_vec()));
    assert_eq!(
        forward.path,
        format!("/unattended/built?token=t&a=1&{URL}&Content-Type=text%2Fplain")
    );
    assert!(
        forward
            .headers
            .contains(&("content-type".to_owned(), "text/plain".to_owned()))
    );
    let log = [("content-type", "text/plain")];
    let forward = sent(host().call::<Templates>("POST", "/unattended/failed", &log, b"a=1"));
    assert_eq!(
        forward.path,
        format!("/unattended/failed?{URL}&Content-Type=text%2Fplain")
    );
}

#[test]
fn foreman_is_told_the_template_server() {
    let called = host().get::<Templates>("/unattended/templateServer");
    assert_eq!(
        (called.status(), called.text().as_str()),
        (200, r#"{"templateServer":"http://proxy.example.com:8000"}"#)
    );
}

#[test]
fn success_is_200_and_html() {
    for status in [200, 201] {
        let Verdict::Pass(head) = answer(&Asked::template("built"), status) else {
            panic!("not passed")
        };
        assert_eq!(
            (head.status, head.headers),
            (
                200,
                vec![(
                    "content-type".to_owned(),
                    "text/html;charset=utf-8".to_owned()
                )]
            )
        );
    }
}

#[test]
fn other_statuses_are_foremans_with_words_of_our_own() {
    for status in [204, 302, 404, 500] {
        let (told, text) = replaced(answer(&Asked::template("nf"), status));
        assert_eq!(
            (told, text),
            (
                status,
                format!("Failed to proxy /nf: Foreman answered {status}")
            )
        );
    }
    let (status, text) = replaced(answer(&Asked::hostgroup("template"), 404));
    assert_eq!(status, 404);
    assert!(text.starts_with("Failed to retrieve template hostgroup template"));
    let (status, text) = replaced(answer(&Asked::user_data("user-data"), 404));
    assert_eq!(status, 500);
    assert!(text.starts_with("Failed to retrieve user-data userdata template"));
}

#[test]
fn no_answer_is_400_or_500_and_keeps_addresses_to_the_log() {
    let host = host();
    for (asked, status) in [(Asked::template("x"), 400), (Asked::user_data("x"), 500)] {
        let cause = Cause::Unreachable("https://10.0.0.1: refused".to_owned());
        let (told, text) = replaced(on_upstream::<Templates>(asked.keep(), Err(cause)));
        assert_eq!(told, status);
        assert!(!text.contains("10.0.0.1"), "{text}");
    }
    assert!(
        host.logs()
            .iter()
            .any(|(_, line)| line.contains("10.0.0.1"))
    );
}
