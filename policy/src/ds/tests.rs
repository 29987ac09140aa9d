use super::*;
use crate::key::key_tag;

const P256: &str =
    "GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==";
const ED25519: &str = "l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=";

fn key(algorithm: Algorithm, base64: &str) -> PublicKey {
    let bytes = BASE64.decode(base64.as_bytes()).expect("base64");
    PublicKey::new(algorithm, &bytes).expect("key")
}

fn name(text: &str) -> ZoneName {
    text.parse().expect("name")
}

#[track_caller]
fn check(owner: &str, role: KeyRole, algorithm: Algorithm, base64: &str, expect: &[&str]) {
    let (owner, key) = (name(owner), key(algorithm, base64));
    for (digest, expect) in [DsDigest::Sha256, DsDigest::Sha384].into_iter().zip(expect) {
        let ds = Ds::new(&owner, role, &key, digest);
        assert_eq!(ds.presentation(&owner), *expect);
        let json = serde_json::to_string(&ds).expect("JSON");
        assert_eq!(serde_json::from_str::<Ds>(&json).expect("DS"), ds);
    }
}

/// RFC 6605 §6.1 and §6.2, RFC 8080 §6.1, and the root's key of 2017. The digests that those do
/// not give were made by ldns-key2ds 1.8 and dnssec-dsfromkey 9.18, which agree.
#[test]
fn ds_of_published_keys() {
    check(
        "example.net.",
        KeyRole::Ksk,
        Algorithm::EcdsaP256Sha256,
        P256,
        &[
            "example.net. IN DS 55648 13 2 B4C8C1FE2E7477127B27115656AD6256F424625BF5C1E2770CE6D6E37DF61D17",
            "example.net. IN DS 55648 13 4 3BE4B980B34443E569255F4A347D4C8E8E18DE755FB8072D7B355C44C56B50A61E8050AE636041B9664A04F05AEF2680",
        ],
    );
    check(
        "example.net.",
        KeyRole::Csk,
        Algorithm::EcdsaP384Sha384,
        "xKYaNhWdGOfJ+nPrL8/arkwf2EY3MDJ+SErKivBVSum1w/egsXvSADtNJhyem5RCOpgQ6K8X1DRSEkrbYQ+OB+v8/uX45NBwY8rp65F6Glur8I/mlVNgF6W/qTI37m40",
        &[
            "example.net. IN DS 10771 14 2 FDE87F87D3A32AD8781EB0D79AC02F80D1381CECDA3567C2352B4986645C2DD0",
            "example.net. IN DS 10771 14 4 72D7B62976CE06438E9C0BF319013CF801F09ECC84B8D7E9495F27E305C6A9B0563A9B5F4D288405C3008A946DF983D6",
        ],
    );
    check(
        "example.com.",
        KeyRole::Ksk,
        Algorithm::Ed25519,
        ED25519,
        &[
            "example.com. IN DS 3613 15 2 3AA5AB37EFCE57F737FC1627013FEE07BDF241BD10F3B1964AB55C78E79A304B",
            "example.com. IN DS 3613 15 4 89389DA437FCA8372E67359DFC0DD4428FA2615DF6E31BC5501677DD068514FEA5C4EFAF82188530A8A1645D9D3EF884",
        ],
    );
    check(
        ".",
        KeyRole::Ksk,
        Algorithm::RsaSha256,
        "AwEAAaz/tAm8yTn4Mfeh5eyI96WSVexTBAvkMgJzkKTOiW1vkIbzxeF3+/4RgWOq7HrxRixHlFlExOLAJr5emLvN7SWXgnLh4+B5xQlNVz8Og8kvArMtNROxVQuCaSnIDdD5LKyWbRd2n9WGe2R8PzgCmr3EgVLrjyBxWezF0jLHwVN8efS3rCj/EWgvIWgb9tarpVUDK/b58Da+sqqls3eNbuv7pr+eoZG+SrDK6nWeL3c6H5Apxz7LjVc1uTIdsIXxuOLYA4/ilBmSVIzuDWfdRUfhHdY6+cn8HFRm+2hM8AnXGXws9555KrUB5qihylGa8subX2Nn6UwNR1AkUTV74bU=",
        &[
            ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D",
            ". IN DS 20326 8 4 538F47BA9BB88908E1DC335D6DFD51CA66B4D824192E6E6E210AE8CC18ECE46A0F62B9F0D2F88DFC87D4BB8B8AED21CB",
        ],
    );
}

