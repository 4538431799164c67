//! TFTP through the whole program with a real client: the component decides, the host moves the blocks.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use bulkhead_testkit::skip::program;
use bulkhead_testkit::{Bulkhead, Configuration, Scratch, assert_eventually, ports, skip};

fn serving(port: u16) -> Bulkhead {
    let configuration = Configuration::empty();
    let boot = configuration.boot().display().to_string();
    Bulkhead::with(configuration.feature(
        "tftp-server",
        &format!("enabled = true\ntftproot = {boot:?}\nlisten = [\"udp 127.0.0.1:{port}\"]"),
    ))
}

/// What curl got, or its exit code: 68 not found, 69 access violation.
fn fetch(port: u16, path: &str, block: u32) -> Result<Vec<u8>, Option<i32>> {
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "60", "--tftp-blksize"])
        .arg(block.to_string())
        .arg(format!("tftp://127.0.0.1:{port}/{path}"))
        .output()
        .expect("curl can be started");
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(output.status.code())
    }
}

#[test]
fn files_arrive_whole_and_nothing_else_does() {
    if program("curl").is_none() {
        skip!("curl is missing");
    }
    let port = ports::free();
    let bulkhead = serving(port);
    let boot = bulkhead.boot();
    let large: Vec<u8> = (0..3_000_000u32).map(|it| (it % 253) as u8).collect();
    for (name, bytes) in [
        // Not an empty one: curl takes the size 0 for a mistake.
        ("menu", &b"default linux\n"[..]),
        ("edge", &large[..1024]),
        ("sub/large", &large),
    ] {
        let path = boot.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        for block in [512, 1024, 1428] {
            let got = fetch(port, name, block);
            assert_eq!(
                got.as_deref(),
                Ok(bytes),
                "{name} in blocks of {block}\n{}",
                bulkhead.log()
            );
        }
    }
    std::os::unix::fs::symlink("/etc/passwd", boot.join("out")).unwrap();
    assert_eq!(fetch(port, "missing", 512), Err(Some(68)));
    for path in ["out", "sub"] {
        assert_eq!(fetch(port, path, 512), Err(Some(69)), "{path}");
    }
    // A transfer is done when the last block is acknowledged, which nobody waits for.
    let metrics = || bulkhead.admin().get("/metrics").text();
    assert_eventually!(
        metrics().contains("bulkhead_transfers_done_total{plugin=\"tftp-server\"} 9"),
        "{}",
        metrics()
    );
}

/// Two more clients, each with options of its own: busybox, as in installers, and tftp-hpa where there is one.
#[test]
fn clients_of_installers_get_their_files() {
    if program("busybox").is_none() {
        skip!("busybox is missing");
    }
    let port = ports::free();
    let bulkhead = serving(port);
    let large: Vec<u8> = (0..1_000_001u32).map(|it| (it % 253) as u8).collect();
    std::fs::write(bulkhead.boot().join("large"), &large).unwrap();
    let place = Scratch::new();
    let got = |client: &mut Command, to: &str| {
        let output = client.current_dir(place.path()).output().unwrap();
        let bytes = std::fs::read(place.join(to));
        let _ = std::fs::remove_file(place.join(to));
        bytes.unwrap_or_else(|error| panic!("{error}: {output:?}\n{}", bulkhead.log()))
    };
    let port = port.to_string();
    // 512 is what is agreed without options.
    for block in ["512", "1024", "1428", "65464"] {
        let mut client = Command::new("busybox");
        client.args(["tftp", "-g", "-r", "large", "-l", "got", "-b", block]);
        let bytes = got(client.args(["127.0.0.1", &port]), "got");
        assert!(bytes == large, "busybox, blocks of {block}");
    }
    let mut missing = Command::new("busybox");
    missing.args([
        "tftp",
        "-g",
        "-r",
        "missing",
        "-l",
        "got",
        "127.0.0.1",
        &port,
    ]);
    let output = missing.current_dir(place.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && told.contains("ile not found"),
        "{told}"
    );
    let mut write = Command::new("busybox");
    std::fs::write(place.join("new"), "new").unwrap();
    write.args(["tftp", "-p", "-l", "new", "-r", "new", "127.0.0.1", &port]);
    let output = write.current_dir(place.path()).output().unwrap();
    assert!(!output.status.success() && !bulkhead.boot().join("new").exists());
    if program("tftp").is_some() {
        let menu = "label one\r\nlabel two\n";
        std::fs::write(bulkhead.boot().join("menu"), menu).unwrap();
        let fetch = |mode: &str, name: &str| {
            let mut client = Command::new("tftp");
            client.args(["-m", mode, "127.0.0.1", &port, "-c", "get", name]);
            got(&mut client, name)
        };
        assert!(fetch("binary", "large") == large);
        // It turns the network's line ends back into its own.
        assert_eq!(String::from_utf8(fetch("netascii", "menu")).unwrap(), menu);
    }
}

/// A client that asks twice because the first block is late gets the file once; one that vanishes costs nothing for long.
#[test]
fn a_repeated_request_is_one_transfer() {
    let port = ports::free();
    let bulkhead = serving(port);
    std::fs::write(bulkhead.boot().join("file"), vec![1; 700]).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let request = b"\x00\x01file\x00octet\x00";
    for _ in 0..3 {
        client.send_to(request, ("127.0.0.1", port)).unwrap();
    }
    let mut buffer = [0; 600];
    let (size, first) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((size, &buffer[..4]), (516, &[0, 3, 0, 1][..]));
    client.send_to(b"\x00\x04\x00\x01", first).unwrap();
    loop {
        let (size, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(from, first, "a second transfer of the same request");
        if buffer[..4] == [0, 3, 0, 2] {
            assert_eq!(size, 192);
            client.send_to(b"\x00\x04\x00\x02", first).unwrap();
            break;
        }
    }
}
