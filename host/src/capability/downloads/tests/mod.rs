//! Downloads from real servers on loopback into real directories.

mod broken;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use futures::StreamExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::{Downloads, Retries, normal_path, parse_url};
use crate::capability::resolve::{Resolver, Servers};
use crate::capability::testing::{
    Authority, NameServer, Server, eventually, guard_with, ok, rights,
};
use crate::capability::upstream::dial::Dialer;
use crate::capability::wasi::access::PluginAccess;
use crate::grant::effective::{
    Access, DownloadsGrant, FilesGrant, FilesQuota, FilesTarget, Inside, Slot,
};
use crate::grant::matchers::url::UrlPattern;
use crate::grant::{Effective, Guard};
use crate::sandbox::bindings::imports::downloads::{Error, Progress, Stage};
use crate::telemetry::metrics::Metrics;

struct Site {
    downloads: Downloads,
    root: tempfile::TempDir,
    access: Arc<PluginAccess>,
    guard: Guard,
}

fn grant(urls: &[&str]) -> DownloadsGrant {
    DownloadsGrant {
        urls: urls
            .iter()
            .map(|url| UrlPattern::parse(url).unwrap())
            .collect(),
        into: "root".into(),
        size: 10 << 20,
        time: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(2),
        concurrent: 4,
        queue: 64,
        verify: true,
        ca: None,
        inside: Inside {
            private: true,
            loopback: true,
        },
    }
}

fn granting(root: &Path, grant: DownloadsGrant) -> impl FnOnce(&mut Effective) {
    let files = FilesGrant {
        target: FilesTarget::Directory(root.to_owned()),
        access: Access::ReadWrite,
        quota: FilesQuota::default(),
    };
    move |effective| {
        effective.downloads.insert("boot".into(), Slot::new(grant));
        effective.files.insert("root".into(), Slot::new(files));
    }
}

impl Site {
    fn new(grant: DownloadsGrant) -> Self {
        Self::with(grant, Servers::Fixed(Vec::new()), 100 << 20)
    }

    fn with(grant: DownloadsGrant, servers: Servers, bytes: u64) -> Self {
        let io = Handle::current();
        let resolver = Arc::new(Resolver::new(io.clone(), servers).with_hosts_file("/nonexistent"));
        let dialer = Dialer::new(io, resolver.clone());
        let retries = Retries {
            times: 3,
            delay: Duration::from_millis(30),
        };
        let root = tempfile::tempdir().unwrap();
        let guard = guard_with(|effective| {
            granting(root.path(), grant)(effective);
            let quota = FilesQuota { bytes, files: 1000 };
            let target = FilesTarget::Directory(root.path().to_owned());
            effective.files.insert(
                "root".into(),
                Slot::new(FilesGrant {
                    target,
                    access: Access::ReadWrite,
                    quota,
                }),
            );
        });
        let access = PluginAccess::new(guard.clone(), resolver);
        Site {
            downloads: Downloads::new(dialer, Metrics::new("test"), retries),
            root,
            access,
            guard,
        }
    }

    fn fetch(&self, url: &str, path: &str) -> Result<(), Error> {
        self.downloads.fetch(
            &self.guard,
            |slot| self.access.quota(slot),
            "boot",
            url,
            path,
        )
    }

    /// Bytes that count against the directory's quota.
    fn used(&self) -> u64 {
        self.access.quota("root").unwrap().usage().bytes
    }

    fn query(&self, path: &str) -> Option<Progress> {
        self.downloads.query(&self.guard, "boot", path)
    }

    async fn ended(&self, path: &str) -> Progress {
        eventually("the download ends", || {
            self.query(path)
                .is_some_and(|progress| matches!(progress.stage, Stage::Done | Stage::Failed))
        })
        .await;
        self.query(path).unwrap()
    }

    async fn saved(&self, url: &str, path: &str) -> Vec<u8> {
        self.fetch(url, path).unwrap();
        let progress = self.ended(path).await;
        assert!(matches!(progress.stage, Stage::Done), "{progress:?}");
        std::fs::read(self.root.path().join(path)).unwrap()
    }

    /// The reason of a failure; nothing is left behind.
    async fn failed(&self, url: &str, path: &str) -> String {
        self.fetch(url, path).unwrap();
        let progress = self.ended(path).await;
        assert!(matches!(progress.stage, Stage::Failed), "{progress:?}");
        assert!(!self.root.path().join(path).exists());
        eventually("no part is left", || {
            files_below(self.root.path()).is_empty()
        })
        .await;
        progress.problem.unwrap()
    }
}

