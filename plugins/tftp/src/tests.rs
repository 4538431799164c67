//! The promises of `contract/tftp.md`, kept natively.

use std::fs;
use std::path::Path;

use bulkhead_sdk::bindings::imports::foreman::proxy::downloads::Error as DownloadError;
use bulkhead_sdk::testing::{Called, Download, Host, Installed, TempFolder};

use super::*;

const MAC: &str = "aa:bb:cc:dd:ee:0f";

struct Site {
    root: TempFolder,
    host: Installed,
}

fn site() -> Site {
    let root = TempFolder::new();
    let host = Host::new()
        .folder("root", root.path())
        .setting("tftproot", "/var/lib/tftpboot")
        .install();
    Site { root, host }
}

impl Site {
    fn post(&self, path: &str, form: &[(&str, &str)]) -> Called {
        self.host.post_form::<Tftp>(path, form)
    }

    /// All files below the root with their content, by name.
    fn files(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        collect(self.root.path(), "", &mut found);
        found.sort();
        found
    }

    fn names(&self) -> Vec<String> {
        self.files().into_iter().map(|(name, _)| name).collect()
    }
}

fn collect(folder: &Path, prefix: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type().unwrap().is_dir() {
            true => collect(&entry.path(), &format!("{name}/"), found),
            false => found.push((name, fs::read_to_string(entry.path()).unwrap())),
        }
    }
}

fn assert_empty_success(called: &Called) {
    assert_eq!((called.status(), called.text().as_str()), (200, ""));
    assert_eq!(called.content_type(), "text/html;charset=utf-8");
}

fn assert_refused(called: &Called, status: u16, text: &str) {
    assert_eq!((called.status(), called.text().as_str()), (status, text));
    assert_eq!(called.content_type(), "application/json");
}

#[test]
fn every_variant_writes_its_own_files() {
    let table: [(&str, &[&str]); 8] = [
        ("PXELinux", &["pxelinux.cfg/01-aa-bb-cc-dd-ee-0f"]),
        ("Syslinux", &["pxelinux.cfg/01-aa-bb-cc-dd-ee-0f"]),
        (
            "PXEGrub",
            &["grub/01-AA-BB-CC-DD-EE-0F", "grub/menu.lst.01AABBCCDDEE0F"],
        ),
        (
            "PXEGrub2",
            &[
                "grub2/grub.cfg-01-aa-bb-cc-dd-ee-0f",
                "grub2/grub.cfg-aa:bb:cc:dd:ee:0f",
            ],
        ),
        ("iPXE", &["pxelinux.cfg/01-aa-bb-cc-dd-ee-0f.ipxe"]),
        ("ZTP", &["ztp.cfg/AABBCCDDEE0F", "ztp.cfg/AABBCCDDEE0F.cfg"]),
        ("POAP", &["poap.cfg/AABBCCDDEE0F"]),
        (
            "pxegrub2",
            &[
                "grub2/grub.cfg-01-aa-bb-cc-dd-ee-0f",
                "grub2/grub.cfg-aa:bb:cc:dd:ee:0f",
            ],
        ),
    ];
    for (variant, names) in table {
        let site = site();
        let path = format!("/tftp/{variant}/{MAC}");
        assert_empty_success(&site.post(&path, &[("pxeconfig", "menu\r\n")]));
        assert_eq!(site.names(), names, "{variant}");
        assert!(
            site.files()
                .iter()
                .all(|(_, content)| content == "menu\r\n")
        );
        let read = site.host.get::<Tftp>(&path);
        assert_eq!((read.status(), read.text().as_str()), (200, "menu\r\n"));
        assert_empty_success(&site.host.delete::<Tftp>(&path));
        assert_eq!(site.names(), [] as [&str; 0], "{variant}");
    }
}

#[test]
fn every_variant_has_default_files() {
    let table: [(&str, &[&str]); 6] = [
        ("PXELinux", &["pxelinux.cfg/default"]),
        ("PXEGrub", &["grub/efidefault", "grub/menu.lst"]),
        ("PXEGrub2", &["grub2/grub.cfg"]),
        ("iPXE", &["pxelinux.cfg/default.ipxe"]),
        ("ZTP", &["ztp.cfg"]),
        ("POAP", &["poap.cfg"]),
    ];
    for (variant, names) in table {
        let site = site();
        assert_empty_success(
            &site.post(&format!("/tftp/{variant}/create_default"), &[("menu", "x")]),
        );
        assert_eq!(site.names(), names, "{variant}");
    }
}

#[test]
fn routes_without_a_variant_are_those_of_pxelinux() {
    let site = site();
    assert_empty_success(&site.post(&format!("/tftp/{MAC}"), &[("syslinux_config", "old")]));
    assert_empty_success(&site.post("/tftp/create_default", &[("menu", "x")]));
    assert_eq!(
        site.names(),
        ["pxelinux.cfg/01-aa-bb-cc-dd-ee-0f", "pxelinux.cfg/default"]
    );
    assert_empty_success(&site.host.delete::<Tftp>(&format!("/tftp/{MAC}")));
    assert_eq!(site.names(), ["pxelinux.cfg/default"]);
}

