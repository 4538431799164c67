//! What becomes of a reaction: parsed, decided, sent. Whoever asked lately may be answered; everybody else only as the policy's `peers` say.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stream::Turn;
use super::transfer::Transfers;
use super::{Arrived, Door, Doors, is_of};
use crate::grant::{Action, Decision};
use crate::plugin::running::Plugin;
use crate::sandbox::bindings::exports::reactor::{Datagram, Reaction, Transfer, Transport};

/// How long somebody who asked may still be answered.
const HEARD: Duration = Duration::from_secs(60);
/// Peers that are remembered. A flood of forged addresses forgets older ones sooner.
const REMEMBERED: usize = 16_384;

/// Sends reactions, and remembers who asked.
#[derive(Default)]
pub(super) struct React {
    /// Two generations, so that forgetting is dropping one of them.
    young: HashMap<(Arc<str>, SocketAddr), Instant>,
    old: HashMap<(Arc<str>, SocketAddr), Instant>,
    transfers: Transfers,
    /// Of the questions of connections that are being answered.
    turns: HashMap<SocketAddr, Vec<Turn>>,
}

impl React {
    /// Remembers the sender, and makes of it what the reactor takes.
    pub(super) fn hear(&mut self, arrived: Arrived) -> Datagram {
        let Arrived {
            slot,
            transport,
            peer,
            local,
            port,
            bytes,
            turn,
            at: _,
        } = arrived;
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert((slot.clone(), peer), Instant::now());
        if let Some(turn) = turn {
            self.turns.entry(peer).or_default().push(turn);
        }
        Datagram {
            slot: slot.to_string(),
            transport: transport.into(),
            peer: peer.to_string(),
            local: local.to_string(),
            port,
            bytes,
        }
    }

    fn heard(&self, slot: &Arc<str>, peer: SocketAddr) -> bool {
        let key = (slot.clone(), peer);
        [&self.young, &self.old]
            .iter()
            .any(|it| it.get(&key).is_some_and(|at| at.elapsed() < HEARD))
    }

    /// Whoever was not answered so far gets no answer.
    pub(super) fn is_over(&mut self) {
        self.turns.clear();
    }

    /// Does what the reactor wants, in order.
    pub(super) async fn to(&mut self, plugin: &Plugin, doors: &Doors, reactions: Vec<Reaction>) {
        for reaction in reactions {
            match reaction {
                Reaction::Send(datagram) => self.send(plugin, doors, datagram).await,
                Reaction::Transfer(transfer) => self.transfer(plugin, doors, transfer),
            }
        }
    }

    /// A file goes to who asked for it lately, or to the policy's `peers`, like a datagram.
    fn transfer(&self, plugin: &Plugin, doors: &Doors, transfer: Transfer) {
        let Ok(peer) = transfer.peer.parse::<SocketAddr>() else {
            plugin.metrics.datagrams_dropped.inc();
            return;
        };
        let action = Action::DatagramSend {
            slot: &transfer.slot,
            peer,
            heard: self.heard(&transfer.slot.as_str().into(), peer),
        };
        let own = doors
            .get(transfer.slot.as_str())
            .map_or(&[][..], Vec::as_slice);
        if !plugin.guard.decide(&action).is_allowed()
            || sender(plugin, &transfer.slot, &transfer.local, own).is_err()
            || !self.transfers.start(plugin, peer, transfer)
        {
            plugin.metrics.datagrams_dropped.inc();
        }
    }

