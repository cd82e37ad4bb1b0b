//! Sessions: handshake, keys, protection of submissions and completions, budgets (interface spec §7).

mod handshake;
mod live;
mod protect;
mod table;

pub(crate) use live::{LiveSession, Presented};
pub(crate) use protect::{CompletionHead, Protected};
pub(crate) use table::{HandleLimit, Sessions};

#[cfg(test)]
mod tests;
