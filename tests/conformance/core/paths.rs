//! contract/core.md 3: how paths are read. What is decided here decides who may call what, so there is one reading.

use bulkhead_testkit::Bulkhead;
use bulkhead_testkit::program::Shared;

use crate::{HTML, JSON};

static BULKHEAD: Shared = Shared::new(Bulkhead::trial);

/// A trailing slash is another path, except where a route says otherwise.
#[test]
fn a_trailing_slash_is_another_path() {
    let target = BULKHEAD.get().foreman();
    for path in [
        "/features/",
        "/version/",
        "/v2/features/",
        "/tftp/serverName/",
    ] {
        target
            .get(path)
            .assert_is(404, JSON, "Requested url was not found");
    }
    assert_eq!(
        target.get("/logs/").status,
        200,
        "Foreman asks with the slash"
    );
    assert_eq!(target.get("/logs").status, 200);
}

/// Repeated slashes are one.
#[test]
fn repeated_slashes_are_collapsed() {
    let target = BULKHEAD.get().foreman();
    for path in [
        "//features",
        "///features",
        "/v2//features",
        "//tftp///serverName",
        "/logs//",
    ] {
        assert_eq!(target.get(path).status, 200, "{path}");
    }
}

/// `%2F` separates segments; other escapes are the characters they stand for.
#[test]
fn escapes_are_decoded_before_routing() {
    let target = BULKHEAD.get().foreman();
    for path in [
        "/v2%2Ffeatures",
        "/v2%2ffeatures",
        "/tftp%2FserverName",
        "/%66eatures",
        "/tftp/server%4Eame",
    ] {
        assert_eq!(target.get(path).status, 200, "{path}");
    }
    let answer = target.post(
        "/tftp/PXELinux/aa%3Abb%3Acc%3A00%3A04%3A01",
        &[("pxeconfig", "x")],
    );
    assert_eq!(answer.status, 200, "{answer}");
    assert_eq!(target.get("/tftp/PXELinux/aa:bb:cc:00:04:01").text(), "x");
}

/// `..` that leads above the root, however it is written: 400, a page.
#[test]
fn dots_above_the_root_are_400() {
    let target = BULKHEAD.get().foreman();
    for path in [
        "/../features",
        "/%2e%2e/features",
        "/.%2E/features",
        "/..%2ffeatures",
        "/tftp/../../features",
        "/..",
        "/x/../../../etc/passwd",
    ] {
        let answer = target.get(path);
        assert_eq!(
            (answer.status, answer.content_type()),
            (400, HTML),
            "{path}: {answer}"
        );
        assert!(
            answer.text().to_ascii_lowercase().contains("<html"),
            "{path}: {answer}"
        );
    }
}

/// `..` inside the tree is resolved.
#[test]
fn dots_inside_the_tree_are_resolved() {
    let target = BULKHEAD.get().foreman();
    for path in [
        "/tftp/x/../serverName",
        "/tftp/./serverName",
        "/tftp/%2e/serverName",
        "/tftp/x/y/%2e%2e/../serverName",
    ] {
        assert_eq!(target.get(path).status, 200, "{path}");
    }
}

/// Broken escapes, zero bytes and control characters have no reading at all.
#[test]
fn unreadable_paths_are_400() {
    let target = BULKHEAD.get().foreman();
    for path in [
        "/tftp/%",
        "/tftp/%z",
        "/tftp/%zz",
        "/tftp/%2",
        "/tftp/a%00b",
        "/features%00",
        "/tftp/a%0ab",
        "/tftp/a%0d%0aX:y",
    ] {
        let answer = target.get(path);
        assert_eq!(answer.status, 400, "{path}: {answer}");
    }
}

/// No spelling of a path finds a way around the certificate.
#[test]
fn no_spelling_leads_around_the_certificate() {
    let target = BULKHEAD.get().foreman_tls_as(None);
    for path in [
        "/v2/features",
        "//v2/features",
        "/v2//features",
        "/v2/./features",
        "/x/../v2/features",
        "/%76%32/features",
        "/v2%2ffeatures",
        "/tftp/../v2/features",
        "/features/../v2/features",
        "/V2/FEATURES",
        "/v2/features;x=y",
        "/v2/features%3b",
        "/v2/features/.",
        "/v2/features/..;/features",
        "/v2/features?/features",
        "/features/..%2fv2%2ffeatures",
        "/\\v2/features",
        "/%5cv2/features",
    ] {
        let answer = target.get(path);
        assert_ne!(answer.status, 200, "{path}: {answer}");
        assert!(!answer.text().contains("\"state\""), "{path}: {answer}");
    }
}

/// The target may also be written in absolute form (RFC 9112 section 3.2.2); authority and asterisk forms are for others.
#[test]
fn odd_forms_of_the_target_do_not_confuse_routing() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    let answer = target.get(&format!("http://{}/features", target.host()));
    assert!(matches!(answer.status, 200 | 400 | 404), "{answer}");
    for (method, path) in [
        ("CONNECT", "localhost:22"),
        ("OPTIONS", "*"),
        ("GET", "*"),
        ("GET", "features"),
    ] {
        if let Ok(answer) = target.request(method, path).try_send() {
            assert!(
                matches!(answer.status, 400 | 404),
                "{method} {path}: {answer}"
            );
        }
    }
    // The certificate is asked for whatever the form.
    let outside = bulkhead.foreman_tls_as(None);
    let answer = outside.get(&format!("https://{}/v2/features", outside.host()));
    assert_ne!(answer.status, 200, "{answer}");
}
