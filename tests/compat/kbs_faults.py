"""Scripted failures of the key broker: what a client must survive without releasing, caching or crashing.

A fault is `NAME[@ENDPOINT][/COUNT][=VALUE]`: ENDPOINT is auth, attest or resource (default: each where the name means
something), COUNT the number of requests it touches (default: all). Example: `5xx@resource/2=502`.
"""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

import kbs_protocol as kbs

ENDPOINTS = ("auth", "attest", "resource")
# name: (endpoints, meaning)
FAULTS: dict[str, tuple[tuple[str, ...], str]] = {
    "5xx": (ENDPOINTS, "status VALUE (503), text body"),
    "slow": (ENDPOINTS, "answers after VALUE (5) seconds"),
    "drop": (ENDPOINTS, "closes the connection without an answer"),
    "redirect": (ENDPOINTS, "307 to VALUE (a closed port)"),
    "error": (ENDPOINTS, "the error body of variant VALUE (AttestationError), any name"),
    "401-empty": (ENDPOINTS, "401 without body"),
    "401-html": (ENDPOINTS, "401 with a body that is not JSON"),
    "413": (ENDPOINTS, "payload reached size limit"),
    "not-json": (ENDPOINTS, "200 with a body that is not JSON"),
    "empty": (ENDPOINTS, "200 with an empty body"),
    "oversized": (ENDPOINTS, "the right answer, padded with spaces to VALUE (64) MiB"),
    "endless": (ENDPOINTS, "the right answer, then spaces in chunks until the client goes (at most VALUE = 4096 MiB)"),
    "huge-length": (ENDPOINTS, "Content-Length of 1 TiB, the right answer, then nothing for VALUE (5) seconds"),
    "trickle": (ENDPOINTS, "the right answer, a byte every VALUE (0.2) seconds"),
    "truncated": (ENDPOINTS, "half of the right answer, then the connection closes"),
    "version": (("auth",), "requires protocol version VALUE (0.5.0)"),
    "wrong-nonce": (("auth",), "the challenge is not the nonce of the session: no attestation can pass"),
    "nonce-not-text": (("auth",), "nonce is a number"),
    "nonce-missing": (("auth",), "no nonce"),
    "nonce-opaque": (("auth",), "nonce is no base64; harmless, a client must not decode it"),
    "hash": (("auth",), "extra-params selects VALUE (SHA512): unknown names must be refused, known ones fail at attest"),
    "hash-not-text": (("auth",), "extra-params selects a number"),
    "cookie-lost": (("auth", "attest"), "no Set-Cookie"),
    "cookie-forgotten": (("attest",), "the session is gone as soon as it is attested"),
    "expired-token": (("attest",), "the token has expired an hour ago"),
    "token-missing": (("attest",), "answer without token"),
    "token-malformed": (("attest",), "token is VALUE (not a JWT)"),
    "token-no-exp": (("attest",), "token without exp"),
    "wrong-curve": (("resource",), "epk on the other curve"),
    "bad-epk": (("resource",), "epk is not on its curve"),
    "epk-missing": (("resource",), "no epk (or ek)"),
    "epk-short": (("resource",), "epk coordinate without its first byte"),
    "malformed-jwe": (("resource",), "member VALUE (encrypted_key) is missing"),
    "jwe-not-base64": (("resource",), "member VALUE (ciphertext) has a character outside base64url"),
    "jwe-padded": (("resource",), "member VALUE (tag) carries padding"),
    "jwe-flip": (("resource",), "a bit of member VALUE (ciphertext) is flipped"),
    "jwe-header-changed": (("resource",), "protected header re-spaced after encryption: AAD differs"),
    "jwe-short-iv": (("resource",), "IV of 8 bytes"),
    "jwe-short-tag": (("resource",), "tag of 4 bytes"),
    "jwe-short-cek": (("resource",), "content key of 16 bytes"),
    "jwe-alg": (("resource",), "alg is VALUE (dir)"),
    "jwe-enc": (("resource",), "enc is VALUE (A128GCM)"),
    "jwe-wrong-key": (("resource",), "encrypted to another key of the same kind"),
    "jwe-member-order": (("resource",), "header members in another order, with spaces; harmless"),
    "jwe-aad": (("resource",), "an aad member; harmless, a client ignores it"),
}
_SYNTAX = re.compile(r"([a-z0-9-]+)(?:@([a-z]+))?(?:/([0-9]+))?(?:=(.*))?", re.DOTALL)


@dataclass
class Fault:
    name: str
    endpoints: tuple[str, ...]
    left: int | None
    value: str | None


def parse(text: str) -> Fault:
    found = _SYNTAX.fullmatch(text)
    if not found or found[1] not in FAULTS:
        raise ValueError(f"unknown fault {text!r}; there are {', '.join(FAULTS)}")
    where = FAULTS[found[1]][0]
    if found[2] and found[2] not in where:
        raise ValueError(f"{found[1]} happens at {', '.join(where)}")
    return Fault(found[1], (found[2],) if found[2] else where, int(found[3]) if found[3] else None, found[4])


class Plan:
    """The faults of one server; `take` consumes one occurrence."""

    def __init__(self, texts: list[str]) -> None:
        self._faults = [parse(text) for text in texts]
        self._lock = threading.Lock()

    def take(self, endpoint: str) -> dict[str, str | None]:
        """Names and values for this request."""
        with self._lock:
            active: dict[str, str | None] = {}
            for fault in self._faults:
                if endpoint in fault.endpoints and fault.left != 0 and fault.name not in active:
                    active[fault.name] = fault.value
                    fault.left = None if fault.left is None else fault.left - 1
            return active


