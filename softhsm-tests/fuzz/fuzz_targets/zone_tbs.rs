//! The keeper's judge of to-be-signed octets: never a panic, and nothing gets past it that a ZSK
//! must not sign. Octets are judged as they come, and once more with the fields in front put
//! right, as a stolen daemon would.
#![no_main]

use countersign_fuzz::{judge, well_aimed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    judge(data);
    if let Some((&[high, low, labels, a, b, c, d], records)) = data.split_first_chunk::<7>() {
        judge(&well_aimed([high, low], labels, [a, b, c, d], records));
    }
});
