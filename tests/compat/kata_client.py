"""A client of the guest agent, as a Kata runtime is one: ttrpc frames by hand, messages built at run time from `kata_wire.txt`.

The table says what is on the wire: methods, messages, fields, numbers, types. Nothing here is generated from our `.proto` files.

    kata_client.py unix:///run/agent.sock Check '{"service": ""}'
    kata_client.py vsock-uds:///run/vm.vsock:1024 GetGuestDetails '{"mem_block_size": true}'
    kata_client.py vsock://3:1024 ListRoutes
    kata_client.py --write-vectors

Values of JSON are those of the fields; bytes are hex. Exit status 0: the call was answered; 1: with an error, whose code and text are printed.
"""

from __future__ import annotations

import enum
import json
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("kata_wire.txt")
VECTORS = Path(__file__).parents[1] / "vectors" / "protocol" / "messages.txt"
REQUEST, RESPONSE = 1, 2
MAXIMUM_PAYLOAD = 4 << 20
VARINTS = {"bool", "int32", "int64", "uint32", "uint64"}


# ---- the table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    number: int
    name: str
    kind: str
    label: str


@dataclass(frozen=True)
class Method:
    service: str
    name: str
    request: str
    response: str


@dataclass
class Wire:
    methods: dict[str, Method] = field(default_factory=dict)
    messages: dict[str, list[Field]] = field(default_factory=dict)
    enums: dict[str, dict[int, str]] = field(default_factory=dict)

    @staticmethod
    def read(path: Path = TABLE) -> Wire:
        wire = Wire()
        message: list[Field] | None = None
        values: dict[int, str] = {}
        for line in path.read_text().splitlines():
            words = line.split()
            if words[0] == "rpc":
                _, service, name = words[1].split("/")
                wire.methods[name] = Method(service, name, words[2], words[3])
            elif words[0] == "message":
                message = wire.messages.setdefault(words[1], [])
            elif words[0] == "enum":
                message, values = None, wire.enums.setdefault(words[1], {})
            elif message is not None:
                message.append(Field(int(words[0]), words[1], words[2], words[3]))
            else:
                values[int(words[0])] = words[1]
        return wire


# ---- protobuf --------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def delimited(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value & (1 << 64) - 1, at


def encode(wire: Wire, message: str, values: dict[str, Any]) -> bytes:
    """A message with these fields, in order of their numbers. What has its default is left out, unless presence is explicit."""
    out = b""
    unknown = set(values) - {one.name for one in wire.messages[message]}
    assert not unknown, f"{message} has no {unknown}"
    for one in sorted(wire.messages[message], key=lambda one: one.number):
        value = values.get(one.name)
        if value is None:
            continue
        if one.label == "map":
            _, key_kind, value_kind = one.kind.split(":")
            for key, item in value.items():
                entry = encode_one(wire, Field(1, "", key_kind, ""), key) + encode_one(wire, Field(2, "", value_kind, ""), item)
                out += delimited(one.number, entry)
        elif one.label == "packed":
            if value:
                out += delimited(one.number, b"".join(varint(item) for item in value))
        elif one.label == "repeated":
            out += b"".join(encode_one(wire, one, item) for item in value)
        elif one.label == "optional" or one.kind in wire.messages or value not in (0, "", b"", False):
            out += encode_one(wire, one, value)
    return out


def encode_one(wire: Wire, one: Field, value: Any) -> bytes:
    if one.kind in VARINTS or one.kind in wire.enums:
        return varint(one.number << 3) + varint(int(value))
    if one.kind == "string":
        return delimited(one.number, value.encode())
    if one.kind == "bytes":
        return delimited(one.number, value)
    return delimited(one.number, encode(wire, one.kind, value))


def number(kind: str, raw: int) -> int | bool:
    bits = {"int32": 64, "int64": 64, "uint32": 32}.get(kind, 64)
    if kind == "bool":
        return raw != 0
    if kind.startswith("uint"):
        return raw & (1 << bits) - 1
    return raw - (1 << 64) if raw >> 63 else raw


