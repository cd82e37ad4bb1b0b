"""A key broker that speaks the Trustee protocol (RCAR 0.4.0) and can be told to misbehave.

    kbs_server.py --listen 127.0.0.1:8080 --resources DIR            DIR/<repository>/<type>/<tag> are the secrets
    kbs_server.py --port-file F --resources DIR --allow-sample --policy allow-all --fault 5xx@resource/2
    kbs_server.py --faults                                           lists the faults

For tests, not for real secrets. **Signatures of TDX and SNP evidence are not verified** unless `--verify-command` names a
program that does (kbs_evidence.py). Plain http is refused unless on loopback. `--policy default` is Trustee's: sample
evidence gets nothing, the appraisal status is not consulted.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import shlex
import socket
import ssl
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

import kbs_evidence
import kbs_faults
import kbs_protocol as kbs
from kbs_protocol import Bad, KbsError

PREFIX = "/kbs/v0/"
FAR_TOO_MUCH = 64 << 20


@dataclass
class Options:
    resources: Path
    policy: str = "default"
    allow_sample: bool = False
    insecure_admin: bool = False
    session_s: float = 300
    token_s: int = 300
    payload_bytes: int = 2 << 20
    verbose_token: bool = True
    faults: list[str] = field(default_factory=list)
    hook: kbs_evidence.Hook | None = None
    signer: kbs.Signer = field(default_factory=lambda: kbs.Signer(ec.generate_private_key(ec.SECP256R1()), []))
    trusted_roots: list[x509.Certificate] = field(default_factory=list)
    insecure_header_jwk: bool = False
    log: Path | None = None


@dataclass
class Session:
    id: str
    tee: str
    nonce: str
    expires: float
    token: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def cookie(self) -> str:
        return f"{kbs.COOKIE}={self.id}; Expires={formatdate(self.expires, usegmt=True)}"


@dataclass
class Answer:
    status: int
    body: bytes
    kind: str | None = None
    cookie: str | None = None


def json_answer(value: object, cookie: str | None = None) -> Answer:
    return Answer(200, kbs.compact(value), "application/json", cookie)


@dataclass
class Asked:
    """One request, as the broker sees it."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    session_id: str | None
    bearer: str | None
    faults: dict[str, str | None]


def endpoint_of(path: str) -> str:
    first = path.removeprefix(PREFIX).split("/")[0] if path.startswith(PREFIX) else ""
    return first if first in kbs_faults.ENDPOINTS else ""


def _denied_attest(why: str) -> KbsError:
    return KbsError("AttestationError", "Attestation error: RCAR handshake Attest failed", why)


