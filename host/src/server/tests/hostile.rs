//! Clients that want to harm: each test shows what becomes of them, and that an honest client is served meanwhile.

use super::*;

fn hasty() -> Limits {
    let short = Duration::from_millis(300);
    Limits {
        head_time: short,
        idle: short,
        body_idle: short,
        body_time: Duration::from_millis(600),
        send_stall: short,
        handshake: short,
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_slow_head_is_408_and_a_silent_connection_is_closed() {
    let site = Site::start(Setup {
        limits: hasty(),
        ..Setup::default()
    })
    .await;
    let (drip, silence) = tokio::join!(
        async {
            let mut stream = site.connect().await;
            let mut text = String::new();
            for piece in b"GET /boot/a HTTP/1.1\r\nHost: ".chunks(1) {
                if stream.write_all(piece).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = stream.read_to_string(&mut text).await;
            text
        },
        site.raw(""),
    );
    assert_eq!(status(&drip), 408);
    assert_eq!(silence, "");
    site.until("counted", |site| {
        site.number("bulkhead_connection_rejections_total{listener=\"test\",reason=\"head\"}")
            == 1.0
    })
    .await;
    site.serves_honest_clients().await;
}

#[tokio::test]
async fn endless_heads_and_giant_lines_are_refused_early() {
    let site = Site::start(Setup::default()).await;
    assert_eq!(
        status(
            &site
                .raw(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)))
                .await
        ),
        414
    );
    assert_eq!(
        status(
            &site
                .raw(format!(
                    "GET / HTTP/1.1\r\nX: {}\r\n\r\n",
                    "a".repeat(1 << 20)
                ))
                .await
        ),
        413
    );
    let many: String = (0..200)
        .map(|number| format!("X-{number}: a\r\n"))
        .collect();
    assert_eq!(
        status(&site.raw(format!("GET / HTTP/1.1\r\n{many}\r\n")).await),
        431
    );
    let large = format!("X: {}\r\n", "a".repeat(100 * 1024));
    assert_eq!(
        site.ask("GET /boot/a", &large).await.status,
        200,
        "what the contract allows passes"
    );
    assert_eq!(
        site.ask(&format!("GET /boot/{}", "a".repeat(15_000)), "")
            .await
            .status,
        200
    );
    site.serves_honest_clients().await;
}

#[tokio::test]
async fn smuggling_pairs_reach_nobody() {
    let site = Site::start(Setup::default()).await;
    let hidden = "GET /tftp/serverName HTTP/1.1\r\nHost: a\r\n\r\n";
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        "Transfer-Encoding\t: chunked\r\n\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n\r\n",
        "Content-Length: 1_0\r\n\r\n",
    ] {
        let text = site
            .raw(format!(
                "POST /boot/none HTTP/1.1\r\nHost: a\r\n{fields}{hidden}"
            ))
            .await;
        assert_eq!(status(&text), 400, "{fields:?}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    }
    let two_hosts = site
        .raw("GET /boot/a HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(status(&two_hosts), 400);
    assert!(site.seen().is_empty(), "{:?}", site.seen());
}

#[tokio::test]
async fn broken_chunks_are_400_and_what_follows_is_no_request() {
    let site = Site::start(Setup::default()).await;
    for chunks in [
        "zz\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nGET /tftp/serverName HTTP/1.1\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "3\nabc\n0\n\n",
    ] {
        let hidden = "GET /tftp/serverName HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let text = site.raw(format!("POST /tftp/a/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{hidden}")).await;
        assert!(
            site.seen()
                .iter()
                .all(|seen| seen.path != "/tftp/serverName"),
            "{chunks:?}"
        );
        assert!(
            text.is_empty() || status(&text) == 400 || status(&text) == 200,
            "{chunks:?}: {text}"
        );
    }
    site.serves_honest_clients().await;
}

#[tokio::test]
async fn a_bad_chunk_is_told_to_the_client() {
    let site = Site::start(Setup::default()).await;
    let text = site.raw("POST /tftp/a/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n").await;
    assert_eq!(status(&text), 400);
    assert!(site.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_stops_is_408_and_reaches_nobody() {
    let site = Site::start(Setup {
        limits: hasty(),
        ..Setup::default()
    })
    .await;
    let answer = Answer::parse(
        &site
            .raw("POST /tftp/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
            .await,
    );
    assert_eq!(
        (answer.status, answer.header("connection")),
        (408, Some("close"))
    );
    assert!(site.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_drips_is_408() {
    let site = Site::start(Setup {
        limits: hasty(),
        ..Setup::default()
    })
    .await;
    let mut stream = site.connect().await;
    stream
        .write_all(b"POST /tftp/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        .await
        .unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut text = String::new();
    let dripping = async {
        for _ in 0..100 {
            if writer.write_all(b"x").await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let reading = tokio::time::timeout(Duration::from_secs(2), reader.read_to_string(&mut text));
    tokio::select! { () = dripping => panic!("never answered"), outcome = reading => { outcome.unwrap().unwrap(); } }
    assert_eq!(status(&text), 408);
}

#[tokio::test]
async fn all_bodies_together_are_bounded() {
    let limits = Limits {
        held_bodies: 1024,
        ..Limits::default()
    };
    let site = Site::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let mut first = site.connect().await;
    first
        .write_all(b"POST /tftp/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let body = "x".repeat(100);
    let answer = site
        .ask(
            "POST /tftp/a/b",
            &format!("Content-Length: 100\r\n\r\n{body}"),
        )
        .await;
    assert_eq!(answer.status, 503);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((5..=10).contains(&seconds), "{seconds}");
    first.write_all(&[b'x'; 997]).await.unwrap();
    first.shutdown().await.unwrap();
    assert_eq!(status(&exchange(first, b"").await), 200);
    assert_eq!(
        site.ask("POST /tftp/a/b", "Content-Length: 5\r\n\r\nhello")
            .await
            .status,
        200
    );
}

/// Those who take what they get, and keep it, leave as much for somebody else.
#[tokio::test]
async fn a_client_whose_bodies_fill_the_memory_keeps_nobody_else_out() {
    let limits = Limits {
        held_bodies: 64 << 10,
        ..Limits::default()
    };
    let site = Site::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let honest = || site.ask("POST /boot/upload", "Content-Length: 5\r\n\r\nhello");
    let calm = honest().await.status;
    assert_ne!(calm, 503);
    let mut slow = Vec::new();
    for _ in 0..10 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut one = socket.connect(site.address).await.unwrap();
        let head = "POST /boot/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 16384\r\n\r\n";
        one.write_all(head.as_bytes()).await.unwrap();
        one.write_all(&[b'x'; 8 << 10]).await.unwrap();
        slow.push(one);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(honest().await.status, calm);
    // Those beyond its share were told to come back.
    let mut last = slow.pop().unwrap();
    last.shutdown().await.unwrap();
    assert_eq!(status(&exchange(last, b"").await), 503);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let site = Site::start(Setup {
        limits: hasty(),
        ..Setup::default()
    })
    .await;
    let mut stream = site.connect().await;
    stream
        .write_all(b"GET /boot/large HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    site.until("it was served", |site| !site.seen().is_empty())
        .await;
    let began = std::time::Instant::now();
    site.until("given up", |site| {
        site.number("bulkhead_connections{") == 0.0
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(3));
    drop(stream);
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_steadily_gets_everything() {
    let site = Site::start(Setup {
        limits: hasty(),
        ..Setup::default()
    })
    .await;
    let mut stream = site.connect().await;
    stream
        .write_all(b"GET /boot/large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let (mut total, mut piece) = (0, vec![0; 1 << 20]);
    loop {
        match tokio::time::timeout(PATIENCE, stream.read(&mut piece))
            .await
            .unwrap()
            .unwrap()
        {
            0 => break,
            size => total += size,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(total > 64 << 20, "{total}");
}

#[tokio::test]
async fn a_client_that_half_closes_gets_its_answer() {
    let site = Site::start(Setup::default()).await;
    let mut stream = site.connect().await;
    stream
        .write_all(b"GET /boot/slow HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    assert!(exchange(stream, b"").await.ends_with("slow but done"));
}

#[tokio::test]
async fn tls_bytes_on_an_http_port_are_closed_without_a_word() {
    let site = Site::start(Setup::default()).await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\x80\x2e\x01\x00\x02",
        b"\0\0\0\0",
        &[0xff; 5000],
    ] {
        assert_eq!(site.raw(bytes).await, "");
    }
    assert_eq!(
        status(&site.raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await),
        505
    );
    site.serves_honest_clients().await;
}

#[tokio::test]
async fn slow_clients_beyond_the_limit_make_place_for_honest_ones() {
    let limits = Limits {
        connections: 20,
        connections_per_address: 20,
        ..Limits::default()
    };
    let site = Site::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let mut slow = Vec::new();
    for number in 0..60 {
        let mut stream = site.connect().await;
        let begun: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /boot/a HT",
            _ => b"POST /boot/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc",
        };
        stream.write_all(begun).await.unwrap();
        slow.push(stream);
    }
    site.until("all were accepted", |site| {
        site.number("bulkhead_connections_accepted_total{") == 60.0
    })
    .await;
    site.serves_honest_clients().await;
    assert!(site.number("bulkhead_connections{") <= 20.0);
    assert!(
        site.number("bulkhead_connection_rejections_total{listener=\"test\",reason=\"evicted\"}")
            >= 40.0
    );
    drop(slow);
    site.until("nothing is left", |site| {
        site.number("bulkhead_connections{") == 0.0
    })
    .await;
}

#[tokio::test]
async fn when_all_connections_are_at_work_a_new_one_is_closed_at_once() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let site = Site::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = site.connect().await;
        stream
            .write_all(b"GET /boot/slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        busy.push(stream);
    }
    site.until("both run", |site| site.seen().len() == 2).await;
    assert_eq!(
        site.raw("GET /boot/a HTTP/1.1\r\nHost: a\r\n\r\n").await,
        ""
    );
    assert_eq!(
        site.number(
            "bulkhead_connection_rejections_total{listener=\"test\",reason=\"listener-full\"}"
        ),
        1.0
    );
    for stream in busy {
        assert!(exchange(stream, b"").await.ends_with("slow but done"));
    }
    site.serves_honest_clients().await;
}

#[tokio::test]
async fn an_old_connection_takes_no_more_requests() {
    let limits = Limits {
        connection_age: Duration::from_millis(200),
        ..Limits::default()
    };
    let site = Site::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let mut stream = site.connect().await;
    stream
        .write_all(b"GET /boot/a HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(2), stream.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status(&text), 200);
}
