//! A hidden primary that misbehaves, over proper TLS: no real name server sends what these send.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::pki::Identity;

/// How the transfer goes wrong. SOA queries are always answered well; IXFR with "not implemented", but
/// for the faults that are about it, and then AXFR is answered well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None: the whole zone.
    None,
    /// The connection ends after half the records.
    HalfTransfer,
    /// The last SOA has another serial than the first.
    OtherClosingSoa,
    /// The answer is to another question.
    OtherQuestion,
    /// An owner name is a compression pointer to itself.
    CompressionLoop,
    /// One octet at a time, forever short of the end.
    Drip,
    /// Records without end.
    Endless,
    /// A record that lies outside the zone.
    OutOfZone,
    /// None: true differences.
    Differences,
    /// Differences that begin at a serial before the one asked with.
    DifferencesOfOthers,
    /// Differences that delete a record that was never there.
    DeletesMissing,
    /// Differences that add a record that is there.
    AddsPresent,
    /// Differences that add records without end.
    EndlessDifferences,
    /// The connection ends within the differences.
    HalfDifferences,
    /// Differences that end in a SOA of another serial than they began with.
    OtherClosingDifferences,
}

impl Fault {
    /// Whether it is about IXFR.
    pub fn is_about_ixfr(self) -> bool {
        matches!(
            self,
            Self::Differences
                | Self::DifferencesOfOthers
                | Self::DeletesMissing
                | Self::AddsPresent
                | Self::EndlessDifferences
                | Self::HalfDifferences
                | Self::OtherClosingDifferences
        )
    }
}

const TYPE_A: u16 = 1;
const TYPE_NS: u16 = 2;
const TYPE_SOA: u16 = 6;
const TYPE_IXFR: u16 = 251;
const TYPE_AXFR: u16 = 252;
const NOTIMP: u8 = 4;

/// How long one octet takes to come when dripping.
const DRIP_EVERY: Duration = Duration::from_secs(1);

/// The fake. It stops when dropped.
#[derive(Debug)]
pub struct FakePrimary {
    /// Where it listens.
    pub port: u16,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    /// What goes wrong, and the serial.
    fault: Mutex<(Fault, u32)>,
    transfers: AtomicUsize,
    differences: AtomicUsize,
    stopping: AtomicBool,
}

impl FakePrimary {
    /// Starts it on `port` with a certificate of its own, asking for one of `client_ca`. It gives
    /// a whole zone with serial 1 until [`Self::set`].
    pub fn start(port: u16, identity: &Identity, client_ca: &Path) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(client_ca)?)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_file(&identity.cert)?],
                PrivateKeyDer::from_pem_file(&identity.key)?,
            )?;
        config.alpn_protocols = vec![b"dot".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let state = Arc::new(State {
            fault: Mutex::new((Fault::None, 1)),
            transfers: AtomicUsize::new(0),
            differences: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), config, state) = (stream, config.clone(), shared.clone()) else {
                    continue;
                };
                // A connection that breaks is the other side's right.
                std::thread::spawn(move || drop(serve(stream, config, &state)));
            }
        });
        Ok(Self { port, state, thread: Some(thread) })
    }

    /// Has a new serial, and misbehaves otherwise, from the next transfer on.
    pub fn set(&self, fault: Fault, serial: u32) {
        *self.state.fault.lock().unwrap_or_else(PoisonError::into_inner) = (fault, serial);
        self.state.transfers.store(0, Ordering::SeqCst);
        self.state.differences.store(0, Ordering::SeqCst);
    }

    /// Times that differences were asked for since the fault was set.
    pub fn asked_for_differences(&self) -> usize {
        self.state.differences.load(Ordering::SeqCst)
    }

    /// Transfers begun since the fault was set.
    pub fn transfers(&self) -> usize {
        self.state.transfers.load(Ordering::SeqCst)
    }
}

