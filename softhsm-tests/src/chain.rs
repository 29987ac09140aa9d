//! Everything that stands between a customer's zone and the world: hidden primary, keeper with
//! its tokens, daemon, secondary.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};

use crate::bind::{Primary, PrimarySpec, Secondary, SecondarySpec};
use crate::daemon::{Daemon, DaemonSpec, Peer};
use crate::keeper::{Held, Keeper, KeeperSpec};
use crate::nsd::Nsd;
use crate::officers::{Draft, Officers};
use crate::pki::{Authority, Identity};
use crate::scratch::Scratch;
use crate::token::{Token, TokenStore};
use crate::tools::softhsm_module;
use crate::unbound::Resolver;
use crate::users::User;
use crate::wait::{SOON, until};
use crate::zones::{self, ZONE};
use crate::{oracle, ports, query};

/// What a chain is built from. [`Plan::default`] is one KSK token, one ZSK token, P-256, NSEC3,
/// and the primary's own serial, so that a story can name the serial it waits for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The primary's zone.
    pub content: String,
    /// Algorithm number.
    pub algorithm: u8,
    /// Modulus size, for RSA.
    pub rsa_bits: Option<u16>,
    /// `nsec`, `nsec3` or `nsec3-opt-out`.
    pub denial: &'static str,
    /// `keep`, `increment`, `unixtime` or `date-counter`.
    pub serial: &'static str,
    /// One CSK instead of KSK and ZSK.
    pub csk: bool,
    /// Puts this module in front of SoftHSM for the ZSK's token.
    pub zsk_module: Option<PathBuf>,
    /// The same for the KSK's token.
    pub ksk_module: Option<PathBuf>,
    /// Seconds before its end at which a signature is made anew.
    pub refresh_s: u32,
    /// Milliseconds that one PKCS#11 call may take.
    pub deadline_ms: Option<u64>,
    /// More zones that are bound, under the same policy.
    pub more_zones: &'static [&'static str],
    /// What the founding has beside the tokens and [`crate::officers::PEOPLE`].
    pub draft: Draft,
    /// `standing`, or `per-set`: DNSKEY sets are approved one by one.
    pub approval: &'static str,
    /// More TOML for the daemon.
    pub daemon_more: String,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            content: zones::example(1),
            algorithm: 13,
            rsa_bits: None,
            denial: "nsec3",
            serial: "keep",
            csk: false,
            zsk_module: None,
            ksk_module: None,
            refresh_s: 604_800,
            deadline_ms: None,
            more_zones: &[],
            draft: Draft::default(),
            approval: "standing",
            daemon_more: String::new(),
        }
    }
}

/// The whole chain. Parts that were not started are absent.
#[derive(Debug)]
pub struct Chain<'s> {
    /// The story's directory.
    pub scratch: &'s Scratch,
    /// The tokens' store.
    pub store: TokenStore,
    /// Tokens by name in the keeper's configuration: `ksk-a`, `zsk-a`, and what a story added.
    pub tokens: BTreeMap<String, Token>,
    /// The keeper.
    pub keeper: Keeper,
    /// Those who have founded it.
    pub officers: Officers,
    /// The daemon.
    pub daemon: Daemon,
    /// What the daemon is configured with.
    pub daemon_spec: DaemonSpec,
    /// The hidden primary.
    pub primary: Option<Primary>,
    /// The secondary.
    pub secondary: Option<Secondary>,
    /// Certificates, by the peers' names.
    pub identities: BTreeMap<&'static str, Identity>,
    /// The authority that all of them trust.
    pub authority: Authority,
    /// Where the secondary listens.
    pub secondary_port: u16,
    keeper_spec: KeeperSpec,
    plan: Plan,
}

