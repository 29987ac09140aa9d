//! The day when a quorum is lost: the keys of the officers are gone. A recovery group of other people,
//! more of them than any other motion takes, brings new officers; it can do nothing else, everyone is
//! told for as long as its delay lasts, and officers who are still there make it void.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use countersign_hsm::protocol::{NoticeKind, Request, Response};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::officers::{Draft, Officers, Person};
use softhsm_tests::pki::Authority;
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, throughout, until};
use softhsm_tests::{Scratch, story, thief};

/// How long a motion has to begin before we say that it does not. The keeper looks twice a second.
const CHANCE: Duration = Duration::from_secs(2);
const DAY: i64 = 86_400;
/// What the founding asks of the group: three persons beside the one who proposes, after two days.
const RECOVERY: (u8, u64) = (3, 2 * 86_400);
const GROUP: [&str; 5] = ["rita", "rolf", "rosa", "ruth", "ryan"];
const LOST: [&str; 5] = ["kay", "kim", "kurt", "pat", "paul"];
const KSK: [&str; 6] = ["generate-key", "--zone", "example.", "--role", "ksk", "--activate"];

/// Founded with the group.
fn founded(scratch: &Scratch) -> Result<Chain<'_>> {
    let draft = Draft { recovery: Some(RECOVERY), ..Draft::default() };
    let plan = Plan { draft, ..Plan::default() };
    let mut chain = Chain::prepare(scratch, plan, Authority::new(scratch, "ca")?)?;
    for name in GROUP {
        chain.officers.meet(name, "recovery", &["ed25519"])?;
    }
    chain.found_appliance()?;
    chain.bind_zones()?;
    Ok(chain)
}

/// The motion that gives each of [`LOST`] a new key, which is in a file beside the old one.
fn new_officers(officers: &Officers) -> Result<Vec<String>> {
    let mut motion = vec!["change-officers".to_owned()];
    for name in LOST {
        let role = &officers.person(name)?.role;
        let key = officers.new_key(&format!("{name}-anew"), &["ed25519"])?;
        let key = key.with_extension("pub").display().to_string();
        let enrol = format!("{name}={role}");
        let words = ["--retire", name, "--enrol", &enrol, "--key", &format!("{name}={key}")];
        motion.extend(words.map(str::to_owned));
    }
    Ok(motion)
}

fn words(motion: &[String]) -> Vec<&str> {
    motion.iter().map(String::as_str).collect()
}

/// The keeper's notices of the recovery group, as the daemon has them from it.
fn alarms(chain: &Chain<'_>) -> Result<Vec<String>> {
    match thief::request(User::Daemon, &chain.keeper, Request::Health)? {
        Response::Health(health) => {
            let notices = health.notices.into_iter();
            let recovery = notices.filter(|notice| notice.kind == NoticeKind::Recovery);
            Ok(recovery.map(|notice| notice.detail).collect())
        }
        other => bail!("{other:?}"),
    }
}

fn waits(chain: &Chain<'_>, id: &str, what: &str) -> Result<()> {
    throughout(what, CHANCE, || {
        ensure!(chain.keeper.is_done(id).is_err(), "it began");
        Ok(())
    })
}

