//! Sizes and times as operators write them: a whole number and its unit, never a bare number.

use std::time::Duration;

/// `1500B`, `64KiB`, `10GB`. None: not a size, or beyond 16 EiB.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 10] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1000),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    number(text.strip_suffix(unit)?)?.checked_mul(*factor)
}

/// `250ms`, `30s`, `5m`, `1h`, `7d`.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 5] = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    number(text.strip_suffix(unit)?)?
        .checked_mul(*factor)
        .map(Duration::from_millis)
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim_end_matches(' ');
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_need_their_unit() {
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("10 GB"), Some(10_000_000_000));
        assert_eq!(parse_size("64"), None);
        assert_eq!(parse_size("-1B"), None);
        assert_eq!(parse_size("99999999999TiB"), None);
        assert_eq!(parse_time("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_time("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_time("1"), None);
        assert_eq!(parse_time("h"), None);
    }
}