def _other_key(key: dict[str, str]) -> dict[str, str]:
    if key["kty"] == "EC":
        return kbs.ec_jwk(ec.generate_private_key(kbs.CURVES[key["crv"]][0]()).public_key())
    if key["kty"] == "RSA":
        return kbs.rsa_jwk(rsa.generate_private_key(65537, 2048).public_key(), key["alg"])
    return kbs.akp_jwk(mlkem.MLKEM768PrivateKey.generate().public_key())


def _flipped(text: str) -> str:
    data = bytearray(kbs.unb64url(text)) or bytearray(1)
    data[len(data) // 2] ^= 1
    return kbs.b64url(bytes(data))


def _wrap_short(key: dict[str, str], plain: bytes) -> dict[str, str]:
    if key["kty"] != "EC":
        return kbs.assemble(kbs.compact({"alg": key["alg"], "enc": "A256GCM"}), os.urandom(24), os.urandom(16), plain)
    public = kbs.read_ec(key)
    mine = ec.generate_private_key(public.curve)
    header = {"alg": kbs.ECDH, "enc": "A256GCM", "epk": kbs.ec_jwk(mine.public_key(), None)}
    cek = os.urandom(16)
    return kbs.assemble(kbs.compact(header), aes_key_wrap(kbs.concat_kdf(mine.exchange(ec.ECDH(), public)), cek), cek, plain)


def _with_header(key: dict[str, str], plain: bytes, change: dict[str, object], spaced: bool = False) -> dict[str, str]:
    """An answer that is right but for members of its header: rebuilt so that key wrap and AAD are valid where they can be."""
    if key["kty"] == "EC":
        public = kbs.read_ec(key)
        mine = ec.generate_private_key(public.curve)
        header: dict[str, object] = {"alg": kbs.ECDH, "enc": "A256GCM", "epk": kbs.ec_jwk(mine.public_key(), None)}
        cek = os.urandom(32)
        wrapped = aes_key_wrap(kbs.concat_kdf(mine.exchange(ec.ECDH(), public)), cek)
    elif key["kty"] == "RSA":
        header, cek = {"alg": key["alg"], "enc": "A256GCM"}, os.urandom(32)
        scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        wrapped = kbs.read_rsa(key).encrypt(cek, scheme if key["alg"] == kbs.OAEP else padding.PKCS1v15())
    else:
        secret, cipher = mlkem.MLKEM768PublicKey.from_public_bytes(kbs.unb64url(key["pub"])).encapsulate()
        header, cek = {"alg": kbs.MLKEM, "enc": "A256GCM", "ek": kbs.b64url(cipher)}, os.urandom(32)
        wrapped = aes_key_wrap(kbs.mlkem_kwk(secret), cek)
    header = {name: value for name, value in (header | change).items() if value is not None}
    if not spaced:
        return kbs.assemble(kbs.compact(header), wrapped, cek, plain)
    return kbs.assemble(json.dumps(dict(reversed(header.items())), indent=2).encode(), wrapped, cek, plain)


def spoil(active: dict[str, str | None], key: dict[str, str], plain: bytes) -> dict[str, str]:
    """The encrypted answer under the faults of this request."""
    if "jwe-wrong-key" in active:
        return kbs.encrypt(_other_key(key), plain)
    if "jwe-short-cek" in active:
        return _wrap_short(key, plain)
    change: dict[str, object] = {}
    if "wrong-curve" in active:
        other = ec.SECP521R1() if key.get("crv") == "P-256" else ec.SECP256R1()
        change["epk"] = kbs.ec_jwk(ec.generate_private_key(other).public_key(), None)
    if "bad-epk" in active or "epk-short" in active:
        crv = key.get("crv", "P-256")
        epk = kbs.ec_jwk(ec.generate_private_key(kbs.CURVES[crv][0]()).public_key(), None)
        change["epk"] = epk | ({"y": _flipped(epk["y"])} if "bad-epk" in active else {"x": kbs.b64url(kbs.unb64url(epk["x"])[1:])})
    if "epk-missing" in active:
        change |= {"epk": None, "ek": None}
    if "jwe-alg" in active:
        change["alg"] = active["jwe-alg"] or "dir"
    if "jwe-enc" in active:
        change["enc"] = active["jwe-enc"] or "A128GCM"
    spaced = "jwe-member-order" in active
    jwe = _with_header(key, plain, change, spaced) if change or spaced else kbs.encrypt(key, plain)
    if "jwe-header-changed" in active:
        jwe["protected"] = kbs.b64url(json.dumps(kbs.parse_json(kbs.unb64url(jwe["protected"])), indent=1).encode())
    for name, default, how in (
        ("jwe-not-base64", "ciphertext", lambda text: "*" + text[1:]),
        ("jwe-padded", "tag", lambda text: text + "=" * (-len(text) % 4 or 4)),
        ("jwe-flip", "ciphertext", _flipped),
        ("jwe-short-iv", "iv", lambda text: kbs.b64url(kbs.unb64url(text)[:8])),
        ("jwe-short-tag", "tag", lambda text: kbs.b64url(kbs.unb64url(text)[:4])),
    ):
        if name in active:
            member = active[name] or default
            jwe[member] = how(jwe[member])
    if "jwe-aad" in active:
        jwe["aad"] = "not used"
    if "malformed-jwe" in active:
        jwe.pop(active["malformed-jwe"] or "encrypted_key", None)
    return jwe
