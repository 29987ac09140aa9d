//! The bench: one whole chain, through which cell after cell goes.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use countersign_hsm::client::LedgerClient;
use serde_json::{Value, json};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::process::Process;
use softhsm_tests::scratch::Scratch;
use softhsm_tests::shim::Shim;
use softhsm_tests::tools::run_ok;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{oracle, query};

use crate::cells::{Cell, Token, Trigger};

/// Short, so that a hang is over soon; long enough for SoftHSM on a busy machine.
const DEADLINE_MS: u64 = 700;
/// How often the bench looks.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// How long a fault stands at most once the keeper has met it: time for an attempt of the daemon to
/// fail. After that it is for the next version to show what is left of it.
const STANDS_MAX: Duration = Duration::from_secs(6);
/// By when the zone has its next version after the fault is gone; else it is stuck. Above the longest
/// pauses: of a token that fails again and again (30 s), of a key in conflict (10 s), of the daemon.
const UNSTUCK: Duration = Duration::from_secs(90);
/// A keeper's token pauses longer with each failure until it has been well for ten minutes: after
/// so many cells the keeper starts anew, as if they had passed.
const CELLS_PER_KEEPER: u32 = 3;
/// Enough for all motions of the longest part, at 40 a day.
const OPERATORS: u32 = 18;
/// The motion that makes a key.
const MAKE: [&str; 5] = ["generate-key", "--zone", ZONE, "--role", "ksk"];
/// The policy has a signature made anew when it is older than a second.
const SIGNED_ANEW: Duration = Duration::from_millis(1_200);

/// The chain, and what came of it so far.
#[derive(Debug)]
pub struct Bench<'s> {
    chain: Chain<'s>,
    ksk: Shim,
    zsk: Shim,
    /// The primary's serial.
    serial: u32,
    /// The newest version that was seen on the secondary, and verified.
    verified: u32,
    /// When the KSK's signature in it begins to be valid, as dig shows it.
    by_ksk: String,
    /// When the primary changed last.
    changed: Instant,
    /// The zone's KSK from the first version on: the matrix changes no key that is in use.
    anchor: String,
    /// An approval got no answer.
    unheard: bool,
    cells: u32,
    daemon_log: PathBuf,
}

/// Why a cell failed.
#[derive(Debug)]
pub enum Failure {
    /// Something was served that does not verify.
    Invalid(anyhow::Error),
    /// The zone did not get its next version, or the keeper did not come back.
    Stuck(anyhow::Error),
    /// Anything else.
    Other(anyhow::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(why) => write!(f, "INVALID: {why:?}"),
            Self::Stuck(why) => write!(f, "STUCK: {why:?}"),
            Self::Other(why) => write!(f, "WRONG: {why:?}"),
        }
    }
}

impl<'s> Bench<'s> {
    /// Starts a chain with a shim before each token, in which each version has all its signatures made
    /// anew.
    pub fn start(scratch: &'s Scratch) -> Result<Self> {
        let (ksk, zsk) =
            (Shim::install_as(scratch, "ksk-shim")?, Shim::install_as(scratch, "zsk-shim")?);
        let plan = Plan {
            ksk_module: Some(ksk.module.clone()),
            zsk_module: Some(zsk.module.clone()),
            deadline_ms: Some(DEADLINE_MS),
            // Due a second after it was made: only the primary's serials bring new versions.
            refresh_s: 1_209_600 - 1,
            ..Plan::default()
        };
        let chain = Chain::start_with(scratch, plan, |chain| {
            // One person may propose only so much in a day.
            for number in 0..OPERATORS {
                let met = chain.officers.meet(&operator(number), "operator", &["ed25519"]);
                met.map(drop).expect("ssh-keygen");
            }
        })?;
        let signed = chain.served_zone()?;
        let anchor = oracle::anchor(scratch, ZONE, &signed)?;
        let daemon_log = scratch.path().join("countersignd.log");
        let mut bench = Self {
            chain,
            ksk,
            zsk,
            serial: 1,
            verified: 0,
            by_ksk: String::new(),
            changed: Instant::now(),
            anchor,
            unheard: false,
            cells: 0,
            daemon_log,
        };
        bench.look().map_err(|e| anyhow!("the first version: {e}"))?;
        Ok(bench)
    }

