//! Attestation by the shipped programs: evidence and how it is explained, policies from it, brokers, and what a workload does not get.

#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::broker::KeyBroker;
use tests::innerkeep::Said;
use tests::keyed::Keyed;
use tests::tee::{Guest, Kind, Platform};
use tests::{CHIP_FAULT, REFUSED, UNFIT, USAGE, args};

const ALLOW: &str = "package policy\ndefault allow = true\n";

/// `attest explain` of evidence against a policy.
fn explain(keyed: &Keyed, evidence: &Path, policy: &Path, more: &[std::ffi::OsString]) -> Said {
    let mut arguments = args!["attest", "explain", "--evidence", evidence, "--policy", policy];
    arguments.extend(args!["--insecure-trust-roots", keyed.platform.trust_roots()]);
    arguments.extend(more.iter().cloned());
    keyed.innerkeep.attempt(&arguments)
}

/// What `attest explain` said of each rule: the ones that deny.
fn denials(said: &Said) -> Vec<String> {
    let report: Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let findings = report["findings"].as_array().unwrap();
    assert!(!findings.is_empty(), "{report}");
    let denied = findings.iter().filter(|finding| finding["holds"] == false);
    let denied: Vec<String> = denied.map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect();
    assert_eq!(report["denied"], denied.len(), "{report}");
    denied
}

/// What a verifier expects of a workload that calls itself `innerkeep attest`, by the specification (attestation, section 1).
fn workload_report_data(runtime_data: &[u8]) -> String {
    fn prefixed(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat()
    }
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let cgroup = cgroups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    let uid = rustix::process::getuid().as_raw();
    let identity = Sha256::new()
        .chain_update(b"innerkeep workload identity v1")
        .chain_update(prefixed(b"innerkeep attest"))
        .chain_update(uid.to_le_bytes())
        .chain_update(prefixed(cgroup.as_bytes()))
        .finalize();
    let report_data = Sha512::new()
        .chain_update(b"innerkeep workload evidence v1")
        .chain_update(identity)
        .chain_update(Sha512::digest(runtime_data));
    hex::encode(report_data.finalize())
}

#[test]
fn attest_makes_evidence_in_the_form_of_workloads_alone() {
    for kind in Kind::ALL {
        let keyed = Keyed::start(kind);
        let runtime_data = keyed.work.write("runtime-data", b"what the verifier is told beside");
        let (evidence, policy) = (keyed.work.join("evidence.json"), keyed.policy("policy.toml", 1));
        let mut arguments = args!["attest", "--runtime-data", &runtime_data, "--output", &evidence];
        arguments.extend(args!["--insecure-tee-root", &keyed.guest.root]);
        let report = keyed.run_in(&keyed.guest, &arguments);
        let expected = workload_report_data(b"what the verifier is told beside");
        assert_eq!(
            (&report["report_data"], &report["tee"]),
            (&json!(expected), &json!(kind.name())),
            "{report}"
        );
        assert_eq!(report["insecure"], json!(["emulated-tee"]), "{report}");
        // The evidence carries it, under a signature.
        let collateral = args!["--collateral", &keyed.guest.collateral];
        let with = |data: &str| [collateral.clone(), args!["--report-data", data]].concat();
        let said = explain(&keyed, &evidence, &policy, &with(&expected));
        assert_eq!((said.status, denials(&said)), (Some(0), Vec::new()), "{said:?}");
        let said = explain(&keyed, &evidence, &policy, &with(&"00".repeat(64)));
        assert_eq!(
            (said.status, denials(&said)),
            (Some(REFUSED), vec!["report_data".to_owned()]),
            "{said:?}"
        );
        // A file that is there is not overwritten, and raw report data cannot be asked for.
        keyed.innerkeep_in(&keyed.guest, &arguments).assert_refused(tests::IO, "FILE");
        let raw = args!["attest", "--report-data", "00", "--insecure-tee-root", &keyed.guest.root];
        keyed.innerkeep_in(&keyed.guest, &raw).assert_refused(USAGE, "USAGE");
    }
}