/// The digest is over the name in lower case, and over the flags.
#[test]
fn case_does_not_count_and_flags_do() {
    check(
        "Xn--A.ExAmple.",
        KeyRole::Ksk,
        Algorithm::EcdsaP256Sha256,
        P256,
        &[
            "xn--a.example. IN DS 55648 13 2 11815C239C71C4D1D650E08842E016098140A056AEEE9E2BBA85B65D90DB1ABF",
        ],
    );
    check(
        "example.net.",
        KeyRole::Zsk,
        Algorithm::EcdsaP256Sha256,
        P256,
        &[
            "example.net. IN DS 55647 13 2 1C2F705E79F984FF0C86F27F30F21DDEEC33C7B43BF36CEEBBB4C5638DB8ADCC",
        ],
    );
}

/// RFC 4509 §2.3: a key of an algorithm that is not supported here, so by its RDATA.
#[test]
fn digest_of_rfc_4509_example() {
    let public = concat!(
        "AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMm",
        "mAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw=="
    );
    let rdata = [&[1, 0, 3, 5][..], &BASE64.decode(public.as_bytes()).expect("base64")].concat();
    assert_eq!(key_tag(&rdata), 60485);
    assert_eq!(
        HEXUPPER.encode(&DsDigest::Sha256.of(&name("dskey.example.com."), &rdata)),
        "D4B7D520E7BB5F0F67674A0CCEB1E3E0614B93C4F9E99B8383F6A1E4469DA50A"
    );
}

/// Two keys, given in an order that is not theirs, and one of them twice.
fn delegation(digests: &[DsDigest]) -> Delegation {
    let p256 = key(Algorithm::EcdsaP256Sha256, P256);
    let ed25519 = key(Algorithm::Ed25519, ED25519);
    let keys = [(KeyRole::Ksk, p256.clone()), (KeyRole::Ksk, ed25519), (KeyRole::Csk, p256)];
    Delegation::new(name("example.net."), keys, &digests.iter().copied().collect())
        .expect("delegation")
}

#[test]
fn all_forms_hold_every_key_once() {
    let delegation = delegation(&[DsDigest::Sha384, DsDigest::Sha256]);
    assert_eq!(
        delegation.presentation(),
        concat!(
            "example.net. IN DS 3613 15 2 38ADFD7FC9629F5FB8F2FAEF76F59F43DC054A99AB7FCEF683D0C94C78C7CFB1\n",
            "example.net. IN DS 3613 15 4 ABADC08F8B1D09632B8C91660CEE148047C63B13519515F1250A0067334FDF4BD1465AE6FE7F888F2D8D922A355AA1FF\n",
            "example.net. IN DS 55648 13 2 B4C8C1FE2E7477127B27115656AD6256F424625BF5C1E2770CE6D6E37DF61D17\n",
            "example.net. IN DS 55648 13 4 3BE4B980B34443E569255F4A347D4C8E8E18DE755FB8072D7B355C44C56B50A61E8050AE636041B9664A04F05AEF2680\n",
        )
    );
    let cds = delegation.cds_rdata();
    assert_eq!(cds.len(), 4);
    for ds in delegation.ds() {
        let (tag, rest) =
            (ds.tag().to_be_bytes(), [ds.algorithm().number(), ds.digest_type().number()]);
        assert!(cds.contains(&[&tag[..], &rest, ds.digest()].concat()));
    }
    let p256 = key(Algorithm::EcdsaP256Sha256, P256).dnskey_rdata(257);
    let ed25519 = key(Algorithm::Ed25519, ED25519).dnskey_rdata(257);
    assert_eq!(Vec::from_iter(delegation.cdnskey_rdata()), [p256, ed25519]);
}

#[test]
fn json_names_keys_and_their_ds() {
    let delegation = delegation(&[DsDigest::Sha256]);
    let ids = [key(Algorithm::Ed25519, ED25519).id(), key(Algorithm::EcdsaP256Sha256, P256).id()];
    assert_eq!(
        serde_json::to_value(&delegation).expect("JSON"),
        serde_json::json!({
            "zone": "example.net.",
            "keys": [
                {
                    "key": ids[0].to_string(), "flags": 257, "protocol": 3, "algorithm": 15,
                    "public_key": ED25519,
                    "ds": [{
                        "key_tag": 3613, "algorithm": 15, "digest_type": 2,
                        "digest": "38ADFD7FC9629F5FB8F2FAEF76F59F43DC054A99AB7FCEF683D0C94C78C7CFB1",
                    }],
                },
                {
                    "key": ids[1].to_string(), "flags": 257, "protocol": 3, "algorithm": 13,
                    "public_key": P256,
                    "ds": [{
                        "key_tag": 55648, "algorithm": 13, "digest_type": 2,
                        "digest": "B4C8C1FE2E7477127B27115656AD6256F424625BF5C1E2770CE6D6E37DF61D17",
                    }],
                },
            ],
        })
    );
}

