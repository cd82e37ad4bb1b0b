//! What gives evidence beside the TEE: a TPM. It never counts as one.

use evidence::abi::json::MAXIMUM_JSON_BYTES;

use crate::error::TeeError;
use crate::received::{Evidence, Form};
use crate::report_data::ReportData;
use crate::root::TeeRoot;
use crate::tee::Tee;
use crate::tpm::{Tpm, TpmLocation};

/// A TPM of this machine.
#[derive(Debug)]
pub(crate) struct TpmDevice {
    tpm: Tpm,
}

impl TpmDevice {
    /// The first TPM below a root, if there is one.
    pub(crate) fn find(root: &TeeRoot) -> Option<Self> {
        let location = if root.is_insecure() {
            TpmLocation::danger_find_below(root.base())
        } else {
            TpmLocation::find()
        };
        location.ok().map(|location| Self { tpm: Tpm::new(location) })
    }

    /// A quote over the first half of `report_data`, which is what a TPM has room for. The TPM code verifies it
    /// against the values and the data that were asked for.
    ///
    /// # Errors
    /// `ATTEST_TPM`.
    pub(crate) fn evidence(&self, report_data: &ReportData) -> Result<Evidence, TeeError> {
        let evidence = self.tpm.evidence(report_data.as_bytes())?;
        let text = evidence.to_json().to_string();
        if text.len() > MAXIMUM_JSON_BYTES {
            return Err(TeeError::TooLarge { what: "TPM evidence", maximum: MAXIMUM_JSON_BYTES });
        }
        Ok(Evidence { form: Form::Json { tee: Tee::Tpm, text } })
    }
}
