"""Checks of the building blocks against published answers and a second way. Exit status 0: all hold."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import hpke as library
from cryptography.hazmat.primitives.asymmetric import ec

import artifact
import hpke
import jcs
import noise
import sealer
from refused import Refused


def refused(action: Callable[[], object]) -> str:
    try:
        action()
    except Refused as err:
        return err.code
    return "accepted"


def check_noise() -> None:
    """The vector of the cacophony collection for this protocol name: handshake hash and first transport messages."""
    prologue = b"John Galt"
    initiator_key = bytes.fromhex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a")
    responder_key = bytes.fromhex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b")
    static = bytes.fromhex("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893")
    one = noise.Handshake(prologue, initiator_key)
    two = noise.Handshake(prologue, responder_key, static)
    assert two.read_1(one.write_1(b"Ludwig von Mises")) == b"Ludwig von Mises"
    assert one.read_2(two.write_2(b"Murray Rothbard")) == b"Murray Rothbard"
    assert one.h == two.h and one.split() == two.split()
    assert one.h.hex() == (
        "6d8b9009df4ecc8a6fe20f070c9c4cb3d32fbdb5e7cdeab117284f134bac5a250e04067b5813a368df4f3cadafb1383dfd5ab75d39906e326d252edbe1c7b551"
    )
    forth, back = (noise.Cipher(key) for key in one.split())
    assert forth.encrypt(b"F. A. Hayek").hex() == "0b31b958cd1c1d7e1b2d472fe434096491292e3ef25cb6980db346"
    assert back.encrypt(b"Carl Menger").hex() == "2c78876993fd5cefb2cccf9340ed233b81a9d5dc1a5eb0cf5d07e4"


def check_xwing() -> None:
    """Public keys of the draft's three vectors (by digest), and agreement with the library's HPKE both ways."""
    for seed, digest in (
        ("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26", "2e816deebcd76c5c80d0cd2d174478871658e8e2ff42bc9d4a6e486372e856bb"),
        ("badfd6dfaac359a5efbb7bcc4b59d538df9a04302e10c8bc1cbf1a0b3a5120ea", "c42ba5f8430d7d2c83739338203819f090e8303ce9c8b02107c272bfa5376916"),
        ("ef58538b8d23f87732ea63b02b4fa0f4873360e2841928cd60dd4cee8cc0d4c9", "6b080d6b84f095342092fa7a22423e58bd681397ad0ef00eac92bd254db4fa95"),
    ):
        assert hashlib.sha256(hpke.XWing.public(bytes.fromhex(seed))).hexdigest() == digest
    seed = os.urandom(32)
    key = library.MLKEM768X25519PrivateKey(*hpke.XWing.keys(seed))
    check_against_library(hpke.XWing, seed, key, library.KEM.MLKEM768_X25519)


def check_p384() -> None:
    number = ec.generate_private_key(ec.SECP384R1()).private_numbers().private_value
    secret = number.to_bytes(48, "big")
    check_against_library(hpke.P384, secret, hpke.P384.private(secret), library.KEM.P384)


def check_against_library(kem: type[hpke.P384] | type[hpke.XWing], secret: bytes, key: object, which: library.KEM) -> None:
    suite = library.Suite(which, library.KDF.HKDF_SHA384, library.AEAD.AES_256_GCM)
    theirs = suite.encrypt(b"one", key.public_key(), info=b"info")  # type: ignore[attr-defined]
    assert hpke.open_(kem, secret, theirs[: kem.enc_length], b"info", theirs[kem.enc_length :]) == b"one"
    enc, wrapped = hpke.seal(kem, kem.public(secret), b"info", b"two")
    assert suite.decrypt(enc + wrapped, key, info=b"info") == b"two"  # type: ignore[arg-type]
    assert hpke.open_(kem, secret, enc, b"other", wrapped) is None


def check_json() -> None:
    for text, code in (
        (b'{"a":1,"b":"\xe2\x82\xac\\u001f\\n"}', "accepted"),
        (b'{"b":1,"a":1}', "NOT_CANONICAL"),
        (b' {}', "NOT_CANONICAL"),
        (b'{"a":"\\u0041"}', "NOT_CANONICAL"),
        (b'{"a":"\\/"}', "NOT_CANONICAL"),
        (b'{"\xf0\x9f\x98\x80":1,"\xef\xac\xb3":2}', "accepted"),  # UTF-16 order differs from code point order
        (b'{"\xef\xac\xb3":2,"\xf0\x9f\x98\x80":1}', "NOT_CANONICAL"),
        (b"9007199254740991", "accepted"),
        (b"9007199254740992", "MALFORMED"),
        *((bad, "MALFORMED") for bad in (b"", b"{}x", b"null", b"-0", b"-1", b"1.0", b"1e2", b"01", b"\xef\xbb\xbf{}", b"\xff")),
        *((bad, "MALFORMED") for bad in (b'{"a":1,"a":1}', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\t"', b'"', b'{"a":1,}', b"[1 2]")),
        (b"[" * 8 + b"]" * 8, "accepted"),
        (b"[" * 9 + b"]" * 9, "LIMIT_EXCEEDED"),
        (b"[" * 1025, "LIMIT_EXCEEDED"),
    ):
        found = refused(lambda text=text: jcs.read(text, 1024))
        assert found == code, (text, found, code)


def check_round_trip() -> None:
    """The sealer of this folder, all carriers, both suites."""
    signer = ec.generate_private_key(ec.SECP384R1())
    plain = [("a.bin", "application/octet-stream", os.urandom(200_000)), ("b", "text/plain", b"")]
    sealed = sealer.seal(plain, counter=2**60, sealer=signer)
    preimage = sealer.policy("test", "test/family", ["key-release"], 1)
    secrets = {"P-384": b"\x01" * 48, "X-Wing": os.urandom(32)}
    me = os.urandom(32)
    grants = [
        sealer.grant(sealed, suite, hpke.KEMS[suite].public(secret), me, 7, preimage) for suite, secret in secrets.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        sealer.write_layout(sealed, grants, Path(folder) / "layout", "v1")
        carriers = [artifact.read_layout(Path(folder) / "layout", "v1"), artifact.read_file(sealer.write_file(sealed, grants))]
    pin = artifact.Pin(sealer=artifact.sha256(sealer.spki(signer)), family="test/family", min_counter=5)
    for bundle in carriers:
        core = artifact.read_core(bundle.core)
        assert bundle.signature is not None
        signature = artifact.read_signature(bundle.signature)
        artifact.check_origin(core, signature, [pin], [])
        high = artifact.Floor(pin.sealer or b"", "test/family", 2**60 + 1)
        assert refused(lambda: artifact.check_origin(core, signature, [pin], [high])) == "ROLLBACK"
        for (suite, secret), raw in zip(secrets.items(), bundle.grants, strict=True):
            grant = artifact.read_grant(raw)
            recipient = artifact.Recipient(suite, secret, me, 7)
            key = artifact.open_grant(core, grant, recipient, None, ("test", "key-release"))
            assert key == sealed.content_key
            assert refused(lambda: artifact.open_grant(core, grant, recipient, None, ("test", "dma-direct"))) == "POLICY_DENIED"
            other = sealer.policy("test", "test/family", ["key-release"], 2)
            assert refused(lambda: artifact.open_grant(core, grant, recipient, other)) == "GRANT_OPEN_FAILED"
        artifact.check_commitments(core, sealed.content_key)
        assert refused(lambda: artifact.check_commitments(core, os.urandom(32))) == "COMMITMENT_MISMATCH"
        for payload, (_, _, data) in zip(core.payloads, plain, strict=True):
            index = payload.index
            parts = artifact.open_payload(core, sealed.content_key, index, bundle.payloads[index], bundle.tags[index])
            assert b"".join(parts) == data


if __name__ == "__main__":
    checks = (check_noise, check_xwing, check_p384, check_json, check_round_trip)
    failed = 0
    for check in checks:
        try:
            check()
        except Exception as err:
            failed += 1
            print(f"FAIL {check.__name__}: {type(err).__name__}: {err}")
    print(f"{len(checks) - failed} of {len(checks)} checks pass")
    sys.exit(1 if failed else 0)
