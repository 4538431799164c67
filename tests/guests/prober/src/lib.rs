//! Tries to reach what it is told to, for tests that show which doors stay shut. All parameters come in the query; every answer is 200 with
//! the outcome as text, `ok ...` or `refused ...`, so that a test tells a refusal by the host from a fault of the plugin.
//!
//! | Route | Does |
//! |---|---|
//! | `/prober/read?path=` | reads a file by `std::fs`, any path |
//! | `/prober/write?path=&text=` | writes a file |
//! | `/prober/remove?path=` | removes a file |
//! | `/prober/rename?path=&to=` | renames |
//! | `/prober/link?path=&to=` | makes a hard link `to` on `path` |
//! | `/prober/list?path=` | lists a directory |
//! | `/prober/tcp?address=` | connects, sends `ping`, reads up to 4 KiB |
//! | `/prober/listen?address=` | binds a TCP listener |
//! | `/prober/udp?address=&text=` | sends a datagram and waits 1 s for an answer |
//! | `/prober/resolve?name=` | looks a name up |
//! | `/prober/http?slot=&method=&target=` | sends through a slot of `http` |
//! | `/prober/foreman?slot=&method=&target=` | sends through a slot of `foreman` |
//! | `/prober/store?slot=&key=` | writes and reads a key |
//! | `/prober/reveal?slot=` | asks for a secret |
//! | `/prober/sign?slot=` | signs with a secret |
//! | `/prober/download?slot=&url=&path=` | starts a download |
//! | `/prober/file?slot=&path=` | has the host send a file |
//! | `/prober/forward?slot=&method=&target=` | has the host forward |
//! | `/prober/environment` | shows variables and arguments |
//! | `/prober/caller` | shows who is calling |
//! | `/prober/use?what=&path=&to=&text=` | further actions with files: see [`files_action`] |
//! | `/prober/keys?what=&slot=&key=&text=` | further actions with keys: see [`keys_action`] |
//! | `/prober/secret?what=&slot=` | `about` or `verify` |
//! | `/prober/call?name=` | asks the provider of `dns-provider` for a name |
//! | `/prober/calls?count=&where=` | keeps a record of 200 bytes in the provider (`there`) or itself (`here`), and times asking for it so often |
//! | `/prober/hold?address=&count=` | holds sockets open at the same time |
//! | `/prober/take?what=&amount=&hold=` | uses up something: see [`taking`] |
//! | `/prober/count` | says the how manieth call this instance answers |
//! | `/prober/stay?what=&address=&path=&slot=` | goes on with `tcp`, `udp`, `file` or `watch` until it is stopped, at most 30 s |
//! | `POST /prober/body` | says how long the body was |
//! | `POST /prober/pass?slot=&target=` | has the host forward, and stream the client's body into it |
//! | `/prober/header?name=&value=` | answers with this header |
//! | `/prober/late?amount=&path=&text=` | writes a file after so many milliseconds |
//! | `/prober/watch?slot=&path=` | reads a file through a slot of `watch` |
//! | `/prober/probe?slot=&address=&count=` | asks whether somebody uses an address, so many times at once |
//! | `/prober/leases` | asks the provider of `dhcp-provider` for its subnets |
//!
//! It stands in for any other plugin: [`FACE`] is a place in the component where a test writes another name, mount, needs and settings, so that the
//! attacker has the manifest of a plugin whose policy is under attack.

use std::fmt::Display;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bulkhead_sdk::answer::{DEFAULT_TYPE, Forward};
use bulkhead_sdk::bindings::imports::foreman::proxy::types::Answer as Record;
use bulkhead_sdk::http::{Incoming, Outgoing};
use bulkhead_sdk::plugin::Reply;
use bulkhead_sdk::prelude::*;
use bulkhead_sdk::udp::UdpSocket;
use bulkhead_sdk::{dhcp, dns, probe, watch};

mod face;

use face::Face;

const WHY: &str = "tries whether it gets there";

/// Calls of `count` that this instance has answered.
static CALLS: AtomicU32 = AtomicU32::new(0);

struct Prober;

