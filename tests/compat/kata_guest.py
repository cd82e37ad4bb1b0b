"""A pod's life in a guest, as a Kata runtime drives it: `kata_client.py` against `innerkeep-agent` as process 1, over vsock.

    kata_guest.py vsock-uds:///run/vm.vsock:1024

The guest has roots with a shell below the directory that host and guest share, for the container `py1` and those of `kata_policy.py`, and an agent whose
policy permits everything. The end is the guest's: DestroySandbox. Prints a line for each part that is as it has to be; exit status 0 only if all are.
`tests/tests/vm_python.rs` boots such a guest.
"""

from __future__ import annotations

import sys
from typing import Any

import kata_client as kata
import kata_policy as policy
import kata_requests as make
from kata_client import Code

Values = dict[str, Any]
POD = "pod1"
SCRIPT = "echo out; echo err >&2; read line; echo got $line; trap 'echo the end > /dev/termination-log; exit 7' TERM; while :; do sleep 0.05; done"
FILES = f"{make.SHARED}/py1-0123456789abcdef"
HOSTS = "".join(f"192.0.2.{number} host-{number}\n" for number in range(255)).encode()


def expect(error: kata.RpcError, code: Code, text: str) -> None:
    """Exactly this text."""
    assert (error.code, error.text) == (code, text), error


def starts(error: kata.RpcError, code: Code, text: str) -> None:
    assert error.code == code and error.text.startswith(text), error


def of(container: str, execution: str = "", **more: Any) -> Values:
    return {"container_id": container, "exec_id": execution, **more}


def root(container: str) -> str:
    return f"{make.SHARED}/{container}/rootfs"


def read(client: kata.Client, method: str, process: Values, until: str | None) -> str:
    """Reads until there is this text, or to the end."""
    said = b""
    while until is None or until not in said.decode():
        data = client.call(method, {**process, "len": 4096}).get("data", b"")
        if not data:
            assert until is None, (until, said)
            break
        said += data
    return said.decode()


class Pod:
    """Two connections, as a shim and its forwarder of output have."""

    def __init__(self, address: str) -> None:
        self.client, self.other = kata.Client(address, 90), kata.Client(address, 90)
        self.events = self.other.begin("GetOOMEvent")


# COMPAT: GetGuestDetails same
# COMPAT: CreateSandbox same
def a_sandbox_begins(pod: Pod) -> None:
    client = pod.client
    details = client.GetGuestDetails(mem_block_size=True, mem_hotplug_probe=True)
    assert details["agent_details"]["init_daemon"] is True and details["mem_block_size_bytes"] % (1 << 20) == 0, details
    shm = {
        "driver": "ephemeral", "source": "shm", "fstype": "tmpfs", "mount_point": "/run/kata-containers/sandbox/shm",
        "options": ["noexec", "nosuid", "nodev", "mode=1777", "size=1048576"],
    }  # fmt: skip
    client.CreateSandbox(hostname="python-pod", sandbox_id=POD, dns=["nameserver 192.0.2.53"], storages=[shm])


# COMPAT: CopyFile same: what a container mounts where host and guest share no file system
def files_are_copied(pod: Pod) -> None:
    for name, data in (("hosts", HOSTS), ("termination-log", b"")):
        for piece in make.copy_file(f"{FILES}-{name}", data, piece=2000):
            pod.client.call("CopyFile", piece)


# COMPAT: CreateContainer, StartContainer same: the process is made by the one, and runs by the other
# COMPAT: ExecProcess stricter: only in a running container
# COMPAT: ReadStdout, ReadStderr same: a read waits for what comes, also before the start
# COMPAT: WriteStdin same: takes all, and answers how much
def a_container_runs(pod: Pod) -> None:
    client = pod.client
    request = make.create("py1", POD, root("py1"), make.process("sh", "-c", SCRIPT))
    # Shared memory is the sandbox's.
    mounts = [one for one in request["OCI"]["Mounts"] if one["destination"] != "/dev/shm"]
    request["OCI"]["Mounts"] = [
        *mounts,
        make.mount("/dev/shm", "bind", "/run/kata-containers/sandbox/shm", "rbind"),
        make.mount("/etc/hosts", "bind", f"{FILES}-hosts", "rbind", "rprivate", "ro"),
        make.mount("/dev/termination-log", "bind", f"{FILES}-termination-log", "rbind", "rprivate", "rw"),
    ]
    request["OCI"]["Annotations"]["io.kubernetes.container.terminationMessagePath"] = "/dev/termination-log"
    client.call("CreateContainer", request)
    starts(client.refused("ExecProcess", of("py1", "early", process=make.process("true"))), Code.FAILED_PRECONDITION, "CONTAINER_STATE")
    # The forwarder reads before the container starts.
    first = pod.other.begin("ReadStdout", of("py1", len=4096))
    client.StartContainer(container_id="py1")
    assert pod.other.end("ReadStdout", first) == {"data": b"out\n"}
    assert read(client, "ReadStderr", of("py1", "py1"), "\n") == "err\n"
    assert client.WriteStdin(**of("py1", data=b"hello\n")) == {"len": 6}
    assert read(client, "ReadStdout", of("py1"), "\n") == "got hello\n"
    starts(client.refused("CreateContainer", request), Code.INTERNAL, "CONTAINER_ID_TAKEN")
    starts(client.refused("StartContainer", {"container_id": "py1"}), Code.FAILED_PRECONDITION, "CONTAINER_STATE")
    expect(client.refused("TtyWinResize", of("py1", row=24, column=80)), Code.UNAVAILABLE, '"no tty"')


