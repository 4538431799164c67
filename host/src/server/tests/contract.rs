//! The behaviours that all features share (core API, section 3), and what plugins are handed.

use super::*;

#[tokio::test]
async fn every_answer_has_the_default_headers() {
    let site = Site::start(Setup::default()).await;
    let answer = site
        .ask("GET /boot/a", "X-Request-Id: 3e93e73f-aa\r\n")
        .await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "answered"));
    for (name, value) in [
        ("server", "foreman-proxy/3.11.0"),
        ("x-content-type-options", "nosniff"),
        ("content-type", "text/html;charset=utf-8"),
        ("x-frame-options", "SAMEORIGIN"),
        ("content-length", "8"),
        ("connection", "close"),
        ("x-request-id", "3e93e73f-aa"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(answer.header("date").is_some());
    assert_eq!(site.seen()[0].caller.request_id.as_ref(), "3e93e73f-aa");
}

#[tokio::test]
async fn a_connection_is_kept_and_says_so() {
    let site = Site::start(Setup::default()).await;
    let request = "GET /boot/a HTTP/1.1\r\nHost: a\r\n\r\n";
    let text = site
        .raw(format!(
            "{request}{request}GET /boot/b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ))
        .await;
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
    assert_eq!(text.matches("Connection: Keep-Alive").count(), 2, "{text}");
    // Some boot loaders know names of headers in this form only.
    assert_eq!(text.matches("\r\nContent-Length: ").count(), 3, "{text}");
    assert_eq!(site.seen().len(), 3);
}

#[tokio::test]
async fn http_1_0_is_spoken_without_host_and_closes() {
    let site = Site::start(Setup::default()).await;
    let text = site.raw("GET /boot/a HTTP/1.0\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.0 200"), "{text}");
    assert_eq!(
        site.seen()[0].caller.origin,
        format!("http://{}", site.address)
    );
    let text = site
        .raw("GET /boot/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /boot/a HTTP/1.0\r\n\r\n")
        .await;
    assert_eq!(text.matches(" 200 OK").count(), 2, "{text}");
}

#[tokio::test]
async fn the_unknown_is_one_404_whatever_the_method() {
    let site = Site::start(Setup::default()).await;
    for line in [
        "GET /",
        "GET /none",
        "PUT /boot/a",
        "OPTIONS /boot/a",
        "PATCH /features",
        "GET /features/",
        "OPTIONS *",
        "GET /v2/features/",
    ] {
        let length = if line.starts_with('P') {
            "Content-Length: 0\r\n"
        } else {
            ""
        };
        let answer = site
            .ask(line, &format!("Accept: text/html\r\n{length}"))
            .await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (404, "Requested url was not found"),
            "{line}"
        );
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "{line}"
        );
        assert_eq!(answer.header("x-cascade"), Some("pass"), "{line}");
    }
    assert!(site.seen().is_empty());
}

#[tokio::test]
async fn head_is_get_without_body() {
    let site = Site::start(Setup::default()).await;
    let answer = site.ask("HEAD /boot/a", "").await;
    assert_eq!(
        (
            answer.status,
            answer.body.as_str(),
            answer.header("content-length")
        ),
        (200, "", Some("8"))
    );
    assert_eq!(site.seen()[0].method, "GET");
    let answer = site.ask("HEAD /features", "").await;
    assert_eq!(
        (
            answer.status,
            answer.body.as_str(),
            answer.header("content-length")
        ),
        (200, "", Some("8"))
    );
}

#[tokio::test]
async fn paths_are_normalised_before_they_are_routed() {
    let site = Site::start(Setup::default()).await;
    for (sent, got) in [
        ("//boot//a", "/boot/a"),
        ("/boot%2Fa", "/boot/a"),
        ("/boot/x/../a", "/boot/a"),
        ("/%62oot/a%20b", "/boot/a b"),
        ("http://localhost/boot/a", "/boot/a"),
    ] {
        assert_eq!(
            site.ask(&format!("GET {sent}"), "").await.status,
            200,
            "{sent}"
        );
        assert_eq!(site.seen().last().unwrap().path, got);
    }
    assert_eq!(site.ask("GET //features", "").await.status, 200);
    for sent in [
        "/..",
        "/boot/../../x",
        "/%2e%2e/a",
        "/boot/%zz",
        "/boot/%00",
        "/boot/%ff",
    ] {
        let answer = site.ask(&format!("GET {sent}"), "").await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (400, Some("text/html;charset=utf-8")),
            "{sent}"
        );
    }
}

