//! Changing reservations where `host_cmds` is not loaded: by changing the whole configuration.
//!
//! It never overwrites what it has not read: under the lock it reads the configuration, has Kea test the changed one, and looks again right
//! before it sets it; if anybody changed the configuration meanwhile, it begins anew with theirs. Afterwards it looks whether its change is
//! still there, has Kea write its file, and takes the change back if Kea cannot.
//!
//! One such change takes Kea some tenths of a second, whatever is in it. So whoever holds the lock makes the changes of all who wait for it, and each is
//! told what became of its own: what Kea does not take is found out by testing halves, and fails alone.
//!
//! What remains is the moment between the last look and the set: Kea has no "set if unchanged". `host_cmds` has no such moment.

use std::time::Instant;

use crate::config::{self, Config, Text};
use crate::failure::Failure;
use crate::lock::{self, Lock};
use crate::queue::{self, Place, Verdict};
use crate::server::Kea;
use crate::wish::Wish;

/// How often a change begins anew because others change the configuration at the same time.
const TRIES: u32 = 10;

/// Changes the configuration, or has whoever holds the lock change it. False: there was nothing to do.
pub(crate) fn change(kea: &Kea, wish: Wish) -> Verdict {
    let mut place = None;
    let lock = loop {
        let lock = Lock::if_free()?;
        if let Some(verdict) = place.as_mut().map(Place::verdict).transpose()?.flatten() {
            return verdict;
        }
        match lock {
            Some(lock) => break lock,
            None if place.is_none() => place = Place::take(&wish)?,
            None => {}
        }
        lock::pause(kea.until())?;
    };
    let waiting = queue::waiting(place.as_ref())?;
    let mut wishes = vec![wish];
    wishes.extend(waiting.iter().map(|one| one.wish.clone()));
    make_and_tell(kea, lock, &wishes, &waiting)
}

/// Makes the changes, the caller's own first, and tells the others.
fn make_and_tell(
    kea: &Kea,
    mut lock: Lock,
    wishes: &[Wish],
    waiting: &[queue::Waiting],
) -> Verdict {
    let verdicts = match make(kea, &mut lock, wishes) {
        Ok(verdicts) => verdicts,
        // What this caller has no time for, another may have.
        Err(why @ Failure::Late(_)) => return Err(why),
        Err(why) if Instant::now() >= kea.until() => return Err(why),
        Err(why) => vec![Err(why); wishes.len()],
    };
    let Some((own, others)) = verdicts.split_first() else {
        return Ok(false);
    };
    queue::tell(lock, waiting, others);
    own.clone()
}

/// Makes these changes in one. An error is that of all of them.
fn make(kea: &Kea, lock: &mut Lock, wishes: &[Wish]) -> Result<Vec<Verdict>, Failure> {
    let mut made = vec![false; wishes.len()];
    for _ in 0..TRIES {
        lock.renew()?;
        let before = config::fetch(kea)?;
        let current = config::keep(&before)?;
        let draft = Draft::of(kea, lock, &current, before.dhcp4.get(), wishes)?;
        let Some(text) = &draft.text else {
            return Ok(draft.verdicts(&made));
        };
        lock.renew()?;
        if !unchanged(kea, &before)? {
            continue;
        }
        lock.renew()?;
        match kea.ask_raw("config-set", Some(&arguments(text))) {
            Ok(_) => {}
            Err(why) if why.is_about_the_content() && wishes.len() > 1 => {
                return one_by_one(kea, lock, wishes);
            }
            Err(why) => return Err(why),
        }
        lock.renew()?;
        let set = config::fetch(kea)?;
        if let Err(why) = kea.ask_raw("config-write", None) {
            take_back(kea, &before, &set)?;
            return Err(why);
        }
        draft.mark(&mut made);
        // Somebody who had read before our set may have set after it, before this look or since. Then the next round finds something to do again.
        let now = config::keep(&set)?;
        if draft.reserved == Some(now.reserved()) && unchanged(kea, &set)? {
            return Ok(draft.verdicts(&made));
        }
    }
    Err(Failure::Conflict(format!(
        "Kea's configuration was changed by others {TRIES} times in a row"
    )))
}

