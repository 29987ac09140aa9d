//! A zone moves from OpenDNSSEC to Countersign with its keys: the parent's DS stays, and no cache ever
//! sees anything that does not validate.

use anyhow::Result;
use softhsm_tests::opendnssec::{self, OpenDnssec, Spec};
use softhsm_tests::token::TokenStore;
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{Scratch, oracle, story};

#[test]
fn opendnssec_signs_on_two_tokens() {
    story(|scratch| {
        if let Some(why) = opendnssec::unavailable(scratch)? {
            eprintln!("SKIPPED: OpenDNSSEC needs a mount namespace: {why}");
            return Ok(());
        }
        signs(scratch, (13, 256))
    });
}

fn signs(scratch: &Scratch, algorithm: (u8, u16)) -> Result<()> {
    let store = TokenStore::new(scratch)?;
    let (ksk, zsk) = (store.init("ksk", "ksk-pin-4711")?, store.init("zsk", "zsk-pin-0815")?);
    let opendnssec = OpenDnssec::start(
        scratch,
        &Spec {
            store: &store,
            ksk: &ksk,
            zsk: &zsk,
            zone: ZONE,
            content: &zones::example(1),
            algorithm,
        },
    )?;
    oracle::verify(scratch, ZONE, &opendnssec.signed()?, &opendnssec.ds()?)?;
    opendnssec.stop()
}
