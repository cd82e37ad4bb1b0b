"""Initdata: the Python reader against every vector, and both ways against the `innerkeep` program.

Exit status 0: everything passed. The program is `innerkeep` in INNERKEEP_BIN_DIR, else in target/ci.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import initdata
import initdata_vectors

HERE = Path(__file__).resolve().parent
PROGRAM = Path(os.environ.get("INNERKEEP_BIN_DIR", HERE.parents[1] / "target" / "ci")) / "innerkeep"
POLICY = "package agent_policy\n\ndefault AllowRequestsFailingPolicy := false\n# '''\n"


class Failed(Exception):
    pass


def demand(holds: object, what: str) -> None:
    if not holds:
        raise Failed(what)


def innerkeep(*words: object, status: int = 0) -> dict:
    done = subprocess.run([PROGRAM, "--json", *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    if done.returncode != status:
        raise Failed(f"innerkeep {words}: status {done.returncode}, expected {status}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout if status == 0 else done.stderr.splitlines()[-1])


def vectors() -> int:
    file = json.loads((HERE.parent / "vectors" / "initdata" / "vectors.json").read_text())
    for vector in file["vectors"]:
        try:
            document = initdata_vectors.read(vector)
            found = "OK"
            demand((document.algorithm, document.digest.hex()) == (vector["algorithm"], vector["digest"]), vector["name"])
        except initdata.Refused as refused:
            found = refused.code
        demand(found == vector["expected"], f"{vector['name']}: expected {vector['expected']}, found {found}")
    published = file["published"]
    text = published["text"].encode()
    demand(hashlib.sha384(text).hexdigest() == published["sha384"], "published digest")
    demand(initdata.fitted(hashlib.sha384(text).digest(), 32).hex() == published["host_data"], "published register")
    demand(initdata.pcr8(hashlib.sha256(text).digest()).hex() == published["pcr8"], "published PCR 8")
    return len(file["vectors"])


def packed_there_read_here(work: Path) -> None:
    files = work / "files"
    files.mkdir()
    contents = {
        "policy.rego": POLICY,
        "aa.toml": "[innerkeep]\nworkload_evidence = true\n",
        "sealed.toml": initdata_vectors.SEALED,
        "innerkeep.toml": initdata_vectors.REST,
        "audit.toml": f'suite = "x-wing"\nkey = "{initdata_vectors.XWING}"\n',
        "note": "ends in an apostrophe'",
        "odd": "\u0000\u007f\r\n\\ \"\"\" \u00e9",
    }
    for name, text in contents.items():
        (files / name).write_bytes(text.encode())
    for algorithm in initdata.ALGORITHMS:
        annotation, image = work / f"{algorithm}.annotation", work / f"{algorithm}.image"
        said = innerkeep("initdata", "pack", files, "--algorithm", algorithm, "-o", annotation, "--image", image)
        registers = {entry["name"]: entry for entry in said["digest"]["registers"]}
        demand(set(registers) == set(initdata.REGISTERS), f"registers {set(registers)}")
        for name, entry in registers.items():
            value = bytes.fromhex(entry["hex"])
            demand(len(value) == initdata.REGISTERS[name] and base64.b64decode(entry["base64"]) == value, f"form of {name}")
            by_annotation = initdata.bind_annotation(annotation.read_text(), value)
            demand(by_annotation == initdata.bind_device(image.read_bytes(), value), f"{algorithm} in {name}")
            demand(by_annotation.files == contents, f"files of {algorithm}")
            demand(by_annotation.digest.hex() == said["digest"]["hex"], f"digest of {algorithm}")
        pcr8 = initdata.pcr8(bytes.fromhex(said["digest"]["hex"])).hex() if algorithm == "sha256" else None
        demand(said["digest"]["pcr8"] == pcr8, "PCR 8")


def written_here_read_there(work: Path) -> None:
    for algorithm in initdata.ALGORITHMS:
        text = initdata_vectors.document(algorithm, policy_rego=POLICY.replace("'", "")).encode()
        annotation, image = initdata.write(text)
        carriers = {"text": text, "annotation": annotation.encode(), "wrapped": f" {annotation}\n".encode(), "image": image}
        digest = hashlib.new(algorithm, text).digest()
        for name, data in carriers.items():
            (work / name).write_bytes(data)
            shown = innerkeep("initdata", "show", work / name)
            demand(shown["digest"]["hex"] == digest.hex(), f"digest of {name}")
            demand(innerkeep("initdata", "show", "--text", work / name)["text"].encode() == text, f"text of {name}")
            for size in initdata.REGISTERS.values():
                value = initdata.fitted(digest, size)
                for spelled in (value.hex(), base64.b64encode(value).decode()):
                    demand(innerkeep("initdata", "verify", work / name, "--register", spelled)["algorithm"] == algorithm, f"{name}, {size}")
                other = bytes([value[0] ^ 1]) + value[1:]
                error = innerkeep("initdata", "verify", work / name, "--register", other.hex(), status=77)
                demand(error["error"]["code"] == "INITDATA_MISMATCH", f"another register: {error}")


def vectors_there(work: Path) -> None:
    """A few vectors through the program: its codes are those of the page."""
    file = json.loads((HERE.parent / "vectors" / "initdata" / "vectors.json").read_text())
    for vector in file["vectors"]:
        if "device" not in vector or vector["expected"] == "INITDATA_REGISTER":
            continue
        path = work / "device"
        data = base64.b64decode(vector["device"])
        # Without the magic it is no device to the program, but something else.
        if data[:8] != b"initdata" or len(data) < 16:
            continue
        path.write_bytes(data)
        statuses = {"OK": 0, "INITDATA_MISMATCH": 77}
        said = innerkeep("initdata", "verify", path, "--register", vector["register"], status=statuses.get(vector["expected"], 65))
        found = said["error"]["code"] if "error" in said else "OK"
        demand(found == vector["expected"], f"{vector['name']}: expected {vector['expected']}, found {found}")


def main() -> int:
    count = vectors()
    demand(count > 100, "vectors")
    for check in (packed_there_read_here, written_here_read_there, vectors_there):
        with tempfile.TemporaryDirectory() as directory:
            check(Path(directory))
        print(f"ok  {check.__name__}")
    print(f"ok  {count} vectors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
