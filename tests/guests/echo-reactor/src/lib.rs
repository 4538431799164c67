//! Tries the contract of services: every datagram goes back to where it came from, by the address at which it arrived.
//!
//! Some contents do something else: `drop` is not answered, `twice` is answered two times, `slow` takes two seconds, `trap` costs the instance, and `woken` is answered with
//! the events so far. On a `link` slot, `frame MAC` is answered by a frame to that address which says where it came in, and `broadcast` to all.
//! `do FIELD=VALUE ...` is answered by `done`, sent as the fields say: `slot`, `peer`, `local`, and `interface` and `hardware` of a frame.
//! `give FIELD=VALUE ...` has the host send a file: `files` and `path`, and the same fields.

use std::cell::RefCell;
use std::time::Duration;

use bulkhead_sdk::Event;
use bulkhead_sdk::prelude::*;
use bulkhead_sdk::reactor::{Datagram, Port, Reaction, Service, Transfer};

struct Echo;

impl Plugin for Echo {
    fn describe() -> Manifest {
        Manifest::new(
            "echo-reactor",
            env!("CARGO_PKG_VERSION"),
            "Sends every datagram back",
        )
        .need(Need::listen("echo", "receives the datagrams").optional())
        .need(Need::listen("other", "would like to have another").optional())
        .need(Need::listen("tftp", "is asked for files").optional())
        .need(Need::files("root", Access::Read, "gives files of it").optional())
        .need(Need::link("wire", "receives them on one interface").optional())
        .need(Need::watch("news", "is told when it changes").optional())
        .single_instance()
    }

    fn wake(events: &[Event]) -> Option<Duration> {
        WOKEN.with_borrow_mut(|woken| woken.extend(events.iter().map(|it| format!("{it:?}"))));
        // A change is followed by a timer, a timer by nothing.
        let changed = events.iter().any(|it| matches!(it, Event::FileChanged(_)));
        changed.then_some(Duration::from_millis(10))
    }
}

thread_local! {
    static WOKEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl Service for Echo {
    fn datagrams(batch: Vec<Datagram>) -> Vec<Reaction> {
        batch.into_iter().flat_map(reactions).collect()
    }
}

bulkhead_sdk::export_service!(Echo);

fn reactions(datagram: Datagram) -> Vec<Reaction> {
    let text = String::from_utf8_lossy(&datagram.bytes).into_owned();
    match text.strip_prefix("give ") {
        Some(fields) => vec![Reaction::Transfer(given(datagram, fields))],
        None => answers(datagram).into_iter().map(Reaction::Send).collect(),
    }
}

fn answers(mut datagram: Datagram) -> Vec<Datagram> {
    let text = String::from_utf8_lossy(&datagram.bytes).into_owned();
    if let (Some(port), Some(mac)) = (&mut datagram.port, text.strip_prefix("frame ")) {
        datagram.bytes = format!("{} {}", port.interface, port.address).into_bytes();
        port.hardware = Some(mac.to_owned());
        return vec![datagram];
    }
    if let Some(fields) = text.strip_prefix("do ") {
        return vec![told(datagram, fields)];
    }
    match datagram.bytes.as_slice() {
        b"drop" => Vec::new(),
        b"twice" => vec![datagram.clone(), datagram],
        b"woken" => {
            datagram.bytes = WOKEN.with_borrow(|woken| woken.join(" ").into_bytes());
            vec![datagram]
        }
        b"broadcast" => {
            let port = datagram.peer.rsplit(':').next().unwrap_or_default();
            datagram.peer = format!("255.255.255.255:{port}");
            vec![datagram]
        }
        b"slow" => {
            std::thread::sleep(Duration::from_secs(2));
            vec![datagram]
        }
        b"trap" => std::process::abort(),
        _ => vec![datagram],
    }
}

/// The transfer as it is told to be.
fn given(datagram: Datagram, fields: &str) -> Transfer {
    let mut transfer = Transfer {
        slot: datagram.slot,
        peer: datagram.peer,
        local: datagram.local,
        files: "root".to_owned(),
        path: String::new(),
        netascii: false,
        block_size: 512,
        window_size: 1,
        timeout: 1000,
        retries: 0,
        options: Vec::new(),
    };
    for (field, value) in fields.split(' ').filter_map(|it| it.split_once('=')) {
        let place = match field {
            "slot" => &mut transfer.slot,
            "peer" => &mut transfer.peer,
            "local" => &mut transfer.local,
            "files" => &mut transfer.files,
            _ => &mut transfer.path,
        };
        value.clone_into(place);
    }
    transfer
}

/// The answer as it is told to be.
fn told(mut datagram: Datagram, fields: &str) -> Datagram {
    datagram.bytes = b"done".to_vec();
    for (field, value) in fields.split(' ').filter_map(|it| it.split_once('=')) {
        let value = value.to_owned();
        let port = || Port {
            interface: String::new(),
            address: String::new(),
            hardware: None,
        };
        match field {
            "slot" => datagram.slot = value,
            "peer" => datagram.peer = value,
            "local" => datagram.local = value,
            "interface" => datagram.port.get_or_insert_with(port).interface = value,
            _ => datagram.port.get_or_insert_with(port).hardware = Some(value),
        }
    }
    datagram
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::reactor::Transport;

    fn datagram(bytes: &str) -> Datagram {
        Datagram {
            slot: "echo".into(),
            transport: Transport::Udp,
            port: None,
            peer: "192.0.2.1:9".into(),
            local: "192.0.2.2:7".into(),
            bytes: bytes.into(),
        }
    }

    #[test]
    fn it_answers_as_it_is_told() {
        let sent = answers(datagram("do slot=other peer=192.0.2.9:1 interface=eth0"));
        assert_eq!(sent.len(), 1);
        assert_eq!(
            (sent[0].slot.as_str(), sent[0].peer.as_str()),
            ("other", "192.0.2.9:1")
        );
        assert_eq!(sent[0].local, "192.0.2.2:7");
        assert_eq!(
            sent[0].port.as_ref().map(|it| it.interface.as_str()),
            Some("eth0")
        );
    }

    #[test]
    fn a_batch_is_answered_in_order() {
        let sent = Echo::datagrams(vec![
            datagram("a"),
            datagram("drop"),
            datagram("twice"),
            datagram("b"),
        ]);
        let sent: Vec<_> = sent
            .iter()
            .map(|reaction| match reaction {
                Reaction::Send(datagram) => (datagram.bytes.as_slice(), datagram.peer.as_str()),
                Reaction::Transfer(_) => panic!("nothing asks for a file"),
            })
            .collect();
        let to = "192.0.2.1:9";
        assert_eq!(
            sent,
            [(&b"a"[..], to), (b"twice", to), (b"twice", to), (b"b", to)]
        );
    }
}
