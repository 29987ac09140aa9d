//! OpenDNSSEC 2.1: the signer that a zone comes from, with its KSK and ZSK on two `SoftHSM` tokens.
//!
//! It is the keeper's user who runs it, so that whatever it leaves on the tokens is the keeper's to
//! use. Its configuration's schema has no place for the signer's socket, which is always
//! `/run/opendnssec/engine.sock`; each story's daemons therefore see a `/run` of their own.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process::Process;
use crate::scratch::{Scratch, write};
use crate::token::{Token, TokenStore};
use crate::tools::{run, run_ok, softhsm_module, tool};
use crate::users::{User, command, is_root};
use crate::wait::{SOON, until};
use crate::{ports, query};

/// What its enforcer's database is made from; the version row is what `ods-enforcer-db-setup` adds.
const SCHEMA: &str = "/usr/share/opendnssec/schema.sqlite";

/// How long a daemon may take to end by itself: `ods-signerd` sometimes never does.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Leaps of the enforcer's clock until a fresh KSK is known to all caches: two are enough, and each
/// goes to the next event only.
const LEAPS_MAX: usize = 6;

/// What OpenDNSSEC signs, and where its keys are.
#[derive(Debug)]
pub struct Spec<'a> {
    /// The tokens' store.
    pub store: &'a TokenStore,
    /// The KSK's token.
    pub ksk: &'a Token,
    /// The ZSK's token.
    pub zsk: &'a Token,
    /// The zone, with its last dot.
    pub zone: &'a str,
    /// Its master file.
    pub content: &'a str,
    /// Algorithm number and key size: 13 and 256, or 8 and 2048.
    pub algorithm: (u8, u16),
}

/// A key that it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// `KSK` or `ZSK`.
    pub role: String,
    /// `active`, once it is known to all caches and, for a KSK, its DS was seen.
    pub state: String,
    /// `CKA_ID` in hexadecimal; the label is the same.
    pub id: String,
    /// Key tag.
    pub tag: u16,
}

/// A running enforcer and signer.
#[derive(Debug)]
pub struct OpenDnssec {
    dir: PathBuf,
    zone: String,
    enforcer: Process,
    signer: Process,
}

/// Why the daemons can't have a `/run` of their own, if so: without root that takes user namespaces,
/// which not every machine allows.
pub fn unavailable(scratch: &Scratch) -> Result<Option<String>> {
    let nothing = Command::new("true");
    let output = run(&mut with_own_run(&nothing, scratch.path())?)?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() || !is_root(), "no mount namespace for root: {complaint}");
    Ok((!output.status.success()).then_some(complaint))
}

impl OpenDnssec {
    /// Has it make keys and sign the zone, and lets its time pass until all of its keys are active.
    pub fn start(scratch: &Scratch, spec: &Spec<'_>) -> Result<Self> {
        let dir = scratch.dir("opendnssec", User::Keeper, 0o755)?;
        for name in ["db", "run", "run/opendnssec", "enforcer", "signer", "signconf", "signed"] {
            scratch.dir(&format!("opendnssec/{name}"), User::Keeper, 0o755)?;
        }
        configure(&dir, spec)?;
        let database = dir.join("db/kasp.db");
        let mut make = command(User::Keeper, &tool("sqlite3")?)?;
        run_ok(make.arg(database).args([
            &format!(".read {SCHEMA}"),
            "INSERT INTO databaseVersion (version) VALUES (1)",
        ]))?;
        let start = |program: &str| {
            let mut inner = command(User::Keeper, &tool(program)?)?;
            inner.args(["-d", "-v", "-c"]).arg(dir.join("conf.xml"));
            inner.env("SOFTHSM2_CONF", &spec.store.conf);
            let run = with_own_run(&inner, &dir.join("run"))?;
            Process::spawn(program, run, &dir.join(format!("{program}.log")))
        };
        let mut enforcer = start("ods-enforcerd")?;
        let wait_for_socket = |process: &mut Process, name: &str| {
            let socket = dir.join("run/opendnssec").join(name);
            until(&format!("OpenDNSSEC's {name}"), SOON, || {
                process.check_running()?;
                Ok(UnixStream::connect(&socket).map(drop)?)
            })
        };
        wait_for_socket(&mut enforcer, "enforcer.sock")?;
        // The signer takes orders before there are any, so that none comes too early for it.
        let mut signer = start("ods-signerd")?;
        wait_for_socket(&mut signer, "engine.sock")?;
        let this = Self { dir, zone: spec.zone.to_owned(), enforcer, signer };
        this.ask(&["policy", "import"])?;
        this.ask(&["zonelist", "import"])?;
        until("the zone signed by OpenDNSSEC", SOON, || {
            let signed = this.signed()?;
            ensure!(signed.contains("RRSIG\tDNSKEY"), "{signed}");
            Ok(())
        })?;
        this.have_keys_active()?;
        Ok(this)
    }

