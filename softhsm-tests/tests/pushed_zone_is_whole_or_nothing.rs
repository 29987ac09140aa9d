//! A zone file is pushed, by `countersign push` and by curl, with certificates of all sorts: it comes in
//! whole or not at all. Whatever is wrong is said with its place, and what is up stays up. A good push is
//! signed and goes out, and `--out` has what the secondary has.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use softhsm_tests::binaries::binaries;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::daemon::CliOutput;
use softhsm_tests::pki::{Authority, Identity};
use softhsm_tests::process::Process;
use softhsm_tests::scratch::Scratch;
use softhsm_tests::tools::{run, run_ok, tool};
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{oracle, story};

/// Who else has a certificate: a pusher of this zone, one of none, and an operator who is not named.
const CLIENTS: &str = "[api_client.maker]\nidentity = { san = \"maker.test\" }\nrole = \"pusher\"\n\
    [api_client.other]\nidentity = { san = \"other.test\" }\nrole = \"pusher\"\n\
    [api_client.watch]\nidentity = { san = \"watch.test\" }\nrole = \"monitor\"\n\
    [limits]\nidle_ms = 2000\n";
const NAMED: &str = "push_from = [\"maker\", \"local\"]";

struct Bed<'s> {
    chain: Chain<'s>,
    maker: Identity,
    other: Identity,
    watch: Identity,
}

impl<'s> Bed<'s> {
    /// A chain without a primary, with a first version pushed on the box itself.
    fn start(scratch: &'s Scratch, records_max: u32) -> Result<Self> {
        let daemon_more = format!("{CLIENTS}records_max = {records_max}\n");
        let plan = Plan { serial: "increment", daemon_more, ..Plan::default() };
        let authority = Authority::new(scratch, "ca")?;
        let mut chain = Chain::prepare(scratch, plan, authority)?;
        let issue = |san| chain.authority.issue(scratch, san, User::Harness);
        let (maker, other, watch) =
            (issue("maker.test")?, issue("other.test")?, issue("watch.test")?);
        NAMED.clone_into(&mut chain.daemon_spec.zone_keys);
        chain.found()?;
        chain.daemon.configure(&chain.daemon_spec)?;
        chain.daemon.start()?;
        let file = scratch.file("first.zone", &zones::example(1), User::Daemon, 0o644)?;
        let pushed = chain.daemon.cli(&["push", ZONE, &file.display().to_string()])?;
        // The ZSK is made once the KSK is there: until then it waits, and goes out by itself.
        let verdict = ["published with serial", "goes out later by itself"];
        ensure!(verdict.iter().any(|verdict| pushed.stdout.contains(verdict)), "{pushed:?}");
        chain.start_secondary()?;
        chain.wait_for_secondary("a first version", |_| true)?;
        Ok(Self { chain, maker, other, watch })
    }