impl Plugin for Prober {
    fn describe() -> Manifest {
        let face = Face::worn();
        let at = |action: &str| get(&format!("{}/{action}", face.mount));
        let to = |action: &str| post(&format!("{}/{action}", face.mount));
        let manifest = Manifest::new(
            &face.name,
            env!("CARGO_PKG_VERSION"),
            "Tries to reach what it is told to",
        )
        .mount(&face.mount)
        .route(at("read"), |r: &Request| {
            outcome(fs::read_to_string(text(r, "path")))
        })
        .route(at("write"), |r: &Request| {
            done(fs::write(text(r, "path"), text(r, "text")))
        })
        .route(at("remove"), |r: &Request| {
            done(fs::remove_file(text(r, "path")))
        })
        .route(at("rename"), |r: &Request| {
            done(fs::rename(text(r, "path"), text(r, "to")))
        })
        .route(at("link"), |r: &Request| {
            done(fs::hard_link(text(r, "path"), text(r, "to")))
        })
        .route(at("list"), |r: &Request| outcome(list(text(r, "path"))))
        .route(at("tcp"), |r: &Request| {
            outcome(exchange(text(r, "address")))
        })
        .route(at("listen"), |r: &Request| {
            done(TcpListener::bind(text(r, "address")).map(drop))
        })
        .route(at("udp"), |r: &Request| {
            outcome(datagram(text(r, "address"), text(r, "text")))
        })
        .route(at("resolve"), |r: &Request| {
            outcome(resolve(text(r, "name")))
        })
        .route(at("http"), |r: &Request| sent(http::send(&outgoing(r))))
        .route(at("foreman"), |r: &Request| {
            sent(foreman::send(&outgoing(r)))
        })
        .route(at("store"), |r: &Request| {
            outcome(keep(text(r, "slot"), text(r, "key")))
        })
        .route(at("reveal"), |r: &Request| {
            outcome(secrets::reveal(text(r, "slot")).map(lossy).map_err(debug))
        })
        .route(at("sign"), |r: &Request| {
            outcome(
                secrets::sign(text(r, "slot"), b"message")
                    .map(|mac| format!("{mac:02x?}"))
                    .map_err(debug),
            )
        })
        .route(at("download"), |r: &Request| {
            done(downloads::fetch(
                text(r, "slot"),
                text(r, "url"),
                text(r, "path"),
            ))
        })
        .route(at("file"), |r: &Request| {
            Answer::file(text(r, "slot"), text(r, "path"))
        })
        .route(at("forward"), |r: &Request| {
            Forward::new(text(r, "slot"), text(r, "method"), text(r, "target"))
        })
        .route(at("environment"), |_: &Request| {
            format!(
                "{:?} {:?}",
                std::env::vars().collect::<Vec<_>>(),
                std::env::args().collect::<Vec<_>>()
            )
        })
        .route(at("caller"), |_: &Request| {
            format!("{:?}", caller::current())
        })
        .route(at("use"), |r: &Request| outcome(files_action(r)))
        .route(at("keys"), |r: &Request| outcome(keys_action(r)))
        .route(at("secret"), |r: &Request| {
            outcome(secret_action(text(r, "what"), text(r, "slot")))
        })
        .route(at("call"), |r: &Request| {
            outcome(
                dns::find(text(r, "name"), dns::RecordType::A)
                    .map(|records| format!("{} records", records.len()))
                    .map_err(debug),
            )
        })
        .route(at("calls"), |r: &Request| {
            outcome(calls(text(r, "where") == "there", number(r, "count")))
        })
        .route(at("hold"), |r: &Request| {
            outcome(hold(text(r, "address"), number(r, "count")))
        })
        .route(at("stay"), |r: &Request| outcome(stay(r)))
        .route(at("take"), taking)
        .route(at("count"), |_: &Request| {
            format!("ok {}", CALLS.fetch_add(1, Ordering::Relaxed) + 1)
        })
        .route(to("body").body_whole(), |r: &Request| {
            format!("ok {} bytes", r.body().len())
        })
        .route(to("pass").body_passed(), |r: &Request| {
            // The parameters of a POST are its body's, which stays with the host.
            let asked = |name: &str| {
                let fields = r
                    .query()
                    .split('&')
                    .filter_map(|field| field.split_once('='));
                fields
                    .clone()
                    .find(|(known, _)| *known == name)
                    .map_or("", |(_, value)| value)
            };
            Forward::new(asked("slot"), "POST", asked("target")).incoming_body()
        })
        .route(at("header"), |r: &Request| {
            with_header(text(r, "name"), text(r, "value"))
        })
        .route(at("late"), |r: &Request| {
            std::thread::sleep(Duration::from_millis(number(r, "amount") as u64));
            done(fs::write(text(r, "path"), text(r, "text")))
        })
        .route(at("watch"), |r: &Request| {
            outcome(
                watch::read(text(r, "slot"), text(r, "path"), 0, 4096)
                    .map(|chunk| lossy(chunk.bytes))
                    .map_err(debug),
            )
        })
        .route(at("probe"), |r: &Request| {
            let addresses = vec![text(r, "address").to_owned(); number(r, "count")];
            outcome(
                probe::ask(text(r, "slot"), &addresses, Duration::from_millis(500))
                    .map(debug)
                    .map_err(debug),
            )
        })
        .route(at("leases"), |_: &Request| {
            outcome(
                dhcp::subnets()
                    .map(|subnets| format!("{} subnets", subnets.len()))
                    .map_err(debug),
            )
        });
        face.needs_and_settings(manifest, own_needs)
    }
}

