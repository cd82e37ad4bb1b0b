//! The platform of this guest: found once, asked many times.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use evidence::abi::aael::AaelEvent;
use evidence::abi::event_log::EventLog;
use evidence::verify::replay;

use crate::configfs_tsm::{ReportProvider, TsmReports};
use crate::devices::TpmDevice;
use crate::error::{AttestationError, BindingError, MeasureError, TeeError};
use crate::guests::{SnpGuest, SnpReports, TdxGuest};
use crate::measurements::TdxMeasurements;
use crate::provider::{InitdataRegister, LogIndex, Provider, RuntimeRegisters};
use crate::received::{Evidence, Form};
use crate::report_data::Claim;
use crate::root::TeeRoot;
use crate::run_directory::{RunDirectory, RunLock};
use crate::runtime_log::{RuntimeLog, assemble, read_firmware_log};
use crate::sample::Sample;
use crate::sev_guest::SevGuest;
use crate::tee::Tee;

/// First and last PCR that somebody other than firmware may extend.
const OPEN_PCRS: std::ops::RangeInclusive<u64> = 8..=23;

/// How a platform is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Evidence that proves nothing (`--insecure-sample`), and no look at any platform.
    pub insecure_sample: bool,
}

/// One place where a platform was looked for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Probe {
    /// Where.
    pub path: PathBuf,
    /// The platform that is there, or why none is.
    pub outcome: Result<Tee, TeeError>,
}

/// What became of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Extension {
    /// Extended and logged.
    Done {
        /// The register.
        register: LogIndex,
    },
    /// This platform or kernel has no register that a guest can extend.
    NotSupported,
}

/// What became of binding a digest of initdata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Bound {
    /// The register holds it.
    Matches,
    /// This platform has no register for it.
    NotSupported,
}

/// A register and its value, for whoever wants to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Register {
    /// Its name: `MRCONFIGID`, `HOST_DATA`, `RTMR0` to `RTMR3`.
    pub name: &'static str,
    /// Its value.
    pub value: Vec<u8>,
}

/// The platform of this guest. Calls block; evidence and extensions wait for one another, across processes.
pub struct Attester {
    provider: Box<dyn Provider>,
    tpm: Option<TpmDevice>,
    run: RunDirectory,
    firmware_log: PathBuf,
    insecure: Vec<&'static str>,
}

impl fmt::Debug for Attester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attester")
            .field("provider", &self.provider)
            .field("insecure", &self.insecure)
            .finish_non_exhaustive()
    }
}

impl Attester {
    /// Looks for TDX, then SNP by configfs-tsm, then SNP by its device. There is no fallback.
    ///
    /// # Errors
    /// `ATTEST_NO_TEE` naming every place; `ATTEST_INSECURE_ON_TEE` for an insecure mode inside a real platform;
    /// `ATTEST_LOG_CONFLICT` if an extension was interrupted and its register has moved since.
    pub fn detect(root: &TeeRoot, options: Options) -> Result<Self, AttestationError> {
        Self::detect_beside(root, options, &TeeRoot::system())
    }

    fn detect_beside(root: &TeeRoot, options: Options, system: &TeeRoot) -> Result<Self, AttestationError> {
        let mut insecure = Vec::new();
        if root.is_insecure() {
            insecure.push("emulated-tee");
        }
        if options.insecure_sample {
            insecure.push("sample-evidence");
        }
        for mode in insecure.iter().copied() {
            refuse_on_tee(mode, system)?;
        }
        let provider: Box<dyn Provider> =
            if options.insecure_sample { Box::new(Sample) } else { find(root)? };
        let attester = Self::of(provider, root, insecure);
        if let Some(registers) = attester.provider.runtime_registers() {
            let lock = attester.run.lock()?;
            attester.log().recover(&lock, registers)?;
        }
        Ok(attester)
    }

    fn of(provider: Box<dyn Provider>, root: &TeeRoot, insecure: Vec<&'static str>) -> Self {
        let run = RunDirectory::new(root.run_directory());
        let tpm = TpmDevice::find(root);
        Self { provider, tpm, run, firmware_log: root.firmware_log(), insecure }
    }

    /// With a platform of the test's own.
    #[cfg(test)]
    pub(crate) fn with_provider(provider: Box<dyn Provider>, root: &TeeRoot) -> Self {
        Self::of(provider, root, Vec::new())
    }

