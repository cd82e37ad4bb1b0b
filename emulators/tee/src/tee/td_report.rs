//! TDREPORTs of the emulated TDX module.

use evidence::Octets;
use evidence::abi::td_report::TdReport;
use evidence::abi::tdx::{TdBody, TdExtension};
use sha2::{Digest, Sha256, Sha384};

use super::TdxMachine;

/// Which fields of the TCB part are valid: all that TDX 1.0 has.
const VALID: [u8; 8] = [0xff, 0x01, 0, 0, 0, 0, 0, 0];
/// Where the parts of a report lie: what the MAC covers, TCB part, TD part.
const AUTHENTICATED: std::ops::Range<usize> = 0..224;
const TCB_PART: std::ops::Range<usize> = 256..495;
const TD_PART: std::ops::Range<usize> = 512..1024;

impl TdxMachine {
    /// A report, its digests and its MAC.
    pub(super) fn td_report(&self, report_data: Octets<64>, rtmr: [Octets<48>; 4]) -> Vec<u8> {
        let TdBody { tee_tcb_svn, mr_seam, td_attributes, xfam, .. } = self.body;
        let TdBody { mr_td, mr_config_id, mr_owner, mr_owner_config, .. } = self.body;
        let tee_tcb_svn2 = match self.body.extension {
            TdExtension::Td10 => Octets::default(),
            TdExtension::Td15(td15) | TdExtension::Td15Extended(td15, _) => td15.tee_tcb_svn2,
        };
        let mut report = TdReport {
            cpu_svn: Octets([3; 16]),
            report_data,
            valid: Octets(VALID),
            tee_tcb_svn,
            mr_seam,
            tee_tcb_svn2,
            td_attributes,
            xfam,
            mr_td,
            mr_config_id,
            mr_owner,
            mr_owner_config,
            rtmr,
            ..TdReport::default()
        };
        let bytes = report.encode();
        let digest = |part| Octets(Sha384::digest(bytes.get(part).unwrap_or_default()).into());
        (report.tee_tcb_info_hash, report.tee_info_hash) = (digest(TCB_PART), digest(TD_PART));
        let bytes = report.encode();
        let mut mac = Sha256::new();
        mac.update("innerkeep emulated TDREPORT\0");
        mac.update(self.secret);
        mac.update(bytes.get(AUTHENTICATED).unwrap_or_default());
        report.mac = Octets(mac.finalize().into());
        report.encode()
    }
}
