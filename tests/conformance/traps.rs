//! contract/traps.md: the subtlest behaviours, one test each where no other file holds it already.
//!
//! Held elsewhere: 5, 6, 7 in `core/authorisation.rs`; 8, 9, 10 in `core/features.rs`; 12 in `core/log_ring.rs`; 13 and 14 in `tftp.rs`, 15 in
//! `boot_files.rs`; 11 and 29 in `templates.rs` and `registration.rs`; 16 to 22 in `dhcp.rs`; 23 to 25 in `dns.rs`; 30 in `foreman_client.rs`. 26 to 28
//! belong to features that are not built yet.

use bulkhead_testkit::Bulkhead;
use bulkhead_testkit::program::Shared;

use crate::{HTML, JSON};

static BULKHEAD: Shared = Shared::new(Bulkhead::trial);

/// 1: `/logs/` with slash works, `/v2/features/` with slash does not.
#[test]
fn slashes_matter_where_foreman_sends_them() {
    let target = BULKHEAD.get().foreman();
    assert_eq!(target.get("/logs/?from_timestamp=0").status, 200);
    assert_eq!(target.get("/v2/features/").status, 404);
}

/// 2: errors are plain text labelled JSON, successes HTML, even where the body is JSON.
#[test]
fn labels_do_not_say_what_bodies_are() {
    let target = BULKHEAD.get().foreman();
    assert_eq!(target.get("/tftp/PXEGrub2/x").content_type(), JSON);
    assert_eq!(target.get("/tftp/serverName").content_type(), HTML);
}

/// 3: a success without content has an empty body, never `null`.
#[test]
fn successes_without_content_have_no_body() {
    let target = BULKHEAD.get().foreman();
    assert_eq!(
        target
            .post("/tftp/PXELinux/aa:bb:cc:03:00:01", &[("pxeconfig", "x")])
            .body,
        b""
    );
    assert_eq!(target.delete("/tftp/PXELinux/aa:bb:cc:03:00:01").body, b"");
}

/// 4: deleting an absent TFTP file is a success.
#[test]
fn deleting_an_absent_file_succeeds() {
    assert_eq!(
        BULKHEAD
            .get()
            .foreman()
            .delete("/tftp/PXEGrub2/aa:bb:cc:03:00:02")
            .status,
        200
    );
}