# COMPAT: ExecProcess same: starts at once, with a terminal or pipes; `exec_id 'X' already exists`; HOME of the container's passwd
# COMPAT: TtyWinResize same
# COMPAT: CloseStdin, WriteStdin same: the end of input; a write without data is one, as runtime-rs does it
def processes_are_added(pod: Pod) -> None:
    client = pod.client
    term = of("py1", "term")
    client.call("ExecProcess", {**term, "process": make.process("sh", terminal=True)})
    expect(client.refused("ExecProcess", {**term, "process": make.process("sh")}), Code.INTERNAL, "exec_id 'term' already exists")
    expect(client.refused("ExecProcess", of("py1", "none")), Code.INTERNAL, "Unable to parse process from ExecProcessRequest")
    client.TtyWinResize(**term, row=41, column=101)
    client.WriteStdin(**term, data=b"stty size; tty; hostname; echo $HOME $((40 + 2)); exit 5\n")
    said = read(client, "ReadStdout", term, "/root 42")
    assert "41 101" in said and "/dev/pts/" in said and "python-pod" in said, said
    assert client.WaitProcess(**term) == {"status": 5}
    hosts = of("py1", "hosts")
    client.call("ExecProcess", {**hosts, "process": make.process("cat", "/etc/hosts")})
    assert read(client, "ReadStdout", hosts, None).encode() == HOSTS
    for name, end in (("close", "CloseStdin"), ("empty", "WriteStdin")):
        cat = of("py1", name)
        client.call("ExecProcess", {**cat, "process": make.process("cat", uid=1000)})
        waiting = pod.other.begin("WaitProcess", cat)
        client.WriteStdin(**cat, data=b"abc")
        client.call(end, cat)
        # No data is the end, for ever.
        assert read(client, "ReadStdout", cat, None) == "abc"
        assert client.ReadStdout(**cat, len=10) == {}
        assert pod.other.end("WaitProcess", waiting) == {}
    for method, code in [
        ("WaitProcess", Code.NOT_FOUND), ("SignalProcess", Code.NOT_FOUND), ("ReadStdout", Code.NOT_FOUND), ("CloseStdin", Code.NOT_FOUND),
        ("WriteStdin", Code.INTERNAL),
    ]:  # fmt: skip
        expect(client.refused(method, of("py1", "nobody")), code, "InvalidExecId")


# COMPAT: StatsContainer, UpdateContainer, PauseContainer, ResumeContainer same
def a_container_has_figures_and_limits(pod: Pod) -> None:
    client = pod.client
    stats = client.StatsContainer(container_id="py1")["cgroup_stats"]
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0 and stats["memory_stats"]["usage"]["usage"] > 0, stats
    assert 1 <= stats["pids_stats"]["current"] <= 3 and "stats" in stats["memory_stats"], stats
    client.UpdateContainer(container_id="py1", resources={"Pids": {"Limit": 77}, "Memory": {"Limit": 64 << 20}})
    stats = client.StatsContainer(container_id="py1")["cgroup_stats"]
    assert stats["pids_stats"]["limit"] == 77 and stats["memory_stats"]["usage"]["limit"] == 64 << 20, stats
    starts(client.refused("ResumeContainer", {"container_id": "py1"}), Code.INTERNAL, "CONTAINER_STATE: failed to resume container: current status is: running")
    client.PauseContainer(container_id="py1")
    starts(client.refused("PauseContainer", {"container_id": "py1"}), Code.INTERNAL, "CONTAINER_STATE: failed to pause container: current status is: paused")
    client.ResumeContainer(container_id="py1")
    metrics = client.GetMetrics()["metrics"]
    assert "kata_agent_total_vm" in metrics or "kata_agent_" in metrics