impl<'s> Chain<'s> {
    /// Makes tokens, certificates and configurations. Nothing runs yet.
    pub fn prepare(scratch: &'s Scratch, plan: Plan, authority: Authority) -> Result<Self> {
        let store = TokenStore::new(scratch)?;
        let mut tokens = BTreeMap::from([("ksk-a".to_owned(), store.init("ksk", "ksk-pin-4711")?)]);
        if !plan.csk {
            tokens.insert("zsk-a".to_owned(), store.init("zsk", "zsk-pin-0815")?);
        }
        let keeper_spec = keeper_spec(&plan, &store, &tokens)?;
        let keeper = Keeper::prepare(scratch, &keeper_spec, None)?;
        let officers = Officers::new(scratch, &keeper.ledger_socket)?;
        let daemon = Daemon::prepare(scratch, ZONE)?;
        let identities = BTreeMap::from([
            ("primary", authority.issue(scratch, "primary.test", User::Harness)?),
            ("signer", authority.issue(scratch, "signer.test", User::Daemon)?),
            ("secondary", authority.issue(scratch, "secondary.test", User::Harness)?),
            ("ops", authority.issue(scratch, "ops.test", User::Harness)?),
        ]);
        let secondary_port = ports::free()?;
        let daemon_spec = DaemonSpec {
            zone: ZONE.to_owned(),
            identity: identities["signer"].clone(),
            ca: authority.ca.clone(),
            crl: None,
            keeper_socket: keeper.socket.clone(),
            peers: vec![Peer {
                name: "secondary-1".to_owned(),
                san: "secondary.test".to_owned(),
                transfer_from: None,
                notify: Some(secondary_port),
            }],
            more_primaries: Vec::new(),
            more_secondaries: Vec::new(),
            zone_keys: String::new(),
            more: plan.daemon_more.clone(),
        };
        Ok(Self {
            scratch,
            store,
            tokens,
            keeper,
            officers,
            daemon,
            daemon_spec,
            primary: None,
            secondary: None,
            identities,
            authority,
            secondary_port,
            keeper_spec,
            plan,
        })
    }

    /// Prepares and starts everything, and waits until the secondary serves a first version.
    pub fn start(scratch: &'s Scratch, plan: Plan) -> Result<Self> {
        Self::start_with(scratch, plan, |_| {})
    }

    /// The same, with a change of plan between preparing and starting.
    pub fn start_with(
        scratch: &'s Scratch,
        plan: Plan,
        change: impl FnOnce(&mut Self),
    ) -> Result<Self> {
        let authority = Authority::new(scratch, "ca")?;
        let mut chain = Self::prepare(scratch, plan, authority)?;
        change(&mut chain);
        chain.start_all()?;
        chain.wait_for_secondary("a first version", |_| true)?;
        Ok(chain)
    }

    /// Has the keeper founded, the zones bound, and a key made for each: the keeper runs.
    pub fn found(&mut self) -> Result<()> {
        self.found_appliance()?;
        self.bind_zones()?;
        self.make_keys()
    }

    /// Has the keeper founded: it runs, and knows of no zone.
    pub fn found_appliance(&mut self) -> Result<()> {
        self.keeper.start_unfounded()?;
        let founding = self.officers.sign_founding(&self.keeper_spec, &self.plan.draft)?;
        // Root pins the very founding that everybody signed, and nobody else can.
        self.officers.founding = Some(founding);
        self.configure_keeper()?;
        self.officers.submit_founding()?;
        self.keeper.restart_founded()
    }

    /// Has the officers set the policy and bind the zones to it.
    pub fn bind_zones(&self) -> Result<()> {
        self.officers.carry(&self.keeper, &policy(&self.plan))?;
        self.officers.carry(&self.keeper, &self.of_zones(&["bind-zone", "--policy", "default"]))?;
        Ok(())
    }

    /// Has the officers make and publish a KSK, or CSK, for each zone.
    pub fn make_keys(&self) -> Result<()> {
        let role = if self.plan.csk { "csk" } else { "ksk" };
        let motion = self.of_zones(&["generate-key", "--role", role, "--activate"]);
        self.officers.carry(&self.keeper, &motion).map(drop)
    }

