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

impl Resolver {
    /// Starts it in front of the name server on `server_port`, and waits until it answers.
    /// `anchor` is the zone's DS RRset in presentation form.
    pub fn start(
        scratch: &Scratch,
        name: &str,
        zone: &str,
        server_port: u16,
        anchor: &str,
    ) -> Result<Self> {
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
  module-config: "validator iterator"
  trust-anchor-file: "{at}/anchor.ds"
  ede: yes
  # A story asks again after a change: nothing may answer from yesterday's cache.
  cache-max-ttl: 0
  cache-max-negative-ttl: 0
remote-control:
  control-enable: no
stub-zone:
  name: "{zone}"
  stub-addr: 127.0.0.1@{server_port}
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
