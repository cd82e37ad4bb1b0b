//! Grants for a chip whose certificates end at a given root.

use std::path::Path;

use chip_client::chain::ChipIdentity;
use chip_client::error::ChipError;
use sealed_artifact::grant::{Grant, GrantSuite};
use serde_json::json;

use super::Request;
use crate::args::SuiteArg;
use crate::certificates;
use crate::error::Failure;
use crate::output::Report;

pub(super) fn add(request: Request<'_>, chain: &Path) -> Result<Report, Failure> {
    let root = request.arguments.chip_root.as_deref().ok_or(Failure::Usage {
        argument: "--chip-root",
        expected: "the root certificate that the chip's chain must end at",
        found: String::new(),
    })?;
    let root = certificates::read_root(root)?;
    let chain = certificates::read_chain(chain)?;
    let chip = ChipIdentity::verify(&root, &chain).map_err(ChipError::from)?;
    let recipient = chip.recipient(match request.arguments.suite {
        SuiteArg::Classical => GrantSuite::P384,
        SuiteArg::Hybrid => GrantSuite::XWing,
    })?;
    let grant = Grant::seal(&request.store.core, &request.key, &recipient, &request.policy)?;
    request.finish(&grant, &[], json!({}))
}
