"""A small guest for the key broker: proves the server of this folder, and reads one resource from any broker.

    kbs_client_check.py --url http://127.0.0.1:8080 --resource kbs:///repo/type/tag [--expect FILE] [--key P-521] [--passport]

It sends sample evidence (or unsigned TDX and SNP evidence with `--tee`), so a real broker needs an allow-all policy. It
follows no redirect, reads at most 8 MiB, and is strict about every member of an answer. Exit status 0: the resource was read.
"""

from __future__ import annotations

import argparse
import http.client
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec, mlkem, rsa

import kbs_evidence
import kbs_protocol as kbs
from kbs_protocol import Bad

MAX_BYTES = 8 << 20
ATTEMPTS = 3
Evidence = Callable[[bytes, kbs.InitData | None], dict[str, object]]


class Failed(Exception):
    """The broker said no, or said something that is not the protocol. `variant` is the suffix of its error type."""

    def __init__(self, status: int, variant: str, detail: str) -> None:
        super().__init__(f"{status} {variant}: {detail}")
        self.status = status
        self.variant = variant
        self.detail = detail


# ---- keys and evidence -----------------------------------------------------------------------------------------------


def new_key(name: str) -> tuple[object, dict[str, str]]:
    if name == "RSA":
        private = rsa.generate_private_key(65537, 2048)
        return private, kbs.rsa_jwk(private.public_key())
    if name == "ML-KEM":
        secret = mlkem.MLKEM768PrivateKey.generate()
        return secret, kbs.akp_jwk(secret.public_key())
    key = ec.generate_private_key(kbs.CURVES[name][0]())
    return key, kbs.ec_jwk(key.public_key())


def sample_evidence(report_data: bytes, _: kbs.InitData | None) -> dict[str, object]:
    return {"svn": "1", "report_data": kbs.b64(report_data)}


def device_evidence(report_data: bytes, _: kbs.InitData | None) -> dict[str, object]:
    return {"svn": "2", "report_data": kbs.b64(report_data)}


def fake_quote(version: int, values: dict[str, bytes]) -> bytes:
    """A TD quote without a signature."""
    layout = kbs_evidence.TD_REPORT if version == 4 else kbs_evidence.TD_REPORT_15
    body = b"".join(values.get(name, b"").ljust(size, b"\0") for name, size in layout)
    header = version.to_bytes(2, "little") + b"\2\0" + b"\x81\0\0\0" + bytes(40)
    size = b"" if version == 4 else b"\3\0" + len(body).to_bytes(4, "little")
    return header + size + body + bytes(4)


def tdx_evidence(version: int, log: bytes | None = None, registers: dict[str, bytes] | None = None) -> Evidence:
    def make(report_data: bytes, init: kbs.InitData | None) -> dict[str, object]:
        values = {"report_data": report_data, "mr_config_id": init.digest[:48] if init else b"", **(registers or {})}
        return {"cc_eventlog": None if log is None else kbs.b64(log), "quote": kbs.b64(fake_quote(version, values))}

    return make


def snp_evidence(template: bytes) -> Evidence:
    def make(report_data: bytes, init: kbs.InitData | None) -> dict[str, object]:
        raw = bytearray(template)
        raw[0x50:0x90] = kbs_evidence.fitted(report_data, 64)
        raw[0xC0:0xE0] = kbs_evidence.fitted(init.digest if init else b"", 32)
        return {"attestation_report": kbs_evidence.snp_json(bytes(raw)), "cert_chain": None}

    return make


# ---- client ----------------------------------------------------------------------------------------------------------


