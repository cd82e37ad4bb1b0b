"""The Trustee key broker protocol (RCAR 0.4.0) without any input or output: JSON, digests, keys, encrypted answers, tokens.

Written from a description of the protocol, not from any implementation. Where the description leaves a choice, the server
side here is the stricter one. Tests only: nothing is constant-time, nothing is wiped.
"""

from __future__ import annotations

import hashlib
import re
import time
import tomllib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from kbs_jose import (  # noqa: F401  one name space for the protocol
    akp_jwk, assemble, b64, b64url, Bad, canonical, compact, concat_kdf, CURVES, decrypt, ec_jwk, ECDH, encrypt, field,
    kdf_other_info, kmac256, MLKEM, mlkem_kwk, OAEP, parse_json, read_ec, read_rsa, RSA15, rsa_jwk, unb64, unb64url,
)  # fmt: skip

VERSION = "0.4.0"
COOKIE = "kbs-session-id"
ERROR_BASE = "https://github.com/confidential-containers/kbs/errors/"
NOT_FOUND = ("InvalidRequestPath", "PluginNotFound")
VARIANTS = (
    "AdminAuthAccess", "AttestationError", "InvalidRequestPath", "JweError", "PluginNotFound", "PluginInternalError",
    "PolicyDeny", "ParsePolicyError", "PolicyEngineError", "RvpsError", "SerdeError", "TokenNotFound", "TokenVerifierError",
    "PrometheusError",
)  # fmt: skip
TEES = (
    "az-snp-vtpm", "az-tdx-vtpm", "nvidia", "sgx", "snp", "tdx", "cca", "csv", "se", "hygondcu", "nvidia-dpu", "tpm",
    "sample", "sampledevice",
)  # fmt: skip
TEE_ALIASES = {"nvidiadpu": "nvidia-dpu"}
DEVICE_CLASS = {"nvidia": "gpu", "sampledevice": "gpu", "hygondcu": "gpu", "nvidia-dpu": "nvidia-dpu"}
HASHES = ("sha256", "sha384", "sha512", "sm3")
RESOURCE_PART = re.compile(r"[A-Za-z0-9_-]+[A-Za-z0-9_.-]*")
KEY_CLAIMS = (
    ("tdx", "attester_runtime_data", "tee-pubkey"),
    ("tdx", "attester_user_data", "tee-pubkey"),
    ("customized_claims", "runtime_data", "tee-pubkey"),
    ("submods", "cpu0", "ear.veraison.annotated-evidence", "runtime_data_claims", "tee-pubkey"),
    ("tee-pubkey",),
)
TOKEN_LEEWAY_S = 60


class KbsError(Exception):
    """One error body of the protocol: the variant, and the line the peer sees. `why` stays in the server's log."""

    def __init__(self, variant: str, detail: str, why: str = "") -> None:
        super().__init__(f"{variant}: {why or detail}")
        self.variant = variant
        self.detail = detail
        self.why = why or detail

    @property
    def status(self) -> int:
        return 404 if self.variant in NOT_FOUND else 401

    def body(self) -> bytes:
        return compact({"type": ERROR_BASE + self.variant, "detail": self.detail})


# ---- requests --------------------------------------------------------------------------------------------------------


def tee_name(name: object) -> str:
    if not isinstance(name, str):
        raise Bad("tee is not a string")
    found = TEE_ALIASES.get(name, name)
    if found not in TEES:
        raise Bad(f"unknown variant {name}")
    return found


def read_request(body: bytes, version: str = VERSION) -> tuple[str, object]:
    """The body of `auth`: name of the TEE and extra parameters. Version 0.4.0 exactly."""
    try:
        value = parse_json(body)
        found = field(value, "version", str)
        tee = tee_name(field(value, "tee", str))
        extra = field(value, "extra-params", object)
    except Bad as err:
        raise KbsError("AttestationError", "Attestation error: RCAR handshake Auth failed: deserialize Request", str(err)) from err
    if found != version:
        why = f"KBS Client Protocol Version Mismatch: expect ={version} while the request is {found}"
        raise KbsError("AttestationError", f"Attestation error: RCAR handshake Auth failed: {why}")
    return tee, extra


