//! The feature `registration`: passes a host's registration on to Foreman.
//!
//! Anybody may ask; the token in `Authorization` is Foreman's to judge. It reaches the one path `/register` of Foreman and nothing else.
//!
//! The one idea: clients pipe the answer to a shell. So a success is Foreman's script, and whatever fails is a script that fails.

use bulkhead_sdk::answer::{DEFAULT_TYPE, Forward};
use bulkhead_sdk::http::UpstreamError;
use bulkhead_sdk::passing::{self, Query};
use bulkhead_sdk::plugin::{Head, Reply, Verdict};
use bulkhead_sdk::prelude::*;

/// What a client runs instead of Foreman's script.
const FAILING_SCRIPT: &str = "echo \"Internal Server Error\"\nexit 1\n";

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

struct Registration;

impl Plugin for Registration {
    fn describe() -> Manifest {
        Manifest::new(
            "registration",
            env!("CARGO_PKG_VERSION"),
            "Passes registrations of hosts on to Foreman",
        )
        .mount("/register")
        .route(get("/register").public(), fetch)
        .route(get("/register/").public(), fetch)
        .route(post("/register").public().body_passed(), submit)
        .route(post("/register/").public().body_passed(), submit)
        .need(Need::foreman(
            "register",
            "fetches registration scripts, and hands in what hosts say of themselves",
        ))
        .setting(
            Setting::url(
                "registration_url",
                "The URL by which hosts register; without it the one they asked",
            )
            .exposed(),
        )
    }

    /// Foreman makes the command for hosts out of the URL, and puts a slash behind it.
    fn status() -> Status {
        Status::working().setting("registration_url", registration_url())
    }

    fn on_upstream(_: Vec<u8>, got: Result<Head, UpstreamError>) -> Verdict {
        match got {
            Ok(head) if (200..300).contains(&head.status) => pass(200),
            Ok(head) => refused(&head),
            Err(why) => {
                log::error(format!("registration got no answer: {why}"));
                failing_script(500)
            }
        }
    }
}

bulkhead_sdk::export_feature!(Registration);

fn fetch(request: &Request) -> Forward {
    forward(request, "GET", Query::of(request.query())).header("content-type", JSON)
}

/// Foreman reads a form or JSON. The parameters of a form are in its body, and those of the query are not Foreman's business then.
fn submit(request: &Request) -> Forward {
    let is_form = request.media_type().as_deref() == Some(FORM);
    let (query, content_type) = if is_form {
        (Query::default(), FORM)
    } else {
        (Query::of(request.query()), JSON)
    };
    forward(request, "POST", query)
        .header("content-type", content_type)
        .incoming_body()
}

fn forward(request: &Request, method: &str, query: Query) -> Forward {
    let query = query.with("url", &own_url());
    Forward::new("register", method, query.below("/register")).headers(passing::headers(request))
}

/// By which URL the host shall go on: the setting, else the one it used.
fn own_url() -> String {
    registration_url()
        .or_else(|| Some(caller::current()?.origin))
        .unwrap_or_default()
}

/// The setting without a slash at its end; none when it is empty.
fn registration_url() -> Option<String> {
    let url = settings::text("registration_url")?;
    let url = url.strip_suffix('/').unwrap_or(&url);
    (!url.is_empty()).then(|| url.to_owned())
}

/// Foreman's own refusals are scripts, labelled plain text. Pages of whatever stands before Foreman are not.
fn refused(head: &Head) -> Verdict {
    let content_type = head
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    log::error(format!(
        "Foreman answered a registration with {}",
        head.status
    ));
    match content_type {
        Some((_, kind)) if kind.contains("text/plain") => pass(head.status),
        Some(_) => failing_script(head.status),
        None => failing_script(500),
    }
}

fn pass(status: u16) -> Verdict {
    Verdict::Pass(Head {
        status,
        headers: html(),
    })
}

fn failing_script(status: u16) -> Verdict {
    Verdict::Replace(Reply {
        status,
        headers: html(),
        body: FAILING_SCRIPT.into(),
    })
}

fn html() -> Vec<(String, String)> {
    vec![("content-type".to_owned(), DEFAULT_TYPE.to_owned())]
}

#[cfg(test)]
mod tests;
