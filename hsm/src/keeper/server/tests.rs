//! A group's conversation with members who ask much, take nothing, or stay for good.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::protocol::{FRAME_BYTES_MAX, Mode, PROTOCOL_VERSION};

/// Whoever answers, the bound is the conversation's.
struct Nobody;

impl Keeper for Nobody {
    fn answer_daemon(&self, _: Request) -> Response {
        Response::Recorded
    }
    fn answer_group(&self, _: LedgerRequest, _: u32) -> LedgerResponse {
        LedgerResponse::Head { lines: 0, founding: None }
    }
}

/// Answers like the ledger's reader, with frames as large as they come, and counts them.
#[derive(Default)]
struct Long(AtomicUsize);

impl Conversation for Long {
    type Request = LedgerRequest;
    type Response = LedgerResponse;
    const IN_FLIGHT: usize = <WithGroup<Nobody> as Conversation>::IN_FLIGHT;
    fn is_hello(request: &LedgerRequest) -> bool {
        matches!(request, LedgerRequest::Hello { .. })
    }
    fn refused(refusal: Refusal) -> LedgerResponse {
        LedgerResponse::Refused(refusal)
    }
    fn is_refusal(response: &LedgerResponse) -> bool {
        matches!(response, LedgerResponse::Refused(_))
    }
    fn answer(&self, request: LedgerRequest, _: u32) -> LedgerResponse {
        if let LedgerRequest::Hello { protocol } = request {
            return LedgerResponse::Hello { protocol, mode: Mode::Founded };
        }
        self.0.fetch_add(1, Ordering::SeqCst);
        LedgerResponse::Lines { lines: vec![vec![0; FRAME_BYTES_MAX - 64]], cut: true }
    }
}

fn serving() -> (tempfile::TempDir, std::path::PathBuf, Arc<Long>) {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("ledger.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let long = Arc::new(Long::default());
    let conversation = Arc::clone(&long);
    std::thread::spawn(move || {
        serve(&listener, Allowed::ByFile, &conversation, &Arc::default());
    });
    (dir, path, long)
}

/// Connects and says hello; whether the keeper answered.
fn greeted(path: &Path) -> (UnixStream, bool) {
    let mut stream = UnixStream::connect(path).expect("connected");
    let hello = LedgerRequest::Hello { protocol: PROTOCOL_VERSION };
    // The keeper may have hung up already.
    let _ = stream.write_all(&frame::encode(1, &hello).expect("frame"));
    let answered = matches!(frame::read(&mut stream, &mut Vec::new()), Ok(true));
    (stream, answered)
}

#[test]
fn answers_that_nobody_takes_do_not_pile_up() {
    let (_dir, path, long) = serving();
    let (mut stream, _) = greeted(&path);
    for id in 0..5 {
        let read = LedgerRequest::Read { from: 0, skip: 0, max: 1 };
        stream.write_all(&frame::encode(id, &read).expect("frame")).expect("asked");
    }
    // A frame is more than the socket holds, so none is sent whole before it is read here.
    for taken in 0..5 {
        let made = long.0.load(Ordering::SeqCst);
        assert!(made <= taken + 1, "{made} whole frames were made, and {taken} taken");
        assert!(frame::read(&mut stream, &mut Vec::new()).expect("an answer"));
    }
    assert_eq!(long.0.load(Ordering::SeqCst), 5);
}

#[test]
fn one_users_idle_connections_leave_places_for_others() {
    let (_dir, path, _) = serving();
    let mut idle: Vec<(UnixStream, bool)> = (0..CONNECTIONS_MAX).map(|_| greeted(&path)).collect();
    assert_eq!(idle.iter().filter(|(_, answered)| *answered).count(), CONNECTIONS_PER_USER_MAX);
    idle.clear();
    let by = Instant::now() + Duration::from_secs(10);
    while !greeted(&path).1 {
        assert!(Instant::now() < by, "places are given back");
    }
}

#[test]
fn users_who_stay_for_good_keep_nobody_out() {
    let mut places = Places::default();
    let ends = std::cell::RefCell::new(Vec::new());
    let take = |places: &mut Places, user| {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        theirs.set_nonblocking(true).expect("set");
        ends.borrow_mut().push((user, theirs));
        places.take(user, CONNECTIONS_PER_USER_MAX, ours)
    };
    let greedy = 1..=(CONNECTIONS_MAX / CONNECTIONS_PER_USER_MAX) as u32;
    for user in greedy.clone() {
        assert!((0..CONNECTIONS_PER_USER_MAX).all(|_| take(&mut places, user).is_some()));
        assert_eq!(take(&mut places, user), None, "his share");
    }
    let officer = 100;
    let first = take(&mut places, officer).expect("a place for whoever has none");
    let held: usize = places.by_user.values().map(VecDeque::len).sum();
    assert_eq!(held, CONNECTIONS_MAX);
    let cut = |(user, end): &(u32, UnixStream)| {
        greedy.contains(user) && matches!((&*end).read(&mut [0]), Ok(0))
    };
    // The fifth of each greedy user was never let in, and is closed as well.
    let closed = ends.borrow().iter().filter(|end| cut(end)).count();
    assert_eq!(closed, 1 + greedy.clone().count(), "one of theirs was given on");
    assert!((0..2).all(|_| take(&mut places, officer).is_some()));
    assert_eq!(take(&mut places, officer), None, "nobody has more than he would");
    places.give_back(officer, first);
    assert!(take(&mut places, officer).is_some());
}

#[test]
fn a_socket_that_cannot_be_given_to_the_group_is_not_opened_to_everyone() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("keeper.sock");
    // (gid_t)-1 is "leave it" to chown(2), which then succeeds; no other number is refused to root.
    let own = nix::unistd::Gid::effective().as_raw();
    bind(&path, own).expect("its own group");
    let mode = std::fs::metadata(&path).expect("socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    if nix::unistd::Uid::effective().is_root() {
        return;
    }
    let refused = bind(&dir.path().join("other.sock"), 0).expect_err("not a member");
    assert!(refused.to_string().contains("make the keeper's user a member"), "{refused}");
    assert!(!dir.path().join("other.sock").exists());
}
