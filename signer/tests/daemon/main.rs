//! The two binaries as an operator sees them: countersignd started, reloaded and stopped, and
//! `countersign` asking it. The primary and the keeper are the runner tests' own.

#[path = "../runner/keeper.rs"]
#[expect(dead_code, reason = "shared with the runner's tests")]
mod keeper;
#[path = "../runner/primary.rs"]
#[expect(dead_code, reason = "shared with the runner's tests")]
mod primary;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use countersign_hsm::protocol::{Notice, NoticeKind};
use keeper::Keeper;
use primary::{Pki, Primary};
use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_secs(60);

struct Bed {
    dir: tempfile::TempDir,
    config: String,
    api: SocketAddr,
    daemon: Child,
    keeper: Keeper,
    _primary: Primary,
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port")
}

fn start(dir: &std::path::Path) -> Child {
    let log =
        std::fs::File::options().create(true).append(true).open(dir.join("log")).expect("a log");
    Command::new(env!("CARGO_BIN_EXE_countersignd"))
        .arg("--config")
        .arg(dir.join("daemon.toml"))
        .stderr(log)
        .stdout(Stdio::null())
        .spawn()
        .expect("started")
}

impl Bed {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let pki = Pki::new(dir.path());
        for name in ["daemon.test", "ops.test", "eyes.test", "stranger.test"] {
            pki.issue(name);
        }
        let keeper = Keeper::new(dir.path().join("keeper.sock"), "example.".parse().expect("name"));
        keeper.start();
        let primary = Primary::start(&pki, 7).await;
        let api = free_address();
        let d = dir.path().display();
        let config = format!(
            r#"version = 1
[daemon]
state_dir = "{d}"
keeper_socket = "{d}/keeper.sock"
api_socket = "{d}/api.sock"
[tls]
certificate = "{d}/daemon.test.pem"
key = "{d}/daemon.test.key"
ca = "{d}/ca.pem"
[listen]
dns = ["{}"]
api = ["{api}"]
[peer.primary-1]
identity = {{ san = "primary.test" }}
transfer_from = "{}"
[zone."example."]
primaries = ["primary-1"]
[api_client.ops]
identity = {{ san = "ops.test" }}
role = "operator"
[api_client.eyes]
identity = {{ san = "eyes.test" }}
role = "monitor"
"#,
            free_address(),
            primary.address,
        );
        std::fs::write(dir.path().join("daemon.toml"), &config).expect("written");
        let daemon = start(dir.path());
        Self { dir, config, api, daemon, keeper, _primary: primary }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `countersign` over the unix socket.
    fn cli(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .arg("--socket")
            .arg(self.path("api.sock"))
            .args(arguments)
            .output()
            .expect("ran");
        judged(&output)
    }

    /// `countersign` over HTTPS as `name`.
    fn cli_as(&self, name: &str, arguments: &[&str]) -> (i32, String) {
        let url = format!("https://{}", self.api);
        let output = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(["--url", &url, "--server-name", "daemon.test"])
            .arg("--cert")
            .arg(self.path(&format!("{name}.pem")))
            .arg("--cert-key")
            .arg(self.path(&format!("{name}.key")))
            .arg("--ca")
            .arg(self.path("ca.pem"))
            .args(arguments)
            .output()
            .expect("ran");
        judged(&output)
    }

