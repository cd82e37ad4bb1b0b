"""What the broker does with evidence: parses it, checks that it is bound to the runtime data and the init data, makes claims.

| TEE | checked here | not checked here |
|---|---|---|
| sample, sampledevice | report data | nothing else exists; off unless asked for |
| tdx | report data, MRCONFIGID, replay of the event log | signature, certificates, collateral, TCB |
| snp | report data, HOST_DATA, VMPL, version, CPU family, shape of the certificates | signature, certificates, TCB |
| tpm | signature, PCR digest, nonce, PCR 8 | who owns the attestation key (a matter of policy) |
| se | user data | HMAC, host key |

**A TDX quote or SNP report with a forged signature passes.** A hook can verify the rest: it is called with the evidence and
the expected values, raises `Bad` to refuse, and may return more claims and a trustworthiness vector. Without a hook the
appraisal of every hardware TEE says hardware 97 (contraindicated).
"""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field as member

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from kbs_protocol import Bad, InitData, b64, field, parse_json, unb64

UNVERIFIED = {"hardware": 97}
VERIFIED = {"hardware": 2}


@dataclass
class Job:
    tee: str
    evidence: object
    expected: bytes  # digest of the runtime data
    init: InitData | None


@dataclass
class Result:
    """Claims of one TEE; `report_data` and `init_data` are kept apart because tokens carry them beside the claims."""

    claims: dict[str, object]
    report_data: str | None = None
    init_data: str | None = None
    vector: dict[str, int] = member(default_factory=lambda: dict(UNVERIFIED))


Hook = Callable[[Job, Result], dict[str, object]]


def fitted(value: bytes, length: int) -> bytes:
    """The verifiers' rule: zeros on the right, or cut."""
    return value[:length].ljust(length, b"\0")


def same(what: str, found: bytes, expected: bytes) -> None:
    if found != expected:
        raise Bad(f"{what}: found {found.hex()}, expected {expected.hex()}")


def command_hook(program: list[str]) -> Hook:
    """A program: JSON on standard input; status 0 and a JSON object with `claims` and `vector` (both optional) accepts."""

    def hook(job: Job, result: Result) -> dict[str, object]:
        asked = {
            "tee": job.tee,
            "evidence": job.evidence,
            "expected_report_data": job.expected.hex(),
            "expected_init_data": job.init.digest.hex() if job.init else None,
            "claims": result.claims,
        }
        done = subprocess.run(program, input=json.dumps(asked).encode(), capture_output=True, timeout=30, check=False)
        if done.returncode != 0:
            raise Bad(f"{program[0]} refuses: {done.stderr.decode(errors='replace').strip()[-300:]}")
        answer = parse_json(done.stdout or b"{}")
        if not isinstance(answer, dict):
            raise Bad(f"{program[0]} answers no object")
        return answer

    return hook


def verify(job: Job, allow_sample: bool, hook: Hook | None) -> Result:
    if job.tee in ("sample", "sampledevice") and not allow_sample:
        raise Bad(f"{job.tee} is not allowed (--allow-sample)")
    verifier = VERIFIERS.get(job.tee)
    if verifier is None:
        raise Bad(f"no verifier for {job.tee}")
    if not isinstance(job.evidence, dict):
        raise Bad("evidence is not an object")
    result = verifier(job)
    if hook is not None and job.tee in ("tdx", "snp"):
        answer = hook(job, result)
        result.claims.update(answer.get("claims") or {})  # type: ignore[call-overload]
        result.vector = answer.get("vector") or dict(VERIFIED)  # type: ignore[assignment]
    return result


# ---- sample ----------------------------------------------------------------------------------------------------------


def sample(job: Job) -> Result:
    claims: dict[str, object] = {"svn": field(job.evidence, "svn", str)}
    text = job.evidence.get("report_data", "")  # type: ignore[attr-defined]
    same("report_data", unb64(text), job.expected)
    if job.tee == "sampledevice":
        return Result(claims, text)
    claims |= {"launch_digest": "abcde", "platform_version": {"major": 1, "minor": 4}, "debug": False}
    return Result(claims, text, b64(job.init.digest) if job.init else None)


# ---- tdx -------------------------------------------------------------------------------------------------------------