fn files_below(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found.sort();
    found
}

fn url(server: &Server, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", server.port())
}

fn any() -> DownloadsGrant {
    grant(&["http://127.0.0.1:*"])
}

fn with_headers(headers: &[(&'static str, &'static str)], body: impl Into<Body>) -> Response<Body> {
    let mut answer = ok(body);
    for (name, value) in headers {
        answer.headers_mut().insert(*name, value.parse().unwrap());
    }
    answer
}

#[tokio::test]
async fn a_file_arrives_with_the_servers_time_and_its_directories() {
    let server = Server::http(|_| async {
        with_headers(
            &[("last-modified", "Mon, 02 Jan 2023 03:04:05 GMT")],
            "kernel",
        )
    })
    .await;
    let site = Site::new(any());
    assert_eq!(
        site.saved(&url(&server, "/vmlinuz"), "boot/el9/vmlinuz")
            .await,
        b"kernel"
    );
    let modified = std::fs::metadata(site.root.path().join("boot/el9/vmlinuz"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(
        modified,
        httpdate::parse_http_date("Mon, 02 Jan 2023 03:04:05 GMT").unwrap()
    );
    let progress = site.query("boot/el9/vmlinuz").unwrap();
    assert_eq!((progress.received, progress.total), (6, Some(6)));
    assert_eq!(files_below(site.root.path()), ["vmlinuz"]);
    assert_eq!(site.used(), 6);
}

#[tokio::test]
async fn urls_and_paths_that_are_not_granted_or_not_plain_are_refused_at_once() {
    let server = Server::http(|_| async { ok("x") }).await;
    let site = Site::new(grant(&[&url(&server, "/images/**")]));
    let good = url(&server, "/images/a");
    for path in [
        "",
        "/",
        "../a",
        "a/../b",
        "a//b",
        "./a",
        "a/",
        "a\0",
        "a\n",
        ".bulkhead-part-1",
        "x/.bulkhead-part-1/y",
    ] {
        assert!(
            matches!(site.fetch(&good, path), Err(Error::Invalid(_))),
            "{path:?}"
        );
    }
    for wrong in [
        "ftp://127.0.0.1/images/a",
        "nfs://127.0.0.1/a",
        "images/a",
        "http://",
        "http://user:pw@127.0.0.1/images/a",
        "file:///etc/passwd",
    ] {
        assert!(
            matches!(site.fetch(wrong, "a"), Err(Error::Invalid(_))),
            "{wrong}"
        );
    }
    for other in [
        url(&server, "/other/a"),
        url(&server, "/images/../other"),
        "http://127.0.0.1/images/a".into(),
        "http://2130706433:1/images/a".into(),
    ] {
        assert!(
            matches!(site.fetch(&other, "a"), Err(Error::Denied(_))),
            "{other}"
        );
    }
    assert_eq!(server.connections(), 0);
    assert!(site.query("a").is_none());
    site.fetch(&good, "/a").unwrap();
    site.ended("a").await;
}

#[test]
fn doubled_slashes_and_fragments_are_taken_out_of_urls() {
    assert_eq!(
        parse_url("http://H/a//b///c?x=//#f").unwrap(),
        "http://h/a/b/c?x=//"
    );
    assert_eq!(normal_path("/boot/x").unwrap(), "boot/x");
}

#[tokio::test]
async fn error_pages_are_never_saved() {
    for status in [400, 401, 404, 410, 500] {
        let server = Server::http(move |_| async move {
            let mut answer = ok("sorry");
            *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
            answer
        })
        .await;
        let site = Site::new(any());
        assert!(
            site.failed(&url(&server, "/a"), "a")
                .await
                .contains(&status.to_string())
        );
        let tries = if status == 500 { 4 } else { 1 };
        assert_eq!(server.requests(), tries, "{status}");
    }
}

#[tokio::test]
async fn an_existing_file_is_fetched_only_when_the_servers_is_newer() {
    let modified = Arc::new(Mutex::new("Mon, 02 Jan 2023 03:04:05 GMT"));
    let shared = modified.clone();
    let server = Server::http(move |request: Request<Incoming>| {
        let modified = *shared.lock().unwrap();
        async move {
            let since = request
                .headers()
                .get("if-modified-since")
                .and_then(|since| httpdate::parse_http_date(since.to_str().unwrap()).ok());
            if since.is_some_and(|since| since >= httpdate::parse_http_date(modified).unwrap()) {
                let mut answer = ok(Body::empty());
                *answer.status_mut() = http::StatusCode::NOT_MODIFIED;
                return answer;
            }
            with_headers(&[("last-modified", modified)], modified)
        }
    })
    .await;
    let site = Site::new(any());
    let first = site.saved(&url(&server, "/a"), "a").await;
    assert_eq!(site.saved(&url(&server, "/a"), "a").await, first);
    *modified.lock().unwrap() = "Tue, 03 Jan 2023 03:04:05 GMT";
    assert_eq!(
        site.saved(&url(&server, "/a"), "a").await,
        b"Tue, 03 Jan 2023 03:04:05 GMT"
    );
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn redirects_are_followed_and_each_hop_decided() {
    let last = Server::http(|_| async { ok("found") }).await;
    let forbidden = Server::http(|_| async { ok("secret") }).await;
    let (there, elsewhere) = (url(&last, "/images/file"), url(&forbidden, "/images/file"));
    let first = Server::http(move |request: Request<Incoming>| {
        let location = match request.uri().path() {
            "/images/there" => there.clone(),
            "/images/relative" => "there".into(),
            "/images/elsewhere" => elsewhere.clone(),
            "/images/ftp" => "ftp://127.0.0.1/x".into(),
            "/images/outside" => "/etc/secret".into(),
            "/images/metadata" => "http://169.254.169.254/latest".into(),
            _ => "loop".into(),
        };
        async move {
            let mut answer = with_headers(&[], "moved");
            *answer.status_mut() = http::StatusCode::FOUND;
            answer
                .headers_mut()
                .insert("location", location.parse().unwrap());
            answer
        }
    })
    .await;
    let site = Site::new(grant(&[
        &url(&first, "/images/**"),
        &url(&last, "/images/**"),
    ]));
    assert_eq!(
        site.saved(&url(&first, "/images/there"), "a").await,
        b"found"
    );
    assert_eq!(
        site.saved(&url(&first, "/images/relative"), "b").await,
        b"found"
    );
    std::fs::remove_file(site.root.path().join("a")).unwrap();
    std::fs::remove_file(site.root.path().join("b")).unwrap();
    for (path, word) in [
        ("elsewhere", "may not"),
        ("outside", "may not"),
        ("metadata", "may not"),
        ("ftp", "redirects"),
        ("loop", "redirects"),
    ] {
        let problem = site
            .failed(&url(&first, &format!("/images/{path}")), path)
            .await;
        assert!(problem.contains(word), "{path}: {problem}");
    }
    assert_eq!(forbidden.connections(), 0);
}

#[tokio::test]
async fn names_that_lead_inside_are_denied() {
    let (server, names) = (
        Server::http(|_| async { ok("x") }).await,
        NameServer::start().await,
    );
    names.set("mirror.example.com", 0, &["127.0.0.1", "169.254.169.254"]);
    let outside = DownloadsGrant {
        inside: Inside::default(),
        ..grant(&["http://*:*"])
    };
    let site = Site::with(outside, Servers::Fixed(vec![names.address()]), 1 << 20);
    let problem = site
        .failed(
            &format!("http://mirror.example.com:{}/a", server.port()),
            "a",
        )
        .await;
    assert!(problem.contains("may not"), "{problem}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn files_beyond_size_quota_or_time_are_given_up() {
    let announced = Server::http(|_| async { ok(vec![0; 2_000_000]) }).await;
    let unannounced = Server::http(|_| async {
        Response::new(Body::from_stream(
            futures::stream::iter(0..2_000)
                .map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![0; 1000]))),
        ))
    })
    .await;
    let slow = Server::http(|_| async {
        Response::new(Body::from_stream(futures::stream::iter(0..100).then(
            |_| async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
            },
        )))
    })
    .await;
    for server in [&announced, &unannounced] {
        let site = Site::new(DownloadsGrant {
            size: 1_000_000,
            ..any()
        });
        assert!(
            site.failed(&url(server, "/a"), "a")
                .await
                .contains("larger than")
        );
        let site = Site::with(any(), Servers::Fixed(Vec::new()), 1_500_000);
        assert!(site.failed(&url(server, "/a"), "a").await.contains("quota"));
        // The part is removed in the background.
        for _ in 0..200 {
            if site.used() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(site.used(), 0);
    }
    let site = Site::new(DownloadsGrant {
        time: Duration::from_millis(300),
        ..any()
    });
    assert!(
        site.failed(&url(&slow, "/a"), "a")
            .await
            .contains("not finished")
    );
}

/// Serves "x" once it is told to.
async fn gated() -> (Server, Arc<AtomicBool>) {
    let gate = Arc::new(AtomicBool::new(false));
    let open = gate.clone();
    let server = Server::http(move |_| {
        let open = open.clone();
        async move {
            while !open.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            ok("x")
        }
    })
    .await;
    (server, gate)
}

#[tokio::test]
async fn one_target_is_fetched_by_one_download() {
    let (server, gate) = gated().await;
    let site = Site::new(any());
    for _ in 0..20 {
        site.fetch(&url(&server, "/a"), "a").unwrap();
    }
    site.fetch(&url(&server, "/other"), "a").unwrap();
    eventually("the request arrives", || server.requests() == 1).await;
    gate.store(true, Ordering::SeqCst);
    site.ended("a").await;
    assert_eq!(server.requests(), 1);
    site.saved(&url(&server, "/a"), "a").await;
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn no_more_run_or_wait_than_granted() {
    let (server, gate) = gated().await;
    let site = Site::new(DownloadsGrant {
        concurrent: 2,
        queue: 3,
        ..any()
    });
    for n in 0..5 {
        site.fetch(&url(&server, "/a"), &format!("f{n}")).unwrap();
    }
    assert!(matches!(
        site.fetch(&url(&server, "/a"), "f5"),
        Err(Error::Busy)
    ));
    site.fetch(&url(&server, "/a"), "f4")
        .expect("already under way");
    eventually("two run", || server.requests() == 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.requests(), 2);
    gate.store(true, Ordering::SeqCst);
    for n in 0..5 {
        assert!(matches!(
            site.ended(&format!("f{n}")).await.stage,
            Stage::Done
        ));
    }
    site.saved(&url(&server, "/a"), "f5").await;
}

#[tokio::test]
async fn a_right_that_is_taken_away_stops_the_download_within_a_second() {
    let server = Server::http(|_| async {
        Response::new(Body::from_stream(futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from(vec![0; 1000])), ()))
        })))
    })
    .await;
    let site = Site::new(any());
    site.fetch(&url(&server, "/a"), "a").unwrap();
    eventually("bytes arrive", || {
        site.query("a")
            .is_some_and(|progress| progress.received > 0)
    })
    .await;
    site.guard
        .replace(rights(granting(site.root.path(), any())));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(matches!(site.query("a").unwrap().stage, Stage::Running));
    let taken = Instant::now();
    site.guard.replace(rights(granting(
        site.root.path(),
        grant(&["http://192.0.2.1"]),
    )));
    let progress = site.ended("a").await;
    assert!(progress.problem.unwrap().contains("may no longer"));
    assert!(taken.elapsed() < Duration::from_secs(1));
    eventually("the part is gone", || {
        files_below(site.root.path()).is_empty()
    })
    .await;
}

