//! Every type, and names of every kind, from a real primary through the whole chain to real secondaries:
//! the records that come out are those that went in, but for DNSSEC and the serial, and every signature
//! holds by the judgement of BIND, ldns and a validating unbound. Where one of them is known to read
//! something otherwise, it is named here.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use softhsm_tests::bind::SecondarySpec;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::nsd::Nsd;
use softhsm_tests::unbound::Resolver;
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{oracle, ports, query, story};

/// ldns 1.8.3 reads these otherwise than they are: it does not know that the name in an A6 is one
/// (RFC 4034 §6.2 has it in lower case), takes an NSAP-PTR for a text, and makes something else of a SINK.
const LDNS_MISREADS: [&str; 3] = [
    "Error: Bogus DNSSEC signature for a6.example.\tA6",
    "Error: Bogus DNSSEC signature for nsap-ptr.example.\tNSAP-PTR",
    "Error: Bogus DNSSEC signature for sink.example.\tSINK",
];

fn survives(denial: &'static str) {
    story(|scratch| {
        let port = ports::free()?;
        let more = format!(
            "[peer.nsd]\nidentity = {{ san = \"nsd.test\" }}\nnotify = \"127.0.0.1:{port}\"\n"
        );
        let plan = Plan { content: zones::odd(1), denial, daemon_more: more, ..Plan::default() };
        let mut chain = Chain::start_with(scratch, plan, |chain| {
            chain.daemon_spec.more_secondaries.push("nsd".to_owned());
        })?;
        chain.daemon.no_alarm()?;
        same_content(&chain)?;
        let anchor = judged(&chain)?;
        every_rrset_validates(&chain, &anchor)?;

        let identity = chain.authority.issue(scratch, "nsd.test", User::Harness)?;
        let spec = SecondarySpec {
            name: "nsd",
            zone: ZONE,
            identity: &identity,
            server_ca: &chain.authority.ca,
            server_name: "signer.test",
            server_port: chain.daemon.xot_port,
            port,
        };
        let nsd = Nsd::start(scratch, &spec)?;
        until("the zone on NSD", SOON, || query::serial(nsd.port, ZONE))?;
        let (bind, nsd) = (
            query::axfr_generic(chain.secondary_port, ZONE)?,
            query::axfr_generic(nsd.port, ZONE)?,
        );
        let (bind, nsd) = (zones::whole(&bind), zones::whole(&nsd));
        let differ: Vec<_> = bind.symmetric_difference(&nsd).collect();
        ensure!(differ.is_empty(), "BIND and NSD differ: {differ:#?}");

        // A change goes the same way, with what did not change signed as it was.
        chain.change_zone(&zones::odd(2).replace("\"case\"", "\"CASE\""))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        same_content(&chain)?;
        judged(&chain).map(drop)
    });
}

#[test]
fn every_type_and_name_with_nsec() {
    survives("nsec");
}

#[test]
fn every_type_and_name_with_nsec3() {
    survives("nsec3");
}

#[test]
fn a_dname_at_the_apex() {
    story(|scratch| {
        let plan = Plan { content: zones::apex_dname(1), ..Plan::default() };
        let mut chain = Chain::start(scratch, plan)?;
        same_content(&chain)?;
        let signed = chain.served_zone()?;
        let anchor = oracle::anchor(scratch, ZONE, &signed)?;
        oracle::verify(scratch, ZONE, &signed, &anchor)?;
        let resolver = Resolver::start(scratch, "unbound", ZONE, chain.secondary_port, &anchor)?;
        for (name, rtype) in [(ZONE, "DNAME"), (ZONE, "MX"), (ZONE, "TXT")] {
            let answer = resolver.ask(name, rtype)?;
            ensure!(answer.rcode == "NOERROR" && answer.authentic, "{}", answer.text);
        }
        chain.change_zone(&zones::apex_dname(2))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        same_content(&chain)
    });
}

/// Has BIND and ldns judge what the secondary serves; the zone's DS.
fn judged(chain: &Chain<'_>) -> Result<String> {
    let signed = chain.served_zone()?;
    oracle::verify_with_bind(chain.scratch, ZONE, &signed).context("BIND")?;
    // ldns reads no record of 64 KB.
    let generic: String = query::axfr_generic(chain.secondary_port, ZONE)?
        .lines()
        .filter(|line| !(line.starts_with("one.example.") && line.contains("\tTYPE16\t")))
        .flat_map(|line| [line, "\n"])
        .collect();
    let faults = oracle::faults_by_ldns(chain.scratch, &generic)?;
    let unexpected: Vec<_> = faults
        .iter()
        .filter(|line| line.starts_with("Error") && !LDNS_MISREADS.contains(&line.as_str()))
        .collect();
    ensure!(unexpected.is_empty(), "ldns: {unexpected:#?}");
    let misread = LDNS_MISREADS.iter().all(|known| faults.iter().any(|line| line == known));
    ensure!(misread, "ldns has learned to read a type; take it off the list: {faults:#?}");
    oracle::anchor(chain.scratch, ZONE, &signed)
}

/// unbound validates every RRset that the zone answers for with itself.
fn every_rrset_validates(chain: &Chain<'_>, anchor: &str) -> Result<()> {
    let resolver = Resolver::start(chain.scratch, "unbound", ZONE, chain.secondary_port, anchor)?;
    let mut asked = BTreeSet::new();
    for record in zones::content(&chain.served_zone()?) {
        let mut fields = record.split(' ');
        let (Some(owner), Some(rtype)) = (fields.next(), fields.nth(2)) else { continue };
        let lower = owner.to_lowercase();
        let not_the_zones = lower.ends_with("insecure.example.")
            || (lower == "secure.example." && rtype == "NS")
            // What stands for others is not asked for by its own name.
            || (rtype == "CNAME" || rtype == "DNAME");
        if not_the_zones || !asked.insert((lower, rtype.to_owned())) {
            continue;
        }
        let answer = resolver.ask(owner, rtype).with_context(|| format!("{owner} {rtype}"))?;
        ensure!(
            answer.rcode == "NOERROR" && answer.authentic,
            "unbound on {owner} {rtype}:\n{}\n{}",
            answer.text,
            resolver.process.log()
        );
    }
    ensure!(asked.len() > 90, "{asked:?}");
    Ok(())
}

/// The zone passed through unaltered but for what signing adds and its serial.
fn same_content(chain: &Chain<'_>) -> Result<()> {
    let primary = query::axfr_over_tls(
        chain.primary()?.xot_port,
        ZONE,
        &chain.identities["secondary"],
        &chain.authority.ca,
        "primary.test",
    )?;
    let (came, went) = (zones::content(&primary), zones::content(&chain.served_zone()?));
    let lost: Vec<_> = came.difference(&went).collect();
    let added: Vec<_> = went.difference(&came).collect();
    ensure!(lost.is_empty() && added.is_empty(), "lost: {lost:#?}\nadded: {added:#?}");
    ensure!(came.len() > 4);
    Ok(())
}