    /// Every place where a platform is looked for, in order, with what is there.
    #[must_use]
    pub fn probe(root: &TeeRoot) -> Vec<Probe> {
        candidates(root).into_iter().map(|(path, outcome)| Probe { path, outcome: tee_of(outcome) }).collect()
    }

    /// The platform.
    #[must_use]
    pub fn tee(&self) -> Tee {
        self.provider.tee()
    }

    /// Names of the insecure modes that are on: `emulated-tee`, `sample-evidence`.
    #[must_use]
    pub fn insecure_modes(&self) -> &[&'static str] {
        &self.insecure
    }

    /// Evidence for a claim. On TDX with the event log that leads to the quote's registers, both taken under one lock.
    ///
    /// # Errors
    /// See [`AttestationError`]; nothing is returned that is not about this claim.
    pub fn evidence(&self, claim: &Claim) -> Result<Evidence, AttestationError> {
        if let (Tee::Sample, Claim::Kbs(digest)) = (self.tee(), claim) {
            return Ok(Evidence::sample(digest.as_bytes()));
        }
        let report_data = claim.report_data();
        let Some(registers) = self.provider.runtime_registers() else {
            return Ok(self.provider.evidence(&report_data)?);
        };
        let lock = self.run.lock()?;
        self.log().recover(&lock, registers)?;
        let mut evidence = self.provider.evidence(&report_data)?;
        if let Form::Tdx { parsed, event_log, .. } = &mut evidence.form {
            *event_log = self.event_log(&lock)?;
            if let Some(log) = event_log {
                // GUARD: log-leads-to-quote -> evil_host_quote_with_other_registers
                replay::replay(log, &parsed.body.rtmr).map_err(MeasureError::Log)?;
            }
        }
        Ok(evidence)
    }

    /// Devices that give evidence beside the TEE.
    #[must_use]
    pub fn additional_tees(&self) -> Vec<Tee> {
        self.tpm.iter().map(|_| Tee::Tpm).collect()
    }

    /// Evidence of all devices for a claim.
    ///
    /// # Errors
    /// `ATTEST_TPM`.
    pub fn additional_evidence(&self, claim: &Claim) -> Result<BTreeMap<Tee, Evidence>, AttestationError> {
        let report_data = claim.report_data();
        let evidence = self.tpm.iter().map(|tpm| Ok((Tee::Tpm, tpm.evidence(&report_data)?)));
        evidence.collect::<Result<_, TeeError>>().map_err(AttestationError::from)
    }

    /// The register that initdata is launched into, from the firmware or the kernel.
    ///
    /// # Errors
    /// See [`TeeError`].
    pub fn initdata_register(&self) -> Result<Option<InitdataRegister>, AttestationError> {
        Ok(self.provider.initdata_register()?)
    }

    /// Compares a digest of initdata with the register. Nothing is changed by it.
    ///
    /// # Errors
    /// `ATTEST_INITDATA_MISMATCH`.
    pub fn bind_initdata(&self, digest: &[u8]) -> Result<Bound, AttestationError> {
        let Some(register) = self.initdata_register()? else { return Ok(Bound::NotSupported) };
        // GUARD: initdata-digest -> evil_host_initdata_digest_of_another
        if !register.holds(digest) {
            return Err(BindingError::Mismatch {
                register: register.name,
                expected: hex::encode(&register.value),
                found: hex::encode(digest.get(..64).unwrap_or(digest)),
            }
            .into());
        }
        Ok(Bound::Matches)
    }

    /// Registers of this guest, from the firmware or the kernel.
    ///
    /// # Errors
    /// See [`TeeError`].
    pub fn registers(&self) -> Result<Vec<Register>, AttestationError> {
        let initdata = self.provider.initdata_register()?;
        let mut registers: Vec<Register> = initdata
            .into_iter()
            .map(|register| Register { name: register.name, value: register.value })
            .collect();
        if let Some(runtime) = self.provider.runtime_registers() {
            for index in LogIndex::ALL {
                registers.push(Register { name: index.name(), value: runtime.read(index)?.0.to_vec() });
            }
        }
        Ok(registers)
    }

