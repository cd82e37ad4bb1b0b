//! What the device may reach: the client's files by I/O virtual address.

mod bus;
mod table;

pub(crate) use bus::{Bus, DmaError};
pub(crate) use table::{Direction, DmaMemory, Leftover, MapRequest};
