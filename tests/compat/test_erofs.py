"""Images of our writer of EROFS, by the reader in erofs.py: every inode of every vector in tests/vectors/composefs, and the fs-verity digests.

Exit status 0: everything passed. The program that writes is `composefs-image` in INNERKEEP_BIN_DIR, else in target/ci.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import erofs

HERE = Path(__file__).resolve().parent
PROGRAM = Path(os.environ.get("INNERKEEP_BIN_DIR", HERE.parents[1] / "target" / "ci")) / "composefs-image"
VECTORS = HERE.parent / "vectors" / "composefs"
# Published answers: SHA-256 and SHA-512.
KNOWN = {
    b"": (
        "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95",
        "ccf9e5aea1c2a64efa2f2354a6024b90dffde6bbc017825045dce374474e13d10adb9dadcc6ca8e17a3c075fbd31336e8f266ae6fa93a6c3bed66f9e784e5abf",
    ),
    b"hello, world\n": (
        "8b174f1ec58f607df27386a4485c66913251da99af628e87dd62968cddd6bbc1",
        "08ec1ded8b8d6699ea2aa2e437e1bf7259f2d7db2edc02c5cccf5b9e54ec4a4c2d602f38e5e500a8527acc2746eb4a0b8feadb62b6eae42984e0c96e082441f8",
    ),
    bytes(10_000): (
        "9673b4ca4cc979b11de1f50e235210cec780fc5f71fab218f9fb5efe18dfd866",
        "5747a5d809c7c61333922bb7b3589879054d8d9f0652aebdb72690e017dfacc7aea2c073eac2d62c1b9a16425c5d41ec3cd02539fd93efe10e56980b8fce3442",
    ),
    bytes(524_289): (
        "e4143a5705610b7ad2eb85482cfc033c7062a89b9faf9118603f592d53fd10e0",
        "7d26d3e731675b1ecf081c10277a5fd42e9abd456eee3b8a8c3c8a2d5e1711b7a28027eaa104fc01080df1c37ca1dc9a186bbf7d2decd13de170d5ec9c350584",
    ),
}
# The tree of which three writers make the same image.
AGREED = (
    "/ 0 40755 1 0 0 0 1000.0 - - -\n/usr 0 40755 1 0 0 0 1000.0 - - -\n/usr/hello 13 100644 1 0 0 0 1000.0 - hello,\\x20world\\x0a -\n"
    "/big 10000 100644 1 0 0 0 1000.0 - - 9673b4ca4cc979b11de1f50e235210cec780fc5f71fab218f9fb5efe18dfd866\n"
)
AGREED_DIGESTS = {
    "v0": "b60d04141ab79172a7556f06aecc2d2421adcb7a35fbb70ac9a41f4967767a5c",
    "v1": "037c1c71d052ee30052068cff7bab683c3ce7ed4e891c1f45279c160be8c6f00",
}


class Failed(Exception):
    pass


def demand(holds: object, what: str) -> None:
    if not holds:
        raise Failed(what)


def written(form: str, text: str) -> bytes:
    done = subprocess.run([PROGRAM, form], input=text.encode(), capture_output=True, timeout=120)
    demand(done.returncode == 0, f"composefs-image {form}: {done.stderr.decode()[-500:]}")
    return done.stdout


def compare(name: str, image: bytes, expected: dict[bytes, erofs.Inode]) -> int:
    """What is in an image is what was put in: no more, no less."""
    found = erofs.read(image)
    demand(set(found) == set(expected), f"{name}: paths {sorted(set(found) ^ set(expected))[:5]}")
    of_numbers: dict[int, int] = {}
    for path, wanted in expected.items():
        inode = found[path]
        for member in ("mode", "uid", "gid", "mtime", "xattrs", "device"):
            one, other = getattr(inode, member), getattr(wanted, member)
            demand(one == other, f"{name}: {member} of {path!r}: expected {other!r}, found {one!r}")
        if wanted.kind != erofs.DIRECTORY:
            demand((inode.size, inode.content) == (wanted.size, wanted.content), f"{name}: content of {path!r}")
        # Names of one inode, and no others, have one number.
        demand(of_numbers.setdefault(inode.number, id(wanted)) == id(wanted), f"{name}: inode of {path!r}")
    demand(len(of_numbers) == len({id(inode) for inode in expected.values()}), f"{name}: links")
    return len(found)


def digests() -> None:
    for data, known in KNOWN.items():
        for algorithm, digest in zip(("sha256", "sha512"), known):
            demand(erofs.verity(data, algorithm).hex() == digest, f"{algorithm} of {len(data)} bytes")
    # Published answers of XXH32.
    demand((erofs.xxh32(b"", 0), erofs.xxh32(b"a", 0), erofs.xxh32(b"Nobody inspects the spammish repetition", 0))
           == (0x02CC5D05, 0x550D7456, 0xE2293B2F), "XXH32")


def agreed() -> None:
    for form, digest in AGREED_DIGESTS.items():
        image = written(form, AGREED)
        demand(erofs.verity(image).hex() == digest, f"the agreed image, {form}")
        compare(f"agreed {form}", image, erofs.expected(AGREED, int(form[1]), "sha256"))


def vectors() -> int:
    """Every dump in each form: digests as another writer has them, and every inode."""
    inodes = 0
    lines = (VECTORS / "digests").read_text().splitlines()
    demand(len(lines) >= 20 and len(lines) == len(list(VECTORS.glob("*.dump"))), "vectors")
    for line in lines:
        name, size, v0, v1, wide = line.split(" ")
        text = (VECTORS / f"{name}.dump").read_text()
        for form, algorithm, digest in (("v0", "sha256", v0), ("v1", "sha256", v1), ("v1-sha512", "sha512", wide)):
            image = written(form, text)
            demand(form != "v1" or len(image) == int(size), f"{name}: {len(image)} bytes")
            demand(erofs.verity(image, algorithm).hex() == digest, f"{name}, {form}: digest")
            inodes += compare(f"{name}, {form}", image, erofs.expected(text, int(form[1]), algorithm))
    return inodes


def evil_image_with_another_byte() -> int:
    """No byte of an image is without meaning: with another one it is refused, or says something else."""
    text = (VECTORS / "mixed-03.dump").read_text()
    image = written("v1", text)
    wanted = erofs.expected(text, 1, "sha256")
    digest = erofs.verity(image)
    checked = 0
    for at in range(0, len(image), 11):
        if at > 1200 and not any(image[at - 40 : at + 40]):
            continue
        altered = image[:at] + bytes([image[at] ^ (1 << at % 8)]) + image[at + 1 :]
        demand(erofs.verity(altered) != digest, f"digest with another byte {at}")
        try:
            compare("altered", altered, wanted)
        except (erofs.Refused, Failed):
            checked += 1
            continue
        raise Failed(f"byte {at} says nothing")
    for cut in (image[: -erofs.BLOCK], image + bytes(erofs.BLOCK), image[:100], b""):
        try:
            erofs.read(cut)
        except erofs.Refused:
            continue
        raise Failed("another length")
    return checked


def main() -> int:
    digests()
    agreed()
    inodes = vectors()
    demand(inodes > 5000, "inodes")
    print(f"ok  {inodes} inodes")
    altered = evil_image_with_another_byte()
    demand(altered > 500, "bytes")
    print(f"ok  {altered} altered images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
