//! The material that is in force, shared by every acceptor and connector, and taken up anew when
//! its files change.
//!
//! ```text
//!  in force ──files differ──► changed ──same at the next look, and they hold together──► in force
//!                                │
//!                                └── they don't: refused; what was in force stays, and every
//!                                    look tries again until they do or the old files are back
//! ```
//!
//! Who replaces a certificate and its key writes two files, and a bundle may be half-written: that
//! is why files have to stand still for a look, and why a refusal alarms only after a while. Open
//! connections stay: a new handshake uses what is in force then, and a connection that was let in
//! before is judged again, by what is in force then, at its next query.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::expiry::{self, Alarm, Ending};
use super::seen::Seen;
use super::{Material, TlsFileError, TlsPaths, provider};

/// How often the files are looked at: four questions to the file system, and the time after which
/// a certificate that was replaced is at work.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long files may fail to hold together before it is an alarm: whoever replaces them one by
/// one, by hand, is done by then.
pub const REFUSED_GRACE_S: u64 = 60;

/// Material, and what verifies by it.
#[derive(Debug)]
pub(super) struct InForce {
    pub material: Material,
    pub clients: Arc<dyn ClientCertVerifier>,
    pub servers: Arc<dyn ServerCertVerifier>,
}

/// What acceptors and connectors work with. Clones share it.
#[derive(Debug, Clone)]
pub struct Keyring {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    in_force: ArcSwap<InForce>,
    seen: Arc<Seen>,
    files: Option<TlsPaths>,
    looked: Mutex<Looked>,
}

/// What the looks at the files have found.
#[derive(Debug, Default)]
struct Looked {
    in_force: Option<Stamps>,
    changed: Option<Stamps>,
    refused: Option<Refused>,
}

/// Files that were not taken up.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub since_s: u64,
    pub reason: String,
    /// Someone asked for them to be taken: no grace.
    pub asked: bool,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    octets: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Of each file; none for one that can't be looked at.
type Stamps = Vec<Option<Stamp>>;

/// What a look came to.
#[derive(Debug)]
pub enum Look {
    /// The files are those that are in force.
    Same,
    /// They have changed, and are taken up at the next look if they stand still.
    Changed,
    /// They were taken up.
    Taken,
    /// They do not hold together; what was in force stays.
    Refused {
        /// What is wrong.
        reason: String,
        /// Whether the look before said the same.
        again: bool,
    },
}

impl Keyring {
    /// Reads the files. `seen` is what is remembered of others' certificates.
    pub fn load(files: TlsPaths, seen: Arc<Seen>) -> Result<Self, TlsFileError> {
        let stamps = stamps(&files);
        let in_force = in_force(Material::load(&files)?, Some(&files))?;
        let looked = Looked { in_force: Some(stamps), ..Looked::default() };
        Ok(Self::of(in_force, Some(files), seen, looked))
    }

    /// Of material whose files are not looked at again.
    pub fn fixed(material: Material) -> Result<Self, TlsFileError> {
        let in_force = in_force(material, None)?;
        Ok(Self::of(in_force, None, Arc::default(), Looked::default()))
    }

    fn of(in_force: InForce, files: Option<TlsPaths>, seen: Arc<Seen>, looked: Looked) -> Self {
        let in_force = ArcSwap::from_pointee(in_force);
        Self { inner: Arc::new(Inner { in_force, seen, files, looked: Mutex::new(looked) }) }
    }

    pub(super) fn in_force(&self) -> Arc<InForce> {
        self.inner.in_force.load_full()
    }

    /// Whose certificates were seen.
    pub fn seen(&self) -> &Arc<Seen> {
        &self.inner.seen
    }

    /// The files.
    pub fn files(&self) -> Option<&TlsPaths> {
        self.inner.files.as_ref()
    }

