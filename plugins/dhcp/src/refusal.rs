//! A provider's errors as answers, all in one place.
//!
//! Foreman looks at the status only: 409 is a conflict, 404 "no such record", anything else a failure. What was wrong with the
//! server is 400 with the server's words when something should be written, as in the Smart Proxy; when something was only asked,
//! a provider that is not ready is 503, with the time after which to ask again.

use std::time::Duration;

use bulkhead_sdk::dhcp::{Entry, Error};
use bulkhead_sdk::prelude::*;

use crate::record::mac;
use crate::wanted::Wanted;

/// After which a provider that still reads its files may be asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// The error in words.
pub(crate) fn words(error: &Error) -> String {
    match error {
        Error::Conflict(why)
        | Error::NotDeletable(why)
        | Error::Refused(why)
        | Error::Unsupported(why)
        | Error::Timeout(why)
        | Error::Unreachable(why)
        | Error::Other(why) => why.clone(),
        Error::UnknownSubnet => "the provider does not hold that subnet".to_owned(),
        Error::Again(_) => "the provider has not finished yet".to_owned(),
    }
}

/// Something was asked.
pub(crate) fn asking(error: Error) -> Failure {
    let text = words(&error);
    match error {
        Error::Conflict(_) => Failure::conflict(text),
        Error::UnknownSubnet => Failure::not_found(text),
        Error::NotDeletable(_) | Error::Refused(_) | Error::Other(_) => Failure::bad_request(text),
        Error::Unsupported(_) => Failure::new(501, text),
        Error::Unreachable(_) => Failure::unavailable(text).retry_after(AGAIN),
        Error::Timeout(_) | Error::Again(_) => Failure::new(504, text),
    }
}

/// A reservation should be written.
pub(crate) fn writing(error: Error, wanted: &Wanted) -> Failure {
    let reservation = &wanted.reservation;
    let text = format!(
        "Failed to add DHCP reservation for {} ({} / {}): {}",
        reservation.name,
        reservation.address,
        mac(&reservation.identifier),
        words(&error)
    );
    match error {
        Error::Conflict(why) => Failure::conflict(why),
        Error::UnknownSubnet => {
            Failure::bad_request(format!("No Subnet detected for: {}", wanted.network))
        }
        Error::Unsupported(_) => Failure::new(501, text),
        Error::NotDeletable(_)
        | Error::Refused(_)
        | Error::Timeout(_)
        | Error::Again(_)
        | Error::Unreachable(_)
        | Error::Other(_) => Failure::bad_request(text),
    }
}

/// A reservation should be removed; `entry` is what was found.
pub(crate) fn removing(error: Error, entry: &Entry) -> Failure {
    let record = match entry {
        Entry::Reservation(found) => format!(
            "{name} => {name} ({} / {})",
            found.address,
            mac(&found.identifier),
            name = found.name
        ),
        Entry::Lease(found) => format!("{} / {}", found.address, mac(&found.identifier)),
    };
    let text = format!(
        "Failed to remove DHCP reservation for {record}: {}",
        words(&error)
    );
    match error {
        Error::NotDeletable(why) => Failure::bad_request(why),
        Error::Conflict(why) => Failure::conflict(why),
        Error::Unsupported(_) => Failure::new(501, text),
        Error::UnknownSubnet
        | Error::Refused(_)
        | Error::Timeout(_)
        | Error::Again(_)
        | Error::Unreachable(_)
        | Error::Other(_) => Failure::bad_request(text),
    }
}
