//! One command to Kea and its answer: JSON over HTTP.
//!
//! The Control Agent answers with an array of one element per server it asked; a server that is asked at its own socket may answer with the
//! bare element. Both are read. Unknown fields are left alone: servers of 2.2 to 3.x differ in them.

use std::time::{Duration, Instant};

use bulkhead_sdk::http::{self, Outgoing};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::failure::Failure;

/// The `http` slot.
pub(crate) const SLOT: &str = "api";

/// The longest one request may take. Kea takes well under a second for anything but a configuration of many thousand
/// reservations; beyond this it hangs.
pub(crate) const REQUEST: Duration = Duration::from_secs(10);

/// How much of an unexpected answer is quoted.
const QUOTED: usize = 200;

/// What Kea said to one command.
#[derive(Debug, Deserialize)]
pub(crate) struct Said {
    pub(crate) result: i64,
    #[serde(default)]
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) arguments: Option<Box<RawValue>>,
}

impl Said {
    /// The arguments as this type.
    pub(crate) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        let arguments = self
            .arguments
            .as_ref()
            .ok_or_else(|| Failure::Junk("an answer without arguments".to_owned()))?;
        serde_json::from_str(arguments.get()).map_err(|why| Failure::Junk(why.to_string()))
    }
}

/// Reads the body of an answer.
pub(crate) fn parse(body: &[u8]) -> Result<Said, Failure> {
    let junk = |why: serde_json::Error| Failure::Junk(format!("{why} in {:?}", start(body)));
    let wrapped = body
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .is_some_and(|byte| *byte == b'[');
    if !wrapped {
        return serde_json::from_slice(body).map_err(junk);
    }
    let mut all: Vec<Said> = serde_json::from_slice(body).map_err(junk)?;
    if all.is_empty() {
        return Err(Failure::Junk("an empty array".to_owned()));
    }
    Ok(all.swap_remove(0))
}

/// Sends one command. `service` names the server to the Control Agent. Result 0 and 3 ("nothing found") are answers, everything else is a
/// failure.
pub(crate) fn ask(
    command: &str,
    arguments: Option<&str>,
    service: bool,
    until: Instant,
) -> Result<Said, Failure> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Failure::Late("Kea took all of it"));
    }
    let mut body = format!("{{\"command\":\"{command}\"");
    if service {
        body.push_str(",\"service\":[\"dhcp4\"]");
    }
    if let Some(arguments) = arguments {
        body.push_str(",\"arguments\":");
        body.push_str(arguments);
    }
    body.push('}');
    let request = Outgoing::new(SLOT, "POST", "/")
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(body)
        .timeout(left.min(REQUEST));
    let answer = http::send(&request)?;
    if !answer.is_success() {
        // 401 and 400 come as `{"result": 401, "text": ".."}`.
        let text = match parse(answer.body()) {
            Ok(said) if !said.text.is_empty() => said.text,
            _ => start(answer.body()),
        };
        return Err(Failure::Http {
            status: answer.status(),
            text,
        });
    }
    let said = parse(answer.body())?;
    match said.result {
        0 | 3 => Ok(said),
        result => Err(Failure::Said {
            command: command.to_owned(),
            result,
            text: said.text,
        }),
    }
}

fn start(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(QUOTED).collect()
}
