//! A pushed zone file: a zone within its bounds, or a place and a reason; and the same whatever the
//! pieces are that it comes in.
#![no_main]

use countersign_fuzz::apex;
use countersign_signer::zonefile::{Problem, Reader};
use countersign_zone::ReceivedZone;
use countersign_zone::receive::Bounds;
use libfuzzer_sys::fuzz_target;

const BOUNDS: Bounds = Bounds { records_max: 500, bytes_max: 1 << 16 };

fn read(octets: &[u8], piece: usize) -> Result<ReceivedZone, Problem> {
    let mut reader = Reader::new(apex(), BOUNDS);
    for piece in octets.chunks(piece) {
        reader.feed(piece)?;
    }
    reader.finish()
}

fuzz_target!(|data: &[u8]| {
    let Some((&piece, octets)) = data.split_first() else { return };
    let whole = read(octets, usize::MAX);
    let pieces = read(octets, usize::from(piece).max(1));
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => {
            assert_eq!((whole.records(), whole.soa()), (pieces.records(), pieces.soa()));
            assert!(whole.records() <= BOUNDS.records_max, "the bound holds");
        }
        (Err(whole), Err(pieces)) => {
            assert_eq!(whole, pieces);
            assert!(whole.place.line > 0 && whole.place.column > 0, "it has a place: {whole}");
            assert!(!whole.to_string().contains('\0'), "it can be shown");
        }
        (whole, pieces) => panic!("{whole:?} and in pieces {pieces:?}"),
    }
});
