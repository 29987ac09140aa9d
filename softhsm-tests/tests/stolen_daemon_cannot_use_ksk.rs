//! Whoever has taken over the daemon has its user's rights, and with them the keeper's socket.
//! What they can get there is zone data signed for today, and nothing that outlives them.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_hsm::protocol::{PROTOCOL_VERSION, RefusalKind, Request, Response};
use countersign_policy::ledger::CdsType;
use countersign_policy::{KeyId, KeyRole, ZoneName};
use softhsm_tests::ask::ask;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::keeper::Keeper;
use softhsm_tests::pki::Authority;
use softhsm_tests::story;
use softhsm_tests::thief::{Tbs, key, keys, now, request, signs_data, signs_dnskey};
use softhsm_tests::users::{User, is_root};
use softhsm_tests::wait::throughout;

const NS: u16 = 2;
const DS: u16 = 43;
const DNSKEY: u16 = 48;
const CDS: u16 = 59;
const CDNSKEY: u16 = 60;
const CSYNC: u16 = 62;
const DAY: u32 = 86_400;

/// A chain with the keeper alone, and three zones bound.
fn keeper_alone(scratch: &softhsm_tests::Scratch) -> Result<Chain<'_>> {
    let plan = Plan { more_zones: &["second.", "child.example."], ..Plan::default() };
    let mut chain = Chain::prepare(scratch, plan, Authority::new(scratch, "ca")?)?;
    chain.found()?;
    Ok(chain)
}

fn refused(what: &str, answer: &Response) -> Result<()> {
    let refusals = match answer {
        Response::Refused(refusal) => vec![refusal],
        Response::Signatures(items) => {
            items.iter().map(|item| item.as_ref().err()).collect::<Option<_>>().unwrap_or_default()
        }
        _ => Vec::new(),
    };
    ensure!(!refusals.is_empty(), "{what}: got {answer:?}");
    for refusal in refusals {
        let kind = refusal.kind;
        ensure!(
            matches!(kind, RefusalKind::Forbidden | RefusalKind::Malformed | RefusalKind::Unknown),
            "{what}: refused, but as {kind}: {refusal}"
        );
    }
    Ok(())
}

#[test]
fn stolen_daemon_cannot_use_ksk() {
    story(|scratch| {
        let chain = keeper_alone(scratch)?;
        let keeper = &chain.keeper;
        let (ours, second) = (keys(keeper, "example.")?, keys(keeper, "second.")?);
        let ((ksk, _), (zsk, _)) = (key(&ours, KeyRole::Ksk)?, key(&ours, KeyRole::Zsk)?);
        let (second_ksk, _) = key(&second, KeyRole::Ksk)?;
        let order = |keys: &[KeyId], signer, change: &dyn Fn(&mut Request)| {
            let now = now()?;
            let mut order = Request::SignDnskey {
                zone: ours.zone.clone(),
                keys: keys.iter().copied().collect(),
                signer,
                ttl_s: ours.policy.dnskey_ttl_s,
                inception: now - ours.policy.inception_offset_s,
                expiration: now + ours.policy.validity_s,
            };
            change(&mut order);
            request(User::Daemon, keeper, order)
        };
        let keep = |_: &mut Request| {};
        let honest = order(&[ksk, zsk], ksk, &keep)?;
        ensure!(matches!(honest, Response::DnskeySignature(_)), "{honest:?}");

        let foreign = KeyId([7; 32]);
        let set = |name: &str, keys: &[KeyId], signer| refused(name, &order(keys, signer, &keep)?);
        set("a foreign key in the set", &[ksk, zsk, foreign], ksk)?;
        set("a foreign key alone", &[foreign], ksk)?;
        set("another zone's key in the set", &[ksk, zsk, second_ksk], ksk)?;
        set("an empty set", &[], ksk)?;
        set("the set signed by the ZSK", &[ksk, zsk], zsk)?;
        set("the set signed by another zone's KSK", &[ksk, zsk], second_ksk)?;
        set("the set signed by a key that is not there", &[ksk, zsk], foreign)?;
        let lie = |name: &str, change: &dyn Fn(&mut Request)| {
            refused(name, &order(&[ksk, zsk], ksk, change)?)
        };
        lie("valid for a year", &|order| {
            if let Request::SignDnskey { expiration, .. } = order {
                *expiration += 365 * DAY;
            }
        })?;
        lie("valid from next month on", &|order| {
            if let Request::SignDnskey { inception, expiration, .. } = order {
                *inception += 30 * DAY;
                *expiration += 30 * DAY;
            }
        })?;
        lie("ends before it begins", &|order| {
            if let Request::SignDnskey { inception, expiration, .. } = order {
                std::mem::swap(inception, expiration);
            }
        })?;
        lie("a TTL beyond the policy", &|order| {
            if let Request::SignDnskey { ttl_s, .. } = order {
                *ttl_s = 8 * DAY;
            }
        })?;
        lie("another zone's name", &|order| {
            if let Request::SignDnskey { zone, .. } = order {
                *zone = second.zone.clone();
            }
        })?;
        lie("a zone that is not bound here", &|order| {
            if let (Request::SignDnskey { zone, .. }, Ok(unbound)) = (order, "elsewhere.".parse()) {
                *zone = unbound;
            }
        })?;
        ledger_has_one_ksk_use(keeper)
    });
}

