//! Which part of a file a `Range` header asks for (RFC 9110 section 14).
//!
//! One range is answered. Several, or a header that cannot be read, get the whole file, which the RFC allows: boot firmware asks
//! for one.

use http::HeaderValue;

/// A part of a file; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// Offset of the first byte.
    pub(super) first: u64,
    /// Bytes.
    pub(super) length: u64,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Whole,
    Part(Range),
    /// Nothing of what it asks for exists.
    Unsatisfiable,
}

impl Range {
    /// The value of `Content-Range`.
    pub(super) fn content_range(self, total: u64) -> String {
        format!(
            "bytes {}-{}/{total}",
            self.first,
            self.first + self.length - 1
        )
    }
}

/// Reads the header for a file of `total` bytes.
pub(super) fn parse(header: &HeaderValue, total: u64) -> Asked {
    let ranges = header
        .to_str()
        .ok()
        .and_then(|text| text.trim().strip_prefix("bytes="));
    let Some((first, last)) = ranges.and_then(|range| range.split_once('-')) else {
        return Asked::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    // u64 reads a sign as well, which the grammar does not know; a comma means several ranges.
    if !first
        .bytes()
        .chain(last.bytes())
        .all(|byte| byte.is_ascii_digit())
    {
        return Asked::Whole;
    }
    match (number(first), number(last)) {
        (None, None) => Asked::Whole,
        (None, Some(0)) => Asked::Unsatisfiable,
        (None, Some(_)) if total == 0 => Asked::Unsatisfiable,
        (None, Some(suffix)) => {
            let length = suffix.min(total);
            Asked::Part(Range {
                first: total - length,
                length,
            })
        }
        (Some(first), Some(last)) if last < first => Asked::Whole,
        (Some(first), _) if first >= total => Asked::Unsatisfiable,
        (Some(first), last) => {
            let last = last.unwrap_or(u64::MAX).min(total - 1);
            Asked::Part(Range {
                first,
                length: last - first + 1,
            })
        }
    }
}

/// A number; what is larger than any file is the largest.
fn number(digits: &str) -> Option<u64> {
    (!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        let part = |first, length| Asked::Part(Range { first, length });
        for (header, asked) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=1-2", part(1, 2)),
            ("bytes=4-", part(4, 2)),
            ("bytes=4-99", part(4, 2)),
            ("bytes=-2", part(4, 2)),
            ("bytes=-99", part(0, 6)),
            ("bytes=0-99999999999999999999999", part(0, 6)),
            ("bytes=6-", Asked::Unsatisfiable),
            ("bytes=99999999999999999999999-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=2-1", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("lines=1-2", Asked::Whole),
            ("", Asked::Whole),
        ] {
            assert_eq!(
                parse(&HeaderValue::from_static(header), 6),
                asked,
                "{header}"
            );
        }
        assert_eq!(
            parse(&HeaderValue::from_static("bytes=-5"), 0),
            Asked::Unsatisfiable
        );
        assert_eq!(
            parse(&HeaderValue::from_static("bytes=0-"), 0),
            Asked::Unsatisfiable
        );
    }
}
