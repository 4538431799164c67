//! contract/httpboot.md: files for network boot over HTTP, to anybody who asks, and nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bulkhead_testkit::medium::{LAST_MODIFIED, LAST_MODIFIED_SECONDS};
use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Bulkhead, Configuration, Response};

use crate::{HTML, JSON};

const OUTSIDE: &str = "a secret outside of the root";

static BULKHEAD: Shared = Shared::new(|| {
    let configuration = Configuration::standard();
    let boot = configuration.boot();
    let put = |name: &str, content: &str| {
        let path = boot.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_MODIFIED_SECONDS);
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(modified)
            .unwrap();
    };
    put("six", "012345");
    put("grub2/grubx64.efi", "efi program");
    put("readme.txt", "text");
    put("page.html", "<p>");
    put("grub.cfg", "menu");
    put("kernel.img", "img");
    put("with space", "space");
    put("with+plus", "plus");
    put("empty", "");
    put("dir/file", "in a directory");
    configuration.scratch.file("outside", OUTSIDE);
    configuration.scratch.file("boot2/file", OUTSIDE);
    symlink("six", boot.join("relative-link")).unwrap();
    symlink(boot.join("six"), boot.join("absolute-link")).unwrap();
    symlink("dir", boot.join("dir-link")).unwrap();
    symlink("nowhere", boot.join("dangling")).unwrap();
    symlink("../outside", boot.join("relative-escape")).unwrap();
    symlink(
        configuration.scratch.join("outside"),
        boot.join("absolute-escape"),
    )
    .unwrap();
    symlink("..", boot.join("dir-escape")).unwrap();
    symlink("../boot2", boot.join("sibling")).unwrap();
    symlink("loop", boot.join("loop")).unwrap();
    make_fifo(&boot.join("fifo"));
    Bulkhead::with(configuration)
});

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

/// Both mounts, both schemes, GET and HEAD; no certificate.
#[test]
fn files_are_served_to_anybody_below_both_mounts() {
    let bulkhead = BULKHEAD.get();
    for target in [bulkhead.hosts(), bulkhead.hosts_tls_as(None)] {
        for mount in ["httpboot", "EFI"] {
            let path = format!("/{mount}/grub2/grubx64.efi");
            target
                .get(&path)
                .assert_is(200, "application/octet-stream", "efi program");
            let mut connection = target.send(target.request("HEAD", &path).bytes()).unwrap();
            let head = connection.response("HEAD").unwrap();
            assert_eq!(
                (head.status, head.header("content-length")),
                (200, Some("11")),
                "{head}"
            );
        }
        target
            .get("/efi/grub2/grubx64.efi")
            .assert_is(404, JSON, "Requested url was not found");
    }
}

/// A file that TFTP was told to write is there at once.
#[test]
fn what_tftp_writes_httpboot_serves() {
    let bulkhead = BULKHEAD.get();
    bulkhead
        .foreman()
        .post("/tftp/PXEGrub2/aa:bb:cc:02:00:01", &[("pxeconfig", "menu")]);
    let answer = bulkhead
        .hosts()
        .get("/httpboot/grub2/grub.cfg-aa:bb:cc:02:00:01");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "menu"),
        "{answer}"
    );
}

/// The conditions of the contract, in order.
#[test]
fn what_is_no_file_below_the_root_is_refused() {
    let target = BULKHEAD.get().hosts();
    let not_found = (404, "Not found");
    let invalid = (403, "Invalid or empty path");
    for (path, (status, body)) in [
        ("absent", not_found),
        ("dir/absent", not_found),
        ("six/below-a-file", not_found),
        ("dangling", not_found),
        ("loop", not_found),
        ("relative-escape", invalid),
        ("absolute-escape", invalid),
        ("dir-escape", invalid),
        ("dir-escape/outside", invalid),
        ("sibling/file", invalid),
        ("sibling", invalid),
        ("dir", (403, "Directory listing not allowed")),
        ("dir/", (403, "Directory listing not allowed")),
        ("dir-link", (403, "Directory listing not allowed")),
        ("fifo", (503, "Not a regular file")),
    ] {
        for mount in ["httpboot", "EFI"] {
            let answer = target.get(&format!("/{mount}/{path}"));
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (status, body),
                "/{mount}/{path}: {answer}"
            );
            assert_eq!(answer.content_type(), JSON, "/{mount}/{path}");
        }
    }
}

