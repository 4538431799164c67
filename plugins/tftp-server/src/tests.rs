#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use bulkhead_sdk::testing::{Host, Installed};
use proptest::prelude::*;

fn host() -> Installed {
    let host = Host::new()
        .setting("tftproot", "/srv/tftp")
        .setting("max_block_size", 1468)
        .setting("max_window_size", 64)
        .setting("timeout", 2)
        .setting("retries", 5)
        .install();
    TftpServer::start().unwrap();
    host
}

fn from(peer: &str, bytes: &[u8]) -> Datagram {
    Datagram {
        slot: "tftp".into(),
        transport: Transport::Udp,
        peer: peer.into(),
        local: "192.0.2.1:69".into(),
        port: None,
        bytes: bytes.to_vec(),
    }
}

fn reaction(bytes: &[u8]) -> Option<Reaction> {
    let _host = host();
    TftpServer::datagrams(vec![from("192.0.2.9:2070", bytes)]).pop()
}

fn transfer(bytes: &[u8]) -> Transfer {
    match reaction(bytes) {
        Some(Reaction::Transfer(transfer)) => transfer,
        other => panic!("expected a transfer, got {other:?}"),
    }
}

fn error(bytes: &[u8]) -> (u16, String) {
    match reaction(bytes) {
        Some(Reaction::Send(it)) => {
            assert_eq!(it.bytes[..2], [0, 5]);
            assert_eq!(
                (it.peer.as_str(), it.local.as_str()),
                ("192.0.2.9:2070", "192.0.2.1:69")
            );
            let text = it.bytes[4..].strip_suffix(&[0]).unwrap();
            (
                u16::from_be_bytes([it.bytes[2], it.bytes[3]]),
                String::from_utf8(text.to_vec()).unwrap(),
            )
        }
        other => panic!("expected an error, got {other:?}"),
    }
}

