//! The KBS client as its callers see it: against a lying broker, somebody else's certificate, and another reading of
//! the protocol.

#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

mod attacks;
mod broker;
mod certificates;
mod guest;
mod interop;
mod jose;
mod tls;
