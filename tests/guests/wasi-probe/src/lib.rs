//! Does with files, sockets and names what it is told, one line a call, and remembers what it opened. With nothing but the standard
//! library (and the bare binding where the standard library has no word), as an ordinary plugin would.
//!
//! A line is a verb and its words; the answer is `ok ...`, or `no` with the kind of the error.

#![cfg_attr(not(target_arch = "wasm32"), allow(unused))]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

wit_bindgen::generate!({
    inline: "
        package bulkhead:wasi-probe;
        world probe {
            export act: func(line: string) -> string;
        }
    ",
});

struct Probe;

#[derive(Default)]
struct Kept {
    files: HashMap<String, File>,
    streams: HashMap<String, TcpStream>,
    sockets: HashMap<String, UdpSocket>,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

impl Guest for Probe {
    fn act(line: String) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let outcome = KEPT.with_borrow_mut(|kept| act(kept, &words));
        match outcome {
            Ok(text) => format!("ok {text}").trim_end().to_owned(),
            Err(error) => format!(
                "no {:?} {}",
                error.kind(),
                error.raw_os_error().unwrap_or(0)
            ),
        }
    }
}

fn act(kept: &mut Kept, words: &[&str]) -> io::Result<String> {
    let nothing = || Ok(String::new());
    match *words {
        ["read", path] => fs::read_to_string(path),
        ["size", path] => Ok(fs::read(path)?.len().to_string()),
        ["write", path, text] => fs::write(path, text).map(|()| String::new()),
        ["fill", path, bytes] => {
            fs::write(path, vec![b'x'; number(bytes)?]).map(|()| String::new())
        }
        ["create-new", path] => File::create_new(path).map(|_| String::new()),
        ["mkdir", path] => fs::create_dir(path).map(|()| String::new()),
        ["rmdir", path] => fs::remove_dir(path).map(|()| String::new()),
        ["remove", path] => fs::remove_file(path).map(|()| String::new()),
        ["rename", from, to] => fs::rename(from, to).map(|()| String::new()),
        ["link", from, to] => fs::hard_link(from, to).map(|()| String::new()),
        ["symlink", target, path] => symlink(target, path),
        ["readlink", path] => Ok(fs::read_link(path)?.display().to_string()),
        ["list", path] => {
            let names: io::Result<Vec<_>> = fs::read_dir(path)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect();
            let mut names = names?;
            names.sort();
            Ok(names.join(" "))
        }
        ["count", path] => Ok(fs::read_dir(path)?.count().to_string()),
        ["stat", path] => {
            let metadata = fs::metadata(path)?;
            Ok(format!(
                "{} {}",
                if metadata.is_dir() {
                    "directory"
                } else {
                    "file"
                },
                metadata.len()
            ))
        }
        ["open", name, path] => {
            kept.files.insert(name.into(), File::open(path)?);
            nothing()
        }
        ["open-write", name, path] => {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            kept.files.insert(name.into(), file);
            nothing()
        }
        ["open-append", name, path] => {
            kept.files.insert(
                name.into(),
                OpenOptions::new().append(true).create(true).open(path)?,
            );
            nothing()
        }
        ["again", name] => {
            let file = open(&mut kept.files, name)?;
            file.seek(SeekFrom::Start(0))?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(text)
        }
        ["more", name, text] => open(&mut kept.files, name)?
            .write_all(text.as_bytes())
            .map(|()| String::new()),
        ["length", name, bytes] => open(&mut kept.files, name)?
            .set_len(number(bytes)? as u64)
            .map(|()| String::new()),
        ["sync", name] => open(&mut kept.files, name)?
            .sync_all()
            .map(|()| String::new()),
        ["close", name] => {
            kept.files.remove(name);
            kept.streams.remove(name);
            kept.sockets.remove(name);
            nothing()
        }
        ["connect", name, address] => {
            kept.streams
                .insert(name.into(), TcpStream::connect(address)?);
            nothing()
        }
        ["send", name, text] => open(&mut kept.streams, name)?
            .write_all(text.as_bytes())
            .map(|()| String::new()),
        ["send-much", name, bytes] => open(&mut kept.streams, name)?
            .write_all(&vec![b'x'; number(bytes)?])
            .map(|()| String::new()),
        ["receive", name] => {
            let mut buffer = [0; 4096];
            let read = open(&mut kept.streams, name)?.read(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
        }
        ["listen", address] => TcpListener::bind(address).map(|_| String::new()),
        ["udp", name, address] => {
            kept.sockets.insert(name.into(), UdpSocket::bind(address)?);
            nothing()
        }
        ["datagram", name, to, text] => Ok(open(&mut kept.sockets, name)?
            .send_to(text.as_bytes(), to)?
            .to_string()),
        ["heard", name] => {
            let mut buffer = [0; 2048];
            let (read, from) = open(&mut kept.sockets, name)?.recv_from(&mut buffer)?;
            Ok(format!(
                "{from} {}",
                String::from_utf8_lossy(&buffer[..read])
            ))
        }
        ["resolve", name] => {
            let addresses: Vec<_> = (name, 0)
                .to_socket_addrs()?
                .map(|address| address.ip().to_string())
                .collect();
            Ok(addresses.join(" "))
        }
        ["print", text] => {
            println!("{text}");
            nothing()
        }
        ["environment"] => Ok(format!(
            "{} {}",
            std::env::vars().count(),
            std::env::args().count()
        )),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn number(text: &str) -> io::Result<usize> {
    text.parse().map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn open<'a, T>(kept: &'a mut HashMap<String, T>, name: &str) -> io::Result<&'a mut T> {
    kept.get_mut(name)
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The standard library has no stable word for it.
#[cfg(target_arch = "wasm32")]
fn symlink(target: &str, path: &str) -> io::Result<String> {
    let (slot, rest) = path
        .trim_start_matches('/')
        .split_once('/')
        .ok_or(io::ErrorKind::InvalidInput)?;
    let slot = format!("/{slot}");
    for (directory, name) in wasip2::filesystem::preopens::get_directories() {
        if name == slot {
            return match directory.symlink_at(target, rest) {
                Ok(()) => Ok(String::new()),
                Err(code) => Ok(format!("{code:?}")),
            };
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(not(target_arch = "wasm32"))]
fn symlink(_target: &str, _path: &str) -> io::Result<String> {
    Err(io::ErrorKind::Unsupported.into())
}

export!(Probe);
