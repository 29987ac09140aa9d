//! Times as texts show them: UTC, proleptic Gregorian, whole seconds (RFC 3339 §5.6, of its many
//! forms the one with `T` and `Z`).

const DAY_S: u64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;
/// From 1 March of year 0 to 1 January 1970.
const EPOCH_DAYS: u64 = 719_468;

/// The last second of 2199: no statement, and no clock that is to be believed, goes further.
pub const TIME_S_MAX: u64 = 7_258_118_399;

/// Seconds since 1970 as `2026-11-25T03:00:00Z`. Beyond [`TIME_S_MAX`] it is a text that
/// [`parse_time`] refuses.
pub fn time_text(seconds: u64) -> String {
    let (year, month, day) = date(seconds / DAY_S);
    let second = seconds % DAY_S;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The reverse of [`time_text`], of its one spelling only, up to [`TIME_S_MAX`].
pub fn parse_time(text: &str) -> Option<u64> {
    let bytes: &[u8; 20] = text.as_bytes().try_into().ok()?;
    let shape = b"0000-00-00T00:00:00Z";
    let fits = |(b, s): (&u8, &u8)| if *s == b'0' { b.is_ascii_digit() } else { b == s };
    if !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |at: std::ops::Range<usize>| -> u64 {
        bytes[at].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    };
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    if year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    let seconds = (days(year, month, day) * DAY_S)
        + number(11..13) * 3_600
        + number(14..16) * 60
        + number(17..19);
    // A day or an hour that is not there comes out as another one.
    (seconds <= TIME_S_MAX && time_text(seconds) == text).then_some(seconds)
}

/// Days since 1970 to (year, month, day): counted from 1 March, so that the leap day is the last of
/// a year (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let leap_days = day_of_era / 1_460 + day_of_era / 146_096;
    let year_of_era = (day_of_era + day_of_era / 36_524 - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let (month, next_year) =
        if march_month < 10 { (march_month + 3, 0) } else { (march_month - 9, 1) };
    (era * 400 + year_of_era + next_year, month, day)
}

/// The reverse of [`date`], for years from 1970 and months from 1 to 12. Wraps for what is no date.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * march_month + 2) / 5 + day;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * ERA_DAYS + day_of_era).saturating_sub(EPOCH_DAYS + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_have_one_text() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_575_600, "2026-11-25T03:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (TIME_S_MAX, "2199-12-31T23:59:59Z"),
        ] {
            assert_eq!(time_text(seconds), text);
            assert_eq!(parse_time(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "0000-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-00T00:00:00Z",
            "2200-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "2026-00-25T03:00:00Z",
            "2026-13-25T03:00:00Z",
            "2026-11-00T03:00:00Z",
            "2026-11-31T03:00:00Z",
            "2026-02-29T03:00:00Z",
            "2100-02-29T03:00:00Z",
            "2026-11-25T24:00:00Z",
            "2026-11-25T03:60:00Z",
            "2026-11-25T03:00:60Z",
            "2026-11-25T03:00:00z",
            "2026-11-25 03:00:00Z",
            "2026-11-25T03:00:00+00:00",
            "2026-11-25T03:00:00.0Z",
            "2026-11-25T03:00:00Z ",
            "+026-11-25T03:00:00Z",
            "2026-11-25T03:00:0\u{664}",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(parse_time(&time_text(TIME_S_MAX + 1)), None);
        assert_eq!(parse_time(&time_text(u64::MAX)), None);
    }

    proptest! {
        #[test]
        fn every_second_round_trips(seconds in 0..=TIME_S_MAX) {
            prop_assert_eq!(parse_time(&time_text(seconds)), Some(seconds));
        }
    }

    #[test]
    fn every_day_comes_after_the_one_before() {
        let mut last = String::new();
        for day in 0..=TIME_S_MAX / DAY_S {
            let text = time_text(day * DAY_S);
            assert!(text > last, "{last} {text}");
            assert_eq!(parse_time(&text), Some(day * DAY_S));
            last = text;
        }
    }
}