class Broker:
    """State and rules; no sockets."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.policy = options.policy
        self.plan = kbs_faults.Plan(options.faults)
        self.sessions: dict[str, Session] = {}
        self.stored: dict[tuple[str, str, str], bytes | None] = {}
        self.lock = threading.Lock()
        self.trust = kbs.TokenTrust([options.signer.key.public_key()], options.trusted_roots, options.insecure_header_jwk)

    def handle(self, asked: Asked) -> Answer:
        if asked.path == "/healthz":
            return Answer(200, b"")
        if asked.path == "/metrics":
            return Answer(200, f"# TYPE kbs_sessions gauge\nkbs_sessions {len(self.sessions)}\n".encode(), "text/plain; version=0.0.4")
        if not asked.path.startswith(PREFIX):
            return Answer(404, b"")
        first, _, rest = asked.path[len(PREFIX) :].partition("/")
        if not first:
            raise KbsError("InvalidRequestPath", f"Invalid request path: {asked.path}")
        known = {
            ("POST", "auth", False): self.auth,
            ("POST", "attest", False): self.attest,
            ("POST", "resource-policy", False): self.set_policy,
            ("GET", "resource-policy", False): self.list_policies,
            ("POST", "attestation-policy", False): self.no_admin_backend,
            ("POST", "reference-value", False): self.no_admin_backend,
            ("GET", "reference-value", True): self.no_admin_backend,
        }.get((asked.method, first, bool(rest)))
        if known:
            return known(asked)
        if first != "resource":
            raise KbsError("PluginNotFound", f"Plugin not found: {first}")
        return self.resource(asked, rest)

    # -- handshake

    def session(self, session_id: str | None) -> Session | None:
        with self.lock:
            now = time.time()
            for old in [s.id for s in self.sessions.values() if s.expires <= now]:
                del self.sessions[old]
            return self.sessions.get(session_id or "")

    def auth(self, asked: Asked) -> Answer:
        version = (asked.faults["version"] or "0.5.0") if "version" in asked.faults else kbs.VERSION
        tee, extra = kbs.read_request(asked.body, version)
        extra_answer = kbs.challenge_extra(tee, extra)
        nonce = kbs.b64(os.urandom(32))
        if tee == "se":
            names = ("request_blob", "encr_measurement_key", "encr_request_nonce", "image_hdr_tags")
            nonce = kbs.compact({name: nonce for name in names} | {"measurement_size": 64, "additional_size": 32}).decode()
        if "nonce-opaque" in asked.faults:
            nonce = 'no base64, "quoted" \\ \u20ac ' + uuid.uuid4().hex
        new = Session(uuid.uuid4().hex, tee, nonce, time.time() + self.options.session_s)
        with self.lock:
            self.sessions[new.id] = new
        challenge: dict[str, object] = {"nonce": nonce, "extra-params": extra_answer}
        if "wrong-nonce" in asked.faults:
            challenge["nonce"] = kbs.b64(os.urandom(32))
        if "nonce-not-text" in asked.faults:
            challenge["nonce"] = 7
        if "nonce-missing" in asked.faults:
            del challenge["nonce"]
        if "hash" in asked.faults:
            challenge["extra-params"] = {"selected-hash-algorithm": asked.faults["hash"] or "SHA512"}
        if "hash-not-text" in asked.faults:
            challenge["extra-params"] = {"selected-hash-algorithm": 512}
        return json_answer(challenge, None if "cookie-lost" in asked.faults else new.cookie())

    def attest(self, asked: Asked) -> Answer:
        session = self.session(asked.session_id)
        if session is None:
            raise _denied_attest("no cookie, or of no session")
        with session.lock:
            if session.token is None:
                try:
                    session.token = self.evaluate(session, asked)
                except Exception as err:  # whatever fails here: no token
                    raise _denied_attest(f"{type(err).__name__}: {err}") from err
        if "cookie-forgotten" in asked.faults:
            with self.lock:
                self.sessions.pop(session.id, None)
        answer: dict[str, object] = {"token": session.token}
        if "token-malformed" in asked.faults:
            answer["token"] = asked.faults["token-malformed"] or "not a JWT"
        if "token-missing" in asked.faults:
            del answer["token"]
        return json_answer(answer, None if "cookie-lost" in asked.faults else session.cookie())

    def evaluate(self, session: Session, asked: Asked) -> str:
        sent = kbs.read_attestation(asked.body)
        if sent.nonce != session.nonce:
            raise Bad("nonce differs from that of the session")
        algorithm = kbs.server_hash(session.tee)
        counts: dict[str, int] = {}
        submods: dict[str, object] = {}
        for tee, evidence, data in (
            (session.tee, sent.primary, kbs.primary_data(session.nonce, sent.key, sent.additional)),
            *((tee, item, kbs.device_data(session.nonce, sent.key)) for tee, item in sent.devices.items()),
        ):
            job = kbs_evidence.Job(tee, evidence, kbs.digest(data, algorithm), sent.init)
            result = kbs_evidence.verify(job, self.options.allow_sample, self.options.hook)
            annotated: dict[str, object] = {tee: result.claims}
            if result.init_data is not None:
                annotated["init_data"] = result.init_data
                if sent.init:
                    annotated["init_data_claims"] = kbs.init_data_claims(sent.init)
            if result.report_data is not None:
                kept = {name: item for name, item in data.items() if self.options.verbose_token or name != "additional-evidence"}
                annotated |= {"report_data": result.report_data, "runtime_data_claims": kept}
            kind = kbs.DEVICE_CLASS.get(tee, "cpu")
            submods[f"{kind}{counts.get(kind, 0)}"] = kbs.appraisal(annotated, result.vector)
            counts[kind] = counts.get(kind, 0) + 1
        issued = int(time.time()) - (3600 + self.options.token_s if "expired-token" in asked.faults else 0)
        claims = kbs.ear_claims(submods, issued, self.options.token_s)
        if "token-no-exp" in asked.faults:
            del claims["exp"]
        return self.options.signer.sign(claims)

    # -- resources

    def resource(self, asked: Asked, rest: str) -> Answer:
        if asked.method != "GET":
            self.admin()
            place = kbs.resource_path(rest)
            if asked.method not in ("POST", "DELETE"):
                raise KbsError("PluginInternalError", "Plugin internal error", f"{asked.method} of a resource")
            with self.lock:
                self.stored[place] = asked.body if asked.method == "POST" else None
            return Answer(200, b"", "text/xml")
        session = self.session(asked.session_id)
        token = session.token if session else None
        token = token or asked.bearer
        if token is None:
            raise KbsError("TokenNotFound", "Attestation Token not found")
        claims = kbs.read_token(token, self.trust)
        if not kbs.allowed(self.policy, claims, "resource"):
            raise KbsError("PolicyDeny", "Access denied by policy")
        secret = self.read(kbs.resource_path(rest))
        key = kbs.key_of_claims(claims)
        try:
            return json_answer(kbs_faults.spoil(asked.faults, key, secret))
        except Bad as err:
            raise KbsError("JweError", "JWE error", str(err)) from err

    def read(self, place: tuple[str, str, str]) -> bytes:
        with self.lock:
            found = self.stored.get(place)
            deleted = place in self.stored and found is None
        path = self.options.resources.joinpath(*place)
        if found is None and (deleted or not path.is_file()):
            raise KbsError("PluginInternalError", "Plugin internal error", f"no resource {'/'.join(place)}")
        return path.read_bytes() if found is None else found

    # -- administration

    def admin(self) -> None:
        if not self.options.insecure_admin:
            raise KbsError("AdminAuthAccess", "Admin auth error", "started without --insecure-admin")

    def set_policy(self, asked: Asked) -> Answer:
        self.admin()
        try:
            text = kbs.unb64url(kbs.field(kbs.parse_json(asked.body), "policy", str)).decode()
        except (Bad, UnicodeDecodeError) as err:
            raise KbsError("SerdeError", "Serde error", str(err)) from err
        self.policy = kbs.recognise_policy(text)
        return Answer(200, b"")

    def list_policies(self, asked: Asked) -> Answer:
        self.admin()
        return json_answer(["resource-policy"])

    def no_admin_backend(self, asked: Asked) -> Answer:
        self.admin()
        variant = "RvpsError" if "reference-value" in asked.path else "AttestationError"
        raise KbsError(variant, "Not implemented by this server")


class Refusal(Exception):
    """A request that HTTP itself refuses; the connection closes."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(status, text.encode(), "text/plain; charset=utf-8")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "kbs", ""
    disable_nagle_algorithm = True
    timeout = 60
    broker: Broker  # set by `serve`

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(self.timeout)
            self.request.do_handshake()
        super().setup()

    def log_message(self, *_: object) -> None:
        pass

    def read_body(self) -> bytes:
        limit = self.broker.options.payload_bytes
        if self.headers.get("Transfer-Encoding") is not None:
            if self.headers["Transfer-Encoding"].strip().lower() != "chunked" or self.headers.get("Content-Length") is not None:
                raise Refusal(400, "transfer encoding")
            body = self.read_chunks()
        else:
            text = self.headers.get("Content-Length", "0").strip()
            if not (text.isascii() and text.isdigit()):
                raise Refusal(400, "content length")
            if int(text) > limit:
                self.drain(min(int(text), FAR_TOO_MUCH))
                raise Refusal(413, "payload reached size limit")
            body = self.rfile.read(int(text))
            if len(body) != int(text):
                raise ConnectionError("body cut short")
        if len(body) > limit:
            raise Refusal(413, "payload reached size limit")
        return body

    def read_chunks(self) -> bytes:
        """All chunks; beyond the limit they are read but not kept."""
        body, total = bytearray(), 0
        while True:
            line = self.rfile.readline(1024)
            try:
                size = int(line.split(b";")[0].strip(), 16)
            except ValueError as err:
                raise Refusal(400, "chunk size") from err
            if size == 0:
                while self.rfile.readline(8192).strip():
                    pass
                return bytes(body)
            total += size
            if size < 0 or total > FAR_TOO_MUCH:
                raise Refusal(413, "payload reached size limit")
            data = self.rfile.read(size)
            if total <= self.broker.options.payload_bytes + size:
                body += data
            self.rfile.readline(8)

    def drain(self, left: int) -> None:
        while left > 0:
            got = self.rfile.read(min(left, 1 << 16))
            if not got:
                return
            left -= len(got)

    def session_id(self) -> str | None:
        for header in self.headers.get_all("Cookie", []):
            for pair in header.split(";"):
                name, _, value = pair.strip().partition("=")
                if name == kbs.COOKIE:
                    return value
        return None

    def bearer(self) -> str | None:
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        return value.strip() if scheme == "Bearer" and value.strip() else None

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        endpoint, note = endpoint_of(path), ""
        active: dict[str, str | None] = {}
        try:
            body = self.read_body()
            active = self.broker.plan.take(endpoint)
            answer = self.before(active)
            if answer is None:
                asked = Asked(
                    self.command, path, dict(parse_qsl(query, keep_blank_values=True)), body, self.session_id(), self.bearer(), active
                )
                answer = self.broker.handle(asked)
        except Refusal as err:
            answer, note = err.answer, str(err)
            self.close_connection = True
        except KbsError as err:
            answer, note = Answer(err.status, err.body()), str(err)
        if answer.status:
            self.record(path, answer.status, note, active)
            self.send(answer, active)
        else:
            self.record(path, 0, "closed", active)
            self.close_connection = True

    do_POST = do_PUT = do_DELETE = do_GET

    def before(self, active: dict[str, str | None]) -> Answer | None:
        """Faults that need no right answer. Status 0: no answer at all."""
        if "slow" in active:
            time.sleep(float(active["slow"] or 5))
        if "drop" in active:
            return Answer(0, b"")
        if "5xx" in active:
            return Answer(int(active["5xx"] or 503), b"scripted failure", "text/plain")
        if "redirect" in active:
            return Answer(307, b"")
        if "error" in active:
            raise KbsError(active["error"] or "AttestationError", "scripted failure")
        if "401-empty" in active or "empty" in active:
            return Answer(401 if "401-empty" in active else 200, b"")
        if "401-html" in active or "not-json" in active:
            return Answer(401 if "401-html" in active else 200, b"<html>{</html>", "text/html")
        if "413" in active:
            raise Refusal(413, "payload reached size limit")
        return None

    def record(self, path: str, status: int, note: str, active: dict[str, str | None]) -> None:
        if self.broker.options.log is None:
            return
        line = {
            "method": self.command,
            "path": path,
            "status": status,
            "cookie": self.session_id() is not None,
            "bearer": self.bearer() is not None,
            "note": note,
            "faults": sorted(active),
        }
        with self.broker.lock, self.broker.options.log.open("a") as log:
            log.write(json.dumps(line) + "\n")

    def send(self, answer: Answer, active: dict[str, str | None]) -> None:
        body, length = answer.body, len(answer.body)
        endless = "endless" in active
        if "oversized" in active:
            length = max(length, int(float(active["oversized"] or 64) * (1 << 20)))
        elif "huge-length" in active:
            length = 1 << 40
        self.send_response(answer.status)
        if answer.kind:
            self.send_header("Content-Type", answer.kind)
        if answer.cookie:
            self.send_header("Set-Cookie", answer.cookie)
        if answer.status == 307:
            self.send_header("Location", active.get("redirect") or "http://127.0.0.1:9/kbs/v0/auth")
        self.send_header(*(("Transfer-Encoding", "chunked") if endless else ("Content-Length", str(length))))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        spoiled = endless or {"oversized", "huge-length", "trickle", "truncated"} & active.keys()
        self.close_connection = bool(self.close_connection or spoiled)
        if endless:
            for _ in range(int(active["endless"] or 4096) * 16):
                self.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n" if body else b"")
                body = b" " * (1 << 16)
        elif "trickle" in active:
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(float(active["trickle"] or 0.2))
        elif "truncated" in active:
            self.wfile.write(body[: len(body) // 2])
        else:
            self.wfile.write(body)
            if "huge-length" in active:
                time.sleep(float(active["huge-length"] or 5))
                return
            left = length - len(body)
            while left > 0:
                self.wfile.write(b" " * min(left, 1 << 16))
                left -= 1 << 16


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        err = sys.exc_info()[1]
        if not isinstance(err, (OSError, ssl.SSLError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serve(options: Options, host: str = "127.0.0.1", port: int = 0, tls: tuple[Path, Path] | None = None) -> Server:
    """A bound server; call `serve_forever`. Port 0: any free one (`server_address`)."""
    if tls is None and not ipaddress.ip_address(host).is_loopback:
        raise ValueError("plain http is served on loopback only")
    handler = type("BoundHandler", (Handler,), {"broker": Broker(options)})
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = type("BoundServer", (Server,), {"address_family": family})((host, port), handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(tls[0], tls[1])
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Trustee key broker for tests")
    parser.add_argument("--listen", default="127.0.0.1:0", help="ADDRESS:PORT; port 0 is any free one")
    parser.add_argument("--port-file", type=Path, help="the port is written here once the server listens")
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--resources", type=Path, help="DIR/<repository>/<type>/<tag>")
    parser.add_argument("--policy", choices=("allow-all", "default", "deny"), default="default")
    parser.add_argument("--allow-sample", action="store_true", help="accept evidence of sample and sampledevice")
    parser.add_argument("--verify-command", help="program that verifies TDX and SNP evidence (kbs_evidence.py)")
    parser.add_argument("--fault", action="append", default=[], help="NAME[@ENDPOINT][/COUNT][=VALUE]")
    parser.add_argument("--faults", action="store_true", help="list the faults and exit")
    parser.add_argument("--session-seconds", type=float, default=300)
    parser.add_argument("--token-seconds", type=int, default=300)
    parser.add_argument("--payload-mib", type=int, default=2)
    parser.add_argument("--terse-token", action="store_true", help="no device evidence in tokens")
    parser.add_argument("--token-key", type=Path, help="PEM P-256 key that signs tokens (else a new one)")
    parser.add_argument("--token-chain", type=Path, help="PEM certificates for x5c, leaf first")
    parser.add_argument("--trusted-cert", type=Path, action="append", default=[], help="PEM roots of other token issuers")
    parser.add_argument("--insecure-header-jwk", action="store_true", help="accept tokens signed by any key they carry")
    parser.add_argument("--insecure-admin", action="store_true", help="anybody may upload resources and policies")
    parser.add_argument("--log", type=Path, help="one JSON line a request")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input ends")
    return parser


def token_signer(key: Path | None, chain: Path | None) -> kbs.Signer:
    private = load_pem_private_key(key.read_bytes(), None) if key else ec.generate_private_key(ec.SECP256R1())
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise ValueError("the token key is not P-256")
    return kbs.Signer(private, x509.load_pem_x509_certificates(chain.read_bytes()) if chain else [])


def main() -> int:
    parser = arguments()
    args = parser.parse_args()
    if args.faults:
        for name, (where, meaning) in kbs_faults.FAULTS.items():
            print(f"{name:20} {'any' if len(where) == 3 else '/'.join(where):12} {meaning}")
        return 0
    if args.resources is None or not args.resources.is_dir():
        parser.error("--resources names no directory")
    if (args.tls_cert is None) != (args.tls_key is None):
        parser.error("--tls-cert and --tls-key belong together")
    host, _, port = args.listen.rpartition(":")
    try:
        options = Options(
            resources=args.resources,
            policy=args.policy,
            allow_sample=args.allow_sample,
            insecure_admin=args.insecure_admin,
            session_s=args.session_seconds,
            token_s=args.token_seconds,
            payload_bytes=args.payload_mib << 20,
            verbose_token=not args.terse_token,
            faults=args.fault,
            hook=kbs_evidence.command_hook(shlex.split(args.verify_command)) if args.verify_command else None,
            signer=token_signer(args.token_key, args.token_chain),
            trusted_roots=[root for path in args.trusted_cert for root in x509.load_pem_x509_certificates(path.read_bytes())],
            insecure_header_jwk=args.insecure_header_jwk,
            log=args.log,
        )
        server = serve(options, host.strip("[]"), int(port), (args.tls_cert, args.tls_key) if args.tls_cert else None)
    except (ValueError, OSError) as err:
        print(f"kbs_server: {err}", file=sys.stderr)
        return 1
    bound = server.server_address[1]
    if args.port_file:
        partial = args.port_file.with_name(args.port_file.name + ".partial")
        partial.write_text(f"{bound}\n")
        partial.replace(args.port_file)
    if not args.verify_command:
        print("signatures of TDX and SNP evidence are NOT verified (no --verify-command)", file=sys.stderr, flush=True)
    print(f"listening on {'https' if args.tls_cert else 'http'}://{host}:{bound}", flush=True)
    if args.exit_with_stdin:
        threading.Thread(target=lambda: (sys.stdin.buffer.read(), server.shutdown()), daemon=True).start()
    try:
        server.serve_forever(poll_interval=0.05)
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
