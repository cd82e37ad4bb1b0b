"""A reader of the metadata images of composefs (EROFS, formats V0 and V1) and of their fs-verity digests.

Written from a description of the format (there is no page of it in `docs/spec/`: it is composefs's). It accounts for every byte: what is
neither read nor zero is refused, and so is every choice that the format does not leave to a writer: order, numbers, places, filters of names,
links, sharing of attributes. Two images of one listing are therefore the same image.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections import Counter, deque
from dataclasses import dataclass, field

BLOCK = 4096
SUPERBLOCK, INODES, SLOT = 1024, 1152, 32
STUBS = [b"%02x" % number for number in range(256)]
PREFIXES = {1: b"user.", 2: b"system.posix_acl_access", 3: b"system.posix_acl_default", 4: b"trusted.", 6: b"security."}
# Directory entries and type bits of a mode.
TYPES = {1: 0o10, 2: 0o4, 3: 0o2, 4: 0o6, 5: 0o1, 6: 0o14, 7: 0o12}
REGULAR, DIRECTORY, CHARACTER, BLOCKDEV, SYMLINK = 0o10, 0o4, 0o2, 0o6, 0o12


class Refused(Exception):
    """No image of this kind."""


def demand(holds: object, what: str) -> None:
    if not holds:
        raise Refused(what)


# fs-verity


def verity(data: bytes, algorithm: str = "sha256") -> bytes:
    """The digest of a file: Merkle tree over blocks of 4096 bytes without salt, then the descriptor."""
    size = hashlib.new(algorithm).digest_size
    level, root = data, bytes(size)
    while level:
        blocks = [level[at : at + BLOCK].ljust(BLOCK, b"\0") for at in range(0, len(level), BLOCK)]
        hashes = [hashlib.new(algorithm, block).digest() for block in blocks]
        root, level = hashes[0], b"".join(hashes) if len(hashes) > 1 else b""
    number = {"sha256": 1, "sha512": 2}[algorithm]
    descriptor = struct.pack("<BBBBIQ64s32s144s", 1, number, 12, 0, 0, len(data), root, b"", b"")
    return hashlib.new(algorithm, descriptor).digest()


# What is in an image


@dataclass
class Inode:
    mode: int
    uid: int
    gid: int
    mtime: tuple[int, int]
    size: int
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    content: bytes = b""
    device: int = 0
    # Another number of the image for each inode, the same one for its names.
    number: int = 0

    @property
    def kind(self) -> int:
        return self.mode >> 12


def xxh32(data: bytes, seed: int) -> int:
    one, two, three, four, five = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1
    mask = 0xFFFFFFFF

    def turn(value: int, bits: int) -> int:
        return ((value << bits) | (value >> (32 - bits))) & mask

    at = 0
    if len(data) >= 16:
        lanes = [(seed + one + two) & mask, (seed + two) & mask, seed & mask, (seed - one) & mask]
        while at + 16 <= len(data):
            for lane, word in enumerate(struct.unpack_from("<4I", data, at)):
                lanes[lane] = turn((lanes[lane] + word * two) & mask, 13) * one & mask
            at += 16
        total = sum(turn(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18))) & mask
    else:
        total = (seed + five) & mask
    total = (total + len(data)) & mask
    while at + 4 <= len(data):
        total = turn((total + struct.unpack_from("<I", data, at)[0] * three) & mask, 17) * four & mask
        at += 4
    for byte in data[at:]:
        total = turn((total + byte * five) & mask, 11) * one & mask
    for bits, factor in ((15, two), (13, three)):
        total = (total ^ (total >> bits)) * factor & mask
    return total ^ (total >> 16)


class Image:
    """An image that is being read."""

    def __init__(self, data: bytes) -> None:
        self.data, self.read = data, bytearray(len(data))
        self.shared: dict[int, tuple[bytes, bytes]] = {}
        self.used: Counter[tuple[bytes, bytes]] = Counter()
        self.local: set[tuple[bytes, bytes]] = set()
        self.places: dict[int, int] = {}

    def take(self, at: int, length: int, what: str) -> bytes:
        """Bytes that nobody else has."""
        demand(0 <= at and at + length <= len(self.data), f"{what} beyond the end")
        demand(not any(self.read[at : at + length]), f"{what} overlaps")
        self.read[at : at + length] = b"\1" * length
        return self.data[at : at + length]

    def fields(self, form: str, at: int, what: str) -> tuple:
        return struct.unpack("<" + form, self.take(at, struct.calcsize("<" + form), what))

    def heads(self) -> None:
        demand(len(self.data) % BLOCK == 0 and len(self.data) >= BLOCK, "blocks")
        magic, version, self.flags, self.version = self.fields("4I", 0, "header")
        demand((magic, version) == (0xD078629A, 1) and self.version in (0, 1) and self.flags in (0, 1), "header")
        magic, checksum, features, bits, slots, self.root, self.inodes = self.fields("3IBBHQ", SUPERBLOCK, "superblock")
        demand((magic, checksum, features, bits, slots) == (0xE0F5E1E2, 0, 6, 12, 0), "superblock")
        seconds, nanoseconds, blocks, meta, self.table = self.fields("QIIII", SUPERBLOCK + 24, "superblock")
        self.epoch = (seconds, nanoseconds)
        demand((blocks * BLOCK, meta) == (len(self.data), 0), "blocks of the superblock")
        demand(self.take(SUPERBLOCK + 48, 80, "superblock") == bytes(80), "rest of the superblock")

    def inode(self, nid: int) -> tuple[Inode, int]:
        """An inode, and how many links it says to have."""
        at = nid * SLOT
        demand(at >= INODES, "an inode among the heads")
        form, count, mode = self.fields("3H", at, "inode")
        demand(form & ~0xF == 0 and form >> 1 in (0, 2, 4), "form of an inode")
        if form & 1:
            zero, size, word, number, uid, gid, seconds, nanoseconds, links = self.fields("HQ4IQII", at + 6, "inode")
            demand(zero == 0 and self.take(at + 48, 16, "inode") == bytes(16), "reserved of an inode")
            mtime, after = (seconds, nanoseconds), at + 64
            fits = mtime == self.epoch and max(links, uid, gid) <= 0xFFFF and size <= 0xFFFFFFFF
            demand(not fits, "a long inode that would be short")
        else:
            links, size, zero, word, number, uid, gid, zero2 = self.fields("HIIIIHHI", at + 6, "inode")
            demand((zero, zero2) == (0, 0), "reserved of an inode")
            mtime, after = self.epoch, at + 32
        found = Inode(mode, uid, gid, mtime, size, number=number)
        if count:
            length = 12 + (count - 1) * 4
            found.xattrs = self.xattrs(after, length)
            after += length
        self.places[number] = at
        self.content(found, form >> 1, word, after)
        return found, links

    def content(self, found: Inode, layout: int, word: int, after: int) -> None:
        if layout == 4:
            demand(found.kind == REGULAR and found.size > 64, "chunks of what has none")
            demand(word == max(12, (found.size - 1).bit_length()) - 12 and word <= 31, "size of chunks")
            demand(self.take(after, 4, "chunk") == b"\xff" * 4, "a chunk that is no hole")
            return
        if found.kind in (CHARACTER, BLOCKDEV, 0o1, 0o14):
            demand((layout, found.size) == (0, 0), "content of a special file")
            found.device = word
            demand(found.kind in (CHARACTER, BLOCKDEV) or word == 0, "device number of what is none")
            return
        whole = found.size if layout == 0 else found.size // BLOCK * BLOCK
        blocks = -(-whole // BLOCK)
        demand((word == 0) == (blocks == 0), "blocks of an inode")
        found.content = self.take(word * BLOCK, whole, "blocks") if blocks else b""
        if layout == 2:
            tail = found.size - whole
            demand(tail > 0 and after % BLOCK + tail <= BLOCK, "a tail in two blocks")
            found.content += self.take(after, tail, "tail")
        if found.kind == REGULAR:
            demand(found.size <= 64 and blocks == 0, "content of a file that is an object")
        if found.kind == SYMLINK:
            demand(1 <= found.size <= 4095 and b"\0" not in found.content, "target of a link")

    def xattrs(self, at: int, length: int) -> dict[bytes, bytes]:
        end = at + length
        unlike, count, reserved = self.fields("IB7s", at, "attributes")
        demand(reserved == bytes(7), "reserved of attributes")
        refs = struct.unpack(f"<{count}I", self.take(at + 12, 4 * count, "shared attributes"))
        at += 12 + 4 * count
        found = [self.attribute(self.table * BLOCK + 4 * ref, shared=True)[0] for ref in refs]
        local = []
        while at < end:
            entry, at = self.attribute(at, shared=False)
            local.append(entry)
        demand(at == end, "end of attributes")
        demand(all(part == sorted(part) for part in (found, local)), "order of attributes")
        self.local.update(local)
        self.used.update(found + local)
        names = [name for name, _ in found + local]
        demand(len(set(names)) == len(names), "an attribute twice")
        filtered = 0
        for name in names:
            index, suffix = split(name)
            filtered |= 1 << xxh32(suffix, 0x25BBE08F + index) % 32
        demand(unlike == filtered ^ 0xFFFFFFFF, "filter of attributes")
        return dict(found + local)

    def attribute(self, at: int, shared: bool) -> tuple[tuple[bytes, bytes], int]:
        if shared and at in self.shared:
            return self.shared[at], at
        length, index, size = self.fields("BBH", at, "attribute")
        demand(index == 0 or index in PREFIXES, "prefix of an attribute")
        suffix, value = self.take(at + 4, length, "name"), self.take(at + 4 + length, size, "value")
        name = PREFIXES.get(index, b"") + suffix
        demand(split(name) == (index, suffix) and name and b"\0" not in name, "name of an attribute")
        end = at + -(-(4 + length + size) // 4) * 4
        padding = self.take(at + 4 + length + size, end - (at + 4 + length + size), "padding")
        demand(not any(padding), "padding of an attribute")
        if shared:
            self.shared[at] = (name, value)
        return (name, value), end


def split(name: bytes) -> tuple[int, bytes]:
    for index in sorted(PREFIXES, reverse=True):
        if name.startswith(PREFIXES[index]):
            return index, name[len(PREFIXES[index]) :]
    return 0, name


def entries(content: bytes) -> list[tuple[bytes, int, int]]:
    """Names of a directory with inode and type. Blocks are as full as they can be, and the rest is beside the inode if it is short."""
    found: list[tuple[bytes, int, int]] = []
    before = None
    for at in range(0, len(content), BLOCK):
        block = content[at : at + BLOCK]
        count = struct.unpack_from("<H", block, 8)[0] // 12 if len(block) >= 12 else 0
        demand(count > 0 and 12 * count <= len(block), "entries of a directory")
        heads = [struct.unpack_from("<QHBB", block, 12 * index) for index in range(count)]
        starts = [head[1] for head in heads]
        demand(starts[0] == 12 * count and starts == sorted(set(starts)) and starts[-1] < len(block), "places of names")
        last = len(block) if at + BLOCK > len(content) else len(block.rstrip(b"\0"))
        demand(last > starts[-1] and not any(block[last:]), "end of a directory's block")
        for (nid, start, kind, zero), end in zip(heads, starts[1:] + [last]):
            name = block[start:end]
            demand(zero == 0 and kind in TYPES, "an entry of a directory")
            demand(1 <= len(name) <= 255 and not set(name) & {0, 0x2F}, "a name")
            found.append((name, nid, kind))
        first = 12 + len(found[len(found) - count][0])
        demand(before is None or before + first > BLOCK, "a block of a directory with room")
        before = last
    demand((before <= BLOCK // 2) == (len(content) % BLOCK > 0), "the rest of a directory")
    names = [name for name, _, _ in found]
    demand(names == sorted(set(names)) and {b".", b".."} <= set(names), "order of names")
    return found


def read(data: bytes) -> dict[bytes, Inode]:
    """All inodes by path; `b""` is the root."""
    image = Image(data)
    image.heads()
    inodes: dict[int, tuple[Inode, int]] = {}
    names: Counter[int] = Counter()
    listing: dict[bytes, Inode] = {}
    children: dict[bytes, list[tuple[bytes, int, bool]]] = {}
    inodes[image.root] = image.inode(image.root)
    demand(inodes[image.root][0].kind == DIRECTORY, "a root that is no directory")
    queue = deque([(b"", image.root, image.root)])
    listing[b""] = inodes[image.root][0]
    while queue:
        path, nid, parent = queue.popleft()
        found, links = inodes[nid]
        directories = 0
        children[path] = []
        for name, below, kind in entries(found.content):
            directories += kind == 2
            if name in (b".", b".."):
                demand((below, kind) == (nid if name == b"." else parent, 2), "a directory's own names")
                continue
            if below not in inodes:
                demand(len(inodes) < image.inodes, "more inodes than the superblock says")
                inodes[below] = image.inode(below)
                fresh = True
            else:
                fresh = False
            inode = inodes[below][0]
            demand(inode.kind == TYPES[kind], "type of an entry")
            demand(fresh or inode.kind != DIRECTORY, "a directory with two names")
            names[below] += 1
            whole = path + b"/" + name
            listing[whole] = inode
            children[path].append((name, below, inode.kind == DIRECTORY))
            if inode.kind == DIRECTORY:
                queue.append((whole, below, nid))
        demand(links == directories, "links of a directory")
    for nid, count in names.items():
        inode, links = inodes[nid]
        demand(inode.kind == DIRECTORY or links == count, "links of an inode")
    demand(len(inodes) == image.inodes, "inodes of the superblock")
    demand(image.epoch == min(inode.mtime for inode, _ in inodes.values()), "moment of the superblock")
    check_numbers(image, inodes, children)
    check_attributes(image, inodes)
    demand(not any(byte for byte, seen in zip(data, image.read) if not seen), "bytes that nobody reads")
    return listing


def check_numbers(image: Image, inodes: dict, children: dict) -> None:
    """Directory by directory, outermost first; what has several names in the directory of the first of them, depth first."""
    first: dict[int, bytes] = {}
    stack = [(b"", iter(children[b""]))]
    while stack:
        path, rest = stack[-1]
        entry = next(rest, None)
        if entry is None:
            stack.pop()
            continue
        name, nid, is_directory = entry
        first.setdefault(nid, path)
        if is_directory:
            stack.append((path + b"/" + name, iter(children[path + b"/" + name])))
    order, queue = [image.root], deque([b""])
    done = {image.root}
    while queue:
        path = queue.popleft()
        for name, nid, is_directory in children[path]:
            if nid not in done and first[nid] == path:
                done.add(nid)
                order.append(nid)
            if is_directory:
                queue.append(path + b"/" + name)
    demand([inodes[nid][0].number for nid in order] == list(range(len(order))), "numbers of inodes")
    places = [image.places[number] for number in range(len(order))]
    demand(places == sorted(places) and places[0] == INODES, "places of inodes")


def check_attributes(image: Image, inodes: dict) -> None:
    shared = {pair for pair, count in image.used.items() if count > 1}
    demand(set(image.shared.values()) == shared and not shared & image.local, "which attributes are shared")
    by_place = [image.shared[at] for at in sorted(image.shared)]
    demand(by_place == sorted(by_place, key=lambda pair: (pair[0], len(pair[1]), pair[1]), reverse=True), "order of shared attributes")
    end = max(image.shared, default=0)
    demand(not image.shared or image.table * BLOCK <= min(image.shared) <= end, "place of shared attributes")
    acls = any(split(name)[0] in (2, 3) for name, _ in image.used)
    demand(image.flags == int(acls), "flag of access control lists")


# What should be in an image


def unescape(text: str) -> bytes:
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text.encode())


def dump(text: str) -> tuple[dict[bytes, Inode], dict[bytes, str], dict[bytes, bytes]]:
    """A dump file (composefs-dump(5)): inodes by path, digests of those that are objects, and what is another name of what."""
    inodes: dict[bytes, Inode] = {}
    objects: dict[bytes, str] = {}
    links: dict[bytes, bytes] = {}
    for line in text.splitlines():
        fields = line.split(" ")
        path = unescape(fields[0]).rstrip(b"/")
        if fields[2].startswith("@"):
            links[path] = unescape(fields[8])
            continue
        mode, seconds = int(fields[2], 8), fields[7].partition(".")
        mtime = (int(seconds[0]) % 2**64, int(seconds[2]))
        xattrs = dict(tuple(map(unescape, pair.split("=", 1))) for pair in fields[11:])
        inode = Inode(mode, int(fields[4]), int(fields[5]), mtime, int(fields[1]), xattrs)
        if inode.kind in (CHARACTER, BLOCKDEV):
            inode.device = int(fields[6])
        if inode.kind == SYMLINK:
            inode.content = unescape(fields[8])
            inode.size = len(inode.content)
        elif inode.kind == REGULAR and fields[10] == "-":
            inode.content = b"" if fields[9] == "-" else unescape(fields[9])
        elif inode.kind == REGULAR:
            objects[path] = fields[10]
        inodes[path] = inode
    return inodes, objects, links


def expected(text: str, version: int, algorithm: str) -> dict[bytes, Inode]:
    """What an image of a dump has to hold. With SHA-512 each object is named by its digest twice, as the vectors have it."""
    inodes, objects, links = dump(text)
    root = inodes[b""]
    label = {name: value for name, value in root.xattrs.items() if name == b"security.selinux"}
    stub = (CHARACTER << 12 | 0o644, root.uid, root.gid, root.mtime, label)
    marked = set()
    for path, inode in inodes.items():
        is_stub = path[1:] in STUBS and (inode.mode, inode.uid, inode.gid, inode.mtime, inode.xattrs) == stub
        inode.xattrs = {
            b"trusted.overlay.overlay." + name[16:] if name.startswith(b"trusted.overlay.") else name: value
            for name, value in inode.xattrs.items()
        }
        if inode.kind == CHARACTER and inode.device == 0 and not is_stub:
            inode.mode = REGULAR << 12 | inode.mode & 0o7777
            inode.xattrs.update({b"trusted.overlay.overlay.whiteout": b"", b"user.overlay.whiteout": b""})
            marked.add(path.rpartition(b"/")[0])
    for path in marked:
        marks = {b"whiteouts": b""} | ({b"opaque": b"x"} if version else {})
        for word, value in marks.items():
            inodes[path].xattrs[b"trusted.overlay.overlay." + word] = value
            inodes[path].xattrs[b"user.overlay." + word] = value
    for path, digits in objects.items():
        digits = digits * 2 if algorithm == "sha512" else digits
        digest = bytes.fromhex(digits)
        head = bytes([0, 4 + len(digest), 0, {"sha256": 1, "sha512": 2}[algorithm]])
        inodes[path].xattrs[b"trusted.overlay.metacopy"] = head + digest
        inodes[path].xattrs[b"trusted.overlay.redirect"] = f"/{digits[:2]}/{digits[2:]}".encode()
    root.xattrs[b"trusted.overlay.opaque"] = b"y"
    listing = dict(inodes)
    for path, target in links.items():
        listing[path] = inodes[target]
    for name in STUBS:
        listing.setdefault(b"/" + name, Inode(stub[0], root.uid, root.gid, root.mtime, 0, dict(label)))
    return listing