#[test]
fn attest_explain_names_each_rule_that_denies() {
    let other = "22".repeat(48);
    let cases = [
        (Kind::Tdx, format!("[tdx]\nmrtd = \"{other}\""), vec!["mrtd", "rtmr"]),
        (Kind::Tdx, "debug = true".to_owned(), vec!["debug"]),
        (Kind::Tdx, "[tdx]\ntcb_evaluation = 16".to_owned(), vec!["min_tcb_evaluation"]),
        (Kind::Snp, format!("[snp]\nmeasurement = \"{other}\""), vec!["measurement"]),
        (Kind::Snp, "[snp.tcb]\nsnp = 19".to_owned(), vec!["min_tcb"]),
        (Kind::Snp, "debug = true".to_owned(), vec!["debug", "guest_policy"]),
    ];
    for kind in Kind::ALL {
        let keyed = Keyed::start(kind);
        let policy = keyed.policy("policy.toml", 1);
        let said = explain(&keyed, &keyed.work.join("policy.toml.evidence"), &policy, &[]);
        assert_eq!((said.status, denials(&said)), (Some(0), Vec::new()), "{said:?}");
        for (index, (_, launch, rules)) in cases.iter().filter(|case| case.0 == kind).enumerate() {
            let guest = keyed.guest_with(&format!("g{index}"), launch);
            let evidence = keyed.presentation(&guest, &format!("e{index}"));
            let said = explain(&keyed, &evidence, &policy, &[]);
            assert_eq!(said.status, Some(REFUSED), "{said:?}");
            let denied = denials(&said);
            assert!(!denied.is_empty(), "{said:?}");
            assert!(
                denied.iter().all(|rule| rules.iter().any(|name| rule.contains(name))),
                "{rules:?}: {denied:?}"
            );
        }
        // Nobody believes an emulated platform without being told to.
        let builtin = keyed.innerkeep.attempt(&args![
            "attest",
            "explain",
            "--evidence",
            keyed.work.join("policy.toml.evidence"),
            "--policy",
            &policy
        ]);
        assert_ne!(builtin.status, Some(0), "{builtin:?}");
        // Intel's root is one key; of AMD's there is one for each generation, and the certificate has to name it.
        let code = match kind {
            Kind::Tdx => "EVIDENCE_ROOT_UNTRUSTED",
            Kind::Snp => "EVIDENCE_CERTIFICATE_INVALID",
        };
        assert_eq!((builtin.code().as_str(), builtin.stdout.as_str()), (code, ""), "{builtin:?}");
    }
}

#[test]
fn policy_from_evidence_is_weak_only_where_nothing_is_known() {
    for kind in Kind::ALL {
        let mut keyed = Keyed::start(kind);
        let policy = keyed.policy("policy.toml", 1);
        let said = keyed.innerkeep.attempt(&args!["policy", "lint", &policy]);
        assert_eq!((said.status, said.stdout.trim()), (Some(0), "{\"weaknesses\":[]}"), "{said:?}");
        // A guest without initdata: its register says nothing, and the policy says so.
        keyed.guest = keyed.guest_of("unbound", "");
        let policy = keyed.policy("unbound.toml", 1);
        let said = keyed.innerkeep.attempt(&args!["policy", "lint", &policy]);
        assert_eq!((said.status, said.code().as_str()), (Some(REFUSED), "POLICY_WEAK"), "{said:?}");
        let report: Value = serde_json::from_str(&said.stdout).unwrap();
        let codes: Vec<_> = report["weaknesses"].as_array().unwrap().iter().map(|one| &one["code"]).collect();
        assert_eq!(codes, ["WEAK_INITDATA"], "{report}");
    }
}

/// The probe with a code, in what `attest doctor` said.
#[track_caller]
fn probe(said: &Said, code: &str) -> Value {
    let report: Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let probes = report["probes"].as_array().unwrap();
    let found = probes.iter().find(|probe| probe["code"] == code);
    found.unwrap_or_else(|| panic!("no {code} in {report}")).clone()
}

#[test]
fn attest_doctor_says_what_is_missing() {
    let keyed = Keyed::start(Kind::Tdx);
    let empty = keyed.work.directory("empty");
    for more in [Vec::new(), args!["--insecure-tee-root", &empty]] {
        let said = keyed.innerkeep.attempt(&[args!["attest", "doctor"], more].concat());
        assert_eq!((said.status, said.code().as_str()), (Some(UNFIT), "ATTEST_NO_TEE"), "{said:?}");
        let missing = probe(&said, "ATTEST_NO_TEE");
        assert!(
            missing["level"] == "wrong" && missing["advice"].as_str().unwrap().contains("TDX"),
            "{missing}"
        );
    }
    let root = args!["attest", "doctor", "--insecure-tee-root", &keyed.guest.root];
    let said = keyed.innerkeep_in(&keyed.guest, &root);
    assert_eq!(said.status, Some(0), "{said:?}");
    let (tee, initdata) = (probe(&said, "TEE"), probe(&said, "INITDATA"));
    assert!(tee["level"] == "warning" && tee["found"].as_str().unwrap().contains("tdx"), "{tee}");
    let digest = hex::encode(sha2::Sha384::digest(tests::keyed::INITDATA));
    assert!(initdata["level"] == "ok" && initdata["found"].as_str().unwrap().contains(&digest), "{initdata}");
    assert_eq!(probe(&said, "RUNTIME_MEASUREMENT")["level"], "ok");
    let said = keyed.innerkeep_in(
        &keyed.guest_of("unbound", ""),
        &args!["attest", "doctor", "--insecure-tee-root", keyed.work.join("unbound")],
    );
    assert_eq!(
        (said.status, &probe(&said, "INITDATA_ZERO")["level"]),
        (Some(0), &json!("warning")),
        "{said:?}"
    );
}

