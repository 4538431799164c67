//! Bodies of 1 GiB through `/register`, in either direction, beside a native axum reverse proxy that reaches the same Foreman over the
//! same mutual TLS.
//!
//! Client and Foreman run here and the proxies in the process under test, all on the same cores: what is compared is what moves from end to end.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bulkhead_testkit::foreman::server_config;
use bulkhead_testkit::{Bulkhead, Configuration, Target};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::table::{Promise, Table};
use crate::{ROUNDS, median, native};

/// Bytes of a body.
const SIZE: usize = 1 << 30;

/// Bytes written or read at once.
const PIECE: usize = 256 * 1024;

/// How long either side may stand still.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often memory is looked at.
const SAMPLED: Duration = Duration::from_millis(5);

/// How long after readiness idle memory is looked at.
const REST: Duration = Duration::from_secs(3);

#[derive(Clone, Copy)]
enum Direction {
    /// From Foreman to the host.
    Down,
    /// From the host to Foreman.
    Up,
}

/// Adds the figures.
pub(crate) fn measure(table: &mut Table) {
    let configuration = Configuration::standard()
        .feature("registration", "enabled = true")
        .policy(
            "registration",
            "[foreman.register]\nallow = [\"GET /register\", \"POST /register\"]\ntimeout = \"60s\"\n\
             [limits]\nforward-body = \"1GiB\"",
        )
        .section("[log]\nlevel = \"warn\"");
    let identity = configuration.authority.server(&["localhost"]);
    let foreman = listen(server_config(&identity, Some(&configuration.authority)));
    let url = format!("https://localhost:{foreman}");
    let (program, native) = native::start_proxy(configuration.foreman_at(&url), foreman);
    let doors = [(program.hosts(), "/register"), (native, native::PROXY_PATH)];
    std::thread::sleep(REST);
    let idle = program.usage().resident;
    let directions = [
        ("1 GiB from Foreman to a host", Direction::Down),
        ("1 GiB from a host to Foreman", Direction::Up),
    ];
    // Before the native proxy, which is in the same process, has had any memory.
    let most = directions.map(|(_, direction)| most_resident(&program, &doors[0], direction));
    for ((name, direction), most) in directions.into_iter().zip(most) {
        let (rate, of_native) = compare(&doors, direction);
        let above = most.saturating_sub(idle) as f64 / f64::from(1 << 20);
        table.add(name, rate, Promise::Printed, "MB/s");
        table.add("    of native", of_native, Promise::AtLeast(0.6), "");
        table.add("    memory above idle", above, Promise::AtMost(16.0), "MiB");
    }
}

/// The most memory while one body passes.
fn most_resident(program: &Bulkhead, door: &(Target, &str), direction: Direction) -> u64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(program.usage().resident);
                std::thread::sleep(SAMPLED);
            }
            most
        });
        pass(door, direction);
        done.store(true, Ordering::Relaxed);
        watching.join().expect("it only looks")
    })
}

/// The median rate, and the median ratio.
fn compare([tested, against]: &[(Target, &str); 2], direction: Direction) -> (f64, f64) {
    let rounds: Vec<(f64, f64)> = (0..ROUNDS)
        .map(|_| {
            let rate = pass(tested, direction);
            (rate, rate / pass(against, direction))
        })
        .collect();
    let of =
        |pick: fn(&(f64, f64)) -> f64| median(&mut rounds.iter().map(pick).collect::<Vec<_>>());
    (of(|round| round.0), of(|round| round.1))
}

/// One body through this door; megabytes a second.
fn pass((target, path): &(Target, &str), direction: Direction) -> f64 {
    let began = Instant::now();
    exchange(target, path, direction).unwrap_or_else(|error| panic!("{path}: {error}"));
    SIZE as f64 / began.elapsed().as_secs_f64() / 1e6
}

fn exchange(target: &Target, path: &str, direction: Direction) -> io::Result<()> {
    let mut socket = TcpStream::connect(target.address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let host = target.host();
    match direction {
        Direction::Down => {
            write!(socket, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
        }
        Direction::Up => {
            write!(
                socket,
                "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\nContent-Length: {SIZE}\r\n\r\n"
            )?;
            write_body(&mut socket)?;
        }
    }
    let (head, begun) = read_head(&mut socket)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(head));
    }
    let expected = match direction {
        Direction::Down => SIZE,
        Direction::Up => 0,
    };
    match length(&head) {
        Some(length) if length == expected => read_body(&mut socket, expected - begun),
        _ => Err(io::Error::other(head)),
    }
}

/// Foreman: it sends or takes the whole body, and keeps nothing of it.
fn listen(config: Arc<ServerConfig>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let config = config.clone();
            // What fails here fails the exchange on the other side.
            std::thread::spawn(move || serve(socket, config));
        }
    });
    port
}

fn serve(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, socket);
    loop {
        let (head, begun) = read_head(&mut stream)?;
        let sent = match length(&head) {
            Some(length) => {
                read_body(&mut stream, length - begun)?;
                0
            }
            None => SIZE,
        };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {sent}\r\n\r\n"
        )?;
        if sent > 0 {
            write_body(&mut stream)?;
        }
        stream.flush()?;
    }
}

/// A head, and how many bytes of the body came with it.
fn read_head(stream: &mut impl Read) -> io::Result<(String, usize)> {
    let mut bytes = vec![0; PIECE];
    let mut filled = 0;
    loop {
        let count = stream.read(&mut bytes[filled..])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
        if let Some(end) = bytes[..filled]
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            return Ok((head, filled - end - 4));
        }
    }
}

fn length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let wanted = name.eq_ignore_ascii_case("content-length");
        wanted.then(|| value.trim().parse().ok()).flatten()
    })
}

fn read_body(stream: &mut impl Read, mut left: usize) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    while left > 0 {
        let count = stream.read(&mut piece)?;
        if count == 0 || count > left {
            return Err(io::Error::other(format!("ended with {left} bytes to come")));
        }
        left -= count;
    }
    Ok(())
}

fn write_body(stream: &mut impl Write) -> io::Result<()> {
    let piece = vec![b'y'; PIECE];
    for _ in 0..SIZE / PIECE {
        stream.write_all(&piece)?;
    }
    Ok(())
}
