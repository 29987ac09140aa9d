//! DNS messages as received: taken apart whole or refused; and what is taken apart is well formed.
#![no_main]

use countersign_fuzz::apex;
use countersign_signer::inbound::soa_serial;
use countersign_signer::wire::{Message, Section};
use countersign_zone::name::check_wire;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Message::peek_header(data);
    let id = data.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    let _ = soa_serial(data, &apex(), id);
    let Ok(message) = Message::parse(data) else { return };
    for section in [Section::Answer, Section::Authority, Section::Additional] {
        for record in message.section(section) {
            check_wire(record.owner).expect("an owner is a whole, uncompressed name");
            assert!(record.rdata.len() <= 65_535 + 255 * 8, "decompression is bounded");
        }
    }
});
