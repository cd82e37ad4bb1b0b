"""Evidence as a guest presents it to the chip, written from docs/spec/attestation-v1.md §1, §5 and docs/spec/chip-interface-v1.md §9.1.

Signatures are not looked at here: this is the envelope, the form of the report data, and what the chip's refusals say.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

LARGEST = 262_144
QUOTE, REPORT, CERTIFICATE, LIST = 16_384, 1_184, 8_192, 65_536
VCEK, VLEK = 1, 2

DETAILS = {
    0x001: "certificate_invalid", 0x002: "collateral_missing", 0x003: "log_mismatch", 0x004: "malformed", 0x005: "not_in_time",
    0x006: "platform_mismatch", 0x007: "reserved_not_zero", 0x008: "revoked", 0x009: "root_untrusted", 0x00A: "signature_invalid",
    0x00B: "tcb_refused", 0x00C: "too_large", 0x00D: "trailing_bytes", 0x00E: "unsupported",
    0x101: "report_data", 0x102: "tee_type", 0x103: "initdata", 0x104: "debug", 0x105: "certificate_chain", 0x106: "unsigned_manifest",
    0x201: "mrtd", 0x202: "rtmr0", 0x203: "rtmr1", 0x204: "rtmr2", 0x205: "rtmr3", 0x206: "xfam", 0x207: "mrowner",
    0x208: "mrownerconfig", 0x209: "min_tee_tcb_svn", 0x20A: "min_tcb_evaluation", 0x20B: "min_pck_crl_number",
    0x20C: "min_root_crl_number",
    0x301: "measurement", 0x302: "guest_policy", 0x303: "max_vmpl", 0x304: "generation", 0x305: "min_tcb", 0x306: "id_key_digest",
    0x307: "author_key_digest", 0x308: "chip_id", 0x309: "min_guest_svn", 0x30A: "min_crl_number",
}  # fmt: skip


class Refused(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def report_data(transcript: bytes) -> bytes:
    """The form `chip-session`."""
    return hashlib.sha512(b"innerkeep chip session v1" + transcript).digest()


@dataclass
class Tdx:
    quote: bytes
    collateral: str
    event_log: bytes = b""

    def encode(self) -> bytes:
        return _head(1) + _lp(self.quote) + _lp(self.collateral.encode()) + _lp(self.event_log)


@dataclass
class Snp:
    report: bytes
    key: int
    vek: bytes
    ask: bytes = b""
    crl: bytes = b""
    event_log: bytes = b""

    def encode(self) -> bytes:
        collateral = struct.pack("<H", self.key) + _lp(self.vek) + _lp(self.ask) + _lp(self.crl)
        return _head(2) + _lp(self.report) + _lp(collateral) + _lp(self.event_log)


def _head(kind: int) -> bytes:
    return struct.pack("<HH", 1, kind)


def _lp(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


class _Cut:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, length: int) -> bytes:
        if length > len(self.data):
            raise Refused("EVIDENCE_MALFORMED")
        taken, self.data = self.data[:length], self.data[length:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def lp(self, most: int) -> bytes:
        length = self.number(4)
        if length > most:
            raise Refused("EVIDENCE_TOO_LARGE")
        return self.take(length)

    def one_of(self, *known: int) -> int:
        found = self.number(2)
        if found not in known:
            raise Refused("EVIDENCE_UNSUPPORTED")
        return found

    def end(self) -> None:
        if self.data:
            raise Refused("EVIDENCE_TRAILING_BYTES")


def parse(data: bytes) -> Tdx | Snp:
    if len(data) > LARGEST:
        raise Refused("EVIDENCE_TOO_LARGE")
    cut = _Cut(data)
    cut.one_of(1)
    if cut.one_of(1, 2) == 1:
        quote, text = cut.lp(QUOTE), cut.lp(LARGEST)
        try:
            found: Tdx | Snp = Tdx(quote, text.decode())
        except UnicodeDecodeError as err:
            raise Refused("EVIDENCE_MALFORMED") from err
    else:
        report, inner = cut.lp(REPORT), _Cut(cut.lp(LARGEST))
        found = Snp(report, inner.one_of(VCEK, VLEK), inner.lp(CERTIFICATE), inner.lp(CERTIFICATE), inner.lp(LIST))
        inner.end()
    found.event_log = cut.lp(LARGEST)
    cut.end()
    return found


def vectors(file: Path) -> int:
    """The vectors of the envelope; how many there were."""
    cases = json.loads(file.read_text())
    for case in cases["accepted"]:
        data = bytes.fromhex(case["hex"])
        found = parse(data)
        log = bytes.fromhex(case["event_log"] or "")
        if case["kind"] == "tdx":
            expected: Tdx | Snp = Tdx(bytes.fromhex(case["quote"]), case["collateral"], log)
        else:
            parts = (bytes.fromhex(case[name] or "") for name in ("vek", "ask", "crl"))
            expected = Snp(bytes.fromhex(case["report"]), VCEK if case["kind"] == "vcek" else VLEK, *parts, log)
        if (found, found.encode()) != (expected, data):
            raise AssertionError(f"{case['name']}: {found}")
    for case in cases["refused"]:
        try:
            parse(bytes.fromhex(case["hex"]))
        except Refused as err:
            if err.code != case["code"]:
                raise AssertionError(f"{case['name']}: {err.code}, expected {case['code']}") from err
        else:
            raise AssertionError(f"{case['name']}: taken")
    return len(cases["accepted"]) + len(cases["refused"])
