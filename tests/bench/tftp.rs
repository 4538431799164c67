//! The TFTP run: one large file to many clients at once, by `tftp-server` beside tftpd-hpa.
//!
//! `cargo bench -p bulkhead-proxy --bench tftp` has 100 clients fetch a file of 50 MB at the same time, in blocks of 1,428 bytes, first one block and
//! then 16 blocks an acknowledgement (RFC 7440), from both servers in turn, three rounds and one. It prints the bytes a second of all clients together; the
//! median ratio of the first counts. The promise is 0.7; with `-- --check` less is exit code 1. Every byte is compared. A server that grants no
//! window is told and measured with the window it grants. Without tftpd-hpa, nothing is measured, and that is exit code 1 with `--check`.

// A measurement may fail loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bulkhead_testkit::skip::program;
use bulkhead_testkit::{Bulkhead, Configuration, ports};

/// Clients at once.
const CLIENTS: usize = 100;
/// Bytes of the file.
const SIZE: usize = 50_000_000;
/// Bytes a block: what fits an Ethernet frame behind a tunnel.
const BLOCK: usize = 1428;
/// Measurements of each side.
const ROUNDS: usize = 3;
/// What is asked of the other server's rate.
const PROMISE: f64 = 0.7;
/// A client that hears nothing for so long says again what it said last.
const SILENCE: Duration = Duration::from_secs(1);
/// And gives up after as many times.
const TRIES: usize = 20;
/// TFTP's operations (RFC 1350, RFC 2347).
const DATA: u16 = 3;
const OACK: u16 = 6;

fn main() -> ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    let Some(tftpd) = program("in.tftpd") else {
        eprintln!("in.tftpd (Debian: tftpd-hpa) is not installed: nothing measured");
        return if check {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    };
    let port = ports::free();
    let configuration = Configuration::empty();
    let boot = configuration.boot();
    let settings = format!(
        "enabled = true\ntftproot = {:?}\nlisten = [\"udp 127.0.0.1:{port}\"]",
        boot.display().to_string()
    );
    let _bulkhead = Bulkhead::with(configuration.feature("tftp-server", &settings));
    let content: Vec<u8> = (0..SIZE as u32).map(|it| (it % 65_521) as u8).collect();
    std::fs::write(boot.join("large"), &content).unwrap();
    let other = Hpa::start(&tftpd, &boot);
    let ours = SocketAddr::from(([127, 0, 0, 1], port));

    let median = compare(other.address, ours, 1, ROUNDS, &content);
    let kept = median >= PROMISE;
    println!(
        "median {median:.2} of tftpd-hpa's rate, promised {PROMISE}: {}",
        if kept { "kept" } else { "BROKEN" }
    );
    let wide = compare(other.address, ours, 16, 1, &content);
    println!("{wide:.2} of its rate with windows of 16 blocks");
    if check && !kept {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The median of our rate, of theirs.
fn compare(
    theirs: SocketAddr,
    ours: SocketAddr,
    window: u16,
    rounds: usize,
    content: &[u8],
) -> f64 {
    let mut ratios: Vec<f64> = (1..=rounds)
        .map(|round| {
            let (other, others_window) = rate(theirs, window, content);
            let (own, own_window) = rate(ours, window, content);
            println!(
                "round {round}: tftpd-hpa {other:.1} MB/s (window {others_window}), tftp-server {own:.1} MB/s (window {own_window}), {:.2}",
                own / other
            );
            own / other
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[rounds / 2]
}

/// tftpd-hpa in the foreground.
struct Hpa {
    child: Child,
    address: SocketAddr,
}

impl Hpa {
    fn start(program: &Path, root: &Path) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        // It serves as `nobody` what everybody may read.
        let child = Command::new(program)
            .args(["--foreground", "--secure", "--user", "nobody", "--address"])
            .arg(address.to_string())
            .arg(root)
            .stderr(Stdio::inherit())
            .spawn()
            .expect("tftpd-hpa can be started");
        std::thread::sleep(Duration::from_millis(300));
        Self { child, address }
    }
}

impl Drop for Hpa {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Millions of bytes a second of all clients together, and the window that was granted.
fn rate(server: SocketAddr, window: u16, content: &[u8]) -> (f64, u16) {
    let begun = Instant::now();
    let granted = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| fetch(server, window, content)))
            .collect();
        let granted = clients.into_iter().map(|it| it.join().unwrap());
        granted.min().unwrap_or(1)
    });
    let bytes = (CLIENTS * content.len()) as f64;
    (bytes / begun.elapsed().as_secs_f64() / 1e6, granted)
}

/// Fetches the file, compares each block with what it has to be, and answers the window that was granted.
fn fetch(server: SocketAddr, window: u16, content: &[u8]) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let mut request = b"\0\x01large\0octet\0".to_vec();
    request.extend_from_slice(format!("blksize\0{BLOCK}\0").as_bytes());
    if window > 1 {
        request.extend_from_slice(format!("windowsize\0{window}\0").as_bytes());
    }
    let mut buffer = [0; BLOCK + 4];
    socket.send_to(&request, server).unwrap();
    let (size, peer) = hear(&socket, &mut buffer, || {
        socket.send_to(&request, server).unwrap();
    });
    assert_eq!(operation(&buffer), OACK, "{server} grants the block size");
    let granted = granted(&buffer[2..size]);
    socket.connect(peer).unwrap();
    acknowledge(&socket, 0);
    let blocks = content.len() / BLOCK + 1;
    // Blocks that arrived in order, those of them since the last acknowledgement, and whether a gap was told.
    let (mut whole, mut fresh, mut told) = (0, 0, false);
    while whole < blocks {
        let (size, _) = hear(&socket, &mut buffer, || acknowledge(&socket, whole));
        assert_eq!(operation(&buffer), DATA, "{server} gives up");
        let ahead = u16::from_be_bytes([buffer[2], buffer[3]]).wrapping_sub(whole as u16);
        if ahead != 1 {
            // Beyond a gap; what is behind was repeated, and is ignored (RFC 1123, 4.2.3.1).
            if (2..=granted).contains(&ahead) && !told {
                acknowledge(&socket, whole);
                (fresh, told) = (0, true);
            }
            continue;
        }
        let start = whole * BLOCK;
        let end = (start + BLOCK).min(content.len());
        assert_eq!(buffer[4..size], content[start..end], "block {}", whole + 1);
        (whole, fresh, told) = (whole + 1, fresh + 1, false);
        if fresh == granted || whole == blocks {
            acknowledge(&socket, whole);
            fresh = 0;
        }
    }
    granted
}

/// Waits for a packet; acts whenever there was silence.
fn hear(socket: &UdpSocket, buffer: &mut [u8], on_silence: impl Fn()) -> (usize, SocketAddr) {
    for _ in 0..TRIES {
        match socket.recv_from(buffer) {
            Ok(heard) => return heard,
            Err(_) => on_silence(),
        }
    }
    panic!("the server fell silent")
}

fn acknowledge(socket: &UdpSocket, block: usize) {
    let [high, low] = (block as u16).to_be_bytes();
    // A full buffer is a lost packet.
    let _ = socket.send(&[0, 4, high, low]);
}

fn operation(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[0], packet[1]])
}

/// The window in an acknowledgement of options; 1 where there is none.
fn granted(options: &[u8]) -> u16 {
    let words: Vec<&[u8]> = options.split(|&byte| byte == 0).collect();
    let pair = words.chunks(2).find(|pair| pair[0] == b"windowsize");
    let value = pair.and_then(|pair| std::str::from_utf8(pair.get(1)?).ok()?.parse().ok());
    value.unwrap_or(1)
}
