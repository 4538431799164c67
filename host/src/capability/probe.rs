//! The `probe` capability: whether somebody uses an address already.
//!
//! It refuses addresses that the policy does not name, more than 64 at once, and more a second than granted (a caller waits for its turn, at most as
//! long as it is willing to wait for answers). It tells nothing of what answered.
//!
//! The one idea: both ways at once, ICMP echo and a TCP connection to port 7 (echo), and the better answer counts. Where this machine lets no
//! program of its user send ICMP (`net.ipv4.ping_group_range`, or `CAP_NET_RAW`), TCP alone decides, and the log says so once.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UdpSocket};

use crate::grant::{Action, Guard};
use crate::sandbox::bindings::imports::probe as contract;

/// Addresses of one call; the contract's bound.
const MOST: usize = 64;
/// Milliseconds of one call; the contract's bound.
const LONGEST: u32 = 5_000;
/// The echo service (RFC 862), which nobody runs and every system answers for, if only by a refusal.
const ECHO_PORT: u16 = 7;

/// The capability; one a host.
#[derive(Debug, Default)]
pub struct Probe {
    /// When the next probe of a plugin's slot may leave.
    turns: Mutex<HashMap<(String, String), Instant>>,
    told: AtomicBool,
}

impl Probe {
    /// Asks all at once. Outcomes in the order of the addresses.
    pub async fn ask(
        &self,
        guard: &Guard,
        slot: &str,
        addresses: &[String],
        timeout: u32,
    ) -> Result<Vec<contract::Outcome>, contract::Error> {
        let failed = |text: String| contract::Error::Failed(text);
        if addresses.len() > MOST {
            return Err(failed(format!(
                "{} addresses; 64 are the most",
                addresses.len()
            )));
        }
        let mut asked = Vec::with_capacity(addresses.len());
        for text in addresses {
            let ip: IpAddr = text
                .parse()
                .map_err(|_| failed(format!("`{text}` is no address")))?;
            let ip = ip.to_canonical();
            guard
                .decide(&Action::Probe { slot, ip })
                .check()
                .map_err(|denial| contract::Error::Denied(denial.to_string()))?;
            asked.push(ip);
        }
        let rate = guard
            .effective()
            .probe
            .get(slot)
            .map_or(1, |grant| grant.rate);
        let time = Duration::from_millis(u64::from(timeout.min(LONGEST)));
        let wait = self
            .take_turns(guard.plugin(), slot, asked.len(), rate, time)
            .ok_or_else(|| {
                failed(format!(
                    "more than the {rate} probes a second of the policy"
                ))
            })?;
        tokio::time::sleep(wait).await;
        let (echoed, refused) = tokio::join!(self.echo(&asked, time), connect(&asked, time));
        Ok(echoed
            .into_iter()
            .zip(refused)
            .map(|(echoed, tcp)| {
                if echoed {
                    contract::Outcome::Answered
                } else {
                    tcp
                }
            })
            .collect())
    }

    /// How long to wait before so many probes leave; none: longer than the caller would.
    fn take_turns(
        &self,
        plugin: &str,
        slot: &str,
        count: usize,
        rate: u32,
        patience: Duration,
    ) -> Option<Duration> {
        let now = Instant::now();
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let next = turns
            .entry((plugin.to_owned(), slot.to_owned()))
            .or_insert(now);
        // A second's worth may leave at once.
        let saved = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let start = (*next).max(saved);
        let after = start + Duration::from_secs_f64(count as f64 / f64::from(rate.max(1)));
        let wait = after.saturating_duration_since(now);
        if wait > patience.max(Duration::from_secs(1)) {
            return None;
        }
        *next = after;
        // The first second's worth has been saved up already.
        Some(wait.saturating_sub(Duration::from_secs(1)))
    }

    /// Which of them answer ICMP echo.
    async fn echo(&self, asked: &[IpAddr], time: Duration) -> Vec<bool> {
        let mut answered = vec![false; asked.len()];
        let (four, six) = tokio::join!(
            self.echo_family(asked, false, time),
            self.echo_family(asked, true, time)
        );
        for place in four.into_iter().chain(six) {
            if let Some(answer) = answered.get_mut(place) {
                *answer = true;
            }
        }
        answered
    }

