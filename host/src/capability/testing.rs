//! Real servers on loopback for the tests of the capabilities.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;
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
        NameServer { address, zone, _task: task }
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
        let lists = lists.iter().map(|list| list.iter().map(|address| address.parse().unwrap()).collect()).collect();
        self.zone.lock().unwrap().answers.insert(format!("{name}."), (ttl, lists));
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
                let list = if query.query_type() == RecordType::A && lists.len() > 1 { lists.remove(0) } else { lists[0].clone() };
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
