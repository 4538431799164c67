//! contract/tftp.md, section "fetch_boot_file": boot files fetched from installation media in the background.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use bulkhead_testkit::medium::{LAST_MODIFIED, LAST_MODIFIED_SECONDS, Medium};
use bulkhead_testkit::program::Shared;
use bulkhead_testkit::scratch::files_below;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually};

use crate::{HTML, JSON};

static BULKHEAD: Shared = Shared::new(start);

fn start() -> Bulkhead {
    Bulkhead::with(Configuration::standard().local_media())
}

/// Downloads are tried again after seconds; a test that needs it waits so long.
const DOWNLOAD: Duration = Duration::from_secs(60);

fn fetch(bulkhead: &Bulkhead, prefix: &str, path: &str) -> bulkhead_testkit::Response {
    bulkhead.foreman().post(
        "/tftp/fetch_boot_file",
        &[("prefix", prefix), ("path", path)],
    )
}

/// 1: the name is prefix, dash, last segment of the path; no dash after a slash.
#[test]
fn the_name_is_made_of_prefix_and_basename() {
    let (bulkhead, medium) = (BULKHEAD.get(), Medium::start());
    for (prefix, name, file) in [
        ("boot/centos-9", "vmlinuz", "boot/centos-9-vmlinuz"),
        ("boot/debian/", "vmlinuz", "boot/debian/vmlinuz"),
        ("boot/deep/er/x", "initrd.img", "boot/deep/er/x-initrd.img"),
    ] {
        medium.put(name, format!("content of {file}"));
        fetch(&bulkhead, prefix, &medium.url(&format!("file/{name}"))).assert_is(200, HTML, "");
        let path = bulkhead.boot().join(file);
        assert_eventually!(path.exists(), "{file} never appeared:\n{}", bulkhead.log());
        assert_eq!(
            fs::read_to_string(path).unwrap(),
            format!("content of {file}")
        );
    }
}

/// 5: the answer does not wait for the transfer.
#[test]
fn the_answer_comes_before_the_file() {
    let (bulkhead, medium) = (BULKHEAD.get(), Medium::start());
    medium.put("slow-image", vec![7; 1 << 20]);
    let start = Instant::now();
    fetch(&bulkhead, "boot/slow", &medium.url("slow/slow-image")).assert_is(200, HTML, "");
    assert!(
        start.elapsed() < Duration::from_millis(1_500),
        "it took {:?}",
        start.elapsed()
    );
    let path = bulkhead.boot().join("boot/slow-slow-image");
    assert!(!path.exists(), "a part of the file is visible");
    assert_eventually!(path.exists(), "{}", bulkhead.log());
    assert_eq!(
        fs::read(path).unwrap(),
        vec![7; 1 << 20],
        "the file appears whole"
    );
}

/// 5 and 6: nothing is written when the medium answers an error, and the log says why.
#[test]
fn error_pages_never_become_boot_files() {
    let (bulkhead, medium) = (BULKHEAD.get(), Medium::start());
    for status in ["404", "403", "500"] {
        fetch(
            &bulkhead,
            "boot/error",
            &medium.url(&format!("status/{status}")),
        )
        .assert_is(200, HTML, "");
        // An error of the server itself may pass: it is tried again before it is told.
        let told = || {
            let line = format!("path=boot/error-{status}");
            bulkhead
                .log()
                .lines()
                .any(|one| one.contains("failed") && one.contains(&line))
                .then_some(())
        };
        let told = bulkhead_testkit::eventually::until_within(DOWNLOAD, told);
        assert!(
            told.is_some(),
            "the failure is not logged:\n{}",
            bulkhead.log()
        );
        assert!(
            !bulkhead
                .boot()
                .join(format!("boot/error-{status}"))
                .exists(),
            "{status}"
        );
    }
}

/// 6: redirects are followed, the server's time is kept, and an unchanged file is not fetched again.
#[test]
fn downloads_follow_redirects_and_keep_the_servers_time() {
    let (bulkhead, medium) = (BULKHEAD.get(), Medium::start());
    medium.put("kernel", "the kernel");
    let url = medium.redirect("kernel", &medium.url("file/kernel"));
    fetch(&bulkhead, "boot/redirected", &url).assert_is(200, HTML, "");
    let path = bulkhead.boot().join("boot/redirected-kernel");
    assert_eventually!(path.exists(), "{}", bulkhead.log());
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(
        modified,
        SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_MODIFIED_SECONDS)
    );

    let before = medium.requests().len();
    fetch(&bulkhead, "boot/redirected", &url).assert_is(200, HTML, "");
    assert_eventually!(medium.requests().len() >= before + 2);
    let last = medium.requests().pop().unwrap();
    assert_eq!(
        last.header("if-modified-since"),
        Some(LAST_MODIFIED),
        "{last:?}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "the kernel");
}

/// 6: a transfer that breaks is taken up again until the file is whole.
#[test]
fn a_broken_transfer_is_tried_again() {
    let (bulkhead, medium) = (BULKHEAD.get(), Medium::start());
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    medium.put("broken", content.clone());
    fetch(&bulkhead, "boot/retried", &medium.url("reset/broken")).assert_is(200, HTML, "");
    let path = bulkhead.boot().join("boot/retried-broken");
    let found =
        bulkhead_testkit::eventually::until_within(DOWNLOAD, || path.exists().then_some(()));
    assert!(
        found.is_some(),
        "it was not tried again:\n{}",
        bulkhead.log()
    );
    assert_eq!(fs::read(path).unwrap(), content);
}

