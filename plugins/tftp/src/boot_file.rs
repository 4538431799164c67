//! Fetching a kernel or initial RAM disk from an installation medium.

use std::fmt;

use bulkhead_sdk::downloads;
use bulkhead_sdk::files::stays_inside;
use bulkhead_sdk::settings;

/// Why a download was not started.
#[derive(Debug)]
pub(crate) enum Refused {
    Missing(&'static str),
    OutsideOfRoot,
    UnknownProtocol(String),
    NotStarted(downloads::NotStarted),
}

/// Starts the download of `path` (a URL). The file is called as Foreman's templates expect it: `prefix`, a dash, and the last part of
/// the path; no dash after a prefix that ends with a slash.
pub(crate) fn fetch(prefix: Option<&str>, path: Option<&str>) -> Result<(), Refused> {
    let prefix = prefix.ok_or(Refused::Missing("prefix"))?;
    let url = path.ok_or(Refused::Missing("path"))?;
    let name = file_name(below_root(prefix), url);
    if !stays_inside(&name) {
        return Err(Refused::OutsideOfRoot);
    }
    match url
        .split_once("://")
        .map(|(scheme, _)| scheme.to_ascii_lowercase())
        .as_deref()
    {
        Some("http" | "https") => {
            downloads::fetch("boot-files", url, &name).map_err(Refused::NotStarted)
        }
        // Machines mount such a medium themselves; there is nothing to fetch.
        Some("nfs") => Ok(()),
        _ => Err(Refused::UnknownProtocol(url.to_owned())),
    }
}

/// An absolute prefix names the place as the TFTP server sees it: what is inside the root is taken from there.
fn below_root(prefix: &str) -> &str {
    let Some(root) = settings::text("tftproot").filter(|root| root.starts_with('/')) else {
        return prefix;
    };
    prefix
        .strip_prefix(root.trim_end_matches('/'))
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(prefix)
}

fn file_name(prefix: &str, url: &str) -> String {
    let base = url
        .rsplit('/')
        .find(|part| !part.is_empty())
        .unwrap_or_default();
    let dash = if prefix.ends_with('/') { "" } else { "-" };
    format!("{prefix}{dash}{base}")
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(formatter, "parameter {name} is missing"),
            Self::OutsideOfRoot => formatter.write_str("TFTP destination outside of tftproot"),
            Self::UnknownProtocol(url) => write!(
                formatter,
                "Cannot fetch boot file, unknown protocol for medium source path: {url}"
            ),
            Self::NotStarted(why) => why.fmt(formatter),
        }
    }
}
