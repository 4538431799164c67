//! contract/tftp.md: boot menus (boot files are in `boot_files.rs`). Files are looked at where the TFTP server would read them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use bulkhead_testkit::Bulkhead;
use bulkhead_testkit::exchange::FORM;
use bulkhead_testkit::program::Shared;
use bulkhead_testkit::scratch::files_below;
use serde_json::json;

use crate::{HTML, JSON};

static BULKHEAD: Shared = Shared::new(Bulkhead::trial);

/// Variant as Foreman sends it, the host's files for aa:bb:cc:dd:ee:XX (the first is what GET reads), the default files.
/// `{dash}`, `{DASH}`, `{BARE}`, `{colon}` stand for the forms of the MAC.
const VARIANTS: [(&str, &[&str], &[&str]); 8] = [
    (
        "Syslinux",
        &["pxelinux.cfg/01-{dash}"],
        &["pxelinux.cfg/default"],
    ),
    (
        "PXELinux",
        &["pxelinux.cfg/01-{dash}"],
        &["pxelinux.cfg/default"],
    ),
    (
        "PXEGrub",
        &["grub/menu.lst.01{BARE}", "grub/01-{DASH}"],
        &["grub/menu.lst", "grub/efidefault"],
    ),
    (
        "PXEGrub2",
        &["grub2/grub.cfg-01-{dash}", "grub2/grub.cfg-{colon}"],
        &["grub2/grub.cfg"],
    ),
    (
        "iPXE",
        &["pxelinux.cfg/01-{dash}.ipxe"],
        &["pxelinux.cfg/default.ipxe"],
    ),
    (
        "ZTP",
        &["ztp.cfg/{BARE}", "ztp.cfg/{BARE}.cfg"],
        &["ztp.cfg"],
    ),
    ("POAP", &["poap.cfg/{BARE}"], &["poap.cfg"]),
    (
        "pXeGrUb2",
        &["grub2/grub.cfg-01-{dash}", "grub2/grub.cfg-{colon}"],
        &["grub2/grub.cfg"],
    ),
];

/// 20 octets, as InfiniBand has them, and 6; and one whose groups have one digit, which is used as it is.
const MACS: [&str; 3] = [
    "AA:bb:CC:dd:ee:0F",
    "a:b:c:d:e:f",
    "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0b:73:9D",
];

fn file_name(pattern: &str, mac: &str) -> String {
    pattern
        .replace("{dash}", &mac.to_ascii_lowercase().replace(':', "-"))
        .replace("{DASH}", &mac.to_ascii_uppercase().replace(':', "-"))
        .replace("{BARE}", &mac.to_ascii_uppercase().replace(':', ""))
        .replace("{colon}", &mac.to_ascii_lowercase())
}

/// POST writes exactly the files of the variant, GET returns the first, DELETE removes them.
#[test]
fn each_variant_writes_reads_and_deletes_its_files() {
    let bulkhead = Bulkhead::trial();
    let target = bulkhead.foreman();
    for (variant, patterns, _) in VARIANTS {
        for mac in MACS {
            let content = format!("menu of {variant} for {mac}\nwith two lines");
            let path = format!("/tftp/{variant}/{mac}");
            target
                .post(&path, &[("pxeconfig", &content)])
                .assert_is(200, HTML, "");
            let mut expected: Vec<_> = patterns
                .iter()
                .map(|pattern| (file_name(pattern, mac), content.clone().into_bytes()))
                .collect();
            expected.sort();
            assert_eq!(files_below(&bulkhead.boot()), expected, "{path}");
            target.get(&path).assert_is(200, HTML, &content);
            target.delete(&path).assert_is(200, HTML, "");
            assert_eq!(files_below(&bulkhead.boot()), [], "after DELETE {path}");
        }
    }
}

/// The variant may be left out: syslinux. There is no GET for that form.
#[test]
fn without_a_variant_it_is_syslinux() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    let mac = "aa:bb:cc:01:00:01";
    let file = bulkhead.boot().join("pxelinux.cfg/01-aa-bb-cc-01-00-01");
    target
        .post(&format!("/tftp/{mac}"), &[("pxeconfig", "x")])
        .assert_is(200, HTML, "");
    assert_eq!(fs::read(&file).unwrap(), b"x");
    target
        .get(&format!("/tftp/{mac}"))
        .assert_is(404, JSON, "Requested url was not found");
    target
        .delete(&format!("/tftp/{mac}"))
        .assert_is(200, HTML, "");
    assert!(!file.exists());
}

