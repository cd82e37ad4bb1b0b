"""`innerkeep-agent` against a client that was written from the wire's table alone, over a Unix socket, outside of a guest.

Every method is reached: it does what it is asked to, or answers exactly the error that runtimes know. What the agent did is looked at from outside of
it. Containers need control groups of a guest: `kata_guest.py`. Needs user namespaces, no root. Exit status 0 only if everything passed.
"""

from __future__ import annotations

import copy
import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import kata_client as kata
import kata_policy as policy
import kata_requests as make
from kata_beside import HARDWARE, Beside, inside
from kata_client import Code

WIRE = kata.Wire.read()
AGENT = [method for method in WIRE.methods.values() if method.service == "grpc.AgentService"]
READS = ("ReadStdout", "ReadStderr")
RULES = sorted({method.request.removeprefix("grpc.") for method in AGENT})
ALLOW_ALL = "package agent_policy\n\n" + "".join(f"default {rule} := true\n" for rule in RULES)
SERVING = 1
MAXIMUM_TEXT = 512


def expect(error: kata.RpcError, code: Code, text: str) -> None:
    """Exactly this text."""
    assert (error.code, error.text) == (code, text), error


def starts(error: kata.RpcError, code: Code, text: str) -> None:
    assert error.code == code and error.text.startswith(text), error


def rule_of(method: str) -> str:
    return WIRE.methods[method].request.removeprefix("grpc.")


# ---- the connection --------------------------------------------------------------------------------------------------


# COMPAT: Check same
# COMPAT: Version same
def health_is_served_to_everybody(agent: Beside) -> None:
    with agent.client() as client:
        assert client.Check(service="anything") == {"status": SERVING}
        version = client.Version()
        assert version["grpc_version"] == "0.0.1" and version["agent_version"] == "4.1.0", version


def evil_container_connects(agent: Beside) -> None:
    """Whoever is in other namespaces is not served, root or not."""
    program = [sys.executable, "-B", kata.__file__, agent.address, "Check"]
    assert subprocess.run(program, capture_output=True, check=True).stdout == b'{"status": 1}\n'
    elsewhere = subprocess.run(["unshare", "--mount", *program], capture_output=True, text=True)
    assert elsewhere.returncode != 0 and not elsewhere.stdout, elsewhere
    until = time.monotonic() + 30
    while "a peer that is not the host was not served" not in agent.log.read_text():
        assert time.monotonic() < until
        time.sleep(0.02)


def what_is_not_there_is_told_as_upstream_tells_it(agent: Beside) -> None:
    with agent.client() as client:
        for service, method, code, text in [
            ("grpc.Health", "Watch", Code.UNIMPLEMENTED, "Watch method"),
            ("grpc.AgentService", "PullImage", Code.UNIMPLEMENTED, "PullImage method"),
            ("grpc.AgentService", "Check", Code.UNIMPLEMENTED, "Check method"),
            ("grpc.Nothing", "Check", Code.INVALID_ARGUMENT, "grpc.Nothing service does not exist"),
            ("", "", Code.INVALID_ARGUMENT, " service does not exist"),
        ]:
            try:
                client.end_raw(client.begin_raw(service, method, b""))
                raise AssertionError(method)
            except kata.RpcError as error:
                expect(error, code, text)


def answer_of(client: kata.Client, stream: int) -> kata.RpcError:
    try:
        client.end_raw(stream)
    except kata.RpcError as error:
        return error
    raise AssertionError("no error")


