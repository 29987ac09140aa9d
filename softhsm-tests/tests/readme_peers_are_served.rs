//! What the README has peers configured with is taken by each make as it stands, but for where
//! things are, and each gets the zone, and its next version when it is told of it.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::pdns::{self, Pdns};
use softhsm_tests::pki::{Authority, Identity};
use softhsm_tests::process::Process;
use softhsm_tests::scratch::write;
use softhsm_tests::tsig::Key;
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{Scratch, bind, knot, nsd, ports, query, story};

fn readme() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// What stands between the first `from` and the next `to` behind it.
fn between<'a>(text: &'a str, from: &str, to: &str) -> Result<&'a str> {
    let rest = text.split_once(from).with_context(|| format!("{from:?} is not there"))?.1;
    Ok(rest.split_once(to).with_context(|| format!("no {to:?} behind {from:?}"))?.0)
}

/// The README's block under this heading.
fn block(heading: &str) -> Result<String> {
    let text = readme()?;
    let rest = text.split_once(heading).with_context(|| format!("{heading:?} is not there"))?.1;
    Ok(between(rest, "\n```\n", "```")?.replace("example.com", "example"))
}

/// The README's words for a peer with a key, of one make.
fn with_key(make: &str, key: &Key) -> Result<String> {
    let text = block("**Peers without client certificates**")?;
    let text = format!("{text}\n# ");
    let text = between(&text, &format!("# {make} as a secondary"), "\n# ")?;
    let (_, text) = text.split_once('\n').context("one line only")?;
    put(text, &[("…", &key.secret)])
}

/// Replaces each of these, which must be there.
fn put(text: &str, pairs: &[(&str, &str)]) -> Result<String> {
    let mut text = text.to_owned();
    for (from, to) in pairs {
        ensure!(text.contains(from), "{from:?} is not in\n{text}");
        text = text.replace(from, to);
    }
    Ok(text)
}

/// The words for the files of `identity`, called `name` in the README, and the authority's.
fn files(text: &str, name: &str, identity: &Identity, ca: &Path) -> Result<String> {
    put(
        text,
        &[
            (&format!("{name}.pem"), &identity.cert.display().to_string()),
            (&format!("{name}.key"), &identity.key.display().to_string()),
            ("ca.pem", &ca.display().to_string()),
        ],
    )
}

/// The README's BIND as the hidden primary.
struct Primary {
    process: Process,
    zone_file: std::path::PathBuf,
    xot_port: u16,
    serial: u32,
}

impl Primary {
    fn start(chain: &Chain<'_>) -> Result<Self> {
        let dir = chain.scratch.dir("primary", User::Harness, 0o755)?;
        let (xot_port, dns_port) = (ports::free()?, ports::free()?);
        let conf = files(
            &block("**BIND as the hidden primary**")?,
            "primary",
            &chain.identities["primary"],
            &chain.authority.ca,
        )?;
        let options = format!(
            "options {{ {} directory \"{}\"; listen-on port {dns_port} {{ 127.0.0.1; }};",
            bind::OPTIONS,
            dir.display()
        );
        let conf = put(
            &conf,
            &[
                ("options {", &options),
                ("port 853", &format!("port {xot_port}")),
                ("192.0.2.20", "127.0.0.1"),
                ("192.0.2.10 port 53", &format!("127.0.0.1 port {}", chain.daemon.dns_port)),
                ("192.0.2.10", "127.0.0.1"),
            ],
        )?;
        let zone_file = dir.join("example.zone");
        write(&zone_file, &zones::example(1), User::Harness, 0o644)?;
        let process = bind::named(&dir, "primary", &format!("{conf}controls {{ }};\n"))?;
        until("the primary's answer", SOON, || query::serial(dns_port, ZONE))?;
        Ok(Self { process, zone_file, xot_port, serial: 1 })
    }

