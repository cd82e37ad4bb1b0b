//! under construction
#![deny(unsafe_code)]
mod dma;
mod identity;
pub mod puf;
mod sys;