    /// Whether [`extend`](Self::extend) can do anything here.
    #[must_use]
    pub fn can_extend(&self) -> bool {
        self.provider.runtime_registers().is_some_and(RuntimeRegisters::can_extend)
    }

    /// Extends the register of a PCR from 8 to 23 with an event, and logs it.
    ///
    /// # Errors
    /// `ATTEST_EVENT_INVALID`, `ATTEST_REGISTER_REFUSED`, `ATTEST_LOG_FULL`, `ATTEST_RUN_DIRECTORY`: nothing was
    /// extended. `ATTEST_TEE_IO`, `ATTEST_LOG_CONFLICT`.
    pub fn extend(
        &self,
        domain: &str,
        operation: &str,
        content: &str,
        pcr: u64,
    ) -> Result<Extension, AttestationError> {
        let event = AaelEvent::new(domain, operation, content).map_err(MeasureError::Event)?;
        // GUARD: open-registers -> evil_workload_extends_other_register
        if !OPEN_PCRS.contains(&pcr) {
            return Err(MeasureError::Register { found: pcr }.into());
        }
        let Some(registers) = self.provider.runtime_registers().filter(|registers| registers.can_extend())
        else {
            return Ok(Extension::NotSupported);
        };
        let register = LogIndex::of_pcr(pcr);
        let lock = self.run.lock()?;
        self.log().extend(&lock, registers, &event, register)?;
        Ok(Extension::Done { register })
    }

    fn log(&self) -> RuntimeLog {
        RuntimeLog::new(self.run.clone())
    }

    fn event_log(&self, lock: &RunLock) -> Result<Option<EventLog>, MeasureError> {
        let firmware = read_firmware_log(&self.firmware_log)?;
        let runtime = self.log().read(lock)?;
        assemble(firmware.as_deref(), runtime.as_deref())
    }
}

/// Insecure modes are for machines without a TEE.
fn refuse_on_tee(mode: &'static str, system: &TeeRoot) -> Result<(), TeeError> {
    let signs = [
        system.tdx_guest(),
        system.sev_guest(),
        system.tdx_measurements(),
        system.join("sys/devices/virtual/misc/sev-guest"),
        system.join("sys/devices/platform/sev-guest"),
    ];
    let device = signs.into_iter().find(|path| path.exists());
    let reports = TsmReports::new(system.tsm_reports()).detect().is_ok().then(|| system.tsm_reports());
    let sign = device.or(reports);
    // GUARD: insecure-off-tee -> evil_operator_emulated_tee_inside_a_real_one
    if let Some(path) = sign {
        return Err(TeeError::InsecureOnTee { mode, found: path.display().to_string() });
    }
    Ok(())
}

type Candidate = (PathBuf, Result<Box<dyn Provider>, TeeError>);

fn candidates(root: &TeeRoot) -> Vec<Candidate> {
    let base = root.tsm_reports();
    let reports = TsmReports::new(base.clone());
    let configfs = reports.detect().map(|provider| -> Box<dyn Provider> {
        match provider {
            ReportProvider::TdxGuest => {
                let measurements = TdxMeasurements::new(root.tdx_measurements(), root.tdx_guest());
                Box::new(TdxGuest { reports, measurements })
            }
            ReportProvider::SevGuest => Box::new(SnpGuest { reports: SnpReports::Configfs(reports) }),
        }
    });
    let path = root.sev_guest();
    let device = SevGuest::new(path.clone());
    let device = device
        .is_there()
        .map(|()| -> Box<dyn Provider> { Box::new(SnpGuest { reports: SnpReports::Device(device) }) });
    vec![(base, configfs), (path, device)]
}

fn tee_of(outcome: Result<Box<dyn Provider>, TeeError>) -> Result<Tee, TeeError> {
    outcome.map(|provider| provider.tee())
}

fn find(root: &TeeRoot) -> Result<Box<dyn Provider>, TeeError> {
    let mut probes = Vec::new();
    for (path, outcome) in candidates(root) {
        match outcome {
            Ok(provider) => return Ok(provider),
            Err(TeeError::Io { path, advice, source, .. }) => {
                probes.push(format!("{path}: {source} ({advice})"));
            }
            Err(error) => probes.push(format!("{}: {error}", path.display())),
        }
    }
    Err(TeeError::NoTee { probes: probes.join("; ") })
}

#[cfg(test)]
mod tests;