#[tokio::test]
async fn servers_certificates_are_checked_unless_the_operator_says_no() {
    let (authority, names) = (Authority::new(), NameServer::start().await);
    let server = Server::https(authority.server("mirror.example.com", false), |_| async {
        ok("x")
    })
    .await;
    names.set("mirror.example.com", 60, &["127.0.0.1"]);
    let with = |verify, ca| {
        Site::with(
            DownloadsGrant {
                verify,
                ca,
                ..grant(&["https://*:*"])
            },
            Servers::Fixed(vec![names.address()]),
            1 << 20,
        )
    };
    let from = format!("https://mirror.example.com:{}/a", server.port());
    with(true, Some(authority.ca())).saved(&from, "a").await;
    with(false, None).saved(&from, "a").await;
    with(true, Some(Authority::new().ca()))
        .failed(&from, "a")
        .await;
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn only_the_last_ends_are_remembered() {
    let server = Server::http(|_| async { ok("x") }).await;
    let site = Site::new(DownloadsGrant {
        queue: 10_000,
        concurrent: 8,
        ..any()
    });
    for n in 0..crate::capability::downloads::track::REMEMBERED + 10 {
        site.fetch(&url(&server, "/a"), &format!("f{n}")).unwrap();
        if n % 50 == 0 {
            site.ended(&format!("f{n}")).await;
        }
    }
    let known = || {
        (0..crate::capability::downloads::track::REMEMBERED + 10)
            .filter(|n| site.query(&format!("f{n}")).is_some())
            .count()
    };
    eventually("the oldest are forgotten", || {
        known() == crate::capability::downloads::track::REMEMBERED
    })
    .await;
}
