//! The platform of this guest, and signs that it is a confidential one.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use attestation_agent::error::TeeError;
use attestation_agent::{AttestationError, Attester, Options, TeeRoot};

use crate::error::AgentError;
use crate::insecure::{InsecureMode, InsecureModes};

/// Flags in `/proc/cpuinfo` of a confidential guest.
const CPU_FLAGS: [&str; 4] = ["tdx_guest", "sev", "sev_es", "sev_snp"];
/// What the guest drivers make below `/sys`.
const DRIVERS: [&str; 3] = [
    "sys/devices/platform/sev-guest",
    "sys/devices/virtual/misc/sev-guest",
    "sys/devices/virtual/misc/tdx_guest",
];

/// The platform.
#[derive(Debug)]
pub(crate) enum Platform {
    /// One that gives evidence.
    Tee(Arc<Attester>),
    /// None: where it was looked for, and what was there.
    None { probes: String },
}

impl Platform {
    /// Looks for it. That there is none is no error: without one nothing secret is ever released.
    pub(crate) fn detect() -> Result<Self, AgentError> {
        match Attester::detect(&TeeRoot::system(), Options::default()) {
            Ok(attester) => Ok(Self::Tee(Arc::new(attester))),
            Err(AttestationError::Tee(error @ TeeError::NoTee { .. })) => {
                Ok(Self::None { probes: error.to_string() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What gives evidence, if there is any.
    pub(crate) fn attester(&self) -> Option<&Arc<Attester>> {
        match self {
            Self::Tee(attester) => Some(attester),
            Self::None { .. } => None,
        }
    }

    /// Its name in the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Tee(attester) => attester.tee().name(),
            Self::None { .. } => "none",
        }
    }

    /// Why there is none.
    pub(crate) fn absence(&self) -> Option<&str> {
        match self {
            Self::Tee(_) => None,
            Self::None { probes } => Some(probes),
        }
    }

    /// A sign that this is a confidential guest, by the word of the processor or of the kernel.
    pub(crate) fn sign(&self) -> Option<String> {
        match self {
            Self::Tee(attester) => Some(format!("platform {}", attester.tee().name())),
            Self::None { .. } => sign(Path::new("/"), cpuid),
        }
    }

    /// What vouches for initdata here.
    pub(crate) fn for_initdata(&self, modes: &InsecureModes) -> Result<initdata::Platform, AgentError> {
        let Self::Tee(attester) = self else {
            let insecure_unbound = modes.has(InsecureMode::UnboundInitdata);
            return Ok(initdata::Platform::NoTee { insecure_unbound });
        };
        let Some(register) = attester.initdata_register()? else {
            return Ok(initdata::Platform::WithoutRegister { name: attester.tee().name().to_owned() });
        };
        let register = initdata::Register::new(register.name, &register.value)?;
        Ok(initdata::Platform::Register(register))
    }
}

/// `eax`, `ebx`, `ecx`, `edx` of a leaf.
type Leaf = [u32; 4];

fn cpuid(leaf: u32) -> Leaf {
    let found = core::arch::x86_64::__cpuid_count(leaf, 0);
    [found.eax, found.ebx, found.ecx, found.edx]
}

/// The first sign below a root. A processor that could be confidential counts as one that is.
fn sign(root: &Path, cpuid: impl Fn(u32) -> Leaf) -> Option<String> {
    if let Some(sign) = cpu_sign(&cpuid) {
        return Some(sign.to_owned());
    }
    if let Some(driver) = DRIVERS.iter().find(|driver| root.join(driver).exists()) {
        return Some(format!("/{driver}"));
    }
    let info = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let mut flags =
        info.lines().filter(|line| line.starts_with("flags")).flat_map(str::split_ascii_whitespace);
    flags.find(|flag| CPU_FLAGS.contains(flag)).map(|flag| format!("cpuinfo {flag}"))
}

/// Intel TDX guest: leaf 0x21 says `IntelTDX    ` (TDX module ABI). AMD: leaf 0x8000001F has a bit for each of SEV, SEV-ES and
/// SEV-SNP (AMD64 APM volume 3, E.4.17), which a guest sees if it may have it.
fn cpu_sign(cpuid: impl Fn(u32) -> Leaf) -> Option<&'static str> {
    let [basic, ..] = cpuid(0);
    let [_, b, c, d] = if basic >= 0x21 { cpuid(0x21) } else { [0; 4] };
    let name = [b, d, c].map(u32::to_le_bytes).concat();
    if name == b"IntelTDX    " {
        return Some("cpuid IntelTDX");
    }
    let [extended, ..] = cpuid(0x8000_0000);
    let [features, ..] = if extended >= 0x8000_001F { cpuid(0x8000_001F) } else { [0; 4] };
    (features & 0b1_1010 != 0).then_some("cpuid SEV")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(_: u32) -> Leaf {
        [0; 4]
    }

    fn tdx(leaf: u32) -> Leaf {
        match leaf {
            0 => [0x21, 0, 0, 0],
            0x21 => [0, 0x6574_6E49, 0x2020_2020, 0x5844_546C],
            _ => [0; 4],
        }
    }

    fn amd(bits: u32) -> impl Fn(u32) -> Leaf {
        move |leaf| match leaf {
            0x8000_0000 => [0x8000_001F, 0, 0, 0],
            0x8000_001F => [bits, 0, 0, 0],
            _ => [0; 4],
        }
    }

    #[test]
    fn processors_tell() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(sign(root.path(), plain), None);
        assert_eq!(sign(root.path(), tdx).as_deref(), Some("cpuid IntelTDX"));
        assert_eq!(sign(root.path(), amd(0b1_0000)).as_deref(), Some("cpuid SEV"));
        assert_eq!(sign(root.path(), amd(0b10)).as_deref(), Some("cpuid SEV"));
        assert_eq!(sign(root.path(), amd(1)), None, "memory encryption of the host alone");
    }

    #[test]
    fn the_kernel_tells() {
        for driver in DRIVERS {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join(driver)).unwrap();
            assert_eq!(sign(root.path(), plain), Some(format!("/{driver}")));
        }
        for (flags, found) in [
            ("fpu sev_snp nx", Some("cpuinfo sev_snp")),
            ("fpu tdx_guest", Some("cpuinfo tdx_guest")),
            ("fpu", None),
        ] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("proc")).unwrap();
            let info = format!("model name\t: sev processor\nflags\t\t: {flags}\nbugs\t\t: spectre\n");
            fs::write(root.path().join("proc/cpuinfo"), info).unwrap();
            assert_eq!(sign(root.path(), plain).as_deref(), found);
        }
    }
}
