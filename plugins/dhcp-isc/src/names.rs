//! Names that have to be looked up before dhcpd is told anything, in turns.

use std::time::{Duration, Instant};

use bulkhead_sdk::names::{Found, LookupError, Question};

use crate::turns;

/// The host gives a look-up up after 10 seconds.
const TIME: Duration = Duration::from_secs(12);

/// The addresses of a name; an address is its own.
pub(crate) async fn looked_up(name: &str) -> Found {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let mut question = Question::ask(name);
    let found = turns::until(Instant::now() + TIME, |patience| question.answer(patience)).await;
    found.unwrap_or_else(|| Err(LookupError::Failed("no name server answered".to_owned())))
}
