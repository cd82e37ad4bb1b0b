"""The key broker of this folder against published answers and against a small guest. Exit status 0: all checks pass."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import ipaddress
import json
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from cryptography.x509.oid import NameOID

import kbs_client_check as guest
import kbs_evidence
import kbs_faults
import kbs_protocol as kbs
import kbs_server
import kbs_vectors as vectors
from kbs_client_check import Client, Failed

SECRET = b"the secret of a test"
WORK = Path()  # set by main
KEY = guest.new_key("P-256")
NAMES = ("P-256", "P-521", "RSA", "ML-KEM")


@contextlib.contextmanager
def broker(policy: str = "allow-all", **more: object) -> Iterator[tuple[str, kbs_server.Broker]]:
    options = kbs_server.Options(resources=WORK / "resources", policy=policy, **{"allow_sample": True, **more})  # type: ignore[arg-type]
    server = kbs_server.serve(options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.RequestHandlerClass.broker  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def failed(action: Callable[[], object]) -> Failed:
    try:
        action()
    except Failed as err:
        return err
    raise AssertionError("accepted")


def bad(action: Callable[[], object]) -> None:
    try:
        action()
    except kbs.Bad:
        return
    raise AssertionError("accepted")


# ---- without a server ------------------------------------------------------------------------------------------------


def check_published_jwe() -> None:
    for vector in (vectors.JWE_P256, vectors.JWE_P521):
        jwk = vector["tee_pubkey_jwk"]
        secret = ec.derive_private_key(int(vector["tee_private_scalar_hex"], 16), kbs.CURVES[jwk["crv"]][0]())
        assert kbs.ec_jwk(secret.public_key()) == jwk
        header = kbs.unb64url(vector["response"]["protected"])
        assert header.decode() == vector["protected_json"]
        z = secret.exchange(ec.ECDH(), kbs.read_ec(json.loads(header)["epk"], jwk["crv"]))
        assert z.hex() == vector["shared_secret_z_hex"]
        assert kbs.kdf_other_info().hex() == vector["concatkdf_otherinfo_hex"]
        assert kbs.concat_kdf(z).hex() == vector["kek_hex"]
        wrapped = kbs.unb64url(vector["response"]["encrypted_key"])
        assert aes_key_unwrap(bytes.fromhex(vector["kek_hex"]), wrapped).hex() == vector["cek_hex"]
        assert kbs.decrypt(vector["response"], secret) == vector["plaintext"].encode()
        for name in vector["response"]:
            flipped = kbs_faults._flipped(vector["response"][name])
            bad(lambda: kbs.decrypt(vector["response"] | {name: flipped}, secret))


def check_published_runtime_data() -> None:
    known = vectors.RUNTIME_DATA
    jwk, nonce, added = vectors.JWE_P256["tee_pubkey_jwk"], known["nonce"], known["additional_evidence_string"]
    device = kbs.device_data(nonce, jwk)
    assert kbs.canonical(device) == known["device_canonical"]
    assert kbs.digest(device, "sha384").hex() == known["device_sha384_hex"]
    alone, both = kbs.primary_data(nonce, jwk, ""), kbs.primary_data(nonce, jwk, added)
    assert kbs.canonical(alone) == known["primary_canonical_no_devices"]
    assert kbs.digest(alone, "sha384").hex() == known["primary_sha384_hex_no_devices"]
    assert kbs.digest(alone, "sha512").hex() == known["primary_sha512_hex_no_devices"]
    assert kbs.canonical(both) == known["primary_canonical_with_device"]
    assert kbs.digest(both, "sha384").hex() == known["primary_sha384_hex_with_device"]
    assert guest.sample_evidence(kbs.digest(alone, "sha384"), None) == known["sample_primary_evidence"]
    assert kbs.compact({"sampledevice": guest.device_evidence(kbs.digest(device, "sha384"), None)}).decode() == added
    assert kbs.canonical(vectors.STRUCTURED["json"]) == vectors.STRUCTURED["canonical"]
    assert kbs.digest(vectors.STRUCTURED["json"], "sha384").hex() == vectors.STRUCTURED["sha384_hex"]
    assert kbs.typed_key(jwk | {"use": "enc", "kid": "x"}) == jwk


def init_data(**change: str) -> kbs.InitData:
    text = vectors.INIT_DATA["toml"]
    for old, new in change.items():
        text = text.replace(old, new)
    found = kbs.read_init_data({"format": "toml", "body": text})
    assert found is not None
    return found


def check_published_init_data() -> None:
    known = vectors.INIT_DATA
    assert init_data().digest.hex() == known["sha384_hex"] == known["tdx_mrconfigid_hex"]
    assert kbs_evidence.fitted(init_data().digest, 32).hex() == known["snp_hostdata_hex"]
    pcr = known["tpm_pcr8_from_sha256_digest_hex"]
    assert hashlib.sha256(bytes(32) + bytes.fromhex(pcr["digest_hex"])).hexdigest() == pcr["pcr8_hex"]
    assert len(init_data(sha384="sha256").digest) == 32
    bad(lambda: init_data(sha384="SHA384"))
    bad(lambda: init_data(sha384="sha-384"))
    bad(lambda: kbs.read_init_data({"format": "json", "body": "{}"}))
    bad(lambda: kbs.read_init_data({"format": "toml", "body": "="}))
    assert kbs.read_init_data(None) is None


def check_snp_reports() -> None:
    for known in vectors.SNP_REPORTS.values():
        raw = bytes.fromhex(known["binary_hex"])
        evidence = {"attestation_report": kbs_evidence.snp_json(raw), "cert_chain": None}
        assert hashlib.sha256(kbs.canonical(evidence).encode()).hexdigest() == known["evidence_sha256"]
        assert kbs_evidence.snp_bytes(evidence["attestation_report"]) == raw
        result = kbs_evidence.verify(kbs_evidence.Job("snp", evidence, raw[0x50:0x90], None), False, None)
        assert result.report_data == raw[0x50:0x90].hex() and result.claims["policy_abi_major"] == 1
        assert result.claims["policy_debug_allowed"] is False and result.claims["policy_smt_allowed"] is True
        for name, value in (
            ("cert_chain", []),
            ("cert_chain", [{"cert_type": "ASK", "data": [1]}]),
            ("attestation_report", evidence["attestation_report"] | {"extra": 1}),  # type: ignore[operator]
            ("attestation_report", evidence["attestation_report"] | {"vmpl": 1}),  # type: ignore[operator]
            ("attestation_report", evidence["attestation_report"] | {"version": 2}),  # type: ignore[operator]
            ("attestation_report", evidence["attestation_report"] | {"cpuid_step": None}),  # type: ignore[operator]
            ("attestation_report", evidence["attestation_report"] | {"chip_id": [256] * 64}),  # type: ignore[operator]
        ):
            changed = kbs_evidence.Job("snp", evidence | {name: value}, raw[0x50:0x90], None)
            bad(lambda: kbs_evidence.verify(changed, False, None))
        chain = evidence | {"cert_chain": [{"cert_type": "VCEK", "data": [48, 130]}, {"cert_type": {"OTHER": "uuid"}, "data": []}]}
        kbs_evidence.verify(kbs_evidence.Job("snp", chain, raw[0x50:0x90], None), False, None)


def check_kmac() -> None:
    """Sample 4 of NIST's KMAC256 examples, and an answer of OpenSSL for 24 bytes without customization."""
    key, data = bytes(range(0x40, 0x60)), bytes(range(4))
    assert kbs.kmac256(key, data, 64, b"My Tagged Application").hex() == (
        "20c570c31346f703c9ac36c61c03cb64c3970d0cfc787e9b79599d273a68d2f7"
        "f69d4cc3de9d104a351689f27cf6f5951f0103f33f4f24871024d9c27773a8dd"
    )
    assert kbs.kmac256(key, data, 24, b"").hex() == "e2f127733e21716ac9a2464342d37078a5356034bafa4951"


