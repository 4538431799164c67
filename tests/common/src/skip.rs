//! Tests that cannot run here say so loudly, and fail in continuous integration, where nothing may be missing.

/// True when the environment says that this is continuous integration (`CI=true`).
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Ends the calling test early, with its reason. In continuous integration it fails the test instead.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        let reason = format!($($reason)+);
        assert!(!$crate::skip::in_ci(), "SKIPPED, which CI forbids: {reason}");
        // Past the test harness' capture, so that it is seen without `--nocapture`.
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr().lock(), "\n*** SKIPPED ({}:{}): {reason}\n", file!(), line!());
        return;
    }};
}

/// The path of an external program, if the machine has it.
pub fn program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}
