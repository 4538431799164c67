//! The Kea server at the other end: how it wants to be asked, and which commands it has.
//!
//! It refuses to talk to anything but a DHCPv4 server: the Control Agent itself has a `config-set` too.
//!
//! The one idea: one question, `list-commands`, tells all. It is asked with `service`, which the Control Agent needs and a DHCP server's own socket
//! ignores; where that is refused, without. The answer is kept for a while and forgotten as soon as anything is odd, so that Kea may
//! be restarted with other hooks at any time.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::wire::{self, Said};

/// The longest one call of the provider may take: below the 30 s that the host gives a call by default.
const CALL: Duration = Duration::from_secs(25);

/// How long the list of commands is believed.
const BELIEVED: Duration = Duration::from_secs(30);

/// How the server wants to be asked.
#[derive(Debug)]
struct Manner {
    service: bool,
    commands: BTreeSet<String>,
    known_since: Instant,
}

thread_local! {
    static MANNER: RefCell<Option<Rc<Manner>>> = const { RefCell::new(None) };
}

/// Kea, for the length of one call.
#[derive(Debug, Clone)]
pub(crate) struct Kea {
    manner: Rc<Manner>,
    until: Instant,
}

impl Kea {
    /// Runs one call of the provider. What it learnt of the server is forgotten if the call says so.
    pub(crate) fn call<T>(work: impl FnOnce(&Self) -> Result<T, Failure>) -> Result<T, Failure> {
        let until = Instant::now() + CALL;
        let done = known(until).and_then(|manner| work(&Self { manner, until }));
        if done.as_ref().is_err_and(Failure::loses_the_server) {
            MANNER.take();
        }
        done
    }

    /// True when the server has this command.
    pub(crate) fn has(&self, command: &str) -> bool {
        self.manner.commands.contains(command)
    }

    /// When this call has to be over.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Asks one command.
    pub(crate) fn ask(
        &self,
        command: &str,
        arguments: &serde_json::Value,
    ) -> Result<Said, Failure> {
        self.ask_raw(command, Some(&arguments.to_string()))
    }

    /// Asks one command with arguments that are JSON already, or none.
    pub(crate) fn ask_raw(&self, command: &str, arguments: Option<&str>) -> Result<Said, Failure> {
        wire::ask(command, arguments, self.manner.service, self.until)
    }
}

fn known(until: Instant) -> Result<Rc<Manner>, Failure> {
    let kept = MANNER.with_borrow(Clone::clone);
    match kept.filter(|manner| manner.known_since.elapsed() < BELIEVED) {
        Some(manner) => Ok(manner),
        None => {
            let manner = Rc::new(probe(until)?);
            MANNER.set(Some(Rc::clone(&manner)));
            Ok(manner)
        }
    }
}

fn probe(until: Instant) -> Result<Manner, Failure> {
    let (service, said) = match wire::ask("list-commands", None, true, until) {
        Ok(said) => (true, said),
        Err(why) if dislikes_service(&why) => {
            (false, wire::ask("list-commands", None, false, until)?)
        }
        Err(why) => return Err(why),
    };
    let commands: BTreeSet<String> = said.read()?;
    // Every DHCP server of Kea can be paused; the Control Agent and the DDNS daemon cannot.
    if !commands.contains("dhcp-disable") || !commands.contains("config-get") {
        return Err(Failure::Unsupported(
            "what answers at `dhcp_kea_url` is no DHCP server of Kea, nor a Control Agent with one behind it"
                .to_owned(),
        ));
    }
    Ok(Manner {
        service,
        commands,
        known_since: Instant::now(),
    })
}

/// A server that knows no `service` says so, with result 1 or 2, or as a bad request.
fn dislikes_service(why: &Failure) -> bool {
    match why {
        Failure::Said { result, text, .. } => {
            *result == 2 || (*result == 1 && text.contains("'service'"))
        }
        Failure::Http { status, .. } => *status == 400,
        _ => false,
    }
}
