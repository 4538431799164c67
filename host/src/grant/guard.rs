//! The one object a capability holds for one plugin.
//!
//! A [`Guard`] is cheap to clone and always current: when the operator changes a policy, [`Guard::replace`] swaps the rights
//! under all its clones, and [`Guard::generation`] wakes whoever holds something open under the old ones.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::action::Action;
use super::audit::Audit;
use super::decide::{Decision, Facts, decide};
use super::deny::Deny;
use super::effective::Effective;
use super::matchers::host::AskedHost;
use super::resolved::Resolved;

/// What all guards of a host share: the operator's rules for all, and the audit.
#[derive(Debug, Default)]
pub struct HostRules {
    deny: ArcSwap<Deny>,
    audit: Audit,
    guards: Mutex<Vec<Weak<Inner>>>,
}

impl HostRules {
    /// Shared rules with these deny rules.
    #[must_use]
    pub fn new(deny: Deny) -> Arc<Self> {
        Arc::new(Self {
            deny: ArcSwap::from_pointee(deny),
            ..Self::default()
        })
    }

    /// The deny rules now in force.
    #[must_use]
    pub fn deny(&self) -> Arc<Deny> {
        self.deny.load_full()
    }

    /// Replaces the deny rules. If they differ, every guard's generation moves on.
    pub fn set_deny(&self, deny: Deny) {
        if **self.deny.load() == deny {
            return;
        }
        self.deny.store(Arc::new(deny));
        let mut guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        guards.retain(|guard| match guard.upgrade() {
            Some(inner) => {
                inner.move_on();
                true
            }
            None => false,
        });
    }

    /// The memory of denials.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }
}

/// An open TCP connection as policies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    addr: SocketAddr,
    names: Vec<Box<str>>,
}

/// A plugin's rights, asked before every action.
#[derive(Debug, Clone)]
pub struct Guard {
    inner: Arc<Inner>,
}

/// A guard that does not keep what it guards alive.
#[derive(Debug, Clone)]
pub struct WeakGuard {
    inner: Weak<Inner>,
}

impl WeakGuard {
    /// The guard, as long as anybody holds it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Guard> {
        self.inner.upgrade().map(|inner| Guard { inner })
    }
}

#[derive(Debug)]
struct Inner {
    plugin: Arc<str>,
    effective: ArcSwap<Effective>,
    resolved: Resolved,
    generation: watch::Sender<u64>,
    host: Arc<HostRules>,
}

impl Inner {
    fn move_on(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }
}

impl Guard {
    /// A guard with its first rights.
    #[must_use]
    pub fn new(host: &Arc<HostRules>, effective: Effective) -> Self {
        let inner = Arc::new(Inner {
            plugin: Arc::clone(&effective.plugin),
            effective: ArcSwap::from_pointee(effective),
            resolved: Resolved::default(),
            generation: watch::Sender::new(0),
            host: Arc::clone(host),
        });
        let mut guards = host.guards.lock().unwrap_or_else(PoisonError::into_inner);
        guards.retain(|guard| guard.strong_count() > 0);
        guards.push(Arc::downgrade(&inner));
        drop(guards);
        Self { inner }
    }

    /// The guard of an empty sandbox: nothing is allowed, nothing is shared.
    #[must_use]
    pub fn empty(plugin: &str) -> Self {
        Self::new(&HostRules::new(Deny::default()), Effective::nothing(plugin))
    }

    /// The plugin's name.
    #[must_use]
    pub fn plugin(&self) -> &str {
        &self.inner.plugin
    }

    /// Decides an action. A denial is audited and counted here; the caller only has to obey and to give the plugin its
    /// typed error.
    pub fn decide(&self, action: &Action<'_>) -> Decision {
        self.decide_at(action, Instant::now())
    }

    fn decide_at(&self, action: &Action<'_>, now: Instant) -> Decision {
        let effective = self.inner.effective.load();
        let deny = self.inner.host.deny.load();
        match decide(
            Facts {
                effective: &effective,
                deny: &deny,
                resolved: &self.inner.resolved,
                now,
            },
            action,
        ) {
            Ok(uses) => {
                if let Some(uses) = uses {
                    uses.count();
                }
                Decision::Allow
            }
            Err(refusal) => {
                let denial = refusal
                    .fitted_to(effective.asked.as_deref(), action)
                    .left_to(&effective.left, &self.inner.plugin)
                    .dress(&self.inner.plugin, action);
                self.inner.host.audit.record(&denial);
                Decision::Deny(Box::new(denial))
            }
        }
    }

    /// Whether an action would still be allowed, without counting or auditing. For things that are already open: when the
    /// generation moves on, ask this, and close on false.
    #[must_use]
    pub fn still_allows(&self, action: &Action<'_>) -> bool {
        let effective = self.inner.effective.load();
        let deny = self.inner.host.deny.load();
        let facts = Facts {
            effective: &effective,
            deny: &deny,
            resolved: &self.inner.resolved,
            now: Instant::now(),
        };
        decide(facts, action).is_ok()
    }

    /// What to keep with a TCP connection that was just allowed, to be asked about later with [`Guard::keeps`]. Names stay
    /// with the connection, so that it outlives the time to live of the answer that led to it.
    #[must_use]
    pub fn connected(&self, addr: SocketAddr) -> Connected {
        Connected {
            addr,
            names: self.inner.resolved.names(addr.ip(), Instant::now()),
        }
    }

    /// Whether an open connection may stay. Ask when the generation moves on.
    #[must_use]
    pub fn keeps(&self, connection: &Connected) -> bool {
        let addr = connection.addr;
        let named = |name: &str| {
            self.still_allows(&Action::TcpConnect {
                addr,
                name: Some(name),
            })
        };
        self.still_allows(&Action::TcpConnect { addr, name: None })
            || connection.names.iter().any(|name| named(name))
    }

    /// Grows by one whenever the policy, or the operator's rules for all, change.
    #[must_use]
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.inner.generation.subscribe()
    }

    /// The generation now.
    #[must_use]
    pub fn generation_now(&self) -> u64 {
        *self.inner.generation.borrow()
    }

    /// The rights now: typed targets and limits by slot.
    #[must_use]
    pub fn effective(&self) -> Arc<Effective> {
        self.inner.effective.load_full()
    }

    /// Replaces the rights at once for all clones. Use counters go on.
    pub fn replace(&self, mut effective: Effective) {
        effective.keep_counting(&self.inner.effective.load());
        self.inner.effective.store(Arc::new(effective));
        self.inner.move_on();
    }

    /// Records what the host resolved a name to, so that rules with that name cover these addresses for the time to live.
    /// Call it after [`Action::Resolve`] was allowed.
    pub fn record_resolved(&self, name: &str, addresses: &[IpAddr], ttl: Duration) {
        if let Some(AskedHost::Name(name)) = AskedHost::parse(name) {
            self.inner
                .resolved
                .record(&name, addresses, ttl, Instant::now());
        }
    }

    /// A reference that ends with the last guard.
    #[must_use]
    pub fn downgrade(&self) -> WeakGuard {
        WeakGuard {
            inner: Arc::downgrade(&self.inner),
        }
    }

    /// The rules and audit of the host.
    #[must_use]
    pub fn host(&self) -> &Arc<HostRules> {
        &self.inner.host
    }
}