TD_REPORT = (
    ("tcb_svn", 16), ("mr_seam", 48), ("mrsigner_seam", 48), ("seam_attributes", 8), ("td_attributes", 8), ("xfam", 8),
    ("mr_td", 48), ("mr_config_id", 48), ("mr_owner", 48), ("mr_owner_config", 48), ("rtmr_0", 48), ("rtmr_1", 48),
    ("rtmr_2", 48), ("rtmr_3", 48), ("report_data", 64),
)  # fmt: skip
TD_REPORT_15 = (*TD_REPORT, ("tee_tcb_svn2", 16), ("mr_servicetd", 48))
QUOTE_HEADER = (("version", 2), ("att_key_type", 2), ("tee_type", 4), ("reserved", 4), ("vendor_id", 16), ("user_data", 20))
TD_ATTRIBUTES = {"debug": 0, "septve_disable": 28, "protection_keys": 30, "key_locker": 31, "perfmon": 63}


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise Bad("truncated")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int, order: str = "little") -> int:
        return int.from_bytes(self.take(size), order)  # type: ignore[arg-type]

    def parts(self, layout: tuple[tuple[str, int], ...]) -> dict[str, bytes]:
        return {name: self.take(size) for name, size in layout}

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)


def parse_quote(raw: bytes) -> tuple[dict[str, bytes], dict[str, bytes], dict[str, object]]:
    """Header, body and the two members of version 5, of a TD quote version 4 or 5."""
    reader = Reader(raw)
    header = reader.parts(QUOTE_HEADER)
    version = int.from_bytes(header["version"], "little")
    layout, extra = TD_REPORT, {}
    if version == 5:
        kind, size = reader.take(2), reader.take(4)
        if kind not in (b"\2\0", b"\3\0"):
            raise Bad("body is not that of a TD")
        layout = TD_REPORT if kind == b"\2\0" else TD_REPORT_15
        if int.from_bytes(size, "little") != sum(length for _, length in layout):
            raise Bad("body of another length")
        extra = {"type": kind.hex(), "size": size.hex()}
    elif version != 4:
        raise Bad(f"quote version {version}")
    if header["tee_type"] != b"\x81\0\0\0":
        raise Bad("not a TD quote")
    body = reader.parts(layout)
    reader.take(reader.number(4))
    return header, body, dict(extra)


@dataclass
class Event:
    index: int
    kind: int
    digests: dict[int, bytes]
    data: bytes


def parse_event_log(blob: bytes) -> list[Event]:
    """TCG2: the Spec-ID entry, then entries until 8 bytes of all ones or zeros or the end."""
    reader = Reader(blob)
    reader.take(28)
    spec = Reader(reader.take(reader.number(4)))
    spec.take(24)
    sizes = {spec.number(2): spec.number(2) for _ in range(min(spec.number(4), 16))}
    events = []
    while reader.at < len(blob):
        start = blob[reader.at : reader.at + 8]
        if start in (b"\xff" * 8, b"\0" * 8):
            break
        index, kind, count = (reader.number(4) for _ in range(3))
        digests = {}
        for _ in range(min(count, 16)):
            algorithm = reader.number(2)
            if algorithm not in sizes:
                raise Bad(f"event log: algorithm {algorithm:#x} is not declared")
            digests[algorithm] = reader.take(sizes[algorithm])
        events.append(Event(index, kind, digests, reader.take(reader.number(4))))
    return events


def replay(events: list[Event]) -> list[bytes]:
    """RTMR 0 to 3 from zero: entries of index 1 to 4."""
    registers = [bytes(48)] * 4
    for event in events:
        if 1 <= event.index <= 4 and 0xC in event.digests:
            registers[event.index - 1] = hashlib.sha384(registers[event.index - 1] + event.digests[0xC]).digest()
    return registers


def event_claims(event: Event) -> dict[str, object]:
    claims: dict[str, object] = {
        "index": event.index,
        "digests": [{"alg": "SHA-384", "digest": value.hex()} for alg, value in event.digests.items() if alg == 0xC],
        "event": b64(event.data),
        "digest_matches_event": event.digests.get(0xC) == hashlib.sha384(event.data).digest(),
    }
    if event.kind == 6 and event.data[:4] == b"LEAA" and len(event.data) >= 8:
        claims["type_name"] = "EV_EVENT_TAG"
        domain, operation, content = (event.data[8:].decode(errors="replace").split(" ", 2) + ["", ""])[:3]
        try:
            data: object = parse_json(content)
        except Bad:
            data = content
        claims["details"] = {"unicode_name": "AAEL", "data": {"domain": domain, "operation": operation, "content": data}}
    return claims