def check_keys_and_answers() -> None:
    for name in NAMES:
        secret, jwk = guest.new_key(name)
        for plain in (b"", SECRET, bytes(70_000)):
            jwe = kbs.encrypt(jwk, plain)
            assert kbs.decrypt(jwe, secret) == plain
            assert list(kbs.parse_json(kbs.unb64url(jwe["protected"])))[:2] == ["alg", "enc"]  # type: ignore[call-overload]
            assert set(jwe) == {"protected", "encrypted_key", "iv", "ciphertext", "tag"}
        bad(lambda: kbs.decrypt(jwe, guest.new_key(name)[0]))
        for change in ({"alg": "dir"}, {"kty": "oct"}):
            bad(lambda: kbs.encrypt(jwk | change, SECRET))
    old, jwk = guest.new_key("RSA")
    assert kbs.decrypt(kbs.encrypt(jwk | {"alg": kbs.RSA15}, SECRET), old) == SECRET
    bad(lambda: kbs.encrypt(kbs.ec_jwk(ec.generate_private_key(ec.SECP384R1()).public_key()), SECRET))
    bad(lambda: kbs.encrypt(KEY[1] | {"x": kbs.b64url(bytes(31))}, SECRET))
    bad(lambda: kbs.encrypt(KEY[1] | {"x": KEY[1]["y"]}, SECRET))
    bad(lambda: kbs.encrypt(kbs.akp_jwk(mlkem.MLKEM768PrivateKey.generate().public_key()) | {"pub": kbs.b64url(bytes(1183))}, SECRET))


def check_json() -> None:
    for text in (b'{"a":1,"a":1}', b"NaN", b'"\\ud800"', b"\xef\xbb\xbf{}", b"\xff", b"", b"{} {}", b"[" * 100_000):
        bad(lambda: kbs.parse_json(text))
    for text in ("a=", "a", "+/8", "AB", "a b"):
        bad(lambda: kbs.unb64url(text))
    assert kbs.canonical({"\ufb33": 1, "\U0001f600": "\u20ac\x1f\n\"\\/", "a": [None, True]}) == (
        '{"a":[null,true],"\U0001f600":"\u20ac\\u001f\\n\\"\\\\/","\ufb33":1}'
    )


def check_resource_uris() -> None:
    for uri, path in (
        ("kbs:///a/b/c", "/kbs/v0/resource/a/b/c"),
        ("kbs://other.example:1/a/b/c?x=1", "/kbs/v0/resource/a/b/c?x=1"),
        ("kbs+pkcs11:///wrap-key/k", "/kbs/v0/pkcs11/wrap-key/k"),
    ):
        assert kbs.resource_url("http://h/", uri) == "http://h" + path
    for uri in ("kbs:///a/../b/c", "http://h/a/b/c", "kbs:///", "kbs:a/b/c", "a/b/c", "kbs:///a/b/c#d"):
        bad(lambda: kbs.resource_url("", uri))
    assert kbs.resource_path("a_b/-c/d.e") == ("a_b", "-c", "d.e")
    for path in ("a/b", "a/b/c/d", "a//c", ".a/b/c", "a/../c", "a/b/c%41", "a/b/c\n", ""):
        try:
            kbs.resource_path(path)
        except kbs.KbsError as err:
            assert err.variant == "PluginInternalError" and err.detail == "Plugin internal error"
        else:
            raise AssertionError(path)