/// 7: a target that is being fetched is not fetched twice, and the second call is a success.
#[test]
fn a_target_is_fetched_once_at_a_time() {
    let (bulkhead, medium) = (BULKHEAD.get(), Medium::start());
    medium.put("once", vec![1; 100_000]);
    for _ in 0..5 {
        fetch(&bulkhead, "boot/single", &medium.url("slow/once")).assert_is(200, HTML, "");
    }
    let path = bulkhead.boot().join("boot/single-once");
    assert_eventually!(path.exists(), "{}", bulkhead.log());
    assert_eq!(medium.requests().len(), 1);
}

/// 2: a name that leads out of the root, however it is spelt. The original compares strings and lets a sibling whose
/// name begins like the root's pass; here components are compared.
#[test]
fn targets_outside_the_root_are_refused() {
    let (bulkhead, medium) = (BULKHEAD.get(), Medium::start());
    medium.put("x", "escaped");
    let scratch = &bulkhead.configuration.scratch;
    let sibling = scratch.directory("boot2");
    let outside = scratch.join("outside").display().to_string();
    for prefix in [
        "../x",
        "../boot2/x",
        "boot/../../x",
        outside.as_str(),
        "/etc/x",
        "boot/../../boot2/",
    ] {
        fetch(&bulkhead, prefix, &medium.url("file/x")).assert_is(
            400,
            JSON,
            "TFTP: Failed to fetch boot file: TFTP destination outside of tftproot",
        );
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(fs::read_dir(sibling).unwrap().count(), 0);
    assert!(!scratch.path().parent().unwrap().join("x-x").exists());
    assert!(
        medium.requests().is_empty(),
        "nothing may be fetched: {:?}",
        medium.requests()
    );
}

/// 2: an absolute prefix inside the root is taken as it is.
#[test]
fn an_absolute_prefix_inside_the_root_is_fine() {
    let (bulkhead, medium) = (BULKHEAD.get(), Medium::start());
    medium.put("y", "inside");
    let prefix = bulkhead.boot().join("absolute/x").display().to_string();
    fetch(&bulkhead, &prefix, &medium.url("file/y")).assert_is(200, HTML, "");
    assert_eventually!(
        bulkhead.boot().join("absolute/x-y").exists(),
        "{}",
        bulkhead.log()
    );
}

/// 4: NFS media are none of the proxy's business; other schemes are refused with the contract's words.
#[test]
fn schemes_are_checked() {
    let bulkhead = BULKHEAD.get();
    fetch(&bulkhead, "boot/nfs", "nfs://192.0.2.1:/export/vmlinuz").assert_is(200, HTML, "");
    assert!(!bulkhead.boot().join("boot/nfs-vmlinuz").exists());
    for path in ["gopher://m.example.com/vmlinuz", "file:///etc/passwd"] {
        let expected = format!(
            "TFTP: Failed to fetch boot file: Cannot fetch boot file, unknown protocol for medium source path: {path}"
        );
        fetch(&bulkhead, "boot/scheme", path).assert_is(400, JSON, &expected);
    }
}

/// Missing parameters: 400.
#[test]
fn missing_parameters_are_400() {
    let target = BULKHEAD.get().foreman();
    for fields in [
        &[][..],
        &[("prefix", "boot/x")],
        &[("path", "http://192.0.2.1/x")],
    ] {
        let answer = target.post("/tftp/fetch_boot_file", fields);
        assert_eq!(
            (answer.status, answer.content_type()),
            (400, JSON),
            "{answer}"
        );
        assert!(
            answer
                .text()
                .starts_with("TFTP: Failed to fetch boot file: "),
            "{answer}"
        );
    }
}

/// A medium that never stops ends at the size the policy allows, and leaves nothing behind.
#[test]
fn endless_media_end_at_the_policys_size() {
    let (bulkhead, medium) = (start(), Medium::start());
    fetch(&bulkhead, "boot/endless", &medium.url("endless/x")).assert_is(200, HTML, "");
    assert_eventually!(
        !bulkhead.log_lines("endless").is_empty() && files_below(&bulkhead.boot()).is_empty(),
        "files: {:?}\n{}",
        files_below(&bulkhead.boot())
            .iter()
            .map(|(name, content)| (name.clone(), content.len()))
            .collect::<Vec<_>>(),
        bulkhead.log()
    );
}

/// Nothing half-fetched is served or left when the program is killed in the middle.
#[test]
fn a_kill_leaves_no_part_of_a_file() {
    let (mut bulkhead, medium) = (start(), Medium::start());
    medium.put("image", vec![9; 4 << 20]);
    fetch(&bulkhead, "boot/killed", &medium.url("slow/image")).assert_is(200, HTML, "");
    std::thread::sleep(Duration::from_millis(150));
    bulkhead.restart_after(bulkhead_testkit::Signal::Kill);
    assert!(!bulkhead.boot().join("boot/killed-image").exists());
    assert_eventually!(
        files_below(&bulkhead.boot()).is_empty(),
        "left: {:?}",
        files_below(&bulkhead.boot())
            .iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    );
}
