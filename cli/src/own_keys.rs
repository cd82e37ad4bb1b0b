//! Keys that this guest has of itself, as the command line names the platform. For grants that only this guest opens.

use cdh::own_keys::{SnpKeys, TpmKeys};

use crate::args::attest::PlatformArgs;
use crate::error::Failure;
use crate::output::Output;
use crate::platform;

/// Of the SEV-SNP processor.
pub(crate) fn snp(arguments: &PlatformArgs, output: Output) -> Result<SnpKeys, Failure> {
    let attester = platform::attester(arguments, false)?;
    output.insecure(attester.insecure_modes());
    Ok(SnpKeys::of_guest(&attester, platform::root(arguments))?)
}

/// Of the TPM.
pub(crate) fn tpm(arguments: &PlatformArgs, output: Output) -> Result<TpmKeys, Failure> {
    if arguments.insecure_tee_root.is_some() {
        output.insecure(&["emulated-tee"]);
    }
    Ok(TpmKeys::found(arguments.insecure_tee_root.as_deref())?)
}
