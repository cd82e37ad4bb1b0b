"""Driver of the sealing chip, written from docs/spec/chip-interface-v1.md alone. Section numbers below are that document's.

Everything on this interface is little-endian.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

import artifact
import chip_evidence
import hpke
import jcs
import noise
import vfio_user

# ---------------------------------------------------------------------------------------------------------------- §9
STATUS = {
    0x00: "OK", 0x01: "BAD_OPCODE", 0x02: "BAD_LENGTH", 0x03: "BAD_FIELD", 0x04: "DMA_FAULT", 0x05: "NO_RESOURCES",
    0x06: "NOT_PROVISIONED", 0x07: "ALREADY_PROVISIONED", 0x08: "ABORTED", 0x09: "INTERNAL", 0x10: "NO_SESSION",
    0x11: "HANDSHAKE", 0x12: "AUTH", 0x13: "SEQUENCE", 0x14: "SUITE", 0x15: "PATH", 0x16: "BUDGET", 0x17: "INSECURE_REFUSED",
    0x20: "POLICY_MALFORMED", 0x21: "POLICY_DENIED", 0x22: "EVIDENCE_REQUIRED", 0x23: "EVIDENCE_REFUSED",
    0x24: "CORE_MALFORMED", 0x25: "UNWRAP_FAILED", 0x26: "ROLLBACK", 0x27: "SIGNATURE_INVALID", 0x28: "COMMITMENT_MISMATCH",
    0x29: "EPOCH", 0x30: "NO_HANDLE", 0x31: "TAGS_MISMATCH", 0x32: "SEGMENT_AUTH", 0x33: "RANGE", 0x34: "TAGS_NOT_LOADED",
    0x40: "PUF_FAILED",
}  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------- §5
IDENTIFY, CHAIN, PROVISION, ABORT = 0x01, 0x02, 0x03, 0x04
OPEN, FINISH = 0x10, 0x11
PRESENT, UNWRAP, LOAD_TAGS, REGISTER, UNSEAL, SESSION_STATUS, FLOORS, CLOSE = range(0x20, 0x28)
ZEROIZE = 0x30

CLASSICAL, HYBRID = 1, 2
PATHS = {"key-release": 1, "dma-direct": 2, "dma-sealed": 4}
NO_TEE, NO_EVIDENCE, EMULATED_DMA, EMULATED_CHIP, EMULATED_TEE = 1, 2, 4, 32, 64
GRANT_SUITES = {"P-384": 1, "X-Wing": 2}
EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.59999.1.1")
BEFORE = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.timezone.utc)


class DeviceFault(Exception):
    """The device, or the chip behind it, did what it must not do."""


def lp(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


class Reader:
    """Cuts a byte string from the front; everything must be used up."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, length: int) -> bytes:
        if length > len(self.data) - self.at:
            raise DeviceFault("a record is too short")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def lp(self) -> bytes:
        return self.take(self.number(4))

    def end(self) -> None:
        if self.at != len(self.data):
            raise DeviceFault("a record has bytes after its end")


# --------------------------------------------------------------------------------------------------------- §2 and §3
@dataclass
class Completion:
    status: int
    detail: int
    output: bytes
    tag: bytes
    cid: int

    @property
    def name(self) -> str:
        return STATUS.get(self.status, f"{self.status:#x}")


_ENTRY = struct.Struct("<BBHIQIIQQ24s")
_COMPLETION = struct.Struct("<HHHHII16s")
_BASE = 0x1_0000_0000
_RINGS = 0x0
_INPUT = 0x10_000
_OUTPUT = 0x120_000
DATA = 0x400_000
_SIZE = 0x1000_000


class Queue:
    def __init__(self, index: int, entries: int) -> None:
        self.index = index
        self.entries = entries
        self.sq = _RINGS + index * 0x4000
        self.cq = self.sq + 0x2000
        self.tail = 0
        self.head = 0
        self.phase = 1
        self.cid = 0