impl Drop for FakePrimary {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, state: &State) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut tls = StreamOwned::new(ServerConnection::new(config)?, stream);
    loop {
        let mut length = [0; 2];
        tls.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        tls.read_exact(&mut query)?;
        let question = Question::read(&query).context("a query with one question")?;
        let (fault, serial) = *state.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if question.rtype == TYPE_SOA {
            send(&mut tls, &message(&question, &[soa(serial)]))?;
        } else if question.rtype == TYPE_AXFR {
            state.transfers.fetch_add(1, Ordering::SeqCst);
            transfer(&mut tls, &question, (fault, serial), state)?;
            if fault == Fault::HalfTransfer {
                return Ok(());
            }
        } else if question.rtype == TYPE_IXFR {
            state.differences.fetch_add(1, Ordering::SeqCst);
            let theirs = query.last_chunk::<20>().context("a SOA")?;
            let theirs = u32::from_be_bytes([theirs[0], theirs[1], theirs[2], theirs[3]]);
            differences(&mut tls, &question, (fault, serial, theirs), state)?;
            if fault == Fault::HalfDifferences {
                return Ok(());
            }
        } else {
            return Ok(());
        }
    }
}

/// The first 12 octets' id, and the question as it came.
struct Question {
    id: [u8; 2],
    wire: Vec<u8>,
    rtype: u16,
}

impl Question {
    fn read(query: &[u8]) -> Option<Self> {
        let mut at = 12;
        while *query.get(at)? != 0 {
            at += 1 + usize::from(query[at]);
        }
        let wire = query.get(12..at + 5)?.to_vec();
        let rtype = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        Some(Self { id: [query[0], query[1]], wire, rtype })
    }
}

fn transfer(
    out: &mut impl Write,
    question: &Question,
    (fault, serial): (Fault, u32),
    state: &State,
) -> Result<()> {
    let body = [ns(), host("ns1"), host("ns2"), host("faked")].concat();
    let records = [ns(), host("ns1"), host("ns2"), host("faked")];
    let whole = |closing: u32| {
        let mut all = vec![soa(serial)];
        all.extend(records.iter().cloned());
        all.push(soa(closing));
        all
    };
    match fault {
        Fault::None => send(out, &message(question, &whole(serial))),
        about_ixfr if about_ixfr.is_about_ixfr() => send(out, &message(question, &whole(serial))),
        Fault::OtherClosingSoa => send(out, &message(question, &whole(serial + 1))),
        Fault::HalfTransfer => send(out, &message(question, &[soa(serial), body])),
        Fault::OtherQuestion => {
            let other = Question {
                id: question.id,
                wire: [&b"\x05other\x00"[..], &TYPE_AXFR.to_be_bytes(), &[0, 1]].concat(),
                rtype: TYPE_AXFR,
            };
            send(out, &message(&other, &whole(serial)))
        }
        Fault::CompressionLoop => {
            let mut looping = message(question, &[soa(serial)]);
            let at = looping.len() as u16;
            let mut record = (0xc000 | at).to_be_bytes().to_vec();
            record.extend(rest(TYPE_A, &[192, 0, 2, 9]));
            looping.extend(record);
            looping[7] = 2;
            send(out, &looping)
        }
        Fault::OutOfZone => {
            let mut all = whole(serial);
            all.insert(2, [&b"\x04evil\x04test\x00"[..], &rest(TYPE_A, &[192, 0, 2, 9])].concat());
            send(out, &message(question, &all))
        }
        Fault::Drip => {
            let message = message(question, &whole(serial));
            let mut framed = (message.len() as u16).to_be_bytes().to_vec();
            framed.extend(message);
            for octet in framed {
                if state.stopping.load(Ordering::SeqCst) {
                    break;
                }
                out.write_all(&[octet])?;
                out.flush()?;
                std::thread::park_timeout(DRIP_EVERY);
            }
            Ok(())
        }
        Fault::Endless => {
            send(out, &message(question, &[soa(serial), ns(), host("ns1"), host("ns2")]))?;
            for number in 0_u64.. {
                if state.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let hosts: Vec<_> =
                    (0..500).map(|i| host(&format!("h{}", number * 500 + i))).collect();
                send(out, &message(question, &hosts))?;
            }
            Ok(())
        }
        _ => bail!("{fault:?} is not about AXFR"),
    }
}