    fn of_zones(&self, motion: &[&'static str]) -> Vec<String> {
        let zones = [ZONE].into_iter().chain(self.plan.more_zones.iter().copied());
        let motion = motion.iter().copied().chain(zones.flat_map(|zone| ["--zone", zone]));
        motion.map(str::to_owned).collect()
    }

    /// Another box on the same tokens: a keeper with files of its own. Nothing runs yet.
    pub fn another_box(&self, name: &str) -> Result<Keeper> {
        let founding = self.officers.founding.as_deref();
        Keeper::prepare_box(self.scratch, name, &self.keeper_spec, founding)
    }

    /// Writes the keeper's configuration, for its next start.
    pub fn configure_keeper(&mut self) -> Result<()> {
        let process = self.keeper.process.take();
        let founding = self.officers.founding.as_deref();
        self.keeper = Keeper::prepare(self.scratch, &self.keeper_spec, founding)?;
        self.keeper.process = process;
        Ok(())
    }

    /// Has everything founded, then starts primary, daemon and, once there is a version, the
    /// secondary.
    pub fn start_all(&mut self) -> Result<()> {
        self.found()?;
        self.start_primary()?;
        self.daemon.start()?;
        self.start_secondary()
    }

    /// Starts the primary and tells the daemon's configuration where it is.
    pub fn start_primary(&mut self) -> Result<()> {
        let primary = Primary::start(
            self.scratch,
            &PrimarySpec {
                name: "primary",
                zone: ZONE,
                content: &self.plan.content,
                identity: &self.identities["primary"],
                client_ca: &self.authority.ca,
                notify_port: self.daemon.dns_port,
                changes: crate::bind::Changes::File,
            },
        )?;
        self.use_primary("primary-1", "primary.test", primary.xot_port)?;
        self.primary = Some(primary);
        Ok(())
    }

    /// Writes the daemon's configuration with the primary on `port`.
    pub fn use_primary(&mut self, name: &str, san: &str, port: u16) -> Result<()> {
        self.daemon_spec.peers.retain(|peer| peer.transfer_from.is_none());
        self.daemon_spec.peers.push(Peer {
            name: name.to_owned(),
            san: san.to_owned(),
            transfer_from: Some(port),
            notify: None,
        });
        self.daemon.configure(&self.daemon_spec)
    }

    /// Starts the secondary once the daemon has a version for it. BIND asks at once, and one that
    /// was told "not yet" in the very moment of the first NOTIFY asks again only after a minute.
    pub fn start_secondary(&mut self) -> Result<()> {
        until("a first version on the daemon", SOON, || self.daemon.serial())?;
        self.start_secondary_early()
    }

    /// Starts the secondary, whether there is a version for it or not.
    pub fn start_secondary_early(&mut self) -> Result<()> {
        let spec = SecondarySpec {
            name: "secondary",
            zone: ZONE,
            identity: &self.identities["secondary"],
            server_ca: &self.authority.ca,
            server_name: "signer.test",
            server_port: self.daemon.xot_port,
            port: self.secondary_port,
        };
        self.secondary = Some(Secondary::start(self.scratch, &spec)?);
        Ok(())
    }

    /// Starts NSD as one more secondary, over TLS, with a certificate of its own; the daemon has to be told of it
    /// (`nsd.test`).
    pub fn start_nsd(&self, port: u16) -> Result<Nsd> {
        let identity = self.authority.issue(self.scratch, "nsd.test", User::Harness)?;
        let spec = SecondarySpec {
            name: "nsd",
            zone: ZONE,
            identity: &identity,
            server_ca: &self.authority.ca,
            server_name: "signer.test",
            server_port: self.daemon.xot_port,
            port,
        };
        Nsd::start(self.scratch, &spec)
    }

    /// The zone passed through unaltered but for what signing adds and its serial.
    pub fn same_content(&self) -> Result<()> {
        let primary = query::axfr_over_tls(
            self.primary()?.xot_port,
            ZONE,
            &self.identities["secondary"],
            &self.authority.ca,
            "primary.test",
        )?;
        let (came, went) = (zones::content(&primary), zones::content(&self.served_zone()?));
        let lost: Vec<_> = came.difference(&went).collect();
        let added: Vec<_> = went.difference(&came).collect();
        ensure!(lost.is_empty() && added.is_empty(), "lost: {lost:#?}\nadded: {added:#?}");
        ensure!(came.len() > 4, "the primary gave {} records", came.len());
        Ok(())
    }

    /// Tells the keeper of one more token of `group`, for its next start.
    pub fn add_token(&mut self, name: &str, group: &str, token: Token) -> Result<()> {
        self.keeper_spec.tokens.push(Held {
            name: name.to_owned(),
            group: group.to_owned(),
            token: token.clone(),
            module: "softhsm".to_owned(),
        });
        self.tokens.insert(name.to_owned(), token);
        self.configure_keeper()
    }

    /// The primary, which must have been started.
    pub fn primary(&self) -> Result<&Primary> {
        self.primary.as_ref().ok_or_else(|| anyhow!("the primary was not started"))
    }

    /// The serial that the secondary serves.
    pub fn served_serial(&self) -> Result<u32> {
        query::serial(self.secondary_port, ZONE)
    }

    /// The zone as the secondary serves it.
    pub fn served_zone(&self) -> Result<String> {
        query::axfr(self.secondary_port, ZONE)
    }

    /// Waits until the secondary serves a serial that `wanted` likes; that serial.
    pub fn wait_for_secondary(&mut self, what: &str, wanted: impl Fn(u32) -> bool) -> Result<u32> {
        until(&format!("{what} on the secondary"), SOON, || {
            if let Some(process) = &mut self.daemon.process {
                process.check_running()?;
            }
            let serial = query::serial(self.secondary_port, ZONE)?;
            ensure!(wanted(serial), "it serves {serial}");
            Ok(serial)
        })
        .with_context(|| match self.daemon.zone_show() {
            Ok(shown) => format!("the daemon shows: {shown:#}"),
            Err(e) => format!("the daemon shows nothing: {e}"),
        })
    }

    /// Hands in a new version at the primary.
    pub fn change_zone(&self, content: &str) -> Result<()> {
        self.primary()?.replace_zone(content)
    }

    /// Has ldns and BIND verify what the secondary serves, and unbound validate an answer, a
    /// wildcard, a name that is not there and a type that is not there.
    pub fn verify_served(&self) -> Result<()> {
        let signed = self.served_zone()?;
        let anchor = oracle::anchor(self.scratch, ZONE, &signed)?;
        oracle::verify(self.scratch, ZONE, &signed, &anchor)?;
        let resolver =
            Resolver::start(self.scratch, "unbound", (ZONE, self.secondary_port), &anchor)?;
        // Opt-out proves of no name that it is not there, so what rests on that is resolved but
        // not vouched for (RFC 5155 §9.2).
        let denied = self.plan.denial != "nsec3-opt-out";
        for (name, rtype, rcode, authentic) in [
            ("example.", "SOA", "NOERROR", true),
            ("ns1.example.", "AAAA", "NOERROR", true),
            ("ns2.example.", "AAAA", "NOERROR", true),
            ("non-terminal.example.", "A", "NOERROR", true),
            ("anything.wild.example.", "A", "NOERROR", denied),
            ("not-there.example.", "A", "NXDOMAIN", denied),
        ] {
            let answer = resolver.ask(name, rtype)?;
            ensure!(
                answer.rcode == rcode && answer.authentic == authentic,
                "unbound on {name} {rtype}, expected {rcode}, AD {authentic}:\n{}\n{}",
                answer.text,
                resolver.process.log()
            );
        }
        Ok(())
    }
}

fn keeper_spec(
    plan: &Plan,
    store: &TokenStore,
    tokens: &BTreeMap<String, Token>,
) -> Result<KeeperSpec> {
    let mut modules = BTreeMap::from([("softhsm".to_owned(), softhsm_module()?.to_owned())]);
    for (name, shim) in [("zsk-shim", &plan.zsk_module), ("ksk-shim", &plan.ksk_module)] {
        modules.extend(shim.clone().map(|shim| (name.to_owned(), shim)));
    }
    let held = tokens.iter().map(|(name, token)| {
        let group = &name[..3];
        let shim = format!("{group}-shim");
        let module = if modules.contains_key(&shim) { shim } else { "softhsm".to_owned() };
        Held { name: name.clone(), group: group.to_owned(), token: token.clone(), module }
    });
    let held = held.collect();
    let environment =
        BTreeMap::from([("SOFTHSM2_CONF".to_owned(), store.conf.display().to_string())]);
    Ok(KeeperSpec { modules, tokens: held, deadline_ms: plan.deadline_ms, environment })
}

/// The motion that defines the zones' policy.
fn policy(plan: &Plan) -> Vec<String> {
    let algorithm = plan.algorithm.to_string();
    let mut motion = vec!["set-policy", "--name", "default", "--algorithm", &algorithm];
    let bits = plan.rsa_bits.map(|bits| bits.to_string());
    if let Some(bits) = &bits {
        motion.extend(["--rsa-bits", bits]);
    }
    if plan.csk {
        motion.extend(["--keys", "csk", "--ksk-group", "ksk"]);
    } else {
        motion.extend(["--keys", "ksk-zsk", "--ksk-group", "ksk", "--zsk-group", "zsk"]);
    }
    motion.extend(["--denial", plan.denial, "--serial", plan.serial, "--approval", plan.approval]);
    let refresh_s = plan.refresh_s.to_string();
    for (name, value) in [
        ("--dnskey-ttl-s", "3600"),
        ("--ttl-max-s", "86400"),
        ("--validity-s", "1209600"),
        ("--refresh-s", &refresh_s),
        ("--inception-offset-s", "3600"),
    ] {
        motion.extend([name, value]);
    }
    motion.into_iter().map(str::to_owned).collect()
}
