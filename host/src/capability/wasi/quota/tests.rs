//! The counters equal the tree, whatever is done to it.

use super::*;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

fn quota(directory: &Path, bytes: u64, files: u64) -> Arc<Quota> {
    Arc::new(Quota::new(
        "tftp",
        "root",
        directory.to_owned(),
        QuotaLimits {
            bytes: Some(bytes),
            files: Some(files),
        },
    ))
}

fn handle(directory: &Path) -> OwnedFd {
    rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn exceeded<T: std::fmt::Debug>(result: io::Result<T>) -> bool {
    result.unwrap_err().kind() == io::ErrorKind::QuotaExceeded
}

#[test]
fn what_is_there_already_counts() {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir_all(tree.path().join("a/b")).unwrap();
    fs::write(tree.path().join("a/b/file"), [0; 1000]).unwrap();
    fs::hard_link(
        tree.path().join("a/b/file"),
        tree.path().join("second-name"),
    )
    .unwrap();
    let quota = quota(tree.path(), 1100, 10);
    quota.count_once().unwrap();
    assert_eq!(
        quota.usage(),
        Usage {
            bytes: 1000,
            files: 4
        }
    );
}

#[test]
fn the_last_byte_fits_and_the_next_does_not() {
    let tree = tempfile::tempdir().unwrap();
    let (quota, root) = (quota(tree.path(), 100, 10), handle(tree.path()));
    let file = quota.create(&root, OsStr::new("f")).unwrap();
    quota.write_at(&file, &[1; 60], WriteAt::Offset(0)).unwrap();
    quota
        .write_at(&file, &[2; 60], WriteAt::Offset(20))
        .unwrap();
    quota.write_at(&file, &[3; 20], WriteAt::End).unwrap();
    assert_eq!(quota.usage().bytes, 100);
    assert!(exceeded(quota.write_at(&file, b"x", WriteAt::End)));
    assert!(exceeded(quota.write_at(
        &file,
        b"x",
        WriteAt::Offset(u64::MAX - 1)
    )));
    assert_eq!(fs::read(tree.path().join("f")).unwrap().len(), 100);
    quota.write_at(&file, b"x", WriteAt::Offset(99)).unwrap();
    quota.set_length(&file, 10).unwrap();
    assert_eq!(quota.usage().bytes, 10);
    assert!(exceeded(quota.set_length(&file, 101)));
}

#[test]
fn names_are_counted_too() {
    let tree = tempfile::tempdir().unwrap();
    let (quota, root) = (quota(tree.path(), 100, 2), handle(tree.path()));
    quota.create_directory(&root, OsStr::new("d")).unwrap();
    drop(quota.create(&root, OsStr::new("f")).unwrap());
    assert!(exceeded(quota.create(&root, OsStr::new("g"))));
    assert!(exceeded(quota.create_directory(&root, OsStr::new("e"))));
    quota.remove_directory(&root, OsStr::new("d")).unwrap();
    drop(quota.create(&root, OsStr::new("g")).unwrap());
    assert_eq!(quota.usage().files, 2);
}

#[test]
fn renaming_over_a_file_gives_its_bytes_back() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("old"), [0; 70]).unwrap();
    fs::write(tree.path().join("new"), [0; 30]).unwrap();
    let (quota, root) = (quota(tree.path(), 100, 10), handle(tree.path()));
    quota
        .rename(&root, OsStr::new("new"), &root, OsStr::new("old"))
        .unwrap();
    assert_eq!(
        quota.usage(),
        Usage {
            bytes: 30,
            files: 1
        }
    );
}

#[test]
fn a_removed_file_counts_while_it_is_open() {
    let tree = tempfile::tempdir().unwrap();
    let (quota, root) = (quota(tree.path(), 100, 10), handle(tree.path()));
    let file = quota.create(&root, OsStr::new("f")).unwrap();
    quota.write_at(&file, &[0; 80], WriteAt::End).unwrap();
    quota.remove_file(&root, OsStr::new("f")).unwrap();
    assert_eq!(
        quota.usage(),
        Usage {
            bytes: 80,
            files: 0
        }
    );
    let second = quota.create(&root, OsStr::new("f")).unwrap();
    assert!(exceeded(quota.write_at(&second, &[0; 30], WriteAt::End)));
    quota.write_at(&file, &[0; 10], WriteAt::End).unwrap();
    drop(file);
    assert_eq!(quota.usage().bytes, 0);
}

#[test]
fn files_an_administrator_removed_do_not_count() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("big"), [0; 90]).unwrap();
    let (quota, root) = (quota(tree.path(), 100, 10), handle(tree.path()));
    let file = quota.create(&root, OsStr::new("f")).unwrap();
    fs::remove_file(tree.path().join("big")).unwrap();
    assert!(
        exceeded(quota.write_at(&file, &[0; 50], WriteAt::End)),
        "counted a moment ago, so not counted again"
    );
    *quota.gate.write().unwrap() = Instant::now().checked_sub(RECOUNT_AFTER);
    quota.write_at(&file, &[0; 50], WriteAt::End).unwrap();
    assert_eq!(
        quota.usage(),
        Usage {
            bytes: 50,
            files: 1
        }
    );
}

#[test]
fn many_writers_of_one_file_count_its_growth_once() {
    let tree = tempfile::tempdir().unwrap();
    let (quota, root) = (quota(tree.path(), 1 << 20, 10), handle(tree.path()));
    let file = quota.create(&root, OsStr::new("f")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for step in 0..200_u64 {
                    quota
                        .write_at(&file, &[7; 64], WriteAt::Offset(step * 32))
                        .unwrap();
                    quota.write_at(&file, &[8; 3], WriteAt::End).unwrap();
                }
            });
        }
    });
    assert_eq!(quota.usage().bytes, file.metadata().unwrap().len());
}
