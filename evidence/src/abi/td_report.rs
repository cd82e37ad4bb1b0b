//! TDREPORT: what the TDX module hands to the guest, bound to one machine by a MAC that only that machine can check.

use crate::bytes::{Octets, Reader};
use crate::error::{EvidenceError, Found};

/// Size of a TDREPORT.
pub const TD_REPORT_BYTES: usize = 1024;
const TYPE_TDX: u8 = 0x81;

/// A TDREPORT. The guest may believe it because the processor gave it; nobody else may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TdReport {
    /// 0, or 1 when the hash of service TDs is in use.
    pub version: u8,
    /// Security versions of the processor.
    pub cpu_svn: Octets<16>,
    /// SHA-384 of the TCB part.
    pub tee_tcb_info_hash: Octets<48>,
    /// SHA-384 of the TD part.
    pub tee_info_hash: Octets<48>,
    /// What the guest had reported.
    pub report_data: Octets<64>,
    /// MAC of the processor.
    pub mac: Octets<32>,
    /// Which fields of the TCB part are valid.
    pub valid: Octets<8>,
    /// Security versions of the TDX module at launch.
    pub tee_tcb_svn: Octets<16>,
    /// Measurement of the TDX module.
    pub mr_seam: Octets<48>,
    /// Signer of the TDX module.
    pub mr_signer_seam: Octets<48>,
    /// Attributes of the TDX module.
    pub seam_attributes: Octets<8>,
    /// Security versions of the TDX module that runs now; zero before TDX 1.5.
    pub tee_tcb_svn2: Octets<16>,
    /// Attributes of the TD.
    pub td_attributes: Octets<8>,
    /// Extended features of the TD.
    pub xfam: Octets<8>,
    /// Build-time measurement.
    pub mr_td: Octets<48>,
    /// Configuration chosen at launch.
    pub mr_config_id: Octets<48>,
    /// Owner.
    pub mr_owner: Octets<48>,
    /// Owner's configuration.
    pub mr_owner_config: Octets<48>,
    /// Runtime measurement registers.
    pub rtmr: [Octets<48>; 4],
    /// Hash of service TDs.
    pub service_td_hash: Octets<48>,
}

impl TdReport {
    /// Parses a TDREPORT of exactly 1024 bytes.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED`, `EVIDENCE_RESERVED_NOT_ZERO`, `EVIDENCE_TRAILING_BYTES`, `EVIDENCE_UNSUPPORTED`.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let mut reader = Reader::new("TDREPORT", bytes);
        let [kind, subtype, version, reserved] = reader.array()?;
        // GUARD: tdreport-type -> evil_td_report_of_another_type_is_refused
        if kind != TYPE_TDX || subtype != 0 || version > 1 || reserved != 0 {
            return Err(EvidenceError::Unsupported {
                what: "TDREPORT type",
                expected: "81 00, version 00 or 01",
                found: Found::hex(&[kind, subtype, version, reserved]),
            });
        }
        reader.reserved(12)?;
        let mut report = Self {
            version,
            cpu_svn: reader.octets()?,
            tee_tcb_info_hash: reader.octets()?,
            tee_info_hash: reader.octets()?,
            report_data: reader.octets()?,
            ..Self::default()
        };
        reader.reserved(32)?;
        report.mac = reader.octets()?;
        report.valid = reader.octets()?;
        report.tee_tcb_svn = reader.octets()?;
        report.mr_seam = reader.octets()?;
        report.mr_signer_seam = reader.octets()?;
        report.seam_attributes = reader.octets()?;
        report.tee_tcb_svn2 = reader.octets()?;
        reader.reserved(95 + 17)?;
        report.td_attributes = reader.octets()?;
        report.xfam = reader.octets()?;
        report.mr_td = reader.octets()?;
        report.mr_config_id = reader.octets()?;
        report.mr_owner = reader.octets()?;
        report.mr_owner_config = reader.octets()?;
        for register in &mut report.rtmr {
            *register = reader.octets()?;
        }
        report.service_td_hash = reader.octets()?;
        reader.reserved(64)?;
        reader.finish()?;
        Ok(report)
    }

    /// The report's 1024 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TD_REPORT_BYTES);
        out.extend([TYPE_TDX, 0, self.version, 0]);
        out.extend([0; 12]);
        out.extend(self.cpu_svn.0);
        out.extend(self.tee_tcb_info_hash.0);
        out.extend(self.tee_info_hash.0);
        out.extend(self.report_data.0);
        out.extend([0; 32]);
        out.extend(self.mac.0);
        out.extend(self.valid.0);
        out.extend(self.tee_tcb_svn.0);
        out.extend(self.mr_seam.0);
        out.extend(self.mr_signer_seam.0);
        out.extend(self.seam_attributes.0);
        out.extend(self.tee_tcb_svn2.0);
        out.extend([0; 95 + 17]);
        out.extend(self.td_attributes.0);
        out.extend(self.xfam.0);
        out.extend(self.mr_td.0);
        out.extend(self.mr_config_id.0);
        out.extend(self.mr_owner.0);
        out.extend(self.mr_owner_config.0);
        self.rtmr.iter().for_each(|register| out.extend(register.0));
        out.extend(self.service_td_hash.0);
        out.extend([0; 64]);
        out
    }
}
