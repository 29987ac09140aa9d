//! The serial of a signed zone: where it comes from by policy, and that it never goes back
//! (RFC 1982 §3, 32-bit serials).

use std::cmp::Ordering;

use countersign_policy::signing::SerialPolicy;

/// Why there is no serial for a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SerialError {
    /// Under `keep`, a version with the primary's serial is out already.
    #[error(
        "serial {published} is published already and the policy keeps the primary's serials; new signatures wait for the primary's next serial. Raise it there, or choose another serial policy"
    )]
    WaitsForPrimary {
        /// The published serial.
        published: u32,
    },
    /// Under `keep`, the primary is behind what is published.
    #[error(
        "the primary's serial {incoming} is not newer than the published {published} (RFC 1982) and the policy keeps the primary's serials; raise it beyond {published} at the primary"
    )]
    Behind {
        /// The primary's serial.
        incoming: u32,
        /// The published serial.
        published: u32,
    },
    /// The primary's own serial went back.
    #[error(
        "the primary's serial went back from {last} to {incoming} (RFC 1982), and the policy keeps the primary's serials; raise it beyond {last} at the primary"
    )]
    WentBack {
        /// The primary's serial now.
        incoming: u32,
        /// The primary's serial before.
        last: u32,
    },
}

/// RFC 1982 §3.2. Two serials 2^31 apart have no order: `None`.
pub fn compare(a: u32, b: u32) -> Option<Ordering> {
    match a.wrapping_sub(b) {
        0 => Some(Ordering::Equal),
        1..=0x7fff_ffff => Some(Ordering::Greater),
        0x8000_0000 => None,
        _ => Some(Ordering::Less),
    }
}

/// Whether `a` is newer than `b`.
pub fn is_newer(a: u32, b: u32) -> bool {
    compare(a, b) == Some(Ordering::Greater)
}

/// The serial of the next version. `incoming` is the primary's, `last_incoming` its last one that
/// was signed, `last_published` that of the version that is up; `now_s` is seconds since 1970.
/// With a last published serial the result is always newer than it.
pub fn next_serial(
    policy: SerialPolicy,
    incoming: u32,
    last_published: Option<u32>,
    last_incoming: Option<u32>,
    now_s: u64,
) -> Result<u32, SerialError> {
    let wanted = match policy {
        SerialPolicy::Keep => return keep(incoming, last_published, last_incoming),
        SerialPolicy::Increment => incoming,
        // Modulo 2^32, as serials are: it goes on in 2106.
        SerialPolicy::Unixtime => now_s as u32,
        SerialPolicy::DateCounter => date_counter(now_s),
    };
    Ok(match last_published {
        Some(last) if !is_newer(wanted, last) => last.wrapping_add(1),
        _ => wanted,
    })
}

fn keep(
    incoming: u32,
    last_published: Option<u32>,
    last_incoming: Option<u32>,
) -> Result<u32, SerialError> {
    match (last_published, last_incoming) {
        (Some(published), _) if incoming == published => {
            Err(SerialError::WaitsForPrimary { published })
        }
        (_, Some(last)) if incoming != last && !is_newer(incoming, last) => {
            Err(SerialError::WentBack { incoming, last })
        }
        (Some(published), _) if !is_newer(incoming, published) => {
            Err(SerialError::Behind { incoming, published })
        }
        _ => Ok(incoming),
    }
}

/// YYYYMMDD00 of the day in UTC. Days beyond the year 4294 wrap, as serials do.
fn date_counter(now_s: u64) -> u32 {
    let (year, month, day) = civil(now_s / 86_400);
    (((year * 100 + month) * 100 + day) * 100) as u32
}

/// Year, month and day of a day since 1970-01-01 in the proleptic Gregorian calendar: years are
/// counted from March, so that the leap day ends them, in eras of 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468; // from 0000-03-01
    const ERA_DAYS: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-24 23:51:06 UTC.
    const NOW: u64 = 1_795_564_266;

    #[test]
    fn days_have_their_dates() {
        for (days, expect) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
            (NOW / 86_400, (2026, 11, 24)),
        ] {
            assert_eq!(civil(days), expect);
        }
    }

    #[test]
    fn each_policy_has_its_source() {
        let check = |policy, incoming, published, expect| {
            assert_eq!(
                next_serial(policy, incoming, published, None, NOW),
                Ok(expect),
                "{policy:?}"
            );
        };
        check(SerialPolicy::Keep, 7, None, 7);
        check(SerialPolicy::Keep, 7, Some(6), 7);
        check(SerialPolicy::Increment, 7, None, 7);
        check(SerialPolicy::Increment, 7, Some(5), 7);
        check(SerialPolicy::Increment, 7, Some(7), 8);
        check(SerialPolicy::Increment, 7, Some(u32::MAX), 7);
        check(SerialPolicy::Increment, u32::MAX - 1, Some(u32::MAX), 0);
        check(SerialPolicy::Unixtime, 7, None, 1_795_564_266);
        check(SerialPolicy::Unixtime, 7, Some(1_795_564_266), 1_795_564_267);
        check(SerialPolicy::Unixtime, 7, Some(2_026_112_400), 2_026_112_401);
        check(SerialPolicy::DateCounter, 7, None, 2_026_112_400);
        check(SerialPolicy::DateCounter, 7, Some(2_026_112_400), 2_026_112_401);
        check(SerialPolicy::DateCounter, 7, Some(2_026_112_399), 2_026_112_400);
    }

    #[test]
    fn keep_waits_and_says_for_what() {
        let keep = |incoming, published, last_incoming| {
            next_serial(SerialPolicy::Keep, incoming, published, last_incoming, NOW)
        };
        assert_eq!(keep(7, Some(7), Some(7)), Err(SerialError::WaitsForPrimary { published: 7 }));
        assert_eq!(keep(6, Some(7), Some(7)), Err(SerialError::WentBack { incoming: 6, last: 7 }));
        // The policy was `unixtime` before.
        assert_eq!(
            keep(8, Some(1_795_564_266), Some(7)),
            Err(SerialError::Behind { incoming: 8, published: 1_795_564_266 })
        );
        assert_eq!(keep(2, Some(u32::MAX), Some(u32::MAX)), Ok(2));
    }

    proptest! {
        #[test]
        fn no_policy_goes_back(incoming: u32, published: u32, last_incoming: Option<u32>, now_s in 0..1u64 << 40) {
            for policy in [SerialPolicy::Keep, SerialPolicy::Increment, SerialPolicy::Unixtime, SerialPolicy::DateCounter] {
                if let Ok(next) = next_serial(policy, incoming, Some(published), last_incoming, now_s) {
                    prop_assert!(is_newer(next, published));
                } else {
                    prop_assert_eq!(policy, SerialPolicy::Keep);
                }
            }
        }

        #[test]
        fn newer_is_antisymmetric(a: u32, b: u32) {
            prop_assert!(!(is_newer(a, b) && is_newer(b, a)));
            prop_assert_eq!(compare(a, b).map(Ordering::reverse), compare(b, a));
        }
    }
}