/// Where Kea tests all of them as good and still refuses to set them.
fn one_by_one(kea: &Kea, lock: &mut Lock, wishes: &[Wish]) -> Result<Vec<Verdict>, Failure> {
    let mut verdicts = Vec::with_capacity(wishes.len());
    for wish in wishes {
        match make(kea, lock, std::slice::from_ref(wish)) {
            Ok(one) => verdicts.extend(one),
            Err(why) if why.is_about_the_content() => verdicts.push(Err(why)),
            Err(why) => return Err(why),
        }
    }
    Ok(verdicts)
}

/// A changed text that Kea tested, and what is to become of each change if it is set.
struct Draft {
    /// None: nothing is to be changed.
    text: Option<String>,
    /// What the text says of who has what, as [`Config::reserved`] tells it.
    reserved: Option<u64>,
    fates: Vec<Fate>,
}

enum Fate {
    /// The text has it.
    Made,
    /// It was so already.
    Nothing,
    Refused(Failure),
}

impl Draft {
    /// As many of the changes as Kea takes, in their order. What Kea refuses together it is asked in halves.
    fn of(
        kea: &Kea,
        lock: &mut Lock,
        current: &Config,
        text: &str,
        wishes: &[Wish],
    ) -> Result<Self, Failure> {
        let mut config = current.clone();
        let draft = Self::untested(&mut config, text, wishes);
        let Some(changed) = &draft.text else {
            return Ok(draft);
        };
        refuse_hidden_passwords(text)?;
        lock.renew()?;
        let why = match kea.ask_raw("config-test", Some(&arguments(changed))) {
            Ok(_) => return Ok(draft),
            Err(why) if why.is_about_the_content() => why,
            Err(why) => return Err(why),
        };
        if wishes.len() == 1 {
            return Ok(Self {
                text: None,
                reserved: None,
                fates: vec![Fate::Refused(why)],
            });
        }
        drop(draft);
        let (some, others) = wishes.split_at(wishes.len() / 2);
        let first = Self::of(kea, lock, current, text, some)?;
        match &first.text {
            None => Ok(first.then(Self::of(kea, lock, current, text, others)?)),
            Some(text) => {
                let current = config::read(text)?;
                let second = Self::of(kea, lock, &current, text, others)?;
                Ok(first.then(second))
            }
        }
    }

    fn untested(config: &mut Config, text: &str, wishes: &[Wish]) -> Self {
        let mut changed: Option<String> = None;
        let fates = wishes
            .iter()
            .map(
                |wish| match wish.made_in(config, changed.as_deref().unwrap_or(text)) {
                    Ok(Some(text)) => {
                        changed = Some(text);
                        Fate::Made
                    }
                    Ok(None) => Fate::Nothing,
                    Err(why) => Fate::Refused(why),
                },
            )
            .collect();
        Self {
            reserved: changed.as_ref().map(|_| config.reserved()),
            text: changed,
            fates,
        }
    }

    fn then(mut self, other: Self) -> Self {
        self.fates.extend(other.fates);
        Self {
            text: other.text.or(self.text),
            reserved: other.reserved.or(self.reserved),
            fates: self.fates,
        }
    }

    fn mark(&self, made: &mut [bool]) {
        for (made, fate) in made.iter_mut().zip(&self.fates) {
            *made |= matches!(fate, Fate::Made);
        }
    }

    fn verdicts(self, made: &[bool]) -> Vec<Verdict> {
        let fates = self.fates.into_iter().zip(made);
        fates
            .map(|(fate, made)| match fate {
                Fate::Made | Fate::Nothing => Ok(*made),
                Fate::Refused(why) => Err(why),
            })
            .collect()
    }
}

fn arguments(dhcp4: &str) -> String {
    format!("{{\"Dhcp4\":{dhcp4}}}")
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
        kea.ask_raw("config-set", Some(&arguments(before.dhcp4.get())))?;
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