class Device:
    """The controller: registers, two queue pairs, one command at a time."""

    def __init__(self, socket_path: str, entries: int = 8) -> None:
        self.client = vfio_user.Client(socket_path)
        self.memory = vfio_user.Memory(_SIZE, _BASE)
        self.client.map(self.memory)
        self.entries = entries
        if self.register(0x000) != 0x50494B49:
            raise DeviceFault("MAGIC")
        if self.register(0x004) != 0x00010000:
            raise DeviceFault("VERSION")
        low, high = self.register(0x008), self.register(0x00C)
        self.cap = high << 32 | low
        self.queues: list[Queue] = []
        self.enable()

    def register(self, offset: int) -> int:
        return int.from_bytes(self.client.read(vfio_user.BAR0, offset, 4), "little")

    def set_register(self, offset: int, value: int) -> None:
        self.client.write(vfio_user.BAR0, offset, struct.pack("<I", value))

    def set_register_64(self, offset: int, value: int) -> None:
        self.set_register(offset, value & 0xFFFFFFFF)
        self.set_register(offset + 4, value >> 32)

    def status(self) -> int:
        return self.register(0x014)

    def wait(self, ready: bool) -> None:
        limit = 0.5 * max(1, self.cap >> 24 & 0xFF) + 5.0
        end = time.monotonic() + limit
        while (self.status() & 1 == 1) != ready:
            if self.status() & 2:
                raise DeviceFault(f"FATAL {STATUS.get(self.register(0x018), '?')}")
            if time.monotonic() > end:
                raise DeviceFault("RDY does not change")
            time.sleep(0.01)

    def enable(self) -> None:
        self.set_register(0x010, 0)
        self.wait(False)
        self.queues = [Queue(index, self.entries) for index in range(2)]
        self.memory.write(_RINGS, bytes(0x8000))
        for queue in self.queues:
            at = 0x100 + 0x40 * queue.index
            self.set_register_64(at, _BASE + queue.sq)
            self.set_register_64(at + 0x08, _BASE + queue.cq)
            self.set_register(at + 0x10, queue.entries)
            self.set_register(at + 0x14, queue.entries)
        self.set_register(0x010, 1)
        self.wait(True)

    def reset(self) -> None:
        self.set_register(0x010, 2)
        self.wait(False)
        self.enable()

    def entry(
        self, queue: int, opcode: int, session: int, length: int, cap: int, seq: int = 0, flags: int = 0, reserved: bytes = bytes(24)
    ) -> bytes:
        ring = self.queues[queue]
        ring.cid = (ring.cid + 1) & 0xFFFF
        return _ENTRY.pack(
            opcode, flags, ring.cid, session, _BASE + _INPUT, length, cap, _BASE + _OUTPUT, seq, reserved
        )

    def execute(self, queue: int, entry: bytes, data: bytes, timeout: float = 20.0) -> Completion:
        ring = self.queues[queue]
        cid, cap = struct.unpack_from("<H", entry, 2)[0], struct.unpack_from("<I", entry, 20)[0]
        self.memory.write(_INPUT, data)
        self.memory.write(ring.sq + 64 * ring.tail, entry)
        ring.tail = (ring.tail + 1) % ring.entries
        self.set_register(0x1000 + 8 * queue, ring.tail)
        at = ring.cq + 32 * ring.head
        end = time.monotonic() + timeout
        while self.memory.read(at + 6, 1)[0] & 1 != ring.phase:
            if self.status() & 2:
                raise DeviceFault(f"FATAL {STATUS.get(self.register(0x018), '?')}")
            if time.monotonic() > end:
                raise DeviceFault("no completion")
            time.sleep(0.0005)
        status, got_cid, sq_head, _, out_len, detail, tag = _COMPLETION.unpack(self.memory.read(at, 32))
        ring.head = (ring.head + 1) % ring.entries
        if ring.head == 0:
            ring.phase ^= 1
        if got_cid != cid or out_len > cap or sq_head >= ring.entries:
            raise DeviceFault("a completion that no driver may accept")
        output = self.memory.read(_OUTPUT, out_len)
        self.set_register(0x1004 + 8 * queue, ring.head)
        return Completion(status, detail, output, tag, got_cid)

    def command(self, opcode: int, data: bytes = b"", cap: int = 65_536, session: int = 0, **other: object) -> Completion:
        """A command outside a session."""
        entry = self.entry(0, opcode, session, len(data), cap, **other)  # type: ignore[arg-type]
        done = self.execute(0, entry, data)
        if done.tag != bytes(16):
            raise DeviceFault("a tag outside a session")
        return done

    def close(self) -> None:
        self.client.close()
        self.memory.close()


# ----------------------------------------------------------------------------------------------------- §6.4 and §6.5
@dataclass
class Identity:
    flags: int
    id: bytes
    epoch: int
    environment: str
    spki: bytes
    noise: bytes
    p384: bytes
    x_wing: bytes
    suites: int
    paths: int

    @property
    def provisioned(self) -> bool:
        return bool(self.flags & 1)

    def public(self, suite: str) -> bytes:
        return {"P-384": self.p384, "X-Wing": self.x_wing}[suite]


