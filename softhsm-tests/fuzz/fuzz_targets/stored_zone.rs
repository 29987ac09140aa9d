//! The stored form of a zone, as a damaged or hostile file: an error, never a panic, never an
//! allocation beyond what is there. Once as it comes, once with checksum and root put right, so
//! that the pages themselves are reached.
#![no_main]
#![expect(clippy::disallowed_methods, reason = "`resume` is the target")]

use std::num::NonZeroUsize;

use aws_lc_rs::digest;
use countersign_fuzz::{APEX, NOW_S};
use countersign_zone::stored::{encode, re_verify, resume, root_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    take(data);
    let mut file = b"CSGNZONE\0\x01".to_vec();
    file.push(APEX.len() as u8);
    file.extend_from_slice(APEX);
    file.extend_from_slice(&[0, 0, 0, 7, 0, 0, 0, 1]);
    file.extend_from_slice(&(data.len() as u32).to_be_bytes());
    file.extend_from_slice(&digest::digest(&digest::SHA256, data).as_ref()[..8]);
    file.extend_from_slice(data);
    take(&file);
});

fn take(file: &[u8]) {
    let Ok(root) = root_of(file) else { return };
    if let Ok(zone) = resume(file, root) {
        assert_eq!(zone.digest(), root);
        assert_eq!(root_of(&encode(&zone)), Ok(root));
        let _ = re_verify(&zone, NOW_S, NonZeroUsize::MIN);
    }
}
