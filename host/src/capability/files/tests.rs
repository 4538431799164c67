//! What clients get for a file answer.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use http_body_util::BodyExt;

use super::*;
use crate::capability::testing::rights;
use crate::capability::wasi::names::NoNames;
use crate::grant::effective::{Access, FilesGrant, FilesQuota, FilesTarget, Slot};
use crate::grant::{Deny, Guard, HostRules};

struct Ground {
    _place: tempfile::TempDir,
    root: PathBuf,
    access: Arc<PluginAccess>,
}

fn granted(target: FilesTarget) -> Slot<FilesGrant> {
    Slot::new(FilesGrant {
        target,
        access: Access::Read,
        quota: FilesQuota::default(),
    })
}

fn ground() -> Ground {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    fs::create_dir_all(root.join("grub2")).unwrap();
    fs::write(root.join("hello.txt"), "hello\n").unwrap();
    fs::write(root.join("grub2/grubx64.efi"), [7; 1000]).unwrap();
    fs::write(place.path().join("outside"), "secret").unwrap();
    let effective = rights(|rights| {
        rights
            .files
            .insert("root".into(), granted(FilesTarget::Directory(root.clone())));
        rights.files.insert(
            "one".into(),
            granted(FilesTarget::File(root.join("hello.txt"))),
        );
    });
    let access = PluginAccess::new(
        Guard::new(&HostRules::new(Deny::default()), effective),
        Arc::new(NoNames),
    );
    Ground {
        _place: place,
        root,
        access,
    }
}