    fn scratch(&self) -> &'s Scratch {
        self.chain.scratch
    }

    /// `countersign push` over HTTPS, not yet run.
    fn cli(&self, who: &Identity, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(&binaries()?.cli);
        command
            .arg("--url")
            .arg(format!("https://127.0.0.1:{}", self.chain.daemon.api_port))
            .args(["--server-name", "signer.test", "--cert"])
            .arg(&who.cert)
            .arg("--cert-key")
            .arg(&who.key)
            .arg("--ca")
            .arg(&self.chain.authority.ca)
            .args(["push", ZONE])
            .args(arguments);
        Ok(command)
    }

    fn push(&self, who: &Identity, content: &str, more: &[&str]) -> Result<CliOutput> {
        let file = self.file(content)?.display().to_string();
        let arguments = [&[file.as_str()], more].concat();
        Ok(CliOutput::of(&run(&mut self.cli(who, &arguments)?)?))
    }

    fn file(&self, content: &str) -> Result<PathBuf> {
        self.scratch().file("pushed.zone", content, User::Harness, 0o644)
    }

    /// curl with the pusher's certificate, not yet run: it prints the body, then the status.
    fn curl(&self, arguments: &[&str]) -> Result<Command> {
        let port = self.chain.daemon.api_port;
        let mut command = Command::new(tool("curl")?);
        command
            .args(["--silent", "--show-error", "--http1.1", "--max-time", "60", "--cacert"])
            .arg(&self.chain.authority.ca)
            .arg("--cert")
            .arg(&self.maker.cert)
            .arg("--key")
            .arg(&self.maker.key)
            .args(["--resolve", &format!("signer.test:{port}:127.0.0.1")])
            .args(["--request", "POST", "--header", "Content-Type: text/dns"])
            .args(["--write-out", "\n%{http_code}"])
            .args(arguments)
            .arg(format!("https://signer.test:{port}/v1/zones/example./push"));
        Ok(command)
    }

    fn curl_file(&self, content: &str, arguments: &[&str]) -> Result<String> {
        let data = format!("@{}", self.file(content)?.display());
        let arguments = [arguments, &["--data-binary", &data]].concat();
        Ok(CliOutput::of(&run(&mut self.curl(&arguments)?)?).stdout)
    }

    /// A push over TLS whose octets the story writes itself: `length` are promised, `content` comes.
    fn by_hand(&self, length: usize, content: &str) -> Result<(Child, ChildStdin)> {
        let mut client = Command::new(tool("openssl")?)
            .args(["s_client", "-quiet", "-no_ign_eof", "-servername", "signer.test", "-connect"])
            .arg(format!("127.0.0.1:{}", self.chain.daemon.api_port))
            .arg("-CAfile")
            .arg(&self.chain.authority.ca)
            .arg("-cert")
            .arg(&self.maker.cert)
            .arg("-key")
            .arg(&self.maker.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut octets = client.stdin.take().context("its standard input")?;
        write!(
            octets,
            "POST /v1/zones/example./push HTTP/1.1\r\nHost: signer.test\r\n\
             Content-Type: text/dns\r\nContent-Length: {length}\r\n\r\n{content}"
        )?;
        octets.flush()?;
        Ok((client, octets))
    }

    /// Whether what is up is what was, and nothing waits or is held.
    fn unchanged(&self, serial: u32, zone: &str, after: &str) -> Result<()> {
        let shown = self.chain.daemon.zone_show()?;
        ensure!(shown["serial"] == serial, "after {after}: {shown:#}");
        ensure!(shown["held"].is_null() && shown["waiting"].is_null(), "after {after}: {shown:#}");
        let served = self.chain.served_zone()?;
        ensure!(zones::whole(&served) == zones::whole(zone), "after {after}:\n{served}");
        Ok(())
    }
}

/// `content` without its last `octets`.
fn cut(content: &str, octets: usize) -> &str {
    &content[..content.len() - octets]
}

#[test]
fn pushed_zone_is_whole_or_nothing() {
    story(|scratch| {
        let bed = Bed::start(scratch, 1_000)?;
        let (serial, zone) = (bed.chain.served_serial()?, bed.chain.served_zone()?);
        wrong_files(&bed, serial, &zone)?;
        wrong_callers(&bed, serial, &zone)?;
        cut_short(&bed, serial, &zone)?;
        good_pushes(bed, serial)
    });
}

fn wrong_files(bed: &Bed<'_>, serial: u32, zone: &str) -> Result<()> {
    let good = zones::example_with(2, "added");
    let lines = good.lines().count();
    let line = |column: u32| format!("line {}, column {column}: ", lines + 1);
    for (more, place, reason) in [
        ("bad IN A 192.0.2\n".to_owned(), line(10), "an IPv4 address"),
        ("bad IN TXT \"open".to_owned(), line(12), "a quote is opened here"),
        ("bad IN TXT ( open\n".to_owned(), line(12), "not closed before the file ends"),
        ("www.test. IN A 192.0.2.1\n".to_owned(), line(14), "lies outside the zone example."),
        ("$INCLUDE /etc/passwd\n".to_owned(), line(1), "names a file of this box"),
        ("$GENERATE 0-65535 h$ A 192.0.2.1\n".to_owned(), line(22), "more than 1000 records"),
        ("$GENERATE 0-9999999 h$ A 192.0.2.1\n".to_owned(), line(11), "at most 65536"),
        (zones::hosts(2, 1_000).replace("$ORIGIN", ";"), String::new(), "more than 1000 records"),
        ("other IN SOA . . 1 2 3 4 5\n".to_owned(), String::new(), "SOA"),
        ("ns1 IN CNAME ns2\n".to_owned(), String::new(), "CNAME"),
    ] {
        let content = format!("{good}{more}");
        let out = scratch_out(bed);
        let told = bed.push(&bed.maker, &content, &["--out", &out])?;
        let text = format!("{}{}", told.stdout, told.stderr);
        ensure!(told.status.code() == Some(1), "{more}: {told:?}");
        ensure!(text.contains(&place) && text.contains(reason), "{more}: {told:?}");
        ensure!(!Path::new(&out).exists(), "{more}: --out was written");
        bed.unchanged(serial, zone, &more)?;
    }
    // The same by curl, as a problem document.
    let told = bed.curl_file(&format!("{good}bad IN A 192.0.2\n"), &[])?;
    ensure!(told.ends_with("\n422") && told.contains(&line(10)), "{told}");
    bed.unchanged(serial, zone, "curl's bad address")
}