def chip_id(spki: bytes) -> bytes:
    return hashlib.sha256(b"innerkeep chip id v1" + spki).digest()


def read_identity(data: bytes) -> Identity:
    reader = Reader(data)
    if reader.number(2) != 1:
        raise DeviceFault("version of the identity record")
    found = Identity(
        flags=reader.number(2),
        id=reader.take(32),
        epoch=reader.number(8),
        environment=reader.lp().decode("utf-8"),
        spki=reader.lp(),
        noise=reader.take(32),
        p384=reader.take(97),
        x_wing=reader.take(1216),
        suites=reader.number(2),
        paths=reader.number(2),
    )
    reader.end()
    if chip_id(found.spki) != found.id:
        raise DeviceFault("the id is not that of the signing key")
    return found


def read_chain(data: bytes) -> list[bytes]:
    reader = Reader(data)
    found = [reader.lp() for _ in range(reader.number(4))]
    reader.end()
    return found


def provision_input(
    environment: str, epoch: int, chain: list[bytes], root: bytes, minimums: tuple[int, ...] = (0, 0, 0, 0)
) -> bytes:
    """`minimums`: TCB evaluation, PCK CRL, root CRL, SNP CRL."""
    parts = lp(environment.encode()) + struct.pack("<QI", epoch, len(chain)) + b"".join(lp(der) for der in chain)
    return parts + lp(root) + b"".join(struct.pack("<Q", number) for number in minimums)


# ---------------------------------------------------------------------------------------------------------------- §6.3
class Authority:
    """A root and a model CA."""

    def __init__(self) -> None:
        self.root_key = ec.generate_private_key(ec.SECP384R1())
        self.model_key = ec.generate_private_key(ec.SECP384R1())
        self.root = self.certificate("compat root", self.root_key.public_key(), "compat root", self.root_key, None)
        self.model = self.certificate("compat model", self.model_key.public_key(), "compat root", self.root_key, 0)

    @staticmethod
    def certificate(
        subject: str,
        key: ec.EllipticCurvePublicKey,
        issuer: str,
        signer: ec.EllipticCurvePrivateKey,
        path_length: int | None,
        extension: bytes | None = None,
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(BEFORE)
            .not_valid_after(AFTER)
        )
        leaf = extension is not None
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only", "decipher_only"),
            False,
        )
        if not leaf:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        builder = builder.add_extension(x509.KeyUsage(digital_signature=leaf, key_cert_sign=not leaf, **usage), critical=True)
        if extension is not None:
            builder = builder.add_extension(x509.UnrecognizedExtension(EXTENSION, extension), critical=False)
        return builder.sign(signer, hashes.SHA384()).public_bytes(Encoding.DER)

    def leaf(self, identity: Identity, environment: str, epoch: int, changes: dict[str, object] | None = None) -> bytes:
        value: dict[str, object] = {
            "@type": "innerkeep chip certificate v1",
            "environment": environment,
            "id": identity.id.hex(),
            "key_epoch": epoch,
            "model": "compat-model-1",
            "noise": identity.noise.hex(),
            "p384": base64.b64encode(identity.p384).decode(),
            "x_wing": base64.b64encode(identity.x_wing).decode(),
        }
        value.update(changes or {})
        key = load_der_public_key(identity.spki)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return self.certificate(identity.id.hex(), key, "compat model", self.model_key, None, jcs.encode(value))


@dataclass
class Certified:
    environment: str
    id: bytes
    epoch: int
    model: str
    noise: bytes
    p384: bytes
    x_wing: bytes
    key: ec.EllipticCurvePublicKey


def _load(der: bytes) -> x509.Certificate:
    if len(der) > 8192:
        raise DeviceFault("certificate above 8,192 bytes")
    try:
        found = x509.load_der_x509_certificate(der)
        key = found.public_key()
    except ValueError as err:
        raise DeviceFault("not a certificate") from err
    if found.version != x509.Version.v3 or found.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise DeviceFault("version or signature algorithm")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise DeviceFault("curve")
    if found.not_valid_before_utc != BEFORE or found.not_valid_after_utc != AFTER:
        raise DeviceFault("validity dates")
    return found


