//! A wrong PIN is tried once, however often the keeper is restarted, until its file changes.

use anyhow::{Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::pki::Authority;
use softhsm_tests::shim::Shim;
use softhsm_tests::story;
use softhsm_tests::wait::{SOON, until};

/// More than any HSM allows wrong PINs.
const RESTARTS: u32 = 12;

#[test]
fn a_wrong_pin_never_locks_a_token() {
    story(|scratch| {
        let shim = Shim::install(scratch)?;
        let plan = Plan { zsk_module: Some(shim.module.clone()), ..Plan::default() };
        let mut chain = Chain::prepare(scratch, plan, Authority::new(scratch, "ca")?)?;
        chain.found()?;
        chain.keeper.write_pin("zsk-a", "not-the-pin")?;
        let before = shim.calls("C_Login")?;
        for _ in 0..RESTARTS {
            ensure!(chain.keeper.stop()?.success());
            chain.keeper.start()?;
            unusable(&chain)?;
        }
        let logins = shim.calls("C_Login")? - before;
        ensure!(logins == 1, "{logins} logins with a PIN that was refused");

        chain.keeper.write_pin("zsk-a", &chain.tokens["zsk-a"].pin)?;
        chain.start_primary()?;
        chain.daemon.start()?;
        chain.start_secondary()?;
        chain.wait_for_secondary("a first version", |_| true)?;
        chain.verify_served()
    });
}

/// Waits until the keeper says that the token can't be used.
fn unusable(chain: &Chain<'_>) -> Result<()> {
    use countersign_hsm::protocol::{Request, Response, TokenState};
    use softhsm_tests::{ask::ask, users::User};

    until("an unusable token", SOON, || {
        let answer = ask(User::Daemon, &chain.keeper.socket, &[Request::Health])?;
        let Some(Ok(Response::Health(health))) = answer.first() else {
            anyhow::bail!("{answer:?}");
        };
        let token = health.tokens.iter().find(|token| token.name == "zsk-a");
        match token.map(|token| &token.state) {
            Some(TokenState::Unusable(reason)) if reason.contains("PIN") => Ok(()),
            other => anyhow::bail!("{other:?}"),
        }
    })
}