/// The first of a variant's files is what GET reads, whatever the others hold.
#[test]
fn get_reads_the_first_file() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    let path = "/tftp/PXEGrub2/aa:bb:cc:01:00:02";
    target.post(path, &[("pxeconfig", "written")]);
    fs::write(
        bulkhead.boot().join("grub2/grub.cfg-aa:bb:cc:01:00:02"),
        "changed",
    )
    .unwrap();
    assert_eq!(target.get(path).text(), "written");
    fs::write(
        bulkhead.boot().join("grub2/grub.cfg-01-aa-bb-cc-01-00-02"),
        "changed first",
    )
    .unwrap();
    assert_eq!(target.get(path).text(), "changed first");
}

/// GET of what is not there names the file.
#[test]
fn an_absent_file_is_404_with_its_path() {
    let bulkhead = BULKHEAD.get();
    let file = bulkhead.boot().join("grub2/grub.cfg-01-aa-bb-cc-01-00-03");
    let expected = format!(
        "TFTP: Failed to retrieve pxe config file: File {} not found",
        file.display()
    );
    bulkhead
        .foreman()
        .get("/tftp/PXEGrub2/aa:bb:cc:01:00:03")
        .assert_is(404, JSON, &expected);
}

/// DELETE of what is not there is a success: Foreman deletes blindly, for every kind of the operating system.
#[test]
fn deleting_the_absent_is_fine() {
    let target = BULKHEAD.get().foreman();
    for (variant, _, _) in VARIANTS {
        target
            .delete(&format!("/tftp/{variant}/aa:bb:cc:01:00:04"))
            .assert_is(200, HTML, "");
    }
}

/// Content is written byte for byte, the old field name counts too, and an empty text is a text.
#[test]
fn content_is_written_byte_for_byte() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    let path = "/tftp/PXELinux/aa:bb:cc:01:00:05";
    let file = bulkhead.boot().join("pxelinux.cfg/01-aa-bb-cc-01-00-05");
    for content in [
        "",
        "\r\n\r\n",
        "ümläut ✓ +%&=;[]{}",
        " leading and trailing ",
        "a\tb\u{7f}",
    ] {
        for field in ["pxeconfig", "syslinux_config"] {
            target
                .post(path, &[(field, content)])
                .assert_is(200, HTML, "");
            assert_eq!(
                fs::read(&file).unwrap(),
                content.as_bytes(),
                "{field} {content:?}"
            );
        }
    }
    // Bytes that are no UTF-8, as escapes.
    target
        .request("POST", path)
        .body(FORM, "pxeconfig=%ff%fe%00x")
        .send()
        .assert_is(200, HTML, "");
    assert_eq!(fs::read(&file).unwrap(), b"\xff\xfe\x00x");
    // Large menus.
    let large = "menuentry 'x' {}\n".repeat(20_000);
    target
        .post(path, &[("pxeconfig", &large)])
        .assert_is(200, HTML, "");
    assert_eq!(fs::read(&file).unwrap(), large.as_bytes());
}

/// Parameters come from the query and from the body, which wins; bodies may be multipart; JSON is none of them.
#[test]
fn parameters_come_from_query_and_form() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    let path = "/tftp/PXELinux/aa:bb:cc:01:00:06";
    let written =
        || fs::read_to_string(bulkhead.boot().join("pxelinux.cfg/01-aa-bb-cc-01-00-06")).unwrap();
    let post =
        |path: &str, kind: &str, body: &str| target.request("POST", path).body(kind, body).send();
    assert_eq!(
        post(&format!("{path}?pxeconfig=query"), FORM, "").status,
        200
    );
    assert_eq!(written(), "query");
    assert_eq!(
        post(&format!("{path}?pxeconfig=query"), FORM, "pxeconfig=body").status,
        200
    );
    assert_eq!(written(), "body");
    let multipart = "--XX\r\nContent-Disposition: form-data; name=\"pxeconfig\"\r\n\r\nmulti\r\npart\r\n--XX--\r\n";
    assert_eq!(
        post(path, "multipart/form-data; boundary=XX", multipart).status,
        200
    );
    assert_eq!(written(), "multi\r\npart");
    let unknown = "targetos=redhat&release=9&arch=x86_64&bootfile_suffix=x64&pxeconfig=known";
    assert_eq!(
        post(path, FORM, unknown).status,
        200,
        "unknown fields are ignored"
    );
    assert_eq!(written(), "known");
    let answer = post(path, "application/json", "{\"pxeconfig\":\"json\"}");
    answer.assert_is(
        400,
        JSON,
        "TFTP: Failed to create pxe config file: Invalid parameters received",
    );
    assert_eq!(written(), "known");
}

