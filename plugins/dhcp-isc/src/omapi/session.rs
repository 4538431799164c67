//! One conversation with dhcpd: greet, prove the key, say what is wanted, hear what came of it.
//!
//! A conversation serves one operation and ends with it, as that of ISC's own `omshell` does, so a restarted dhcpd needs no
//! special case. All of it has one deadline: a server that sends byte by byte gains no time.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bulkhead_sdk::tcp::{Connecting, Connection};

use super::message::{self, GREETING, Message, Operation, Read, Values};
use crate::error::Problem;
use crate::turns::until;

/// Who signs: the host, with a key that the plugin does not see.
pub trait Signer {
    /// The key's name, as `dhcpd.conf` has it.
    fn name(&self) -> &str;
    /// `hmac-md5`, `hmac-sha256`, ...
    fn algorithm(&self) -> &str;
    /// The HMAC of a message.
    ///
    /// # Errors
    /// The key cannot be used; why.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String>;
    /// Whether that is the HMAC of the message.
    ///
    /// # Errors
    /// The key cannot be used; why.
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<bool, String>;
}

/// Which dhcpd, by which key, and for how long.
pub struct Server {
    /// Name and port, for messages.
    pub name: String,
    /// Where it may be, in order.
    pub addresses: Vec<SocketAddr>,
    /// None: dhcpd asks for no key.
    pub signer: Option<Box<dyn Signer>>,
    /// For the whole conversation.
    pub time: Duration,
}

/// What dhcpd said of an operation: 0 is success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// ISC's result code.
    pub code: u32,
    /// dhcpd's words; empty when it said none.
    pub words: String,
}

impl Verdict {
    /// ISC's code for what does not exist (`ISC_R_NOTFOUND`).
    pub const NOT_FOUND: u32 = 23;

    /// ISC's code for what exists already (`ISC_R_EXISTS`).
    pub const EXISTS: u32 = 18;

    /// ISC's code for an object of another name that has the same key value (`DHCP_R_KEYCONFLICT`).
    pub const KEY_CONFLICT: u32 = 0x0006_0007;

    /// dhcpd's code for a message that nobody signed, where it asks for a key.
    const NO_KEY: u32 = 0x0006_0009;

    /// dhcpd's code for a signature by another secret.
    const INVALID_KEY: u32 = 0x0006_000b;

    /// dhcpd's words, or what its code means (`isc/result.h`, `omapip/result.h`).
    #[must_use]
    pub fn text(&self) -> String {
        let meaning = match self.code {
            6 => "permission denied".to_owned(),
            16 => "unexpected end of input".to_owned(),
            Self::EXISTS => "already exists".to_owned(),
            Self::NOT_FOUND => "not found".to_owned(),
            27 => "not implemented".to_owned(),
            35 => "invalid argument".to_owned(),
            Self::KEY_CONFLICT => "key conflict".to_owned(),
            0x0006_0008 => "parse error".to_owned(),
            Self::NO_KEY => "dhcpd wants to be asked with a key: set `omapi_key` of [features.dhcp-isc] to the file with the key of its `omapi-key`".to_owned(),
            Self::INVALID_KEY => "dhcpd does not take the signature: the secret in the file of `omapi_key` is not that of its `omapi-key`".to_owned(),
            other => format!("error {other}"),
        };
        match self.words.is_empty() {
            true => meaning,
            false => format!("{}: {meaning}", self.words),
        }
    }
}

/// An answer: an object, or a refusal.
pub type Outcome<T> = Result<T, Verdict>;

/// A handle of an object on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(u32);

/// A conversation.
pub struct Session<'s> {
    server: &'s Server,
    stream: Connection,
    end: Instant,
    received: Vec<u8>,
    /// The authenticator's handle once the key is proved.
    authenticator: u32,
    next_id: u32,
}

impl<'s> Session<'s> {
    /// Connects, greets, and proves the key if there is one.
    ///
    /// # Errors
    /// No way to the server, no answer in time, none that OMAPI knows, or the key is refused.
    pub async fn open(server: &'s Server) -> Result<Self, Problem> {
        let end = Instant::now() + server.time;
        let mut last = server.lost("the name has no address");
        for address in &server.addresses {
            match connected(*address, end).await {
                Ok(None) => return Err(server.timeout()),
                Ok(Some(stream)) => {
                    let mut session = Self {
                        server,
                        stream,
                        end,
                        received: Vec::new(),
                        authenticator: 0,
                        next_id: seed(),
                    };
                    session.greet().await?;
                    session.prove().await?;
                    return Ok(session);
                }
                Err(why) => last = server.failed(&why),
            }
        }
        Err(last)
    }

