"""Reader of initdata: docs/spec/initdata.md, sections 1 to 5. Written from that page alone.

`bind_device`, `bind_annotation` and `bind_text` return a `Document` or raise `Refused` with the code of the page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import tomllib
import zlib
from dataclasses import dataclass
from pathlib import Path

MAX_STREAM = 4 << 20
MAX_TEXT = 8 << 20
MAX_CONFIG = 256 << 10
ALGORITHMS = ("sha256", "sha384", "sha512")
REGISTERS = {"HOST_DATA": 32, "MRCONFIGID": 48, "REALM_PERSONALIZATION": 64}
INSECURE = {"emulated-chip", "emulated-dma", "emulated-tee", "no-evidence", "offline-kbc", "plain-http", "swap", "tpm-only"}
INSECURE |= {"unauthenticated-secrets", "unverified-rootfs", "unverified-secrets"}
ROUTES = {"aa-token", "aa-evidence", "aa-additional-evidence", "aa-aael", "cdh-resource"}
PROTECTED = ("/dev", "/proc", "/sys", "/run/confidential-containers", "/run/innerkeep", "/run/kata-containers")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\Z")
REFERENCE = re.compile(r"[A-Za-z0-9._:/@-]{1,512}\Z")
RESOURCE = re.compile(r"kbs:///[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){2}\Z")


class Refused(Exception):
    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code


@dataclass(frozen=True)
class Document:
    text: bytes
    algorithm: str
    files: dict[str, str]

    @property
    def digest(self) -> bytes:
        return hashlib.new(self.algorithm, self.text).digest()


def fitted(digest: bytes, length: int) -> bytes:
    return digest[:length].ljust(length, b"\0")


def pcr8(digest: bytes) -> bytes:
    return hashlib.sha256(bytes(32) + digest).digest()


# Carriers


def inflate(stream: bytes) -> bytes:
    if len(stream) > MAX_STREAM:
        raise Refused("INITDATA_TOO_LARGE", "stream")
    # zlib takes reserved flags; RFC 1952 does not.
    if len(stream) > 3 and stream[3] & 0xE0:
        raise Refused("INITDATA_CONTAINER", "reserved flags")
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(stream, MAX_TEXT + 1)
    except zlib.error as error:
        raise Refused("INITDATA_CONTAINER", str(error)) from error
    if len(text) > MAX_TEXT:
        raise Refused("INITDATA_TOO_LARGE", "text")
    if not inflater.eof or inflater.unused_data:
        raise Refused("INITDATA_CONTAINER", "not one whole member")
    return text


def device_text(device: bytes) -> bytes:
    if device[:8] != b"initdata" or len(device) < 16:
        raise Refused("INITDATA_CONTAINER", "no magic")
    length = int.from_bytes(device[8:16], "little")
    if length > MAX_STREAM:
        raise Refused("INITDATA_TOO_LARGE", "length")
    stream = device[16 : 16 + length]
    if len(stream) != length:
        raise Refused("INITDATA_CONTAINER", "the device ends before")
    return inflate(stream)


def annotation_text(annotation: str) -> bytes:
    try:
        stream = base64.b64decode(annotation.strip(" \t\r\n\f"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("INITDATA_ANNOTATION", str(error)) from error
    return inflate(stream)


def write(document: bytes) -> tuple[str, bytes]:
    """Annotation and device image of a document, by another compressor and with a name, as one runtime writes it."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = compressor.compress(document) + compressor.flush()
    crc, size = zlib.crc32(document), len(document)
    stream = b"\x1f\x8b\x08\x08" + bytes(4) + b"\x02\x03initdata.toml\0" + body + crc.to_bytes(4, "little") + size.to_bytes(4, "little")
    image = b"initdata" + len(stream).to_bytes(8, "little") + stream
    return base64.b64encode(stream).decode(), image + bytes(-len(image) % 512)


# Binding


def bind_text(text: bytes, register: bytes) -> Document:
    if not 32 <= len(register) <= 64:
        raise Refused("INITDATA_REGISTER", f"{len(register)} bytes")
    if len(text) > MAX_TEXT:
        raise Refused("INITDATA_TOO_LARGE", "text")
    held = [name for name in ALGORITHMS if fitted(hashlib.new(name, text).digest(), len(register)) == register]
    if len(held) != 1:
        raise Refused("INITDATA_MISMATCH", str(held))
    document = parse(text)
    if document.algorithm != held[0]:
        raise Refused("INITDATA_ALGORITHM", f"{held[0]} matched")
    return document


