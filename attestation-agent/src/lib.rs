//! Attestation agent: providers, runtime measurement, KBS client, tokens, ttrpc service.
//!
//! The contract is `docs/spec/attestation-v1.md`.

pub mod kbs;
pub mod tpm;
