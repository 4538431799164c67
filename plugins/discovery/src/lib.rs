//! The feature `discovery`: brings machines that booted the discovery image to Foreman, and Foreman to them.
//!
//! A new machine has no identity, so anybody may hand in facts; all that comes of it is one request to one path of Foreman. Foreman alone may
//! command machines, and only at addresses in the networks of the policy.
//!
//! The one idea: every answer is a forward. What an image answers goes to Foreman as it comes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_sdk::answer::{DEFAULT_TYPE, Forward};
use bulkhead_sdk::http::UpstreamError;
use bulkhead_sdk::plugin::{Head, Reply, Verdict};
use bulkhead_sdk::prelude::*;
use serde::de::IgnoredAny;

/// How images of today are reached.
const NODE_URL: &str = "https://node:8443";

/// Kept with a forward: who was asked.
const FOREMAN: &[u8] = b"foreman";
const NODE: &[u8] = b"node";

struct Discovery;

impl Plugin for Discovery {
    fn describe() -> Manifest {
        Manifest::new(
            "discovery",
            env!("CARGO_PKG_VERSION"),
            "Brings discovered machines to Foreman, and Foreman to them",
        )
        .mount("/discovery")
        .route(post("/discovery/create").public(), create)
        .route(get("/discovery/:ip/inventory/facter"), facts)
        .route(get("/discovery/:ip/facts"), facts)
        .route(put("/discovery/:ip/power/reboot").body_passed(), reboot)
        .route(put("/discovery/:ip/power/kexec").body_passed(), kexec)
        .route(put("/discovery/:ip/reboot").body_passed(), power_cycle)
        .need(Need::foreman(
            "discovered-hosts",
            "hands the facts of new machines to Foreman",
        ))
        .need(
            Need::http(
                "nodes",
                "reads facts of discovered machines and restarts them",
            )
            .optional(),
        )
        .need(Need::http("old-nodes", "restarts machines with an old discovery image").optional())
        .setting(
            Setting::url(
                "node_url",
                "Scheme and port of the discovery image; `node` stands for the machine's address",
            )
            .default(NODE_URL),
        )
        .setting(Setting::texts(
            "node_networks",
            "The networks of discovered machines; without them Foreman reaches none",
        ))
    }

    fn on_upstream(keep: Vec<u8>, got: Result<Head, UpstreamError>) -> Verdict {
        match got {
            Ok(head) if keep == FOREMAN && (200..300).contains(&head.status) => {
                reply(200, String::new())
            }
            Ok(head) if keep == FOREMAN => failed(head.status),
            Ok(head) => Verdict::Pass(of_node(head)),
            Err(error) if keep == FOREMAN => {
                log::error(format!("Foreman did not take a machine's facts: {error}"));
                reply(500, "Discovery failed, Foreman gave no answer".to_owned())
            }
            Err(error) => {
                log::error(format!("a discovered machine gave no answer: {error}"));
                reply(500, format!("Unable to reach the machine: {error}"))
            }
        }
    }
}

bulkhead_sdk::export_feature!(Discovery);

fn create(request: &Request) -> Result<Forward, Failure> {
    serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(request.body())
        .map_err(|why| Failure::bad_request(format!("The facts are no JSON object: {why}")))?;
    Ok(
        Forward::new("discovered-hosts", "POST", "/api/v2/discovered_hosts/facts")
            .header("accept", "application/json,version=2")
            .header("content-type", "application/json")
            .body(request.body())
            .keep(FOREMAN),
    )
}

fn facts(request: &Request) -> Result<Forward, Failure> {
    node(request, "GET", "/inventory/facter")
}

fn reboot(request: &Request) -> Result<Forward, Failure> {
    Ok(node(request, "PUT", "/power/reboot")?.incoming_body())
}

fn kexec(request: &Request) -> Result<Forward, Failure> {
    let content_type = request.header("content-type").unwrap_or("application/json");
    Ok(node(request, "PUT", "/power/kexec")?
        .header("content-type", content_type)
        .incoming_body())
}

/// Images of old had another API, on plain HTTP.
fn power_cycle(request: &Request) -> Result<Forward, Failure> {
    let ip = address(request)?;
    let path = format!(
        "/bmc/{}/chassis/power/cycle",
        in_url(ip).trim_matches(['[', ']'])
    );
    let url = format!("http://{}:8443{path}", in_url(ip));
    Ok(Forward::new("old-nodes", "PUT", url).keep(NODE))
}

fn node(request: &Request, method: &str, path: &str) -> Result<Forward, Failure> {
    let base = settings::text("node_url").unwrap_or_else(|| NODE_URL.to_owned());
    let base = base.trim_end_matches('/');
    let address = in_url(address(request)?);
    let url = match base.split_once("://") {
        Some((scheme, authority)) => match authority.rsplit_once(':') {
            Some((_, port)) => format!("{scheme}://{address}:{port}{path}"),
            None => format!("{scheme}://{address}{path}"),
        },
        None => return Err(Failure::internal("the setting node_url is no URL")),
    };
    Ok(Forward::new("nodes", method, url)
        .header("accept", "application/json")
        .keep(NODE))
}

fn address(request: &Request) -> Result<IpAddr, Failure> {
    let text = request.text("ip").unwrap_or_default();
    text.trim_matches(['[', ']'])
        .parse()
        .map_err(|_| Failure::bad_request(format!("Invalid IP address: {text}")))
}

fn in_url(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// What Foreman needs of a machine's answer: status, type and body.
fn of_node(head: Head) -> Head {
    Head {
        status: head.status,
        headers: head
            .headers
            .into_iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("content-type"))
            .collect(),
    }
}

fn failed(status: u16) -> Verdict {
    let reason = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        422 => "Unprocessable Entity",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Foreman refused",
    };
    let text = format!("Discovery failed, code {status}, reason: {reason}");
    log::error(&text);
    reply(500, text)
}

fn reply(status: u16, body: String) -> Verdict {
    let headers = vec![("content-type".to_owned(), DEFAULT_TYPE.to_owned())];
    Verdict::Replace(Reply {
        status,
        headers,
        body: body.into_bytes(),
    })
}

#[cfg(test)]
mod tests;
