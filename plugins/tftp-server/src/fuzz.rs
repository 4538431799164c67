//! What must hold for any datagram, for the fuzz tests of the workspace.

use crate::request::{Asked, read};

/// A request is read or refused; what is read stays below the directory.
///
/// # Panics
/// When a promise does not hold.
pub fn request(bytes: &[u8]) {
    if let Asked::Read(request) = read(bytes, "/srv/tftp") {
        let inside = |part: &str| !matches!(part, "" | "." | "..");
        assert!(request.path.split('/').all(inside), "{}", request.path);
        assert!(
            !request.path.contains(['\0', '\\', '\n']),
            "{}",
            request.path
        );
    }
}
