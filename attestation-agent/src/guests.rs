//! TDX and SEV-SNP guests as providers.

use crate::configfs_tsm::{ReportProvider, TsmReports};
use crate::error::TeeError;
use crate::measurements::TdxMeasurements;
use crate::provider::{InitdataRegister, Provider, RuntimeRegisters};
use crate::received::Evidence;
use crate::report_data::ReportData;
use crate::sev_guest::SevGuest;
use crate::tdx_guest::own_registers;
use crate::tee::Tee;

/// A TDX guest.
#[derive(Debug)]
pub(crate) struct TdxGuest {
    pub(crate) reports: TsmReports,
    pub(crate) measurements: TdxMeasurements,
}

impl Provider for TdxGuest {
    fn tee(&self) -> Tee {
        Tee::Tdx
    }

    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, TeeError> {
        self.reports.evidence(ReportProvider::TdxGuest, report_data)
    }

    fn initdata_register(&self) -> Result<Option<InitdataRegister>, TeeError> {
        let value = self.measurements.config_id()?;
        Ok(Some(InitdataRegister { name: "MRCONFIGID", value: value.0.to_vec() }))
    }

    fn runtime_registers(&self) -> Option<&dyn RuntimeRegisters> {
        Some(&self.measurements)
    }
}

/// How an SNP guest asks for reports.
#[derive(Debug)]
pub(crate) enum SnpReports {
    /// By configfs-tsm.
    Configfs(TsmReports),
    /// By `/dev/sev-guest`.
    Device(SevGuest),
}

/// An SNP guest.
#[derive(Debug)]
pub(crate) struct SnpGuest {
    pub(crate) reports: SnpReports,
}

impl Provider for SnpGuest {
    fn tee(&self) -> Tee {
        Tee::Snp
    }

    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, TeeError> {
        match &self.reports {
            SnpReports::Configfs(reports) => reports.evidence(ReportProvider::SevGuest, report_data),
            SnpReports::Device(device) => device.evidence(report_data),
        }
    }

    /// From a report of our own, which the firmware gives to this guest over its encrypted channel.
    fn initdata_register(&self) -> Result<Option<InitdataRegister>, TeeError> {
        let evidence = self.evidence(&own_registers()?)?;
        let value = evidence.snp_report().map(|report| report.host_data.0.to_vec());
        Ok(value.map(|value| InitdataRegister { name: "HOST_DATA", value }))
    }

    fn runtime_registers(&self) -> Option<&dyn RuntimeRegisters> {
        None
    }
}