def decode(wire: Wire, message: str, data: bytes) -> dict[str, Any]:
    """The fields that came; a field that the table does not have is an error."""
    fields = {one.number: one for one in wire.messages[message]}
    found: dict[str, Any] = {}
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        one = fields[tag >> 3]
        if tag & 7 == 0:
            raw, at = read_varint(data, at)
            value = number(one.kind, raw)
        else:
            assert tag & 7 == 2, (message, tag)
            length, at = read_varint(data, at)
            piece, at = data[at : at + length], at + length
            assert len(piece) == length, message
            if one.label == "map":
                _, key_kind, value_kind = one.kind.split(":")
                entry = Wire(messages={**wire.messages, "": [Field(1, "k", key_kind, "singular"), Field(2, "v", value_kind, "singular")]}, enums=wire.enums)
                pair = decode(entry, "", piece)
                found.setdefault(one.name, {})[pair.get("k", "")] = pair.get("v")
                continue
            if one.label == "packed":
                place, items = 0, found.setdefault(one.name, [])
                while place < length:
                    raw, place = read_varint(piece, place)
                    items.append(number(one.kind, raw))
                continue
            value = piece.decode() if one.kind == "string" else piece if one.kind == "bytes" else decode(wire, one.kind, piece)
        if one.label in ("repeated", "packed"):
            found.setdefault(one.name, []).append(value)
        else:
            found[one.name] = value
    return found


# ---- every field set -------------------------------------------------------------------------------------------------


def full(wire: Wire, message: str) -> dict[str, Any]:
    """A message with every field set, by a recipe that needs names and numbers alone."""
    return {one.name: full_field(wire, one) for one in wire.messages[message]}


def full_field(wire: Wire, one: Field) -> Any:
    if one.label == "map":
        _, _, kind = one.kind.split(":")
        return {"key é 0": full_value(wire, kind, one, 0)}
    if one.label in ("repeated", "packed"):
        return [full_value(wire, one.kind, one, place) for place in range(2)]
    return full_value(wire, one.kind, one, 0)


def full_value(wire: Wire, kind: str, one: Field, place: int) -> Any:
    n = one.number + 100 * place
    if kind == "bool":
        return True
    if kind in ("int32", "int64"):
        return -n
    if kind in ("uint32", "uint64"):
        return (1 << int(kind[4:])) - 1 - n
    if kind == "string":
        return f"{one.name} é {place}"
    if kind == "bytes":
        return b"\x00\xff" + one.name.encode()
    if kind in wire.enums:
        return max(wire.enums[kind])
    return full(wire, kind)


def swapped(wire: Wire, message: str, values: dict[str, Any]) -> bytes:
    """The same message as an implementation writes it that has members of a `oneof` at the end: there is one, in LinuxSyscall."""
    last = [one for one in wire.messages[message] if (message, one.name) == ("grpc.LinuxSyscall", "errnoret")]
    out = b""
    for one in [*(one for one in sorted(wire.messages[message], key=lambda one: one.number) if one not in last), *last]:
        value = values[one.name]
        if one.kind not in wire.messages:
            out += encode(wire, message, {one.name: value})
            continue
        for item in value if one.label == "repeated" else [value]:
            out += delimited(one.number, swapped(wire, one.kind, item))
    return out


def vectors(wire: Wire) -> str:
    lines = []
    for message in sorted(wire.messages):
        values = full(wire, message)
        ours, theirs = encode(wire, message, values).hex(), swapped(wire, message, values).hex()
        lines.append(" ".join([message, ours] if ours == theirs else [message, ours, theirs]))
    return "\n".join(lines) + "\n"


# ---- ttrpc -----------------------------------------------------------------------------------------------------------

ENVELOPE = Wire(
    messages={
        "Request": [Field(1, "service", "string", "singular"), Field(2, "method", "string", "singular"), Field(3, "payload", "bytes", "singular"),
                    Field(4, "timeout_nano", "int64", "singular"), Field(5, "metadata", "KeyValue", "repeated")],
        "KeyValue": [Field(1, "key", "string", "singular"), Field(2, "value", "string", "singular")],
        "Response": [Field(1, "status", "Status", "singular"), Field(2, "payload", "bytes", "singular")],
        "Status": [Field(1, "code", "int32", "singular"), Field(2, "message", "string", "singular"), Field(3, "details", "Any", "repeated")],
        "Any": [Field(1, "type_url", "string", "singular"), Field(2, "value", "bytes", "singular")],
    }
)  # fmt: skip


class Code(enum.IntEnum):
    """Of a status that is no success."""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class RpcError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"code {code}: {text}")
        self.code, self.text = code, text


def connect(address: str, timeout: float = 60) -> socket.socket:
    """`unix:///PATH`, `vsock://CID:PORT`, or `vsock-uds:///PATH:PORT`, where the other end is asked for the port."""
    scheme, _, place = address.partition("://")
    if scheme == "vsock":
        cid, _, port = place.partition(":")
        link = socket.socket(socket.AF_VSOCK)
        link.settimeout(timeout)
        link.connect((int(cid), int(port)))
        return link
    path, port = place, ""
    if scheme == "vsock-uds":
        path, _, port = place.rpartition(":")
    else:
        assert scheme == "unix", address
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(timeout)
    link.connect(path)
    if port:
        link.sendall(f"CONNECT {port}\n".encode())
        line = b""
        while not line.endswith(b"\n"):
            part = link.recv(1)
            assert part, "the connection to the port was refused"
            line += part
        assert line.startswith(b"OK "), line
    return link


