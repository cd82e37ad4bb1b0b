"""The confidential data hub as a guest agent of Confidential Containers uses it: ttrpc by hand, messages from a table of upstream's wire.

Nothing here is generated from our `.proto`. The platform is the emulated TDX guest, the broker the emulated one; sealed secrets and wrapped keys of
layers are made here. Runs the programs of `INNERKEEP_BIN_DIR`, else of `target/ci`, as root or in a user namespace (the guest mounts files by FUSE).
Exit status 0 only if everything passed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from kata_client import Client, Code, Wire
from test_attestation_agent import PROGRAMS, SECRET, enter_namespaces, running, world

WIRE = Wire.read(Path(__file__).with_name("hub_wire.txt"))
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "cdh" / "vectors.json").read_text())
CREDENTIALS = "run/confidential-containers/cdh/kbs"
PREFIX = "[CDH] [ERROR]: "


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# ---- programs --------------------------------------------------------------------------------------------------------


@dataclass
class Hub:
    socket: Path
    root: Path
    log: Path

    def client(self) -> Client:
        return Client(f"unix://{self.socket}", wire=WIRE)


def document(files: dict[str, str]) -> str:
    data = "".join(f"\"{name}\" = '''\n{text}'''\n" for name, text in files.items())
    return f'version = "0.1.0"\nalgorithm = "sha384"\n[data]\n{data}'


def command(place: Path, name: str, config: str, more: dict[str, str], arguments: list[str]) -> tuple[list[str], list[str]]:
    """The commands of a guest that is launched with this configuration, and of a hub in it."""
    text = f'socket = "unix://{place / name}.sock"\n{config}'
    initdata, launch, root = place / f"{name}.toml", place / f"{name}.launch", place / f"{name}.root"
    initdata.write_text(document({"cdh.toml": text, **more}))
    # What the guest agent writes beside: the very file that is in initdata.
    (place / f"{name}.cdh.toml").write_text(text)
    launch.write_text(f'tee = "tdx"\ninitdata_digest = "{hashlib.sha384(initdata.read_bytes()).hexdigest()}"\n')
    root.mkdir(exist_ok=True)
    guest = [str(PROGRAMS / "innerkeep-tee-emulator"), "serve", "--state", str(place / "tee"), "--root", str(root), "--launch", str(launch)]
    hub = [str(PROGRAMS / "confidential-data-hub"), "--insecure-tee-root", str(root), "-t", str(initdata), *arguments]
    return guest, hub


@contextlib.contextmanager
def hub(place: Path, name: str, config: str, more: dict[str, str] | None = None) -> Iterator[Hub]:
    guest, program = command(place, name, config, more or {}, ["-c", str(place / f"{name}.cdh.toml")])
    found = Hub(place / f"{name}.sock", place / f"{name}.root", place / f"{name}.log")
    with running(guest, place / f"{name}.tee.log", "ready"), running(program, found.log, None):
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as link:
                link.connect(str(found.socket))
                break
            assert time.monotonic() < end, found.log.read_text()
            time.sleep(0.02)
        yield found


def refused_start(place: Path, name: str, config: str, arguments: list[str], swap: str | None = None) -> str:
    """The code with which a hub does not start; `swap` is what the host puts in the place of initdata after the launch."""
    guest, program = command(place, name, config, {}, ["--json", *arguments])
    if swap is not None:
        (place / f"{name}.toml").write_text(swap)
    with running(guest, place / f"{name}.tee.log", "ready"):
        done = subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and not (place / f"{name}.sock").exists(), done
    error: dict[str, dict[str, str]] = json.loads(done.stderr.splitlines()[-1])
    return error["error"]["code"]


def kbc(url: str) -> str:
    return f'[kbc]\nname = "cc_kbc"\nurl = "{url}"\n'


def store(place: Path, path: str, content: bytes) -> None:
    """What the broker's administrator does on its disk."""
    file = place / "broker" / "resources" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(".new")
    partial.write_bytes(content)
    partial.replace(file)


# ---- secrets ---------------------------------------------------------------------------------------------------------


def sealed(key: ec.EllipticCurvePrivateKey, payload: dict[str, Any], kid: str = "kbs:///seal/key/1") -> str:
    header = {"b64": True, "alg": "ES256", "kid": kid}
    signed = f"{b64url(json.dumps(header).encode())}.{b64url(json.dumps(payload).encode())}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(SHA256())))
    return f"sealed.{signed}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def jwk(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    x, y = (b64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return json.dumps({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": x, "y": y}).encode()


def vault(name: str) -> dict[str, Any]:
    return {"version": "0.1.0", "type": "vault", "name": name, "provider": "kbs", "provider_settings": {}, "annotations": {}}


# ---- checks ----------------------------------------------------------------------------------------------------------


