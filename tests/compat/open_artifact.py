"""Opens a sealed artifact: an OCI image layout folder or a .sealed file.

open_artifact.py SOURCE --content-key-hex HEX --out FILE          one payload (--payload NAME when there are several)
open_artifact.py SOURCE --recipient-suite P-384 --recipient-secret-hex HEX --recipient-id HEX --recipient-epoch N --out FILE
open_artifact.py --vectors DIR                                    run vectors

Without --pin-core or --pin-sealer the origin is not checked, and that is said.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import artifact
import vectors
from refused import Refused


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--tag")
    parser.add_argument("--content-key-hex")
    parser.add_argument("--recipient-suite", choices=("P-384", "X-Wing"))
    parser.add_argument("--recipient-secret-hex")
    parser.add_argument("--recipient-id")
    parser.add_argument("--recipient-epoch", type=int, default=1)
    parser.add_argument("--payload", help="name of the payload; default: the only one")
    parser.add_argument("--out", type=Path, help="file for the plaintext, or a folder for all payloads")
    parser.add_argument("--pin-core", help="sha256:…")
    parser.add_argument("--pin-sealer", help="sha256:…; with --pin-family and --pin-min-counter")
    parser.add_argument("--pin-family")
    parser.add_argument("--pin-min-counter", type=int)
    parser.add_argument("--list", action="store_true", help="print the core's facts and stop")
    return parser.parse_args()


def pins_of(args: argparse.Namespace) -> list[artifact.Pin]:
    pins = []
    if args.pin_core:
        pins.append(artifact.Pin(core=artifact.digest_of(args.pin_core)))
    if args.pin_sealer:
        pins.append(
            artifact.Pin(
                sealer=artifact.digest_of(args.pin_sealer), family=args.pin_family, min_counter=args.pin_min_counter
            )
        )
    return pins


def content_key_of(args: argparse.Namespace, core: artifact.Core, bundle: artifact.Bundle) -> bytes:
    if args.content_key_hex:
        return artifact.hexed(args.content_key_hex, 32)
    if not (args.recipient_suite and args.recipient_secret_hex and args.recipient_id):
        raise SystemExit("open_artifact: a content key, or suite, secret and id of a recipient, is needed")
    me = artifact.Recipient(
        args.recipient_suite,
        bytes.fromhex(args.recipient_secret_hex),
        artifact.hexed(args.recipient_id, 32),
        args.recipient_epoch,
    )
    refused = Refused("GRANT_WRONG_RECIPIENT", "no grant at all")
    for raw in bundle.grants:
        try:
            return artifact.open_grant(core, artifact.read_grant(raw), me)
        except Refused as err:
            refused = err
    raise refused


def write(core: artifact.Core, bundle: artifact.Bundle, key: bytes, payload: artifact.Payload, out: Path) -> None:
    """Complete or absent: the file gets its name only after the last check."""
    partial = out.with_name(out.name + ".partial")
    try:
        with partial.open("wb") as file:
            index = payload.index
            for segment in artifact.open_payload(core, key, index, bundle.payloads[index], bundle.tags[index]):
                file.write(segment)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def main() -> int:
    args = arguments()
    if args.vectors:
        return 0 if vectors.run_all(args.vectors) else 1
    if args.source is None:
        raise SystemExit("open_artifact: a source, or --vectors, is needed")
    if args.source.is_dir():
        bundle = artifact.read_layout(args.source, args.tag)
    else:
        bundle = artifact.read_file(args.source.read_bytes())
    core = artifact.read_core(bundle.core)
    artifact.check_counts(core, bundle)
    pins = pins_of(args)
    if pins:
        signature = None if bundle.signature is None else artifact.read_signature(bundle.signature)
        artifact.check_origin(core, signature, pins, [])
    else:
        print("open_artifact: no pin: the origin is NOT checked", file=sys.stderr)
    print(f"core sha256:{core.digest.hex()} family {core.family} counter {core.counter} environment {core.environment}")
    for payload in core.payloads:
        print(f"payload {payload.index} {payload.name} {payload.media_type} {payload.size} bytes")
    if args.list:
        return 0
    key = content_key_of(args, core, bundle)
    artifact.check_commitments(core, key)
    wanted = [payload for payload in core.payloads if args.payload in (None, payload.name)]
    if args.out is None or not wanted or (len(wanted) > 1 and not args.out.is_dir()):
        raise SystemExit("open_artifact: --out FILE and --payload NAME of one payload, or --out FOLDER, are needed")
    for payload in wanted:
        write(core, bundle, key, payload, args.out / payload.name if args.out.is_dir() else args.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refused as refused:
        print(f"open_artifact: refused: {refused}", file=sys.stderr)
        sys.exit(1)
