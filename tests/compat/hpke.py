"""HPKE (RFC 9180) mode Base, single shot, for the two suites of the specification, and X-Wing (draft-connolly-cfrg-xwing-kem).

Written out from the RFC and the draft; `cryptography` is asked only for P-384, X25519, ML-KEM-768 and AES-GCM.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from refused import Refused

KDF_ID = 0x0002
AEAD_ID = 0x0002
LABEL = b"\\.//^\\"  # the X-Wing label: 5c 2e 2f 2f 5e 5c


def extract(hash_name: str, salt: bytes, ikm: bytes) -> bytes:
    size = hashlib.new(hash_name).digest_size
    return hmac.new(salt or bytes(size), ikm, hash_name).digest()


def expand(hash_name: str, prk: bytes, info: bytes, length: int) -> bytes:
    out = block = b""
    count = 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([count]), hash_name).digest()
        out += block
        count += 1
    return out[:length]


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return extract("sha384", salt, b"HPKE-v1" + suite + label + ikm)


def _labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return expand("sha384", prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


class P384:
    """DHKEM(P-384, HKDF-SHA384). The secret is the 48-byte scalar."""

    kem_id = 0x0011
    enc_length = 97
    public_length = 97

    @staticmethod
    def private(secret: bytes) -> ec.EllipticCurvePrivateKey:
        if len(secret) != 48:
            raise Refused("KEY_INVALID", "P-384 scalar")
        try:
            return ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP384R1())
        except ValueError as err:
            raise Refused("KEY_INVALID", "P-384 scalar") from err

    @staticmethod
    def point(key: ec.EllipticCurvePublicKey) -> bytes:
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    @staticmethod
    def from_point(data: bytes) -> ec.EllipticCurvePublicKey:
        if len(data) != 97 or data[0] != 4:
            raise ValueError("not an uncompressed P-384 point")
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), data)

    @classmethod
    def public(cls, secret: bytes) -> bytes:
        return cls.point(cls.private(secret).public_key())

    @classmethod
    def _shared(cls, dh: bytes, enc: bytes, public: bytes) -> bytes:
        suite = b"KEM" + cls.kem_id.to_bytes(2, "big")
        prk = _labeled_extract(suite, b"", b"eae_prk", dh)
        return _labeled_expand(suite, prk, b"shared_secret", enc + public, 48)

    @classmethod
    def encap(cls, public: bytes) -> tuple[bytes, bytes]:
        ephemeral = ec.generate_private_key(ec.SECP384R1())
        dh = ephemeral.exchange(ec.ECDH(), cls.from_point(public))
        enc = cls.point(ephemeral.public_key())
        return cls._shared(dh, enc, public), enc

    @classmethod
    def decap(cls, enc: bytes, secret: bytes) -> bytes:
        dh = cls.private(secret).exchange(ec.ECDH(), cls.from_point(enc))
        return cls._shared(dh, enc, cls.public(secret))


class XWing:
    """X-Wing. The secret is the 32-byte seed."""

    kem_id = 0x647A
    enc_length = 1120
    public_length = 1216

    @staticmethod
    def keys(secret: bytes) -> tuple[mlkem.MLKEM768PrivateKey, x25519.X25519PrivateKey]:
        if len(secret) != 32:
            raise Refused("KEY_INVALID", "X-Wing seed")
        expanded = hashlib.shake_256(secret).digest(96)
        return (
            mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
            x25519.X25519PrivateKey.from_private_bytes(expanded[64:]),
        )

    @classmethod
    def public(cls, secret: bytes) -> bytes:
        m, x = cls.keys(secret)
        return m.public_key().public_bytes_raw() + x.public_key().public_bytes_raw()

    @staticmethod
    def combine(ss_m: bytes, ss_x: bytes, ct_x: bytes, pk_x: bytes) -> bytes:
        return hashlib.sha3_256(ss_m + ss_x + ct_x + pk_x + LABEL).digest()

    @staticmethod
    def _x25519(secret: x25519.X25519PrivateKey, public: bytes) -> bytes:
        try:
            return secret.exchange(x25519.X25519PublicKey.from_public_bytes(public))
        except ValueError:
            return bytes(32)  # X25519 to a small-order point is all zeros; the draft does not check, the combiner binds it

    @classmethod
    def encap(cls, public: bytes) -> tuple[bytes, bytes]:
        if len(public) != cls.public_length:
            raise ValueError("X-Wing public key length")
        pk_m, pk_x = public[:1184], public[1184:]
        ephemeral = x25519.X25519PrivateKey.from_private_bytes(os.urandom(32))
        ss_m, ct_m = mlkem.MLKEM768PublicKey.from_public_bytes(pk_m).encapsulate()
        ct_x = ephemeral.public_key().public_bytes_raw()
        return cls.combine(ss_m, cls._x25519(ephemeral, pk_x), ct_x, pk_x), ct_m + ct_x

    @classmethod
    def decap(cls, enc: bytes, secret: bytes) -> bytes:
        if len(enc) != cls.enc_length:
            raise ValueError("X-Wing ciphertext length")
        m, x = cls.keys(secret)
        ct_m, ct_x = enc[:1088], enc[1088:]
        return cls.combine(m.decapsulate(ct_m), cls._x25519(x, ct_x), ct_x, x.public_key().public_bytes_raw())


KEMS: dict[str, type[P384] | type[XWing]] = {"P-384": P384, "X-Wing": XWing}


def _secret(kem: type[P384] | type[XWing], shared: bytes, info: bytes) -> tuple[bytes, bytes, bytes]:
    """Suite, context and secret of the key schedule."""
    suite = b"HPKE" + b"".join(i.to_bytes(2, "big") for i in (kem.kem_id, KDF_ID, AEAD_ID))
    psk_id_hash = _labeled_extract(suite, b"", b"psk_id_hash", b"")
    info_hash = _labeled_extract(suite, b"", b"info_hash", info)
    context = b"\x00" + psk_id_hash + info_hash
    return suite, context, _labeled_extract(suite, shared, b"secret", b"")


def _key_schedule(kem: type[P384] | type[XWing], shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    suite, context, secret = _secret(kem, shared, info)
    return _labeled_expand(suite, secret, b"key", context, 32), _labeled_expand(suite, secret, b"base_nonce", context, 12)


def seal(kem: type[P384] | type[XWing], public: bytes, info: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
    """(enc, ciphertext)."""
    shared, enc = kem.encap(public)
    key, nonce = _key_schedule(kem, shared, info)
    return enc, AESGCM(key).encrypt(nonce, plaintext, b"")


def open_(kem: type[P384] | type[XWing], secret: bytes, enc: bytes, info: bytes, ciphertext: bytes) -> bytes | None:
    """The plaintext, or None when it does not open."""
    try:
        key, nonce = _key_schedule(kem, kem.decap(enc, secret), info)
        return AESGCM(key).decrypt(nonce, ciphertext, b"")
    except (ValueError, InvalidTag):
        return None


def exported(kem: type[P384] | type[XWing], secret: bytes, enc: bytes, info: bytes, exporter: bytes, length: int) -> bytes:
    """What the recipient's context exports (RFC 9180, 5.3); ValueError for an encapsulated key that is none."""
    suite, context, schedule = _secret(kem, kem.decap(enc, secret), info)
    return _labeled_expand(suite, _labeled_expand(suite, schedule, b"exp", context, 48), b"sec", exporter, length)
