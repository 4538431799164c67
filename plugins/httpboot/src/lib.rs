//! The feature `httpboot`: gives boot loaders their files over HTTP.
//!
//! Anybody may read, since firmware has neither names nor certificates. It reads the slot `root` only, usually the directory that `tftp`
//! writes, and lists no directory.
//!
//! The one idea: it names the file, the host opens and sends it, with ranges and conditions, and refuses what leads out.

use bulkhead_sdk::prelude::*;

struct HttpBoot;

impl Plugin for HttpBoot {
    fn describe() -> Manifest {
        Manifest::new(
            "httpboot",
            env!("CARGO_PKG_VERSION"),
            "Serves boot files over HTTP",
        )
        .mount("/httpboot")
        .mount("/EFI")
        .route(get("/httpboot").public(), file)
        .route(get("/httpboot/*path").public(), file)
        .route(get("/EFI").public(), file)
        .route(get("/EFI/*path").public(), file)
        .need(Need::files(
            "root",
            Access::Read,
            "serves boot loaders, kernels and menus to booting machines",
        ))
        .setting(
            Setting::path(
                "root_dir",
                "The directory served, usually that of the TFTP server",
            )
            .default("/var/lib/tftpboot")
            .required(),
        )
    }

    /// Foreman builds boot URLs of these ports.
    fn status() -> Status {
        Status::working()
            .setting("http_port", site::http_port())
            .setting("https_port", site::https_port())
    }
}

bulkhead_sdk::export_feature!(HttpBoot);

fn file(request: &Request) -> Result<Answer, Failure> {
    match request.text("path") {
        Some(path) if !path.is_empty() => Ok(Answer::file("root", path)),
        _ => Err(Failure::forbidden("Invalid or empty path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::testing::{Called, Host};

    fn file_of(called: Called) -> (String, String) {
        match called {
            Called::File(file) => (file.slot, file.path),
            other => panic!("expected a file, got {other:?}"),
        }
    }

    #[test]
    fn both_mounts_name_a_file_of_the_root() {
        let host = Host::new().install();
        let expected = ("root".to_owned(), "grub2/grubx64.efi".to_owned());
        assert_eq!(
            file_of(host.get::<HttpBoot>("/httpboot/grub2/grubx64.efi")),
            expected
        );
        assert_eq!(
            file_of(host.get::<HttpBoot>("/EFI/grub2/grubx64.efi")),
            expected
        );
    }

    #[test]
    fn the_bare_mount_is_refused() {
        let host = Host::new().install();
        for path in ["/httpboot", "/httpboot/", "/EFI", "/EFI/"] {
            let called = host.get::<HttpBoot>(path);
            assert_eq!(
                (called.status(), called.text().as_str()),
                (403, "Invalid or empty path"),
                "{path}"
            );
        }
    }

    #[test]
    fn nothing_can_be_posted() {
        let host = Host::new().install();
        assert_eq!(
            host.post_form::<HttpBoot>("/httpboot/x", &[]),
            Called::NoRoute
        );
    }

    #[test]
    fn foreman_is_shown_the_ports() {
        let _host = Host::new().ports(Some(8000), None).install();
        let settings = HttpBoot::status().into_record().settings;
        assert_eq!(
            settings,
            [
                ("http_port".to_owned(), "8000".to_owned()),
                ("https_port".to_owned(), "null".to_owned())
            ]
        );
    }
}