# ---- with a server ---------------------------------------------------------------------------------------------------


def check_handshakes() -> None:
    """Every kind of key, with and without device and init data, by cookie and by bearer token."""
    with broker() as (url, _):
        for name in NAMES:
            for devices in (None, {"sampledevice": guest.device_evidence}):
                for passport in (False, True):
                    init = init_data() if passport else None
                    client = Client(url, guest.new_key(name), devices=devices, init=init, passport=passport)
                    claims = client.handshake()
                    assert client.get("kbs:///repo/type/tag") == SECRET and client.handshakes == 1
                    assert client.get("kbs://elsewhere/repo/type/empty") == b"" and client.handshakes == 1
                    check_claims(claims, client, devices is not None)


def check_claims(claims: dict, client: Client, device: bool) -> None:
    assert "nbf" not in claims and "aud" not in claims and claims["exp"] - claims["iat"] == 300
    assert claims["eat_profile"] == "tag:github.com,2024:confidential-containers/Trustee"
    assert set(claims["submods"]) == ({"cpu0", "gpu0"} if device else {"cpu0"})
    cpu = claims["submods"]["cpu0"]
    assert cpu["ear.status"] == "contraindicated" and len(cpu["ear.trustworthiness-vector"]) == 8
    seen = cpu["ear.veraison.annotated-evidence"]
    assert seen["sample"] == {"svn": "1", "launch_digest": "abcde", "platform_version": {"major": 1, "minor": 4}, "debug": False}
    assert seen["runtime_data_claims"]["tee-pubkey"] == client.jwk and "additional-evidence" in seen["runtime_data_claims"]
    if client.init:
        assert seen["init_data"] == kbs.b64(client.init.digest)
        assert seen["init_data_claims"]["aa.toml"] == {"token_configs": {"kbs": {"url": "http://192.0.2.7:8080"}}}
    else:
        assert "init_data" not in seen
    head = json.loads(kbs.unb64url(str(client.token).split(".")[0]))
    assert (head["typ"], head["alg"], head["jwk"]["crv"], head["jwk"]["alg"]) == ("JWT", "ES256", "P-256", "ES256") and "kid" not in head


def check_cookie() -> None:
    with broker(session_s=120) as (url, _):
        client = Client(url, KEY)
        nonce, algorithm = client.challenge()
        assert re.fullmatch(r"[A-Za-z0-9+/]{43}=", nonce) and algorithm == "sha384"
        status, headers = client.last or (0, http.client.HTTPMessage())
        first = headers["Set-Cookie"]
        found = re.fullmatch(r"kbs-session-id=([0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}); Expires=([^;]+ GMT)", first)
        assert found and status == 200 and headers["Content-Type"] == "application/json", first
        assert 110 < parsedate_to_datetime(found[2]).timestamp() - time.time() <= 120
        body = kbs.compact(client.attestation(nonce, algorithm))
        assert failed(lambda: client.checked("POST", "/kbs/v0/attest", body)).variant == "AttestationError"
        other = {"Cookie": "kbs-session-id=" + "0" * 32}
        assert failed(lambda: client.checked("POST", "/kbs/v0/attest", body, other)).variant == "AttestationError"
        assert failed(lambda: client.checked("GET", "/kbs/v0/resource/repo/type/tag", None, client.session())).variant == "TokenNotFound"
        token = client.checked("POST", "/kbs/v0/attest", body, {"Cookie": f"a=b; {client.cookie}"})
        assert client.last and client.last[1]["Set-Cookie"] == first
        # A second attest answers the stored token and looks at nothing.
        assert client.checked("POST", "/kbs/v0/attest", b"{}", client.session()) == token


def check_failed_attest_may_be_repeated() -> None:
    with broker() as (url, _):
        client = Client(url, KEY)
        nonce, algorithm = client.challenge()
        good = client.attestation(nonce, algorithm)
        without = kbs.digest(kbs.device_data(nonce, client.jwk), "sha384")
        init = {"format": "toml", "body": init_data().text}
        runtime, evidence = good["runtime-data"], good["tee-evidence"]
        for change in (
            {"runtime-data": runtime | {"nonce": kbs.b64(bytes(32))}},  # type: ignore[operator]
            {"runtime-data": runtime | {"tee-pubkey": guest.new_key("P-256")[1]}},  # type: ignore[operator]
            {"runtime-data": {"nonce": nonce}},
            {"tee-evidence": evidence | {"primary_evidence": guest.sample_evidence(without, None)}},  # type: ignore[operator]
            {"tee-evidence": evidence | {"primary_evidence": json.dumps(evidence["primary_evidence"])}},  # type: ignore[operator, index]
            {"tee-evidence": evidence | {"additional_evidence": "{}"}},  # type: ignore[operator]
            {"tee-evidence": evidence | {"additional_evidence": {}}},  # type: ignore[operator]
            {"tee-evidence": {"primary_evidence": evidence["primary_evidence"]}},  # type: ignore[index]
            {"init-data": init | {"format": "json"}},
            {"init-data": init | {"body": "algorithm = 'md5'"}},
        ):
            err = failed(lambda: client.checked("POST", "/kbs/v0/attest", kbs.compact(good | change), client.session()))
            assert (err.status, err.variant) == (401, "AttestationError"), change
            assert err.detail == "Attestation error: RCAR handshake Attest failed"
        extra = {"runtime-data": runtime | {"tee-pubkey": client.jwk | {"kid": "dropped"}}}  # type: ignore[operator]
        assert client.checked("POST", "/kbs/v0/attest", kbs.compact(good | extra), client.session())


