//! A clock that is a day back, or years ahead, stops the use of KSKs and nothing else; when it is right
//! again all goes on, and no line that was written meanwhile holds anything up. After a long outage
//! a quorum vouches for the clock.

use anyhow::{Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::pki::Authority;
use softhsm_tests::thief::{keys, now, signs_data, signs_dnskey};
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::ZONE;
use softhsm_tests::{Scratch, story};

const DAY_S: i64 = 86_400;
const TEN_YEARS_S: i64 = 3_653 * DAY_S;

fn founded(scratch: &Scratch) -> Result<Chain<'_>> {
    let mut chain = Chain::prepare(scratch, Plan::default(), Authority::new(scratch, "ca")?)?;
    chain.found()?;
    Ok(chain)
}

/// At `offset` from the machine's clock, for keeper and daemon alike: the ZSK signs; whether the KSK does.
fn ksk_is_used(chain: &Chain<'_>, offset: i64) -> Result<Result<(), String>> {
    chain.keeper.set_clock(offset)?;
    let now = u32::try_from(i64::from(now()?) + offset)?;
    let ours = keys(&chain.keeper, ZONE)?;
    let data = signs_data(&chain.keeper, &ours, now)?;
    ensure!(data == Ok(()), "the ZSK at {offset} s: {data:?}");
    signs_dnskey(&chain.keeper, &ours, now)
}

#[test]
fn clock_jumps() {
    story(|scratch| {
        let mut chain = founded(scratch)?;
        ensure!(ksk_is_used(&chain, 0)? == Ok(()));
        for (offset, says) in
            [(-DAY_S, "has reached"), (TEN_YEARS_S, "ahead"), (31 * DAY_S, "ahead")]
        {
            let answer = ksk_is_used(&chain, offset)?;
            ensure!(answer.as_ref().is_err_and(|why| why.contains(says)), "{offset} s: {answer:?}");
            // Lines are written in that time: a start, and a freeze that one may always send.
            ensure!(chain.keeper.stop()?.success());
            chain.keeper.start()?;
            ensure!(ksk_is_used(&chain, offset)?.is_err(), "after a restart at {offset} s");
            // Right again: nothing is poisoned.
            let answer = ksk_is_used(&chain, 0)?;
            ensure!(answer == Ok(()), "after {offset} s and right again: {answer:?}");
            ensure!(chain.keeper.stop()?.success());
            chain.keeper.start()?;
            ensure!(ksk_is_used(&chain, 0)? == Ok(()), "after a restart, right again");
        }
        // Within what it may run ahead nobody has to do anything, once and again.
        for day in [29, 58] {
            ensure!(ksk_is_used(&chain, day * DAY_S)? == Ok(()), "{day} days ahead");
        }
        // And then the machine's own clock is behind.
        ensure!(ksk_is_used(&chain, 0)?.is_err(), "two months back");
        Ok(())
    });
}

#[test]
fn after_a_long_outage_a_quorum_vouches_for_the_clock() {
    story(|scratch| {
        let chain = founded(scratch)?;
        let outage = 40 * DAY_S;
        ensure!(ksk_is_used(&chain, outage)?.is_err(), "40 days ahead");
        // Its window is by the clock that it vouches for, which these machines do not have.
        let motion = ["raise-time-floor", "--to", "+40d", "--not-before", "+39d"];
        let window = ["--not-after", "+41d", "--finish-by", "+42d"];
        let id = chain.officers.propose("op", &[&motion[..], &window].concat())?;
        chain.officers.approve(&["pat"], &id)?;
        ensure!(ksk_is_used(&chain, outage)?.is_err(), "on one officer's word");
        chain.officers.approve(&["kay"], &id)?;
        until("the new floor", SOON, || chain.keeper.is_done(&id))?;
        ensure!(ksk_is_used(&chain, outage)? == Ok(()), "on the word of two");
        ensure!(ksk_is_used(&chain, 0)?.is_err(), "before the new floor");
        Ok(())
    });
}