def _issued(found: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        found.verify_directly_issued_by(issuer)  # names and signature
    except (ValueError, TypeError, InvalidSignature) as err:
        raise DeviceFault("a certificate is not issued by the one above it") from err


def _usage(found: x509.Certificate, ca: bool, path_length: int | None) -> None:
    known = (x509.BasicConstraints.oid, x509.KeyUsage.oid)
    if any(one.critical and one.oid not in known for one in found.extensions):
        raise DeviceFault("unknown critical extension")
    by_oid = {one.oid: one.value for one in found.extensions}
    usage, basic = by_oid.get(x509.KeyUsage.oid), by_oid.get(x509.BasicConstraints.oid)
    if not isinstance(usage, x509.KeyUsage) or not (usage.key_cert_sign if ca else usage.digital_signature):
        raise DeviceFault("keyUsage")
    if ca and not (isinstance(basic, x509.BasicConstraints) and basic.ca and basic.path_length == path_length):
        raise DeviceFault("basicConstraints")
    if not ca and isinstance(basic, x509.BasicConstraints) and basic.ca:
        raise DeviceFault("the chip's certificate is a CA")
    if not ca and usage.key_cert_sign:
        raise DeviceFault("the chip's key may sign certificates")


def verify_chain(root_der: bytes, chain: list[bytes]) -> Certified:
    """`root_der` comes from the verifier."""
    if len(chain) != 2:
        raise DeviceFault("not exactly model CA and chip")
    root, model, leaf = (_load(der) for der in (root_der, *chain))
    _issued(root, root)
    _issued(model, root)
    _issued(leaf, model)
    _usage(model, True, 0)
    _usage(leaf, False, None)
    spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    own = chip_id(spki)
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [own.hex()]:
        raise DeviceFault("subject is not the chip's id")
    extension = leaf.extensions.get_extension_for_oid(EXTENSION).value
    assert isinstance(extension, x509.UnrecognizedExtension)
    value = artifact.members(
        jcs.read(extension.value, 8192),
        "innerkeep chip certificate v1",
        ("environment", "id", "key_epoch", "model", "noise", "p384", "x_wing"),
    )
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    found = Certified(
        environment=artifact.tag_text(value["environment"]),
        id=artifact.hexed(value["id"], 32),
        epoch=artifact.integer(value["key_epoch"]),
        model=artifact.tag_text(value["model"]),
        noise=artifact.hexed(value["noise"], 32),
        p384=artifact.unbase64(value["p384"]),
        x_wing=artifact.unbase64(value["x_wing"]),
        key=key,
    )
    if found.id != own or len(found.p384) != 97 or len(found.x_wing) != 1216:
        raise DeviceFault("the certificate's extension")
    return found


# ---------------------------------------------------------------------------------------------------------------- §7
PROLOGUE = b"innerkeep chip interface v1"


def hello(suites: int, path: str, insecure: int) -> bytes:
    """The payload of message 1."""
    return struct.pack("<HHHHI", 1, suites, PATHS[path], 0, insecure) + os.urandom(32)


class NotAuthenticated(Exception):
    """A completion without a tag inside a session; its status is only a hint."""

    def __init__(self, done: Completion) -> None:
        super().__init__(done.name)
        self.done = done


class HandshakeRefused(Exception):
    def __init__(self, done: Completion) -> None:
        super().__init__(done.name)
        self.done = done


class Session:
    """One session from the guest's side."""

    def __init__(self, device: Device, root: bytes, path: str, suites: int, insecure: int) -> None:
        self.device = device
        self.seq = [1, 1]
        handshake = noise.Handshake(PROLOGUE)
        done = device.command(OPEN, handshake.write_1(hello(suites, path, insecure)))
        if done.status:
            raise HandshakeRefused(done)
        reader = Reader(handshake.read_2(done.output))
        self.suite = reader.number(2)
        if (self.suite, reader.number(2)) != (HYBRID if suites & HYBRID else CLASSICAL, PATHS[path]):
            raise DeviceFault("another suite or path than demanded")
        self.tdisp = reader.number(1)
        if reader.take(3) != bytes(3):
            raise DeviceFault("reserved bytes of message 2")
        self.chip_insecure = reader.number(4)
        self.id = reader.number(4)
        self.epoch = reader.number(8)
        self.interface_report = reader.take(48)
        reader.take(32)
        encapsulation_key = reader.lp()
        chain = [reader.lp() for _ in range(reader.number(4))]
        reader.end()
        self.certified = verify_chain(root, chain)
        if self.certified.noise != handshake.rs or self.certified.epoch != self.epoch:
            raise DeviceFault("static key or epoch is not the certified one")
        if len(encapsulation_key) != (1184 if self.suite == HYBRID else 0):
            raise DeviceFault("length of the encapsulation key")
        shared = ciphertext = b""
        if self.suite == HYBRID:
            shared, ciphertext = mlkem.MLKEM768PublicKey.from_public_bytes(encapsulation_key).encapsulate()
        one, two = handshake.split()
        message_3 = noise.Cipher(one).encrypt(lp(ciphertext))
        done = device.command(FINISH, message_3, session=self.id)
        if done.status:
            raise HandshakeRefused(done)
        signature = noise.Cipher(two).decrypt(done.output)
        transcript = hashlib.sha512(b"innerkeep chip session v1 transcript" + handshake.h + message_3).digest()
        if not artifact.ecdsa_verifies(self.certified.key, signature, b"innerkeep chip session v1 signature\0" + transcript):
            raise DeviceFault("the chip's signature does not verify")
        self.report_data = chip_evidence.report_data(transcript)
        prk = hpke.extract("sha512", transcript, one + two + shared)
        self.keys = {
            name: hpke.expand("sha512", prk, b"innerkeep chip session v1 " + name.encode(), 32)
            for name in ("submission", "completion", "bulk")
        }
        self.last_h = b""

    def seal(self, queue: int, opcode: int, plaintext: bytes, cap: int, seq: int) -> tuple[bytes, bytes]:
        """(entry, input as sent)."""
        entry = self.device.entry(queue, opcode, self.id, len(plaintext) + 16, cap, seq)
        nonce = struct.pack("<IQ", queue, seq)
        return entry, AESGCM(self.keys["submission"]).encrypt(nonce, plaintext, b"IKSUBv1\0" + entry)

    def submit(self, opcode: int, plaintext: bytes = b"", cap: int = 65_536, queue: int = 0) -> Completion:
        """An authentic completion, its output opened; any status."""
        seq = self.seq[queue]
        self.seq[queue] += 1
        entry, data = self.seal(queue, opcode, plaintext, cap, seq)
        return self.send(queue, entry, data, seq)

    def send(self, queue: int, entry: bytes, data: bytes, seq: int) -> Completion:
        done = self.device.execute(queue, entry, data)
        if done.tag == bytes(16):
            raise NotAuthenticated(done)
        self.last_h = hashlib.sha256(entry + data).digest()
        aad = b"IKCPLv1\0" + self.last_h + struct.pack("<HHII", done.status, done.cid, len(done.output), done.detail)
        nonce = struct.pack("<IQ", queue, seq)
        try:
            plain = AESGCM(self.keys["completion"]).decrypt(nonce, done.output + done.tag, aad)
        except InvalidTag as err:
            raise DeviceFault("a completion does not authenticate") from err
        return Completion(done.status, done.detail, plain, done.tag, done.cid)

    def present(self, preimage: bytes, evidence: bytes = b"") -> Completion:
        return self.submit(PRESENT, lp(evidence) + lp(preimage))

    def floors(self) -> tuple[list[tuple[bytes, bytes, int]], list[tuple[int, bytes, int]]]:
        """Floors of families (sealer, family, counter), and of series of collateral (kind, issuer, number)."""
        done = self.submit(FLOORS)
        if done.status:
            raise DeviceFault(f"FLOORS: {done.name}")
        reader = Reader(done.output)
        families = [(reader.take(32), reader.lp(), reader.number(8)) for _ in range(reader.number(4))]
        series = [(reader.number(2), reader.take(32), reader.number(8)) for _ in range(reader.number(4))]
        reader.end()
        return families, series

    def unwrap(
        self, suite: str, epoch: int, core: bytes, enc: bytes, wrapped: bytes, key: bytes = b"", signature: bytes = b""
    ) -> Completion:
        head = struct.pack("<HHQ", GRANT_SUITES[suite], 0, epoch)
        return self.submit(UNWRAP, head + b"".join(lp(part) for part in (core, enc, wrapped, key, signature)))

    def open_bulk(self, queue: int, counter: int, payload: int, segment: int, sealed: bytes) -> bytes:
        nonce = struct.pack("<IQ", 0x80000000 + queue, counter)
        aad = b"IKBLKv1\0" + self.last_h + struct.pack("<IQ", payload, segment)
        return AESGCM(self.keys["bulk"]).decrypt(nonce, sealed, aad)


def scatter(*ranges: tuple[int, int]) -> bytes:
    return struct.pack("<I", len(ranges)) + b"".join(struct.pack("<QQ", iova, length) for iova, length in ranges)


def load_root(folder: Path) -> bytes:
    return (folder / "root.der").read_bytes()
