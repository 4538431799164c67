//! Tries the contract of services: every datagram goes back to where it came from, by the address at which it arrived.
//!
//! Three contents do something else: `drop` is not answered, `twice` is answered two times, `trap` costs the instance.

use bulkhead_sdk::prelude::*;
use bulkhead_sdk::reactor::{Datagram, Reaction, Service};

struct Echo;

impl Plugin for Echo {
    fn describe() -> Manifest {
        Manifest::new(
            "echo-reactor",
            env!("CARGO_PKG_VERSION"),
            "Sends every datagram back",
        )
        .need(Need::listen("echo", "receives the datagrams"))
        .single_instance()
    }
}

impl Service for Echo {
    fn datagrams(batch: Vec<Datagram>) -> Vec<Reaction> {
        batch
            .into_iter()
            .flat_map(answers)
            .map(Reaction::Send)
            .collect()
    }
}

bulkhead_sdk::export_service!(Echo);

fn answers(datagram: Datagram) -> Vec<Datagram> {
    match datagram.bytes.as_slice() {
        b"drop" => Vec::new(),
        b"twice" => vec![datagram.clone(), datagram],
        b"trap" => std::process::abort(),
        _ => vec![datagram],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::reactor::Transport;

    #[test]
    fn a_batch_is_answered_in_order() {
        let datagram = |bytes: &str| Datagram {
            slot: "echo".into(),
            transport: Transport::Udp,
            port: None,
            peer: "192.0.2.1:9".into(),
            local: "192.0.2.2:7".into(),
            bytes: bytes.into(),
        };
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