/// Without the field: 400 with the words of the contract.
#[test]
fn a_missing_field_is_400() {
    let target = BULKHEAD.get().foreman();
    for path in [
        "/tftp/PXELinux/aa:bb:cc:01:00:07",
        "/tftp/aa:bb:cc:01:00:07",
        "/tftp/ZTP/aa:bb:cc:01:00:07",
    ] {
        let expected = "TFTP: Failed to create pxe config file: Invalid parameters received";
        target.post(path, &[]).assert_is(400, JSON, expected);
        target
            .post(path, &[("other", "x")])
            .assert_is(400, JSON, expected);
    }
    for path in ["/tftp/PXEGrub2/create_default", "/tftp/create_default"] {
        let expected = "TFTP: Failed to create PXE default file: Default config not supplied";
        target.post(path, &[]).assert_is(400, JSON, expected);
    }
}

/// The MAC is checked first, then the variant; both with 403.
#[test]
fn macs_are_checked_before_variants() {
    let target = BULKHEAD.get().foreman();
    for mac in [
        "nonsense",
        "aa-bb-cc-dd-ee-ff",
        "aabbccddeeff",
        "aa:bb:cc:dd:ee",
        "aa:bb:cc:dd:ee:ff:00",
        "aa:bb:cc:dd:ee:fg",
        "aaa:bb:cc:dd:ee:ff",
        ":bb:cc:dd:ee:ff",
        "aa:bb:cc:dd:ee:ff:",
        "aa:bb:cc:dd:ee:ff\u{0}x",
        "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0b:73",
    ] {
        let escaped = mac.replace('\u{0}', "%00");
        for variant in ["PXEGrub2", "NoSuchVariant"] {
            for method in ["GET", "POST", "DELETE"] {
                let path = format!("/tftp/{variant}/{escaped}");
                let request = target.request(method, &path);
                let answer = if method == "POST" {
                    request.form(&[("pxeconfig", "x")]).send()
                } else {
                    request.send()
                };
                if mac.contains('\u{0}') {
                    assert!(matches!(answer.status, 400 | 403), "{path}: {answer}");
                } else {
                    answer.assert_is(403, JSON, &format!("Invalid MAC address: {mac}"));
                }
            }
        }
        if !mac.contains('\u{0}') {
            let answer = target.post(&format!("/tftp/{escaped}"), &[("pxeconfig", "x")]);
            answer.assert_is(403, JSON, &format!("Invalid MAC address: {mac}"));
        }
    }
    for variant in ["NoSuchVariant", "zerotouch", "grub2", "PXEGrub3"] {
        let expected = format!("Unrecognized pxeboot config type: {variant}");
        target
            .get(&format!("/tftp/{variant}/aa:bb:cc:dd:ee:ff"))
            .assert_is(403, JSON, &expected);
        target
            .delete(&format!("/tftp/{variant}/aa:bb:cc:dd:ee:ff"))
            .assert_is(403, JSON, &expected);
        let answer = target.post(&format!("/tftp/{variant}/create_default"), &[("menu", "x")]);
        answer.assert_is(403, JSON, &expected);
    }
}

/// The default menus of each variant. `create_default` is never taken for a MAC.
#[test]
fn each_variant_writes_its_default_files() {
    let bulkhead = Bulkhead::trial();
    let target = bulkhead.foreman();
    for (variant, _, defaults) in VARIANTS {
        let menu = format!("default menu of {variant}");
        let path = format!("/tftp/{variant}/create_default");
        target
            .post(&path, &[("menu", &menu)])
            .assert_is(200, HTML, "");
        for file in defaults {
            let path = bulkhead.boot().join(file);
            assert_eq!(fs::read_to_string(&path).unwrap(), menu, "{file}");
            // ztp.cfg and poap.cfg would stand in the way of hosts' files.
            fs::remove_file(path).unwrap();
        }
    }
    target
        .post("/tftp/create_default", &[("menu", "short form")])
        .assert_is(200, HTML, "");
    assert_eq!(
        fs::read_to_string(bulkhead.boot().join("pxelinux.cfg/default")).unwrap(),
        "short form"
    );
}

