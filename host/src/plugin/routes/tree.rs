//! The routes below one mount for one method, as a tree of path segments.
//!
//! A lookup allocates nothing but the captured slices and visits each node at most once, so its cost is bounded by the
//! manifest and not by the length of the request's path.

use std::collections::HashMap;

use crate::sandbox::bindings::types::{Audience, BodyMode};

/// One place in the tree: everything that may follow the segments read so far.
#[derive(Default)]
pub(super) struct Node {
    literals: HashMap<Box<str>, Node>,
    named: Option<Box<Node>>,
    /// `*name` here.
    rest: Option<Leaf>,
    /// The pattern ends here.
    end: Option<Leaf>,
    /// The pattern ends here with a slash.
    slash: Option<Leaf>,
}

/// One route.
pub(super) struct Leaf {
    /// Index in the manifest.
    pub(super) route: u32,
    pub(super) audience: Audience,
    pub(super) body: BodyMode,
    /// Names of the captures, in order of the pattern. Filled by `insert`.
    pub(super) names: Box<[Box<str>]>,
}

impl Node {
    /// Adds the route with this pattern below the mount (empty, or `/` first). Patterns are checked by `Claim::check` before.
    pub(super) fn insert(&mut self, pattern: &str, mut leaf: Leaf) {
        let mut names: Vec<Box<str>> = Vec::new();
        let mut node = self;
        let mut rest = pattern;
        loop {
            let place = match rest {
                "" => &mut node.end,
                "/" => &mut node.slash,
                _ => {
                    let (segment, after) = next_segment(rest);
                    rest = after;
                    if let Some(name) = segment.strip_prefix('*') {
                        names.push(name.into());
                        &mut node.rest
                    } else if let Some(name) = segment.strip_prefix(':') {
                        names.push(name.into());
                        node = node.named.get_or_insert_default();
                        continue;
                    } else {
                        node = node.literals.entry(segment.into()).or_default();
                        continue;
                    }
                }
            };
            leaf.names = names.into();
            *place = Some(leaf);
            return;
        }
    }

    /// The most specific route for what is left of the path, with the captured values pushed to `values`.
    pub(super) fn find<'t, 'p>(
        &'t self,
        rest: &'p str,
        values: &mut Vec<&'p str>,
    ) -> Option<&'t Leaf> {
        match rest {
            "" if self.end.is_some() => return self.end.as_ref(),
            "/" if self.slash.is_some() => return self.slash.as_ref(),
            "" | "/" => {}
            _ => {
                let (segment, after) = next_segment(rest);
                if let Some(leaf) = self
                    .literals
                    .get(segment)
                    .and_then(|node| node.find(after, values))
                {
                    return Some(leaf);
                }
                if let Some(node) = &self.named {
                    values.push(segment);
                    if let Some(leaf) = node.find(after, values) {
                        return Some(leaf);
                    }
                    values.pop();
                }
            }
        }
        let leaf = self.rest.as_ref()?;
        values.push(rest.strip_prefix('/').unwrap_or(rest));
        Some(leaf)
    }
}

/// Splits `/a/b/` into `a` and `/b/`.
fn next_segment(rest: &str) -> (&str, &str) {
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    }
}