def evil_host_sends_frames_that_are_none(agent: Beside) -> None:
    """Each costs its own connection at most: the one beside it is served all the time."""
    call = kata.encode(kata.ENVELOPE, "Request", {"service": "grpc.Health", "method": "Check"})
    with agent.client() as beside:
        with agent.client() as client:
            kata.send_frame(client.link, 2, kata.REQUEST, call)
            expect(answer_of(client, 2), Code.INVALID_ARGUMENT, "stream id must be odd")
            kata.send_frame(client.link, 7, 3, b"data")
            expect(answer_of(client, 7), Code.INVALID_ARGUMENT, "Stream is no longer active")
            # Of a kind that nobody knows: passed over.
            kata.send_frame(client.link, 9, 77, b"?")
            # A request that is none of its method's.
            for payload in (b"\x0a", b"\xff" * 11, b"\x0a\x05ab", b"\x0b", b"\x0a\x02\xff\xff"):
                starts(answer_of(client, client.begin_raw("grpc.AgentService", "StartContainer", payload)), Code.INVALID_ARGUMENT, "REQUEST_MALFORMED")
            # The longest frame, and one byte more.
            for excess in (0, 1):
                envelope = kata.encode(kata.ENVELOPE, "Request", {"service": "grpc.Health", "method": "Check", "payload": b"x" * (kata.MAXIMUM_PAYLOAD - 32)})
                envelope = kata.encode(
                    kata.ENVELOPE,
                    "Request",
                    {"service": "grpc.Health", "method": "Check", "payload": b"x" * (2 * kata.MAXIMUM_PAYLOAD - 32 - len(envelope) + excess)},
                )
                assert len(envelope) == kata.MAXIMUM_PAYLOAD + excess
                kata.send_frame(client.link, 101 + 2 * excess, kata.REQUEST, envelope)
                error = answer_of(client, 101 + 2 * excess)
                length = f"message length {len(envelope)} exceed maximum message size of {kata.MAXIMUM_PAYLOAD}"
                (expect if excess else starts)(error, Code.INVALID_ARGUMENT, length if excess else "REQUEST_")
            assert client.Check() == {"status": SERVING}
        for garbage in (b"\xff" * 64, b"\x0b\x0c", bytes(range(1, 200))):
            with agent.client(10) as client:
                kata.send_frame(client.link, 1, kata.REQUEST, garbage)
                try:
                    assert answer_of(client, 1).code == Code.INVALID_ARGUMENT
                except ConnectionError:
                    pass
        # Frames that are cut off.
        for cut in (3, 10, 14):
            with agent.client() as client:
                client.link.sendall((struct.pack(">IIBB", len(call), 1, kata.REQUEST, 0) + call)[:cut])
        assert beside.Check() == {"status": SERVING}


