//! BIND and NSD with TSIG, as those set it up whose other end has no client certificate: over TCP in
//! clear, or over TLS with a certificate of the server alone.

use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::bind::{OPTIONS, named};
use crate::pki::Identity;
use crate::process::Process;
use crate::scratch::{Scratch, write};
use crate::tsig::{ALGORITHM, Key, PrimarySpec, SecondarySpec};
use crate::users::User;
use crate::wait::{SOON, until};
use crate::{nsd, ports, query};

/// A name server with one zone. It answers queries in clear.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Process,
    /// Where it listens, UDP and TCP.
    pub port: u16,
    zone: String,
    zone_file: PathBuf,
}

/// BIND as a hidden primary; its messages are small, so that a transfer has many. With a certificate it
/// serves over TLS too, at the second port, and asks for none.
pub fn bind_primary(
    scratch: &Scratch,
    spec: &PrimarySpec<'_>,
    tls: Option<(&Identity, u16)>,
) -> Result<Server> {
    let dir = scratch.dir(spec.name, User::Harness, 0o755)?;
    let (port, zone_file) = (ports::free()?, dir.join("zone"));
    let (tls, with_tls) = tls.map_or_else(Default::default, |(identity, port)| {
        let tls = format!(
            "tls srv {{ cert-file \"{}\"; key-file \"{}\"; protocols {{ TLSv1.3; }}; }};\n",
            identity.cert.display(),
            identity.key.display()
        );
        (tls, format!("listen-on port {port} tls srv {{ 127.0.0.1; }};"))
    });
    write(&zone_file, spec.content, User::Harness, 0o644)?;
    let conf = format!(
        r#"{key}{tls}options {{ {OPTIONS} directory "{dir}"; listen-on port {port} {{ 127.0.0.1; }};
  {with_tls} transfer-message-size 512; allow-transfer {{ key "{name}"; }};
  notify explicit; also-notify {{ 127.0.0.1 port {notify} key "{name}"; }}; }};
controls {{ }};
zone "{zone}" {{ type primary; file "{file}"; }};
"#,
        key = spec.key.clause(),
        dir = dir.display(),
        name = spec.key.name,
        notify = spec.notify_port,
        zone = spec.zone,
        file = zone_file.display(),
    );
    let process = named(&dir, spec.name, &conf)?;
    let mut server = Server { process, port, zone: spec.zone.to_owned(), zone_file };
    until("the primary's answer", SOON, || {
        server.process.check_running()?;
        server.serial()
    })?;
    Ok(server)
}

/// BIND as a secondary: over TCP, or over TLS without a certificate of its own.
pub fn bind_secondary(
    scratch: &Scratch,
    spec: &SecondarySpec<'_>,
    tls: Option<(&Path, &str)>,
) -> Result<Server> {
    let dir = scratch.dir(spec.name, User::Harness, 0o755)?;
    let (tls, with_tls) = tls.map_or_else(Default::default, |(ca, name)| {
        let tls = format!(
            "tls cli {{ ca-file \"{}\"; remote-hostname \"{name}\"; protocols {{ TLSv1.3; }}; }};\n",
            ca.display()
        );
        (tls, " tls cli")
    });
    let conf = format!(
        r#"{key}{tls}options {{ {OPTIONS} directory "{dir}"; listen-on port {port} {{ 127.0.0.1; }};
  allow-transfer {{ 127.0.0.1; }}; notify no; min-refresh-time 1; min-retry-time 1; max-retry-time 2; }};
controls {{ }};
zone "{zone}" {{ type secondary; file "zone"; masterfile-format text;
  primaries {{ 127.0.0.1 port {server} key "{name}"{with_tls}; }}; allow-notify {{ key "{name}"; }}; }};
"#,
        key = spec.key.clause(),
        dir = dir.display(),
        port = spec.port,
        zone = spec.zone,
        server = spec.server_port,
        name = spec.key.name,
    );
    let process = named(&dir, spec.name, &conf)?;
    let zone_file = dir.join("zone");
    Ok(Server { process, port: spec.port, zone: spec.zone.to_owned(), zone_file })
}

/// NSD as a hidden primary.
pub fn nsd_primary(scratch: &Scratch, spec: &PrimarySpec<'_>) -> Result<Server> {
    let (port, zone_file) = (ports::free()?, scratch.path().join(spec.name).join("zone"));
    scratch.dir(spec.name, User::Harness, 0o755)?;
    write(&zone_file, spec.content, User::Harness, 0o644)?;
    let clauses = format!(
        r#"{key}zone:
  name: "{zone}"
  zonefile: "zone"
  notify: 127.0.0.1@{notify} {name}
  provide-xfr: 127.0.0.1 {name}
"#,
        key = nsd_key(spec.key),
        name = spec.key.name,
        zone = spec.zone,
        notify = spec.notify_port,
    );
    let process = nsd::run(scratch, spec.name, port, "", &clauses)?;
    let mut server = Server { process, port, zone: spec.zone.to_owned(), zone_file };
    until("the primary's answer", SOON, || {
        server.process.check_running()?;
        server.serial()
    })?;
    Ok(server)
}

/// NSD as a secondary.
pub fn nsd_secondary(scratch: &Scratch, spec: &SecondarySpec<'_>) -> Result<Server> {
    let clauses = format!(
        r#"{key}zone:
  name: "{zone}"
  zonefile: "zone"
  request-xfr: AXFR 127.0.0.1@{server} {name}
  allow-notify: 127.0.0.1 {name}
  provide-xfr: 127.0.0.1 NOKEY
  min-retry-time: 1
  max-retry-time: 2
"#,
        key = nsd_key(spec.key),
        name = spec.key.name,
        zone = spec.zone,
        server = spec.server_port,
    );
    let process = nsd::run(scratch, spec.name, spec.port, "", &clauses)?;
    let zone_file = scratch.path().join(spec.name).join("zone");
    Ok(Server { process, port: spec.port, zone: spec.zone.to_owned(), zone_file })
}

fn nsd_key(key: &Key) -> String {
    let Key { name, secret } = key;
    format!("key:\n  name: \"{name}\"\n  algorithm: {ALGORITHM}\n  secret: \"{secret}\"\n")
}

impl Server {
    /// The serial that it serves.
    pub fn serial(&self) -> Result<u32> {
        query::serial(self.port, &self.zone)
    }

    /// Replaces a primary's master file and has it read, as an operator does.
    pub fn replace_zone(&self, content: &str) -> Result<()> {
        write(&self.zone_file, content, User::Harness, 0o644)?;
        self.process.signal(Signal::SIGHUP)
    }
}
