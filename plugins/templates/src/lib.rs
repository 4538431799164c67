//! The feature `templates`: passes what machines ask while they are installed on to Foreman.
//!
//! Anybody may ask, since an installer has neither name nor certificate; Foreman finds the host by token, MAC or address. It reaches the paths
//! `/unattended` and `/userdata` of Foreman and nothing else: no file, no lease, no socket.
//!
//! The one idea: it names the request, the host sends it, with the proxy's certificate and the client's address, and streams the answer. No
//! instance is held while Foreman renders.

mod outcome;

use bulkhead_sdk::answer::Forward;
use bulkhead_sdk::http::UpstreamError;
use bulkhead_sdk::passing::{self, Query, escaped};
use bulkhead_sdk::plugin::{Head, Verdict};
use bulkhead_sdk::prelude::*;
use serde_json::json;

use outcome::Asked;

/// Names that route the request, here or at Foreman; a client's parameters of these names are dropped.
const ROUTING: [&str; 6] = ["path", "template", "kind", "hostgroup", "splat", "captures"];

/// Form fields that take more than this many bytes in a URL stay in the body only: a server takes no longer query.
const MAX_FIELDS: usize = 4096;

struct Templates;

impl Plugin for Templates {
    fn describe() -> Manifest {
        Manifest::new(
            "templates",
            env!("CARGO_PKG_VERSION"),
            "Passes provisioning requests of hosts on to Foreman",
        )
        .mount("/unattended")
        .mount("/userdata")
        .route(get("/unattended/templateServer"), template_server)
        .route(get("/unattended/:kind").public(), render)
        .route(
            get("/unattended/:kind/:template/:hostgroup").public(),
            render_for_hostgroup,
        )
        .route(post("/unattended/:kind").public(), submit)
        .route(get("/userdata/:kind").public(), user_data)
        .need(Need::foreman(
            "provisioning",
            "asks Foreman to render a host's templates, and tells it that a host is built",
        ))
        .setting(
            Setting::url("template_url", "The URL by which hosts reach this proxy")
                .required()
                .exposed(),
        )
    }

    fn on_upstream(keep: Vec<u8>, got: Result<Head, UpstreamError>) -> Verdict {
        outcome::of(&keep, got)
    }
}

bulkhead_sdk::export_feature!(Templates);

fn template_server(_: &Request) -> Json<serde_json::Value> {
    Json(json!({ "templateServer": template_url() }))
}

fn render(request: &Request) -> Forward {
    let kind = request.text("kind").unwrap_or_default();
    let path = format!("/unattended/{}", escaped(kind));
    forward(request, "GET", &path, query(request), Asked::template(kind))
        .header("content-type", "application/json")
}

fn render_for_hostgroup(request: &Request) -> Forward {
    let part = |name| escaped(request.text(name).unwrap_or_default());
    let path = format!(
        "/unattended/{}/{}/{}",
        part("kind"),
        part("template"),
        part("hostgroup")
    );
    let asked = Asked::hostgroup(request.text("kind").unwrap_or_default());
    forward(request, "GET", &path, query(request), asked).header("content-type", "application/json")
}

/// What a host posts is kept byte for byte; fields of a form go along as parameters as well, where Foreman looks for them.
fn submit(request: &Request) -> Forward {
    let kind = request.text("kind").unwrap_or_default();
    let path = format!("/unattended/{}", escaped(kind));
    let mut query = Query::of(request.query());
    let is_form = request
        .media_type()
        .is_none_or(|kind| kind == "application/x-www-form-urlencoded");
    if is_form && let Ok(fields) = std::str::from_utf8(request.body()) {
        let fields = Query::of(fields);
        if fields.below("").len() <= MAX_FIELDS {
            query = query.and(fields);
        }
    }
    let query = own(query).with("Content-Type", "text/plain");
    forward(request, "POST", &path, query, Asked::template(kind))
        .header("content-type", "text/plain")
        .body(request.body())
}

fn user_data(request: &Request) -> Forward {
    let kind = request.text("kind").unwrap_or_default();
    let path = format!("/userdata/{}", escaped(kind));
    forward(
        request,
        "GET",
        &path,
        query(request),
        Asked::user_data(kind),
    )
    .header("content-type", "application/json")
}

fn forward(request: &Request, method: &str, path: &str, query: Query, asked: Asked) -> Forward {
    Forward::new("provisioning", method, query.below(path))
        .headers(passing::headers(request))
        .keep(asked.keep())
}

fn query(request: &Request) -> Query {
    own(Query::of(request.query()))
}

/// The client's parameters without those that route, and with the URL that rendered templates shall name.
fn own(query: Query) -> Query {
    let query = ROUTING
        .iter()
        .fold(query, |query, name| query.without(name));
    query.with("url", &template_url())
}

fn template_url() -> String {
    settings::text("template_url").unwrap_or_default()
}

#[cfg(test)]
mod tests;