    async fn send(&mut self, plugin: &Plugin, doors: &Doors, datagram: Datagram) {
        let dropped = |reason: &dyn std::fmt::Display| {
            plugin.metrics.datagrams_dropped.inc();
            tracing::debug!(plugin = &*plugin.name, peer = datagram.peer, %reason, "a datagram was not sent");
        };
        let Ok(peer) = datagram.peer.parse::<SocketAddr>() else {
            return dropped(&"its peer is no address with a port");
        };
        if let Some(port) = &datagram.port {
            let action = Action::Link {
                slot: &datagram.slot,
                interface: &port.interface,
            };
            if let Decision::Deny(denial) = plugin.guard.decide(&action) {
                return dropped(&denial);
            }
            let mut own = doors.get(datagram.slot.as_str()).into_iter().flatten();
            let link = own.find_map(|door| match door {
                Door::Link(link) if link.interface() == port.interface => Some(link),
                _ => None,
            });
            let Some(link) = link else {
                return dropped(&"that interface is not open");
            };
            let local = match link.sender(&datagram.local) {
                Ok(local) => local,
                Err(addr) => return dropped(&misnamed(plugin, &datagram.slot, addr, true)),
            };
            let hardware = port.hardware.as_deref();
            return match link.send(peer, local, hardware, &datagram.bytes).await {
                Ok(()) => {
                    plugin.metrics.datagrams_sent.inc();
                }
                Err(error) => dropped(&error),
            };
        }
        let Some((slot, doors)) = doors.get_key_value(datagram.slot.as_str()) else {
            // Asked all the same, so that a slot that was never granted is a denial that teaches.
            let action = Action::DatagramSend {
                slot: &datagram.slot,
                peer,
                heard: false,
            };
            let _ = plugin.guard.decide(&action);
            return dropped(&"no socket of that slot is open");
        };
        let action = Action::DatagramSend {
            slot: &datagram.slot,
            peer,
            heard: self.heard(slot, peer),
        };
        if let Decision::Deny(denial) = plugin.guard.decide(&action) {
            return dropped(&denial);
        }
        match datagram.transport {
            Transport::Udp => {
                let local = match sender(plugin, slot, &datagram.local, doors) {
                    Ok(local) => local,
                    Err(denial) => return dropped(&denial),
                };
                let mut fits = doors.iter().filter_map(|door| match door {
                    Door::Udp(door) if door.local().is_ipv4() == peer.is_ipv4() => Some(door),
                    _ => None,
                });
                let door = fits.find(|door| local.is_none_or(|local| is_of(local, door.local())));
                let Some(door) = door else {
                    return dropped(&"no socket of that slot and family is open");
                };
                match door.send(peer, local, &datagram.bytes).await {
                    Ok(()) => {
                        plugin.metrics.datagrams_sent.inc();
                    }
                    Err(error) => dropped(&error),
                }
            }
            Transport::Tcp => {
                let mut streams = doors.iter().filter_map(|door| match door {
                    Door::Stream(door) => Some(door),
                    Door::Udp(_) | Door::Link(_) => None,
                });
                let Some(door) = streams.find(|door| door.talks_with(peer)) else {
                    return dropped(&"its connection is closed");
                };
                let turn = self.turns.get_mut(&peer).and_then(Vec::pop);
                if door.send(peer, datagram.bytes, turn) {
                    plugin.metrics.datagrams_sent.inc();
                } else {
                    dropped(&"its connection is closed, or reads nothing");
                }
            }
        }
    }
}

/// The address to send from, where the plugin names one: that of a socket of its slot. A slot for one address of this machine does not speak for another.
fn sender(
    plugin: &Plugin,
    slot: &str,
    named: &str,
    doors: &[Door],
) -> Result<Option<SocketAddr>, String> {
    let Ok(local) = named.parse::<SocketAddr>() else {
        return Ok(None);
    };
    let own = doors.iter().any(|door| match door {
        Door::Udp(door) => is_of(local, door.local()),
        Door::Stream(_) | Door::Link(_) => false,
    });
    match own {
        true => Ok(Some(local)),
        false => Err(misnamed(plugin, slot, local, false)),
    }
}

/// Has the attempt audited; answers what was said.
fn misnamed(plugin: &Plugin, slot: &str, addr: SocketAddr, link: bool) -> String {
    match plugin.guard.decide(&Action::SendFrom { slot, addr, link }) {
        Decision::Deny(denial) => denial.to_string(),
        Decision::Allow => format!("{addr} is no address of this slot"),
    }
}
