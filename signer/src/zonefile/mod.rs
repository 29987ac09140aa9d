//! Zone files (RFC 1035 §5, RFC 2308 §4, RFC 3597 §5) as they arrive, octet by octet, to a
//! [`ReceivedZone`]: whole, or an error that says line, column, what was found and what was expected.
//!
//! [`lexer`] cuts the octets into entries; here an entry becomes an owner, a TTL, a type and RDATA.
//! RDATA is read by the `domain` crate where it knows the type, else by [`rdata`]. What a file may say
//! beyond RFC 1035 is what BIND reads: `$TTL`, `$GENERATE` (bounded), TTLs with units. `$INCLUDE` is
//! refused: what arrives over a connection names no files of this box.
//!
//! A record without a TTL has that of `$TTL`; without `$TTL` the last one written (RFC 1035 §5.1); and in
//! a file that writes none the SOA's minimum, if the SOA comes first. Class is IN.

mod generate;
mod lexer;
mod rdata;
mod record;
mod text;
mod trouble;

use countersign_policy::ZoneName;
use countersign_zone::receive::{Bounds, CLASS_IN, Receiver};
use countersign_zone::{ReceivedZone, Refusal, Rtype};

pub use generate::{GENERATED_MAX, GENERATED_TOTAL_MAX};
pub use lexer::{ENTRY_BYTES_MAX, Place};
use lexer::{Entry, Lexer, Token};
use record::Rdata;
pub use trouble::{Problem, Trouble};

/// What takes a file's records.
pub trait Sink {
    /// Takes one: owner and RDATA uncompressed, class IN.
    fn push(&mut self, owner: &[u8], rtype: Rtype, ttl_s: u32, rdata: &[u8])
    -> Result<(), Refusal>;
}

impl Sink for Receiver {
    fn push(
        &mut self,
        owner: &[u8],
        rtype: Rtype,
        ttl_s: u32,
        rdata: &[u8],
    ) -> Result<(), Refusal> {
        Self::push(self, owner, rtype.0, CLASS_IN, ttl_s, rdata)
    }
}

/// Reads one zone's file.
#[derive(Debug)]
pub struct Reader<S = Receiver> {
    lexer: Lexer,
    zone: Zone<S>,
}

impl Reader {
    /// Begins the file of zone `apex`, which is its first origin.
    pub fn new(apex: ZoneName, bounds: Bounds) -> Self {
        Self::into_sink(&apex.clone(), Receiver::new(apex, bounds))
    }

    /// Ends the file.
    pub fn finish(self) -> Result<ReceivedZone, Problem> {
        let (receiver, end) = self.end()?;
        receiver.finish().map_err(|refusal| Problem::at(end, refusal.into()))
    }
}

impl<S: Sink> Reader<S> {
    /// The same with another place for the records to go.
    pub fn into_sink(apex: &ZoneName, sink: S) -> Self {
        let origin = apex.as_wire().to_vec();
        let zone = Zone {
            rdata: Rdata::new(&origin),
            origin,
            owner: None,
            default_ttl_s: None,
            last_ttl_s: None,
            generated: 0,
            records: 0,
            sink,
        };
        Self { lexer: Lexer::new(), zone }
    }

    /// Takes the next octets of the file. After an error nothing more can be read.
    pub fn feed(&mut self, octets: &[u8]) -> Result<(), Problem> {
        let zone = &mut self.zone;
        self.lexer.feed(octets, &mut |entry| zone.entry(entry))
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.zone.records
    }

    /// Ends the file: the records' place, and where the file ends.
    pub fn end(mut self) -> Result<(S, Place), Problem> {
        let zone = &mut self.zone;
        self.lexer.finish(&mut |entry| zone.entry(entry))?;
        Ok((self.zone.sink, self.lexer.place()))
    }
}

/// What the entries so far say about the next.
#[derive(Debug)]
struct Zone<S> {
    origin: Vec<u8>,
    /// The last owner, which a line that begins with a blank repeats.
    owner: Option<Vec<u8>>,
    /// `$TTL`, or what stands in for it.
    default_ttl_s: Option<u32>,
    last_ttl_s: Option<u32>,
    /// Records that `$GENERATE` made.
    generated: u64,
    records: u64,
    rdata: Rdata,
    sink: S,
}

