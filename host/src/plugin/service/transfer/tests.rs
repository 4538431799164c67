//! Transfers to a client of the test, byte by byte: losses, repetitions, silence.

use tokio::net::UdpSocket;

use super::*;

#[test]
fn line_ends_are_those_of_the_network_terminal() {
    assert_eq!(
        as_network_text(b"one\ntwo\r\nthree\r"),
        &b"one\r\ntwo\r\0\r\nthree\r\0"[..]
    );
}

/// Sends `bytes` as text (no file needed) to a client that loses and repeats what `lossy` says, and answers what the client put together.
async fn transfer(
    bytes: Vec<u8>,
    block: u64,
    window: u64,
    lossy: bool,
) -> (Vec<u8>, Result<u64, Broken>) {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut server = Tid::open(client.local_addr().unwrap(), "127.0.0.1:69").unwrap();
    client.connect(server.local()).await.unwrap();
    let receiving = tokio::spawn(async move {
        let (mut got, mut next, mut since, mut heard) = (Vec::new(), 1u16, 0, 0);
        let mut buffer = vec![0; 65_536];
        loop {
            let Ok(Ok(size)) =
                tokio::time::timeout(Duration::from_secs(5), client.recv(&mut buffer)).await
            else {
                return got;
            };
            heard += 1;
            let number = u16::from_be_bytes([buffer[2], buffer[3]]);
            let lost = lossy && heard % 7 == 3;
            if lost {
                continue;
            }
            let ack = |number: u16| {
                let mut ack = ACK.to_be_bytes().to_vec();
                ack.extend_from_slice(&number.to_be_bytes());
                ack
            };
            if number != next {
                client.send(&ack(next.wrapping_sub(1))).await.unwrap();
                since = 0;
                continue;
            }
            got.extend_from_slice(&buffer[4..size]);
            next = next.wrapping_add(1);
            since += 1;
            let ended = ((size - 4) as u64) < block;
            if since == window || ended {
                since = 0;
                client.send(&ack(number)).await.unwrap();
                if lossy {
                    // Twice: a sender that answers both would send everything twice from here on.
                    client.send(&ack(number)).await.unwrap();
                }
            }
            if ended {
                return got;
            }
        }
    });
    let metrics = crate::telemetry::metrics::Metrics::new("test");
    let mut source = Source {
        length: bytes.len() as u64,
        file: None,
        at: 0,
        piece: bytes.into(),
    };
    let mut sender = Sender {
        right: None,
        place: None,
        tid: &mut server,
        wait: Duration::from_millis(100),
        retries: 20,
        block,
        window,
    };
    let sent = sender.send(&mut source, &[], &metrics.plugin("t")).await;
    (receiving.await.unwrap(), sent)
}

#[tokio::test]
async fn every_byte_arrives_whatever_is_lost_or_repeated() {
    for (length, block, window) in [
        (0, 512, 1),
        (511, 512, 1),
        (512, 512, 1),
        (5000, 512, 1),
        (5000, 512, 4),
        (5120, 512, 16),
    ] {
        let bytes: Vec<u8> = (0..length).map(|it| (it % 251) as u8).collect();
        for lossy in [false, true] {
            let (got, sent) = transfer(bytes.clone(), block, window, lossy).await;
            assert_eq!(sent.unwrap(), length as u64, "{length} {window} {lossy}");
            assert_eq!(got, bytes, "{length} {window} {lossy}");
        }
    }
}

#[tokio::test]
async fn block_numbers_wrap_around() {
    let bytes = vec![7; 8 * 70_000];
    let (got, sent) = transfer(bytes.clone(), 8, 64, false).await;
    assert_eq!(
        (got.len(), sent.unwrap()),
        (bytes.len(), bytes.len() as u64)
    );
}

#[tokio::test]
async fn silence_ends_a_transfer() {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut server = Tid::open(client.local_addr().unwrap(), "127.0.0.1:69").unwrap();
    let metrics = crate::telemetry::metrics::Metrics::new("test");
    let mut source = Source {
        length: 3,
        file: None,
        at: 0,
        piece: Bytes::from_static(b"abc"),
    };
    let mut sender = Sender {
        right: None,
        place: None,
        tid: &mut server,
        wait: Duration::from_millis(20),
        retries: 2,
        block: 512,
        window: 1,
    };
    let ended = sender.send(&mut source, &[], &metrics.plugin("t")).await;
    assert!(matches!(ended, Err(Broken::Silent)), "{ended:?}");
}

/// A client that takes one block, and then says only the same acknowledgement, more often than the server's time is over.
async fn impatient(
    ack: [u8; 4],
    options: &[(String, String)],
) -> (Vec<[u8; 4]>, Result<u64, Broken>) {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut server = Tid::open(client.local_addr().unwrap(), "127.0.0.1:69").unwrap();
    client.connect(server.local()).await.unwrap();
    let repeating = async move {
        let mut buffer = [0; 516];
        let mut heads = Vec::new();
        for _ in 0..100 {
            client.send(&ack).await.unwrap();
            let got = tokio::time::timeout(Duration::from_millis(50), client.recv(&mut buffer));
            if let Ok(Ok(_)) = got.await {
                heads.push([buffer[0], buffer[1], buffer[2], buffer[3]]);
            }
        }
        heads
    };
    let metrics = crate::telemetry::metrics::Metrics::new("test");
    let mut source = Source {
        length: 1024,
        file: None,
        at: 0,
        piece: vec![7; 1024].into(),
    };
    let mut sender = Sender {
        right: None,
        place: None,
        tid: &mut server,
        wait: Duration::from_millis(200),
        retries: 2,
        block: 512,
        window: 1,
    };
    let numbers = metrics.plugin("t");
    let sending = tokio::time::timeout(
        Duration::from_secs(3),
        sender.send(&mut source, options, &numbers),
    );
    let (heads, sent) = tokio::join!(repeating, sending);
    (heads, sent.expect("it ends by itself"))
}

#[tokio::test]
async fn a_client_that_repeats_itself_does_not_put_off_the_block_it_waits_for() {
    let (heads, sent) = impatient([0, 4, 0, 1], &[]).await;
    assert!(matches!(sent, Err(Broken::Silent)), "{sent:?}");
    let second = heads.iter().filter(|head| **head == [0, 3, 0, 2]).count();
    assert_eq!(second, 3, "sent once and repeated twice: {heads:?}");
    let blksize = [("blksize".to_owned(), "512".to_owned())];
    let (heads, sent) = impatient([0, 4, 0, 9], &blksize).await;
    assert!(matches!(sent, Err(Broken::Silent)), "{sent:?}");
    assert_eq!(heads.len(), 3, "options, agreed to three times: {heads:?}");
}
