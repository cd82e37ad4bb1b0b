//! TDREPORTs by the ioctl of `/dev/tdx_guest`: registers on kernels that have no measurement files (before 6.16).

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;

use evidence::abi::td_report::TdReport;

use crate::error::TeeError;
use crate::ioctl::{TDX_REPORT_BYTES, tdx_report};
use crate::report_data::{Claim, ReportData};

/// The device of the TDX guest driver.
#[derive(Clone, Debug)]
pub(crate) struct TdxDevice {
    path: PathBuf,
}

impl TdxDevice {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What the TDX module says of this guest.
    ///
    /// # Errors
    /// See [`TeeError`].
    pub(crate) fn report(&self) -> Result<TdReport, TeeError> {
        let failed = |action, source: io::Error| {
            let advice = match source.kind() {
                io::ErrorKind::NotFound => "no guest driver of TDX has made it",
                _ => "only root may use the guest driver of TDX; look at the kernel log",
            };
            TeeError::Io { action, path: self.path.display().to_string(), advice, source }
        };
        let opened = OpenOptions::new().read(true).write(true).open(&self.path);
        let device = opened.map_err(|source| failed("open", source))?;
        let asked = own_registers()?;
        let mut message = encode(&asked);
        tdx_report(&device, &mut message).map_err(|errno| failed("ask for a TDREPORT from", errno.into()))?;
        decode(&message, &asked)
    }
}

/// Report data of a report that this guest makes for itself.
pub(crate) fn own_registers() -> Result<ReportData, TeeError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| TeeError::Random)?;
    Ok(Claim::OwnRegisters { nonce }.report_data())
}

/// `struct tdx_report_req`: report data, room for the report.
fn encode(report_data: &ReportData) -> [u8; TDX_REPORT_BYTES] {
    let mut message = [0; TDX_REPORT_BYTES];
    message.iter_mut().zip(report_data.as_bytes()).for_each(|(to, from)| *to = *from);
    message
}

fn decode(message: &[u8; TDX_REPORT_BYTES], asked: &ReportData) -> Result<TdReport, TeeError> {
    const WHAT: &str = "TDREPORT";
    let (_, report) = message.split_at(64);
    let report = TdReport::parse(report).map_err(|source| TeeError::Evidence { what: WHAT, source })?;
    // GUARD: td-report-data -> evil_host_td_report_about_other_data
    if report.report_data.0 != *asked.as_bytes() {
        return Err(TeeError::ReportData {
            what: WHAT,
            expected: hex::encode(asked.as_bytes()),
            found: report.report_data.to_string(),
        });
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use evidence::Octets;

    use super::*;

    fn answer(asked: &ReportData, report_data: [u8; 64]) -> [u8; TDX_REPORT_BYTES] {
        let report = TdReport {
            report_data: Octets(report_data),
            mr_config_id: Octets([4; 48]),
            ..TdReport::default()
        };
        let mut message = encode(asked);
        message.iter_mut().skip(64).zip(report.encode()).for_each(|(to, from)| *to = from);
        message
    }

    #[test]
    fn requests_and_answers_are_byte_exact() {
        let asked = Claim::OwnRegisters { nonce: [9; 32] }.report_data();
        let message = encode(&asked);
        assert_eq!(message.first_chunk(), Some(asked.as_bytes()));
        assert!(message.iter().skip(64).all(|byte| *byte == 0));
        let report = decode(&answer(&asked, *asked.as_bytes()), &asked).unwrap();
        assert_eq!(report.mr_config_id, Octets([4; 48]));
    }

    #[test]
    fn evil_host_td_report_about_other_data() {
        let asked = Claim::OwnRegisters { nonce: [9; 32] }.report_data();
        let error = decode(&answer(&asked, [1; 64]), &asked).unwrap_err();
        assert_eq!(error.code(), "ATTEST_REPORT_DATA_MISMATCH");
    }

    #[test]
    fn an_answer_that_is_no_report_is_refused() {
        let asked = Claim::OwnRegisters { nonce: [9; 32] }.report_data();
        assert_eq!(decode(&encode(&asked), &asked).unwrap_err().code(), "ATTEST_EVIDENCE_INVALID");
    }
}