/// Answers IXFR that was asked with serial `theirs`. From one serial to the next only the SOA changes.
fn differences(
    out: &mut impl Write,
    question: &Question,
    (fault, serial, theirs): (Fault, u32, u32),
    state: &State,
) -> Result<()> {
    let (old, new) = (soa(theirs), soa(serial));
    let answer = |records: &[&Vec<u8>]| {
        let records: Vec<_> = records.iter().map(|record| (*record).clone()).collect();
        message(question, &records)
    };
    let records = match fault {
        Fault::Differences => answer(&[&new, &old, &new, &new]),
        Fault::DifferencesOfOthers => answer(&[&new, &soa(theirs - 1), &new, &new]),
        Fault::DeletesMissing => answer(&[&new, &old, &host("missing"), &new, &new]),
        Fault::AddsPresent => answer(&[&new, &old, &new, &host("faked"), &new]),
        Fault::HalfDifferences => answer(&[&new, &old, &host("faked")]),
        Fault::OtherClosingDifferences => answer(&[&new, &old, &new, &soa(serial + 1)]),
        Fault::EndlessDifferences => {
            send(out, &answer(&[&new, &old, &new]))?;
            for number in 0_u64.. {
                if state.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let hosts: Vec<_> =
                    (0..500).map(|i| host(&format!("h{}", number * 500 + i))).collect();
                send(out, &message(question, &hosts))?;
            }
            return Ok(());
        }
        _ => {
            let mut refused = answer(&[]);
            refused[3] |= NOTIMP;
            refused
        }
    };
    send(out, &records)
}

fn send(out: &mut impl Write, message: &[u8]) -> Result<()> {
    out.write_all(&u16::try_from(message.len())?.to_be_bytes())?;
    out.write_all(message)?;
    Ok(out.flush()?)
}

/// An authoritative answer with `records`, none of them compressed. A record may be several run
/// together: only the count in the header tells them apart, so they are counted by their parts.
fn message(question: &Question, records: &[Vec<u8>]) -> Vec<u8> {
    let count: u16 = records.iter().map(|record| count_records(record)).sum();
    let mut message = question.id.to_vec();
    message.extend([0x84, 0x00, 0, 1]);
    message.extend(count.to_be_bytes());
    message.extend([0, 0, 0, 0]);
    message.extend(&question.wire);
    for record in records {
        message.extend(record);
    }
    message
}

fn count_records(mut wire: &[u8]) -> u16 {
    let mut count = 0;
    while !wire.is_empty() {
        let name: usize = {
            let mut at = 0;
            while wire[at] != 0 {
                at += 1 + usize::from(wire[at]);
            }
            at + 1
        };
        let length = usize::from(u16::from_be_bytes([wire[name + 8], wire[name + 9]]));
        wire = &wire[name + 10 + length..];
        count += 1;
    }
    count
}

fn rest(rtype: u16, rdata: &[u8]) -> Vec<u8> {
    let mut wire = rtype.to_be_bytes().to_vec();
    wire.extend([0, 1]);
    wire.extend(300_u32.to_be_bytes());
    wire.extend((rdata.len() as u16).to_be_bytes());
    wire.extend(rdata);
    wire
}

fn soa(serial: u32) -> Vec<u8> {
    let mut rdata = b"\x03ns1\x07example\x00\x01h\x07example\x00".to_vec();
    for number in [serial, 3600, 600, 604_800, 120] {
        rdata.extend(number.to_be_bytes());
    }
    [&b"\x07example\x00"[..], &rest(TYPE_SOA, &rdata)].concat()
}

fn ns() -> Vec<u8> {
    [&b"\x07example\x00"[..], &rest(TYPE_NS, b"\x03ns1\x07example\x00")].concat()
}

fn host(label: &str) -> Vec<u8> {
    let mut wire = vec![label.len() as u8];
    wire.extend(label.as_bytes());
    wire.extend(b"\x07example\x00");
    wire.extend(rest(TYPE_A, &[192, 0, 2, 1]));
    wire
}
