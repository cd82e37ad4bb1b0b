//! The audit of what the guest decided: the host carries it, the operator verifies it outside, and sees what the host changed in it.

use super::super::actors::{Innerkeep, Said};
use super::super::refusals::{DAMAGED, Expected, Judge};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use xtask::vm::Guest;

/// The agent's port.
const PORT: u32 = 1024;
/// What files of records begin with.
const MAGIC: usize = 8;
/// A length in front of each frame.
const LENGTH: usize = 4;

/// What the operator has.
pub struct Operator<'a> {
    /// The shipped command.
    pub innerkeep: &'a Innerkeep,
    /// A directory.
    pub work: &'a Path,
    /// The secret key.
    pub key: &'a Path,
    /// The initdata that the guest was launched with.
    pub initdata: &'a Path,
    /// What the evidence is judged by.
    pub policy: &'a Path,
    /// Collateral for it.
    pub collateral: &'a Path,
    /// The roots of the emulated TEE.
    pub roots: &'a Path,
}

/// What was read.
pub struct Verified {
    /// What `audit verify` says.
    pub report: Value,
    /// Endpoint and code of each denial.
    pub denials: Vec<(String, String)>,
}

impl Operator<'_> {
    /// The host fetches the records and cannot read them; they are verified against a nonce of the operator's; then the host's changes are seen.
    pub fn verify(
        &self,
        guest: &Guest,
        judge: &mut Judge<'_>,
        say: &dyn Fn(&str),
    ) -> anyhow::Result<Verified> {
        let nonce = "6f70657261746f72".repeat(2);
        let records = self.work.join("audit.records");
        let source = format!("hvsock://{}:{PORT}", guest.vsock_path().display());
        let mut follow = words(&["audit", "follow", &source, "--once", "--nonce", &nonce, "--output"]);
        follow.push(records.clone().into_os_string());
        let carried = self.innerkeep.attempt(&follow)?;
        ensure!(carried.status == Some(0), "the host could not carry the audit: {}", carried.stderr);
        ensure!(!carried.stdout.contains("ExecProcess"), "the host read what was denied: {}", carried.stdout);

        let said = self.verify_file(&records, &nonce)?;
        ensure!(said.status == Some(0), "the audit does not verify: {}", said.stderr);
        let report: Value = serde_json::from_str(&said.stdout).context("what audit verify says")?;
        let mut explain = words(&["audit", "explain"]);
        explain.extend([records.clone().into(), "--key".into(), self.key.into()]);
        let said = self.innerkeep.attempt(&explain)?;
        ensure!(said.status == Some(0), "the audit is not explained: {}", said.stderr);
        let explained: Value = serde_json::from_str(&said.stdout).context("what audit explain says")?;
        let denials = explained["denials"].as_array().context("a list of denials")?;
        let text = |denial: &Value, member: &str| denial[member].as_str().unwrap_or_default().to_owned();
        let denials: Vec<_> =
            denials.iter().map(|denial| (text(denial, "endpoint"), text(denial, "code"))).collect();
        say(&format!(
            "verified   outside, by the operator's key and nonce: evidence of this {}, {} decisions allowed, {} denied, insecure {}",
            report["attested"].as_str().unwrap_or("?"),
            report["allowed"],
            report["denied"],
            report["insecure"]
        ));
        for (endpoint, code) in &denials {
            say(&format!("denied     {endpoint} [{code}]"));
        }
        for denied in ["/grpc.AgentService/ExecProcess", "/grpc.AgentService/ReadStdout"] {
            ensure!(
                denials.iter().any(|(endpoint, _)| endpoint == denied),
                "the audit does not name {denied}"
            );
        }
        self.forgeries(&records, &nonce, judge)?;
        Ok(Verified { report, denials })
    }

    fn forgeries(&self, records: &Path, nonce: &str, judge: &mut Judge<'_>) -> anyhow::Result<()> {
        let bytes = std::fs::read(records).context("read the records")?;
        let frames = frames(&bytes)?;
        let sealed: Vec<usize> = (0..frames.len()).filter(|index| is_sealed(frames.get(*index))).collect();
        let (first, second) = match sealed.as_slice() {
            [first, second, ..] => (*first, *second),
            _ => anyhow::bail!("expected sealed records, found {}", sealed.len()),
        };
        let mut edited = frames.clone();
        if let Some(byte) = edited.get_mut(first).and_then(|frame| frame.last_mut()) {
            *byte ^= 1;
        }
        let mut reordered = frames.clone();
        reordered.swap(first, second);
        let mut cut = frames.clone();
        cut.remove(first);
        for (attack, frames, code) in [
            ("the host edits a record of the audit", edited, "AUDIT_EDITED"),
            ("the host reorders records of the audit", reordered, "AUDIT_REORDERED"),
            ("the host takes a record out of the audit", cut, "AUDIT_MISSING"),
        ] {
            let forged = self.work.join("forged.records");
            let start = bytes.get(..MAGIC).unwrap_or_default().to_vec();
            std::fs::write(&forged, [start, frames.concat()].concat()).context("write forged records")?;
            let said = self.verify_file(&forged, nonce)?;
            judge.refusal(attack, &said, &Expected { status: DAMAGED, code, reason: "" })?;
        }
        Ok(())
    }

    fn verify_file(&self, records: &Path, nonce: &str) -> anyhow::Result<Said> {
        let mut arguments = words(&["audit", "verify"]);
        let mut option = |name: &str, value: &Path| arguments.extend([name.into(), value.into()]);
        option("--key", self.key);
        option("--initdata", self.initdata);
        option("--policy", self.policy);
        option("--collateral", self.collateral);
        option("--insecure-trust-roots", self.roots);
        arguments.extend(["--nonce".into(), nonce.into(), records.into()]);
        self.innerkeep.attempt(&arguments)
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(|word| OsStr::new(word).to_owned()).collect()
}

/// The frames of a file, each with its length.
fn frames(bytes: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut rest = bytes.get(MAGIC..).context("a file of records")?;
    let mut frames = Vec::new();
    while let Some((length, _)) = rest.split_first_chunk::<LENGTH>() {
        let length = usize::try_from(u32::from_be_bytes(*length))?;
        let (frame, behind) = rest.split_at_checked(LENGTH + length).context("a whole frame")?;
        frames.push(frame.to_vec());
        rest = behind;
    }
    Ok(frames)
}

/// Form 2 of the specification.
fn is_sealed(frame: Option<&Vec<u8>>) -> bool {
    frame.and_then(|frame| frame.get(LENGTH)) == Some(&2)
}

/// Where things of the operator are.
pub fn operators_key(innerkeep: &Innerkeep, work: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let key = work.join("operator.key");
    innerkeep.run(&["key".as_ref(), "audit".as_ref(), "--output".as_ref(), key.as_os_str()])?;
    let mut public = key.clone().into_os_string();
    public.push(".toml");
    Ok((key, public.into()))
}
