//! The life of a file in the plugin directory, as an operator sees it in `plugin list`: a reason for whatever does not serve, and nothing else disturbed.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, run};

use crate::masks::{digest, masked};

/// A version of a plugin that sings this.
fn version(song: &str) -> Vec<u8> {
    masked(&format!("name=mask;mount=/mask;song={song};"))
}

/// A directory into which files are renamed, as a careful operator does, or written slowly, as a careless one does.
struct Site {
    bulkhead: Bulkhead,
}

impl Site {
    fn start(configuration: Configuration) -> Self {
        Self {
            bulkhead: Bulkhead::with(configuration),
        }
    }

    fn put(&self, name: &str, content: &[u8]) {
        let scratch = &self.bulkhead.configuration.scratch;
        let new = scratch.file("plugins/.new", content);
        fs::rename(new, scratch.join(format!("plugins/{name}.wasm"))).unwrap();
    }

    fn song(&self) -> String {
        let answer = self.bulkhead.foreman().get("/mask/song");
        match answer.status {
            200 => answer.text(),
            status => status.to_string(),
        }
    }

    /// State and reason of the plugin or file whose name or origin holds this.
    fn said(&self, of: &str) -> String {
        let plugins = self.bulkhead.admin().get("/plugins").json();
        let found = plugins.as_array().into_iter().flatten().find(|plugin| {
            let word = |key: &str| plugin[key].as_str().unwrap_or_default().to_owned();
            word("name") == of || word("name").ends_with(&format!("/{of}"))
        });
        found.map_or_else(String::new, |plugin| {
            format!(
                "{} {}",
                plugin["state"].as_str().unwrap_or_default(),
                plugin["reason"]
            )
        })
    }

    /// What was there before serves on.
    #[track_caller]
    fn undisturbed(&self) {
        let answer = self.bulkhead.foreman().get("/tftp/serverName");
        assert_eq!(answer.status, 200, "{answer}");
    }
}

fn approved(versions: &[&[u8]]) -> String {
    let digests: Vec<String> = versions.iter().map(|wasm| digest(wasm)).collect();
    format!("approved = {digests:?}")
}

#[test]
fn what_does_not_serve_has_a_reason_and_disturbs_nobody() {
    let (whole, good) = (version("whole"), bulkhead_fixtures::wasm("hello"));
    let configuration = Configuration::standard()
        .policy("mask", &approved(&[&whole]))
        .section("[engine]\nplugin_size = \"1MiB\"");
    let site = Site::start(configuration);
    for (name, content, reason) in [
        ("empty", Vec::new(), "the file is empty"),
        (
            "text",
            b"no component".to_vec(),
            "does not begin like WebAssembly",
        ),
        ("module", b"\0asm\x01\0\0\0".to_vec(), "it is a core module"),
        (
            "half",
            good[..good.len() / 2].to_vec(),
            "not a valid component",
        ),
        (
            "worldless",
            b"\0asm\x0d\0\x01\0".to_vec(),
            "does not export `foreman:proxy/lifecycle",
        ),
        ("large", [good, &vec![0; 2 << 20]].concat(), "1048576"),
    ] {
        site.put(name, &content);
        let file = format!("{name}.wasm");
        assert_eventually!(
            site.said(&file).contains(reason),
            "{name}: {:?}\n{}",
            site.said(&file),
            site.bulkhead.log()
        );
        assert!(
            site.said(&file).starts_with("failed"),
            "{}",
            site.said(&file)
        );
        site.undisturbed();
    }
    // All of them at once, each with its own row; a file that goes takes its row along.
    assert!(site.said("empty.wasm").contains("empty") && site.said("text.wasm").contains("begin"));
    fs::remove_file(
        site.bulkhead
            .configuration
            .scratch
            .join("plugins/empty.wasm"),
    )
    .unwrap();
    assert_eventually!(
        site.said("empty.wasm").is_empty(),
        "{}",
        site.said("empty.wasm")
    );
    // The command says the same.
    let config = site.bulkhead.configuration.path();
    let listed = run(["plugin", "list", "--config", config.to_str().unwrap()]);
    assert!(
        listed.stdout.contains("module.wasm") && listed.stdout.contains("core module"),
        "{}",
        listed.text()
    );

    // A file that is still being written is looked at when it is whole, not before.
    let slow = site
        .bulkhead
        .configuration
        .scratch
        .join("plugins/mask.wasm");
    let mut file = fs::File::create(&slow).unwrap();
    for piece in whole.chunks(whole.len() / 12 + 1) {
        file.write_all(piece).unwrap();
        file.sync_all().unwrap();
        std::thread::sleep(Duration::from_millis(60));
    }
    drop(file);
    assert_eventually!(
        site.song() == "whole",
        "{}\n{}",
        site.said("mask"),
        site.bulkhead.log()
    );
    let early = site.bulkhead.log_lines("mask.wasm: plugin does not run");
    assert!(early.is_empty(), "{early:?}");
    site.undisturbed();
}

