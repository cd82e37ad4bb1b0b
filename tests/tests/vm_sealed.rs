//! Sealed artifacts in a confidential guest whose process 1 is `innerkeep-agent`: landed by a chip behind the guest's VFIO as bound initdata says,
//! shown to the container whose root the guest verified and to nobody else; what becomes of stored artifacts that the host swapped, damaged,
//! rolled back or withholds; and the audit of all that, carried by the host and verified outside.

#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use initdata::{Algorithm, Package, Packed, ProcessIdentity};
use protocol::agent::{CreateContainerRequest, GetMetricsRequest, SetPolicyRequest, Storage};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::agent_client::requests::{create, exec, read, remove, rootfs, sandbox, start};
use tests::agent_client::storages::layer;
use tests::agent_client::{ALLOW_ALL, AgentClient, PORT, Refused};
use tests::disk_images::{Verity, erofs};
use tests::innerkeep::{Said, run_to_end};
use tests::payload::Payload;
use tests::scene::{Artifact, Scene, SealSpec};
use tests::swtpm::MachineTpm;
use tests::tee::{Guest as Launched, Kind, Platform};
use tests::vm::{self, boot, shell};
use tests::{DAMAGED, REFUSED, args};
use xtask::vm::{Guest, Init, Service, Spec, Tools, VerityRoot};

const AGENT: &str = "innerkeep-agent";
/// Where the host puts stored artifacts: in what it shares with the guest.
const CACHE: &str = "/run/kata-containers/shared/containers/innerkeep-artifacts";
/// The agent tries again after pauses that double, up to this many times.
const ATTEMPTS: usize = 12;
const SOON: Duration = Duration::from_secs(90);
/// A policy that says by an annotation which container it is. As good as the host's word, which is what invariant 8 is held against.
const BY_ANNOTATION: &str = "\
CreateContainerRequest := {\"allowed\": true, \"ops\": [{\"op\": \"add\", \"path\": concat(\"/\", [\"\", \"pstate\", input.container_id]), \
\"value\": to_number(input.OCI.Annotations[\"test/index\"])}]} if { input.OCI.Annotations[\"test/index\"] }

default AuditHeadRequest := true

default AuditReadRequest := true
";
/// Container 0 looks at its artifact and stays.
const LOOK: &str = "sha256sum /models/good/good.bin; echo x 2>/dev/null >/models/good/good.bin && echo WRITTEN; \
                    ls /models/signed | wc -l; while :; do sleep 0.1; done";
/// A process that is known by its digest.
const KNOWN: [&str; 3] = ["sh", "-c", "sha256sum /models/signed/other.bin; while :; do sleep 0.1; done"];

/// Roots that the guest can verify.
struct Roots {
    /// On `/dev/vdb`: the one that artifacts are for.
    named: VerityRoot,
    /// On `/dev/vdc`: as good, and nobody's.
    other: VerityRoot,
    /// On `/dev/vdd` and `/dev/vde`: layers that are one root together, the topmost first.
    layers: [(PathBuf, Verity); 2],
}

impl Roots {
    fn create(scene: &Scene) -> Self {
        let tools = Tools::obtain(&|text| eprintln!("{text}")).unwrap();
        let root = |name: &str, salt: &[u8]| {
            let directories = ["/models/good", "/models/signed", "/models/withheld", "/data"];
            VerityRoot::create(&tools, &scene.work.join(name), &directories, salt).unwrap()
        };
        let (top, low) = (scene.work.directory("top"), scene.work.directory("low"));
        VerityRoot::populate(&tools, &low, &["/models/layered"]).unwrap();
        std::fs::write(low.join("place"), "below\n").unwrap();
        std::fs::write(top.join("place"), "above\n").unwrap();
        // The tree of a single block has no level of hashes.
        std::fs::write(top.join("ballast"), [7; 16_384]).unwrap();
        let layers = [("top", top), ("low", low)].map(|(name, from)| {
            let image = erofs(&scene.work, &format!("{name}-layer"), &from);
            let tree = Verity::append(&image, b"layers");
            (image, tree)
        });
        Self { named: root("named.img", b"one"), other: root("other.img", b"two"), layers }
    }

    /// As `sealed.toml` names the layers.
    fn layers_toml(&self) -> String {
        let [top, low] = self.layers.each_ref().map(|(_, tree)| tree.toml());
        format!("layers = [{top}, {low}]")
    }
}

/// An artifact in `sealed.toml`.
struct Named<'a> {
    name: &'a str,
    origin: String,
    container: String,
}

