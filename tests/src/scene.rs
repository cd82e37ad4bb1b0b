//! A maker's CA, a chip, a sealer, and the everyday commands with them.

use crate::args;
use crate::emulator::Emulator;
use crate::innerkeep::{Innerkeep, Said};
use crate::payload::{Payload, Random};
use crate::programs::{Programs, User};
use crate::scan::Needles;
use crate::trace::{Trace, assert_no_plaintext};
use crate::work::Work;
use serde_json::Value;
use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Rollback family of the tests' artifacts.
pub const FAMILY: &str = "acme/ranker";
/// Environment of the tests' chips and artifacts.
pub const ENVIRONMENT: &str = "development";

/// The stage of a test.
#[derive(Debug)]
pub struct Scene {
    /// Scratch directory.
    pub work: Work,
    /// The programs.
    pub programs: Programs,
    /// The command.
    pub innerkeep: Innerkeep,
    /// Root certificate of the chips.
    pub root: PathBuf,
    /// Certificate chain of the first chip.
    pub chain: PathBuf,
    /// The sealer's private key; `.pub` appended: the public one.
    pub sealer: PathBuf,
    /// The first chip.
    pub chip: Emulator,
    runs: Cell<usize>,
}

/// How an artifact is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// OCI image layout.
    Layout,
    /// One `.sealed` file.
    File,
}

/// What is asked of `seal`.
#[derive(Clone, Debug)]
pub struct SealSpec {
    /// Rollback counter.
    pub counter: u64,
    /// Rollback family.
    pub family: String,
    /// Environment tag.
    pub environment: String,
    /// Signed by the scene's sealer.
    pub signed: bool,
    /// Carrier.
    pub carrier: Carrier,
    /// Further arguments.
    pub more: Vec<OsString>,
}

impl Default for SealSpec {
    fn default() -> Self {
        Self {
            counter: 7,
            family: FAMILY.into(),
            environment: ENVIRONMENT.into(),
            signed: true,
            carrier: Carrier::Layout,
            more: args!["--segment-size", "65536"],
        }
    }
}

/// A sealed artifact.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// What commands call it.
    pub reference: PathBuf,
    /// Its content key.
    pub key: PathBuf,
    /// Digest of its core.
    pub core: String,
    /// What `seal` said.
    pub report: Value,
    /// Windows of its plaintext.
    pub needles: Vec<[u8; 32]>,
}

impl Artifact {
    /// An artifact that is there already, whose plaintext nobody looks for.
    pub fn unsearched(reference: &Path) -> Self {
        Self {
            reference: reference.to_owned(),
            key: PathBuf::new(),
            core: String::new(),
            report: Value::Null,
            needles: Vec::new(),
        }
    }

    /// The same artifact somewhere else: a copy, altered or not.
    #[must_use]
    pub fn at(&self, reference: &Path) -> Self {
        Self { reference: reference.to_owned(), ..self.clone() }
    }
}

/// Which cores an unseal accepts.
#[derive(Clone, Debug)]
pub enum Pin {
    /// The digest of the core.
    Core(String),
    /// The scene's sealer, its family, and a minimum counter.
    Sealer(u64),
    /// These arguments.
    Arguments(Vec<OsString>),
}

/// What is asked of `unseal`.
#[derive(Clone, Debug)]
pub struct UnsealSpec {
    /// Pin.
    pub pin: Pin,
    /// Data path.
    pub path: &'static str,
    /// Insecure flags.
    pub insecure: Vec<&'static str>,
    /// Socket of the chip; the scene's if absent.
    pub chip: Option<PathBuf>,
    /// Root certificate; the scene's if absent.
    pub root: Option<PathBuf>,
    /// Further arguments.
    pub more: Vec<OsString>,
    /// What the consumer is to do.
    pub task: &'static str,
}

impl Default for UnsealSpec {
    fn default() -> Self {
        // The scene's chip is in all insecure modes, and a guest has to accept those by name whatever its data path.
        let mut insecure = vec!["--insecure-no-tee", "--insecure-no-evidence", "--insecure-emulated-dma"];
        if swap_is_on() {
            insecure.push("--insecure-swap");
        }
        Self {
            pin: Pin::Sealer(5),
            path: "key-release",
            insecure,
            chip: None,
            root: None,
            more: Vec::new(),
            task: "look",
        }
    }
}

impl UnsealSpec {
    /// Over a data path.
    pub fn by(path: &'static str) -> Self {
        Self { path, ..Self::default() }
    }

    /// Without an insecure flag.
    #[must_use]
    pub fn without(mut self, flag: &str) -> Self {
        self.insecure.retain(|one| *one != flag);
        self
    }
}

