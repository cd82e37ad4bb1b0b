"""Noise_NX_25519_AESGCM_SHA512 (Noise revision 34), both sides, written from the Noise specification.

  NX:  -> e
       <- e, ee, s, es
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NAME = b"Noise_NX_25519_AESGCM_SHA512"


class NoiseError(Exception):
    pass


def _hkdf2(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    temp = hmac.new(chaining_key, material, "sha512").digest()
    first = hmac.new(temp, b"\x01", "sha512").digest()
    return first, hmac.new(temp, first + b"\x02", "sha512").digest()


class Cipher:
    """CipherState: AES-256-GCM, nonce = 32 zero bits and the counter big-endian."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.count = 0

    def _nonce(self) -> bytes:
        nonce = bytes(4) + self.count.to_bytes(8, "big")
        self.count += 1
        return nonce

    def encrypt(self, plaintext: bytes, ad: bytes = b"") -> bytes:
        return AESGCM(self.key).encrypt(self._nonce(), plaintext, ad)

    def decrypt(self, ciphertext: bytes, ad: bytes = b"") -> bytes:
        try:
            return AESGCM(self.key).decrypt(self._nonce(), ciphertext, ad)
        except (InvalidTag, ValueError) as err:
            raise NoiseError("a handshake or transport message does not authenticate") from err


class Handshake:
    def __init__(self, prologue: bytes, ephemeral: bytes | None = None, static: bytes | None = None) -> None:
        self.h = NAME.ljust(64, b"\0")
        self.ck = self.h
        self.cipher: Cipher | None = None
        self.mix_hash(prologue)
        self.e = X25519PrivateKey.from_private_bytes(ephemeral) if ephemeral else X25519PrivateKey.generate()
        self.s = X25519PrivateKey.from_private_bytes(static) if static else None
        self.re: bytes = b""
        self.rs: bytes = b""

    def mix_hash(self, data: bytes) -> None:
        self.h = hashlib.sha512(self.h + data).digest()

    def mix_dh(self, private: X25519PrivateKey, public: bytes) -> None:
        try:
            shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as err:
            raise NoiseError("X25519 to a point of small order") from err
        self.ck, key = _hkdf2(self.ck, shared)
        self.cipher = Cipher(key[:32])

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        out = self.cipher.encrypt(plaintext, self.h) if self.cipher else plaintext
        self.mix_hash(out)
        return out

    def decrypt_and_hash(self, data: bytes) -> bytes:
        out = self.cipher.decrypt(data, self.h) if self.cipher else data
        self.mix_hash(data)
        return out

    def write_1(self, payload: bytes) -> bytes:
        e = self.e.public_key().public_bytes_raw()
        self.mix_hash(e)
        return e + self.encrypt_and_hash(payload)

    def read_1(self, message: bytes) -> bytes:
        if len(message) < 32:
            raise NoiseError("message 1 is too short")
        self.re = message[:32]
        self.mix_hash(self.re)
        return self.decrypt_and_hash(message[32:])

    def write_2(self, payload: bytes) -> bytes:
        if self.s is None:
            raise NoiseError("a responder needs a static key")
        e = self.e.public_key().public_bytes_raw()
        self.mix_hash(e)
        self.mix_dh(self.e, self.re)
        s = self.encrypt_and_hash(self.s.public_key().public_bytes_raw())
        self.mix_dh(self.s, self.re)
        return e + s + self.encrypt_and_hash(payload)

    def read_2(self, message: bytes) -> bytes:
        if len(message) < 32 + 48 + 16:
            raise NoiseError("message 2 is too short")
        self.re = message[:32]
        self.mix_hash(self.re)
        self.mix_dh(self.e, self.re)
        self.rs = self.decrypt_and_hash(message[32:80])
        self.mix_dh(self.e, self.rs)
        return self.decrypt_and_hash(message[80:])

    def split(self) -> tuple[bytes, bytes]:
        """The two 32-byte keys, initiator to responder first."""
        first, second = _hkdf2(self.ck, b"")
        return first[:32], second[:32]
