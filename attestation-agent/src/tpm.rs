//! TPM 2.0 in its own bytes: no library, no C.
