//! NSD 4.6 as a second make of secondary over XoT.

use anyhow::Result;

use crate::bind::SecondarySpec;
use crate::process::Process;
use crate::scratch::{Scratch, write};
use crate::tools::daemon;
use crate::users::{User, command};

/// A public secondary.
#[derive(Debug)]
pub struct Nsd {
    /// The process.
    pub process: Process,
    /// Where it answers queries, transfers and NOTIFY in clear.
    pub port: u16,
}

impl Nsd {
    /// Starts it; it serves the zone once it has got it. NSD 4.6 shows no certificate on the
    /// first connection after its start: that one fails, and a NOTIFY brings the next.
    pub fn start(scratch: &Scratch, spec: &SecondarySpec<'_>) -> Result<Self> {
        let tls = format!("  tls-cert-bundle: \"{}\"\n", spec.server_ca.display());
        let clauses = format!(
            r#"tls-auth:
  name: "signer"
  auth-domain-name: "{server}"
  client-cert: "{cert}"
  client-key: "{key}"
zone:
  name: "{zone}"
  zonefile: "zone"
  request-xfr: 127.0.0.1@{server_port} NOKEY "signer"
  allow-notify: 127.0.0.1 NOKEY
  provide-xfr: 127.0.0.1 NOKEY
  min-retry-time: 1
  max-retry-time: 2
"#,
            server = spec.server_name,
            cert = spec.identity.cert.display(),
            key = spec.identity.key.display(),
            zone = spec.zone,
            server_port = spec.server_port,
        );
        let process = run(scratch, spec.name, spec.port, &tls, &clauses)?;
        Ok(Self { process, port: spec.port })
    }
}

/// Runs an NSD in a directory `name` of its own, on `port` of 127.0.0.1, with more lines of the
/// `server:` clause and whatever clauses follow it.
pub fn run(
    scratch: &Scratch,
    name: &str,
    port: u16,
    server: &str,
    clauses: &str,
) -> Result<Process> {
    let dir = scratch.dir(name, User::Harness, 0o755)?;
    let at = dir.display();
    let conf = format!(
        r#"server:
  ip-address: 127.0.0.1@{port}
  zonesdir: "{at}"
  zonelistfile: "{at}/zone.list"
  xfrdfile: "{at}/xfrd.state"
  xfrdir: "{at}"
  database: ""
  pidfile: ""
  username: ""
  verbosity: 2
  server-count: 1
  xfrd-reload-timeout: 0
{server}remote-control:
  control-enable: no
{clauses}"#
    );
    let path = dir.join("nsd.conf");
    // It may hold a key.
    write(&path, &conf, User::Harness, 0o600)?;
    let mut command = command(User::Harness, &daemon("nsd")?)?;
    command.args(["-d", "-c"]).arg(&path);
    Process::spawn(name, command, &dir.join("nsd.log"))
}