    /// Asks until the answer is as wished.
    async fn until(&self, arguments: &[&str], wish: impl Fn(i32, &str) -> bool) -> String {
        let started = Instant::now();
        loop {
            let (code, text) = self.cli(arguments);
            if wish(code, &text) {
                return text;
            }
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(started.elapsed() < DEADLINE, "{arguments:?}: {code}\n{text}\nlog:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.daemon);
        kill_process(pid, signal).expect("signalled");
    }

    fn rewrite(&self, from: &str, to: &str) {
        assert!(self.config.contains(from));
        std::fs::write(self.path("daemon.toml"), self.config.replace(from, to)).expect("written");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn judged(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_and_steers() {
    let mut bed = Bed::start().await;
    let text = bed.until(&["zone", "list"], |code, _| code == 0).await;
    assert!(text.contains("example.") && text.contains("none"), "{text}");

    let (code, text) = bed.cli(&["zone", "show", "example", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&text).expect("json");
    assert_eq!((code, &shown["serial"], &shown["policy"]), (0, &7.into(), &"default".into()));

    let (code, text) = bed.cli(&["zone", "export", "example."]);
    assert_eq!(code, 0);
    let first = text.lines().next().expect("a line");
    assert!(first.starts_with("example.\t60\tIN\tSOA\tns.example. h.example. 7"), "{first}");

    let (code, text) = bed.cli(&["key", "list"]);
    assert!(code == 0 && text.contains("ED25519 (15)") && text.contains("KSK"), "{text}");
    let (code, text) = bed.cli(&["hsm", "status"]);
    assert!(code == 0 && text.contains("appliance test"), "{text}");

    let (code, text) = bed.cli(&["zone", "freeze", "example."]);
    assert!(code == 0 && text.contains("frozen by"), "{text}");
    bed.until(&["zone", "list"], |_, text| text.contains("frozen")).await;
    let (code, text) = bed.cli(&["zone", "thaw", "example."]);
    assert!(code == 0 && text.contains("thawed"), "{text}");

    let (code, text) = bed.cli(&["zone", "show", "other."]);
    assert!(code == 1 && text.contains("zone other. is not configured"), "{text}");

    bed.signal(Signal::TERM);
    assert_eq!(bed.daemon.wait().expect("ended").code(), Some(0));
    let (code, text) = bed.cli(&["zone", "list"]);
    assert!(code == 3 && text.contains("is countersignd running"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_what_is_whole_and_refuses_the_rest() {
    let bed = Bed::start().await;
    bed.until(&["zone", "list"], |code, _| code == 0).await;

    bed.rewrite("primaries = [\"primary-1\"]", "primaries = [\"primary-2\"]");
    bed.signal(Signal::HUP);
    let text = bed.until(&["zone", "list"], |code, _| code == 4).await;
    assert!(text.contains("which is not defined") && text.contains("did you mean"), "{text}");
    assert!(text.contains("example."), "the zone is still served: {text}");

    bed.rewrite("[zone.\"example.\"]", "[zone.\"other.\"]");
    bed.signal(Signal::HUP);
    let text = bed.until(&["zone", "list"], |_, text| text.contains("other.")).await;
    assert!(!text.contains("example."), "{text}");

    bed.rewrite("state_dir", "log = \"json\"\nstate_dir");
    bed.signal(Signal::HUP);
    let text = bed.until(&["daemon", "status"], |_, text| text.contains("daemon.log")).await;
    assert!(text.contains("restart needed for"), "{text}");
    bed.until(&["zone", "list"], |_, text| text.contains("example.") && text.contains("up")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_keeper_wants_known_is_seen_and_what_needs_attention_counts() {
    let bed = Bed::start().await;
    bed.until(&["zone", "list"], |code, text| code == 0 && text.contains("up")).await;
    let status = async |wish: &str| {
        let ask = ["daemon", "status", "--json"];
        let text = bed.until(&ask, |_, text| text.contains(wish)).await;
        serde_json::from_str::<serde_json::Value>(&text).expect("json")
    };
    let shown = status("\"ok\"").await;
    assert_eq!(shown["notices"], serde_json::json!([]));
    let notice = |kind, detail: &str| Notice { kind, detail: detail.to_owned() };
    let say = |notices| bed.keeper.state.lock().expect("state").notices = notices;
    say(vec![notice(NoticeKind::Proposal, "1 open: retire-key")]);
    let shown = status("retire-key").await;
    assert_eq!(
        (&shown["status"], &shown["notices"][0]["attention"]),
        (&"ok".into(), &false.into())
    );
    say(vec![
        notice(NoticeKind::Proposal, "1 open: retire-key"),
        notice(NoticeKind::Frozen, "KSK use, by carol"),
    ]);
    let shown = status("by carol").await;
    let first = &shown["notices"][0];
    assert_eq!((&shown["status"], &first["kind"]), (&"attention".into(), &"frozen".into()));
    let (_, text) = bed.cli(&["daemon", "status"]);
    assert!(text.contains("keeper: see to") && text.contains("KSK use, by carol"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_serves_at_once() {
    let mut bed = Bed::start().await;
    bed.until(&["zone", "list"], |code, _| code == 0).await;
    bed.signal(Signal::KILL);
    bed.daemon.wait().expect("ended");
    std::fs::remove_file(bed.path("keeper.sock")).expect("the keeper is gone");
    bed.daemon = start(bed.dir.path());
    let text = bed.until(&["zone", "show", "example.", "--json"], |code, _| code != 3).await;
    let shown: serde_json::Value = serde_json::from_str(&text).expect("json");
    assert_eq!(shown["serial"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_a_certificate_is_its_role() {
    let bed = Bed::start().await;
    bed.until(&["zone", "list"], |code, _| code == 0).await;
    for (name, arguments, code, part) in [
        ("ops.test", &["zone", "list"][..], 0, "example."),
        ("ops.test", &["zone", "refresh", "example."], 0, "the primary is asked now"),
        ("eyes.test", &["daemon", "status"], 0, "reachable"),
        ("eyes.test", &["zone", "list"], 1, "this needs Auditor"),
        ("stranger.test", &["zone", "list"], 3, "can't be reached"),
    ] {
        let (found, text) = bed.cli_as(name, arguments);
        assert!(found == code && text.contains(part), "{name} {arguments:?}: {found}\n{text}");
    }
}

#[test]
fn a_configuration_is_checked_without_a_daemon() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("d.toml");
    std::fs::write(&path, "version = 1\n[deamon]\n").expect("written");
    for (binary, arguments) in [
        (env!("CARGO_BIN_EXE_countersign"), &["config", "check"][..]),
        (env!("CARGO_BIN_EXE_countersignd"), &["--config"][..]),
    ] {
        let output = Command::new(binary).args(arguments).arg(&path).output().expect("ran");
        let (code, text) = judged(&output);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("d.toml:2:2: unknown field `deamon`"), "{text}");
        assert!(text.contains("did you mean `daemon`?"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_strangers_keep_nobody_out() {
    let bed = Bed::start().await;
    bed.until(&["zone", "list"], |code, _| code == 0).await;
    let idle: Vec<_> = (0..100)
        .map(|_| std::net::TcpStream::connect(bed.api).expect("accepted by the kernel"))
        .collect();
    let (code, text) = bed.cli_as("ops.test", &["zone", "list"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = bed.cli(&["zone", "list"]);
    assert_eq!(code, 0, "{text}");
    drop(idle);
}