/// What it asks for under its own name.
fn own_needs(manifest: Manifest) -> Manifest {
    manifest
        .need(Need::files("one", Access::Read, WHY).optional())
        .need(Need::files("tight", Access::ReadWrite, WHY).optional())
        .need(Need::http("other", WHY).optional())
        .need(Need::store("shared", Access::ReadWrite, WHY).optional())
        .need(Need::secret("mac", WHY).optional())
        .need(Need::call("provider", dns::INTERFACE, WHY).optional())
        .need(Need::files("data", Access::ReadWrite, WHY).optional())
        .need(Need::files("readable", Access::Read, WHY).optional())
        .need(Need::downloads("media", WHY).optional())
        .need(Need::tcp("peer", WHY).optional())
        .need(Need::udp("peer-udp", WHY).optional())
        .need(Need::names("zone", WHY).optional())
        .need(Need::http("api", WHY).optional())
        .need(Need::foreman("foreman", WHY).optional())
        .need(Need::store("keys", Access::ReadWrite, WHY).optional())
        .need(Need::secret_revealed("key", WHY).optional())
        .need(Need::watch("news", WHY).optional())
        .need(Need::watch("listed", WHY).optional())
        .need(Need::probe("net", WHY).optional())
        .need(Need::call("leases", dhcp::INTERFACE, WHY).optional())
}

fn with_header(name: &str, value: &str) -> Answer {
    let headers = [("content-type", DEFAULT_TYPE), (name, value)];
    Answer::from(Record::Reply(Reply {
        status: 200,
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        body: b"ok".to_vec(),
    }))
}

bulkhead_sdk::export_feature!(Prober);

fn text<'a>(request: &'a Request, name: &str) -> &'a str {
    request.text(name).unwrap_or_default()
}

fn outcome<E: Display>(result: Result<String, E>) -> String {
    match result {
        Ok(found) => format!("ok {found}"),
        Err(why) => format!("refused {why}"),
    }
}

fn done<E: Display>(result: Result<(), E>) -> String {
    outcome(result.map(|()| String::new()))
}

fn sent<E: Display>(result: Result<Incoming, E>) -> String {
    outcome(result.map(|incoming| {
        format!(
            "{} {}",
            incoming.status(),
            String::from_utf8_lossy(incoming.body())
        )
    }))
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

fn debug(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

fn list(path: &str) -> std::io::Result<String> {
    let mut names = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names.join(" "))
}

fn exchange(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"ping\n")?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer)?;
    answer.truncate(length);
    Ok(lossy(answer))
}

fn datagram(address: &str, text: &str) -> std::io::Result<String> {
    let peer = address
        .parse()
        .map_err(|why| std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("{why}")))?;
    let socket = UdpSocket::connect(peer)?;
    socket.send(text.as_bytes())?;
    let answer = socket.receive(Duration::from_secs(1))?;
    Ok(answer.map_or_else(|| "no answer".to_owned(), lossy))
}

fn resolve(name: &str) -> std::io::Result<String> {
    let mut found: Vec<String> = (name, 0)
        .to_socket_addrs()?
        .map(|address| address.ip().to_string())
        .collect();
    found.sort();
    Ok(found.join(" "))
}

fn outgoing(request: &Request) -> Outgoing {
    let method = request.text("method").unwrap_or("GET");
    Outgoing::new(text(request, "slot"), method, text(request, "target"))
}

fn number(request: &Request, name: &str) -> usize {
    text(request, name).parse().unwrap_or_default()
}

