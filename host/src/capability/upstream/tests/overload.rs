//! More requests than a server can answer, for long.

use super::*;

/// What a server takes for an answer; it gives one at a time.
const RENDERING: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_server_asked_too_much_is_sent_only_what_it_can_answer_in_time() {
    let server = Server::http(|_| async {
        tokio::time::sleep(RENDERING).await;
        ok("rendered")
    })
    .await;
    let guard = guard(HttpGrant {
        timeout: 5 * RENDERING,
        connections: 1,
        ..grant(&base(&server))
    });
    let client = client();
    let mut asked = Vec::new();
    // Four times as many as it can answer, four times as long as one waits.
    for _ in 0..80 {
        let (client, guard) = (client.clone(), guard.clone());
        asked.push(tokio::spawn(async move { get(&client, &guard).await }));
        tokio::time::sleep(RENDERING / 4).await;
    }
    let (mut rendered, mut late, mut turned_away) = (0, 0, 0);
    for one in asked {
        match one.await.unwrap() {
            Ok(_) => rendered += 1,
            Err(UpstreamError::Timeout(_)) => late += 1,
            Err(UpstreamError::Unreachable(reason)) => {
                assert!(reason.contains("no turn"), "{reason}");
                turned_away += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(
        late * 4 < rendered && turned_away > 0,
        "{rendered} rendered, {late} sent and given up, {turned_away} turned away"
    );
}
