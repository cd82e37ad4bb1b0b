//! The vfio-user 0.0 server: the device as a process of its own (interface spec §11).
//!
//! Each message is read whole, within caps, before anything in it is looked at; whatever is wrong in it is answered with an
//! errno and the next message is read. Only a header whose size makes no sense ends the connection.

mod config_space;
mod connection;
mod irqs;
mod server;

pub(crate) use connection::{Connection, Disconnected};
pub(crate) use server::Server;

/// A length as its field has it.
fn wire_size(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
