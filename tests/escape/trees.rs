//! A second process changes the granted tree underneath: links are swapped in while files are opened, special files appear.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bulkhead_testkit::Bulkhead;

use crate::stage::{SONG, Stage};

fn make_fifo(path: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
}

/// A directory that is a link every other moment: whoever checks first and opens then is led out.
#[test]
fn a_link_swapped_in_while_a_file_is_opened_leads_nowhere() {
    let bulkhead = Bulkhead::trial();
    let scratch = &bulkhead.configuration.scratch;
    let outside = scratch.directory("outside");
    fs::write(outside.join("file"), SONG).unwrap();
    let boot = bulkhead.boot();
    fs::create_dir(boot.join("real")).unwrap();
    fs::write(boot.join("real/file"), "inside").unwrap();
    symlink("real", boot.join("swapped")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (boot, outside, stop) = (boot.clone(), outside.clone(), stop.clone());
        move || {
            let (inward, outward) = (boot.join(".inward"), boot.join(".outward"));
            while !stop.load(Ordering::Relaxed) {
                symlink("real", &inward).unwrap();
                fs::rename(&inward, boot.join("swapped")).unwrap();
                symlink(&outside, &outward).unwrap();
                fs::rename(&outward, boot.join("swapped")).unwrap();
            }
        }
    });
    let target = bulkhead.hosts();
    let (start, mut inside) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(4) {
        let answer = target.get("/httpboot/swapped/file");
        assert!(!answer.text().contains(SONG), "led out: {answer}");
        match (answer.status, answer.text().as_str()) {
            (200, "inside") => inside += 1,
            (403 | 404, _) => {}
            _ => panic!("{answer}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(inside > 0, "the file was never served: nothing is proven");
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), SONG);
}

/// The same for a writer: TFTP's directory becomes a link outward while menus are written.
#[test]
fn a_link_swapped_in_while_a_file_is_written_leads_nowhere() {
    let bulkhead = Bulkhead::trial();
    let outside = bulkhead.configuration.scratch.directory("outside");
    let boot = bulkhead.boot();
    let (place, real, link) = (boot.join("grub2"), boot.join(".real"), boot.join(".link"));
    fs::create_dir(&place).unwrap();
    symlink(&outside, &link).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = fs::rename(&place, &real);
                let _ = fs::rename(&link, &place);
                std::thread::yield_now();
                let _ = fs::rename(&place, &link);
                let _ = fs::rename(&real, &place);
            }
        }
    });
    let target = bulkhead.foreman();
    let (start, mut written) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(4) {
        let answer = target.post("/tftp/PXEGrub2/aa:bb:cc:0c:00:01", &[("pxeconfig", "x")]);
        assert!(matches!(answer.status, 200 | 400), "{answer}");
        written += usize::from(answer.status == 200);
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(written > 0, "nothing was ever written: nothing is proven");
    let left: Vec<_> = fs::read_dir(&outside)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(left.is_empty(), "written outside: {left:?}");
}

/// Pipes and devices are refused before they are opened: opening one waits for ever. A thousand tries leave everything working.
#[test]
fn a_pipe_in_a_granted_tree_blocks_nothing() {
    let bulkhead = Bulkhead::trial();
    make_fifo(&bulkhead.boot().join("pipe"));
    fs::create_dir(bulkhead.boot().join("pxelinux.cfg")).unwrap();
    make_fifo(&bulkhead.boot().join("pxelinux.cfg/01-aa-bb-cc-0c-00-02"));
    let (hosts, foreman) = (bulkhead.hosts(), bulkhead.foreman());
    let start = Instant::now();
    for _ in 0..500 {
        assert_eq!(hosts.get("/httpboot/pipe").status, 503);
        assert_eq!(foreman.get("/tftp/PXELinux/aa:bb:cc:0c:00:02").status, 404);
    }
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        foreman
            .post("/tftp/PXEGrub2/aa:bb:cc:0c:00:03", &[("pxeconfig", "x")])
            .status,
        200
    );
}

/// The granted directory is replaced by a link to another: the grant is of the directory that was there, or of nothing.
#[test]
fn a_root_that_is_replaced_leads_nowhere() {
    let stage = Stage::granted();
    fs::rename(&stage.data, stage.data.with_file_name("data.moved")).unwrap();
    symlink(&stage.outside, &stage.data).unwrap();
    fs::write(stage.outside.join("only-outside"), SONG).unwrap();
    for (what, path) in [
        ("read", "/data/only-outside"),
        ("list", "/data"),
        ("write", "/data/new"),
    ] {
        let answer = stage.try_to(what, &[("path", path), ("text", "x")]);
        assert!(
            !answer.contains("only-outside") || answer.contains("refused"),
            "{what}: {answer}"
        );
        assert!(!answer.contains(SONG), "{what}: {answer}");
    }
    assert!(!stage.outside.join("new").exists(), "written outside");
}
