//! Every type, and names of every kind, from a real primary through the whole chain to real secondaries:
//! the records that come out are those that went in, but for DNSSEC and the serial, and every signature
//! holds by the judgement of BIND, ldns and a validating unbound. Where one of them is known to read
//! something otherwise, it is named here.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use softhsm_tests::bind::{Changes, Primary, PrimarySpec};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::pki::Authority;
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

/// unbound 1.17 does not lower the name in an A6 either; and BIND, which it asks, gives no RRSIG with an
/// answer of type SIG.
const UNBOUND_MISREADS: [&str; 2] = ["a6.example. A6: SERVFAIL", "sig.example. SIG: SERVFAIL"];

/// From BIND to BIND.
fn survives(denial: &'static str, more: &str) {
    story(|scratch| {
        let content = zones::odd(1) + more;
        let mut chain = Chain::start(scratch, Plan { content, denial, ..Plan::default() })?;
        chain.daemon.no_alarm()?;
        chain.same_content()?;
        let anchor = judged(&chain)?;
        every_rrset_validates(&chain, &anchor)?;

        // A change goes the same way, with what did not change signed as it was.
        chain.change_zone(&(zones::odd(2).replace("\"case\"", "\"CASE\"") + more))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.same_content()?;
        judged(&chain).map(drop)
    });
}

#[test]
fn every_type_and_name_with_nsec() {
    survives("nsec", &zones::large_record());
}

#[test]
fn every_type_and_name_with_nsec3() {
    survives("nsec3", "");
}

/// NSD keeps names in RDATA in lower case, and ends a transfer of its own at a record of 64 KB; all else it
/// serves as BIND does. With NSEC3 its reload process dies, again and again, as it hashes names of 255 octets
/// (Debian's 4.6.1), so this is with NSEC.
#[test]
fn nsd_serves_every_type_and_name() {
    story(|scratch| {
        let port = ports::free()?;
        let more = format!(
            "[peer.nsd]\nidentity = {{ san = \"nsd.test\" }}\nnotify = \"127.0.0.1:{port}\"\n"
        );
        let content = zones::odd(1);
        let plan = Plan { content, denial: "nsec", daemon_more: more, ..Plan::default() };
        let chain = Chain::start_with(scratch, plan, |chain| {
            chain.daemon_spec.more_secondaries.push("nsd".to_owned());
        })?;
        let nsd = chain.start_nsd(port)?;
        until("the zone on NSD", SOON, || query::serial(nsd.port, ZONE))?;
        let bind = zones::whole(&chain.served_zone()?);
        let nsd = zones::whole(&query::axfr(nsd.port, ZONE)?);
        let differ: Vec<_> = bind.symmetric_difference(&nsd).collect();
        ensure!(differ.is_empty(), "BIND and NSD differ: {differ:#?}");
        Ok(())
    });
}

#[test]
fn a_dname_at_the_apex() {
    story(|scratch| {
        let plan = Plan { content: zones::apex_dname(1), ..Plan::default() };
        let mut chain = Chain::start(scratch, plan)?;
        chain.same_content()?;
        let signed = chain.served_zone()?;
        let anchor = oracle::anchor(scratch, ZONE, &signed)?;
        oracle::verify(scratch, ZONE, &signed, &anchor)?;
        let resolver = Resolver::start(scratch, "unbound", (ZONE, chain.secondary_port), &anchor)?;
        for (name, rtype) in [(ZONE, "DNAME"), (ZONE, "MX"), (ZONE, "TXT")] {
            let answer = resolver.ask(name, rtype)?;
            ensure!(answer.rcode == "NOERROR" && answer.authentic, "{}", answer.text);
        }
        chain.change_zone(&zones::apex_dname(2))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.same_content()
    });
}