    /// The zone as it has signed it.
    pub fn signed(&self) -> Result<String> {
        let path = self.signed_file();
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Where that is.
    pub fn signed_file(&self) -> PathBuf {
        self.dir.join("signed/zone")
    }

    /// The zone's keys.
    pub fn keys(&self) -> Result<Vec<Key>> {
        let zone = self.zone.trim_end_matches('.');
        let listed = self.ask(&["key", "list", "--verbose", "--parsable"])?;
        let of_zone = listed.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(';').collect();
            let [name, role, state, _, _, _, id, _, tag] = fields.as_slice() else { return None };
            (*name == zone).then(|| {
                let (role, state, id) = (role.to_string(), state.to_string(), id.to_string());
                Ok(Key { role, state, id, tag: tag.trim().parse()? })
            })
        });
        of_zone.collect()
    }

    /// The one key of a role.
    pub fn key(&self, role: &str) -> Result<Key> {
        let keys = self.keys()?;
        let mut of_role = keys.iter().filter(|key| key.role == role);
        match (of_role.next(), of_role.next()) {
            (Some(key), None) => Ok(key.clone()),
            _ => bail!("not one {role}: {keys:?}"),
        }
    }

    /// The DS (SHA-256) that it would have the parent publish, as one line in presentation form.
    pub fn ds(&self) -> Result<String> {
        let zone = self.zone.trim_end_matches('.');
        let exported = self.ask(&[
            "key",
            "export",
            "--zone",
            zone,
            "--keystate",
            "active",
            "--keytype",
            "KSK",
            "--ds",
        ])?;
        let mut records = exported.lines().filter(|line| line.contains("\tDS\t"));
        match (records.next(), records.next()) {
            (Some(record), None) => Ok(record.to_owned()),
            _ => bail!("not one DS:\n{exported}"),
        }
    }

    /// Ends both daemons. From then on nothing of OpenDNSSEC touches the tokens.
    pub fn stop(self) -> Result<()> {
        for process in [self.signer, self.enforcer] {
            // One that does not end by itself is killed as it is dropped.
            let _ = process.stop(STOP_WITHIN);
        }
        Ok(())
    }

    fn have_keys_active(&self) -> Result<()> {
        let mut leaps = 0;
        let ksk = loop {
            let ksk = self.key("KSK")?;
            if ksk.state == "ready" {
                break ksk;
            }
            ensure!(leaps < LEAPS_MAX, "after {leaps} leaps of time: {:?}", self.keys()?);
            self.ask(&["time", "leap", "--attach"])?;
            leaps += 1;
        };
        let (zone, tag) = (self.zone.trim_end_matches('.'), ksk.tag.to_string());
        self.ask(&["key", "ds-submit", "--zone", zone, "--keytag", &tag])?;
        self.ask(&["key", "ds-seen", "--zone", zone, "--keytag", &tag])?;
        until("all of OpenDNSSEC's keys to be active", SOON, || {
            let keys = self.keys()?;
            ensure!(keys.len() == 2 && keys.iter().all(|key| key.state == "active"), "{keys:?}");
            Ok(())
        })
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = command(User::Keeper, &tool("ods-enforcer")?)?;
        command.arg("-s").arg(self.dir.join("run/opendnssec/enforcer.sock")).args(words);
        let name = format!("ods-enforcer {}", words.join(" "));
        let mut process = Process::spawn(&name, command, &self.dir.join("ods-enforcer.log"))?;
        let status = process.wait(SOON)?;
        let said = process.log();
        // A submission by hand is an error to it, with the state changed all the same.
        ensure!(status.success() || words.contains(&"ds-submit"), "{name}: {status}\n{said}");
        Ok(said)
    }
}

/// An NSD that serves `zone` from a file, on `port` of 127.0.0.1.
pub fn serve(scratch: &Scratch, zone: &str, file: &Path, port: u16) -> Result<Process> {
    let clauses = format!("zone:\n  name: \"{zone}\"\n  zonefile: \"{}\"\n", file.display());
    let mut process = crate::nsd::run(scratch, "opendnssec-public", port, "", &clauses)?;
    until("OpenDNSSEC's zone on NSD", SOON, || {
        process.check_running()?;
        query::serial(port, zone)
    })?;
    Ok(process)
}