/// `stat`, `mkdir`, `rmdir`, `append`, `truncate`, `touch`, `copy`, `fill` (writes `text` bytes), `readlink`, `create-new`.
fn files_action(request: &Request) -> std::io::Result<String> {
    let (path, to) = (text(request, "path"), text(request, "to"));
    let nothing = |()| String::new();
    match text(request, "what") {
        "stat" => Ok(format!("{} bytes", fs::metadata(path)?.len())),
        "mkdir" => fs::create_dir(path).map(nothing),
        "rmdir" => fs::remove_dir(path).map(nothing),
        "append" => fs::OpenOptions::new()
            .append(true)
            .open(path)?
            .write_all(b"x")
            .map(nothing),
        "truncate" => fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(path)
            .map(|_| String::new()),
        "create-new" => fs::File::create_new(path).map(|_| String::new()),
        "copy" => fs::write(to, fs::read(path)?).map(nothing),
        "fill" => fs::write(path, vec![b'x'; number(request, "text")]).map(nothing),
        "many" => {
            for count in 0..number(request, "text") {
                fs::write(format!("{path}-{count}"), "")?;
            }
            Ok(String::new())
        }
        "readlink" => Ok(fs::read_link(path)?.display().to_string()),
        other => Err(std::io::Error::other(format!("no action {other:?}"))),
    }
}

/// `read`, `scan`, `changes`, `delete`, `fill` (a value of `text` bytes), `many` (`text` keys in one change).
fn keys_action(request: &Request) -> Result<String, String> {
    let (slot, key) = (text(request, "slot"), text(request, "key"));
    let told = |error: store::Error| store::describe(&error);
    match text(request, "what") {
        "read" => store::get(slot, key)
            .map(|entry| entry.map(|it| lossy(it.value)).unwrap_or_default())
            .map_err(told),
        "scan" => store::scan(slot, "", None, 10)
            .map(|found| format!("{} keys", found.len()))
            .map_err(told),
        "changes" => store::changes(slot, 0, 10)
            .map(|_| String::new())
            .map_err(told),
        "delete" => store::apply(slot, &[store::Change::delete(key)])
            .map(|_| String::new())
            .map_err(told),
        "fill" => {
            let value = vec![b'x'; number(request, "text")];
            store::apply(slot, &[store::Change::put(key, value)])
                .map(|_| String::new())
                .map_err(told)
        }
        "many" => {
            for count in 0..number(request, "text") {
                store::apply(slot, &[store::Change::put(&format!("{key}{count}"), "")])
                    .map_err(told)?;
            }
            Ok(String::new())
        }
        other => Err(format!("no action {other:?}")),
    }
}

fn secret_action(what: &str, slot: &str) -> Result<String, String> {
    match what {
        "about" => secrets::about(slot)
            .map(|key| debug(key.algorithm))
            .map_err(debug),
        _ => secrets::verify(slot, b"message", b"mac")
            .map(|good| good.to_string())
            .map_err(debug),
    }
}

/// Answers nanoseconds for one question.
fn calls(there: bool, count: usize) -> Result<String, String> {
    let wanted = dns::DnsRecord {
        name: format!(
            "{}.{}.{}.example.com",
            "a".repeat(60),
            "b".repeat(60),
            "c".repeat(40)
        ),
        kind: dns::RecordType::A,
        value: "192.0.2.200".to_owned(),
        ttl: 3600,
    };
    if there {
        dns::create(&wanted).map_err(debug)?;
    }
    let kept = [wanted.clone()];
    let start = std::time::Instant::now();
    for _ in 0..count {
        let name = std::hint::black_box(&wanted.name);
        let found = if there {
            dns::find(name, dns::RecordType::A).map_err(debug)?
        } else {
            let name = name.clone();
            kept.iter()
                .filter(|record| record.name == name && record.kind == dns::RecordType::A)
                .cloned()
                .collect()
        };
        if std::hint::black_box(found).len() != 1 {
            return Err("the record is not there".to_owned());
        }
    }
    Ok((start.elapsed().as_nanos() / count.max(1) as u128).to_string())
}

fn hold(address: &str, count: usize) -> std::io::Result<String> {
    let streams = (0..count)
        .map(|_| TcpStream::connect(address))
        .collect::<std::io::Result<Vec<_>>>()?;
    Ok(format!("{} sockets", streams.len()))
}

