use super::super::connections::{Connections, Lease};
use super::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn limits() -> Limits {
    Limits {
        head_time: Duration::from_millis(150),
        idle: Duration::from_millis(100),
        request_line: 200,
        head: 1000,
        ..Limits::default()
    }
}

fn peer() -> Peer {
    Peer {
        client: ([127, 0, 0, 1], 40000).into(),
        listener: "hosts".into(),
    }
}

/// A gate and the client's end of its connection. The lease keeps the place.
fn gate() -> (Gate<DuplexStream>, DuplexStream, Lease) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let lease = Connections::new(1, 1)
        .enter([127, 0, 0, 1].into(), true)
        .unwrap();
    let server = HeaderValue::from_static("foreman-proxy/3.11.0");
    (
        Gate::new(
            near,
            Arc::new(limits()),
            lease.place().clone(),
            server,
            peer(),
        ),
        far,
        lease,
    )
}

/// What hyper would see until the gate says end of file.
async fn passed(gate: &mut Gate<DuplexStream>) -> String {
    let mut bytes = Vec::new();
    gate.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// What the client gets after the gate is shut down.
async fn answered(gate: &mut Gate<DuplexStream>, far: &mut DuplexStream) -> String {
    let mut text = String::new();
    let (shut, read) = tokio::join!(gate.shutdown(), async {
        let outcome = far.read_to_string(&mut text).await;
        far.shutdown().await.unwrap();
        outcome
    });
    shut.unwrap();
    read.unwrap();
    text
}

#[tokio::test]
async fn requests_pass_unchanged_and_one_after_the_other() {
    let (mut gate, mut far, _lease) = gate();
    let all = "GET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello\r\nPOST /c HTTP/1.1\r\n\
               Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /d HTTP/1.1\r\n\r\n";
    far.write_all(all.as_bytes()).await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(
        passed(&mut gate).await,
        all.replace("hello\r\nPOST", "helloPOST"),
        "a stray empty line is dropped"
    );
    assert_eq!(answered(&mut gate, &mut far).await, "");
}

#[tokio::test]
async fn no_byte_of_an_incomplete_head_passes() {
    let (mut gate, mut far, _lease) = gate();
    far.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n")
        .await
        .unwrap();
    assert_eq!(passed(&mut gate).await, "");
    assert!(
        answered(&mut gate, &mut far)
            .await
            .starts_with("HTTP/1.1 408 ")
    );
}

#[tokio::test]
async fn silence_is_closed_without_a_word() {
    let (mut fresh, mut far, _lease) = gate();
    assert_eq!(passed(&mut fresh).await, "");
    assert_eq!(answered(&mut fresh, &mut far).await, "");

    let (mut used, mut far, _lease) = gate();
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(passed(&mut used).await, "GET / HTTP/1.1\r\n\r\n");
    assert_eq!(answered(&mut used, &mut far).await, "");
}

#[tokio::test]
async fn a_smuggling_pair_behind_a_good_request_is_refused_alone() {
    let (mut gate, mut far, _lease) = gate();
    let good = "GET /a HTTP/1.1\r\n\r\n";
    let pair = "POST /b HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n";
    far.write_all(format!("{good}{pair}").as_bytes())
        .await
        .unwrap();
    assert_eq!(passed(&mut gate).await, good);
    assert!(
        answered(&mut gate, &mut far)
            .await
            .starts_with("HTTP/1.1 400 ")
    );
}

#[tokio::test]
async fn a_refusal_is_read_even_by_a_client_that_is_still_sending() {
    let (mut gate, mut far, _lease) = gate();
    let sender = tokio::spawn(async move {
        far.write_all(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)).as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        text
    });
    assert_eq!(passed(&mut gate).await, "");
    gate.shutdown().await.unwrap();
    drop(gate);
    assert!(sender.await.unwrap().starts_with("HTTP/1.1 414 "));
}

#[tokio::test]
async fn what_is_not_http_is_closed_without_a_word() {
    let (mut gate, mut far, _lease) = gate();
    far.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        .await
        .unwrap();
    assert_eq!(passed(&mut gate).await, "");
    assert_eq!(answered(&mut gate, &mut far).await, "");
}

#[tokio::test]
async fn a_malformed_chunk_is_an_error_of_the_body() {
    let (mut gate, mut far, _lease) = gate();
    far.write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloGET /evil HTTP/1.1\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    assert_eq!(
        gate.read_to_end(&mut bytes).await.unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
    assert!(!String::from_utf8(bytes).unwrap().contains("evil"));
}

#[tokio::test]
async fn an_evicted_connection_passes_nothing_more() {
    let connections = Connections::new(1, 1);
    let lease = connections.enter([127, 0, 0, 1].into(), true).unwrap();
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let mut gate = Gate::new(
        near,
        Arc::new(limits()),
        lease.place().clone(),
        HeaderValue::from_static("x"),
        peer(),
    );
    let _newer = connections.enter([127, 0, 0, 2].into(), true).unwrap();
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(passed(&mut gate).await, "");
}
