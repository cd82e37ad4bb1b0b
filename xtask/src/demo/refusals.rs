//! Five attacks on the sealed model. Each is played through the real commands and must be refused with the right code and status.

use super::actors::{Chip, Innerkeep, Said, Scene};
use super::tamper;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::path::Path;

/// Exit status of a refusal by origin, policy or chip.
const REFUSED: i32 = 77;
/// Exit status of a damaged or forged artifact.
const DAMAGED: i32 = 65;

/// Plays them all; the first that is not refused as expected is an error.
pub fn play(
    innerkeep: &Innerkeep,
    scene: &Scene<'_>,
    chip: &Chip,
    other: &Chip,
    store: &Path,
    model: &Path,
    say: &dyn Fn(&str),
) -> anyhow::Result<Value> {
    let mut refused = Vec::new();
    let mut judge = |attack: &str, said: Said, status: i32, code: &str| -> anyhow::Result<()> {
        let found = if said.status == Some(0) { "none: IT WAS NOT REFUSED".to_owned() } else { said.code()? };
        ensure!(
            said.status == Some(status) && found == code,
            "{attack}: expected exit status {status} and {code}, found {:?} and {found}\n{}",
            said.status,
            said.stderr
        );
        ensure!(said.stdout.is_empty(), "{attack}: the consumer ran: {}", said.stdout);
        let message = said.report()?["error"]["message"].as_str().unwrap_or_default().to_owned();
        say(&format!("refused    {attack}\n           exit {status}, {code}: {message}"));
        refused.push(json!({ "attack": attack, "status": status, "code": code, "message": message }));
        Ok(())
    };

    let said = scene.unseal(innerkeep, other, store)?;
    judge("another chip", said, REFUSED, "NO_GRANT_FOR_CHIP")?;

    let copy = scene.work.join("altered");
    tamper::copy_layout(store, &copy)?;
    tamper::alter_preimage(&copy)?;
    let said = scene.unseal(innerkeep, chip, &copy)?;
    judge("one altered preimage byte", said, REFUSED, "CHIP_UNWRAP_FAILED")?;

    let copy = scene.work.join("elsewhere");
    tamper::copy_layout(store, &copy)?;
    std::fs::copy(scene.work.join("store.key"), scene.work.join("elsewhere.key"))
        .context("copy the content key")?;
    tamper::remove_grants(innerkeep, &copy)?;
    let policy = scene.policy("production", "production.toml")?;
    scene.grant(innerkeep, &copy, &policy)?;
    let said = scene.unseal(innerkeep, chip, &copy)?;
    judge("a valid other policy whose condition is false", said, REFUSED, "CHIP_POLICY_DENIED")?;

    let unsigned = scene.work.join("unsigned");
    scene.seal(innerkeep, model, &unsigned, false)?;
    let policy = scene.policy("development", "unsigned.toml")?;
    scene.grant(innerkeep, &unsigned, &policy)?;
    let said = scene.unseal(innerkeep, chip, &unsigned)?;
    judge("an unpinned and unsigned core", said, REFUSED, "ORIGIN_UNPROVEN")?;
    std::fs::remove_dir_all(&unsigned).context("remove the unsigned layout")?;

    let flip = tamper::FlippedBit::flip(store)?;
    let said = scene.unseal(innerkeep, chip, store);
    flip.restore()?;
    let code = if scene.path == "key-release" { "SEGMENT_AUTH_FAILED" } else { "CHIP_SEGMENT_AUTH" };
    judge("a flipped ciphertext bit", said?, DAMAGED, code)?;
    Ok(Value::Array(refused))
}
