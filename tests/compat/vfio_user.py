"""A minimal vfio-user 0.0 client: version, DMA mappings over memfd, region access, device reset. No interrupts: rings are polled."""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct

VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, REGION_INFO = 1, 2, 3, 4, 5
REGION_READ, REGION_WRITE, DEVICE_RESET = 9, 10, 13
BAR0, CONFIG = 0, 7
_HEADER = struct.Struct("<HHIII")
_COMMAND, _REPLY, _ERROR = 0, 1, 1 << 5
_LARGEST = 4 * 1024 * 1024


class VfioUserError(Exception):
    pass


class Memory:
    """Shared memory that is mapped for the device at `iova`."""

    def __init__(self, size: int, iova: int) -> None:
        self.size = size
        self.iova = iova
        self.fd = os.memfd_create("compat-dma")
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)

    def read(self, at: int, length: int) -> bytes:
        return self.map[at : at + length]

    def write(self, at: int, data: bytes) -> None:
        self.map[at : at + len(data)] = data

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)


class Client:
    def __init__(self, path: str, timeout: float = 20.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.next_id = 1
        wanted = {"capabilities": {"max_msg_fds": 1, "max_data_xfer_size": 1_048_576}}
        body = struct.pack("<HH", 0, 0) + json.dumps(wanted).encode() + b"\0"
        reply = self.call(VERSION, body)
        major, minor = struct.unpack_from("<HH", reply)
        if (major, minor) != (0, 0):
            raise VfioUserError(f"the server speaks {major}.{minor}")
        text = reply[4:].rstrip(b"\0")
        self.capabilities = json.loads(text) if text else {}

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise VfioUserError("the server closed the connection")
            data += part
        return bytes(data)

    def call(self, command: int, body: bytes = b"", fds: tuple[int, ...] = ()) -> bytes:
        ident = self.next_id
        self.next_id = (self.next_id + 1) & 0xFFFF
        message = _HEADER.pack(ident, command, _HEADER.size + len(body), _COMMAND, 0) + body
        sent = socket.send_fds(self.socket, [message], list(fds)) if fds else 0
        self.socket.sendall(message[sent:])
        got_id, got_command, size, flags, error = _HEADER.unpack(self._receive(_HEADER.size))
        if size < _HEADER.size or size > _LARGEST:
            raise VfioUserError(f"reply of {size} bytes")
        reply = self._receive(size - _HEADER.size)
        if flags & 0xF != _REPLY or got_id != ident or got_command != command:
            raise VfioUserError(f"unexpected message: id {got_id} command {got_command} flags {flags:#x}")
        if flags & _ERROR:
            raise VfioUserError(f"command {command} failed: {os.strerror(error)}")
        return reply

    def map(self, memory: Memory, readable: bool = True, writable: bool = True) -> None:
        flags = (1 if readable else 0) | (2 if writable else 0)
        self.call(DMA_MAP, struct.pack("<IIQQQ", 32, flags, 0, memory.iova, memory.size), (memory.fd,))

    def unmap(self, memory: Memory) -> None:
        self.call(DMA_UNMAP, struct.pack("<IIQQ", 24, 0, memory.iova, memory.size))

    def read(self, region: int, offset: int, length: int) -> bytes:
        reply = self.call(REGION_READ, struct.pack("<QII", offset, region, length))
        if len(reply) != 16 + length:
            raise VfioUserError("region read of another length")
        return reply[16:]

    def write(self, region: int, offset: int, data: bytes) -> None:
        self.call(REGION_WRITE, struct.pack("<QII", offset, region, len(data)) + data)

    def info(self) -> tuple[int, int, int]:
        """(flags, regions, irqs)."""
        _, flags, regions, irqs = struct.unpack_from("<IIII", self.call(GET_INFO, struct.pack("<IIII", 16, 0, 0, 0)))
        return flags, regions, irqs

    def region_size(self, region: int) -> int:
        reply = self.call(REGION_INFO, struct.pack("<IIIIQQ", 32, 0, region, 0, 0, 0))
        return struct.unpack_from("<Q", reply, 16)[0]

    def reset(self) -> None:
        self.call(DEVICE_RESET)

    def close(self) -> None:
        self.socket.close()