def bind_device(device: bytes, register: bytes) -> Document:
    return bind_text(device_text(device), register)


def bind_annotation(annotation: str, register: bytes) -> Document:
    return bind_text(annotation_text(annotation), register)


# Document


def parse(text: bytes) -> Document:
    try:
        tree = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused("INITDATA_DOCUMENT", str(error)) from error
    form = {"version": str, "algorithm": str, "data": dict}
    if set(tree) != set(form) or not all(isinstance(tree[name], kind) for name, kind in form.items()):
        raise Refused("INITDATA_DOCUMENT", "members")
    if not all(isinstance(value, str) for value in tree["data"].values()):
        raise Refused("INITDATA_DOCUMENT", "data")
    if tree["version"] != "0.1.0":
        raise Refused("INITDATA_VERSION", tree["version"])
    if tree["algorithm"] not in ALGORITHMS:
        raise Refused("INITDATA_ALGORITHM", tree["algorithm"])
    files = tree["data"]
    if len(files) > 64:
        raise Refused("INITDATA_TOO_LARGE", "files")
    for name in files:
        if not 1 <= len(name.encode()) <= 255 or "/" in name or name in (".", "..") or has_controls(name):
            raise Refused("INITDATA_FILE", repr(name))
    readers = {"aa.toml": None, "cdh.toml": None, "sealed.toml": sealed, "audit.toml": audit, "innerkeep.toml": settings}
    for name, reader in readers.items():
        if len(files.get(name, "").encode()) > MAX_CONFIG:
            raise Refused("INITDATA_TOO_LARGE", name)
        if reader and name in files:
            try:
                reader(tomllib.loads(files[name]))
            except (tomllib.TOMLDecodeError, Wrong) as error:
                raise Refused("INITDATA_FILE", f"{name}: {error}") from error
    return Document(text, tree["algorithm"], files)


def has_controls(text: str) -> bool:
    return any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)


class Wrong(Exception):
    """A file that is not of its form."""


def demand(holds: object, what: str) -> None:
    if not holds:
        raise Wrong(what)


def members(table: object, required: set[str], optional: set[str] = frozenset()) -> dict:
    demand(isinstance(table, dict), "a table")
    demand(required <= set(table) <= required | optional, f"members {sorted(required)}, {sorted(optional)}; found {sorted(table)}")
    return table


def matches(value: object, pattern: re.Pattern, what: str) -> str:
    demand(isinstance(value, str) and pattern.match(value), what)
    return value


def number(value: object, low: int, high: int, what: str) -> None:
    demand(isinstance(value, int) and not isinstance(value, bool) and low <= value <= high, what)


def distinct(value: object, most: int, what: str) -> list:
    demand(isinstance(value, list) and len(value) <= most and all(isinstance(item, str) for item in value), what)
    demand(len(set(value)) == len(value), what)
    return value


def container(value: object) -> str:
    table = members(value, set(), {"image", "composefs", "verity", "layers", "process", "policy_container"})
    demand(len({"image", "composefs", "verity", "layers"} & set(table)) == 1, "one root")
    demand(len({"process", "policy_container"} & set(table)) == 1, "one process")
    for name in {"image", "composefs", "process"} & set(table):
        matches(table[name], DIGEST, name)
    if "policy_container" in table:
        number(table["policy_container"], 0, 2**32 - 1, "policy_container")
    if "verity" in table:
        table = {**table, "verity": verity(table["verity"])}
    if "layers" in table:
        demand(isinstance(table["layers"], list) and 1 <= len(table["layers"]) <= 128, "layers")
        table = {**table, "layers": [verity(layer) for layer in table["layers"]]}
    return repr(sorted(table.items()))


def verity(value: object) -> tuple[str, str, int]:
    tree = members(value, {"root_hash", "salt", "data_blocks"})
    matches(tree["root_hash"], DIGEST, "root_hash")
    salt = matches(tree["salt"], re.compile(r"([0-9a-fA-F]{2}){0,256}\Z"), "salt")
    number(tree["data_blocks"], 1, 2**63 - 1, "data_blocks")
    return tree["root_hash"], salt.lower(), tree["data_blocks"]


