//! A scene with confidential guests: a platform, a chip that believes its roots and demands evidence, and a policy that names a guest.

use crate::args;
use crate::innerkeep::{Said, run_to_end};
use crate::payload::Payload;
use crate::programs::{Programs, User};
use crate::scene::{Artifact, ENVIRONMENT, FAMILY, Scene, SealSpec, UnsealSpec, Unsealed, swap_is_on};
use crate::tee::{Guest, Kind, Platform};
use crate::trace::Trace;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;

/// The configuration of the guests. It is what its digest says, and no program here reads it.
const INITDATA: &[u8] = b"algorithm = \"sha384\"\nversion = \"0.1.0\"\n\n[data]\n\"aa.toml\" = \"\"\n";
/// What the chip was provisioned to refuse at least: TDX collateral below evaluation 15, SNP evidence without list 3.
const MINIMUMS: [&str; 4] = ["--min-tcb-evaluation", "15", "--min-snp-crl", "3"];

/// The stage of a test.
#[derive(Debug)]
pub struct Attested {
    /// Chip, sealer, commands.
    pub scene: Scene,
    /// The processor that guests run on.
    pub platform: Platform,
    /// The guest that the policy names.
    pub guest: Guest,
    /// Digest of its initdata, hex.
    pub initdata: String,
    /// The policy from its evidence, TOML.
    pub policy: String,
}

impl Attested {
    /// A platform of this kind, a chip, a reference guest and its policy.
    #[track_caller]
    pub fn start(kind: Kind) -> Self {
        Self::start_with(kind, &[])
    }

    /// As [`Attested::start`], with further arguments of the chip emulator.
    #[track_caller]
    pub fn start_with(kind: Kind, more: &[OsString]) -> Self {
        let mut platform = None;
        let arguments = |programs: &Programs, work: &crate::work::Work| {
            let made = platform.insert(Platform::create(programs, work, "platform", kind));
            [args!["--insecure-trust-roots", made.trust_roots()], more.to_vec()].concat()
        };
        let scene = Scene::prepare(Programs::built(), User::Same, &MINIMUMS.map(OsString::from), arguments);
        let platform = platform.expect("the platform was made");
        let initdata = kind.initdata_digest(INITDATA);
        let guest = platform.guest(&scene.work, "guest", &launch(&initdata, "", ""), None);
        let mut attested = Self { scene, platform, guest, initdata, policy: String::new() };
        attested.policy = attested.policy_from_evidence();
        attested
    }

    /// What `innerkeep policy from-evidence` writes about the reference guest.
    fn policy_from_evidence(&self) -> String {
        let evidence = self.scene.work.join("evidence");
        let mut arguments = args!["attest", "--nonce", "00".repeat(32), "--presentation", &evidence];
        arguments.extend(self.guest.flags());
        let said = self.innerkeep_in(&self.guest, &arguments);
        assert_eq!(said.status, Some(0), "{said:?}");
        let report = self.scene.innerkeep.run(&args![
            "policy",
            "from-evidence",
            "--evidence",
            &evidence,
            "--insecure-trust-roots",
            self.platform.trust_roots(),
            "--environment",
            ENVIRONMENT,
            "--family",
            FAMILY,
            "--min-counter",
            "5"
        ]);
        assert_eq!(report["weaknesses"], json!([]), "{report}");
        report["toml"].as_str().expect("a policy").to_owned()
    }

