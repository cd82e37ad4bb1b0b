//! Images that a confidential guest pulls itself: the guest's process 1 is `innerkeep-agent`; registry (Debian's `docker-registry`) and key broker
//! are the host's, by its network. Bound initdata names an image policy, a sealed model and a sealed secret; the container on the signed image
//! gets both. What the host and the registry try instead is refused, and nothing of it is mounted or started.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "vm_pull/asks.rs"]
mod asks;
#[expect(dead_code, reason = "the registry and the signer of it, not its puller")]
#[path = "cdh_pull/fixture.rs"]
mod fixture;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use fixture::{Key, Server, cosigned, run};
use initdata::{Algorithm, Package, Packed};
use protocol::agent::{CreateContainerRequest, Routes, Storage, UpdateInterfaceRequest, UpdateRoutesRequest};
use protocol::types::{IPAddress, Interface, Route};
use serde_json::{Value, json};
use tests::agent_client::requests::{create, read, remove, sandbox, start};
use tests::agent_client::{ALLOW_ALL, AgentClient, Refused};
use tests::args;
use tests::broker::KeyBroker;
use tests::keyed::{BROKER, Keyed};
use tests::payload::Payload;
use tests::programs::is_root;
use tests::scene::{Artifact, ENVIRONMENT};
use tests::tee::Kind;
use tests::vm::{self, boot, shell};
use tests::work::Work;
use xtask::vm::{Guest, Init, Service, Spec, Tools, VerityRoot};

const AGENT: &str = "innerkeep-agent";
/// The host, as QEMU's network shows it.
const HOST: &str = "10.0.2.2";
const HARDWARE: &str = "52:54:00:00:00:07";
const SECRET: &[u8] = b"hunter2-and-more";
const VECTORS: &str = include_str!("../vectors/cdh/vectors.json");
/// A policy that says by an annotation which container it is: as good as the host's word, which is what invariant 8 is held against.
const BY_ANNOTATION: &str = "\
CreateContainerRequest := {\"allowed\": true, \"ops\": [{\"op\": \"add\", \"path\": concat(\"/\", [\"\", \"pstate\", input.container_id]), \
\"value\": to_number(input.OCI.Annotations[\"test/index\"])}]} if { input.OCI.Annotations[\"test/index\"] }
";
/// What the container does: it says which model and which secret it has, what image it is, and writes.
const LOOK: &str = "echo started > /written; sha256sum /models/ranker/ranker; echo -n \"$PASSWORD\" | sha256sum; cat /mark; \
                    echo x 2>/dev/null >/models/ranker/ranker && echo WRITTEN; cat /written; while :; do sleep 0.1; done";
/// What is there of a container that was refused.
const LEFT: &str = "ls -d /run/kata-containers/ID 2>/dev/null; grep run/kata-containers/ID /proc/1/mountinfo; \
                    ls -d /sys/fs/cgroup/kubepods/besteffort/pod1/ID 2>/dev/null; true";

/// An image with busybox and a mark; its layout and the digest of its manifest.
fn image(tools: &Tools, work: &Work, name: &str) -> (PathBuf, String) {
    let (layout, bundle) = (work.join(format!("{name}.oci")), work.join(format!("{name}.tree")));
    let tagged = format!("{}:v1", layout.display());
    run(Command::new("umoci").args(["init", "--layout"]).arg(&layout));
    run(Command::new("umoci").args(["new", "--image", &tagged]));
    run(Command::new("umoci").args(["unpack", "--image", &tagged]).arg(&bundle));
    let root = bundle.join("rootfs");
    VerityRoot::populate(tools, &root, &["/models/ranker", "/usr"]).unwrap();
    std::fs::write(root.join("mark"), format!("{name}\n")).unwrap();
    run(Command::new("umoci").args(["repack", "--image", &tagged]).arg(&bundle));
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    (layout, index["manifests"][0]["digest"].as_str().unwrap().to_owned())
}

/// The digest of an image's last layer, hex.
fn layer(layout: &std::path::Path, digest: &str) -> String {
    let blob = |digest: &str| layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let manifest: Value = serde_json::from_slice(&std::fs::read(blob(digest)).unwrap()).unwrap();
    let last = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap();
    last.strip_prefix("sha256:").unwrap().to_owned()
}

/// The vector of a sealed secret.
fn vector(name: &str) -> Value {
    serde_json::from_str::<Value>(VECTORS).unwrap()["sealed_secret_vault"][name].clone()
}