async fn get(
    ground: &Ground,
    path: &str,
    headers: &[(&'static str, &str)],
) -> (StatusCode, HeaderMap, Vec<u8>) {
    ask(ground, path, headers, false).await.unwrap()
}

async fn ask(
    ground: &Ground,
    path: &str,
    headers: &[(&'static str, &str)],
    head_only: bool,
) -> Result<(StatusCode, HeaderMap, Vec<u8>), FileRefusal> {
    let headers = headers
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect();
    let file = FileAnswer {
        slot: "root".into(),
        path: path.into(),
        media_type: None,
    };
    let (parts, body) = answer(&ground.access, file, &headers, head_only)
        .await?
        .into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Ok((parts.status, parts.headers, body))
}

async fn refused(ground: &Ground, path: &str) -> String {
    let refusal = ask(ground, path, &[], false).await.unwrap_err();
    format!("{} {refusal}", refusal.status().as_u16())
}

#[tokio::test]
async fn a_file_comes_with_its_type_length_and_time() {
    let ground = ground();
    let (status, headers, body) = get(&ground, "hello.txt", &[]).await;
    assert_eq!(
        (status, body.as_slice()),
        (StatusCode::OK, b"hello\n".as_slice())
    );
    assert_eq!(headers[CONTENT_TYPE], "text/plain;charset=utf-8");
    assert_eq!(headers[CONTENT_LENGTH], "6");
    assert!(headers.contains_key(LAST_MODIFIED) && !headers.contains_key("etag"));
    for unknown in ["boot.efi", "grub.cfg", "vmlinuz", "x.unheard-of"] {
        assert_eq!(media_type(unknown), "application/octet-stream", "{unknown}");
    }
}

#[tokio::test]
async fn the_plugin_may_say_the_type() {
    let ground = ground();
    let file = FileAnswer {
        slot: "root".into(),
        path: "hello.txt".into(),
        media_type: Some("text/x-menu".into()),
    };
    let response = answer(&ground.access, file, &HeaderMap::new(), false)
        .await
        .unwrap();
    assert_eq!(response.headers()[CONTENT_TYPE], "text/x-menu");
}

#[tokio::test]
async fn a_head_has_the_length_and_no_body() {
    let ground = ground();
    let (status, headers, body) = ask(
        &ground,
        "grub2/grubx64.efi",
        &[("range", "bytes=1-2")],
        true,
    )
    .await
    .unwrap();
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
    assert_eq!(headers[CONTENT_LENGTH], "1000");
}

#[tokio::test]
async fn a_part_is_sent_when_asked_for() {
    let ground = ground();
    let (status, headers, body) = get(&ground, "hello.txt", &[("range", "bytes=1-2")]).await;
    assert_eq!(
        (status, body.as_slice()),
        (StatusCode::PARTIAL_CONTENT, b"el".as_slice())
    );
    assert_eq!(
        (&headers[CONTENT_RANGE], &headers[CONTENT_LENGTH]),
        (&"bytes 1-2/6".parse().unwrap(), &"2".parse().unwrap())
    );
    let (status, headers, body) = get(&ground, "hello.txt", &[("range", "bytes=6-")]).await;
    assert_eq!((status, body.len()), (StatusCode::RANGE_NOT_SATISFIABLE, 0));
    assert_eq!(headers[CONTENT_RANGE], "bytes */6");
}

#[tokio::test]
async fn a_part_is_of_the_file_the_client_knows() {
    let ground = ground();
    let (_, headers, _) = get(&ground, "hello.txt", &[]).await;
    let time = headers[LAST_MODIFIED].to_str().unwrap().to_owned();
    let (status, ..) = get(
        &ground,
        "hello.txt",
        &[("range", "bytes=1-2"), ("if-range", &time)],
    )
    .await;
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    for other in ["Thu, 01 Jan 1970 00:00:00 GMT", "\"an-etag\""] {
        let (status, _, body) = get(
            &ground,
            "hello.txt",
            &[("range", "bytes=1-2"), ("if-range", other)],
        )
        .await;
        assert_eq!((status, body.len()), (StatusCode::OK, 6));
    }
}

#[tokio::test]
async fn what_did_not_change_is_not_sent_again() {
    let ground = ground();
    let (_, headers, _) = get(&ground, "hello.txt", &[]).await;
    let time = headers[LAST_MODIFIED].to_str().unwrap().to_owned();
    let (status, headers, body) = get(&ground, "hello.txt", &[("if-modified-since", &time)]).await;
    assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert!(!headers.contains_key(CONTENT_LENGTH));
    let long_ago = "Thu, 01 Jan 1970 00:00:00 GMT";
    assert_eq!(
        get(&ground, "hello.txt", &[("if-modified-since", long_ago)])
            .await
            .0,
        StatusCode::OK
    );
    assert_eq!(
        get(&ground, "hello.txt", &[("if-modified-since", "yesterday")])
            .await
            .0,
        StatusCode::OK
    );
    assert_eq!(
        get(&ground, "hello.txt", &[("if-unmodified-since", long_ago)])
            .await
            .0,
        StatusCode::PRECONDITION_FAILED
    );
}

#[tokio::test]
async fn refusals_come_in_the_order_of_the_contract() {
    let ground = ground();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        ground.root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    symlink("nothing", ground.root.join("dangling")).unwrap();
    symlink("../outside", ground.root.join("out")).unwrap();
    symlink("/etc/passwd", ground.root.join("passwd")).unwrap();
    symlink("..", ground.root.join("up")).unwrap();
    for (path, refusal) in [
        ("absent", "404 Not found"),
        ("absent/deeper", "404 Not found"),
        ("hello.txt/deeper", "404 Not found"),
        ("dangling", "404 Not found"),
        ("out", "403 Invalid or empty path"),
        ("passwd", "403 Invalid or empty path"),
        ("up/outside", "403 Invalid or empty path"),
        ("../outside", "403 Invalid or empty path"),
        ("/etc/passwd", "403 Invalid or empty path"),
        ("", "403 Invalid or empty path"),
        (".", "403 Invalid or empty path"),
        ("grub2", "403 Directory listing not allowed"),
        ("grub2/", "403 Directory listing not allowed"),
        ("fifo", "503 Not a regular file"),
    ] {
        assert_eq!(refused(&ground, path).await, refusal, "{path}");
    }
    let audit = ground.access.guard().host().audit().denials(None);
    assert!(
        audit
            .iter()
            .any(|known| known.denial.action.contains("up/outside")),
        "{audit:?}"
    );
}

#[tokio::test]
async fn links_that_stay_inside_are_followed_also_absolute_ones() {
    let ground = ground();
    symlink("../hello.txt", ground.root.join("grub2/relative.txt")).unwrap();
    symlink(
        ground.root.join("hello.txt"),
        ground.root.join("grub2/absolute.txt"),
    )
    .unwrap();
    symlink(&ground.root, ground.root.join("self")).unwrap();
    symlink(ground.root.join("../outside"), ground.root.join("sly")).unwrap();
    for path in [
        "grub2/relative.txt",
        "grub2/absolute.txt",
        "self/hello.txt",
        "self/self/grub2/absolute.txt",
    ] {
        assert_eq!(get(&ground, path, &[]).await.2, b"hello\n", "{path}");
    }
    assert_eq!(refused(&ground, "sly").await, "403 Invalid or empty path");
}

#[tokio::test]
async fn a_grant_of_one_file_sends_that_file() {
    let ground = ground();
    for (path, status) in [
        ("hello.txt", 200),
        ("grub2/grubx64.efi", 403),
        ("other", 403),
    ] {
        let file = FileAnswer {
            slot: "one".into(),
            path: path.into(),
            media_type: None,
        };
        let status_now = answer(&ground.access, file, &HeaderMap::new(), false)
            .await
            .map_or_else(|refusal| refusal.status(), |response| response.status());
        assert_eq!(status_now, status, "{path}");
    }
    let file = FileAnswer {
        slot: "ungranted".into(),
        path: "hello.txt".into(),
        media_type: None,
    };
    assert!(matches!(
        answer(&ground.access, file, &HeaderMap::new(), false).await,
        Err(FileRefusal::Denied)
    ));
}

#[tokio::test]
async fn a_large_file_arrives_whole_and_in_order() {
    let ground = ground();
    let bytes: Vec<u8> = (0..1_000_003_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    fs::write(ground.root.join("large"), &bytes).unwrap();
    assert!(get(&ground, "large", &[]).await.2 == bytes);
    let (_, _, part) = get(&ground, "large", &[("range", "bytes=262143-786433")]).await;
    assert!(part == bytes[262_143..=786_433]);
}

#[tokio::test]
async fn a_right_that_ends_breaks_the_body_off() {
    let ground = ground();
    fs::write(ground.root.join("large"), vec![1; 4 << 20]).unwrap();
    let opened = open_granted(&ground.access, "root", "large").await.unwrap();
    let mut body = respond(opened, &HeaderMap::new(), false).into_body();
    assert!(body.frame().await.unwrap().is_ok());
    ground.access.guard().replace(rights(|_| {}));
    assert!(body.frame().await.unwrap().is_err());
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_file_cut_short_while_it_is_sent_is_not_told_as_whole() {
    let ground = ground();
    fs::write(ground.root.join("large"), vec![1; 4 << 20]).unwrap();
    let opened = open_granted(&ground.access, "root", "large").await.unwrap();
    fs::write(ground.root.join("large"), "short").unwrap();
    assert!(
        respond(opened, &HeaderMap::new(), false)
            .into_body()
            .collect()
            .await
            .is_err()
    );
}

#[tokio::test]
async fn unfinished_downloads_are_not_served() {
    let ground = ground();
    fs::write(ground.root.join("grub2/.bulkhead-part-0123"), "half").unwrap();
    let answer = ask(&ground, "grub2/.bulkhead-part-0123", &[], false).await;
    assert!(matches!(answer, Err(FileRefusal::NotFound)), "{answer:?}");
}
