//! Connections that are kept, and when they are not.

use super::*;

#[tokio::test]
async fn connections_are_kept_for_the_same_plugin_only() {
    let server = Server::http(echo).await;
    let client = client();
    let one = guard(grant(&base(&server)));
    let two = Guard::new(
        &HostRules::new(Deny::default()),
        Effective {
            plugin: "two".into(),
            ..rights(slot(grant(&base(&server))))
        },
    );
    for _ in 0..10 {
        get(&client, &one).await.unwrap();
        eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    }
    assert_eq!(server.connections(), 1);
    get(&client, &two).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_changed_policy_closes_idle_connections() {
    let server = Server::http(echo).await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    get(&client, &guard).await.unwrap();
    eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    guard.replace(rights(|_| {}));
    eventually("the idle connection is closed", || {
        client.shared.pools.idle() == 0
    })
    .await;
    assert!(matches!(
        get(&client, &guard).await,
        Err(UpstreamError::Denied(_))
    ));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn idle_connections_are_closed_in_time() {
    let server = Server::http(echo).await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    get(&client, &guard).await.unwrap();
    eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    assert_eq!(client.shared.pools.idle(), 0);
}

/// Answers the first request of each connection, closes at the second one without a word.
async fn closing_at_the_second() -> (Server, Arc<AtomicUsize>) {
    let heads = Arc::new(AtomicUsize::new(0));
    let seen = heads.clone();
    let server = Server::raw(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            if read_head(&mut stream).await {
                seen.fetch_add(1, Ordering::SeqCst);
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                    .await;
                if read_head(&mut stream).await {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    })
    .await;
    (server, heads)
}

#[tokio::test]
async fn a_stale_connection_costs_a_repeatable_request_nothing() {
    let (server, _) = closing_at_the_second().await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    for _ in 0..5 {
        assert_eq!(get(&client, &guard).await.unwrap().body, b"hi");
        eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    }
    assert_eq!(server.connections(), 5);
}

#[tokio::test]
async fn a_request_that_may_have_arrived_is_not_sent_twice() {
    let (server, heads) = closing_at_the_second().await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    get(&client, &guard).await.unwrap();
    eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    let answer = send(&client, &guard, request("POST", "/")).await;
    assert!(
        matches!(answer, Err(UpstreamError::Unreachable(_))),
        "{answer:?}"
    );
    assert_eq!(heads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_older_connection_is_not_trusted_with_what_cannot_be_repeated() {
    let (server, _) = closing_at_the_second().await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    get(&client, &guard).await.unwrap();
    eventually("the connection is back", || client.shared.pools.idle() == 1).await;
    tokio::time::sleep(crate::capability::upstream::YOUTH + Duration::from_millis(100)).await;
    assert_eq!(
        send(&client, &guard, request("POST", "/"))
            .await
            .unwrap()
            .body,
        b"hi"
    );
    assert_eq!(server.connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_waits_its_turn_on_few_connections() {
    let server = Server::http(|_| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        ok("hi")
    })
    .await;
    let (client, guard) = (
        client(),
        guard(HttpGrant {
            connections: 3,
            ..grant(&base(&server))
        }),
    );
    let answers = futures::future::join_all((0..60).map(|_| get(&client, &guard))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(server.connections() <= 3, "{}", server.connections());
}

#[tokio::test]
async fn waiting_for_a_turn_ends_at_the_deadline() {
    let server = Server::http(|_| std::future::pending::<Response<Body>>()).await;
    let (client, guard) = (
        client(),
        guard(HttpGrant {
            connections: 1,
            timeout: Duration::from_millis(400),
            ..grant(&base(&server))
        }),
    );
    let answers = futures::future::join_all((0..3).map(|_| get(&client, &guard))).await;
    let (sent, waited) = answers.split_first().unwrap();
    assert!(matches!(sent, Err(UpstreamError::Timeout(_))), "{sent:?}");
    for answer in waited {
        assert!(
            matches!(answer, Err(UpstreamError::Unreachable(reason)) if reason.contains("no turn")),
            "{answer:?}"
        );
    }
    assert_eq!(server.requests(), 1);
}
