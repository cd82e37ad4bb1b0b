//! One file per command. A command takes its arguments and returns what is to be said.

pub(crate) mod attest;
pub(crate) mod audit;
pub(crate) mod chip;
pub(crate) mod grant;
pub(crate) mod initdata;
pub(crate) mod inspect;
pub(crate) mod kbs;
pub(crate) mod key;
pub(crate) mod policy;
pub(crate) mod registry;
pub(crate) mod seal;
pub(crate) mod secret;
pub(crate) mod unseal;
pub(crate) mod verify;