#[test]
fn pxeconfig_wins_over_the_legacy_field() {
    let site = site();
    site.post(
        &format!("/tftp/iPXE/{MAC}"),
        &[("syslinux_config", "old"), ("pxeconfig", "new")],
    );
    assert_eq!(
        site.host.get::<Tftp>(&format!("/tftp/iPXE/{MAC}")).text(),
        "new"
    );
}

#[test]
fn short_groups_and_infiniband_addresses_are_used_as_sent() {
    let site = site();
    assert_empty_success(&site.post("/tftp/PXELinux/a:B:c:d:e:f", &[("pxeconfig", "x")]));
    let infiniband = ["0a"; 20].join(":");
    assert_empty_success(&site.post(
        &format!("/tftp/PXELinux/{infiniband}"),
        &[("pxeconfig", "x")],
    ));
    let long = format!("pxelinux.cfg/01-{}", ["0a"; 20].join("-"));
    assert_eq!(site.names(), [long.as_str(), "pxelinux.cfg/01-a-b-c-d-e-f"]);
}

#[test]
fn the_mac_address_is_judged_before_the_variant() {
    let site = site();
    let form: &[(&str, &str)] = &[("pxeconfig", "x")];
    assert_refused(
        &site.post("/tftp/nonsense/aa-bb-cc-dd-ee-0f", form),
        403,
        "Invalid MAC address: aa-bb-cc-dd-ee-0f",
    );
    assert_refused(
        &site.post(&format!("/tftp/Nonsense/{MAC}"), form),
        403,
        "Unrecognized pxeboot config type: Nonsense",
    );
    assert_refused(
        &site.post("/tftp/zerotouch/create_default", &[("menu", "x")]),
        403,
        "Unrecognized pxeboot config type: zerotouch",
    );
    assert_refused(
        &site.host.delete::<Tftp>("/tftp/x"),
        403,
        "Invalid MAC address: x",
    );
    assert_refused(
        &site.host.get::<Tftp>("/tftp/PXELinux/x"),
        403,
        "Invalid MAC address: x",
    );
    assert_eq!(site.names(), [] as [&str; 0]);
}

#[test]
fn an_empty_menu_is_written_and_a_missing_one_refused() {
    let site = site();
    let path = format!("/tftp/PXELinux/{MAC}");
    assert_refused(
        &site.post(&path, &[]),
        400,
        "TFTP: Failed to create pxe config file: Invalid parameters received",
    );
    assert_refused(
        &site.post("/tftp/create_default", &[]),
        400,
        "TFTP: Failed to create PXE default file: Default config not supplied",
    );
    assert_empty_success(&site.post(&path, &[("pxeconfig", "")]));
    assert_eq!(
        site.files(),
        [(
            "pxelinux.cfg/01-aa-bb-cc-dd-ee-0f".to_owned(),
            String::new()
        )]
    );
}

#[test]
fn a_json_body_holds_no_parameters() {
    let site = site();
    let called = site.host.call::<Tftp>(
        "POST",
        &format!("/tftp/PXELinux/{MAC}"),
        &[("content-type", "application/json")],
        b"{\"pxeconfig\":\"x\"}",
    );
    assert_refused(
        &called,
        400,
        "TFTP: Failed to create pxe config file: Invalid parameters received",
    );
}

#[test]
fn unknown_form_fields_are_ignored() {
    let site = site();
    let form: &[(&str, &str)] = &[
        ("pxeconfig", "x"),
        ("targetos", "redhat"),
        ("arch", "x86_64"),
    ];
    assert_empty_success(&site.post(&format!("/tftp/PXELinux/{MAC}"), form));
}

#[test]
fn reading_an_absent_file_names_it_as_the_operator_knows_it() {
    let site = site();
    assert_refused(
        &site.host.get::<Tftp>(&format!("/tftp/PXEGrub2/{MAC}")),
        404,
        "TFTP: Failed to retrieve pxe config file: File /var/lib/tftpboot/grub2/grub.cfg-01-aa-bb-cc-dd-ee-0f not found",
    );
}

#[test]
fn deleting_what_is_absent_is_fine() {
    let site = site();
    for variant in ["PXELinux", "PXEGrub", "PXEGrub2", "iPXE", "ZTP", "POAP"] {
        assert_empty_success(&site.host.delete::<Tftp>(&format!("/tftp/{variant}/{MAC}")));
    }
}

#[test]
fn the_default_file_of_ztp_and_its_host_files_exclude_each_other() {
    let site = site();
    site.post(&format!("/tftp/ZTP/{MAC}"), &[("pxeconfig", "x")]);
    let refused = site.post("/tftp/ZTP/create_default", &[("menu", "x")]);
    assert_refused(
        &refused,
        400,
        "TFTP: Failed to create PXE default file: Is a directory - /var/lib/tftpboot/ztp.cfg",
    );

    assert_empty_success(&site.post("/tftp/POAP/create_default", &[("menu", "x")]));
    assert_eq!(
        site.post(&format!("/tftp/POAP/{MAC}"), &[("pxeconfig", "x")])
            .status(),
        400
    );
    assert_eq!(
        site.host.get::<Tftp>(&format!("/tftp/POAP/{MAC}")).status(),
        404
    );
    assert_empty_success(&site.host.delete::<Tftp>(&format!("/tftp/POAP/{MAC}")));
}

