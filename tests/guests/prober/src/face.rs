//! Who it says it is. A test overwrites the text after the mark; each line is a word and its fields, with tabs between:
//!
//! | Line | |
//! |---|---|
//! | `name NAME`, `mount PREFIX` | instead of `prober` and `/prober` |
//! | `need CAPABILITY SLOT ACCESS REQUIRED` | instead of its own needs |
//! | `setting NAME KIND DEFAULT REQUIRED` | no default: an empty field |

use std::hint::black_box;

use bulkhead_sdk::manifest::DefaultValue;
use bulkhead_sdk::prelude::*;

/// Begins with a mark that a test can find: 16 bytes of mark, the rest text.
static FACE: [u8; 8192] = blank(b"@@FACE-OF-PROBER");

const fn blank(mark: &[u8; 16]) -> [u8; 8192] {
    let mut face = [b' '; 8192];
    let (start, _) = face.split_at_mut(mark.len());
    start.copy_from_slice(mark);
    face
}

/// Whose face it wears.
pub(crate) struct Face {
    pub(crate) name: String,
    pub(crate) mount: String,
    lines: Vec<Vec<String>>,
}

impl Face {
    /// Read at run time: what the compiler knows is not what stands there.
    pub(crate) fn worn() -> Self {
        let face = black_box(&FACE);
        Self::read(&String::from_utf8_lossy(face.get(16..).unwrap_or_default()))
    }

    fn read(text: &str) -> Self {
        let lines: Vec<Vec<String>> = text
            .trim_end_matches(' ')
            .lines()
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect();
        let said = |word: &str, own: &str| {
            let line = lines
                .iter()
                .find(|line| line.first().is_some_and(|it| it == word));
            line.and_then(|line| line.get(1))
                .map_or_else(|| own.to_owned(), Clone::clone)
        };
        Self {
            name: said("name", "prober"),
            mount: said("mount", "/prober"),
            lines,
        }
    }

    /// The needs and settings of the face, or `own` where it has none.
    pub(crate) fn needs_and_settings(
        &self,
        mut manifest: Manifest,
        own: impl Fn(Manifest) -> Manifest,
    ) -> Manifest {
        if self.lines.is_empty() {
            return own(manifest);
        }
        for line in &self.lines {
            let field = |n: usize| line.get(n).map(String::as_str).unwrap_or_default();
            manifest = match field(0) {
                "need" => manifest.need(need(field(1), field(2), field(3), field(4) == "true")),
                "setting" => {
                    manifest.setting(setting(field(1), field(2), field(3), field(4) == "true"))
                }
                _ => manifest,
            };
        }
        manifest
    }
}

fn need(capability: &str, slot: &str, access: &str, required: bool) -> Need {
    const WHY: &str = "says it needs it";
    let mode = match access {
        "read-write" => Access::ReadWrite,
        _ => Access::Read,
    };
    let need = match (capability, access) {
        ("files", _) => Need::files(slot, mode, WHY),
        ("store", _) => Need::store(slot, mode, WHY),
        ("sockets", "tcp") => Need::tcp(slot, WHY),
        ("sockets", "udp") => Need::udp(slot, WHY),
        ("sockets", _) => Need::tcp_and_udp(slot, WHY),
        ("secrets", "reveal") => Need::secret_revealed(slot, WHY),
        ("secrets", _) => Need::secret(slot, WHY),
        ("downloads", _) => Need::downloads(slot, WHY),
        ("foreman", _) => Need::foreman(slot, WHY),
        ("http", _) => Need::http(slot, WHY),
        ("names", _) => Need::names(slot, WHY),
        ("listen", _) => Need::listen(slot, WHY),
        ("call", interface) => Need::call(slot, interface, WHY),
        ("watch", _) => Need::watch(slot, WHY),
        ("probe", _) => Need::probe(slot, WHY),
        _ => Need::link(slot, WHY),
    };
    if required { need } else { need.optional() }
}

/// A default as the manifest has it.
struct Written<'a>(&'a str);

impl DefaultValue for Written<'_> {
    fn toml(&self) -> String {
        self.0.to_owned()
    }
}

fn setting(name: &str, kind: &str, default: &str, required: bool) -> Setting {
    const HELP: &str = "as the other has it";
    let setting = match kind {
        "integer" => Setting::integer(name, HELP),
        "boolean" => Setting::boolean(name, HELP),
        "url" => Setting::url(name, HELP),
        "texts" => Setting::texts(name, HELP),
        "path" => Setting::path(name, HELP),
        _ => Setting::text(name, HELP),
    };
    let setting = match default {
        "" => setting,
        written => setting.default(Written(written)),
    };
    if required {
        setting.required()
    } else {
        setting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_face_it_is_itself_and_with_one_somebody_else() {
        let own = |manifest: Manifest| manifest.need(Need::names("zone", "own"));
        let itself = Face::worn();
        assert_eq!(
            (itself.name.as_str(), itself.mount.as_str()),
            ("prober", "/prober")
        );
        let face = Face::read(
            "name\tdns\nmount\t/as-dns\nneed\tcall\tprovider\tsome:thing/x\ttrue\nsetting\tttl\tinteger\t60\ttrue\n   ",
        );
        let manifest = Manifest::new(&face.name, "1.0.0", "");
        let manifest = face.needs_and_settings(manifest, own);
        let record = manifest.record();
        assert_eq!(record.name, "dns");
        assert_eq!(record.needs.len(), 1);
        assert_eq!(record.needs[0].access, "some:thing/x");
        assert!(record.needs[0].required);
        assert_eq!(record.settings[0].default.as_deref(), Some("60"));
    }
}