/// Goes on with one thing; answers how often it did, what ended it, and when (milliseconds since 1970).
fn stay(request: &Request) -> Result<String, String> {
    let mut act: Box<dyn FnMut() -> std::io::Result<()>> = match text(request, "what") {
        "tcp" => {
            let mut stream =
                TcpStream::connect(text(request, "address")).map_err(|e| e.to_string())?;
            Box::new(move || stream.write_all(b"still here\n"))
        }
        "udp" => {
            let peer = text(request, "address").parse().map_err(debug)?;
            let socket = UdpSocket::connect(peer).map_err(|error| error.to_string())?;
            Box::new(move || socket.send(b"still here"))
        }
        "watch" => {
            let (slot, path) = (
                text(request, "slot").to_owned(),
                text(request, "path").to_owned(),
            );
            Box::new(move || {
                watch::read(&slot, &path, 0, 64)
                    .map(drop)
                    .map_err(|error| std::io::Error::other(debug(error)))
            })
        }
        _ => {
            let path = text(request, "path").to_owned();
            Box::new(move || fs::write(&path, b"still here"))
        }
    };
    let start = std::time::Instant::now();
    let mut count = 0;
    while start.elapsed() < Duration::from_secs(30) {
        match act() {
            Ok(()) => count += 1,
            Err(why) => return Ok(format!("{count} times, then at {}: {why}", milliseconds())),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("nobody ended it after {count} times"))
}

fn milliseconds() -> u128 {
    std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |it| it.as_millis())
}

/// `memory` (bytes, kept for `hold` ms), `cpu` (ms), `time` (ms), `reply` (bytes), `handles`, `random` (bytes in one call), `lines` (log lines), `codes` (log lines and
/// printed ones that would clear a terminal, set its title, and forge a line), `line` (one log line of so many bytes).
fn taking(request: &Request) -> Vec<u8> {
    let amount = number(request, "amount");
    match text(request, "what") {
        "memory" => {
            let taken = std::hint::black_box(vec![1_u8; amount]);
            std::thread::sleep(Duration::from_millis(number(request, "hold") as u64));
            format!("ok {}", taken.len()).into_bytes()
        }
        "cpu" => {
            let start = std::time::Instant::now();
            let mut number = 0_u64;
            while start.elapsed() < Duration::from_millis(amount as u64) {
                number = std::hint::black_box(number.wrapping_mul(31).wrapping_add(7));
            }
            format!("ok {number}").into_bytes()
        }
        "time" => {
            std::thread::sleep(Duration::from_millis(amount as u64));
            b"ok".to_vec()
        }
        "reply" => {
            let mut reply = b"ok ".to_vec();
            reply.resize(amount, b'x');
            reply
        }
        "lines" => {
            for line in 0..amount {
                log::info(format!("a line of many, {line}"));
            }
            b"ok".to_vec()
        }
        "codes" => {
            for line in 0..amount {
                log::warn(format!(
                    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m{line}\r\nERROR forged=true"
                ));
                println!("\u{1b}[1A\u{1b}[2Kprinted {line}\u{8}\u{202e}");
            }
            b"ok".to_vec()
        }
        "line" => {
            log::info("l".repeat(amount));
            b"ok".to_vec()
        }
        what => bare(what, amount),
    }
}

#[cfg(target_arch = "wasm32")]
fn bare(what: &str, amount: usize) -> Vec<u8> {
    match what {
        "handles" => {
            let kept: Vec<_> = (0..amount)
                .map(|_| wasip2::clocks::monotonic_clock::subscribe_duration(u64::MAX))
                .collect();
            format!("ok {}", kept.len()).into_bytes()
        }
        "random" => {
            let bytes = wasip2::random::random::get_random_bytes(amount as u64);
            format!("ok {}", bytes.len()).into_bytes()
        }
        other => format!("refused: nothing called {other:?}").into_bytes(),
    }
}

/// Natively there is no host whose handles could be used up.
#[cfg(not(target_arch = "wasm32"))]
fn bare(_: &str, _: usize) -> Vec<u8> {
    b"refused: no host".to_vec()
}

fn keep(slot: &str, key: &str) -> Result<String, String> {
    let revision = store::apply(slot, &[store::Change::put(key, "value")])
        .map_err(|why| store::describe(&why))?;
    let entry = store::get(slot, key).map_err(|why| store::describe(&why))?;
    Ok(format!("revision {revision}, found {}", entry.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::testing::Host;

    #[test]
    fn every_outcome_is_a_200_that_says_what_happened() {
        let host = Host::new().store("keys").install();
        assert_eq!(
            host.get::<Prober>("/prober/store?slot=keys&key=a").text(),
            "ok revision 1, found true"
        );
        assert_eq!(
            host.get::<Prober>("/prober/store?slot=other&key=a").text(),
            "refused denied: slot other is not granted"
        );
        assert!(
            host.get::<Prober>("/prober/read?path=/absent")
                .text()
                .starts_with("refused ")
        );
    }
}