#[test]
fn epp_with_ds_and_key() {
    let one = Delegation::new(
        name("example.net."),
        [(KeyRole::Ksk, key(Algorithm::EcdsaP256Sha256, P256))],
        &BTreeSet::from([DsDigest::Sha256]),
    )
    .expect("delegation");
    let key_data = |indent: &str| {
        [
            "<secDNS:keyData>",
            "  <secDNS:flags>257</secDNS:flags>",
            "  <secDNS:protocol>3</secDNS:protocol>",
            "  <secDNS:alg>13</secDNS:alg>",
            &format!("  <secDNS:pubKey>{P256}</secDNS:pubKey>"),
            "</secDNS:keyData>",
        ]
        .map(|line| format!("{indent}{line}\n"))
        .concat()
    };
    let ds_data = |indent: &str| {
        [
            "<secDNS:dsData>",
            "  <secDNS:keyTag>55648</secDNS:keyTag>",
            "  <secDNS:alg>13</secDNS:alg>",
            "  <secDNS:digestType>2</secDNS:digestType>",
            "  <secDNS:digest>B4C8C1FE2E7477127B27115656AD6256F424625BF5C1E2770CE6D6E37DF61D17</secDNS:digest>",
        ]
        .map(|line| format!("{indent}{line}\n"))
        .concat()
            + &format!("{indent}</secDNS:dsData>\n")
    };
    let update = |content: &str| {
        format!(
            concat!(
                "<secDNS:update xmlns:secDNS=\"urn:ietf:params:xml:ns:secDNS-1.1\">\n",
                "  <secDNS:rem>\n    <secDNS:all>true</secDNS:all>\n  </secDNS:rem>\n",
                "{}</secDNS:update>\n"
            ),
            content
        )
    };
    assert_eq!(
        one.epp_replace(EppForm::DsData),
        update(&format!("  <secDNS:add>\n{}  </secDNS:add>\n", ds_data("    ")))
    );
    assert_eq!(
        one.epp_replace(EppForm::KeyData),
        update(&format!("  <secDNS:add>\n{}  </secDNS:add>\n", key_data("    ")))
    );
}

#[test]
fn what_a_parent_is_not_told() {
    let (zone, public) = (name("example.net."), key(Algorithm::EcdsaP256Sha256, P256));
    let sha256 = BTreeSet::from([DsDigest::Sha256]);
    let ask = |keys: &[(KeyRole, PublicKey)], digests: &BTreeSet<DsDigest>| {
        Delegation::new(zone.clone(), keys.to_vec(), digests)
    };
    assert_eq!(ask(&[], &sha256), Err(DelegationError::NoKeys));
    assert_eq!(
        ask(&[(KeyRole::Ksk, public.clone())], &BTreeSet::new()),
        Err(DelegationError::NoDigests)
    );
    assert_eq!(
        ask(&[(KeyRole::Ksk, public.clone()), (KeyRole::Zsk, public.clone())], &sha256),
        Err(DelegationError::Zsk(public.id()))
    );
}

/// SHA-1 (1) and GOST (3) among them.
#[test]
fn other_digests_and_other_lengths_are_refused() {
    for number in 0..=u8::MAX {
        let digest = DsDigest::try_from(number);
        match number {
            2 => assert_eq!(digest, Ok(DsDigest::Sha256)),
            4 => assert_eq!(digest, Ok(DsDigest::Sha384)),
            _ => assert_eq!(digest, Err(UnsupportedDigest(number))),
        }
    }
    let json = |digest_type: u8, digest: &str| {
        serde_json::from_value::<Ds>(serde_json::json!({
            "key_tag": 1, "algorithm": 13, "digest_type": digest_type, "digest": digest,
        }))
    };
    assert!(json(2, &"AB".repeat(32)).is_ok());
    assert!(json(4, &"AB".repeat(48)).is_ok());
    assert!(json(1, &"AB".repeat(20)).is_err());
    assert!(json(4, &"AB".repeat(32)).is_err());
    assert!(json(2, &"ab".repeat(32)).is_err());
    assert_eq!(
        json(2, "AB").expect_err("short").to_string(),
        "the digest of a DS by SHA-256 is 64 upper-case hexadecimal digits"
    );
}

#[test]
fn delete_forms_of_rfc_8078() {
    assert_eq!(CDS_DELETE, [0; 5]);
    assert_eq!(
        [&[0, 0, 3, 0][..], &BASE64.decode(b"AA==").expect("base64")].concat(),
        CDNSKEY_DELETE
    );
}