/// What stands before a record's RDATA.
struct Head {
    ttl_s: Option<u32>,
    rtype: Rtype,
    place: Place,
}

impl<S: Sink> Zone<S> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Problem> {
        let tokens: Vec<Token<'_>> = entry.tokens().collect();
        let Some((first, rest)) = tokens.split_first() else { return Ok(()) };
        if entry.indented {
            if self.owner.is_none() {
                return Err(Problem::at(first.place, Trouble::NoOwner));
            }
            return self.record(&tokens);
        }
        if first.text.starts_with('$') && !first.quoted {
            return self.directive(*first, rest);
        }
        let owner = self.name(first)?;
        self.owner = Some(owner);
        if rest.is_empty() {
            return Err(Problem::at(first.place, Trouble::NoType));
        }
        self.record(rest)
    }

    fn name(&self, token: &Token<'_>) -> Result<Vec<u8>, Problem> {
        if token.quoted {
            return Err(Problem::at(token.place, Trouble::QuotedName));
        }
        text::name(token.text, &self.origin).map_err(|trouble| Problem::at(token.place, trouble))
    }

    fn directive(&mut self, name: Token<'_>, rest: &[Token<'_>]) -> Result<(), Problem> {
        let fail = |trouble| Err(Problem::at(name.place, trouble));
        if name.is_word("$INCLUDE") {
            return fail(Trouble::Include);
        }
        if name.is_word("$GENERATE") {
            return self.generate(name.place, rest);
        }
        if !(name.is_word("$ORIGIN") || name.is_word("$TTL")) {
            return fail(Trouble::Directive(name.text.to_owned()));
        }
        let [value] = rest else { return fail(Trouble::OneValue(name.text.to_owned())) };
        if name.is_word("$ORIGIN") {
            self.origin = self.name(value)?;
            self.rdata.set_origin(&self.origin);
        } else {
            let ttl_s = text::ttl(value.text).unwrap_or(Err(Trouble::Ttl(value.text.to_owned())));
            self.default_ttl_s = Some(in_range(ttl_s, value)?);
        }
        Ok(())
    }

    /// A record of the last owner, from its TTL, class and type on.
    fn record(&mut self, tokens: &[Token<'_>]) -> Result<(), Problem> {
        let (head, rest) = head(tokens)?;
        let owner = self.owner.take().unwrap_or_default();
        let taken = self.take(&owner, &head, rest);
        self.owner = Some(owner);
        taken
    }

    fn take(&mut self, owner: &[u8], head: &Head, rest: &[Token<'_>]) -> Result<(), Problem> {
        let fail = |trouble| Problem::at(head.place, trouble);
        let rdata = self.rdata.read(head.rtype, head.place, rest)?;
        let ttl_s = match (head.ttl_s, self.default_ttl_s, self.last_ttl_s) {
            (Some(ttl_s), ..) => {
                self.last_ttl_s = Some(ttl_s);
                ttl_s
            }
            (None, Some(ttl_s), _) | (None, None, Some(ttl_s)) => ttl_s,
            (None, None, None) => {
                let minimum = rdata.last_chunk().map(|octets| u32::from_be_bytes(*octets));
                let minimum = minimum.filter(|_| head.rtype == Rtype::SOA);
                let ttl_s = minimum.ok_or_else(|| fail(Trouble::NoTtl))?;
                self.default_ttl_s = Some(ttl_s);
                ttl_s
            }
        };
        self.sink.push(owner, head.rtype, ttl_s, rdata).map_err(|refusal| fail(refusal.into()))?;
        self.records += 1;
        Ok(())
    }

    fn generate(&mut self, place: Place, rest: &[Token<'_>]) -> Result<(), Problem> {
        let fail = |trouble| Problem::at(place, trouble);
        let [range, template, rest @ ..] = rest else { return Err(fail(Trouble::GenerateShort)) };
        let at = range.place;
        let numbers = generate::range(range.text).map_err(|trouble| Problem::at(at, trouble))?;
        self.generated += numbers.len() as u64;
        if self.generated > GENERATED_TOTAL_MAX {
            return Err(fail(Trouble::GeneratedTotal));
        }
        if rest.is_empty() {
            return Err(fail(Trouble::GenerateShort));
        }
        let (head, rest) = head(rest)?;
        if rest.is_empty() {
            return Err(fail(Trouble::GenerateShort));
        }
        for number in numbers {
            let fill = |template: &Token<'_>, out: &mut String| {
                generate::fill(template.text, number, out)
                    .map_err(|trouble| Problem::at(template.place, trouble))
            };
            let mut owner = String::new();
            fill(template, &mut owner)?;
            let owner = text::name(&owner, &self.origin)
                .map_err(|trouble| Problem::at(template.place, trouble))?;
            let mut line = String::new();
            for token in rest {
                if rest.len() == 1 && token.quoted {
                    let mut filled = String::new();
                    fill(token, &mut filled)?;
                    // Its text is read anew, so quotes in it come out of their escapes.
                    line.push_str(&filled.replace("\\\"", "\""));
                } else {
                    let quote = if token.quoted { "\"" } else { "" };
                    line.push_str(quote);
                    fill(token, &mut line)?;
                    line.push_str(quote);
                    line.push(' ');
                }
            }
            // The last owner stays what it was, as with BIND.
            self.generated_record(&owner, &head, &line)?;
        }
        Ok(())
    }

    fn generated_record(&mut self, owner: &[u8], head: &Head, line: &str) -> Result<(), Problem> {
        let mut lexer = Lexer::new();
        let mut made = Ok(());
        let mut take = |entry: &Entry| {
            let mut tokens: Vec<Token<'_>> = entry.tokens().collect();
            // What is wrong stands where the type stands: the line itself is not in the file.
            for token in &mut tokens {
                token.place = head.place;
            }
            made = self.take(owner, head, &tokens);
            Ok(())
        };
        lexer
            .feed(line.as_bytes(), &mut take)
            .and_then(|()| lexer.finish(&mut take))
            .map_err(|problem| Problem::at(head.place, problem.trouble))?;
        made
    }
}

/// `[TTL] [CLASS] TYPE` or `[CLASS] [TTL] TYPE`, and what follows.
fn head<'t, 'a>(tokens: &'t [Token<'a>]) -> Result<(Head, &'t [Token<'a>]), Problem> {
    let (mut ttl_s, mut class, mut rest) = (None, false, tokens);
    while let Some((token, after)) = rest.split_first() {
        let place = token.place;
        if ttl_s.is_none()
            && let Some(read) = text::ttl(token.text).filter(|_| !token.quoted)
        {
            ttl_s = Some(in_range(read, token)?);
        } else if !class && (token.is_word("IN") || token.is_word("CLASS1")) {
            class = true;
        } else if is_other_class(token) {
            return Err(Problem::at(place, Trouble::Class(token.text.to_owned())));
        } else {
            let rtype = (!token.quoted).then(|| record::rtype(token.text)).flatten();
            let rtype =
                rtype.ok_or_else(|| Problem::at(place, Trouble::Type(token.text.to_owned())))?;
            return Ok((Head { ttl_s, rtype, place }, after));
        }
        rest = after;
    }
    let place = tokens.last().map_or(Place::default(), |token| token.place);
    Err(Problem::at(place, Trouble::NoType))
}

fn is_other_class(token: &Token<'_>) -> bool {
    let numbered = token.text.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("CLASS"));
    !token.quoted && (numbered || ["CH", "HS", "CHAOS", "NONE"].iter().any(|c| token.is_word(c)))
}

fn in_range(ttl_s: Result<u32, Trouble>, token: &Token<'_>) -> Result<u32, Problem> {
    ttl_s
        .and_then(|ttl_s| {
            let fits = ttl_s <= text::TTL_S_MAX;
            if fits { Ok(ttl_s) } else { Err(Trouble::Ttl(token.text.to_owned())) }
        })
        .map_err(|trouble| Problem::at(token.place, trouble))
}

#[cfg(test)]
mod tests;
