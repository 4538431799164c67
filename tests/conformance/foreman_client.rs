//! contract/foreman-client.md: Foreman's own sequence of calls, read with Foreman's own rules.

use bulkhead_testkit::medium::Medium;
use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Bulkhead, Configuration, Response, assert_eventually};
use serde_json::Value;

static BULKHEAD: Shared = Shared::new(|| Bulkhead::with(Configuration::standard().local_media()));

/// What Foreman makes of an answer (section 2).
#[derive(Debug, PartialEq)]
enum Understood {
    /// An exception; the body is never read.
    Raised(u16),
    /// A value. An empty body is `true`, what is no JSON is `false`.
    Value(Value),
}

impl Understood {
    fn of(answer: &Response) -> Self {
        match answer.status {
            200..=299 if answer.text().trim().is_empty() => Self::Value(Value::Bool(true)),
            200..=299 => {
                Self::Value(serde_json::from_slice(&answer.body).unwrap_or(Value::Bool(false)))
            }
            status => Self::Raised(status),
        }
    }

    #[track_caller]
    fn value(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Raised(status) => panic!("Foreman raises for {status}"),
        }
    }
}

fn call(method: &str, path: &str, form: Option<&[(&str, &str)]>) -> Understood {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman_tls();
    let request = target.request(method, path).as_foreman();
    let answer = match form {
        Some(fields) => request.form(fields).send(),
        None => request.send(),
    };
    Understood::of(&answer)
}

/// Section 3: registering and refreshing.
#[test]
fn foreman_can_register_the_proxy() {
    let features = call("GET", "/v2/features", None).value();
    let running: Vec<&str> = features
        .as_object()
        .expect("an object")
        .iter()
        .filter(|(_, feature)| feature["state"] == "running")
        .map(|(name, _)| name.as_str())
        .collect();
    for name in ["tftp", "httpboot", "logs"] {
        assert!(running.contains(&name), "{running:?}");
    }
    for feature in features.as_object().unwrap().values() {
        assert!(
            feature["capabilities"].is_array() && feature["settings"].is_object(),
            "{feature}"
        );
    }
    // A missing port is a provisioning exception.
    assert!(features["httpboot"]["settings"]["http_port"].is_u64());
    assert!(features["httpboot"]["settings"]["https_port"].is_u64());
}

/// Section 4: version and log on the proxy's page.
#[test]
fn foremans_status_page_finds_version_and_log() {
    let version = call("GET", "/version", None).value();
    let numbers: Vec<u32> = version["version"]
        .as_str()
        .expect("a text")
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect();
    assert!(numbers.len() >= 2, "major and minor are read: {version}");
    assert!(version["modules"].is_object());
    let logs = call("GET", "/logs/?from_timestamp=0", None).value();
    assert!(logs["logs"].is_array() && logs["info"]["failed_modules"].is_object());
}

/// Section 8: building a host.
#[test]
fn foreman_can_build_a_host() {
    let bulkhead = BULKHEAD.get();
    let medium = Medium::start();
    medium.put("vmlinuz", "kernel");
    medium.put("initrd.img", "initrd");
    assert_eq!(
        call("GET", "/tftp/serverName", None).value()["serverName"],
        ""
    );
    for kind in ["PXELinux", "PXEGrub2", "PXEGrub", "iPXE"] {
        let path = format!("/tftp/{kind}/52:54:00:01:02:03");
        // Deleted blindly before it is written.
        assert_eq!(call("DELETE", &path, None).value(), Value::Bool(true));
        assert_eq!(
            call("POST", &path, Some(&[("pxeconfig", "menu")])).value(),
            Value::Bool(true)
        );
    }
    for file in ["vmlinuz", "initrd.img"] {
        let url = medium.url(&format!("file/{file}"));
        let fetched = call(
            "POST",
            "/tftp/fetch_boot_file",
            Some(&[("prefix", "boot/medium-1"), ("path", &url)]),
        );
        assert_eq!(
            fetched.value(),
            Value::Bool(true),
            "anything falsy fails the task"
        );
    }
    for file in ["vmlinuz", "initrd.img"] {
        assert_eventually!(
            bulkhead
                .boot()
                .join(format!("boot/medium-1-{file}"))
                .exists(),
            "{}",
            bulkhead.log()
        );
    }
    // The firmware follows the URL that Foreman makes of the stored port.
    let answer = bulkhead.hosts().get("/httpboot/boot/medium-1-vmlinuz");
    assert_eq!((answer.status, answer.text().as_str()), (200, "kernel"));
}

/// Section 8: the default menus, for three kinds.
#[test]
fn foreman_can_build_the_default_menus() {
    for kind in ["PXELinux", "PXEGrub2", "PXEGrub"] {
        let built = call(
            "POST",
            &format!("/tftp/{kind}/create_default"),
            Some(&[("menu", "default")]),
        );
        assert_eq!(built.value(), Value::Bool(true));
    }
}

/// Section 1: an empty form still has its type and a length of 0.
#[test]
fn foremans_empty_posts_are_understood() {
    assert_eq!(
        call("POST", "/tftp/PXELinux/52:54:00:01:02:04", Some(&[])),
        Understood::Raised(400)
    );
}
