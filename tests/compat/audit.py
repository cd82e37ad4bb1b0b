"""Reader of the guest agent's audit, from `docs/spec/audit-v1.md` alone: frames, records, chain, signatures, sealing.

`python audit.py FILE` prints the parts of a file of saved records; with `--suite S --secret HEX` the sealed ones too.
"""

from __future__ import annotations

import argparse
import hashlib
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384

import hpke
from refused import Refused

MAGIC = b"IKAUDIT1"
SUITES = {
    "p-384": (1, hpke.P384, b"HPKE P-384 HKDF-SHA-384 AES-256-GCM"),
    "x-wing": (2, hpke.XWing, b"HPKE X-Wing HKDF-SHA-384 AES-256-GCM"),
}
RULINGS = {1: "allowed", 2: "allowed-though-denied", 3: "denied"}
REASONS = {1: "lost", 2: "acknowledged"}
MAX_TEXT, MAX_RECORD, MAX_EVIDENCE = 128, 8192, 262_144


def malformed(why: str) -> Refused:
    return Refused("AUDIT_MALFORMED", why)


class Parts:
    """Takes parts off the front of bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, length: int) -> bytes:
        if length > len(self.data):
            raise malformed(f"{length} bytes wanted, {len(self.data)} there")
        taken, self.data = self.data[:length], self.data[length:]
        return taken

    def u8(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        return struct.unpack(">I", self.take(4))[0]

    def u64(self) -> int:
        return struct.unpack(">Q", self.take(8))[0]

    def sized(self, most: int) -> bytes:
        length = struct.unpack(">H", self.take(2))[0]
        if length > most:
            raise malformed(f"a length of {length}, at most {most}")
        return self.take(length)

    def text(self) -> str:
        try:
            return self.sized(MAX_TEXT).decode()
        except UnicodeDecodeError as error:
            raise malformed("UTF-8") from error

    def one_of(self, values: dict[int, str]) -> str:
        number = self.u8()
        if number not in values:
            raise malformed(f"{number} is none of {values}")
        return values[number]

    def many(self, most: int, what):  # noqa: ANN001, ANN201
        count = self.u8()
        if count > most:
            raise malformed(f"{count} of at most {most}")
        return [what() for _ in range(count)]

    def end(self) -> None:
        if self.data:
            raise malformed(f"{len(self.data)} bytes behind the end")


def shown(text: str) -> str:
    return text or "-"


@dataclass
class Record:
    kind: int
    text: str
    facts: dict = field(default_factory=dict)


def genesis(parts: Parts) -> Record:
    if parts.take(18) != b"innerkeep audit v1":
        raise malformed("label")
    facts = {"nonce": parts.take(32), "initdata": parts.sized(64), "key": parts.take(97)}
    if len(facts["initdata"]) not in (0, 32, 48, 64):
        raise malformed("length of the initdata digest")
    facts["insecure"] = parts.many(32, parts.text)
    if any(a.encode() >= b.encode() for a, b in zip(facts["insecure"], facts["insecure"][1:])):
        raise malformed("order of insecure modes")
    suite = parts.u8()
    if suite > 2:
        raise malformed("suite")
    facts["suite"], facts["operator"] = suite, parts.take(32) if suite else b""
    facts["agent"], facts["time"] = parts.text(), parts.u64()
    return Record(1, "genesis", facts)


def record(data: bytes) -> Record:
    parts = Parts(data)
    kind = parts.u8()
    if kind == 1:
        found = genesis(parts)
    elif kind == 2:
        number, enc = parts.u32(), parts.sized(1120)
        found = Record(2, f"epoch {number}", {"number": number, "enc": enc})
    elif kind == 3:
        found = Record(3, "evidence", {"length": parts.u32(), "digest": parts.take(64)})
    elif kind == 4:
        says = parts.data[:24]
        allowed, denied, _ = parts.u64(), parts.u64(), parts.u64()
        found = Record(4, f"checkpoint {allowed} {denied}", {"says": says, "signature": parts.take(96)})
    elif kind == 5:
        parts.u64()
        endpoint, ruling, code, trace = parts.text(), parts.one_of(RULINGS), parts.text(), parts.text()

        def reason() -> str:
            rule, line = parts.text(), parts.u32()
            return f"{shown(rule)}:{line}:{','.join(parts.many(8, parts.text))}"

        reasons = ";".join(parts.many(4, reason))
        found = Record(5, f"decision {shown(endpoint)} {ruling} {shown(code)} {shown(trace)} {shown(reasons)}")
    elif kind == 6:
        _, first, count = parts.u64(), parts.u64(), parts.u64()
        parts.text(), parts.one_of(RULINGS), parts.text(), parts.text()
        found = Record(6, f"repeats {first} {count}")
    elif kind == 7:
        _, decision, failed = parts.u64(), parts.u64(), parts.u8()
        if failed > 1:
            raise malformed("flag")
        found = Record(7, f"outcome {decision} {shown(parts.text()) if failed else 'ok'}")
    elif kind == 8:
        parts.u64()
        found = Record(8, f"policy {parts.take(32).hex()}")
    else:
        raise malformed(f"record of kind {kind}")
    parts.end()
    return found


@dataclass
class Frame:
    form: int
    body: bytes  # with the form in front: what is hashed
    sequence: int = 0
    epoch: int = 0
    ciphertext: bytes = b""
    record: Record | None = None
    last: int = 0
    reason: str = ""
    after: bytes = b""
    signature: bytes = b""


def frame(data: bytes) -> Frame:
    parts = Parts(data)
    found = Frame(parts.u8(), data)
    if found.form == 1:
        found.sequence = parts.u64()
        if len(parts.data) > MAX_RECORD:
            raise malformed("length of a record")
        found.record = record(parts.take(len(parts.data)))
        if found.record.kind > 4:
            raise malformed("a record in the clear")
    elif found.form == 2:
        found.sequence, found.epoch = parts.u64(), parts.u32()
        found.ciphertext = parts.take(len(parts.data))
        if len(found.ciphertext) > MAX_RECORD:
            raise malformed("length of a sealed record")
    elif found.form == 3:
        found.sequence, found.last, found.reason = parts.u64(), parts.u64(), parts.one_of(REASONS)
        if found.sequence == 0 or found.last < found.sequence:
            raise malformed("a gap from where to where")
        found.after = parts.take(64)
        for _ in range(4):
            parts.u64()
        found.signature = parts.take(96)
    elif found.form in (4, 5):
        if len(parts.data) > (MAX_EVIDENCE if found.form == 4 else 512):
            raise malformed("length of evidence or head")
        parts.take(len(parts.data))
    else:
        raise malformed(f"form {found.form}")
    parts.end()
    return found


def frames(data: bytes) -> list[Frame]:
    if not data.startswith(MAGIC):
        raise malformed("a file of saved records")
    parts, found = Parts(data[len(MAGIC) :]), []
    while parts.data:
        length = parts.u32()
        if length > MAX_EVIDENCE + 64:
            raise malformed("length of a frame")
        found.append(frame(parts.take(length)))
    return found


def sha512(*parts: bytes) -> bytes:
    return hashlib.sha512(b"".join(parts)).digest()


def signed(key: bytes, message: bytes, signature: bytes) -> bool:
    numbers = (int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big"))
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), key)
        public.verify(encode_dss_signature(*numbers), message, ec.ECDSA(SHA384()))
    except (InvalidSignature, ValueError):
        return False
    return True


class Audit:
    """Frames in order, verified."""

    def __init__(self, found: list[Frame], suite: str | None = None, secret: bytes = b"") -> None:
        self.first = next((one for one in found if one.form == 1 and one.sequence == 0), None)
        if self.first is None or self.first.record is None or self.first.record.kind != 1:
            raise malformed("an audit without a genesis")
        self.facts = self.first.record.facts
        self.digest = sha512(b"innerkeep audit chain v1", bytes(64), self.first.body)
        self.suite, self.secret = suite, secret
        if suite and self.facts["suite"]:
            number, kem, _ = SUITES[suite]
            if (number, hashlib.sha256(kem.public(secret)).digest()) != (self.facts["suite"], self.facts["operator"]):
                raise Refused("AUDIT_KEY", "sealed to somebody else")
        self.hashes: dict[int, bytes] = {-1: bytes(64)}
        self.epochs: dict[int, bytes] = {}
        self.told: list[str] = []
        self.heads: list[bytes] = []
        self.next = self.covered = 0
        for place, one in enumerate(found):
            self.take(one, found[place + 1 :])

    def take(self, one: Frame, rest: list[Frame]) -> None:
        if one.form == 4:
            return
        if one.form == 5:
            self.heads.append(one.body[1:])
        elif one.form == 3:
            self.take_gap(one, rest)
        elif one.sequence > self.next:
            raise self.jump(one.sequence, rest)
        elif one.sequence < self.next:
            self.again(one)
        else:
            self.take_record(one)
            self.hashes[one.sequence] = sha512(b"innerkeep audit chain v1", self.hashes[one.sequence - 1], one.body)
            self.next += 1

    def jump(self, found: int, rest: list[Frame]) -> Refused:
        behind = any(
            (one.form in (1, 2) and one.sequence == self.next) or (one.form == 3 and one.sequence <= self.next <= one.last) for one in rest
        )
        code = "AUDIT_REORDERED" if behind and self.next > 0 else "AUDIT_MISSING"
        return Refused(code, f"record {found} where {self.next} belongs")

    def again(self, one: Frame) -> None:
        """A record that was there already has to be the same."""
        if one.sequence == 0:
            if one.body != self.first.body:
                raise Refused("AUDIT_RESTARTED", "another genesis")
            return
        if one.sequence not in self.hashes or one.sequence - 1 not in self.hashes:
            raise Refused("AUDIT_REORDERED", f"record {one.sequence}")
        if sha512(b"innerkeep audit chain v1", self.hashes[one.sequence - 1], one.body) != self.hashes[one.sequence]:
            raise Refused("AUDIT_EDITED", f"record {one.sequence}")

    def take_record(self, one: Frame) -> None:
        if one.form == 2:
            self.told.append(self.open(one))
            return
        found = one.record
        if found.kind == 1 and one.sequence != 0:
            raise Refused("AUDIT_RESTARTED", "a second genesis")
        if found.kind == 2 and self.suite:
            _, kem, name = SUITES[self.suite]
            epoch = struct.pack(">I", found.facts["number"])
            parts = [b"innerkeep audit", b"v1", b"operator", name, b"audit", self.digest, self.facts["operator"], epoch]
            info = b"".join(struct.pack(">I", len(part)) + part for part in parts)
            try:
                key = hpke.exported(kem, self.secret, found.facts["enc"], info, b"innerkeep audit records v1", 32)
            except ValueError as error:
                raise malformed("epoch") from error
            self.epochs[found.facts["number"]] = key
        if found.kind == 4:
            message = b"".join(
                [b"innerkeep audit checkpoint v1", self.digest, struct.pack(">Q", one.sequence), self.hashes[one.sequence - 1], found.facts["says"]]
            )
            if not signed(self.facts["key"], message, found.facts["signature"]):
                raise Refused("AUDIT_EDITED", f"before record {one.sequence}")
            self.covered = one.sequence
        self.told.append(found.text)

    def open(self, one: Frame) -> str:
        if one.epoch not in self.epochs:
            return "sealed"
        bound = b"innerkeep audit record v1" + self.digest + struct.pack(">QI", one.sequence, one.epoch)
        try:
            data = AESGCM(self.epochs[one.epoch]).decrypt(bytes(4) + struct.pack(">Q", one.sequence), one.ciphertext, bound)
        except (InvalidTag, ValueError) as error:
            raise Refused("AUDIT_EDITED", f"record {one.sequence}") from error
        found = record(data)
        if found.kind < 5:
            raise malformed("a sealed record that belongs in the clear")
        return found.text

    def take_gap(self, one: Frame, rest: list[Frame]) -> None:
        if one.sequence > self.next:
            raise self.jump(one.sequence, rest)
        before = self.hashes.get(one.sequence - 1)
        if before is None:
            raise Refused("AUDIT_REORDERED", f"gap {one.sequence}")
        message = b"innerkeep audit gap v1" + self.digest + before + one.body[1:-96]
        if not signed(self.facts["key"], message, one.signature):
            raise Refused("AUDIT_FORGED", "a gap")
        if one.last < self.next:
            if self.hashes.get(one.last, one.after) != one.after:
                raise Refused("AUDIT_EDITED", f"record {one.last}")
            return
        self.hashes[one.last] = one.after
        self.covered = max(self.covered, one.last)
        self.next = one.last + 1
        self.told.append(f"gap {one.sequence} {one.last} {one.reason}")

    def require_head(self, nonce: bytes) -> None:
        """The last head answers this nonce and is where the records end or before."""
        if not self.heads:
            raise Refused("AUDIT_TAIL_CUT", "no head")
        parts = Parts(self.heads[-1])
        if parts.u8() != 1:
            raise malformed("version of the head")
        digest, answered, sequence, hashed = parts.take(64), parts.sized(64), parts.u64(), parts.take(64)
        parts.take(16)
        if len(answered) < 16 or parts.u8() > 1:
            raise malformed("head")
        parts.u64()
        signature = parts.take(96)
        parts.end()
        if digest != self.digest:
            raise Refused("AUDIT_RESTARTED", "the head of another audit")
        if not signed(self.facts["key"], b"innerkeep audit head v1" + self.heads[-1][:-96], signature):
            raise Refused("AUDIT_FORGED", "the head")
        if answered != nonce:
            raise Refused("AUDIT_REPLAYED", "another nonce")
        if sequence >= self.next:
            raise Refused("AUDIT_TAIL_CUT", f"head at {sequence}, records to {self.next - 1}")
        if self.hashes.get(sequence, hashed) != hashed:
            raise Refused("AUDIT_EDITED", f"record {sequence}")
        self.covered = max(self.covered, sequence)

    def require_signed(self) -> None:
        if self.covered + 1 < self.next:
            raise Refused("AUDIT_UNSIGNED", f"from record {self.covered + 1}")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--suite", choices=SUITES)
    arguments.add_argument("--secret", type=bytes.fromhex, default=b"")
    given = arguments.parse_args()
    try:
        audit = Audit(frames(given.file.read_bytes()), given.suite, given.secret)
        print("\n".join(audit.told))
        audit.require_signed()
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