/// `inner`, in a mount namespace in which `run` is what it sees as `/run`.
fn with_own_run(inner: &Command, run: &Path) -> Result<Command> {
    let mut command = Command::new(tool("unshare")?);
    command.arg("--mount");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--", "/bin/sh", "-c", "mount --rbind \"$0\" /run && exec \"$@\""]).arg(run);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear().current_dir("/");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ok(command)
}

fn configure(dir: &Path, spec: &Spec<'_>) -> Result<()> {
    let at = dir.display();
    let repository = |name: &str, token: &Token| -> Result<String> {
        Ok(format!(
            "<Repository name=\"{name}\"><Module>{}</Module><TokenLabel>{}</TokenLabel>\
             <PIN>{}</PIN></Repository>",
            softhsm_module()?.display(),
            token.label,
            token.pin
        ))
    };
    let conf = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
<RepositoryList>{ksk}{zsk}</RepositoryList>
<Common><Logging><Verbosity>3</Verbosity></Logging>
<PolicyFile>{at}/kasp.xml</PolicyFile><ZoneListFile>{at}/zonelist.xml</ZoneListFile></Common>
<Enforcer><Datastore><SQLite>{at}/db/kasp.db</SQLite></Datastore>
<AutomaticKeyGenerationPeriod>P1D</AutomaticKeyGenerationPeriod>
<WorkingDirectory>{at}/enforcer</WorkingDirectory></Enforcer>
<Signer><WorkingDirectory>{at}/signer</WorkingDirectory>
<WorkerThreads>1</WorkerThreads><SignerThreads>1</SignerThreads>
<Listener><Interface><Address>127.0.0.1</Address><Port>{port}</Port></Interface></Listener></Signer>
</Configuration>
"#,
        ksk = repository("ksk", spec.ksk)?,
        zsk = repository("zsk", spec.zsk)?,
        // Nobody asks there; without it, it listens where another story's may.
        port = ports::free()?,
    );
    let zonelist = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<ZoneList><Zone name="{}"><Policy>bed</Policy>
<SignerConfiguration>{at}/signconf/zone.xml</SignerConfiguration>
<Adapters><Input><Adapter type="File">{at}/unsigned</Adapter></Input>
<Output><Adapter type="File">{at}/signed/zone</Adapter></Output></Adapters></Zone></ZoneList>
"#,
        spec.zone.trim_end_matches('.'),
    );
    for (name, content) in [
        ("conf.xml", conf.as_str()),
        ("kasp.xml", &policy(spec.algorithm)),
        ("zonelist.xml", &zonelist),
        ("unsigned", spec.content),
    ] {
        write(&dir.join(name), content, User::Keeper, 0o644)?;
    }
    Ok(())
}

fn policy((algorithm, bits): (u8, u16)) -> String {
    let key = |role: &str| {
        format!(
            "<{role}><Algorithm length=\"{bits}\">{algorithm}</Algorithm><Lifetime>P1Y</Lifetime>\
             <Repository>{}</Repository></{role}>",
            role.to_lowercase()
        )
    };
    // Time passes by leaps, so the TTLs and margins are those of a real zone.
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<KASP><Policy name="bed"><Description>A zone that moves on</Description>
<Signatures><Resign>PT2H</Resign><Refresh>P3D</Refresh>
<Validity><Default>P14D</Default><Denial>P14D</Denial></Validity>
<Jitter>PT0S</Jitter><InceptionOffset>PT3600S</InceptionOffset><MaxZoneTTL>PT3600S</MaxZoneTTL></Signatures>
<Denial><NSEC3><Resalt>P100D</Resalt>
<Hash><Algorithm>1</Algorithm><Iterations>0</Iterations><Salt length="0"/></Hash></NSEC3></Denial>
<Keys><TTL>PT3600S</TTL><RetireSafety>PT300S</RetireSafety><PublishSafety>PT300S</PublishSafety>
{}{}</Keys>
<Zone><PropagationDelay>PT300S</PropagationDelay>
<SOA><TTL>PT3600S</TTL><Minimum>PT120S</Minimum><Serial>counter</Serial></SOA></Zone>
<Parent><PropagationDelay>PT300S</PropagationDelay><DS><TTL>PT3600S</TTL></DS>
<SOA><TTL>PT3600S</TTL><Minimum>PT300S</Minimum></SOA></Parent>
</Policy></KASP>
"#,
        key("KSK"),
        key("ZSK"),
    )
}