fn sealed_toml(scene: &Scene, artifacts: &[Named<'_>]) -> String {
    let root = std::fs::read_to_string(&scene.root).unwrap();
    let mut text = format!("environment = \"development\"\nchip_root = \"\"\"{root}\"\"\"\n");
    for Named { name, origin, container } in artifacts {
        text.push_str(&format!(
            "\n[[artifact]]\nname = \"{name}\"\nreference = \"registry.example/acme/{name}:latest\"\n{origin}\npath = \"/models/{name}\"\n\
             container = {{ {container} }}\n"
        ));
    }
    text
}

fn core(artifact: &Artifact) -> String {
    format!("core = \"{}\"", artifact.core)
}

/// What the guest is launched with, and what the operator keeps.
struct Bound {
    packed: Packed,
    /// The text, a file.
    text: PathBuf,
    /// A policy that may replace the first one.
    listed: String,
    operator: PathBuf,
}

fn bound(scene: &Scene, sealed: &str) -> Bound {
    let mut package = Package::new(Algorithm::Sha384);
    let policy = ALLOW_ALL.replace("default CreateContainerRequest := true\n", BY_ANNOTATION);
    let policy = policy.replace("default ExecProcessRequest := true", "default ExecProcessRequest := false");
    let listed = format!("{policy}\n# another policy, by the same rules\n");
    let digest = hex::encode(Sha256::digest(&listed));
    let operator = scene.work.join("operator.key");
    scene.innerkeep.run(&args!["key", "audit", "--output", &operator]);
    let audit = std::fs::read_to_string(operator.with_extension("key.toml")).unwrap();
    package.insert("policy.rego", &policy).unwrap();
    package.insert("sealed.toml", sealed).unwrap();
    package.insert("audit.toml", &audit).unwrap();
    let settings = format!(
        "insecure = [\"emulated-chip\", \"emulated-dma\", \"no-evidence\"]\nset_policy = [\"sha256:{digest}\"]\n"
    );
    package.insert("innerkeep.toml", &settings).unwrap();
    let packed = package.pack().unwrap();
    let text = scene.work.write("initdata.toml", packed.text());
    Bound { packed, text, listed, operator }
}

/// A confidential guest that was launched with this initdata, with a chip; its platform makes no evidence at first.
fn confidential(scene: &Scene, bound: &Bound, roots: &Roots) -> Spec {
    let digest = Kind::Tdx.initdata_digest(bound.packed.text().as_bytes());
    let argv = ["/bin/innerkeep-tee-emulator", "guest", "--state", "/tee", "--launch", "/launch.toml"];
    let argv = argv.iter().chain(&["--ready-file", "/ready", "--fault-plan", "/faults.toml"]);
    let service = Service { argv: argv.map(|word| (*word).to_owned()).collect(), ready: "/ready".to_owned() };
    vm::spec(&scene.programs, &[AGENT, "innerkeep", "innerkeep-tee-emulator"])
        .init(Init::Agent)
        .vsock()
        .memory_mib(1536)
        .modules(&["configfs", "tsm_report", "cuse", "dm_verity", "erofs", "overlay"])
        .copy_directory(&scene.work.join("tee"), "/tee")
        .unwrap()
        .file("/launch.toml", 0o644, format!("tee = \"tdx\"\ninitdata_digest = \"{digest}\"\n"))
        .file("/faults.toml", 0o644, "[[fault]]\nkind = \"empty-quote\"\ntimes = 0\n")
        .plan(|plan| plan.services.push(service))
        .disk(&scene.work.write("initdata.img", bound.packed.image()))
        .disk(&roots.named.image)
        .disk(&roots.other.image)
        .disk(&roots.layers[0].0)
        .disk(&roots.layers[1].0)
        .chip(&scene.chip.socket, Some(scene.chip.id()))
}

/// Lines of the agent about one artifact.
fn lines(guest: &Guest, name: &str) -> Vec<Value> {
    let serial = guest.serial();
    let lines = serial.lines().filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
    lines.filter(|line| line["subsystem"] == "sealed" && line["artifact"] == name).collect()
}

/// The first line about an artifact that is as asked for.
#[track_caller]
fn wait(guest: &Guest, name: &str, member: &str, value: &str) -> Value {
    let begun = Instant::now();
    loop {
        if let Some(line) = lines(guest, name).into_iter().find(|line| line[member] == value) {
            return line;
        }
        assert!(begun.elapsed() < SOON, "no {member} {value:?} about {name} in:\n{}", guest.serial());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Puts an artifact where the guest looks for it, as the host would.
fn offer(guest: &Guest, from: &str, name: &str) {
    let to = format!("{CACHE}/registry.example/acme");
    shell(guest, &format!("mkdir -p {to} && cp -r /stores/{from} {to}/{name}"));
}

fn flip_a_bit(store: &Path, size: u64) {
    let blobs = std::fs::read_dir(store.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let payload = blobs.into_iter().find(|path| path.metadata().unwrap().len() == size).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(payload).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, size / 2).unwrap();
    file.write_all_at(&[byte[0] ^ 1], size / 2).unwrap();
}

fn sealer_digest(scene: &Scene) -> String {
    let mut public = scene.sealer.clone().into_os_string();
    public.push(".pub");
    let shown = scene.innerkeep.run(&args!["key", "show", &public]);
    shown["digest"].as_str().unwrap_or_else(|| panic!("no digest in {shown}")).to_owned()
}

/// A container that says of itself which one it is, on a disk that is verified, or on a root of the host.
fn container(
    id: &str,
    index: &str,
    args: &[&str],
    disk: Option<(&str, &VerityRoot)>,
) -> CreateContainerRequest {
    let root = format!("/run/kata-containers/{id}/rootfs");
    let mut request = create(id, &root, args);
    if let Some((node, root_of)) = disk {
        request.storages.push(Storage {
            driver: "blk".to_owned(),
            source: node.to_owned(),
            fstype: "ext4".to_owned(),
            options: root_of.options(),
            mount_point: root,
            ..Storage::default()
        });
    }
    let spec = request.OCI.as_mut().unwrap();
    spec.Annotations = [("test/index", index), ("io.kubernetes.cri.container-name", "good")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    request
}

/// What is mounted below `/models` in a container, by its first process.
fn models(guest: &Guest, id: &str) -> String {
    let group = format!("/sys/fs/cgroup/kubepods/besteffort/pod1/{id}/cgroup.procs");
    shell(guest, &format!("grep ' /models/' /proc/$(head -n1 {group})/mountinfo || true"))
}

#[track_caller]
fn ok<T>(guest: &Guest, answer: Result<T, Refused>) -> T {
    answer.unwrap_or_else(|refused| panic!("{refused}\n{}", guest.serial()))
}

#[track_caller]
fn refused<T>(guest: &Guest, answer: Result<T, Refused>, code: &str, text: &str) {
    match answer {
        Ok(_) => panic!("not refused: {text}\n{}", guest.serial()),
        Err(found) => assert!(found.code == code && found.says(text), "{found}, expected {code} {text}"),
    }
}

/// Reads standard output up to so many lines.
#[track_caller]
fn said(client: &AgentClient, id: &str, count: usize) -> Vec<String> {
    let mut all = String::new();
    while all.matches('\n').count() < count {
        let data = client.read_stdout(&read(id, "", 4096)).unwrap_or_else(|refused| panic!("{refused}")).data;
        assert!(!data.is_empty(), "the end of the stream after {all:?}");
        all.push_str(&String::from_utf8_lossy(&data));
    }
    all.lines().map(str::to_owned).collect()
}

/// How far an artifact is, by GetMetrics.
fn stage_of_artifact(client: &AgentClient, name: &str) -> String {
    let metrics =
        client.get_metrics(&GetMetricsRequest::default()).unwrap_or_else(|refused| panic!("{refused}"));
    let start = format!("innerkeep_sealed_artifact_stage{{artifact=\"{name}\",");
    let line = metrics.metrics.lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no stage of {name} in {}", metrics.metrics))
}

/// The pod: its guest, its host, its operator.
struct Stage {
    scene: Scene,
    roots: Roots,
    bound: Bound,
    platform: Platform,
    /// The same launch outside of any machine: the reference that the operator's policy is made from.
    reference: Launched,
    guest: Guest,
    good: Payload,
    signed: Payload,
    artifacts: Vec<Artifact>,
    _tpm: MachineTpm,
}

impl Stage {
    fn boot() -> Self {
        let scene = Scene::start();
        let platform = Platform::with_keys_of_vectors(&scene.programs, &scene.work, "tee", Kind::Tdx);
        let roots = Roots::create(&scene);
        let (spec, payloads) =
            (SealSpec::default(), [501, 502, 503].map(|seed| Payload::random(seed, 300_000)));
        let sealed = |name: &str, payload: &Payload| scene.sealed(name, payload, &spec);
        let (good, other) = (sealed("good", &payloads[0]), sealed("other", &payloads[1]));
        let damaged = sealed("damaged", &payloads[2]);
        flip_a_bit(&damaged.reference, 300_000);
        let input = scene.input("foreign.bin", &Payload::random(504, 300_000));
        let staging = SealSpec { environment: "staging".into(), ..spec };
        let foreign = scene.seal("foreign", &[&input], &staging);
        let input = scene.input("sealed-to-tpm.bin", &Payload::random(505, 300_000));
        let by_tpm = scene.seal("by-tpm", &[&input], &SealSpec::default());
        let key = sealer_digest(&scene);
        let sealer = |counter: u64| {
            format!("sealer = {{ key = \"{key}\", family = \"acme/ranker\", min_counter = {counter} }}")
        };
        let known = ProcessIdentity {
            args: &KNOWN.map(str::as_bytes),
            env_names: &[b"PATH"],
            cwd: b"/",
            uid: 0,
            gid: 0,
            additional_gids: &[],
        };
        let on = |process: &str| format!("{}, {process}", roots.named.toml());
        let first = on("policy_container = 0");
        let by_process = on(&format!("process = \"{}\"", known.digest()));
        let named = |name, origin, container: &str| Named { name, origin, container: container.to_owned() };
        let artifacts = [
            named("good", core(&good), &first),
            named("signed", sealer(7), &by_process),
            named("stale", sealer(8), &on("policy_container = 9")),
            named("swapped", core(&good), &on("policy_container = 9")),
            named("damaged", core(&damaged), &on("policy_container = 9")),
            named("foreign", core(&foreign), &on("policy_container = 9")),
            named("withheld", core(&good), &on("policy_container = 3")),
            named("layered", core(&good), &format!("{}, policy_container = 4", roots.layers_toml())),
            named("by-tpm", core(&by_tpm), &on("policy_container = 9")),
        ];
        let bound = bound(&scene, &sealed_toml(&scene, &artifacts));
        let tpm = MachineTpm::start(&scene.work, "tpm");
        let mut machine = confidential(&scene, &bound, &roots)
            .tpm(tpm.control(), tpm.process())
            .copy(&by_tpm.key, "/tpm.key", 0o600)
            .copy(&scene.policy("tpm.policy", "development", "any", 5), "/tpm.policy", 0o644);
        for (artifact, to) in [
            (&good, "good"),
            (&other, "other"),
            (&damaged, "damaged"),
            (&foreign, "foreign"),
            (&by_tpm, "by-tpm"),
        ] {
            machine = machine.copy_directory(&artifact.reference, &format!("/stores/{to}")).unwrap();
        }
        let digest = Kind::Tdx.initdata_digest(bound.packed.text().as_bytes());
        let launch = format!("initdata_digest = \"{digest}\"\n");
        let reference = platform.guest(&scene.work, "reference", &launch, None);
        let guest = boot(machine.keep_serial(&scene.work.join("serial.log")));
        guest.wait_serial("\"msg\":\"serving\"", Duration::from_secs(60)).unwrap();
        let [good_payload, signed, _] = payloads;
        let artifacts = vec![good, other, by_tpm];
        Self {
            scene,
            roots,
            bound,
            platform,
            reference,
            guest,
            good: good_payload,
            signed,
            artifacts,
            _tpm: tpm,
        }
    }

    /// The platform makes evidence from now on.
    fn heal(&self) {
        let line = "echo > /faults.toml; for p in /proc/[0-9]*; do \
                    [ \"$(readlink $p/exe)\" = /bin/innerkeep-tee-emulator ] && kill -HUP ${p#/proc/}; done; true";
        shell(&self.guest, line);
    }

    /// A policy from evidence of the reference, a file.
    fn policy(&self) -> PathBuf {
        let Scene { work, programs, innerkeep, .. } = &self.scene;
        let evidence = work.join("evidence");
        let mut command = self.reference.command(programs, &work.join("tmp"), "innerkeep");
        command.args(args!["--json", "attest", "--nonce", "00".repeat(32), "--presentation", &evidence]);
        let said = run_to_end(command.args(self.reference.flags()));
        assert_eq!(said.status, Some(0), "{said:?}");
        let roots = self.platform.trust_roots();
        let report = innerkeep.run(&args![
            "policy",
            "from-evidence",
            "--evidence",
            &evidence,
            "--insecure-trust-roots",
            &roots,
            "--environment",
            "development",
            "--family",
            "acme/ranker"
        ]);
        work.write("policy.toml", report["toml"].as_str().unwrap())
    }

    fn source(&self) -> String {
        format!("hvsock://{}:{PORT}", self.guest.vsock_path().display())
    }

    /// `audit verify`, by whoever has the operator's key.
    fn verify(&self, source: &str, nonce: &str, policy: &Path) -> Said {
        self.scene.innerkeep.attempt(&args![
            "audit",
            "verify",
            source,
            "--nonce",
            nonce,
            "--key",
            &self.bound.operator,
            "--initdata",
            &self.bound.text,
            "--policy",
            policy,
            "--collateral",
            &self.reference.collateral,
            "--insecure-trust-roots",
            self.platform.trust_roots()
        ])
    }
}

/// One guest, from its start to the operator's verdict.
// COMPAT: StartContainer stricter: a container that sealed artifacts are for starts when they are there, and not for an impostor
#[test]
fn sealed_artifacts_and_the_audit_of_a_guest() {
    let stage = Stage::boot();
    let Stage { scene, guest, .. } = &stage;
    let client = AgentClient::connect(guest);
    let policy = stage.policy();
    evil_host_artifact_before_the_audit_is_attested(&stage, &client, &policy);
    evil_host_artifacts_swapped_stale_damaged_withheld(&stage);
    a_tpm_opens_what_no_chip_has_a_grant_for(&stage);
    the_container_that_is_named_reads_its_artifact(&stage, &client);
    evil_host_impersonates_container(&stage, &client);
    evil_host_layers_of_a_named_root(&stage, &client);
    evil_host_policy_of_other_indices(&stage, &client);
    evil_host_forges_audit(&stage, &client, &policy);
    // Containers are gone, and their mounts with them.
    assert_eq!(shell(guest, "grep -l ' /models/' /proc/[0-9]*/mountinfo || true"), "");
    for artifact in &stage.artifacts {
        scene.assert_no_plaintext(artifact);
    }
}

/// Heads say that there is no evidence, verification fails, and nothing is landed for anybody.
fn evil_host_artifact_before_the_audit_is_attested(stage: &Stage, client: &AgentClient, policy: &Path) {
    let Stage { guest, roots, .. } = stage;
    wait(guest, "good", "code", "SEALED_NOT_ATTESTED");
    stage.verify(&stage.source(), &"01".repeat(16), policy).assert_refused(REFUSED, "AUDIT_UNATTESTED");
    ok(guest, client.create_sandbox(&sandbox("pod1")));
    offer(guest, "good", "good");
    let request = container("server", "0", &["sh", "-c", LOOK], Some(("/dev/vdb", &roots.named)));
    ok(guest, client.create_container(&request));
    // It waits, as long as its caller does.
    let hurried = AgentClient::connect(guest).limit(Duration::from_secs(2));
    assert!(hurried.start_container(&start("server")).is_err());
    assert_eq!(stage_of_artifact(client, "good"), "stage=\"waiting\",code=\"SEALED_NOT_ATTESTED\"} 1");
    assert!(lines(guest, "good").iter().all(|line| line["msg"] != "artifact landed"));
    assert_eq!(models(guest, "server"), "");
    stage.heal();
    guest.wait_serial("\"msg\":\"attested\"", SOON).unwrap();
    let verified = stage.verify(&stage.source(), &"02".repeat(16), policy);
    assert_eq!(verified.status, Some(0), "{verified:?}");
}

fn evil_host_artifacts_swapped_stale_damaged_withheld(stage: &Stage) {
    let guest = &stage.guest;
    // Those that nobody offers yet are known to be missing.
    wait(guest, "signed", "code", "SEALED_NOT_IN_CACHE");
    for (from, name) in [
        ("other", "signed"),
        ("other", "stale"),
        ("other", "swapped"),
        ("damaged", "damaged"),
        ("foreign", "foreign"),
    ] {
        offer(guest, from, name);
    }
    for name in ["good", "signed"] {
        let landed = wait(guest, name, "msg", "artifact landed");
        assert!(landed["insecure"].as_str().unwrap().contains("no-evidence"), "said aloud: {landed}");
        let quarters = lines(guest, name).iter().filter(|line| line["msg"] == "artifact landing").count();
        assert!(quarters > 0, "no progress in {:#?}", lines(guest, name));
    }
    for (name, code) in [
        ("stale", "ROLLBACK"),
        ("swapped", "ORIGIN_UNPROVEN"),
        ("damaged", "CHIP_SEGMENT_AUTH"),
        ("foreign", "SEALED_ENVIRONMENT"),
        ("withheld", "SEALED_NOT_IN_CACHE"),
    ] {
        wait(guest, name, "code", code);
        assert!(lines(guest, name).iter().all(|line| line["msg"] != "artifact landed"), "{name}");
        assert!(lines(guest, name).len() <= 3 * ATTEMPTS, "{name} is tried for ever");
    }
}

/// The TPM is a second factor beside the TEE: its owner grants, with the machine as it is.
fn a_tpm_opens_what_no_chip_has_a_grant_for(stage: &Stage) {
    let guest = &stage.guest;
    let grant =
        "innerkeep grant add /stores/by-tpm --key /tpm.key --to tpm --policy /tpm.policy --allow-weak-policy";
    shell(guest, grant);
    offer(guest, "by-tpm", "by-tpm");
    let landed = wait(guest, "by-tpm", "msg", "artifact landed");
    assert!(!landed["insecure"].as_str().unwrap().contains("tpm-only"), "{landed}");
}

fn the_container_that_is_named_reads_its_artifact(stage: &Stage, client: &AgentClient) {
    let Stage { guest, roots, good, .. } = stage;
    assert_eq!(stage_of_artifact(client, "good"), "stage=\"ready\",code=\"\"} 1");
    // The same container that waited in vain.
    ok(guest, client.start_container(&start("server")));
    // Before it was used, and once: there were other containers on it.
    let event = format!("innerkeep MountRoot {{\"layers\":[{{\"data_blocks\":{}", roots.named.data_blocks);
    let log = shell(guest, "cat /run/attestation-agent/eventlog");
    assert_eq!(log.matches(&event).count(), 1, "{event}: {log:?}");
    let seen = said(client, "server", 2);
    assert_eq!(seen, [format!("{}  /models/good/good.bin", good.sha256()), "0".to_owned()]);
    let mount = models(guest, "server");
    assert!(mount.lines().count() == 1 && mount.contains(" /models/good ro,nosuid,nodev,noexec"), "{mount}");
    // In its namespace of mounts alone.
    let line = "for m in $(grep -l ' /models/good ' /proc/[0-9]*/mountinfo); do readlink ${m%mountinfo}ns/mnt; done | sort -u";
    let spaces = shell(guest, line);
    assert_eq!(spaces.lines().count(), 1, "{spaces}");
    assert_ne!(spaces, shell(guest, "readlink /proc/1/ns/mnt"));
    refused(
        guest,
        client.exec_process(&exec("server", "e", &["cat"])),
        "PERMISSION_DENIED",
        "ExecProcessRequest",
    );
    // Its disk is its own.
    let second = container("second", "5", &["true"], Some(("/dev/vdb", &roots.named)));
    refused(guest, client.create_container(&second), "INTERNAL", "STORAGE_DEVICE_TAKEN");
    ok(guest, client.remove_container(&remove("server")));

    // Named by the digest of its process, as long as it has no files of the host.
    let known = |storages: bool| {
        let mut request = container("known", "5", &KNOWN, Some(("/dev/vdb", &roots.named)));
        if storages {
            let mount = protocol::oci::Mount {
                destination: "/data".to_owned(),
                source: "/run/kata-containers/shared/containers/data".to_owned(),
                type_: "bind".to_owned(),
                options: ["bind", "ro"].map(str::to_owned).into(),
                ..Default::default()
            };
            request.OCI.as_mut().unwrap().Mounts.push(mount);
        }
        request
    };
    shell(guest, "mkdir -p /run/kata-containers/shared/containers/data");
    ok(guest, client.create_container(&known(true)));
    refused(guest, client.start_container(&start("known")), "FAILED_PRECONDITION", "SEALED_HOST_FILES");
    assert_eq!(models(guest, "known"), "");
    ok(guest, client.remove_container(&remove("known")));
    ok(guest, client.create_container(&known(false)));
    ok(guest, client.start_container(&start("known")));
    assert_eq!(said(client, "known", 1), [format!("{}  /models/signed/other.bin", stage.signed.sha256())]);
    ok(guest, client.remove_container(&remove("known")));

    // The one whose artifact the host withholds is not started.
    let request = container("starved", "3", &["sh", "-c", "sleep 600"], Some(("/dev/vdb", &roots.named)));
    ok(guest, client.create_container(&request));
    let hurried = AgentClient::connect(guest).limit(Duration::from_secs(2));
    assert!(hurried.start_container(&start("starved")).is_err());
    assert_eq!(stage_of_artifact(client, "withheld"), "stage=\"waiting\",code=\"SEALED_NOT_IN_CACHE\"} 1");
    ok(guest, client.remove_container(&remove("starved")));
}

fn evil_host_impersonates_container(stage: &Stage, client: &AgentClient) {
    let Stage { guest, roots, .. } = stage;
    let look = ["sh", "-c", LOOK];
    // The right id, name, annotation, program and index: on a root of the host, and on a verified one of somebody else.
    let host = rootfs(guest, "server");
    shell(guest, &format!("mkdir -p {host}/models/good {host}/models/signed"));
    let mut on_host = container("server", "0", &look, None);
    on_host.OCI.as_mut().unwrap().Root.as_mut().unwrap().Path = host;
    let on_other = container("server", "0", &look, Some(("/dev/vdc", &roots.other)));
    for (request, found) in [(on_host, "one that the host provides"), (on_other, "another verified one")] {
        ok(guest, client.create_container(&request));
        let answer = client.start_container(&start("server"));
        refused(guest, answer, "FAILED_PRECONDITION", "SEALED_IMPOSTOR");
        refused(guest, client.start_container(&start("server")), "FAILED_PRECONDITION", found);
        assert_eq!(models(guest, "server"), "");
        ok(guest, client.remove_container(&remove("server")));
    }
    // The disk of the right one under another hash, and of another one under its hash: never data.
    let mut wrong = roots.named.clone();
    wrong.root_hash = roots.other.root_hash.clone();
    for disk in [("/dev/vdb", &wrong), ("/dev/vdc", &roots.named)] {
        let request = container("server", "0", &look, Some(disk));
        refused(guest, client.create_container(&request), "INTERNAL", "STORAGE_");
        shell(guest, "test ! -e /run/kata-containers/server");
    }
    // One that policy takes for another container gets nothing, and is told nothing.
    let request = container("stranger", "5", &look, Some(("/dev/vdb", &roots.named)));
    ok(guest, client.create_container(&request));
    ok(guest, client.start_container(&start("stranger")));
    assert_eq!(said(client, "stranger", 1), ["0"]);
    assert_eq!(models(guest, "stranger"), "");
    ok(guest, client.remove_container(&remove("stranger")));
}

/// The root of several layers that is named, and what else can be made of the same layers.
fn evil_host_layers_of_a_named_root(stage: &Stage, client: &AgentClient) {
    let Stage { guest, roots, good, .. } = stage;
    offer(guest, "good", "layered");
    wait(guest, "layered", "msg", "artifact landed");
    let [top, low] = ["/dev/vdd", "/dev/vde"];
    let of = |disk: &str, number: usize| layer("layered", disk, &roots.layers[number].1.options());
    let on = |layers: Vec<Storage>| {
        let look = "sha256sum /models/layered/good.bin; cat /place; while :; do sleep 0.1; done";
        let mut request = container("layered", "4", &["sh", "-c", look], None);
        request.storages = layers;
        request
    };
    ok(guest, client.create_container(&on(vec![of(top, 0), of(low, 1)])));
    ok(guest, client.start_container(&start("layered")));
    let seen = said(client, "layered", 2);
    assert_eq!(seen, [format!("{}  /models/layered/good.bin", good.sha256()), "above".to_owned()]);
    ok(guest, client.remove_container(&remove("layered")));
    // Every layer verifies, and it is another root.
    for layers in [vec![of(low, 1), of(top, 0)], vec![of(low, 1)]] {
        ok(guest, client.create_container(&on(layers)));
        refused(guest, client.start_container(&start("layered")), "FAILED_PRECONDITION", "SEALED_IMPOSTOR");
        assert_eq!(models(guest, "layered"), "");
        ok(guest, client.remove_container(&remove("layered")));
    }
    // In a confidential guest nothing is mounted that nobody verifies.
    let bare = layer("layered", low, &["ro".to_owned()]);
    refused(guest, client.create_container(&on(vec![of(top, 0), bare])), "INTERNAL", "STORAGE_VERITY");
    let swapped = on(vec![of(low, 0), of(top, 1)]);
    refused(guest, client.create_container(&swapped), "INTERNAL", "STORAGE_");
    shell(guest, "test ! -e /run/kata-containers/layered");
}

/// A listed policy takes the first one's place: its container 0 is not the one that was meant.
fn evil_host_policy_of_other_indices(stage: &Stage, client: &AgentClient) {
    let Stage { guest, roots, bound, .. } = stage;
    let set =
        |text: &str| client.set_policy(&SetPolicyRequest { policy: text.to_owned(), ..Default::default() });
    refused(guest, set("package agent_policy\n"), "FAILED_PRECONDITION", "POLICY_NOT_LISTED");
    let request = container("server", "0", &["sh", "-c", LOOK], Some(("/dev/vdb", &roots.named)));
    // Made under the first policy, started under the other: its index is gone with the first one's state.
    ok(guest, client.create_container(&request));
    ok(guest, set(&bound.listed));
    ok(guest, client.start_container(&start("server")));
    assert_eq!(said(client, "server", 1), ["0"]);
    assert_eq!(models(guest, "server"), "");
    ok(guest, client.remove_container(&remove("server")));
    ok(guest, client.create_container(&request));
    refused(guest, client.start_container(&start("server")), "FAILED_PRECONDITION", "SEALED_OTHER_POLICY");
    assert_eq!(models(guest, "server"), "");
    ok(guest, client.remove_container(&remove("server")));
    // A process is the same one under any policy.
    let request = container("known", "0", &KNOWN, Some(("/dev/vdc", &roots.other)));
    ok(guest, client.create_container(&request));
    ok(guest, client.start_container(&start("known")));
    assert_eq!(models(guest, "known"), "", "another root");
    ok(guest, client.remove_container(&remove("known")));
    let request = container("known", "5", &KNOWN, Some(("/dev/vdb", &roots.named)));
    ok(guest, client.create_container(&request));
    ok(guest, client.start_container(&start("known")));
    assert_eq!(said(client, "known", 1), [format!("{}  /models/signed/other.bin", stage.signed.sha256())]);
    ok(guest, client.remove_container(&remove("known")));
}

/// Frames of a file of records, each with its length.
fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut frames) = (&bytes[8..], Vec::new());
    while let Some((length, _)) = rest.split_first_chunk::<4>() {
        let (frame, behind) = rest.split_at(4 + u32::from_be_bytes(*length) as usize);
        frames.push(frame.to_vec());
        rest = behind;
    }
    frames
}

/// The host carries the records, and changes them on the way.
fn evil_host_forges_audit(stage: &Stage, client: &AgentClient, policy: &Path) {
    let Stage { scene, guest, bound, .. } = stage;
    refused(
        guest,
        client.exec_process(&exec("server", "e", &["cat"])),
        "PERMISSION_DENIED",
        "ExecProcessRequest",
    );
    let (records, nonce) = (scene.work.join("records"), "6f".repeat(24));
    let follow = args!["audit", "follow", stage.source(), "--once", "--nonce", &nonce, "--output", &records];
    let carried = scene.innerkeep.attempt(&follow);
    assert_eq!(carried.status, Some(0), "{carried:?}");
    assert!(!carried.stdout.contains("ExecProcess"), "the host reads what was denied: {}", carried.stdout);
    let verify = |file: &Path, nonce: &str| stage.verify(&file.to_string_lossy(), nonce, policy);
    let verified = verify(&records, &nonce);
    assert_eq!(verified.status, Some(0), "{verified:?}");
    let report: Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!((&report["attested"], &report["records"]), (&"tdx".into(), &true.into()), "{report}");
    assert!(report["insecure"].to_string().contains("no-evidence"), "{report}");
    let explained = scene.innerkeep.run(&args!["audit", "explain", &records, "--key", &bound.operator]);
    let denials = explained["denials"].as_array().unwrap();
    let exec_denied =
        denials.iter().find(|denial| denial["endpoint"] == "/grpc.AgentService/ExecProcess").unwrap();
    assert_eq!(exec_denied["code"], "POLICY_DENIED", "{explained}");

    let bytes = std::fs::read(&records).unwrap();
    let good = frames(&bytes);
    let is = |form: u8| good.iter().enumerate().filter(move |(_, frame)| frame[4] == form).map(|(at, _)| at);
    let sealed: Vec<usize> = is(2).collect();
    let (first, second, last) = (sealed[0], sealed[1], sealed[sealed.len() - 1]);
    let changed = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut frames = good.clone();
        change(&mut frames);
        scene.work.write("forged.records", [bytes[..8].to_vec(), frames.concat()].concat())
    };
    let edited = changed(&|frames| *frames[first].last_mut().unwrap() ^= 1);
    verify(&edited, &nonce).assert_refused(DAMAGED, "AUDIT_EDITED");
    let reordered = changed(&|frames| frames.swap(first, second));
    verify(&reordered, &nonce).assert_refused(DAMAGED, "AUDIT_REORDERED");
    let taken_out = changed(&|frames| drop(frames.remove(first)));
    verify(&taken_out, &nonce).assert_refused(DAMAGED, "AUDIT_MISSING");
    // All that a head covers has to be there.
    let cut = changed(&|frames| {
        let mut at = 0;
        frames.retain(|frame| {
            at += 1;
            at <= last || !matches!(frame[4], 1..=3)
        });
    });
    let answer = verify(&cut, &nonce);
    assert!(["AUDIT_TAIL_CUT", "AUDIT_MISSING"].contains(&answer.code().as_str()), "{answer:?}");
    let unattested = changed(&|frames| frames.retain(|frame| frame[4] != 4));
    verify(&unattested, &nonce).assert_refused(REFUSED, "AUDIT_UNATTESTED");
    // Records of yesterday.
    verify(&records, &"70".repeat(24)).assert_refused(REFUSED, "AUDIT_REPLAYED");
}
