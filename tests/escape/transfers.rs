//! A TFTP server whose author turned: under the policy that is shipped for `tftp-server` it has the host send files of its root to who asked, and nothing else.
//!
//! It holds no socket and opens no file, so what it can abuse are its words to the host: which file, to whom, from where.

use bulkhead_testkit::tftp::{Client, Packet};
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, ports};

use crate::stage::{SONG, quoted};

/// The shipped policy, for a guest that has the same slots and no settings.
fn shipped(listen: &str, root: &str) -> String {
    let shipped = bulkhead_bundle::PLUGINS
        .iter()
        .find(|it| it.name == "tftp-server");
    let policy = shipped.expect("a first-party plugin").policy;
    let replaced = [
        ("plugin = \"tftp-server\"\n", ""),
        ("{ setting = \"listen\" }", listen),
        ("{ setting = \"tftproot\" }", root),
    ];
    replaced
        .into_iter()
        .fold(policy.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        })
}

#[test]
fn a_hostile_tftp_server_has_files_of_its_root_sent_to_who_asked_and_nothing_else() {
    let configuration = Configuration::empty();
    let scratch = configuration.scratch.clone();
    scratch.file("boot/menu", "default linux\n");
    scratch.directory("boot/sub");
    scratch.file("secret", SONG);
    let boot = configuration.boot();
    std::os::unix::fs::symlink("../secret", boot.join("out")).unwrap();
    std::os::unix::fs::symlink(scratch.join("secret"), boot.join("absolute-out")).unwrap();
    let port = ports::free();
    let policy = shipped(&format!("[\"udp 127.0.0.1:{port}\"]"), &quoted(&boot));
    let wasm = bulkhead_fixtures::wasm("echo-reactor");
    let bulkhead = Bulkhead::with(configuration.plugin("echo-reactor", wasm, &policy));
    let server = ([127, 0, 0, 1], port).into();
    let give = |client: &mut Client, fields: &str| client.ask(format!("give {fields}").as_bytes());
    let denied = |words: &str| {
        let denials = bulkhead.log_lines("may not");
        denials
            .iter()
            .any(|line| line.contains("echo-reactor") && line.contains(words))
    };

    // It works for what it is meant for, or the rest proves nothing.
    let mut client = Client::new(server);
    give(&mut client, "path=menu");
    assert_eq!(client.block(1), b"default linux\n", "{}", bulkhead.log());
    client.acknowledge(1);

    // Other files: the protocol's own refusal, without a byte of them, and the operator is told.
    for (fields, words) in [
        ("path=../secret", "`../secret`"),
        ("path=out", "`out`"),
        ("path=absolute-out", "`absolute-out`"),
        ("path=sub/../../secret", "`sub/../../secret`"),
        // There is none below the root, which is no secret and no denial.
        ("path=/etc/passwd", ""),
        ("files=other path=menu", "files slot `other`"),
    ] {
        let mut client = Client::new(server);
        give(&mut client, fields);
        match client.hear() {
            Packet::Error(1 | 2, _) => {}
            other => panic!("{fields}: {other:?}"),
        }
        assert_eventually!(
            words.is_empty() || denied(words),
            "{fields}:\n{}",
            bulkhead.log()
        );
    }

    // Another peer, another socket, another address.
    let mut stranger = Client::new(server);
    let at = stranger.socket.local_addr().unwrap();
    for (fields, words) in [
        (
            format!("path=menu peer={at}"),
            format!("send a datagram to {at}"),
        ),
        (
            "path=menu slot=other".to_owned(),
            "listen slot `other`".to_owned(),
        ),
        (
            format!("path=menu local=127.0.0.2:{port}"),
            format!("send as 127.0.0.2:{port}"),
        ),
    ] {
        let mut client = Client::new(server);
        give(&mut client, &fields);
        assert_eventually!(denied(&words), "{fields}:\n{}", bulkhead.log());
        for it in [&mut client, &mut stranger] {
            let heard = it.hear_within(std::time::Duration::from_millis(300));
            assert_eq!(heard, None, "{fields}");
        }
    }
    // Nothing was written, by it or for it.
    let files = bulkhead_testkit::scratch::files_below(&boot);
    assert!(
        files
            .iter()
            .any(|(name, bytes)| name.ends_with("menu") && bytes == b"default linux\n")
    );
    assert_eq!(
        std::fs::read_to_string(scratch.join("secret")).unwrap(),
        SONG
    );
}
