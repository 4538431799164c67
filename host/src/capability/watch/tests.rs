//! What a plugin sees of watched files.

use std::sync::Arc;
use std::time::Duration;

use super::follow::Follow;
use super::*;
use crate::capability::testing::guard_with;
use crate::grant::effective::{Slot, WatchGrant};

fn access(place: WatchPlace, hide: Hide) -> Arc<PluginAccess> {
    let guard = guard_with(|rights| {
        rights
            .watch
            .insert("w".into(), Slot::new(WatchGrant { place, hide }));
    });
    PluginAccess::new(guard, Arc::new(crate::capability::wasi::names::NoNames))
}

#[tokio::test]
async fn a_file_is_read_in_parts_and_known_by_its_identity() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("leases");
    let named = path.to_str().unwrap();
    let access = access(WatchPlace::Files(vec![path.clone()]), Hide::Nothing);
    assert!(matches!(
        about(&access, "w", named).await,
        Err(contract::Error::Absent)
    ));
    std::fs::write(&path, "0123456789").unwrap();
    let first = about(&access, "w", named).await.unwrap();
    assert_eq!(first.size, 10);
    let part = |offset, limit| read(&access, "w", named, offset, limit);
    assert_eq!(part(3, 4).await.unwrap().bytes, b"3456");
    assert_eq!(part(8, 100).await.unwrap().bytes, b"89");
    assert_eq!(part(50, 100).await.unwrap().bytes, b"");

    use std::io::Write;
    let mut same = File::options().append(true).open(&path).unwrap();
    same.write_all(b"more").unwrap();
    let grown = about(&access, "w", named).await.unwrap();
    assert_eq!((grown.identity, grown.size), (first.identity, 14));

    std::fs::write(place.path().join("new"), "x").unwrap();
    std::fs::rename(place.path().join("new"), &path).unwrap();
    let other = about(&access, "w", named).await.unwrap();
    assert_ne!(other.identity, first.identity);
}

#[tokio::test]
async fn nothing_but_what_the_policy_names_is_read() {
    let place = tempfile::tempdir().unwrap();
    let other = place.path().join("other");
    std::fs::write(&other, "x").unwrap();
    let fifo = place.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let files = access(WatchPlace::Files(vec![fifo.clone()]), Hide::Nothing);
    let denied = about(&files, "w", other.to_str().unwrap()).await;
    assert!(
        matches!(denied, Err(contract::Error::Denied(_))),
        "{denied:?}"
    );
    // Not opened: that would wait for a writer.
    let refused = about(&files, "w", fifo.to_str().unwrap()).await;
    assert!(
        matches!(refused, Err(contract::Error::Failed(_))),
        "{refused:?}"
    );

    let below = access(
        WatchPlace::Directory(place.path().to_owned()),
        Hide::Nothing,
    );
    assert_eq!(read(&below, "w", "other", 0, 9).await.unwrap().bytes, b"x");
    for out in ["../etc/passwd", "/etc/passwd"] {
        let denied = about(&below, "w", out).await;
        assert!(
            matches!(denied, Err(contract::Error::Denied(_))),
            "{denied:?}"
        );
    }
}

#[tokio::test]
async fn hidden_secrets_stay_hidden_wherever_a_read_begins() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("dhcpd.conf");
    let text = "key k { algorithm hmac-md5; secret \"TOPSECRET\"; };\nomapi-port 7911;\n";
    std::fs::write(&path, text).unwrap();
    let access = access(WatchPlace::Files(vec![path.clone()]), Hide::IscKeySecrets);
    let named = path.to_str().unwrap();
    let whole = text.replace("TOPSECRET", "         ");
    for width in 1..=text.len() {
        let mut seen = Vec::new();
        while seen.len() < text.len() {
            let limit = u32::try_from(width).unwrap();
            let chunk = read(&access, "w", named, seen.len() as u64, limit)
                .await
                .unwrap();
            seen.extend(chunk.bytes);
        }
        assert_eq!(
            String::from_utf8(seen).unwrap(),
            whole,
            "{width} bytes a read"
        );
    }
}

#[tokio::test]
async fn a_change_and_a_replacement_are_told_and_reading_is_not() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("leases");
    std::fs::write(&path, "a").unwrap();
    let access = access(WatchPlace::Files(vec![path.clone()]), Hide::Nothing);
    let mut follow = Follow::start(&access.guard().effective()).unwrap();
    let soon = Duration::from_secs(10);

    std::fs::write(&path, "ab").unwrap();
    let told = tokio::time::timeout(soon, follow.changed()).await.unwrap();
    assert_eq!(told, ["w"]);

    std::fs::write(place.path().join("new"), "abc").unwrap();
    std::fs::rename(place.path().join("new"), &path).unwrap();
    let told = tokio::time::timeout(soon, follow.changed()).await.unwrap();
    assert_eq!(told, ["w"]);

    let named = path.to_str().unwrap();
    assert_eq!(read(&access, "w", named, 0, 9).await.unwrap().bytes, b"abc");
    std::fs::write(place.path().join("another"), "x").unwrap();
    let told = tokio::time::timeout(Duration::from_millis(300), follow.changed()).await;
    assert!(told.is_err(), "{told:?}");
}
