"""Artifacts cross from one implementation to the other: the `innerkeep` program and the Python readings of this folder.

Exit status 0: everything passed. The program is `innerkeep` in INNERKEEP_BIN_DIR, else in target/ci.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

import artifact
import chip
import chip_session
import hpke
import noise
import sealer
import test_chip_session

HERE = Path(__file__).resolve().parent
PROGRAM = Path(os.environ.get("INNERKEEP_BIN_DIR", HERE.parents[1] / "target" / "ci")) / "innerkeep"
FAMILY, ENVIRONMENT, COUNTER = "compat/crossing", "development", 3


class Failed(Exception):
    pass


def innerkeep(*words: object, status: int = 0) -> str:
    done = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    if done.returncode != status:
        raise Failed(f"innerkeep {words[0]}: status {done.returncode}, expected {status}: {done.stderr.strip()[-500:]}")
    return done.stdout


def open_artifact(*words: object, status: int = 0) -> None:
    command = [sys.executable, "-B", str(HERE / "open_artifact.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    if done.returncode != status:
        raise Failed(f"open_artifact.py: status {done.returncode}, expected {status}: {done.stderr.strip()[-500:]}")


def content_key(path: Path) -> str:
    return next(line[4:] for line in path.read_text().splitlines() if line.startswith("key "))


def inputs(work: Path) -> dict[str, bytes]:
    plain = {"weights.bin": os.urandom(1_000_003), "two-segments": os.urandom(131_072), "empty": b""}
    (work / "in").mkdir()
    for name, data in plain.items():
        (work / "in" / name).write_bytes(data)
    return plain


def sealed_there_opened_here(work: Path) -> None:
    plain = inputs(work)
    innerkeep("key", "new", "-o", work / "signer.pem")
    key = load_pem_public_key((work / "signer.pem.pub").read_bytes())
    pin = "sha256:" + artifact.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hex()
    common = ("--family", FAMILY, "--counter", COUNTER, "--environment", ENVIRONMENT, "--sealer-key", work / "signer.pem")
    for number, (target, options) in enumerate(
        (("layout:v1", ("--segment-size", 65_536)), ("one.sealed", ()), ("bare.sealed", ("--no-payload-digest",)))
    ):
        out, key_file = work / f"out-{number}", work / f"key-{number}"
        out.mkdir()
        innerkeep("seal", "-o", work / target, "--key-out", key_file, *common, *options, *((work / "in" / name) for name in plain))
        source = (work / target.partition(":")[0], *(("--tag", "v1") if ":" in target else ()))
        pins = ("--pin-sealer", pin, "--pin-family", FAMILY, "--pin-min-counter")
        open_artifact(*source, "--content-key-hex", content_key(key_file), *pins, COUNTER, "--out", out)
        found = {path.name: path.read_bytes() for path in out.iterdir()}
        if found != plain:
            raise Failed(f"{target}: another plaintext")
        open_artifact(*source, "--content-key-hex", content_key(key_file), *pins, COUNTER + 1, "--out", out, status=1)
        open_artifact(*source, "--content-key-hex", "00" * 32, *pins, COUNTER, "--out", out, status=1)


def granted_there_opened_here(work: Path) -> None:
    """The recipient is a chip that exists only here: its certificates are made by the authority of chip.py."""
    inputs(work)
    secrets = {"P-384": os.urandom(47).rjust(48, b"\1"), "X-Wing": os.urandom(32)}
    signing = ec.generate_private_key(ec.SECP384R1())
    spki = sealer.spki(signing)
    identity = chip.Identity(
        flags=1,
        id=chip.chip_id(spki),
        epoch=4,
        environment=ENVIRONMENT,
        spki=spki,
        noise=noise.Handshake(b"").e.public_key().public_bytes_raw(),
        p384=hpke.P384.public(secrets["P-384"]),
        x_wing=hpke.XWing.public(secrets["X-Wing"]),
        suites=3,
        paths=7,
    )
    authority = chip.Authority()
    chain = [authority.model, authority.leaf(identity, ENVIRONMENT, identity.epoch)]
    (work / "chain.pem").write_bytes(b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain))
    (work / "root.pem").write_bytes(x509.load_der_x509_certificate(authority.root).public_bytes(Encoding.PEM))
    (work / "policy.json").write_bytes(sealer.policy(ENVIRONMENT, FAMILY, list(chip.PATHS), COUNTER))
    target = work / "one.sealed"
    common = ("--family", FAMILY, "--counter", COUNTER, "--environment", ENVIRONMENT)
    innerkeep("seal", "-o", target, "--key-out", work / "key", *common, work / "in" / "weights.bin")
    for option, suite in (("classical", "P-384"), ("hybrid", "X-Wing")):
        to = ("--to", f"chip:{work / 'chain.pem'}", "--chip-root", work / "root.pem")
        innerkeep(
            "grant", "add", target, "--key", work / "key", *to, "--policy", work / "policy.json", "--suite", option, "--allow-weak-policy"
        )  # fmt: skip
        bundle = artifact.read_file(target.read_bytes())
        core = artifact.read_core(bundle.core)
        me = artifact.Recipient(suite, secrets[suite], identity.id, identity.epoch)
        grants = [artifact.read_grant(raw) for raw in bundle.grants]
        mine = [grant for grant in grants if artifact.GRANT_SUITES[grant.suite] == suite]
        if len(mine) != 1:
            raise Failed(f"{len(mine)} grants of suite {suite}")
        if artifact.open_grant(core, mine[0], me, None, (ENVIRONMENT, "key-release")).hex() != content_key(work / "key"):
            raise Failed(f"{suite}: another content key")
    secret = work / "secret.sealed"
    innerkeep("seal", "-o", secret, "--key-out", work / "secret.key", *common, work / "in" / "two-segments")
    innerkeep("secret", secret, status=2)
    innerkeep("grant", "add", secret, "--key", work / "secret.key", *to, "--policy", work / "policy.json", "--allow-weak-policy")
    said = subprocess.run([PROGRAM, "secret", secret], capture_output=True, check=True).stdout
    prefix, _, encoded = said.strip().rpartition(b".")
    if prefix != b"sealed.innerkeep-v1" or base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4)) != secret.read_bytes():
        raise Failed("the text of a secret holds another file")
    stranger = chip.Authority()
    (work / "root.pem").write_bytes(x509.load_der_x509_certificate(stranger.root).public_bytes(Encoding.PEM))
    done = subprocess.run(
        [PROGRAM, "grant", "add", target, "--key", work / "key", *to, "--policy", work / "policy.json", "--allow-weak-policy"],
        capture_output=True,
    )
    if done.returncode == 0:
        raise Failed("a grant to a chip whose chain ends at another root")


def sealed_here_verified_there(work: Path) -> None:
    signer = ec.generate_private_key(ec.SECP384R1())
    pem = signer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (work / "signer.pub").write_bytes(pem)
    plain = [("weights.bin", "application/octet-stream", os.urandom(300_000)), ("empty", "text/plain", b"")]
    sealed = sealer.seal(plain, FAMILY, ENVIRONMENT, COUNTER, sealer=signer)
    me = os.urandom(32)
    preimage = sealer.policy(ENVIRONMENT, FAMILY, list(chip.PATHS), COUNTER)
    secrets = {"P-384": b"\1" * 48, "X-Wing": bytes(32)}
    grants = [sealer.grant(sealed, suite, hpke.KEMS[suite].public(secret), me, 1, preimage) for suite, secret in secrets.items()]
    sealer.write_layout(sealed, grants, work / "layout", "v1")
    (work / "one.sealed").write_bytes(sealer.write_file(sealed, grants))
    digest = sealer.sha_text(sealed.core)
    for target in (f"{work / 'layout'}:v1", work / "one.sealed"):
        innerkeep("inspect", target)
        innerkeep("verify", target, "--core", digest)
        by_key = ("--sealer-key", work / "signer.pub", "--family", FAMILY, "--min-counter")
        innerkeep("verify", target, *by_key, COUNTER)
        innerkeep("verify", target, *by_key, COUNTER + 1, status=77)
        innerkeep("verify", target, "--core", "sha256:" + "00" * 32, status=77)


def provisioned_there_driven_here(work: Path) -> None:
    """The program certifies the emulated chip; the Python driver trusts that root."""
    running = test_chip_session.Running(work, "chip", *test_chip_session.INSECURE)
    try:
        innerkeep("chip", "provision", "--chip", running.socket, "--ca", work / "ca", "--environment", ENVIRONMENT)
        root = next(
            found.public_bytes(Encoding.DER)
            for path in sorted((work / "ca").iterdir())
            if b"BEGIN CERTIFICATE" in path.read_bytes()
            for found in x509.load_pem_x509_certificates(path.read_bytes())
            if found.subject == found.issuer
        )
        device = chip.Device(str(running.socket))
        try:
            bench = chip_session.Bench(device, chip_session.identify(device), root, ENVIRONMENT)
            for suites in (chip.CLASSICAL, chip.HYBRID):
                chip_session.session_of(suites)(bench)
        finally:
            device.close()
    finally:
        running.stop()


def main() -> int:
    checks = (sealed_there_opened_here, granted_there_opened_here, sealed_here_verified_there, provisioned_there_driven_here)
    failed = 0
    for check in checks:
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(Path(folder))
            except Exception as err:
                failed += 1
                print(f"FAIL {check.__name__}: {type(err).__name__}: {err}")
            else:
                print(f"ok   {check.__name__}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
