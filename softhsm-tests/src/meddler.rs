//! Someone in the middle of a TCP connection, who does one thing to the messages that come back.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

/// What is done to the answers to a transfer query, the first of which is number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meddling {
    /// Nothing.
    None,
    /// One octet of this message is changed.
    Alter(usize),
    /// This message never arrives.
    Drop(usize),
    /// This message and the next change places.
    Swap(usize),
    /// This message arrives twice.
    Repeat(usize),
    /// The connection ends before this message.
    CutBefore(usize),
    /// This message loses its last record, which is its TSIG.
    Unsign(usize),
}

const TYPE_IXFR: u16 = 251;
const TYPE_AXFR: u16 = 252;
/// Nobody is waited for longer, so that no thread stays.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Stands between whoever connects to `port` and a server. It stops when dropped.
#[derive(Debug)]
pub struct Meddler {
    /// Where it listens.
    pub port: u16,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    server: u16,
    meddling: Mutex<Meddling>,
    meddled: AtomicUsize,
    stopping: AtomicBool,
}

impl Meddler {
    /// Starts it on `port`, in front of the server's.
    pub fn start(port: u16, server: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let state = Arc::new(State {
            server,
            meddling: Mutex::new(Meddling::None),
            meddled: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), state) = (stream, shared.clone()) else { continue };
                // A connection that breaks is either side's right.
                std::thread::spawn(move || drop(relay(&stream, &state)));
            }
        });
        Ok(Self { port, state, thread: Some(thread) })
    }

    /// Does this from the next transfer on.
    pub fn set(&self, meddling: Meddling) {
        *self.state.meddling.lock().unwrap_or_else(PoisonError::into_inner) = meddling;
        self.state.meddled.store(0, Ordering::SeqCst);
    }

    /// How often it was done.
    pub fn meddled(&self) -> usize {
        self.state.meddled.load(Ordering::SeqCst)
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn relay(client: &TcpStream, state: &Arc<State>) -> Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, state.server))?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IDLE_MAX))?;
    }
    // Whether what comes back answers a transfer query, and how many of its messages have.
    let transfer = Arc::new(AtomicBool::new(false));
    let back = {
        let (server, client) = (server.try_clone()?, client.try_clone()?);
        let (transfer, state) = (transfer.clone(), state.clone());
        std::thread::spawn(move || {
            let _ = answers(&server, &client, &transfer, &state);
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        })
    };
    let (mut from, mut to) = (client, &server);
    while let Ok(query) = message(&mut from) {
        let is_transfer = matches!(qtype(&query), Some(TYPE_IXFR | TYPE_AXFR));
        transfer.store(is_transfer, Ordering::SeqCst);
        send(&mut to, &query)?;
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = back.join();
    Ok(())
}

fn answers(
    mut server: &TcpStream,
    mut client: &TcpStream,
    transfer: &AtomicBool,
    state: &State,
) -> Result<()> {
    let mut number = 0;
    let mut held: Option<Vec<u8>> = None;
    loop {
        let mut answer = message(&mut server)?;
        if !transfer.load(Ordering::SeqCst) {
            number = 0;
            send(&mut client, &answer)?;
            continue;
        }
        let meddling = *state.meddling.lock().unwrap_or_else(PoisonError::into_inner);
        let done = || state.meddled.fetch_add(1, Ordering::SeqCst);
        match meddling {
            Meddling::Alter(at) if at == number => {
                // In the middle of the records: neither header nor TSIG.
                let middle = answer.len() / 2;
                answer[middle] ^= 1;
                done();
            }
            Meddling::Drop(at) if at == number => {
                done();
                number += 1;
                continue;
            }
            Meddling::Swap(at) if at == number => {
                held = Some(answer);
                number += 1;
                continue;
            }
            Meddling::Repeat(at) if at == number => {
                send(&mut client, &answer)?;
                done();
            }
            Meddling::CutBefore(at) if at == number => {
                done();
                return Ok(());
            }
            Meddling::Unsign(at) if at == number => {
                unsign(&mut answer);
                done();
            }
            _ => {}
        }
        send(&mut client, &answer)?;
        if let Some(earlier) = held.take() {
            send(&mut client, &earlier)?;
            done();
        }
        number += 1;
    }
}

fn message(from: &mut impl Read) -> Result<Vec<u8>> {
    let mut length = [0; 2];
    from.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    from.read_exact(&mut message)?;
    Ok(message)
}

fn send(to: &mut impl Write, message: &[u8]) -> Result<()> {
    let mut framed = u16::try_from(message.len())?.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    Ok(to.write_all(&framed)?)
}

fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            len => at += 1 + usize::from(len),
        }
    }
}

fn qtype(query: &[u8]) -> Option<u16> {
    let at = name_end(query, 12)?;
    Some(u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]))
}

/// Takes the last record off.
fn unsign(message: &mut Vec<u8>) {
    let count = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    let (questions, records) = (count(4), count(6) + count(8) + count(10));
    let additional = count(10).saturating_sub(1);
    let mut at = 12;
    for _ in 0..questions {
        at = name_end(message, at).map_or(message.len(), |end| end + 4);
    }
    let mut last = at;
    for _ in 0..records {
        last = at;
        let Some(end) = name_end(message, at) else { return };
        at = end + 10 + usize::from(count(end + 8));
    }
    message.truncate(last);
    message[10..12].copy_from_slice(&additional.to_be_bytes());
}
