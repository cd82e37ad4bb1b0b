"""Base64, JSON and the encrypted answers of the key broker: keys as JWK, JWE in the forms the protocol knows, KMAC256."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

ECDH, OAEP, RSA15, MLKEM = "ECDH-ES+A256KW", "RSA-OAEP-256", "RSA1_5", "ML-KEM-768+A192KW"
CURVES = {"P-256": (ec.SECP256R1, 32), "P-521": (ec.SECP521R1, 66)}


class Bad(Exception):
    """A value that does not follow the protocol; the caller turns it into the error of its endpoint."""


# ---- base64 and JSON -------------------------------------------------------------------------------------------------


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unb64(text: object) -> bytes:
    if not isinstance(text, str):
        raise Bad("base64 is not a string")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise Bad("not standard base64") from err


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64url(text: object) -> bytes:
    """Unpadded base64url, and only the one encoding of the bytes (no stray low bits)."""
    if not isinstance(text, str) or not re.fullmatch(r"[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        raise Bad("not unpadded base64url")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64url(data) != text:
        raise Bad("base64url with stray bits")
    return data


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Bad("duplicate member")
    return found


def _constant(word: str) -> object:
    raise Bad(f"{word} is not JSON")


def parse_json(data: bytes | str) -> object:
    """RFC 8259; also refuses duplicate members, lone surrogates and a byte order mark."""
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as err:
        raise Bad(f"not JSON: {err}") from err
    return value


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _quoted(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in text) + '"'


def canonical(value: object) -> str:
    """RFC 8785 for everything that occurs in hashed objects; fractions and exponents do not occur and are refused."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]  # type: ignore[index]
    if isinstance(value, int):
        if abs(value) > 2**53 - 1:
            raise Bad("number above 2^53-1")
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(_quoted(name) + ":" + canonical(value[name]) for name in names) + "}"
    raise Bad(f"no canonical form here for {type(value).__name__}")


def field(value: object, name: str, kind: type) -> object:
    if not isinstance(value, dict):
        raise Bad(f"an object with {name} was expected")
    if name not in value:
        raise Bad(f"missing field {name}")
    if not isinstance(value[name], kind) or (kind is int and isinstance(value[name], bool)):
        raise Bad(f"{name} is not a {kind.__name__}")
    return value[name]


# ---- keys and encrypted answers --------------------------------------------------------------------------------------


def ec_jwk(key: ec.EllipticCurvePublicKey, alg: str | None = ECDH) -> dict[str, str]:
    crv = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}[key.curve.name]
    size = (key.curve.key_size + 7) // 8
    numbers = key.public_numbers()
    jwk = {"crv": crv, "kty": "EC", "x": b64url(numbers.x.to_bytes(size, "big")), "y": b64url(numbers.y.to_bytes(size, "big"))}
    return jwk if alg is None else {**jwk, "alg": alg}


def read_ec(jwk: object, only: str | None = None) -> ec.EllipticCurvePublicKey:
    """An EC key on P-256 or P-521: coordinates of full length, a point of the curve."""
    if field(jwk, "kty", str) != "EC":
        raise Bad("not an EC key")
    crv = str(field(jwk, "crv", str))
    if crv not in CURVES or (only is not None and crv != only):
        raise Bad(f"curve {crv}")
    curve, size = CURVES[crv]
    x, y = (unb64url(field(jwk, name, str)) for name in ("x", "y"))
    if len(x) != size or len(y) != size:
        raise Bad("coordinate of another length")
    try:
        return ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve()).public_key()
    except ValueError as err:
        raise Bad("not a point of the curve") from err


