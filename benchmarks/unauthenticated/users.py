"""Users who are in: `python -m benchmarks.unauthenticated.users PORT PARSER` measures how long their events take.

It reads one line for each measurement, the seconds, and writes one, the latencies in milliseconds as JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import time

import msgspec

from benchmarks.unauthenticated.wire import BINARY, TEXT, UPGRADE, frame, token

INTERVAL = 0.004
"""Seconds between two events."""


class User:
    """One user, on a WebSocket, who waits for each answer.

    Args:
        port: where the server is.
        parser: the server's parser.
    """

    def __init__(self, port: int, parser: str) -> None:
        self._packed = parser == "msgpack"
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(30)
        self._socket.sendall(UPGRADE + b"\r\n")
        self._read_until(b'"sid"')
        self._send(0, {"token": token("alice")})
        self._read_until(b"sid")

    def echo(self) -> float:
        """Return the milliseconds that one event takes, from its first byte to the answer."""
        began = time.perf_counter()
        self._send(2, ["echo", "hello"], 1)
        self._read_until(b"hello")
        return (time.perf_counter() - began) * 1000

    def _send(self, kind: int, data: object, ack: int | None = None) -> None:
        if self._packed:
            packet: dict[str, object] = {"type": kind, "nsp": "/", "data": data}
            if ack is not None:
                packet["id"] = ack
            self._socket.sendall(frame(msgspec.msgpack.encode(packet), BINARY))
        else:
            text = f"4{kind}{'' if ack is None else ack}{json.dumps(data)}"
            self._socket.sendall(frame(text.encode(), TEXT))

    def _read_until(self, mark: bytes) -> None:
        read = b""
        while mark not in read:
            data = self._socket.recv(65_536)
            if not data:
                raise ConnectionError("the server has ended the connection of a user")
            if data == b"\x81\x012":  # A ping of Engine.IO.
                self._socket.sendall(frame(b"3"))
                continue
            read += data


def latencies(user: User, seconds: float) -> list[float]:
    """Return what the events of some seconds take, in milliseconds."""
    end = time.monotonic() + seconds
    taken = []
    while time.monotonic() < end:
        taken.append(user.echo())
        time.sleep(INTERVAL)
    return taken


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    user = User(int(sys.argv[1]), sys.argv[2])
    _write("ready")
    for line in sys.stdin:
        _write(json.dumps(latencies(user, float(line))))