#[test]
fn lost_quorum_recovers() {
    story(|scratch| {
        let mut chain = founded(scratch)?;
        let motion = new_officers(&chain.officers)?;
        for name in LOST {
            std::fs::remove_file(&chain.officers.person(name)?.key)?;
        }
        let officers = &chain.officers;
        // The group does this and little else, and one of the others does not do it for it.
        officers.refused("rita", &[&["propose"], &KSK[..]].concat(), "recovery")?;
        let freed = officers.propose("op", &KSK)?;
        officers.refused("rita", &["approve", &freed], "no vote")?;
        officers.ok("op", &["proposal", "withdraw", &freed])?;
        ensure!(alarms(&chain)?.is_empty(), "an alarm before there is anything to tell");

        let id = officers.propose("rita", &words(&motion))?;
        officers.refused("rita", &["approve", &id], "proposed it")?;
        officers.refused("op", &["approve", &id], "no vote")?;
        officers.approve(&["rolf", "rosa"], &id)?;
        chain.keeper.set_clock(3 * DAY)?;
        waits(&chain, &id, "two of the group, whatever the time")?;
        chain.keeper.set_clock(60)?;
        officers.approve(&["ruth"], &id)?;

        // Everyone is told, from the first moment to the last.
        for (at, what) in [(60, "its quorum without its delay"), (2 * DAY - 60, "just before")] {
            chain.keeper.set_clock(at)?;
            let told = alarms(&chain)?;
            ensure!(told.len() == 1 && told[0].contains(&id[..8]), "{told:?}");
            ensure!(told[0].contains("delay"), "{told:?}");
            waits(&chain, &id, what)?;
        }
        chain.keeper.set_clock(2 * DAY + 60)?;
        until("the new officers", SOON, || chain.keeper.is_done(&id))?;
        ensure!(alarms(&chain)?.is_empty(), "{:?}", alarms(&chain)?);

        // They carry what they like; the old keys, had anyone found them, nothing.
        for name in LOST {
            let Person { role, pins, .. } = chain.officers.person(name)?.clone();
            let key = chain.officers.dir().join(format!("{name}-anew"));
            let person = Person { name: name.to_owned(), role, key, pins };
            chain.officers.people.insert(name.to_owned(), person);
        }
        chain.make_keys()?;
        let bundle = chain.officers.export_bundle("recovered.bundle")?;
        let (ours, second) =
            (chain.officers.audit_verify(&bundle)?, chain.officers.second_verifier(&bundle)?);
        ensure!(ours.status.success(), "{}{}", ours.stdout, ours.stderr);
        ensure!(ours.stdout.contains("rita"), "who recovered is not told: {}", ours.stdout);
        ensure!(second.status.success(), "{}{}", second.stdout, second.stderr);
        Ok(())
    });
}

#[test]
fn officers_who_are_there_end_a_recovery() {
    story(|scratch| {
        let chain = founded(scratch)?;
        chain.make_keys()?;
        let officers = &chain.officers;
        let motion = new_officers(officers)?;
        let id = officers.propose("ruth", &words(&motion))?;
        officers.approve(&["rita", "rolf", "rosa", "ryan"], &id)?;
        ensure!(alarms(&chain)?.len() == 1, "{:?}", alarms(&chain)?);

        // Any one of them stops the KSKs at once: whoever takes over finds them frozen, and thawing is a
        // motion like another.
        officers.ok("paul", &["freeze", "--reason", "nobody here has lost a key"])?;
        let keys = thief::keys(&chain.keeper, "example.")?;
        let use_of_ksk = thief::signs_dnskey(&chain.keeper, &keys, thief::now()?)?;
        ensure!(use_of_ksk.is_err(), "a frozen KSK signs");
        // And two of them change the roster, by any change: what the group wanted rests on the old one.
        let rex = officers.new_key("rex", &["ed25519"])?.with_extension("pub");
        let rex = format!("rex={}", rex.display());
        let change = ["--retire", "ruth", "--enrol", "rex=recovery", "--key", &rex];
        officers.carry(&chain.keeper, &[&["change-officers"], &change[..]].concat())?;
        chain.keeper.set_clock(2 * DAY + 60)?;
        waits(&chain, &id, "a recovery that the officers have ended")?;
        officers.refused("ruth", &["propose", "change-officers", "--retire", "op"], "ruth")?;
        officers.carry(&chain.keeper, &["thaw"])?;
        let use_of_ksk = thief::signs_dnskey(&chain.keeper, &keys, thief::now()? + 172_860)?;
        ensure!(use_of_ksk.is_ok(), "thawed: {use_of_ksk:?}");
        Ok(())
    });
}
