"""Requests as Kata runtimes send them, for `kata_client.py`: what containerd's and CRI-O's specifications look like when the shim is done with them."""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]
SHARED = "/run/kata-containers/shared/containers"
SANDBOX_ANNOTATION = "io.katacontainers.pkg.oci.container_type"
CAPABILITIES = [
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
]  # fmt: skip
MASKED = ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
DEVICES = [("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9), ("c", 5, 0), ("c", 5, 2), ("c", 136, -1)]
DIRECTORY, REGULAR, LINK = 0o040000, 0o100000, 0o120000


def mount(destination: str, kind: str, source: str, *options: str) -> Values:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def process(*args: str, terminal: bool = False, uid: int = 0, env: tuple[str, ...] = ()) -> Values:
    return {
        "Terminal": terminal,
        "User": {"UID": uid, "GID": uid},
        "Args": list(args),
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *(["TERM=xterm"] if terminal else []), *env],
        "Cwd": "/",
        "Capabilities": {kind: CAPABILITIES for kind in ("Bounding", "Effective", "Permitted")},
        "Rlimits": [{"Type": "RLIMIT_NOFILE", "Hard": 1024, "Soft": 1024}],
        "NoNewPrivileges": True,
    }


def specification(container: str, pod: str, root: str, first: Values) -> Values:
    rules = [{"Allow": False, "Access": "rwm"}, *({"Allow": True, "Type": kind, "Major": major, "Minor": minor, "Access": "rwm"} for kind, major, minor in DEVICES)]
    return {
        "Version": "1.1.0",
        "Process": first,
        "Root": {"Path": root},
        "Mounts": [
            mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
            mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
            mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        ],
        "Annotations": {"io.kubernetes.cri.container-type": "container", SANDBOX_ANNOTATION: "pod_container"},
        "Linux": {
            "CgroupsPath": f"/kubepods/burstable/{pod}/{container}",
            "Namespaces": [{"Type": kind} for kind in ("ipc", "uts", "mount")],
            "Resources": {"Devices": rules},
            "MaskedPaths": MASKED,
            "ReadonlyPaths": READ_ONLY,
        },
    }


def create(container: str, pod: str, root: str, first: Values) -> Values:
    """The first process has the container's id."""
    return {"container_id": container, "exec_id": container, "OCI": specification(container, pod, root, first)}


def copy_file(path: str, data: bytes, mode: int = REGULAR | 0o640, piece: int = 1 << 20) -> list[Values]:
    """A file in the pieces that the Go shim sends it in."""
    common = {"path": path, "file_size": len(data), "file_mode": mode, "dir_mode": DIRECTORY | 0o750}
    return [{**common, "offset": at, "data": data[at : at + piece]} for at in range(0, len(data), piece)] or [common]


def address(text: str) -> Values:
    value, _, prefix = text.partition("/")
    return {"family": 1 if ":" in value else 0, "address": value, "mask": prefix}


def interface(name: str, hardware: str, *addresses: str, mtu: int = 1400) -> Values:
    return {"device": name, "name": name, "IPAddresses": [address(text) for text in addresses], "mtu": mtu, "hwAddr": hardware}
