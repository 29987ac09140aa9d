//! A zone moves from OpenDNSSEC to Countersign with its keys: the parent's DS stays, and no cache ever
//! sees anything that does not validate.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use countersign_hsm::protocol::{Request, Response};
use countersign_policy::{KeyId, KeyRole};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::opendnssec::{self, Key, OpenDnssec, Spec};
use softhsm_tests::pki::Authority;
use softhsm_tests::process::Process;
use softhsm_tests::thief::{self, Tbs};
use softhsm_tests::unbound::Resolver;
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{Scratch, oracle, story};

/// Asked of both resolvers before and after: an address, a wildcard, and a name that is not there.
const EARLY: [(&str, &str, &str); 3] = [
    ("ns1.example.", "A", "NOERROR"),
    ("early.wild.example.", "A", "NOERROR"),
    ("not-there-early.example.", "A", "NXDOMAIN"),
];
/// Asked after the move only.
const LATE: [(&str, &str, &str); 4] = [
    ("ns2.example.", "A", "NOERROR"),
    ("mail.example.", "A", "NOERROR"),
    ("late.wild.example.", "A", "NOERROR"),
    ("not-there-late.example.", "A", "NXDOMAIN"),
];

#[test]
fn adopts_opendnssec_keys() {
    moves((13, 256), |chain, left, keys| {
        adopt(chain, left, keys)?;
        ensure!(chain.keeper.ledger_state()?.keys().len() == 2, "more keys than were adopted");
        Ok(())
    });
}

#[test]
fn adopts_opendnssec_rsa_keys() {
    moves((8, 2048), adopt);
}

/// The KSK first: the keeper makes the zone a ZSK, which no cache knows. The officers have the adopted one
/// in its place before anything goes out.
#[test]
fn adopts_opendnssec_keys_in_the_wrong_order() {
    moves((13, 256), |chain, _, keys| {
        let ksk = ["--role", "ksk", "--token", "ksk-a", "--key", &keys.ksk, "--activate"];
        chain
            .officers
            .carry(&chain.keeper, &[&["adopt-key", "--zone", ZONE], &ksk[..]].concat())?;
        let made = until("a ZSK of the keeper's", SOON, || {
            let state = chain.keeper.ledger_state()?;
            let made = state.keys().iter().find(|(_, key)| key.role == KeyRole::Zsk);
            Ok(made.context("there is none")?.0.to_string())
        })?;
        let zsk = ["--role", "zsk", "--token", "zsk-a", "--key", &keys.zsk, "--activate"];
        chain
            .officers
            .carry(&chain.keeper, &[&["adopt-key", "--zone", ZONE], &zsk[..]].concat())?;
        chain.officers.carry(&chain.keeper, &["retire-key", "--zone", ZONE, "--key", &made])?;
        Ok(())
    });
}

