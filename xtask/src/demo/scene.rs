//! The people's commands, with what all acts share.

use super::actors::{Chip, Innerkeep, Said};
use super::guest::Guest;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The family of models.
const FAMILY: &str = "demo/model";

/// What all acts share.
pub struct Scene<'a> {
    /// Scratch directory.
    pub work: &'a Path,
    /// Root certificate of the chips.
    pub root: &'a Path,
    /// Certificate chain of the recipient.
    pub chain: &'a Path,
    /// Sealer's private key; the public key has `.pub` appended.
    pub sealer: &'a Path,
    /// Data path.
    pub path: &'a str,
}

/// A policy in its TOML form.
#[derive(Clone)]
pub struct Policy(String);

impl Policy {
    /// With another value for a member; one that is not there is an error.
    pub fn with(&self, member: &str, value: &str) -> anyhow::Result<Self> {
        let start = format!("{member} = ");
        ensure!(
            self.0.lines().any(|line| line.starts_with(&start)),
            "no {member} in the policy:\n{}",
            self.0
        );
        let line = |line: &str| {
            if line.starts_with(&start) { format!("{start}{value}\n") } else { format!("{line}\n") }
        };
        Ok(Self(self.0.lines().map(line).collect()))
    }

    /// Whether this text is in it.
    pub fn contains(&self, text: &str) -> bool {
        self.0.contains(text)
    }
}

impl Scene<'_> {
    /// Seals a model into a new layout; the content key goes to `STORE.key`.
    pub fn seal(
        &self,
        innerkeep: &Innerkeep,
        model: &Path,
        store: &Path,
        signed: bool,
    ) -> anyhow::Result<Value> {
        let sealer = signed.then_some(self.sealer);
        self.seal_what(innerkeep, &[model.as_os_str()], store, FAMILY, sealer)
    }

    /// Seals what these arguments name, under another family or another sealer.
    pub fn seal_what(
        &self,
        innerkeep: &Innerkeep,
        what: &[&OsStr],
        store: &Path,
        family: &str,
        sealer: Option<&Path>,
    ) -> anyhow::Result<Value> {
        let key = content_key(store);
        let mut arguments: Vec<&OsStr> = vec!["seal".as_ref()];
        arguments.extend(what);
        arguments.extend(["--output".as_ref(), store.as_os_str(), "--key-out".as_ref(), key.as_os_str()]);
        arguments.extend(["--family", family, "--counter", "7"].map(OsStr::new));
        arguments.extend(["--environment", "development"].map(OsStr::new));
        if let Some(sealer) = sealer {
            arguments.extend(["--sealer-key".as_ref(), sealer.as_os_str()]);
        }
        innerkeep.run(&arguments)
    }

    /// The policy that accepts guests like this one: from evidence that the guest made, verified under the roots of its platform.
    pub fn policy_of(
        &self,
        innerkeep: &Innerkeep,
        guest: &Guest,
        trust_roots: &Path,
    ) -> anyhow::Result<Policy> {
        let evidence = self.work.join("reference-evidence");
        let challenge = "00".repeat(32);
        let mut arguments: Vec<&OsStr> = vec!["attest".as_ref(), "--nonce".as_ref(), challenge.as_ref()];
        arguments.extend(["--presentation".as_ref(), evidence.as_os_str()]);
        arguments.extend(guest.flags());
        let made = innerkeep.attempt_in(guest, &arguments)?;
        ensure!(made.status == Some(0), "the reference guest made no evidence: {}", made.stderr);
        self.policy_from(innerkeep, &evidence, trust_roots)
    }

    /// The policy that accepts guests like the one that made this evidence.
    pub fn policy_from(
        &self,
        innerkeep: &Innerkeep,
        evidence: &Path,
        trust_roots: &Path,
    ) -> anyhow::Result<Policy> {
        let policy = innerkeep.run(&[
            "policy".as_ref(),
            "from-evidence".as_ref(),
            "--evidence".as_ref(),
            evidence.as_os_str(),
            "--insecure-trust-roots".as_ref(),
            trust_roots.as_os_str(),
            "--environment".as_ref(),
            "development".as_ref(),
            "--family".as_ref(),
            FAMILY.as_ref(),
            "--min-counter".as_ref(),
            "5".as_ref(),
        ])?;
        let text = policy["toml"].as_str().context("no policy was printed")?;
        Policy(text.to_owned()).with("link_mode", &format!("{{ exactly = \"{}\" }}", self.path))
    }

    /// Grants to the first chip. Nothing weak is allowed.
    pub fn grant(&self, innerkeep: &Innerkeep, store: &Path, policy: &Policy) -> anyhow::Result<Value> {
        let key = content_key(store);
        let file = store.with_extension("policy.toml");
        std::fs::write(&file, &policy.0).with_context(|| format!("write {}", file.display()))?;
        let mut to = OsString::from("chip:");
        to.push(self.chain);
        innerkeep.run(&[
            "grant".as_ref(),
            "add".as_ref(),
            store.as_os_str(),
            "--key".as_ref(),
            key.as_os_str(),
            "--to".as_ref(),
            &to,
            "--chip-root".as_ref(),
            self.root.as_os_str(),
            "--policy".as_ref(),
            file.as_os_str(),
        ])
    }

    /// Unseals in a guest for the consumer, with the sealer pinned.
    pub fn unseal(
        &self,
        innerkeep: &Innerkeep,
        guest: &Guest,
        chip: &Chip,
        store: &Path,
    ) -> anyhow::Result<Said> {
        let mut public = self.sealer.as_os_str().to_owned();
        public.push(".pub");
        let consumer = std::env::current_exe().context("find this program")?;
        let mut arguments: Vec<&OsStr> = vec![
            "unseal".as_ref(),
            store.as_os_str(),
            "--sealer-key".as_ref(),
            &public,
            "--family".as_ref(),
            FAMILY.as_ref(),
            "--min-counter".as_ref(),
            "5".as_ref(),
            "--chip".as_ref(),
            chip.socket.as_os_str(),
            "--chip-root".as_ref(),
            self.root.as_os_str(),
            "--path".as_ref(),
            self.path.as_ref(),
        ];
        arguments.extend(guest.flags());
        if swap_is_on() {
            arguments.push("--insecure-swap".as_ref());
        }
        if self.path == "dma-direct" {
            arguments.push("--insecure-emulated-dma".as_ref());
        }
        arguments.extend(["--".as_ref(), consumer.as_os_str(), "demo-consumer".as_ref(), "{}".as_ref()]);
        innerkeep.attempt_in(guest, &arguments)
    }

    /// A copy of a layout with other grants only, and with its content key.
    pub fn regranted(
        &self,
        innerkeep: &Innerkeep,
        store: &Path,
        name: &str,
        policy: &Policy,
    ) -> anyhow::Result<PathBuf> {
        let copy = self.work.join(name);
        super::tamper::copy_layout(store, &copy)?;
        std::fs::copy(content_key(store), content_key(&copy)).context("copy the content key")?;
        super::tamper::remove_grants(innerkeep, &copy)?;
        self.grant(innerkeep, &copy, policy)?;
        Ok(copy)
    }
}

fn content_key(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".key");
    name.into()
}

fn swap_is_on() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}
