//! `countersign push ZONE FILE|-`: sends a zone file, shows how far it has come, and with `--out` writes
//! the signed zone: signing as a filter. Nothing is written unless that version is published.
//!
//! A file is hashed in a first pass, so that the digest goes ahead of it (RFC 9530); standard input is
//! hashed as it goes, and its digest follows as a trailer. So what arrives is what was read here, to the
//! end. Whether what was read here is what was meant (`make-zone | countersign push …`, and `make-zone`
//! fails half-way) can be seen by `--records` alone, and by the zone's guard.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use clap::Args;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TRAILER};
use hyper::{Request, Response};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use tokio::sync::mpsc;

use super::client::{Client, Content, escape};
use super::end::{End, Stop};
use super::files::{Existing, Unfinished};
use super::say;
use crate::api::digest::{CONTENT_DIGEST, Hasher};
use crate::api::push::MEDIA_TYPE;
use crate::runner::status::Progress;

/// Octets that are read at once.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait for the connection.
const PIECES_MAX: usize = 4;
/// Sending may take this long; the daemon's own bound (`limits.transfer_s_max`) is at most this.
const SEND_MAX: Duration = Duration::from_secs(86_400);
/// Octets of one line of the answer: a step, or the reasons for a verdict.
const LINE_BYTES_MAX: usize = 1 << 20;
/// In place of a file: standard input, or standard output.
const STANDARD: &str = "-";

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// The zone.
    zone: String,
    /// The zone file; "-" is standard input.
    file: PathBuf,
    /// Write the signed zone here once it is published; "-" is standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How many records the file has; with another number nothing is taken.
    #[arg(long, value_name = "NUMBER")]
    records: Option<u64>,
}

pub(super) async fn run(
    client: &Client,
    args: PushArgs,
    json: bool,
    out: &mut (dyn Write + Send),
    err: &mut (dyn Write + Send),
) -> Result<End, Stop> {
    let to_out = args.out.as_deref().is_some_and(is_standard);
    // Opened before anything is sent: what can't be written later is better known now.
    let file = match args.out.as_deref().filter(|path| !is_standard(path)) {
        Some(path) => Some((path, Unfinished::new(path, false).map_err(|e| cannot(path, &e))?)),
        None => None,
    };
    let bar = bar(json);
    let verdict = {
        // What is said goes where the zone does not.
        let say: &mut (dyn Write + Send) = if to_out { &mut *err } else { &mut *out };
        let answer = send(client, &args, &bar).await?;
        watch(answer, &args.zone, json, &bar, say).await?
    };
    let serial = match verdict {
        Progress::Published { serial } | Progress::Unchanged { serial } => serial,
        Progress::Held { .. } | Progress::Waits { .. } => return Ok(End::Attention),
        _ => return Ok(End::Failed),
    };
    let path = format!("/v1/zones/{}/export?serial={serial}", escape(&args.zone));
    if let Some((path_out, mut unfinished)) = file {
        client.stream(&path, &mut unfinished.file).await?;
        unfinished.put(Existing::Replace).map_err(|error| cannot(path_out, &error))?;
    } else if to_out {
        client.stream(&path, out).await?;
    }
    Ok(End::Fine)
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == STANDARD
}

fn cannot(path: &Path, error: &io::Error) -> Stop {
    Stop::failed(format!("can't write {}: {error}", path.display()))
}

/// On a terminal, on standard error.
fn bar(json: bool) -> ProgressBar {
    let bar = if json || !io::stderr().is_terminal() {
        ProgressBar::hidden()
    } else {
        ProgressBar::no_length().with_finish(ProgressFinish::AndClear)
    };
    let style = "{msg:12} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    // A style that is written here parses; without it the bar has its own.
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message("sending");
    bar
}

async fn send(
    client: &Client,
    args: &PushArgs,
    bar: &ProgressBar,
) -> Result<Response<Incoming>, Stop> {
    let mut path = format!("/v1/zones/{}/push", escape(&args.zone));
    if let Some(records) = args.records {
        path = format!("{path}?records={records}");
    }
    let request = Request::post(path).header(CONTENT_TYPE, MEDIA_TYPE);
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let (request, source, length): (_, Box<dyn Read + Send>, _) = if is_standard(&args.file) {
        (request.header(TRAILER, CONTENT_DIGEST), Box::new(io::stdin()), None)
    } else {
        let failed = |e: io::Error| Stop::failed(format!("{}: {e}", args.file.display()));
        let mut file = File::open(&args.file).map_err(failed)?;
        let (digest, length) = hash(&mut file).map_err(failed)?;
        bar.set_length(length);
        let request = request.header(CONTENT_DIGEST, digest);
        // No more than was hashed, however the file grows.
        (request, Box::new(file.take(length)), Some(length))
    };
    let content = Sent { pieces, length, bar: bar.clone(), hasher: Some(Hasher::new()) };
    // A thread that nobody waits for: where the daemon refuses early, standard input may never end.
    std::thread::spawn(move || read(source, &sender));
    let content: Content = content.boxed();
    Ok(client.request_within(SEND_MAX, request.body(content)).await?)
}