    /// Whether the secondary has a new version, and whether that verifies.
    fn look(&mut self) -> Result<bool, Failure> {
        let port = self.chain.secondary_port;
        let serial = query::serial(port, ZONE).map_err(Failure::Other)?;
        if serial == self.verified {
            return Ok(false);
        }
        let signed = query::axfr(port, ZONE).map_err(Failure::Other)?;
        let of_serial = |line: &str| {
            let mut fields = line.split_whitespace().skip(3);
            fields.next() == Some("SOA") && fields.nth(2) == Some(&serial.to_string())
        };
        if !signed.lines().any(of_serial) {
            // The next one came in between: it is looked at in its turn.
            return Ok(false);
        }
        oracle::verify(self.chain.scratch, ZONE, &signed, &self.anchor)
            .map_err(Failure::Invalid)?;
        if serial < self.verified || serial > self.serial {
            let (seen, primary) = (self.verified, self.serial);
            return Err(Failure::Invalid(anyhow!(
                "serial {serial} is served after {seen}; the primary has {primary}"
            )));
        }
        let inception = signed.lines().find_map(inception_of_dnskey);
        inception.unwrap_or_default().clone_into(&mut self.by_ksk);
        self.verified = serial;
        Ok(true)
    }

    fn shim(&self, token: Token) -> &Shim {
        match token {
            Token::Ksk => &self.ksk,
            Token::Zsk => &self.zsk,
        }
    }

    /// Both shims' logs of calls, from the start on.
    pub fn calls(&self) -> Result<Vec<String>> {
        let logs = [self.ksk.since(0)?, self.zsk.since(0)?].concat();
        let mut calls: Vec<String> = logs.into_iter().map(|logged| logged.call).collect();
        calls.sort_unstable();
        calls.dedup();
        Ok(calls)
    }

    /// Goes through one cell.
    pub fn cell(&mut self, cell: &Cell) -> Result<(), Failure> {
        self.make_ready(cell).map_err(Failure::Other)?;
        let shim = self.shim(cell.token).clone();
        let start = shim.now();
        let motion = self.meet(cell, &shim).map_err(Failure::Other)?;
        self.stand(cell, &shim, start)?;
        if cell.refuses_pin() {
            let logged = shim.since(start).map_err(Failure::Other)?;
            let logins = logged.iter().filter(|logged| logged.call == "C_Login").count();
            if logins != 1 {
                return Err(Failure::Other(anyhow!("a refused PIN was tried {logins} times")));
            }
        }
        shim.rules(&json!([])).map_err(Failure::Other)?;
        let gone = inception_now().map_err(Failure::Other)?;
        self.amend(cell, motion.as_deref()).map_err(Failure::Stuck)?;
        self.recover(&gone, motion.as_deref())?;
        // Nobody here starts it again.
        let daemon = self.chain.daemon.running().map_err(Failure::Other)?;
        daemon.check_running().map_err(Failure::Other)
    }

