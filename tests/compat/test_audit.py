"""The second reader of audits, and `innerkeep audit`, against every vector and against a running `innerkeep-agent`.

Exit status 0: everything passed. The programs are those of INNERKEEP_BIN_DIR, else of target/ci.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import audit
import kata_client as kata
from refused import Refused

TESTS = Path(__file__).resolve().parents[1]
VECTORS = TESTS / "vectors" / "audit" / "vectors.json"
PROGRAMS = Path(os.environ.get("INNERKEEP_BIN_DIR", TESTS.parent / "target" / "ci")).absolute()
NONCE = bytes(range(32))


def outcome(vector: dict) -> tuple[str, list[str]]:
    try:
        found = audit.Audit(audit.frames(bytes.fromhex(vector["file"])), vector["suite"], bytes.fromhex(vector["secret"]))
        if "nonce" in vector:
            found.require_head(bytes.fromhex(vector["nonce"]))
        found.require_signed()
    except Refused as refused:
        return refused.code, []
    return "ok", found.told


def innerkeep(*words: object) -> tuple[str, dict]:
    """Code and what was said."""
    done = subprocess.run([PROGRAMS / "innerkeep", "--json", *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    if done.returncode:
        return json.loads(done.stderr.splitlines()[-1])["error"]["code"], {}
    return "ok", json.loads(done.stdout)


def verify(source: object, *words: object) -> str:
    return innerkeep("audit", "verify", source, "--no-initdata", "--insecure-unattested", *words)[0]


def the_program_says_the_same(vectors: list[dict], place: Path) -> None:
    for vector in vectors:
        file, key = place / "records", place / "key"
        file.write_bytes(bytes.fromhex(vector["file"]))
        secret = base64.b64encode(bytes.fromhex(vector["secret"])).decode()
        key.write_text(json.dumps({"suite": vector["suite"], "secret": secret}))
        name, code = vector["name"], vector["expect"]
        if "nonce" in vector:
            found = verify(file, "--key", key, "--nonce", vector["nonce"])
            # Those that are whole began with other initdata, or were handed to somebody else.
            whole = {"small": "ok", "acknowledged": "AUDIT_MISSING"}.get(name, "AUDIT_INITDATA")
            assert found == (whole if code == "ok" else code), (name, found)
        else:
            found, facts = innerkeep("audit", "show", file, "--key", key)
            if code == "AUDIT_UNSIGNED":
                assert found == "ok" and not facts["signed"], name
            else:
                assert found == code, (name, found)
        if name == "small":
            _, facts = innerkeep("audit", "explain", file, "--key", key)
            [denial] = facts["denials"]
            assert (denial["endpoint"], denial["code"], denial["count"]) == ("/grpc.AgentService/ExecProcess", "POLICY_ABSENT", 1)
            _, facts = innerkeep("audit", "explain", file)
            assert facts["denials"] == [] and facts["sealed"] > 0, "nothing without the key"
            assert verify(file, "--key", key) == "USAGE", "a file without its nonce"


def keys_are_made(place: Path) -> None:
    for suite, name, length in (("hybrid", "x-wing", 1216), ("classical", "p-384", 97)):
        key = place / f"operator-{suite}"
        code, facts = innerkeep("key", "audit", "--output", key, "--suite", suite)
        assert code == "ok" and facts["suite"] == name, facts
        assert key.stat().st_mode & 0o777 == 0o600
        secret = base64.b64decode(json.loads(key.read_text())["secret"])
        lines = dict(line.split(" = ") for line in Path(f"{key}.toml").read_text().splitlines())
        public = base64.b64decode(lines["key"].strip('"'))
        assert len(public) == length and audit.SUITES[name][1].public(secret) == public
        assert innerkeep("key", "audit", "--output", key)[0] != "ok", "never overwritten"


def an_agent_answers(place: Path) -> None:
    """Without initdata there is no operator: heads leave, and records do not."""
    address = f"unix://{place}/agent.sock"
    agent = subprocess.Popen([PROGRAMS / "innerkeep-agent", "--server-addr", address], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not (place / "agent.sock").exists():
            assert agent.poll() is None and time.monotonic() < until, "the agent did not start"
            time.sleep(0.02)
        with kata.Client(address) as client:
            try:
                client.call("ExecProcess", {"container_id": "a"})
                raise AssertionError("ExecProcess without a policy")
            except kata.RpcError as error:
                assert "is blocked by policy" in str(error), error
            head = client.call("Head", {"nonce": NONCE})
            first = audit.frames(audit.MAGIC + head["genesis"])
            genesis = audit.Audit(first)
            assert genesis.facts["suite"] == 0 and genesis.facts["initdata"] == b""
            parts = audit.Parts(head["head"])
            assert parts.u8() == 1 and parts.take(64) == genesis.digest and parts.sized(64) == NONCE
            assert audit.signed(genesis.facts["key"], b"innerkeep audit head v1" + head["head"][:-96], head["head"][-96:])
            parts.take(8 + 64 + 8)
            assert parts.u64() == 1, "one denial"
        assert verify(address) == "ok"
        # Loud, and only when asked for.
        policy = place / "policy.toml"
        policy.write_text("")
        assert innerkeep("audit", "verify", address, "--no-initdata", "--policy", policy)[0] == "AUDIT_UNATTESTED"
        assert innerkeep("audit", "verify", address, "--no-initdata")[0] == "USAGE"
        assert innerkeep("audit", "show", address)[0] == "AUDIT_REFUSED", "AUDIT_NO_OPERATOR"
    finally:
        agent.terminate()
        agent.wait(30)


def main() -> int:
    vectors = json.loads(VECTORS.read_text())
    failed = 0
    for vector in vectors:
        code, told = outcome(vector)
        if code != vector["expect"] or (code == "ok" and told != vector["records"]):
            failed += 1
            print(f"{vector['name']}: {code} {told}, expected {vector['expect']} {vector.get('records')}", file=sys.stderr)
    assert len(vectors) >= 15, len(vectors)
    # Every bit of a small audit counts: nothing that was altered is read as it was.
    small = next(vector for vector in vectors if vector["name"] == "small")
    good = bytes.fromhex(small["file"])
    for bit in range(8 * len(audit.MAGIC), 8 * len(good), 13):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        if outcome({**small, "file": bad.hex()}) == ("ok", small["records"]):
            failed += 1
            print(f"bit {bit} does not count", file=sys.stderr)
    with tempfile.TemporaryDirectory() as place:
        the_program_says_the_same(vectors, Path(place))
        keys_are_made(Path(place))
        an_agent_answers(Path(place))
    print(f"{len(vectors)} vectors, {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