    /// The policy with another value for a member.
    #[track_caller]
    pub fn policy_with(&self, member: &str, value: &str) -> String {
        let start = format!("{member} = ");
        assert!(self.policy.lines().any(|line| line.starts_with(&start)), "no {member} in {}", self.policy);
        let line =
            |line: &str| if line.starts_with(&start) { format!("{start}{value}") } else { line.to_owned() };
        self.policy.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    /// A guest with the usual initdata; `top` and `sections` are members of the launch file.
    pub fn guest(&self, name: &str, top: &str, sections: &str) -> Guest {
        self.platform.guest(&self.scene.work, name, &launch(&self.initdata, top, sections), None)
    }

    /// A guest with other initdata.
    pub fn guest_with_initdata(&self, name: &str, digest: &str) -> Guest {
        self.platform.guest(&self.scene.work, name, &launch(digest, "", ""), None)
    }

    /// The usual guest on a host that misbehaves.
    pub fn guest_under(&self, name: &str, plan: &str) -> Guest {
        self.platform.guest(&self.scene.work, name, &launch(&self.initdata, "", ""), Some(plan))
    }

    /// Seals a payload and grants it under the usual policy. Nothing weak is allowed.
    #[track_caller]
    pub fn sealed(&self, name: &str, payload: &Payload) -> Artifact {
        self.sealed_under(name, payload, &self.policy)
    }

    /// Seals a payload and grants it under a policy.
    #[track_caller]
    pub fn sealed_under(&self, name: &str, payload: &Payload, policy: &str) -> Artifact {
        let input = self.scene.input(&format!("{name}.bin"), payload);
        let artifact = self.scene.seal(name, &[&input], &SealSpec::default());
        let policy = self.scene.work.write(format!("{name}.policy"), policy);
        self.scene.innerkeep.run(&self.scene.grant_arguments(&artifact, &policy, &[]));
        artifact
    }

    /// What an unseal in a guest is told: nothing insecure but where the TEE is.
    pub fn spec(guest: &Guest, path: &'static str) -> UnsealSpec {
        let mut insecure = Vec::new();
        if path == "dma-direct" {
            insecure.push("--insecure-emulated-dma");
        }
        if swap_is_on() {
            insecure.push("--insecure-swap");
        }
        UnsealSpec { insecure, more: guest.flags(), ..UnsealSpec::by(path) }
    }

    /// `innerkeep --json …` in a guest.
    pub fn innerkeep_in(&self, guest: &Guest, arguments: &[OsString]) -> Said {
        let mut command = guest.command(&self.scene.programs, &self.scene.work.join("tmp"), "innerkeep");
        run_to_end(command.arg("--json").args(arguments))
    }

    /// Unseals in a guest for the tests' consumer.
    #[track_caller]
    pub fn unseal(&self, artifact: &Artifact, guest: &Guest, spec: &UnsealSpec) -> Unsealed {
        let (arguments, marker) = self.scene.unseal_arguments(artifact, spec);
        Unsealed::new(self.innerkeep_in(guest, &arguments), marker)
    }

    /// Asserts that an artifact unseals in a guest; what the report says.
    #[track_caller]
    pub fn assert_lands(
        &self,
        artifact: &Artifact,
        guest: &Guest,
        spec: &UnsealSpec,
        payload: &Payload,
    ) -> Value {
        let unsealed = self.unseal(artifact, guest, spec);
        let seen = unsealed.seen();
        assert_eq!(seen["sha256"], payload.sha256(), "{seen}");
        self.scene.assert_no_plaintext(artifact);
        unsealed.said.report()
    }

    /// Unseals in a guest, and asserts that it is refused with this status, code and reason, that the consumer never ran, that no file
    /// appeared or changed and that no plaintext is on disk.
    #[track_caller]
    pub fn assert_refused(
        &self,
        artifact: &Artifact,
        guest: &Guest,
        spec: &UnsealSpec,
        (status, code, reason): (i32, &str, &str),
    ) {
        let apart = self.apart(guest);
        let before = Trace::of(self.scene.work.path(), &apart);
        let unsealed = self.unseal(artifact, guest, spec);
        unsealed.said.assert_refused(status, code);
        let message = unsealed.said.report()["error"]["message"].to_string();
        assert!(message.contains(reason), "expected {reason:?} in {message}");
        assert!(!unsealed.consumer_ran(), "the consumer ran");
        before.assert_unchanged(self.scene.work.path(), &apart);
        self.scene.assert_no_plaintext(artifact);
    }

    /// What the guest that lies is told by the chip.
    pub fn lie(&self, task: &str, artifact: &Artifact, guest: &Guest) -> Said {
        let mut command = guest.command(&self.scene.programs, &self.scene.work.join("tmp"), "test-guest");
        command.arg(task).arg("--store").arg(&artifact.reference).arg("--chip").arg(&self.scene.chip.socket);
        command.arg("--chip-root").arg(&self.scene.root).args(guest.flags());
        run_to_end(&mut command)
    }

    /// Asserts that the chip sees through a lie, and that the same guest gets the key when it is honest.
    #[track_caller]
    pub fn assert_seen_through(&self, task: &str, reason: &str) {
        let artifact = self.sealed(task, &Payload::random(90, 70_000));
        let lied = self.lie(task, &artifact, &self.guest);
        lied.assert_refused(crate::REFUSED, "CHIP_EVIDENCE_REFUSED");
        let message = lied.report()["error"]["message"].to_string();
        assert!(message.contains(reason), "expected {reason:?} in {message}");
        let honest = self.lie("honest", &artifact, &self.guest);
        assert_eq!((honest.status, honest.stdout.trim()), (Some(0), "{\"released\":true}"), "{honest:?}");
    }

    /// What the emulators write, beside what the scene leaves out.
    fn apart(&self, guest: &Guest) -> Vec<PathBuf> {
        let mut apart = self.scene.apart();
        apart.extend([guest.root.clone(), guest.collateral.clone(), self.scene.work.join("platform")]);
        apart
    }
}

/// Members of a launch file in the order that TOML wants.
fn launch(initdata: &str, top: &str, sections: &str) -> String {
    format!("initdata_digest = \"{initdata}\"\n{top}\n{sections}\n")
}
