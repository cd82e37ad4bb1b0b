"""The broker emulator against the guest of this folder: every kind of key, cookie and bearer token, TLS, faults.

Runs `innerkeep-key-broker` of `INNERKEEP_BIN_DIR`, else of `target/ci`. Exit status 0 only if everything passed.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import kbs_client_check as guest
import kbs_protocol as kbs
import kbs_vectors as vectors
from kbs_client_check import Client, Failed

PROGRAM = Path(os.environ.get("INNERKEEP_BIN_DIR", "target/ci")) / "innerkeep-key-broker"
WORK = Path()  # set by main
SECRET = bytes(range(256)) * 3
TOKEN = "an-admin-token-for-tests"
ALLOW = "package policy\ndefault allow = true\n"
URI = "kbs:///repo/type/tag"
NAMES = ("P-256", "P-521", "RSA", "ML-KEM")


@contextlib.contextmanager
def broker(*flags: str, policy: str | None = ALLOW, faults: str = "", trust: ssl.SSLContext | None = None) -> Iterator[str]:
    """A broker with one resource; it has to end cleanly."""
    with tempfile.TemporaryDirectory(dir=WORK) as name:
        place = Path(name)
        (place / "token").write_text(TOKEN + "\n")
        (place / "faults.toml").write_text(faults)
        command = [str(PROGRAM), "serve", "--state", str(place / "state"), "--port-file", str(place / "port")]
        command += ["--admin-token-file", str(place / "token"), "--fault-plan", str(place / "faults.toml"), *flags]
        if policy is not None:
            (place / "policy.rego").write_text(policy)
            command += ["--policy", str(place / "policy.rego")]
        with (place / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline().split()
            assert line[:1] == ["ready"], (place / "log").read_text()
            assert line[1].endswith(":" + (place / "port").read_text().strip())
            admin(Client(line[1], guest.new_key("P-256"), trust=trust), "POST", "resource/repo/type/tag", SECRET)
            yield line[1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            text = (place / "log").read_text()
            assert TOKEN not in text and SECRET.hex() not in text
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]


def admin(client: Client, method: str, path: str, body: bytes) -> None:
    status, answer = client.call(method, "/kbs/v0/" + path, body, {"Authorization": f"Bearer {TOKEN}"})
    assert (status, answer) == (200, b""), answer


def failed(action: Callable[[], object]) -> Failed:
    try:
        action()
    except Failed as err:
        return err
    raise AssertionError("accepted")


def certificate() -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "key broker tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    cert, private = WORK / "tls.pem", WORK / "tls.key"
    cert.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert, private


def check_handshakes() -> None:
    init = kbs.read_init_data({"format": "toml", "body": vectors.INIT_DATA["toml"]})
    with broker("--insecure-allow-sample") as url:
        for name in NAMES:
            for devices in (None, {"sampledevice": guest.device_evidence}):
                for passport in (False, True):
                    sent = init if passport else None
                    client = Client(url, guest.new_key(name), devices=devices, init=sent, passport=passport)
                    claims = client.handshake()
                    assert client.get(URI) == SECRET and client.handshakes == 1
                    check_claims(claims, client, devices is not None)


def check_claims(claims: dict, client: Client, device: bool) -> None:
    assert "nbf" not in claims and "aud" not in claims and claims["exp"] - claims["iat"] == 300
    assert claims["eat_profile"] == "tag:github.com,2024:confidential-containers/Trustee"
    assert set(claims["submods"]) == ({"cpu0", "gpu0"} if device else {"cpu0"})
    cpu = claims["submods"]["cpu0"]
    assert cpu["ear.status"] == "contraindicated" and len(cpu["ear.trustworthiness-vector"]) == 8
    seen = cpu["ear.veraison.annotated-evidence"]
    assert seen["sample"] == {"svn": "1", "launch_digest": "abcde", "platform_version": {"major": 1, "minor": 4}, "debug": False}
    assert seen["runtime_data_claims"]["tee-pubkey"] == client.jwk and "additional-evidence" in seen["runtime_data_claims"]
    if client.init:
        assert seen["init_data"] == kbs.b64(client.init.digest)
        assert seen["init_data_claims"]["aa.toml"] == {"token_configs": {"kbs": {"url": "http://192.0.2.7:8080"}}}
    else:
        assert "init_data" not in seen
    head = kbs.parse_json(kbs.unb64url(str(client.token).split(".")[0]))
    assert isinstance(head, dict) and "kid" not in head
    leaf, root = (x509.load_der_x509_certificate(kbs.unb64(text)) for text in head["jwk"]["x5c"])
    leaf.verify_directly_issued_by(root)
    signer = leaf.public_key()
    assert isinstance(signer, ec.EllipticCurvePublicKey)
    assert {**kbs.ec_jwk(signer, "ES256"), "x5c": head["jwk"]["x5c"]} == head["jwk"]
    assert (head["typ"], head["alg"]) == ("JWT", "ES256")


def check_policies() -> None:
    with broker("--insecure-allow-sample", policy=None) as url:
        client = Client(url, guest.new_key("P-256"))
        assert failed(lambda: client.get(URI)).variant == "PolicyDeny" and client.handshakes == 1
        admin(client, "POST", "resource-policy", kbs.compact({"policy": kbs.b64url(ALLOW.encode())}))
        assert client.get(URI) == SECRET and client.handshakes == 1
        assert failed(lambda: client.get("kbs:///repo/type/none")).variant == "PluginInternalError"
    with broker() as url:
        assert failed(Client(url, guest.new_key("P-256")).handshake).variant == "AttestationError"
        unsigned = Client(url, guest.new_key("P-256"), "tdx", guest.tdx_evidence(4))
        assert failed(unsigned.handshake).variant == "AttestationError"


def check_tls() -> None:
    cert, private = certificate()
    trust = ssl.create_default_context(cafile=str(cert))
    with broker("--insecure-allow-sample", "--tls-cert", str(cert), "--tls-key", str(private), trust=trust) as url:
        assert url.startswith("https://127.0.0.1:")
        client = Client(url, guest.new_key("P-256"), trust=trust)
        assert client.get(URI) == SECRET
        assert client.last is not None
        client.challenge()
        assert client.last[1]["Set-Cookie"].endswith("; Secure")
        assert failed(Client(url, guest.new_key("P-256")).handshake).status == 0, "an unknown certificate"


def check_faults() -> None:
    """The guest tells each lie, and is served after it."""
    for fault, variant in (
        ('kind = "wrong-curve-epk"', ""),
        ('kind = "off-curve-epk"', ""),
        ('kind = "bad-tag"', ""),
        ('kind = "bad-wrapped-key"', ""),
        ('kind = "malformed-member"\nmember = "tag"', ""),
        ('kind = "oversized-body"', ""),
        ('kind = "endless-body"', ""),
        ('kind = "truncated-body"', ""),
        ('kind = "not-json"', ""),
        ('kind = "redirect"\nlocation = "http://127.0.0.1:1/"', ""),
        ('kind = "status"', ""),
        ('kind = "reset"', ""),
        ('kind = "error"\nerror = "PolicyDeny"', "PolicyDeny"),
    ):
        with broker("--insecure-allow-sample", faults=f'[[fault]]\nat = "resource"\n{fault}\n') as url:
            client = Client(url, guest.new_key("P-256"))
            assert failed(lambda: client.get(URI)).variant == variant, fault
            assert client.get(URI) == SECRET, fault
    for fault, handshakes in (
        ('kind = "reordered-header"', 1),
        ('kind = "slow"\nmilliseconds = 20', 1),
        ('kind = "drip-body"\nmilliseconds = 1', 1),
        ('kind = "error"\nerror = "TokenNotFound"', 2),
        ('kind = "error"\nerror = "TokenVerifierError"', 2),
    ):
        with broker("--insecure-allow-sample", faults=f'[[fault]]\nat = "resource"\n{fault}\n') as url:
            client = Client(url, guest.new_key("P-256"))
            assert client.get(URI) == SECRET and client.handshakes == handshakes, fault
    for kind in ("wrong-nonce", "cookie-omitted", "expired-token"):
        with broker("--insecure-allow-sample", faults=f'[[fault]]\nkind = "{kind}"\n') as url:
            client = Client(url, guest.new_key("P-256"))
            failed(client.handshake)
            client = Client(url, guest.new_key("P-256"))
            assert client.get(URI) == SECRET, kind


def check_many_at_once() -> None:
    with broker("--insecure-allow-sample") as url:
        found: list[bytes] = []

        def one() -> None:
            client = Client(url, guest.new_key("P-256"))
            found.extend(client.get(URI) for _ in range(10))

        threads = [threading.Thread(target=one) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == [SECRET] * 80


def main() -> int:
    global WORK
    if not PROGRAM.is_file():
        print(f"FAIL {PROGRAM} does not exist")
        return 1
    checks = [check for name, check in sorted(globals().items()) if name.startswith("check_") and name != "check_claims"]
    with tempfile.TemporaryDirectory() as work:
        WORK = Path(work)
        for check in checks:
            start = time.monotonic()
            check()
            print(f"ok {check.__name__} {time.monotonic() - start:.1f} s")
    return 0 if checks else 1


if __name__ == "__main__":
    sys.exit(main())