class Client:
    def __init__(
        self,
        url: str,
        key: tuple[object, dict[str, str]],
        tee: str = "sample",
        evidence: Evidence = sample_evidence,
        devices: dict[str, Evidence] | None = None,
        init: kbs.InitData | None = None,
        passport: bool = False,
        trust: ssl.SSLContext | None = None,
        timeout_s: float = 60,
    ) -> None:
        self.url, self.secret, self.jwk, self.tee, self.evidence = url.rstrip("/"), key[0], key[1], tee, evidence
        self.devices, self.init, self.passport, self.trust, self.timeout_s = devices or {}, init, passport, trust, timeout_s
        self.cookie: str | None = None
        self.token: str | None = None
        self.handshakes = 0
        self.last: tuple[int, http.client.HTTPMessage] | None = None

    def call(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        split = urlsplit(self.url)
        if split.scheme == "https":
            link: http.client.HTTPConnection = http.client.HTTPSConnection(split.netloc, timeout=self.timeout_s, context=self.trust)
        else:
            link = http.client.HTTPConnection(split.netloc, timeout=self.timeout_s)
        try:
            send = {"User-Agent": "innerkeep-compat", "Connection": "close", **(headers or {})}
            if body is not None:
                send.setdefault("Content-Type", "application/json")
            link.request(method, split.path + path, body, send)
            answer = link.getresponse()
            end, data = time.monotonic() + self.timeout_s, bytearray()
            while part := answer.read1(1 << 16):
                data += part
                if len(data) > MAX_BYTES or time.monotonic() > end:
                    raise Failed(answer.status, "", "the answer is too large or too slow")
            if answer.length:
                raise Failed(answer.status, "", "the answer was cut short")
            for cookie in answer.headers.get_all("Set-Cookie", []):
                name, _, value = cookie.split(";")[0].partition("=")
                self.cookie = f"{name}={value}" if name == kbs.COOKIE else self.cookie
            self.last = answer.status, answer.headers
            return answer.status, bytes(data)
        except (OSError, http.client.HTTPException) as err:
            raise Failed(0, "", f"{type(err).__name__}: {err}") from err
        finally:
            link.close()

    def checked(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> object:
        status, data = self.call(method, path, body, headers)
        try:
            value = kbs.parse_json(data)
            if status == 200:
                return value
            kind = str(kbs.field(value, "type", str))
            detail = str(kbs.field(value, "detail", str))
        except Bad as err:
            raise Failed(status, "", str(err)) from err
        if not kind.startswith(kbs.ERROR_BASE):
            raise Failed(status, "", f"error of type {kind}")
        raise Failed(status, kind.removeprefix(kbs.ERROR_BASE), detail)

    def attestation(self, nonce: str, algorithm: str) -> dict[str, object]:
        bound = kbs.digest(kbs.device_data(nonce, self.jwk), algorithm)
        devices = {name: make(bound, self.init) for name, make in self.devices.items()}
        additional = kbs.compact(devices).decode() if devices else ""
        primary = kbs.digest(kbs.primary_data(nonce, self.jwk, additional), algorithm)
        return {
            "init-data": {"format": "toml", "body": self.init.text} if self.init else None,
            "runtime-data": {"nonce": nonce, "tee-pubkey": self.jwk},
            "tee-evidence": {"primary_evidence": self.evidence(primary, self.init), "additional_evidence": additional},
        }

    def challenge(self) -> tuple[str, str]:
        """Nonce and hash algorithm of a new session."""
        extra = {"supported-hash-algorithms": list(kbs.HASHES)}
        self.cookie = None
        answer = self.checked("POST", "/kbs/v0/auth", kbs.compact({"version": kbs.VERSION, "tee": self.tee, "extra-params": extra}))
        try:
            kbs.field(answer, "extra-params", object)
            return str(kbs.field(answer, "nonce", str)), kbs.selected_hash(answer["extra-params"])  # type: ignore[index]
        except Bad as err:
            raise Failed(200, "", str(err)) from err

    def session(self) -> dict[str, str]:
        return {"Cookie": self.cookie} if self.cookie else {}

    def handshake(self) -> dict[str, object]:
        """Attests; returns the claims of the token, unverified as a guest does."""
        self.handshakes += 1
        nonce, algorithm = self.challenge()
        answer = self.checked("POST", "/kbs/v0/attest", kbs.compact(self.attestation(nonce, algorithm)), self.session())
        try:
            token = str(kbs.field(answer, "token", str))
            parts = token.split(".")
            if len(parts) != 3:
                raise Bad("token is not a JWT")
            claims = kbs.parse_json(kbs.unb64url(parts[1]))
            if int(kbs.field(claims, "exp", int)) < time.time():  # type: ignore[call-overload]
                raise Bad("token has expired")
        except Bad as err:
            raise Failed(200, "", str(err)) from err
        self.token = token
        return claims  # type: ignore[return-value]

    def get(self, uri: str) -> bytes:
        """Up to three attempts; a new handshake only where the broker knows no session or token."""
        path = kbs.resource_url("", uri)
        for attempt in range(ATTEMPTS):
            if self.token is None:
                self.handshake()
            headers = {"Authorization": f"Bearer {self.token}"} if self.passport else self.session()
            try:
                answer = self.checked("GET", path, None, headers)
            except Failed as err:
                if err.variant not in ("TokenNotFound", "TokenVerifierError") or attempt + 1 == ATTEMPTS:
                    raise
                self.token = None
                continue
            try:
                return kbs.decrypt(answer, self.secret)
            except Bad as err:
                raise Failed(200, "", f"answer: {err}") from err
        raise AssertionError("unreachable")


def main() -> int:
    parser = argparse.ArgumentParser(description="reads one resource from a key broker")
    parser.add_argument("--url", required=True)
    parser.add_argument("--resource", default="kbs:///a/b/c")
    parser.add_argument("--expect", type=Path, help="file with the bytes the resource must have")
    parser.add_argument("--key", choices=("P-256", "P-521", "RSA", "ML-KEM"), default="P-256")
    parser.add_argument("--tee", choices=("sample", "tdx"), default="sample")
    parser.add_argument("--device", action="store_true", help="evidence of a sample device too")
    parser.add_argument("--init-data", type=Path)
    parser.add_argument("--passport", action="store_true", help="bearer token instead of the cookie")
    parser.add_argument("--ca", type=Path)
    args = parser.parse_args()
    init = kbs.read_init_data({"format": "toml", "body": args.init_data.read_bytes().decode()}) if args.init_data else None
    client = Client(
        args.url,
        new_key(args.key),
        args.tee,
        sample_evidence if args.tee == "sample" else tdx_evidence(4),
        {"sampledevice": device_evidence} if args.device else None,
        init,
        args.passport,
        ssl.create_default_context(cafile=args.ca) if args.ca else None,
    )
    try:
        found = client.get(args.resource)
    except (Failed, Bad) as err:
        print(f"FAIL {err}")
        return 1
    if args.expect and args.expect.read_bytes() != found:
        print("FAIL the resource has other bytes")
        return 1
    print(f"{args.resource}: {len(found)} bytes after {client.handshakes} handshake(s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
