//! PKCS#11 modules: each is loaded and initialised once per process (PKCS#11 3.0 §5.4), and stays
//! loaded. `C_Finalize` would pull the ground from under calls in other threads; it is called only to
//! renew a module that does not see its device any more, when no thread is in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as CryptokiError, RvError};

use super::error::{Fault, describe};

enum Entry {
    /// Some thread is in `dlopen` or `C_Initialize`.
    Loading,
    /// Loaded, but `C_Initialize` failed; unloading a module that may have started threads would
    /// be worse than keeping it.
    Loaded(Pkcs11),
    Ready(Pkcs11),
}

/// What `CKR_ARGUMENTS_BAD` at the start means more often than not: the arguments are those of the standard.
const WANTS_PARAMETERS: &str = ". hint: it may want parameters of its own when it is initialised, as NSS \
     softokn does, and there is no setting for such; see its environment variables";

static MODULES: Mutex<BTreeMap<PathBuf, Entry>> = Mutex::new(BTreeMap::new());
static CHANGED: Condvar = Condvar::new();

fn modules() -> MutexGuard<'static, BTreeMap<PathBuf, Entry>> {
    MODULES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The module at `path`, loaded and initialised. Blocks for as long as the module does, and while
/// another thread is loading the same one: whoever calls this has a watch on him.
pub(super) fn load(path: &Path) -> Result<Pkcs11, Fault> {
    let path = path
        .canonicalize()
        .map_err(|e| Fault::Token(format!("PKCS#11 module {}: {e}", path.display())))?;
    let mut entries = modules();
    let loaded = loop {
        match entries.get(&path) {
            Some(Entry::Ready(module)) => return Ok(module.clone()),
            Some(Entry::Loading) => {
                entries = CHANGED.wait(entries).unwrap_or_else(PoisonError::into_inner);
            }
            Some(Entry::Loaded(module)) => break Some(module.clone()),
            None => break None,
        }
    };
    entries.insert(path.clone(), Entry::Loading);
    drop(entries);
    finish(path.clone(), load_and_initialise(&path, loaded))
}

type Loaded = Result<Pkcs11, (Option<Pkcs11>, Fault)>;

/// Ends what [`Entry::Loading`] began.
fn finish(path: PathBuf, result: Loaded) -> Result<Pkcs11, Fault> {
    let mut entries = modules();
    match &result {
        Ok(module) => entries.insert(path, Entry::Ready(module.clone())),
        Err((Some(module), _)) => entries.insert(path, Entry::Loaded(module.clone())),
        Err((None, _)) => entries.remove(&path),
    };
    drop(entries);
    CHANGED.notify_all();
    result.map_err(|(_, fault)| fault)
}

/// A module about to be finalised and initialised anew. From its making on, whoever wants the module
/// waits.
pub(super) struct Renewal {
    path: PathBuf,
    module: Option<Pkcs11>,
}

impl Renewal {
    /// The caller has made sure that no thread is in the module. `None` if it is not ready.
    pub(super) fn begin(path: &Path) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        let mut entries = modules();
        let Some(Entry::Ready(module)) = entries.get(&path) else { return None };
        let module = Some(module.clone());
        entries.insert(path.clone(), Entry::Loading);
        Some(Self { path, module })
    }

    /// `C_Finalize`, `C_Initialize`.
    pub(super) fn run(mut self) -> Result<(), Fault> {
        let Some(module) = self.module.take() else { return Ok(()) };
        if let Err(e) = module.clone().finalize() {
            tracing::warn!(module = %self.path.display(), problem = describe(&e), "C_Finalize");
        }
        finish(self.path.clone(), load_and_initialise(&self.path, Some(module))).map(|_| ())
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            modules().insert(self.path.clone(), Entry::Ready(module));
            CHANGED.notify_all();
        }
    }
}

/// A module that was ready says that it is not initialised (some clients of network HSMs do after they
/// lost their device): it is initialised again when it is next asked for.
pub(super) fn not_initialised(path: &Path) {
    let Ok(path) = path.canonicalize() else { return };
    let mut entries = modules();
    if let Some(Entry::Ready(module)) = entries.get(&path) {
        let module = module.clone();
        entries.insert(path, Entry::Loaded(module));
    }
}

fn load_and_initialise(path: &Path, loaded: Option<Pkcs11>) -> Loaded {
    let fault = |e: &CryptokiError| {
        let hint = match e {
            CryptokiError::Pkcs11(RvError::ArgumentsBad, _) => WANTS_PARAMETERS,
            _ => "",
        };
        Fault::Token(format!("PKCS#11 module {}: {}{hint}", path.display(), describe(e)))
    };
    let module = match loaded {
        Some(module) => module,
        None => Pkcs11::new(path).map_err(|e| (None, fault(&e)))?,
    };
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Another path led to the same library.
        Ok(()) | Err(CryptokiError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(module),
        Err(e) => {
            let fault = fault(&e);
            Err((Some(module), fault))
        }
    }
}
