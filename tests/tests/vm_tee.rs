//! The emulated TEE in a guest with a kernel of its own: at the real paths, with the nodes of the guest drivers, and unchanged programs that see a
//! TEE. Who verifies outside holds the emulated roots; nobody inside does.

#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};
use sha2::{Digest, Sha384};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::innerkeep::Said;
use tests::keyed::Keyed;
use tests::payload::Payload;
use tests::protobuf;
use tests::scene::Artifact;
use tests::swtpm::MachineTpm;
use tests::tee::Kind;
use tests::{CHIP_FAULT, DAMAGED, REFUSED, UNFIT, args, vm};
use xtask::vm::{Guest, Running, Spec};

/// Where the guest sees the scratch directory.
const OUT: &str = "/out";
const REPORTS: &str = "/sys/kernel/config/tsm/report";
const REGISTERS: &str = "/sys/devices/virtual/misc/tdx_guest/measurements";
/// Initdata under which events are measured and workloads get evidence.
const MEASURED: &str = "algorithm = \"sha384\"\nversion = \"0.1.0\"\n\n[data]\n\"aa.toml\" = '''\n[eventlog_config]\n\
                        enable_eventlog = true\n'''\n";

/// A machine beside a platform that is not in it yet.
struct Machine {
    keyed: Keyed,
    guest: Guest,
    launches: std::cell::Cell<usize>,
}

/// A TEE that was put into the machine.
struct Tee<'a> {
    machine: &'a Machine,
    running: Running,
    collateral: String,
}

impl Machine {
    fn boot(kind: Kind, more: impl FnOnce(&Keyed, Spec) -> Spec) -> Self {
        let keyed = Keyed::start(kind);
        let programs =
            ["innerkeep", "innerkeep-tee-emulator", "attestation-agent", "test-consumer", "test-call"];
        let spec = vm::spec(&keyed.programs, &programs).modules(&["configfs", "tsm_report", "cuse"]);
        let spec = more(&keyed, spec.share(keyed.work.path()));
        let guest = vm::boot(spec);
        // Landings are attached in a directory of the image; peers of the attestation agent are known by their control group.
        vm::shell(&guest, "mkdir -p /mnt && mount -t cgroup2 none /sys/fs/cgroup");
        Self { keyed, guest, launches: std::cell::Cell::new(0) }
    }

    /// A path of the scratch directory as the guest has it.
    fn inside(&self, path: &Path) -> PathBuf {
        Path::new(OUT).join(path.strip_prefix(self.keyed.work.path()).unwrap_or(path))
    }

    fn exec(&self, argv: &[&str]) -> Said {
        let xtask::vm::Said { status, stdout, stderr } = vm::exec(&self.guest, argv);
        Said { status: Some(status), stdout, stderr }
    }

    /// `innerkeep --json …` in the guest; paths of the scratch directory are those of the guest.
    fn innerkeep(&self, arguments: &[OsString]) -> Said {
        let words: Vec<String> =
            arguments
                .iter()
                .map(Path::new)
                .map(|word| {
                    if word.starts_with(self.keyed.work.path()) { self.inside(word) } else { word.to_owned() }
                })
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
        let argv: Vec<&str> =
            ["innerkeep", "--json"].into_iter().chain(words.iter().map(String::as_str)).collect();
        self.exec(&argv)
    }

