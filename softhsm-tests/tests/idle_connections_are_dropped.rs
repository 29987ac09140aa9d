//! A hundred connections that say nothing: dropped in time, and nobody else notices.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::wait::SOON;
use softhsm_tests::{story, zones};

/// Not the peers' address: one address may not hold more than its share of connections.
const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn connect_from(port: u16) -> Result<TcpStream> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(FROM, 0)))?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)))?;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(SOON))?;
    Ok(stream)
}

#[test]
fn a_hundred_idle_connections_are_dropped_and_nobody_notices() {
    story(|scratch| {
        let limits = "[limits]\nhandshake_ms = 3000\nidle_ms = 3000\n";
        let plan = Plan { daemon_more: limits.to_owned(), ..Plan::default() };
        let mut chain = Chain::start(scratch, plan)?;
        let (xot, dns) = (chain.daemon.xot_port, chain.daemon.dns_port);
        let idle: Vec<TcpStream> = (0..100)
            .map(|i| connect_from(if i % 2 == 0 { xot } else { dns }))
            .collect::<Result<_>>()?;

        chain.change_zone(&zones::example_with(2, "added"))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;

        // A read that ends says that the other side has closed; one that times out is an error.
        for mut stream in idle {
            let mut rest = Vec::new();
            match stream.read_to_end(&mut rest) {
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
                Err(e) => ensure!(false, "still open after {:?}: {e}", Duration::from_secs(60)),
            }
        }
        chain.change_zone(&zones::example_with(3, "added"))?;
        chain.wait_for_secondary("serial 3", |serial| serial == 3)?;
        Ok(())
    });
}