def tdx(job: Job) -> Result:
    header, body, extra = parse_quote(unb64(field(job.evidence, "quote", str)))
    same("report_data", body["report_data"], fitted(job.expected, 64))
    if job.init:
        same("MRCONFIGID", body["mr_config_id"], fitted(job.init.digest, 48))
    attributes = int.from_bytes(body["td_attributes"], "little")
    claims: dict[str, object] = {
        "quote": {
            "header": {name: value.hex() for name, value in header.items()},
            "body": {name: value.hex() for name, value in body.items()},
            **extra,
        },
        "td_attributes": {name: bool(attributes >> bit & 1) for name, bit in TD_ATTRIBUTES.items()},
    }
    log = field(job.evidence, "cc_eventlog", object)
    blob = b"" if log is None else unb64(log)
    if blob:
        events = parse_event_log(blob)
        for index, register in enumerate(replay(events)):
            same(f"RTMR{index} against the event log", body[f"rtmr_{index}"], register)
        claims["uefi_event_logs"] = [event_claims(event) for event in events]
    return Result(claims, body["report_data"].hex(), body["mr_config_id"].hex())


# ---- snp -------------------------------------------------------------------------------------------------------------

SNP_ARRAYS = {
    "family_id": (0x10, 16), "image_id": (0x20, 16), "report_data": (0x50, 64), "measurement": (0x90, 48),
    "host_data": (0xC0, 32), "id_key_digest": (0xE0, 48), "author_key_digest": (0x110, 48), "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32), "chip_id": (0x1A0, 64),
}  # fmt: skip
SNP_NUMBERS = {
    "version": (0x00, 4), "guest_svn": (0x04, 4), "policy": (0x08, 8), "vmpl": (0x30, 4), "sig_algo": (0x34, 4),
    "plat_info": (0x40, 8), "key_info": (0x48, 4),
}  # fmt: skip
SNP_TCBS = {"current_tcb": 0x38, "reported_tcb": 0x180, "committed_tcb": 0x1E0, "launch_tcb": 0x1F0}
SNP_CPU = {"cpuid_fam_id": 0x188, "cpuid_mod_id": 0x189, "cpuid_step": 0x18A}
SNP_MIT = {"launch_mit_vector": 0x1F8, "current_mit_vector": 0x200}
SNP_BUILDS = {"current": 0x1E8, "committed": 0x1EC}
SNP_POLICY = {"smt_allowed": 16, "migrate_ma": 18, "debug_allowed": 19, "single_socket": 20}
SNP_SIZE = 1184
CERT_TYPES = ("ARK", "ASK", "VCEK", "VLEK", "CRL", "Empty")


def _octets(value: object, name: str, size: int) -> bytes:
    items = field(value, name, list)
    if len(items) != size or not all(type(item) is int and 0 <= item <= 255 for item in items):  # type: ignore[arg-type, attr-defined]
        raise Bad(f"{name} is not an array of {size} bytes")
    return bytes(items)  # type: ignore[call-overload]


def _natural(value: object, name: str, size: int) -> int:
    number = int(field(value, name, int))  # type: ignore[call-overload]
    if not 0 <= number < 1 << 8 * size:
        raise Bad(f"{name} out of range")
    return number


def _only(value: object, names: set[str], what: str) -> None:
    if not isinstance(value, dict) or set(value) != names:
        raise Bad(f"{what}: members differ from those of the format")


def generation(family: int | None, model: int | None, chip_id: bytes) -> str:
    if family is None or model is None:
        return "Turin" if not any(chip_id[8:]) else "Milan or Genoa"
    for name, known, models in (
        ("Milan", 0x19, range(0x00, 0x10)), ("Genoa", 0x19, range(0x10, 0x20)), ("Genoa", 0x19, range(0xA0, 0xAF)),
        ("Turin", 0x1A, range(0x00, 0x12)),
    ):  # fmt: skip
        if family == known and model in models:
            return name
    raise Bad(f"CPU family {family:#x} model {model:#x}")