    async fn echo_family(&self, asked: &[IpAddr], six: bool, time: Duration) -> Vec<usize> {
        let mine: Vec<(usize, IpAddr)> = asked
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, ip)| ip.is_ipv6() == six)
            .collect();
        if mine.is_empty() {
            return Vec::new();
        }
        let (socket, raw) = match ping_socket(six) {
            Ok(socket) => socket,
            Err(error) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "no ICMP from this program: addresses are asked by TCP only; let its group ping (net.ipv4.ping_group_range), or give it CAP_NET_RAW");
                }
                return Vec::new();
            }
        };
        let mut found = Vec::new();
        let token: [u8; 16] = rand::random();
        let id: u16 = rand::random();
        for (place, ip) in &mine {
            let message = request(six, id, u16::try_from(*place).unwrap_or(0), &token);
            // What cannot be sent is not answered.
            let _ = socket.send_to(&message, SocketAddr::new(*ip, 0)).await;
        }
        let mut buffer = [0; 1500];
        let all = async {
            while found.len() < mine.len() {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
                    continue;
                };
                let message = buffer.get(..length).unwrap_or_default();
                let message = if raw && !six {
                    without_ip(message)
                } else {
                    message
                };
                let known = mine
                    .iter()
                    .find(|(place, ip)| *ip == from.ip() && !found.contains(place));
                if let Some((place, _)) = known
                    && is_reply(six, message, &token)
                {
                    found.push(*place);
                }
            }
        };
        let _ = tokio::time::timeout(time, all).await;
        found
    }
}

/// A socket that can ping, and whether it is a raw one.
fn ping_socket(six: bool) -> io::Result<(UdpSocket, bool)> {
    let (domain, protocol, any): (_, _, IpAddr) = if six {
        (Domain::IPV6, Protocol::ICMPV6, Ipv6Addr::UNSPECIFIED.into())
    } else {
        (Domain::IPV4, Protocol::ICMPV4, Ipv4Addr::UNSPECIFIED.into())
    };
    let (socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => (socket, false),
        Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, true),
    };
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(any, 0).into())?;
    // It receives and sends with addresses, which is all that is asked of it.
    Ok((UdpSocket::from_std(socket.into())?, raw))
}

/// An echo request (RFC 792, RFC 4443). The kernel fills in the checksum of IPv6, and the identifier of an unprivileged socket.
fn request(six: bool, id: u16, sequence: u16, token: &[u8]) -> Vec<u8> {
    let mut message = vec![if six { 128 } else { 8 }, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(token);
    if !six {
        let sum = super::listen::frame::checksum(&message);
        message.splice(2..4, sum.to_be_bytes());
    }
    message
}

fn is_reply(six: bool, message: &[u8], token: &[u8]) -> bool {
    message.first() == Some(if six { &129 } else { &0 }) && message.get(8..) == Some(token)
}

/// A raw IPv4 socket gives the IP header as well.
fn without_ip(packet: &[u8]) -> &[u8] {
    let words = packet.first().map_or(0, |first| usize::from(first & 15));
    packet.get(words * 4..).unwrap_or_default()
}

async fn connect(asked: &[IpAddr], time: Duration) -> Vec<contract::Outcome> {
    join_all(asked.iter().map(|ip| async move {
        let connect = TcpStream::connect(SocketAddr::new(*ip, ECHO_PORT));
        match tokio::time::timeout(time, connect).await {
            Ok(Ok(_)) => contract::Outcome::Answered,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                contract::Outcome::Refused
            }
            _ => contract::Outcome::Silent,
        }
    }))
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::testing::guard_with;
    use crate::grant::effective::{ProbeGrant, Slot};

    fn guard(rate: u32) -> Guard {
        guard_with(|rights| {
            let allow = vec!["127.0.0.0/8".parse().unwrap()];
            rights
                .probe
                .insert("p".into(), Slot::new(ProbeGrant { allow, rate }));
        })
    }

    #[tokio::test]
    async fn an_address_in_use_is_told_from_silence() {
        let probe = Probe::default();
        let asked = ["127.0.0.1".to_owned(), "127.9.9.9".to_owned()];
        let found = probe.ask(&guard(100), "p", &asked, 2000).await.unwrap();
        // All of 127/8 is this machine: it answers ICMP, or refuses TCP where ICMP is not allowed.
        assert_eq!(found.len(), 2);
        assert!(!found.contains(&contract::Outcome::Silent), "{found:?}");
    }

    #[tokio::test]
    async fn other_addresses_are_denied_and_too_many_refused() {
        let probe = Probe::default();
        let denied = probe.ask(&guard(9), "p", &["192.0.2.1".into()], 10).await;
        assert!(
            matches!(denied, Err(contract::Error::Denied(_))),
            "{denied:?}"
        );
        let many = vec!["127.0.0.1".to_owned(); 65];
        let refused = probe.ask(&guard(9), "p", &many, 10).await;
        assert!(
            matches!(refused, Err(contract::Error::Failed(_))),
            "{refused:?}"
        );
        let fast = vec!["127.0.0.1".to_owned(); 64];
        let refused = probe.ask(&guard(1), "p", &fast, 10).await;
        assert!(
            matches!(refused, Err(contract::Error::Failed(_))),
            "{refused:?}"
        );
    }
}
