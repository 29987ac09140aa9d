//! Random zones and random edits of them, from a seed that is shown, so that what failed can be run
//! again.
//!
//! Owners change their case, names in RDATA don't: BIND 9.18 takes an update that changes nothing else,
//! shows it in AXFR, and leaves it out of IXFR.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::zones::ZONE;

/// The environment variable that replays a run.
pub const SEED: &str = "COUNTERSIGN_SEED";

/// Whether what counts random steps runs with its whole numbers.
pub fn long() -> bool {
    std::env::var_os("COUNTERSIGN_LONG").is_some()
}

/// Random numbers (`SplitMix64`): the same for the same seed, on every machine.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From [`SEED`], or of the moment; the seed is printed.
    pub fn shown() -> Result<Self> {
        let seed = match std::env::var(SEED) {
            Ok(text) => text.parse().with_context(|| format!("{SEED}={text}"))?,
            Err(_) => u64::from(std::process::id()) << 32 | u64::from(jiffies()),
        };
        eprintln!("replay with {SEED}={seed}");
        Ok(Self(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A name in some case.
    fn spell(&mut self, name: &str) -> String {
        if self.below(3) > 0 {
            return name.to_owned();
        }
        let letter = |dice: &mut Self, c: char| {
            if dice.below(2) == 0 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
        };
        name.chars().map(|c| letter(self, c)).collect()
    }
}

fn jiffies() -> u32 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.subsec_nanos()
}

/// An RRset as a person would write it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rrset {
    owner: String,
    ttl_s: u32,
    rdatas: BTreeSet<String>,
}

/// A zone: by owner in lower case, and type. Its serial is the story's affair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    rrsets: BTreeMap<(String, &'static str), Rrset>,
}

/// Types of hosts' records.
const TYPES: [&str; 6] = ["A", "AAAA", "TXT", "MX", "CAA", "TYPE65280"];

impl Model {
    /// A few names, and what every zone has.
    pub fn new(dice: &mut Dice) -> Self {
        let mut model = Self::default();
        model.put(ZONE, "NS", 300, ["ns1.example."]);
        model.put("Ns1.example.", "A", 300, ["192.0.2.1"]);
        for _ in 0..20 {
            model.change(dice);
        }
        model
    }

