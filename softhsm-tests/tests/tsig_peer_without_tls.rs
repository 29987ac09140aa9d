//! Peers without client certificates: every message is signed with a shared key, both ways, over TCP in
//! clear or over TLS. Whoever has no key, or stands in the middle, gets nothing and changes nothing.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use softhsm_tests::binaries::binaries;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::clear::{Server, bind_primary, bind_secondary, nsd_secondary};
use softhsm_tests::knot::Knot;
use softhsm_tests::meddler::{Meddler, Meddling};
use softhsm_tests::pki::Authority;
use softhsm_tests::process::Process;
use softhsm_tests::scratch::write;
use softhsm_tests::tools::{run, run_ok, tool};
use softhsm_tests::tsig::{ALGORITHM, Key, PrimarySpec, SecondarySpec};
use softhsm_tests::users::{User, command};
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{Scratch, ports, query, story};

/// Enough for a dozen messages of 16 KiB once it is signed.
const HOSTS: u32 = 400;

/// TOML of a key, and of the peer that has it and nothing else.
fn peer(scratch: &Scratch, name: &str, key: &Key, rest: &str) -> Result<String> {
    let file = key.secret_file(scratch, User::Daemon)?;
    Ok(format!(
        "[tsig.\"{key}\"]\nalgorithm = \"{ALGORITHM}\"\nsecret_file = \"{file}\"\n\
         [peer.{name}]\ntsig = \"{key}\"\n{rest}\n",
        key = key.name,
        file = file.display(),
    ))
}

fn primary_spec<'a>(key: &'a Key, content: &'a str, notify_port: u16) -> PrimarySpec<'a> {
    PrimarySpec { name: "primary", zone: ZONE, content, key, notify_port }
}

/// A chain that is founded, with this much more in the daemon's configuration.
fn prepared<'s>(
    scratch: &'s Scratch,
    primaries: &[&str],
    secondaries: &[&str],
    more: &str,
) -> Result<Chain<'s>> {
    let plan = Plan { daemon_more: more.to_owned(), ..Plan::default() };
    let mut chain = Chain::prepare(scratch, plan, Authority::new(scratch, "ca")?)?;
    chain.daemon_spec.more_primaries = primaries.iter().map(ToString::to_string).collect();
    chain.daemon_spec.more_secondaries = secondaries.iter().map(ToString::to_string).collect();
    chain.found()?;
    Ok(chain)
}

/// Takes up the ports that only running servers know, and starts.
fn start(chain: &mut Chain<'_>, more: &str) -> Result<()> {
    chain.daemon_spec.more.push_str(more);
    chain.daemon.configure(&chain.daemon_spec)?;
    chain.daemon.start()?;
    until("a first version on the daemon", SOON, || {
        chain.daemon.serial().with_context(|| chain.daemon.log())
    })?;
    Ok(())
}

