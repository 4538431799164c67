//! Adding a line to a policy file, as `bulkhead policy allow` does.
//!
//! Comments, order and spelling of what stands there stay. Lists grow, single values are replaced, missing tables are
//! made. The result is read as a policy before it replaces the file, and the file is replaced whole or not at all.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, InlineTable, Item, Key, Table, TableLike, Value};

use super::effective::Left;

/// Why a line cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The line, or the file, is not TOML.
    #[error("{what} is not TOML: {reason}")]
    NotToml {
        /// `the line` or `the policy`.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// The line says nothing, or more than grants and limits.
    #[error("{0}")]
    NotAGrant(String),
    /// The file has something of another kind in that place.
    #[error("`{key}` is {found} in the policy, and the line gives {given}")]
    Mismatch {
        /// The dotted key.
        key: String,
        /// What the file has.
        found: &'static str,
        /// What the line has.
        given: &'static str,
    },
    /// The file leaves that value to a setting, which is the one place where it is said.
    #[error("`{key}` is what the setting `{setting}` says: {change}")]
    Setting {
        /// The dotted key.
        key: String,
        /// The setting.
        setting: String,
        /// What to do there instead.
        change: String,
    },
    /// Reading or writing the file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The policy text with the line added. The same text when it says that already.
pub fn add_line(policy: &str, line: &str) -> Result<String, EditError> {
    let not_toml = |what| {
        move |error: toml_edit::TomlError| EditError::NotToml {
            what,
            reason: error.message().to_owned(),
        }
    };
    let mut document: DocumentMut = policy.parse().map_err(not_toml("the policy"))?;
    let addition: DocumentMut = line.parse().map_err(not_toml("the line"))?;
    if addition.is_empty() {
        return Err(EditError::NotAGrant(
            "the line says nothing; it should look like `files.root.access = \"read\"`".to_owned(),
        ));
    }
    for (name, _) in addition.iter() {
        if matches!(name, "plugin" | "approved") {
            return Err(EditError::NotAGrant(format!(
                "`{name}` is not granted by a line; see `bulkhead plugin approve`"
            )));
        }
    }
    let plugin = document.get("plugin").and_then(Item::as_str);
    let plugin = plugin.unwrap_or("NAME").to_owned();
    merge(document.as_table_mut(), addition.as_table(), &plugin, "")?;
    Ok(document.to_string())
}

fn merge(
    into: &mut dyn TableLike,
    from: &dyn TableLike,
    plugin: &str,
    path: &str,
) -> Result<(), EditError> {
    for (name, addition) in from.iter() {
        let here = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{}", super::denial::key(name))
        };
        match into.get_mut(name) {
            None => {
                let depth = here.split('.').count();
                into.insert(name, made(addition, depth));
            }
            Some(present) => merge_item(present, addition, plugin, &here)?,
        }
    }
    Ok(())
}

fn merge_item(
    present: &mut Item,
    addition: &Item,
    plugin: &str,
    path: &str,
) -> Result<(), EditError> {
    let mismatch = EditError::Mismatch {
        key: path.to_owned(),
        found: kind(present),
        given: kind(addition),
    };
    if let (Some(into), Some(from)) = (present.as_table_like_mut(), addition.as_table_like()) {
        merge(into, from, plugin, path)?;
        if let Some(inline) = present
            .as_inline_table_mut()
            .filter(|inline| !inline.to_string().contains('\n'))
        {
            inline.fmt();
        }
        return Ok(());
    }
    if let (Some(setting), Some(value)) = (setting_of(present), addition.as_value()) {
        return Err(EditError::Setting {
            key: path.to_owned(),
            change: change_of(plugin, &setting, value),
            setting,
        });
    }
    match (present.as_value_mut(), addition.as_value()) {
        (Some(Value::Array(list)), Some(Value::Array(more))) => {
            grow(list, more);
            Ok(())
        }
        (Some(Value::Array(_)), _) | (_, Some(Value::Array(_))) | (_, None) | (None, _) => {
            Err(mismatch)
        }
        (Some(old), Some(new)) => {
            let decor = old.decor().clone();
            *old = new.clone();
            *old.decor_mut() = decor;
            Ok(())
        }
    }
}

