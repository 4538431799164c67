//! Who is believed: each trick twice, once honest (it must work, or the trick would prove nothing) and once as a lie.
//!
//! The guest `mask` is whoever its bytes say; each variant is a file of its own digest.

use std::fs;

use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually};
use sha2::{Digest as _, Sha256};

/// The component with this text in it; see `tests/guests/mask`.
pub(crate) fn masked(text: &str) -> Vec<u8> {
    const MARK: &[u8] = b"@@MASK-OF-GUEST@";
    let mut wasm = bulkhead_fixtures::wasm("mask").to_vec();
    let at = wasm
        .windows(MARK.len())
        .position(|window| window == MARK)
        .expect("the guest has its mark");
    let place = &mut wasm[at + MARK.len()..at + 512];
    assert!(text.len() <= place.len());
    place.fill(b' ');
    place[..text.len()].copy_from_slice(text.as_bytes());
    wasm
}

/// The identity of a component.
pub(crate) fn digest(wasm: &[u8]) -> String {
    let hex: String = Sha256::digest(wasm)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// What a plugin sings, asked where it says it can be; the status where it does not.
fn song(bulkhead: &Bulkhead, mount: &str) -> String {
    let answer = bulkhead.foreman().get(&format!("{mount}/song"));
    match answer.status {
        200 => answer.text(),
        status => status.to_string(),
    }
}

/// One trick: the honest files and the lying ones, each with its file name.
struct Trick {
    name: &'static str,
    mount: &'static str,
    honest: &'static [(&'static str, &'static str)],
    lying: &'static [(&'static str, &'static str)],
    /// Policies beside `approved`, by plugin.
    policies: &'static [(&'static str, &'static str)],
    /// What the operator is told of the lie.
    told: &'static str,
}

/// A lie has a name of its own where the honest variant would come back as the last good version. In each, `thief` is the song of whoever should not be heard in the lie, and is heard in the honest variant.
const TRICKS: &[Trick] = &[
    Trick {
        name: "describe itself differently the second time",
        mount: "/lies",
        honest: &[("lies", "name=lies;mount=/lies;song=thief;")],
        lying: &[("lies", "name=lies;mount=/lies;song=thief;describe=lies;")],
        policies: &[],
        told: "two calls gave two different manifests",
    },
    Trick {
        name: "trap in describe",
        mount: "/dies",
        honest: &[("dies", "name=dies;mount=/dies;song=thief;")],
        lying: &[("dies", "name=dies;mount=/dies;song=thief;describe=dies;")],
        policies: &[],
        told: "`describe` failed",
    },
    Trick {
        name: "loop in describe",
        mount: "/spins",
        honest: &[("spins", "name=spins;mount=/spins;song=thief;")],
        lying: &[(
            "spins",
            "name=spins;mount=/spins;song=thief;describe=spins;",
        )],
        policies: &[],
        told: "`describe` failed",
    },
    Trick {
        name: "claim another plugin's path",
        mount: "/claimed",
        honest: &[("b-thief", "name=thief;mount=/claimed;song=thief;")],
        lying: &[
            ("a-owner", "name=owner;mount=/claimed;song=owner;"),
            ("b-thief", "name=thief;mount=/claimed;song=thief;"),
        ],
        policies: &[],
        told: "/claimed",
    },
    Trick {
        name: "claim a path that holds another plugin's route",
        mount: "/below/song",
        honest: &[("b-deep", "name=deep;mount=/below/song;song=thief;")],
        lying: &[
            ("a-below", "name=below;mount=/below;song=owner;"),
            ("b-deep", "name=deep;mount=/below/song;song=thief;"),
        ],
        policies: &[],
        told: "/below",
    },
    Trick {
        name: "call itself as another plugin does",
        mount: "/second",
        honest: &[("b-second", "name=twin;mount=/second;song=thief;")],
        lying: &[
            ("a-first", "name=twin;mount=/first;song=owner;"),
            ("b-second", "name=twin;mount=/second;song=thief;"),
        ],
        policies: &[],
        told: "a name belongs to one plugin",
    },
    Trick {
        name: "claim the core's path",
        mount: "/mine",
        honest: &[("mine", "name=mine;mount=/mine;song=thief;")],
        lying: &[("theirs", "name=theirs;mount=/features;song=thief;")],
        policies: &[],
        told: "belongs to the host itself",
    },
    Trick {
        name: "need what is not granted",
        mount: "/needy",
        honest: &[("needy", "name=needy;mount=/needy;song=thief;")],
        lying: &[("needy", "name=needier;mount=/needy;song=thief;need=root;")],
        policies: &[],
        told: "files.root.directory",
    },
    Trick {
        name: "call in a circle",
        mount: "/ring",
        honest: &[
            ("a-other", "name=other-ring;mount=/other-ring;song=owner;"),
            ("b-ring", "name=ring;mount=/ring;song=thief;call=around;"),
        ],
        lying: &[
            (
                "a-other",
                "name=other-ring;mount=/other-ring;song=owner;call=around;",
            ),
            ("b-ring", "name=ring;mount=/ring;song=thief;call=around;"),
        ],
        policies: &[
            ("ring", "[call.around]\nplugin = \"other-ring\""),
            ("other-ring", "[call.around]\nplugin = \"ring\""),
        ],
        told: "its calls go in a circle",
    },
];

#[test]
fn nobody_is_believed_further_than_the_truth() {
    let bulkhead = Bulkhead::with(Configuration::standard());
    let scratch = &bulkhead.configuration.scratch;
    let put = |name: &str, text: &str| {
        let new = scratch.file("plugins/.new", masked(text));
        fs::rename(new, scratch.join(format!("plugins/{name}.wasm"))).unwrap();
    };
    let name_of = |text: &str| {
        let name = text.split(';').next().unwrap_or_default();
        name.trim_start_matches("name=").to_owned()
    };
    for trick in TRICKS {
        let both = [trick.honest, trick.lying];
        let files = both.iter().flat_map(|files| files.iter());
        for (_, text) in files.clone() {
            let name = name_of(text);
            let approved: Vec<String> = files
                .clone()
                .filter(|(_, other)| name_of(other) == name)
                .map(|(_, text)| digest(&masked(text)))
                .collect();
            let grants = trick
                .policies
                .iter()
                .find(|(plugin, _)| *plugin == name)
                .map_or("", |(_, grants)| grants);
            scratch.file(
                &format!("policies/{name}.toml"),
                format!("plugin = {name:?}\napproved = {approved:?}\n{grants}\n"),
            );
        }
        for (file, text) in trick.honest {
            put(file, text);
        }
        assert_eventually!(
            song(&bulkhead, trick.mount) == "thief",
            "{}: the honest variant does not serve, so nothing is proven: {}\n{}",
            trick.name,
            song(&bulkhead, trick.mount),
            bulkhead.admin().get("/plugins").text()
        );
        for (file, _) in trick.honest {
            fs::remove_file(scratch.join(format!("plugins/{file}.wasm"))).unwrap();
        }
        assert_eventually!(song(&bulkhead, trick.mount) != "thief", "{}", trick.name);
        for (file, text) in trick.lying {
            put(file, text);
            // One after the other: the first has the right.
            let name = format!("{file}.wasm");
            assert_eventually!(
                bulkhead.admin().get("/plugins").text().contains(&name),
                "{}: {name} is not looked at",
                trick.name
            );
        }
        let told = || bulkhead.admin().get("/plugins").text();
        assert_eventually!(
            told().contains(trick.told),
            "{}: the operator is not told {:?}:\n{}",
            trick.name,
            trick.told,
            told()
        );
        assert_ne!(song(&bulkhead, trick.mount), "thief", "{}", trick.name);
        for (file, _) in trick.lying {
            fs::remove_file(scratch.join(format!("plugins/{file}.wasm"))).unwrap();
        }
    }
    let features = bulkhead.foreman().get("/features").json();
    assert!(
        features
            .as_array()
            .is_some_and(|it| it.contains(&"tftp".into()))
    );
}

/// A file that calls itself `tftp` while the program's own does not run; approved it may serve, otherwise it waits and gets nothing of the real one's policy.
#[test]
fn a_file_that_calls_itself_tftp_inherits_nothing() {
    let wasm = masked("name=tftp;mount=/tftp;song=thief;need=root;");
    let configuration = Configuration::empty().feature("tftp", "enabled = true");
    let boot = configuration.boot();
    configuration.scratch.file("boot/canary", "x");
    configuration.scratch.file("plugins/mine.wasm", &wasm);
    let grants = format!("[files.root]\ndirectory = {:?}", boot.display().to_string());
    let configuration = configuration.policy("tftp", &grants).unbundled();
    let bulkhead = Bulkhead::launch(configuration, &[]);
    let plugins = || {
        let answer = bulkhead.admin().request("GET", "/plugins").try_send();
        answer.map(|it| it.text()).unwrap_or_default()
    };
    assert_eventually!(plugins().contains("is not approved"), "{}", plugins());
    assert_ne!(song(&bulkhead, "/tftp"), "thief");
    bulkhead.configuration.clone().policy(
        "tftp",
        &format!("approved = [{:?}]\n{grants}", digest(&wasm)),
    );
    assert_eventually!(song(&bulkhead, "/tftp") == "thief", "{}", plugins());
}