/// BIND as primary; BIND, NSD and Knot as secondaries; no certificate anywhere, and no address that is
/// believed: NOTIFY, SOA queries and transfers are signed both ways.
#[test]
fn every_make_of_peer_with_a_key() {
    story(|scratch| {
        let key = |name: &str| Key::new(&format!("{name}.key."));
        let keys = [key("primary")?, key("bind")?, key("nsd")?, key("knot")?];
        let listen = [ports::free()?, ports::free()?, ports::free()?];
        let mut more = String::new();
        for ((name, key), port) in ["bind", "nsd", "knot"].into_iter().zip(&keys[1..]).zip(listen) {
            let rest = format!("transport = \"tcp\"\nnotify = \"127.0.0.1:{port}\"");
            more.push_str(&peer(scratch, name, key, &rest)?);
        }
        let mut chain = prepared(scratch, &["primary"], &["bind", "nsd", "knot"], &more)?;
        let zone = zones::hosts(1, HOSTS);
        let primary =
            bind_primary(scratch, &primary_spec(&keys[0], &zone, chain.daemon.dns_port), None)?;
        let meddler = Meddler::start(ports::free()?, primary.port)?;
        let rest = format!("transport = \"tcp\"\ntransfer_from = \"127.0.0.1:{}\"", meddler.port);
        let more = peer(scratch, "primary", &keys[0], &rest)?;
        start(&mut chain, &more)?;

        let server_port = chain.daemon.dns_port;
        let spec = |number: usize, name| SecondarySpec {
            name,
            zone: ZONE,
            key: &keys[number],
            server_port,
            port: listen[number - 1],
        };
        let _bind = bind_secondary(scratch, &spec(1, "bind"), None)?;
        let _nsd = nsd_secondary(scratch, &spec(2, "nsd"))?;
        let _knot = Knot::secondary(scratch, &spec(3, "knot"))?;
        chain.secondary_port = listen[0];
        everyone_serves(&listen, 1)?;
        chain.verify_served()?;

        // A signed NOTIFY comes, and three go out and are acknowledged by signed answers.
        primary.replace_zone(&zones::hosts(2, HOSTS))?;
        everyone_serves(&listen, 2)?;
        chain.verify_served()?;
        let served = listen.map(|port| query::axfr(port, ZONE).map(|text| zones::whole(&text)));
        let [bind, nsd, knot] = served;
        let bind = bind?;
        ensure!(bind == nsd?, "BIND and NSD differ");
        ensure!(bind == knot?, "BIND and Knot differ");
        until("three signed answers to NOTIFY", SOON, || {
            let log = chain.daemon.log();
            for name in ["bind", "nsd", "knot"] {
                let told = |line: &&str| {
                    line.contains("NOTIFY acknowledged")
                        && line.contains("serial=2")
                        && line.contains(&format!("peer={name}"))
                };
                ensure!(log.lines().find(told).is_some(), "none from {name}");
            }
            Ok(())
        })?;
        meddled_with(&chain, &primary, &meddler)?;
        for key in &keys {
            ensure!(!chain.daemon.log().contains(&key.secret), "a secret is in the log");
        }
        Ok(())
    });
}

