//! Attacks on the sealed model and on the way to the chip. Each is played through the real commands and must be refused with the right code
//! and status.

use super::actors::{Chip, Innerkeep, Said};
use super::guest::Guest;
use super::scene::{Policy, Scene};
use super::tamper;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::path::Path;

/// Exit status of a refusal by origin, policy or chip.
pub const REFUSED: i32 = 77;
/// Exit status of a damaged or forged artifact.
pub const DAMAGED: i32 = 65;

/// What the attacks are played on.
pub struct Stage<'a> {
    /// The shipped program.
    pub innerkeep: &'a Innerkeep,
    /// The people's commands.
    pub scene: &'a Scene<'a>,
    /// The guest that the policy names.
    pub guest: &'a Guest,
    /// The policy of the grant.
    pub policy: &'a Policy,
    /// The artifact.
    pub store: &'a Path,
}

/// What a refusal has to be.
pub struct Expected<'a> {
    /// Exit status.
    pub status: i32,
    /// Stable code.
    pub code: &'a str,
    /// What the message has to name.
    pub reason: &'a str,
}

/// Who judges; an attack that is not refused as expected is an error.
pub struct Judge<'a> {
    say: &'a dyn Fn(&str),
    refused: Vec<Value>,
}

impl<'a> Judge<'a> {
    /// A judge who has seen nothing.
    pub fn new(say: &'a dyn Fn(&str)) -> Self {
        Self { say, refused: Vec::new() }
    }

    /// Judges a run of the shipped program.
    pub fn refusal(&mut self, attack: &str, said: &Said, expected: &Expected<'_>) -> anyhow::Result<()> {
        self.refusal_of("innerkeep", attack, said, expected)
    }

    /// Judges a run of a program.
    pub fn refusal_of(
        &mut self,
        program: &str,
        attack: &str,
        said: &Said,
        expected: &Expected<'_>,
    ) -> anyhow::Result<()> {
        let Expected { status, code, reason } = *expected;
        let found = if said.status == Some(0) { "none: IT WAS NOT REFUSED".to_owned() } else { said.code()? };
        ensure!(
            said.status == Some(status) && found == code,
            "{attack}: expected exit status {status} and {code}, found {:?} and {found}\n{}",
            said.status,
            said.stderr
        );
        ensure!(said.stdout.is_empty(), "{attack}: something came out: {}", said.stdout);
        let message = said.report()?["error"]["message"].as_str().unwrap_or_default().to_owned();
        ensure!(message.contains(reason), "{attack}: expected the reason {reason:?}, found: {message}");
        let who = if program == "innerkeep" {
            String::new()
        } else {
            format!(" (by {program}, a guest that lies)")
        };
        (self.say)(&format!("refused    {attack}{who}\n           exit {status}, {code}: {message}"));
        self.refused.push(
            json!({ "attack": attack, "by": program, "status": status, "code": code, "message": message }),
        );
        Ok(())
    }

    /// A refusal that was judged elsewhere: what the agent answered.
    pub fn told(&mut self, attack: &str, status: &str, text: &str) {
        (self.say)(&format!("refused    {attack}\n           {status}: {text}"));
        self.refused
            .push(json!({ "attack": attack, "by": "innerkeep-agent", "status": status, "message": text }));
    }

    /// All refusals.
    pub fn refused(self) -> Value {
        Value::Array(self.refused)
    }
}

/// Plays them all.
pub fn play(
    stage: &Stage<'_>,
    chip: &Chip,
    other: &Chip,
    model: &Path,
    judge: &mut Judge<'_>,
) -> anyhow::Result<()> {
    let Stage { innerkeep, scene, guest, policy, store } = *stage;
    let mut attack = |what: &str, chip: &Chip, store: &Path, status: i32, code: &str, reason: &str| {
        let said = scene.unseal(innerkeep, guest, chip, store)?;
        judge.refusal(what, &said, &Expected { status, code, reason })
    };
    attack("another chip", other, store, REFUSED, "NO_GRANT_FOR_CHIP", "for others")?;

    let copy = scene.work.join("altered");
    tamper::copy_layout(store, &copy)?;
    tamper::alter_preimage(&copy)?;
    attack("one altered preimage byte", chip, &copy, REFUSED, "CHIP_UNWRAP_FAILED", "UNWRAP")?;

    let production = policy.with("environment", "{ exactly = \"production\" }")?;
    let copy = scene.regranted(innerkeep, store, "elsewhere", &production)?;
    attack(
        "a valid other policy whose condition is false",
        chip,
        &copy,
        REFUSED,
        "CHIP_POLICY_DENIED",
        "environment",
    )?;

    let unsigned = scene.work.join("unsigned");
    scene.seal(innerkeep, model, &unsigned, false)?;
    scene.grant(innerkeep, &unsigned, policy)?;
    attack("an unpinned and unsigned core", chip, &unsigned, REFUSED, "ORIGIN_UNPROVEN", "")?;
    std::fs::remove_dir_all(&unsigned).context("remove the unsigned layout")?;

    let flip = tamper::FlippedBit::flip(store)?;
    let code = if scene.path == "key-release" { "SEGMENT_AUTH_FAILED" } else { "CHIP_SEGMENT_AUTH" };
    let outcome = attack("a flipped ciphertext bit", chip, store, DAMAGED, code, "segment");
    flip.restore()?;
    outcome
}