fn options(transfer: &Transfer) -> Vec<(&str, &str)> {
    transfer
        .options
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

#[test]
fn a_plain_request_is_sent_in_blocks_of_512() {
    let it = transfer(b"\0\x01pxelinux.0\0octet\0");
    assert_eq!(
        (it.files.as_str(), it.path.as_str(), it.netascii),
        ("root", "pxelinux.0", false)
    );
    assert_eq!(
        (it.block_size, it.window_size, it.timeout, it.retries),
        (512, 1, 2000, 5)
    );
    assert_eq!(options(&it), []);
    assert_eq!(
        (it.slot.as_str(), it.peer.as_str(), it.local.as_str()),
        ("tftp", "192.0.2.9:2070", "192.0.2.1:69")
    );
}

#[test]
fn options_are_acknowledged_in_order_within_the_limits() {
    let it =
        transfer(b"\0\x01a\0OcTeT\0TSIZE\x000\0BlkSize\x001428\0windowsize\x00256\0timeout\x003\0");
    assert_eq!(
        options(&it),
        [
            ("tsize", "0"),
            ("blksize", "1428"),
            ("windowsize", "64"),
            ("timeout", "3")
        ]
    );
    assert_eq!(
        (it.block_size, it.window_size, it.timeout),
        (1428, 64, 3000)
    );
    let it = transfer(b"\0\x01a\0octet\0blksize\x0065464\0blksize\x00512\0");
    assert_eq!(options(&it), [("blksize", "1468")]);
    let it = transfer(b"\0\x01a\0octet\0blksize\x00999999\0");
    assert_eq!(it.block_size, 1468);
}

#[test]
fn options_that_make_no_sense_are_left_out() {
    let it = transfer(b"\0\x01a\0octet\0blksize\x007\0timeout\x000\0windowsize\0x\0multicast\0\0rollover\x000\0tsize\x000\0");
    assert_eq!(options(&it), [("tsize", "0")]);
    assert_eq!(
        options(&transfer(b"\0\x01a\0octet\0blksize\0-8\0tsize")),
        []
    );
}

#[test]
fn odd_clients_get_their_file() {
    // Padded to a fixed size, an option cut off, no NUL at the end.
    let mut padded = b"\0\x01boot/a\0octet\0blksize\x001024\0".to_vec();
    padded.resize(512, 0);
    assert_eq!(options(&transfer(&padded)), [("blksize", "1024")]);
    assert_eq!(transfer(b"\0\x01a\0octet").path, "a");
    assert_eq!(transfer(b"\0\x01a\0octet\0blksize").block_size, 512);
    assert_eq!(transfer(b"\0\x01a\0octet\0\xff\xfe\xfd\0\x80\0").path, "a");
    assert!(!transfer(b"\0\x01a\0binary\0").netascii);
}

#[test]
fn every_way_to_write_a_path_means_the_same_file() {
    for name in [
        "grub2/grub.cfg",
        "/grub2/grub.cfg",
        "//grub2//grub.cfg",
        "grub2\\grub.cfg",
        "\\grub2\\grub.cfg",
        "./grub2/./grub.cfg",
        "/srv/tftp/grub2/grub.cfg",
    ] {
        let bytes = [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
        assert_eq!(transfer(&bytes).path, "grub2/grub.cfg", "{name}");
    }
    // Without the slash it is a directory of that name below the root.
    assert_eq!(transfer(b"\0\x01srv/tftp/a\0octet\0").path, "srv/tftp/a");
}

#[test]
fn a_path_that_leads_out_is_an_access_violation() {
    for name in ["../etc/passwd", "/srv/tftp/../x", "a/../b", "..\\x", ".."] {
        let bytes = [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
        assert_eq!(error(&bytes), (2, "Access violation".into()), "{name}");
    }
    assert_eq!(error(b"\0\x01\0octet\0").0, 1);
    assert_eq!(error(b"\0\x01/\0octet\0").0, 1);
    assert_eq!(error(b"\0\x01a\nb\0octet\0").0, 1);
    assert_eq!(error(b"\0\x01\xff\xfe\0octet\0").0, 1);
}

#[test]
fn writing_and_unknown_modes_are_refused() {
    assert_eq!(
        error(b"\0\x02a\0octet\0"),
        (2, "This server is read-only".into())
    );
    assert_eq!(error(b"\0\x01a\0mail\0").0, 4);
    assert_eq!(error(b"\0\x01a").0, 4);
    assert_eq!(error(b"\0\x09").0, 4);
}

#[test]
fn strays_and_errors_are_never_answered() {
    for bytes in [
        &b"\0\x03\0\x01data"[..],
        b"\0\x04\0\x01",
        b"\0\x05\0\x01no\0",
        b"\0\x06blksize\0",
        b"",
        b"\0",
    ] {
        assert!(reaction(bytes).is_none(), "{bytes:?}");
    }
}

#[test]
fn the_size_is_not_told_where_line_ends_change_it() {
    let it = transfer(b"\0\x01a\0NETASCII\0tsize\x000\0blksize\x00600\0");
    assert!(it.netascii);
    assert_eq!(options(&it), [("blksize", "600")]);
}

/// Whether its transfer runs already, or never began, is the host's to know.
#[test]
fn a_repeated_request_is_the_same_transfer_again() {
    let _host = host();
    let request = from("192.0.2.9:2070", b"\0\x01a\0octet\0");
    let told = TftpServer::datagrams(vec![request.clone(), request]);
    let [Reaction::Transfer(one), Reaction::Transfer(two)] = told.as_slice() else {
        panic!("expected two transfers, got {told:?}");
    };
    assert_eq!(format!("{one:?}"), format!("{two:?}"));
}

#[test]
fn settings_out_of_range_fail_with_their_name() {
    let host = host();
    host.change(|host| host.setting("max_block_size", 100));
    assert_eq!(
        TftpServer::start().unwrap_err(),
        "max_block_size is 100; it must be from 512 to 65464"
    );
}

proptest! {
    #[test]
    fn no_datagram_leads_out_or_breaks_a_limit(bytes in proptest::collection::vec(any::<u8>(), 0..600), begins in any::<bool>()) {
        let mut datagram = if begins { b"\0\x01".to_vec() } else { Vec::new() };
        datagram.extend(bytes);
        match reaction(&datagram) {
            Some(Reaction::Transfer(it)) => {
                prop_assert!(!it.path.is_empty() && !it.path.starts_with('/'));
                prop_assert!(it.path.split('/').all(|part| !matches!(part, "" | "." | "..")));
                prop_assert!((8..=1468).contains(&it.block_size) && (1..=64).contains(&it.window_size));
            }
            Some(Reaction::Send(it)) => prop_assert!(it.bytes.len() < 64),
            None => {}
        }
    }
}