#[tokio::test]
async fn a_plugin_gets_captures_query_and_body() {
    let site = Site::start(Setup::default()).await;
    let answer = site
        .ask(
            "POST /tftp/PXELinux/aa:bb?x=1&y",
            "Content-Length: 5\r\n\r\nhello",
        )
        .await;
    assert_eq!(answer.status, 200);
    let seen = &site.seen()[0];
    assert_eq!(
        (seen.plugin.as_str(), seen.route, seen.method.as_str()),
        ("tftp", 1, "POST")
    );
    assert_eq!(seen.query, "x=1&y");
    assert_eq!(
        seen.captures,
        [
            ("variant".to_owned(), "PXELinux".to_owned()),
            ("mac".to_owned(), "aa:bb".to_owned())
        ]
    );
    assert_eq!(seen.body, Ok(Bytes::from_static(b"hello")));
    assert_eq!(
        (seen.caller.audience, seen.caller.origin.as_str()),
        (Audience::Foreman, "http://localhost")
    );
    assert_eq!(seen.caller.listener.as_ref(), "test");
}

#[tokio::test]
async fn chunked_bodies_arrive_without_their_trailers() {
    let site = Site::start(Setup::default()).await;
    for path in ["/tftp/a/b", "/boot/upload"] {
        let body = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Admin: yes\r\n\r\n";
        let text = site
            .raw(format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{body}"
            ))
            .await;
        assert_eq!(status(&text), 200, "{text}");
        let seen = site.seen().pop().unwrap();
        assert_eq!(seen.body, Ok(Bytes::from_static(b"abcdefg")));
        assert!(
            !seen.headers.contains_key("x-admin")
                && !seen.headers.contains_key("transfer-encoding")
        );
    }
}

#[tokio::test]
async fn bodies_have_limits_by_mode() {
    let site = Site::start(Setup::default()).await;
    let post = |path: &str, size: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n{}",
            "x".repeat(size)
        )
    };
    assert_eq!(status(&site.raw(post("/tftp/a/b", 1000)).await), 200);
    assert_eq!(status(&site.raw(post("/tftp/a/b", 1001)).await), 413);
    assert_eq!(status(&site.raw(post("/boot/none", 64 * 1024)).await), 200);
    assert_eq!(
        site.seen().last().unwrap().body,
        Ok(Bytes::new()),
        "a body nobody wants is dropped"
    );
    assert_eq!(
        status(&site.raw(post("/boot/none", 64 * 1024 + 1)).await),
        413
    );
    assert_eq!(status(&site.raw(post("/boot/upload", 1 << 20)).await), 200);
    assert_eq!(
        site.seen().last().unwrap().body.as_ref().unwrap().len(),
        1 << 20
    );
}

#[tokio::test]
async fn a_body_of_unknown_length_is_411() {
    let site = Site::start(Setup::default()).await;
    for method in ["POST", "PUT", "PATCH"] {
        let answer = site.ask(&format!("{method} /tftp/a/b"), "").await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (411, Some("text/html;charset=utf-8"))
        );
    }
    assert_eq!(site.ask("DELETE /tftp/a/b", "").await.status, 200);
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body() {
    let site = Site::start(Setup::default()).await;
    let mut stream = site.connect().await;
    stream.write_all(b"POST /tftp/a/b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await.unwrap();
    let mut first = [0; 25];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut first))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"ok").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(status(&exchange(stream, b"").await), 200);
}

