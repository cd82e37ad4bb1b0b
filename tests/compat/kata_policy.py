"""A policy of the kind that upstream's generator writes, and requests of the pod that it was written for.

The rules are those of `tests/vectors/policy/rules.rego`, which has every construct of generated ones; the data is made here. Nothing is shared with
`policy-engine`'s own tests but that file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kata_requests as make

Values = dict[str, Any]
RULES = Path(__file__).parents[1] / "vectors" / "policy" / "rules.rego"
POD, NAMESPACE = "model-server-k2x9q", "serving"
SANDBOX = "6f1c0e0d9ab34c5d8e7f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5"
NETWORK = "/var/run/netns/cni-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
BUNDLES = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/"
CRI, KATA = "io.kubernetes.cri.", "io.katacontainers.pkg.oci."
DEFAULT_MOUNTS = [
    make.mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
    make.mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
    make.mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
]


def container_id(index: int) -> str:
    return f"{index:064x}"


def annotations(index: int, bundle: str, sandbox: str, name: str) -> Values:
    """The first container is the pause container."""
    common = {
        f"{KATA}bundle_path": f"{BUNDLES}{bundle}",
        f"{KATA}container_type": "pod_container" if index else "pod_sandbox",
        f"{CRI}container-type": "container" if index else "sandbox",
        f"{CRI}sandbox-id": sandbox,
        f"{CRI}sandbox-name": name,
        f"{CRI}sandbox-namespace": NAMESPACE,
    }
    return {**common, **({f"{CRI}container-name": f"worker-{index}"} if index else {})}


def arguments(index: int, pod: str) -> list[str]:
    """As the policy has them: a dollar is two, the pod's name is put in."""
    script = f"trap 'exit 5' TERM; price=7; echo {pod} $$price; while :; do sleep 0.05; done"
    return ["/bin/sh", "-c", script, f"--worker={index}"] if index else ["/bin/sleep", "100000"]


def as_input(mount: Values) -> Values:
    """Members of the policy's input are called like the wire's but for `type`."""
    return {("type_" if key == "type" else key): value for key, value in mount.items()}


def known(index: int) -> Values:
    """What the generator writes about a container."""
    hosts = {"destination": "/etc/hosts", "type_": "bind", "options": ["rbind", "rprivate", "rw"], "source": "$(sfprefix)hosts$"}
    caps = {kind: ["$(default_caps)"] if kind in ("Bounding", "Effective", "Permitted") else [] for kind in ("Ambient", "Bounding", "Effective", "Inheritable", "Permitted")}
    return {
        "OCI": {
            "Version": "1.1.0",
            "Annotations": annotations(index, "$(bundle-id)", "^[a-z0-9]{64}$", "model-server-[a-z0-9]{5}"),
            "Root": {"Path": "$(root_path)", "Readonly": True},
            "Mounts": [*map(as_input, DEFAULT_MOUNTS), hosts],
            "Process": {
                "Args": arguments(index, "$(sandbox-name)"),
                "Env": ["PATH=/bin", "POD_NAME=$(sandbox-name)", "POD_IP=$(pod-ip)", "NODE_NAME=$(node-name)"],
                "Cwd": "/",
                "Terminal": False,
                "NoNewPrivileges": True,
                "User": {"UID": 65535, "GID": 65535, "AdditionalGids": [65535, 2000 + index], "Username": ""},
                "Capabilities": caps,
            },
            "Linux": {
                "MaskedPaths": make.MASKED,
                "ReadonlyPaths": make.READ_ONLY,
                "Namespaces": [{"Type": kind, "Path": ""} for kind in ("ipc", "uts", "mount")],
                "Sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
            },
        },
        "devices": [],
        "exec_commands": [["/bin/echo", f"worker-{index}"]],
        "runtime_anno_patterns": [],
        "sandbox_pidns": False,
        "storages": [],
    }


def text(containers: int = 5) -> str:
    data = {
        "cluster_config": {"pause_container_image": "registry.example/pause:3.10", "image_digests": [f"registry.example/image@sha256:{n:064x}" for n in range(500)]},
        "common": {
            "cpath": "/run/kata-containers/shared/containers(/passthrough)?",
            "default_caps": make.CAPABILITIES,
            "dns_label": "[a-zA-Z0-9_\\.\\-]+",
            "ip_p": "[0-9]{1,5}",
            "ipv4_a": "((25[0-5]|(2[0-4]|1\\d|[1-9]|)\\d)\\.?\\b){4}",
            "privileged_caps": [*make.CAPABILITIES, "CAP_SYS_ADMIN"],
            "root_path": "/run/kata-containers/shared/containers/$(bundle-id)/rootfs",
            "sfprefix": "^/run/kata-containers/shared/containers/$(bundle-id)-[a-z0-9]{16}-",
            "spath": "/run/kata-containers/sandbox/storage",
            "svc_name_downward_env": "[A-Z](?:[A-Z0-9_]{0,61}[A-Z0-9])?",
        },
        "containers": [known(index) for index in range(containers)],
        "devices": {"vfio": []},
        "request_defaults": {
            "AddARPNeighborsRequest": {"forbidden_cidrs_regex": ["^127\\."], "forbidden_device_names": ["lo"]},
            "CloseStdinRequest": False,
            "CopyFileRequest": ["$(sfprefix)(hosts|resolv\\.conf)$", "^/run/kata-containers/shared/containers/[a-f0-9]{64}(/[a-z]+)*$"],
            "CreateContainerRequest": {"allow_env_regex": ["^HOSTNAME=$(dns_label)$", "^$(svc_name)_SERVICE_HOST=$(ipv4_a)$"]},
            "ExecProcessRequest": {"allowed_commands": [["/bin/true"]], "regex": ["^/bin/check --now$"]},
            "ReadStreamRequest": False,
            "UpdateEphemeralMountsRequest": False,
            "UpdateInterfaceRequest": {"allow_raw_flags": 64, "forbidden_names": ["lo"]},
            "UpdateRoutesRequest": {"forbidden_device_names": ["lo"], "forbidden_pairs": []},
            "WriteStreamRequest": False,
        },
        "sandbox": {"storages": []},
    }
    return f"{RULES.read_text()}\npolicy_data := {json.dumps(data, indent=2)}\n"


def create(index: int, pod: str = POD) -> Values:
    """A request that the policy lets through, as a runtime sends it."""
    own = container_id(index)
    first = {
        "Args": [word.replace("$$", "$") for word in arguments(index, pod)],
        "Env": ["PATH=/bin", f"POD_NAME={pod}", "POD_IP=10.244.0.17", "NODE_NAME=node-a.example", f"HOSTNAME={pod}", "KUBERNETES_SERVICE_HOST=10.96.0.1"],
        "Cwd": "/",
        "NoNewPrivileges": True,
        "User": {"UID": 65535, "GID": 65535, "AdditionalGids": [2000 + index, 65535]},
        "Capabilities": {kind: make.CAPABILITIES for kind in ("Bounding", "Effective", "Permitted")},
    }
    spec = make.specification(own, "pod1", f"{make.SHARED}/{own}/rootfs", first)
    spec["Root"]["Readonly"] = True
    spec["Annotations"] = {**annotations(index, own, SANDBOX, pod), "nerdctl/network-namespace": NETWORK}
    spec["Mounts"] = DEFAULT_MOUNTS
    spec["Linux"]["Sysctl"] = {}
    return {"container_id": own, "exec_id": own, "OCI": spec}


def execute(index: int, *words: str) -> Values:
    process = {**create(index)["OCI"]["Process"], "Args": list(words)}
    return {"container_id": container_id(index), "exec_id": "probe", "process": process}