    /// The server on `port` has what there is, and what comes next too.
    fn reaches(&mut self, make: &str, port: u16) -> Result<()> {
        for step in [0, 1] {
            self.serial += step;
            let content = zones::example_with(self.serial, "readme");
            write(&self.zone_file, &content, User::Harness, 0o644)?;
            self.process.signal(Signal::SIGHUP)?;
            until(&format!("serial {} on {make}", self.serial), SOON, || {
                let served = query::serial(port, ZONE)?;
                ensure!(served == self.serial, "it serves {served}");
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// A daemon with the README's peer that has a key, which listens on `port`.
fn prepare<'s>(scratch: &'s Scratch, key: &Key, port: u16) -> Result<Chain<'s>> {
    let authority = Authority::new(scratch, "ca")?;
    let mut chain = Chain::prepare(scratch, Plan::default(), authority)?;
    let text = readme()?;
    let toml = format!("[tsig.{}", between(&text, "\n[tsig.", "\n[zone.")?);
    let secret = key.secret_file(scratch, User::Daemon)?.display().to_string();
    chain.daemon_spec.more = put(
        &toml,
        &[
            ("/etc/countersign/tsig/ns2.secret", &secret),
            ("192.0.2.31:53", &format!("127.0.0.1:{port}")),
        ],
    )?;
    chain.daemon_spec.more_secondaries = vec!["secondary-2".to_owned()];
    chain.found()?;
    Ok(chain)
}

#[test]
fn the_readmes_peers_get_the_zone() {
    story(|scratch| {
        let key = Key::new("ns2.signer.example.net.")?;
        let port = ports::free()?;
        let mut chain = prepare(scratch, &key, port)?;
        let mut primary = Primary::start(&chain)?;
        chain.use_primary("primary-1", "primary.test", primary.xot_port)?;
        chain.daemon.start()?;
        until("a first version on the daemon", SOON, || chain.daemon.serial())?;
        over_tls(&chain, &mut primary)?;
        with_a_key(&chain, &mut primary, &key, port)
    });
}

fn over_tls(chain: &Chain<'_>, primary: &mut Primary) -> Result<()> {
    let (scratch, port) = (chain.scratch, chain.secondary_port);
    let words = |heading: &str, server: (&str, &str)| {
        let text = block(heading)?;
        let text = files(&text, "ns1", &chain.identities["secondary"], &chain.authority.ca)?;
        put(&text, &[server, ("signer.example.net", "signer.test")])
    };
    let xot = chain.daemon.xot_port;
    let at = format!("127.0.0.1 port {xot}");
    let conf = words("**BIND as a secondary**", ("192.0.2.10 port 853", &at))?;
    let process = start_bind(scratch, "bind", port, &conf)?;
    primary.reaches("BIND", port)?;
    drop(process);
    let at = format!("127.0.0.1@{xot}");
    let conf = words("**NSD as a secondary**", ("192.0.2.10@853", &at))?;
    let conf = put(&conf, &[("192.0.2.10", "127.0.0.1")])?;
    let (server, clauses) = conf.split_once('\n').context("more than a line")?;
    let server = put(server, &[("server:", " ")])?;
    let process = nsd::run(scratch, "nsd", port, &format!("{server}\n"), clauses)?;
    primary.reaches("NSD", port)?;
    drop(process);
    Ok(())
}

fn with_a_key(chain: &Chain<'_>, primary: &mut Primary, key: &Key, port: u16) -> Result<()> {
    let (scratch, dns) = (chain.scratch, chain.daemon.dns_port);
    let from = |text: &str, to: &str| put(text, &[("192.0.2.10", to)]);
    let conf = from(&with_key("BIND", key)?, &format!("127.0.0.1 port {dns}"))?;
    let process = start_bind(scratch, "bind-with-key", port, &conf)?;
    primary.reaches("BIND with a key", port)?;
    drop(process);

    let conf = put(
        &with_key("NSD", key)?,
        &[
            ("request-xfr: 192.0.2.10", &format!("request-xfr: 127.0.0.1@{dns}")),
            ("192.0.2.10", "127.0.0.1"),
        ],
    )?;
    let process = nsd::run(scratch, "nsd-with-key", port, "", &conf)?;
    primary.reaches("NSD with a key", port)?;
    drop(process);

    let conf = from(&with_key("Knot", key)?, &format!("127.0.0.1@{dns}"))?;
    // Elsewhere it would be beside the zones of the machine's own Knot.
    let file = scratch.path().join("knot-with-key/zone");
    let conf = put(&conf, &[("example.signed", &file.display().to_string())])?;
    let process = knot::run(scratch, "knot-with-key", port, &conf)?;
    primary.reaches("Knot with a key", port)?;
    drop(process);

    let text = from(&with_key("PowerDNS", key)?, &format!("127.0.0.1:{dns}"))?;
    let text = text.replace('"', "");
    let commands: Vec<Vec<&str>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pdnsutil "))
        .map(|line| line.split_whitespace().collect())
        .collect();
    ensure!(commands.len() == 3, "{text}");
    let place = ("pdns-with-key", ZONE, port);
    let _pdns = Pdns::prepared_by(scratch, place, pdns::SECONDARY, &commands)?;
    primary.reaches("PowerDNS with a key", port)
}

fn start_bind(scratch: &Scratch, name: &str, port: u16, conf: &str) -> Result<Process> {
    let dir = scratch.dir(name, User::Harness, 0o755)?;
    let options = format!(
        "options {{ {} directory \"{}\"; listen-on port {port} {{ 127.0.0.1; }}; notify no; \
         min-retry-time 1; max-retry-time 2; }};\ncontrols {{ }};\n",
        bind::OPTIONS,
        dir.display()
    );
    bind::named(&dir, name, &format!("{options}{conf}"))
}