/// A broker that gives its resource to every guest that it verified.
fn open_broker(keyed: &Keyed, more: &[std::ffi::OsString]) -> KeyBroker {
    keyed.presentation(&keyed.guest, "first");
    let policy = keyed.work.write("open.rego", ALLOW);
    let mut arguments = args!["--insecure-trust-roots", keyed.platform.trust_roots(), "--policy", &policy];
    arguments.extend(args!["--collateral", &keyed.guest.collateral]);
    arguments.extend(more.iter().cloned());
    let broker = KeyBroker::start(&keyed.programs, &keyed.work, "broker", &arguments);
    broker.store("kbs:///a/b/c", b"for the right guest");
    broker
}

fn get(broker: &KeyBroker, root: &Path, output: &Path) -> Vec<std::ffi::OsString> {
    args!["kbs", "get", "kbs:///a/b/c", "--kbs", &broker.url, "--insecure-tee-root", root, "--output", output]
}

#[test]
fn kbs_get_reads_a_resource_after_attestation() {
    for kind in Kind::ALL {
        let keyed = Keyed::start(kind);
        let broker = open_broker(&keyed, &[]);
        for key in ["p256", "p521", "ml-kem768"] {
            let output = keyed.work.join(key);
            let mut arguments = get(&broker, &keyed.guest.root, &output);
            arguments.extend(args!["--kbs-key", key, "--initdata", &keyed.initdata]);
            let report = keyed.run_in(&keyed.guest, &arguments);
            assert_eq!(report["bytes"], 19, "{report}");
            assert_eq!(std::fs::read(&output).unwrap(), b"for the right guest");
        }
        // Nothing else than the resource on standard output.
        let output = keyed.work.join("p256");
        let mut to_stdout = keyed.guest.command(&keyed.programs, &keyed.work.join("tmp"), "innerkeep");
        let arguments = get(&broker, &keyed.guest.root, &output);
        to_stdout.args(&arguments[..arguments.len() - 2]);
        let said = tests::innerkeep::run_to_end(&mut to_stdout);
        assert_eq!((said.status, said.stdout.as_str()), (Some(0), "for the right guest"), "{said:?}");
        // A platform that the broker does not know.
        let foreign = match kind {
            // Only the RSA keys of SNP are those of all such platforms.
            Kind::Tdx => Platform::with_keys_of_vectors(&keyed.programs, &keyed.work, "foreign", kind),
            Kind::Snp => Platform::create(&keyed.programs, &keyed.work, "foreign", kind),
        };
        let guest = foreign.guest(&keyed.work, "f", "", None);
        let output = keyed.work.join("stolen");
        let said = keyed.innerkeep_in(&guest, &get(&broker, &guest.root, &output));
        said.assert_refused(REFUSED, "KBS_REFUSED_ATTESTATION");
        assert!(!output.exists());
    }
}

#[test]
fn evil_initdata_of_another_guest_is_never_sent_to_a_broker() {
    for kind in Kind::ALL {
        let keyed = Keyed::start(kind);
        let broker = open_broker(&keyed, &[]);
        let (output, before) = (keyed.work.join("resource"), broker.log());
        let other = keyed.work.write("other.toml", "algorithm = \"sha384\"\nversion = \"0.1.0\"\n[data]\n");
        let mut arguments = get(&broker, &keyed.guest.root, &output);
        arguments.extend(args!["--initdata", &other]);
        keyed.innerkeep_in(&keyed.guest, &arguments).assert_refused(CHIP_FAULT, "ATTEST_INITDATA_MISMATCH");
        assert_eq!(broker.log(), before, "the broker was asked");
        assert!(!output.exists());
    }
}

