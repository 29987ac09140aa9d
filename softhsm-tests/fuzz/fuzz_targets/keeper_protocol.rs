//! Frames on the keeper's two sockets: read, decode, encode again to the same message, and judge
//! what a request wants signed.
#![no_main]

use countersign_fuzz::judge;
use countersign_hsm::frame;
use countersign_hsm::protocol::{LedgerRequest, LedgerResponse, Request, Response};
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;

fuzz_target!(|data: &[u8]| {
    let mut stream = Cursor::new(data);
    let mut body = Vec::new();
    while let Ok(true) = frame::read(&mut stream, &mut body) {
        content(&body);
    }
    content(data);
});

fn content(body: &[u8]) {
    if let Ok((id, request)) = frame::decode::<Request>(body) {
        let again = frame::encode(id, &request).expect("no longer than it was");
        let (same_id, same) =
            frame::decode::<Request>(&again[frame::PREFIX_BYTES..]).expect("its own");
        assert_eq!((same_id, &same), (id, &request));
        if let Request::SignZone { tbs, .. } = &request {
            tbs.iter().for_each(|item| {
                judge(item);
            });
        }
    }
    if let Ok((id, request)) = frame::decode::<LedgerRequest>(body) {
        frame::encode(id, &request).expect("no longer than it was");
    }
    // What the daemon reads from the keeper, and anyone from the ledger's socket.
    let _ = frame::decode::<Response>(body);
    let _ = frame::decode::<LedgerResponse>(body);
}