/// Of all that, the ledger holds one use of a KSK: the honest one.
fn ledger_has_one_ksk_use(keeper: &Keeper) -> Result<()> {
    let lines = keeper.ledger_lines()?;
    let signed: Vec<_> =
        lines.iter().filter(|line| line["entry"]["operation"]["verb"] == "sign-dnskey").collect();
    ensure!(signed.len() == 1, "{signed:#?}");
    Ok(())
}

#[test]
fn stolen_daemon_gets_no_disguised_signature_from_a_zsk() {
    story(|scratch| {
        let chain = keeper_alone(scratch)?;
        let keeper = &chain.keeper;
        let (ours, second) = (keys(keeper, "example.")?, keys(keeper, "second.")?);
        let (zsk, _) = key(&ours, KeyRole::Zsk)?;
        let now = now()?;
        let honest = Tbs::honest(&ours, now)?;
        let sign = |zone: &ZoneName, key: KeyId, tbs: Vec<u8>| {
            request(
                User::Daemon,
                keeper,
                Request::SignZone { zone: zone.clone(), key, tbs: vec![tbs] },
            )
        };
        let answer = sign(&ours.zone, zsk, honest.wire())?;
        let good = matches!(&answer, Response::Signatures(all) if matches!(all[..], [Ok(_)]));
        ensure!(good, "{answer:?}");

        let lie = |name: &str, change: &dyn Fn(&mut Tbs)| {
            let mut tbs = honest.clone();
            change(&mut tbs);
            refused(name, &sign(&ours.zone, zsk, tbs.wire())?)
        };
        for rtype in [DNSKEY, CDS, CDNSKEY, CSYNC] {
            lie(&format!("type {rtype}"), &|tbs| (tbs.covered, tbs.rtype) = (rtype, rtype))?;
            lie(&format!("type {rtype} that says it is A"), &|tbs| tbs.rtype = rtype)?;
            lie(&format!("type A that says it is {rtype}"), &|tbs| tbs.covered = rtype)?;
        }
        lie("valid for a year", &|tbs| tbs.expiration = now + 365 * DAY)?;
        lie("valid for ever, by way of serial arithmetic", &|tbs| {
            tbs.expiration = now.wrapping_add(0x7fff_fff0);
        })?;
        lie("valid from next month on", &|tbs| {
            (tbs.inception, tbs.expiration) = (now + 30 * DAY, now + 40 * DAY);
        })?;
        lie("another zone's signer name", &|tbs| tbs.signer = second.zone.as_wire().to_vec())?;
        lie("another zone's owner name", &|tbs| tbs.owner = second.zone.as_wire().to_vec())?;
        lie("upper case", &|tbs| tbs.signer.make_ascii_uppercase())?;
        lie("another algorithm", &|tbs| tbs.algorithm = 15)?;
        lie("another key tag", &|tbs| tbs.tag ^= 1)?;
        lie("more labels than the owner has", &|tbs| tbs.labels = 2)?;
        lie("a name server's type with an address", &|tbs| tbs.covered = NS)?;

        let (second_zsk, _) = key(&second, KeyRole::Zsk)?;
        let (ksk, _) = key(&ours, KeyRole::Ksk)?;
        refused("a KSK on zone data", &sign(&ours.zone, ksk, honest.wire())?)?;
        refused("another zone's ZSK", &sign(&ours.zone, second_zsk, honest.wire())?)?;
        refused("our ZSK under another zone", &sign(&second.zone, zsk, honest.wire())?)?;
        let mut longer = honest.wire();
        longer.push(0);
        refused("an octet too many", &sign(&ours.zone, zsk, longer)?)?;
        let mut two = honest.wire();
        let mut cds = honest.clone();
        (cds.rtype, cds.rdatas) = (CDS, vec![vec![0, 0, 13, 2, 1]]);
        two.extend(&cds.wire()[18 + honest.signer.len()..]);
        refused("a CDS behind an A", &sign(&ours.zone, zsk, two)?)?;
        refused("nothing at all", &sign(&ours.zone, zsk, Vec::new())?)?;
        refused("a digest", &sign(&ours.zone, zsk, vec![0x5a; 32])?)
    });
}

