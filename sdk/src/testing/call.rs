//! Calling a plugin's routes as the host would: match the pattern, hand over captures, run the function.

use crate::bindings::imports::foreman::proxy::types::{
    Answer, BodyMode, FileAnswer, Forward, Reply, Request,
};
use crate::export;
use crate::plugin::Plugin;
use crate::testing::Installed;

/// A form body, made of keys and values.
pub type Form<'a> = &'a [(&'a str, &'a str)];

/// What came of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Called {
    /// No route matched: the host would answer 404 and the plugin would not see it.
    NoRoute,
    /// A reply.
    Reply(Reply),
    /// A file to be sent by the host.
    File(FileAnswer),
    /// A request to be sent by the host.
    Forward(Forward),
}

impl Called {
    /// The status of a reply; 0 when there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.reply().map_or(0, |reply| reply.status)
    }

    /// The body of a reply as text; empty when there is none.
    #[must_use]
    pub fn text(&self) -> String {
        self.reply()
            .map(|reply| String::from_utf8_lossy(&reply.body).into_owned())
            .unwrap_or_default()
    }

    /// The content type of a reply; empty when there is none.
    #[must_use]
    pub fn content_type(&self) -> String {
        let found = self
            .reply()
            .and_then(|reply| crate::request::header(&reply.headers, "content-type"));
        found.unwrap_or_default().to_owned()
    }

    fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Reply(reply) => Some(reply),
            Self::NoRoute | Self::File(_) | Self::Forward(_) => None,
        }
    }
}

impl Installed {
    /// GET; `target` is a decoded path with an optional raw query.
    #[must_use]
    pub fn get<P: Plugin>(&self, target: &str) -> Called {
        self.call::<P>("GET", target, &[], &[])
    }

    /// DELETE.
    #[must_use]
    pub fn delete<P: Plugin>(&self, target: &str) -> Called {
        self.call::<P>("DELETE", target, &[], &[])
    }

    /// POST of a form.
    #[must_use]
    pub fn post_form<P: Plugin>(&self, target: &str, form: Form<'_>) -> Called {
        let body: Vec<String> = form
            .iter()
            .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
            .collect();
        self.call::<P>(
            "POST",
            target,
            &[("content-type", "application/x-www-form-urlencoded")],
            body.join("&").as_bytes(),
        )
    }

    /// Any request.
    #[must_use]
    pub fn call<P: Plugin>(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Called {
        let manifest = P::describe();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let matching = |pattern: &str| captures(pattern, path);
        let candidates = manifest
            .record()
            .routes
            .iter()
            .enumerate()
            .filter(|(_, route)| route.method == method);
        let matched = candidates.filter_map(|(index, route)| {
            matching(&route.pattern).map(|captures| (index, route, captures))
        });
        // The host's order: literal segments win over `:name`, `:name` over `*name`.
        let Some((index, route, captures)) =
            matched.min_by_key(|(_, route, _)| ranks(&route.pattern))
        else {
            return Called::NoRoute;
        };
        let request = Request {
            method: method.to_owned(),
            route: u32::try_from(index).unwrap_or(u32::MAX),
            path: path.to_owned(),
            captures,
            query: query.to_owned(),
            headers: headers
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: if route.body == BodyMode::Whole {
                body.to_vec()
            } else {
                Vec::new()
            },
        };
        match export::handle(&manifest, request) {
            Answer::Reply(reply) => Called::Reply(reply),
            Answer::File(file) => Called::File(file),
            Answer::Forward(forward) => Called::Forward(forward),
        }
    }
}

fn ranks(pattern: &str) -> Vec<u8> {
    let rank = |segment: &str| match segment.bytes().next() {
        Some(b':') => 1,
        Some(b'*') => 2,
        _ => 0,
    };
    pattern.split('/').map(rank).collect()
}

fn captures(pattern: &str, path: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = path;
    for wanted in pattern.split('/').skip(1) {
        let inside = rest.strip_prefix('/')?;
        if let Some(name) = wanted.strip_prefix('*') {
            found.push((name.to_owned(), inside.to_owned()));
            return Some(found);
        }
        let end = inside.find('/').unwrap_or(inside.len());
        let (segment, following) = inside.split_at(end);
        match wanted.strip_prefix(':') {
            Some(name) if !segment.is_empty() => found.push((name.to_owned(), segment.to_owned())),
            None if wanted == segment => {}
            _ => return None,
        }
        rest = following;
    }
    rest.is_empty().then_some(found)
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        assert_eq!(
            captures("/a/:b", "/a/x"),
            Some(vec![("b".to_owned(), "x".to_owned())])
        );
        assert_eq!(captures("/a/:b", "/a/x/"), None);
        assert_eq!(captures("/a/:b", "/a/"), None);
        assert_eq!(
            captures("/a/*rest", "/a/x/y"),
            Some(vec![("rest".to_owned(), "x/y".to_owned())])
        );
        assert_eq!(captures("/a", "/a"), Some(vec![]));
        assert_eq!(captures("/a", "/a/"), None);
        assert_eq!(captures("/a/", "/a/"), Some(vec![]));
    }

    #[test]
    fn literal_segments_come_first() {
        assert!(ranks("/t/:v/create_default") < ranks("/t/:v/:mac"));
        assert!(ranks("/t/:v/:mac") < ranks("/t/*rest"));
    }
}