#[tokio::test]
async fn errors_of_plugins_become_http_in_one_form() {
    let site = Site::start(Setup::default()).await;
    let busy = site.ask("GET /boot/busy", "").await;
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("7")));
    let failed = site.ask("GET /boot/failed", "").await;
    assert_eq!(
        (failed.status, failed.body.as_str()),
        (500, "Internal error (request id-1)")
    );
    assert_eq!(failed.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn json_is_not_shown_to_pages_of_other_sites() {
    let site = Site::start(Setup::default()).await;
    assert_eq!(
        site.ask("GET /boot/json", "Referer: http://localhost/x\r\n")
            .await
            .status,
        200
    );
    let answer = site
        .ask("GET /boot/json", "Referer: http://evil.example.net/x\r\n")
        .await;
    assert_eq!(
        (
            answer.status,
            answer.header("content-type"),
            answer.body.as_str()
        ),
        (403, Some("text/plain"), "Forbidden")
    );
}

#[tokio::test]
async fn plugins_see_no_headers_of_the_connection_and_none_that_lie_about_the_client() {
    let site = Site::start(Setup::default()).await;
    let fields = "X-Forwarded-For: 203.0.113.9\r\nX_Forwarded_For: 203.0.113.9\r\nForwarded: for=1.1.1.1\r\nConnection: X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n\
                  X-RHN-Provisioning-MAC-0: eth0 aa\r\nX-Odd: \u{e9}\r\n";
    assert_eq!(site.ask("GET /boot/a", fields).await.status, 200);
    let seen = &site.seen()[0];
    let mut names: Vec<&str> = seen.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["host", "x-odd", "x-rhn-provisioning-mac-0"]);
    assert_eq!(seen.caller.address.to_string(), "127.0.0.1");
}

#[tokio::test]
async fn a_front_vouches_for_address_scheme_and_host() {
    let setup = Setup {
        fronts: Fronts::new(vec!["127.0.0.1/32".parse().unwrap()]),
        ..Setup::default()
    };
    let site = Site::start(setup).await;
    let fields = "X-Forwarded-For: 10.0.0.1, 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: proxy.example.com\r\n";
    assert_eq!(site.ask("GET /boot/a", fields).await.status, 200);
    let caller = &site.seen()[0].caller;
    assert_eq!(
        (caller.address.to_string().as_str(), caller.origin.as_str()),
        ("203.0.113.9", "https://proxy.example.com")
    );
    assert_eq!(
        site.ask("GET /tftp/serverName", fields).await.status,
        403,
        "a fronted client is not this machine"
    );
}