fn sealed_secret() -> String {
    vector("sealed").as_str().unwrap().to_owned()
}

/// The pod: its guest, its operator, and what stands between them.
struct Stage {
    keyed: Keyed,
    server: Server,
    broker: KeyBroker,
    payload: Payload,
    /// Of another image, which is not named.
    other: PathBuf,
    guest: Guest,
    runtime: tokio::runtime::Runtime,
    key: Key,
    other_digest: String,
}

/// What the guest is launched with.
fn packed(server: &str, broker: u16, key: &Key, image: &str, [model, layers]: [&Artifact; 2]) -> Packed {
    let mut package = Package::new(Algorithm::Sha384);
    let policy = ALLOW_ALL.replace("default CreateContainerRequest := true\n", BY_ANNOTATION);
    package.insert("policy.rego", &policy).unwrap();
    let zeros = "0".repeat(64);
    let hub = format!(
        "[kbc]\nname = \"cc_kbc\"\nurl = \"http://{HOST}:{broker}\"\n\n[innerkeep]\nbroker = \"{BROKER}\"\n\
         secret_lifetime_seconds = 0\ncredential_refresh_seconds = 10\n\n\
         [[innerkeep.sealed_images]]\nimage = \"{server}/acme/layers\"\nenvironment = \"{ENVIRONMENT}\"\ncore = \"{}\"\n\n\
         [[innerkeep.rest]]\ncontainer = \"server\"\nroutes = [\"/cdh/resource/default/db/password\", \"/aa/evidence\"]\n\n\
         [innerkeep.image_pins]\n\"{server}/acme/pinned\" = \"{zeros}\"\n\n\
         [image]\nimage_security_policy = '{}'\n\n[[image.registry_config.registry]]\nlocation = \"{server}\"\ninsecure = true\n",
        layers.core,
        cosigned(key)
    );
    package.insert("cdh.toml", &hub).unwrap();
    let sealed = format!(
        "environment = \"development\"\n\n[[artifact]]\nname = \"ranker\"\nreference = \"{server}/acme/ranker:v1\"\n\
         core = \"{}\"\npath = \"/models/ranker\"\ncontainer = {{ image = \"{image}\", policy_container = 0 }}\n",
        model.core
    );
    package.insert("sealed.toml", &sealed).unwrap();
    package.insert("innerkeep.toml", "insecure = [\"emulated-tee\", \"plain-http\"]\n").unwrap();
    package.pack().unwrap()
}

/// A machine with this initdata and a network on which the host is.
fn machine(keyed: &Keyed, tools: &Tools, packed: &Packed, digest: &str) -> Spec {
    let argv = ["/bin/innerkeep-tee-emulator", "guest", "--state", "/tee", "--launch", "/launch.toml"];
    let argv = argv.iter().chain(&["--ready-file", "/ready"]).map(|word| (*word).to_owned()).collect();
    let service = Service { argv, ready: "/ready".to_owned() };
    let pause = json!({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process":
        {"args": ["/bin/busybox", "sleep", "86400"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}}});
    vm::spec(&keyed.programs, &[AGENT, "innerkeep-tee-emulator"])
        .init(Init::Agent)
        .vsock()
        .memory_mib(1536)
        .modules(&["configfs", "tsm_report", "cuse", "erofs", "overlay", "loop", "virtio_net"])
        .copy_directory(&keyed.work.join("platform"), "/tee")
        .unwrap()
        .file("/launch.toml", 0o644, format!("tee = \"tdx\"\ninitdata_digest = \"{digest}\"\n"))
        .file("/pause_bundle/config.json", 0o644, pause.to_string())
        .copy(&tools.busybox(), "/pause_bundle/rootfs/bin/busybox", 0o755)
        .plan(|plan| plan.services.push(service))
        .disk(&keyed.work.write("initdata.img", packed.image()))
        .qemu(&["-netdev", "user,id=net,ipv6=off"])
        .qemu(&["-device", &format!("virtio-net-pci,netdev=net,mac={HARDWARE},romfile=")])
        .keep_serial(&keyed.work.join("serial.log"))
}

