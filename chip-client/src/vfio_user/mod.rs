//! The chip over a vfio-user socket: for laptops and tests, and for a device emulated in another process.

pub mod wire;
