//! A zone's data before it is signed, as octets: what waits for a person, or for the keeper.
//!
//! Integers are big-endian:
//!
//! ```text
//! file    magic "CSGNDATA" · version u16 (1) · apex_len u8 · apex (wire) · record* until the end
//! record  owner_len u8 · owner (wire) · rtype u16 · ttl_s u32 · rdata_len u16 · rdata
//! ```
//!
//! The digest of the file is kept apart from it (`v1::Kept`) and checked before anything of it is
//! used. What is read goes through admission again: it stands for nothing but what a source sent.

use std::io::{self, Read, Write};

use aws_lc_rs::digest;
use countersign_policy::ZoneName;
use countersign_zone::receive::{Bounds, CLASS_IN, ReceivedZone, Receiver};
use countersign_zone::{Packed, Rtype};

const MAGIC: &[u8; 8] = b"CSGNDATA";
const VERSION: u16 = 1;

/// Records of a zone, without signatures.
#[derive(Debug, Clone, Copy)]
pub enum Records<'a> {
    /// As a source sent them.
    Received(&'a ReceivedZone),
    /// As admission left them.
    Admitted(&'a Packed),
}

/// Takes one record: owner, type, TTL, RDATA.
type Take<'a> = &'a mut dyn FnMut(&[u8], Rtype, u32, &[u8]) -> io::Result<()>;

impl Records<'_> {
    fn each(self, take: Take<'_>) -> io::Result<()> {
        match self {
            Self::Received(zone) => {
                for record in zone.iter() {
                    take(record.owner, record.rtype, record.ttl_s, record.rdata)?;
                }
            }
            Self::Admitted(records) => {
                for rrset in records.iter().flat_map(|node| node.rrsets()) {
                    for rdata in rrset.rdatas() {
                        take(rrset.owner(), rrset.rtype(), rrset.ttl_s(), rdata)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Writes all records of `apex`; gives the digest of what was written, and how many there are.
pub(super) fn write(
    apex: &ZoneName,
    records: Records<'_>,
    file: impl Write,
) -> io::Result<([u8; 32], u64)> {
    let mut out = Hashing { inner: io::BufWriter::new(file), hash: hash() };
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_be_bytes())?;
    put_name(&mut out, apex.as_wire())?;
    let mut count = 0;
    records.each(&mut |owner, rtype, ttl_s, rdata| {
        count += 1;
        put_name(&mut out, owner)?;
        out.write_all(&rtype.0.to_be_bytes())?;
        out.write_all(&ttl_s.to_be_bytes())?;
        let len = u16::try_from(rdata.len()).map_err(io::Error::other)?;
        out.write_all(&len.to_be_bytes())?;
        out.write_all(rdata)
    })?;
    out.inner.flush()?;
    Ok((out.hash.finish().as_ref().try_into().map_err(io::Error::other)?, count))
}

fn put_name(out: &mut impl Write, name: &[u8]) -> io::Result<()> {
    out.write_all(&[u8::try_from(name.len()).map_err(io::Error::other)?])?;
    out.write_all(name)
}

/// Reads them back, if the file has this digest.
pub(super) fn read(
    apex: &ZoneName,
    expected: [u8; 32],
    file: impl Read,
) -> Result<ReceivedZone, String> {
    let mut input = Hashing { inner: io::BufReader::new(file), hash: hash() };
    let broken = |error: io::Error| format!("ends early or can't be read: {error}");
    let mut head = [0; 10];
    input.read_exact(&mut head).map_err(broken)?;
    if head[..8] != *MAGIC || head[8..] != VERSION.to_be_bytes() {
        return Err(format!("is not data that was set aside, form {VERSION}"));
    }
    let mut name = Vec::new();
    if !get_name(&mut input, &mut name).map_err(broken)? || name != apex.as_wire() {
        return Err(format!("is of another zone; expected {apex}"));
    }
    // They were within bounds when they came.
    let bounds = Bounds { records_max: usize::MAX, bytes_max: usize::MAX };
    let mut receiver = Receiver::new(apex.clone(), bounds);
    let mut rdata = Vec::new();
    while get_name(&mut input, &mut name).map_err(broken)? {
        let mut fixed = [0; 8];
        input.read_exact(&mut fixed).map_err(broken)?;
        let [r0, r1, t0, t1, t2, t3, l0, l1] = fixed;
        rdata.resize(usize::from(u16::from_be_bytes([l0, l1])), 0);
        input.read_exact(&mut rdata).map_err(broken)?;
        let (rtype, ttl_s) = (u16::from_be_bytes([r0, r1]), u32::from_be_bytes([t0, t1, t2, t3]));
        receiver.push(&name, rtype, CLASS_IN, ttl_s, &rdata).map_err(|error| error.to_string())?;
    }
    if input.hash.finish().as_ref() != expected {
        return Err("its digest differs; the file is damaged".to_owned());
    }
    receiver.finish().map_err(|error| error.to_string())
}

/// `false` at the end of the file.
fn get_name(input: &mut impl Read, name: &mut Vec<u8>) -> io::Result<bool> {
    let mut len = [0];
    if input.read(&mut len)? == 0 {
        return Ok(false);
    }
    name.resize(usize::from(len[0]), 0);
    input.read_exact(name)?;
    Ok(true)
}

fn hash() -> digest::Context {
    digest::Context::new(&digest::SHA256)
}

/// Hashes what passes.
struct Hashing<T> {
    inner: T,
    hash: digest::Context,
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(bytes)?;
        self.hash.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(bytes)?;
        self.hash.update(&bytes[..len]);
        Ok(len)
    }
}