#[test]
fn the_server_name_is_json_labelled_as_text() {
    let site = site();
    let called = site.host.get::<Tftp>("/tftp/serverName");
    assert_eq!(
        (called.text().as_str(), called.content_type().as_str()),
        (r#"{"serverName":""}"#, "text/html;charset=utf-8")
    );
    site.host
        .change(|host| host.setting("tftp_servername", "192.0.2.1"));
    assert_eq!(
        site.host.get::<Tftp>("/tftp/serverName").text(),
        r#"{"serverName":"192.0.2.1"}"#
    );
}

#[test]
fn a_boot_file_is_named_by_prefix_and_last_part() {
    let table = [
        (
            "boot/centos-9",
            "http://m.example.com/x/vmlinuz",
            "boot/centos-9-vmlinuz",
        ),
        (
            "boot/",
            "https://m.example.com/x/initrd.img",
            "boot/initrd.img",
        ),
        (
            "boot/a",
            "HTTP://m.example.com/x/vmlinuz/",
            "boot/a-vmlinuz",
        ),
        (
            "/var/lib/tftpboot/boot/a",
            "http://m.example.com/vmlinuz",
            "boot/a-vmlinuz",
        ),
    ];
    for (prefix, url, path) in table {
        let site = site();
        assert_empty_success(&site.post(
            "/tftp/fetch_boot_file",
            &[("prefix", prefix), ("path", url)],
        ));
        let expected = Download {
            slot: "boot-files".to_owned(),
            url: url.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!(site.host.downloads(), [expected]);
    }
}

#[test]
fn a_boot_file_never_leaves_the_root() {
    for prefix in [
        "../tftpboot2/x",
        "/etc/x",
        "/var/lib/tftpboot2/x",
        "/var/lib/tftpboot/../x",
        "boot/../../x",
        "../",
    ] {
        let site = site();
        let called = site.post(
            "/tftp/fetch_boot_file",
            &[("prefix", prefix), ("path", "http://m/vmlinuz")],
        );
        assert_refused(
            &called,
            400,
            "TFTP: Failed to fetch boot file: TFTP destination outside of tftproot",
        );
        assert_eq!(site.host.downloads(), []);
    }
    let site = site();
    let called = site.post(
        "/tftp/fetch_boot_file",
        &[("prefix", "boot/"), ("path", "http://m/..")],
    );
    assert_refused(
        &called,
        400,
        "TFTP: Failed to fetch boot file: TFTP destination outside of tftproot",
    );
}

#[test]
fn an_nfs_medium_needs_no_download() {
    let site = site();
    assert_empty_success(&site.post(
        "/tftp/fetch_boot_file",
        &[
            ("prefix", "boot/x"),
            ("path", "nfs://m.example.com:/x/vmlinuz"),
        ],
    ));
    assert_eq!(site.host.downloads(), []);
}

#[test]
fn what_cannot_be_fetched_is_refused_with_its_reason() {
    let site = site();
    let fetch = |form: &[(&str, &str)]| site.post("/tftp/fetch_boot_file", form);
    assert_refused(
        &fetch(&[("prefix", "boot/x"), ("path", "gopher://m/vmlinuz")]),
        400,
        "TFTP: Failed to fetch boot file: Cannot fetch boot file, unknown protocol for medium source path: gopher://m/vmlinuz",
    );
    assert_refused(
        &fetch(&[("path", "http://m/vmlinuz")]),
        400,
        "TFTP: Failed to fetch boot file: parameter prefix is missing",
    );
    assert_refused(
        &fetch(&[("prefix", "boot/x")]),
        400,
        "TFTP: Failed to fetch boot file: parameter path is missing",
    );
    site.host
        .change(|host| host.refuse_downloads(DownloadError::Busy));
    let busy = fetch(&[("prefix", "boot/x"), ("path", "http://m/vmlinuz")]);
    assert_refused(
        &busy,
        400,
        "TFTP: Failed to fetch boot file: too many downloads are waiting",
    );
}

#[test]
fn broken_parameters_are_refused_before_anything_else() {
    let site = site();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let called = site
        .host
        .call::<Tftp>("POST", "/tftp/nonsense/nonsense", &form, b"pxeconfig=%zz");
    assert_eq!(
        (called.status(), called.text().as_str()),
        (400, "Invalid query parameters: invalid %-encoding (%zz)")
    );
    assert_eq!(called.content_type(), "text/html;charset=utf-8");
}

#[test]
fn there_are_nine_routes_all_of_them_foremans() {
    let manifest = Tftp::describe();
    let routes = &manifest.record().routes;
    assert_eq!(routes.len(), 9);
    assert!(
        routes
            .iter()
            .all(|route| route.audience == bulkhead_sdk::Audience::Foreman)
    );
}