    /// Creates a host, or changes nothing if its name or hardware address is taken.
    ///
    /// # Errors
    /// The conversation failed; whether the host was created is not known then.
    pub async fn create(&mut self, values: Values) -> Result<Outcome<Handle>, Problem> {
        let wanted = Values::new()
            .bytes("type", "host")
            .number("create", 1)
            .number("exclusive", 1);
        Ok(self
            .ask(Operation::Open, 0, wanted, values)
            .await?
            .map(|answer| Handle(answer.handle)))
    }

    /// Finds the host with these values (a name, or a hardware address and type).
    ///
    /// # Errors
    /// The conversation failed.
    pub async fn find(&mut self, values: Values) -> Result<Outcome<(Handle, Values)>, Problem> {
        let wanted = Values::new().bytes("type", "host");
        let found = self.ask(Operation::Open, 0, wanted, values).await?;
        Ok(found.map(|answer| (Handle(answer.handle), answer.object)))
    }

    /// Changes values of a host.
    ///
    /// # Errors
    /// The conversation failed; whether the host was changed is not known then.
    pub async fn update(&mut self, host: Handle, values: Values) -> Result<Outcome<()>, Problem> {
        Ok(self
            .ask(Operation::Update, host.0, Values::new(), values)
            .await?
            .map(drop))
    }

    /// Removes a host.
    ///
    /// # Errors
    /// The conversation failed; whether the host was removed is not known then.
    pub async fn delete(&mut self, host: Handle) -> Result<Outcome<()>, Problem> {
        Ok(self
            .ask(Operation::Delete, host.0, Values::new(), Values::new())
            .await?
            .map(drop))
    }

    async fn greet(&mut self) -> Result<(), Problem> {
        self.write(&GREETING).await?;
        while self.received.len() < GREETING.len() {
            self.receive().await?;
        }
        if !self.received.starts_with(&GREETING) {
            return Err(self
                .server
                .distrust("its greeting is none of OMAPI version 100"));
        }
        self.received.drain(..GREETING.len());
        Ok(())
    }

    /// dhcpd hands out a handle for the key; every later message names it and carries a signature.
    async fn prove(&mut self) -> Result<(), Problem> {
        let Some(signer) = self.server.signer.as_deref() else {
            return Ok(());
        };
        let algorithm = format!("{}.SIG-ALG.REG.INT.", signer.algorithm());
        let key = Values::new()
            .bytes("name", signer.name())
            .bytes("algorithm", algorithm);
        let wanted = Values::new().bytes("type", "authenticator");
        match self.ask(Operation::Open, 0, wanted, key).await? {
            Ok(answer) if answer.handle != 0 => {
                self.authenticator = answer.handle;
                Ok(())
            }
            Ok(_) => Err(self
                .server
                .distrust("it took the key and gave no handle for it")),
            Err(verdict) => Err(Problem::Refused(format!(
                "dhcpd does not know the key {} with {}: {}",
                signer.name(),
                signer.algorithm(),
                verdict.text()
            ))),
        }
    }

