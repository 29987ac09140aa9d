//! Stores, tokens and keys for the tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use countersign_hsm::pkcs11::{Admission, Event, ExpectedKey, PinSource, TokenSpec, Tokens};
use countersign_hsm::protocol::{TokenHealth, TokenState};
use countersign_policy::{Algorithm, KeyRole, PublicKey};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use tempfile::TempDir;

use kinds::Machine;
pub use kinds::{Kind, Need, needs};

#[path = "kinds.rs"]
mod kinds;

/// The one PIN that is right.
pub const PIN: &str = "1234-of-a-test";
/// Long enough for SoftHSM under load, short enough to wait out.
pub const DEADLINE: Duration = Duration::from_millis(1500);
/// Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Builds the shim, once per process.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "countersign-p11-shim"])
            .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")])
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the shim does not build");
        // target/PROFILE/deps/this-test: the shim is two levels up, in the dev profile.
        let own = std::env::current_exe().expect("own path");
        let target = own.ancestors().nth(3).expect("target directory");
        let shim = target.join("debug/libcountersign_p11_shim.so");
        assert!(shim.exists(), "{} is not there", shim.display());
        shim
    })
}

/// A store with one token, of the kind that the suite runs on, and a shim of its own in front.
pub struct Store {
    /// Ends before its files go.
    _machine: Option<Machine>,
    dir: TempDir,
    pub label: String,
    pub serial: String,
}

impl Store {
    pub fn new(label: &str) -> Self {
        let kind = Kind::here();
        let dir = tempfile::tempdir().expect("directory");
        std::fs::create_dir(dir.path().join("tokens")).expect("tokens");
        let machine = kind.machine(dir.path());
        let mut store =
            Self { _machine: machine, dir, label: label.to_owned(), serial: String::new() };
        store.write_files();
        kind.init_token(store.dir.path(), label);
        store.serial = store.serials().remove(0);
        store
    }

    /// Another, empty token in this store, behind the same module: its setting.
    pub fn with_second_token(&self, name: &str, group: &str) -> TokenSpec {
        Kind::here().init_token(self.dir.path(), "second");
        let serial = self.serials().into_iter().find(|s| *s != self.serial).expect("another");
        TokenSpec { label: "second".to_owned(), serial, ..self.spec(name, group) }
    }

    /// The directory of the store's first token: SoftHSM ends its name with the serial number.
    pub fn token_dir(&self) -> PathBuf {
        let dirs = std::fs::read_dir(self.path("tokens")).expect("tokens");
        let name = |path: &PathBuf| path.display().to_string().replace('-', "");
        dirs.map(|entry| entry.expect("entry").path())
            .find(|path| name(path).ends_with(&self.serial))
            .expect("a directory")
    }

    /// Another store whose token holds what this one's does: cloned by the HSM's own means. Only
    /// before either was loaded.
    pub fn cloned(&self) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let copy = |name: &str| {
            let ran = Command::new("cp").arg("-a").arg(self.path(name)).arg(dir.path()).status();
            assert!(ran.expect("cp").success());
        };
        copy("tokens");
        if self.path("tpm").exists() {
            copy("tpm");
        }
        let machine = Kind::here().machine(dir.path());
        let (label, serial) = (self.label.clone(), self.serial.clone());
        let store = Self { _machine: machine, dir, label, serial };
        store.write_files();
        store
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_files(&self) {
        let show = |name: &str| self.path(name).display().to_string();
        let (environment, parameters) = Kind::here().settings(self.dir.path(), &self.label);
        std::fs::copy(shim(), self.path("shim.so")).expect("copy");
        let control = serde_json::json!({
            "module": Kind::here().module(),
            "environment": environment,
            "parameters": parameters,
            "rules": show("rules.json"),
            "log": show("calls.log"),
        });
        std::fs::write(self.path("shim.so.json"), control.to_string()).expect("write");
        self.write_pin(PIN);
    }