impl Stage {
    fn boot() -> Self {
        let tools = Tools::obtain(&|text| eprintln!("{text}")).unwrap();
        let mut keyed = Keyed::start(Kind::Tdx);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (server, key) = (Server::start(), Key::new());
        let port = server.authority.split_once(':').unwrap().1.to_owned();
        // By the name that the guest has for it: signatures are for names.
        let seen = format!("{HOST}:{port}");
        let [named, other, tampered, plain] =
            ["server", "other", "tampered", "layers"].map(|name| image(&tools, &keyed.work, name));
        for (image, repository) in
            [(&named, "server"), (&named, "pinned"), (&other, "unsigned"), (&tampered, "tampered")]
        {
            let name = format!("acme/{repository}");
            server.skopeo(&image.0, &format!("{name}:v1"));
            if repository != "unsigned" {
                runtime.block_on(server.sign(&name, &image.1, &key, &format!("{seen}/{name}")));
            }
        }
        let hex = layer(&tampered.0, &tampered.1);
        let blobs = server.directory.path().join("data/docker/registry/v2/blobs/sha256");
        let blob = blobs.join(&hex[..2]).join(hex).join("data");
        let mut bytes = std::fs::read(&blob).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&blob, bytes).unwrap();

        let payload = Payload::random(601, 300_000);
        let model = keyed.seal("ranker", &payload);
        let broker_port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let layers = keyed.seal_image("layers-sealed", &plain.0);
        let packed = packed(&seen, broker_port, &key, &named.1, [&model, &layers]);
        let digest = Kind::Tdx.initdata_digest(packed.text().as_bytes());
        // The same launch outside of any machine: what the operator makes the policy of.
        let launch = format!("initdata_digest = \"{digest}\"\n");
        keyed.guest = keyed.platform.guest(&keyed.work, "reference", &launch, None);
        let policy = keyed.policy("policy.toml", 5);
        let (report, kek, rego) = keyed.grant_to_broker(&model, &policy, "ranker");
        let layers_kek = keyed.work.join("layers.kek");
        let more = args!["--kek-out", &layers_kek, "--resource-policy", &rego];
        let arguments = keyed.grant_arguments(&layers, &format!("kbs:{BROKER}"), &policy, &more);
        let layers_report = keyed.innerkeep.run(&arguments);
        let rules = std::fs::read_to_string(&rego).unwrap();
        let secrets = format!(
            "\nallow if {{\n    data.plugin == \"resource\"\n    data[\"resource-path\"] in [[\"default\", \"seal-key\", \"vec\"], \
             [\"default\", \"db\", \"password\"]]\n    evidence := input.submods.cpu0[\"ear.veraison.annotated-evidence\"]\n    \
             evidence.tdx.quote.body.mr_config_id == \"{digest}\"\n}}\n"
        );
        std::fs::write(&rego, rules + &secrets).unwrap();
        let roots = keyed.platform.trust_roots();
        let arguments = args![
            "--insecure-trust-roots",
            roots,
            "--collateral",
            &keyed.guest.collateral,
            "--policy",
            &rego,
            "--listen",
            format!("127.0.0.1:{broker_port}")
        ];
        let broker = KeyBroker::start(&keyed.programs, &keyed.work, "broker", &arguments);
        broker.store(report["resource"].as_str().unwrap(), &kek);
        broker.store(layers_report["resource"].as_str().unwrap(), &std::fs::read(layers_kek).unwrap());
        broker.store("kbs:///default/seal-key/vec", vector("verification_jwk").to_string().as_bytes());
        broker.store("kbs:///default/db/password", SECRET);
        let to = format!("{}/acme/ranker:v1", server.authority);
        keyed.innerkeep.run(&args!["push", &model.reference, &to, "--insecure-plain-http"]);

        let to = format!("{}/acme/layers:v1", server.authority);
        let pushed = keyed.innerkeep.run(&args!["push", &layers.reference, &to, "--insecure-plain-http"]);
        let digest_of_layers = pushed["digest"].as_str().unwrap();
        runtime.block_on(server.sign("acme/layers", digest_of_layers, &key, &format!("{seen}/acme/layers")));

        let guest = boot(machine(&keyed, &tools, &packed, &digest));
        guest.wait_serial("\"msg\":\"serving\"", Duration::from_secs(60)).unwrap();
        let (other, other_digest) = other;
        Self { keyed, server, broker, payload, other, guest, runtime, key, other_digest }
    }

    /// A name of the registry, as the guest has it.
    fn seen(&self, rest: &str) -> String {
        format!("{HOST}:{}/acme/{rest}", self.server.authority.split_once(':').unwrap().1)
    }

    /// Refused with this code, and nothing is left of it.
    #[track_caller]
    fn refused(&self, client: &AgentClient, request: &CreateContainerRequest, code: &str) {
        refused(&self.guest, client.create_container(request), "INTERNAL", code);
        let left = shell(&self.guest, &LEFT.replace("ID", &request.container_id));
        assert_eq!(left, "", "{code}\n{}", self.guest.serial());
    }
}

