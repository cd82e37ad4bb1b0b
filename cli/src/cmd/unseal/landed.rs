//! The report about a landing.

use std::time::Duration;

use protected_memory::PageClass;
use protected_memory::landing::LandingReport;
use serde_json::{Value, json};

use super::guest::Facts;
use super::{Prepared, data_path};
use crate::args::PathArg;
use crate::output::Report;

/// What is said about a landing.
pub(super) struct Landed<'a> {
    /// The artifact.
    pub(super) prepared: &'a Prepared,
    /// What the machine gave.
    pub(super) report: &'a LandingReport,
    /// Insecure modes.
    pub(super) facts: &'a Facts,
    /// Data path.
    pub(super) path: PathArg,
    /// Time of the landing.
    pub(super) seconds: f64,
    /// Time of the session.
    pub(super) session: Duration,
    /// Interrupts of the chip, if there is one.
    pub(super) notifications: Option<u64>,
}

impl Landed<'_> {
    /// For people and programs.
    pub(super) fn describe(&self) -> Report {
        let bytes = self.prepared.total();
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = bytes as f64 / 1e9 / self.seconds.max(1e-9);
        let pages = match self.report.page_class {
            PageClass::Huge2M => "huge-2m",
            _ => "base-4k",
        };
        let core = self.prepared.store.core.digest().to_string();
        let files: Vec<Value> = self
            .prepared
            .store
            .core
            .parameters()
            .payloads()
            .iter()
            .map(|payload| json!({ "name": payload.name.as_str(), "size": payload.layout.size() }))
            .collect();
        let path = data_path(self.path).name();
        let key_from = self.prepared.source.kind().as_str();
        Report {
            text: format!(
                "landed  {bytes} bytes in {:.3} s ({rate:.2} GB/s) by {path}, {pages} pages; key from {key_from} in {:.3} s; tee: {}; origin: {}",
                self.seconds,
                self.session.as_secs_f64(),
                self.report.tee.name().unwrap_or("none"),
                self.prepared.origin
            ),
            json: json!({
                "bytes": bytes, "seconds": self.seconds, "gb_per_s": rate, "session_seconds": self.session.as_secs_f64(), "path": path,
                "pages": pages, "noswap": self.report.noswap, "tee": self.report.tee.name(), "insecure": self.facts.names(), "core": core, "origin": self.prepared.origin,
                "files": files, "key_from": key_from, "chip_interrupts": self.notifications, "payload_digests": self.prepared.store.core.has_payload_digests(),
            }),
        }
    }
}
