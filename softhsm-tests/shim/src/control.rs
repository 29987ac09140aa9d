//! The control file, the module behind, and the log of calls.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cryptoki_sys::{CK_C_GetFunctionList, CK_FUNCTION_LIST, CKR_OK};
use serde::Deserialize;

use super::rules::{Action, Rules};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    module: PathBuf,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    parameters: Option<String>,
    #[serde(default)]
    rules: Option<PathBuf>,
    #[serde(default)]
    log: Option<PathBuf>,
}

/// One loaded shim.
pub struct Shim {
    environment: BTreeMap<String, String>,
    parameters: Option<CString>,
    rules: Mutex<Rules>,
    log: Option<Mutex<File>>,
    /// Never unloaded: its functions are in our list.
    inner: libloading::Library,
}

impl Shim {
    /// Reads the control file beside the shared object that holds `address`, and loads the module.
    pub fn load(address: usize) -> Result<Self, String> {
        let own_path = path_of(address)?;
        let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", own_path.display()));
        let control_path = beside(".json");
        let problem = |e: &dyn std::fmt::Display| format!("{}: {e}", control_path.display());
        let text = std::fs::read(&control_path).map_err(|e| problem(&e))?;
        let control: Control = serde_json::from_slice(&text).map_err(|e| problem(&e))?;
        let log = match &control.log {
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Some(Mutex::new(file.map_err(|e| problem(&e))?))
            }
            None => None,
        };
        let inner_path = beside(".inner.so");
        copy_once(&control.module, &inner_path)
            .map_err(|e| format!("{}: {e}", control.module.display()))?;
        #[expect(unsafe_code, reason = "loading a PKCS#11 module runs its initialisers")]
        // SAFETY: the test that wrote the control file vouches for the module.
        let inner = unsafe { libloading::Library::new(&inner_path) }
            .map_err(|e| format!("{}: {e}", inner_path.display()))?;
        let rules = Mutex::new(Rules::at(control.rules));
        let parameters = control.parameters.map(CString::new).transpose();
        let parameters = parameters.map_err(|e| problem(&e))?;
        Ok(Self { environment: control.environment, parameters, rules, log, inner })
    }

    /// The function list of the module behind.
    pub fn inner_list(&self) -> Result<CK_FUNCTION_LIST, String> {
        let mut list: *mut CK_FUNCTION_LIST = std::ptr::null_mut();
        #[expect(unsafe_code, reason = "the entry point of a C interface")]
        // SAFETY: PKCS#11 fixes the type of this symbol, and that it hands out a list which lives
        // as long as the module, which is never unloaded.
        unsafe {
            let entry = self
                .inner
                .get::<CK_C_GetFunctionList>(b"C_GetFunctionList\0")
                .map_err(|e| e.to_string())?;
            let function = (*entry).ok_or("C_GetFunctionList is null")?;
            let rv = function(&raw mut list);
            if rv != CKR_OK || list.is_null() {
                return Err(format!("C_GetFunctionList returned {rv:#x}"));
            }
            Ok(*list)
        }
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts and logs a call, and says what is done about it.
    pub fn before(&self, call: &'static str) -> Option<Action> {
        let (count, action) = self.rules().count(call);
        if let Some(log) = &self.log {
            let injected = if action.is_some() { " injected" } else { "" };
            let line = format!("{} {call} {count}{injected}\n", std::process::id());
            let written =
                log.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
            if let Err(e) = written {
                eprintln!("countersign-p11-shim: log: {e}");
            }
        }
        action
    }

    /// Returns when no rule says any more that `call` hangs.
    pub fn hang(&self, call: &str) {
        while self.rules().hangs(call) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the module is to find in the reserved field of its initialisation's arguments; null if nothing.
    pub fn parameters(&self) -> *mut std::ffi::c_void {
        self.parameters
            .as_ref()
            .map_or(std::ptr::null_mut(), |text| text.as_ptr().cast_mut().cast())
    }

    /// Sets the environment, and keeps other shims of this process from setting theirs for as long
    /// as the lock is held. Modules read it in `C_Initialize`.
    pub fn alone_with_environment(&self) -> std::io::Result<File> {
        // Each shim is a library of its own, with its own statics: what they share is the process,
        // and so its program file.
        let lock = File::open("/proc/self/exe")?;
        lock.lock()?;
        for (name, value) in &self.environment {
            #[expect(unsafe_code, reason = "modules take their configuration from the environment")]
            // SAFETY: under the lock no other shim writes; nothing else in a test process does.
            unsafe {
                std::env::set_var(name, value);
            }
        }
        Ok(lock)
    }
}

/// The path of the shared object that is mapped at `address`.
fn path_of(address: usize) -> Result<PathBuf, String> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| e.to_string())?;
    maps.lines()
        .find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (from, to) = fields.next()?.split_once('-')?;
            let from = usize::from_str_radix(from, 16).ok()?;
            let to = usize::from_str_radix(to, 16).ok()?;
            let path = line.find('/').map(|at| PathBuf::from(&line[at..]));
            (from..to).contains(&address).then_some(path)?
        })
        .ok_or_else(|| "can't find my own path in /proc/self/maps".to_owned())
}

/// Copies the module once, whole or not at all, whichever process is first.
fn copy_once(from: &Path, to: &Path) -> std::io::Result<()> {
    if to.exists() {
        return Ok(());
    }
    let beside = PathBuf::from(format!("{}.{}", to.display(), std::process::id()));
    std::fs::copy(from, &beside)?;
    std::fs::rename(&beside, to)
}