/// A zone, the zone below it and a top-level domain of one letter, with names of 127 labels, all bound
/// here. The parent signs its child's DS as officers exported it.
#[test]
fn a_zone_its_child_and_a_single_label() {
    const CHILD: &str = "child.example.";
    const LETTER: &str = "z.";
    story(|scratch| {
        let plan = Plan { more_zones: &[CHILD, LETTER], ..Plan::default() };
        let mut chain = Chain::prepare(scratch, plan, Authority::new(scratch, "ca")?)?;
        let child = small_zone(CHILD, "deep.child IN A 192.0.2.1\n@ IN MX 5 Mail.Example.\n");
        let letter = small_zone(LETTER, &format!("{}a IN A 192.0.2.2\n", "a.".repeat(125)));
        let _primaries = [
            another_primary(&mut chain, "child", CHILD, &child)?,
            another_primary(&mut chain, "letter", LETTER, &letter)?,
        ];
        chain.start_all()?;
        chain.wait_for_secondary("serial 1", |serial| serial == 1)?;
        for zone in [CHILD, LETTER] {
            until(&format!("{zone} on the daemon"), SOON, || {
                query::serial(chain.daemon.dns_port, zone)
            })?;
            let signed = over_xot(&chain, zone)?;
            let anchor = oracle::anchor(scratch, zone, &signed)?;
            oracle::verify(scratch, zone, &signed, &anchor)?;
        }

        let motion = ["export-ds", "--zone", CHILD, "--finish-by", "+8d"];
        chain.officers.carry(&chain.keeper, &motion)?;
        let shown = chain.officers.ok("op", &["ds", "export", CHILD])?;
        let ds: Vec<&str> =
            shown.lines().filter(|line| line.contains("\tDS\t") || line.contains(" DS ")).collect();
        ensure!(!ds.is_empty(), "{shown}");
        let delegation =
            format!("child IN NS ns.child\nns.child IN A 192.0.2.3\n{}\n", ds.join("\n"));
        chain.change_zone(&(zones::example(2) + &delegation))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()?;
        chain.same_content()?;
        let anchor = oracle::anchor(scratch, CHILD, &over_xot(&chain, CHILD)?)?;
        let digest = anchor.split_whitespace().last().unwrap_or_default().to_lowercase();
        let served = chain.served_zone()?.to_lowercase().replace(' ', "");
        ensure!(!digest.is_empty() && served.contains(&digest), "{anchor} is not in {served}");
        Ok(())
    });
}

fn small_zone(zone: &str, more: &str) -> String {
    format!(
        "$ORIGIN {zone}\n$TTL 300\n@ IN SOA ns.elsewhere.test. h.elsewhere.test. 1 3600 600 604800 120\n\
         @ IN NS ns.elsewhere.test.\n{more}"
    )
}

/// A primary of another zone, and its entries in the daemon's configuration.
fn another_primary(
    chain: &mut Chain<'_>,
    name: &'static str,
    zone: &str,
    content: &str,
) -> Result<Primary> {
    let identity = chain.authority.issue(chain.scratch, &format!("{name}.test"), User::Harness)?;
    let spec = PrimarySpec {
        name,
        zone,
        content,
        identity: &identity,
        client_ca: &chain.authority.ca,
        notify_port: chain.daemon.dns_port,
        changes: Changes::File,
    };
    let primary = Primary::start(chain.scratch, &spec)?;
    let _ = write!(
        chain.daemon_spec.more,
        "[peer.{name}]\nidentity = {{ san = \"{name}.test\" }}\naddresses = [\"127.0.0.1\"]\n\
         transfer_from = \"127.0.0.1:{}\"\nserver_name = \"{name}.test\"\n\
         [zone.\"{zone}\"]\nprimaries = [\"{name}\"]\nsecondaries = [\"secondary-1\"]\n",
        primary.xot_port
    );
    Ok(primary)
}

fn over_xot(chain: &Chain<'_>, zone: &str) -> Result<String> {
    query::axfr_over_tls(
        chain.daemon.xot_port,
        zone,
        &chain.identities["secondary"],
        &chain.authority.ca,
        "signer.test",
    )
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
    let resolver = Resolver::start(chain.scratch, "unbound", (ZONE, chain.secondary_port), anchor)?;
    let (mut asked, mut bogus) = (BTreeSet::new(), Vec::new());
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
        if answer.rcode != "NOERROR" || !answer.authentic {
            bogus.push(format!("{owner} {rtype}: {}", answer.rcode));
        }
    }
    ensure!(bogus == UNBOUND_MISREADS, "unbound: {bogus:#?}\n{}", resolver.process.log());
    ensure!(asked.len() > 90, "{asked:?}");
    Ok(())
}
