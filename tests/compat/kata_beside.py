"""`innerkeep-agent` beside another process 1, in namespaces of its own, so that what it is asked to do is done to nobody's machine.

The namespaces belong to a user namespace: clock, swap and the like are out of reach whoever runs this. What the kernel shows in `/sys` of processors
and memory is a small tree of our own, there are no control groups, and the programs of `/usr/sbin` are not where the agent looks for them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import kata_client as kata

PROGRAMS = Path(os.environ.get("INNERKEEP_BIN_DIR", "target/ci")).absolute()
HARDWARE = "02:00:ca:fe:01:48"
PREPARE = f"""
mount -t tmpfs tmpfs /run
mkdir /run/sbin
mount --bind /usr/sbin /run/sbin
mount -t tmpfs tmpfs /usr/sbin
mount -t tmpfs tmpfs /sys/fs/cgroup
mount -t tmpfs tmpfs /sys/devices/system
mkdir -p /sys/devices/system/cpu/cpu0 /sys/devices/system/memory/memory0 /sys/devices/system/memory/memory1
echo 0-1 > /sys/devices/system/cpu/online
echo 8000000 > /sys/devices/system/memory/block_size_bytes
echo 1 > /sys/devices/system/memory/memory0/online
echo 0 > /sys/devices/system/memory/memory1/online
echo 'nameserver 192.0.2.1' > /run/resolv.conf
mount --bind /run/resolv.conf /etc/resolv.conf
/run/sbin/ip link set lo up
/run/sbin/ip link add eth7 address {HARDWARE} type veth peer name other7
/run/sbin/ip link set other7 up
"""


def inside(program: str, *words: str) -> None:
    """Runs this program with these words in namespaces of its own, to its end. The agent serves nobody who is in others than it is."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--uts", "--ipc", "--propagation", "private", sys.executable, "-B", program]
    subprocess.run([*command, *words], check=True)


class Beside:
    """One that serves. `shell` looks at what it sees: this process shares its namespaces."""

    def __init__(self, policy: str | None = None) -> None:
        self.shell(f"set -e\n{PREPARE}")
        self.called: set[str] = set()
        self.place = tempfile.TemporaryDirectory()
        directory = Path(self.place.name)
        self.address = f"unix://{directory}/agent.sock"
        self.log = directory / "log"
        words = [PROGRAMS / "innerkeep-agent", "--server-addr", self.address]
        if policy is not None:
            (directory / "policy.rego").write_text(policy)
            words += ["--policy", directory / "policy.rego"]
        with self.log.open("w") as out:
            self.agent = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        end = time.monotonic() + 60
        while not (directory / "agent.sock").exists():
            assert time.monotonic() < end and self.agent.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: object) -> None:
        self.agent.terminate()
        try:
            self.agent.wait(30)
        finally:
            self.agent.kill()
            self.place.cleanup()

    def client(self, timeout: float = 60) -> kata.Client:
        client = kata.Client(self.address, timeout)
        client.called = self.called
        return client

    def run(self, line: str) -> tuple[int, str]:
        """Status and output of a line of shell."""
        said = subprocess.run(["sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        return said.returncode, said.stdout + said.stderr

    def succeeds(self, line: str) -> bool:
        return self.run(line)[0] == 0

    def shell(self, line: str) -> str:
        status, said = self.run(line)
        assert status == 0, (line, status, said)
        return said

    def ip(self, words: str) -> list[dict[str, Any]]:
        text = self.shell(f"/run/sbin/ip -j {words}")
        return json.loads(text) if text.strip() else []