/// The setting to which `{ setting = "NAME" }` leaves a value.
fn setting_of(item: &Item) -> Option<String> {
    let name = item.as_table_like()?.get("setting")?.as_str()?;
    Some(name.to_owned())
}

/// What to do in the configuration, so that a plugin's setting says that value as well.
fn change_of(plugin: &str, setting: &str, value: &Value) -> String {
    let change = match value.as_array() {
        Some(more) => {
            let values: Vec<String> = more.iter().map(|it| bare(it).to_string()).collect();
            format!("add {} to `{setting}`", values.join(", "))
        }
        None => format!("write `{setting} = {}`", bare(value)),
    };
    format!("{change} in `[features.{plugin}]` of the configuration, and send SIGHUP")
}

/// The same for a line of policy, if it says what the policy leaves to a setting.
pub(crate) fn instead_of(line: &str, plugin: &str, left: &[Left]) -> Option<String> {
    if left.is_empty() {
        return None;
    }
    let document: DocumentMut = line.parse().ok()?;
    granted(&document).find_map(|(key, item)| {
        let it = left.iter().find(|it| it.key == key)?;
        Some(change_of(plugin, &it.setting, item.as_value()?))
    })
}

/// The values of its grants that a policy leaves to settings.
pub(crate) fn left_to_settings(policy: &str) -> Vec<Left> {
    let document: DocumentMut = policy.parse().unwrap_or_default();
    granted(&document)
        .filter_map(|(key, item)| setting_of(item).map(|setting| Left { key, setting }))
        .collect()
}

fn inside(item: &Item) -> impl Iterator<Item = (&str, &Item)> {
    item.as_table_like().into_iter().flat_map(TableLike::iter)
}

/// What stands in the grants of a policy: `capability.slot.key`, and the value.
fn granted(policy: &DocumentMut) -> impl Iterator<Item = (String, &Item)> {
    policy.iter().flat_map(move |(capability, slots)| {
        inside(slots).flat_map(move |(slot, grant)| {
            let slot = super::denial::key(slot);
            inside(grant).map(move |(key, item)| (format!("{capability}.{slot}.{key}"), item))
        })
    })
}

/// Appends what is not there yet, laid out like its neighbours.
fn grow(list: &mut Array, more: &Array) {
    for value in more {
        let text = bare(value).to_string();
        if list.iter().any(|known| bare(known).to_string() == text) {
            continue;
        }
        let above = list
            .iter()
            .last()
            .and_then(|last| last.decor().prefix()?.as_str().map(indentation));
        let mut prefix = above.unwrap_or_default();
        // A comment behind the last comma belongs to the value before it.
        let trailing = list.trailing().as_str().unwrap_or_default().to_owned();
        if let Some((comment, rest)) = trailing
            .rsplit_once('\n')
            .filter(|(comment, _)| comment.contains('#'))
        {
            prefix = format!("{comment}{prefix}");
            list.set_trailing(format!("\n{rest}"));
        } else if prefix.is_empty() && !list.is_empty() {
            prefix = " ".to_owned();
        }
        let mut value = bare(value);
        value.decor_mut().set_prefix(prefix);
        list.push_formatted(value);
    }
}

/// The white space before a value, without comments that stand above it.
fn indentation(prefix: &str) -> String {
    match prefix.rsplit_once('\n') {
        Some((_, spaces)) => format!("\n{spaces}"),
        None => String::new(),
    }
}

fn bare(value: &Value) -> Value {
    let mut value = value.clone();
    value.decor_mut().clear();
    value
}