    async fn ask(
        &mut self,
        operation: Operation,
        handle: u32,
        message: Values,
        object: Values,
    ) -> Result<Outcome<Message>, Problem> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1).max(1);
        let request = Message {
            authenticator: self.authenticator,
            signature_length: 0,
            operation,
            handle,
            id,
            answers: 0,
            message,
            object,
        };
        self.send(request).await?;
        loop {
            let answer = self.message().await?;
            if answer.answers != id {
                // A notice about some object: nobody asked for it.
                continue;
            }
            return match answer.operation {
                Operation::Update => Ok(Ok(answer)),
                Operation::Status => match answer.message.get_number("result") {
                    Some(0) => Ok(Ok(answer)),
                    Some(code) => {
                        let words = answer
                            .message
                            .get("message")
                            .map(|words| String::from_utf8_lossy(words).into_owned());
                        Ok(Err(Verdict {
                            code,
                            words: words.unwrap_or_default(),
                        }))
                    }
                    None => Err(self.server.distrust("a status without a result")),
                },
                _ => Err(self.server.distrust("an answer that is a question")),
            };
        }
    }

    async fn send(&mut self, mut message: Message) -> Result<(), Problem> {
        let too_long = || Problem::Invalid("the host's values are too long for OMAPI".to_owned());
        let mut bytes;
        match self.signer() {
            Some(signer) => {
                message.signature_length =
                    signature_length(signer.algorithm()).ok_or_else(|| {
                        Problem::Key(format!(
                            "its algorithm `{}` is none of dhcpd's",
                            signer.algorithm()
                        ))
                    })?;
                bytes = message.to_bytes().ok_or_else(too_long)?;
                let signature = signer
                    .sign(bytes.get(4..).unwrap_or_default())
                    .map_err(Problem::Key)?;
                bytes.extend_from_slice(&signature);
            }
            None => bytes = message.to_bytes().ok_or_else(too_long)?,
        }
        self.write(&bytes).await
    }

    async fn message(&mut self) -> Result<Message, Problem> {
        loop {
            match message::read(&self.received) {
                Read::Whole {
                    message,
                    unsigned,
                    length,
                } => {
                    self.check(&message, unsigned, length)?;
                    self.received.drain(..length);
                    return Ok(message);
                }
                Read::Partial(_) => self.receive().await?,
                Read::Broken(why) => return Err(self.server.distrust(why)),
            }
        }
    }

    /// Once the key is proved, only what is signed with it is believed. dhcpd does not sign a status that says "bad signature".
    fn check(&self, message: &Message, unsigned: usize, length: usize) -> Result<(), Problem> {
        let Some(signer) = self.signer() else {
            return Ok(());
        };
        let refused = message.operation == Operation::Status
            && message
                .message
                .get_number("result")
                .is_some_and(|code| code != 0);
        if message.authenticator == 0 && refused {
            return Ok(());
        }
        let signed = self.received.get(4..unsigned).unwrap_or_default();
        let signature = self.received.get(unsigned..length).unwrap_or_default();
        let good = message.authenticator == self.authenticator
            && signer.verify(signed, signature).map_err(Problem::Key)?;
        if good {
            Ok(())
        } else {
            Err(self
                .server
                .distrust("its answer is not signed with the key"))
        }
    }

    async fn receive(&mut self) -> Result<(), Problem> {
        let stream = &mut self.stream;
        let come = until(self.end, |patience| stream.read(patience).transpose()).await;
        match come.ok_or_else(|| self.server.timeout())? {
            Ok(bytes) if bytes.is_empty() => Err(self.server.lost("it closed the connection")),
            Ok(bytes) => {
                self.received.extend(bytes);
                // One that sends for ever gains no time.
                match Instant::now() < self.end {
                    true => Ok(()),
                    false => Err(self.server.timeout()),
                }
            }
            Err(why) => Err(self.server.failed(&why)),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let stream = &mut self.stream;
            let sent = until(self.end, |patience| match stream.write(rest, patience) {
                Ok(0) => None,
                done => Some(done),
            })
            .await;
            let count = sent
                .ok_or_else(|| self.server.timeout())?
                .map_err(|why| self.server.failed(&why))?;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Who signs, once the key is proved.
    fn signer(&self) -> Option<&'s dyn Signer> {
        let signer = self.server.signer.as_deref();
        signer.filter(|_| self.authenticator != 0)
    }
}

/// None: not in time.
async fn connected(address: SocketAddr, end: Instant) -> io::Result<Option<Connection>> {
    let mut connecting = Connecting::to(address)?;
    let made = until(end, |patience| connecting.finish(patience).transpose()).await;
    made.transpose()
}

impl Server {
    fn lost(&self, why: &str) -> Problem {
        Problem::Unreachable {
            server: self.name.clone(),
            why: why.to_owned(),
        }
    }

    fn timeout(&self) -> Problem {
        Problem::Timeout {
            server: self.name.clone(),
            seconds: self.time.as_secs(),
        }
    }

    fn failed(&self, why: &io::Error) -> Problem {
        match why.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.timeout(),
            _ => self.lost(&why.to_string()),
        }
    }

    fn distrust(&self, why: &str) -> Problem {
        Problem::Answer {
            server: self.name.clone(),
            why: why.to_owned(),
        }
    }
}

/// Bytes of an algorithm's HMAC.
fn signature_length(algorithm: &str) -> Option<u32> {
    Some(match algorithm {
        "hmac-md5" => 16,
        "hmac-sha1" => 20,
        "hmac-sha256" => 32,
        "hmac-sha384" => 48,
        "hmac-sha512" => 64,
        _ => return None,
    })
}

/// A number that an earlier conversation did not use: what it signed must not fit here.
fn seed() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    u32::try_from(random & 0x7fff_ffff).unwrap_or(1).max(1)
}
