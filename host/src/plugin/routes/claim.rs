//! What one plugin claims of the URL space, and why a claim may be refused.

use std::collections::HashSet;
use std::sync::Arc;

use super::{HOST_MOUNTS, below};
use crate::sandbox::bindings::types::Route;

/// The most mounts of a plugin, as `wit/types.wit` promises.
const MAX_MOUNTS: usize = 16;
/// The most routes of a plugin, as `wit/types.wit` promises.
const MAX_ROUTES: usize = 256;
/// The longest mount or pattern in bytes: far beyond any real one, short enough to print.
const MAX_PATTERN: usize = 512;
/// The deepest pattern in segments, which bounds the depth of a lookup.
const MAX_SEGMENTS: usize = 32;

/// The mounts and routes of one plugin.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// Its mounts, e.g. `/tftp`.
    pub mounts: Vec<String>,
    /// Its routes, in order of the manifest.
    pub routes: Vec<Route>,
    /// The most bytes of a request body on routes with body mode `whole`.
    pub whole_body_limit: u64,
}

/// Why a claim is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// More than the contract allows.
    #[error("plugin `{plugin}` claims {count} {what}, at most {limit} are allowed")]
    TooMany {
        /// Who claims.
        plugin: Arc<str>,
        /// `mounts` or `routes`.
        what: &'static str,
        /// How many it claims.
        count: usize,
        /// How many it may.
        limit: usize,
    },
    /// Not a path prefix.
    #[error("plugin `{plugin}`: mount `{mount}` {why}")]
    BadMount {
        /// Who claims.
        plugin: Arc<str>,
        /// The mount as written.
        mount: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The host answers there.
    #[error("plugin `{plugin}`: mount `{mount}` belongs to the host itself (`{owned}`)")]
    HostMount {
        /// Who claims.
        plugin: Arc<str>,
        /// The mount as written.
        mount: String,
        /// The host's mount it collides with.
        owned: &'static str,
    },
    /// Two plugins, one mount.
    #[error("plugin `{plugin}`: mount `{mount}` is owned by plugin `{owner}`")]
    MountTaken {
        /// Who claims.
        plugin: Arc<str>,
        /// The mount as written.
        mount: String,
        /// Who has it.
        owner: Arc<str>,
    },
    /// A route of one plugin lies below the mount of another.
    #[error(
        "plugin `{plugin}` and plugin `{owner}` both claim `{pattern}`: it lies below mount `{mount}`"
    )]
    RouteTaken {
        /// Who claims.
        plugin: Arc<str>,
        /// The route's pattern.
        pattern: String,
        /// The mount above it.
        mount: String,
        /// The other plugin.
        owner: Arc<str>,
    },
    /// A route that no mount of its plugin covers.
    #[error("plugin `{plugin}`: route `{pattern}` lies below none of its mounts")]
    OutsideMounts {
        /// Who claims.
        plugin: Arc<str>,
        /// The pattern as written.
        pattern: String,
    },
    /// A pattern that is not understood.
    #[error("plugin `{plugin}`: route `{pattern}` {why}")]
    BadPattern {
        /// Who claims.
        plugin: Arc<str>,
        /// The pattern as written.
        pattern: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A method that routes may not name.
    #[error("plugin `{plugin}`: route `{pattern}` has method `{method}`: {why}")]
    BadMethod {
        /// Who claims.
        plugin: Arc<str>,
        /// The pattern as written.
        pattern: String,
        /// The method as written.
        method: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two routes of the plugin match exactly the same requests.
    #[error(
        "plugin `{plugin}`: route `{method} {pattern}` is there twice (names of captures do not tell routes apart)"
    )]
    Duplicate {
        /// Who claims.
        plugin: Arc<str>,
        /// The method of both.
        method: String,
        /// The second one's pattern.
        pattern: String,
    },
}

impl Claim {
    /// The longest own mount that covers a pattern.
    pub(super) fn mount_of(&self, pattern: &str) -> Option<&str> {
        let covering = self
            .mounts
            .iter()
            .filter(|mount| below(pattern, mount).is_some());
        covering.map(String::as_str).max_by_key(|mount| mount.len())
    }

    /// Checks the claim by itself.
    pub(super) fn check(&self) -> Result<(), ClaimError> {
        self.check_count("mounts", self.mounts.len(), MAX_MOUNTS)?;
        self.check_count("routes", self.routes.len(), MAX_ROUTES)?;
        for mount in &self.mounts {
            self.check_mount(mount)?;
        }
        let mut shapes = HashSet::new();
        for route in &self.routes {
            self.check_method(route)?;
            check_pattern(&route.pattern).map_err(|why| ClaimError::BadPattern {
                plugin: self.plugin.clone(),
                pattern: route.pattern.clone(),
                why,
            })?;
            if self.mount_of(&route.pattern).is_none() {
                return Err(ClaimError::OutsideMounts {
                    plugin: self.plugin.clone(),
                    pattern: route.pattern.clone(),
                });
            }
            if !shapes.insert((route.method.as_str(), shape(&route.pattern))) {
                return Err(ClaimError::Duplicate {
                    plugin: self.plugin.clone(),
                    method: route.method.clone(),
                    pattern: route.pattern.clone(),
                });
            }
        }
        Ok(())
    }