def receive(link: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = link.recv(min(1 << 16, length - len(data)))
        if not part:
            raise ConnectionError(f"closed after {len(data)} of {length} bytes")
        data += part
    return data


def send_frame(link: socket.socket, stream: int, kind: int, payload: bytes) -> None:
    link.sendall(struct.pack(">IIBB", len(payload), stream, kind, 0) + payload)


def receive_frame(link: socket.socket) -> tuple[int, int, bytes]:
    length, stream, kind, _ = struct.unpack(">IIBB", receive(link, 10))
    assert length <= MAXIMUM_PAYLOAD, length
    return stream, kind, receive(link, length)


class Client:
    """One connection. Calls of it may wait at the same time: `begin`, then `end` in any order.

    Each method of the table is one of the client: `client.WaitProcess(container_id="c1")`.
    """

    def __init__(self, address: str, timeout: float = 60, wire: Wire | None = None) -> None:
        self.wire = wire or Wire.read()
        self.link = connect(address, timeout)
        self.stream = 1
        self.early: dict[int, bytes] = {}
        self.called: set[str] = set()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()

    def begin_raw(self, service: str, method: str, payload: bytes, timeout_nano: int = 0, metadata: dict[str, str] | None = None) -> int:
        pairs = [{"key": key, "value": value} for key, value in (metadata or {}).items()]
        values = {"service": service, "method": method, "payload": payload, "timeout_nano": timeout_nano, "metadata": pairs}
        stream, self.stream = self.stream, self.stream + 2
        send_frame(self.link, stream, REQUEST, encode(ENVELOPE, "Request", values))
        return stream

    def end_raw(self, stream: int) -> bytes:
        while stream not in self.early:
            found, kind, payload = receive_frame(self.link)
            assert kind == RESPONSE, kind
            self.early[found] = payload
        answer = decode(ENVELOPE, "Response", self.early.pop(stream))
        status = answer.get("status", {})
        if status.get("code", 0):
            raise RpcError(status["code"], status.get("message", ""))
        return answer.get("payload", b"")

    def begin(self, method: str, values: dict[str, Any] | None = None, timeout_nano: int = 0) -> int:
        known = self.wire.methods[method]
        self.called.add(method)
        return self.begin_raw(known.service, method, encode(self.wire, known.request, values or {}), timeout_nano)

    def end(self, method: str, stream: int) -> dict[str, Any]:
        return decode(self.wire, self.wire.methods[method].response, self.end_raw(stream))

    def call(self, method: str, values: dict[str, Any] | None = None, timeout_nano: int = 0) -> dict[str, Any]:
        return self.end(method, self.begin(method, values, timeout_nano))

    def refused(self, method: str, values: dict[str, Any] | None = None, timeout_nano: int = 0) -> RpcError:
        """A call that has to fail."""
        return self.end_refused(method, self.begin(method, values, timeout_nano))

    def end_refused(self, method: str, stream: int) -> RpcError:
        try:
            answer = self.end(method, stream)
        except RpcError as error:
            return error
        raise AssertionError(f"{method} was not refused: {answer}")

    def __getattr__(self, method: str) -> Callable[..., dict[str, Any]]:
        if method not in self.wire.methods:
            raise AttributeError(method)
        return lambda **values: self.call(method, values)


def from_json(wire: Wire, message: str, values: dict[str, Any]) -> dict[str, Any]:
    """JSON with bytes in hex."""
    out = {}
    kinds = {one.name: one for one in wire.messages[message]}
    for name, value in values.items():
        kind = kinds[name].kind
        if kind == "bytes":
            value = bytes.fromhex(value)
        elif kind in wire.messages:
            value = [from_json(wire, kind, item) for item in value] if isinstance(value, list) else from_json(wire, kind, value)
        out[name] = value
    return out


def main(arguments: list[str]) -> int:
    wire = Wire.read()
    if arguments == ["--write-vectors"]:
        VECTORS.parent.mkdir(exist_ok=True)
        VECTORS.write_text(vectors(wire))
        return 0
    if len(arguments) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    address, method = arguments[:2]
    values = from_json(wire, wire.methods[method].request, json.loads(arguments[2] if len(arguments) == 3 else "{}"))
    with Client(address, wire=wire) as client:
        try:
            answer = client.call(method, values)
        except RpcError as error:
            print(error, file=sys.stderr)
            return 1
    print(json.dumps(answer, default=lambda value: value.hex(), ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
