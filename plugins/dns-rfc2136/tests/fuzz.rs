//! Bytes that no server would send, thrown at everything that reads bytes of servers.
//!
//! Seeds are questions, updates and answers of BIND 9 in `seeds/`, signed and not, and a few made by hand. They are broken at random; what
//! comes of them is read or refused, soon, and never taken for signed. A failure prints the seed that repeats it:
//! `BULKHEAD_FUZZ_SEED=... cargo test -p dns-rfc2136-plugin --test fuzz`. `BULKHEAD_FUZZ_SECONDS` (default 2) is the time.

// A test that cannot go on has to stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dns_rfc2136_plugin::message;
use dns_rfc2136_plugin::tsig::{self, Signer};
use hickory_proto::op::Message;
use hickory_proto::rr::Name;
use hmac::{Hmac, Mac as _};

struct Key(Name, Name);

impl Key {
    fn new() -> Self {
        Self(
            message::name("k").unwrap(),
            message::name("hmac-sha256").unwrap(),
        )
    }
}

impl Signer for Key {
    fn name(&self) -> &Name {
        &self.0
    }
    fn algorithm(&self) -> &Name {
        &self.1
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"a key for the fuzz test").unwrap();
        mac.update(message);
        Ok(mac.finalize().into_bytes().to_vec())
    }
    fn verify(&self, message: &[u8], mac: &[u8]) -> Result<bool, String> {
        Ok(self.sign(message)? == mac)
    }
}

/// Small and good enough to break things: xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seeds");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let mut seeds: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    assert!(seeds.len() > 10, "the seeds are missing");
    // A name that points at itself, two that point at each other, a chain of many.
    let head = [0, 1, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0];
    for tail in [
        &[0xc0, 12, 0, 1, 0, 1][..],
        &[0xc0, 14, 0xc0, 12, 0, 1, 0, 1],
    ] {
        seeds.push([&head[..], tail].concat());
    }
    let chain: Vec<u8> = (12_u16..4_000)
        .step_by(2)
        .flat_map(|at| (0xc000 | (at + 2)).to_be_bytes())
        .collect();
    seeds.push([&head[..], &chain].concat());
    seeds
}

fn broken(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len());
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next() as u8),
            2 if at + 1 < bytes.len() => {
                bytes[at] = 0xc0;
                bytes[at + 1] = random.below(64) as u8;
            }
            3 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                bytes.extend_from_slice(&other[from..]);
            }
            // The counts of the sections.
            4 if bytes.len() > 12 => bytes[4 + random.below(8)] = [0, 1, 2, 0xff][random.below(4)],
            5 => {
                let byte = random.next() as u8;
                bytes.extend(std::iter::repeat_n(byte, random.below(70_000)));
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
        }
    }
    bytes.truncate(65_535);
    bytes
}