def check_requests_refused() -> None:
    with broker() as (url, _):
        client = Client(url, KEY)
        good = {"version": "0.4.0", "tee": "snp", "extra-params": ""}
        for change, text in (
            ({"version": "0.3.0"}, "0.3.0"),
            ({"version": "0.4.1"}, "0.4.1"),
            ({"version": "^0.4"}, "^0.4"),
            *(({"tee": name}, "deserialize Request") for name in ("sev", "azsnpvtpm", "SNP", "", None, 1)),
        ):
            err = failed(lambda: client.checked("POST", "/kbs/v0/auth", kbs.compact(good | change)))
            assert (err.status, err.variant) == (401, "AttestationError") and text in err.detail, err
            assert client.last and client.last[1]["Content-Type"] is None and client.last[1]["Set-Cookie"] is None
        for name in good:
            left = {key: value for key, value in good.items() if key != name}
            assert "deserialize Request" in failed(lambda: client.checked("POST", "/kbs/v0/auth", kbs.compact(left))).detail
        for tee in (*kbs.TEES, "nvidiadpu"):
            extra = {"supported-hash-algorithms": ["sha384", "sha512"]}
            answer = client.checked("POST", "/kbs/v0/auth", kbs.compact(good | {"tee": tee, "extra-params": extra}))
            assert set(answer) == {"nonce", "extra-params"}  # type: ignore[call-overload]
            assert answer["extra-params"] == ({"selected-hash-algorithm": "sha512"} if tee == "se" else "")  # type: ignore[index]
        few = good | {"tee": "se", "extra-params": {"supported-hash-algorithms": ["sha384"]}}
        assert failed(lambda: client.checked("POST", "/kbs/v0/auth", kbs.compact(few))).variant == "AttestationError"


def check_paths_and_methods() -> None:
    with broker() as (url, _):
        client = Client(url, KEY)
        client.handshake()
        for method, path, status, variant in (
            ("GET", "auth", 404, "PluginNotFound"),
            ("PUT", "attest", 404, "PluginNotFound"),
            ("GET", "nothing/a/b", 404, "PluginNotFound"),
            ("GET", "", 404, "InvalidRequestPath"),
            ("GET", "resource/repo/type/none", 401, "PluginInternalError"),
            ("GET", "resource/repo/type", 401, "PluginInternalError"),
            ("GET", "resource/repo/type/tag/more", 401, "PluginInternalError"),
            ("GET", "resource/repo/../tag", 401, "PluginInternalError"),
            ("GET", "resource/.repo/type/tag", 401, "PluginInternalError"),
            ("POST", "resource/repo/type/tag", 401, "AdminAuthAccess"),
            ("DELETE", "resource/repo/type/tag", 401, "AdminAuthAccess"),
            ("POST", "resource-policy", 401, "AdminAuthAccess"),
        ):
            err = failed(lambda: client.checked(method, "/kbs/v0/" + path, b"" if method != "GET" else None, client.session()))
            assert (err.status, err.variant) == (status, variant), (method, path, err)
            assert client.last and client.last[1]["Content-Type"] is None
        assert failed(lambda: client.get("kbs:///repo/type/none")).detail == "Plugin internal error" and client.handshakes == 1
        assert client.call("GET", "/healthz")[0] == 200