#[test]
fn a_component_that_keeps_the_compiler_busy_is_given_up() {
    // Less than the compiler needs for anything. Nobody has compiled this one before, so no cache has it.
    let configuration = Configuration::empty()
        .unbundled()
        .section("[engine]\ncompile_memory = \"64MiB\"");
    let unheard = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let site = Site::start(configuration);
    site.put("heavy", &version(&unheard.to_string()));
    assert_eventually!(
        site.said("heavy.wasm").contains("compiling was stopped"),
        "{}\n{}",
        site.said("heavy.wasm"),
        site.bulkhead.log()
    );
    assert_eq!(site.bulkhead.foreman().get("/features").status, 200);
}

/// The time is the operator's: the same file is given up after a second, and runs where it may take its two minutes.
#[test]
fn a_component_may_take_as_long_to_compile_as_the_operator_says() {
    let mut long = version("at last");
    long.extend(module(120, 50_000));
    let site = |engine: &str| {
        let configuration = Configuration::empty()
            .unbundled()
            .policy("mask", &approved(&[&long]))
            .section(&format!("[engine]\nplugin_size = \"16MiB\"\n{engine}"));
        let site = Site::start(configuration);
        site.put("mask", &long);
        site
    };
    let hurried = site("compile_time = \"1s\"");
    assert_eventually!(
        hurried.said("mask.wasm").contains("compiling was stopped"),
        "{}\n{}",
        hurried.said("mask.wasm"),
        hurried.bulkhead.log()
    );
    assert_eq!(hurried.song(), "404");
    let patient = site("");
    assert_eventually!(
        patient.song() == "at last",
        "{}\n{}",
        patient.said("mask"),
        patient.bulkhead.log()
    );
}

/// A section of a component: a core module that nobody instantiates, of so many functions with so many bytes of arithmetic each.
fn module(functions: usize, size: usize) -> Vec<u8> {
    fn number(mut value: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let low = u8::try_from(value & 0x7f).unwrap();
            value >>= 7;
            bytes.push(if value == 0 { low } else { low | 0x80 });
            if value == 0 {
                return bytes;
            }
        }
    }
    let section = |id: u8, content: Vec<u8>| [vec![id], number(content.len()), content].concat();
    // No locals; `(argument * 3) ^ 5`, again and again.
    let steps = [0x41, 3, 0x6c, 0x41, 5, 0x73].repeat(size / 6);
    let body = [vec![0, 0x20, 0], steps, vec![0x0b]].concat();
    let body = [number(body.len()), body].concat();
    let code = [number(functions), body.repeat(functions)].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, vec![1, 0x60, 1, 0x7f, 1, 0x7f]),
        section(3, [number(functions), vec![0; functions]].concat()),
        section(10, code),
    ];
    section(1, module.concat())
}

#[test]
fn the_last_good_version_stays_until_a_better_one_runs_and_is_back_at_once() {
    let (one, two) = (version("one"), version("two"));
    let bad = masked("name=mask;mount=/mask;song=bad;start=fails;");
    let third = version("three");
    let configuration = Configuration::standard().policy("mask", &approved(&[&one, &two, &bad]));
    let site = Site::start(configuration);
    site.put("mask", &one);
    assert_eventually!(site.song() == "one", "{}", site.bulkhead.log());
    site.put("mask", &two);
    assert_eventually!(site.song() == "two", "{}", site.bulkhead.log());
    site.put("mask", &bad);
    assert_eventually!(
        site.said("mask").contains("it does not want to"),
        "{}",
        site.said("mask")
    );
    assert_eq!(site.song(), "two");
    // A changed file of a third party waits; the old version serves meanwhile.
    site.put("mask", &third);
    assert_eventually!(
        site.said("mask").contains("the file changed"),
        "{}",
        site.said("mask")
    );
    assert_eq!(site.song(), "two");

    let config = site.bulkhead.configuration.path();
    let command = |what: &str| {
        let done = run(["plugin", what, "mask", "--config", config.to_str().unwrap()]);
        assert_eq!(done.code(), Some(0), "{}", done.text());
        done.text()
    };
    let start = Instant::now();
    let told = command("rollback");
    assert!(
        told.contains(&digest(&one)) && told.contains("stays out"),
        "{told}"
    );
    assert_eq!(site.song(), "one", "{}", site.bulkhead.log());
    println!(
        "rolled back within {:?}, the command included",
        start.elapsed()
    );
    // What is said of it is said of this version.
    assert!(
        site.said("mask").contains("rolled back"),
        "{}",
        site.said("mask")
    );
    assert!(
        !site.said("mask").contains("the file changed"),
        "{}",
        site.said("mask")
    );
    // A look at the directory does not undo it.
    site.put("other", b"a file, so that the directory is looked at");
    assert_eventually!(!site.said("other.wasm").is_empty());
    assert_eq!(site.song(), "one");
    // What waited is approved by the operator, and serves.
    site.put("mask", &third);
    command("approve");
    assert_eventually!(
        site.song() == "three",
        "{}\n{}",
        site.said("mask"),
        site.bulkhead.log()
    );
    fs::remove_file(
        site.bulkhead
            .configuration
            .scratch
            .join("plugins/mask.wasm"),
    )
    .unwrap();
    assert_eventually!(site.song() == "404", "{}", site.song());
    assert!(site.said("mask").is_empty(), "{}", site.said("mask"));
    site.undisturbed();
}