def challenge_extra(tee: str, extra: object) -> object:
    """Empty for everybody but `se`, whose clients must list sha512."""
    if tee != "se":
        return ""
    listed = extra.get("supported-hash-algorithms") if isinstance(extra, dict) else None
    if not isinstance(listed, list) or not any(isinstance(name, str) and name.lower() == "sha512" for name in listed):
        raise KbsError("AttestationError", "Attestation error: RCAR handshake Auth failed: se needs sha512")
    return {"selected-hash-algorithm": "sha512"}


def selected_hash(extra: object) -> str:
    """The client's rule: what the challenge selects, in any case; else sha384."""
    if not isinstance(extra, dict) or "selected-hash-algorithm" not in extra:
        return "sha384"
    name = field(extra, "selected-hash-algorithm", str)
    if str(name).lower() not in HASHES:
        raise Bad(f"unknown hash algorithm {name}")
    return str(name).lower()


def server_hash(tee: str) -> str:
    return "sha512" if tee == "se" else "sha384"


def typed_key(value: object) -> dict[str, str]:
    """The members the broker knows of a TEE public key; all others are dropped before hashing."""
    names = {"EC": ("crv", "alg", "x", "y"), "RSA": ("alg", "n", "e"), "AKP": ("alg", "pub")}.get(str(field(value, "kty", str)))
    if names is None:
        raise Bad("unknown kty")
    return {name: str(field(value, name, str)) for name in ("kty", *names)}


def device_data(nonce: str, key: dict[str, str]) -> dict[str, object]:
    return {"nonce": nonce, "tee-pubkey": key}


def primary_data(nonce: str, key: dict[str, str], additional: str) -> dict[str, object]:
    return {"additional-evidence": additional, "nonce": nonce, "tee-pubkey": key}


def digest(data: dict[str, object], algorithm: str) -> bytes:
    return hashlib.new(algorithm, canonical(data).encode()).digest()


@dataclass
class InitData:
    """Init data as sent: its digest is over the exact text."""

    text: str
    algorithm: str
    data: dict[str, str]

    @property
    def digest(self) -> bytes:
        return hashlib.new(self.algorithm, self.text.encode()).digest()


def read_init_data(value: object) -> InitData | None:
    if value is None:
        return None
    if field(value, "format", str) != "toml":
        raise Bad("init-data format is not toml")
    text = str(field(value, "body", str))
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise Bad(f"init-data: {err}") from err
    algorithm = str(field(table, "algorithm", str))
    field(table, "version", str)
    data = field(table, "data", dict)
    if algorithm not in HASHES:
        raise Bad(f"init-data: unknown algorithm {algorithm}")
    if not all(isinstance(item, str) for item in data.values()):  # type: ignore[attr-defined]
        raise Bad("init-data: data is not a map of strings")
    return InitData(text, algorithm, data)  # type: ignore[arg-type]


def init_data_claims(init: InitData) -> dict[str, object]:
    claims: dict[str, object] = {}
    for name, text in init.data.items():
        if name in ("aa.toml", "cdh.toml"):
            try:
                claims[name] = tomllib.loads(text)
                continue
            except tomllib.TOMLDecodeError:
                pass
        elif name == "policy.rego" and "policy_data := {" in text:
            try:
                claims["agent_policy_claims"] = parse_json(text.split("policy_data := ", 1)[1])
                continue
            except Bad:
                pass
        claims[name] = text
    return claims


@dataclass
class Attestation:
    """The body of `attest` after its typed parse."""

    nonce: str
    key: dict[str, str]
    primary: object
    additional: str
    devices: dict[str, object]
    init: InitData | None


