"""Reader of sealed artifacts, written from docs/spec/sealed-artifact-v1.md alone. Section numbers below are that document's."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

import hpke
import jcs
from refused import Refused, limit, malformed

# ---------------------------------------------------------------------------------------------------------------- §1
SEGMENT_SIZES = tuple(65_536 << i for i in range(7))
MAX_SEGMENTS = 2**18
MAX_PAYLOAD = 2**40
MAX_PAYLOADS = 256
MAX_CORE = 262_144
MAX_PREIMAGE = 65_536
MAX_GRANT = 131_072
MAX_SIGNATURE = 4_096
MAX_TAGS = 4_194_304
MAX_DIRECTORY = 1_048_576
MAX_MANIFEST = 4_194_304
MAX_GRANTS = 1_024
CORE_ANNOTATION = "vnd.innerkeep.core.v1"
CORE_TYPE = "application/vnd.innerkeep.core.v1+json"
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

CORE_SUITE = "AES-256-GCM HKDF-SHA-512"
GRANT_SUITES = {
    "HPKE P-384 HKDF-SHA-384 AES-256-GCM": "P-384",
    "HPKE X-Wing HKDF-SHA-384 AES-256-GCM": "X-Wing",
}
# TCB layout of each generation: the bytes that are not used.
# Kinds that open with a secret, and their suites.
SECRET_SUITES = {"kbs": "AES-256-GCM", "snp": "HKDF-SHA-512 AES-256-GCM", "tpm": "HKDF-SHA-512 AES-256-GCM"}
UNUSED_TCB_BYTES = {"genoa": range(2, 6), "milan": range(2, 6), "turin": range(4, 7)}
LINK_MODES = ("dma-direct", "dma-sealed", "key-release")


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def lp(data: bytes) -> bytes:
    return u32(len(data)) + data


# ----------------------------------------------------------------------------------------------- §2: members and values
def members(value: object, kind: str | None, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict:
    if not isinstance(value, dict):
        raise malformed("not an object")
    wanted = required if kind is None else ("@type", *required)
    for name in value:
        if name not in wanted and name not in optional:
            raise malformed(f"unknown member {name!r}")
    for name in wanted:
        if name not in value:
            raise malformed(f"missing member {name!r}")
    if kind is not None and value["@type"] != kind:
        raise malformed(f"@type is not {kind!r}")
    return value


def is_text(value: object) -> str:
    if not isinstance(value, str):
        raise malformed("not a text")
    return value


def is_list(value: object) -> list:
    if not isinstance(value, list):
        raise malformed("not a list")
    return value


def integer(value: object) -> int:
    """0 … 2^64-1; above 2^53-1 as a string of decimal digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,19}", value):
        number = int(value)
        if 2**53 - 1 < number < 2**64:
            return number
    raise malformed("not an integer")


def hexed(value: object, *lengths: int) -> bytes:
    text = is_text(value)
    if not re.fullmatch(r"(?:[0-9a-f]{2})*", text) or len(text) // 2 not in lengths:
        raise malformed("not lower-case hex of the right length")
    return bytes.fromhex(text)


def digest_of(value: object) -> bytes:
    text = is_text(value)
    if not text.startswith("sha256:"):
        raise malformed("not a sha256 digest")
    return hexed(text[7:], 32)


def unbase64(value: object) -> bytes:
    text = is_text(value)
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as err:
        raise malformed("not base64") from err
    if base64.b64encode(data).decode() != text:
        raise malformed("not canonical base64")
    return data


def sized(value: object, longest: int) -> str:
    text = is_text(value)
    if not 1 <= len(text.encode()) <= longest:
        raise limit("length of a text")
    return text


def tag_text(value: object) -> str:
    """`family` and `environment`."""
    text = sized(value, 128)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", text):
        raise malformed("character in family or environment")
    return text


def payload_name(value: object) -> str:
    text = sized(value, 255)
    if "/" in text or text in (".", "..") or any(unicodedata.category(char) == "Cc" for char in text):
        raise malformed("payload name is no path component")
    return text


def media_type(value: object) -> str:
    text = sized(value, 127)
    part = r"[A-Za-z0-9][A-Za-z0-9!#$&\-^_.+]*"
    if not re.fullmatch(f"{part}/{part}", text) or text.endswith("+sealed"):
        raise malformed("media type")
    return text