fn scratch_out(bed: &Bed<'_>) -> String {
    bed.scratch().path().join("signed.zone").display().to_string()
}

fn wrong_callers(bed: &Bed<'_>, serial: u32, zone: &str) -> Result<()> {
    let good = zones::example_with(2, "added");
    let ops = &bed.chain.identities["ops"];
    for (who, reason) in [
        (&bed.other, "does not name other"),
        (ops, "does not name ops"),
        (&bed.watch, "does not name watch"),
    ] {
        let told = bed.push(who, &good, &[])?;
        ensure!(told.status.code() == Some(1) && told.stderr.contains(reason), "{told:?}");
        bed.unchanged(serial, zone, reason)?;
    }
    let secondary = &bed.chain.identities["secondary"];
    let told = bed.push(secondary, &good, &[])?;
    ensure!(told.status.code() == Some(3), "a certificate that is not listed: {told:?}");
    bed.unchanged(serial, zone, "a stranger")
}

/// The body's end is missing, or is not the end that was stated.
fn cut_short(bed: &Bed<'_>, serial: u32, zone: &str) -> Result<()> {
    let good = zones::example_with(2, "added");
    let last = good.lines().last().map_or(0, |line| line.len() + 1);
    let digest = digest(bed.file(&good)?)?;
    let digest = format!("Content-Digest: sha-256=:{digest}:");
    // In the middle of a line and at its end; and one octet too many.
    for (content, what) in [(cut(&good, 5), "inside a line"), (cut(&good, last), "at a line's end")]
    {
        let told = bed.curl_file(content, &["--header", &digest])?;
        ensure!(told.contains("another was stated") || told.ends_with("\n422"), "{what}: {told}");
        bed.unchanged(serial, zone, what)?;
    }
    let told = bed.curl_file(cut(&good, last), &["--header", &digest])?;
    ensure!(told.ends_with("\n400"), "a whole file that is not the one that was stated: {told}");
    let told = bed.push(&bed.maker, cut(&good, last), &["--records", "23"])?;
    ensure!(told.status.code() == Some(1) && told.stderr.contains("were stated"), "{told:?}");
    bed.unchanged(serial, zone, "--records")?;
    // More is promised than comes.
    let longer = format!("Content-Length: {}", good.len() + 7);
    let told = bed.curl_file(&good, &["--header", &longer])?;
    ensure!(told.ends_with("\n408") && told.contains("silent for 2s"), "{told}");
    bed.unchanged(serial, zone, "Content-Length")?;
    // A body that stops.
    let (client, open) = bed.by_hand(good.len(), cut(&good, last))?;
    let told = CliOutput::of(&client.wait_with_output()?).stdout;
    ensure!(told.starts_with("HTTP/1.1 408 ") && told.contains("silent for 2s"), "{told}");
    drop(open);
    bed.unchanged(serial, zone, "silence")?;
    // A connection that is gone: who is killed says goodbye to nobody.
    for octets in [5, last] {
        let (mut client, _open) = bed.by_hand(good.len(), cut(&good, octets))?;
        until("the push under way", SOON, || under_way(bed))?;
        client.kill()?;
        client.wait()?;
        until("the end of the push", SOON, || {
            let log = bed.chain.daemon.log();
            let broken = log.matches("the body broke off").count();
            ensure!(broken > usize::from(octets == last), "{log}");
            Ok(())
        })?;
        bed.unchanged(serial, zone, "a connection that is gone")?;
    }
    Ok(())
}