def check_bodies() -> None:
    with broker(payload_bytes=10_000) as (url, _):
        client = Client(url, KEY)
        good = kbs.compact({"version": "0.4.0", "tee": "snp", "extra-params": ""})
        assert client.call("POST", "/kbs/v0/auth", good.ljust(10_000))[0] == 200
        assert client.call("POST", "/kbs/v0/auth", good.ljust(10_001)) == (413, b"payload reached size limit")
        assert client.last and client.last[1]["Content-Type"].startswith("text/plain")
        place = urlsplit(url)
        for size, status in ((10_000, 200), (10_001, 413), (1_000_000, 413)):
            link = http.client.HTTPConnection(place.netloc, timeout=30)
            parts = iter([good, b" " * (size - len(good))])
            link.request("POST", "/kbs/v0/auth", parts, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
            assert link.getresponse().status == status, size
            link.close()


def check_policies() -> None:
    for policy, tee, evidence, passes in (
        ("default", "sample", guest.sample_evidence, False),
        ("default", "tdx", guest.tdx_evidence(4), True),
        ("deny", "tdx", guest.tdx_evidence(4), False),
        ("allow-all", "sample", guest.sample_evidence, True),
    ):
        with broker(policy) as (url, _):
            client = Client(url, KEY, tee, evidence)
            if passes:
                assert client.get("kbs:///repo/type/tag") == SECRET
            else:
                err = failed(lambda: client.get("kbs:///repo/type/tag"))
                assert (err.status, err.variant, client.handshakes) == (401, "PolicyDeny", 1)
                assert failed(lambda: client.get("kbs:///repo/type/none")).variant == "PolicyDeny"
    with broker(allow_sample=False) as (url, _):
        assert failed(lambda: Client(url, KEY).handshake()).variant == "AttestationError"
        devices = {"sampledevice": guest.device_evidence}
        assert failed(lambda: Client(url, KEY, "tdx", guest.tdx_evidence(4), devices).handshake()).variant == "AttestationError"


def check_admin() -> None:
    with broker("default", insecure_admin=True) as (url, _):
        client = Client(url, KEY)
        assert failed(lambda: client.get("kbs:///x/y/z")).variant == "PolicyDeny"
        text = "# a comment\npackage policy\n\ndefault allow = true\n"
        for body, variant in (
            (b"{}", "SerdeError"),
            (kbs.compact({"policy": kbs.b64url(b"package policy\nallow if input.x")}), "ParsePolicyError"),
        ):
            assert failed(lambda: client.checked("POST", "/kbs/v0/resource-policy", body)).variant == variant
        assert client.call("POST", "/kbs/v0/resource-policy", kbs.compact({"policy": kbs.b64url(text.encode())}))[0] == 200
        assert client.call("POST", "/kbs/v0/resource/x/y/z", b"\0raw")[0] == 200
        assert client.get("kbs:///x/y/z") == b"\0raw"
        assert client.call("DELETE", "/kbs/v0/resource/x/y/z")[0] == 200
        assert client.call("DELETE", "/kbs/v0/resource/repo/type/tag")[0] == 200
        for name in ("x/y/z", "repo/type/tag"):
            assert failed(lambda: client.get(f"kbs:///{name}")).variant == "PluginInternalError"


def check_cookie_before_bearer() -> None:
    with broker() as (url, state):
        client = Client(url, KEY)
        client.handshake()
        path = "/kbs/v0/resource/repo/type/tag"
        junk = {"Authorization": "Bearer x.y.z"}
        assert client.checked("GET", path, None, client.session() | junk)
        assert failed(lambda: client.checked("GET", path, None, junk)).variant == "TokenVerifierError"
        assert failed(lambda: client.checked("GET", path)).variant == "TokenNotFound"
        assert failed(lambda: client.checked("GET", path, None, {"Authorization": f"Basic {client.token}"})).variant == "TokenNotFound"
        fresh = Client(url, KEY)
        fresh.challenge()  # a session that is not attested does not hide the bearer token
        assert fresh.checked("GET", path, None, fresh.session() | {"Authorization": f"Bearer {client.token}"})
        for session in state.sessions.values():
            session.expires = 0
        assert failed(lambda: client.checked("GET", path, None, client.session())).variant == "TokenNotFound"
        assert client.checked("GET", path, None, {"Authorization": f"Bearer {client.token}"})
        assert client.get("kbs:///repo/type/tag") == SECRET and client.handshakes == 2


def authority(name: str, subject: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePrivateKey, issuer: str, ca: bool) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().public_key(subject).serial_number(x509.random_serial_number())
    builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    builder = builder.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(hours=1))
    builder = builder.add_extension(x509.BasicConstraints(ca, None), True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
    return builder.sign(signer, hashes.SHA256())


def check_tokens() -> None:
    own, other, root_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = authority("root", root_key.public_key(), root_key, "root", True)
    chain = [authority("as", other.public_key(), root_key, "root", False), root]
    now = int(time.time())
    base = {"exp": now + 300, "tee-pubkey": KEY[1]}
    path = "/kbs/v0/resource/repo/type/tag"

    def answer(url: str, token: str) -> str:
        client = Client(url, KEY)
        try:
            client.checked("GET", path, None, {"Authorization": f"Bearer {token}"})
        except Failed as err:
            return err.variant
        return "accepted"

    mine, foreign, chained = kbs.Signer(own, []), kbs.Signer(other, []), kbs.Signer(other, chain)
    wrong_leaf = kbs.Signer(own, chain)
    with broker(signer=mine) as (url, _):
        assert answer(url, mine.sign(base)) == "accepted"
        assert answer(url, mine.sign(base | {"exp": now - 30})) == "accepted"  # the leeway
        for claims in (base | {"exp": now - 90}, {"tee-pubkey": KEY[1]}, base | {"exp": "never"}):
            assert answer(url, mine.sign(claims)) == "TokenVerifierError"
        assert answer(url, mine.sign({"exp": now + 300})) == "TokenVerifierError"  # no key in the claims
        assert answer(url, foreign.sign(base)) == answer(url, chained.sign(base)) == "TokenVerifierError"
        head, body, signature = mine.sign(base).split(".")
        changed = kbs.b64url(kbs.compact(base | {"exp": now + 999}))
        none = kbs.b64url(kbs.compact({"typ": "JWT", "alg": "none", "jwk": mine.jwk()}))
        whole = f"{head}.{body}.{signature}"
        for token in (f"{head}.{changed}.{signature}", f"{head}.{body}.", f"{none}.{body}.", f"{head}.{body}", "..", f"{whole}.x"):
            assert answer(url, token) == "TokenVerifierError", token
        p384 = kbs.ec_jwk(ec.generate_private_key(ec.SECP384R1()).public_key())
        assert answer(url, mine.sign(base | {"tee-pubkey": p384})) == "JweError"
        first = {"tdx": {"attester_user_data": {"tee-pubkey": guest.new_key("RSA")[1]}}, "tee-pubkey": p384}
        assert answer(url, mine.sign(base | first)) == "accepted"  # the order of the places
        for places in kbs.KEY_CLAIMS:
            claims: dict = {"exp": now + 300}
            at = claims
            for name in places[:-1]:
                at = at.setdefault(name, {})
            at[places[-1]] = KEY[1]
            assert answer(url, mine.sign(claims)) == "accepted", places
    with broker(signer=mine, trusted_roots=[root]) as (url, _):
        assert answer(url, chained.sign(base)) == "accepted" and answer(url, foreign.sign(base)) == "TokenVerifierError"
    with broker(signer=foreign, trusted_roots=[root]) as (url, _):
        assert answer(url, wrong_leaf.sign(base)) == "TokenVerifierError"
    with broker(signer=mine, insecure_header_jwk=True) as (url, _):
        assert answer(url, foreign.sign(base)) == "accepted"


# ---- evidence --------------------------------------------------------------------------------------------------------

SPEC_ID = bytes.fromhex("0000000003000000" + "00" * 20 + "25000000" + "00" * 24 + "020000000c003000120020" + "0000")


def check_tdx() -> None:
    entry, after = vectors.EVENT_LOG["tcg2_entry_hex"], vectors.EVENT_LOG["register_after_one_extend_from_zero_hex"]
    log = SPEC_ID + bytes.fromhex(entry) + b"\xff" * 8
    assert len(SPEC_ID) == 69 and kbs_evidence.replay(kbs_evidence.parse_event_log(log))[3].hex() == after
    event = kbs_evidence.event_claims(kbs_evidence.parse_event_log(log)[0])
    assert event["details"]["data"]["operation"] == "PullImage" and event["digest_matches_event"] is True  # type: ignore[index]
    registers = {"rtmr_3": bytes.fromhex(after)}
    init = init_data()
    with broker("default") as (url, _):
        for version in (4, 5):
            client = Client(url, KEY, "tdx", guest.tdx_evidence(version, log, registers), init=init)
            seen = client.handshake()["submods"]["cpu0"]["ear.veraison.annotated-evidence"]  # type: ignore[index]
            assert seen["init_data"] == init.digest.hex() and seen["tdx"]["quote"]["header"]["version"] == f"0{version}00"
            assert seen["tdx"]["td_attributes"]["debug"] is False and client.get("kbs:///repo/type/tag") == SECRET
        other = replace(init, text=init.text + "# changed\n")
        for make in (
            guest.tdx_evidence(4, log),  # the log says more than the quote
            guest.tdx_evidence(4, log.replace(b"PullImage", b"pullimage")[:-60], registers),
            guest.tdx_evidence(4, None, {"report_data": bytes(64)}),
            guest.tdx_evidence(4, None, {"mr_config_id": other.digest}),
            guest.tdx_evidence(3),
            lambda data, _: {"cc_eventlog": None, "quote": kbs.b64(guest.fake_quote(4, {"report_data": data})[:-5])},
            lambda data, _: {"cc_eventlog": None, "quote": ""},
            lambda data, _: {},
        ):
            assert failed(lambda: Client(url, KEY, "tdx", make, init=init).handshake()).variant == "AttestationError"


def check_snp_and_hook() -> None:
    template = bytes.fromhex(vectors.SNP_REPORTS["v5-turin"]["binary_hex"])
    seen: list[kbs_evidence.Job] = []

    def hook(job: kbs_evidence.Job, _: kbs_evidence.Result) -> dict[str, object]:
        seen.append(job)
        if len(seen) > 1:
            raise kbs.Bad("signature")
        return {"claims": {"checked": True}}

    with broker("default", hook=hook) as (url, _):
        client = Client(url, KEY, "snp", guest.snp_evidence(template), init=init_data())
        cpu = client.handshake()["submods"]["cpu0"]  # type: ignore[index]
        assert cpu["ear.status"] == "affirming" and cpu["ear.veraison.annotated-evidence"]["snp"]["checked"] is True
        assert cpu["ear.veraison.annotated-evidence"]["init_data"] == vectors.INIT_DATA["snp_hostdata_hex"]
        assert len(seen[0].expected) == 48 and client.get("kbs:///repo/type/tag") == SECRET
        assert failed(client.handshake).variant == "AttestationError"
    command = WORK / "verifier.py"
    command.write_text("import json,sys\nasked=json.load(sys.stdin)\nsys.exit(asked['tee'] != 'tdx' or len(asked['expected_report_data']) != 96)\n")
    with broker("default", hook=kbs_evidence.command_hook([sys.executable, str(command)])) as (url, _):
        assert Client(url, KEY, "tdx", guest.tdx_evidence(5)).handshake()
        assert failed(lambda: Client(url, KEY, "snp", guest.snp_evidence(template)).handshake()).variant == "AttestationError"


def check_tpm() -> None:
    ak = rsa.generate_private_key(65537, 2048)
    der = ak.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    init = init_data(sha384="sha256")
    pcr8 = hashlib.sha256(bytes(32) + init.digest).digest()

    def maker(**change: object) -> guest.Evidence:
        def make(data: bytes, _: kbs.InitData | None) -> dict[str, object]:
            pcrs = [pcr8 if index == 8 else bytes([index] * 32) for index in range(24)]
            digest = hashlib.sha256(b"".join(pcrs)).digest()
            message = b"\xffTCG\x80\x18\0\x04name" + b"\0\x20" + data[:32] + bytes(25)
            message += b"\0\0\0\x01\0\x0b\x03\xff\xff\xff\0\x20" + digest
            signature = b"\0\x14\0\x0b\x01\0" + ak.sign(message, padding.PKCS1v15(), hashes.SHA256())
            pcrs[0] = change.get("pcr0", pcrs[0])  # type: ignore[call-overload]
            quote = {"signature": kbs.b64(signature), "message": kbs.b64(message), "pcrs": [pcr.hex() for pcr in pcrs]}
            return {"tpm_quote": quote, "ak_public": change.get("ak", kbs.b64(der))}

        return make

    with broker("default") as (url, _):
        client = Client(url, KEY, "tpm", maker(), init=init)
        assert client.handshake()["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["init_data"] == pcr8.hex()  # type: ignore[index]
        assert client.get("kbs:///repo/type/tag") == SECRET
        other = rsa.generate_private_key(65537, 2048).public_key()
        stranger = kbs.b64(other.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
        for make, with_init in ((maker(pcr0=b"\1" * 32), init), (maker(ak=stranger), init), (maker(), init_data()), (maker(ak="AA=="), init)):
            assert failed(lambda: Client(url, KEY, "tpm", make, init=with_init).handshake()).variant == "AttestationError"


def check_se() -> None:
    def make(data: bytes, _: kbs.InitData | None) -> dict[str, object]:
        names = ("measurement", "additional_data", "cuid", "encr_measurement_key", "encr_request_nonce", "image_hdr_tags")
        return {name: "" for name in names} | {"user_data": kbs.b64(data)}

    with broker("default") as (url, _):
        client = Client(url, KEY, "se", make)
        nonce, algorithm = client.challenge()
        assert algorithm == "sha512" and json.loads(nonce)["measurement_size"] == 64
        assert client.get("kbs:///repo/type/tag") == SECRET


# ---- faults ----------------------------------------------------------------------------------------------------------

HARMLESS = {
    "cookie-lost@attest", "hash=sha384", "nonce-opaque", "jwe-member-order", "jwe-aad", "trickle", "slow", "slow@auth",
    "slow@attest", "slow@resource",
}  # fmt: skip
# fault -> what the guest must see: variant of the broker, or "" for what the guest itself refuses
SEEN = {
    "error=TokenNotFound": "TokenNotFound", "error@auth=PolicyDeny": "PolicyDeny", "version": "AttestationError",
    "wrong-nonce": "AttestationError", "hash": "AttestationError", "hash=sha512": "AttestationError", "cookie-lost@auth": "AttestationError",
    "cookie-lost": "AttestationError", "cookie-forgotten": "TokenNotFound",
}  # fmt: skip
REASONS = {
    "5xx": "^503 .*not JSON", "drop": "^0 ", "redirect": "^307 ", "401-": "^401 .*not JSON", "413": "^413 ", "not-json": "^200 .*not JSON",
    "empty": "^200 .*not JSON", "oversized": "^200 .*too large", "endless": "^200 .*too large", "huge-length": "^(200 .*cut short|0 .*Incomplete)",
    "truncated": "^(200 .*cut short|0 .*Incomplete)", "nonce-not-text": "nonce is not a str", "nonce-missing": "missing field nonce",
    "hash-not-text": "selected-hash-algorithm is not a str", "hash=md5": "unknown hash algorithm md5", "expired-token": "expired",
    "token-missing": "missing field token", "token-malformed": "not a JWT", "token-no-exp": "missing field exp",
    "wrong-curve": "answer: curve P-521", "bad-epk": "answer: not a point", "epk-missing": "answer: missing field epk",
    "epk-short": "answer: coordinate", "malformed-jwe": "answer: missing field", "jwe-not-base64": "answer: not unpadded",
    "jwe-padded": "answer: not unpadded", "jwe-flip=encrypted_key": "does not unwrap", "jwe-flip=protected": "answer: ",
    "jwe-flip": "not authentic", "jwe-header-changed": "not authentic", "jwe-short-iv": "not A256GCM", "jwe-short-tag": "not A256GCM",
    "jwe-short-cek": "wrapped key of another length", "jwe-alg": "algorithm dir", "jwe-enc": "not A256GCM", "jwe-wrong-key": "does not unwrap",
}  # fmt: skip
QUICK = {"slow": "slow=0.2", "huge-length": "huge-length=0.2", "trickle": "trickle=0.0005", "oversized": "oversized=9", "endless": "endless=64"}


def check_faults() -> None:
    names = [QUICK.get(name, name) for name in kbs_faults.FAULTS if name != "error"]
    names += [f"error={variant}" for variant in (*kbs.VARIANTS, "Unheard")]
    for name in ("5xx", "slow", "redirect", "endless", "oversized", "not-json", "truncated", "401-html", "413"):
        value = QUICK[name].removeprefix(name) if name in QUICK else ""
        names += [f"{name}@{where}{value}" for where in kbs_faults.ENDPOINTS]
    names += ["error@resource=PolicyDeny", "hash=sha384", "hash=md5", "cookie-lost@attest", "cookie-lost@auth"]
    names += [f"malformed-jwe={member}" for member in ("protected", "iv", "ciphertext", "tag")]
    names += [f"jwe-flip={member}" for member in ("protected", "encrypted_key", "iv", "tag")]
    for name in names:
        with broker(faults=[name]) as (url, _):
            client = Client(url, KEY, timeout_s=10)
            if name in HARMLESS or name.split("=")[0] in HARMLESS:
                assert client.get("kbs:///repo/type/tag") == SECRET, name
                continue
            err = failed(lambda: client.get("kbs:///repo/type/tag"))
            expected = SEEN.get(name, "")
            if name.startswith("error"):
                expected = name.split("=")[1]
                assert err.status == (404 if expected in kbs.NOT_FOUND else 401)
            assert err.variant == expected, (name, err)
            if not expected:
                reason = next(reason for start, reason in REASONS.items() if name.startswith(start))
                assert re.search(reason, str(err)), (name, err)
            retried = name in ("cookie-forgotten",)
            assert client.handshakes == (3 if retried else 1), (name, client.handshakes)


def check_faults_of_other_keys() -> None:
    for key in NAMES:
        pair = guest.new_key(key)
        for name, value in (
            ("jwe-wrong-key", ""), ("jwe-flip", ""), ("jwe-flip", "=encrypted_key"), ("jwe-alg", ""), ("jwe-enc", ""),
            ("jwe-short-iv", ""), ("jwe-header-changed", ""), ("malformed-jwe", ""),
        ):  # fmt: skip
            with broker(faults=[f"{name}/1{value}"]) as (url, _):
                client = Client(url, pair)
                assert failed(lambda: client.get("kbs:///repo/type/tag")).variant == "", (key, name)
                assert client.get("kbs:///repo/type/tag") == SECRET and client.handshakes == 1
    for key, name in (("P-521", "wrong-curve"), ("P-521", "bad-epk"), ("P-521", "epk-short"), ("ML-KEM", "epk-missing"), ("P-521", "jwe-short-cek")):
        with broker(faults=[name]) as (url, _):
            assert failed(lambda: Client(url, guest.new_key(key)).get("kbs:///repo/type/tag")).variant == ""


def check_faults_that_pass() -> None:
    """A fault with a count ends: a guest that retries by class gets through, with as many handshakes as it needed."""
    for name, handshakes in (("error@resource/1=TokenNotFound", 2), ("error@resource/2=TokenVerifierError", 3), ("cookie-forgotten/1", 2)):
        with broker(faults=[name], log=WORK / "log") as (url, _):
            client = Client(url, KEY)
            assert client.get("kbs:///repo/type/tag") == SECRET and client.handshakes == handshakes
    lines = [json.loads(line) for line in (WORK / "log").read_text().splitlines()]
    assert lines[0]["path"] == "/kbs/v0/auth" and lines[2]["status"] == 401 and lines[2]["faults"] == ["error"]
    with broker(faults=["expired-token/1"]) as (url, _):
        client = Client(url, KEY)
        assert failed(client.handshake).variant == ""
        assert failed(lambda: client.checked("GET", "/kbs/v0/resource/repo/type/tag", None, client.session())).variant == "TokenVerifierError"
    for text in ("nothing", "wrong-curve@auth", "5xx/x", ""):
        try:
            kbs_faults.parse(text)
        except ValueError:
            continue
        raise AssertionError(text)


# ---- the program -----------------------------------------------------------------------------------------------------


def check_program() -> None:
    """The command line over TLS: port file, resource, fault, end with standard input; the guest's command line too."""
    folder = Path(__file__).resolve().parent
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority("127.0.0.1", key.public_key(), key, "127.0.0.1", True)
    pem = serialization.Encoding.PEM
    (WORK / "tls.crt").write_bytes(certificate.public_bytes(pem))
    (WORK / "tls.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    (WORK / "init.toml").write_text(vectors.INIT_DATA["toml"])
    command = [sys.executable, folder / "kbs_server.py", "--port-file", WORK / "port", "--resources", WORK / "resources"]
    command += ["--tls-cert", WORK / "tls.crt", "--tls-key", WORK / "tls.key", "--policy", "allow-all", "--allow-sample"]
    command += ["--fault", "error@resource/1=TokenNotFound", "--exit-with-stdin", "--log", WORK / "program.log"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 30
        while not (WORK / "port").exists():
            assert process.poll() is None and time.monotonic() < end, "the server does not start"
            time.sleep(0.02)
        url = f"https://127.0.0.1:{int((WORK / 'port').read_text())}"
        check = [sys.executable, folder / "kbs_client_check.py", "--url", url, "--ca", WORK / "tls.crt", "--resource", "kbs:///repo/type/tag"]
        check += ["--expect", WORK / "resources/repo/type/tag", "--device", "--init-data", WORK / "init.toml", "--passport", "--key", "P-521"]
        done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 and "after 2 handshake(s)" in done.stdout, done
        untrusting = Client(url, KEY, trust=ssl.create_default_context())
        assert "CERTIFICATE_VERIFY_FAILED" in str(failed(untrusting.handshake))
        with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)):  # one silent peer does not stop the others
            trusting = Client(url, KEY, trust=ssl.create_default_context(cafile=WORK / "tls.crt"))
            assert trusting.get("kbs:///repo/type/tag") == SECRET
        out, err = process.communicate("", timeout=30)
        assert process.returncode == 0 and f"listening on {url}" in out and "NOT verified" in err
    finally:
        process.kill()
        process.wait()
    for more in (["--listen", "0.0.0.0:0"], ["--fault", "nothing"], ["--resources", WORK / "none"], ["--tls-key", WORK / "tls.key"]):
        assert subprocess.run([*command[:6], *more], capture_output=True, timeout=60, check=False).returncode != 0, more


def main() -> int:
    global WORK
    checks = [value for name, value in globals().items() if name.startswith("check_") and name != "check_claims"]
    bad_checks = 0
    with tempfile.TemporaryDirectory() as folder:
        WORK = Path(folder)
        place = WORK / "resources" / "repo" / "type"
        place.mkdir(parents=True)
        (place / "tag").write_bytes(SECRET)
        (place / "empty").write_bytes(b"")
        for check in checks:
            try:
                check()
            except Exception as err:
                bad_checks += 1
                line = err.__traceback__
                while line and line.tb_next:
                    line = line.tb_next
                print(f"FAIL {check.__name__}: {type(err).__name__}: {err} (line {line.tb_lineno if line else 0})")
    print(f"{len(checks) - bad_checks} of {len(checks)} checks pass")
    return 1 if bad_checks or not checks else 0


if __name__ == "__main__":
    sys.exit(main())
