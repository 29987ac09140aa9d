//! What a founding must be to be taken, against tokens that are tables; each refusal has its cause, and
//! leaves no line.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicU32;

use countersign_policy::founding::Founding;
use countersign_policy::ssh::Namespace;

use super::*;
use crate::council::Council;
use crate::keeper::fake::{self, Fake, NOW, config, now_s, set_clock, write_config};

struct Draft {
    unfounded: Unfounded<Fake>,
    council: Council,
    dir: tempfile::TempDir,
    ended: Arc<AtomicU32>,
}

impl Draft {
    fn new() -> Self {
        set_clock(NOW);
        let dir = tempfile::tempdir().expect("dir");
        let ledger = Arc::new(Ledger::open(dir.path()).expect("opens"));
        let path = dir.path().join("keeper.toml");
        write_config(&path, &config(dir.path(), None));
        let loaded = KeeperConfig::load(&path).expect("whole");
        let ended = Arc::new(AtomicU32::new(0));
        let ending = Arc::clone(&ended);
        let founded = Box::new(move || _ = ending.fetch_add(1, Ordering::SeqCst));
        let unfounded = Unfounded::new(ledger, Fake::new(&[]), loaded, path, now_s, founded);
        Self { unfounded, council: Council::new(), dir, ended }
    }

    fn founding(&self) -> Founding {
        fake::founding(&self.council, &self.unfounded.hsm)
    }

    /// Pins the text, and hands it in, signed by everyone.
    fn hand_in(&self, founding: &Founding) -> Result<Hash, Refusal> {
        let text = founding.to_text();
        write_config(&self.path(), &config(self.dir.path(), Some(&hash_of(&text))));
        self.found(&text)
    }

    fn found(&self, text: &str) -> Result<Hash, Refusal> {
        let signatures: Vec<_> = self.council.found(text).into_iter().collect();
        self.unfounded.found(text, &signatures)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("keeper.toml")
    }

