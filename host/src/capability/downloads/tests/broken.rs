//! Transfers that break off, and what may be kept of them.

use super::*;

async fn read_head(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte).await, Ok(1)) {
        seen.push(byte[0]);
    }
    String::from_utf8(seen).unwrap().to_lowercase()
}

const WHOLE: &[u8] = b"0123456789abcdefghij";

/// Breaks off after ten bytes; then serves ranges of a file with this validator on each connection.
async fn breaking(validators: &'static [&'static str]) -> (Server, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let server = Server::raw(move |mut stream, number| {
        let seen = seen.clone();
        async move {
            let head = read_head(&mut stream).await;
            seen.lock().unwrap().push(head.clone());
            let validator = validators[number.min(validators.len() - 1)];
            let range = head.contains("range: bytes=10-") && head.contains(&format!("if-range: {}", validator.split_once(": ").unwrap().1.to_lowercase()));
            let answer = if number == 0 {
                format!("HTTP/1.1 200 OK\r\n{validator}\r\ncontent-length: 20\r\n\r\n0123456789")
            } else if range {
                format!("HTTP/1.1 206 Partial Content\r\n{validator}\r\ncontent-range: bytes 10-19/20\r\ncontent-length: 10\r\n\r\nabcdefghij")
            } else {
                format!("HTTP/1.1 200 OK\r\n{validator}\r\ncontent-length: 20\r\n\r\n{}", std::str::from_utf8(WHOLE).unwrap())
            };
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    (server, heads)
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_stopped() {
    for validators in [
        &["etag: \"v1\""][..],
        &["last-modified: mon, 02 jan 2023 03:04:05 gmt"],
    ] {
        let (server, heads) = breaking(validators).await;
        let site = Site::new(any());
        assert_eq!(site.saved(&url(&server, "/a"), "a").await, WHOLE);
        let heads = heads.lock().unwrap();
        assert_eq!(heads.len(), 2);
        assert!(heads[1].contains("range: bytes=10-"), "{}", heads[1]);
    }
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_is_fetched_from_the_start() {
    let (server, _) = breaking(&["etag: \"v1\"", "etag: \"v2\""]).await;
    let site = Site::new(any());
    assert_eq!(site.saved(&url(&server, "/a"), "a").await, WHOLE);
    let (server, heads) = breaking(&["etag: W/\"weak\""]).await;
    assert_eq!(site.saved(&url(&server, "/b"), "b").await, WHOLE);
    assert!(
        !heads.lock().unwrap()[1].contains("range:"),
        "a weak validator proves nothing"
    );
}

#[tokio::test]
async fn a_range_that_does_not_fit_is_not_appended() {
    let server = Server::raw(|mut stream, number| async move {
        let _ = read_head(&mut stream).await;
        let answer: &[u8] = match number {
            0 => b"HTTP/1.1 200 OK\r\netag: \"v\"\r\ncontent-length: 20\r\n\r\n0123456789",
            1 => b"HTTP/1.1 206 Partial Content\r\netag: \"v\"\r\ncontent-range: bytes 5-19/20\r\ncontent-length: 15\r\n\r\nevil-evil-evil!",
            _ => b"HTTP/1.1 200 OK\r\netag: \"v\"\r\ncontent-length: 20\r\n\r\n0123456789abcdefghij",
        };
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
    })
    .await;
    assert_eq!(
        Site::new(any()).saved(&url(&server, "/a"), "a").await,
        WHOLE
    );
}

#[tokio::test]
async fn an_incomplete_file_is_never_put_in_place() {
    let server = Server::raw(|mut stream, _| async move {
        let _ = read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n0123456789")
            .await;
    })
    .await;
    let site = Site::new(any());
    std::fs::create_dir(site.root.path().join("d")).unwrap();
    site.failed(&url(&server, "/a"), "d/a").await;
    assert_eq!(server.connections(), 4);
    let site = Site::new(any());
    std::fs::write(site.root.path().join("a"), "old").unwrap();
    site.fetch(&url(&server, "/a"), "a").unwrap();
    assert!(matches!(site.ended("a").await.stage, Stage::Failed));
    assert_eq!(std::fs::read(site.root.path().join("a")).unwrap(), b"old");
}

#[tokio::test]
async fn what_a_killed_host_left_behind_is_removed() {
    let site = Site::new(any());
    std::fs::create_dir(site.root.path().join("boot")).unwrap();
    std::fs::write(site.root.path().join("boot/.bulkhead-part-0123"), "half").unwrap();
    Downloads::sweep(&site.guard, |slot| site.access.quota(slot));
    assert!(files_below(site.root.path()).is_empty());
}
