//! From a stored artifact to a visible file: what is measured, and against what.
//!
//! ```text
//!  parent: makes stores ─▶ rounds { each case once, in turn } ─▶ table, JSON, SVG
//!                                       │ a fresh process each
//!  worker: namespaces · room made warm ─┴─ clock ▶ open, parse, verify, land, complete, attach ▶ clock ─▶ JSON line
//! ```
//!
//! Every measurement is a process of its own: its destination was never touched, its memory is nobody else's, and what
//! it attached goes away with it.

pub(crate) mod chart;
pub(crate) mod plan;
pub(crate) mod promises;
pub(crate) mod report;
pub(crate) mod rounds;
pub(crate) mod store;
pub(crate) mod tools;
pub(crate) mod worker;