/// The bare mount names no file.
#[test]
fn the_bare_mount_is_403() {
    let target = BULKHEAD.get().hosts();
    for path in [
        "/httpboot",
        "/httpboot/",
        "/EFI",
        "/EFI/",
        "/httpboot//",
        "/httpboot/.",
    ] {
        target
            .get(path)
            .assert_is(403, JSON, "Invalid or empty path");
    }
}

/// Links that stay inside are followed, absolute ones too.
#[test]
fn links_inside_the_root_are_followed() {
    let target = BULKHEAD.get().hosts();
    for (path, body) in [
        ("relative-link", "012345"),
        ("absolute-link", "012345"),
        ("dir-link/file", "in a directory"),
    ] {
        let answer = target.get(&format!("/httpboot/{path}"));
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, body),
            "{path}: {answer}"
        );
    }
}

/// Deliberately better than the original, which refuses everything when the root is itself a link.
#[test]
fn a_root_that_is_a_link_works() {
    let configuration = Configuration::empty();
    fs::write(configuration.boot().join("six"), "012345").unwrap();
    let link = configuration.scratch.join("link");
    symlink(configuration.boot(), &link).unwrap();
    let lines = format!(
        "enabled = true\nroot_dir = {:?}",
        link.display().to_string()
    );
    let bulkhead = Bulkhead::with(configuration.feature("httpboot", &lines));
    let answer = bulkhead.hosts().get("/httpboot/six");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "012345"),
        "{answer}"
    );
}

/// Nothing leads out, whatever the spelling.
#[test]
fn no_spelling_leads_out_of_the_root() {
    let target = BULKHEAD.get().hosts();
    for path in [
        "/httpboot/../outside",
        "/httpboot/%2e%2e/outside",
        "/httpboot/..%2foutside",
        "/httpboot/dir/../../outside",
        "/httpboot/dir/%2e%2e/%2e%2e/outside",
        "/httpboot/dir%2f..%2f..%2foutside",
        "/httpboot/..%5coutside",
        "/httpboot/..%00/outside",
        "/httpboot//../outside",
        "/httpboot/.../outside",
        "/httpboot/%252e%252e/outside",
        "/httpboot/%c0%ae%c0%ae/outside",
        "/httpboot//etc/passwd",
        "/httpboot/%2fetc%2fpasswd",
        "/EFI/../../etc/passwd",
    ] {
        let answer = target.get(path);
        assert!(matches!(answer.status, 400 | 403 | 404), "{path}: {answer}");
        assert!(
            !answer.text().contains(OUTSIDE) && !answer.text().contains("root:"),
            "{path}: {answer}"
        );
    }
}

/// Escapes are decoded once, a plus is a plus.
#[test]
fn names_are_decoded_once() {
    let target = BULKHEAD.get().hosts();
    assert_eq!(target.get("/httpboot/with%20space").text(), "space");
    assert_eq!(target.get("/httpboot/with+plus").text(), "plus");
    assert_eq!(target.get("/httpboot/with%2Bplus").text(), "plus");
    assert_eq!(target.get("/httpboot/with%2520space").status, 404);
}

/// The type follows the extension.
#[test]
fn the_content_type_follows_the_extension() {
    let target = BULKHEAD.get().hosts();
    for (name, kind) in [
        ("readme.txt", "text/plain;charset=utf-8"),
        ("page.html", HTML),
        ("grub2/grubx64.efi", "application/octet-stream"),
        ("grub.cfg", "application/octet-stream"),
        ("six", "application/octet-stream"),
        ("empty", "application/octet-stream"),
    ] {
        let answer = target.get(&format!("/httpboot/{name}"));
        assert_eq!(
            (answer.status, answer.content_type()),
            (200, kind),
            "{name}: {answer}"
        );
    }
}

/// Length and time are always there: firmware needs the one, caches the other. No ETag.
#[test]
fn length_and_time_are_answered() {
    let target = BULKHEAD.get().hosts();
    let answer = target.get("/httpboot/six");
    assert_eq!(answer.header("content-length"), Some("6"));
    assert_eq!(answer.header("last-modified"), Some(LAST_MODIFIED));
    assert_eq!(answer.header("etag"), None);
    assert_eq!(
        target.get("/httpboot/empty").header("content-length"),
        Some("0")
    );
}

