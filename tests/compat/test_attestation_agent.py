"""The attestation agent as a CDH of Confidential Containers uses it: ttrpc by hand, a token with its key, a resource for that token.

Nothing here is generated from our `.proto`: frames and messages are written from the wire's description. The platform is the emulated TDX
guest, the broker the emulated one. Runs the programs of `INNERKEEP_BIN_DIR`, else of `target/ci`, as root or in a user namespace (the guest
mounts files by FUSE). Exit status 0 only if everything passed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key

import kbs_jose as jose
from kbs_client_check import Client, new_key

PROGRAMS = Path(os.environ.get("INNERKEEP_BIN_DIR", "target/ci")).absolute()
SECRET = bytes(range(256))
SERVICE = b"attestation_agent.AttestationAgentService"
ALLOW = "package policy\ndefault allow = true\n"
PERMISSION_DENIED = 7
AAEL = bytes.fromhex("4c454141")


# ---- ttrpc and protobuf, as far as this service needs them ------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def member(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def members(data: bytes) -> dict[int, bytes | int]:
    """Members of a message; the last of a number counts. Only the two forms that this service uses."""
    found: dict[int, bytes | int] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            found[tag >> 3] = number()
        else:
            assert tag & 7 == 2, tag
            length = number()
            found[tag >> 3] = data[at : at + length]
            at += length
    return found


def call(path: Path, method: str, payload: bytes = b"") -> tuple[int, str, bytes]:
    """Status code, its text, and the answer."""
    request = member(1, SERVICE) + member(2, method.encode()) + member(3, payload)
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(str(path))
        link.sendall(struct.pack(">IIBB", len(request), 1, 1, 0) + request)
        data = b""
        while len(data) < 10 or len(data) < 10 + struct.unpack(">I", data[:4])[0]:
            part = link.recv(1 << 16)
            assert part, f"the agent closed the connection after {len(data)} bytes"
            data += part
    length, stream, kind, _ = struct.unpack(">IIBB", data[:10])
    assert (stream, kind, len(data)) == (1, 2, 10 + length)
    answer = members(data[10:])
    status = members(bytes(answer.get(1, b"")))  # type: ignore[arg-type]
    return int(status.get(1, 0)), bytes(status.get(2, b"")).decode(), bytes(answer.get(2, b""))  # type: ignore[arg-type]


# ---- programs --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(command: list[str], log: Path, ready: str | None) -> Iterator[str]:
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        line = ""
        if ready is not None:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(ready), log.read_text()
        yield line.removeprefix(ready or "").strip()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def agent(place: Path, name: str, more: str, url: str) -> Iterator[Path]:
    """An agent in a guest that was launched with this initdata; its socket."""
    path = place / f"{name}.sock"
    body = f'[token_configs.kbs]\nurl = "{url}"\n[eventlog_config]\nenable_eventlog = true\n[innerkeep]\n{more.replace("SOCKET", str(path))}'
    initdata = place / f"{name}.toml"
    initdata.write_text(f"version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n\"aa.toml\" = '''\n{body}'''\n")
    digest = hashlib.sha384(initdata.read_bytes()).hexdigest()
    launch, root = place / f"{name}.launch", place / f"{name}.root"
    launch.write_text(f'tee = "tdx"\ninitdata_digest = "{digest}"\n')
    root.mkdir()
    guest = [str(PROGRAMS / "innerkeep-tee-emulator"), "serve", "--state", str(place / "tee"), "--root", str(root)]
    command = [str(PROGRAMS / "attestation-agent"), "-a", f"unix://{path}", "--insecure-tee-root", str(root), "-t", str(initdata)]
    log = place / f"{name}.log"
    # Guest, agent and this program share their namespaces: to the agent a process in others is a container.
    with running([*guest, "--launch", str(launch)], place / f"{name}.tee.log", "ready"), running(command, log, None):
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as link:
                link.connect(str(path))
                break
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        yield path


@contextlib.contextmanager
def world() -> Iterator[tuple[Path, str]]:
    """A platform and a broker that believes it."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        emulator = str(PROGRAMS / "innerkeep-tee-emulator")
        (place / "tee").mkdir(mode=0o700)
        keys = Path(__file__).parent.parent / "vectors/evidence/keys"
        for key in ("ark", "ask"):
            # Making RSA keys takes longest, and nothing here needs secret ones.
            (place / f"tee/snp-{key}.pk8").write_bytes((keys / f"insecure-test-{key}.pk8").read_bytes())
        subprocess.run([emulator, "init", "--state", str(place / "tee"), "--tee", "tdx"], check=True, capture_output=True)
        (place / "once").mkdir()
        once = [emulator, "run", "--state", str(place / "tee"), "--root", str(place / "once"), "--", "true"]
        subprocess.run(once, check=True, capture_output=True)
        (place / "policy.rego").write_text(ALLOW)
        state = place / "broker"
        (state / "resources/repo/type").mkdir(parents=True)
        (state / "resources/repo/type/tag").write_bytes(SECRET)
        state.chmod(0o700)
        command = [str(PROGRAMS / "innerkeep-key-broker"), "serve", "--state", str(state), "--policy", str(place / "policy.rego")]
        command += ["--insecure-trust-roots", str(place / "tee/trust-roots.json")]
        command += ["--collateral", str(place / "tee/collateral-tdx.json")]
        with running(command, place / "broker.log", "ready ") as url:
            yield place, url