/// Reads bytes as an answer, as the provider does.
fn read(bytes: &[u8], request: &Message, key: &Key, now: u64) {
    let Ok((unsigned, signature)) = tsig::detach(bytes) else {
        return;
    };
    assert!(unsigned.len() <= bytes.len());
    if let Some(signature) = &signature {
        let _ = signature.complaint();
        assert_eq!(
            tsig::verify(&unsigned, signature, &[7; 32], now, key),
            Ok(false),
            "believed: {bytes:?}"
        );
    }
    let Ok(message) = Message::from_vec(&unsigned) else {
        return;
    };
    let _ = message::answers(&message, request);
    for record in message.answers.iter().chain(&message.authorities) {
        let _ = message::value(&record.data);
        let _ = message::text(&record.name);
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn any_bytes_are_read_or_refused_and_never_believed() {
    let variable = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let time = Duration::from_secs(variable("BULKHEAD_FUZZ_SECONDS").unwrap_or(2));
    let first = variable("BULKHEAD_FUZZ_SEED")
        .unwrap_or_else(|| now().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (seeds, key) = (seeds(), Key::new());
    let request = message::query(
        &message::name("ns.example.com").unwrap(),
        hickory_proto::rr::RecordType::A,
    );
    for seed in &seeds {
        read(seed, &request, &key, now());
    }
    let (end, mut seed, mut runs) = (Instant::now() + time, first, 0_u64);
    while Instant::now() < end {
        let bytes = broken(&mut Random(seed | 1), &seeds);
        let begun = Instant::now();
        let outcome = std::panic::catch_unwind(|| read(&bytes, &request, &key, now()));
        assert!(outcome.is_ok(), "BULKHEAD_FUZZ_SEED={seed}: {bytes:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "BULKHEAD_FUZZ_SEED={seed} takes {:?}",
            begun.elapsed()
        );
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        runs += 1;
    }
    println!("{runs} messages from seed {first}");
    assert!(runs > 100, "only {runs} messages");
}

/// Says yes to anything and keeps what it was asked about.
struct Recorder(Key, std::cell::RefCell<Vec<u8>>);

impl Signer for Recorder {
    fn name(&self) -> &Name {
        self.0.name()
    }
    fn algorithm(&self) -> &Name {
        self.0.algorithm()
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        self.0.sign(message)
    }
    fn verify(&self, message: &[u8], _: &[u8]) -> Result<bool, String> {
        *self.1.borrow_mut() = message.to_vec();
        Ok(true)
    }
}

/// An answer signed with the key is believed; with one bit of it, of its signature or of the request's signature changed, it is not.
#[test]
fn no_changed_bit_of_a_signed_answer_goes_unnoticed() {
    let recorder = Recorder(Key::new(), std::cell::RefCell::default());
    let key = &recorder.0;
    let query = message::query(
        &message::name("ns.example.com").unwrap(),
        hickory_proto::rr::RecordType::A,
    );
    let now = now();
    let (signed, request_mac) =
        tsig::sign(&query.to_vec().unwrap(), query.metadata.id, now, key).unwrap();
    // The server's part: its answer's signature covers the request's.
    let (answer, signature) = tsig::detach(&signed).unwrap();
    let mut signature = signature.unwrap();
    assert_eq!(
        tsig::verify(&answer, &signature, &request_mac, now, &recorder),
        Ok(true)
    );
    signature.mac = key.sign(&recorder.1.borrow()).unwrap();
    let believed = |answer: &[u8], signature: &tsig::Tsig, mac: &[u8], now: u64| {
        tsig::verify(answer, signature, mac, now, key).unwrap()
    };
    assert!(believed(&answer, &signature, &request_mac, now));

    let flipped = |bytes: &[u8], bit: usize| {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    };
    // The first two bytes are the id, for which the signature has one of its own.
    for bit in 16..answer.len() * 8 {
        assert!(
            !believed(&flipped(&answer, bit), &signature, &request_mac, now),
            "bit {bit} of the answer"
        );
    }
    for bit in 0..request_mac.len() * 8 {
        assert!(
            !believed(&answer, &signature, &flipped(&request_mac, bit), now),
            "bit {bit} of the request's"
        );
        let mac = flipped(&signature.mac, bit);
        assert!(
            !believed(
                &answer,
                &tsig::Tsig {
                    mac,
                    ..signature.clone()
                },
                &request_mac,
                now
            ),
            "bit {bit} of the signature"
        );
    }
    for changed in [
        tsig::Tsig {
            time: now + 1,
            ..signature.clone()
        },
        tsig::Tsig {
            fudge: u16::MAX,
            ..signature.clone()
        },
        tsig::Tsig {
            error: 16,
            ..signature.clone()
        },
        tsig::Tsig {
            original_id: signature.original_id ^ 1,
            ..signature.clone()
        },
        tsig::Tsig {
            other: vec![0; 6],
            ..signature.clone()
        },
        tsig::Tsig {
            mac: Vec::new(),
            ..signature.clone()
        },
        tsig::Tsig {
            key: message::name("kk").unwrap(),
            ..signature.clone()
        },
    ] {
        assert!(
            !believed(&answer, &changed, &request_mac, now),
            "{changed:?}"
        );
    }
    // An old one, played again.
    assert!(!believed(&answer, &signature, &request_mac, now + 301));
}
