"""Starts the chip emulator in a temporary folder and runs chip_session.py against it. Exit status 0: everything passed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import chip_evidence
import chip_session

NAME = "innerkeep-chip-emulator"
ENVIRONMENT = "development"


def emulator() -> Path:
    named = os.environ.get("INNERKEEP_EMULATOR")
    if named:
        return Path(named)
    folder = os.environ.get("INNERKEEP_BIN_DIR")
    return (Path(folder) if folder else Path(__file__).resolve().parents[2] / "target" / "ci") / NAME


class Running:
    """One emulator process; its output goes to a log that is shown when something fails."""

    def __init__(self, work: Path, state: str, *options: str) -> None:
        self.socket = work / f"{state}.sock"
        self.log = work / f"{state}.log"
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [emulator(), "--socket", self.socket, "--state", work / state, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 30
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise SystemExit(f"the emulator does not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


INSECURE = ("--insecure-no-evidence", "--insecure-emulated-dma")


def phase(work: Path, title: str, options: tuple[str, ...], provision: bool, checks: tuple, kept: dict[str, object]) -> bool:
    print(f"-- {title}", flush=True)
    running = Running(work, "chip", *options)
    try:
        passed = chip_session.run(str(running.socket), work / "ca", provision, ENVIRONMENT, checks, kept)
    except Exception as err:
        print(f"FAIL {title}: {type(err).__name__}: {err}")
        passed = False
    finally:
        running.stop()
    if not passed:
        print(f"the emulator's log:\n{running.log.read_text(errors='replace')[-4000:]}")
    return passed


def run(work: Path) -> bool:
    kept: dict[str, object] = {}
    passed = phase(work, "insecure modes allowed", INSECURE, True, chip_session.CHECKS, kept)
    if not kept:
        return False
    passed &= phase(work, "restarted, no insecure mode", (), False, chip_session.SECURE_CHECKS, kept)
    subprocess.run([emulator(), "raise-epoch", "--state", work / "chip"], check=True, stdout=subprocess.DEVNULL)
    passed &= phase(work, "key epoch raised", INSECURE, True, chip_session.EPOCH_CHECKS, kept)
    return passed


def main() -> int:
    if not emulator().is_file():
        print(f"no emulator at {emulator()}: build it, or set INNERKEEP_EMULATOR")
        return 1
    vectors = Path(__file__).resolve().parents[1] / "vectors" / "evidence" / "presentations.json"
    print(f"ok   {chip_evidence.vectors(vectors)} vectors of presentations")
    with tempfile.TemporaryDirectory() as folder:
        return 0 if run(Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
