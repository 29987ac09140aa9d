//! The daemon's client against a keeper played by the test: what it does when answers overtake one
//! another, never come, or the keeper restarts.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use countersign_hsm::client::{Client, ClientError};
use countersign_hsm::frame;
use countersign_hsm::protocol::{
    BATCH_MAX, KeeperHealth, PROTOCOL_VERSION, Refusal, RefusalKind, Request, Response,
    TBS_BYTES_MAX,
};
use countersign_policy::tree::Hash;
use countersign_policy::{KeyId, ZoneName};

/// Long enough that only a defect meets it.
const PATIENCE: Duration = Duration::from_secs(20);

struct Played {
    listener: UnixListener,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

struct Connection(UnixStream);

impl Played {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("keeper.sock");
        let listener = UnixListener::bind(&path).expect("socket");
        Self { listener, path, _dir: dir }
    }

    fn accept(&self, protocol: u16) -> Connection {
        let mut connection = Connection(self.listener.accept().expect("connection").0);
        let (id, request) = connection.next().expect("hello");
        assert_eq!(request, Request::Hello { protocol: PROTOCOL_VERSION });
        let (version, appliance) = ("0".to_owned(), "lab".to_owned());
        let founding = Hash([9; 32]);
        connection.answer(id, &Response::Hello { protocol, version, appliance, founding });
        connection
    }
}

impl Connection {
    fn next(&mut self) -> Option<(u64, Request)> {
        let mut body = Vec::new();
        frame::read(&mut self.0, &mut body).ok()?.then(|| frame::decode(&body).expect("request"))
    }

    fn answer(&mut self, id: u64, response: &Response) {
        use std::io::Write;
        self.0.write_all(&frame::encode(id, response).expect("frame")).expect("written");
    }
}

fn zone() -> ZoneName {
    "example.".parse().expect("name")
}

#[test]
fn answers_may_overtake_one_another() {
    let keeper = Played::start();
    let client = Client::new(keeper.path.clone(), PATIENCE);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = keeper.accept(PROTOCOL_VERSION);
            let (first, _) = connection.next().expect("request");
            let (second, _) = connection.next().expect("request");
            connection.answer(second, &Response::DnskeySignature(vec![2]));
            connection.answer(first, &Response::DnskeySignature(vec![1]));
        });
        let first = client.start(Request::Health).expect("sent");
        let second = client.start(Request::Health).expect("sent");
        assert_eq!(second.wait(), Ok(Response::DnskeySignature(vec![2])));
        assert_eq!(first.wait(), Ok(Response::DnskeySignature(vec![1])));
    });
}

#[test]
fn a_keeper_that_restarts_is_met_again() {
    let keeper = Played::start();
    let client = Client::new(keeper.path.clone(), PATIENCE);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = keeper.accept(PROTOCOL_VERSION);
            connection.next().expect("request");
            drop(connection);
            let mut connection = keeper.accept(PROTOCOL_VERSION);
            let (id, _) = connection.next().expect("request");
            connection.answer(id, &Response::Health(KeeperHealth::default()));
        });
        let lost = client.health().expect_err("the keeper died before it answered");
        assert!(lost.is_transient(), "{lost}");
        assert_eq!(client.health(), Ok(KeeperHealth::default()));
    });
}

#[test]
fn a_silent_keeper_costs_the_deadline_and_no_more() {
    let keeper = Played::start();
    let client = Client::new(keeper.path.clone(), Duration::from_millis(300));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut silent = keeper.accept(PROTOCOL_VERSION);
            silent.next().expect("request");
            // The next request comes on a connection of its own; the silent one is closed.
            let mut fresh = keeper.accept(PROTOCOL_VERSION);
            let (id, _) = fresh.next().expect("request");
            fresh.answer(id, &Response::Health(KeeperHealth::default()));
            assert!(silent.next().is_none());
        });
        assert!(matches!(client.health(), Err(ClientError::Deadline(_))));
        assert_eq!(client.health(), Ok(KeeperHealth::default()));
    });
}

#[test]
fn another_protocol_and_no_keeper_are_told_apart() {
    let keeper = Played::start();
    let client = Client::new(keeper.path.clone(), PATIENCE);
    std::thread::scope(|scope| {
        scope.spawn(|| keeper.accept(PROTOCOL_VERSION + 1));
        let error = client.health().expect_err("another protocol");
        assert_eq!(error, ClientError::OtherProtocol { theirs: PROTOCOL_VERSION + 1 });
        assert!(!error.is_transient());
    });
    let nobody = Client::new(keeper.path.with_extension("gone"), PATIENCE);
    let error = nobody.health().expect_err("nobody listens");
    assert!(error.is_transient() && error.to_string().contains("is countersign-keeper running"));
}

#[test]
fn many_items_are_split_and_come_back_in_order() {
    let count = 2 * BATCH_MAX + 7;
    let mut items: Vec<Vec<u8>> = (0..count).map(|i| i.to_be_bytes().to_vec()).collect();
    let oversized = BATCH_MAX / 2;
    items[oversized] = vec![0; TBS_BYTES_MAX + 1];
    let keeper = Played::start();
    let client = Client::new(keeper.path.clone(), PATIENCE);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = keeper.accept(PROTOCOL_VERSION);
            while let Some((id, request)) = connection.next() {
                let Request::SignZone { tbs, .. } = request else { panic!("{request:?}") };
                assert!(tbs.len() <= BATCH_MAX);
                connection.answer(id, &Response::Signatures(tbs.into_iter().map(Ok).collect()));
            }
        });
        let answers = client.sign_zone(&zone(), KeyId([1; 32]), items.clone()).expect("signed");
        assert_eq!(answers.len(), count);
        for (at, (item, answer)) in items.iter().zip(&answers).enumerate() {
            match answer {
                Ok(signature) => assert_eq!(signature, item),
                Err(refusal) => {
                    assert_eq!((at, refusal.kind), (oversized, RefusalKind::Malformed));
                }
            }
        }
        drop(client);
    });
}

#[test]
fn a_refusal_is_an_error_with_its_reason() {
    let keeper = Played::start();
    let client = Client::new(keeper.path.clone(), PATIENCE);
    let refusal = Refusal { kind: RefusalKind::Busy, detail: "later".to_owned() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = keeper.accept(PROTOCOL_VERSION);
            let (id, _) = connection.next().expect("request");
            connection.answer(id, &Response::Refused(refusal.clone()));
        });
        let error = client.zone(&zone()).expect_err("refused");
        assert_eq!(error, ClientError::Refused(refusal.clone()));
        assert!(error.is_transient());
    });
}
