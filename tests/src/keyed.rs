//! A scene without a chip: a platform, guests on it, a sealer, and artifacts whose keys guests get without a chip.

use crate::args;
use crate::broker::KeyBroker;
use crate::innerkeep::{Innerkeep, Said, run_to_end};
use crate::payload::Payload;
use crate::programs::{Programs, User};
use crate::scan::Needles;
use crate::scene::{Artifact, ENVIRONMENT, FAMILY, Unsealed, needles, swap_is_on};
use crate::tee::{Guest, Kind, Platform};
use crate::trace::{Trace, assert_no_plaintext};
use crate::work::Work;
use serde_json::Value;
use sha2::{Digest, Sha384};
use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The initdata of the usual guest.
pub const INITDATA: &str =
    "algorithm = \"sha384\"\nversion = \"0.1.0\"\n\n[data]\n\"aa.toml\" = '''\n[token_configs]\n'''\n";
/// What the sealer calls the broker.
pub const BROKER: &str = "broker.example";

/// The stage of a test.
#[derive(Debug)]
pub struct Keyed {
    /// Scratch directory.
    pub work: Work,
    /// The programs.
    pub programs: Programs,
    /// The command, outside of any guest.
    pub innerkeep: Innerkeep,
    /// The processor that guests run on.
    pub platform: Platform,
    /// The usual guest.
    pub guest: Guest,
    /// Its initdata, a file.
    pub initdata: PathBuf,
    sealer: PathBuf,
    runs: Cell<usize>,
}

impl Keyed {
    /// A platform, a guest, a sealer.
    #[track_caller]
    pub fn start(kind: Kind) -> Self {
        let work = Work::create(User::Same);
        let programs = Programs::built();
        let innerkeep = Innerkeep::new(&programs, &work.join("tmp"));
        let platform = Platform::with_keys_of_vectors(&programs, &work, "platform", kind);
        let guest = platform.guest(&work, "guest", &launch(INITDATA, ""), None);
        let sealer = work.join("sealer.pem");
        innerkeep.run(&args!["key", "new", "--output", &sealer]);
        let initdata = work.write("initdata.toml", INITDATA);
        Self { work, programs, innerkeep, platform, guest, initdata, sealer, runs: Cell::new(0) }
    }

    /// A guest with the usual initdata; `more` are members of the launch file.
    pub fn guest_with(&self, name: &str, more: &str) -> Guest {
        self.platform.guest(&self.work, name, &launch(INITDATA, more), None)
    }

    /// A guest with other initdata.
    pub fn guest_of(&self, name: &str, initdata: &str) -> Guest {
        self.platform.guest(&self.work, name, &launch(initdata, ""), None)
    }

    /// `innerkeep --json …` in a guest.
    pub fn innerkeep_in(&self, guest: &Guest, arguments: &[OsString]) -> Said {
        let mut command = guest.command(&self.programs, &self.work.join("tmp"), "innerkeep");
        run_to_end(command.arg("--json").args(arguments))
    }