/// A finished `unseal`.
#[derive(Debug)]
pub struct Unsealed {
    /// What it said.
    pub said: Said,
    marker: PathBuf,
}

impl Unsealed {
    /// A run whose consumer says with this file that it ran.
    pub(crate) fn new(said: Said, marker: PathBuf) -> Self {
        Self { said, marker }
    }

    /// What the consumer saw; fails unless it ran and all went well.
    #[track_caller]
    pub fn seen(&self) -> Value {
        assert_eq!(self.said.status, Some(0), "{:#?}", self.said);
        assert!(self.marker.is_file(), "the consumer did not run");
        serde_json::from_str(&self.said.stdout)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.said.stdout))
    }

    /// Whether the consumer ran at all.
    pub fn consumer_ran(&self) -> bool {
        self.marker.exists()
    }
}

impl Scene {
    /// One chip, provisioned, and a sealer.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(&Emulator::INSECURE.map(OsString::from))
    }

    /// As [`Scene::start`], all processes run by `nobody`.
    #[track_caller]
    pub fn start_as_nobody() -> Self {
        let arguments = |_: &Programs, _: &Work| Emulator::INSECURE.map(OsString::from).into();
        Self::prepare(Programs::built(), User::Nobody, &[], arguments)
    }

    /// As [`Scene::start`], with other arguments of the emulator.
    #[track_caller]
    pub fn start_with(arguments: &[OsString]) -> Self {
        Self::prepare(Programs::built(), User::Same, &[], |_, _| arguments.to_vec())
    }

    /// A scene whose chip is provisioned with further arguments; its emulator gets what `arguments` says.
    #[track_caller]
    pub(crate) fn prepare(
        programs: Programs,
        user: User,
        provision: &[OsString],
        arguments: impl FnOnce(&Programs, &Work) -> Vec<OsString>,
    ) -> Self {
        let user = if crate::programs::is_root() { user } else { User::Same };
        let work = Work::create(user);
        let programs = if user == User::Nobody { programs.for_nobody(&work.join("bin")) } else { programs };
        let innerkeep = Innerkeep::new(&programs, &work.join("tmp"));
        let arguments = arguments(&programs, &work);
        let chip = Emulator::start(&programs, &work, "chip", &arguments);
        let scene = Self {
            root: work.join("ca/root.pem"),
            chain: work.join("chip.pem"),
            sealer: work.join("sealer.pem"),
            work,
            programs,
            innerkeep,
            chip,
            runs: Cell::new(0),
        };
        scene.provision_with(&scene.chip.socket, "ca", ENVIRONMENT, provision);
        scene.innerkeep.run(&args![
            "chip",
            "info",
            "--chip",
            &scene.chip.socket,
            "--chip-root",
            &scene.root,
            "--chain-out",
            &scene.chain
        ]);
        scene.innerkeep.run(&args!["key", "new", "--output", &scene.sealer]);
        scene
    }

    /// Provisions a chip under the CA in a directory.
    #[track_caller]
    pub fn provision(&self, socket: &Path, ca: &str, environment: &str) -> Value {
        self.provision_with(socket, ca, environment, &[])
    }

    /// As [`Scene::provision`], with further arguments.
    #[track_caller]
    pub fn provision_with(&self, socket: &Path, ca: &str, environment: &str, more: &[OsString]) -> Value {
        let ca = self.work.join(ca);
        let mut arguments =
            args!["chip", "provision", "--chip", socket, "--ca", &ca, "--environment", environment];
        arguments.extend(more.iter().cloned());
        self.innerkeep.run(&arguments)
    }

    /// A further chip, provisioned under the CA in a directory; its chain is in `NAME.pem`.
    #[track_caller]
    pub fn another_chip(&self, name: &str, ca: &str) -> Emulator {
        let chip = Emulator::start(&self.programs, &self.work, name, &Emulator::INSECURE.map(OsString::from));
        self.provision(&chip.socket, ca, ENVIRONMENT);
        let chain = self.work.join(format!("{name}.pem"));
        let root = self.work.join(ca).join("root.pem");
        self.innerkeep.run(&args![
            "chip",
            "info",
            "--chip",
            &chip.socket,
            "--chip-root",
            &root,
            "--chain-out",
            &chain
        ]);
        chip
    }

    /// Ends the chip and starts it again on the same silicon and memory, with other arguments.
    #[track_caller]
    pub fn restart_chip(&mut self, arguments: &[OsString]) {
        self.chip.end();
        self.chip = Emulator::start(&self.programs, &self.work, "chip", arguments);
    }

    /// Starts the chip anew with a plan of its misbehaviour.
    #[track_caller]
    pub fn misbehave(&mut self, plan: &str) {
        let plan = self.work.write("faults.toml", plan);
        let mut arguments: Vec<OsString> = Emulator::INSECURE.map(OsString::from).into();
        arguments.extend(args!["--fault-plan", &plan]);
        self.restart_chip(&arguments);
    }

    /// Writes a payload to be sealed.
    pub fn input(&self, name: &str, payload: &Payload) -> PathBuf {
        self.work.write(Path::new("input").join(name), payload.bytes())
    }

    /// Seals files; the artifact is `name` or `name.sealed`.
    #[track_caller]
    pub fn seal(&self, name: &str, inputs: &[&Path], spec: &SealSpec) -> Artifact {
        let (arguments, reference, key) = self.seal_arguments(name, inputs, spec);
        let report = self.innerkeep.run(&arguments);
        let core = report["core"].as_str().unwrap_or_else(|| panic!("no core in {report}")).to_owned();
        Artifact { reference, key, core, report, needles: needles(inputs) }
    }

    /// The arguments of a seal, its artifact and its key.
    pub fn seal_arguments(
        &self,
        name: &str,
        inputs: &[&Path],
        spec: &SealSpec,
    ) -> (Vec<OsString>, PathBuf, PathBuf) {
        let reference = match spec.carrier {
            Carrier::Layout => self.work.join(name),
            Carrier::File => self.work.join(format!("{name}.sealed")),
        };
        let key = self.work.join(format!("{name}.key"));
        let mut arguments = args!["seal"];
        arguments.extend(inputs.iter().map(OsString::from));
        arguments.extend(args![
            "--output",
            &reference,
            "--key-out",
            &key,
            "--family",
            &spec.family,
            "--counter",
            spec.counter.to_string(),
            "--environment",
            &spec.environment
        ]);
        if spec.signed {
            arguments.extend(args!["--sealer-key", &self.sealer]);
        }
        arguments.extend(spec.more.iter().cloned());
        (arguments, reference, key)
    }

    /// A policy document without demands on evidence.
    pub fn policy(&self, name: &str, environment: &str, link_mode: &str, min_counter: u64) -> PathBuf {
        let text = format!(
            "environment = {{ exactly = \"{environment}\" }}\nfamily = {{ exactly = \"{FAMILY}\" }}\nlink_mode = {}\nmin_counter = {min_counter}\n",
            if link_mode == "any" {
                "\"any\"".to_owned()
            } else {
                format!("{{ exactly = \"{link_mode}\" }}")
            }
        );
        self.work.write(name, text)
    }

    /// The arguments of a grant to the first chip.
    pub fn grant_arguments(&self, artifact: &Artifact, policy: &Path, more: &[OsString]) -> Vec<OsString> {
        self.grant_arguments_to(artifact, &self.chain, policy, more)
    }

    /// The arguments of a grant to a chip.
    pub fn grant_arguments_to(
        &self,
        artifact: &Artifact,
        chain: &Path,
        policy: &Path,
        more: &[OsString],
    ) -> Vec<OsString> {
        let mut to = OsString::from("chip:");
        to.push(chain);
        let mut arguments = args![
            "grant",
            "add",
            &artifact.reference,
            "--key",
            &artifact.key,
            "--to",
            &to,
            "--chip-root",
            &self.root,
            "--policy",
            policy
        ];
        arguments.extend(more.iter().cloned());
        arguments
    }

    /// Grants to the first chip; the policy may be weak.
    #[track_caller]
    pub fn grant(&self, artifact: &Artifact, policy: &Path) -> Value {
        self.innerkeep.run(&self.grant_arguments(artifact, policy, &args!["--allow-weak-policy"]))
    }

    /// Grants to the first chip under the usual policy for any data path.
    #[track_caller]
    pub fn grant_usual(&self, artifact: &Artifact) -> Value {
        let policy = self.policy("usual.toml", ENVIRONMENT, "any", 5);
        self.grant(artifact, &policy)
    }

    /// Seals one payload and grants it: what most tests begin with.
    #[track_caller]
    pub fn sealed(&self, name: &str, payload: &Payload, spec: &SealSpec) -> Artifact {
        let input = self.input(&format!("{name}.bin"), payload);
        let artifact = self.seal(name, &[&input], spec);
        self.grant_usual(&artifact);
        artifact
    }

    /// The arguments of an unseal up to `--`.
    pub fn unseal_options(&self, artifact: &Artifact, spec: &UnsealSpec) -> Vec<OsString> {
        let mut public = self.sealer.clone().into_os_string();
        public.push(".pub");
        let mut arguments = args!["unseal", &artifact.reference];
        match &spec.pin {
            Pin::Core(digest) => arguments.extend(args!["--core", digest]),
            Pin::Sealer(minimum) => arguments.extend(args![
                "--sealer-key",
                &public,
                "--family",
                FAMILY,
                "--min-counter",
                minimum.to_string()
            ]),
            Pin::Arguments(pin) => arguments.extend(pin.iter().cloned()),
        }
        arguments.extend(args![
            "--chip",
            spec.chip.as_ref().unwrap_or(&self.chip.socket),
            "--chip-root",
            spec.root.as_ref().unwrap_or(&self.root),
            "--path",
            spec.path
        ]);
        arguments.extend(spec.insecure.iter().map(OsString::from));
        arguments.extend(spec.more.iter().cloned());
        arguments
    }

    /// All arguments of an unseal, and the file by which the consumer says that it ran.
    pub fn unseal_arguments(&self, artifact: &Artifact, spec: &UnsealSpec) -> (Vec<OsString>, PathBuf) {
        self.runs.set(self.runs.get() + 1);
        let marker = self.work.join(format!("tmp/ran-{}", self.runs.get()));
        let mut arguments = self.unseal_options(artifact, spec);
        let consumer = self.programs.path("test-consumer");
        arguments.extend(args!["--", &consumer, spec.task, &marker, "{}"]);
        (arguments, marker)
    }

    /// Unseals for the tests' consumer.
    #[track_caller]
    pub fn unseal(&self, artifact: &Artifact, spec: &UnsealSpec) -> Unsealed {
        let (arguments, marker) = self.unseal_arguments(artifact, spec);
        Unsealed::new(self.innerkeep.attempt(&arguments), marker)
    }

    /// What tests leave out when they look for traces: the chips' own memory and logs, and what was sealed.
    pub fn apart(&self) -> Vec<PathBuf> {
        let mut apart = vec![self.work.join("input"), self.work.join("bin")];
        for entry in std::fs::read_dir(self.work.path()).expect("list the scratch directory") {
            let path = entry.expect("list the scratch directory").path();
            if path.extension().is_some_and(|extension| extension == "sock") {
                apart.push(path.with_extension("log"));
                apart.push(path.with_extension(""));
                apart.push(path);
            }
        }
        apart
    }

    /// Unseals, and asserts that it is refused with this status and code, that the consumer never ran, that no file or mount appeared or
    /// changed and that no plaintext is on disk.
    #[track_caller]
    pub fn assert_refused(&self, artifact: &Artifact, spec: &UnsealSpec, status: i32, code: &str) {
        let before = Trace::of(self.work.path(), &self.apart());
        let unsealed = self.unseal(artifact, spec);
        unsealed.said.assert_refused(status, code);
        assert!(!unsealed.consumer_ran(), "the consumer ran");
        before.assert_unchanged(self.work.path(), &self.apart());
        self.assert_no_plaintext(artifact);
    }

    /// Asserts that an artifact unseals to these bytes.
    #[track_caller]
    pub fn assert_lands(&self, artifact: &Artifact, spec: &UnsealSpec, payload: &Payload) -> Value {
        let seen = self.unseal(artifact, spec).seen();
        assert_eq!(seen["sha256"], payload.sha256(), "{seen}");
        assert_eq!(seen["size"], payload.bytes().len(), "{seen}");
        self.assert_no_plaintext(artifact);
        seen
    }

    /// Asserts that no plaintext of an artifact is on disk.
    #[track_caller]
    pub fn assert_no_plaintext(&self, artifact: &Artifact) {
        if !artifact.needles.is_empty() {
            let apart = [self.work.join("input"), self.work.join("bin")];
            assert_no_plaintext(&Needles::new(&artifact.needles), self.work.path(), &apart);
        }
    }
}

/// The content key in a key file, raw and in hex.
pub fn content_key(file: &Path) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(file).expect("read a content key file");
    let hex =
        text.lines().find_map(|line| line.strip_prefix("key ")).expect("a line with the key").to_owned();
    vec![hex::decode(&hex).expect("a key in hex"), hex.into_bytes()]
}

/// Windows of what was sealed.
pub(crate) fn needles(inputs: &[&Path]) -> Vec<[u8; 32]> {
    let mut needles = Vec::new();
    for input in inputs {
        let payload = Payload::of(std::fs::read(input).unwrap_or_default());
        let count = (payload.bytes().len() / 4096).clamp(usize::from(payload.bytes().len() >= 32), 64);
        needles.extend(payload.windows(&mut Random::fresh().0, count));
    }
    needles
}

/// Whether this machine swaps.
pub fn swap_is_on() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}
