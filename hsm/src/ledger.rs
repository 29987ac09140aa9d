//! The ledger's file, and the only place where leave to use a KSK is made.

use countersign_policy::ledger::Operation;

/// Leave to do one operation once: minted when its intent is durable in the ledger, consumed by
/// use. Neither `Clone` nor constructible outside this module.
#[derive(Debug)]
#[must_use = "an intent without an outcome stays open in the ledger"]
pub struct Authorised {
    intent: u64,
    operation: Operation,
}

impl Authorised {
    /// What may be done: verb, zone and keys.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// Uses it up. Call it where the HSM is asked, whatever the HSM then answers.
    pub fn spend(self) -> Spent {
        Spent { intent: self.intent }
    }
}

/// What is left of an [`Authorised`] after its use: the duty to record how it ended.
#[derive(Debug)]
#[must_use = "an intent without an outcome stays open in the ledger"]
pub struct Spent {
    intent: u64,
}

impl Spent {
    /// The intent's line in the ledger.
    pub fn intent(&self) -> u64 {
        self.intent
    }
}
