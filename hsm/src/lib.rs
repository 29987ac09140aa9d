//! The keeper: the process that alone meets PKCS#11 modules, PINs and the ledger; and the client
//! that the daemon reaches it with.

pub mod client;
pub mod frame;
#[cfg(feature = "keeper")]
pub mod ledger;
#[cfg(feature = "keeper")]
pub mod pkcs11;
pub mod protocol;