#[test]
fn kbs_get_with_sample_evidence_only_where_both_sides_say_so() {
    let keyed = Keyed::start(Kind::Tdx);
    let broker = open_broker(&keyed, &args!["--insecure-allow-sample"]);
    let output = keyed.work.join("resource");
    let base = args!["kbs", "get", "kbs:///a/b/c", "--kbs", &broker.url, "--output", &output];
    keyed.innerkeep.attempt(&base).assert_refused(UNFIT, "ATTEST_NO_TEE");
    let sample = [base, args!["--insecure-sample"]].concat();
    let report = keyed.innerkeep.run(&sample);
    assert_eq!(report["insecure"], json!(["sample-evidence"]), "{report}");
    assert_eq!(std::fs::read(&output).unwrap(), b"for the right guest");
    drop(broker);
    let strict = open_strict(&keyed);
    let output = keyed.work.join("refused");
    let refused =
        args!["kbs", "get", "kbs:///a/b/c", "--kbs", &strict.url, "--output", &output, "--insecure-sample"];
    let said = keyed.innerkeep.attempt(&refused);
    assert_eq!(said.status, Some(REFUSED), "{said:?}");
    assert!(said.code().starts_with("KBS_REFUSED_") && !output.exists(), "{said:?}");
}

/// A broker that gives its resource to every guest, but takes no sample for one.
fn open_strict(keyed: &Keyed) -> KeyBroker {
    let policy = keyed.work.join("open.rego");
    let broker = KeyBroker::start(&keyed.programs, &keyed.work, "strict", &args!["--policy", &policy]);
    broker.store("kbs:///a/b/c", b"for the right guest");
    broker
}

/// The attestation agent in a guest; dropped, it is told to end.
struct Agent {
    process: std::process::Child,
    socket: PathBuf,
}

impl Agent {
    fn start(keyed: &Keyed, guest: &Guest) -> Self {
        let socket = keyed.work.join("agent.sock");
        let mut command = guest.command(&keyed.programs, &keyed.work.join("tmp"), "attestation-agent");
        command.arg("--attestation_sock").arg(format!("unix://{}", socket.display()));
        command.arg("--insecure-tee-root").arg(&guest.root).arg("--initdata-toml").arg(&keyed.initdata);
        let log = keyed.work.join("agent.log");
        command.stdout(std::process::Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let agent = Self { process: command.spawn().unwrap(), socket };
        let start = Instant::now();
        while UnixStream::connect(&agent.socket).is_err() {
            let said = std::fs::read_to_string(&log).unwrap();
            assert!(start.elapsed() < Duration::from_secs(60), "the agent does not listen: {said}");
            std::thread::sleep(Duration::from_millis(5));
        }
        agent
    }

    /// One call over ttrpc, written from the protocol: frame of 10 bytes, then messages in protobuf. Status code and the whole answer.
    fn call(&self, method: &str, payload: &[u8]) -> Vec<u8> {
        let mut request = field(1, b"attestation_agent.AttestationAgentService");
        request.extend(field(2, method.as_bytes()));
        request.extend(field(3, payload));
        let mut frame = u32::try_from(request.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(1_u32.to_be_bytes());
        frame.extend([1, 0]);
        frame.extend(request);
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(&frame).unwrap();
        let mut head = [0; 10];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[8], 2, "a response");
        let [a, b, c, d, ..] = head;
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap()];
        stream.read_exact(&mut answer).unwrap();
        answer
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let process = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

/// A field of protobuf with bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut length = bytes.len();
    let mut field = vec![number << 3 | 2];
    while length >= 0x80 {
        field.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap());
    field.extend(bytes);
    field
}

fn contains(answer: &[u8], text: &str) -> bool {
    answer.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn evil_workload_over_the_agents_socket_attests_its_own_kbs_key() {
    for kind in Kind::ALL {
        let keyed = Keyed::start(kind);
        let agent = Agent::start(&keyed, &keyed.guest);
        assert!(contains(&agent.call("GetTeeType", &[]), kind.name()), "the agent serves");
        // The report data of a handshake with a broker, for a key of the workload's own.
        let report_data = [[0x5a; 48].as_slice(), &[0; 16]].concat();
        let answer = agent.call("GetEvidence", &field(1, &report_data));
        let shown = String::from_utf8_lossy(&answer).into_owned();
        assert!(contains(&answer, "ATTEST_PEER_DENIED"), "{shown}");
        assert!(!contains(&answer, "quote") && !contains(&answer, "attestation_report"), "{shown}");
        assert!(!answer.windows(8).any(|window| window == [0x5a; 8]), "{shown}");
    }
}
