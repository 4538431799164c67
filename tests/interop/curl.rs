//! curl, the client that everybody has.

use std::fs;
use std::path::Path;
use std::process::Command;

use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Bulkhead, skip};

static BULKHEAD: Shared = Shared::new(Bulkhead::trial);

/// Runs curl; answers its output with the status code behind it.
fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--noproxy",
            "*",
            "--write-out",
            " %{http_code}",
        ])
        .args(arguments)
        .output()
        .expect("curl runs");
    assert!(
        output.status.success(),
        "curl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn there_is_no_curl() -> bool {
    bulkhead_testkit::skip::program("curl").is_none()
}

/// Writes the client's certificate beside the server's; answers the three paths curl needs.
fn credentials(bulkhead: &Bulkhead) -> [String; 3] {
    let scratch = &bulkhead.configuration.scratch;
    let show = |path: &Path| path.display().to_string();
    [
        show(&scratch.join("tls/ca.pem")),
        show(&scratch.file("tls/curl.pem", &bulkhead.client.chain_pem)),
        show(&scratch.file("tls/curl-key.pem", &bulkhead.client.key_pem)),
    ]
}

#[test]
fn mutual_tls_works_with_every_version_curl_offers() {
    if there_is_no_curl() {
        skip!("there is no curl on this machine");
    }
    let bulkhead = BULKHEAD.get();
    let [ca, certificate, key] = credentials(&bulkhead);
    let url = format!(
        "https://localhost:{}/v2/features",
        bulkhead.configuration.doors.foreman_tls
    );
    for version in [
        &["--tlsv1.2", "--tls-max", "1.2"][..],
        &["--tlsv1.3"][..],
        &[][..],
    ] {
        let base = ["--cacert", &ca, "--cert", &certificate, "--key", &key, &url];
        let answer = curl(&[version, &base].concat());
        assert!(
            answer.ends_with(" 200") && answer.contains("\"running\""),
            "{version:?}: {answer}"
        );
    }
    let answer = curl(&["--cacert", &ca, &url]);
    assert_eq!(answer, "No client SSL certificate supplied 403");
}

#[test]
fn http_2_is_declined_politely() {
    if there_is_no_curl() {
        skip!("there is no curl on this machine");
    }
    let bulkhead = BULKHEAD.get();
    let [ca, ..] = credentials(&bulkhead);
    let url = format!(
        "https://localhost:{}/features",
        bulkhead.configuration.doors.foreman_tls
    );
    assert!(curl(&["--http2", "--cacert", &ca, &url]).ends_with(" 200"));
    let plain = format!(
        "http://127.0.0.1:{}/features",
        bulkhead.configuration.doors.foreman_http
    );
    assert!(curl(&["--http2", &plain]).ends_with(" 200"));
    assert!(curl(&["--http1.0", &plain]).ends_with(" 200"));
}

#[test]
fn forms_and_uploads_of_curl_are_understood() {
    if there_is_no_curl() {
        skip!("there is no curl on this machine");
    }
    let bulkhead = BULKHEAD.get();
    let scratch = &bulkhead.configuration.scratch;
    let menu = "menuentry 'ü & +' {\n}\n";
    let file = scratch.file("menu", menu).display().to_string();
    let written =
        || fs::read_to_string(bulkhead.boot().join("pxelinux.cfg/01-aa-bb-cc-0d-00-01")).unwrap();
    let url = format!(
        "http://127.0.0.1:{}/tftp/PXELinux/aa:bb:cc:0d:00:01",
        bulkhead.configuration.doors.foreman_http
    );
    for field in [
        &["--data-urlencode", &format!("pxeconfig@{file}")][..],
        &["--form", &format!("pxeconfig=<{file}")][..],
        // With `Expect: 100-continue`, and in chunks.
        &[
            "--header",
            "Expect: 100-continue",
            "--data-urlencode",
            &format!("pxeconfig@{file}"),
        ][..],
        &[
            "--header",
            "Transfer-Encoding: chunked",
            "--data-urlencode",
            &format!("pxeconfig@{file}"),
        ][..],
    ] {
        assert_eq!(curl(&[field, &[&url]].concat()), " 200", "{field:?}");
        assert_eq!(written(), menu, "{field:?}");
        fs::write(
            bulkhead.boot().join("pxelinux.cfg/01-aa-bb-cc-0d-00-01"),
            "",
        )
        .unwrap();
    }
    assert_eq!(curl(&["--request", "DELETE", &url]), " 200");
}

#[test]
fn downloads_of_curl_resume_and_revalidate() {
    if there_is_no_curl() {
        skip!("there is no curl on this machine");
    }
    let bulkhead = BULKHEAD.get();
    let content: Vec<u8> = (0..500_000_u32).map(|n| (n % 241) as u8).collect();
    fs::write(bulkhead.boot().join("image"), &content).unwrap();
    let out = bulkhead
        .configuration
        .scratch
        .join("fetched")
        .display()
        .to_string();
    let url = format!(
        "http://127.0.0.1:{}/httpboot/image",
        bulkhead.configuration.doors.hosts_http
    );
    fs::write(&out, &content[..123_456]).unwrap();
    assert_eq!(
        curl(&[
            "--continue-at",
            "-",
            "--remote-time",
            "--output",
            &out,
            &url
        ]),
        " 206"
    );
    assert!(
        fs::read(&out).unwrap() == content,
        "the resumed file differs"
    );
    assert_eq!(
        curl(&["--time-cond", &out, "--output", "/dev/null", &url]),
        " 304"
    );
    assert!(curl(&["--head", &url]).ends_with(" 200"));
}
