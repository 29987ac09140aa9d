//! The process that meets the network loads no PKCS#11 module and can read no PIN; the one that
//! does has no network socket. They are two users.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::story;
use softhsm_tests::tools::run;
use softhsm_tests::users::{User, command, is_root};

#[test]
fn process_separation() {
    if !is_root() {
        eprintln!("not root: the keeper hides its memory and descriptors from its own user too");
        return;
    }
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        let (keeper, daemon) = (chain.keeper.running()?.pid(), chain.daemon.running()?.pid());

        let maps = |pid: u32| {
            std::fs::read_to_string(format!("/proc/{pid}/maps"))
                .context("reading another user's memory map takes CAP_SYS_PTRACE")
        };
        ensure!(maps(keeper)?.contains("libsofthsm2.so"), "the keeper's own map shows no module");
        let daemons = maps(daemon)?.to_lowercase();
        for word in ["softhsm", "pkcs11", "p11"] {
            ensure!(!daemons.contains(word), "{word} in the daemon's memory map:\n{daemons}");
        }

        ensure!(!inet_sockets(daemon)?.is_empty(), "the daemon's own sockets are not found");
        let found = inet_sockets(keeper)?;
        ensure!(found.is_empty(), "the keeper has network sockets: {found:?}");

        // No secret in argv or in the environment.
        for pid in [keeper, daemon] {
            for file in ["cmdline", "environ"] {
                let text = std::fs::read(format!("/proc/{pid}/{file}"))?;
                let text = String::from_utf8_lossy(&text).into_owned();
                ensure!(!chain.tokens.values().any(|token| text.contains(&token.pin)));
            }
        }
        Ok(())
    });
}

#[test]
fn the_daemons_user_can_read_no_pin_and_no_token() {
    if !is_root() {
        eprintln!("not root: everything is one user here, so nothing is kept from the daemon");
        return;
    }
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        let (keeper, daemon) = (chain.keeper.running()?.pid(), chain.daemon.running()?.pid());
        let uid = |pid: u32| -> Result<String> {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            Ok(status.lines().find(|line| line.starts_with("Uid:")).context("Uid")?.to_owned())
        };
        ensure!(uid(keeper)? != uid(daemon)?, "{} and {}", uid(keeper)?, uid(daemon)?);
        let pin = chain.keeper.dir.join("ksk-a.pin");
        let token = chain.tokens["ksk-a"].dir.join("token.object");
        for path in [&pin, &token, &chain.keeper.ledger] {
            let mut as_daemon = command(User::Daemon, Path::new("/bin/cat"))?;
            ensure!(!run(as_daemon.arg(path))?.status.success(), "{}", path.display());
            let mut as_keeper = command(User::Keeper, Path::new("/bin/cat"))?;
            ensure!(run(as_keeper.arg(path))?.status.success(), "{}", path.display());
        }
        Ok(())
    });
}

/// The process's sockets that are not unix sockets, as /proc/net lists them.
fn inet_sockets(pid: u32) -> Result<Vec<String>> {
    let mut inodes = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor may be closed while we look.
        let Ok(target) = std::fs::read_link(entry?.path()) else { continue };
        let target = target.display().to_string();
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|t| t.strip_suffix(']')) {
            inodes.push(inode.to_owned());
        }
    }
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6", "udplite", "raw", "raw6", "packet", "netlink"] {
        let path = format!("/proc/{pid}/net/{table}");
        for line in std::fs::read_to_string(path).unwrap_or_default().lines().skip(1) {
            if line.split_whitespace().any(|field| inodes.iter().any(|inode| inode == field)) {
                found.push(format!("{table}: {line}"));
            }
        }
    }
    Ok(found)
}

/// What is not linked in can't be called: the daemon's binary holds no PKCS#11 code.
#[test]
fn the_daemons_binary_holds_no_pkcs11() {
    story(|_| {
        let binaries = softhsm_tests::binaries::binaries()?;
        let count = |path: &Path| -> Result<String> {
            let output = run(Command::new("grep").args(["-c", "C_GetFunctionList"]).arg(path))?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        ensure!(count(&binaries.daemon)? == "0", "C_GetFunctionList in countersignd");
        ensure!(count(&binaries.keeper)? != "0", "not even in the keeper: the check finds nothing");
        Ok(())
    });
}
