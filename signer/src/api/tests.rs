//! The API over real sockets, with a zone whose task is the test itself.

use std::collections::BTreeMap;
use std::sync::Mutex;

use countersign_policy::ZoneName;
use countersign_zone::Rtype;
use countersign_zone::admit::{AdmissionParams, admit};
use countersign_zone::receive::{Bounds, CLASS_IN, Receiver};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::peers::PeerTable;
use crate::published::{Published, ZoneAccess};
use crate::runner::schedule::{Event, Failure, FailureKind, Schedule, TimerBounds};
use crate::runner::status::{Command, Doing, Handle, Status};
use crate::store::Frozen;

mod push;

const CONFIG: &str = r#"version = 1
[daemon]
state_dir = "/nonexistent"
keeper_socket = "/nonexistent/keeper.sock"
api_socket = "/nonexistent/api.sock"
[tls]
certificate = "c"
key = "k"
ca = "a"
[peer.p]
identity = { san = "p.test" }
transfer_from = "127.0.0.1:1"
[zone."example."]
primaries = ["p"]
push_from = ["maker", "anna", "local"]
[zone."other."]
push_from = ["local"]
[zone."third."]
push_from = ["maker"]
[api_client.maker]
identity = { san = "maker.test" }
role = "pusher"
[api_client.anna]
identity = { san = "anna.test" }
role = "operator"
[limits]
idle_ms = 300
transfer_s_max = 2
records_max = 10
zone_bytes_max = 1024
pushes_at_once_max = 2
"#;

fn zone() -> ZoneName {
    "example.".parse().expect("name")
}

fn published() -> Arc<Published> {
    let bounds = Bounds { records_max: 100, bytes_max: 10_000 };
    let mut receiver = Receiver::new(zone(), bounds);
    let soa = b"\x02ns\x07example\x00\x01h\x00\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01";
    let apex = b"\x07Example\x00";
    for (owner, rtype, rdata) in [
        (&apex[..], Rtype::SOA, &soa[..]),
        (apex, Rtype::NS, b"\x02ns\x07example\x00"),
        (b"\x02ns\x07example\x00", Rtype::A, &[192, 0, 2, 1]),
    ] {
        receiver.push(owner, rtype.0, CLASS_IN, 60, rdata).expect("taken");
    }
    let params = AdmissionParams { ttl_max_s: 600, ..AdmissionParams::UNBOUNDED };
    let admitted = admit(receiver.finish().expect("whole"), &params).expect("admitted");
    Arc::new(Published::unverified(zone(), 7, admitted.records().clone()))
}

impl Caller {
    fn remote(name: &str, role: Role) -> Self {
        Self { name: name.to_owned(), role, local: false }
    }
}

/// A daemon with two zones, one of them up: its API, and what its runner would see.
struct Bed {
    server: Server,
    commands: mpsc::Receiver<Command>,
}

fn bed() -> Bed {
    let config = crate::config::parse(Path::new("d.toml"), CONFIG).expect("whole");
    let access = ZoneAccess { zone: zone(), primaries: vec![], secondaries: vec![] };
    let catalogue = Catalogue::new([access], PeerTable::new([]).expect("empty"));
    catalogue.publish(published()).expect("published");
    let bounds = TimerBounds { min_s: 1, max_s: 10 };
    let mut schedule = Schedule::new(bounds, None, false, None, 0);
    schedule.next(Event::Tick, 0);
    let failure = Failure { kind: FailureKind::Transfer, detail: "no route".to_owned() };
    schedule.next(Event::CheckFailed { failure, params: None }, 5);
    let (sender, status) = watch::channel(Status {
        schedule,
        frozen: None,
        published_at_s: None,
        versions: Arc::new([]),
        held: None,
        waiting: None,
        doing: Doing::Idle,
        policy: Some("default".to_owned()),
    });
    drop(sender);
    let (command_sender, commands) = mpsc::channel(4);
    let zones = Directory::default();
    let handle = Handle { commands: command_sender, status };
    zones.replace(BTreeMap::from([
        (zone(), handle.clone()),
        ("other.".parse().expect("name"), handle.clone()),
        ("third.".parse().expect("name"), handle),
    ]));
    let dir = tempfile::tempdir().expect("dir").keep();
    let state = ApiState {
        zones,
        catalogue: Arc::new(catalogue),
        keeper: Client::new("/nonexistent/keeper.sock".into(), Duration::from_secs(1)),
        questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        pushes: Pushes::new(2),
        metrics: Arc::new(Metrics::new().expect("metrics")),
        counters: Box::new(Vec::new),
        store: Arc::new(Store::open(&dir, 2).expect("store")),
        looks: Arc::new(Semaphore::new(LOOKS_MAX)),
        live: ArcSwap::from_pointee(Live {
            config,
            config_error: Some("d.toml:1:1: so it was".to_owned()),
            restart_needed_for: Vec::new(),
            clients: Identities::new([]).expect("empty"),
            acceptor: None,
            certificates: None,
        }),
    };
    Bed { server: Server::new(Arc::new(state), 8, CancellationToken::new()), commands }
}

