"""The vector files of docs/spec/sealed-artifact-v1.md §12: form, mutations, procedure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import artifact
from refused import Refused

LISTS = ("blob", "grant", "floor", "mutate", "pin")
SINGLE = frozenset(
    ("comment", "kind", "expect", "released", "object", "digest", "core", "signature", "file", "index", "tag", "content_key")
    + ("recipient.suite", "recipient.secret", "recipient.id", "recipient.epoch", "preimage", "facts", "origin", "include")
    + ("recipient.kind", "recipient.name", "recipient.key", "recipient.measurement", "recipient.guest_policy")
    + ("recipient.chip_id", "recipient.host_data", "recipient.attestation_key")
)
INDEXED = re.compile(r"(payload|tags|plaintext)\.(0|[1-9][0-9]*)")
BINARY = re.compile(r"object|core|signature|file|index|preimage|payload\.[0-9]+|tags\.[0-9]+")
READERS = {
    "core": artifact.read_core,
    "policy": artifact.read_policy,
    "grant": artifact.read_grant,
    "signature": artifact.read_signature,
    "directory": artifact.read_directory,
}


class BadVector(Exception):
    """The vector file itself is wrong."""


@dataclass
class Vector:
    one: dict[str, str] = field(default_factory=dict)
    many: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in LISTS})
    bytes: dict[str, bytearray] = field(default_factory=dict)


@dataclass
class Outcome:
    code: str
    released: str
    digest: str | None = None
    why: str = ""


def _b64(text: str) -> bytearray:
    return bytearray() if text == "=" else bytearray(artifact.unbase64(text))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    text = path.read_bytes().decode("utf-8")
    if "\r" in text or not text.endswith("\n"):
        raise BadVector("not LF lines")
    lines = text[:-1].split("\n")
    while lines and lines[-1] == "":
        lines.pop()
    for line in lines:
        if line.startswith("#"):
            continue
        name, colon, value = line.partition(": ")
        if not colon:
            if not line.endswith(":"):
                raise BadVector(f"line {line[:40]!r}")
            name, value = line[:-1], ""
        if not re.fullmatch(r"[a-z0-9_.-]+", name):
            raise BadVector(f"member name {name[:40]!r}")
        if name not in SINGLE and name not in LISTS and not INDEXED.fullmatch(name):
            raise BadVector(f"unknown member {name!r}")
        yield name, value


def _merge(vector: Vector, path: Path, depth: int) -> None:
    for number, (name, value) in enumerate(_lines(path)):
        if name == "include":
            if number or depth:
                raise BadVector("include is not the first line, or nested")
            _merge(vector, path.parent / value, depth + 1)
        elif name in LISTS:
            if value:
                vector.many[name].append(value)
            else:
                vector.many[name].clear()
        elif value:
            vector.one[name] = value
        else:
            vector.one.pop(name, None)


def load(path: Path) -> Vector:
    vector = Vector()
    _merge(vector, path, 0)
    for name, value in vector.one.items():
        if BINARY.fullmatch(name):
            vector.bytes[name] = _b64(value)
    for name in ("blob", "grant"):
        for index, value in enumerate(vector.many[name]):
            vector.bytes[f"{name}.{index}"] = _b64(value)
    return vector


def mutated(vector: Vector) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(label, members) for every vector that this one stands for."""
    work = {name: bytearray(data) for name, data in vector.bytes.items()}
    sweeps: list[list[str]] = []
    for text in vector.many["mutate"]:
        words = text.split(" ")
        verb, name, rest = words[0], words[1], words[2:]
        if name not in work:
            raise BadVector(f"mutation of the absent member {name!r}")
        data = work[name]
        if verb.startswith("every-"):
            sweeps.append(words)
        elif sweeps:
            raise BadVector("a mutation after every-bit or every-prefix")
        elif verb == "flip":
            data[int(rest[0]) // 8] ^= 1 << (int(rest[0]) % 8)
        elif verb == "truncate":
            if int(rest[0]) > len(data):
                raise BadVector("truncate beyond the end")
            del data[int(rest[0]) :]
        elif verb == "fill":
            if int(rest[0]) < len(data):
                raise BadVector("fill below the length")
            data += bytes(int(rest[0]) - len(data))
        elif verb == "append":
            data += bytes.fromhex(rest[0])
        elif verb == "replace":
            new, at = bytes.fromhex(rest[1]), int(rest[0])
            if at + len(new) > len(data):
                raise BadVector("replace beyond the end")
            data[at : at + len(new)] = new
        elif verb == "swap":
            a, b, length = (int(word) for word in rest)
            data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]
        elif verb == "copy":
            at, start, length = int(rest[0]), int(rest[2]), int(rest[3])
            if at + length > len(data) or start + length > len(work[rest[1]]):
                raise BadVector("copy beyond the end")
            data[at : at + length] = work[rest[1]][start : start + length]
        else:
            raise BadVector(f"mutation {verb!r}")
    if len(sweeps) > 1:
        raise BadVector("two sweeps")
    done = {name: bytes(data) for name, data in work.items()}
    if not sweeps:
        yield "", done
        return
    verb, name = sweeps[0]
    whole = done[name]
    if verb == "every-bit":
        for bit in range(8 * len(whole)):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << (bit % 8)
            yield f"bit {bit}", {**done, name: bytes(changed)}
    elif verb == "every-prefix":
        for length in range(len(whole)):
            yield f"prefix {length}", {**done, name: whole[:length]}
    else:
        raise BadVector(f"mutation {verb!r}")


