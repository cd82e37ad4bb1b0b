"""`innerkeep kbs get` against the server of this folder: every kind of key, errors of the protocol, a broker that fails first.

Runs `innerkeep` of `INNERKEEP_BIN_DIR`, else of `target/ci`. Exit status 0 only if everything passed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAM = Path(os.environ.get("INNERKEEP_BIN_DIR", "target/ci")) / "innerkeep"
SERVER = Path(__file__).with_name("kbs_server.py")
SECRET = bytes(range(256)) * 3
REFUSED, CONFIG = 77, 78


@contextlib.contextmanager
def server(*flags: str) -> Iterator[str]:
    """The server with one resource."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "r/repo/type").mkdir(parents=True)
        (place / "r/repo/type/tag").write_bytes(SECRET)
        command = [sys.executable, str(SERVER), "--port-file", str(place / "port"), "--resources", str(place / "r")]
        process = subprocess.Popen([*command, *flags, "--exit-with-stdin"], stdin=subprocess.PIPE)
        try:
            end = time.monotonic() + 60
            while not (place / "port").is_file() or not (place / "port").read_text().strip():
                assert process.poll() is None and time.monotonic() < end, "the server does not listen"
                time.sleep(0.02)
            yield f"http://127.0.0.1:{(place / 'port').read_text().strip()}"
        finally:
            process.kill()
            process.wait()


def get(url: str, *flags: str) -> tuple[int, bytes, str]:
    """Exit status, standard output, error code."""
    command = [str(PROGRAM), "kbs", "get", "kbs:///repo/type/tag", "--kbs", url, *flags]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    last = done.stderr.decode().strip().splitlines()[-1:]
    return done.returncode, done.stdout, last[0].rsplit("[", 1)[-1].rstrip("]") if last else ""


def check_every_kind_of_key() -> None:
    with server("--allow-sample", "--policy", "allow-all") as url:
        for key in ("p256", "p521", "rsa", "ml-kem768"):
            status, secret, said = get(url, "--insecure-sample", "--kbs-key", key)
            assert (status, secret) == (0, SECRET), (key, said)


def check_refusals() -> None:
    with server("--allow-sample") as url:
        assert get(url, "--insecure-sample") == (REFUSED, b"", "KBS_REFUSED_POLICY")
        status, secret, code = get(url)
        assert (status, secret, code) == (CONFIG, b"", "ATTEST_NO_TEE")
    with server("--policy", "allow-all") as url:
        status, secret, code = get(url, "--insecure-sample")
        assert (status, secret) == (REFUSED, b"") and code.startswith("KBS_REFUSED_"), code


def check_json_of_a_failure() -> None:
    with server("--allow-sample") as url:
        command = [str(PROGRAM), "--json", "kbs", "get", "kbs:///repo/type/tag", "--kbs", url, "--insecure-sample"]
        with tempfile.TemporaryDirectory() as name:
            output = Path(name) / "resource"
            done = subprocess.run([*command, "--output", str(output)], capture_output=True, timeout=120, check=False)
            error = json.loads(done.stderr.decode().strip().splitlines()[-1])["error"]
            assert (done.returncode, error["code"], output.exists()) == (REFUSED, "KBS_REFUSED_POLICY", False), error


def main() -> int:
    if not PROGRAM.is_file():
        print(f"FAIL {PROGRAM} does not exist")
        return 1
    for check in (check_every_kind_of_key, check_refusals, check_json_of_a_failure):
        start = time.monotonic()
        check()
        print(f"ok {check.__name__} {time.monotonic() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