def calls_of_one_connection_wait_beside_each_other(agent: Beside) -> None:
    with agent.client() as client, agent.client() as other:
        waiting = [client.begin("GetOOMEvent", timeout_nano=400_000_000) for _ in range(8)]
        checks = [client.begin("Check") for _ in range(64)]
        # With what tracing adds.
        traced = client.begin_raw("grpc.Health", "Check", b"", metadata={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
        assert client.end("Check", traced) == {"status": SERVING}
        # In any order, and on every connection, while eight wait.
        for stream in reversed(checks):
            assert client.end("Check", stream) == {"status": SERVING}
        assert other.ListRoutes() is not None
        for stream in waiting:
            expect(client.end_refused("GetOOMEvent", stream), Code.DEADLINE_EXCEEDED, "timeout")


def evil_host_deadline_before_the_effect(agent: Beside) -> None:
    path = f"{make.SHARED}/late"
    with agent.client() as client:
        (request,) = make.copy_file(path, b"late")
        expect(client.refused("CopyFile", request, timeout_nano=1), Code.DEADLINE_EXCEEDED, "timeout")
        # What comes behind it in the queue says that it is over.
        client.call("CopyFile", {**request, "path": f"{path}r"})
        assert not agent.succeeds(f"test -e {path}") and agent.succeeds(f"test -e {path}r")


# ---- the policy ------------------------------------------------------------------------------------------------------


def without_a_policy_every_request_is_denied(agent: Beside) -> None:
    before = agent.shell("/run/sbin/ip -o addr; cut -d' ' -f5 /proc/self/mountinfo; find /run | sort")
    with agent.client() as client:
        for method in AGENT:
            values = {"interface": {}} if method.name == "UpdateInterface" else {}
            if method.name in READS:
                assert client.call(method.name) == {}, method
                continue
            error = client.refused(method.name, values)
            starts(error, Code.PERMISSION_DENIED, f'"{rule_of(method.name)} is blocked by policy: ')
            assert "POLICY_ABSENT" in error.text and len(error.text.encode()) <= MAXIMUM_TEXT, error
    assert agent.shell("/run/sbin/ip -o addr; cut -d' ' -f5 /proc/self/mountinfo; find /run | sort") == before


NAMED = """package agent_policy

default AllowRequestsFailingPolicy := false

ExecProcessRequest if {
    print("host reads this", input)
    input.process.Args == ["/bin/true"]
}

CopyFileRequest if {
    startswith(input.path, "/run/kata-containers/shared/containers/good-")
    input.uid == 0
}

default StatsContainerRequest := false

default ReadStreamRequest := false

TtyWinResizeRequest := {"allowed": input.row < 100}

SetPolicyRequest if input.policy == "never"
"""


def denials_name_rule_and_field(agent: Beside) -> None:
    secret = "not-for-the-host"
    with agent.client() as client:
        assert client.call("ReadStdout", {"container_id": "c1", "len": 5}) == {}
        allowed = client.refused("ExecProcess", {"container_id": "c1", "exec_id": "e1", "process": make.process("/bin/true")})
        expect(allowed, Code.INTERNAL, "Invalid container id")
        for method, values, field in [
            ("ExecProcess", {"container_id": "c1", "exec_id": "e1", "process": make.process("/bin/sh", env=(f"TOKEN={secret}",))}, "process.Args"),
            ("CopyFile", {"path": f"{make.SHARED}/{secret}", "file_mode": make.REGULAR}, "path"),
            ("CopyFile", {"path": f"{make.SHARED}/good-{secret}", "file_mode": make.REGULAR, "uid": 7}, "uid"),
            ("TtyWinResize", {"container_id": "c1", "row": 1000}, ""),
            ("StatsContainer", {"container_id": secret}, ""),
            ("ListRoutes", {}, "POLICY_UNDEFINED"),
            ("SetPolicy", {"policy": ALLOW_ALL}, "policy"),
        ]:
            error = client.refused(method, values)
            starts(error, Code.PERMISSION_DENIED, f'"{rule_of(method)} is blocked by policy: {rule_of(method)}')
            assert field in error.text and error.text.endswith(']"') and len(error.text.encode()) <= MAXIMUM_TEXT, error
            assert secret not in error.text and "host reads" not in error.text, error
        # The old policy decides.
        assert client.refused("SetPolicy", {"policy": ALLOW_ALL}).code == Code.PERMISSION_DENIED
    assert not agent.succeeds(f"ls {make.SHARED}/*{secret}")
    assert secret not in agent.log.read_text()


# COMPAT: SetPolicy better: a text that is no policy leaves the old one in force
def a_policy_is_replaced_as_a_whole_or_not_at_all(agent: Beside) -> None:
    with agent.client() as client:
        error = client.refused("SetPolicy", {"policy": "package agent_policy\n\nCheck if {\n"})
        starts(error, Code.INVALID_ARGUMENT, '"POLICY_')
        assert client.ListRoutes() is not None
        client.SetPolicy(policy="package agent_policy\n\ndefault SetPolicyRequest := true\n")
        starts(client.refused("ListRoutes"), Code.PERMISSION_DENIED, '"ListRoutesRequest is blocked by policy')
        client.SetPolicy(policy=ALLOW_ALL)
        assert client.ListRoutes() is not None


AT_THE_USER = "STREAM_SYSTEM: change the owner of a stream: Invalid argument (os error 22)"


# COMPAT: CreateContainer, ExecProcess, CopyFile same: a policy of the generated kind decides as upstream decides
def a_generated_policy_decides(agent: Beside) -> None:
    worker = policy.container_id(1)
    with agent.client() as client:
        for place in ("", "/rootfs", "/rootfs/proc", "/rootfs/dev", "/rootfs/sys"):
            for index in (0, 1):
                client.CopyFile(path=f"{make.SHARED}/{policy.container_id(index)}{place}", file_mode=make.DIRECTORY | 0o755, dir_mode=make.DIRECTORY | 0o755)
        # Through the gate and every step, up to its process: its user is none of this user namespace.
        for index in (0, 1):
            expect(client.refused("CreateContainer", policy.create(index)), Code.INTERNAL, AT_THE_USER)
        # So the policy's state is as before: another pod's name may come first, and the container is not one that a probe may run in.
        expect(client.refused("CreateContainer", policy.create(1, "model-server-zzzzz")), Code.INTERNAL, AT_THE_USER)
        expect(client.refused("ExecProcess", policy.execute(1, "/bin/true")), Code.INTERNAL, "Invalid container id")
        starts(client.refused("ExecProcess", policy.execute(1, "/bin/echo", "worker-1")), Code.PERMISSION_DENIED, '"ExecProcessRequest is blocked by policy: ')

        def altered(*way: str | int, to: object) -> dict[str, object]:
            request = copy.deepcopy(policy.create(1))
            place: Any = request
            for step in way[:-1]:
                place = place[step]
            place[way[-1]] = to
            return request

        for field, request in [
            ("OCI.Process.Args[3]", altered("OCI", "Process", "Args", 3, to="--worker=99")),
            ("OCI.Process.Env[1]", altered("OCI", "Process", "Env", 1, to="LD_PRELOAD=/evil.so")),
            ("OCI.Process.User.UID", altered("OCI", "Process", "User", "UID", to=0)),
            ("OCI.Process.Capabilities.Effective", altered("OCI", "Process", "Capabilities", "Effective", to=["CAP_SYS_ADMIN"])),
            ("OCI.Process.Terminal", altered("OCI", "Process", "Terminal", to=True)),
            ("OCI.Process.NoNewPrivileges", altered("OCI", "Process", "NoNewPrivileges", to=False)),
            ("OCI.Root.Path", altered("OCI", "Root", "Path", to=f"{make.SHARED}/other/rootfs")),
            ("OCI.Root.Readonly", altered("OCI", "Root", "Readonly", to=False)),
            ("OCI.Mounts[0]", altered("OCI", "Mounts", to=[make.mount("/evil", "bind", "/run/evil", "rbind")])),
            ("OCI.Hooks", altered("OCI", "Hooks", to={"Prestart": [{"Path": "/bin/evil"}]})),
            ("sandbox_pidns", altered("sandbox_pidns", to=True)),
            ("devices", altered("devices", to=[{"id": "02", "type": "blk", "container_path": "/dev/evil"}])),
            ("storages", altered("storages", to=[{"driver": "blk", "source": "02", "fstype": "ext4", "mount_point": "/run/kata-containers/x"}])),
        ]:
            error = client.refused("CreateContainer", request)
            starts(error, Code.PERMISSION_DENIED, '"CreateContainerRequest is blocked by policy: ')
            assert field in error.text and len(error.text.encode()) <= MAXIMUM_TEXT and "evil" not in error.text, (field, error)
        for path in (f"{make.SHARED}/{worker}/rootfs/../../x", "/etc/shadow"):
            starts(client.refused("CopyFile", {"path": path, "file_mode": make.REGULAR | 0o600}), Code.PERMISSION_DENIED, '"CopyFileRequest is blocked by policy: ')
        assert client.call("ReadStdout", {"container_id": worker, "len": 5}) == {}
        # Those that the generator leaves open.
        expect(client.refused("StatsContainer", {"container_id": worker}), Code.INVALID_ARGUMENT, '"invalid container id"')
        assert client.GetGuestDetails()


# ---- the methods, with everything permitted --------------------------------------------------------------------------


# COMPAT: StartContainer, RemoveContainer, ExecProcess same: code and text where there is no such container
# COMPAT: SignalProcess, WaitProcess, ReadStdout, ReadStderr, CloseStdin, TtyWinResize, WriteStdin same: codes and texts where there is no such process
# COMPAT: UpdateContainer, StatsContainer, PauseContainer, ResumeContainer same: code and text where there is no such container
# COMPAT: GetDiagnosticData same: code and text for another kind of log
def containers_that_are_not_there_are_told_as_runtimes_expect(agent: Beside) -> None:
    with agent.client() as client:
        for method in ("StartContainer", "RemoveContainer", "ExecProcess"):
            values = {"exec_id": "e1", "process": make.process("true")} if method == "ExecProcess" else {}
            expect(client.refused(method, {"container_id": "none", **values}), Code.INTERNAL, "Invalid container id")
        for method in ("SignalProcess", "WaitProcess", "ReadStdout", "ReadStderr", "CloseStdin"):
            expect(client.refused(method, {"container_id": "none"}), Code.INVALID_ARGUMENT, "InvalidContainerId")
        expect(client.refused("TtyWinResize", {"container_id": "none", "row": 24, "column": 80}), Code.INVALID_ARGUMENT, "InvalidContainerId")
        expect(client.refused("WriteStdin", {"container_id": "none", "data": b"x"}), Code.INTERNAL, "InvalidContainerId")
        for method in ("UpdateContainer", "StatsContainer", "PauseContainer", "ResumeContainer"):
            expect(client.refused(method, {"container_id": "none"}), Code.INVALID_ARGUMENT, '"invalid container id"')
        expect(client.refused("GetDiagnosticData", {"log_type": "kernel", "container_id": "none"}), Code.INVALID_ARGUMENT, "unsupported diagnostic log_type: kernel")
        expect(client.refused("GetDiagnosticData", {"log_type": "termination_log", "container_id": "none"}), Code.INVALID_ARGUMENT, '"invalid container id"')


# COMPAT: CreateContainer stricter: everything is taken back when a step fails or the caller's time is over
def a_container_without_control_groups_leaves_nothing(agent: Beside) -> None:
    root = f"{make.SHARED}/c1/rootfs"
    with agent.client() as client:
        for path in (root, f"{root}/proc", f"{root}/dev", f"{root}/sys"):
            client.CopyFile(path=path, file_mode=make.DIRECTORY | 0o755, dir_mode=make.DIRECTORY | 0o755)
        starts(client.refused("CreateContainer", make.create("c1", "pod1", root, make.process("true"))), Code.INTERNAL, "ENGINE_NOT_ENFORCED: ")
        # What is made once is there now.
        before = agent.shell("cut -d' ' -f5 /proc/self/mountinfo; find /run -xdev | sort")
        starts(client.refused("CreateContainer", {"container_id": "c1"}), Code.INTERNAL, "EINVAL")
        starts(client.refused("CreateContainer", {**make.create("c1", "pod1", root, make.process("true")), "container_id": "../c1"}), Code.INVALID_ARGUMENT, "REQUEST_ID")
        missing = make.create("c1", "pod1", "/etc", make.process("true"))
        starts(client.refused("CreateContainer", missing), Code.INTERNAL, "CONTAINER_ROOT")
        storage = {"storages": [{"driver": "floppy", "mount_point": root}]}
        unknown = {**make.create("c1", "pod1", root, make.process("true")), **storage}
        starts(client.refused("CreateContainer", unknown), Code.INTERNAL, "Failed to find the storage handler floppy")
        unknown = {**make.create("c1", "pod1", root, make.process("true")), "devices": [{"id": "02", "type": "floppy", "container_path": "/dev/fd0"}]}
        starts(client.refused("CreateContainer", unknown), Code.INTERNAL, "Failed to find the device handler floppy")
        error = client.refused("CreateContainer", make.create("c1", "pod1", root, make.process("true")))
        starts(error, Code.INTERNAL, "ENGINE_NOT_ENFORCED: ")
        expect(client.refused("StartContainer", {"container_id": "c1"}), Code.INTERNAL, "Invalid container id")
        assert agent.shell("cut -d' ' -f5 /proc/self/mountinfo; find /run -xdev | sort") == before


# COMPAT: UpdateInterface same: `Link not found`
# COMPAT: UpdateInterface, UpdateRoutes, AddARPNeighbors same: effect, answer, text of an empty request
# COMPAT: ListInterfaces, ListRoutes same
def the_network_becomes_what_the_host_says(agent: Beside) -> None:
    with agent.client() as client:
        expect(client.refused("UpdateInterface"), Code.INVALID_ARGUMENT, '"empty update interface request"')
        expect(client.refused("UpdateRoutes"), Code.INVALID_ARGUMENT, '"empty update routes request"')
        expect(client.refused("AddARPNeighbors"), Code.INVALID_ARGUMENT, '"empty add arp neighbours request"')
        error = client.refused("UpdateInterface", {"interface": make.interface("eth1", "02:00:ca:fe:ff:ff", "192.0.2.7/24")})
        assert error.code == Code.INTERNAL and "Link not found" in error.text, error
        nowhere = {**make.interface("eth1", HARDWARE), "devicePath": "no/path"}
        error = client.refused("UpdateInterface", {"interface": nowhere})
        assert error.code == Code.INTERNAL and "interface not available: " in error.text, error
        error = client.refused("UpdateRoutes", {"routes": {"Routes": [{"dest": "198.51.100.0/24", "device": "eth9"}]}})
        assert error.code == Code.INTERNAL and "Failed to update routes: " in error.text, error
        wanted = make.interface("eth0", HARDWARE, "192.0.2.7/24", "2001:db8::7/64")
        assert client.UpdateInterface(interface=wanted) == {one: value for one, value in wanted.items() if value} | {
            "IPAddresses": [{key: value for key, value in one.items() if value} for one in wanted["IPAddresses"]]
        }
        (link,) = agent.ip("addr show dev eth0")
        assert link["mtu"] == 1400 and link["address"] == HARDWARE and "UP" in link["flags"], link
        assert {f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one["scope"] == "global"} == {"192.0.2.7/24", "2001:db8::7/64"}
        listed = {one["name"]: one for one in client.ListInterfaces()["Interfaces"]}
        assert listed["eth0"]["hwAddr"] == HARDWARE and {"address": "192.0.2.7", "mask": "24"} in listed["eth0"]["IPAddresses"], listed
        gateway = {"gateway": "192.0.2.1", "device": "eth0"}
        direct = {"dest": "198.51.100.0/24", "device": "eth0", "scope": 253}
        routes = client.UpdateRoutes(routes={"Routes": [gateway, direct]})
        listed = client.ListRoutes()["Routes"]
        assert all(one in listed for one in routes["Routes"] if not one.get("dest", "").startswith("fe80")), (routes, listed)
        # Upstream says so of a route with a gateway.
        assert any(one.get("dest") == "0.0.0.0" and one.get("gateway") == "192.0.2.1" for one in routes["Routes"]), routes
        found = {one["dst"]: one for one in agent.ip("route show table main")}
        assert found["default"]["gateway"] == "192.0.2.1" and found["198.51.100.0/24"]["dev"] == "eth0", found
        neighbour = {"toIPAddress": {"address": "192.0.2.9"}, "device": "eth0", "lladdr": "02:00:00:00:00:09"}
        client.AddARPNeighbors(neighbors={"ARPNeighbors": [neighbour]})
        (found,) = agent.ip("neigh show to 192.0.2.9")
        assert found["lladdr"] == "02:00:00:00:00:09" and found["state"] == ["PERMANENT"], found


# COMPAT: GetIPTables, SetIPTables stricter: a clear error where the image has no program for it
def filters_without_a_program_are_an_error(agent: Beside) -> None:
    with agent.client() as client:
        for is_ipv6 in (False, True):
            starts(client.refused("GetIPTables", {"is_ipv6": is_ipv6}), Code.FAILED_PRECONDITION, "IPTABLES_MISSING")
            starts(client.refused("SetIPTables", {"is_ipv6": is_ipv6, "data": b"*filter\nCOMMIT\n"}), Code.FAILED_PRECONDITION, "IPTABLES_MISSING")


# COMPAT: GetGuestDetails, OnlineCPUMem, GetMetrics same
# COMPAT: MemHotplugByProbe same: addresses as the kernel's file takes them (a file of the test's own)
# COMPAT: MemAgentMemcgSet, MemAgentCompactSet, ResizeVolume same: code and text of an agent without it
# COMPAT: ReseedRandomDev same: code and text without data
# COMPAT: SetGuestDateTime stricter: a time that is none is an error, and so is a clock that cannot be set
def the_machine_answers(agent: Beside) -> None:
    with agent.client() as client:
        details = client.GetGuestDetails(mem_block_size=True, mem_hotplug_probe=True)
        assert details["mem_block_size_bytes"] == 128 << 20 and not details.get("support_mem_hotplug_probe"), details
        about = details["agent_details"]
        assert about["version"] == "4.1.0" and about["supports_seccomp"] and not about.get("init_daemon"), about
        assert "device_handlers" not in about and about["extra_features"] == ["agent-policy", "seccomp"], about
        assert {"blk", "scsi", "virtio-fs", "ephemeral", "local", "watchable-bind"} <= set(about["storage_handlers"]), about
        agent.shell("echo none > /sys/devices/system/memory/block_size_bytes")
        error = client.refused("GetGuestDetails", {"mem_block_size": True})
        assert error.code == Code.INTERNAL and "Invalid block size" in error.text, error
        assert "mem_block_size_bytes" not in client.GetGuestDetails()
        starts(client.refused("MemHotplugByProbe", {"memHotplugProbeAddr": [1 << 32]}), Code.INTERNAL, "MACHINE_NO_PROBE")
        agent.shell("touch /sys/devices/system/memory/probe")
        assert client.GetGuestDetails(mem_hotplug_probe=True)["support_mem_hotplug_probe"] is True
        client.MemHotplugByProbe(memHotplugProbeAddr=[0x1_4000_0000, 0xAB_C800_0000])
        assert agent.shell("cat /sys/devices/system/memory/probe") == "0xABC8000000"
        client.OnlineCPUMem(nb_cpus=2, cpu_only=True)
        assert agent.shell("cat /sys/devices/system/memory/memory1/online") == "0\n"
        client.OnlineCPUMem(wait=True)
        assert agent.shell("cat /sys/devices/system/memory/memory1/online") == "1"
        metrics = client.GetMetrics()["metrics"]
        assert "kata_agent_scrape_count 1\n" in metrics and "kata_guest_meminfo" in metrics, metrics[:400]
        for method in ("MemAgentMemcgSet", "MemAgentCompactSet"):
            expect(client.refused(method), Code.INTERNAL, "mem-agent is disabled")
        expect(client.refused("ResizeVolume", {"volume_guest_path": "/x"}), Code.UNIMPLEMENTED, '"resize_volume is not implemented in kata-agent"')
        expect(client.refused("ReseedRandomDev"), Code.INTERNAL, "missing entropy data")
        # Only the first user namespace has a clock and random numbers to set.
        starts(client.refused("ReseedRandomDev", {"data": bytes(512)}), Code.INTERNAL, "MACHINE_RANDOM")
        before = time.time()
        starts(client.refused("SetGuestDateTime", {"Sec": 86_400}), Code.INTERNAL, "MACHINE_CLOCK")
        starts(client.refused("SetGuestDateTime", {"Sec": 86_400, "Usec": 1_000_000}), Code.INTERNAL, "MACHINE_TIME")
        assert before <= time.time() < before + 600


# COMPAT: AddSwap, AddSwapPath stricter: only disks, and only behind a cipher whose key nobody keeps
# COMPAT: UpdateEphemeralMounts same: text for storages of another driver
# COMPAT: RemoveStaleVirtiofsShareMounts same
# COMPAT: GetVolumeStats stricter: only what lies below the directory of the runtime
def disks_and_volumes_answer(agent: Beside) -> None:
    with agent.client() as client:
        for path in ("", "/etc/passwd", "/dev/../etc/passwd", f"{make.SHARED}/file"):
            starts(client.refused("AddSwapPath", {"path": path}), Code.INTERNAL, "HOTPLUG_ADDRESS")
        for slots in ([], [32], [1] * 17):
            starts(client.refused("AddSwap", {"PCIPath": slots}), Code.INTERNAL, "HOTPLUG_ADDRESS")
        client.UpdateEphemeralMounts()
        other = {"driver": "blk", "source": "02", "fstype": "ext4", "mount_point": f"{make.SHARED}/x"}
        starts(client.refused("UpdateEphemeralMounts", {"storages": [other]}), Code.INTERNAL, "Unsupported storage type for syncing mounts blk")
        client.RemoveStaleVirtiofsShareMounts()
        client.CopyFile(path=f"{make.SHARED}/volume", file_mode=make.DIRECTORY | 0o755)
        found = client.GetVolumeStats(volume_guest_path=f"{make.SHARED}/volume")
        assert [one["unit"] for one in found["usage"]] == [1, 2] and found["volume_condition"] == {"message": "OK"}, found
        blocks, size = agent.shell(f"stat -f -c '%b %S' {make.SHARED}/volume").split()
        assert found["usage"][0]["total"] == int(blocks) * int(size), (found, blocks, size)
        starts(client.refused("GetVolumeStats", {"volume_guest_path": "/etc"}), Code.INTERNAL, "VOLUME_PLACE")


# COMPAT: CopyFile stricter: `..` is refused, not resolved inside of the directory
def files_come_whole_and_below_their_directory(agent: Beside) -> None:
    data = bytes(range(256)) * 10_000
    with agent.client() as client:
        pieces = make.copy_file(f"{make.SHARED}/a/b/file.txt", data)
        assert len(pieces) == 3
        for piece in pieces:
            assert not agent.succeeds(f"test -e {make.SHARED}/a/b/file.txt")
            client.call("CopyFile", piece)
        agent.shell(f"cp {make.SHARED}/a/b/file.txt {agent.place.name}/copy")
        with open(f"{agent.place.name}/copy", "rb") as copy:
            assert copy.read() == data
        assert agent.shell(f"stat -c %a {make.SHARED}/a/b {make.SHARED}/a/b/file.txt").split() == ["750", "640"]
        client.CopyFile(path=f"{make.SHARED}/a/link", file_mode=make.LINK | 0o777, data=b"b/file.txt")
        assert agent.shell(f"readlink {make.SHARED}/a/link") == "b/file.txt\n"
        (empty,) = make.copy_file(f"{make.SHARED}/empty", b"")
        client.call("CopyFile", empty)
        assert agent.shell(f"stat -c %s {make.SHARED}/empty") == "0\n"
        before = agent.shell("find /run /etc -xdev | sort")
        for path in ("/etc/evil", f"{make.SHARED}/../evil", "/run/kata-containers/evil", "evil"):
            (request,) = make.copy_file(path, b"evil")
            error = client.refused("CopyFile", request)
            assert error.code in (Code.INTERNAL, Code.INVALID_ARGUMENT) and "prefix from" in error.text, error
        # By a link that an earlier copy made.
        client.CopyFile(path=f"{make.SHARED}/a/out", file_mode=make.LINK | 0o777, data=b"/etc")
        (request,) = make.copy_file(f"{make.SHARED}/a/out/evil", b"evil")
        assert client.refused("CopyFile", request).code == Code.INTERNAL
        agent.shell(f"rm {make.SHARED}/a/out")
        assert agent.shell("find /run /etc -xdev | sort") == before


# COMPAT: CreateSandbox same: namespaces, resolv.conf, storages
# COMPAT: DestroySandbox, GetOOMEvent same
def the_sandbox_begins_and_ends(agent: Beside) -> None:
    shm = {
        "driver": "ephemeral", "source": "shm", "fstype": "tmpfs", "mount_point": "/run/kata-containers/sandbox/shm",
        "options": ["noexec", "nosuid", "nodev", "mode=1777", "size=1048576"],
    }  # fmt: skip
    with agent.client() as client, agent.client() as other:
        client.CreateSandbox(hostname="pod-name", sandbox_id="pod1", dns=["nameserver 192.0.2.53", "search example"], storages=[shm])
        assert agent.shell("cat /etc/resolv.conf").split("\n")[:2] == ["nameserver 192.0.2.53", "search example"]
        found = [line.split() for line in agent.shell("cat /proc/self/mountinfo").splitlines()]
        (mounted,) = [line for line in found if line[4] == shm["mount_point"]]
        assert {"nosuid", "nodev", "noexec"} <= set(mounted[5].split(",")) and "size=1024k" in " ".join(mounted), mounted
        assert {line[4] for line in found if "sandbox-ns" in line[4]} == {"/run/sandbox-ns/ipc", "/run/sandbox-ns/uts"}
        waiting = [client.begin("GetOOMEvent"), client.begin("GetOOMEvent")]
        assert other.Check() == {"status": SERVING}
        ends = [client.begin("DestroySandbox"), client.begin("DestroySandbox")]
        answers = []
        for stream in ends:
            try:
                answers.append(client.end("DestroySandbox", stream))
            except kata.RpcError as error:
                expect(error, Code.INTERNAL, '"failed to get sandbox sender channel"')
        # One of both, whichever came first.
        assert answers == [{}]
        for stream in waiting:
            expect(client.end_refused("GetOOMEvent", stream), Code.INTERNAL, '""')
    assert agent.agent.wait(60) == 0, agent.log.read_text()


def every_method_was_called(agent: Beside) -> None:
    missing = {method.name for method in AGENT} - agent.called
    assert not missing, missing


WITH_EVERYTHING = [
    health_is_served_to_everybody,
    what_is_not_there_is_told_as_upstream_tells_it,
    evil_host_sends_frames_that_are_none,
    calls_of_one_connection_wait_beside_each_other,
    evil_host_deadline_before_the_effect,
    a_policy_is_replaced_as_a_whole_or_not_at_all,
    containers_that_are_not_there_are_told_as_runtimes_expect,
    a_container_without_control_groups_leaves_nothing,
    the_network_becomes_what_the_host_says,
    filters_without_a_program_are_an_error,
    the_machine_answers,
    disks_and_volumes_answer,
    files_come_whole_and_below_their_directory,
    # It ends the agent.
    the_sandbox_begins_and_ends,
    every_method_was_called,
]


GROUPS: dict[str, tuple[str | None, list[Callable[[Beside], None]]]] = {
    "no-policy": (None, [health_is_served_to_everybody, evil_container_connects, without_a_policy_every_request_is_denied]),
    "small-policy": (NAMED, [denials_name_rule_and_field]),
    "generated-policy": (policy.text(), [a_generated_policy_decides]),
    "everything-permitted": (ALLOW_ALL, WITH_EVERYTHING),
}


def main(group: str) -> None:
    text, tests = GROUPS[group]
    with Beside(text) as agent:
        for test in tests:
            try:
                test(agent)
            except BaseException:
                print(f"{test.__name__} failed; the agent said:\n{agent.log.read_text()}", file=sys.stderr)
                raise
            print(f"ok {test.__name__}", flush=True)
        for line in agent.log.read_text().splitlines():
            json.loads(line)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        for one in GROUPS:
            inside(__file__, one)