def read_attestation(body: bytes) -> Attestation:
    value = parse_json(body)
    runtime = field(value, "runtime-data", dict)
    evidence = field(value, "tee-evidence", dict)
    additional = str(field(evidence, "additional_evidence", str))
    devices: dict[str, object] = {}
    if additional:
        found = parse_json(additional)
        if not isinstance(found, dict):
            raise Bad("additional_evidence is not a map")
        for name, item in found.items():
            if tee_name(name) in devices:
                raise Bad("a device class twice")
            devices[tee_name(name)] = item
    return Attestation(
        nonce=str(field(runtime, "nonce", str)),
        key=typed_key(field(runtime, "tee-pubkey", dict)),
        primary=field(evidence, "primary_evidence", object),
        additional=additional,
        devices=devices,
        init=read_init_data(value.get("init-data")),  # type: ignore[attr-defined]
    )


# ---- tokens ----------------------------------------------------------------------------------------------------------


@dataclass
class Signer:
    key: ec.EllipticCurvePrivateKey
    chain: list[x509.Certificate]

    def jwk(self) -> dict[str, object]:
        jwk: dict[str, object] = dict(ec_jwk(self.key.public_key(), "ES256"))
        if self.chain:
            jwk["x5c"] = [b64(certificate.public_bytes(Encoding.DER)) for certificate in self.chain]
        return jwk

    def sign(self, claims: dict[str, object]) -> str:
        head = {"typ": "JWT", "alg": "ES256", "jwk": self.jwk()}
        text = b64url(compact(head)) + "." + b64url(compact(claims))
        r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return text + "." + b64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


@dataclass
class TokenTrust:
    """Which signers of tokens count: own keys, chains to `roots`, or any key the token itself brings."""

    keys: list[ec.EllipticCurvePublicKey]
    roots: list[x509.Certificate]
    insecure_header_jwk: bool = False

    def trusts(self, jwk: dict[str, object], key: ec.EllipticCurvePublicKey) -> bool:
        if self.insecure_header_jwk or any(key.public_numbers() == own.public_numbers() for own in self.keys):
            return True
        if "x5c" not in jwk:
            return False
        chain = [x509.load_der_x509_certificate(unb64(item)) for item in field(jwk, "x5c", list)]  # type: ignore[attr-defined]
        leaf = chain[0].public_key() if chain else None
        if not isinstance(leaf, ec.EllipticCurvePublicKey) or leaf.public_numbers() != key.public_numbers():
            return False
        for root in self.roots:
            for at, certificate in enumerate(chain):
                if certificate == root or _issued(certificate, root):
                    return all(_issued(chain[i], chain[i + 1]) for i in range(at))
        return False


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def read_token(token: str, trust: TokenTrust, now: float | None = None) -> dict[str, object]:
    """The claims of an authentic, unexpired token; else TokenVerifierError."""
    try:
        parts = token.split(".")
        if len(parts) != 3:
            raise Bad("not three parts")
        head = parse_json(unb64url(parts[0]))
        jwk = field(head, "jwk", dict)
        if field(head, "alg", str) != "ES256" or field(jwk, "alg", str) != "ES256":
            raise Bad("not ES256")
        key = read_ec(jwk, "P-256")
        if not trust.trusts(jwk, key):  # type: ignore[arg-type]
            raise Bad("untrusted signer")
        raw = unb64url(parts[2])
        if len(raw) != 64:
            raise Bad("signature of another length")
        signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        key.verify(signature, f"{parts[0]}.{parts[1]}".encode(), ec.ECDSA(hashes.SHA256()))
        claims = parse_json(unb64url(parts[1]))
        if int(field(claims, "exp", int)) + TOKEN_LEEWAY_S < (time.time() if now is None else now):  # type: ignore[call-overload]
            raise Bad("expired")
    except (Bad, InvalidSignature, ValueError) as err:
        raise KbsError("TokenVerifierError", "Token verifier error", f"{type(err).__name__}: {err}") from err
    return claims  # type: ignore[return-value]