    /// Puts a PIN into the PIN file, as a new file.
    pub fn write_pin(&self, pin: &str) {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let fresh = self.path("pin.new");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&fresh)
            .expect("pin");
        writeln!(file, "{pin}").expect("pin");
        std::fs::rename(fresh, self.path("pin")).expect("rename");
    }

    fn serials(&self) -> Vec<String> {
        Kind::here().serials(self.dir.path(), &self.label)
    }

    /// Sets the shim's rules.
    pub fn rules(&self, rules: &str) {
        let fresh = self.path("rules.new");
        std::fs::write(&fresh, rules).expect("rules");
        std::fs::rename(fresh, self.path("rules.json")).expect("rename");
    }

    /// How often a call was made so far, by all processes.
    pub fn calls(&self, call: &str) -> usize {
        let log = std::fs::read_to_string(self.path("calls.log")).unwrap_or_default();
        log.lines().filter(|line| line.split(' ').nth(1) == Some(call)).count()
    }

    pub fn spec(&self, name: &str, group: &str) -> TokenSpec {
        TokenSpec {
            name: name.to_owned(),
            group: group.to_owned(),
            label: self.label.clone(),
            serial: self.serial.clone(),
            module: self.path("shim.so"),
            pin: PinSource::File(self.path("pin")),
            workers: 2,
            queue_max: 64,
            deadline: DEADLINE,
        }
    }

    /// Another user of the token, who can do what anyone with the PIN can.
    pub fn other_user(&self) -> OtherUser {
        let module = Pkcs11::new(self.path("shim.so")).expect("shim");
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(e) => panic!("{e}"),
        }
        let mut slots = module.get_slots_with_token().expect("slots").into_iter();
        let is_it = |slot: &Slot| {
            let info = module.get_token_info(*slot).expect("info");
            (info.label().trim(), info.serial_number().trim()) == (&*self.label, &*self.serial)
        };
        let slot = slots.find(is_it).expect("slot");
        let session = module.open_rw_session(slot).expect("session");
        match session.login(UserType::User, Some(&PIN.into())) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(e) => panic!("{e}"),
        }
        OtherUser { session }
    }

    /// Runs pkcs11-tool on the token, logged in, as another process does that knows the PIN.
    pub fn pkcs11_tool(&self, args: &[&str]) -> String {
        let module = Kind::here().module().display().to_string();
        let on = ["--module", &module, "--token-label", &self.label, "--login", "--pin", PIN];
        let environment = Kind::here().settings(self.dir.path(), &self.label).0;
        kinds::run("pkcs11-tool", &[&on[..], args].concat(), &environment)
    }

    /// Makes a P-256 key pair as the keeper would, and closes the store again.
    pub fn seed(&self, label: &str) -> PublicKey {
        let user = self.other_user();
        let (public, _) = user.make_p256(label);
        user.set_id(label, &public);
        public
    }
}

/// See [`Store::other_user`].
pub struct OtherUser {
    pub session: Session,
}

impl OtherUser {
    /// A P-256 key pair without `CKA_ID`.
    pub fn make_p256(&self, label: &str) -> (PublicKey, [ObjectHandle; 2]) {
        let named = Attribute::Label(label.as_bytes().to_vec());
        let public = [
            Attribute::Token(true),
            Attribute::Verify(true),
            Attribute::EcParams(P256.to_vec()),
            named.clone(),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            named,
        ];
        let (public, private) = self
            .session
            .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
            .expect("key pair");
        let point = match self.session.get_attributes(public, &[AttributeType::EcPoint]) {
            Ok(attributes) => match attributes.as_slice() {
                [Attribute::EcPoint(point)] => point.clone(),
                other => panic!("{other:?}"),
            },
            Err(e) => panic!("{e}"),
        };
        let key =
            PublicKey::new(Algorithm::EcdsaP256Sha256, &point[point.len() - 64..]).expect("key");
        (key, [private, public])
    }

    /// Every key object with the label.
    pub fn labelled(&self, label: &str) -> Vec<ObjectHandle> {
        let mut found = Vec::new();
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            let template = [Attribute::Class(class), Attribute::Label(label.as_bytes().to_vec())];
            found.extend(self.session.find_objects(&template).expect("objects"));
        }
        found
    }

    /// Gives all objects with the label the `CKA_ID` of `key`.
    pub fn set_id(&self, label: &str, key: &PublicKey) {
        for object in self.labelled(label) {
            self.session
                .update_attributes(object, &[Attribute::Id(key.id().0.to_vec())])
                .expect("id");
        }
    }

    /// Destroys all objects with the label.
    pub fn destroy(&self, label: &str) {
        for object in self.labelled(label) {
            self.session.destroy_object(object).expect("destroy");
        }
    }
}

/// A ZSK that tokens of `group` should hold.
pub fn zsk(public: &PublicKey, label: &str, group: &str) -> ExpectedKey {
    ExpectedKey {
        identity: public.clone().into(),
        role: KeyRole::Zsk,
        label: label.to_owned(),
        cka_id: None,
        group: group.to_owned(),
        conflicted: false,
    }
}