/// A DS is what makes a key of the child the world's key: it is signed for a child that is bound here as
/// a quorum exported it, and not at all before.
#[test]
fn stolen_daemon_gets_no_ds_for_a_child_that_is_bound_here() {
    story(|scratch| {
        let chain = keeper_alone(scratch)?;
        let keeper = &chain.keeper;
        let (ours, child) = (keys(keeper, "example.")?, keys(keeper, "child.example.")?);
        let (zsk, _) = key(&ours, KeyRole::Zsk)?;
        let (ksk, _) = key(&child, KeyRole::Ksk)?;
        let mut ds = Tbs::honest(&ours, now()?)?;
        (ds.covered, ds.rtype, ds.labels) = (DS, DS, 2);
        ds.owner = child.zone.as_wire().to_vec();
        let sign = |tbs: &Tbs| {
            let tbs = vec![tbs.wire()];
            request(
                User::Daemon,
                keeper,
                Request::SignZone { zone: ours.zone.clone(), key: zsk, tbs },
            )
        };
        let with = |rdatas: &[Vec<u8>]| sign(&Tbs { rdatas: rdatas.to_vec(), ..ds.clone() });
        let thiefs = [vec![0x12, 0x67, 13, 2], vec![0x5a; 32]].concat();
        refused("a DS of the thief's key", &with(std::slice::from_ref(&thiefs))?)?;

        let motion = [
            "export-ds",
            "--zone",
            "child.example.",
            "--key",
            &ksk.to_string(),
            "--digest",
            "sha-256",
        ];
        chain.officers.carry(keeper, &motion)?;
        let approved = keeper.ledger_state()?;
        let approved = approved.approved_ds(&child.zone).context("an approved DS")?;
        let approved: Vec<Vec<u8>> = approved.iter().cloned().collect();
        refused("a DS of the thief's key, still", &with(std::slice::from_ref(&thiefs))?)?;
        let mut both = [approved.clone(), vec![thiefs]].concat();
        both.sort();
        refused("the thief's beside the approved one", &with(&both)?)?;
        let answer = with(&approved)?;
        let good = matches!(&answer, Response::Signatures(all) if matches!(all[..], [Ok(_)]));
        ensure!(good, "the approved one: {answer:?}");
        let mut elsewhere = ds.clone();
        elsewhere.owner = [&b"\x01*"[..], ours.zone.as_wire()].concat();
        elsewhere.labels = 1;
        refused("a DS of a wildcard", &sign(&elsewhere)?)
    });
}

