//! The keeper: the process that alone meets PKCS#11 modules, PINs and the ledger; and the client
//! that the daemon reaches it with.

pub mod client;
pub mod frame;
// The bed of hsm/tests/pkcs11 serves unit tests too, under the name that it knows us by.
#[cfg(all(test, feature = "keeper"))]
extern crate self as countersign_hsm;

// Its people found and approve in unit tests as in the stories of hsm/tests/keeper.
#[cfg(all(test, feature = "keeper"))]
#[path = "../tests/keeper/council.rs"]
#[expect(dead_code, reason = "what the stories use of it")]
mod council;
#[cfg(feature = "keeper")]
pub mod keeper;
#[cfg(feature = "keeper")]
pub mod ledger;
#[cfg(feature = "keeper")]
pub mod pkcs11;
pub mod protocol;