/// ZTP's and POAP's default is a file where the hosts' files need a directory: whoever is second fails.
#[test]
fn ztp_default_and_host_files_exclude_each_other() {
    let bulkhead = Bulkhead::trial();
    let target = bulkhead.foreman();
    for variant in ["ZTP", "POAP"] {
        let (host, default) = (
            format!("/tftp/{variant}/aa:bb:cc:01:00:08"),
            format!("/tftp/{variant}/create_default"),
        );
        assert_eq!(target.post(&host, &[("pxeconfig", "x")]).status, 200);
        let answer = target.post(&default, &[("menu", "x")]);
        assert_eq!(answer.status, 400, "{answer}");
        assert!(
            answer
                .text()
                .starts_with("TFTP: Failed to create PXE default file: Is a directory"),
            "{answer}"
        );
    }
    let bulkhead = Bulkhead::trial();
    let target = bulkhead.foreman();
    for variant in ["ZTP", "POAP"] {
        assert_eq!(
            target
                .post(&format!("/tftp/{variant}/create_default"), &[("menu", "x")])
                .status,
            200
        );
        let answer = target.post(
            &format!("/tftp/{variant}/aa:bb:cc:01:00:08"),
            &[("pxeconfig", "x")],
        );
        assert_eq!(answer.status, 400, "{answer}");
        assert!(
            answer
                .text()
                .starts_with("TFTP: Failed to create pxe config file: "),
            "{answer}"
        );
    }
}

/// Deliberately better than the original, which truncates and rewrites: a file is replaced, never changed, so that a client
/// that reads the old one reads it whole; and nothing temporary is left.
#[test]
fn files_are_replaced_whole() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    let path = "/tftp/PXELinux/aa:bb:cc:01:00:09";
    let file = bulkhead.boot().join("pxelinux.cfg/01-aa-bb-cc-01-00-09");
    target.post(path, &[("pxeconfig", "old")]);
    let open = fs::File::open(&file).unwrap();
    let before = open.metadata().unwrap().ino();
    target.post(path, &[("pxeconfig", "new and longer")]);
    assert_ne!(
        fs::metadata(&file).unwrap().ino(),
        before,
        "the old file was changed in place"
    );
    assert_eq!(std::io::read_to_string(open).unwrap(), "old");
    assert_eq!(fs::read_to_string(&file).unwrap(), "new and longer");
    let mine: Vec<String> = files_below(&bulkhead.boot())
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.contains("aa-bb-cc-01-00-09"))
        .collect();
    assert_eq!(mine, ["pxelinux.cfg/01-aa-bb-cc-01-00-09"]);
}

/// A TFTP server of another user has to read what is written.
#[test]
fn files_are_readable_for_the_tftp_server() {
    let bulkhead = BULKHEAD.get();
    bulkhead
        .foreman()
        .post("/tftp/PXEGrub2/aa:bb:cc:01:00:0a", &[("pxeconfig", "x")]);
    let file = bulkhead.boot().join("grub2/grub.cfg-01-aa-bb-cc-01-00-0a");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o444, 0o444);
    assert_eq!(
        fs::metadata(file.parent().unwrap()).unwrap().mode() & 0o555,
        0o555
    );
}

/// `serverName`: JSON text of type HTML; an empty value when there is none.
#[test]
fn server_name_is_json_labelled_html() {
    BULKHEAD
        .get()
        .foreman()
        .get("/tftp/serverName")
        .assert_is(200, HTML, "{\"serverName\":\"\"}");
}

/// Foreman's own calls, with Foreman's headers, over mutual TLS.
#[test]
fn foremans_calls_work_over_mutual_tls() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman_tls();
    for kind in ["PXELinux", "PXEGrub2", "PXEGrub", "iPXE", "ZTP", "POAP"] {
        let path = format!("/tftp/{kind}/52:54:00:ab:cd:ef");
        let set = target
            .request("POST", &path)
            .as_foreman()
            .form(&[("pxeconfig", "menu")])
            .send();
        set.assert_is(200, HTML, "");
        target
            .request("DELETE", &path)
            .as_foreman()
            .send()
            .assert_is(200, HTML, "");
    }
}

/// The feature as Foreman sees it.
#[test]
fn the_feature_shows_its_server_name_and_no_capabilities() {
    let features = BULKHEAD.get().foreman().get("/v2/features").json();
    assert_eq!(
        features["tftp"]["settings"],
        json!({ "tftp_servername": null })
    );
    assert_eq!(features["tftp"]["capabilities"], json!([]));
}