#[test]
fn stolen_daemon_gets_no_cds_but_the_approved_one_for_its_time() {
    story(|scratch| {
        let chain = keeper_alone(scratch)?;
        let keeper = &chain.keeper;
        let (ours, second) = (keys(keeper, "example.")?, keys(keeper, "second.")?);
        let ((ksk, _), (zsk, _)) = (key(&ours, KeyRole::Ksk)?, key(&ours, KeyRole::Zsk)?);
        let order = |rrset: CdsType, signer: KeyId, days: u32, ahead: u32| {
            let now = now()? + ahead;
            let (inception, expiration) = (now - 60, now + days * DAY);
            let (zone, ttl_s) = (ours.zone.clone(), 3_600);
            let order = Request::SignCds { zone, rrset, signer, ttl_s, inception, expiration };
            request(User::Daemon, keeper, order)
        };
        let both = [CdsType::Cds, CdsType::Cdnskey];
        for rrset in both {
            refused("CDS without a motion", &order(rrset, ksk, 3, 0)?)?;
        }
        let motion =
            ["publish-cds", "--zone", "example.", "--not-after", "+1h", "--finish-by", "+5d"];
        chain.officers.carry(keeper, &motion)?;
        for rrset in both {
            let answer = order(rrset, ksk, 3, 0)?;
            ensure!(matches!(answer, Response::CdsSignature(_)), "{answer:?}");
            refused("one that can be replayed for a month", &order(rrset, ksk, 30, 0)?)?;
            refused("one by the ZSK", &order(rrset, zsk, 3, 0)?)?;
            let (seconds, _) = key(&second, KeyRole::Ksk)?;
            refused("one by another zone's KSK", &order(rrset, seconds, 3, 0)?)?;
        }
        keeper.set_clock(i64::from(5 * DAY + 60))?;
        for rrset in both {
            refused("an old one again", &order(rrset, ksk, 3, 5 * DAY + 60)?)?;
        }
        Ok(())
    });
}

/// The thief can stop the daemon, and hold all of its connections: a freeze comes in all the same, by the
/// group's socket, and is not undone.
#[test]
fn stolen_daemon_swallows_no_freeze() {
    story(|scratch| {
        let chain = keeper_alone(scratch)?;
        let keeper = &chain.keeper;
        let ours = keys(keeper, "example.")?;
        let connections: Vec<_> = (0..64)
            .map(|_| std::os::unix::net::UnixStream::connect(&keeper.socket))
            .collect::<Result<_, _>>()?;
        chain.officers.ok("audrey", &["freeze", "--reason", "the daemon does strange things"])?;
        drop(connections);
        throughout("a freeze", Duration::from_secs(1), || {
            let answer = signs_dnskey(keeper, &ours, now()?)?;
            ensure!(answer.as_ref().is_err_and(|why| why.contains("audrey")), "{answer:?}");
            let answer = signs_data(keeper, &ours, now()?)?;
            ensure!(answer.is_ok(), "{answer:?}");
            Ok(())
        })
    });
}

#[test]
fn nobody_but_the_daemons_user_is_answered() {
    if !is_root() {
        eprintln!("not root: everything is one user here, so there is nobody else to refuse");
        return;
    }
    story(|scratch| {
        let chain = keeper_alone(scratch)?;
        let socket = &chain.keeper.socket;
        keys(&chain.keeper, "example.")?;
        // As if an administrator had opened the file to all: the kernel's word still counts.
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o777))?;
        let hello = [Request::Hello { protocol: PROTOCOL_VERSION }, Request::Zones { after: None }];
        for user in [User::Stranger, User::Keeper, User::Harness] {
            for answer in ask(user, socket, &hello)? {
                ensure!(answer.is_err(), "{user:?} got {answer:?}");
            }
        }
        let answer = request(User::Daemon, &chain.keeper, Request::Zones { after: None })?;
        let expected: BTreeSet<ZoneName> = ["example.", "second.", "child.example."]
            .into_iter()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        ensure!(
            matches!(&answer, Response::Zones { zones, .. } if zones.iter().cloned().collect::<BTreeSet<_>>() == expected),
            "{answer:?}"
        );
        Ok(())
    });
}