fn everyone_serves(ports: &[u16], serial: u32) -> Result<()> {
    for port in ports {
        until(&format!("serial {serial} at port {port}"), SOON, || {
            let found = query::serial(*port, ZONE)?;
            ensure!(found == serial, "it serves {found}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Between the primary and us: whatever is done to one message of the many, no zone comes of it.
fn meddled_with(chain: &Chain<'_>, primary: &Server, meddler: &Meddler) -> Result<()> {
    let mut good = chain.daemon.serial()?;
    for (meddling, expect) in [
        (Meddling::Alter(3), "answer 4 has a wrong MAC"),
        (Meddling::Alter(0), "answer 1 has a wrong MAC"),
        (Meddling::Drop(3), "answer 4 has a wrong MAC"),
        (Meddling::Swap(3), "answer 4 has a wrong MAC"),
        (Meddling::Repeat(3), "answer 5 has a wrong MAC"),
        (Meddling::Unsign(3), "answer 5 has a wrong MAC"),
        (Meddling::Unsign(0), "answer 1 (NOERROR) is not signed"),
        (Meddling::CutBefore(3), "stream ended after"),
    ] {
        meddler.set(meddling);
        primary.replace_zone(&zones::hosts(good + 1, HOSTS))?;
        let reason = until(&format!("an alarm on {meddling:?}"), SOON, || {
            ensure!(meddler.meddled() > 0, "not asked yet");
            chain.daemon.alarm(&["primary-unreachable"])
        })?;
        ensure!(reason.contains(expect), "{meddling:?}: {reason}");
        ensure!(chain.daemon.serial()? == good, "{meddling:?}: {reason}");
        meddler.set(Meddling::None);
        good += 1;
        ensure!(chain.daemon.cli(&["zone", "refresh", ZONE])?.status.code() != Some(1));
        until(&format!("serial {good} after {meddling:?}"), SOON, || {
            ensure!(chain.daemon.serial()? == good);
            chain.daemon.no_alarm()
        })?;
    }
    Ok(())
}

/// Asks as `softhsm-tests/tsig_peer.py` does, which shares no code with us.
fn by_hand(port: u16, key: &Key, algorithm: &str, more: &[&str]) -> Result<String> {
    let mut python = Command::new(tool("python3")?);
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tsig_peer.py"));
    python.args(["ask", &port.to_string(), &key.name, algorithm, &key.secret, ZONE]);
    let output = run(python.args(more))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn without_the_key_and_the_time_there_is_no_zone() {
    story(|scratch| {
        let (primary_key, key) = (Key::new("primary.key.")?, Key::new("secondary.key.")?);
        let tls_key = Key::new("tls.key.")?;
        let mut more = peer(scratch, "tcp", &key, "transport = \"tcp\"")?;
        more.push_str(&peer(scratch, "tls", &tls_key, "")?);
        let mut chain = prepared(scratch, &["primary"], &["tcp", "tls"], &more)?;
        let zone = zones::hosts(1, HOSTS);
        let primary =
            bind_primary(scratch, &primary_spec(&primary_key, &zone, chain.daemon.dns_port), None)?;
        let rest = format!("transport = \"tcp\"\ntransfer_from = \"127.0.0.1:{}\"", primary.port);
        let more = peer(scratch, "primary", &primary_key, &rest)?;
        start(&mut chain, &more)?;
        let port = chain.daemon.dns_port;

        // Three clients of others, each of which checks the whole chain.
        for client in [dig(port, &key)?, kdig(port, &key)?, drill(port, &key)?] {
            ensure!(client.matches("RRSIG").count() > HOSTS as usize, "{client}");
        }
        let other = Key::new(&key.name)?;
        ensure!(!dig(port, &other)?.contains("RRSIG"), "another secret");
        ensure!(query::axfr(port, ZONE).is_err(), "unsigned, from a listed address");

        let stranger = Key::new("stranger.key.")?;
        let ask = |key: &Key, algorithm: &str, more: &[&str]| by_hand(port, key, algorithm, more);
        for (key, algorithm, more, expect) in [
            (&key, ALGORITHM, &["SOA"][..], "rcode=0 error=0 mac=good records=1"),
            (&key, ALGORITHM, &["SOA", "--udp"], "rcode=0 error=0 mac=good records=1"),
            (&key, ALGORITHM, &["A"], "rcode=5 error=0 mac=good records=0"),
            (&key, ALGORITHM, &["AXFR", "--mac", "16"], "rcode=0 error=0 mac=good"),
            (&key, ALGORITHM, &["AXFR", "--mac", "15"], "rcode=1 error=0 mac=none records=0"),
            (&key, ALGORITHM, &["AXFR", "--mac", "9"], "rcode=1 error=0 mac=none records=0"),
            (&key, ALGORITHM, &["AXFR", "--flip"], "rcode=9 error=16 mac=none records=0"),
            (&key, ALGORITHM, &["AXFR", "--offset", "-400"], "rcode=9 error=18 mac=good records=0"),
            (&key, ALGORITHM, &["AXFR", "--offset", "400"], "rcode=9 error=18 mac=good records=0"),
            (&key, ALGORITHM, &["AXFR", "--offset", "250"], "rcode=0 error=0 mac=good"),
            (&other, ALGORITHM, &["AXFR"], "rcode=9 error=16 mac=none records=0"),
            (&key, "hmac-sha512", &["AXFR"], "rcode=9 error=17 mac=none records=0"),
            (&key, "hmac-md5", &["AXFR"], "rcode=9 error=17 mac=none records=0"),
            (&stranger, ALGORITHM, &["AXFR"], "rcode=9 error=17 mac=none records=0"),
            (&stranger, ALGORITHM, &["SOA", "--udp"], "rcode=9 error=17 mac=none records=0"),
            // A peer for TLS is not served in clear, and a primary is no secondary.
            (&tls_key, ALGORITHM, &["AXFR"], "rcode=5 error=0 mac=good records=0"),
            (&tls_key, ALGORITHM, &["SOA"], "rcode=0 error=0 mac=good records=1"),
            (&primary_key, ALGORITHM, &["AXFR"], "rcode=5 error=0 mac=good records=0"),
        ] {
            let found = ask(key, algorithm, more)?;
            ensure!(found.starts_with(expect), "{} {more:?}: {found}", key.name);
        }

        // A reload takes up another secret, and only that.
        let file = key.secret_file(scratch, User::Daemon)?;
        write(&file, &format!("{}\n", other.secret), User::Daemon, 0o600)?;
        chain.daemon.running()?.signal(Signal::SIGHUP)?;
        until("the new secret", SOON, || {
            let found = ask(&other, ALGORITHM, &["AXFR"])?;
            ensure!(found.starts_with("rcode=0 error=0 mac=good"), "{found}");
            Ok(())
        })?;
        let found = ask(&key, ALGORITHM, &["AXFR"])?;
        ensure!(found.starts_with("rcode=9 error=16"), "the old secret: {found}");
        for key in [&key, &other, &tls_key, &primary_key] {
            ensure!(!chain.daemon.log().contains(&key.secret), "a secret is in the log");
        }
        refused_at_start(&mut chain, scratch, &file, &other.secret)
    });
}

/// A secret that others can read, that is too short, or that is no Base64: refused, and said why.
fn refused_at_start(
    chain: &mut Chain<'_>,
    scratch: &Scratch,
    file: &std::path::Path,
    secret: &str,
) -> Result<()> {
    chain.daemon.stop()?;
    for (content, mode, expect) in [
        (secret, 0o644, "lets others read or change the secret. hint: chmod 0600"),
        (
            "c2hvcnQ=",
            0o600,
            "5 octets, at least 16 expected (and 32 are best). hint: make one with",
        ),
        ("not base64", 0o600, "expected the secret in Base64"),
    ] {
        write(file, &format!("{content}\n"), User::Daemon, mode)?;
        let mut daemon = command(User::Daemon, &binaries()?.daemon)?;
        daemon.arg("--config").arg(scratch.path().join("daemon/countersignd.toml"));
        let mut daemon = Process::spawn("countersignd", daemon, &scratch.path().join("bad.log"))?;
        let ended = daemon.wait(SOON)?;
        let log = daemon.log();
        ensure!(!ended.success() && log.contains(expect), "{ended}: {log}");
        ensure!(log.contains("[tsig.\"secondary.key.\"]"), "which key: {log}");
        ensure!(!log.contains(content), "the secret is in the log: {log}");
    }
    Ok(())
}

fn dig(port: u16, key: &Key) -> Result<String> {
    let mut dig = Command::new(tool("dig")?);
    dig.args(["@127.0.0.1", "-p", &port.to_string(), "-y"]);
    dig.arg(format!("{ALGORITHM}:{}:{}", key.name, key.secret));
    let output = run(dig.args([ZONE, "AXFR"]))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = text + &String::from_utf8_lossy(&output.stderr);
    ensure!(!text.contains("verify") || !text.contains("RRSIG"), "{text}");
    Ok(text)
}

fn kdig(port: u16, key: &Key) -> Result<String> {
    let mut kdig = Command::new(tool("kdig")?);
    kdig.args(["@127.0.0.1", "-p", &port.to_string(), "-y"]);
    kdig.arg(format!("{ALGORITHM}:{}:{}", key.name, key.secret));
    let output = run(kdig.args([ZONE, "AXFR"]))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn drill(port: u16, key: &Key) -> Result<String> {
    let mut drill = Command::new(tool("drill")?);
    drill.args(["-p", &port.to_string(), "-y"]);
    drill.arg(format!("{}:{}:{ALGORITHM}", key.name, key.secret));
    run_ok(drill.args(["@127.0.0.1", ZONE, "AXFR"]))
}

/// Both ways over TLS without a client certificate: the server's is proven, the client's key is.
#[test]
fn over_tls_a_key_stands_in_for_the_clients_certificate() {
    story(|scratch| {
        let (primary_key, key) = (Key::new("primary.key.")?, Key::new("secondary.key.")?);
        let listen = ports::free()?;
        let rest = format!("notify = \"127.0.0.1:{listen}\"");
        let more = peer(scratch, "secondary", &key, &rest)?;
        let mut chain = prepared(scratch, &["primary"], &["secondary"], &more)?;
        let (zone, xot) = (zones::hosts(1, HOSTS), ports::free()?);
        let identity = chain.identities["primary"].clone();
        let primary = bind_primary(
            scratch,
            &primary_spec(&primary_key, &zone, chain.daemon.dns_port),
            Some((&identity, xot)),
        )?;
        let mut rest = format!("transfer_from = \"127.0.0.1:{xot}\"\n");
        write!(rest, "server_name = \"primary.test\"")?;
        let more = peer(scratch, "primary", &primary_key, &rest)?;
        start(&mut chain, &more)?;

        let spec = SecondarySpec {
            name: "bind",
            zone: ZONE,
            key: &key,
            server_port: chain.daemon.xot_port,
            port: listen,
        };
        let ca = chain.authority.ca.clone();
        let _bind = bind_secondary(scratch, &spec, Some((&ca, "signer.test")))?;
        chain.secondary_port = listen;
        everyone_serves(&[listen], 1)?;
        primary.replace_zone(&zones::hosts(2, HOSTS))?;
        everyone_serves(&[listen], 2)?;
        chain.verify_served()?;

        // Neither certificate nor key: nothing. One of the two, where the entry has it: everything.
        let xot = chain.daemon.xot_port;
        let bare = query::over_tls(xot, None, &ca, "signer.test", [ZONE, "AXFR"])?;
        ensure!(!bare.contains("RRSIG"), "{bare}");
        let bare = query::over_tls(xot, None, &ca, "signer.test", [ZONE, "SOA"])?;
        ensure!(!bare.contains("RRSIG"), "{bare}");
        let listed = &chain.identities["secondary"];
        let whole = query::over_tls(xot, Some(listed), &ca, "signer.test", [ZONE, "AXFR"])?;
        ensure!(whole.contains("RRSIG"), "{whole}");
        // In clear the key opens no zone: this peer's zones travel over TLS.
        let found = by_hand(chain.daemon.dns_port, &key, ALGORITHM, &["AXFR"])?;
        ensure!(found == "rcode=5 error=0 mac=good records=0", "{found}");
        Ok(())
    });
}

/// Older primaries sign some messages of a stream; RFC 8945 §5.3.1 says which of them must be.
#[test]
fn messages_without_a_signature_between_signed_ones() {
    story(|scratch| {
        let (key, port) = (Key::new("primary.key.")?, ports::free()?);
        let rest = format!("transport = \"tcp\"\ntransfer_from = \"127.0.0.1:{port}\"");
        let more = peer(scratch, "primary", &key, &rest)?;
        let mut chain = prepared(scratch, &["primary"], &[], &more)?;
        chain.daemon.configure(&chain.daemon_spec)?;
        let mut started = false;
        for (mode, expect) in [
            ("none", Err("answer 1 (NOERROR) is not signed")),
            ("gap", Err("99 answers in a row were not signed")),
            ("open", Err("the last 1 messages of the answer are not signed")),
            ("sparse", Ok(7)),
        ] {
            let mut python = command(User::Harness, &tool("python3")?)?;
            python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tsig_peer.py"));
            python.args([
                "serve",
                &port.to_string(),
                &key.name,
                ALGORITHM,
                &key.secret,
                ZONE,
                mode,
            ]);
            let log = scratch.path().join(format!("{mode}.log"));
            let primary = Process::spawn(mode, python, &log)?;
            until("the primary", SOON, || {
                ensure!(primary.log().contains("listening"), "{}", primary.log());
                Ok(())
            })?;
            if started {
                ensure!(chain.daemon.cli(&["zone", "refresh", ZONE])?.status.code() != Some(1));
            } else {
                chain.daemon.start()?;
                started = true;
            }
            match expect {
                Ok(serial) => until("a version", SOON, || {
                    ensure!(chain.daemon.serial()? == serial);
                    Ok(())
                })?,
                Err(text) => {
                    let reason = until(&format!("an alarm on {mode}"), SOON, || {
                        let reason = chain.daemon.alarm(&["primary-unreachable"])?;
                        ensure!(reason.contains(text), "{mode}: {reason}");
                        Ok(reason)
                    })?;
                    ensure!(chain.daemon.serial().is_err(), "{mode}: {reason}");
                }
            }
            ensure!(!primary.log().contains("without a good TSIG"), "{}", primary.log());
        }
        Ok(())
    });
}
