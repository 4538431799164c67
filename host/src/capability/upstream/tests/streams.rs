//! Bodies on their way, and rights taken away meanwhile.

use super::super::NoAnswer;
use super::*;

fn forward(body: Source) -> Forward {
    Forward {
        slot: "api".into(),
        method: "POST".into(),
        path: "/".into(),
        headers: Vec::new(),
        body,
        keep: Vec::new(),
    }
}

/// A body of `count` pieces of 64 KiB.
fn pieces(count: usize) -> Body {
    let piece = Bytes::from(vec![7u8; 64 * 1024]);
    Body::from_stream(
        futures::stream::iter(0..count).map(move |_| Ok::<_, std::io::Error>(piece.clone())),
    )
}

async fn drain(body: Body) -> Result<usize, axum::Error> {
    let mut total = 0;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        total += piece?.len();
    }
    Ok(total)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_streamed_in_both_directions() {
    let server = Server::http(|request: Request<HyperIncoming>| async move {
        Response::new(Body::new(request.into_body()))
    })
    .await;
    let guard = guard(grant(&base(&server)));
    let answer = client()
        .forward(
            &guard,
            &Via::default(),
            &forward(Source::Incoming),
            Some(pieces(1_000)),
        )
        .await
        .unwrap();
    assert_eq!(drain(answer.into_body()).await.unwrap(), 64_000 * 1024);
}

#[tokio::test]
async fn a_forward_sends_what_the_plugin_says() {
    let server = Server::http(echo).await;
    let guard = guard(grant(&base(&server)));
    let answer = client()
        .forward(
            &guard,
            &Via::default(),
            &forward(Source::Bytes(b"abc".to_vec())),
            None,
        )
        .await
        .unwrap();
    let text = String::from_utf8(
        answer
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap();
    assert!(text.ends_with("\nabc"), "{text}");
    let answer = client()
        .forward(&guard, &Via::default(), &forward(Source::Nothing), None)
        .await
        .unwrap();
    let text = String::from_utf8(
        answer
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap();
    assert!(text.contains("\"content-length\": \"0\""), "{text}");
    assert!(
        client()
            .forward(&guard, &Via::default(), &forward(Source::Incoming), None)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_upload_that_goes_on_is_not_late() {
    let server = Server::http(echo).await;
    let guard = guard(HttpGrant {
        timeout: Duration::from_millis(200),
        response: u64::MAX,
        ..grant(&base(&server))
    });
    let slow = Body::from_stream(futures::stream::iter(0..6).then(|_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 4096]))
    }));
    client()
        .forward(
            &guard,
            &Via::default(),
            &forward(Source::Incoming),
            Some(slow),
        )
        .await
        .unwrap();
    let stuck = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let answer = client()
        .forward(
            &guard,
            &Via::default(),
            &forward(Source::Incoming),
            Some(stuck),
        )
        .await;
    assert!(
        matches!(answer, Err(NoAnswer::Failed(UpstreamError::Timeout(200)))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_costs_that_request_only() {
    let server = Server::http(echo).await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    let broken = Body::from_stream(futures::stream::iter([
        Ok(Bytes::from_static(b"x")),
        Err(std::io::Error::other("gone")),
    ]));
    assert!(
        client
            .forward(
                &guard,
                &Via::default(),
                &forward(Source::Incoming),
                Some(broken)
            )
            .await
            .is_err()
    );
    get(&client, &guard).await.unwrap();
}

/// A server whose answer never ends.
async fn endless() -> Server {
    Server::http(|_| async {
        let drops = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"drop")), ()))
        });
        Response::new(Body::from_stream(drops))
    })
    .await
}

#[tokio::test]
async fn a_stream_ends_within_a_second_when_its_right_is_taken_away() {
    let server = endless().await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    let answer = client
        .forward(&guard, &Via::default(), &forward(Source::Nothing), None)
        .await
        .unwrap();
    let reading = tokio::spawn(drain(answer.into_body()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!reading.is_finished());
    // A change that leaves this right alone disturbs nothing.
    guard.replace(rights(slot(grant(&base(&server)))));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!reading.is_finished());
    guard.replace(rights(|_| {}));
    let ended = tokio::time::timeout(Duration::from_secs(1), reading)
        .await
        .expect("within a second")
        .unwrap();
    assert!(ended.unwrap_err().to_string().contains("no longer"));
}

#[tokio::test]
async fn a_request_that_waits_for_its_answer_is_denied_when_its_right_is_taken_away() {
    let server = Server::http(|_| std::future::pending::<Response<Body>>()).await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    let waiting = tokio::spawn({
        let (client, guard) = (client.clone(), guard.clone());
        async move { get(&client, &guard).await }
    });
    eventually("the request has arrived", || server.requests() == 1).await;
    guard.replace(rights(|_| {}));
    let answer = tokio::time::timeout(Duration::from_secs(1), waiting)
        .await
        .expect("within a second")
        .unwrap();
    assert!(
        matches!(answer, Err(UpstreamError::Denied(_))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_new_deny_rule_ends_streams_to_its_addresses() {
    let server = endless().await;
    let (client, guard) = (client(), guard(grant(&base(&server))));
    let answer = client
        .forward(&guard, &Via::default(), &forward(Source::Nothing), None)
        .await
        .unwrap();
    let reading = tokio::spawn(drain(answer.into_body()));
    let mut deny = Deny::default();
    deny.networks.push("127.0.0.0/8".parse().unwrap());
    guard.host().set_deny(deny);
    let ended = tokio::time::timeout(Duration::from_secs(1), reading)
        .await
        .expect("within a second")
        .unwrap();
    assert!(ended.is_err());
}