def path(value: object) -> str:
    demand(isinstance(value, str) and value.startswith("/") and len(value.encode()) <= 1024 and not has_controls(value), "path")
    parts = value[1:].split("/")
    demand(all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts), "path components")
    demand(not any(overlap(value, taken) for taken in PROTECTED), "a path of the system")
    return value


def overlap(one: str, other: str) -> bool:
    return (one + "/").startswith(other + "/") or (other + "/").startswith(one + "/")


def sealed(tree: dict) -> None:
    members(tree, {"environment"}, {"chip_root", "artifact", "secret"})
    matches(tree["environment"], TAG, "environment")
    demand(isinstance(tree.get("chip_root", ""), str), "chip_root")
    artifacts, secrets = tree.get("artifact", []), tree.get("secret", [])
    demand(isinstance(artifacts, list) and isinstance(secrets, list), "lists")
    demand((artifacts or secrets) and len(artifacts) <= 64 and len(secrets) <= 64, "artifacts or secrets")
    for value in secrets:
        container(members(value, {"container"})["container"])
    names: set[str] = set()
    places: list[tuple[str, str]] = []
    for value in artifacts:
        one = members(value, {"name", "reference", "path", "container"}, {"core", "sealer"})
        demand(("core" in one) != ("sealer" in one), "one of core, sealer")
        if "core" in one:
            matches(one["core"], DIGEST, "core")
        else:
            sealer = members(one["sealer"], {"key", "family", "min_counter"})
            matches(sealer["key"], DIGEST, "key")
            matches(sealer["family"], TAG, "family")
            number(sealer["min_counter"], 0, 2**63 - 1, "min_counter")
        name = matches(one["name"], TAG, "name")
        demand(name not in names, "two artifacts of one name")
        names.add(name)
        reference = matches(one["reference"], REFERENCE, "reference").split("/")
        demand(len(reference) > 1 and not set(reference) & {"", ".", ".."}, "reference")
        place = (container(one["container"]), path(one["path"]))
        demand(not any(place[0] == other[0] and overlap(place[1], other[1]) for other in places), "two artifacts in one place")
        places.append(place)


def audit(tree: dict) -> None:
    members(tree, {"suite", "key"})
    lengths = {"p-384": 97, "x-wing": 1216}
    demand(isinstance(tree["suite"], str) and tree["suite"] in lengths, "suite")
    demand(isinstance(tree["key"], str), "key")
    try:
        key = base64.b64decode(tree["key"], validate=True)
    except ValueError as error:
        raise Wrong("key") from error
    demand(len(key) == lengths[tree["suite"]], "length of the key")


def settings(tree: dict) -> None:
    members(tree, set(), {"insecure", "set_policy", "rest"})
    demand(set(distinct(tree.get("insecure", []), 256, "insecure")) <= INSECURE, "insecure")
    for digest in distinct(tree.get("set_policy", []), 256, "set_policy"):
        matches(digest, DIGEST, "set_policy")
    rules = tree.get("rest", [])
    demand(isinstance(rules, list) and len(rules) <= 256, "rest")
    seen: set[str] = set()
    for value in rules:
        rule = members(value, {"container", "routes"}, {"resources"})
        who = container(rule["container"])
        demand(who not in seen, "two entries for a container")
        seen.add(who)
        routes = set(distinct(rule["routes"], 256, "routes"))
        resources = distinct(rule.get("resources", []), 256, "resources")
        demand(routes and routes <= ROUTES, "routes")
        for uri in resources:
            matches(uri, RESOURCE, "resources")
            demand(len(uri) <= 512 and not set(uri[8:].split("/")) & {".", ".."}, "resources")
        demand(("cdh-resource" in routes) == bool(resources), "resources exactly with cdh-resource")


def read_carrier(file: Path) -> bytes:
    """The document in a file with an annotation, a device image or the text itself."""
    data = file.read_bytes()
    if data.startswith(b"initdata") and len(data) % 512 == 0:
        return device_text(data)
    try:
        return annotation_text(data.decode())
    except (UnicodeDecodeError, Refused):
        return data
