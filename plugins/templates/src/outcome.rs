//! What a client is told of Foreman's answer.
//!
//! It never passes on Foreman's error pages, nor its content types: installers look at the status and feed the body to a shell or a boot loader.

use bulkhead_sdk::answer::DEFAULT_TYPE;
use bulkhead_sdk::http::UpstreamError;
use bulkhead_sdk::log;
use bulkhead_sdk::plugin::{Head, Reply, Verdict};

/// What was asked, kept while Foreman works. Without parameters: they hold tokens, and the text is logged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `T`, `H` or `U`.
    mark: char,
    kind: String,
}

impl Asked {
    pub(crate) fn template(kind: &str) -> Self {
        Self::new('T', kind)
    }

    pub(crate) fn hostgroup(kind: &str) -> Self {
        Self::new('H', kind)
    }

    pub(crate) fn user_data(kind: &str) -> Self {
        Self::new('U', kind)
    }

    fn new(mark: char, kind: &str) -> Self {
        let kind = kind.chars().take(200).collect();
        Self { mark, kind }
    }

    pub(crate) fn keep(&self) -> Vec<u8> {
        format!("{}{}", self.mark, self.kind).into_bytes()
    }

    fn of(keep: &[u8]) -> Self {
        let text = String::from_utf8_lossy(keep);
        let mut letters = text.chars();
        let mark = letters.next().unwrap_or('T');
        Self::new(mark, letters.as_str())
    }

    fn is_user_data(&self) -> bool {
        self.mark == 'U'
    }

    fn failed(&self, why: &str) -> String {
        let kind = &self.kind;
        match self.mark {
            'H' => format!("Failed to retrieve {kind} hostgroup template: {why}"),
            'U' => format!("Failed to retrieve {kind} userdata template: {why}"),
            _ => format!("Failed to proxy /{kind}: {why}"),
        }
    }
}

pub(crate) fn of(keep: &[u8], got: Result<Head, UpstreamError>) -> Verdict {
    let asked = Asked::of(keep);
    let (status, why) = match got {
        Ok(head) if matches!(head.status, 200 | 201) => {
            return Verdict::Pass(Head {
                status: 200,
                headers: html(),
            });
        }
        Ok(head) if asked.is_user_data() => (500, answered(head.status)),
        Ok(head) => (head.status, answered(head.status)),
        Err(error) if asked.is_user_data() => (500, error.to_string()),
        Err(error) => (400, error.to_string()),
    };
    log::error(asked.failed(&why));
    Verdict::Replace(Reply {
        status,
        headers: html(),
        body: asked.failed(&public(&why)).into_bytes(),
    })
}

fn answered(status: u16) -> String {
    format!("Foreman answered {status}")
}

/// The part of a reason that anybody may read: what kind of failure it is. Addresses and files stay in the log.
fn public(why: &str) -> String {
    why.split(": ").next().unwrap_or_default().to_owned()
}

fn html() -> Vec<(String, String)> {
    vec![("content-type".to_owned(), DEFAULT_TYPE.to_owned())]
}
