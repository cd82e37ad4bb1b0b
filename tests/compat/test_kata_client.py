"""The client of the guest agent against itself and a small server: messages, vectors, every method, both kinds of socket.

`test_kata_agent.py` is the client against the agent. Exit status 0 only if everything passed.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading

import kata_client as kata

WIRE = kata.Wire.read()


def messages_are_read_as_they_were_written() -> None:
    assert (len(WIRE.methods), len(WIRE.messages), len(WIRE.enums)) == (47, 120, 4)
    lines = kata.VECTORS.read_text().splitlines()
    assert "\n".join([*lines, ""]) == kata.vectors(WIRE), "kata_client.py --write-vectors"
    for line in lines:
        name, *encodings = line.split(" ")
        for encoding in encodings:
            assert kata.decode(WIRE, name, bytes.fromhex(encoding)) == kata.full(WIRE, name), name
        assert kata.encode(WIRE, name, {}) == b"", name


def serve(listener: socket.socket, bridge: bool, seen: list[str]) -> None:
    """Answers each call with all fields of its answer; Check with an error; two calls in the wrong order on purpose."""
    link, _ = listener.accept()
    with link:
        if bridge:
            line = b""
            while not line.endswith(b"\n"):
                line += link.recv(1)
            assert line == b"CONNECT 1024\n", line
            link.sendall(b"OK 1073741824\n")
        held: list[tuple[int, bytes]] = []
        with contextlib.suppress(ConnectionError):
            while True:
                stream, kind, payload = kata.receive_frame(link)
                assert kind == kata.REQUEST and stream % 2 == 1
                request = kata.decode(kata.ENVELOPE, "Request", payload)
                method = WIRE.methods[request["method"]]
                assert request["service"] == method.service
                assert kata.decode(WIRE, method.request, request.get("payload", b"")) == kata.full(WIRE, method.request)
                seen.append(method.name)
                status = {"code": int(kata.Code.INVALID_ARGUMENT), "message": '"é"'} if method.name == "Check" else {}
                values = {"status": status, "payload": kata.encode(WIRE, method.response, kata.full(WIRE, method.response))}
                held.append((stream, kata.encode(kata.ENVELOPE, "Response", values)))
                if method.name != "WaitProcess":
                    for answered, answer in reversed(held):
                        kata.send_frame(link, answered, kata.RESPONSE, answer)
                    held.clear()


def every_method_is_called(bridge: bool) -> None:
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as listener:
        path = f"{place}/s"
        listener.bind(path)
        listener.listen()
        seen: list[str] = []
        server = threading.Thread(target=serve, args=(listener, bridge, seen), daemon=True)
        server.start()
        address = f"vsock-uds://{path}:1024" if bridge else f"unix://{path}"
        with kata.Client(address, wire=WIRE) as client:
            for name, method in WIRE.methods.items():
                values = kata.full(WIRE, method.request)
                if name == "Check":
                    try:
                        client.call(name, values)
                        raise AssertionError("no error")
                    except kata.RpcError as error:
                        assert (error.code, error.text) == (kata.Code.INVALID_ARGUMENT, '"é"')
                elif name == "WaitProcess":
                    waiting = client.begin(name, values)
                    between = client.call("ListRoutes")
                    assert between == kata.full(WIRE, "grpc.Routes")
                    assert client.end(name, waiting) == kata.full(WIRE, method.response)
                else:
                    assert client.call(name, values) == kata.full(WIRE, method.response), name
        server.join(20)
        assert not server.is_alive()
        assert set(seen) == set(WIRE.methods)


if __name__ == "__main__":
    messages_are_read_as_they_were_written()
    every_method_is_called(bridge=False)
    every_method_is_called(bridge=True)
    print("kata client: every message, every method, both sockets")
