//! BIND, NSD, Knot and PowerDNS, each as a primary and as a secondary: over XoT those that can,
//! with TSIG over TCP the others. What goes in is what comes out, whoever hands it in and whoever
//! serves it, and a NOTIFY of each make is understood and given.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::clear::{bind_primary, nsd_primary};
use softhsm_tests::knot::Knot;
use softhsm_tests::pdns::Pdns;
use softhsm_tests::pki::Authority;
use softhsm_tests::tsig::{self, Key, PrimarySpec};
use softhsm_tests::unbound::Resolver;
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{Scratch, oracle, ports, query, story};

/// A key of its own for `make`, and the tables that make a peer of whoever has it.
fn peer(scratch: &Scratch, make: &str, more: &str) -> Result<(Key, String)> {
    let key = Key::new(&format!("{make}.example."))?;
    let toml = format!(
        "[tsig.\"{name}\"]\nalgorithm = \"{algorithm}\"\nsecret_file = \"{secret}\"\n\
         [peer.{make}]\ntsig = \"{name}\"\ntransport = \"tcp\"\n{more}\n",
        name = key.name,
        algorithm = tsig::ALGORITHM,
        secret = key.secret_file(scratch, User::Daemon)?.display(),
    );
    Ok((key, toml))
}

/// The records that a primary was given, as dig prints them, without regard to case: Knot and
/// PowerDNS lower-case the names of what they are given.
fn said(text: &str) -> BTreeSet<String> {
    let signing = |line: &String| {
        let rtype = line.split(' ').nth(3).unwrap_or_default();
        matches!(rtype, "rrsig" | "nsec" | "nsec3" | "nsec3param" | "dnskey")
    };
    zones::content(text)
        .iter()
        .map(|line| line.to_lowercase())
        .filter(|line| !signing(line))
        .collect()
}

fn wait_for(port: u16, serial: u32, who: &str) -> Result<()> {
    until(&format!("serial {serial} on {who}"), SOON, || {
        let served = query::serial(port, ZONE)?;
        ensure!(served == serial, "it serves {served}");
        Ok(())
    })
}

#[test]
fn every_make_is_a_secondary() {
    story(|scratch| {
        let authority = Authority::new(scratch, "ca")?;
        let mut chain = Chain::prepare(scratch, Plan::default(), authority)?;
        let [nsd_port, knot_port, pdns_port] = [ports::free()?, ports::free()?, ports::free()?];
        let notify = |port| format!("notify = \"127.0.0.1:{port}\"\n");
        let (knot_key, knot_peer) = peer(scratch, "knot", &notify(knot_port))?;
        let (pdns_key, pdns_peer) = peer(scratch, "pdns", &notify(pdns_port))?;
        let nsd_peer =
            format!("[peer.nsd]\nidentity = {{ san = \"nsd.test\" }}\n{}", notify(nsd_port));
        chain.daemon_spec.more = [knot_peer, pdns_peer, nsd_peer].concat();
        chain.daemon_spec.more_secondaries = ["knot", "pdns", "nsd"].map(str::to_owned).to_vec();
        chain.start_all()?;

        let _nsd = chain.start_nsd(nsd_port)?;
        let server_port = chain.daemon.dns_port;
        let to = |name, key, port| tsig::SecondarySpec { name, zone: ZONE, key, server_port, port };
        let _knot = Knot::secondary(scratch, &to("knot", &knot_key, knot_port))?;
        let _pdns = Pdns::secondary(scratch, &to("pdns", &pdns_key, pdns_port))?;

        let makes = [("bind", chain.secondary_port), ("nsd", nsd_port), ("knot", knot_port)];
        for serial in [2, 3] {
            chain.change_zone(&zones::example_with(serial, "made"))?;
            for (make, port) in makes.into_iter().chain([("pdns", pdns_port)]) {
                wait_for(port, serial, make)?;
            }
        }
        // PowerDNS asks for the whole zone, NSD 4.6 for the one or the other.
        for (peer, differences) in [("secondary-1", true), ("knot", true), ("pdns", false)] {
            said_differences(&chain, "transfer sent", peer, 3, differences)?;
        }
        chain.verify_served()?;
        let served = chain.served_zone()?;
        let anchor = oracle::anchor(scratch, ZONE, &served)?;
        let whole = zones::whole(&served);
        for (make, port) in makes {
            let theirs = zones::whole(&query::axfr(port, ZONE)?);
            ensure!(theirs == whole, "{make} serves another zone");
        }
        // PowerDNS makes the NSEC3 records of a transfer itself, so it is asked as resolvers ask.
        for (name, rtype, rcode) in [
            ("example.", "SOA", "NOERROR"),
            ("ns1.example.", "AAAA", "NOERROR"),
            ("non-terminal.example.", "A", "NOERROR"),
            ("anything.wild.example.", "A", "NOERROR"),
            ("not-there.example.", "A", "NXDOMAIN"),
        ] {
            for (make, port) in makes.into_iter().chain([("pdns", pdns_port)]) {
                let resolver = format!("unbound-{make}-{name}{rtype}");
                let resolver = Resolver::start(scratch, &resolver, (ZONE, port), &anchor)?;
                let answer = resolver.ask(name, rtype)?;
                let good = answer.rcode == rcode && answer.authentic;
                ensure!(good, "unbound in front of {make}: {name} {rtype}:\n{}", answer.text);
            }
        }
        Ok(())
    });
}

