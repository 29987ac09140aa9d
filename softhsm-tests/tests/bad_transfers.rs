//! A primary that sends nonsense: each time the last good version stays up, an alarm says what
//! was wrong, and the next good version goes out.

use anyhow::ensure;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::fake_primary::{FakePrimary, Fault};
use softhsm_tests::pki::Authority;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::{ports, story};

#[test]
fn bad_transfers_are_bounded_and_dropped() {
    story(|scratch| {
        let limits = "[limits]\nrecords_max = 2000\nidle_ms = 3000\ntransfer_s_max = 5\n";
        let plan = Plan { daemon_more: limits.to_owned(), ..Plan::default() };
        let mut chain = Chain::prepare(scratch, plan, Authority::new(scratch, "ca")?)?;
        let identity = chain.identities["primary"].clone();
        let fake = FakePrimary::start(ports::free()?, &identity, &chain.authority.ca)?;
        chain.use_primary("primary-1", "primary.test", fake.port)?;
        chain.found()?;
        chain.daemon.start()?;
        chain.start_secondary()?;
        chain.wait_for_secondary("serial 1", |serial| serial == 1)?;

        let mut good = 1;
        for fault in [
            Fault::HalfTransfer,
            Fault::OtherClosingSoa,
            Fault::OtherQuestion,
            Fault::CompressionLoop,
            Fault::OutOfZone,
            Fault::Endless,
            Fault::Drip,
        ] {
            fake.set(fault, good + 1);
            ensure!(chain.daemon.cli(&["zone", "refresh", "example."])?.status.code() != Some(1));
            let reason = until(&format!("an alarm on {fault:?}"), SOON, || {
                ensure!(fake.transfers() > 0, "not asked yet");
                chain.daemon.alarm(&["primary-unreachable", "data-refused"])
            })?;
            eprintln!("{fault:?}: {reason}");
            ensure!(chain.daemon.serial()? == good, "{fault:?}: {reason}");

            good += 2;
            fake.set(Fault::None, good);
            ensure!(chain.daemon.cli(&["zone", "refresh", "example."])?.status.code() != Some(1));
            chain.wait_for_secondary(&format!("serial {good}"), |serial| serial == good)?;
            until("no alarm", SOON, || chain.daemon.no_alarm())?;
        }
        Ok(())
    });
}
