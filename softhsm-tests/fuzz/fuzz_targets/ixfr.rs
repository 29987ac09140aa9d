//! An answer to IXFR from the octets of a stream, applied to a small zone. However the stream is
//! cut, the outcome is the same; what comes of differences is a zone of the serial that they lead
//! to; and their difference to the base, applied anew, makes that zone again.
#![no_main]

use countersign_fuzz::{ixfr_base, policy};
use countersign_signer::inbound::{Answered, IxfrAssembly, Step, assemble_differences};
use countersign_signer::wire::framing::Deframer;
use countersign_zone::difference::{Base, Patch, Sign, Signatures, between};
use countersign_zone::{AdmissionParams, AdmittedZone, Bounds, IncomingDnssec, Rtype, admit};
use libfuzzer_sys::fuzz_target;

const BOUNDS: Bounds = Bounds { records_max: 1_000, bytes_max: 1 << 20 };

fuzz_target!(|data: &[u8]| {
    // The id that was asked with is the one of the first message: the rest is what is tried.
    let id = match data {
        [_, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    };
    let zone = ixfr_base();
    let base = Base::of_admitted(&zone);
    let whole = assemble_differences(data, base.clone(), id, BOUNDS, IncomingDnssec::Strip);
    let cut = in_pieces(data, base, id);
    let Ok(whole) = whole else { return };
    let cut = cut.expect("a stream that is whole is whole when it comes in pieces");
    match (whole, cut) {
        (Answered::UpToDate { serial }, Answered::UpToDate { serial: cut }) => {
            assert_eq!(serial, cut);
        }
        (Answered::Whole(whole), Answered::Whole(cut)) => {
            assert_eq!(whole.serial, cut.serial);
            let _ = admit(whole.zone, &AdmissionParams::under(&policy()));
        }
        (Answered::Differences(patch, serial), Answered::Differences(cut, _)) => {
            let (made, cut) = (patch.finish(), cut.finish());
            assert_eq!(made.is_ok(), cut.is_ok());
            let Ok(made) = made else { return };
            let Ok(made) = admit(made, &AdmissionParams::under(&policy())) else { return };
            assert_eq!(made.serial(), serial);
            assert!(made.is_exact(), "a difference leaves nothing to be put right");
            again(&zone, &made);
        }
        (whole, cut) => panic!("{whole:?} and in pieces {cut:?}"),
    }
});

fn in_pieces(data: &[u8], base: Base, id: u16) -> Option<Answered> {
    let mut deframer = Deframer::new();
    let mut assembly = IxfrAssembly::new(base, id, BOUNDS, IncomingDnssec::Strip);
    for piece in data.chunks(7) {
        deframer.feed(piece);
        while let Some(message) = deframer.take() {
            if assembly.take(message).ok()? == Step::Done {
                return assembly.finish().ok();
            }
        }
    }
    None
}

/// The difference of the two, applied to the first.
fn again(zone: &AdmittedZone, made: &AdmittedZone) {
    let mut patch = Patch::new(Base::of_admitted(zone), BOUNDS);
    let changes: Vec<_> = between(zone.records(), made.records(), Signatures::Shown).collect();
    for c in changes.iter().filter(|change| change.sign == Sign::Removed) {
        patch.remove(c.owner, c.rtype.0, 1, c.ttl_s, c.rdata).expect("it is there");
    }
    for c in changes.iter().filter(|change| change.sign == Sign::Added) {
        assert_ne!(c.rtype, Rtype::RRSIG);
        patch.add(c.owner, c.rtype.0, 1, c.ttl_s, c.rdata).expect("it fits");
    }
    let again = patch.finish().expect("a zone");
    let again = admit(again, &AdmissionParams::under(&policy())).expect("as before");
    assert_eq!(again.records(), made.records());
}