    /// As [`Keyed::innerkeep_in`]; the result. Anything but success fails the test.
    #[track_caller]
    pub fn run_in(&self, guest: &Guest, arguments: &[OsString]) -> Value {
        let said = self.innerkeep_in(guest, arguments);
        assert_eq!(said.status, Some(0), "{arguments:?}: {said:#?}");
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error} in {:?}", said.stdout))
    }

    /// Evidence of a guest as it is presented, in the file `name`.
    #[track_caller]
    pub fn presentation(&self, guest: &Guest, name: &str) -> PathBuf {
        let file = self.work.join(name);
        let mut arguments = args!["attest", "--nonce", "0102030405060708", "--presentation", &file];
        arguments.extend(guest.flags());
        self.run_in(guest, &arguments);
        file
    }

    /// The policy that accepts guests like the usual one, a file.
    #[track_caller]
    pub fn policy(&self, name: &str, min_counter: u64) -> PathBuf {
        let evidence = self.presentation(&self.guest, &format!("{name}.evidence"));
        let report = self.innerkeep.run(&args![
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
            min_counter.to_string()
        ]);
        self.work.write(name, report["toml"].as_str().expect("a policy"))
    }

    /// Seals a payload with counter 7.
    #[track_caller]
    pub fn seal(&self, name: &str, payload: &Payload) -> Artifact {
        let input = self.work.write(Path::new("input").join(name), payload.bytes());
        let output = self.work.join(name).into_os_string();
        Artifact { needles: needles(&[&input]), ..self.seal_as(name, args![&input], output) }
    }

    /// Seals the layers of the image that a layout has under `v1`, in the same way.
    #[track_caller]
    pub fn seal_image(&self, name: &str, layout: &Path) -> Artifact {
        let tagged = |layout: &Path| format!("{}:v1", layout.display());
        self.seal_as(name, args!["--image", tagged(layout)], tagged(&self.work.join(name)).into())
    }

    fn seal_as(&self, name: &str, what: Vec<OsString>, output: OsString) -> Artifact {
        let (reference, key) = (self.work.join(name), self.work.join(format!("{name}.key")));
        let mut arguments = args!["seal"];
        arguments.extend(what);
        arguments.extend(args![
            "--output",
            &output,
            "--key-out",
            &key,
            "--family",
            FAMILY,
            "--counter",
            "7",
            "--environment",
            ENVIRONMENT,
            "--sealer-key",
            &self.sealer,
            "--segment-size",
            "65536"
        ]);
        let report = self.innerkeep.run(&arguments);
        let core = report["core"].as_str().expect("the digest of the core").to_owned();
        Artifact { reference, key, core, report, needles: Vec::new() }
    }

    /// The arguments of a grant.
    pub fn grant_arguments(
        &self,
        artifact: &Artifact,
        to: &str,
        policy: &Path,
        more: &[OsString],
    ) -> Vec<OsString> {
        let mut arguments = args!["grant", "add", &artifact.reference, "--key", &artifact.key];
        arguments.extend(args!["--to", to, "--policy", policy]);
        arguments.extend(more.iter().cloned());
        arguments
    }

    /// Grants to the broker of this name: what the command said, the key to be stored, and the broker's resource policy.
    #[track_caller]
    pub fn grant_to_broker(
        &self,
        artifact: &Artifact,
        policy: &Path,
        name: &str,
    ) -> (Value, Vec<u8>, PathBuf) {
        let (kek, rego) = (self.work.join(format!("{name}.kek")), self.work.join(format!("{name}.rego")));
        let more = args!["--kek-out", &kek, "--resource-policy", &rego];
        let report =
            self.innerkeep.run(&self.grant_arguments(artifact, &format!("kbs:{BROKER}"), policy, &more));
        (report, std::fs::read(&kek).expect("read the key-encryption key"), rego)
    }

    /// A broker that believes the platform and has this resource policy.
    #[track_caller]
    pub fn broker(&self, name: &str, rego: &Path) -> KeyBroker {
        let arguments = args![
            "--insecure-trust-roots",
            self.platform.trust_roots(),
            "--collateral",
            &self.guest.collateral,
            "--policy",
            rego
        ];
        KeyBroker::start(&self.programs, &self.work, name, &arguments)
    }

    /// The arguments by which an unseal gets its key from a broker.
    pub fn from_broker(&self, broker: &KeyBroker, guest: &Guest) -> Vec<OsString> {
        args![
            "--kbs",
            &broker.url,
            "--broker",
            BROKER,
            "--initdata",
            &self.initdata,
            "--insecure-tee-root",
            &guest.root
        ]
    }

    /// The arguments of an unseal, and the file by which the consumer says that it ran.
    pub fn unseal_arguments(&self, artifact: &Artifact, source: &[OsString]) -> (Vec<OsString>, PathBuf) {
        self.runs.set(self.runs.get() + 1);
        let marker = self.work.join(format!("tmp/ran-{}", self.runs.get()));
        let mut public = self.sealer.clone().into_os_string();
        public.push(".pub");
        let mut arguments = args!["unseal", &artifact.reference, "--sealer-key", &public];
        arguments.extend(args!["--family", FAMILY, "--min-counter", "5"]);
        if swap_is_on() {
            arguments.extend(args!["--insecure-swap"]);
        }
        arguments.extend(source.iter().cloned());
        arguments.extend(args!["--", self.programs.path("test-consumer"), "look", &marker, "{}"]);
        (arguments, marker)
    }

    /// Asserts that an artifact unseals in a guest; what the report says.
    #[track_caller]
    pub fn assert_lands(
        &self,
        artifact: &Artifact,
        guest: &Guest,
        source: &[OsString],
        payload: &Payload,
    ) -> Value {
        let (arguments, marker) = self.unseal_arguments(artifact, source);
        self.seen(artifact, Unsealed::new(self.innerkeep_in(guest, &arguments), marker), payload)
    }

    /// As [`Keyed::assert_lands`], where no TEE is.
    #[track_caller]
    pub fn assert_lands_outside(&self, artifact: &Artifact, source: &[OsString], payload: &Payload) -> Value {
        let (arguments, marker) = self.unseal_arguments(artifact, source);
        self.seen(artifact, Unsealed::new(self.innerkeep.attempt(&arguments), marker), payload)
    }

    #[track_caller]
    fn seen(&self, artifact: &Artifact, unsealed: Unsealed, payload: &Payload) -> Value {
        let seen = unsealed.seen();
        assert_eq!(seen["sha256"], payload.sha256(), "{seen}");
        self.assert_no_plaintext(artifact);
        unsealed.said.report()
    }

    /// Unseals in a guest (without one: outside), and asserts that it is refused with this status and code, that the consumer never ran, that no
    /// file appeared or changed beside what emulators write, and that no plaintext is on disk. What it said.
    #[track_caller]
    pub fn assert_refused(
        &self,
        artifact: &Artifact,
        guest: Option<&Guest>,
        source: &[OsString],
        apart: &[&Path],
        (status, code): (i32, &str),
    ) -> Said {
        let mut left_out: Vec<PathBuf> = apart.iter().map(|path| (*path).to_owned()).collect();
        left_out.push(self.work.join("platform"));
        left_out.extend(guest.iter().flat_map(|guest| [guest.root.clone(), guest.collateral.clone()]));
        let before = Trace::of(self.work.path(), &left_out);
        let (arguments, marker) = self.unseal_arguments(artifact, source);
        let said = match guest {
            Some(guest) => self.innerkeep_in(guest, &arguments),
            None => self.innerkeep.attempt(&arguments),
        };
        said.assert_refused(status, code);
        assert!(!marker.exists(), "the consumer ran");
        before.assert_unchanged(self.work.path(), &left_out);
        self.assert_no_plaintext(artifact);
        said
    }

    #[track_caller]
    fn assert_no_plaintext(&self, artifact: &Artifact) {
        assert_no_plaintext(&Needles::new(&artifact.needles), self.work.path(), &[self.work.join("input")]);
    }
}

/// The launch file of a guest with this initdata.
fn launch(initdata: &str, more: &str) -> String {
    let digest = if initdata.is_empty() { String::new() } else { hex::encode(Sha384::digest(initdata)) };
    format!("initdata_digest = \"{digest}\"\n{more}\n")
}
