//! Which plugin answers a path: the table of all mounts and routes.
//!
//! It refuses a claim on the host's own paths, a mount that another plugin owns, and a pattern it could not match without
//! ambiguity. It knows nothing of sockets, certificates or components: a lookup is a pure function of method, path and
//! the audiences a listener serves, so that the rule "a client's request never reaches a Foreman route" can be tested here.
//!
//! The one idea: the longest mount that covers a path decides the plugin, and nothing else of that path is ever
//! looked up elsewhere. Below a mount the routes form a tree of segments, one tree a method; a literal segment wins over `:name`, and
//! `:name` over `*name`, going back where a branch leads nowhere.

mod claim;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::sandbox::bindings::types::{Audience, BodyMode};

pub use claim::{Claim, ClaimError};
use tree::{Leaf, Node};

/// Path prefixes that the host itself answers. No plugin may own one, or anything below one.
pub const HOST_MOUNTS: [&str; 7] = [
    "/features",
    "/v2",
    "/version",
    "/logs",
    "/metrics",
    "/healthz",
    "/readyz",
];

/// A set of audiences, e.g. those a listener serves.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Audiences(u8);

impl Audiences {
    /// No audience at all.
    pub const NONE: Self = Self(0);

    /// The set of exactly these.
    pub fn of(audiences: &[Audience]) -> Self {
        audiences
            .iter()
            .fold(Self::NONE, |set, audience| set.with(*audience))
    }

    /// This set and `audience`.
    pub const fn with(self, audience: Audience) -> Self {
        Self(self.0 | Self::bit(audience))
    }

    /// Whether `audience` is in the set.
    pub const fn contains(self, audience: Audience) -> bool {
        self.0 & Self::bit(audience) != 0
    }

    /// Those in both sets.
    pub const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The audience in the set that asks least of a caller: public, then host, then Foreman.
    pub fn least_demanding(self) -> Option<Audience> {
        [Audience::Public, Audience::Host, Audience::Foreman]
            .into_iter()
            .find(|audience| self.contains(*audience))
    }

    const fn bit(audience: Audience) -> u8 {
        match audience {
            Audience::Foreman => 1,
            Audience::Host => 2,
            Audience::Public => 4,
        }
    }
}

impl fmt::Debug for Audiences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [Audience::Foreman, Audience::Host, Audience::Public];
        f.debug_set()
            .entries(all.into_iter().filter(|audience| self.contains(*audience)))
            .finish()
    }
}

/// All claims that hold, ready for lookups. Cheap to build anew for every change: a site has some dozens of mounts.
#[derive(Clone, Default)]
pub struct RouteTable {
    claims: BTreeMap<Arc<str>, Arc<Claim>>,
    /// By first segment, so that a lookup compares with one or two mounts; the longest first.
    mounts: HashMap<Box<str>, Vec<Arc<Mount>>>,
}

/// One mount with the routes below it.
struct Mount {
    path: Box<str>,
    plugin: Arc<str>,
    whole_body_limit: u64,
    /// Audiences of the routes below this mount.
    audiences: Audiences,
    methods: Vec<(Box<str>, Node)>,
}

/// What a lookup found.
#[derive(Debug, PartialEq)]
pub enum Outcome<'t, 'p> {
    /// No mount covers the path.
    Unknown,
    /// The path is a plugin's, for an audience which the listener does not serve. To the caller the same as unknown.
    ForeignAudience,
    /// Below a mount, but no route matches. The caller's identity for `audience` has to be checked before it is told so.
    UnderMount {
        /// Who owns the mount.
        plugin: &'t Arc<str>,
        /// The mount, e.g. `/puppet/ca`.
        mount: &'t str,
        /// The least demanding audience of this mount on this listener.
        audience: Audience,
    },
    /// A route.
    Matched(Matched<'t, 'p>),
}

/// A route that matches.
#[derive(Debug, PartialEq)]
pub struct Matched<'t, 'p> {
    /// Who answers.
    pub plugin: &'t Arc<str>,
    /// The mount the path lies under.
    pub mount: &'t str,
    /// Index in the manifest's routes.
    pub route: u32,
    /// Who the route is for.
    pub audience: Audience,
    /// What becomes of the request body.
    pub body: BodyMode,
    /// The most bytes of a body with mode `whole`.
    pub whole_body_limit: u64,
    /// Names and values in order of the pattern.
    pub captures: Vec<(&'t str, &'p str)>,
}

