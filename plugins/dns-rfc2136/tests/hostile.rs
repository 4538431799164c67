//! A server that means harm: wrong ids, forged answers, junk, silence. Nothing is believed, nothing hangs.

// A test that cannot go on has to stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bulkhead_sdk::dns::RecordType;
use dns_rfc2136_plugin::error::Problem;
use dns_rfc2136_plugin::exchange::Servers;
use dns_rfc2136_plugin::message;
use dns_rfc2136_plugin::tsig::Signer;
use dns_rfc2136_plugin::update::find;
use hickory_proto::rr::Name;

/// Time for one operation against a hostile server.
const TIME: Duration = Duration::from_secs(1);

/// Answers every datagram with what `forge` makes of it, until the test ends. TCP is closed.
fn server(forge: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            for answer in forge(&bytes[..length]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    address
}

/// The request as an answer with response code `code`.
fn echo(request: &[u8], code: u8) -> Vec<u8> {
    let mut answer = request.to_vec();
    answer[2] |= 0x80;
    answer[3] = code;
    answer
}

fn asked(address: SocketAddr, signer: Option<&dyn Signer>) -> (Result<usize, Problem>, Duration) {
    let start = Instant::now();
    let found = find(
        &Servers::new(vec![address], signer, TIME),
        "a.example.com",
        RecordType::A,
    );
    (found.map(|records| records.len()), start.elapsed())
}

struct Constant(Name, Name);

impl Signer for Constant {
    fn name(&self) -> &Name {
        &self.0
    }
    fn algorithm(&self) -> &Name {
        &self.1
    }
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, String> {
        Ok(vec![7; 32])
    }
    fn verify(&self, _: &[u8], _: &[u8]) -> Result<bool, String> {
        Ok(false)
    }
}

#[test]
fn answers_to_other_questions_are_passed_over() {
    let address = server(|request| {
        let mut wrong_id = echo(request, 0);
        wrong_id[0] ^= 0xff;
        let mut wrong_name = echo(request, 0);
        wrong_name[13] = b'b';
        vec![wrong_id, wrong_name, request.to_vec(), echo(request, 3)]
    });
    let (found, _) = asked(address, None);
    assert_eq!(found, Ok(0));
}

#[test]
fn junk_and_silence_end_with_the_time() {
    let junk = server(|_| vec![vec![0xff; 60_000], vec![], vec![0xc0; 14]]);
    let looping = server(|request| {
        let mut answer = request[..12].to_vec();
        answer[2] |= 0x80;
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        vec![answer]
    });
    let silent = server(|_| Vec::new());
    for address in [junk, looping, silent] {
        let (found, took) = asked(address, None);
        assert!(
            matches!(
                found,
                Err(Problem::Timeout(_) | Problem::Unreachable { .. })
            ),
            "{found:?}"
        );
        assert!(took < TIME + Duration::from_millis(500), "{took:?}");
    }
}

#[test]
fn without_the_keys_signature_no_answer_is_a_yes() {
    let key = Constant(
        message::name("key").unwrap(),
        message::name("hmac-sha256").unwrap(),
    );
    // With the request's own signature sent back, and with none at all.
    let mirrored = server(|request| vec![echo(request, 0)]);
    let stripped = server(|request| {
        let (unsigned, _) = dns_rfc2136_plugin::tsig::detach(request).unwrap();
        vec![echo(&unsigned, 0), echo(&unsigned, 3)]
    });
    for address in [mirrored, stripped] {
        let (found, _) = asked(address, Some(&key));
        assert!(
            matches!(
                found,
                Err(Problem::Timeout(_) | Problem::Unreachable { .. })
            ),
            "{found:?}"
        );
    }
}
