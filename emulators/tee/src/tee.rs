//! The TEE proper: registers, log, and signed reports over what the guest asks for; with the faults of the plan.

mod certificates;
mod td_report;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evidence::Octets;
use evidence::abi::snp::{KeyInfo, SnpReport};
use evidence::abi::tdx::{QuoteVersion, Td15, TdBody, TdExtension};
use evidence::mint::snp::SnpPlatform;
use evidence::mint::tdx::{SEPT_VE_DISABLE, TdxPlatform};
use evidence::verify::replay::extend;
use evidence::verify::snp::SnpCollateral;
use fuser::Errno;

use crate::boot::{Boot, CCEL_TABLE_BYTES, ccel_table};
use crate::derived::DerivedKeys;
use crate::faults::{Faults, Kind};
use crate::launch::{Launch, TdxBody, TeeKind};
use crate::log;
use crate::state::State;

/// Length of report data.
pub const REPORT_DATA_BYTES: usize = 64;
const POLICY_DEBUG: u64 = 1 << 19;
const OVERSIZE_BYTES: usize = 1024 * 1024;

/// What the kernel hands out for one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blobs {
    /// The quote or report.
    pub outblob: Vec<u8>,
    /// SNP: the host's certificate table.
    pub auxblob: Vec<u8>,
    /// Whether another writer is to be seen in the generation.
    pub raced: bool,
}

/// A guest's TEE from its launch on.
#[derive(Debug)]
pub struct Tee {
    machine: Machine,
    faults: Arc<Faults>,
    registers: Mutex<[Octets<48>; 4]>,
    ccel: Vec<u8>,
    last: Mutex<Option<Vec<u8>>>,
}

#[derive(Debug)]
enum Machine {
    Tdx(Box<TdxMachine>),
    Snp(Box<SnpMachine>),
}

#[derive(Debug)]
struct TdxMachine {
    platform: TdxPlatform,
    version: QuoteVersion,
    body: TdBody,
    /// What TDREPORTs are authenticated with.
    secret: [u8; 32],
}

#[derive(Debug)]
struct SnpMachine {
    platform: SnpPlatform,
    report: SnpReport,
    collateral: SnpCollateral,
    derived: DerivedKeys,
}

impl Tee {
    /// Launches a guest on a platform at the time `now`, in seconds since 1970.
    ///
    /// # Errors
    /// For dates that cannot be written, and for what the file system says.
    pub fn launch(state: &State, launch: &Launch, faults: Arc<Faults>, now: u64) -> anyhow::Result<Self> {
        let (machine, boot) = match launch.tee {
            TeeKind::Tdx => {
                let boot = Boot::new(&launch.tdx.command_line);
                (Machine::Tdx(Box::new(tdx_machine(state, launch, now)?)), boot)
            }
            TeeKind::Snp => {
                let boot = Boot { ccel: Vec::new(), registers: [Octets([0; 48]); 4] };
                (Machine::Snp(Box::new(snp_machine(state, launch, now)?)), boot)
            }
        };
        let Boot { ccel, registers } = boot;
        Ok(Self { machine, faults, registers: Mutex::new(registers), ccel, last: Mutex::new(None) })
    }

    /// Kind of the TEE.
    #[must_use]
    pub fn kind(&self) -> TeeKind {
        match self.machine {
            Machine::Tdx(_) => TeeKind::Tdx,
            Machine::Snp(_) => TeeKind::Snp,
        }
    }

    /// Launch values of a TDX guest that the kernel shows as files: MRTD, MRCONFIGID, MROWNER, MROWNERCONFIG.
    pub(crate) fn launch_values(&self) -> Option<[Octets<48>; 4]> {
        match &self.machine {
            Machine::Tdx(machine) => {
                let TdBody { mr_td, mr_config_id, mr_owner, mr_owner_config, .. } = machine.body;
                Some([mr_td, mr_config_id, mr_owner, mr_owner_config])
            }
            Machine::Snp(_) => None,
        }
    }

    /// The runtime measurement registers.
    #[must_use]
    pub fn registers(&self) -> [Octets<48>; 4] {
        *self.locked_registers()
    }