    /// Looks at the files, and takes them up if they have changed and stand still. Reads from
    /// disk: not for a thread that serves.
    pub fn look(&self, now_s: u64) -> Look {
        let Some(files) = &self.inner.files else { return Look::Same };
        // The disk is asked without the lock: a network file system that does not answer must not hold up
        // those who ask for alarms, on threads that serve.
        let found = stamps(files);
        if let Some(look) = self.compare(&found) {
            return look;
        }
        let loaded = Material::load(files).and_then(|material| in_force(material, Some(files)));
        let stood_still = stamps(files) == found;
        let mut looked = self.looked();
        match loaded {
            // Changed as they were read: what was read may be of two minds.
            Ok(_) if !stood_still => {
                looked.changed = None;
                Look::Changed
            }
            Ok(fresh) => {
                self.inner.in_force.store(Arc::new(fresh));
                *looked = Looked { in_force: Some(found), ..Looked::default() };
                Look::Taken
            }
            Err(error) => {
                let reason = error.to_string();
                let before = looked.refused.take();
                let again = before.as_ref().is_some_and(|before| before.reason == reason);
                looked.refused = Some(match before {
                    Some(before) => Refused { reason: reason.clone(), ..before },
                    None => Refused { since_s: now_s, reason: reason.clone(), asked: false },
                });
                Look::Refused { reason, again }
            }
        }
    }

    /// What a look is, unless the files have to be read.
    fn compare(&self, found: &Stamps) -> Option<Look> {
        let mut looked = self.looked();
        if looked.in_force.as_ref() == Some(found) {
            *looked = Looked { in_force: Some(found.clone()), ..Looked::default() };
            return Some(Look::Same);
        }
        if looked.changed.as_ref() != Some(found) {
            looked.changed = Some(found.clone());
            return Some(Look::Changed);
        }
        None
    }

    /// Someone asked for the files to be read, and they could not be taken up. They are looked at
    /// again by themselves.
    pub fn refuse(&self, error: &TlsFileError, now_s: u64) {
        let reason = error.to_string();
        self.looked().refused = Some(Refused { since_s: now_s, reason, asked: true });
    }

    /// What needs attention, worst first.
    pub fn alarms(&self, now_s: u64) -> Vec<Alarm> {
        let refused = self.looked().refused.clone();
        let refused =
            refused.filter(|r| r.asked || now_s.saturating_sub(r.since_s) >= REFUSED_GRACE_S);
        let in_force = self.in_force();
        expiry::alarms(&in_force.material, self.files(), &self.inner.seen, refused, now_s)
    }

    /// What ends when, soonest first.
    pub fn endings(&self) -> Vec<Ending> {
        expiry::endings(&self.in_force().material, &self.inner.seen)
    }

    /// When our own certificate ends.
    pub fn ends_at_s(&self) -> i64 {
        self.in_force().material.not_after_s()
    }

    fn looked(&self) -> MutexGuard<'_, Looked> {
        // Nothing is half-done in it when a panic leaves it behind.
        self.inner.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_force(material: Material, files: Option<&TlsPaths>) -> Result<InForce, TlsFileError> {
    let unusable = |error: rustls::server::VerifierBuilderError| TlsFileError::Unusable {
        path: files
            .map(|files| files.crl.as_ref().unwrap_or(&files.ca))
            .cloned()
            .unwrap_or_default(),
        error: error.to_string(),
    };
    let lists = || material.lists.iter().flatten().map(|list| list.der.clone());
    // A certificate whose issuer has no list is let in, and one that has outlived its nextUpdate
    // goes on refusing what it lists: [`super::crl`] says why.
    let clients = WebPkiClientVerifier::builder_with_provider(material.roots.clone(), provider())
        .with_crls(lists())
        .allow_unknown_revocation_status()
        .build()
        .map_err(unusable)?;
    let servers = WebPkiServerVerifier::builder_with_provider(material.roots.clone(), provider())
        .with_crls(lists())
        .allow_unknown_revocation_status()
        .build()
        .map_err(unusable)?;
    Ok(InForce { material, clients, servers })
}

fn stamps(files: &TlsPaths) -> Stamps {
    files.all().map(stamp).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    // The file that a link leads to: some who rotate certificates swap links.
    let found = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: found.dev(),
        inode: found.ino(),
        octets: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}
