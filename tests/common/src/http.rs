//! An HTTP/1.1 client that hides nothing: every byte sent is a test's own, every byte received can be looked at.
//!
//! It follows no redirect, repeats nothing, decodes no compression, and sends no header but `Host` unless a test says so.

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::exchange::Exchange;

/// The longest a test waits for bytes: a hang fails it rather than the whole run.
const PATIENCE: Duration = Duration::from_secs(30);

/// A door into the program: an address, and TLS with an identity or without.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// How TLS is spoken; none: plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
    /// The name in the `Host` header and, over TLS, the one the certificate must hold.
    pub name: String,
    /// What has to live as long as this door is used: the process behind it.
    pub alive: Option<Arc<dyn Any + Send + Sync>>,
}

impl Target {
    /// Plain HTTP.
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            name: "localhost".to_owned(),
            alive: None,
        }
    }

    /// TLS.
    pub fn tls(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        Self {
            address,
            tls: Some(config),
            name: "localhost".to_owned(),
            alive: None,
        }
    }

    /// The same address without TLS: for bytes that are none.
    pub fn without_tls(&self) -> Self {
        Self {
            tls: None,
            ..self.clone()
        }
    }

    /// The value for the `Host` header.
    pub fn host(&self) -> String {
        format!("{}:{}", self.name, self.address.port())
    }

    /// Opens a connection; over TLS the handshake is done.
    pub fn open(&self) -> io::Result<Connection> {
        let socket = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let control = socket.try_clone()?;
        let Some(config) = &self.tls else {
            return Ok(Connection::new(Box::new(socket), control));
        };
        let name = ServerName::try_from(self.name.clone()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        let mut socket = socket;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Connection::new(
            Box::new(StreamOwned::new(session, socket)),
            control,
        ))
    }

    /// A connection on which this is sent at once.
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> io::Result<Connection> {
        let mut connection = self.open()?;
        connection.send(bytes)?;
        Ok(connection)
    }

    /// Begins a request.
    pub fn request(&self, method: &str, path: &str) -> Exchange<'_> {
        Exchange::new(self, method, path)
    }

    /// `GET` on a connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path).send()
    }

    /// `POST` of a form on a connection of its own, fields encoded as Foreman does.
    #[track_caller]
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        self.request("POST", path).form(fields).send()
    }

    /// `DELETE` on a connection of its own.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Response {
        self.request("DELETE", path).send()
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An open connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    /// The same socket below TLS: to shut it down or to change its time-outs.
    socket: TcpStream,
    /// Received and not yet taken.
    pending: Vec<u8>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Connection")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Connection {
    fn new(stream: Box<dyn Stream>, socket: TcpStream) -> Self {
        Self {
            stream,
            socket,
            pending: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Sends bytes slowly, `pause` after each piece of `size`.
    pub fn send_slowly(&mut self, bytes: &[u8], size: usize, pause: Duration) -> io::Result<()> {
        for piece in bytes.chunks(size) {
            self.send(piece)?;
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Changes how long a read waits.
    pub fn patience(&self, limit: Duration) {
        self.socket
            .set_read_timeout(Some(limit))
            .expect("a time-out can be set");
    }

    /// Says that nothing more will be sent, below TLS.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Reads one response to a request of this method; interim (1xx) ones are passed over.
    pub fn response(&mut self, method: &str) -> io::Result<Response> {
        loop {
            let head = self.head()?;
            let mut response = Response::parse(&head)?;
            if (100..200).contains(&response.status) {
                continue;
            }
            response.body = self.body(method, &response)?;
            return Ok(response);
        }
    }

    /// Everything until the other side closes, however it does so.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.pending);
        // A reset or a missing TLS close is an end too; what came before it counts.
        let _ = self.stream.read_to_end(&mut all);
        all
    }

    /// True when the other side closes (or resets) within this time; what it sends meanwhile is dropped.
    pub fn closes_within(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut buffer = [0_u8; 16 * 1024];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.patience(left);
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => return false,
                Err(_) => return true,
            }
        }
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut buffer = [0_u8; 64 * 1024];
        let count = self.stream.read(&mut buffer)?;
        self.pending.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    fn head(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.pending.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.pending.split_off(end + 4);
                return Ok(std::mem::replace(&mut self.pending, rest));
            }
            if self.more()? == 0 {
                let seen = String::from_utf8_lossy(&self.pending).into_owned();
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("closed before a whole response head; received {seen:?}"),
                ));
            }
        }
    }

    fn body(&mut self, method: &str, response: &Response) -> io::Result<Vec<u8>> {
        if method == "HEAD" || response.status == 204 || response.status == 304 {
            return Ok(Vec::new());
        }
        if response
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            return self.chunks();
        }
        if let Some(length) = response.header("content-length") {
            return self.exactly(length.parse().map_err(io::Error::other)?);
        }
        let mut all = std::mem::take(&mut self.pending);
        match self.stream.read_to_end(&mut all) {
            Ok(_) => Ok(all),
            // rustls: closed without a close_notify. HTTP's own framing is absent here, so this is the end.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(all),
            Err(error) => Err(error),
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.pending.len() < length {
            if self.more()? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!(
                        "closed after {} of {length} bytes of the body",
                        self.pending.len()
                    ),
                ));
            }
        }
        let rest = self.pending.split_off(length);
        Ok(std::mem::replace(&mut self.pending, rest))
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            self.exactly(2)?;
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|two| two == b"\r\n") {
                let line = self.exactly(end + 2)?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.more()? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "closed within a chunked body",
                ));
            }
        }
    }
}

/// True for an error that means "nothing came in time".
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// A response, taken apart but not interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The whole first line, without its end.
    pub status_line: String,
    /// The status code.
    pub status: u16,
    /// Headers in order, names as sent.
    pub headers: Vec<(String, String)>,
    /// The body without chunk framing.
    pub body: Vec<u8>,
}

impl Response {
    fn parse(head: &[u8]) -> io::Result<Self> {
        let text = String::from_utf8_lossy(head);
        let invalid = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("not a response head: {text:?}"),
            )
        };
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let status_line = lines.next().unwrap_or_default().to_owned();
        let mut words = status_line.split(' ');
        let version = words.next().unwrap_or_default();
        let status = words
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or_else(invalid)?;
        if !version.starts_with("HTTP/1.") {
            return Err(invalid());
        }
        let headers = lines
            .map(|line| {
                line.split_once(':')
                    .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(invalid)?;
        Ok(Self {
            status_line,
            status,
            headers,
            body: Vec::new(),
        })
    }

    /// A header's value, by its name in any case; the first, if it is there more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The content type, empty when there is none.
    pub fn content_type(&self) -> &str {
        self.header("content-type").unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// Fails unless the status is this one; shows the body.
    #[track_caller]
    pub fn assert_status(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.text());
    }

    /// Fails the test unless status, content type and the whole body are these.
    #[track_caller]
    pub fn assert_is(&self, status: u16, content_type: &str, body: &str) {
        let found = (self.status, self.content_type(), self.text());
        assert_eq!(found, (status, content_type, body.to_owned()), "{self}");
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(out, "{}", self.status_line)?;
        for (name, value) in &self.headers {
            writeln!(out, "{name}: {value}")?;
        }
        let text = self.text();
        write!(out, "\n{}", text.chars().take(2_000).collect::<String>())
    }
}
