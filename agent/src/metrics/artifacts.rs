//! How far the sealed artifacts of bound configuration are.

use super::text::Text;
use crate::sealed::{Progress, Stage};

pub(super) fn write(text: &mut Text, artifacts: &[Progress]) {
    text.gauges(
        "innerkeep_sealed_artifact_verified_percent",
        "Bytes of a sealed artifact whose tags verified, in percent.",
    );
    for Progress { name, stage } in artifacts {
        let percent = match stage {
            Stage::Waiting(_) | Stage::Failed(_) => 0,
            Stage::Landing(percent) => *percent,
            Stage::Ready => 100,
        };
        text.sample(&[("artifact", name)], percent);
    }
    text.gauges(
        "innerkeep_sealed_artifact_stage",
        "1 at the stage of a sealed artifact: waiting, landing, ready or failed, with the code of its last failure.",
    );
    for Progress { name, stage } in artifacts {
        let (stage, code) = match stage {
            Stage::Waiting(code) => ("waiting", code.unwrap_or_default()),
            Stage::Landing(_) => ("landing", ""),
            Stage::Ready => ("ready", ""),
            Stage::Failed(code) => ("failed", *code),
        };
        text.sample(&[("artifact", name), ("stage", stage), ("code", code)], 1);
    }
}
