"""Runs every vector of tests/vectors/artifact with the Python reader. Exit status 0: all pass, and there was at least one."""

import sys
from pathlib import Path

import vectors

if __name__ == "__main__":
    default = Path(__file__).resolve().parents[1] / "vectors" / "artifact"
    sys.exit(0 if vectors.run_all(Path(sys.argv[1]) if len(sys.argv) > 1 else default) else 1)
