//! A name server of a test's own: it knows a few addresses, says of every other name that there is none, and remembers what it was asked.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How soon it ends with its value.
const LOOK: Duration = Duration::from_millis(50);

/// Header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;

/// Type `A`.
const ADDRESS: u8 = 1;

/// A running name server at `127.0.0.1:53` of the calling thread's network.
#[derive(Debug)]
pub struct Namer {
    asked: Arc<Mutex<Vec<String>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Namer {
    /// Starts one with these names and addresses.
    #[track_caller]
    pub fn start(known: &[(&str, &str)]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").expect("port 53 of a network of one's own");
        socket
            .set_read_timeout(Some(LOOK))
            .expect("a socket can time out");
        let known: Vec<(String, Ipv4Addr)> = known
            .iter()
            .map(|(name, address)| ((*name).to_owned(), address.parse().expect("an address")))
            .collect();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let ends: Arc<AtomicBool> = Arc::default();
        let (remembers, ended) = (asked.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1_500];
            while !ended.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                if let Some((name, answer)) = answer(&buffer[..length], &known) {
                    remembers
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(name);
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        Self {
            asked,
            ends,
            thread: Some(thread),
        }
    }

    /// How often it was asked for that name.
    pub fn asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|known| *known == name).count()
    }
}

impl Drop for Namer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The name in a question, and the answer to it.
fn answer(question: &[u8], known: &[(String, Ipv4Addr)]) -> Option<(String, Vec<u8>)> {
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = question.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
    let name = labels.join(".");
    let kind = *question.get(at + 1)?;
    let asked = question.get(HEADER..at + 4)?;
    let address = known.iter().find(|(known, _)| *known == name);
    let told = address.filter(|_| kind == ADDRESS);
    let no_such_name = if address.is_none() { 3 } else { 0 };
    let mut bytes = question.get(..2)?.to_vec();
    bytes.extend([
        0x84,
        no_such_name,
        0,
        1,
        0,
        u8::from(told.is_some()),
        0,
        0,
        0,
        0,
    ]);
    bytes.extend(asked);
    if let Some((_, address)) = told {
        bytes.extend([0xc0, 12, 0, ADDRESS, 0, 1, 0, 0, 0, 0, 0, 4]);
        bytes.extend(address.octets());
    }
    Some((name, bytes))
}
