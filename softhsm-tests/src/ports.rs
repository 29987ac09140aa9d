//! Free loopback ports, also when many stories start at once in processes of their own.
//!
//! Binding port 0 and closing it again hands the same port to two processes now and then. Here
//! each process locks a block of ports for as long as it lives; the kernel frees the lock
//! however the process ends. Blocks lie below the kernel's ephemeral range, so that no outgoing
//! connection sits on one.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::users;

/// First port of the first block.
const FIRST: u16 = 20_000;
/// Ports in a block: a story with everything in it needs about twenty.
const BLOCK: u16 = 60;
/// Blocks; `FIRST + BLOCK * BLOCKS` stays below 32768, where Linux's ephemeral ports begin.
const BLOCKS: u16 = 200;

struct Block {
    _lock: Flock<File>,
    next: u16,
    end: u16,
}

static BLOCK_OF_PROCESS: Mutex<Option<Block>> = Mutex::new(None);

/// A port that is free for UDP and TCP on 127.0.0.1, and that no other story will be given.
pub fn free() -> Result<u16> {
    let mut block = BLOCK_OF_PROCESS.lock().map_err(|_| anyhow::anyhow!("a story panicked"))?;
    let block = match &mut *block {
        Some(block) => block,
        none => none.insert(take_block()?),
    };
    while block.next < block.end {
        let port = block.next;
        block.next += 1;
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(port);
        }
    }
    bail!("this story has used up its {BLOCK} ports")
}

fn take_block() -> Result<Block> {
    let dir = users::shared_dir()?.join("ports");
    std::fs::create_dir_all(&dir)?;
    // Start at a place of our own, so that many processes do not all try block 0 first.
    let start = u16::try_from(std::process::id() % u32::from(BLOCKS))?;
    for step in 0..BLOCKS {
        let index = (start + step) % BLOCKS;
        let path = dir.join(format!("{index}.lock"));
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            let next = FIRST + index * BLOCK;
            return Ok(Block { _lock: lock, next, end: next + BLOCK });
        }
    }
    bail!("all {BLOCKS} blocks of ports are taken (locks in {})", dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_is_free() {
        let ports: Vec<u16> = (0..10).map(|_| free().expect("port")).collect();
        let mut distinct = ports.clone();
        distinct.dedup();
        assert_eq!(ports, distinct);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("free");
        }
    }
}