    fn put<'a>(
        &mut self,
        owner: &str,
        rtype: &'static str,
        ttl_s: u32,
        rdatas: impl IntoIterator<Item = &'a str>,
    ) {
        let rdatas = rdatas.into_iter().map(str::to_owned).collect();
        let rrset = Rrset { owner: owner.to_owned(), ttl_s, rdatas };
        self.rrsets.insert((owner.to_lowercase(), rtype), rrset);
    }

    /// Changes a few things.
    pub fn edit(&mut self, dice: &mut Dice) {
        for _ in 0..=dice.below(6) {
            self.change(dice);
        }
    }

    fn change(&mut self, dice: &mut Dice) {
        match dice.below(10) {
            0 => self.delegation(dice),
            1 => {
                let owner = format!("c{}.example.", dice.below(4));
                let target = *dice.pick(&["one.Elsewhere.test.", "TWO.elsewhere.test."]);
                self.toggle(dice, &owner, "CNAME", target);
            }
            2 => {
                let owner = format!("*.w{}.example.", dice.below(3));
                let text = format!("\"{}\"", dice.below(100));
                self.toggle(dice, &owner, "TXT", &text);
            }
            _ => self.host(dice),
        }
    }

    /// Puts in an RRset of one record, or takes it out.
    fn toggle(&mut self, dice: &mut Dice, owner: &str, rtype: &'static str, rdata: &str) {
        if self.rrsets.remove(&(owner.to_owned(), rtype)).is_none() {
            let owner = dice.spell(owner);
            self.put(&owner, rtype, 60, [rdata]);
        }
    }

    /// A delegation with or without DS, or none.
    fn delegation(&mut self, dice: &mut Dice) {
        let owner = format!("d{}.example.", dice.below(5));
        for rtype in ["NS", "DS"] {
            self.rrsets.remove(&(owner.clone(), rtype));
        }
        let kind = dice.below(3);
        if kind > 0 {
            let server = *dice.pick(&["nS1.elsewhere.test.", "ns2.ELSEWHERE.test."]);
            self.put(&owner, "NS", 300, [server]);
        }
        if kind > 1 {
            let digest = format!("{:040X}", dice.below(1 << 30));
            self.put(&owner, "DS", 300, [format!("4711 13 1 {digest}").as_str()]);
        }
    }

    fn host(&mut self, dice: &mut Dice) {
        let owner = match dice.below(12) {
            0 => ZONE.to_owned(),
            1 => format!("a.b{}.deep.example.", dice.below(2)),
            _ => format!("h{}.example.", dice.below(12)),
        };
        let rtype = *dice.pick(&TYPES);
        let rdata = rdata(dice, rtype);
        let key = (owner.clone(), rtype);
        let Some(rrset) = self.rrsets.get_mut(&key) else {
            let owner = dice.spell(&owner);
            return self.put(&owner, rtype, 300, [rdata.as_str()]);
        };
        match dice.below(6) {
            0 => rrset.ttl_s = 60 + dice.below(4) as u32,
            1 => rrset.owner = dice.spell(&owner),
            2 => {
                self.rrsets.remove(&key);
            }
            3 => {
                rrset.rdatas.pop_first();
                if rrset.rdatas.is_empty() {
                    self.rrsets.remove(&key);
                }
            }
            _ => {
                rrset.rdatas.insert(rdata);
            }
        }
    }

    /// The zone's SOA record.
    fn soa(serial: u32) -> String {
        format!("{ZONE} 300 IN SOA ns1.example. Host.example. {serial} 3600 600 604800 120")
    }

    /// As a zone file.
    pub fn zone_file(&self, serial: u32) -> String {
        let mut text = format!("{}\n", Self::soa(serial));
        for line in self.lines() {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// Its records but for the SOA, as dig prints them, with one space between the fields.
    pub fn lines(&self) -> BTreeSet<String> {
        let records = self.rrsets.iter().flat_map(|((_, rtype), rrset)| {
            let Rrset { owner, ttl_s, rdatas } = rrset;
            rdatas.iter().map(move |rdata| format!("{owner} {ttl_s} IN {rtype} {rdata}"))
        });
        records.collect()
    }

    /// What `nsupdate` is told to make `self` of `old`, under this serial.
    pub fn update_from(&self, old: &Self, serial: u32) -> String {
        let mut text = String::new();
        let keys: BTreeSet<_> = old.rrsets.keys().chain(self.rrsets.keys()).collect();
        for key in keys {
            let (before, after) = (old.rrsets.get(key), self.rrsets.get(key));
            if before == after {
                continue;
            }
            let (owner, rtype) = key;
            if before.is_some() {
                // Writing to a String can't fail.
                let _ = writeln!(text, "update delete {owner} {rtype}");
            }
            for (rrset, rdata) in after.iter().flat_map(|r| r.rdatas.iter().map(move |d| (r, d))) {
                let Rrset { owner, ttl_s, .. } = rrset;
                let _ = writeln!(text, "update add {owner} {ttl_s} IN {rtype} {rdata}");
            }
        }
        let _ = writeln!(text, "update add {}", Self::soa(serial));
        text
    }
}

fn rdata(dice: &mut Dice, rtype: &str) -> String {
    let number = 1 + dice.below(30);
    match rtype {
        "A" => format!("192.0.2.{number}"),
        "AAAA" => format!("2001:db8::{number}"),
        "MX" => format!("{number} Mail.elsewhere.TEST."),
        "CAA" => format!("0 issue \"ca{number}.example.net\""),
        "TYPE65280" => format!("\\# 4 0A0000{number:02X}"),
        _ => format!("\"text {number}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_zone() {
        let make = |seed| {
            let mut dice = Dice(seed);
            let mut model = Model::new(&mut dice);
            model.edit(&mut dice);
            model.zone_file(7)
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