# COMPAT: SignalProcess same: a signal that comes too late is none
# COMPAT: WaitProcess better: the status stays until the container is removed
# COMPAT: GetDiagnosticData same: what the container wrote where Kubernetes looks for its last words
# COMPAT: RemoveContainer same
def a_container_ends(pod: Pod) -> None:
    client = pod.client
    waiting = [one.begin("WaitProcess", of("py1")) for one in (client, pod.other)]
    client.SignalProcess(**of("py1", signal=15))
    assert client.end("WaitProcess", waiting[0]) == {"status": 7} and pod.other.end("WaitProcess", waiting[1]) == {"status": 7}
    assert client.WaitProcess(**of("py1", "py1")) == {"status": 7}
    client.SignalProcess(**of("py1", signal=15))
    client.SignalProcess(**of("py1", signal=9))
    assert client.ReadStdout(**of("py1", len=10)) == {}
    assert client.GetDiagnosticData(log_type="termination_log", container_id="py1") == {"data": "the end\n"}
    client.RemoveContainer(container_id="py1")
    expect(client.refused("WaitProcess", of("py1")), Code.INVALID_ARGUMENT, "InvalidContainerId")
    expect(client.refused("RemoveContainer", {"container_id": "py1"}), Code.INTERNAL, "Invalid container id")


# COMPAT: SetPolicy, CreateContainer, ExecProcess same: a policy of the generated kind decides as upstream decides
# COMPAT: CreateContainer stricter: a denial names rule and field, and no value
# COMPAT: RemoveContainer better: the policy's state changes with the effect, and not without it
def a_generated_policy_decides(pod: Pod) -> None:
    client = pod.client
    client.SetPolicy(policy=policy.text())
    pause, worker = policy.container_id(0), policy.container_id(1)
    probe = policy.execute(1, "/bin/echo", "worker-1")
    # Nothing is known of the container yet.
    starts(client.refused("ExecProcess", probe), Code.PERMISSION_DENIED, '"ExecProcessRequest is blocked by policy: ')
    for index, own in ((0, pause), (1, worker)):
        client.call("CreateContainer", policy.create(index))
        client.StartContainer(container_id=own)
    starts(client.refused("CreateContainer", policy.create(2, "model-server-other")), Code.PERMISSION_DENIED, '"CreateContainerRequest is blocked by policy: ')
    client.call("ExecProcess", probe)
    assert client.WaitProcess(**of(worker, "probe")) == {}
    shell = policy.execute(1, "/bin/sh", "-c", "echo evil")
    error = client.refused("ExecProcess", {**shell, "exec_id": "evil"})
    starts(error, Code.PERMISSION_DENIED, '"ExecProcessRequest is blocked by policy: ')
    assert "process.Args" in error.text and "evil" not in error.text, error
    expect(client.refused("WaitProcess", of(worker, "evil")), Code.NOT_FOUND, "InvalidExecId")
    # It permits no reading: the end, at once, and whoever writes is not held up.
    assert client.ReadStdout(**of(worker, len=100)) == {}
    starts(client.refused("SetPolicy", {"policy": policy.text()}), Code.PERMISSION_DENIED, '"SetPolicyRequest is blocked by policy')
    client.SignalProcess(**of(worker, signal=15))
    assert client.WaitProcess(**of(worker)) == {"status": 5}
    client.RemoveContainer(container_id=worker)
    starts(client.refused("ExecProcess", probe), Code.PERMISSION_DENIED, '"ExecProcessRequest is blocked by policy')


# COMPAT: DestroySandbox same: the machine ends
# COMPAT: GetOOMEvent same: who waits is told of the end
def the_sandbox_ends(pod: Pod) -> None:
    end = pod.client.begin("DestroySandbox")
    expect(pod.other.end_refused("GetOOMEvent", pod.events), Code.INTERNAL, '""')
    assert pod.client.end("DestroySandbox", end) == {}


def main(address: str) -> None:
    pod = Pod(address)
    for part in (
        a_sandbox_begins,
        files_are_copied,
        a_container_runs,
        processes_are_added,
        a_container_has_figures_and_limits,
        a_container_ends,
        a_generated_policy_decides,
        the_sandbox_ends,
    ):
        part(pod)
        print(f"ok {part.__name__}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