impl RouteTable {
    /// A table without plugins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a plugin, or puts the new claim of one that is there in place of its old one. An error leaves the table as it was.
    pub fn insert(&mut self, claim: Claim) -> Result<(), ClaimError> {
        claim.check()?;
        for other in self.claims().filter(|other| other.plugin != claim.plugin) {
            claim.check_beside(other)?;
        }
        self.claims.insert(claim.plugin.clone(), Arc::new(claim));
        self.index();
        Ok(())
    }

    /// Takes a plugin out.
    pub fn remove(&mut self, plugin: &str) {
        self.claims.remove(plugin);
        self.index();
    }

    /// The plugins in the table, by name.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.values().map(Arc::as_ref)
    }

    /// Finds who answers `method` on `path` (normalised: decoded, `/` first, no empty or dotted segments) on a listener that serves `served`.
    /// `HEAD` is looked up as `GET`.
    ///
    /// The most specific route is chosen before the audience is looked at: a public pattern never stands in for a Foreman route.
    pub fn lookup<'t, 'p>(
        &'t self,
        method: &str,
        path: &'p str,
        served: Audiences,
    ) -> Outcome<'t, 'p> {
        let Some((mount, rest)) = self.mount_of(path) else {
            return Outcome::Unknown;
        };
        let mine = mount.audiences.both(served);
        if mine.is_empty() {
            return Outcome::ForeignAudience;
        }
        let method = if method == "HEAD" { "GET" } else { method };
        let tree = mount
            .methods
            .iter()
            .find(|(name, _)| **name == *method)
            .map(|(_, tree)| tree);
        let mut values = Vec::new();
        if let Some(leaf) = tree.and_then(|tree| tree.find(rest, &mut values)) {
            return if served.contains(leaf.audience) {
                Outcome::Matched(mount.matched(leaf, values))
            } else {
                Outcome::ForeignAudience
            };
        }
        match mine.least_demanding() {
            Some(audience) => Outcome::UnderMount {
                plugin: &mount.plugin,
                mount: &mount.path,
                audience,
            },
            None => Outcome::ForeignAudience,
        }
    }

    /// The longest mount that covers `path`, and what of the path is below it.
    fn mount_of<'p>(&self, path: &'p str) -> Option<(&Mount, &'p str)> {
        let mounts = self.mounts.get(first_segment(path))?;
        mounts
            .iter()
            .find_map(|mount| Some((mount.as_ref(), below(path, &mount.path)?)))
    }

    fn index(&mut self) {
        self.mounts.clear();
        for claim in self.claims.values() {
            for path in &claim.mounts {
                let mount = Arc::new(Mount::new(claim, path));
                self.mounts
                    .entry(first_segment(path).into())
                    .or_default()
                    .push(mount);
            }
        }
        for same in self.mounts.values_mut() {
            same.sort_by_key(|mount| std::cmp::Reverse(mount.path.len()));
        }
    }
}

impl Mount {
    fn new(claim: &Claim, path: &str) -> Self {
        let mut mount = Self {
            path: path.into(),
            plugin: claim.plugin.clone(),
            whole_body_limit: claim.whole_body_limit,
            audiences: Audiences::NONE,
            methods: Vec::new(),
        };
        for (route, index) in claim.routes.iter().zip(0u32..) {
            if claim.mount_of(&route.pattern) != Some(path) {
                continue;
            }
            let Some(rest) = below(&route.pattern, path) else {
                continue;
            };
            mount.audiences = mount.audiences.with(route.audience);
            let tree = match mount
                .methods
                .iter_mut()
                .position(|(name, _)| **name == *route.method)
            {
                Some(known) => mount.methods.get_mut(known),
                None => {
                    mount
                        .methods
                        .push((route.method.as_str().into(), Node::default()));
                    mount.methods.last_mut()
                }
            };
            if let Some((_, tree)) = tree {
                tree.insert(
                    rest,
                    Leaf {
                        route: index,
                        audience: route.audience,
                        body: route.body,
                        names: Box::default(),
                    },
                );
            }
        }
        mount
    }

    fn matched<'t, 'p>(&'t self, leaf: &'t Leaf, values: Vec<&'p str>) -> Matched<'t, 'p> {
        Matched {
            plugin: &self.plugin,
            mount: &self.path,
            route: leaf.route,
            audience: leaf.audience,
            body: leaf.body,
            whole_body_limit: self.whole_body_limit,
            captures: leaf.names.iter().map(AsRef::as_ref).zip(values).collect(),
        }
    }
}

/// What of `path` lies below `mount`: empty for the mount itself, else beginning with `/`. None: it does not lie below.
fn below<'p>(path: &'p str, mount: &str) -> Option<&'p str> {
    path.strip_prefix(mount)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn first_segment(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').map_or(path, |(first, _)| first)
}

#[cfg(test)]
mod tests;
