//! The chip over a vfio-user socket: for laptops and tests, where the device is another process.

mod channel;
mod client;
mod socket;
pub mod wire;

pub use client::{VfioUserDevice, VfioUserTimeouts};

#[cfg(test)]
mod tests;