def _tcb(value: object, turin: bool) -> bytes:
    _only(value, {"fmc", "bootloader", "tee", "snp", "microcode"}, "TCB")
    loader, tee, snp, microcode = (_natural(value, name, 1) for name in ("bootloader", "tee", "snp", "microcode"))
    if turin:
        return bytes([_natural(value, "fmc", 1), loader, tee, snp, 0, 0, 0, microcode])
    if value["fmc"] is not None:  # type: ignore[index]
        raise Bad("fmc is not null")
    return bytes([loader, tee, 0, 0, 0, 0, snp, microcode])


def snp_bytes(report: object) -> bytes:
    """The 1184 bytes of a report from its JSON members: what a verifier checks the signature over."""
    names = {*SNP_ARRAYS, *SNP_NUMBERS, *SNP_TCBS, *SNP_CPU, *SNP_MIT, *SNP_BUILDS, "signature"}
    _only(report, names, "attestation_report")
    raw = bytearray(SNP_SIZE)
    for name, (at, size) in SNP_ARRAYS.items():
        raw[at : at + size] = _octets(report, name, size)
    for name, (at, size) in SNP_NUMBERS.items():
        raw[at : at + size] = _natural(report, name, size).to_bytes(size, "little")
    version = _natural(report, "version", 4)
    for members, size, since in ((SNP_CPU, 1, 3), (SNP_MIT, 8, 5)):
        for name, at in members.items():
            if version >= since:
                raw[at : at + size] = _natural(report, name, size).to_bytes(size, "little")
            elif report[name] is not None:  # type: ignore[index]
                raise Bad(f"{name} is not null in version {version}")
    cpu = (raw[0x188], raw[0x189]) if version >= 3 else (None, None)
    turin = generation(*cpu, bytes(raw[0x1A0:0x1E0])) == "Turin"
    for name, at in SNP_TCBS.items():
        raw[at : at + 8] = _tcb(report[name], turin)  # type: ignore[index]
    for name, at in SNP_BUILDS.items():
        _only(report[name], {"major", "minor", "build"}, name)  # type: ignore[index]
        raw[at : at + 3] = bytes(_natural(report[name], part, 1) for part in ("build", "minor", "major"))  # type: ignore[index]
    signature = report["signature"]  # type: ignore[index]
    _only(signature, {"r", "s"}, "signature")
    raw[0x2A0:0x330] = _octets(signature, "r", 72) + _octets(signature, "s", 72)
    return bytes(raw)