def _numbered(data: dict[str, bytes], name: str) -> list[bytes]:
    found = {int(key.rpartition(".")[2]): value for key, value in data.items() if key.startswith(name + ".")}
    if sorted(found) != list(range(len(found))):
        raise BadVector(f"{name}: not numbered from 0")
    return [found[index] for index in range(len(found))]


def _pairs(text: str, names: dict[str, str]) -> dict[str, str]:
    """`sealer D family F min-counter N` → by name; every name at most once."""
    words = text.split(" ")
    found = dict(zip(words[::2], words[1::2], strict=True))
    if 2 * len(found) != len(words) or not set(found) <= set(names):
        raise BadVector(f"fields {text!r}")
    return found


def _pin(text: str) -> artifact.Pin:
    found = _pairs(text, dict.fromkeys(("core", "sealer", "family", "min-counter"), ""))
    return artifact.Pin(
        core=artifact.digest_of(found["core"]) if "core" in found else None,
        sealer=artifact.digest_of(found["sealer"]) if "sealer" in found else None,
        family=found.get("family"),
        min_counter=int(found["min-counter"]) if "min-counter" in found else None,
    )


def _floor(text: str) -> artifact.Floor:
    found = _pairs(text, dict.fromkeys(("sealer", "family", "counter"), ""))
    return artifact.Floor(artifact.digest_of(found["sealer"]), found["family"], int(found["counter"]))


def _facts(text: str) -> tuple[str, str]:
    found = _pairs(text, dict.fromkeys(("tier", "link-mode"), ""))
    return found["tier"], found["link-mode"]


def _bundle(vector: Vector, data: dict[str, bytes]) -> artifact.Bundle:
    if "file" in data:
        return artifact.read_file(data["file"])
    if "index" in data:
        blobs = {artifact.sha256(blob): blob for blob in _numbered(data, "blob")}
        return artifact.read_oci(data["index"], blobs.get, vector.one.get("tag"))
    return artifact.Bundle(
        core=data["core"],
        signature=data.get("signature"),
        grants=_numbered(data, "grant"),
        payloads=_numbered(data, "payload"),
        tags=_numbered(data, "tags"),
    )


def _secret_recipient(one: dict[str, str]) -> artifact.Broker | artifact.SnpGuest | artifact.Tpm:
    def raw(name: str) -> bytes:
        return bytes.fromhex(one[f"recipient.{name}"])

    kind, secret = one["recipient.kind"], artifact.secret_of(raw("secret"))
    if kind == "kbs":
        return artifact.Broker(one["recipient.name"], artifact.digest_of(one["recipient.key"]), secret)
    if kind == "snp":
        return artifact.SnpGuest(raw("measurement"), raw("guest_policy"), raw("chip_id"), raw("host_data"), secret)
    if kind == "tpm":
        return artifact.Tpm(raw("attestation_key"), artifact.digest_of(one["recipient.key"]), secret)
    raise BadVector(f"recipient of kind {kind!r}")