    /// Checks the claim against another plugin's. A mount inside another's mount is fine (`/puppet/ca` in `/puppet`) as long as
    /// the outer plugin has no route in it.
    pub(super) fn check_beside(&self, other: &Claim) -> Result<(), ClaimError> {
        for mount in &self.mounts {
            if other.mounts.contains(mount) {
                return Err(ClaimError::MountTaken {
                    plugin: self.plugin.clone(),
                    mount: mount.clone(),
                    owner: other.plugin.clone(),
                });
            }
        }
        match self.route_below(other).or_else(|| other.route_below(self)) {
            Some((pattern, mount)) => Err(ClaimError::RouteTaken {
                plugin: self.plugin.clone(),
                pattern: pattern.to_owned(),
                mount: mount.to_owned(),
                owner: other.plugin.clone(),
            }),
            None => Ok(()),
        }
    }

    /// One of our routes that lies below a mount of `inner` which is longer than the mount it has with us, and that mount.
    fn route_below<'a>(&'a self, inner: &'a Claim) -> Option<(&'a str, &'a str)> {
        self.routes.iter().find_map(|route| {
            let own = self.mount_of(&route.pattern).map_or(0, str::len);
            let mount = inner
                .mounts
                .iter()
                .find(|mount| mount.len() > own && below(&route.pattern, mount).is_some())?;
            Some((route.pattern.as_str(), mount.as_str()))
        })
    }

    fn check_count(
        &self,
        what: &'static str,
        count: usize,
        limit: usize,
    ) -> Result<(), ClaimError> {
        if count <= limit {
            return Ok(());
        }
        Err(ClaimError::TooMany {
            plugin: self.plugin.clone(),
            what,
            count,
            limit,
        })
    }

    fn check_mount(&self, mount: &str) -> Result<(), ClaimError> {
        let bad = |why| ClaimError::BadMount {
            plugin: self.plugin.clone(),
            mount: mount.to_owned(),
            why,
        };
        let Some(segments) = mount.strip_prefix('/') else {
            return Err(bad("does not begin with `/`"));
        };
        if segments.is_empty() {
            return Err(bad("would own every path"));
        }
        if mount.len() > MAX_PATTERN {
            return Err(bad("is too long"));
        }
        for segment in segments.split('/') {
            if segment.is_empty() {
                return Err(bad("has an empty segment or ends with `/`"));
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
            if !segment.chars().all(plain) || segment.chars().all(|c| c == '.') {
                return Err(bad("may hold letters, digits, `-`, `_`, `.` and `~` only"));
            }
        }
        if self.mounts.iter().filter(|other| *other == mount).count() > 1 {
            return Err(bad("is named twice"));
        }
        match HOST_MOUNTS
            .into_iter()
            .find(|owned| below(mount, owned).is_some())
        {
            Some(owned) => Err(ClaimError::HostMount {
                plugin: self.plugin.clone(),
                mount: mount.to_owned(),
                owned,
            }),
            None => Ok(()),
        }
    }

    fn check_method(&self, route: &Route) -> Result<(), ClaimError> {
        let why = match route.method.as_str() {
            "HEAD" => "a GET route answers HEAD as well",
            "CONNECT" | "TRACE" => "the host does not serve it",
            method
                if method.is_empty()
                    || method.len() > 16
                    || !method.bytes().all(|b| b.is_ascii_uppercase()) =>
            {
                "a method is 1 to 16 capital letters"
            }
            _ => return Ok(()),
        };
        Err(ClaimError::BadMethod {
            plugin: self.plugin.clone(),
            pattern: route.pattern.clone(),
            method: route.method.clone(),
            why,
        })
    }
}

fn check_pattern(pattern: &str) -> Result<(), &'static str> {
    let Some(segments) = pattern.strip_prefix('/') else {
        return Err("does not begin with `/`");
    };
    if pattern.len() > MAX_PATTERN {
        return Err("is too long");
    }
    if pattern.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    let segments: Vec<&str> = segments.split('/').collect();
    if segments.len() > MAX_SEGMENTS {
        return Err("has too many segments");
    }
    let last = segments.len().saturating_sub(1);
    let mut names = HashSet::new();
    for (at, segment) in segments.iter().enumerate() {
        match segment.chars().next() {
            None if at != last => return Err("has an empty segment"),
            Some('*') if at != last => return Err("has a `*name` that is not its last segment"),
            Some(':' | '*') => {
                let name = segment.get(1..).unwrap_or_default();
                if !is_capture_name(name) {
                    return Err("has a capture whose name is not letters, digits, `_` and `-`");
                }
                if !names.insert(name) {
                    return Err("uses one name for two captures");
                }
            }
            _ if matches!(*segment, "." | "..") => {
                return Err("has a dotted segment, which no request can hold");
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_capture_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// The pattern without the names of its captures: two routes of one shape match the same paths.
fn shape(pattern: &str) -> String {
    let anonymous = pattern
        .split('/')
        .map(|segment| match segment.chars().next() {
            Some(':') => ":",
            Some('*') => "*",
            _ => segment,
        });
    anonymous.collect::<Vec<_>>().join("/")
}