#[tokio::test]
async fn on_a_public_listener_foremans_paths_do_not_exist() {
    let serves = Serves::Audiences(Audiences::of(&[Audience::Public]));
    let site = Site::start(Setup {
        serves,
        ..Setup::default()
    })
    .await;
    for path in [
        "/tftp/serverName",
        "/tftp/none",
        "/hosts/me",
        "/v2/features",
        "/logs",
        "/metrics",
    ] {
        assert_eq!(
            site.ask(&format!("GET {path}"), "").await.status,
            404,
            "{path}"
        );
    }
    for path in ["/features", "/version", "/boot/a"] {
        assert_eq!(
            site.ask(&format!("GET {path}"), "").await.status,
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_admin_listener_serves_nothing_else() {
    let site = Site::start(Setup {
        serves: Serves::Admin,
        ..Setup::default()
    })
    .await;
    assert_eq!(site.ask("GET //metrics", "").await.body, "numbers");
    for path in ["/features", "/boot/a", "/tftp/serverName"] {
        assert_eq!(
            site.ask(&format!("GET {path}"), "").await.status,
            404,
            "{path}"
        );
    }
}

#[tokio::test]
async fn plain_http_is_foremans_only_where_allowed() {
    let site = Site::start(Setup {
        plain_foreman: PlainForeman::Refused,
        ..Setup::default()
    })
    .await;
    for path in [
        "/tftp/serverName",
        "/tftp/none/of/these",
        "/v2/features",
        "/v2/none",
        "/logs/",
    ] {
        let answer = site.ask(&format!("GET {path}"), "").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (403, "No client SSL certificate supplied"),
            "{path}"
        );
    }
    assert!(site.seen().is_empty());
    let site = Site::start(Setup::default()).await;
    assert_eq!(site.ask("GET /v2/features", "").await.status, 200);
}

#[tokio::test]
async fn a_trial_answers_only_to_its_own_name() {
    let site = Site::start(Setup {
        own_names: Some(OwnNames::loopback_and([])),
        ..Setup::default()
    })
    .await;
    let port = site.address.port();
    let ask = async |host: String, fields: &str| {
        status(
            &site
                .raw(format!(
                    "GET /boot/a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n"
                ))
                .await,
        )
    };
    assert_eq!(ask(format!("localhost:{port}"), "").await, 200);
    assert_eq!(ask(format!("rebound.example.net:{port}"), "").await, 403);
    assert_eq!(
        ask(
            format!("localhost:{port}"),
            "Origin: http://evil.example.net\r\n"
        )
        .await,
        403
    );
}

#[tokio::test]
async fn requests_are_counted_by_plugin_and_status() {
    let site = Site::start(Setup::default()).await;
    for path in ["/boot/a", "/boot/busy", "/features", "/none"] {
        site.ask(&format!("GET {path}"), "").await;
    }
    for (plugin, status, count) in [
        ("boot", "2xx", 1.0),
        ("boot", "5xx", 1.0),
        ("core", "2xx", 1.0),
        ("none", "4xx", 1.0),
    ] {
        let line = format!(
            "bulkhead_requests_total{{listener=\"test\",plugin=\"{plugin}\",method=\"GET\",status=\"{status}\"}}"
        );
        assert_eq!(
            site.number(&line),
            count,
            "{line}\n{}",
            site.metrics.render()
        );
    }
}

#[tokio::test]
async fn draining_finishes_requests_and_takes_no_new_ones() {
    let site = Site::start(Setup::default()).await;
    let mut idle = site.connect().await;
    idle.write_all(b"GET /boot/a HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    site.until("the first request ran", |site| site.seen().len() == 1)
        .await;
    let mut busy = site.connect().await;
    busy.write_all(b"GET /boot/slow HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    site.until("the slow request runs", |site| site.seen().len() == 2)
        .await;
    site.stop.cancel();
    let began = std::time::Instant::now();
    let first = exchange(idle, b"").await;
    assert!(
        first.starts_with("HTTP/1.1 200"),
        "idle connections are closed after what they asked: {first}"
    );
    assert!(began.elapsed() < Duration::from_millis(300));
    let text = exchange(busy, b"").await;
    assert!(
        text.ends_with("slow but done") && text.contains("Connection: close"),
        "{text}"
    );
    assert!(TcpStream::connect(site.address).await.is_err());
    assert_eq!(site.running.await.unwrap(), Drained { cut_off: 0 });
}

#[tokio::test]
async fn draining_answers_those_who_had_connected() {
    let site = Site::start(Setup::default()).await;
    let (silent, late) = (site.connect().await, site.connect().await);
    site.until("both are let in", |site| {
        site.number("bulkhead_connections{") == 2.0
    })
    .await;
    site.stop.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let text = exchange(late, b"GET /boot/a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(
        text.starts_with("HTTP/1.1 200") && text.contains("Connection: close"),
        "{text}"
    );
    assert_eq!(exchange(silent, b"").await, "", "nobody is waited for long");
    assert_eq!(site.running.await.unwrap(), Drained { cut_off: 0 });
}

#[tokio::test]
async fn draining_ends_even_if_a_request_does_not() {
    let site = Site::start(Setup {
        drain: Duration::from_millis(100),
        ..Setup::default()
    })
    .await;
    let mut stuck = site.connect().await;
    stuck
        .write_all(b"POST /boot/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        .await
        .unwrap();
    site.until("the connection is open", |site| {
        site.number("bulkhead_connections{") > 0.0
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    site.stop.cancel();
    assert_eq!(site.running.await.unwrap(), Drained { cut_off: 1 });
}

#[tokio::test]
async fn ipv6_stands_beside_ipv4_on_one_port() {
    let first = bind("[::]:0".parse().unwrap()).unwrap();
    let port = first.local_addr().unwrap().port();
    bind(format!("0.0.0.0:{port}").parse().unwrap()).unwrap();
    let taken = bind(format!("0.0.0.0:{port}").parse().unwrap());
    assert!(taken.is_ok() || taken.unwrap_err().to_string().contains(&port.to_string()));
    let site = Site::start(Setup {
        address: "[::1]:0",
        ..Setup::default()
    })
    .await;
    assert_eq!(site.ask("GET /tftp/serverName", "").await.status, 200);
    assert_eq!(site.seen()[0].caller.address.to_string(), "::1");
}
