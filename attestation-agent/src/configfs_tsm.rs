//! Reports by configfs-tsm: TDX quotes and SNP reports behind the same files of the kernel.
//!
//! One report: make a directory of our own, see that the provider is the one that was detected, write the report data
//! once, read the answer, see that nobody else wrote meanwhile, remove the directory. The privilege level is left at
//! its default, 0, so that exactly one write is expected.

use std::fmt;
use std::io;
use std::path::PathBuf;

use evidence::abi::snp::REPORT_BYTES;
use evidence::abi::tdx::{MAXIMUM_PADDING_BYTES, MAXIMUM_QUOTE_BYTES};
use rustix::io::Errno;

use crate::certificate_table::{self, MAXIMUM_TABLE_BYTES};
use crate::error::TeeError;
use crate::received::Evidence;
use crate::report_data::ReportData;

mod files;

use files::{Configfs, ReportFiles};

/// The generation after one write.
const GENERATION: u64 = 1;
const MAXIMUM_TEXT_BYTES: usize = 64;

/// Whose reports the kernel serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportProvider {
    /// AMD SEV-SNP.
    SevGuest,
    /// Intel TDX.
    TdxGuest,
}

impl ReportProvider {
    const fn text(self) -> &'static str {
        match self {
            Self::SevGuest => "sev_guest",
            Self::TdxGuest => "tdx_guest",
        }
    }
}

/// The directory in which reports are made.
pub(crate) struct TsmReports {
    base: PathBuf,
    files: Box<dyn ReportFiles>,
}

impl fmt::Debug for TsmReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TsmReports").field("base", &self.base).finish_non_exhaustive()
    }
}

/// One report's directory; gone when this is.
struct ReportEntry<'a> {
    reports: &'a TsmReports,
    name: String,
}

impl Drop for ReportEntry<'_> {
    fn drop(&mut self) {
        // Nothing depends on it any more, and a directory that stays is harmless.
        let _ = self.reports.files.remove(&self.name);
    }
}

impl TsmReports {
    pub(crate) fn new(base: PathBuf) -> Self {
        Self { files: Box::new(Configfs::new(base.clone())), base }
    }

    #[cfg(test)]
    fn with_files(files: impl ReportFiles + 'static) -> Self {
        Self { base: PathBuf::from("/fake"), files: Box::new(files) }
    }

    /// Whose reports the kernel serves here.
    ///
    /// # Errors
    /// `ATTEST_TEE_IO`; `ATTEST_PROVIDER_CHANGED` for a provider that this version does not know.
    pub(crate) fn detect(&self) -> Result<ReportProvider, TeeError> {
        let entry = self.entry()?;
        let found = entry.provider()?;
        let known = [ReportProvider::SevGuest, ReportProvider::TdxGuest];
        known
            .into_iter()
            .find(|provider| found == provider.text())
            .ok_or(TeeError::Provider { expected: "tdx_guest or sev_guest", found })
    }

    /// A quote or report about `report_data`.
    ///
    /// # Errors
    /// See [`TeeError`].
    pub(crate) fn evidence(
        &self,
        provider: ReportProvider,
        report_data: &ReportData,
    ) -> Result<Evidence, TeeError> {
        let entry = self.entry()?;
        let found = entry.provider()?;
        // GUARD: report-provider -> evil_host_swaps_the_provider
        if found != provider.text() {
            return Err(TeeError::Provider { expected: provider.text(), found });
        }
        entry.write_once(report_data)?;
        let maximum = match provider {
            ReportProvider::SevGuest => REPORT_BYTES,
            ReportProvider::TdxGuest => MAXIMUM_QUOTE_BYTES + MAXIMUM_PADDING_BYTES,
        };
        let blob = entry.read("outblob", maximum)?;
        let table = match provider {
            ReportProvider::SevGuest => entry.read_if_present("auxblob", MAXIMUM_TABLE_BYTES)?,
            ReportProvider::TdxGuest => Vec::new(),
        };
        let generation = entry.text("generation")?;
        // GUARD: report-generation -> evil_host_generation_race
        if generation.parse() != Ok(GENERATION) {
            return Err(TeeError::Generation { expected: GENERATION, found: generation });
        }
        match provider {
            ReportProvider::SevGuest => Evidence::snp(&blob, certificate_table::parse(&table)?, report_data),
            ReportProvider::TdxGuest => Evidence::tdx(&blob, report_data),
        }
    }

    fn entry(&self) -> Result<ReportEntry<'_>, TeeError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| TeeError::Random)?;
        let name = format!("innerkeep-{}-{}", std::process::id(), hex::encode(random));
        self.files.make(&name).map_err(|source| self.failed("make a report in", "", source))?;
        Ok(ReportEntry { reports: self, name })
    }

    fn failed(&self, action: &'static str, file: &str, source: io::Error) -> TeeError {
        let path = if file.is_empty() { self.base.clone() } else { self.base.join(file) };
        TeeError::Io { action, path: path.display().to_string(), advice: advice(&source), source }
    }
}

impl ReportEntry<'_> {
    fn provider(&self) -> Result<String, TeeError> {
        self.text("provider")
    }

    fn write_once(&self, report_data: &ReportData) -> Result<(), TeeError> {
        let files = &self.reports.files;
        let written = files.write(&self.name, "inblob", report_data.as_bytes());
        written.map_err(|source| self.reports.failed("write", "inblob", source))
    }

    /// Reads a whole attribute.
    fn read(&self, attribute: &'static str, maximum: usize) -> Result<Vec<u8>, TeeError> {
        let bytes = self.reports.files.read(&self.name, attribute, maximum.saturating_add(1));
        let bytes = bytes.map_err(|source| self.reports.failed("read", attribute, source))?;
        // GUARD: report-cap -> evil_host_oversize_blob
        if bytes.len() > maximum {
            return Err(TeeError::TooLarge { what: attribute, maximum });
        }
        Ok(bytes)
    }

    /// Reads a whole attribute that older kernels do not have.
    fn read_if_present(&self, attribute: &'static str, maximum: usize) -> Result<Vec<u8>, TeeError> {
        match self.read(attribute, maximum) {
            Err(TeeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            result => result,
        }
    }

    /// Reads a line.
    fn text(&self, attribute: &'static str) -> Result<String, TeeError> {
        let bytes = self.read(attribute, MAXIMUM_TEXT_BYTES)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.strip_suffix('\n').unwrap_or(&text).escape_debug().to_string())
    }
}

fn advice(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::NXIO) => "no TDX or SEV-SNP guest driver has registered with configfs-tsm",
        Some(Errno::NOENT) => "configfs is not mounted, or the kernel has no configfs-tsm (Linux 6.7)",
        Some(Errno::ACCESS | Errno::PERM) => "only root may make reports",
        Some(Errno::BUSY | Errno::AGAIN | Errno::INTR) => "another report was under way; try again",
        Some(Errno::TIMEDOUT) => "the host did not answer in time; look at its quoting service",
        Some(Errno::IO | Errno::INVAL) => "the host or the firmware refused; look at its quoting service",
        _ => "look at the kernel log",
    }
}

#[cfg(test)]
mod tests;
