//! Whoever has taken over the daemon has its user's rights, and with them the keeper's socket.
//! What they can get there is zone data signed for today, and nothing that outlives them.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use countersign_hsm::protocol::{PROTOCOL_VERSION, RefusalKind, Request, Response, ZoneKeys};
use countersign_policy::{KeyId, KeyRole, ZoneName};
use softhsm_tests::ask::ask;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::keeper::Keeper;
use softhsm_tests::pki::Authority;
use softhsm_tests::story;
use softhsm_tests::users::{User, is_root};
use softhsm_tests::wait::{SOON, until};

const A: u16 = 1;
const NS: u16 = 2;
const DNSKEY: u16 = 48;
const CDS: u16 = 59;
const CDNSKEY: u16 = 60;
const CSYNC: u16 = 62;
const DAY: u32 = 86_400;

/// A to-be-signed item (RFC 4034 §3.1.8.1), field by field so that each can be a lie.
#[derive(Clone)]
struct Tbs {
    covered: u16,
    algorithm: u8,
    labels: u8,
    ttl: u32,
    expiration: u32,
    inception: u32,
    tag: u16,
    signer: Vec<u8>,
    owner: Vec<u8>,
    rtype: u16,
    rdata: Vec<u8>,
}

impl Tbs {
    fn wire(&self) -> Vec<u8> {
        let mut wire = self.covered.to_be_bytes().to_vec();
        wire.extend([self.algorithm, self.labels]);
        wire.extend(self.ttl.to_be_bytes());
        wire.extend(self.expiration.to_be_bytes());
        wire.extend(self.inception.to_be_bytes());
        wire.extend(self.tag.to_be_bytes());
        wire.extend(&self.signer);
        wire.extend(&self.owner);
        wire.extend(self.rtype.to_be_bytes());
        wire.extend([0, 1]);
        wire.extend(self.ttl.to_be_bytes());
        wire.extend((self.rdata.len() as u16).to_be_bytes());
        wire.extend(&self.rdata);
        wire
    }
}

fn now() -> Result<u32> {
    Ok(u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}

fn request(user: User, keeper: &Keeper, request: Request) -> Result<Response> {
    let answer = ask(user, &keeper.socket, &[request])?.pop().context("one answer")?;
    answer.map_err(anyhow::Error::msg)
}

/// The zone's keys, once both are proven.
fn keys(keeper: &Keeper, zone: &str) -> Result<ZoneKeys> {
    let zone: ZoneName = zone.parse()?;
    until("the zone's keys", SOON, || {
        match request(User::Daemon, keeper, Request::Zone { zone: zone.clone() })? {
            Response::Zone(keys) => {
                ensure!(keys.keys.len() == 2, "{keys:?}");
                ensure!(keys.keys.iter().all(|key| !key.proven_by.is_empty()), "{keys:?}");
                Ok(keys)
            }
            other => bail!("{other:?}"),
        }
    })
}

fn key(keys: &ZoneKeys, role: KeyRole) -> Result<(KeyId, u16)> {
    let key = keys.keys.iter().find(|key| key.role == role).context("a key of the role")?;
    Ok((key.public.id(), key.public.tag(role.flags())))
}

/// A chain with the keeper alone, and two zones founded.
fn keeper_alone(scratch: &softhsm_tests::Scratch) -> Result<Chain<'_>> {
    let plan = Plan { more_zones: &["second."], ..Plan::default() };
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
        let (zsk, tag) = key(&ours, KeyRole::Zsk)?;
        let now = now()?;
        let apex = ours.zone.as_wire().to_vec();
        let honest = Tbs {
            covered: A,
            algorithm: 13,
            labels: 1,
            ttl: 300,
            expiration: now + ours.policy.validity_s,
            inception: now - ours.policy.inception_offset_s,
            tag,
            signer: apex.clone(),
            owner: apex,
            rtype: A,
            rdata: vec![192, 0, 2, 1],
        };
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
        (cds.rtype, cds.rdata) = (CDS, vec![0, 0, 13, 2, 1]);
        two.extend(&cds.wire()[18 + honest.signer.len()..]);
        refused("a CDS behind an A", &sign(&ours.zone, zsk, two)?)?;
        refused("nothing at all", &sign(&ours.zone, zsk, Vec::new())?)?;
        refused("a digest", &sign(&ours.zone, zsk, vec![0x5a; 32])?)
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
        let expected: BTreeSet<ZoneName> =
            ["example.", "second."].into_iter().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(
            matches!(&answer, Response::Zones { zones, .. } if zones.iter().cloned().collect::<BTreeSet<_>>() == expected),
            "{answer:?}"
        );
        Ok(())
    });
}
