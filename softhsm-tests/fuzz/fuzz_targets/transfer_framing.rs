//! A transfer from the octets of a stream into the zone core, and on into admission. However the
//! stream is cut, the outcome is the same.
#![no_main]

use countersign_fuzz::{apex, policy};
use countersign_signer::inbound::{Assembly, Step, assemble_stream};
use countersign_signer::wire::framing::Deframer;
use countersign_zone::{AdmissionParams, Bounds, admit};
use libfuzzer_sys::fuzz_target;

const BOUNDS: Bounds = Bounds { records_max: 1_000, bytes_max: 1 << 20 };

fuzz_target!(|data: &[u8]| {
    // The id that was asked with is the one of the first message: the rest is what is tried.
    let id = match data {
        [_, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    };
    let whole = assemble_stream(data, &apex(), id, BOUNDS);
    let cut = in_pieces(data, id);
    match (whole, cut) {
        (Ok(whole), Some(records)) => {
            assert_eq!(whole.zone.records(), records);
            let _ = admit(whole.zone, &AdmissionParams::under(&policy()));
        }
        (Ok(_), None) => panic!("a stream that is whole is refused when it comes in pieces"),
        (Err(_), _) => {}
    }
});

/// How many records a transfer has that arrives a few octets at a time.
fn in_pieces(data: &[u8], id: u16) -> Option<usize> {
    let mut deframer = Deframer::new();
    let mut assembly = Assembly::new(apex(), id, BOUNDS);
    for piece in data.chunks(7) {
        deframer.feed(piece);
        while let Some(message) = deframer.take() {
            if assembly.take(message).ok()? == Step::Done {
                return assembly.finish().ok().map(|assembled| assembled.zone.records());
            }
        }
    }
    None
}