#[track_caller]
fn ok<T>(stage: &Stage, answer: Result<T, Refused>) -> T {
    answer.unwrap_or_else(|refused| {
        panic!("{refused}\nbroker: {}\nguest: {}", stage.broker.log(), stage.guest.serial())
    })
}

#[track_caller]
fn refused<T>(guest: &Guest, answer: Result<T, Refused>, status: &str, text: &str) {
    match answer {
        Ok(_) => panic!("not refused: {text}\n{}", guest.serial()),
        Err(found) => {
            assert!(
                found.code == status && found.says(text),
                "{found}, expected {status} {text}\n{}",
                guest.serial()
            );
        }
    }
}

/// A container on an image, with this index in the policy.
fn container(id: &str, index: &str, image: &str, secret: &str) -> CreateContainerRequest {
    let root = format!("/run/kata-containers/{id}/rootfs");
    let mut request = create(id, &root, &["sh", "-c", LOOK]);
    let said = [
        ("test/index", index),
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.image-name", image),
        ("io.kubernetes.cri.container-name", id),
    ];
    let metadata: std::collections::HashMap<_, _> =
        said.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    request.storages.push(Storage {
        driver: "image_guest_pull".to_owned(),
        source: image.to_owned(),
        fstype: "overlay".to_owned(),
        driver_options: vec![format!("image_guest_pull={}", json!({ "metadata": metadata }))],
        mount_point: root,
        ..Storage::default()
    });
    let spec = request.OCI.as_mut().unwrap();
    spec.Annotations = metadata;
    spec.Process.as_mut().unwrap().Env.push(format!("PASSWORD={secret}"));
    request
}

/// As the runtime does before the sandbox.
fn connect(stage: &Stage, client: &AgentClient) {
    let interface = Interface {
        name: "eth0".into(),
        device: "eth0".into(),
        hwAddr: HARDWARE.into(),
        IPAddresses: vec![IPAddress {
            address: "10.0.2.15".into(),
            mask: "24".into(),
            ..IPAddress::default()
        }],
        ..Interface::default()
    };
    let request = UpdateInterfaceRequest { interface: Some(interface).into(), ..Default::default() };
    ok(stage, client.update_interface(&request));
    let route =
        Route { dest: "0.0.0.0/0".into(), gateway: HOST.into(), device: "eth0".into(), ..Default::default() };
    let routes = Routes { Routes: vec![route], ..Default::default() };
    ok(
        stage,
        client.update_routes(&UpdateRoutesRequest { routes: Some(routes).into(), ..Default::default() }),
    );
    ok(stage, client.create_sandbox(&sandbox("pod1")));
}

/// Reads standard output up to so many lines.
#[track_caller]
fn said(stage: &Stage, client: &AgentClient, id: &str, count: usize) -> Vec<String> {
    let mut all = String::new();
    while all.matches('\n').count() < count {
        let data = ok(stage, client.read_stdout(&read(id, "", 4096))).data;
        assert!(!data.is_empty(), "the end of the stream after {all:?}");
        all.push_str(&String::from_utf8_lossy(&data));
    }
    all.lines().map(str::to_owned).collect()
}

/// Where the host puts a file with a sealed secret, and what of it the container sees.
const VOLUME: &str = "/run/kata-containers/shared/containers/server-secrets";
const SEEN: &str = "cd /proc/$(head -n1 /sys/fs/cgroup/kubepods/besteffort/pod1/server/cgroup.procs)/root && cat etc/secrets/password";

/// One guest, from its start to its last attack.
// COMPAT: CreateContainer stricter: `image_guest_pull` is of one image in source, metadata and annotations, and of one that bound configuration permits
// COMPAT: CreateContainer better: the root of a pulled image is a verified one
#[test]
fn a_pod_on_images_that_its_guest_pulls() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let stage = Stage::boot();
    let client = AgentClient::connect(&stage.guest);
    connect(&stage, &client);
    the_sandbox_has_the_pause_program_of_the_image(&stage, &client);
    evil_images_are_refused(&stage, &client);
    a_signed_image_gets_model_and_secret(&stage, &client);
    an_image_with_sealed_layers_runs(&stage, &client);
    evil_host_secret_that_is_not_sealed(&stage, &client);
    evil_registry_moves_the_tag(&stage, &client);
    assert_eq!(shell(&stage.guest, "grep -l ' /models/' /proc/[0-9]*/mountinfo || true"), "");
    // Nobody who unpacked is left, nor what he was in; layers are gone, too.
    let left =
        "find /sys/fs/cgroup/innerkeep -mindepth 1 -type d; find /run/kata-containers/image/blobs -type f";
    assert_eq!(shell(&stage.guest, left), "");
}