    fn refused(&self, result: Result<Hash, Refusal>, expect: &str) {
        let refusal = result.expect_err(expect);
        assert!(refusal.detail.contains(expect), "{refusal} / {expect}");
        assert_eq!(self.unfounded.ledger.head(), (0, None), "no line: {expect}");
        assert!(!self.unfounded.is_founded());
        assert_eq!(self.ended.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_founding_that_root_pinned_and_all_signed_is_line_0_and_on_every_token() {
    let draft = Draft::new();
    let survey = draft.unfounded.survey().expect("survey");
    assert_eq!(survey.tokens.len(), 2);
    assert!(survey.tokens.iter().all(|token| token.data_objects && token.marked.is_none()));
    let founding = draft.founding();
    assert_eq!(survey.audit, Some(("ksk-a".to_owned(), founding.audit_key.clone())));
    let hash = draft.hand_in(&founding).expect("founded");
    let ledger = &draft.unfounded.ledger;
    assert_eq!(ledger.head(), (3, Some(hash)));
    for token in ["ksk-a", "zsk-a"] {
        assert!(ledger.read(|state| state.is_marked(token)));
        let mark = draft.unfounded.hsm.read_data(token, marks::MARK_LABEL).expect("data");
        assert_eq!(mark, [hash.to_string().into_bytes()]);
    }
    assert_eq!(draft.ended.load(Ordering::SeqCst), 1, "the keeper ends");
    let again = draft.found(&founding.to_text()).expect_err("once");
    assert!(again.detail.contains("starting anew"), "{again}");
}

#[test]
fn on_a_token_with_a_mark_no_audit_key_is_made() {
    let draft = Draft::new();
    let hsm = &draft.unfounded.hsm;
    hsm.write_data("ksk-a", marks::MARK_LABEL, "ab".repeat(32).as_bytes()).expect("marked");
    let survey = draft.unfounded.survey().expect("survey");
    assert_eq!(survey.audit, None);
    assert!(!hsm.table().calls.contains(&"make-audit-key"), "the other appliance's is half of it");
    draft.refused(draft.hand_in(&draft.founding()), "carries the mark");
    assert!(!hsm.table().calls.contains(&"make-audit-key"));
}

#[test]
fn without_roots_pin_of_that_very_text_nothing_is_founded() {
    let draft = Draft::new();
    let founding = draft.founding();
    let text = founding.to_text();
    draft.refused(draft.found(&text), "no founding is pinned");
    let other = Founding { nonce: [8; 16], ..founding.clone() };
    write_config(&draft.path(), &config(draft.dir.path(), Some(&hash_of(&other.to_text()))));
    draft.refused(draft.found(&text), "pins");
    // What anyone else could have written is not root's word.
    write_config(&draft.path(), &config(draft.dir.path(), Some(&hash_of(&text))));
    let loose = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(draft.path(), loose).expect("mode");
    draft.refused(draft.found(&text), "others than its owner can write");
    let mut other_tokens = config(draft.dir.path(), Some(&hash_of(&text)));
    other_tokens = other_tokens.replacen("serial = \"1\"", "serial = \"2\"", 1);
    write_config(&draft.path(), &other_tokens);
    draft.refused(draft.found(&text), "other tokens than those that are open");
    assert!(draft.hand_in(&founding).is_ok());
}

#[test]
fn what_the_text_says_of_the_tokens_is_what_is_there() {
    let draft = Draft::new();
    let check = |change: &dyn Fn(&mut Founding), expect: &str| {
        let mut founding = draft.founding();
        change(&mut founding);
        draft.refused(draft.hand_in(&founding), expect);
    };
    check(
        &|f| _ = f.tokens.remove("zsk-a"),
        "the founding names the tokens ksk-a; here are ksk-a, zsk-a",
    );
    check(
        &|f| f.tokens.get_mut("zsk-a").expect("token").serial = "9".to_owned(),
        "with serial number `1`",
    );
    check(
        &|f| f.tokens.get_mut("zsk-a").expect("token").data_objects = false,
        "holds data objects",
    );
    check(&|f| f.audit_token = "zsk-a".to_owned(), "audit key is on `zsk-a`");
    let foreign = |token: &str| ForeignKey {
        token: token.to_owned(),
        label: "ods".to_owned(),
        id: "01".to_owned(),
    };
    check(&|f| f.foreign = vec![foreign("ksk-a")], "lists, and it is not there");
    check(&|f| f.time = NOW + 86_400, "the founding's time");
    draft.refused(draft.found("countersign founding v1\n"), "not a founding");
}

#[test]
fn everyone_on_the_roster_signs_and_nobody_else() {
    let draft = Draft::new();
    let text = draft.founding().to_text();
    write_config(&draft.path(), &config(draft.dir.path(), Some(&hash_of(&text))));
    let all: Vec<_> = draft.council.found(&text).into_iter().collect();
    let found = |signatures: &[_]| draft.unfounded.found(&text, signatures);
    draft.refused(found(&all[1..]), "has not signed the founding");
    let kind = found(&all[1..]).expect_err("not all").kind;
    assert_eq!(kind, RefusalKind::Forbidden, "asking again does not help");
    draft.refused(found(&[&all[..], &all[..1]].concat()), "a person signs once");
    let mut other_purpose = all.clone();
    other_purpose[0].1 = draft.council.ada.sign(Namespace::Approve, &text);
    draft.refused(found(&other_purpose), "signature");
    let mut others = all.clone();
    others[0].1 = all[1].1.clone();
    draft.refused(found(&others), "is no key of");
}

#[test]
fn tokens_of_another_appliance_are_not_taken() {
    let draft = Draft::new();
    let founding = draft.founding();
    let other = Hash([5; 32]);
    marks::mark(&draft.unfounded.hsm, "zsk-a", &other).expect("marked");
    draft.refused(draft.hand_in(&founding), "carries the mark of founding 0505");
    let survey = draft.unfounded.survey().expect("survey");
    assert_eq!(survey.tokens[1].marked, Some(other), "and the survey shows it");
    draft.unfounded.hsm.table().data.clear();
    // Live keys of a keeper whose ledger is gone.
    let label = "cs-0011-ksk-example.".to_owned();
    draft.unfounded.hsm.table().objects.insert(label, None);
    draft.refused(draft.hand_in(&founding), "a key of an earlier founding");
}

#[test]
fn foreign_keys_are_listed_or_nothing_is_founded() {
    let draft = Draft::new();
    draft.unfounded.hsm.table().objects.insert("ods-ksk".to_owned(), None);
    draft.refused(draft.hand_in(&draft.founding()), "does not list");
    let survey = draft.unfounded.survey().expect("survey");
    assert_eq!(survey.tokens[0].keys[0].label, "ods-ksk");
    let (token, label, id) = ("ksk-a".to_owned(), "ods-ksk".to_owned(), String::new());
    let mut founding = draft.founding();
    founding.foreign = vec![ForeignKey { token, label, id }];
    draft.hand_in(&founding).expect("founded");
}

#[test]
fn an_unfounded_keeper_does_nothing_else() {
    let draft = Draft::new();
    for request in [LedgerRequest::Checkpoint, LedgerRequest::ExportDs { zone: fake::zone() }] {
        let answer = draft.unfounded.answer_group(request, 1);
        let LedgerResponse::Refused(refusal) = answer else { panic!("{answer:?}") };
        assert!(refusal.detail.contains("not founded"), "{refusal}");
    }
    let hello = LedgerRequest::Hello { protocol: crate::protocol::PROTOCOL_VERSION };
    let answer = draft.unfounded.answer_group(hello, 1);
    assert!(matches!(answer, LedgerResponse::Hello { mode: Mode::Unfounded, .. }), "{answer:?}");
    let answer = draft.unfounded.answer_daemon(Request::Zones { after: None });
    let Response::Refused(refusal) = answer else { panic!("{answer:?}") };
    assert_eq!(refusal.kind, RefusalKind::LedgerUnavailable);
}
