//! The bed without Countersign in it: what the other stories stand on.

use softhsm_tests::bind::{Primary, PrimarySpec, Secondary, SecondarySpec};
use softhsm_tests::knot::Knot;
use softhsm_tests::nsd::Nsd;
use softhsm_tests::pdns::Pdns;
use softhsm_tests::pki::{Authority, Usage, Validity};
use softhsm_tests::token::TokenStore;
use softhsm_tests::tsig;
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::{ports, query, story};

const ZONE: &str = "example. 300 IN SOA ns.example. h.example. 1 60 60 6000 300\n\
     example. 300 IN NS ns.example.\nns.example. 300 IN A 192.0.2.1\n";

#[test]
fn bind_gives_its_zone_by_xot_to_bind_and_nsd() {
    story(|scratch| {
        let authority = Authority::new(scratch, "ca")?;
        let identity = authority.issue(scratch, "primary.test", User::Harness)?;
        let client = authority.issue(scratch, "secondary.test", User::Harness)?;
        let (bind_port, nsd_port) = (ports::free()?, ports::free()?);
        let primary = Primary::start(
            scratch,
            &PrimarySpec {
                name: "primary",
                zone: "example.",
                content: ZONE,
                identity: &identity,
                client_ca: &authority.ca,
                notify_port: bind_port,
                changes: softhsm_tests::bind::Changes::File,
            },
        )?;
        let spec = SecondarySpec {
            name: "bind",
            zone: "example.",
            identity: &client,
            server_ca: &authority.ca,
            server_name: "primary.test",
            server_port: primary.xot_port,
            port: bind_port,
        };
        let bind = Secondary::start(scratch, &spec)?;
        let nsd = Nsd::start(scratch, &SecondarySpec { name: "nsd", port: nsd_port, ..spec })?;
        for port in [bind.port, nsd.port] {
            until("the zone on a secondary", SOON, || query::serial(port, "example."))?;
        }
        primary.replace_zone(&ZONE.replace(" 1 60", " 2 60"))?;
        until("the new serial on the secondary", SOON, || {
            anyhow::ensure!(query::serial(bind.port, "example.")? == 2);
            Ok(())
        })
    });
}

/// One after the other as a primary, each with both as secondaries.
#[test]
fn knot_and_powerdns_give_their_zones_to_whoever_has_the_key() {
    story(|scratch| {
        let key = tsig::Key::new("transfer.example.")?;
        let wrong = tsig::Key::new("transfer.example.")?;
        let spec = |name, notify_port| tsig::PrimarySpec {
            name,
            zone: "example.",
            content: ZONE,
            key: &key,
            notify_port,
        };
        for (make, names) in [
            ("knot", ["knot-primary", "knot-to-knot", "knot-to-pdns", "knot-to-other"]),
            ("pdns", ["pdns-primary", "pdns-to-knot", "pdns-to-pdns", "pdns-to-other"]),
        ] {
            let (knot_port, pdns_port) = (ports::free()?, ports::free()?);
            // Each tells its own make: the other asks by itself, or finds out no later.
            let (knot, pdns) = if make == "knot" {
                (Some(Knot::primary(scratch, &spec(names[0], knot_port))?), None)
            } else {
                (None, Some(Pdns::primary(scratch, &spec(names[0], pdns_port))?))
            };
            let server_port =
                knot.as_ref().map_or_else(|| pdns.as_ref().map_or(0, |p| p.port), |k| k.port);
            let to = |name, key, port| tsig::SecondarySpec {
                name,
                zone: "example.",
                key,
                server_port,
                port,
            };
            let other_port = ports::free()?;
            let _knot = Knot::secondary(scratch, &to(names[1], &key, knot_port))?;
            let _pdns = Pdns::secondary(scratch, &to(names[2], &key, pdns_port))?;
            let mut other = Knot::secondary(scratch, &to(names[3], &wrong, other_port))?;
            for port in [knot_port, pdns_port] {
                until("the zone on a secondary", SOON, || query::serial(port, "example."))?;
            }
            let content = ZONE.replace(" 1 60", " 2 60");
            knot.iter().try_for_each(|knot| knot.replace_zone(&content))?;
            pdns.iter().try_for_each(|pdns| pdns.replace_zone(&content))?;
            let told = if make == "knot" { knot_port } else { pdns_port };
            until("the new serial on the secondary", SOON, || {
                anyhow::ensure!(query::serial(told, "example.")? == 2);
                Ok(())
            })?;
            other.process.check_running()?;
            anyhow::ensure!(other.serial().is_err(), "it has the zone without the key");
        }
        Ok(())
    });
}

#[test]
fn the_primary_asks_for_a_certificate_of_its_authority() {
    story(|scratch| {
        let authority = Authority::new(scratch, "ca")?;
        let foreign = Authority::new(scratch, "foreign")?;
        let identity = authority.issue(scratch, "primary.test", User::Harness)?;
        let primary = Primary::start(
            scratch,
            &PrimarySpec {
                name: "primary",
                zone: "example.",
                content: ZONE,
                identity: &identity,
                client_ca: &authority.ca,
                notify_port: ports::free()?,
                changes: softhsm_tests::bind::Changes::File,
            },
        )?;
        let good = authority.issue(scratch, "good.test", User::Harness)?;
        let expired = authority.issue_as(
            scratch,
            "expired",
            "good.test",
            User::Harness,
            Validity::Expired,
            Usage::Both,
        )?;
        let other = foreign.issue_as(
            scratch,
            "other",
            "good.test",
            User::Harness,
            Validity::Current,
            Usage::Both,
        )?;
        let transfer = |client| {
            query::over_tls(
                primary.xot_port,
                client,
                &authority.ca,
                "primary.test",
                ["example.", "AXFR"],
            )
        };
        assert!(transfer(Some(&good))?.contains("192.0.2.1"));
        for refused in [None, Some(&expired), Some(&other)] {
            assert!(!transfer(refused)?.contains("192.0.2.1"));
        }
        let clear = query::axfr(primary.dns_port, "example.");
        assert!(clear.is_err(), "in clear: {clear:?}");
        Ok(())
    });
}

#[test]
fn a_cloned_token_holds_the_same_key_under_its_own_serial() {
    story(|scratch| {
        let store = TokenStore::new(scratch)?;
        let first = store.init("zsk", "1234")?;
        let generate =
            ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "k", "--id", "07"];
        store.pkcs11_tool(&first, &generate)?;
        let second = store.clone_token(&first)?;
        let objects = |token| store.pkcs11_tool(token, &["--list-objects", "--type", "pubkey"]);
        let (a, b) = (objects(&first)?, objects(&second)?);
        assert!(a.contains("EC_POINT"), "{a}");
        assert_eq!(a, b);
        Ok(())
    });
}
