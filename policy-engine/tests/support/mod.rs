//! A policy of the generated kind and size, requests that it allows, and requests that differ from those a little.
//! Everything follows from a seed.

use serde_json::{Value, json};

/// Rules; the generator's part is [`data`].
pub const RULES: &str = include_str!("../../../tests/vectors/policy/rules.rego");

/// Containers of the policy that figures are about.
pub const CONTAINERS: usize = 5;

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// One request to decide.
#[derive(Debug, Clone)]
pub struct Request {
    pub name: &'static str,
    pub input: Value,
}

/// The whole text.
pub fn policy(containers: usize) -> String {
    format!("{RULES}\npolicy_data := {}\n", serde_json::to_string_pretty(&data(containers)).unwrap())
}

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const SANDBOX: &str = "6f1c0e0d9ab34c5d8e7f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5";
const NETWORK: &str = "/var/run/netns/cni-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";

/// The generator's data: `containers[0]` is the pause container.
pub fn data(containers: usize) -> Value {
    json!({
        "cluster_config": { "pause_container_image": "registry.example/pause:3.10", "default_namespace": "default", "image_digests": digests() },
        "common": {
            "cpath": "/run/kata-containers/shared/containers(/passthrough)?",
            "default_caps": CAPABILITIES,
            "dns_label": "[a-zA-Z0-9_\\.\\-]+",
            "ip_p": "[0-9]{1,5}",
            "ipv4_a": "((25[0-5]|(2[0-4]|1\\d|[1-9]|)\\d)\\.?\\b){4}",
            "privileged_caps": CAPABILITIES.iter().copied().chain(["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]).collect::<Vec<_>>(),
            "root_path": "/run/kata-containers/$(bundle-id)/rootfs",
            "sfprefix": "^/run/kata-containers/shared/containers/$(bundle-id)-[a-z0-9]{16}-",
            "spath": "/run/kata-containers/sandbox/storage",
            "svc_name_downward_env": "[A-Z](?:[A-Z0-9_]{0,61}[A-Z0-9])?",
        },
        "containers": (0..containers).map(container).collect::<Vec<_>>(),
        "devices": { "vfio": [] },
        "request_defaults": {
            "AddARPNeighborsRequest": {
                "forbidden_cidrs_regex": ["^127\\.", "^169\\.254\\."],
                "forbidden_device_names": ["lo"],
            },
            "CloseStdinRequest": false,
            "CopyFileRequest": [
                "$(sfprefix)(hosts|hostname|resolv\\.conf|termination-log)$",
                "^/run/kata-containers/shared/containers/[a-f0-9]+-[a-z0-9]+-serviceaccount/.*$",
            ],
            "CreateContainerRequest": {
                "allow_env_regex": [
                    "^HOSTNAME=$(dns_label)$",
                    "^$(svc_name)_PORT_[0-9]+_TCP=tcp://$(ipv4_a):$(ip_p)$",
                    "^$(svc_name)_PORT_[0-9]+_TCP_PROTO=tcp$",
                    "^$(svc_name)_PORT_[0-9]+_TCP_PORT=$(ip_p)$",
                    "^$(svc_name)_PORT_[0-9]+_TCP_ADDR=$(ipv4_a)$",
                    "^$(svc_name)_SERVICE_HOST=$(ipv4_a)$",
                    "^$(svc_name)_SERVICE_PORT=$(ip_p)$",
                    "^$(svc_name)_SERVICE_PORT_$(dns_label)=$(ip_p)$",
                    "^$(svc_name)_PORT=tcp://$(ipv4_a):$(ip_p)$",
                    "^AZURE_CLIENT_ID=[A-Fa-f0-9-]*$",
                    "^TERM=xterm$",
                ],
            },
            "ExecProcessRequest": { "allowed_commands": [["/bin/true"]], "regex": ["^/bin/check --now$"] },
            "ReadStreamRequest": false,
            "UpdateEphemeralMountsRequest": false,
            "UpdateInterfaceRequest": { "allow_raw_flags": 0x40, "forbidden_names": ["lo"] },
            "UpdateRoutesRequest": { "forbidden_device_names": ["lo"], "forbidden_pairs": ["127.0.0.1 0.0.0.0"] },
            "WriteStreamRequest": false,
        },
        "sandbox": { "storages": [{
            "driver": "ephemeral", "driver_options": [], "fs_group": null, "fstype": "tmpfs", "mount_point": "/run/kata-containers/sandbox/shm",
            "options": ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"], "shared": false, "source": "shm",
        }] },
    })
}

fn container(index: usize) -> Value {
    let pause = index == 0;
    let mut annotations = json!({
        "io.katacontainers.pkg.oci.bundle_path": "/run/containerd/io.containerd.runtime.v2.task/k8s.io/$(bundle-id)",
        "io.katacontainers.pkg.oci.container_type": if pause { "pod_sandbox" } else { "pod_container" },
        "io.kubernetes.cri.container-type": if pause { "sandbox" } else { "container" },
        "io.kubernetes.cri.sandbox-id": "^[a-z0-9]{64}$",
        "io.kubernetes.cri.sandbox-name": "model-server-[a-z0-9]{5}",
        "io.kubernetes.cri.sandbox-namespace": "serving",
    });
    if !pause {
        annotations["io.kubernetes.cri.container-name"] = json!(format!("worker-{index}"));
        annotations["io.kubernetes.cri.image-name"] = json!(image(index));
    }
    json!({
        "OCI": {
            "Annotations": annotations,
            "Linux": {
                "MaskedPaths": MASKED,
                "Namespaces": namespaces(),
                "ReadonlyPaths": READONLY,
                "Sysctl": { "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647" },
            },
            "Mounts": (0..16).map(|mount| policy_mount(index, mount)).collect::<Vec<_>>(),
            "Process": {
                "Args": arguments(index, "$(sandbox-name)"),
                "Capabilities": capability_sets(if pause { CAPABILITIES.to_vec() } else { vec!["$(default_caps)"] }),
                "Cwd": if pause { "/" } else { "/srv/model" },
                "Env": policy_environment(index),
                "NoNewPrivileges": true,
                "Terminal": false,
                "User": { "AdditionalGids": [65535, 2000 + index], "GID": 65535, "UID": 65535, "Username": "" },
            },
            "Root": { "Path": "$(root_path)", "Readonly": true },
            "Version": "1.1.0",
        },
        "devices": [{ "container_path": format!("/dev/sealed{index}"), "type_": "blk" }],
        "exec_commands": [
            ["/usr/local/bin/probe", "--ready", format!("--worker={index}")],
            ["/usr/local/bin/probe", "--live", format!("--worker={index}")],
        ],
        "runtime_anno_patterns": [],
        "sandbox_pidns": false,
        "storages": if pause { json!([]) } else { json!([policy_storage(index)]) },
    })
}

/// What brings the text to the size of a generated one, whose rules are longer than ours.
fn digests() -> Vec<String> {
    (0..215_u32)
        .map(|image| format!("registry.example/serving/image@sha256:{:064x}", image + 0xd000))
        .collect()
}

fn namespaces() -> Vec<Value> {
    ["ipc", "uts", "mount", "pid"].into_iter().map(|kind| json!({ "Type": kind, "Path": "" })).collect()
}

fn image(index: usize) -> String {
    format!("registry.example/serving/worker-{index}@sha256:{:064x}", index + 0xabc)
}

fn capability_sets(caps: Vec<&str>) -> Value {
    json!({ "Ambient": [], "Bounding": caps, "Effective": caps, "Inheritable": [], "Permitted": caps })
}

fn arguments(index: usize, name: &str) -> Vec<String> {
    if index == 0 {
        return vec!["/pause".to_owned()];
    }
    let mut arguments =
        vec!["/usr/local/bin/serve".to_owned(), format!("--worker={index}"), format!("--pod={name}")];
    arguments.extend((0..5).map(|flag| format!("--flag-{flag}=value-of-worker-{index}-flag-{flag}")));
    arguments
}

fn policy_environment(index: usize) -> Vec<String> {
    let mut environment = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        "POD_NAME=$(sandbox-name)".to_owned(),
        "POD_NAMESPACE=$(sandbox-namespace)".to_owned(),
        "POD_IP=$(pod-ip)".to_owned(),
        "HOST_IP=$(host-ip)".to_owned(),
        "NODE_NAME=$(node-name)".to_owned(),
    ];
    environment.extend((0..10).map(|number| {
        format!(
            "MODEL_SETTING_{number}=/srv/model/worker-{index}/{}/setting-{number}",
            "part/".repeat(2 + number)
        )
    }));
    environment
}

fn policy_storage(index: usize) -> Value {
    json!({
        "driver": "blk", "driver_options": [], "fs_group": null, "fstype": "erofs",
        "mount_point": format!("^/run/kata-containers/$(bundle-id)/layer-{index}$"),
        "options": ["ro", format!("verity-root={:064x}", 0x51 + index)], "shared": false, "source": "^0[0-9a-f]/0[0-9a-f]$",
    })
}

fn policy_mount(index: usize, mount: usize) -> Value {
    match mount {
        0 => {
            json!({ "destination": "/proc", "options": ["nosuid", "noexec", "nodev"], "source": "proc", "type_": "proc" })
        }
        1 => {
            json!({ "destination": "/dev", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"], "source": "tmpfs", "type_": "tmpfs" })
        }
        2 => {
            json!({ "destination": "/etc/hosts", "options": ["rbind", "rprivate", "rw"], "source": "$(sfprefix)hosts$", "type_": "bind" })
        }
        3 => json!({
            "destination": "/dev/shm", "options": ["rbind"], "source": "^/run/kata-containers/sandbox/shm$", "type_": "bind",
        }),
        4 => json!({
            "destination": "/srv/shared", "options": ["rbind", "rw"], "source": "$(spath)/L2Rldi9zaGFyZWQ=", "type_": "bind",
        }),
        _ => json!({
            "destination": format!("/srv/model/worker-{index}/data-{mount}"),
            "options": ["rbind", "rprivate", if mount.is_multiple_of(2) { "ro" } else { "rw" }],
            "source": format!("$(sfprefix)data-{mount}-of-the-worker-{index}$"), "type_": "bind",
        }),
    }
}

/// A request that the policy allows for its container `index`.
pub fn create(index: usize, id: &str, random: &mut Random) -> Request {
    let pause = index == 0;
    let name = "model-server-k2x9q";
    let mut annotations = json!({
        "io.katacontainers.pkg.oci.bundle_path": format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}"),
        "io.katacontainers.pkg.oci.container_type": if pause { "pod_sandbox" } else { "pod_container" },
        "io.kubernetes.cri.container-type": if pause { "sandbox" } else { "container" },
        "io.kubernetes.cri.sandbox-id": SANDBOX,
        "io.kubernetes.cri.sandbox-name": name,
        "io.kubernetes.cri.sandbox-namespace": "serving",
        "nerdctl/network-namespace": NETWORK,
    });
    if !pause {
        annotations["io.kubernetes.cri.container-name"] = json!(format!("worker-{index}"));
        annotations["io.kubernetes.cri.image-name"] = json!(image(index));
    }
    let unique = format!("{:016x}", random.next());
    let mounts: Vec<Value> = (0..16).map(|mount| asked_mount(index, mount, id, &unique)).collect();
    let storages = if pause {
        json!([])
    } else {
        let mut storage = policy_storage(index);
        storage["mount_point"] = json!(format!("/run/kata-containers/{id}/layer-{index}"));
        storage["source"] = json!("0a/01");
        json!([storage])
    };
    Request {
        name: "CreateContainerRequest",
        input: json!({
            "OCI": {
                "Annotations": annotations,
                "Hooks": null,
                "Hostname": "model-server",
                "Linux": {
                    "CgroupsPath": format!("kubepods-besteffort-pod.slice:cri-containerd:{id}"),
                    "Devices": [],
                    "GIDMappings": [],
                    "IntelRdt": null,
                    "MaskedPaths": MASKED,
                    "MountLabel": "",
                    "Namespaces": [
                        { "Type": "ipc", "Path": "" }, { "Type": "uts", "Path": "" }, { "Type": "mnt", "Path": "" },
                        { "Type": "pid", "Path": "" }, { "Type": "cgroup", "Path": "" },
                    ],
                    "ReadonlyPaths": READONLY,
                    "Resources": null,
                    "RootfsPropagation": "",
                    "Seccomp": null,
                    "Sysctl": { "net.ipv4.ip_unprivileged_port_start": "0" },
                    "UIDMappings": [],
                },
                "Mounts": mounts,
                "Process": {
                    "ApparmorProfile": "",
                    "Args": arguments(index, name),
                    "Capabilities": capability_sets(CAPABILITIES.to_vec()),
                    "ConsoleSize": null,
                    "Cwd": if pause { "/" } else { "/srv/model" },
                    "Env": asked_environment(index, name),
                    "NoNewPrivileges": true,
                    "OOMScoreAdj": 0,
                    "Rlimits": [],
                    "SelinuxLabel": "",
                    "Terminal": false,
                    "User": { "AdditionalGids": [2000 + index, 65535], "GID": 65535, "UID": 65535, "Username": "" },
                },
                "Root": { "Path": format!("/run/kata-containers/{id}/rootfs"), "Readonly": true },
                "Solaris": null,
                "Version": "1.1.0",
                "Windows": null,
            },
            "container_id": id,
            "devices": [],
            "exec_id": id,
            "rootfs_mounts": [],
            "sandbox_pidns": false,
            "shared_mounts": [],
            "stderr_port": null,
            "stdin_port": null,
            "stdout_port": null,
            "storages": storages,
            "string_user": null,
        }),
    }
}

fn asked_mount(index: usize, mount: usize, id: &str, unique: &str) -> Value {
    let mut asked = policy_mount(index, mount);
    let shared = format!("/run/kata-containers/shared/containers/{id}-{unique}-");
    asked["source"] = match mount {
        0 | 1 => return asked,
        2 => json!(format!("{shared}hosts")),
        3 => json!("/run/kata-containers/sandbox/shm"),
        4 => {
            asked["options"] = json!(["rw", "rbind", "relatime"]);
            json!("/dev/shared")
        }
        _ => json!(format!("{shared}data-{mount}-of-the-worker-{index}")),
    };
    asked
}

fn asked_environment(index: usize, name: &str) -> Vec<String> {
    let mut environment: Vec<String> = policy_environment(index)
        .into_iter()
        .map(|variable| {
            variable
                .replace("$(sandbox-name)", name)
                .replace("$(sandbox-namespace)", "serving")
                .replace("$(pod-ip)", "10.244.0.17")
                .replace("$(host-ip)", "192.168.1.4")
                .replace("$(node-name)", "node-a.example")
        })
        .collect();
    environment.push(format!("HOSTNAME={name}"));
    for service in ["KUBERNETES", "MODEL_STORE", "METRICS", "SCHEDULER", "CACHE", "GATEWAY"] {
        environment.extend([
            format!("{service}_SERVICE_HOST=10.96.0.1"),
            format!("{service}_SERVICE_PORT=443"),
            format!("{service}_SERVICE_PORT_HTTPS=443"),
            format!("{service}_PORT=tcp://10.96.0.1:443"),
            format!("{service}_PORT_443_TCP=tcp://10.96.0.1:443"),
            format!("{service}_PORT_443_TCP_PROTO=tcp"),
            format!("{service}_PORT_443_TCP_PORT=443"),
            format!("{service}_PORT_443_TCP_ADDR=10.96.0.1"),
        ]);
    }
    environment
}

/// An exec of a readiness probe in container `index`, which the policy allows once the container is there.
pub fn exec(index: usize, id: &str) -> Request {
    Request {
        name: "ExecProcessRequest",
        input: json!({
            "container_id": id,
            "exec_id": "probe",
            "process": {
                "ApparmorProfile": "",
                "Args": ["/usr/local/bin/probe", "--ready", format!("--worker={index}")],
                "Capabilities": capability_sets(CAPABILITIES.to_vec()),
                "ConsoleSize": null,
                "Cwd": "/",
                "Env": ["PATH=/usr/bin"],
                "NoNewPrivileges": true,
                "OOMScoreAdj": 0,
                "Rlimits": [],
                "SelinuxLabel": "",
                "Terminal": false,
                "User": { "AdditionalGids": [65535, 2000 + index], "GID": 65535, "UID": 65535, "Username": "" },
            },
            "stderr_port": null,
            "stdin_port": null,
            "stdout_port": null,
            "string_user": null,
        }),
    }
}

/// A file that the policy lets in.
pub fn copy_file(id: &str, random: &mut Random) -> Request {
    let link = random.one_in(3);
    Request {
        name: "CopyFileRequest",
        input: json!({
            "dir_mode": 0o40755,
            "file_mode": if link { 0o120_755 } else { 0o100_644 },
            "file_size": 120,
            "file_type": if link { "Symlink" } else { "Regular" },
            "gid": 0,
            "offset": 0,
            "path": format!("/run/kata-containers/shared/containers/{SANDBOX}-{:08x}-serviceaccount/data/token", random.next() & 0xffff_ffff),
            "symlink_target": if link { json!("..data/token") } else { Value::Null },
            "uid": 0,
            "id": id,
        }),
    }
}

/// Small requests of other kinds.
pub fn small(id: &str, random: &mut Random) -> Request {
    let (name, input) = match random.below(16) {
        0 => ("RemoveContainerRequest", json!({ "container_id": id, "timeout": 0 })),
        1 => ("ReadStreamRequest", json!({ "container_id": id, "exec_id": "", "len": 32768 })),
        2 => ("SignalProcessRequest", json!({ "container_id": id, "exec_id": "", "signal": 9 })),
        3 => (
            "CreateSandboxRequest",
            json!({
                "dns": [], "guest_hook_path": "", "hostname": "model-server", "kernel_modules": [], "sandbox_id": SANDBOX,
                "sandbox_pidns": false, "storages": data(1)["sandbox"]["storages"],
            }),
        ),
        4 => (
            "UpdateRoutesRequest",
            json!({ "routes": { "Routes": [
                { "dest": "0.0.0.0", "device": "eth0", "family": 0, "gateway": "10.244.0.1", "scope": 0, "source": "" },
                { "dest": "10.244.0.0", "device": "eth0", "family": 0, "gateway": "", "scope": 253, "source": "10.244.0.17" },
            ] } }),
        ),
        5 => (
            "UpdateInterfaceRequest",
            json!({ "interface": {
                "IPAddresses": [{ "address": "10.244.0.17", "family": 0, "mask": "24" }], "device": "eth0",
                "devicePath": "", "hwAddr": "0a:58:0a:f4:00:11", "mtu": 1500, "name": "eth0", "raw_flags": 0, "type_": "",
            } }),
        ),
        6 => (
            "AddARPNeighborsRequest",
            json!({ "neighbors": { "ARPNeighbors": [{
                "device": "eth0", "flags": 0, "lladdr": "0a:58:0a:f4:00:01", "state": 128,
                "toIPAddress": { "address": "10.244.0.1", "family": 0, "mask": "" },
            }] } }),
        ),
        7 => ("WriteStreamRequest", json!({ "container_id": id, "data": [1, 2, 255], "exec_id": "" })),
        8 => ("CloseStdinRequest", json!({ "container_id": id, "exec_id": "" })),
        9 => (
            "SetPolicyRequest",
            json!({ "policy": "package agent_policy\ndefault ExecProcessRequest := true\n" }),
        ),
        10 => ("UpdateEphemeralMountsRequest", json!({ "storages": [] })),
        11 => ("GuestDetailsRequest", json!({ "mem_block_size": true, "mem_hotplug_probe": false })),
        12 => ("AddSwapPathRequest", json!({ "path": "/dev/vdb" })),
        13 => ("GetDiagnosticDataRequest", json!({ "log_path": "/var/log/messages" })),
        14 => ("AllowRequestsFailingPolicy", json!({})),
        _ => ("WaitProcessRequest", json!({ "container_id": id, "exec_id": "" })),
    };
    Request { name, input }
}

/// Alters one place of a request, below at most `depth` levels.
pub fn mutate(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(fields) if !fields.is_empty() && !random.one_in(24) => {
            let position = random.below(fields.len());
            let key = fields.keys().nth(position).unwrap().clone();
            if random.one_in(12) {
                fields.remove(&key);
            } else if random.one_in(40) {
                fields.insert(format!("{key}x"), json!("more"));
            } else {
                mutate(fields.get_mut(&key).unwrap(), random);
            }
        }
        Value::Array(items) if !items.is_empty() && !random.one_in(16) => {
            let position = random.below(items.len());
            match random.below(12) {
                0 => {
                    items.remove(position);
                }
                1 => {
                    let copy = items[position].clone();
                    items.push(copy);
                }
                2 => items.swap(0, position),
                3 => items.truncate(position),
                _ => mutate(&mut items[position], random),
            }
        }
        Value::String(text) => *value = other_text(text, random),
        Value::Bool(flag) => *value = if random.one_in(4) { json!("true") } else { json!(!*flag) },
        Value::Number(_) => {
            *value = [
                json!(0),
                json!(1),
                json!(-1),
                json!(65535),
                json!(65535.0),
                json!(1.5),
                json!(9_007_199_254_740_993_i64),
                json!(u64::MAX),
                json!(i64::MIN),
                json!("65535"),
                Value::Null,
                json!(2048 + 420),
            ][random.below(12)]
            .clone();
        }
        _ => {
            *value = [
                Value::Null,
                json!([]),
                json!({}),
                json!(""),
                json!(false),
                json!(7),
                json!(["a"]),
                json!({ "a": null }),
            ][random.below(8)]
            .clone();
        }
    }
}

fn other_text(text: &str, random: &mut Random) -> Value {
    let at = (0..=text.len())
        .filter(|at| text.is_char_boundary(*at))
        .nth(random.below(text.len() + 1))
        .unwrap_or(0);
    match random.below(14) {
        0 => json!(""),
        1 => json!(format!("{text} ")),
        2 => json!(format!("x{text}")),
        3 => json!(text.to_uppercase()),
        4 => json!(format!("{}..{}", &text[..at], &text[at..])),
        5 => json!(format!("{}\u{e9}\n{}", &text[..at], &text[at..])),
        6 => json!(&text[..at]),
        7 => json!("$(node-name)"),
        8 => json!(text.replace('=', "==")),
        9 => json!(text.replace('.', "x")),
        10 => json!(".*"),
        11 => Value::Null,
        12 => json!([text]),
        _ => json!("/bin/true"),
    }
}

/// A sequence of requests: most of them small, some that create containers, about half of them altered.
pub fn requests(seed: u64, number: usize, creates_in: usize) -> Vec<Request> {
    let mut random = Random::new(seed);
    (0..number)
        .map(|_| {
            let index = random.below(CONTAINERS);
            let id = format!("c{:063x}", random.below(12));
            let mut request = if random.one_in(creates_in) {
                create(index, &id, &mut random)
            } else {
                match random.below(3) {
                    0 => exec(index, &id),
                    1 => copy_file(&id, &mut random),
                    _ => small(&id, &mut random),
                }
            };
            for _ in 0..[0, 0, 1, 1, 2, 3][random.below(6)] {
                mutate(&mut request.input, &mut random);
                if !request.input.is_object() {
                    request.input = json!({});
                }
            }
            request
        })
        .collect()
}
