//! The report about a landing.

use cdh::artifact::{KeySource, Landed, Prepared, describe_origin};
use protected_memory::PageClass;
use serde_json::{Value, json};

use super::data_path;
use crate::args::PathArg;
use crate::output;

/// What is said about a landing.
pub(super) struct Report<'a> {
    /// The artifact.
    pub(super) prepared: &'a Prepared,
    /// Where the key came from.
    pub(super) source: &'a KeySource,
    /// What landed.
    pub(super) landed: &'a Landed,
    /// Data path.
    pub(super) path: PathArg,
    /// Time of the landing.
    pub(super) seconds: f64,
}

impl Report<'_> {
    /// For people and programs.
    pub(super) fn describe(&self) -> output::Report {
        let bytes = self.prepared.total();
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = bytes as f64 / 1e9 / self.seconds.max(1e-9);
        let (report, core) = (self.landed.landing.report(), &self.prepared.store().core);
        let pages = match report.page_class {
            PageClass::Huge2M => "huge-2m",
            _ => "base-4k",
        };
        let files: Vec<Value> = core
            .parameters()
            .payloads()
            .iter()
            .map(|payload| json!({ "name": payload.name.as_str(), "size": payload.layout.size() }))
            .collect();
        let path = data_path(self.path).name();
        let key_from = self.source.kind().as_str();
        let origin = describe_origin(self.prepared.origin());
        let session = self.landed.session.as_secs_f64();
        output::Report {
            text: format!(
                "landed  {bytes} bytes in {:.3} s ({rate:.2} GB/s) by {path}, {pages} pages; key from {key_from} in {session:.3} s; tee: {}; origin: {origin}",
                self.seconds,
                report.tee.name().unwrap_or("none"),
            ),
            json: json!({
                "bytes": bytes, "seconds": self.seconds, "gb_per_s": rate, "session_seconds": session, "path": path,
                "pages": pages, "noswap": report.noswap, "tee": report.tee.name(), "insecure": self.landed.facts.names(),
                "core": core.digest().to_string(), "origin": origin, "files": files, "key_from": key_from,
                "chip_interrupts": self.landed.notifications, "payload_digests": core.has_payload_digests(),
            }),
        }
    }
}