impl Bed {
    /// Sends a request as `role`; the status, the content type and the body.
    async fn ask(&self, role: Role, method: &str, path: &str) -> (u16, String, String) {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        self.server.serve(theirs, Caller::remote("someone", role));
        talk(ours, method, path).await
    }
}

async fn talk(mut stream: UnixStream, method: &str, path: &str) -> (u16, String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: d\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("status");
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    (status, kind.unwrap_or_default().to_owned(), body.to_owned())
}

#[tokio::test]
async fn zones_are_listed_with_what_is_wrong() {
    let bed = bed();
    let (status, _, body) = bed.ask(Role::Auditor, "GET", "/v1/zones").await;
    assert_eq!(status, 200, "{body}");
    let list: model::ZoneList = serde_json::from_str(&body).expect("a list");
    assert_eq!(list.config_error.as_deref(), Some("d.toml:1:1: so it was"));
    let kinds: Vec<&str> = list.zones[0].alarms.iter().map(|alarm| &*alarm.kind).collect();
    assert_eq!(kinds, ["no-version", "primary-unreachable"]);
    let (status, _, body) = bed.ask(Role::Auditor, "GET", "/v1/zones/EXAMPLE").await;
    assert_eq!(status, 200);
    let detail: model::ZoneDetail = serde_json::from_str(&body).expect("a zone");
    assert_eq!((detail.records, detail.policy.as_deref()), (Some(3), Some("default")));
    assert_eq!(detail.primaries, ["p"]);
}

#[tokio::test]
async fn what_goes_wrong_is_a_problem_document() {
    let bed = bed();
    for (method, path, expect, detail) in [
        ("GET", "/v1/zones/absent.", 404, "zone absent. is not configured"),
        ("GET", "/v1/zones/a..b", 400, "empty label"),
        ("GET", "/v2/zones", 404, "no route /v2/zones"),
        ("DELETE", "/v1/zones", 405, "DELETE does not fit"),
        ("GET", "/v1/hsm", 502, "keeper at /nonexistent/keeper.sock"),
    ] {
        let (status, kind, body) = bed.ask(Role::Operator, method, path).await;
        assert_eq!((status, &*kind), (expect, "application/problem+json"), "{path}: {body}");
        let problem: problem::Problem = serde_json::from_str(&body).expect("a problem");
        assert_eq!(problem.status, expect);
        assert!(problem.detail.contains(detail), "{}", problem.detail);
    }
}

#[tokio::test]
async fn each_role_opens_its_doors_alone() {
    let bed = bed();
    for (role, method, path, expect) in [
        (Role::Monitor, "GET", "/metrics", 200),
        (Role::Monitor, "GET", "/v1/health", 200),
        (Role::Monitor, "GET", "/v1/zones", 403),
        (Role::Monitor, "GET", "/v1/zones/example./export", 403),
        (Role::Auditor, "GET", "/v1/zones/example./export", 200),
        (Role::Auditor, "GET", "/v1/zones/example./export?serial=7", 200),
        (Role::Auditor, "GET", "/v1/zones/example./export?serial=8", 404),
        (Role::Auditor, "POST", "/v1/zones/example./freeze", 403),
        (Role::Auditor, "POST", "/v1/zones/example./refresh", 403),
        (Role::Operator, "POST", "/v1/zones/example./refresh", 200),
    ] {
        let (status, _, body) = bed.ask(role, method, path).await;
        assert_eq!(status, expect, "{role:?} {method} {path}: {body}");
    }
}