/// A second push of a zone is refused while one is under way.
fn under_way(bed: &Bed<'_>) -> Result<()> {
    let told = bed.curl_file("x", &[])?;
    ensure!(told.contains("is pushing zone example. already"), "{told}");
    Ok(())
}

fn digest(file: PathBuf) -> Result<String> {
    let shell = "openssl dgst -sha256 -binary \"$1\" | base64";
    let text = run_ok(Command::new("sh").args(["-c", shell, "sh"]).arg(file))?;
    Ok(text.trim().to_owned())
}

fn good_pushes(mut bed: Bed<'_>, first: u32) -> Result<()> {
    // By the command line, with the signed zone as a file.
    let out = scratch_out(&bed);
    let told = bed.push(&bed.maker, &zones::example_with(2, "added"), &["--out", &out])?;
    ensure!(told.status.success(), "{told:?}");
    let second = bed.chain.wait_for_secondary("the pushed zone", |serial| serial > first)?;
    ensure!(told.stdout.contains(&format!("published with serial {second}")), "{told:?}");
    same_as_served(&bed, &fs::read_to_string(&out)?)?;
    bed.chain.verify_served()?;

    // The same again.
    let told = bed.push(&bed.maker, &zones::example_with(2, "added"), &[])?;
    ensure!(told.status.success(), "{told:?}");

    // By curl, step by step.
    let told = bed.curl_file(&zones::example_with(3, "curled"), &[])?;
    let steps: Vec<Value> = told
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(Value::is_object)
        .collect();
    let names: Vec<&str> = steps.iter().filter_map(|step| step["step"].as_str()).collect();
    ensure!(
        names == ["received", "admitted", "planned", "signed", "verified", "published"],
        "{told}"
    );
    let third = steps.last().and_then(|step| step["serial"].as_u64()).context("a serial")?;
    bed.chain.wait_for_secondary("curl's zone", |serial| u64::from(serial) == third)?;

    // As a filter: zone in, signed zone out, and what is said goes elsewhere.
    let mut command = bed.cli(&bed.maker, &["-", "--out", "-", "--records", "23"])?;
    command.stdin(fs::File::open(bed.file(&zones::example_with(4, "filtered"))?)?);
    let told = CliOutput::of(&run(&mut command)?);
    ensure!(told.status.success() && told.stderr.contains("published with serial"), "{told:?}");
    let fourth = bed.chain.wait_for_secondary("the filtered zone", |s| u64::from(s) > third)?;
    same_as_served(&bed, &told.stdout)?;
    let anchor = oracle::anchor(bed.scratch(), ZONE, &told.stdout)?;
    oracle::verify(bed.scratch(), ZONE, &told.stdout, &anchor)?;

    held_is_said(&bed, fourth)?;
    killed(&mut bed, fourth)
}

/// `text` is the zone that the secondary serves; BIND writes both in one form. What a transfer does to
/// the case of names that it compresses is no difference.
fn same_as_served(bed: &Bed<'_>, text: &str) -> Result<()> {
    let canonical = |text: &str| -> Result<BTreeSet<String>> {
        let file = bed.scratch().file("compared.zone", text, User::Harness, 0o644)?;
        let out = bed.scratch().path().join("compared.out");
        run_ok(
            Command::new(tool("named-compilezone")?)
                .args(["-i", "none", "-k", "ignore", "-s", "full", "-o"])
                .args([&out, Path::new(ZONE), &file]),
        )?;
        Ok(zones::whole(&fs::read_to_string(&out)?))
    };
    let (ours, served) = (canonical(text)?, canonical(&bed.chain.served_zone()?)?);
    let (more, less) = (ours.difference(&served), served.difference(&ours));
    ensure!(
        ours == served,
        "in --out alone: {:#?}\nserved alone: {:#?}",
        more.collect::<Vec<_>>(),
        less.collect::<Vec<_>>()
    );
    Ok(())
}