/// A new entry: `[limits]` and `[files.root]` become tables with a header, anything deeper stays in one line.
fn made(addition: &Item, depth: usize) -> Item {
    let Some(from) = addition.as_table_like() else {
        return addition.as_value().map_or(Item::None, |value| {
            Item::Value(bare(value).decorated(" ", ""))
        });
    };
    if depth > 2 {
        let mut inline = InlineTable::new();
        for (name, item) in from.iter() {
            if let Ok(value) = made(item, depth + 1).into_value() {
                inline.insert(name, value);
            }
        }
        inline.fmt();
        return Item::Value(Value::InlineTable(inline));
    }
    let mut table = Table::new();
    table.set_implicit(depth == 1 && from.iter().all(|(_, item)| item.is_table_like()));
    for (name, item) in from.iter() {
        table.insert_formatted(&Key::new(name), made(item, depth + 1));
    }
    Item::Table(table)
}

fn kind(item: &Item) -> &'static str {
    match item {
        Item::Value(Value::Array(_)) | Item::ArrayOfTables(_) => "a list",
        Item::Value(Value::InlineTable(_)) | Item::Table(_) => "a table",
        Item::Value(_) => "a single value",
        Item::None => "nothing",
    }
}

/// Replaces a file whole or not at all: a new file beside it, synced, renamed over it. Keeps the mode of an existing file and
/// follows links, so that a linked policy stays one.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = std::fs::metadata(&path).map_or(0o600, |known| known.permissions().mode() & 0o777);
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let part = path.with_file_name(format!(".{name}.{}", uuid::Uuid::new_v4().simple()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&part, &path))
        .and_then(|()| {
            path.parent().map_or(Ok(()), |directory| {
                std::fs::File::open(directory)?.sync_all()
            })
        });
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"# What tftp may do.
plugin = "tftp"

[files.root] # the tree
directory = "/srv/tftp"
access = "read" # for now
quota = { bytes = "1GiB" }

