//! Which operations, and which foundings, the ledger's state allows next. The keeper asks here before
//! it writes an intent; nothing else gives leave.

use crate::signing::SigningPolicy;

/// How far daemon and keeper may differ in what the time is: they are processes of one machine, so
/// this covers nothing but planning ahead by a little.
pub const CLOCK_SKEW_S_MAX: u32 = 300;

/// Octets of a nonce in a key's label, before they are written in hexadecimal.
pub const NONCE_BYTES: usize = 16;

/// Why an operation is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No such zone, key or token here.
    #[error("{0}")]
    Unknown(String),
    /// A token answers for the key with another public key.
    #[error("{0}")]
    Conflict(String),
    /// The rules forbid it.
    #[error("{0}")]
    Forbidden(String),
}

fn forbidden<T>(why: String) -> Result<T, Denied> {
    Err(Denied::Forbidden(why))
}

/// Checks a signature's validity against policy and clock (RFC 4034 §3.1.5; both ends are seconds
/// since 1970 modulo 2^32, compared as RFC 1982 says).
pub fn check_validity(
    policy: &SigningPolicy,
    inception: u32,
    expiration: u32,
    now_s: u64,
) -> Result<(), Denied> {
    // Distances from now as signed numbers: right for 68 years to either side.
    let from_now = |time: u32| i64::from(time.wrapping_sub(now_s as u32).cast_signed());
    let (starts, ends) = (from_now(inception), from_now(expiration));
    let skew = i64::from(CLOCK_SKEW_S_MAX);
    if starts > skew {
        return forbidden(format!(
            "inception lies {starts} s ahead of the keeper's clock; expected at most {skew} s. \
             hint: compare the clocks of daemon and keeper"
        ));
    }
    if ends <= 0 {
        return forbidden(format!("expiration lies {} s in the past", -ends));
    }
    if ends <= starts {
        return forbidden("the signature would end before it begins".to_owned());
    }
    let validity = i64::from(policy.validity_s);
    if ends > validity + skew {
        return forbidden(format!(
            "expiration lies {ends} s ahead; the zone's policy allows {validity} s"
        ));
    }
    let longest = validity + i64::from(policy.inception_offset_s);
    if ends - starts > longest {
        return forbidden(format!(
            "the signature would be valid for {} s; the zone's policy allows {longest} s",
            ends - starts
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn validity_is_judged_by_the_clock() {
        let policy = crate::signing::example();
        let check = |starts: i64, ends: i64, now: u64, expect: &str| {
            let at = |offset: i64| (now.cast_signed() + offset).cast_unsigned() as u32;
            match check_validity(&policy, at(starts), at(ends), now) {
                Ok(()) => assert_eq!(expect, "allowed", "{starts} {ends}"),
                Err(denied) => assert!(denied.to_string().contains(expect), "{denied}"),
            }
        };
        let (offset, validity) =
            (i64::from(policy.inception_offset_s), i64::from(policy.validity_s));
        for now in [NOW, u64::from(u32::MAX), u64::from(u32::MAX) + 500] {
            check(-offset, validity, now, "allowed");
            check(0, 1, now, "allowed");
            check(301, validity, now, "ahead of the keeper's clock");
            check(-offset, validity + 301, now, "expiration lies");
            check(-offset - 1, validity, now, "would be valid for");
            check(-offset, 0, now, "in the past");
            check(10, 5, now, "before it begins");
        }
    }
}