/// The file's digest and length; it is at its start again.
fn hash(file: &mut File) -> io::Result<(String, u64)> {
    let mut hasher = Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut length = 0;
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        length += read as u64;
        hasher.update(&piece[..read]);
    }
    file.rewind()?;
    Ok((hasher.finish().field(), length))
}

fn read(mut source: Box<dyn Read + Send>, sender: &mpsc::Sender<io::Result<Bytes>>) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = match source.read(&mut piece) {
            Ok(0) => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map(|read| Bytes::copy_from_slice(&piece[..read])),
        };
        let failed = read.is_err();
        // Whoever sent it wants no more.
        if sender.blocking_send(read).is_err() || failed {
            return;
        }
    }
}

/// The body: pieces as they are read, and a trailer where the length is not known.
struct Sent {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    length: Option<u64>,
    bar: ProgressBar,
    /// Gone once the trailer is.
    hasher: Option<Hasher>,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match self.pieces.poll_recv(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(piece) => piece,
        };
        Poll::Ready(match piece {
            Some(Ok(piece)) => {
                self.bar.inc(piece.len() as u64);
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&piece);
                }
                Some(Ok(Frame::data(piece)))
            }
            Some(Err(error)) => Some(Err(error)),
            None if self.length.is_some() => None,
            None => self.hasher.take().and_then(|hasher| {
                let field = HeaderValue::from_str(&hasher.finish().field()).ok()?;
                let mut trailers = HeaderMap::new();
                trailers.insert(CONTENT_DIGEST, field);
                Some(Ok(Frame::trailers(trailers)))
            }),
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// Reads the steps to the verdict.
async fn watch(
    answer: Response<Incoming>,
    zone: &str,
    json: bool,
    bar: &ProgressBar,
    out: &mut (dyn Write + Send),
) -> Result<Progress, Stop> {
    let mut body = answer.into_body();
    let mut line = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| no_verdict(zone, &error))?.into_data() else {
            continue;
        };
        for piece in data.split_inclusive(|octet| *octet == b'\n') {
            line.extend_from_slice(piece);
            if line.len() > LINE_BYTES_MAX {
                return Err(no_verdict(zone, &"a line of its answer is endless"));
            }
            if line.last() != Some(&b'\n') {
                continue;
            }
            let step: Progress = super::parse(&line)?;
            if json {
                out.write_all(&line)?;
                out.flush()?;
            }
            line.clear();
            bar.set_message(name(&step));
            if step.is_last() {
                bar.finish_and_clear();
                if !json {
                    writeln!(out, "{zone}: {}", say::lines(&verdict(&step)))?;
                }
                return Ok(step);
            }
        }
    }
    Err(no_verdict(zone, &"its answer ended"))
}

fn no_verdict(zone: &str, problem: &dyn std::fmt::Display) -> Stop {
    Stop::failed(format!(
        "the zone was taken, and no verdict came: {problem}\n  hint: `countersign zone show {zone}` \
         says what is up; pushing the same file again does no harm"
    ))
}

fn name(step: &Progress) -> &'static str {
    match step {
        Progress::Received { .. } => "received",
        Progress::Admitted => "admitted",
        Progress::Planned { .. } => "signing",
        Progress::Signed => "verifying",
        Progress::Verified => "publishing",
        _ => "done",
    }
}

fn verdict(step: &Progress) -> String {
    match step {
        Progress::Published { serial } => format!("published with serial {serial}"),
        Progress::Unchanged { serial } => {
            format!("unchanged; it is what is up already, with serial {serial}")
        }
        Progress::Held { reasons } => format!(
            "held until a person releases it (`countersign zone release`):\n  {}",
            reasons.join("\n  ")
        ),
        Progress::Waits { reason } => format!("taken, and goes out later by itself: {reason}"),
        Progress::Refused { reason } => format!("refused, and what was up stays: {reason}"),
        _ => name(step).to_owned(),
    }
}
