//! Proof of possession: the token signs bytes that nothing in DNSSEC could take for its own, and
//! aws-lc-rs verifies them against the public key that the ledger knows.

use countersign_policy::KeyId;

/// As the start of to-be-signed data (RFC 4034 §3.1.8.1) this reads: type covered 0 (not a type),
/// algorithm 0 (reserved), 255 labels (a name has at most 127). As DNSKEY RDATA (§2.1): flags without
/// the zone key bit, protocol 0 where only 3 is valid. Neither can ever parse.
pub(super) const PREFIX: &[u8] =
    b"\x00\x00\x00\xff\x00\x00\x00\x00countersign proof of possession v1\x00";

/// A challenge that was never used before.
pub(super) fn fresh(key: &KeyId, token: &str) -> Vec<u8> {
    let mut nonce = [0; 32];
    rand::fill(&mut nonce);
    let mut challenge = PREFIX.to_vec();
    challenge.extend_from_slice(&key.0);
    challenge.extend_from_slice(&nonce);
    challenge.extend_from_slice(token.as_bytes());
    challenge
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_neither_a_dnskey_nor_to_be_signed_data() {
        let challenge = fresh(&KeyId([1; 32]), "zsk-a");
        assert_eq!(challenge[..2], [0, 0], "type covered 0; flags without the zone bit");
        assert_eq!(challenge[2], 0, "algorithm 0; protocol is not 3");
        assert_eq!(challenge[3], 255, "more labels than a name can have");
        assert_ne!(challenge, fresh(&KeyId([1; 32]), "zsk-a"));
    }
}