/// Tokens in operation, and what they told.
pub struct Running {
    pub tokens: Tokens,
    pub events: Receiver<Event>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // A thread in SoftHSM while the process tears it down would crash. What hangs in the shim
        // stays there.
        self.tokens.close(Duration::from_millis(500));
    }
}

impl Running {
    /// Opens, expects the keys, and waits until every token was tried.
    pub fn start(state_dir: &Path, specs: Vec<TokenSpec>, keys: Vec<ExpectedKey>) -> Self {
        let running = Self::start_unsettled(state_dir, specs, keys);
        assert!(running.tokens.wait_settled(PATIENCE), "{:?}", running.tokens.health());
        running
    }

    pub fn start_unsettled(
        state_dir: &Path,
        specs: Vec<TokenSpec>,
        keys: Vec<ExpectedKey>,
    ) -> Self {
        let (sender, events) = channel();
        let tokens = Tokens::open(specs, state_dir, sender).expect("settings");
        tokens.expect_keys(keys);
        Self { tokens, events }
    }

    /// The same, of tokens that `admission` admits.
    pub fn start_admitted(
        state_dir: &Path,
        specs: Vec<TokenSpec>,
        keys: Vec<ExpectedKey>,
        admission: Admission,
    ) -> Self {
        let (sender, events) = channel();
        let tokens = Tokens::open_admitted(specs, state_dir, sender, Some(admission));
        let tokens = tokens.expect("settings");
        tokens.expect_keys(keys);
        let running = Self { tokens, events };
        assert!(running.tokens.wait_settled(PATIENCE), "{:?}", running.tokens.health());
        running
    }

    pub fn health(&self, token: &str) -> TokenHealth {
        self.tokens.health().into_iter().find(|t| t.name == token).expect("a token")
    }

    /// Waits until the token is as wanted.
    pub fn until(&self, token: &str, wanted: impl Fn(&TokenState) -> bool) -> TokenState {
        until(&format!("token {token}"), || {
            let state = self.health(token).state;
            if wanted(&state) { Ok(state) } else { Err(format!("{state:?}")) }
        })
    }

    pub fn until_usable(&self, token: &str) {
        self.until(token, |state| *state == TokenState::Usable);
    }

    /// Waits until the token is unusable for a reason that contains `reason`.
    pub fn until_unusable(&self, token: &str, reason: &str) {
        self.until(token, |s| matches!(s, TokenState::Unusable(text) if text.contains(reason)));
    }

    /// Signs `count` messages, all of which have to come back signed.
    pub fn sign_all(&self, key: &PublicKey, count: usize) {
        let messages = messages(count);
        let signatures = self.tokens.sign_zone(&key.id(), messages.clone());
        assert_eq!(signatures.len(), count);
        for (message, signature) in messages.iter().zip(signatures) {
            let signature = signature.expect("a signature");
            assert!(verifies(key, message, &signature));
        }
    }
}

/// To-be-signed bytes: the type covered is A, the rest is told apart by its number.
pub fn messages(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| [&[0, 1][..], digest(&SHA256, &n.to_be_bytes()).as_ref()].concat()).collect()
}

/// An oracle of its own.
pub fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    use aws_lc_rs::signature as s;
    let point = [&[4], key.bytes()].concat();
    let ec = |algorithm: &'static s::EcdsaVerificationAlgorithm| {
        s::UnparsedPublicKey::new(algorithm, &point).verify(message, signature).is_ok()
    };
    match key.algorithm() {
        Algorithm::EcdsaP256Sha256 => ec(&s::ECDSA_P256_SHA256_FIXED),
        Algorithm::EcdsaP384Sha384 => ec(&s::ECDSA_P384_SHA384_FIXED),
        Algorithm::Ed25519 => {
            s::UnparsedPublicKey::new(&s::ED25519, key.bytes()).verify(message, signature).is_ok()
        }
        Algorithm::RsaSha256 => {
            let (e, n) = key.rsa_parts().expect("RSA");
            s::RsaPublicKeyComponents { n, e }
                .verify(&s::RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok()
        }
    }
}

/// Waits for a condition; its last complaint is shown when patience ends.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(complaint) => {
                assert!(start.elapsed() < PATIENCE, "waited for {what}: {complaint}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
