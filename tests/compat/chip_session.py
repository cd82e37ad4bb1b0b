"""Brings a sealing chip up, provisions it when asked, opens sessions of both suites, has keys released and tries what must be refused.

chip_session.py --socket S --ca DIR [--provision] [--environment TIER] [--evidence-command PROGRAM [--insecure-emulated-tee]]

With --provision a root and a model CA are made and DIR/root.der is written; without it DIR/root.der is what is trusted.
This driver makes no evidence. PROGRAM is run for each session with the 64 bytes of report data in hex as its argument and writes what is
presented (docs/spec/attestation-v1.md §5) to its standard output; without it the chip must be in the insecure mode that does not demand
evidence. What is not permitted is skipped and said.
"""

from __future__ import annotations

import argparse
import os
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec

import artifact
import chip
import chip_evidence
import jcs
import noise
import sealer

FAMILY = "compat/family"
SUITES = ("P-384", "X-Wing")


class Wrong(Exception):
    pass


def equal(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise Wrong(f"{what}: found {found!r}, expected {expected!r}")


def status(done: chip.Completion, expected: str, what: str, detail: int | None = None) -> chip.Completion:
    equal(done.name, expected, what)
    if detail is not None:
        equal(done.detail, detail, f"{what}, detail")
    if done.status:
        equal(done.output, b"", f"{what}, output of a refusal")
    return done


def ends(session: chip.Session, action: Callable[[], object], expected: str, what: str) -> None:
    """The action is answered without authentication, and the session is gone."""
    try:
        action()
    except chip.NotAuthenticated as err:
        equal(err.done.name, expected, what)
    else:
        raise Wrong(f"{what}: authenticated")
    try:
        session.submit(chip.SESSION_STATUS)
    except chip.NotAuthenticated as err:
        equal(err.done.name, "NO_SESSION", f"{what}, afterwards")
    else:
        raise Wrong(f"{what}: the session lives on")


@dataclass
class Bench:
    device: chip.Device
    identity: chip.Identity
    root: bytes
    environment: str
    evidence: Callable[[bytes], bytes] | None = None  # report data to what is presented
    emulated_tee: bool = False
    kept: dict[str, object] = field(default_factory=dict)  # what a later run on the same chip state looks at
    results: list[tuple[str, str]] = field(default_factory=list)

    @property
    def insecure(self) -> int:
        if self.evidence is None:
            return chip.NO_TEE | chip.NO_EVIDENCE
        return chip.EMULATED_TEE if self.emulated_tee else 0

    def evidence_of(self, session: chip.Session) -> bytes:
        return self.evidence(session.report_data) if self.evidence else b""

    def session(self, suites: int = chip.CLASSICAL | chip.HYBRID, path: str = "key-release", insecure: int | None = None) -> chip.Session:
        found = chip.Session(self.device, self.root, path, suites, self.insecure if insecure is None else insecure)
        certified, identity = found.certified, self.identity
        equal(certified.id, identity.id, "certified id")
        equal(certified.epoch, identity.epoch, "certified epoch")
        equal((certified.noise, certified.p384, certified.x_wing), (identity.noise, identity.p384, identity.x_wing), "certified keys")
        equal(certified.environment, self.environment, "certified environment")
        return found

    def seal(self, **how: object) -> sealer.Sealed:
        plain = [("model.bin", "application/octet-stream", os.urandom(150_000)), ("note", "text/plain", b"")]
        return sealer.seal(plain, **{"family": FAMILY, "environment": self.environment, "counter": 5, **how})  # type: ignore[arg-type]

    def policy(self, **changes: object) -> bytes:
        value = jcs.parse(sealer.policy(self.environment, FAMILY, list(chip.PATHS), 1))
        assert isinstance(value, dict)
        value.update(changes)
        return jcs.encode(value)

    def release(
        self, session: chip.Session, sealed: sealer.Sealed, preimage: bytes, suite: str = "P-384", **how: object
    ) -> chip.Completion:
        """PRESENT, then UNWRAP of a grant made for `preimage` (or `bound`)."""
        bound = how.pop("bound", preimage)
        enc, wrapped = sealer.wrap(sealed, suite, self.identity.public(suite), self.identity.id, self.identity.epoch, bound)  # type: ignore[arg-type]
        done = status(session.present(preimage, self.evidence_of(session)), "OK", "PRESENT")
        equal(done.output, artifact.policy_digest(preimage), "policy digest")
        core = how.pop("core", sealed.core)
        epoch = how.pop("epoch", self.identity.epoch)
        return session.unwrap(suite, epoch, core, enc, wrapped, **how)  # type: ignore[arg-type]

    def run(self, name: str, action: Callable[[Bench], str | None]) -> None:
        try:
            skipped = action(self)
        except Exception as err:
            where = traceback.extract_tb(err.__traceback__)
            lines = "/".join(str(frame.lineno) for frame in where if frame.filename == __file__)
            self.results.append((name, "FAIL"))
            print(f"FAIL {name}: {type(err).__name__}: {err} (line {lines})", flush=True)
            try:
                self.device.reset()
            except Exception as again:
                print(f"     and the controller does not come back: {again}", flush=True)
            return
        self.results.append((name, "skip" if skipped else "ok"))
        print(f"skip {name}: {skipped}" if skipped else f"ok   {name}", flush=True)


# ------------------------------------------------------------------------------------------------------------- checks
def controller(bench: Bench) -> str | None:
    device = bench.device
    cap = device.cap
    equal(cap >> 16 & 0xF, 2, "queue pairs")
    if cap & 0xFFFF < 2:
        raise Wrong("largest queue size")
    equal(device.client.region_size(0), 16_384, "size of BAR0")
    equal(device.register(0x00C) << 32 | device.register(0x008), cap, "CAP read again")
    status(device.command(0x7F), "BAD_OPCODE", "unknown opcode")
    status(device.command(chip.IDENTIFY, reserved=b"\1" + bytes(23)), "BAD_FIELD", "reserved bytes of an entry")
    status(device.command(chip.IDENTIFY, flags=1), "BAD_FIELD", "flags of an entry")
    status(device.command(chip.IDENTIFY, b"x"), "BAD_LENGTH", "input where none belongs")
    entry = device.entry(0, chip.IDENTIFY, 0, 0, 65_536)
    unmapped = entry[:24] + struct.pack("<Q", 0x9_0000_0000) + entry[32:]
    status(device.execute(0, unmapped, b""), "DMA_FAULT", "output to memory that is not mapped")
    for _ in range(3 * device.entries):
        status(device.command(chip.IDENTIFY), "OK", "IDENTIFY around the ring")
    return None


def doorbell_out_of_range(bench: Bench) -> str | None:
    device = bench.device
    device.set_register(0x1000, device.entries)
    equal(device.status() & 2, 2, "FATAL")
    equal(chip.STATUS.get(device.register(0x018)), "BAD_FIELD", "FATAL_CODE")
    device.reset()
    status(device.command(chip.IDENTIFY), "OK", "IDENTIFY after the reset")
    return None


def chain(bench: Bench) -> str | None:
    found = status(bench.device.command(chip.CHAIN), "OK", "CHAIN")
    certified = chip.verify_chain(bench.root, chip.read_chain(found.output))
    equal(certified.id, bench.identity.id, "id")
    stranger = chip.Authority()
    try:
        chip.verify_chain(stranger.root, chip.read_chain(found.output))
    except chip.DeviceFault:
        return None
    raise Wrong("a stranger's root verifies the chain")


def second_provisioning(bench: Bench) -> str | None:
    other = chip.Authority()
    leaf = other.leaf(bench.identity, bench.environment, bench.identity.epoch)
    record = chip.provision_input(bench.environment, bench.identity.epoch, [other.model, leaf], other.root)
    status(bench.device.command(chip.PROVISION, record), "ALREADY_PROVISIONED", "PROVISION again")
    return None


def handshake_refusals(bench: Bench) -> str | None:
    device = bench.device
    done = device.command(chip.FINISH, bytes(100), session=0x7FFFFFFF)
    equal(done.status != 0, True, "FINISH of no session is refused")
    for path, suites, flags in (("key-release", 0, 3), ("key-release", 4, 3), ("key-release", 3, 1 << 7), ("key-release", 3, chip.EMULATED_CHIP)):
        try:
            bench.session(suites, path, flags)
        except chip.HandshakeRefused:
            continue
        raise Wrong(f"OPEN with suites {suites} and flags {flags} is not refused")
    return None


def session_of(suites: int) -> Callable[[Bench], str | None]:
    def check(bench: Bench) -> str | None:
        session = bench.session(suites)
        equal(session.chip_insecure & chip.EMULATED_CHIP, chip.EMULATED_CHIP if bench.identity.flags & 2 else 0, "emulated chip")
        found = status(session.submit(chip.SESSION_STATUS), "OK", "STATUS")
        left, submissions, epoch, handles, zero = struct.unpack("<QQQII", found.output)
        equal((left, epoch, handles, zero), (2**40, bench.identity.epoch, 0, 0), "STATUS")
        if not 2**32 - 2 <= submissions <= 2**32:
            raise Wrong(f"submissions left: {submissions}")
        session.floors()
        sealed = bench.seal()
        for suite in SUITES:
            done = bench.release(session, sealed, bench.policy(), suite)
            if suite == "X-Wing" and session.suite == chip.CLASSICAL:
                status(done, "SUITE", "X-Wing grant in a classical session")
            else:
                equal(status(done, "OK", f"UNWRAP {suite}").output, sealed.content_key, "content key")
        status(session.submit(chip.CLOSE), "OK", "CLOSE")
        try:
            session.submit(chip.SESSION_STATUS)
        except chip.NotAuthenticated as err:
            equal(err.done.name, "NO_SESSION", "after CLOSE")
        else:
            raise Wrong("a closed session answers")
        return None

    return check


def released_key_opens(bench: Bench) -> str | None:
    """From the released key to the plaintext, with the reader of this folder."""
    session, sealed = bench.session(), bench.seal()
    key = status(bench.release(session, sealed, bench.policy()), "OK", "UNWRAP").output
    core = artifact.read_core(sealed.core)
    artifact.check_commitments(core, key)
    for payload in core.payloads:
        index = payload.index
        for _ in artifact.open_payload(core, key, index, sealed.payloads[index], sealed.tags[index]):
            pass
    return None


def binding(bench: Bench) -> str | None:
    session, sealed, policy = bench.session(), bench.seal(), bench.policy()
    other = bench.policy(min_counter=2)
    status(bench.release(session, sealed, other, bound=policy), "UNWRAP_FAILED", "another policy")
    status(bench.release(session, sealed, policy, epoch=bench.identity.epoch + 1), "EPOCH", "a later epoch")
    status(bench.release(session, sealed, policy, epoch=0), "EPOCH", "epoch 0")
    changed = sealed.core.replace(b'"counter":5', b'"counter":6')
    status(bench.release(session, sealed, policy, core=changed), "UNWRAP_FAILED", "another core")
    status(bench.release(session, sealed, policy, core=sealed.core + b" "), "CORE_MALFORMED", "a core with a blank")
    status(bench.release(session, sealed, policy, core=b"{}"), "CORE_MALFORMED", "an empty core")
    identity = bench.identity
    for suite in SUITES:
        public = identity.public(suite)
        enc, wrapped = sealer.wrap(sealed, suite, public, identity.id, identity.epoch, policy)
        flipped = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
        status(session.unwrap(suite, identity.epoch, sealed.core, enc, flipped), "UNWRAP_FAILED", f"a flipped bit, {suite}")
        spoiled = bytes([enc[0], enc[1] ^ 1]) + enc[2:]
        status(session.unwrap(suite, identity.epoch, sealed.core, spoiled, wrapped), "UNWRAP_FAILED", f"a spoiled enc, {suite}")
        enc, wrapped = sealer.wrap(sealed, suite, public, os.urandom(32), identity.epoch, policy)
        status(session.unwrap(suite, identity.epoch, sealed.core, enc, wrapped), "UNWRAP_FAILED", f"another recipient id, {suite}")
        enc, wrapped = sealer.wrap(sealed, suite, public, identity.id, identity.epoch + 1, policy)
        status(session.unwrap(suite, identity.epoch, sealed.core, enc, wrapped), "UNWRAP_FAILED", f"another epoch inside, {suite}")
    wrong_key = sealer.Sealed(sealed.core, os.urandom(32), [], [], None)
    status(bench.release(session, wrong_key, policy), "COMMITMENT_MISMATCH", "a content key that is not the core's")
    equal(status(bench.release(session, sealed, policy), "OK", "after the refusals").output, sealed.content_key, "content key")
    return None


def policies(bench: Bench) -> str | None:
    session, sealed = bench.session(), bench.seal()
    identity = bench.identity
    enc, wrapped = sealer.wrap(sealed, "P-384", identity.p384, identity.id, identity.epoch, bench.policy())
    done = session.unwrap("P-384", identity.epoch, sealed.core, enc, wrapped)
    status(done, "POLICY_MALFORMED", "UNWRAP before PRESENT")
    text = bench.policy()
    for bad in (b"", b"{}", text + b"\n", text.replace(b'"min_counter":1', b'"min_counter":-1')):
        done = session.present(bad)
        if done.status == 0:
            done = session.unwrap("P-384", identity.epoch, sealed.core, enc, wrapped)
        status(done, "POLICY_MALFORMED", f"malformed preimage {bad[:20]!r}")
    status(session.present(text, bench.evidence_of(session)), "OK", "PRESENT")
    status(session.present(b"{}"), "POLICY_MALFORMED", "PRESENT of something else")
    done = session.unwrap("P-384", identity.epoch, sealed.core, enc, wrapped)
    equal(status(done, "OK", "a refused PRESENT changes nothing").output, sealed.content_key, "content key")
    for rule, changes in (
        (1, {"environment": {"exactly": "elsewhere"}}),
        (3, {"family": {"exactly": "another/family"}}),
        (4, {"link_mode": {"exactly": "dma-direct"}}),
        (5, {"min_counter": 6}),
    ):
        status(bench.release(session, sealed, bench.policy(**changes)), "POLICY_DENIED", f"rule {rule}", rule)
    elsewhere = bench.seal(environment="elsewhere")
    done = bench.release(session, elsewhere, bench.policy(environment={"exactly": "elsewhere"}))
    status(done, "POLICY_DENIED", "the chip's own tier", 2)
    both = bench.policy(environment={"one_of": sorted((bench.environment, "elsewhere"))})
    equal(status(bench.release(session, elsewhere, both), "OK", "both tiers").output, elsewhere.content_key, "content key")
    every = bench.policy(environment="any", family="any", link_mode="any", min_counter=0)
    equal(status(bench.release(session, sealed, every), "OK", "a policy of any").output, sealed.content_key, "content key")
    opaque = jcs.encode({"@type": "innerkeep opaque policy v1", "bytes": sealer.b64(b"whatever")})
    equal(status(bench.release(session, sealed, opaque), "OK", "an opaque policy").output, sealed.content_key, "content key")
    demanding = bench.policy(
        evidence={
            "certificate_chain": "any",
            "debug": {"exactly": False},
            "initdata": {"exactly": "00" * 32},
            "tdx": {
                "min_pck_crl_number": 1,
                "min_root_crl_number": 1,
                "min_tcb_evaluation": 1,
                "min_tee_tcb_svn": "01" * 16,
                **{name: {"exactly": "11" * 48} for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")},
            },
            "unsigned_manifest": "any",
        }
    )
    expected = "EVIDENCE_REFUSED" if bench.evidence else "EVIDENCE_REQUIRED"
    status(bench.release(session, sealed, demanding), expected, "a policy that demands other evidence than there is")
    return None


def evidence_refusals(bench: Bench) -> str | None:
    """The envelope, and evidence that nobody signed. Whatever mode the chip is in, what is presented is verified."""
    session, sealed, policy = bench.session(), bench.seal(), bench.policy()
    before = session.floors()
    status(session.present(policy, bench.evidence_of(session)), "OK", "PRESENT")
    quote = chip_evidence.Tdx(b"no quote", "{}").encode()
    report = chip_evidence.Snp(bytes(1184), chip_evidence.VCEK, b"no certificate").encode()
    for presented, detail, what in (
        (b"\0", "malformed", "one byte"),
        (b"\2\0" + quote[2:], "unsupported", "another version"),
        (b"\1\0\3\0" + quote[4:], "unsupported", "another kind"),
        (quote + b"\0", "trailing_bytes", "a byte behind"),
        (quote[:4] + b"\xff\xff\xff\xff", "too_large", "a length above every cap"),
        (report, "unsupported", "a report of zeros"),
    ):
        done = status(session.present(policy, presented), "EVIDENCE_REFUSED", what)
        equal(chip_evidence.DETAILS.get(done.detail), detail, f"{what}, detail")
    done = status(session.present(policy, quote), "EVIDENCE_REFUSED", "no quote")
    equal(done.detail in chip_evidence.DETAILS and done.detail < 0x100, True, "no quote: a detail of verification")
    done = session.submit(chip.PRESENT, chip.lp(bytes(262_145)) + chip.lp(policy))
    status(done, "BAD_LENGTH", "evidence above the cap")
    equal(session.floors(), before, "a refusal raises no floor")
    enc, wrapped = sealer.wrap(sealed, "P-384", bench.identity.p384, bench.identity.id, bench.identity.epoch, policy)
    done = session.unwrap("P-384", bench.identity.epoch, sealed.core, enc, wrapped)
    equal(status(done, "OK", "a refused PRESENT changes nothing").output, sealed.content_key, "content key")
    return None


def insecure_flags(bench: Bench) -> str | None:
    """No evidence counts only where the guest says so too, and an emulated TEE only where the chip believes one."""
    if bench.evidence is None:
        session = bench.session(insecure=chip.NO_TEE)
        done = bench.release(session, bench.seal(), bench.policy())
        status(done, "EVIDENCE_REQUIRED", "no evidence of a guest that does not say so")
    believes = bool(bench.identity.flags & 16)
    try:
        session = bench.session(insecure=bench.insecure | chip.EMULATED_TEE)
    except chip.HandshakeRefused as err:
        equal((err.done.name, believes), ("INSECURE_REFUSED", False), "a guest with an emulated TEE")
    else:
        equal(believes, True, "a guest with an emulated TEE is accepted")
        equal(session.chip_insecure & chip.EMULATED_TEE, chip.EMULATED_TEE, "the chip says what it believes")
    return None


def evidence_of_another_session(bench: Bench) -> str | None:
    if bench.evidence is None:
        return "this driver has no evidence"
    former, session = bench.session(), bench.session()
    done = session.present(bench.policy(), bench.evidence_of(former))
    status(done, "EVIDENCE_REFUSED", "evidence of another session", 0x101)
    return None


def signatures_and_floors(bench: Bench) -> str | None:
    key, stranger = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    spki = sealer.spki(key)
    session, policy = bench.session(), bench.policy()

    def signed(sealed: sealer.Sealed, by: ec.EllipticCurvePrivateKey = key) -> bytes:
        return sealer.ecdsa(by, artifact.signed_message(sealed.digest))

    new, old = bench.seal(sealer=key, counter=9), bench.seal(sealer=key, counter=8)
    done = bench.release(session, old, policy, key=spki, signature=signed(old, stranger))
    status(done, "SIGNATURE_INVALID", "signed by a stranger")
    done = bench.release(session, old, policy, key=sealer.spki(stranger), signature=signed(old, stranger))
    status(done, "SIGNATURE_INVALID", "another key than the core's sealer")
    done = bench.release(session, old, policy, key=spki, signature=signed(old))
    equal(status(done, "OK", "counter 8").output, old.content_key, "content key")
    done = bench.release(session, new, policy, key=spki, signature=signed(new))
    equal(status(done, "OK", "counter 9").output, new.content_key, "content key")
    status(bench.release(session, old, policy, key=spki, signature=signed(old)), "ROLLBACK", "counter 8 again")
    status(bench.release(session, old, policy), "ROLLBACK", "counter 8 again, signature left out")
    floors, series = session.floors()
    equal((artifact.sha256(spki), FAMILY.encode(), 9) in floors, True, "the floor is listed")
    equal(bool(series), bench.evidence is not None, "series of collateral are listed where evidence was accepted, and only there")
    bench.kept["below the floor"] = old
    bench.kept["epoch"] = bench.identity.epoch
    bench.kept["id"] = bench.identity.id
    fresh, identity = bench.seal(), bench.identity
    former = [(suite, *sealer.wrap(fresh, suite, identity.public(suite), identity.id, identity.epoch, policy)) for suite in SUITES]
    bench.kept["former grants"] = (fresh, policy, former)
    bench.device.reset()
    session = bench.session()
    status(bench.release(session, old, policy), "ROLLBACK", "counter 8 after a controller reset")
    return None


def replay(bench: Bench) -> str | None:
    session = bench.session()
    entry, data = session.seal(0, chip.SESSION_STATUS, b"", 4096, 1)
    session.seq[0] = 2
    status(session.send(0, entry, data, 1), "OK", "first time")
    ends(session, lambda: session.send(0, entry, data, 1), "SEQUENCE", "the same submission again")
    session = bench.session()
    entry, data = session.seal(0, chip.SESSION_STATUS, b"", 4096, 2)
    ends(session, lambda: session.send(0, entry, data, 2), "SEQUENCE", "a skipped sequence number")
    session = bench.session()
    entry, data = session.seal(0, chip.SESSION_STATUS, b"", 4096, 1)
    ends(session, lambda: session.send(0, entry, data[:-1] + bytes([data[-1] ^ 1]), 1), "AUTH", "a flipped tag bit")
    session = bench.session()
    for what, queue, opcode in (("an unknown opcode", 0, 0x2F), ("UNSEAL on queue 0", 0, chip.UNSEAL), ("UNWRAP on queue 1", 1, chip.UNWRAP)):
        try:
            session.submit(opcode, queue=queue)
        except chip.NotAuthenticated as err:
            equal(err.done.name, "BAD_OPCODE", what)
            session.seq[queue] -= 1
        else:
            raise Wrong(f"{what} is authenticated")
    status(session.submit(chip.SESSION_STATUS), "OK", "a refused opcode uses up no sequence number")
    status(session.submit(chip.SESSION_STATUS, cap=8), "BAD_LENGTH", "output that does not fit")
    session = bench.session()
    entry, data = session.seal(0, chip.SESSION_STATUS, b"", 4096, 1)
    other = bytes([chip.FLOORS]) + entry[1:]
    ends(session, lambda: session.send(0, other, data, 1), "AUTH", "another opcode")
    one, two = bench.session(), bench.session()
    entry, data = one.seal(0, chip.SESSION_STATUS, b"", 4096, 1)
    moved = entry[:4] + struct.pack("<I", two.id) + entry[8:]
    ends(two, lambda: two.send(0, moved, data, 1), "AUTH", "a submission of another session")
    status(one.submit(chip.SESSION_STATUS), "OK", "the other session is untouched")
    return None


def reset_ends_sessions(bench: Bench) -> str | None:
    for how in (bench.device.reset, lambda: status(bench.device.command(chip.ZEROIZE), "OK", "ZEROIZE")):
        session = bench.session()
        status(session.submit(chip.SESSION_STATUS), "OK", "before")
        how()
        try:
            session.submit(chip.SESSION_STATUS)
        except chip.NotAuthenticated as err:
            equal(err.done.name, "NO_SESSION", "afterwards")
        else:
            raise Wrong("a session survives")
    return None


def session_limit(bench: Bench) -> str | None:
    bench.device.reset()
    sessions = [bench.session(chip.CLASSICAL) for _ in range(8)]
    equal(len({session.id for session in sessions}), 8, "different session ids")
    try:
        bench.session(chip.CLASSICAL)
    except chip.HandshakeRefused as err:
        equal(err.done.name, "NO_RESOURCES", "the ninth session")
    else:
        raise Wrong("a ninth session")
    status(sessions[3].submit(chip.CLOSE), "OK", "CLOSE")
    sessions[3] = bench.session(chip.CLASSICAL)
    for session in sessions:
        status(session.submit(chip.CLOSE), "OK", "CLOSE")
    return None


SOURCE = chip.DATA
TARGET = chip.DATA + 0x200_000
IOVA = 0x1_0000_0000


def _handle(bench: Bench, session: chip.Session, sealed: sealer.Sealed) -> int:
    done = status(bench.release(session, sealed, bench.policy()), "OK", "UNWRAP")
    equal(len(done.output), 4, "length of the handle")
    return int.from_bytes(done.output, "little")


def _tags(bench: Bench, session: chip.Session, handle: int, payload: int, tags: bytes) -> chip.Completion:
    bench.device.memory.write(SOURCE, tags)
    ranges = chip.scatter((IOVA + SOURCE, len(tags))) if tags else chip.scatter()
    return session.submit(chip.LOAD_TAGS, struct.pack("<II", handle, payload) + ranges)


def _unseal(session: chip.Session, handle: int, payload: int, first: int, count: int, length: int, target: int = TARGET) -> chip.Completion:
    half = length // 2
    head = struct.pack("<IIQII", handle, payload, first, count, 0)
    source = chip.scatter((IOVA + SOURCE, half), (IOVA + SOURCE + half, length - half))
    return session.submit(chip.UNSEAL, head + source + chip.scatter((IOVA + target, length)), queue=1)


def dma_sealed(bench: Bench) -> str | None:
    if not bench.identity.paths & chip.PATHS["dma-sealed"]:
        return "the chip has no such path"
    session, sealed = bench.session(path="dma-sealed"), bench.seal()
    memory, size = bench.device.memory, 65_536
    blob, tags = sealed.payloads[0], sealed.tags[0]
    plain = b"".join(artifact.open_payload(artifact.read_core(sealed.core), sealed.content_key, 0, blob, tags))
    handle = _handle(bench, session, sealed)
    memory.write(SOURCE, blob)
    status(_unseal(session, handle, 0, 0, 1, size), "TAGS_NOT_LOADED", "UNSEAL before LOAD_TAGS")
    status(_unseal(session, handle + 1, 0, 0, 1, size), "NO_HANDLE", "another handle")
    status(_tags(bench, session, handle, 0, bytes([tags[0] ^ 1]) + tags[1:]), "TAGS_MISMATCH", "a flipped bit in the tag table")
    status(_tags(bench, session, handle, 0, tags), "OK", "LOAD_TAGS")
    memory.write(SOURCE, blob)
    counters = []
    for first, count in ((0, 2), (2, 1)):
        start, length = first * size, min(count * size, len(blob) - first * size)
        memory.write(SOURCE, blob[start : start + length])
        done = status(_unseal(session, handle, 0, first, count, length), "OK", "UNSEAL")
        equal(len(done.output), 8 + 16 * count, "output of UNSEAL")
        counter = int.from_bytes(done.output[:8], "little")
        for i in range(count):
            counters.append(counter + i)
            part = memory.read(TARGET + i * size, min(size, length - i * size))
            tag = done.output[8 + 16 * i : 24 + 16 * i]
            opened = session.open_bulk(1, counter + i, 0, first + i, part + tag)
            equal(opened, plain[start + i * size : start + i * size + len(part)], "plaintext of a segment")
            try:
                session.open_bulk(1, counter + i + 1, 0, first + i, part + tag)
            except InvalidTag:
                continue
            raise Wrong("a segment opens under another counter")
    equal(counters, [0, 1, 2], "bulk counters")
    memory.write(SOURCE, bytes([blob[0] ^ 1]) + blob[1:size])
    status(_unseal(session, handle, 0, 0, 1, size), "SEGMENT_AUTH", "a flipped bit in a segment", 0)
    memory.write(SOURCE, blob[size : 2 * size])
    status(_unseal(session, handle, 0, 0, 1, size), "SEGMENT_AUTH", "segments exchanged", 0)
    status(_unseal(session, handle, 0, 0, 1, size, target=chip._SIZE), "DMA_FAULT", "a target that is not mapped")
    status(session.submit(chip.REGISTER, chip.scatter((IOVA + TARGET, 4096))), "PATH", "REGISTER in dma-sealed")
    other = bench.session(path="dma-sealed")
    status(_tags(bench, other, handle, 0, tags), "NO_HANDLE", "a handle of another session")
    other = bench.session()
    status(_tags(bench, other, 0, 0, tags), "PATH", "LOAD_TAGS in key-release")
    left = struct.unpack("<QQQII", status(session.submit(chip.SESSION_STATUS), "OK", "STATUS").output)
    equal(left[3], 1, "live handles")
    return None


def dma_direct(bench: Bench) -> str | None:
    if not bench.identity.flags & 8 and bench.device.status() >> 8 & 0xF != 2:
        return "neither TDISP state RUN nor emulated private DMA"
    session = bench.session(path="dma-direct", insecure=bench.insecure | chip.EMULATED_DMA)
    sealed, memory, size = bench.seal(), bench.device.memory, 65_536
    blob, tags = sealed.payloads[0], sealed.tags[0]
    plain = b"".join(artifact.open_payload(artifact.read_core(sealed.core), sealed.content_key, 0, blob, tags))
    handle = _handle(bench, session, sealed)
    status(_tags(bench, session, handle, 0, tags), "OK", "LOAD_TAGS")
    memory.write(SOURCE, blob)
    status(_unseal(session, handle, 0, 0, 3, len(blob)), "RANGE", "no destination registered")
    register = chip.scatter((IOVA + TARGET, len(blob)))
    status(session.submit(chip.REGISTER, register), "OK", "REGISTER")
    done = status(_unseal(session, handle, 0, 0, 3, len(blob)), "OK", "UNSEAL")
    equal(done.output, b"", "output of UNSEAL")
    equal(memory.read(TARGET, len(blob)), plain, "plaintext at the destination")
    status(_unseal(session, handle, 0, 0, 1, size, target=TARGET + 0x100_000), "RANGE", "outside the registered ranges")
    memory.write(TARGET, b"\xaa" * len(blob))
    spoiled = bytearray(blob)
    spoiled[size] ^= 1
    memory.write(SOURCE, bytes(spoiled))
    status(_unseal(session, handle, 0, 0, 3, len(blob)), "SEGMENT_AUTH", "a flipped bit in segment 1", 1)
    left = memory.read(TARGET, len(blob))
    equal(any(left[i : i + 64] == plain[i : i + 64] for i in range(0, len(blob), 64)), False, "plaintext is left behind")
    status(session.submit(chip.CLOSE), "OK", "CLOSE")
    return None


def secure_mode(bench: Bench) -> str | None:
    """The same chip state, started without any insecure mode."""
    identity = bench.identity
    equal(identity.flags & 0b11100, 0, "insecure modes in the identity record")
    equal(identity.id, bench.kept["id"], "id after a restart")
    for flags in (chip.NO_EVIDENCE, chip.EMULATED_DMA, chip.EMULATED_TEE, chip.NO_TEE | chip.NO_EVIDENCE):
        try:
            bench.session(insecure=flags)
        except chip.HandshakeRefused as err:
            equal(err.done.name, "INSECURE_REFUSED", f"guest flags {flags}")
        else:
            raise Wrong(f"guest flags {flags} are accepted")
    if bench.device.status() >> 8 & 0xF != 2:
        try:
            bench.session(path="dma-direct", insecure=0)
        except chip.HandshakeRefused as err:
            equal(err.done.name, "PATH", "dma-direct outside RUN")
        else:
            raise Wrong("dma-direct outside RUN is accepted")
    session = bench.session(insecure=chip.NO_TEE)
    sealed = bench.seal()
    status(bench.release(session, sealed, bench.policy()), "EVIDENCE_REQUIRED", "no evidence")
    old = bench.kept["below the floor"]
    assert isinstance(old, sealer.Sealed)
    status(bench.release(session, old, bench.policy()), "ROLLBACK", "the floor after a restart")
    return None


def raised_epoch(bench: Bench) -> str | None:
    """The same chip state after its key epoch was raised and it was provisioned again."""
    identity = bench.identity
    before = bench.kept["epoch"]
    equal((identity.id, identity.epoch), (bench.kept["id"], before + 1), "id and epoch")  # type: ignore[operator]
    sealed, policy, former = bench.kept["former grants"]  # type: ignore[misc]
    session = bench.session()
    status(session.present(policy, bench.evidence_of(session)), "OK", "PRESENT")
    for suite, enc, wrapped in former:
        status(session.unwrap(suite, before, sealed.core, enc, wrapped), "EPOCH", f"a former grant, {suite}")  # type: ignore[arg-type]
        relabelled = session.unwrap(suite, identity.epoch, sealed.core, enc, wrapped)
        status(relabelled, "UNWRAP_FAILED", f"a former grant under the new epoch, {suite}")
        done = status(bench.release(session, sealed, policy, suite), "OK", f"a new grant, {suite}")
        equal(done.output, sealed.content_key, "content key")
    old = bench.kept["below the floor"]
    assert isinstance(old, sealer.Sealed)
    status(bench.release(session, old, policy), "ROLLBACK", "the floor stays")
    return None


SECURE_CHECKS = (("secure mode", secure_mode),)
EPOCH_CHECKS = (("raised epoch", raised_epoch),)
CHECKS: tuple[tuple[str, Callable[[Bench], str | None]], ...] = (
    ("controller and rings", controller),
    ("doorbell out of range", doorbell_out_of_range),
    ("certificate chain", chain),
    ("second provisioning refused", second_provisioning),
    ("handshake refusals", handshake_refusals),
    ("session, classical", session_of(chip.CLASSICAL)),
    ("session, hybrid", session_of(chip.HYBRID)),
    ("session, both offered", session_of(chip.CLASSICAL | chip.HYBRID)),
    ("released key opens the artifact", released_key_opens),
    ("grants are bound", binding),
    ("policy", policies),
    ("evidence refused", evidence_refusals),
    ("evidence of another session", evidence_of_another_session),
    ("insecure flags", insecure_flags),
    ("signatures and floors", signatures_and_floors),
    ("replay and forgery", replay),
    ("reset and zeroize end sessions", reset_ends_sessions),
    ("session limit", session_limit),
    ("path dma-sealed", dma_sealed),
    ("path dma-direct", dma_direct),
)


def identify(device: chip.Device) -> chip.Identity:
    return chip.read_identity(status(device.command(chip.IDENTIFY), "OK", "IDENTIFY").output)


def provision(device: chip.Device, environment: str) -> bytes:
    """Provisions after trying what must be refused; the root's DER."""
    identity = identify(device)
    equal(identity.provisioned, False, "provisioned already")
    authority = chip.Authority()
    hello = noise.Handshake(chip.PROLOGUE).write_1(chip.hello(chip.CLASSICAL, "key-release", chip.NO_TEE))
    status(device.command(chip.OPEN, hello), "NOT_PROVISIONED", "OPEN before PROVISION")
    status(device.command(chip.CHAIN), "NOT_PROVISIONED", "CHAIN before PROVISION")
    for what, changes in (
        ("another id", {"id": "00" * 32}),
        ("another environment", {"environment": "elsewhere"}),
        ("another epoch", {"key_epoch": identity.epoch + 1}),
        ("another Noise key", {"noise": "09" * 32}),
        ("another X-Wing key", {"x_wing": sealer.b64(bytes(1216))}),
    ):
        leaf = authority.leaf(identity, environment, identity.epoch, changes)
        record = chip.provision_input(environment, identity.epoch, [authority.model, leaf], authority.root)
        status(device.command(chip.PROVISION, record), "BAD_FIELD", f"PROVISION with {what}")
    leaf = authority.leaf(identity, environment, identity.epoch)
    chain = [authority.model, leaf]
    for count in (0, 2, 3, 5):
        record = chip.provision_input(environment, identity.epoch, chain, authority.root, (0,) * count)
        status(device.command(chip.PROVISION, record), "BAD_LENGTH", f"PROVISION with {count} minimums")
    record = chip.provision_input(environment, identity.epoch, chain, authority.root)
    status(device.command(chip.PROVISION, record), "OK", "PROVISION")
    after = identify(device)
    equal((after.provisioned, after.environment, after.id), (True, environment, identity.id), "identity after PROVISION")
    return authority.root


def run(
    socket: str,
    ca: Path,
    make_ca: bool,
    environment: str,
    checks: tuple[tuple[str, Callable[[Bench], str | None]], ...] = CHECKS,
    kept: dict[str, object] | None = None,
    evidence: Callable[[bytes], bytes] | None = None,
    emulated_tee: bool = False,
) -> bool:
    device = chip.Device(socket)
    try:
        if make_ca:
            root = provision(device, environment)
            ca.mkdir(parents=True, exist_ok=True)
            (ca / "root.der").write_bytes(root)
            print("ok   provisioned")
        root = chip.load_root(ca)
        bench = Bench(device, identify(device), root, environment, evidence, emulated_tee, {} if kept is None else kept)
        equal(bench.identity.environment, environment, "environment of the chip")
        for name, action in checks:
            bench.run(name, action)
    finally:
        device.close()
    count = {word: sum(result == word for _, result in bench.results) for word in ("ok", "skip", "FAIL")}
    print(f"{count['ok']} passed, {count['FAIL']} failed, {count['skip']} skipped")
    return count["FAIL"] == 0 and count["ok"] > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--provision", action="store_true")
    parser.add_argument("--environment", default="development")
    parser.add_argument("--evidence-command")
    parser.add_argument("--insecure-emulated-tee", action="store_true")
    args = parser.parse_args()
    program = args.evidence_command
    evidence = program and (lambda data: subprocess.run([program, data.hex()], check=True, stdout=subprocess.PIPE).stdout)
    passed = run(args.socket, args.ca, args.provision, args.environment, evidence=evidence, emulated_tee=args.insecure_emulated_tee)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