# ---- checks ----------------------------------------------------------------------------------------------------------


def check_a_listed_peer_reads_a_resource_with_its_token(place: Path, url: str) -> None:
    listed = f'token_key_export = [{{ socket = "SOCKET", uid = {os.getuid()} }}]\n'
    with agent(place, "listed", listed, url) as path:
        status, text, answer = call(path, "GetTeeType")
        assert (status, members(answer).get(1)) == (0, b"tdx"), text
        status, text, answer = call(path, "GetToken", member(1, b"kbs"))
        assert status == 0, text
        token = json.loads(bytes(members(answer)[1]))  # type: ignore[arg-type]
        assert set(token) == {"token", "tee_keypair"}, sorted(token)
        secret = load_pem_private_key(token["tee_keypair"].encode(), None)
        claims = json.loads(base64.urlsafe_b64decode(token["token"].split(".")[1] + "=="))
        held = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["runtime_data_claims"]["tee-pubkey"]
        assert held == jose.ec_jwk(secret.public_key()), "the token is about the key that came with it"  # type: ignore[arg-type, union-attr]
        client = Client(url, new_key("P-256"))
        headers = {"Authorization": f"Bearer {token['token']}"}
        status, body = client.call("GET", "/kbs/v0/resource/repo/type/tag", None, headers)
        assert status == 200, body
        assert jose.decrypt(jose.parse_json(body), secret) == SECRET
        # Each call makes a key of its own.
        again = json.loads(bytes(members(call(path, "GetToken", member(1, b"kbs"))[2])[1]))  # type: ignore[arg-type]
        assert again["tee_keypair"] != token["tee_keypair"]


def check_an_unlisted_peer_gets_neither_token_nor_evidence(place: Path, url: str) -> None:
    with agent(place, "unlisted", "", url) as path:
        for method, payload in (("GetToken", member(1, b"kbs")), ("GetEvidence", member(1, b"x" * 48))):
            status, text, answer = call(path, method, payload)
            assert (status, answer) == (PERMISSION_DENIED, b""), (method, status, text)
            assert "ATTEST_" in text, text


def check_an_event_is_measured_and_in_the_evidence(place: Path, url: str) -> None:
    listed = f'raw_report_data_peers = [{{ socket = "SOCKET", uid = {os.getuid()} }}]\n'
    with agent(place, "events", listed, url) as path:
        content = b'{"digest":"sha256:00","image":"example/image"}'
        event = member(1, b"github.com/confidential-containers") + member(2, b"PullImage") + member(3, content)
        status, text, answer = call(path, "ExtendRuntimeMeasurement", event)
        assert (status, members(answer).get(1, 0)) == (0, 0), text
        asked = bytes(range(64))
        status, text, answer = call(path, "GetEvidence", member(1, asked))
        assert status == 0, text
        evidence = json.loads(bytes(members(answer)[1]))  # type: ignore[arg-type]
        quote, log = (base64.b64decode(evidence[name]) for name in ("quote", "cc_eventlog"))
        assert quote[48 + 520 : 48 + 584] == asked, "report data of a quote of version 4"
        line = b"github.com/confidential-containers PullImage " + content
        data = AAEL + struct.pack("<I", len(line)) + line
        assert data in log
        # RTMR 3 was zero at boot and was extended once, by the digest of the event.
        expected = hashlib.sha384(bytes(48) + hashlib.sha384(data).digest()).digest()
        assert quote[48 + 472 : 48 + 520] == expected


def enter_namespaces() -> None:
    """The guest's files are mounted where nobody else sees them; an ordinary user is root there."""
    if os.environ.get("INNERKEEP_IN_NAMESPACES") == "1":
        return
    os.environ["INNERKEEP_IN_NAMESPACES"] = "1"
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    os.execvp("unshare", ["unshare", *user, "--mount", "--propagation", "private", "--", sys.executable, *sys.argv])


def main() -> int:
    enter_namespaces()
    for program in ("innerkeep-tee-emulator", "innerkeep-key-broker", "attestation-agent"):
        if not (PROGRAMS / program).is_file():
            print(f"FAIL {PROGRAMS / program} does not exist")
            return 1
    with world() as (place, url):
        for check in (
            check_a_listed_peer_reads_a_resource_with_its_token,
            check_an_unlisted_peer_gets_neither_token_nor_evidence,
            check_an_event_is_measured_and_in_the_evidence,
        ):
            start = time.monotonic()
            check(place, url)
            print(f"ok {check.__name__} {time.monotonic() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
