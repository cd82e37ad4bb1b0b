//! Certificate files: the pinned root of chips, and a chip's chain.

use std::path::Path;

use chip_client::abi::CertificateList;
use chip_client::chain::{TrustRoot, certificate_from_pem_or_der, certificate_to_pem};

use crate::error::Failure;
use crate::files;

/// Largest certificate file in bytes.
pub(crate) const MAXIMUM_FILE: u64 = 32_768;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// Reads the root certificate that chips must end at.
pub(crate) fn read_root(path: &Path) -> Result<TrustRoot, Failure> {
    Ok(TrustRoot::from_trusted(&files::read("read the chip root", path, MAXIMUM_FILE)?)
        .map_err(chip_client::error::ChipError::from)?)
}

/// Reads a chip's chain: model CA and chip, PEM, in this order.
pub(crate) fn read_chain(path: &Path) -> Result<CertificateList, Failure> {
    let text = files::read_text("read the chip's certificate chain", path, MAXIMUM_FILE)?;
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    let [model, chip] = starts[..] else {
        let found = format!("{} certificate(s)", starts.len());
        return Err(Failure::Input {
            path: path.to_owned(),
            expected: "two certificates: model CA and chip",
            found,
        });
    };
    let der = |which, from: usize, to: usize| {
        let part = text.get(from..to).unwrap_or_default();
        certificate_from_pem_or_der(part.as_bytes(), which).map_err(chip_client::error::ChipError::from)
    };
    Ok(CertificateList { model: der("model", model, chip)?, chip: der("chip", chip, text.len())? })
}

/// The PEM file of a chain.
pub(crate) fn chain_to_pem(chain: &CertificateList) -> String {
    format!("{}{}", certificate_to_pem(&chain.model), certificate_to_pem(&chain.chip))
}
