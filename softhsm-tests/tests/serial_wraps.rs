//! A primary's serial goes over the top of 32 bits and on (RFC 1982): the signer and its secondaries
//! follow, whether the policy keeps the primary's serials or counts on by itself. A serial exactly
//! 2^31 ahead is neither newer nor older; it is not taken, and the text says so.

use anyhow::ensure;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::fake_primary::{FakePrimary, Fault};
use softhsm_tests::pki::Authority;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{ports, query, story};

const TOP: u32 = u32::MAX;
/// Halfway round from 5.
const UNDEFINED: u32 = 5 + (1 << 31);

fn wraps(policy: &'static str) {
    story(|scratch| {
        let port = ports::free()?;
        let more = format!(
            "[peer.nsd]\nidentity = {{ san = \"nsd.test\" }}\nnotify = \"127.0.0.1:{port}\"\n"
        );
        let plan = Plan {
            content: zones::example(TOP),
            serial: policy,
            daemon_more: more,
            ..Plan::default()
        };
        let mut chain = Chain::start_with(scratch, plan, |chain| {
            chain.daemon_spec.more_secondaries.push("nsd".to_owned());
        })?;
        let nsd = chain.start_nsd(port)?;
        until("the zone on NSD", SOON, || query::serial(nsd.port, ZONE))?;
        ensure!(chain.served_serial()? == TOP && query::serial(nsd.port, ZONE)? == TOP);
        for serial in [0, 5] {
            chain.change_zone(&zones::example_with(serial, "over-the-top"))?;
            chain.wait_for_secondary(&format!("serial {serial}"), |served| served == serial)?;
            let served = chain.served_zone()?;
            ensure!(served.contains(&format!("\"serial {serial}\"")), "{served}");
            until(&format!("serial {serial} on NSD"), SOON, || {
                ensure!(query::serial(nsd.port, ZONE)? == serial);
                Ok(())
            })?;
        }
        chain.verify_served()?;
        chain.daemon.no_alarm()
    });
}

#[test]
fn kept_serials_wrap() {
    wraps("keep");
}

#[test]
fn counted_serials_wrap() {
    wraps("increment");
}

/// BIND would not load such a zone over the one before it, so the primary is one that serves what it is
/// told.
fn halfway_round(policy: &'static str) {
    story(|scratch| {
        let plan = Plan { serial: policy, ..Plan::default() };
        let mut chain = Chain::prepare(scratch, plan, Authority::new(scratch, "ca")?)?;
        let identity = chain.identities["primary"].clone();
        let fake = FakePrimary::start(ports::free()?, &identity, &chain.authority.ca)?;
        fake.set(Fault::None, 5);
        chain.use_primary("primary-1", "primary.test", fake.port)?;
        chain.found()?;
        chain.daemon.start()?;
        chain.start_secondary()?;
        chain.wait_for_secondary("serial 5", |serial| serial == 5)?;

        fake.set(Fault::None, UNDEFINED);
        chain.daemon.cli(&["zone", "refresh", ZONE])?;
        let reason = until("an alarm", SOON, || {
            chain.daemon.alarm(&["primary-unreachable", "data-refused"])
        })?;
        for part in ["2147483653", "5", "2^31", "RFC 1982"] {
            ensure!(reason.contains(part), "{part:?} is not in {reason:?}");
        }
        ensure!(chain.served_serial()? == 5 && chain.daemon.serial()? == 5);

        // One less is newer.
        fake.set(Fault::None, UNDEFINED - 1);
        chain.daemon.cli(&["zone", "refresh", ZONE])?;
        chain.wait_for_secondary("the furthest serial", |served| served == UNDEFINED - 1)?;
        until("no alarm", SOON, || chain.daemon.no_alarm())
    });
}

#[test]
fn halfway_round_is_nowhere_for_kept_serials() {
    halfway_round("keep");
}

#[test]
fn halfway_round_is_nowhere_for_counted_serials() {
    halfway_round("increment");
}