/// A zone moves; `adopted` has its keys taken over.
fn moves(algorithm: (u8, u16), adopted: fn(&Chain<'_>, &Left, &Found) -> Result<()>) {
    story(|scratch| {
        if let Some(why) = opendnssec::unavailable(scratch)? {
            eprintln!("SKIPPED: OpenDNSSEC's daemons need a mount namespace: {why}");
            return Ok(());
        }
        let (mut chain, left, public) = at_opendnssec(scratch, algorithm)?;
        chain.found_appliance()?;
        let keys = foreign(&chain, &left)?;
        chain.bind_zones()?;
        nothing_signs_with(&chain, &left, &keys)?;
        adopted(&chain, &left, &keys)?;

        chain.start_primary()?;
        chain.daemon.start()?;
        until("a first version of ours", SOON, || chain.daemon.serial())?;
        // Caches know the zone as OpenDNSSEC signed it; from one moment to the next they are told ours.
        let caches = Caches::fill(&chain, &left)?;
        public.kill_nine()?;
        chain.start_secondary()?;
        chain.wait_for_secondary("the zone of ours", |serial| serial == OURS)?;
        let signed = chain.served_zone()?;
        caches.never_bogus(&chain, &left, &signed)?;

        // What the world needs to know of the keys has not changed.
        ensure!(dnskeys(&signed) == dnskeys(&left.signed), "other keys are served:\n{signed}");
        let ours = oracle::anchor(scratch, ZONE, &signed)?;
        ensure!(ds(&ours) == ds(&left.ds), "OpenDNSSEC's DS: {}\nours: {ours}", left.ds);
        oracle::verify(scratch, ZONE, &signed, &left.ds)?;
        chain.officers.carry(&chain.keeper, &["export-ds", "--zone", ZONE])?;
        let exported = chain.officers.ok("op", &["ds", "export", ZONE])?;
        ensure!(ds(&exported).is_superset(&ds(&left.ds)), "{}\nexported: {exported}", left.ds);
        chain.verify_served()
    });
}

/// Serial of the version that the customer hands in after the move.
const OURS: u32 = 100;

/// What OpenDNSSEC has left behind.
struct Left {
    /// The zone as it signed it.
    signed: String,
    /// The DS that it had the parent publish.
    ds: String,
    ksk: Key,
    zsk: Key,
    algorithm: u8,
}

/// Our key ids of the two.
struct Found {
    ksk: String,
    zsk: String,
}

/// OpenDNSSEC signs on the two tokens; then it is gone, and what it signed is still public: on a name
/// server where our secondary will be.
fn at_opendnssec(
    scratch: &Scratch,
    (number, bits): (u8, u16),
) -> Result<(Chain<'_>, Left, Process)> {
    let plan = Plan {
        content: zones::example(OURS),
        algorithm: number,
        rsa_bits: (number == 8).then_some(bits),
        ..Plan::default()
    };
    let chain = Chain::prepare(scratch, plan, Authority::new(scratch, "ca")?)?;
    let opendnssec = OpenDnssec::start(
        scratch,
        &Spec {
            store: &chain.store,
            ksk: &chain.tokens["ksk-a"],
            zsk: &chain.tokens["zsk-a"],
            zone: ZONE,
            content: &zones::example(1),
            algorithm: (number, bits),
        },
    )?;
    let (signed, ds) = (opendnssec.signed()?, opendnssec.ds()?);
    oracle::verify(scratch, ZONE, &signed, &ds)?;
    let (ksk, zsk) = (opendnssec.key("KSK")?, opendnssec.key("ZSK")?);
    let public = opendnssec::serve(scratch, ZONE, &opendnssec.signed_file(), chain.secondary_port)?;
    opendnssec.stop()?;
    Ok((chain, Left { signed, ds, ksk, zsk, algorithm: number }, public))
}

/// The founding names both keys as foreign ones, and the survey says what they are.
fn foreign(chain: &Chain<'_>, left: &Left) -> Result<Found> {
    let founding = std::fs::read_to_string(chain.officers.founding_file())?;
    let survey = chain.officers.json("op", &["survey"])?;
    let key = |token: &str, key: &Key| -> Result<String> {
        let line = format!("foreign: {token} label {} id {}\n", key.id, key.id);
        ensure!(founding.contains(&line), "no {line:?} in the founding:\n{founding}");
        let tokens = survey["survey"]["tokens"].as_array().into_iter().flatten();
        let shown = tokens.filter(|shown| shown["name"] == token).find_map(|shown| {
            let keys = shown["keys"].as_array()?;
            keys.iter().find(|shown| shown["id"] == key.id.as_str() && shown["private"] == true)
        });
        let shown = shown.with_context(|| format!("no key {} in {survey:#}", key.id))?;
        ensure!(shown["algorithm"] == left.algorithm, "{shown:#}");
        ensure!(shown["extractable"] == false, "{shown:#}");
        Ok(shown["key"].as_str().with_context(|| format!("{shown:#}"))?.to_owned())
    };
    Ok(Found { ksk: key("ksk-a", &left.ksk)?, zsk: key("zsk-a", &left.zsk)? })
}

/// What the daemon, or whoever took it over, would ask of these keys.
fn orders(left: &Left, keys: &Found) -> Result<[Request; 2]> {
    let (ksk, zsk): (KeyId, KeyId) = (keys.ksk.parse()?, keys.zsk.parse()?);
    let (zone, now): (countersign_policy::ZoneName, u32) = (ZONE.parse()?, thief::now()?);
    let (inception, expiration) = (now - 3_600, now + 1_209_600);
    let apex = zone.as_wire().to_vec();
    let tbs = Tbs {
        covered: 1,
        algorithm: left.algorithm,
        labels: 1,
        ttl: 300,
        expiration,
        inception,
        tag: left.zsk.tag,
        signer: apex.clone(),
        owner: apex,
        rtype: 1,
        rdatas: vec![vec![192, 0, 2, 1]],
    };
    let keys = [ksk, zsk].into();
    Ok([
        Request::SignDnskey {
            zone: zone.clone(),
            keys,
            signer: ksk,
            ttl_s: 3_600,
            inception,
            expiration,
        },
        Request::SignZone { zone, key: zsk, tbs: vec![tbs.wire()] },
    ])
}

/// Whether the keeper signs each of [`orders`].
fn signs(chain: &Chain<'_>, left: &Left, keys: &Found) -> Result<[bool; 2]> {
    let [dnskey, zone] = orders(left, keys)?.map(|order| {
        Ok(match thief::request(User::Daemon, &chain.keeper, order)? {
            Response::DnskeySignature(_) => true,
            Response::Signatures(all) => all.iter().all(Result::is_ok),
            Response::Refused(_) => false,
            other => bail!("{other:?}"),
        })
    });
    Ok([dnskey?, zone?])
}

fn nothing_signs_with(chain: &Chain<'_>, left: &Left, keys: &Found) -> Result<()> {
    ensure!(signs(chain, left, keys)? == [false, false], "a foreign key signs");
    let state = chain.keeper.ledger_state()?;
    ensure!(state.keys().is_empty(), "the ledger has keys: {:?}", state.keys());
    Ok(())
}

/// Two officers have both keys taken over; one alone does not. The ZSK comes first: a zone that has a KSK
/// and no ZSK is made one.
fn adopt(chain: &Chain<'_>, left: &Left, keys: &Found) -> Result<()> {
    let motion = |role, token, key| {
        ["adopt-key", "--zone", ZONE, "--role", role, "--token", token, "--key", key, "--activate"]
    };
    let zsk = chain.officers.propose("op", &motion("zsk", "zsk-a", &keys.zsk))?;
    let ksk = chain.officers.propose("op", &motion("ksk", "ksk-a", &keys.ksk))?;
    for id in [&zsk, &ksk] {
        chain.officers.approve(&["kay"], id)?;
    }
    nothing_signs_with(chain, left, keys)?;
    for id in [&zsk, &ksk] {
        chain.officers.approve(&["kim"], id)?;
        until("the adoption", SOON, || chain.keeper.is_done(id))?;
    }
    until("the adopted keys to sign", SOON, || {
        let signed = signs(chain, left, keys)?;
        ensure!(signed == [true, true], "DNSKEY, zone data: {signed:?}");
        Ok(())
    })
}

/// Resolvers that saw the zone before the move.
struct Caches {
    /// It validates, and has OpenDNSSEC's DNSKEY RRset; what it asks next is signed by us.
    keys: Resolver,
    /// It has answers that OpenDNSSEC signed, and leaves it to whoever is behind it to validate them: by
    /// a DNSKEY RRset that is signed by us.
    answers: Resolver,
}

impl Caches {
    fn fill(chain: &Chain<'_>, left: &Left) -> Result<Self> {
        let (scratch, port) = (chain.scratch, chain.secondary_port);
        let caches = Self {
            keys: Resolver::start_caching(scratch, "with-keys", (ZONE, port), &left.ds)?,
            answers: Resolver::start_trusting(scratch, "with-answers", (ZONE, port))?,
        };
        let answer = caches.keys.ask(ZONE, "DNSKEY")?;
        ensure!(answer.authentic, "before the move:\n{}", answer.text);
        for (name, rtype, rcode) in EARLY {
            let answer = caches.keys.ask(name, rtype)?;
            ensure!(answer.rcode == rcode && answer.authentic, "before:\n{}", answer.text);
            let answer = caches.answers.ask(name, rtype)?;
            ensure!(answer.rcode == rcode && !answer.authentic, "before:\n{}", answer.text);
        }
        Ok(caches)
    }

    fn never_bogus(&self, chain: &Chain<'_>, left: &Left, ours: &str) -> Result<()> {
        let (theirs, ours) = (signatures(&left.signed), signatures(ours));
        ensure!(theirs.is_disjoint(&ours), "a signature of OpenDNSSEC's is served as ours");
        let judged = |resolver: &Resolver, (name, rtype, rcode): (&str, &str, &str), by| {
            let answer = resolver.ask(name, rtype)?;
            let (text, log) = (&answer.text, resolver.process.log());
            ensure!(answer.rcode == rcode && answer.authentic, "{name} {rtype}:\n{text}\n{log}");
            // A proof of what is not there may be older or newer than what it comes with.
            let made = signatures(text);
            let known = made.iter().all(|one| theirs.contains(one) || ours.contains(one));
            let by: &BTreeSet<String> = by;
            ensure!(known && !made.is_disjoint(by), "not signed by the right one:\n{text}");
            Ok(())
        };
        let keys = (ZONE, "DNSKEY", "NOERROR");
        judged(&self.keys, keys, &theirs)?;
        EARLY.into_iter().try_for_each(|question| judged(&self.keys, question, &theirs))?;
        LATE.into_iter().try_for_each(|question| judged(&self.keys, question, &ours))?;
        judged(&self.keys, keys, &theirs)?;

        let behind =
            Resolver::start_behind(chain.scratch, "behind", ZONE, &self.answers, &left.ds)?;
        EARLY.into_iter().try_for_each(|question| judged(&behind, question, &theirs))?;
        judged(&behind, keys, &ours)?;
        LATE.into_iter().try_for_each(|question| judged(&behind, question, &ours))?;
        for resolver in [&self.keys, &behind] {
            let log = resolver.process.log();
            ensure!(!log.contains("validation failure"), "{log}");
        }
        Ok(())
    }
}

/// The RDATAs of a type, field by field, from a master file or from what dig prints.
fn rdatas<'t>(text: &'t str, rtype: &'static str) -> impl Iterator<Item = Vec<&'t str>> {
    text.lines().filter_map(move |line| {
        // OpenDNSSEC says in a comment behind a key what its tag is.
        let fields: Vec<&str> = line.split(';').next()?.split_whitespace().collect();
        let at = fields.iter().take(4).position(|field| *field == rtype)?;
        Some(fields[at + 1..].to_vec())
    })
}

/// The signatures alone: that both signers give the same times does not make two of them one.
fn signatures(text: &str) -> BTreeSet<String> {
    rdatas(text, "RRSIG").filter_map(|rdata| Some(rdata.get(8..)?.concat())).collect()
}

fn dnskeys(text: &str) -> BTreeSet<String> {
    rdatas(text, "DNSKEY").map(|rdata| rdata.concat()).collect()
}

fn ds(text: &str) -> BTreeSet<String> {
    rdatas(text, "DS").map(|rdata| rdata.join(" ").to_lowercase()).collect()
}
