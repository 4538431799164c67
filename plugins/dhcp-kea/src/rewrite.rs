//! Changing reservations where `host_cmds` is not loaded: by changing the whole configuration.
//!
//! It never overwrites what it has not read: under the lock it reads the configuration, has Kea test the changed one, and looks again right
//! before it sets it; if anybody changed the configuration meanwhile, it begins anew with theirs. Afterwards it looks whether its change is
//! still there, has Kea write its file, and takes the change back if Kea cannot.
//!
//! What remains is the moment between the last look and the set: Kea has no "set if unchanged". `host_cmds` has no such moment.

use crate::config::{self, Text};
use crate::failure::Failure;
use crate::lock::Lock;
use crate::server::Kea;

/// How often a change begins anew because others change the configuration at the same time.
const TRIES: u32 = 10;

/// A changed text, or none if there is nothing to do.
pub(crate) type Edit<'a> = &'a dyn Fn(&config::Config, &str) -> Result<Option<String>, Failure>;

/// Changes the configuration. False: there was nothing to do. `edit` may be asked several times; once its change is made it has to find
/// nothing more to do.
pub(crate) fn change(kea: &Kea, edit: Edit<'_>) -> Result<bool, Failure> {
    let mut lock = Lock::take(kea.until())?;
    let mut changed = false;
    for _ in 0..TRIES {
        lock.renew()?;
        let before = config::fetch(kea)?;
        let current = config::keep(&before)?;
        let Some(wanted) = edit(&current, before.dhcp4.get())? else {
            return Ok(changed);
        };
        refuse_hidden_passwords(before.dhcp4.get())?;
        let arguments = format!("{{\"Dhcp4\":{wanted}}}");
        lock.renew()?;
        kea.ask_raw("config-test", Some(&arguments))?;
        lock.renew()?;
        if !unchanged(kea, &before)? {
            continue;
        }
        lock.renew()?;
        kea.ask_raw("config-set", Some(&arguments))?;
        lock.renew()?;
        let set = config::fetch(kea)?;
        if let Err(why) = kea.ask_raw("config-write", None) {
            take_back(kea, &before, &set)?;
            return Err(why);
        }
        changed = true;
        // Somebody who had read before our set may have set after it. Then the next round finds something to do again.
        if unchanged(kea, &set)? {
            config::keep(&set)?;
            return Ok(true);
        }
    }
    Err(Failure::Conflict(format!(
        "Kea's configuration was changed by others {TRIES} times in a row"
    )))
}

fn unchanged(kea: &Kea, before: &Text) -> Result<bool, Failure> {
    if let (Some(now), Some(then)) = (config::hash(kea)?, &before.hash) {
        return Ok(now == *then);
    }
    Ok(config::fetch(kea)?.dhcp4.get() == before.dhcp4.get())
}

/// What could not be written must not stay until the next restart only.
fn take_back(kea: &Kea, before: &Text, set: &Text) -> Result<(), Failure> {
    if unchanged(kea, set)? {
        let arguments = format!("{{\"Dhcp4\":{}}}", before.dhcp4.get());
        kea.ask_raw("config-set", Some(&arguments))?;
    }
    Ok(())
}

/// A configuration whose passwords are hidden would lose them when it is set.
fn refuse_hidden_passwords(dhcp4: &str) -> Result<(), Failure> {
    if dhcp4.contains("\"*****\"") {
        return Err(Failure::Unsupported(
            "Kea hides passwords in its configuration, so it cannot be set again: load the hook library `host_cmds`"
                .to_owned(),
        ));
    }
    Ok(())
}