#[tokio::test]
async fn a_freeze_is_answered_when_it_is_durable() {
    let mut bed = bed();
    let answered = async {
        let Some(Command::Freeze { by, done }) = bed.commands.recv().await else {
            panic!("another command");
        };
        done.send(Ok(Frozen { version: 1, since_s: 5, by })).expect("waited for");
    };
    let (ours, theirs) = UnixStream::pair().expect("pair");
    bed.server.serve(theirs, Caller::remote("anna", Role::Operator));
    let (answer, ()) = tokio::join!(talk(ours, "POST", "/v1/zones/example./freeze"), answered);
    assert_eq!(answer.0, 200);
    assert!(answer.2.contains("frozen by anna"), "{}", answer.2);
}

#[tokio::test]
async fn an_export_is_a_master_file() {
    let (status, kind, body) = bed().ask(Role::Auditor, "GET", "/v1/zones/example./export").await;
    assert_eq!((status, &*kind), (200, "text/dns"));
    let lines: Vec<&str> = body.lines().filter(|line| line.contains("\tIN\t")).collect();
    assert_eq!(
        lines,
        [
            "Example.\t60\tIN\tSOA\tns.example. h. 7 1 1 1 1",
            "Example.\t60\tIN\tNS\tns.example.",
            "ns.example.\t60\tIN\tA\t192.0.2.1",
        ]
    );
}

#[tokio::test]
async fn the_socket_is_for_its_user_and_group_alone() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("api.sock");
    let rule = LocalRule::new(None).expect("no group");
    for _ in 0..2 {
        // The second time in place of the one that is left.
        let listener = bind_unix(&path, &rule).expect("bound");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let server = bed().server;
        let stop = server.stop.clone();
        let serving = tokio::spawn(server.serve_unix(listener, rule.clone()));
        let stream = UnixStream::connect(&path).await.expect("connected");
        let (status, _, body) = talk(stream, "GET", "/v1/health").await;
        assert_eq!(status, 200);
        assert!(body.contains("\"attention\""), "{body}");
        stop.cancel();
        serving.await.expect("ended");
    }
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, "").expect("a file in the way");
    assert!(bind_unix(&path, &rule).expect_err("no socket").to_string().contains("not a socket"));
}

/// A caller who hangs up ends their request, and not the question that waits for the keeper.
#[tokio::test]
async fn callers_who_hang_up_leave_few_questions_behind() {
    let state = bed().server.state;
    let (begin, mut begun) = mpsc::unbounded_channel();
    // Nothing comes through it; it ends when the keeper "answers".
    let (over, answers) = std::sync::mpsc::channel::<()>();
    let answers = Arc::new(Mutex::new(answers));
    for nth in 0..4 * QUESTIONS_MAX {
        let (state, begin, answers) = (state.clone(), begin.clone(), answers.clone());
        let request = tokio::spawn(async move {
            let question = move |_: &Client| {
                begin.send(()).expect("counted");
                let _ = answers.lock().expect("whole").recv();
                Ok(())
            };
            routes::ask(&state, question).await.is_ok()
        });
        if nth < QUESTIONS_MAX {
            begun.recv().await.expect("asked");
        } else {
            // It goes as far as it can: this thread runs everything.
            tokio::task::yield_now().await;
        }
        request.abort();
    }
    // Every question that was ever begun ends, and whoever would count one more is gone.
    drop((over, begin));
    let mut questions = QUESTIONS_MAX;
    while begun.recv().await.is_some() {
        questions += 1;
    }
    assert_eq!(questions, QUESTIONS_MAX);
}
