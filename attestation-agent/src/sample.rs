//! Evidence that proves nothing, for machines without a TEE: only behind `--insecure-sample`.

use crate::error::TeeError;
use crate::provider::{InitdataRegister, Provider, RuntimeRegisters};
use crate::received::Evidence;
use crate::report_data::ReportData;
use crate::tee::Tee;

/// No platform at all.
#[derive(Debug)]
pub(crate) struct Sample;

impl Provider for Sample {
    fn tee(&self) -> Tee {
        Tee::Sample
    }

    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, TeeError> {
        Ok(Evidence::sample(report_data.as_bytes()))
    }

    fn initdata_register(&self) -> Result<Option<InitdataRegister>, TeeError> {
        Ok(None)
    }

    fn runtime_registers(&self) -> Option<&dyn RuntimeRegisters> {
        None
    }
}