fn the_sandbox_has_the_pause_program_of_the_image(stage: &Stage, client: &AgentClient) {
    let mut request = container("pause", "7", "pause", "none");
    let storage = &mut request.storages[0];
    storage.driver_options =
        vec!["image_guest_pull={\"metadata\":{\"io.kubernetes.cri.container-type\":\"sandbox\"}}".to_owned()];
    // The storage says one thing, the specification another.
    stage.refused(client, &request, "STORAGE_IMAGE");
    let spec = request.OCI.as_mut().unwrap();
    spec.Annotations.insert("io.kubernetes.cri.container-type".to_owned(), "sandbox".to_owned());
    ok(stage, client.create_container(&request));
    ok(stage, client.start_container(&start("pause")));
    let line =
        "tr '\\0' ' ' < /proc/$(head -n1 /sys/fs/cgroup/kubepods/besteffort/pod1/pause/cgroup.procs)/cmdline";
    assert_eq!(shell(&stage.guest, line).trim(), "/bin/busybox sleep 86400");
    let files = shell(&stage.guest, "find /run/kata-containers/pause/rootfs -type f");
    assert_eq!(
        files.trim(),
        "/run/kata-containers/pause/rootfs/bin/busybox",
        "and nothing else of the bundle"
    );
}

fn evil_images_are_refused(stage: &Stage, client: &AgentClient) {
    let of = |image: &str| container("evil", "0", &stage.seen(image), &sealed_secret());
    stage.refused(client, &of("unsigned:v1"), "IMAGE_UNSIGNED");
    stage.refused(client, &of("tampered:v1"), "REGISTRY_DIGEST");
    stage.refused(client, &of("pinned:v1"), "COMPOSEFS_MISMATCH");
    stage.refused(client, &of("none:v1"), "REGISTRY_MISSING");
    // The policy of the agent may have looked at the annotation, and the host has another one pulled.
    let mut request = of("server:v1");
    request.storages[0].source = stage.seen("unsigned:v1");
    stage.refused(client, &request, "STORAGE_IMAGE");
    assert!(!stage.guest.serial().contains("image pulled"), "{}", stage.guest.serial());
    // Nothing was measured: nothing was used.
    assert_eq!(shell(&stage.guest, "grep -rl PullImage /run/attestation-agent || true"), "");
}

fn a_signed_image_gets_model_and_secret(stage: &Stage, client: &AgentClient) {
    let guest = &stage.guest;
    let mut request = container("server", "0", &stage.seen("server:v1"), &sealed_secret());
    shell(guest, &format!("mkdir -p {VOLUME}; echo '{}' > {VOLUME}/password", sealed_secret()));
    request.OCI.as_mut().unwrap().Mounts.push(protocol::oci::Mount {
        destination: "/etc/secrets".to_owned(),
        source: VOLUME.to_owned(),
        type_: "bind".to_owned(),
        options: vec!["rbind".to_owned(), "rw".to_owned()],
        ..Default::default()
    });
    ok(stage, client.create_container(&request));
    assert_eq!(shell(guest, SEEN), "", "nothing before it is started");
    let event = format!("PullImage {{\"image\":\"{}\"", stage.seen("server:v1"));
    let log = shell(guest, "cat /run/attestation-agent/eventlog");
    assert!(String::from_utf8_lossy(log.as_bytes()).contains(&event), "{log:?}");
    ok(stage, client.start_container(&start("server")));
    let seen = said(stage, client, "server", 4);
    let secret = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(SECRET));
    let model = format!("{}  /models/ranker/ranker", stage.payload.sha256());
    assert_eq!(seen, [model, format!("{secret}  -"), "server".to_owned(), "started".to_owned()]);
    let group = "/sys/fs/cgroup/kubepods/besteffort/pod1/server/cgroup.procs";
    let mounts = shell(guest, &format!("grep -e ' / / ' -e ' /models/' /proc/$(head -n1 {group})/mountinfo"));
    assert!(mounts.contains(" - overlay composefs rw") && mounts.contains(" /models/ranker ro,"), "{mounts}");
    asks::a_container_reads_its_secret(stage, client);
    asks::evil_host_container_with_the_name_of_another(stage, client);
    a_sealed_file_is_open_there_and_rotates(stage);
    // The model came from the registry, and nothing of its ciphertext was stored on the way.
    assert_eq!(shell(guest, "ls -A /run/innerkeep | grep -x fetched || true"), "");
    ok(stage, client.remove_container(&remove("server")));
    assert_eq!(shell(guest, &LEFT.replace("ID", "server")), "");
    assert_eq!(shell(guest, "grep innerkeep/secrets /proc/1/mountinfo; ls -A /run/innerkeep/secrets"), "");
    let serial = guest.serial();
    assert!(!serial.contains(std::str::from_utf8(SECRET).unwrap()), "{serial}");
}