[sockets.server]
allow = [
    "tcp 192.0.2.1:53", # the first
    "udp 192.0.2.1:53",
]
"#;

    fn added(line: &str) -> String {
        add_line(POLICY, line).unwrap()
    }

    #[test]
    fn a_single_value_is_replaced_and_its_comment_stays() {
        let text = added(r#"files.root.access = "read-write""#);
        assert_eq!(text, POLICY.replace("\"read\" #", "\"read-write\" #"));
    }

    #[test]
    fn a_list_grows_in_its_own_layout() {
        let text = added(r#"sockets.server.allow = ["tcp 192.0.2.9:53", "udp 192.0.2.1:53"]"#);
        let want = POLICY.replace(
            "    \"udp 192.0.2.1:53\",\n",
            "    \"udp 192.0.2.1:53\",\n    \"tcp 192.0.2.9:53\",\n",
        );
        assert_eq!(text, want);
    }

    #[test]
    fn what_a_setting_says_is_said_there() {
        let policy =
            "plugin = \"discovery\"\n[http.nodes]\nnetworks = { setting = \"node_networks\" }\n";
        let told = add_line(policy, "http.nodes.networks = [\"192.0.2.7\"]").unwrap_err();
        assert_eq!(
            told.to_string(),
            "`http.nodes.networks` is what the setting `node_networks` says: add \"192.0.2.7\" to `node_networks` in \
             `[features.discovery]` of the configuration, and send SIGHUP"
        );
        let policy =
            "plugin = \"httpboot\"\n[files.root]\ndirectory = { setting = \"root_dir\" }\n";
        let told = add_line(policy, "files.root.directory = \"/srv/tftp\"").unwrap_err();
        assert_eq!(
            told.to_string(),
            "`files.root.directory` is what the setting `root_dir` says: write `root_dir = \"/srv/tftp\"` in \
             `[features.httpboot]` of the configuration, and send SIGHUP"
        );
    }

    #[test]
    fn a_line_that_a_setting_says_is_told_as_a_change_of_the_setting() {
        let left = left_to_settings(
            "plugin = \"p\"\n[http.\"a.b\"]\nnetworks = { setting = \"n\" }\nurl = \"http://x\"\n[files.root]\ndirectory = { setting = \"d\" }\n\
             [sockets.s]\nallow = [{ setting = \"s\", protocol = \"udp\", port = 53 }]\n[limits]\ncpu = \"1s\"\n",
        );
        let instead = |line: &str| instead_of(line, "p", &left);
        let ends = "in `[features.p]` of the configuration, and send SIGHUP";
        for (line, change) in [
            (
                "http.\"a.b\".networks = [\"192.0.2.7\"]",
                "add \"192.0.2.7\" to `n`",
            ),
            ("files.root.directory = \"/srv\"", "write `d = \"/srv\"`"),
            (
                "files.root = { directory = \"/srv\", access = \"read-write\" }",
                "write `d = \"/srv\"`",
            ),
        ] {
            assert_eq!(instead(line), Some(format!("{change} {ends}")), "{line}");
        }
        for line in [
            "http.\"a.b\".url = \"http://y\"",
            "files.root.access = \"read-write\"",
            "sockets.s.allow = [\"udp 192.0.2.1:53\"]",
            "files.root.directory",
        ] {
            assert_eq!(instead(line), None, "{line}");
        }
    }

    #[test]
    fn comments_stay_with_their_values() {
        let policy = "[names.zones]\nallow = [\n  # inside\n  \"a.example\", # first\n  \"b.example\", # second\n]\n";
        let want = "[names.zones]\nallow = [\n  # inside\n  \"a.example\", # first\n  \"b.example\", # second\n  \"c.example\",\n]\n";
        assert_eq!(
            add_line(policy, "names.zones.allow = [\"c.example\"]").unwrap(),
            want
        );
        let policy = "[names.zones]\nallow = [] # none\n";
        let want = "[names.zones]\nallow = [\"c.example\"] # none\n";
        assert_eq!(
            add_line(policy, "names.zones.allow = [\"c.example\"]").unwrap(),
            want
        );
    }

    #[test]
    fn missing_tables_are_made() {
        let text = added(r#"names.zones.allow = ["ns.example.com"]"#);
        assert_eq!(
            text,
            format!("{POLICY}\n[names.zones]\nallow = [\"ns.example.com\"]\n")
        );
        let text = added(r#"limits.memory = "1GiB""#);
        assert_eq!(text, format!("{POLICY}\n[limits]\nmemory = \"1GiB\"\n"));
        let text = added("files.root.quota.files = 5");
        assert_eq!(
            text,
            POLICY.replace("{ bytes = \"1GiB\" }", "{ bytes = \"1GiB\", files = 5 }")
        );
    }

    #[test]
    fn what_is_there_already_changes_nothing() {
        assert_eq!(
            added(r#"sockets.server.allow = ["udp 192.0.2.1:53"]"#),
            POLICY
        );
    }

    #[test]
    fn a_line_grants_nothing_but_grants() {
        assert!(matches!(
            add_line(POLICY, "plugin = \"x\""),
            Err(EditError::NotAGrant(_))
        ));
        assert!(matches!(
            add_line(POLICY, "approved = []"),
            Err(EditError::NotAGrant(_))
        ));
        assert!(matches!(add_line(POLICY, ""), Err(EditError::NotAGrant(_))));
        assert!(matches!(
            add_line(POLICY, "x = ["),
            Err(EditError::NotToml { .. })
        ));
        assert!(matches!(
            add_line(POLICY, "files.root = 1"),
            Err(EditError::Mismatch { .. })
        ));
        assert!(matches!(
            add_line(POLICY, "sockets.server.allow = 1"),
            Err(EditError::Mismatch { .. })
        ));
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("tftp.toml");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        write_whole(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