    /// Extends a register.
    ///
    /// # Errors
    /// `EINVAL` for a register that is none; a fault of the plan.
    pub fn extend(&self, index: usize, digest: &Octets<48>) -> Result<(), Errno> {
        if self.faults.take(Kind::RegisterIoError).is_some() {
            return Err(Errno::EIO);
        }
        let mut registers = self.locked_registers();
        let register = registers.get_mut(index).ok_or(Errno::EINVAL)?;
        *register = extend(register, &digest.0);
        Ok(())
    }

    /// The event log of the firmware, as whoever opens it now sees it.
    pub(crate) fn ccel(&self) -> Vec<u8> {
        let mut ccel = self.ccel.clone();
        if let Some(fault) = self.faults.take(Kind::CcelTampered) {
            // In the digest of the first entry that a register vouches for, unless the plan says where.
            flip(&mut ccel, fault.length_or(170));
        }
        ccel
    }

    /// Size of the event log.
    pub(crate) fn ccel_bytes(&self) -> usize {
        self.ccel.len()
    }

    /// The ACPI table that says where the event log lies.
    pub(crate) fn ccel_table(&self) -> [u8; CCEL_TABLE_BYTES] {
        ccel_table(self.ccel.len())
    }

    /// A TDREPORT over what the guest wrote.
    ///
    /// # Errors
    /// `EIO` in another guest than one of TDX.
    pub(crate) fn td_report(&self, report_data: &[u8; REPORT_DATA_BYTES]) -> Result<Vec<u8>, Errno> {
        let Machine::Tdx(machine) = &self.machine else { return Err(Errno::EIO) };
        let mut report_data = Octets(*report_data);
        if self.faults.take(Kind::TdReportOtherData).is_some() {
            report_data.0.iter_mut().for_each(|byte| *byte ^= 0xff);
        }
        Ok(machine.td_report(report_data, self.registers()))
    }

    /// Whether a new entry can be made.
    pub(crate) fn admit(&self) -> Result<(), Errno> {
        self.faults.take(Kind::NoProvider).map_or(Ok(()), |_| Err(Errno::ENXIO))
    }

    /// Derived keys; only SNP has them.
    pub(crate) fn derived_keys(&self) -> Option<&DerivedKeys> {
        match &self.machine {
            Machine::Snp(machine) => Some(&machine.derived),
            Machine::Tdx(_) => None,
        }
    }

    /// The fault plan.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// A report over what the guest wrote.
    ///
    /// # Errors
    /// `EINVAL` unless the guest wrote exactly 64 bytes; the error of a fault.
    pub fn report(&self, report_data: &[u8], privlevel: u32) -> Result<Blobs, Errno> {
        let mut report_data: [u8; REPORT_DATA_BYTES] = report_data.try_into().map_err(|_| Errno::EINVAL)?;
        if let Some(fault) = self.faults.take(Kind::Slow) {
            std::thread::sleep(Duration::from_millis(fault.milliseconds.unwrap_or_default()));
        }
        if let Some(fault) = self.faults.take(Kind::IoError) {
            let number = fault.value.and_then(|value| i32::try_from(value).ok()).filter(|number| *number > 0);
            return Err(number.map_or(Errno::EIO, Errno::from_i32));
        }
        if self.faults.take(Kind::OtherReportData).is_some() {
            report_data.iter_mut().for_each(|byte| *byte ^= 0xff);
        }
        let genuine = self.genuine(Octets(report_data), privlevel).map_err(|error| {
            log::note(&format!("a report cannot be made: {error}"));
            Errno::EIO
        })?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let replayed = last.replace(genuine.clone());
        let outblob = match (self.faults.take(Kind::ReplayedQuote), replayed) {
            (Some(_), Some(replayed)) => replayed,
            _ => genuine,
        };
        drop(last);
        Ok(Blobs {
            outblob: self.damaged(outblob),
            auxblob: self.certificate_table(),
            raced: self.faults.take(Kind::GenerationRace).is_some(),
        })
    }

    fn genuine(&self, report_data: Octets<64>, privlevel: u32) -> anyhow::Result<Vec<u8>> {
        match &self.machine {
            Machine::Tdx(machine) => {
                let body = TdBody { report_data, rtmr: self.registers(), ..machine.body.clone() };
                Ok(machine.platform.quote_of_version(machine.version, body)?.encode())
            }
            Machine::Snp(machine) => {
                let report = SnpReport { report_data, vmpl: privlevel, ..machine.report.clone() };
                Ok(machine.platform.sign(report)?.encode())
            }
        }
    }

