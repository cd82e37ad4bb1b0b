//! Who the chip is: keys from its silicon, certificates from its maker, and what it remembers.

mod certificates;
pub(crate) mod issue;
mod keys;
mod nvm;
mod state;

pub(crate) use certificates::{LeafExpectation, verify_provisioning};
pub(crate) use keys::Keys;
pub(crate) use nvm::{Nvm, Provisioned};
pub(crate) use state::StateDirectory;