def _run_artifact(vector: Vector, data: dict[str, bytes], released: hashlib._Hash) -> None:
    bundle = _bundle(vector, data)
    core = artifact.read_core(bundle.core)
    artifact.check_counts(core, bundle)
    if vector.one.get("origin") != "unchecked":
        signature = None if bundle.signature is None else artifact.read_signature(bundle.signature)
        pins = [_pin(text) for text in vector.many["pin"]]
        floors = [_floor(text) for text in vector.many["floor"]]
        artifact.check_origin(core, signature, pins, floors)
    stated = bytes.fromhex(vector.one["content_key"]) if "content_key" in vector.one else None
    content_key = stated
    if "recipient.suite" in vector.one:
        if not bundle.grants:
            raise BadVector("a recipient, but no grant")
        me = artifact.Recipient(
            suite=vector.one["recipient.suite"],
            secret=bytes.fromhex(vector.one["recipient.secret"]),
            id=bytes.fromhex(vector.one["recipient.id"]),
            epoch=int(vector.one["recipient.epoch"]),
        )
        facts = _facts(vector.one["facts"]) if "facts" in vector.one else None
        grant = artifact.read_grant(bundle.grants[0])
        content_key = artifact.open_grant(core, grant, me, data.get("preimage"), facts)
        if stated is not None and content_key != stated:
            raise BadVector("the grant opens to another content key")
    if "recipient.kind" in vector.one:
        if not bundle.grants:
            raise BadVector("a recipient, but no grant")
        facts = _facts(vector.one["facts"]) if "facts" in vector.one else None
        grant = artifact.read_grant(bundle.grants[0])
        other = _secret_recipient(vector.one)
        content_key = artifact.open_secret_grant(core, grant, other, data.get("preimage"), facts)
        if stated is not None and content_key != stated:
            raise BadVector("the grant opens to another content key")
    if content_key is None:
        return
    artifact.check_commitments(core, content_key)
    for payload in core.payloads:
        index = payload.index
        for segment in artifact.open_payload(core, content_key, index, bundle.payloads[index], bundle.tags[index]):
            released.update(segment)


def run(vector: Vector, data: dict[str, bytes]) -> Outcome:
    released = hashlib.sha256()
    digest = None
    kind = vector.one.get("kind")
    try:
        if kind == "artifact":
            _run_artifact(vector, data, released)
        elif kind in READERS:
            found = READERS[kind](data["object"])
            if isinstance(found, artifact.Core):
                digest = "sha256:" + found.digest.hex()
            elif isinstance(found, artifact.Policy):
                digest = found.digest.hex()
        else:
            raise BadVector(f"kind {kind!r}")
    except Refused as err:
        return Outcome(err.code, released.hexdigest(), None, err.why)
    return Outcome("success", released.hexdigest(), digest)


def check(path: Path) -> tuple[int, list[str]]:
    """(number of vectors it stood for, what was wrong)."""
    wrong: list[str] = []
    count = 0
    try:
        vector = load(path)
        expected = vector.one["expect"].split(" ")
        for label, data in mutated(vector):
            count += 1
            got = run(vector, data)
            at = f" [{label}]" if label else ""
            if got.code not in expected:
                wrong.append(f"{at} expected {' or '.join(expected)}, found {got.code} ({got.why})".strip())
            elif "released" in vector.one and got.released != vector.one["released"]:
                wrong.append(f"{at} released {got.released}, expected {vector.one['released']}".strip())
            elif "released" not in vector.one and vector.one["kind"] == "artifact":
                raise BadVector("no member released")
            elif got.code == "success" and "digest" in vector.one and got.digest != vector.one["digest"]:
                wrong.append(f"{at} digest {got.digest}, expected {vector.one['digest']}".strip())
    except (BadVector, KeyError, ValueError, IndexError, FileNotFoundError) as err:
        wrong.append(f"bad vector: {type(err).__name__}: {err}")
    if count == 0 and not wrong:
        wrong.append("stands for no vector")
    return count, wrong


def run_all(folder: Path) -> bool:
    """One line for each failed file, then the count."""
    paths = [path for path in sorted(folder.glob("*.txt")) if not path.name.startswith("fixture-")]
    passed = total = 0
    for path in paths:
        count, wrong = check(path)
        total += count
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            print(f"FAIL {path.name}: {wrong[0]}{more}", flush=True)
        else:
            passed += 1
    print(f"{passed} of {len(paths)} vector files pass, {total} cases")
    if not paths:
        print(f"no vector found in {folder}")
    return bool(paths) and passed == len(paths)
