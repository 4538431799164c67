//! `kill -9` in the middle of writing: every file is a whole old or a whole new version, and what was answered is there.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bulkhead_testkit::scratch::files_below;
use bulkhead_testkit::{Bulkhead, Configuration, Signal, run};

/// Writes a round.
const WRITES: usize = 1_000;

/// Different hosts: each is written many times.
const HOSTS: usize = 40;

/// A menu that says of itself which version it is and how long: a part or a mixture cannot pass for one.
fn menu(version: usize) -> String {
    let line = format!("menuentry 'version {version}' {{ linux /boot/vmlinuz-{version} }}\n");
    let lines = 1 + version % 300;
    format!(
        "# version {version} of {lines} lines\n{}# end of {version}\n",
        line.repeat(lines)
    )
}

/// The version of a whole menu; `None` if it is not whole.
fn version_of(content: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(content).ok()?;
    let version = text
        .strip_prefix("# version ")?
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    (text == menu(version)).then_some(version)
}

#[test]
fn a_kill_during_a_thousand_writes_leaves_every_file_whole() {
    let mut bulkhead = Bulkhead::trial();
    let mut first = 0;
    // Different moments of the kill: early, in the middle, late.
    for killed_after in [150, 450, 800] {
        let acknowledged = write_until_killed(&bulkhead, first, killed_after);
        bulkhead
            .wait_for_end(Duration::from_secs(10))
            .expect("nothing survives SIGKILL");
        let files = files_below(&bulkhead.boot());
        let visible: Vec<_> = files
            .iter()
            .filter(|(name, _)| name.starts_with("grub2/grub.cfg"))
            .collect();
        assert!(visible.len() >= HOSTS, "only {} files", visible.len());
        for (name, content) in &visible {
            let version = version_of(content);
            assert!(
                version.is_some(),
                "{name} is not whole ({} bytes)",
                content.len()
            );
            let mac = name.rsplit('-').take(6).collect::<Vec<_>>().join("");
            assert!(!mac.is_empty());
        }
        for (host, version) in &acknowledged {
            for name in [
                format!("grub2/grub.cfg-01-{}", mac(*host).replace(':', "-")),
                format!("grub2/grub.cfg-{}", mac(*host)),
            ] {
                let found = files
                    .iter()
                    .find(|(known, _)| *known == name)
                    .and_then(|(_, content)| version_of(content));
                assert!(
                    found >= Some(*version),
                    "{name}: version {version} was answered, {found:?} is there"
                );
            }
        }
        bulkhead.restart_after(Signal::Kill);
        // Whatever was left half-written is gone, and the next write works.
        let odd: Vec<_> = files_below(&bulkhead.boot())
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| !name.starts_with("grub2/grub.cfg-"))
            .collect();
        bulkhead_testkit::assert_eventually!(
            files_below(&bulkhead.boot())
                .iter()
                .all(|(name, _)| name.starts_with("grub2/grub.cfg-")),
            "left behind: {odd:?}"
        );
        first += WRITES;
    }
}

fn mac(host: usize) -> String {
    format!("52:54:00:00:00:{host:02x}")
}

/// Writes from eight sides until the program is killed; answers the newest acknowledged version of each host.
fn write_until_killed(
    bulkhead: &Bulkhead,
    first: usize,
    killed_after: usize,
) -> BTreeMap<usize, usize> {
    let acknowledged = Mutex::new(BTreeMap::new());
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for side in 0..8 {
            let (acknowledged, next, done) = (&acknowledged, &next, &done);
            scope.spawn(move || {
                let target = bulkhead.foreman();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= WRITES {
                        return;
                    }
                    // A host belongs to one side, so that its versions grow.
                    let host = side + 8 * (number % (HOSTS / 8));
                    let version = first + number;
                    let path = format!("/tftp/PXEGrub2/{}", mac(host));
                    match target
                        .request("POST", &path)
                        .form(&[("pxeconfig", &menu(version))])
                        .try_send()
                    {
                        Ok(answer) => {
                            assert_eq!(answer.status, 200, "{answer}");
                            acknowledged.lock().unwrap().insert(host, version);
                            if done.fetch_add(1, Ordering::Relaxed) == killed_after {
                                bulkhead.signal(Signal::Kill);
                            }
                        }
                        // Killed meanwhile.
                        Err(_) => return,
                    }
                }
            });
        }
    });
    assert!(
        done.load(Ordering::Relaxed) > killed_after,
        "it ended before it was killed"
    );
    acknowledged.into_inner().unwrap()
}

/// Machine code that finds no room on the disk costs the next start its time, and no plugin.
#[test]
fn a_full_disk_costs_the_cache_and_no_plugin() {
    let configuration = Configuration::empty().unbundled();
    let state = configuration.state().display().to_string();
    let small = "mount -t tmpfs -o size=192k,mode=0700 tmpfs \"$0\" && exec \"$@\"";
    let bulkhead = Bulkhead::with(
        configuration
            .plugin("hello", bulkhead_fixtures::wasm("hello"), "")
            .under(&["unshare", "--mount", "sh", "-c", small, &state]),
    );
    let answer = bulkhead.hosts().get("/hello/World");
    assert_eq!(
        answer.text().trim_end(),
        "Hello, World!",
        "{}",
        bulkhead.log()
    );
    assert!(
        bulkhead.log().contains("compile cache not written"),
        "{}",
        bulkhead.log()
    );
}

/// A file of the state directory that is damaged ends the start, and stays as it is: what to do is said, and an operator's to decide.
#[test]
fn damaged_files_of_the_state_are_named_and_left_alone() {
    let configuration = Configuration::empty().unbundled();
    let path = configuration.write();
    for (file, said) in [
        ("approvals.json", "remove it and approve"),
        (
            "versions/history.json",
            "which versions ran before is forgotten",
        ),
        ("store.redb", "move it away to begin with an empty one"),
    ] {
        let damaged = configuration
            .scratch
            .file(&format!("state/{file}"), "{junk");
        let told = run(["serve", "--config", path.to_str().unwrap()]);
        assert_eq!(told.code(), Some(1), "{}", told.text());
        assert!(
            told.stderr.contains(file) && told.stderr.contains(said),
            "{file}: {}",
            told.text()
        );
        assert_eq!(std::fs::read(&damaged).unwrap(), b"{junk", "{file}");
        std::fs::remove_file(damaged).unwrap();
    }
}
