//! The platform of this guest, as the command line names it.

use std::path::Path;

use attestation_agent::{Attester, Options, TeeRoot, WorkloadIdentity};

use crate::args::attest::PlatformArgs;
use crate::error::Failure;

/// The root below which the platform is looked for.
pub(crate) fn root(arguments: &PlatformArgs) -> TeeRoot {
    arguments.insecure_tee_root.as_ref().map_or_else(TeeRoot::system, TeeRoot::insecure)
}

/// The platform; its insecure modes are for the caller to say aloud.
pub(crate) fn attester(arguments: &PlatformArgs, insecure_sample: bool) -> Result<Attester, Failure> {
    Ok(Attester::detect(&root(arguments), Options { insecure_sample })?)
}

/// Who this process is in evidence: the command line is a workload like any other.
pub(crate) fn own_identity() -> Result<WorkloadIdentity, Failure> {
    const CGROUP: &str = "/proc/self/cgroup";
    let cgroups = crate::files::read_text("read", Path::new(CGROUP), 64 * 1024)?;
    let unified = cgroups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    Ok(WorkloadIdentity::of("innerkeep attest", rustix::process::getuid().as_raw(), unified))
}