    /// A keeper that is well, with tokens that remember no failure.
    fn make_ready(&mut self, cell: &Cell) -> Result<()> {
        self.cells += 1;
        // Modules are renewed ever more rarely, too.
        let worn = self.cells.is_multiple_of(CELLS_PER_KEEPER) || cell.trigger == Trigger::Renewal;
        if worn && cell.trigger != Trigger::Start {
            ensure!(self.chain.keeper.stop()?.success(), "the keeper did not stop well");
            self.start_keeper()?;
        }
        // What hung in the last cells is long ago: else each hang would be waited for twice as long.
        for entry in std::fs::read_dir(&self.chain.keeper.state)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("hung-") {
                std::fs::remove_file(entry.path())?;
            }
        }
        match cell.trigger {
            // A zone has only so many.
            Trigger::Make if self.idle_ksks()?.len() >= 4 => {
                let id = self.propose_destroy()?;
                self.carry(&id)
            }
            Trigger::Destroy if self.idle_ksks()?.is_empty() => {
                let id = self.propose(&MAKE)?;
                self.carry(&id)
            }
            _ => Ok(()),
        }
    }

    /// The zone's KSKs that are not in use.
    fn idle_ksks(&self) -> Result<Vec<String>> {
        let state = self.chain.keeper.ledger_state()?;
        let idle = state.keys().iter().filter(|(_, key)| key.public.is_none());
        Ok(idle.map(|(id, _)| id.to_string()).collect())
    }

    /// The operators take turns.
    fn propose(&self, motion: &[&str]) -> Result<String> {
        self.chain.officers.propose(&operator(self.cells % OPERATORS), motion)
    }

    fn carry(&self, id: &str) -> Result<()> {
        self.chain.officers.approve(&["kay", "kim"], id)?;
        until("a motion to be done", SOON, || self.chain.keeper.is_done(id))
    }

    fn propose_destroy(&self) -> Result<String> {
        let idle = self.idle_ksks()?.pop().context("no KSK that is not in use")?;
        self.propose(&["destroy-key", "--zone", ZONE, "--key", &idle])
    }

    fn start_keeper(&mut self) -> Result<()> {
        self.chain.keeper.start()
    }

    /// Puts the fault in force and has the keeper meet it; the motion that was under way then.
    fn meet(&mut self, cell: &Cell, shim: &Shim) -> Result<Option<String>> {
        let rule =
            |call: &str, action: &Value| json!({ "call": call, "every": true, "action": action });
        let fault = rule(cell.call, &cell.action);
        let lost = json!({ "return": "CKR_DEVICE_REMOVED" });
        let rules = match cell.trigger {
            Trigger::Renewal => {
                json!([fault, rule("C_OpenSession", &lost), rule("C_SignInit", &lost)])
            }
            Trigger::Loss => json!([fault, { "call": "C_SignInit", "nth": 1, "action": lost }]),
            _ => json!([fault]),
        };
        let mut motion = None;
        match cell.trigger {
            Trigger::Start => {
                ensure!(self.chain.keeper.stop()?.success(), "the keeper did not stop well");
                shim.rules(&rules)?;
                self.chain.keeper.spawn()?;
            }
            Trigger::Survey => {
                shim.rules(&rules)?;
                let socket = self.chain.keeper.ledger_socket.clone();
                // What it says is of no matter here.
                let _ = LedgerClient::connect(&socket, SOON).map(|mut keeper| keeper.survey());
            }
            Trigger::Make | Trigger::Destroy => {
                let id = match cell.trigger {
                    Trigger::Make => self.propose(&MAKE)?,
                    _ => self.propose_destroy()?,
                };
                shim.rules(&rules)?;
                // A keeper that crashes may take the answer to an approval along, or the approval.
                self.unheard = self.chain.officers.approve(&["kay", "kim"], &id).is_err();
                motion = Some(id);
            }
            Trigger::Change | Trigger::Loss | Trigger::Renewal => shim.rules(&rules)?,
        }
        Ok(motion)
    }

    /// Has the zone change while the fault stands, and watches until that came to something.
    fn stand(&mut self, cell: &Cell, shim: &Shim, start: u64) -> Result<(), Failure> {
        let other = Failure::Other;
        let log = std::fs::metadata(&self.daemon_log).map_err(|e| other(e.into()))?.len();
        self.change()?;
        let (begun, mut met) = (Instant::now(), None);
        loop {
            self.look()?;
            let since = shim.since(start).map_err(other)?;
            if met.is_none()
                && since.iter().any(|logged| logged.injected && logged.call == cell.call)
            {
                met = Some(Instant::now());
            }
            let ended = self.keeper_ended().map_err(other)?;
            if let Some(met) = met {
                let over = self.verified == self.serial || self.failed_since(log).map_err(other)?;
                if ended || over || met.elapsed() > STANDS_MAX {
                    return Ok(());
                }
            } else if ended || begun.elapsed() > SOON {
                return Err(other(anyhow!("the keeper never made the call (it ended: {ended})")));
            } else {
                self.change_again()?;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The primary's next version.
    fn change(&mut self) -> Result<(), Failure> {
        self.serial += 1;
        self.changed = Instant::now();
        let content = zones::example_with(self.serial, "cell");
        self.chain.change_zone(&content).map_err(Failure::Other)
    }

    /// One more, once the last one is served: within the second its signatures are kept.
    fn change_again(&mut self) -> Result<(), Failure> {
        if self.verified == self.serial && self.changed.elapsed() > SIGNED_ANEW {
            self.change()?;
        }
        Ok(())
    }

    fn failed_since(&self, start: u64) -> Result<bool> {
        let log = std::fs::read(&self.daemon_log)?;
        let new = log.get(usize::try_from(start)?..).unwrap_or_default();
        let text = String::from_utf8_lossy(new);
        Ok(text.contains("no new version") || text.contains("not published"))
    }

    fn keeper_ended(&mut self) -> Result<bool> {
        let process = self.chain.keeper.process.as_mut();
        Ok(process.map(Process::ended).transpose()?.flatten().is_some())
    }

    /// What people and supervisors do, and nobody else: the keeper that ended is started again, the file
    /// of a PIN that was refused is written again, and who got no answer to an approval gives it again.
    fn amend(&mut self, cell: &Cell, motion: Option<&str>) -> Result<()> {
        if cell.refuses_pin() {
            let name = if cell.token == Token::Ksk { "ksk-a" } else { "zsk-a" };
            let pin = self.chain.tokens[name].pin.clone();
            self.chain.keeper.write_pin(name, &pin)?;
        }
        if self.keeper_ended()? {
            self.start_keeper()?;
        }
        if let Some(motion) = motion.filter(|_| std::mem::take(&mut self.unheard)) {
            for officer in ["kay", "kim"] {
                // One of them may have been heard.
                self.chain.officers.cli(officer, &["approve", motion])?;
            }
        }
        Ok(())
    }

    /// By itself the zone gets its next version, which the KSK has signed since the fault was gone, and
    /// the motion is done.
    fn recover(&mut self, gone: &str, motion: Option<&str>) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            self.look()?;
            if self.keeper_ended().map_err(Failure::Other)? {
                // A hang that was noticed late; its supervisor starts it again.
                self.start_keeper().map_err(Failure::Stuck)?;
            }
            let (up, serial) = (self.verified, self.serial);
            if up == serial && self.by_ksk.as_str() >= gone {
                // Whoever asks how it stands reads the whole ledger.
                let done = |motion| until("the motion", SOON, || self.chain.keeper.is_done(motion));
                return motion.map_or(Ok(()), done).map_err(Failure::Stuck);
            }
            self.change_again()?;
            if begun.elapsed() > UNSTUCK {
                let shown = self.chain.daemon.zone_show().unwrap_or_default();
                let tokens = self.chain.daemon.json(&["hsm", "status"]).unwrap_or_default();
                return Err(Failure::Stuck(anyhow!(
                    "the primary has {serial}, {up} is served; the KSK signed last at {}, and the fault was gone \
                     at {gone} (less an hour); {shown:#} {tokens:#}",
                    self.by_ksk
                )));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// After a cell that failed: everything as new, so that the next one is judged by itself.
    pub fn repair(&mut self) -> Result<()> {
        for shim in [&self.ksk, &self.zsk] {
            shim.rules(&json!([]))?;
        }
        if let Some(process) = self.chain.keeper.process.take() {
            process.kill_nine().or_else(|e| {
                // It had ended.
                if e.to_string().contains("already ended") { Ok(()) } else { Err(e) }
            })?;
        }
        for (name, token) in &self.chain.tokens {
            self.chain.keeper.write_pin(name, &token.pin)?;
        }
        self.make_ready(&Cell {
            token: Token::Zsk,
            trigger: Trigger::Start,
            call: "C_Login",
            action: Value::Null,
        })?;
        self.start_keeper()?;
        self.recover(&inception_now()?, None).map_err(|e| anyhow!("{e}"))
    }

    /// At the end: the ledger holds by both verifiers, and no PIN was tried in vain.
    pub fn close(&mut self) -> Result<()> {
        let bundle = self.chain.officers.export_bundle("matrix.bundle")?;
        for verified in [
            self.chain.officers.audit_verify(&bundle)?,
            self.chain.officers.second_verifier(&bundle)?,
        ] {
            ensure!(verified.status.success(), "{}{}", verified.stdout, verified.stderr);
        }
        for token in self.chain.tokens.values() {
            let shown = self.chain.store.pkcs11_tool(token, &["--list-token-slots"])?;
            for flag in ["count low", "final user PIN try", "PIN locked"] {
                ensure!(!shown.contains(flag), "{}: {shown}", token.label);
            }
        }
        let ends = self.chain.keeper.stop().context("the keeper's end")?;
        if !ends.success() {
            bail!("the keeper ended with {ends}");
        }
        Ok(())
    }

    /// What a keeper does with keys beside using them: a survey, then one made, one destroyed, one
    /// adopted; and a module that is initialised anew.
    pub fn whole_life(&mut self) -> Result<()> {
        let socket = self.chain.keeper.ledger_socket.clone();
        let token = self.chain.tokens["ksk-a"].clone();
        let foreign = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "f", "--id", "f0"];
        self.chain.store.pkcs11_tool(&token, &foreign)?;
        let survey = LedgerClient::connect(&socket, SOON)?.survey()?;
        let found = survey.tokens.iter().flat_map(|token| &token.keys).find_map(|key| key.key);
        let found = found.context("no foreign key in the survey")?.to_string();
        let carry = |motion: &[&str]| self.chain.officers.carry(&self.chain.keeper, motion);
        let ksk = ["--zone", ZONE, "--role", "ksk"];
        carry(&[&["generate-key"], &ksk[..]].concat())?;
        carry(&[&["adopt-key"], &ksk[..], &["--token", "ksk-a", "--key", &found]].concat())?;
        carry(&["destroy-key", "--zone", ZONE, "--key", &found])?;
        let renewal = Cell {
            token: Token::Zsk,
            trigger: Trigger::Renewal,
            call: "C_Finalize",
            action: json!({ "delay_ms": 1 }),
        };
        self.cell(&renewal).map_err(|e| anyhow!("{e}"))
    }
}

fn operator(number: u32) -> String {
    format!("op-{number}")
}

/// When a DNSKEY signature begins to be valid, if `line` is one.
fn inception_of_dnskey(line: &str) -> Option<&str> {
    let mut fields = line.split_whitespace().skip(3);
    let of_dnskey = fields.next() == Some("RRSIG") && fields.next() == Some("DNSKEY");
    of_dnskey.then(|| fields.nth(4)).flatten()
}

/// When one begins that is made now, by the policy: an hour ago.
fn inception_now() -> Result<String> {
    let shown = run_ok(Command::new("date").args(["-u", "-d", "1 hour ago", "+%Y%m%d%H%M%S"]))?;
    Ok(shown.trim().to_owned())
}
