//! unbound, validating, with the zone's own trust anchor: what the world's resolvers would say.

use anyhow::Result;

use crate::ports;
use crate::process::Process;
use crate::query::{self, Answer};
use crate::scratch::{Scratch, write};
use crate::tools::daemon;
use crate::users::{User, command};
use crate::wait::{SOON, until};

/// A validating resolver that knows one zone.
#[derive(Debug)]
pub struct Resolver {
    /// The process.
    pub process: Process,
    port: u16,
}

/// The config lines in which resolvers differ.
struct Setup {
    modules: &'static str,
    cache: &'static str,
    zone: String,
}

const VALIDATING: &str = "validator iterator";
/// A story asks again after a change: nothing may answer from yesterday's cache.
const NO_CACHE: &str = "cache-max-ttl: 0\n  cache-max-negative-ttl: 0";
/// As the world's resolvers have it; but what is not there is to be asked for each time, and not
/// concluded from other answers.
const CACHE: &str = "aggressive-nsec: no";

/// A zone, and the port of 127.0.0.1 where a name server has it.
pub type Served<'a> = (&'a str, u16);

impl Resolver {
    /// Starts it in front of a name server, and waits until it answers. `anchor` is the zone's DS
    /// RRset in presentation form. It keeps no answer.
    pub fn start(scratch: &Scratch, name: &str, at: Served<'_>, anchor: &str) -> Result<Self> {
        Self::in_front(scratch, name, at, anchor, (VALIDATING, NO_CACHE))
    }

    /// The same, with a cache.
    pub fn start_caching(
        scratch: &Scratch,
        name: &str,
        at: Served<'_>,
        anchor: &str,
    ) -> Result<Self> {
        Self::in_front(scratch, name, at, anchor, (VALIDATING, CACHE))
    }

    /// One that keeps answers and their signatures, and leaves it to others to look at them.
    pub fn start_trusting(scratch: &Scratch, name: &str, at: Served<'_>) -> Result<Self> {
        Self::in_front(scratch, name, at, "", ("iterator", CACHE))
    }

    fn in_front(
        scratch: &Scratch,
        name: &str,
        (zone, server_port): Served<'_>,
        anchor: &str,
        (modules, cache): (&'static str, &'static str),
    ) -> Result<Self> {
        let setup = Setup { modules, cache, zone: served(zone, server_port) };
        Self::start_with(scratch, name, anchor, &setup)
    }

    /// A validating one that asks another resolver and keeps no answer itself.
    pub fn start_behind(
        scratch: &Scratch,
        name: &str,
        zone: &str,
        other: &Self,
        anchor: &str,
    ) -> Result<Self> {
        let zone =
            format!("forward-zone:\n  name: \"{zone}\"\n  forward-addr: 127.0.0.1@{}", other.port);
        let setup = Setup { modules: VALIDATING, cache: NO_CACHE, zone };
        Self::start_with(scratch, name, anchor, &setup)
    }

    fn start_with(scratch: &Scratch, name: &str, anchor: &str, setup: &Setup) -> Result<Self> {
        let Setup { modules, cache, zone } = setup;
        let dir = scratch.dir(name, User::Harness, 0o755)?;
        let at = dir.display();
        let port = ports::free()?;
        write(&dir.join("anchor.ds"), anchor, User::Harness, 0o644)?;
        let conf = format!(
            r#"server:
  interface: 127.0.0.1@{port}
  access-control: 127.0.0.0/8 allow
  directory: "{at}"
  pidfile: ""
  chroot: ""
  username: ""
  use-syslog: no
  logfile: ""
  verbosity: 1
  val-log-level: 2
  num-threads: 1
  do-ip6: no
  do-not-query-localhost: no
  trust-anchor-signaling: no
  module-config: "{modules}"
  trust-anchor-file: "{at}/anchor.ds"
  ede: yes
  {cache}
remote-control:
  control-enable: no
{zone}
"#
        );
        let path = dir.join("unbound.conf");
        write(&path, &conf, User::Harness, 0o644)?;
        let mut command = command(User::Harness, &daemon("unbound")?)?;
        command.args(["-d", "-c"]).arg(&path);
        let process = Process::spawn(name, command, &dir.join("unbound.log"))?;
        let mut resolver = Self { process, port };
        until("the resolver's answer", SOON, || {
            resolver.process.check_running()?;
            resolver.ask("localhost.", "A")
        })?;
        Ok(resolver)
    }

    /// Asks with the DO bit.
    pub fn ask(&self, name: &str, rtype: &str) -> Result<Answer> {
        query::ask(self.port, name, rtype)
    }
}

/// Where the zone is served.
fn served(zone: &str, port: u16) -> String {
    format!("stub-zone:\n  name: \"{zone}\"\n  stub-addr: 127.0.0.1@{port}")
}
