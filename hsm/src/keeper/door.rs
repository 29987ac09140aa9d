//! What the keeper asks of the tokens, as a trait, so that its logic is tested against tokens that
//! fail on purpose.

use countersign_policy::{Algorithm, KeyId, PublicKey};

use crate::ledger::{Authorised, Spent};
use crate::pkcs11::{
    ExpectedKey, FoundObject, FoundPair, HsmError, KeyStatus, TokenInventory, Tokens,
};
use crate::protocol::TokenHealth;

/// The tokens. Every method means what [`Tokens`]' of the same name does.
pub trait Hsm: Send + Sync {
    /// See [`Tokens::supports`].
    fn supports(
        &self,
        group: &str,
        algorithm: Algorithm,
        bits: Option<u16>,
    ) -> Result<(), HsmError>;
    /// See [`Tokens::generate`].
    fn generate(
        &self,
        auth: Authorised,
        algorithm: Algorithm,
        bits: Option<u16>,
    ) -> (Spent, Result<PublicKey, HsmError>);
    /// See [`Tokens::destroy`].
    fn destroy(&self, auth: Authorised) -> (Spent, Result<(), HsmError>);
    /// See [`Tokens::objects_labelled`].
    fn objects_labelled(&self, token: &str, prefix: &str) -> Result<Vec<FoundObject>, HsmError>;
    /// See [`Tokens::expect_keys`].
    fn expect_keys(&self, keys: Vec<ExpectedKey>);
    /// See [`Tokens::reopen`].
    fn reopen(&self, token: &str, reason: &str);
    /// See [`Tokens::forget_key`].
    fn forget_key(&self, key: &KeyId);
    /// See [`Tokens::key_status`].
    fn key_status(&self, key: &KeyId) -> Option<KeyStatus>;
    /// See [`Tokens::sign_zone`].
    fn sign_zone(&self, key: &KeyId, messages: Vec<Vec<u8>>) -> Vec<Result<Vec<u8>, HsmError>>;
    /// See [`Tokens::sign_ksk`].
    fn sign_ksk(&self, auth: Authorised, message: &[u8]) -> (Spent, Result<Vec<u8>, HsmError>);
    /// See [`Tokens::health`].
    fn health(&self) -> Vec<TokenHealth>;
    /// See [`Tokens::public_key`].
    fn public_key(&self, key: &KeyId) -> Option<PublicKey>;
    /// See [`Tokens::find_by_key`].
    fn find_by_key(&self, token: &str, key: &KeyId) -> Result<Option<FoundPair>, HsmError>;
    /// See [`Tokens::survey`].
    fn survey(&self, token: &str) -> Result<TokenInventory, HsmError>;
    /// See [`Tokens::make_audit_key`].
    fn make_audit_key(&self, token: &str, label: &str) -> Result<PublicKey, HsmError>;
    /// See [`Tokens::audit_key`].
    fn audit_key(&self, token: &str, label: &str) -> Result<Option<PublicKey>, HsmError>;
    /// See [`Tokens::sign_audit`].
    fn sign_audit(&self, token: &str, key: &PublicKey, text: &[u8]) -> Result<Vec<u8>, HsmError>;
    /// See [`Tokens::read_data`].
    fn read_data(&self, token: &str, label: &str) -> Result<Vec<Vec<u8>>, HsmError>;
    /// See [`Tokens::write_data`].
    fn write_data(&self, token: &str, label: &str, value: &[u8]) -> Result<(), HsmError>;
}

impl Hsm for Tokens {
    fn supports(
        &self,
        group: &str,
        algorithm: Algorithm,
        bits: Option<u16>,
    ) -> Result<(), HsmError> {
        Self::supports(self, group, algorithm, bits)
    }

    fn generate(
        &self,
        auth: Authorised,
        algorithm: Algorithm,
        bits: Option<u16>,
    ) -> (Spent, Result<PublicKey, HsmError>) {
        Self::generate(self, auth, algorithm, bits)
    }

    fn destroy(&self, auth: Authorised) -> (Spent, Result<(), HsmError>) {
        Self::destroy(self, auth)
    }

    fn objects_labelled(&self, token: &str, prefix: &str) -> Result<Vec<FoundObject>, HsmError> {
        Self::objects_labelled(self, token, prefix)
    }

    fn expect_keys(&self, keys: Vec<ExpectedKey>) {
        Self::expect_keys(self, keys);
    }

    fn reopen(&self, token: &str, reason: &str) {
        Self::reopen(self, token, reason);
    }

    fn forget_key(&self, key: &KeyId) {
        Self::forget_key(self, key);
    }

    fn key_status(&self, key: &KeyId) -> Option<KeyStatus> {
        Self::key_status(self, key)
    }

    fn sign_zone(&self, key: &KeyId, messages: Vec<Vec<u8>>) -> Vec<Result<Vec<u8>, HsmError>> {
        Self::sign_zone(self, key, messages)
    }

    fn sign_ksk(&self, auth: Authorised, message: &[u8]) -> (Spent, Result<Vec<u8>, HsmError>) {
        Self::sign_ksk(self, auth, message)
    }

    fn health(&self) -> Vec<TokenHealth> {
        Self::health(self)
    }

    fn public_key(&self, key: &KeyId) -> Option<PublicKey> {
        Self::public_key(self, key)
    }

    fn find_by_key(&self, token: &str, key: &KeyId) -> Result<Option<FoundPair>, HsmError> {
        Self::find_by_key(self, token, key)
    }

    fn survey(&self, token: &str) -> Result<TokenInventory, HsmError> {
        Self::survey(self, token)
    }

    fn make_audit_key(&self, token: &str, label: &str) -> Result<PublicKey, HsmError> {
        Self::make_audit_key(self, token, label)
    }

    fn audit_key(&self, token: &str, label: &str) -> Result<Option<PublicKey>, HsmError> {
        Self::audit_key(self, token, label)
    }

    fn sign_audit(&self, token: &str, key: &PublicKey, text: &[u8]) -> Result<Vec<u8>, HsmError> {
        Self::sign_audit(self, token, key, text)
    }

    fn read_data(&self, token: &str, label: &str) -> Result<Vec<Vec<u8>>, HsmError> {
        Self::read_data(self, token, label)
    }

    fn write_data(&self, token: &str, label: &str, value: &[u8]) -> Result<(), HsmError> {
        Self::write_data(self, token, label, value)
    }
}
