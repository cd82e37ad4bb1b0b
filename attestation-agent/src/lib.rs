//! Attestation agent: providers, runtime measurement, KBS client, tokens, ttrpc service.
