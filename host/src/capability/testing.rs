//! Real servers on loopback for the tests of the capabilities.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::grant::{Deny, Effective, Guard, HostRules};

/// A guard of plugin `p` with what the test grants.
pub(crate) fn guard_with(grant: impl FnOnce(&mut Effective)) -> Guard {
    Guard::new(&HostRules::new(Deny::default()), rights(grant))
}

/// The rights of plugin `p`, to replace others with.
pub(crate) fn rights(grant: impl FnOnce(&mut Effective)) -> Effective {
    let mut effective = Effective::nothing("p");
    grant(&mut effective);
    effective
}

/// A name server that answers what the test says, and can change its mind.
pub(crate) struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Zone {
    answers: HashMap<String, (u32, Vec<Vec<IpAddr>>)>,
    silent: Vec<String>,
    questions: Vec<String>,
}

impl NameServer {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let shared = zone.clone();
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut buffer = [0u8; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let answer = shared.lock().unwrap().answer(&buffer[..length]);
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, peer).await;
                }
            }
        }));
        NameServer {
            address,
            zone,
            _task: task,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same addresses for every question.
    pub(crate) fn set(&self, name: &str, ttl: u32, addresses: &[&str]) {
        self.flip(name, ttl, &[addresses]);
    }

    /// One list after another, per address question; the last one stays.
    pub(crate) fn flip(&self, name: &str, ttl: u32, lists: &[&[&str]]) {
        let lists = lists
            .iter()
            .map(|list| {
                list.iter()
                    .map(|address| address.parse().unwrap())
                    .collect()
            })
            .collect();
        self.zone
            .lock()
            .unwrap()
            .answers
            .insert(format!("{name}."), (ttl, lists));
    }

    /// Never answers for this name.
    pub(crate) fn silence(&self, name: &str) {
        self.zone.lock().unwrap().silent.push(format!("{name}."));
    }

    pub(crate) fn questions(&self) -> Vec<String> {
        self.zone.lock().unwrap().questions.clone()
    }
}

impl Zone {
    fn answer(&mut self, question: &[u8]) -> Option<Vec<u8>> {
        let asked = Message::from_vec(question).ok()?;
        let query = asked.queries.first()?.clone();
        let name = query.name().to_string().to_lowercase();
        self.questions.push(name.clone());
        if self.silent.contains(&name) {
            return None;
        }
        let mut message = Message::response(asked.metadata.id, OpCode::Query);
        message.add_query(query.clone());
        match self.answers.get_mut(&name) {
            None => message.metadata.response_code = ResponseCode::NXDomain,
            Some((ttl, lists)) => {
                let list = if query.query_type() == RecordType::A && lists.len() > 1 {
                    lists.remove(0)
                } else {
                    lists[0].clone()
                };
                for address in list {
                    let data = RData::from(address);
                    if data.record_type() == query.query_type() {
                        message.add_answer(Record::from_rdata(query.name().clone(), *ttl, data));
                    }
                }
            }
        }
        message.to_vec().ok()
    }
}

/// A server on loopback; its connections end with it.
pub(crate) struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// An HTTP server that answers each request by `answer`.
    pub(crate) async fn http<F, A>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start(None, answer).await
    }

    /// The same behind TLS.
    pub(crate) async fn https<F, A>(config: Arc<ServerConfig>, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start(Some(TlsAcceptor::from(config)), answer).await
    }

    async fn start<F, A>(tls: Option<TlsAcceptor>, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let mut server = Self::raw(move |stream, _| {
            let (tls, answer, counted) = (tls.clone(), answer.clone(), counted.clone());
            async move {
                let service = hyper::service::service_fn(move |request| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let answer = answer(request);
                    async move { Ok::<_, std::convert::Infallible>(answer.await) }
                });
                let builder = hyper::server::conn::http1::Builder::new();
                match tls {
                    None => drop(
                        builder
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    ),
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            drop(
                                builder
                                    .serve_connection(TokioIo::new(stream), service)
                                    .await,
                            );
                        }
                    }
                }
            }
        })
        .await;
        server.requests = requests;
        server
    }

    /// A server that gets each connection and its number, from 0.
    pub(crate) async fn raw<F, A>(serve: F) -> Self
    where
        F: Fn(TcpStream, usize) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(stream, counted.fetch_add(1, Ordering::SeqCst)));
            }
        });
        Server {
            address,
            connections,
            requests: Arc::default(),
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Requests seen so far (HTTP servers only).
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Answers 200 with this text.
pub(crate) fn ok(text: impl Into<Body>) -> Response<Body> {
    Response::new(text.into())
}

/// A certificate authority and what it signs, as files.
pub(crate) struct Authority {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(
            directory.path().join("ca.pem"),
            params.self_signed(&key).unwrap().pem(),
        )
        .unwrap();
        Authority {
            directory,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Files of a certificate for `name` and its key.
    pub(crate) fn identity(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let (certificate, private) = (
            self.directory.path().join(format!("{name}.pem")),
            self.directory.path().join(format!("{name}.key")),
        );
        std::fs::write(
            &certificate,
            params.signed_by(&key, &self.issuer).unwrap().pem(),
        )
        .unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        (certificate, private)
    }

    /// A server's configuration; `mutual` wants a client certificate of this authority.
    pub(crate) fn server(&self, name: &str, mutual: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (certificate, key) = self.identity(name);
        let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if mutual {
            let mut roots = rustls::RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_file(self.ca()).unwrap())
                .unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                provider,
            )
            .build()
            .unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        Arc::new(
            builder
                .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
                .unwrap(),
        )
    }
}

/// Waits until `holds`, at most five seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "not within five seconds: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