    #[track_caller]
    fn run(&self, arguments: &[OsString]) -> Value {
        let said = self.innerkeep(arguments);
        assert_eq!(said.status, Some(0), "{arguments:?}: {said:#?}\n{}", self.guest.serial());
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error} in {:?}", said.stdout))
    }

    fn shell(&self, line: &str) -> String {
        vm::shell(&self.guest, line)
    }

    /// Launches the machine: the usual initdata, `launch` behind it.
    fn launch(&self, launch: &str) -> Tee<'_> {
        self.start(&self.guest_file(launch), &[])
    }

    /// The usual launch, on an older kernel.
    fn launch_without(&self, without: &[&str]) -> Tee<'_> {
        self.start(&self.guest_file(""), without)
    }

    fn guest_file(&self, launch: &str) -> PathBuf {
        self.launches.set(self.launches.get() + 1);
        let name = format!("launch-{}", self.launches.get());
        self.keyed.guest_with(&name, launch);
        self.keyed.work.join(format!("{name}.launch"))
    }

    #[track_caller]
    fn start(&self, launch: &Path, without: &[&str]) -> Tee<'_> {
        let collateral = format!("{OUT}/vm.collateral");
        let launch = self.inside(launch).to_string_lossy().into_owned();
        let plan = self.inside(&self.keyed.work.write("vm.faults", "")).to_string_lossy().into_owned();
        let mut argv =
            vec!["innerkeep-tee-emulator", "guest", "--state", "/out/platform", "--launch", &launch];
        argv.extend([
            "--fault-plan",
            &plan,
            "--collateral-out",
            &collateral,
            "--ready-file",
            "/run/tee-ready",
        ]);
        argv.extend(without.iter().flat_map(|part| ["--without", part]));
        let running = self.guest.spawn(&argv).unwrap_or_else(|error| panic!("{error:#}"));
        self.await_tee(&running);
        Tee { machine: self, running, collateral }
    }

    #[track_caller]
    fn await_tee(&self, running: &Running) {
        let start = Instant::now();
        while self.exec(&["test", "-e", "/run/tee-ready"]).status != Some(0) {
            if start.elapsed() > Duration::from_secs(60) {
                panic!("the TEE is not ready: {:?}", running.wait(Duration::from_secs(1)));
            }
        }
    }

    /// Unseals in the guest by `source`; how it went, and whether the consumer ran.
    fn unseal(&self, artifact: &Artifact, source: &[OsString]) -> (Said, bool) {
        let (mut arguments, marker) = self.keyed.unseal_arguments(artifact, source);
        // The machine has no swap, whatever this one has.
        arguments.retain(|word| word != "--insecure-swap");
        let consumer = self.keyed.programs.path("test-consumer").into_os_string();
        for word in &mut arguments {
            if *word == consumer {
                *word = "/bin/test-consumer".into();
            }
        }
        (self.innerkeep(&arguments), marker.exists())
    }

    #[track_caller]
    fn assert_lands(&self, artifact: &Artifact, source: &[OsString], payload: &Payload) -> Value {
        let (said, ran) = self.unseal(artifact, source);
        assert!(said.status == Some(0) && ran, "{said:#?}\n{}", self.guest.serial());
        let seen: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(seen.get("sha256"), Some(&json!(payload.sha256())), "{seen}");
        said.report()
    }

    #[track_caller]
    fn assert_refused(&self, artifact: &Artifact, source: &[OsString], (status, code): (i32, &str)) {
        let (said, ran) = self.unseal(artifact, source);
        said.assert_refused(status, code);
        assert!(!ran, "the consumer ran");
    }

    /// Evidence of this guest as it is presented; a file outside.
    #[track_caller]
    fn presentation(&self, tee: &Tee<'_>, name: &str) -> (PathBuf, Value) {
        let file = self.keyed.work.join(name);
        let mut arguments = args!["attest", "--nonce", "0102030405060708", "--presentation", &file];
        if self.keyed.platform.kind == Kind::Tdx {
            arguments.extend(args!["--collateral", &tee.collateral]);
        }
        let report = self.run(&arguments);
        (file, report)
    }

    /// A policy, outside, from evidence; the emulated roots are believed there.
    #[track_caller]
    fn policy(&self, evidence: &Path, name: &str) -> PathBuf {
        let mut arguments = args!["policy", "from-evidence", "--evidence", evidence];
        arguments.extend(args!["--insecure-trust-roots", self.keyed.platform.trust_roots()]);
        arguments.extend(args!["--environment", tests::scene::ENVIRONMENT, "--family", tests::scene::FAMILY]);
        let report = self.keyed.innerkeep.run(&arguments);
        self.keyed.work.write(name, report["toml"].as_str().unwrap())
    }

    /// The rules by which a policy denies evidence, judged outside.
    #[track_caller]
    fn denials(&self, evidence: &Path, policy: &Path) -> Vec<String> {
        let mut arguments = args!["attest", "explain", "--evidence", evidence, "--policy", policy];
        arguments.extend(args!["--insecure-trust-roots", self.keyed.platform.trust_roots()]);
        let said = self.keyed.innerkeep.attempt(&arguments);
        let report: Value =
            serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        let findings = report["findings"].as_array().unwrap().iter();
        findings
            .filter(|finding| finding["holds"] == false)
            .map(|finding| finding["rule"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Tee<'_> {
    /// The host changes its ways.
    #[track_caller]
    fn misbehave(&self, plan: &str) {
        self.machine.shell("rm /run/tee-ready");
        self.machine.keyed.work.write("vm.faults", plan);
        self.running.signal(1).unwrap();
        self.machine.await_tee(&self.running);
    }

    /// Ends it; the machine is as before.
    #[track_caller]
    fn end(self) {
        let Self { machine, running, .. } = self;
        running.signal(15).unwrap();
        let said = running.wait(Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(said.status, 0, "{said:?}");
        assert!(said.stderr.contains("INSECURE: EMULATED"), "{said:?}");
        machine.shell("rm /run/tee-ready; ! test -e /dev/sev-guest && ! test -e /dev/tdx_guest");
        assert!(!machine.shell("cat /proc/mounts").contains("tee-emulator"));
    }
}

/// The probe of `attest doctor` with this code.
fn probe(said: &Said, code: &str) -> Option<Value> {
    let report: Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    report["probes"].as_array().unwrap().iter().find(|probe| probe["code"] == code).cloned()
}

/// A kernel without a TEE, first without configfs and then with one that has no provider: an error that names every place.
#[track_caller]
fn assert_no_tee(machine: &Machine) {
    let attest = args!["attest", "--nonce", "00"];
    let missing = machine.innerkeep(&attest);
    missing.assert_refused(UNFIT, "ATTEST_NO_TEE");
    machine.shell("mount -t configfs none /sys/kernel/config");
    let made = machine.exec(&["mkdir", &format!("{REPORTS}/probe")]);
    assert!(made.stderr.contains("No such device or address"), "{made:?}");
    let said = machine.innerkeep(&attest);
    said.assert_refused(UNFIT, "ATTEST_NO_TEE");
    for told in [REPORTS, "no TDX or SEV-SNP guest driver has registered", "/dev/sev-guest"] {
        assert!(said.stderr.contains(told), "{told}: {said:?}");
    }
    assert!(!missing.stderr.contains("has registered"), "{missing:?}");
    let doctor = machine.innerkeep(&args!["attest", "doctor"]);
    assert_eq!((doctor.status, doctor.code().as_str()), (Some(UNFIT), "ATTEST_NO_TEE"), "{doctor:?}");
    let agent = machine.exec(&["attestation-agent", "--attestation_sock", "unix:///run/aa.sock"]);
    assert!(agent.status == Some(1) && agent.stderr.contains("ATTEST_NO_TEE"), "{agent:?}");
}

/// The unchanged attestation agent in the guest, under initdata that switches measurement on.
fn call(machine: &Machine, method: &str, payload: &[u8]) -> Vec<u8> {
    let service = "attestation_agent.AttestationAgentService";
    let payload = if payload.is_empty() { String::new() } else { hex::encode(payload) };
    let said = machine.exec(&["test-call", "/run/aa.sock", service, method, &payload]);
    assert_eq!(said.status, Some(0), "{said:?}");
    hex::decode(said.stdout.trim()).unwrap()
}

fn event(content: &str, register: Option<u64>) -> Vec<u8> {
    let mut event = protobuf::field(1, b"example.com/vm");
    event.extend(protobuf::field(2, b"Start"));
    event.extend(protobuf::field(3, content.as_bytes()));
    event.extend(register.map(|register| protobuf::number(4, register)).unwrap_or_default());
    event
}

fn contains(answer: &[u8], text: &str) -> bool {
    answer.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_tdx_guest_attests_and_measures_at_the_real_paths() {
    let machine = Machine::boot(Kind::Tdx, |_, spec| spec);
    assert_no_tee(&machine);

    let initdata = machine.keyed.work.write("measured.toml", MEASURED);
    machine.keyed.guest_of("measured", MEASURED);
    let tee = machine.start(&machine.keyed.work.join("measured.launch"), &[]);
    let doctor = machine.innerkeep(&args!["attest", "doctor"]);
    assert_eq!(doctor.status, Some(0), "{doctor:?}");
    for code in ["TEE", "INITDATA", "RUNTIME_MEASUREMENT", "FIRMWARE_LOG"] {
        let level = probe(&doctor, code).map(|probe| probe["level"].clone());
        assert_eq!(level, Some(json!("ok")), "{code}: {doctor:?}");
    }
    // What the kernel had is still there.
    machine.shell("test -e /sys/devices/virtual/misc/fuse/dev && test -s /sys/firmware/acpi/tables/FACP");
    assert_eq!(machine.shell("head -c 4 /sys/firmware/acpi/tables/CCEL"), "CCEL");

    // Evidence, verified outside, under the emulated root alone.
    let (evidence, report) = machine.presentation(&tee, "evidence");
    assert_eq!((&report["tee"], &report["insecure"]), (&json!("tdx"), &json!([])), "{report}");
    let registers = report["registers"].as_object().unwrap().clone();
    assert_eq!(registers["MRCONFIGID"], json!(hex::encode(Sha384::digest(MEASURED))));
    let policy = machine.policy(&evidence, "vm.toml");
    assert_eq!(machine.denials(&evidence, &policy), Vec::<String>::new());
    let builtin = args!["attest", "explain", "--evidence", &evidence, "--policy", &policy];
    let builtin = machine.keyed.innerkeep.attempt(&builtin);
    assert_eq!((builtin.code().as_str(), builtin.stdout.as_str()), ("EVIDENCE_ROOT_UNTRUSTED", ""));

    // Inside a TEE nobody is shown another one.
    let elsewhere = args!["attest", "--nonce", "00", "--insecure-tee-root", "/tmp"];
    machine.innerkeep(&elsewhere).assert_refused(UNFIT, "ATTEST_INSECURE_ON_TEE");

    // Measurement, by the agent.
    let agent = |initdata: &Path| {
        let initdata = machine.inside(initdata).to_string_lossy().into_owned();
        ["attestation-agent", "--attestation_sock", "unix:///run/aa.sock", "--initdata-toml", &initdata]
            .map(ToOwned::to_owned)
    };
    let foreign = agent(&machine.keyed.initdata);
    let foreign = machine.exec(&foreign.each_ref().map(String::as_str));
    assert!(foreign.status == Some(1) && foreign.stderr.contains("ATTEST_INITDATA_MISMATCH"), "{foreign:?}");
    let running = machine.guest.spawn(&agent(&initdata)).unwrap();
    machine.shell("for i in $(seq 200); do test -S /run/aa.sock && exit 0; sleep 0.05; done; exit 1");
    let rtmr = |index: usize| {
        machine.shell(&format!("od -An -v -tx1 {REGISTERS}/rtmr{index}:sha384 | tr -d ' \\n'"))
    };
    let before = [0, 1, 2, 3].map(rtmr);
    assert_eq!(before[3], "00".repeat(48));
    let refused = call(&machine, "ExtendRuntimeMeasurement", &event("one", Some(1)));
    assert!(contains(&refused, "ATTEST_REGISTER_REFUSED"), "{}", String::from_utf8_lossy(&refused));
    assert_eq!([0, 1, 2, 3].map(rtmr), before);
    let done = call(&machine, "ExtendRuntimeMeasurement", &event("one", None));
    assert!(!contains(&done, "ATTEST_"), "{}", String::from_utf8_lossy(&done));
    let after = [0, 1, 2, 3].map(rtmr);
    assert_eq!((&after[..3], after[3] == before[3]), (&before[..3], false));
    // The new evidence carries a log that leads there, and a policy for the guest as it was sees it.
    let (measured, report) = machine.presentation(&tee, "evidence-measured");
    assert_eq!(report["registers"]["RTMR3"], json!(after[3]), "{report}");
    assert!(std::fs::read(&measured).unwrap().windows(19).any(|window| window == b"example.com/vm Star"));
    assert_eq!(machine.denials(&measured, &policy), Vec::<String>::new());
    let text = std::fs::read_to_string(&policy).unwrap();
    for (name, value, denied) in
        [("before.toml", &before[3], vec!["rtmr3"]), ("after.toml", &after[3], vec![])]
    {
        let exact = text.replace("rtmr3 = \"any\"", &format!("rtmr3 = {{ exactly = \"{value}\" }}"));
        assert_ne!(exact, text);
        let policy = machine.keyed.work.write(name, exact);
        assert_eq!(machine.denials(&measured, &policy), denied, "{name}");
    }
    running.signal(15).unwrap();
    assert_eq!(running.wait(Duration::from_secs(60)).unwrap().status, 0);
    tee.end();

    // An older kernel has no measurement files: registers come by the ioctl of /dev/tdx_guest.
    let tee = machine.start(&machine.keyed.work.join("measured.launch"), &["measurements"]);
    let (evidence, report) = machine.presentation(&tee, "evidence-older");
    assert_eq!(report["registers"].as_object(), Some(&registers));
    assert_eq!(machine.denials(&evidence, &policy), Vec::<String>::new());
    let doctor = machine.innerkeep(&args!["attest", "doctor"]);
    assert!(probe(&doctor, "RUNTIME_MEASUREMENT_NOT_SUPPORTED").is_some(), "{doctor:?}");
    tee.end();
}

#[test]
fn evil_host_lies_to_a_tdx_guest_without_measurement_files() {
    let machine = Machine::boot(Kind::Tdx, |_, spec| spec);
    let cases = [
        ("device-error", "value = 5", CHIP_FAULT, "ATTEST_TEE_IO"),
        ("device-long-answer", "", CHIP_FAULT, "ATTEST_TEE_IO"),
        ("device-short-answer", "value = 0", CHIP_FAULT, "ATTEST_EVIDENCE_INVALID"),
        ("device-short-answer", "value = 100", CHIP_FAULT, "ATTEST_REPORT_DATA_MISMATCH"),
        ("td-report-other-data", "", CHIP_FAULT, "ATTEST_REPORT_DATA_MISMATCH"),
    ];
    let attest = args!["attest", "--nonce", "00"];
    let tee = machine.launch_without(&["measurements"]);
    for (kind, value, status, code) in cases {
        tee.misbehave(&plan(kind, value));
        machine.innerkeep(&attest).assert_refused(status, code);
    }
    tee.misbehave("");
    assert_eq!(machine.run(&attest)["tee"], "tdx");
    tee.end();
}

/// A plan of one fault that happens every time.
fn plan(kind: &str, more: &str) -> String {
    format!("[[fault]]\nkind = \"{kind}\"\ntimes = 0\n{more}\n")
}

/// A sealed artifact that is granted to the guest by its own key.
struct Granted {
    machine: Machine,
    artifact: Artifact,
    payload: Payload,
    policy: PathBuf,
}

impl Granted {
    fn boot(kind: Kind, more: impl FnOnce(&Keyed, Spec) -> Spec) -> Self {
        let machine = Machine::boot(kind, more);
        let payload = Payload::random(6, 200_000);
        let artifact = machine.keyed.seal("model", &payload);
        let policy = machine.keyed.policy("policy.toml", 5);
        Self { machine, artifact, payload, policy }
    }

    #[track_caller]
    fn grant(&self, to: &str) -> Said {
        self.machine.innerkeep(&self.machine.keyed.grant_arguments(&self.artifact, to, &self.policy, &[]))
    }
}

#[test]
fn a_snp_guest_opens_its_own_grant_through_the_node() {
    let granted = Granted::boot(Kind::Snp, |_, spec| spec);
    let Granted { machine, artifact, payload, .. } = &granted;
    let snp = args!["--snp"];
    let tee = machine.launch("");
    assert_eq!(machine.shell("stat -c '%F %a' /dev/sev-guest"), "character special file 600\n");
    let said = granted.grant("snp");
    assert_eq!(said.status, Some(0), "{said:?}");
    let report = machine.assert_lands(artifact, &snp, payload);
    assert_eq!((&report["key_from"], &report["tee"]), (&json!("snp"), &json!("snp")), "{report}");
    assert_eq!(report["insecure"], json!([]), "{report}");
    let (evidence, _) = machine.presentation(&tee, "by-configfs");
    let policy = machine.policy(&evidence, "vm.toml");
    assert_eq!(machine.denials(&evidence, &policy), Vec::<String>::new());
    tee.end();

    // A kernel without configfs-tsm: reports by the node too, with the host's certificates.
    let tee = machine.launch_without(&["configfs-tsm"]);
    machine.assert_lands(artifact, &snp, payload);
    let (evidence, report) = machine.presentation(&tee, "by-node");
    assert_eq!((&report["tee"], machine.denials(&evidence, &policy)), (&json!("snp"), Vec::new()));
    assert!(report["evidence"]["cert_chain"].as_array().is_some_and(|chain| chain.len() == 3), "{report}");
    tee.end();
}

#[test]
fn evil_host_launches_another_guest_for_a_grant_of_this_one() {
    let granted = Granted::boot(Kind::Snp, |_, spec| spec);
    let Granted { machine, artifact, payload, .. } = &granted;
    let snp = args!["--snp"];
    let tee = machine.launch("");
    assert_eq!(granted.grant("snp").status, Some(0));
    tee.end();
    let measurement = format!("[snp]\nmeasurement = \"{}\"", "33".repeat(48));
    for (launch, refusal) in [
        (measurement.as_str(), (REFUSED, "NO_GRANT_FOR_SNP")),
        ("debug = true", (REFUSED, "NO_GRANT_FOR_SNP")),
        ("[snp.tcb]\nmicrocode = 208", (CHIP_FAULT, "ATTEST_FIRMWARE_REFUSED")),
    ] {
        let tee = machine.launch(launch);
        machine.assert_refused(artifact, &snp, refusal);
        tee.end();
    }
    machine.keyed.guest_of("foreign", MEASURED);
    let tee = machine.start(&machine.keyed.work.join("foreign.launch"), &[]);
    machine.assert_refused(artifact, &snp, (DAMAGED, "GRANT_OPEN_FAILED"));
    tee.end();
    // Without any TEE.
    machine.assert_refused(artifact, &snp, (UNFIT, "ATTEST_NO_TEE"));
    let tee = machine.launch("");
    machine.assert_lands(artifact, &snp, payload);
    // A TEE that is gone from one moment to the next: its files answer with errors, its node is no more.
    tee.running.signal(9).unwrap();
    assert_eq!(tee.running.wait(Duration::from_secs(60)).unwrap().status, 128 + 9);
    machine.assert_refused(artifact, &snp, (UNFIT, "ATTEST_NO_TEE"));
}

#[test]
fn evil_host_answers_the_report_ioctl_with_lies() {
    let machine = Machine::boot(Kind::Snp, |_, spec| spec);
    // Where the request lies before the response: message of 32 bytes, request of 112.
    let cases = [
        ("device-error", "value = 25", "ATTEST_TEE_IO"),
        ("device-long-answer", "", "ATTEST_TEE_IO"),
        ("firmware-error", "value = 39", "ATTEST_FIRMWARE_REFUSED"),
        ("report-status", "", "ATTEST_FIRMWARE_REFUSED"),
        ("certificate-room", "value = 0", "ATTEST_TOO_LARGE"),
        ("certificate-room", "value = 5", "ATTEST_TOO_LARGE"),
        ("device-short-answer", "value = 0", "ATTEST_EVIDENCE_EMPTY"),
        ("device-short-answer", "value = 144", "ATTEST_EVIDENCE_EMPTY"),
        ("device-short-answer", "value = 200", "ATTEST_EVIDENCE_INVALID"),
        ("zero-quote", "", "ATTEST_EVIDENCE_EMPTY"),
        ("short-quote", "value = 1183", "ATTEST_EVIDENCE_EMPTY"),
        ("oversize-quote", "value = 5000", "ATTEST_EVIDENCE_EMPTY"),
        ("other-report-data", "", "ATTEST_REPORT_DATA_MISMATCH"),
        // One request for each report, so that the last report is another one's.
        (
            "certificates-absent",
            "[[fault]]\nkind = \"replayed-quote\"\ntimes = 0",
            "ATTEST_REPORT_DATA_MISMATCH",
        ),
        ("certificate-overlap", "", "ATTEST_CERTIFICATE_TABLE"),
        ("certificate-length", "", "ATTEST_CERTIFICATE_TABLE"),
        ("certificate-unterminated", "", "ATTEST_CERTIFICATE_TABLE"),
    ];
    let attest = args!["attest", "--nonce", "00"];
    let tee = machine.launch_without(&["configfs-tsm"]);
    for (kind, value, code) in cases {
        tee.misbehave(&plan(kind, value));
        let said = machine.innerkeep(&attest);
        assert_eq!((said.status, said.code().as_str()), (Some(CHIP_FAULT), code), "{kind} {value}: {said:?}");
        assert_eq!(said.stdout, "", "{kind}");
    }
    tee.misbehave("");
    assert_eq!(machine.run(&attest)["tee"], "snp");
    tee.end();
}

#[test]
fn evil_host_answers_the_key_ioctl_with_lies() {
    let granted = Granted::boot(Kind::Snp, |_, spec| spec);
    let Granted { machine, artifact, payload, .. } = &granted;
    // Reports come by configfs-tsm: the ioctl is the one for the key.
    let cases = [
        ("derived-key-refused", "value = 9", "ATTEST_FIRMWARE_REFUSED"),
        ("firmware-error", "value = 39", "ATTEST_FIRMWARE_REFUSED"),
        ("device-error", "value = 14", "ATTEST_TEE_IO"),
        ("device-long-answer", "", "ATTEST_TEE_IO"),
        // Nothing, and a status without a key behind it.
        ("device-short-answer", "value = 0", "ATTEST_EVIDENCE_EMPTY"),
        ("device-short-answer", "value = 64", "ATTEST_EVIDENCE_EMPTY"),
    ];
    let tee = machine.launch("");
    assert_eq!(granted.grant("snp").status, Some(0));
    for (kind, value, code) in cases {
        tee.misbehave(&plan(kind, value));
        // Neither opened, nor granted to a key that is none.
        machine.assert_refused(artifact, &args!["--snp"], (CHIP_FAULT, code));
        granted.grant("snp").assert_refused(CHIP_FAULT, code);
    }
    tee.misbehave("");
    machine.assert_lands(artifact, &args!["--snp"], payload);
    tee.end();
    let grants = machine.keyed.innerkeep.run(&args!["grant", "list", &artifact.reference]);
    assert_eq!(grants["grants"].as_array().map(Vec::len), Some(1), "{grants}");
}

/// TPM2_PCR_Extend of register 4 with an empty password, as the command's bytes.
fn extend_register_4() -> String {
    let header = "80020000004100000182";
    let session = "00000004000000094000000900000000".to_owned() + "00";
    let digest = format!("00000001000b{}", "ab".repeat(32));
    hex::decode(format!("{header}{session}{digest}"))
        .unwrap()
        .iter()
        .map(|byte| format!("\\x{byte:02x}"))
        .collect()
}

#[test]
fn a_guest_s_tpm_opens_a_grant_beside_its_tee() {
    let mut tpm = None;
    let granted = Granted::boot(Kind::Tdx, |keyed, spec| {
        let started = tpm.insert(MachineTpm::start(&keyed.work, "tpm"));
        spec.tpm(started.control(), started.process())
    });
    let Granted { machine, artifact, payload, .. } = &granted;
    let by_tpm = args!["--tpm"];
    assert_eq!(
        machine.shell("stat -c %F /dev/tpm0 /dev/tpmrm0"),
        "character special file\ncharacter special file\n"
    );
    let tee = machine.launch("");
    let said = granted.grant("tpm");
    assert_eq!(said.status, Some(0), "{said:?}");
    let report = machine.assert_lands(artifact, &by_tpm, payload);
    assert_eq!((&report["key_from"], &report["tee"]), (&json!("tpm"), &json!("tdx")), "{report}");
    assert_eq!(report["insecure"], json!([]), "{report}");
    tee.end();
    // A TPM is no TEE.
    machine.assert_refused(artifact, &by_tpm, (UNFIT, "TPM_ALONE"));
    // Another boot loader.
    let tee = machine.launch("");
    machine.shell(&format!("printf '{}' >/dev/tpm0", extend_register_4()));
    machine.assert_refused(artifact, &by_tpm, (REFUSED, "TPM_SEALED_PCRS"));
    tee.end();
}