def snp_json(raw: bytes) -> dict[str, object]:
    """The other direction, for clients: the members a real attester makes of the binary report."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(raw[at : at + size], "little")

    if len(raw) != SNP_SIZE:
        raise Bad("report of another length")
    version = number(0, 4)
    cpu = (raw[0x188], raw[0x189]) if version >= 3 else (None, None)
    turin = generation(*cpu, raw[0x1A0:0x1E0]) == "Turin"
    places = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7} if turin else {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
    report: dict[str, object] = {name: list(raw[at : at + size]) for name, (at, size) in SNP_ARRAYS.items()}
    report |= {name: number(at, size) for name, (at, size) in SNP_NUMBERS.items()}
    report |= {name: {"fmc": None, **{part: raw[at + off] for part, off in places.items()}} for name, at in SNP_TCBS.items()}
    report |= {name: raw[at] if version >= 3 else None for name, at in SNP_CPU.items()}
    report |= {name: number(at, 8) if version >= 5 else None for name, at in SNP_MIT.items()}
    report |= {name: {"build": raw[at], "minor": raw[at + 1], "major": raw[at + 2]} for name, at in SNP_BUILDS.items()}
    report["signature"] = {"r": list(raw[0x2A0:0x2E8]), "s": list(raw[0x2E8:0x330])}
    return report


def check_certificates(chain: object) -> None:
    if chain is None:
        return
    if not isinstance(chain, list):
        raise Bad("cert_chain is neither null nor an array")
    kinds = []
    for entry in chain:
        kind = field(entry, "cert_type", object)
        if kind not in CERT_TYPES and not (isinstance(kind, dict) and list(kind) == ["OTHER"] and isinstance(kind["OTHER"], str)):
            raise Bad(f"cert_type {kind}")
        _octets(entry, "data", len(field(entry, "data", list)))  # type: ignore[arg-type]
        kinds.append(kind)
    if "VCEK" not in kinds and "VLEK" not in kinds:
        raise Bad("a certificate chain without VCEK or VLEK")


def snp(job: Job) -> Result:
    report = field(job.evidence, "attestation_report", dict)
    raw = snp_bytes(report)
    check_certificates(field(job.evidence, "cert_chain", object))
    if not 3 <= raw[0] <= 5 or any(raw[1:4]):
        raise Bad("report version is not 3 to 5")
    if any(raw[0x30:0x34]):
        raise Bad("VMPL is not 0")
    same("report_data", raw[0x50:0x90], fitted(job.expected, 64))
    if job.init:
        same("HOST_DATA", raw[0xC0:0xE0], fitted(job.init.digest, 32))
    policy, platform = struct.unpack_from("<Q", raw, 8)[0], struct.unpack_from("<Q", raw, 0x40)[0]
    tcb = field(report, "reported_tcb", dict)
    claims: dict[str, object] = {
        "policy_abi_major": policy >> 8 & 255,
        "policy_abi_minor": policy & 255,
        **{f"policy_{name}": bool(policy >> bit & 1) for name, bit in SNP_POLICY.items()},
        "platform_tsme_enabled": bool(platform >> 1 & 1),
        "platform_smt_enabled": bool(platform & 1),
        **{f"reported_tcb_{name}": tcb[name] for name in ("bootloader", "tee", "snp", "microcode")},  # type: ignore[index]
        "measurement": raw[0x90:0xC0].hex(),
        "chip_id": raw[0x1A0:0x1E0].hex(),
    }
    return Result(claims, raw[0x50:0x90].hex(), raw[0xC0:0xE0].hex())


# ---- tpm and se ------------------------------------------------------------------------------------------------------


def tpm(job: Job) -> Result:
    quote = field(job.evidence, "tpm_quote", dict)
    message, signature = unb64(field(quote, "message", str)), Reader(unb64(field(quote, "signature", str)))
    der = unb64(field(job.evidence, "ak_public", str))
    pcrs = [bytes.fromhex(item) for item in field(quote, "pcrs", list)]  # type: ignore[attr-defined]
    if len(pcrs) != 24 or any(len(pcr) != 32 for pcr in pcrs):
        raise Bad("not 24 PCRs of 32 bytes")
    key = load_der_public_key(der)
    if not isinstance(key, rsa.RSAPublicKey) or signature.take(4) != b"\0\x14\0\x0b":
        raise Bad("not RSASSA with SHA-256")
    try:
        key.verify(signature.take(signature.number(2, "big")), message, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature as err:
        raise Bad("signature of the quote") from err
    attest = Reader(message)
    if attest.take(6) != b"\xffTCG\x80\x18":
        raise Bad("not a TPM quote")
    attest.take(attest.number(2, "big"))
    nonce = attest.take(attest.number(2, "big"))
    attest.take(17 + 8)
    if attest.take(10) != b"\0\0\0\x01\0\x0b\x03\xff\xff\xff":
        raise Bad("selection is not all PCRs of the SHA-256 bank")
    same("PCR digest", attest.take(attest.number(2, "big")), hashlib.sha256(b"".join(pcrs)).digest())
    same("nonce", nonce, fitted(job.expected, 32))
    if job.init:
        if len(job.init.digest) != 32:
            raise Bad("init data of a TPM needs sha256")
        same("PCR 8", pcrs[8], hashlib.sha256(bytes(32) + job.init.digest).digest())
    claims: dict[str, object] = {f"pcr{index:02}": pcr.hex() for index, pcr in enumerate(pcrs)}
    return Result({**claims, "ak_public": b64(der)}, nonce.hex(), pcrs[8].hex())


def se(job: Job) -> Result:
    for name in ("measurement", "additional_data", "cuid", "encr_measurement_key", "encr_request_nonce", "image_hdr_tags"):
        unb64(field(job.evidence, name, str))
    same("user_data", unb64(field(job.evidence, "user_data", str)), job.expected)
    return Result({"cuid": unb64(field(job.evidence, "cuid", str)).hex()}, job.expected.hex())


VERIFIERS: dict[str, Callable[[Job], Result]] = {
    "sample": sample,
    "sampledevice": sample,
    "tdx": tdx,
    "snp": snp,
    "tpm": tpm,
    "se": se,
}