    fn damaged(&self, mut blob: Vec<u8>) -> Vec<u8> {
        if let Some(fault) = self.faults.take(Kind::FlippedByte) {
            flip(&mut blob, fault.length_or(100));
        }
        if self.faults.take(Kind::ZeroQuote).is_some() {
            blob.fill(0);
        }
        if let Some(fault) = self.faults.take(Kind::ShortQuote) {
            blob.truncate(fault.length_or(blob.len() / 2));
        }
        if self.faults.take(Kind::EmptyQuote).is_some() {
            blob.clear();
        }
        if let Some(fault) = self.faults.take(Kind::PaddedQuote) {
            let padding = fault.length_or(512).min(OVERSIZE_BYTES);
            blob.resize(blob.len() + padding, 0);
        }
        if let Some(fault) = self.faults.take(Kind::OversizeQuote) {
            // The kernel's own limit on the blob is 16 MiB.
            blob.resize(fault.length_or(OVERSIZE_BYTES).min(16 * OVERSIZE_BYTES), 0xa5);
        }
        blob
    }

    fn certificate_table(&self) -> Vec<u8> {
        match &self.machine {
            Machine::Tdx(_) => Vec::new(),
            Machine::Snp(machine) => certificates::table(&machine.collateral, &self.faults),
        }
    }

    fn locked_registers(&self) -> MutexGuard<'_, [Octets<48>; 4]> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tdx_machine(state: &State, launch: &Launch, now: u64) -> anyhow::Result<TdxMachine> {
    let tdx = &launch.tdx;
    let mut attributes = SEPT_VE_DISABLE;
    if let ([first, ..], true) = (&mut attributes.0, launch.debug) {
        *first |= 1;
    }
    let td15 = Td15 { tee_tcb_svn2: tdx.tee_tcb_svn, mr_service_td: Octets::default() };
    let body = TdBody {
        tee_tcb_svn: tdx.tee_tcb_svn,
        mr_seam: tdx.mr_seam,
        td_attributes: attributes,
        xfam: tdx.xfam,
        mr_td: tdx.mrtd,
        mr_config_id: Octets::fitted(&launch.initdata_digest),
        mr_owner: tdx.mrowner,
        mr_owner_config: tdx.mrownerconfig,
        extension: match tdx.body {
            TdxBody::Td10 => TdExtension::Td10,
            TdxBody::Td15 => TdExtension::Td15(td15),
            TdxBody::Td15Extended => TdExtension::Td15Extended(td15, Octets::default()),
        },
        ..TdBody::default()
    };
    let version = if tdx.quote == 4 { QuoteVersion::V4 } else { QuoteVersion::V5 };
    let secret = state.derivation_secret();
    Ok(TdxMachine { platform: state.tdx(launch, now)?, version, body, secret })
}

fn snp_machine(state: &State, launch: &Launch, now: u64) -> anyhow::Result<SnpMachine> {
    let snp = &launch.snp;
    let (platform, collateral) = state.snp(launch, now)?;
    let mut report = platform.report(snp.report_version);
    report.guest_svn = snp.guest_svn;
    report.policy.0 = snp.guest_policy | if launch.debug { POLICY_DEBUG } else { 0 };
    (report.family_id, report.image_id) = (snp.family_id, snp.image_id);
    report.measurement = snp.measurement;
    report.host_data = Octets::fitted(&launch.initdata_digest);
    report.id_key_digest = snp.id_key_digest;
    report.author_key_digest = snp.author_key_digest;
    let author = u32::from(!snp.author_key_digest.is_zero());
    report.key_info = KeyInfo(report.key_info.0 | author);
    let derived = DerivedKeys::new(state.derivation_secret(), &report);
    Ok(SnpMachine { platform, report, collateral, derived })
}

fn flip(blob: &mut [u8], offset: usize) {
    if let Some(byte) = blob.get_mut(offset) {
        *byte ^= 0x01;
    }
}

#[cfg(test)]
mod tests;