/// A new version that needs more than the one that runs waits beside it, and takes over with the change of the policy that it waited for: a line, or its
/// digest. What the operator went back from does not come back with any.
#[test]
fn a_version_that_asks_for_more_takes_over_with_what_it_waited_for() {
    let one = version("one");
    let more = masked("name=mask;mount=/mask;song=more;need=data;");
    let configuration = Configuration::standard().policy("mask", &approved(&[&one]));
    let data = configuration.scratch.directory("data");
    let site = Site::start(configuration);
    let path = site.bulkhead.configuration.path();
    let command = |words: &[&str]| {
        let place = ["--config", path.to_str().unwrap()];
        let done = run(words.iter().copied().chain(place));
        assert_eq!(done.code(), Some(0), "{}", done.text());
        done.stdout
    };
    site.put("mask", &one);
    assert_eventually!(site.song() == "one", "{}", site.bulkhead.log());
    site.put("mask", &more);
    // Who approves right after means the file that is there. It lacks a grant: the command does not say that it runs, and the list says what would let it.
    let told = command(&["plugin", "approve", "mask"]);
    assert!(
        told.contains(&digest(&more))
            && told.contains("is approved, but does not run: ")
            && told.contains("it needs files `data`")
            && told.contains("runs on"),
        "{told}"
    );
    let listed = command(&["plugin", "list"]);
    assert!(
        listed.contains("The policy of mask lacks:\n  files.data.directory = "),
        "{listed}"
    );
    assert_eq!(site.song(), "one");
    // Another change brings up the version that runs anew; the other one waits on.
    command(&["policy", "allow", "mask", "limits.warm = 2"]);
    assert_eq!(site.song(), "one");
    assert!(
        site.said("mask").contains("it needs files `data`"),
        "{}",
        site.said("mask")
    );
    let line = format!("files.data.directory = {:?}", data.display().to_string());
    let told = command(&["policy", "allow", "mask", &line]);
    assert!(told.contains("it holds from now on"), "{told}");
    assert_eq!(site.song(), "more", "{}", site.bulkhead.log());

    // Its digest, written into the policy by hand, is what the next one waits for.
    let next = masked("name=mask;mount=/mask;song=next;need=data;");
    site.put("mask", &next);
    assert_eventually!(
        site.said("mask").contains("the file changed"),
        "{}",
        site.said("mask")
    );
    let scratch = &site.bulkhead.configuration.scratch;
    let policy = scratch.join("policies/mask.toml");
    let text = fs::read_to_string(&policy).unwrap();
    let digests = approved(&[&one, &more]);
    let text = text.replace(&approved(&[&one]), &digests);
    assert!(text.contains(&digests), "{text}");
    let with_next = text.replace(&digests, &approved(&[&one, &more, &next]));
    fs::write(&policy, &with_next).unwrap();
    assert_eventually!(site.song() == "next", "{}", site.said("mask"));

    // What was rolled back stays out, whatever is written into the policy.
    command(&["plugin", "rollback", "mask"]);
    assert_eq!(site.song(), "more");
    let told = command(&[
        "policy",
        "allow",
        "mask",
        "names.more.allow = [\"x.example.com\"]",
    ]);
    assert_eq!(site.song(), "more", "{told}");
    // A line for what nobody asked for is written and gives nothing; that is said.
    assert!(
        told.contains("`names.more` grants what the plugin does not ask for"),
        "{told}"
    );
    command(&["plugin", "approve", "mask"]);
    assert_eq!(site.song(), "next");
}