def check_many_resources_by_one_attestation(place: Path, url: str) -> None:
    store(place, "a/b/empty", b"")
    store(place, "a/b/large", bytes(1 << 20))
    with hub(place, "many", kbc(url)) as found, found.client() as client:
        start = time.monotonic()
        assert client.GetResource(ResourcePath="kbs:///repo/type/tag") == {"Resource": SECRET}
        first = time.monotonic() - start
        times = []
        for _ in range(40):
            start = time.monotonic()
            assert client.GetResource(ResourcePath="kbs://ignored:1/repo/type/tag") == {"Resource": SECRET}
            times.append(time.monotonic() - start)
        median = sorted(times)[len(times) // 2]
        print(f"   first {first * 1e3:.1f} ms, later {median * 1e3:.2f} ms")
        assert client.GetResource(ResourcePath="kbs:///a/b/empty") == {}
        assert len(client.GetResource(ResourcePath="kbs:///a/b/large")["Resource"]) == 1 << 20
        error = client.refused("GetResource", {"ResourcePath": "kbs:///repo/type/none"})
        assert error.code == Code.INTERNAL and error.text.startswith(f"{PREFIX}Get Resource failed: KBS_REFUSED_RESOURCE: "), error
        for path in ("", "kbs:///repo/type", "file:///etc/passwd", "kbs:///a/b/../c"):
            error = client.refused("GetResource", {"ResourcePath": path})
            assert "KBS_RESOURCE_URI_INVALID" in error.text, (path, error)


def check_sealed_secrets(place: Path, url: str) -> None:
    key, stranger = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    store(place, "seal/key/1", jwk(key))
    store(place, "db/user/password", b"correct horse")
    good = sealed(key, vault("kbs:///db/user/password"))
    parts = good.split(".")
    other = b64url(json.dumps(vault("kbs:///repo/type/tag")).encode())
    with hub(place, "sealed", kbc(url)) as found, found.client() as client:
        for text in (good, good + "\n"):
            assert client.UnsealSecret(secret=text.encode()) == {"plaintext": b"correct horse"}
        cases = {
            ".".join([*parts[:2], other, parts[3]]): "SEALED_SECRET_SIGNATURE",
            sealed(stranger, vault("kbs:///db/user/password")): "SEALED_SECRET_SIGNATURE",
            "sealed.fakejwsheader." + parts[2] + ".fakesignature": "SEALED_SECRET_MALFORMED",
            sealed(key, {**vault("x"), "provider": "aliyun"}): "SEALED_SECRET_PROVIDER",
            sealed(key, vault("kbs:///db/user/password"), "key.pem"): "SEALED_SECRET_KEY",
            VECTORS["sealed_secret_vault"]["sealed"]: "KBS_REFUSED_RESOURCE",
            "plain text": "SEALED_SECRET_MALFORMED",
        }
        for text, code in cases.items():
            error = client.refused("UnsealSecret", {"secret": text.encode()})
            assert error.text.startswith(f"{PREFIX}Unseal Secret failed: {code}: "), (text, error)


def check_keys_of_layers(place: Path, url: str) -> None:
    vector = VECTORS["ocicrypt_layer"]
    store(place, "default/image-kek/vec", bytes.fromhex(vector["kek_hex"]))
    kek, options = os.urandom(32), os.urandom(300)
    store(place, "default/image-kek/mine", kek)
    packet = {
        "kid": "kbs:///default/image-kek/mine",
        "wrapped_data": base64.b64encode(AESGCM(kek).encrypt(bytes(12), options, None)).decode(),
        "iv": base64.b64encode(bytes(12)).decode(),
        "wrap_type": "A256GCM",
        "version": "0.1.0",
        "provider": "kbs",
        "provider_settings": {},
        "annotations": {},
    }

    def request(packet: dict[str, Any]) -> bytes:
        annotation = base64.b64encode(json.dumps(packet).encode()).decode()
        params = {"dc": {"Parameters": {}}, "annotation": annotation}
        return json.dumps({"op": "keyunwrap", "keywrapparams": {"ec": None, "optsdata": None}, "keyunwrapparams": params}).encode()

    name = "KeyProviderKeyWrapProtocol"
    with hub(place, "layers", kbc(url)) as found, found.client() as client:
        answer = client.UnWrapKey(**{f"{name}Input": json.dumps(vector["unwrap_request_json"]).encode()})
        assert json.loads(answer[f"{name}Output"]) == vector["unwrap_response_json"]
        answer = client.UnWrapKey(**{f"{name}Input": request(packet)})
        assert json.loads(answer[f"{name}Output"]) == {"keyunwrapresults": {"optsdata": list(options)}}
        for change, code in (
            ({"wrap_type": "A256CTR"}, "WRAP_UNAUTHENTICATED"),
            ({"iv": base64.b64encode(b"x" * 12).decode()}, "WRAP_AUTHENTICATION"),
            ({"provider": "aliyun"}, "SEALED_SECRET_PROVIDER"),
            ({"kid": "kbs:///db/user/none"}, "KBS_REFUSED_RESOURCE"),
        ):
            error = client.refused("UnWrapKey", {f"{name}Input": request({**packet, **change})})
            assert error.text.startswith(f"{PREFIX}Decrypt Image (UnwrapKey) failed: {code}: "), error
        assert client.refused("WrapKey", {f"{name}Input": b"{}"}).code == Code.UNIMPLEMENTED


def check_what_others_do_says_that_it_is_not_there(place: Path, url: str) -> None:
    with hub(place, "seams", kbc(url)) as found, found.client() as client:
        error = client.refused("PullImage", {"image_url": "registry.example/a:1", "bundle_path": "/run/x"})
        assert error.code == Code.INTERNAL and error.text.startswith(f"{PREFIX}Image Pull error: CDH_NOT_AVAILABLE: "), error
        volume = {"volume_type": "block-device", "options": {"deviceId": "8:0"}, "mount_point": "/m"}
        error = client.refused("SecureMount", volume)
        assert error.text.startswith(f"{PREFIX}Secure Mount failed: VOLUME_OPTION: "), error
        many = {**volume, "options": {str(index): "" for index in range(65)}}
        assert client.refused("SecureMount", many).code == Code.INVALID_ARGUMENT


def check_a_credential_is_replaced_as_one_step(place: Path, url: str) -> None:
    old, new = b"old" * 30_000, b"new" * 40_000
    store(place, "cred/file/1", old)
    config = (
        kbc(url) + f'[[credentials]]\nresource_uri = "kbs:///cred/file/1"\npath = "/{CREDENTIALS}/deep/file"\n'
        "[innerkeep]\ncredential_refresh_seconds = 10\n"
    )
    with hub(place, "credentials", config) as found:
        file = found.root / CREDENTIALS / "deep" / "file"
        assert file.read_bytes() == old and file.stat().st_mode & 0o777 == 0o600, "written before the socket was served"
        stop, seen = threading.Event(), set()

        def watch() -> None:
            while not stop.is_set():
                seen.add(hashlib.sha256(file.read_bytes()).digest())

        watcher = threading.Thread(target=watch)
        watcher.start()
        store(place, "cred/file/1", new)
        end = time.monotonic() + 40
        while file.read_bytes() != new and time.monotonic() < end:
            time.sleep(0.05)
        stop.set()
        watcher.join()
        assert file.read_bytes() == new, found.log.read_text()
        assert seen <= {hashlib.sha256(content).digest() for content in (old, new)}, "never half of one"
        assert [one.name for one in file.parent.iterdir()] == ["file"]
        assert b"newnew" not in found.log.read_bytes()
    missing = kbc(url) + f'[[credentials]]\nresource_uri = "kbs:///cred/file/none"\npath = "/{CREDENTIALS}/file"\n'
    assert refused_start(place, "missing", missing, []) == "KBS_REFUSED_RESOURCE"


def check_a_configuration_that_nothing_vouches_for_is_refused(place: Path, url: str) -> None:
    other = place / "other.toml"
    other.write_text(kbc("http://127.0.0.1:1"))
    assert refused_start(place, "unbound", kbc(url), ["-c", str(other)]) == "ATTEST_CONFIG_UNBOUND"
    assert refused_start(place, "swapped", kbc(url), [], swap=document({"cdh.toml": kbc("http://127.0.0.1:1")})) == "ATTEST_INITDATA_MISMATCH"
    assert refused_start(place, "unknown", "colour = 1\n", []) == "CDH_CONFIG_INVALID"
    for name, config in (("offline", '[kbc]\nname = "offline_fs_kbc"\n'), ("skip", f"skip_sealed_secret_verification = true\n{kbc(url)}")):
        assert refused_start(place, name, config, []) == "CDH_INSECURE_UNBOUND", name


def check_insecure_modes_that_are_bound_count(place: Path, url: str) -> None:
    root = place / "modes.root"
    (root / "etc").mkdir(parents=True)
    content = base64.b64encode(b"from a file").decode()
    (root / "etc/aa-offline_fs_kbc-resources.json").write_text(json.dumps({"a/b/c": content}))
    config = 'skip_sealed_secret_verification = true\n[kbc]\nname = "offline_fs_kbc"\n'
    modes = {"innerkeep.toml": 'insecure = ["offline-kbc", "unverified-secrets"]\n'}
    with hub(place, "modes", config, modes) as found, found.client() as client:
        assert client.GetResource(ResourcePath="kbs:///a/b/c") == {"Resource": b"from a file"}
        fake = f"sealed.fakejwsheader.{b64url(json.dumps(vault('kbs:///a/b/c')).encode())}.fakesignature"
        assert client.UnsealSecret(secret=fake.encode()) == {"plaintext": b"from a file"}
        assert "INSECURE modes in effect: offline-kbc unverified-secrets" in found.log.read_text()


def main() -> int:
    enter_namespaces()
    for program in ("innerkeep-tee-emulator", "innerkeep-key-broker", "confidential-data-hub"):
        if not (PROGRAMS / program).is_file():
            print(f"FAIL {PROGRAMS / program} does not exist")
            return 1
    with world() as (place, url):
        for check in (
            check_many_resources_by_one_attestation,
            check_sealed_secrets,
            check_keys_of_layers,
            check_what_others_do_says_that_it_is_not_there,
            check_a_credential_is_replaced_as_one_step,
            check_a_configuration_that_nothing_vouches_for_is_refused,
            check_insecure_modes_that_are_bound_count,
        ):
            start = time.monotonic()
            check(place, url)
            print(f"ok {check.__name__} {time.monotonic() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