/// Each make, how it is started, and how it is given another zone.
type Start = fn(&Scratch, &PrimarySpec<'_>) -> Result<(u16, Replace)>;
type Replace = Box<dyn Fn(&str) -> Result<()>>;

const MAKES: [(&str, Start); 4] = [
    ("knot", |scratch, spec| {
        let knot = Knot::primary(scratch, spec)?;
        Ok((knot.port, Box::new(move |content| knot.replace_zone(content))))
    }),
    ("pdns", |scratch, spec| {
        let pdns = Pdns::primary(scratch, spec)?;
        Ok((pdns.port, Box::new(move |content| pdns.replace_zone(content))))
    }),
    ("nsd", |scratch, spec| {
        let nsd = nsd_primary(scratch, spec)?;
        Ok((nsd.port, Box::new(move |content| nsd.replace_zone(content))))
    }),
    ("bind", |scratch, spec| {
        let bind = bind_primary(scratch, spec, None)?;
        Ok((bind.port, Box::new(move |content| bind.replace_zone(content))))
    }),
];

/// One after the other gives the same zone its next version; BIND over XoT gave the first.
#[test]
fn every_make_is_a_primary() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        let mut serial = 1;
        for (make, start) in MAKES {
            let (key, toml) = peer(scratch, make, "")?;
            let name = format!("{make}-primary");
            serial += 10;
            let spec = PrimarySpec {
                name: &name,
                zone: ZONE,
                content: &zones::example_with(serial, make),
                key: &key,
                notify_port: chain.daemon.dns_port,
            };
            let (port, replace) = start(scratch, &spec)?;
            let from =
                format!("addresses = [\"127.0.0.1\"]\ntransfer_from = \"127.0.0.1:{port}\"\n");
            use_primary(&mut chain, make, &format!("{toml}{from}"))?;
            compare(scratch, &chain, port, &key.dig_file(scratch)?, serial)?;
            // It says that there is more; nobody would ask again for an hour.
            serial += 1;
            replace(&zones::example_with(serial, make))?;
            compare(scratch, &chain, port, &key.dig_file(scratch)?, serial)?;
            // What was asked for as differences came as such, or whole, as each make has it.
            let differences = make == "knot";
            said_differences(&chain, "transferred", make, serial, differences)?;
        }
        chain.verify_served()
    });
}

/// The daemon's log has a transfer of that serial, and says whether it was of differences.
fn said_differences(
    chain: &Chain<'_>,
    what: &str,
    peer: &str,
    serial: u32,
    differences: bool,
) -> Result<()> {
    let words = [
        what,
        &format!("peer={peer} "),
        &format!("serial={serial} "),
        &format!("differences={differences}"),
    ];
    // A peer may have it before the daemon has said so.
    until(&format!("a line with {words:?}"), SOON, || {
        let log = chain.daemon.log();
        let to_peer = |line: &&str| line.contains(words[0]) && line.contains(words[1]);
        let said = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(said, "{:#?}", log.lines().filter(to_peer).collect::<Vec<_>>());
        Ok(())
    })
}

/// From now on the zone is fetched from the peer `make` that `toml` describes, and nobody else.
fn use_primary(chain: &mut Chain<'_>, make: &str, toml: &str) -> Result<()> {
    chain.daemon_spec.peers.retain(|peer| peer.transfer_from.is_none());
    chain.daemon_spec.more_primaries = vec![make.to_owned()];
    toml.clone_into(&mut chain.daemon_spec.more);
    chain.daemon.configure(&chain.daemon_spec)?;
    chain.daemon.running()?.signal(Signal::SIGHUP)
}

/// The secondary has that serial, and says what the primary says, which says what it was given.
fn compare(scratch: &Scratch, chain: &Chain<'_>, port: u16, key: &Path, serial: u32) -> Result<()> {
    wait_for(chain.secondary_port, serial, "the secondary")?;
    let given = query::axfr_with_key(port, ZONE, key)?;
    let came_out = chain.served_zone()?;
    let (given_said, came_out_said) = (said(&given), said(&came_out));
    ensure!(
        given_said == came_out_said,
        "lost: {:#?}\nadded: {:#?}",
        given_said.difference(&came_out_said),
        came_out_said.difference(&given_said)
    );
    ensure!(given_said.iter().any(|line| line.contains(&format!("serial {serial}"))));
    let anchor = oracle::anchor(scratch, ZONE, &came_out)?;
    oracle::verify(scratch, ZONE, &came_out, &anchor)
}
