//! How long signatures last, and which of an earlier version may stay: by what they cover.
//!
//! DNSKEY, CDS and CDNSKEY may last no longer than what approves them. Such a signature can be as
//! good as a new one would be though little of it is left; it is then kept.

use crate::params::ZoneParams;
use crate::rtype::Rtype;
use crate::tbs::Validity;

/// What a signature covers, as far as that decides who signs and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Everything else: ZSKs and CSKs.
    Zone,
    /// The DNSKEY RRset: KSKs and CSKs.
    Dnskey,
    /// CDS and CDNSKEY: KSKs and CSKs.
    Cds,
}

impl Duty {
    pub(crate) fn of(rtype: Rtype) -> Self {
        match rtype {
            Rtype::DNSKEY => Self::Dnskey,
            Rtype::CDS | Rtype::CDNSKEY => Self::Cds,
            _ => Self::Zone,
        }
    }
}

/// What signatures of one duty are like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Term {
    /// Of those that are made now.
    pub(crate) validity: Validity,
    /// Those with less left are made anew.
    refresh_s: u32,
    /// From inception to expiration, at most.
    lifetime_s_max: u32,
    /// None expires later, where that is nearer than they could last.
    ends: Option<u32>,
}

impl Term {
    fn new(
        now_s: u64,
        inception_offset_s: u32,
        validity_s: u32,
        refresh_s: u32,
        until_s: Option<u64>,
    ) -> Self {
        let lifetime_s_max = validity_s.saturating_add(inception_offset_s);
        let latest_s = now_s.saturating_add(validity_s.into());
        let longest_s = now_s.saturating_add(lifetime_s_max.into());
        // Modulo 2^32, as RFC 4034 §3.1.5 reads these fields.
        let validity = Validity {
            inception: now_s.saturating_sub(inception_offset_s.into()) as u32,
            expiration: until_s.map_or(latest_s, |until_s| until_s.min(latest_s)) as u32,
        };
        let ends = until_s.filter(|until_s| *until_s < longest_s).map(|until_s| until_s as u32);
        Self { validity, refresh_s, lifetime_s_max, ends }
    }

    /// Whether a signature with these times is as good at `now` as one to be made.
    pub(crate) fn keeps(&self, inception: u32, expiration: u32, now: u32) -> bool {
        // Serial number arithmetic (RFC 4034 §3.1.5): negative is past, or not yet.
        let from_to = |from: u32, to: u32| to.wrapping_sub(from).cast_signed();
        let left_s = from_to(now, expiration);
        let lasts = left_s > 0
            && (left_s.cast_unsigned() > self.refresh_s
                || from_to(self.validity.expiration, expiration) >= 0);
        lasts
            && from_to(inception, now) >= 0
            && expiration.wrapping_sub(inception) <= self.lifetime_s_max
            && self.ends.is_none_or(|ends| from_to(expiration, ends) >= 0)
    }
}

/// The terms of one version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    zone: Term,
    dnskey: Term,
    cds: Term,
}

impl Terms {
    pub(crate) fn new(params: &ZoneParams, now_s: u64) -> Self {
        let policy = &params.policy;
        let term = |validity_s, refresh_s, until_s| {
            Term::new(now_s, policy.inception_offset_s, validity_s, refresh_s, until_s)
        };
        let dnskey_refresh_s = if params.keep_dnskey { 0 } else { policy.refresh_s };
        let dnskey = term(policy.validity_s, dnskey_refresh_s, params.dnskey_until);
        Self {
            zone: term(policy.validity_s, policy.refresh_s, None),
            dnskey,
            // Without a set there is nothing that it would be asked of.
            cds: params.cds.as_ref().map_or(dnskey, |cds| {
                term(cds.validity_under(policy), cds.refresh_s, Some(cds.until_s))
            }),
        }
    }

    pub(crate) fn of(&self, duty: Duty) -> &Term {
        match duty {
            Duty::Zone => &self.zone,
            Duty::Dnskey => &self.dnskey,
            Duty::Cds => &self.cds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_564_266;
    const DAY: u64 = 86_400;

    /// Ten days' validity, refreshed at four, an hour's offset.
    fn term(until_s: Option<u64>) -> Term {
        Term::new(NOW, 3_600, 10 * 86_400, 4 * 86_400, until_s)
    }

    fn keeps(term: &Term, made_s: u64, ends_s: u64) -> bool {
        term.keeps((made_s - 3_600) as u32, ends_s as u32, NOW as u32)
    }

    #[test]
    fn what_has_enough_left_is_kept() {
        let term = term(None);
        assert_eq!(u64::from(term.validity.expiration), NOW + 10 * DAY);
        assert!(keeps(&term, NOW - DAY, NOW + 9 * DAY));
        assert!(!keeps(&term, NOW - 6 * DAY, NOW + 4 * DAY));
        assert!(!keeps(&term, NOW - 11 * DAY, NOW - DAY));
        assert!(!keeps(&term, NOW + 2 * 3_600, NOW + 9 * DAY), "not yet valid");
        assert!(!keeps(&term, NOW - 2 * DAY, NOW + 9 * DAY), "valid for too long");
    }

    #[test]
    fn nothing_outlasts_its_approval_and_nothing_is_made_anew_for_nothing() {
        let soon = term(Some(NOW + 2 * DAY));
        assert_eq!(u64::from(soon.validity.expiration), NOW + 2 * DAY);
        assert!(keeps(&soon, NOW - DAY, NOW + 2 * DAY), "a new one would last no longer");
        assert!(!keeps(&soon, NOW - DAY, NOW + 2 * DAY - 1));
        assert!(!keeps(&soon, NOW - DAY, NOW + 2 * DAY + 1), "past the end");
        let over = term(Some(NOW - 1));
        assert!(!keeps(&over, NOW - DAY, NOW - 1), "expired");
        // The end lies beyond what a new signature reaches, and short of what an old one may.
        let between = term(Some(NOW + 10 * DAY + 60));
        assert!(keeps(&between, NOW - 60, NOW + 10 * DAY - 60));
        assert!(!between.keeps(NOW as u32, (NOW + 10 * DAY + 61) as u32, NOW as u32));
        let never = term(Some(u64::MAX));
        assert_eq!(u64::from(never.validity.expiration), NOW + 10 * DAY);
        assert!(keeps(&never, NOW - DAY, NOW + 9 * DAY));
    }
}