def key_of_claims(claims: dict[str, object]) -> dict[str, str]:
    for path in KEY_CLAIMS:
        at: object = claims
        for name in path:
            at = at.get(name) if isinstance(at, dict) else None
        if at is not None:
            try:
                return typed_key(at)
            except Bad as err:
                raise KbsError("TokenVerifierError", "Token verifier error", f"tee-pubkey: {err}") from err
    raise KbsError("TokenVerifierError", "Token verifier error", "no tee-pubkey in the claims")


def trust_status(vector: dict[str, int]) -> str:
    """The worst tier of a trustworthiness vector."""
    tiers = [0 if v == 0 else 1 if 2 <= v <= 31 else 2 if 32 <= v <= 95 else 3 for v in vector.values()]
    return ("none", "affirming", "warning", "contraindicated")[max(tiers)]


VECTOR = (
    "instance-identity", "configuration", "executables", "file-system", "hardware", "runtime-opaque", "storage-opaque",
    "sourced-data",
)  # fmt: skip


def appraisal(evidence: dict[str, object], vector: dict[str, int]) -> dict[str, object]:
    full = {name: vector.get(name, 0) for name in VECTOR}
    return {
        "ear.status": trust_status(full),
        "ear.trustworthiness-vector": full,
        "ear.appraisal-policy-id": "default",
        "ear.veraison.annotated-evidence": evidence,
    }


def ear_claims(submods: dict[str, object], now: int, lifetime_s: int) -> dict[str, object]:
    return {
        "eat_profile": "tag:github.com,2024:confidential-containers/Trustee",
        "iat": now,
        "exp": now + lifetime_s,
        "iss": "CoCo-Attestation-Service",
        "ear.verifier-id": {"build": "second reading", "developer": "tests/compat"},
        "submods": submods,
    }


# ---- policy and resources --------------------------------------------------------------------------------------------


def allowed(policy: str, claims: dict[str, object], plugin: str) -> bool:
    """`default` is upstream's default resource policy: plugin `resource`, no sample evidence; the status is not read."""
    if policy != "default":
        return policy == "allow-all"
    at: object = claims
    for name in ("submods", "cpu0", "ear.veraison.annotated-evidence"):
        at = at.get(name) if isinstance(at, dict) else None
    return plugin == "resource" and not (isinstance(at, dict) and "sample" in at)


def recognise_policy(rego: str) -> str:
    """There is no Rego engine here: two policies can be told from their text, everything else is an error."""
    lines = [line.split("#")[0].strip() for line in rego.splitlines()]
    lines = [line for line in lines if line and not line.startswith("import ")]
    if not lines or lines[0] != "package policy":
        raise KbsError("ParsePolicyError", "Policy parse error", "package is not policy")
    for meaning, name in (("true", "allow-all"), ("false", "deny")):
        if [line.replace(":=", "=") for line in lines[1:]] == [f"default allow = {meaning}"]:
            return name
    raise KbsError("ParsePolicyError", "Policy parse error", "only a constant `default allow` is understood")


def resource_path(rest: str) -> tuple[str, str, str]:
    parts = rest.split("/")
    if len(parts) != 3 or not all(RESOURCE_PART.fullmatch(part) for part in parts):
        raise KbsError("PluginInternalError", "Plugin internal error", f"resource path {rest!r}")
    return parts[0], parts[1], parts[2]


def resource_url(base: str, uri: str) -> str:
    """Where a `kbs://` or `kbs+plugin://` URI is fetched. Its host never picks the server."""
    found = re.fullmatch(r"kbs(?:\+([a-z0-9-]+))?://[^/?#\s]*/([^?#\s]+)(\?[^#\s]*)?", uri)
    if not found or {".", ".."} & set(found[2].split("/")):
        raise Bad(f"not a resource URI: {uri}")
    return f"{base.rstrip('/')}/kbs/v0/{found[1] or 'resource'}/{found[2]}{found[3] or ''}"