# ---------------------------------------------------------------------------------------------------------------- §3
@dataclass
class Payload:
    index: int
    name: str
    media_type: str
    segment_size: int
    size: int
    commitment: bytes
    tags: bytes
    blake3: bytes | None

    @property
    def segments(self) -> int:
        return max(1, -(-self.size // self.segment_size))


@dataclass
class Core:
    data: bytes
    digest: bytes
    parameters_hash: bytes
    counter: int
    environment: str
    family: str
    id: bytes
    sealer: bytes | None
    payloads: list[Payload]


def read_core(data: bytes) -> Core:
    top = members(jcs.read(data, MAX_CORE), "innerkeep core v1", ("parameters", "payloads"))
    par = members(
        top["parameters"],
        "innerkeep parameters v1",
        ("counter", "environment", "family", "id", "payloads", "suite"),
        ("sealer",),
    )
    if is_text(par["suite"]) != CORE_SUITE:
        raise malformed("suite")
    inner, outer = is_list(par["payloads"]), is_list(top["payloads"])
    if not 1 <= len(inner) <= MAX_PAYLOADS:
        raise limit("number of payloads")
    if len(inner) != len(outer):
        raise malformed("payload lists of different length")
    payloads = []
    for index, (described, sealed) in enumerate(zip(inner, outer, strict=True)):
        one = members(described, None, ("media_type", "name", "segment_size", "size"))
        two = members(sealed, None, ("commitment", "tags"), ("blake3",))
        payload = Payload(
            index=index,
            name=payload_name(one["name"]),
            media_type=media_type(one["media_type"]),
            segment_size=integer(one["segment_size"]),
            size=integer(one["size"]),
            commitment=hexed(two["commitment"], 32),
            tags=digest_of(two["tags"]),
            blake3=hexed(two["blake3"], 32) if "blake3" in two else None,
        )
        if payload.segment_size not in SEGMENT_SIZES:
            raise limit("segment size")
        if payload.size > MAX_PAYLOAD:
            raise limit("payload size")
        if payload.segments > MAX_SEGMENTS:
            raise limit("number of segments")
        payloads.append(payload)
    if len({payload.name for payload in payloads}) != len(payloads):
        raise malformed("two payloads of one name")
    if len({payload.blake3 is None for payload in payloads}) != 1:
        raise malformed("payload digests for some payloads only")
    return Core(
        data=data,
        digest=sha256(data),
        parameters_hash=sha256(jcs.encode(par)),
        counter=integer(par["counter"]),
        environment=tag_text(par["environment"]),
        family=tag_text(par["family"]),
        id=hexed(par["id"], 32),
        sealer=digest_of(par["sealer"]) if "sealer" in par else None,
        payloads=payloads,
    )


# ---------------------------------------------------------------------------------------------------------- §4 and §5
@dataclass
class PayloadKey:
    key: bytes
    nonce_base: bytes
    commitment: bytes


def payload_key(content_key: bytes, parameters_hash: bytes, index: int) -> PayloadKey:
    prk = hpke.extract("sha512", b"innerkeep sealed artifact v1", content_key)
    okm = hpke.expand("sha512", prk, b"innerkeep payload v1" + parameters_hash + u32(index), 76)
    return PayloadKey(okm[:32], okm[32:44], okm[44:76])


def segment_nonce(base: bytes, segment: int) -> bytes:
    return bytes(a ^ b for a, b in zip(base, bytes(4) + u64(segment), strict=True))


def segment_aad(payload: int, last: bool, segment: int, size: int) -> bytes:
    return b"IKSEGv1\0" + u32(payload) + bytes([last]) + bytes(3) + u64(segment) + u64(size)


def check_commitments(core: Core, content_key: bytes) -> None:
    for payload in core.payloads:
        ours = payload_key(content_key, core.parameters_hash, payload.index).commitment
        if not hmac.compare_digest(ours, payload.commitment):
            raise Refused("COMMITMENT_MISMATCH", f"payload {payload.index}")


def check_counts(core: Core, bundle: Bundle) -> None:
    """Part of parsing the core: the carrier has what the core names; a .sealed file may have more, which nobody looks at."""
    wanted, found = len(core.payloads), min(len(bundle.payloads), len(bundle.tags))
    if bundle.file and found < wanted:
        raise Refused("CARRIER_CORRUPT", f"{wanted} payloads in the core, {found} in the directory")
    if not bundle.file and (len(bundle.payloads) != wanted or len(bundle.tags) != wanted):
        raise malformed(f"{wanted} payloads in the core, {found} in the carrier")


def open_payload(core: Core, content_key: bytes, index: int, blob: bytes, tags: bytes) -> Iterator[bytes]:
    """The plaintext segment by segment; what was yielded is released, the end of the iteration is completeness."""
    payload = core.payloads[index]
    if len(tags) != 16 * payload.segments:
        raise Refused("LENGTH_MISMATCH", f"tag table of payload {index}")
    if sha256(tags) != payload.tags:
        raise Refused("TAG_TABLE_MISMATCH", f"payload {index}")
    if len(blob) != payload.size:
        raise Refused("LENGTH_MISMATCH", f"payload {index}")
    keys = payload_key(content_key, core.parameters_hash, index)
    cipher = AESGCM(keys.key)
    whole = blake3.blake3()
    for segment in range(payload.segments):
        start = segment * payload.segment_size
        sealed = blob[start : start + payload.segment_size] + tags[16 * segment : 16 * segment + 16]
        aad = segment_aad(index, segment == payload.segments - 1, segment, payload.size)
        try:
            plain = cipher.decrypt(segment_nonce(keys.nonce_base, segment), sealed, aad)
        except InvalidTag as err:
            raise Refused("SEGMENT_AUTH_FAILED", f"payload {index} segment {segment}") from err
        whole.update(plain)
        yield plain
    if payload.blake3 is not None and whole.digest() != payload.blake3:
        raise Refused("PAYLOAD_DIGEST_MISMATCH", f"payload {index}")


# ---------------------------------------------------------------------------------------------------------------- §6
@dataclass
class Signature:
    core: bytes
    key: bytes
    signature: bytes


@dataclass
class Pin:
    """Either `core`, or `sealer` with family and minimum counter."""

    core: bytes | None = None
    sealer: bytes | None = None
    family: str | None = None
    min_counter: int | None = None


@dataclass
class Floor:
    sealer: bytes
    family: str
    counter: int


def read_signature(data: bytes) -> Signature:
    top = members(jcs.read(data, MAX_SIGNATURE), "innerkeep signature v1", ("core", "key", "signature"))
    found = Signature(digest_of(top["core"]), unbase64(top["key"]), unbase64(top["signature"]))
    if len(found.signature) != 96:
        raise malformed("signature is not 96 bytes")
    return found


def signed_message(core_digest: bytes) -> bytes:
    return b"innerkeep sealer signature v1\0" + core_digest


def p384_from_spki(spki: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_der_public_key(spki)
    except Exception as err:  # the library raises several kinds
        raise Refused("KEY_INVALID", "not a SubjectPublicKeyInfo") from err
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Refused("KEY_INVALID", "not a P-384 key")
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != spki:
        raise Refused("KEY_INVALID", "not the canonical DER of the key")
    return key


def ecdsa_verifies(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    if len(signature) != 96:
        return False
    r, s = (int.from_bytes(half, "big") for half in (signature[:48], signature[48:]))
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def signature_valid(core: Core, signature: Signature) -> bool:
    key = p384_from_spki(signature.key)
    if signature.core != core.digest or core.sealer is None or sha256(signature.key) != core.sealer:
        return False
    return ecdsa_verifies(key, signature.signature, signed_message(core.digest))


def check_origin(core: Core, signature: Signature | None, pins: list[Pin], floors: list[Floor]) -> None:
    by_key = [pin for pin in pins if pin.core is None]
    if any(pin.sealer is None or pin.family is None or pin.min_counter is None for pin in by_key):
        raise Refused("PIN_INCOMPLETE")
    if any(pin.core == core.digest for pin in pins if pin.core is not None):
        return
    if not by_key:
        raise Refused("ORIGIN_UNPROVEN", "no pin by key, and no pin has this core's digest")
    if signature is None:
        raise Refused("ORIGIN_UNPROVEN", "no signature")
    if not signature_valid(core, signature):
        raise Refused("SIGNATURE_INVALID")
    matching = [pin for pin in by_key if pin.sealer == core.sealer and pin.family == core.family]
    if not matching:
        raise Refused("ORIGIN_UNPROVEN", "no pin of this sealer and family")
    floor = max(pin.min_counter for pin in matching if pin.min_counter is not None)
    for known in floors:
        if known.sealer == core.sealer and known.family == core.family:
            floor = max(floor, known.counter)
    if core.counter < floor:
        raise Refused("ROLLBACK", f"counter {core.counter}, at least {floor}")


# ---------------------------------------------------------------------------------------------------------------- §8
@dataclass
class Policy:
    preimage: bytes
    digest: bytes
    fields: dict | None  # None: opaque


def policy_digest(preimage: bytes) -> bytes:
    return hashlib.sha3_512(preimage).digest()


def choice(value: object, check: Callable[[object], object]) -> None:
    if value == "any" and isinstance(value, str):
        return
    if not isinstance(value, dict) or len(value) != 1:
        raise malformed("not a choice")
    if "exactly" in value:
        check(value["exactly"])
    elif "one_of" in value:
        items = is_list(value["one_of"])
        if not 1 <= len(items) <= 64:
            raise limit("one_of of 0 or more than 64 values")
        for item in items:
            check(item)
        texts = [jcs.encode(item) for item in items]
        if any(a >= b for a, b in zip(texts, texts[1:], strict=False)):
            raise malformed("one_of is not strictly ascending")
    else:
        raise malformed("not a choice")


def allows(value: object, fact: object) -> bool:
    if isinstance(value, str):
        return True
    assert isinstance(value, dict)
    return fact == value["exactly"] if "exactly" in value else fact in value["one_of"]


def _of_hex(*lengths: int) -> Callable[[object], object]:
    return lambda value: hexed(value, *lengths)


def _link_mode(value: object) -> object:
    if is_text(value) not in LINK_MODES:
        raise malformed("link mode")
    return value


def _generation(value: object) -> object:
    if is_text(value) not in UNUSED_TCB_BYTES:
        raise malformed("generation")
    return value


def _min_tcb(tcb: bytes, generation: object) -> None:
    """Not zero: one layout, and nothing in its unused bytes."""
    if not any(tcb):
        return
    if not isinstance(generation, dict):
        raise malformed("min_tcb with any generation")
    names = [generation["exactly"]] if "exactly" in generation else generation["one_of"]
    unused = {UNUSED_TCB_BYTES[name] for name in names}
    if len(unused) != 1:
        raise malformed("min_tcb for two layouts")
    if any(tcb[index] for index in unused.pop()):
        raise malformed("min_tcb in an unused byte")


def _evidence(value: object) -> None:
    top = members(value, None, ("certificate_chain", "debug", "initdata", "unsigned_manifest"), ("snp", "tdx"))
    choice(top["certificate_chain"], _of_hex(32))
    if top["debug"] != "any":
        only = members(top["debug"], None, ("exactly",))
        if only["exactly"] is not False:
            raise malformed("debug is neither any nor exactly false")
    choice(top["initdata"], _of_hex(32, 48, 64))
    choice(top["unsigned_manifest"], _of_hex(32))
    if "snp" not in top and "tdx" not in top:
        raise malformed("evidence without a TEE type")
    if "snp" in top:
        digests = ("author_key_digest", "id_key_digest", "measurement")
        snp = members(top["snp"], None, (*digests, "generation", "guest_policy", "max_vmpl", "min_crl_number", "min_tcb"))
        for name in digests:
            choice(snp[name], _of_hex(48))
        choice(snp["guest_policy"], _of_hex(8))
        choice(snp["generation"], _generation)
        integer(snp["min_crl_number"])
        _min_tcb(hexed(snp["min_tcb"], 8), snp["generation"])
        if integer(snp["max_vmpl"]) > 3:
            raise limit("max_vmpl")
    if "tdx" in top:
        registers = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
        numbers = ("min_pck_crl_number", "min_root_crl_number", "min_tcb_evaluation")
        tdx = members(top["tdx"], None, (*numbers, "min_tee_tcb_svn", *registers))
        for name in numbers:
            integer(tdx[name])
        hexed(tdx["min_tee_tcb_svn"], 16)
        for name in registers:
            choice(tdx[name], _of_hex(48))


def read_policy(preimage: bytes) -> Policy:
    value = jcs.read(preimage, MAX_PREIMAGE)
    digest = policy_digest(preimage)
    if isinstance(value, dict) and value.get("@type") == "innerkeep opaque policy v1":
        unbase64(members(value, "innerkeep opaque policy v1", ("bytes",))["bytes"])
        return Policy(preimage, digest, None)
    top = members(value, "innerkeep policy v1", ("environment", "family", "link_mode", "min_counter"), ("evidence",))
    choice(top["environment"], tag_text)
    choice(top["family"], tag_text)
    choice(top["link_mode"], _link_mode)
    integer(top["min_counter"])
    if "evidence" in top:
        _evidence(top["evidence"])
    return Policy(preimage, digest, top)


def evaluate(policy: Policy, core: Core, tier: str, link_mode: str) -> None:
    """The static members; evidence is never judged here."""
    if policy.fields is None:
        return
    rules = (
        ("environment", allows(policy.fields["environment"], core.environment), core.environment),
        ("environment", allows(policy.fields["environment"], tier), tier),
        ("family", allows(policy.fields["family"], core.family), core.family),
        ("link_mode", allows(policy.fields["link_mode"], link_mode), link_mode),
        ("min_counter", core.counter >= integer(policy.fields["min_counter"]), core.counter),
    )
    for rule, holds, found in rules:
        if not holds:
            raise Refused("POLICY_DENIED", f"{rule}: found {found!r}")
    if "evidence" in policy.fields:
        raise Refused("EVIDENCE_REQUIRED")


# ---------------------------------------------------------------------------------------------------------------- §9
@dataclass
class Grant:
    core: bytes
    enc: bytes  # chip
    form: dict  # the object of another kind
    kind: str
    object: str
    policy: bytes
    recipient_id: bytes
    recipient_key: bytes
    key_epoch: int
    suite: str
    wrapped: bytes


@dataclass
class Recipient:
    """What a recipient knows about itself."""

    suite: str  # "P-384" or "X-Wing"
    secret: bytes
    id: bytes
    epoch: int


@dataclass
class Broker:
    """A key broker as bound configuration names it, and the key-encryption key that it released."""

    name: str
    key: bytes  # SHA-256 of the SPKI
    secret: bytes
    kind: str = "kbs"

    def identity(self, grant: Grant) -> tuple[bytes, bytes]:
        return broker_id(self.name), self.key

    def derivation(self) -> bytes:
        return b""


@dataclass
class SnpGuest:
    """A guest by its own report, and the key that the processor derived."""

    measurement: bytes
    guest_policy: bytes
    chip_id: bytes
    host_data: bytes
    secret: bytes
    kind: str = "snp"

    def identity(self, grant: Grant) -> tuple[bytes, bytes]:
        chip = self.chip_id if grant.form.get("root_key_select") == 0 else b""
        parts = lp(self.measurement) + lp(self.guest_policy) + lp(chip)
        return sha256(b"innerkeep snp recipient v1" + parts), sha256(b"")

    def derivation(self) -> bytes:
        return self.host_data


@dataclass
class Tpm:
    """A TPM by the digests of two public areas, and the secret that it gave back."""

    attestation_key: bytes
    storage_key: bytes
    secret: bytes
    kind: str = "tpm"

    def identity(self, grant: Grant) -> tuple[bytes, bytes]:
        return sha256(b"innerkeep tpm recipient v1" + lp(self.attestation_key)), self.storage_key

    def derivation(self) -> bytes:
        return b""


def broker_id(name: str) -> bytes:
    return sha256(b"innerkeep kbs recipient v1" + lp(name.encode()))


def _kbs_form(value: object) -> dict:
    form = members(value, None, ("broker",))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:-]*", sized(form["broker"], 128)):
        raise malformed("character in a broker's name")
    return form


def _snp_form(value: object) -> dict:
    names = ("guest_field_select", "guest_svn", "root_key_select", "salt", "tcb_version", "vmpl")
    form = members(value, None, names)
    fields, svn = integer(form["guest_field_select"]), integer(form["guest_svn"])
    hexed(form["salt"], 32)
    hexed(form["tcb_version"], 8)
    if svn >= 2**32:
        raise limit("guest SVN")
    if fields & 0b101001 != 0b101001 or fields >> 6:
        raise malformed("guest field select")
    if svn and not fields & 0b010000:
        raise malformed("guest SVN that is not selected")
    if integer(form["root_key_select"]) not in (0, 1) or integer(form["vmpl"]) != 0:
        raise malformed("root key or VMPL")
    return form


def _tpm_form(value: object) -> dict:
    form = members(value, None, ("bank", "pcrs", "policy", "private", "public", "salt"))
    if is_text(form["bank"]) != "sha256":
        raise malformed("bank")
    hexed(form["policy"], 32)
    hexed(form["salt"], 32)
    for part in ("private", "public"):
        if not 1 <= len(unbase64(form[part])) <= 512:
            raise limit(f"length of {part}")
    if len(is_list(form["pcrs"])) > 24:
        raise limit("number of registers")
    registers = [integer(register) for register in form["pcrs"]]
    if any(register > 23 for register in registers):
        raise limit("register")
    if any(a >= b for a, b in zip(registers, registers[1:], strict=False)) or 8 not in registers:
        raise malformed("registers")
    return form


FORMS = {"kbs": _kbs_form, "snp": _snp_form, "tpm": _tpm_form}


def read_grant(data: bytes) -> Grant:
    value = jcs.read(data, MAX_GRANT)
    kind = is_text(value.get("kind")) if isinstance(value, dict) else ""
    own = kind if kind in FORMS else "enc"
    names = ("core", "kind", "object", "policy", "recipient", "suite", "wrapped", own)
    if isinstance(value, dict) and kind not in (*FORMS, "chip"):
        raise Refused("GRANT_KIND_UNKNOWN", f"{kind!r}")
    top = members(value, "innerkeep grant v1", names)
    who = members(top["recipient"], None, ("id", "key", "key_epoch"))
    suites = GRANT_SUITES if kind == "chip" else (SECRET_SUITES[kind],)
    if is_text(top["suite"]) not in suites:
        raise Refused("GRANT_KIND_UNKNOWN", f"{kind!r} {top['suite']!r}")
    if top["object"] not in ("core", "secret", "audit"):
        raise malformed("object")
    found = Grant(
        core=digest_of(top["core"]),
        enc=unbase64(top["enc"]) if kind == "chip" else b"",
        form=FORMS[kind](top[kind]) if kind in FORMS else {},
        kind=kind,
        object=top["object"],
        policy=unbase64(top["policy"]),
        recipient_id=hexed(who["id"], 32),
        recipient_key=digest_of(who["key"]),
        key_epoch=integer(who["key_epoch"]),
        suite=top["suite"],
        wrapped=unbase64(top["wrapped"]),
    )
    if len(found.policy) > MAX_PREIMAGE:
        raise limit("policy preimage")
    if len(found.wrapped) != 48:
        raise malformed("wrapped is not 48 bytes")
    if kind == "chip":
        if len(found.enc) != hpke.KEMS[GRANT_SUITES[found.suite]].enc_length:
            raise malformed("length of the encapsulated key")
    elif found.key_epoch != 0:
        raise malformed("key epoch of a kind without")
    if kind == "kbs" and broker_id(found.form["broker"]) != found.recipient_id:
        raise malformed("recipient id is not that of the broker's name")
    if kind == "snp" and found.recipient_key != sha256(b""):
        raise malformed("public key of a guest")
    return found


def grant_info(
    kind: str, suite: str, object_: str, core_digest: bytes, recipient_id: bytes, key_digest: bytes, epoch: int, policy: bytes
) -> bytes:
    parts = (
        b"innerkeep grant",
        b"v1",
        kind.encode(),
        suite.encode(),
        object_.encode(),
        core_digest,
        recipient_id,
        key_digest,
        u64(epoch),
        policy,
    )
    return b"".join(lp(part) for part in parts)


def _policy_of(
    core: Core, grant: Grant, preimage: bytes | None, facts: tuple[str, str] | None
) -> Policy:
    policy = read_policy(grant.policy if preimage is None else preimage)
    if facts is not None:
        evaluate(policy, core, *facts)
    return policy


def open_grant(
    core: Core, grant: Grant, me: Recipient, preimage: bytes | None = None, facts: tuple[str, str] | None = None
) -> bytes:
    """The content key; `facts` is (tier, link mode)."""
    if grant.object != "core" or grant.core != core.digest:
        raise Refused("GRANT_WRONG_OBJECT")
    if grant.kind != "chip":
        raise Refused("GRANT_WRONG_RECIPIENT", f"kind {grant.kind}")
    kem = hpke.KEMS[me.suite]
    public = sha256(kem.public(me.secret))
    mine = (me.id, public, me.epoch, me.suite)
    if mine != (grant.recipient_id, grant.recipient_key, grant.key_epoch, GRANT_SUITES[grant.suite]):
        raise Refused("GRANT_WRONG_RECIPIENT")
    policy = _policy_of(core, grant, preimage, facts)
    info = grant_info("chip", grant.suite, "core", core.digest, me.id, public, me.epoch, policy.digest)
    content_key = hpke.open_(kem, me.secret, grant.enc, info, grant.wrapped)
    if content_key is None or len(content_key) != 32:
        raise Refused("GRANT_OPEN_FAILED")
    return content_key


def open_secret_grant(
    core: Core,
    grant: Grant,
    me: Broker | SnpGuest | Tpm,
    preimage: bytes | None = None,
    facts: tuple[str, str] | None = None,
) -> bytes:
    """The content key of a grant of kind kbs, snp or tpm."""
    if grant.object != "core" or grant.core != core.digest:
        raise Refused("GRANT_WRONG_OBJECT")
    identity, public = me.identity(grant)
    mine = (me.kind, identity, public, 0, SECRET_SUITES[me.kind])
    if mine != (grant.kind, grant.recipient_id, grant.recipient_key, grant.key_epoch, grant.suite):
        raise Refused("GRANT_WRONG_RECIPIENT")
    policy = _policy_of(core, grant, preimage, facts)
    context = grant_info(me.kind, SECRET_SUITES[me.kind], "core", core.digest, identity, public, 0, policy.digest)
    key, aad = me.secret, context
    if me.kind != "kbs":
        prk = hpke.extract("sha512", bytes.fromhex(grant.form["salt"]), me.secret)
        key = hpke.expand("sha512", prk, context + me.derivation(), 32)
        aad = jcs.encode({me.kind: grant.form})
    try:
        content_key = AESGCM(key).decrypt(bytes(12), grant.wrapped, aad)
    except InvalidTag as err:
        raise Refused("GRANT_OPEN_FAILED") from err
    return content_key


def secret_of(value: bytes) -> bytes:
    if len(value) != 32 or not any(value):
        raise Refused("KEY_INVALID", "a secret is 32 bytes, not all zero")
    return value


# --------------------------------------------------------------------------------------------------------------- §10
@dataclass
class Bundle:
    """The objects of one artifact, wherever they came from; nothing of it is trusted yet."""

    core: bytes
    signature: bytes | None = None
    grants: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    tags: list[bytes] = field(default_factory=list)
    file: bool = False


def _corrupt(why: str) -> Refused:
    return Refused("CARRIER_CORRUPT", why)


def _foreign_json(data: bytes) -> dict:
    """index.json and manifests: any JSON object; other programs write them, so neither canonical nor closed."""

    def once(pairs: list[tuple[str, object]]) -> dict:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise malformed("duplicate member")
        return found

    if len(data) > MAX_MANIFEST:
        raise limit("index or manifest")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as err:
        raise malformed("index or manifest is not JSON") from err
    if not isinstance(value, dict):
        raise malformed("index or manifest is not an object")
    return value


def _descriptors(value: object) -> list[dict]:
    for item in is_list(value):
        if not isinstance(item, dict):
            raise malformed("descriptor")
        digest_of(item.get("digest"))
    return value  # type: ignore[return-value]


def _image(core: bytes, ciphertexts: list[dict]) -> None:
    """Section 10.3: all layers are sealed, and the last payload is the manifest that the image had before."""
    inner = [payload.media_type for payload in read_core(core).payloads]
    if inner[-1] not in MANIFEST_TYPES:
        raise malformed("the last payload is no manifest")
    if [layer.get("mediaType") for layer in ciphertexts] != [f"{media_type}+sealed" for media_type in inner]:
        raise malformed("a layer that is not sealed")


def read_oci(index: bytes, fetch: Callable[[bytes], bytes | None], tag: str | None) -> Bundle:
    """`fetch` gives the blob of a SHA-256, already checked against it, or None."""

    def blob(descriptor: dict, cap: int) -> bytes:
        size = descriptor.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise malformed("size of a descriptor")
        if size > cap:  # otherwise the size is not looked at: the core decides
            raise limit(f"a descriptor of {size} bytes")
        data = fetch(digest_of(descriptor.get("digest")))
        if data is None:
            raise _corrupt(f"no blob {descriptor.get('digest')}")
        return data

    listed = _descriptors(_foreign_json(index).get("manifests"))
    chosen = None
    for descriptor in listed:
        notes = descriptor.get("annotations", {})
        if not isinstance(notes, dict):
            raise malformed("annotations")
        name = notes.get("org.opencontainers.image.ref.name")
        if name is not None and (tag is None or name == tag):
            chosen = descriptor
            break
    if chosen is None:
        raise Refused("NOT_FOUND", f"no tag {tag!r}")
    manifest = _foreign_json(blob(chosen, MAX_MANIFEST))
    config = _descriptors([manifest.get("config")])[0]
    layers = _descriptors(manifest.get("layers"))
    annotations = manifest.get("annotations", {})
    named = annotations.get(CORE_ANNOTATION) if isinstance(annotations, dict) else None
    image = manifest.get("artifactType") is None and named is not None
    if image:
        config = layers.pop() if layers else {}
        if config.get("digest") != named or config.get("mediaType") != CORE_TYPE:
            raise malformed("the last layer is not the core that the annotation names")
    elif manifest.get("artifactType") != "application/vnd.innerkeep.sealed.v1":
        raise malformed("the tag names neither a sealed artifact nor an image")
    if len(layers) % 2:
        raise malformed("odd number of layers")
    half = len(layers) // 2
    bundle = Bundle(core=blob(config, MAX_CORE))
    if image:
        _image(bundle.core, layers[:half])
    bundle.payloads = [blob(layer, MAX_PAYLOAD) for layer in layers[:half]]
    bundle.tags = [blob(layer, MAX_TAGS) for layer in layers[half:]]
    for descriptor in listed:
        if descriptor is chosen:
            continue
        other = _foreign_json(blob(descriptor, MAX_MANIFEST))
        subject = other.get("subject")
        if not isinstance(subject, dict) or subject.get("digest") != chosen["digest"]:
            continue
        kind = other.get("artifactType")
        if kind not in ("application/vnd.innerkeep.signature.v1", "application/vnd.innerkeep.grant.v1"):
            continue
        inner = _descriptors(other.get("layers"))
        if len(inner) != 1:
            raise malformed("a grant or signature has one layer")
        if kind.endswith("signature.v1"):
            bundle.signature = blob(inner[0], MAX_SIGNATURE)
        elif len(bundle.grants) < MAX_GRANTS:
            bundle.grants.append(blob(inner[0], MAX_GRANT))
    return bundle


def read_layout(layout: Path, tag: str | None) -> Bundle:
    def fetch(digest: bytes) -> bytes | None:
        try:
            data = (layout / "blobs" / "sha256" / digest.hex()).read_bytes()
        except FileNotFoundError:
            return None
        return data if sha256(data) == digest else None

    try:
        index = (layout / "index.json").read_bytes()
    except FileNotFoundError as err:
        raise Refused("NOT_FOUND", "no index.json") from err
    return read_oci(index, fetch, tag)


@dataclass
class Directory:
    core: tuple[int, int]  # offset, length
    grants: list[tuple[int, int]]
    payloads: list[tuple[int, int]]
    signature: tuple[int, int] | None
    tags: list[tuple[int, int]]


def _region(value: object, cap: int) -> tuple[int, int]:
    found = members(value, None, ("length", "offset"))
    if integer(found["length"]) > cap:
        raise limit("length of a region")
    return integer(found["offset"]), integer(found["length"])


def read_directory(data: bytes) -> Directory:
    names = ("core", "grants", "payloads", "tags")
    top = members(jcs.read(data, MAX_DIRECTORY), "innerkeep file v1", names, ("signature",))
    found = Directory(
        core=_region(top["core"], MAX_CORE),
        grants=[_region(item, MAX_GRANT) for item in is_list(top["grants"])],
        payloads=[_region(item, MAX_PAYLOAD) for item in is_list(top["payloads"])],
        signature=_region(top["signature"], MAX_SIGNATURE) if "signature" in top else None,
        tags=[_region(item, MAX_TAGS) for item in is_list(top["tags"])],
    )
    if not 1 <= len(found.payloads) <= MAX_PAYLOADS:
        raise limit("number of payloads")
    if len(found.tags) != len(found.payloads):
        raise limit("payloads and tag tables differ in number")
    return found


def _slot(data: bytes, at: int) -> tuple[int, bytes, tuple[int, int]] | None:
    """(sequence, directory, its region) of a valid slot."""
    slot = data[at : at + 4096]
    if len(slot) < 104 or slot[:16] != b"IKSEALED" + u32(1) + u32(0) or sha256(slot[:72]) != slot[72:104]:
        return None
    sequence, offset, length = (int.from_bytes(slot[i : i + 8], "big") for i in (16, 24, 32))
    if length > MAX_DIRECTORY or offset + length > len(data):
        return None
    directory = data[offset : offset + length]
    if sha256(directory) != slot[40:72]:
        return None
    return sequence, directory, (offset, length)


def read_file(data: bytes) -> Bundle:
    slots = [slot for slot in (_slot(data, 0), _slot(data, 4096)) if slot is not None]
    if not slots:
        raise _corrupt("no valid slot")
    _, raw, own = max(slots, key=lambda slot: slot[0])
    directory = read_directory(raw)
    signature = [] if directory.signature is None else [directory.signature]
    regions = [directory.core, *directory.grants, *directory.payloads, *signature, *directory.tags]
    if any(offset % 4096 for offset, _ in directory.payloads):
        raise _corrupt("payload region not at a multiple of 4,096")
    last = 8192
    for offset, length in sorted(region for region in [*regions, own] if region[1]):
        if offset < last:
            raise _corrupt("regions overlap")
        last = offset + length
    if last > len(data) or any(offset > len(data) for offset, _ in regions):
        raise _corrupt("region outside the file")

    def cut(region: tuple[int, int]) -> bytes:
        return data[region[0] : region[0] + region[1]]

    return Bundle(
        core=cut(directory.core),
        signature=None if directory.signature is None else cut(directory.signature),
        grants=[cut(region) for region in directory.grants[:MAX_GRANTS]],
        payloads=[cut(region) for region in directory.payloads],
        tags=[cut(region) for region in directory.tags],
        file=True,
    )
