"""A small sealer, the mirror of artifact.py: enough to make artifacts, grants and carriers for tests. Not for real secrets."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import artifact
import hpke
import jcs

SUITE_TEXT = {short: full for full, short in artifact.GRANT_SUITES.items()}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sha_text(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def integer(value: int) -> int | str:
    return value if value <= 2**53 - 1 else str(value)


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def ecdsa(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA384())))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


@dataclass
class Sealed:
    core: bytes
    content_key: bytes
    payloads: list[bytes]
    tags: list[bytes]
    signature: bytes | None  # the JSON object

    @property
    def digest(self) -> bytes:
        return artifact.sha256(self.core)


def seal(
    plaintexts: list[tuple[str, str, bytes]],
    family: str = "test/family",
    environment: str = "test",
    counter: int = 1,
    segment_size: int = 65_536,
    sealer: ec.EllipticCurvePrivateKey | None = None,
    digests: bool = True,
) -> Sealed:
    """`plaintexts`: (name, media type, bytes)."""
    content_key = os.urandom(32)
    parameters: dict[str, object] = {
        "@type": "innerkeep parameters v1",
        "counter": integer(counter),
        "environment": environment,
        "family": family,
        "id": os.urandom(32).hex(),
        "payloads": [
            {"media_type": kind, "name": name, "segment_size": segment_size, "size": len(data)}
            for name, kind, data in plaintexts
        ],
        "suite": artifact.CORE_SUITE,
    }
    if sealer is not None:
        parameters["sealer"] = sha_text(spki(sealer))
    parameters_hash = artifact.sha256(jcs.encode(parameters))
    blobs, tables, outer = [], [], []
    for index, (_, _, data) in enumerate(plaintexts):
        keys = artifact.payload_key(content_key, parameters_hash, index)
        cipher = AESGCM(keys.key)
        count = max(1, -(-len(data) // segment_size))
        blob, tags = bytearray(), bytearray()
        for segment in range(count):
            aad = artifact.segment_aad(index, segment == count - 1, segment, len(data))
            part = data[segment * segment_size : (segment + 1) * segment_size]
            sealed = cipher.encrypt(artifact.segment_nonce(keys.nonce_base, segment), part, aad)
            blob += sealed[:-16]
            tags += sealed[-16:]
        blobs.append(bytes(blob))
        tables.append(bytes(tags))
        entry: dict[str, object] = {"commitment": keys.commitment.hex(), "tags": sha_text(bytes(tags))}
        if digests:
            entry["blake3"] = blake3.blake3(data).hexdigest()
        outer.append(entry)
    core = jcs.encode({"@type": "innerkeep core v1", "parameters": parameters, "payloads": outer})
    signature = None
    if sealer is not None:
        raw = ecdsa(sealer, artifact.signed_message(artifact.sha256(core)))
        signature = jcs.encode(
            {"@type": "innerkeep signature v1", "core": sha_text(core), "key": b64(spki(sealer)), "signature": b64(raw)}
        )
    return Sealed(core, content_key, blobs, tables, signature)


def policy(environment: str, family: str, link_modes: list[str], min_counter: int) -> bytes:
    """A preimage that demands no evidence."""
    return jcs.encode(
        {
            "@type": "innerkeep policy v1",
            "environment": {"exactly": environment},
            "family": {"exactly": family},
            "link_mode": {"one_of": sorted(link_modes)},
            "min_counter": integer(min_counter),
        }
    )


def wrap(sealed: Sealed, suite: str, public: bytes, recipient: bytes, epoch: int, preimage: bytes) -> tuple[bytes, bytes]:
    """(enc, wrapped) of a chip grant; `suite` is P-384 or X-Wing."""
    digest = artifact.policy_digest(preimage)
    info = artifact.grant_info("chip", SUITE_TEXT[suite], "core", sealed.digest, recipient, artifact.sha256(public), epoch, digest)
    return hpke.seal(hpke.KEMS[suite], public, info, sealed.content_key)


def grant(sealed: Sealed, suite: str, public: bytes, recipient: bytes, epoch: int, preimage: bytes) -> bytes:
    enc, wrapped = wrap(sealed, suite, public, recipient, epoch, preimage)
    return jcs.encode(
        {
            "@type": "innerkeep grant v1",
            "core": sha_text(sealed.core),
            "enc": b64(enc),
            "kind": "chip",
            "object": "core",
            "policy": b64(preimage),
            "recipient": {"id": recipient.hex(), "key": sha_text(public), "key_epoch": integer(epoch)},
            "suite": SUITE_TEXT[suite],
            "wrapped": b64(wrapped),
        }
    )


def write_file(sealed: Sealed, grants: list[bytes]) -> bytes:
    """The bytes of a .sealed file."""
    out = bytearray(8192)

    def put(data: bytes, align: int = 1) -> dict[str, object]:
        out.extend(bytes(-len(out) % align))
        region = {"length": len(data), "offset": len(out)}
        out.extend(data)
        return region

    directory: dict[str, object] = {
        "@type": "innerkeep file v1",
        "core": put(sealed.core),
        "grants": [put(one) for one in grants],
        "payloads": [put(blob, 4096) for blob in sealed.payloads],
        "tags": [put(table) for table in sealed.tags],
    }
    if sealed.signature is not None:
        directory["signature"] = put(sealed.signature)
    raw = jcs.encode(directory)
    region = put(raw)
    head = b"IKSEALED" + artifact.u32(1) + artifact.u32(0) + artifact.u64(1)
    head += artifact.u64(int(str(region["offset"]))) + artifact.u64(len(raw)) + artifact.sha256(raw)
    out[: len(head) + 32] = head + artifact.sha256(head)
    return bytes(out)


def write_layout(sealed: Sealed, grants: list[bytes], folder: Path, tag: str) -> None:
    """An OCI image layout."""
    (folder / "blobs" / "sha256").mkdir(parents=True)

    def put(data: bytes, kind: str, notes: dict[str, str] | None = None) -> dict[str, object]:
        (folder / "blobs" / "sha256" / hashlib.sha256(data).hexdigest()).write_bytes(data)
        found: dict[str, object] = {"mediaType": kind, "digest": sha_text(data), "size": len(data)}
        if notes:
            found["annotations"] = notes
        return found

    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    prefix = "application/vnd.innerkeep."

    def manifest(kind: str, config: dict, layers: list[dict], subject: dict | None, notes: dict | None) -> dict:
        body = {"schemaVersion": 2, "mediaType": manifest_type, "artifactType": prefix + kind, "config": config}
        body["layers"] = layers
        if subject is not None:
            body["subject"] = subject
        return {**put(json.dumps(body).encode(), manifest_type, notes), "artifactType": prefix + kind}

    described = json.loads(sealed.core)["parameters"]["payloads"]
    title = "org.opencontainers.image.title"
    layers = [
        put(blob, one["media_type"] + "+sealed", {title: one["name"]})
        for blob, one in zip(sealed.payloads, described, strict=True)
    ]
    layers += [put(table, prefix + "tags.v1") for table in sealed.tags]
    config = put(sealed.core, prefix + "core.v1+json")
    reference = {"org.opencontainers.image.ref.name": tag}
    main = manifest("sealed.v1", config, layers, None, reference)
    subject = {name: main[name] for name in ("mediaType", "digest", "size")}
    empty = put(b"{}", "application/vnd.oci.empty.v1+json")
    listed = [main]
    if sealed.signature is not None:
        layer = put(sealed.signature, prefix + "signature.v1+json")
        listed.append(manifest("signature.v1", empty, [layer], subject, None))
    for one in grants:
        listed.append(manifest("grant.v1", empty, [put(one, prefix + "grant.v1+json")], subject, None))
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": listed}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