/// In the running container, as one step; where the host could read it there is the sealed text for ever.
fn a_sealed_file_is_open_there_and_rotates(stage: &Stage) {
    let guest = &stage.guest;
    let secret = std::str::from_utf8(SECRET).unwrap();
    assert_eq!(shell(guest, SEEN), secret);
    stage.broker.store("kbs:///default/db/password", b"another-one");
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let seen = shell(guest, SEEN);
        if seen == "another-one" {
            break;
        }
        assert!(seen == secret && Instant::now() < until, "{seen:?}\n{}", guest.serial());
        std::thread::sleep(Duration::from_millis(500));
    }
    stage.broker.store("kbs:///default/db/password", SECRET);
    assert_eq!(shell(guest, &format!("cat {VOLUME}/password")).trim(), sealed_secret());
    assert_eq!(
        shell(guest, &format!("grep -rl -e {secret} -e another-one /run/kata-containers/shared || true")),
        ""
    );
}

/// Nobody outside of the guest reads its layers, and what runs is what was sealed.
fn an_image_with_sealed_layers_runs(stage: &Stage, client: &AgentClient) {
    let request = container("layers", "6", &stage.seen("layers:v1"), "none");
    ok(stage, client.create_container(&request));
    ok(stage, client.start_container(&start("layers")));
    let seen = said(stage, client, "layers", 4);
    // It has no model: the directory is the image's own.
    assert_eq!(seen[1..], ["layers", "WRITTEN", "started"]);
    asks::another_container_reads_nothing(stage, client, "layers");
    ok(stage, client.remove_container(&remove("layers")));
    assert_eq!(shell(&stage.guest, &LEFT.replace("ID", "layers")), "");
}

fn evil_host_secret_that_is_not_sealed(stage: &Stage, client: &AgentClient) {
    // Altered on the way, and one whose signature is over something else.
    let altered = sealed_secret().replace("NE2", "NE3").replace("IMmp7A", "IMmp7Q");
    assert_ne!(altered, sealed_secret());
    let request = container("altered", "0", &stage.seen("server:v1"), &altered);
    ok(stage, client.create_container(&request));
    refused(&stage.guest, client.start_container(&start("altered")), "INTERNAL", "SEALED_SECRET_");
    shell(&stage.guest, "test ! -e /run/kata-containers/altered/rootfs/written");
    ok(stage, client.remove_container(&remove("altered")));
    // One that the policy takes for another container: the secret is not for it, whatever image it is on.
    let request = container("stranger", "5", &stage.seen("server:v1"), &sealed_secret());
    ok(stage, client.create_container(&request));
    let answer = client.start_container(&start("stranger"));
    refused(&stage.guest, answer, "INTERNAL", "SEALED_VALUE_NOT_NAMED");
    shell(&stage.guest, "test ! -e /run/kata-containers/stranger/rootfs/written");
    ok(stage, client.remove_container(&remove("stranger")));
}

fn evil_registry_moves_the_tag(stage: &Stage, client: &AgentClient) {
    stage.server.skopeo(&stage.other, "acme/server:v1");
    let request = container("server", "0", &stage.seen("server:v1"), &sealed_secret());
    stage.refused(client, &request, "IMAGE_UNSIGNED");
    // Signed by the right key, it is an image that may run, and not the one that model and secret are for.
    let (server, identity) = (&stage.server, stage.seen("server"));
    let sign = server.sign("acme/server", &stage.other_digest, &stage.key, &identity);
    stage.runtime.block_on(sign);
    ok(stage, client.create_container(&request));
    let answer = client.start_container(&start("server"));
    refused(&stage.guest, answer, "FAILED_PRECONDITION", "SEALED_IMPOSTOR");
    shell(&stage.guest, "test ! -e /run/kata-containers/server/rootfs/written");
    ok(stage, client.remove_container(&remove("server")));
    assert!(stage.keyed.work.path().exists());
}
