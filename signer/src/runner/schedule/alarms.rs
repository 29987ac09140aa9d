//! What of a zone's schedule needs someone's attention.

use super::{Failed, Schedule, Up};
use crate::runner::alarm::{Alarm, AlarmKind};

impl Schedule {
    /// Everything that needs someone's attention, worst first.
    pub fn alarms(&self, now_s: u64) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        match &self.up {
            Some(up) => self.of_version(up, now_s, &mut alarms),
            None if self.check_failure.is_some() || self.sign_failure.is_some() => {
                let reason = "no version has ever been published".to_owned();
                alarms.push(lasting(AlarmKind::NoVersion, reason, self.checked_s));
            }
            None => {}
        }
        if let Some(reason) = &self.distrusted {
            let kind = AlarmKind::VersionDistrusted;
            alarms.push(lasting(kind, reason.clone(), self.checked_s));
        }
        if let Some(person) = &self.person {
            let reason = format!("serial {}: {}", person.serial, person.reason);
            alarms.push(lasting(AlarmKind::VersionHeld, reason, person.since_s));
        }
        self.of_failures(now_s, &mut alarms);
        if let Some(timers) = self.timers {
            let expired_s = self.checked_s + u64::from(timers.expire_s);
            if expired_s <= now_s {
                let reason = format!(
                    "no primary has answered for {} s (SOA expire {})",
                    now_s - self.checked_s,
                    timers.expire_s
                );
                let retry_at_s = Some(self.check_due_s);
                let kind = AlarmKind::PrimaryExpired;
                alarms.push(Alarm { kind, reason, since_s: expired_s, retry_at_s });
            }
        }
        alarms.sort_by_key(|alarm| alarm.kind);
        alarms
    }

    /// What is wrong with the version that is up.
    fn of_version(&self, up: &Up, now_s: u64, alarms: &mut Vec<Alarm>) {
        if up.expires_s <= now_s {
            let reason = format!("serial {} is up with signatures that have expired", up.serial);
            alarms.push(lasting(AlarmKind::SignaturesExpired, reason, up.expires_s));
        } else if up.refresh_at_s < now_s && (self.keep || self.frozen) {
            let waits = if self.frozen {
                "the zone is frozen"
            } else {
                "serial policy `keep` waits for the primary's next serial"
            };
            let reason = format!(
                "signatures of serial {} are due and expire in {} s; {waits}",
                up.serial,
                up.expires_s - now_s
            );
            alarms.push(lasting(AlarmKind::RefreshWaits, reason, up.refresh_at_s));
        }
        if up.is_early(now_s) {
            let (serial, in_s) = (up.serial, up.valid_from_s - now_s);
            let reason = format!("signatures of serial {serial} are not valid for {in_s} s yet");
            alarms.push(lasting(AlarmKind::SignaturesEarly, reason, now_s));
        }
        // Half-way between due and expired: whatever the retries say, someone should look.
        let half = up.refresh_at_s.midpoint(up.expires_s);
        if half <= now_s && now_s < up.expires_s {
            let reason = format!("signatures expire in {} s", up.expires_s - now_s);
            alarms.push(lasting(AlarmKind::SignaturesExpiring, reason, half));
        }
    }

    /// What failed, and what officers must see to.
    fn of_failures(&self, now_s: u64, alarms: &mut Vec<Alarm>) {
        if let Some(ending) = self.dnskey.filter(|ending| ending.attention_s <= now_s) {
            let when = match ending.ends_s.checked_sub(now_s) {
                Some(left_s) => format!("ends in {left_s} s"),
                None => "has ended".to_owned(),
            };
            let reason = format!("the approval of the DNSKEY set {when}, its signatures with it");
            alarms.push(lasting(AlarmKind::ApprovalEnding, reason, ending.attention_s));
        }
        for (failed, due_s) in [
            (&self.sign_failure, self.sign_due_s),
            (&self.check_failure, self.check_due_s),
            (&self.cds_failure, self.cds_due_s.unwrap_or(now_s)),
        ] {
            if let Some(failed) = failed {
                alarms.push(Alarm {
                    kind: AlarmKind::of(failed.failure.kind),
                    reason: failed.failure.detail.clone(),
                    since_s: failed.since_s,
                    retry_at_s: Some(due_s),
                });
            }
        }
        if let Some(Failed { failure, since_s, .. }) = &self.arrival_failure {
            let kind = AlarmKind::of(failure.kind);
            alarms.push(lasting(kind, failure.detail.clone(), *since_s));
        }
    }
}

/// One that nothing is tried against by itself, or not at a time of its own.
fn lasting(kind: AlarmKind, reason: String, since_s: u64) -> Alarm {
    Alarm { kind, reason, since_s, retry_at_s: None }
}