def rsa_jwk(key: rsa.RSAPublicKey, alg: str = OAEP) -> dict[str, str]:
    numbers = key.public_numbers()
    parts = {name: b64url(v.to_bytes((v.bit_length() + 7) // 8, "big")) for name, v in (("n", numbers.n), ("e", numbers.e))}
    return {"kty": "RSA", "alg": alg, **parts}


def read_rsa(jwk: object) -> rsa.RSAPublicKey:
    n, e = (int.from_bytes(unb64url(field(jwk, name, str)), "big") for name in ("n", "e"))
    if n.bit_length() < 2048:
        raise Bad("RSA key below 2048 bits")
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError as err:
        raise Bad("not an RSA key") from err


def akp_jwk(key: mlkem.MLKEM768PublicKey) -> dict[str, str]:
    return {"kty": "AKP", "alg": MLKEM, "pub": b64url(key.public_bytes_raw())}


def concat_kdf(z: bytes) -> bytes:
    """RFC 7518 4.6 with empty party information: one round, 256 bits."""
    return hashlib.sha256(struct.pack(">I", 1) + z + kdf_other_info()).digest()


def kdf_other_info() -> bytes:
    return struct.pack(">I", len(ECDH)) + ECDH.encode() + struct.pack(">III", 0, 0, 256)


def mlkem_kwk(secret: bytes) -> bytes:
    return kmac256(secret, struct.pack(">I", len(MLKEM)) + MLKEM.encode() + struct.pack(">I", 192), 24, b"")


_ROUND = []
_lfsr = 1
for _ in range(24):
    _constant_of_round = 0
    for _j in range(7):
        if _lfsr & 1:
            _constant_of_round |= 1 << ((1 << _j) - 1)
        _lfsr = (_lfsr << 1) ^ (0x171 if _lfsr & 0x80 else 0)
    _ROUND.append(_constant_of_round)
_M64 = (1 << 64) - 1


def _rol(lane: int, by: int) -> int:
    by %= 64
    return ((lane << by) | (lane >> (64 - by))) & _M64 if by else lane


def _keccak(state: bytearray) -> None:
    a = [[int.from_bytes(state[8 * (x + 5 * y) : 8 * (x + 5 * y) + 8], "little") for y in range(5)] for x in range(5)]
    for constant in _ROUND:
        c = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        d = [c[(x + 4) % 5] ^ _rol(c[(x + 1) % 5], 1) for x in range(5)]
        a = [[a[x][y] ^ d[x] for y in range(5)] for x in range(5)]
        x, y, current = 1, 0, a[1][0]
        for t in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            current, a[x][y] = a[x][y], _rol(current, (t + 1) * (t + 2) // 2)
        for y in range(5):
            row = [a[x][y] for x in range(5)]
            for x in range(5):
                a[x][y] = row[x] ^ (~row[(x + 1) % 5] & row[(x + 2) % 5] & _M64)
        a[0][0] ^= constant
    for x in range(5):
        for y in range(5):
            state[8 * (x + 5 * y) : 8 * (x + 5 * y) + 8] = a[x][y].to_bytes(8, "little")


def kmac256(key: bytes, data: bytes, length: int, custom: bytes) -> bytes:
    """NIST SP 800-185, output of up to 136 bytes."""
    rate = 136

    def number(value: int) -> bytes:
        return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")

    def left(value: int) -> bytes:
        return bytes([len(number(value))]) + number(value)

    def padded(text: bytes) -> bytes:
        text = left(rate) + text
        return text + bytes(-len(text) % rate)

    def string(text: bytes) -> bytes:
        return left(8 * len(text)) + text

    message = padded(string(b"KMAC") + string(custom)) + padded(string(key)) + data
    message += number(8 * length) + bytes([len(number(8 * length))]) + b"\x04"
    message += bytes(-len(message) % rate)
    state = bytearray(200)
    for at in range(0, len(message), rate):
        block = bytearray(message[at : at + rate])
        if at + rate == len(message):
            block[-1] ^= 0x80
        state[:rate] = bytes(p ^ q for p, q in zip(state[:rate], block, strict=True))
        _keccak(state)
    return bytes(state[:length])


def encrypt(key: dict[str, str], plain: bytes) -> dict[str, str]:
    """A flattened JWE for a TEE public key, as the broker answers it."""
    cek = os.urandom(32)
    alg = key["alg"]
    header: dict[str, object] = {"alg": alg, "enc": "A256GCM"}
    if key["kty"] == "EC" and alg == ECDH:
        public = read_ec(key)
        mine = ec.generate_private_key(public.curve)
        header["epk"] = ec_jwk(mine.public_key(), None)
        wrapped = aes_key_wrap(concat_kdf(mine.exchange(ec.ECDH(), public)), cek)
    elif key["kty"] == "RSA" and alg == OAEP:
        wrapped = read_rsa(key).encrypt(cek, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    elif key["kty"] == "RSA" and alg == RSA15:
        wrapped = read_rsa(key).encrypt(cek, padding.PKCS1v15())
    elif key["kty"] == "AKP" and alg == MLKEM:
        public = unb64url(key["pub"])
        if len(public) != 1184:
            raise Bad("ML-KEM-768 key of another length")
        try:
            secret, cipher = mlkem.MLKEM768PublicKey.from_public_bytes(public).encapsulate()
        except ValueError as err:
            raise Bad("not an ML-KEM-768 key") from err
        header["ek"] = b64url(cipher)
        wrapped = aes_key_wrap(mlkem_kwk(secret), cek)
    else:
        raise Bad(f"algorithm {alg} for a key of kind {key['kty']}")
    return assemble(compact(header), wrapped, cek, plain)


def assemble(header: bytes, wrapped: bytes, cek: bytes, plain: bytes) -> dict[str, str]:
    protected, iv = b64url(header), os.urandom(12)
    sealed = AESGCM(cek).encrypt(iv, plain, protected.encode())
    parts = {"encrypted_key": wrapped, "iv": iv, "ciphertext": sealed[:-16], "tag": sealed[-16:]}
    return {"protected": protected, **{name: b64url(data) for name, data in parts.items()}}


def decrypt(jwe: object, secret: object) -> bytes:
    """The plain bytes of a broker's answer for the private key of this TEE. The client's rules: strict in everything."""
    protected = str(field(jwe, "protected", str))
    header = parse_json(unb64url(protected))
    wrapped, iv, cipher, tag = (unb64url(field(jwe, name, str)) for name in ("encrypted_key", "iv", "ciphertext", "tag"))
    alg = field(header, "alg", str)
    if field(header, "enc", str) != "A256GCM" or len(iv) != 12 or len(tag) != 16:
        raise Bad("not A256GCM with an IV of 12 and a tag of 16 bytes")
    if isinstance(secret, ec.EllipticCurvePrivateKey) and alg == ECDH:
        crv = {"secp256r1": "P-256", "secp521r1": "P-521"}[secret.curve.name]
        kek = concat_kdf(secret.exchange(ec.ECDH(), read_ec(field(header, "epk", dict), crv)))
    elif isinstance(secret, mlkem.MLKEM768PrivateKey) and alg == MLKEM:
        ek = unb64url(field(header, "ek", str))
        if len(ek) != 1088:
            raise Bad("KEM ciphertext of another length")
        kek = mlkem_kwk(secret.decapsulate(ek))
    elif isinstance(secret, rsa.RSAPrivateKey) and alg in (OAEP, RSA15):
        kek = b""
        scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None) if alg == OAEP else padding.PKCS1v15()
    else:
        raise Bad(f"algorithm {alg} is not that of the key")
    try:
        if kek:
            if len(wrapped) != 40:
                raise Bad("wrapped key of another length")
            cek = aes_key_unwrap(kek, wrapped)
        else:
            cek = secret.decrypt(wrapped, scheme)  # type: ignore[union-attr]
    except (InvalidUnwrap, ValueError) as err:
        raise Bad("the key does not unwrap") from err
    if len(cek) != 32:
        raise Bad("content key of another length")
    try:
        return AESGCM(cek).decrypt(iv, cipher + tag, protected.encode())
    except InvalidTag as err:
        raise Bad("the answer is not authentic") from err