/// `If-Modified-Since` of the same or a newer time: 304 without a body.
#[test]
fn unchanged_files_are_304() {
    let target = BULKHEAD.get().hosts();
    let since = |time: &str| {
        target
            .request("GET", "/httpboot/six")
            .header("If-Modified-Since", time)
            .send()
    };
    for time in [LAST_MODIFIED, "Mon, 02 Mar 2026 10:20:30 GMT"] {
        let answer = since(time);
        assert_eq!(answer.status, 304, "{time}: {answer}");
    }
    for time in ["Sat, 28 Feb 2026 10:20:30 GMT", "junk"] {
        assert_eq!(since(time).text(), "012345", "{time}");
    }
}

fn range(value: &str) -> Response {
    BULKHEAD
        .get()
        .hosts()
        .request("GET", "/httpboot/six")
        .header("Range", value)
        .send()
}

/// One range: 206 with its place.
#[test]
fn a_range_is_206() {
    for (value, place, body) in [
        ("bytes=1-2", "bytes 1-2/6", "12"),
        ("bytes=0-0", "bytes 0-0/6", "0"),
        ("bytes=4-", "bytes 4-5/6", "45"),
        ("bytes=2-100", "bytes 2-5/6", "2345"),
        ("bytes=-2", "bytes 4-5/6", "45"),
        ("bytes=-100", "bytes 0-5/6", "012345"),
    ] {
        let answer = range(value);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (206, body),
            "{value}: {answer}"
        );
        assert_eq!(answer.header("content-range"), Some(place), "{value}");
        assert_eq!(
            answer.header("content-length"),
            Some(body.len().to_string().as_str()),
            "{value}"
        );
    }
}

/// A range beyond the end: 416 with the size.
#[test]
fn an_unsatisfiable_range_is_416() {
    for value in ["bytes=6-", "bytes=100-200", "bytes=-0"] {
        let answer = range(value);
        assert_eq!(answer.status, 416, "{value}: {answer}");
        assert_eq!(answer.header("content-range"), Some("bytes */6"), "{value}");
    }
}

/// Ranges that are none are ignored (RFC 9110 section 14.2); nothing is ever invented.
#[test]
fn malformed_ranges_are_ignored() {
    for value in [
        "bytes=2-1",
        "bytes=a-b",
        "lines=1-2",
        "bytes=",
        "bytes=1-2;3-4",
        "bytes 1-2",
    ] {
        let answer = range(value);
        assert!(matches!(answer.status, 200 | 416), "{value}: {answer}");
        assert!(
            answer.status == 416 || answer.text() == "012345",
            "{value}: {answer}"
        );
    }
}

/// Many ranges at once must not make the answer larger than the file.
#[test]
fn many_ranges_do_not_multiply_the_answer() {
    let value = format!("bytes={}", vec!["0-"; 1_000].join(","));
    let answer = range(&value);
    assert!(matches!(answer.status, 200 | 206 | 416), "{answer}");
    assert!(answer.body.len() < 1_000, "{} bytes", answer.body.len());
}

/// Other methods: the common 404.
#[test]
fn other_methods_are_404() {
    let target = BULKHEAD.get().hosts();
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let mut request = target.request(method, "/httpboot/six");
        if matches!(method, "POST" | "PUT" | "PATCH") {
            request = request.body("text/plain", "");
        }
        request
            .send()
            .assert_is(404, JSON, "Requested url was not found");
    }
}

/// Errors are labelled by `Accept` like all others.
#[test]
fn errors_are_labelled_by_accept() {
    let target = BULKHEAD.get().hosts();
    target
        .request("GET", "/httpboot/absent")
        .header("Accept", "text/html")
        .send()
        .assert_is(404, HTML, "Not found");
}

/// A large file, whole and in a range from its end.
#[test]
fn large_files_arrive_whole() {
    let bulkhead = BULKHEAD.get();
    let content: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 253) as u8).collect();
    fs::write(bulkhead.boot().join("large"), &content).unwrap();
    for target in [bulkhead.hosts(), bulkhead.hosts_tls_as(None)] {
        let answer = target.get("/httpboot/large");
        assert_eq!((answer.status, answer.body.len()), (200, content.len()));
        assert!(answer.body == content, "the bytes differ");
        let tail = target
            .request("GET", "/httpboot/large")
            .header("Range", "bytes=19999990-")
            .send();
        assert_eq!(tail.body, content[19_999_990..]);
    }
}
