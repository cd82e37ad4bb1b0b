//! Bytes ↔ structures: exact sizes, reserved bytes zero, nothing after the end. No cryptography and no policy.

pub mod aael;
pub mod event_log;
pub mod json;
pub mod presentation;
pub mod snp;
pub mod td_report;
pub mod tdx;

#[cfg(test)]
mod tests;
