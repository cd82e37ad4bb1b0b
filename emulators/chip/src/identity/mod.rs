//! Who the chip is: keys from its silicon, certificates from its maker, and what it remembers.

mod certificates;
mod collateral;
pub(crate) mod issue;
mod keys;
mod nvm;
mod state;

pub(crate) use certificates::{LeafExpectation, verify_provisioning};
pub(crate) use collateral::Minimums;
pub(crate) use keys::Keys;
pub(crate) use nvm::{Floor, Nvm, Provisioned};
pub(crate) use state::StateDirectory;