/// A zone that shrinks waits for a person, and the exit code says so.
fn held_is_said(bed: &Bed<'_>, serial: u32) -> Result<()> {
    let few = "$TTL 300\n@ SOA ns1 host 5 3600 600 604800 120\n@ NS ns1\n@ NS ns2\n\
               ns1 A 192.0.2.1\nns2 A 192.0.2.2\n";
    let out = scratch_out(bed);
    fs::remove_file(&out)?;
    let told = bed.push(&bed.maker, few, &["--out", &out])?;
    ensure!(told.status.code() == Some(4) && told.stdout.contains("held"), "{told:?}");
    ensure!(!Path::new(&out).exists(), "--out was written for a version that is held");
    let shown = bed.chain.daemon.zone_show()?;
    ensure!(shown["serial"] == serial, "{shown:#}");
    Ok(())
}

/// `kill -9` in the middle of a body, and in the middle of signing.
fn killed(bed: &mut Bed<'_>, serial: u32) -> Result<()> {
    let zone = bed.chain.served_zone()?;
    let content = zones::hosts(6, 400);
    let (mut client, open) = bed.by_hand(content.len(), cut(&content, 1_000))?;
    until("the push under way", SOON, || under_way(bed))?;
    bed.chain.daemon.kill_nine()?;
    drop(open);
    client.wait()?;
    bed.chain.daemon.start()?;
    let shown = bed.chain.daemon.zone_show()?;
    ensure!(shown["serial"] == serial, "after kill -9 in mid-push: {shown:#}");
    ensure!(zones::whole(&bed.chain.served_zone()?) == zones::whole(&zone));

    let file = bed.file(&content)?.display().to_string();
    let mut command = bed.cli(&bed.maker, &[&file, "--json"])?;
    let mut cli = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let steps = BufReader::new(cli.stdout.take().context("its standard output")?);
    let planned = steps.lines().map_while(Result::ok).find(|line| line.contains("planned"));
    let planned = planned.ok_or_else(|| anyhow!("it was never planned"))?;
    bed.chain.daemon.kill_nine()?;
    let told = CliOutput::of(&cli.wait_with_output()?);
    ensure!(!told.status.success(), "{planned}, then kill -9: {told:?}");
    bed.chain.daemon.start()?;
    let own = bed.chain.daemon.serial()?;
    ensure!(own >= serial, "the daemon came back with {own}, {serial} was out");

    // Whatever became of it, the same push again ends well.
    let told = bed.push(&bed.maker, &content, &[])?;
    ensure!(told.status.success(), "{told:?}");
    bed.chain.wait_for_secondary("the hosts", |now| now > serial)?;
    let served = bed.chain.served_zone()?;
    ensure!(served.contains("host-399.example."), "{served}");
    bed.chain.verify_served()
}

/// Not a test: prints how long each step of a push of 200,000 records takes, and what memory the daemon
/// has used. `cargo test -p softhsm-tests --test pushed_zone_is_whole_or_nothing -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes; it measures, and asserts only that the zone goes out"]
fn how_long_a_large_push_takes() {
    story(|scratch| {
        let bed = Bed::start(scratch, 1_000_000)?;
        let mut content = zones::example(2);
        for host in 0..100_000_u32 {
            let (high, low) = (host >> 8, host & 255);
            writeln!(content, "host-{host} A 198.18.{}.{low}", high % 256)?;
            writeln!(content, " A 198.19.{}.{low}", high % 256)?;
        }
        let file = bed.file(&content)?.display().to_string();
        let begun = Instant::now();
        let mut command = bed.cli(&bed.maker, &[&file, "--json"])?;
        let mut cli = command.stdout(Stdio::piped()).spawn()?;
        let steps = BufReader::new(cli.stdout.take().context("its standard output")?);
        for step in steps.lines() {
            eprintln!("{:8.1} s  {}", begun.elapsed().as_secs_f64(), step?);
        }
        ensure!(cli.wait()?.success());
        let pid = bed.chain.daemon.process.as_ref().map(Process::pid).context("a daemon")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
        eprintln!("{} octets of zone file; the daemon: {peak}", content.len());
        Ok(())
    });
}
