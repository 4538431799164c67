//! Times of the leases file: `3 2026/11/25 10:00:00` (UTC), `epoch 1795600800`, `never`.

use crate::lexer::{Lexer, Token};

/// What `never` stands for: the last second of a signed 32-bit clock, 2038-01-19 03:14:07 UTC.
const NEVER: i64 = 0x7fff_ffff;

/// Reads a time up to its semicolon. The outer None: the text ends first; the inner: it is no time.
pub fn read(lexer: &mut Lexer<'_>) -> Option<Option<i64>> {
    let mut words: [&[u8]; 3] = [b""; 3];
    let mut count = 0_usize;
    loop {
        match lexer.next()? {
            Token::End => break,
            Token::Word(word) => {
                if let Some(place) = words.get_mut(count) {
                    *place = word;
                }
                count += 1;
            }
            _ => {
                lexer.skip_statement()?;
                return Some(None);
            }
        }
    }
    Some(match (count, words) {
        (1, [b"never", ..]) => Some(NEVER),
        (2, [b"epoch", number, _]) => text(number).and_then(|number| number.parse().ok()),
        (3, [_, date, time]) => calendar(date, time),
        _ => None,
    })
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn calendar(date: &[u8], time: &[u8]) -> Option<i64> {
    let [year, month, day] = three(date, b'/')?;
    let [hour, minute, second] = three(time, b':')?;
    let plausible = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    plausible.then(|| days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn three(bytes: &[u8], separator: u8) -> Option<[i64; 3]> {
    let mut numbers = [0_i64; 3];
    let mut parts = bytes.split(|&byte| byte == separator);
    for number in &mut numbers {
        for &byte in parts.next().filter(|part| (1..=4).contains(&part.len()))? {
            *number = *number * 10 + i64::from(char::from(byte).to_digit(10)?);
        }
    }
    parts.next().is_none().then_some(numbers)
}

/// Days since 1970-01-01 of a date in the Gregorian calendar. Years begin in March here, so that the leap day is their last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// `2026-11-25 10:00:00 UTC`
#[must_use]
pub fn written(seconds: i64) -> String {
    let (day, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(statement: &str) -> Option<Option<i64>> {
        read(&mut Lexer::new(statement.as_bytes()))
    }

    #[test]
    fn every_form_of_a_time_is_read() {
        assert_eq!(time("0 1970/01/01 00:00:00;"), Some(Some(0)));
        assert_eq!(time("3 2026/11/25 10:00:00;"), Some(Some(1_795_600_800)));
        assert_eq!(time("epoch 1795600800; # Wed"), Some(Some(1_795_600_800)));
        assert_eq!(time("never;"), Some(Some(NEVER)));
        assert_eq!(time("3 2026/11/25"), None);
        for bad in [
            "3 2026/13/25 10:00:00;",
            "3 2026-11-25 10:00:00;",
            "x;",
            "epoch x;",
            "3 2026/11/25 10:00:00 x;",
        ] {
            assert_eq!(time(bad), Some(None), "{bad}");
        }
    }

    #[test]
    fn a_time_is_written_as_it_was_read() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_600_800, "2026-11-25 10:00:00 UTC"),
            (NEVER, "2038-01-19 03:14:07 UTC"),
        ] {
            assert_eq!(written(seconds), text);
        }
        for day in (0..40_000).step_by(13) {
            let text = written(day * 86_400);
            let date = text.split(' ').next().unwrap().replace('-', "/");
            assert_eq!(
                time(&format!("1 {date} 00:00:00;")),
                Some(Some(day * 86_400))
            );
        }
    }
}
