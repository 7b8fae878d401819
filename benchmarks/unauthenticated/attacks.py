"""The attacks: `python -m benchmarks.unauthenticated.attacks NAME PORT SECONDS` makes one of them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec

from benchmarks.machine import allow_files
from benchmarks.unauthenticated.app import SLOW
from benchmarks.unauthenticated.wire import BINARY, DEFLATE, Peer, connect, frame, token

BAD = token("mallory", secret="x" * 40)
LARGEST = 32_000
"""Bytes of a payload that is just small enough to be read."""

Attack = Callable[[int], Awaitable[None]]
"""Makes one attempt on a server at a port, on a connection of its own."""


class Plan(NamedTuple):
    """How an attack is made.

    Args:
        attempt: one attempt.
        at_once: how many connections make it at the same time, again and again.
        parser: the parser of the server.
    """

    attempt: Attack
    at_once: int = 2
    parser: str = "json"


def sending(*frames: bytes) -> Attack:
    """Return the attack that opens a WebSocket, sends frames, and goes as soon as they are answered."""

    async def attempt(port: int) -> None:
        peer, _ = await Peer.websocket(port)
        try:
            for data in frames:
                await peer.send(data)
            await peer.refused()
        finally:
            peer.close()

    return attempt


def nested(levels: int) -> bytes:
    """Return JSON of empty lists within each other."""
    return b"[" * levels + b"]" * levels


def payload(value: bytes, size: int) -> bytes:
    """Return a CONNECT with as many of a value as go into so many bytes."""
    values = b",".join([value] * (size // (len(value) + 1)))
    return frame(b'40{"token":"","more":[' + values + b"]}")


def packed(value: object, size: int) -> bytes:
    """Return the same for MessagePack."""
    one = msgspec.msgpack.encode(value)
    many = b"\xdd" + (size // len(one)).to_bytes(4, "big") + one * (size // len(one))
    return frame(b"\x83\xa4type\x00\xa3nsp\xa1/\xa4data\x82\xa5token\xa0\xa4more" + many, BINARY)


async def again_and_again(port: int) -> None:
    """Send CONNECT after CONNECT while the user is loaded."""
    peer, _ = await Peer.websocket(port)
    try:
        for number in range(50):
            await peer.send(connect({"token": token(SLOW), "number": number}))
        await peer.ended()
    finally:
        peer.close()


async def leaves(port: int) -> None:
    """Send CONNECT, and go while the user is loaded."""
    peer, _ = await Peer.websocket(port)
    await peer.send(connect({"token": token(SLOW)}))
    peer.close()


async def says_nothing(port: int) -> None:
    """Open a TCP connection."""
    peer = await Peer.open(port)
    try:
        await peer.ended(30)
    finally:
        peer.close()


async def half_a_head(port: int) -> None:
    """Send the beginning of a request, and a byte more every now and then."""
    peer = await Peer.open(port)
    try:
        await peer.send(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\nx: ")
        for _ in range(60):
            await peer.send(b"x")
            await asyncio.sleep(0.5)
    finally:
        peer.close()


async def endless_head(port: int) -> None:
    """Send a header without an end."""
    peer = await Peer.open(port)
    try:
        await peer.send(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\nx: ")
        while not peer.reader.at_eof() and not peer.writer.is_closing():
            await peer.send(b"x" * 65_536)
            await asyncio.sleep(0)
    finally:
        peer.close()


async def never_asks(port: int) -> None:
    """Open a WebSocket, and say nothing on it."""
    peer, _ = await Peer.websocket(port)
    try:
        await peer.ended(30)
    finally:
        peer.close()


async def half_a_frame(port: int) -> None:
    """Announce a frame of a megabyte, and send most of it."""
    peer, _ = await Peer.websocket(port)
    try:
        await peer.send(frame(b"4" * 900_000)[:-100])
        await peer.ended(30)
    finally:
        peer.close()


async def large_bodies(port: int) -> None:
    """Open a session by polling, and post a megabyte."""
    peer = await Peer.open(port)
    try:
        await peer.request(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n")
        opened = await peer.heard()
        sid = opened.split(b'"sid":"')[1].split(b'"')[0]
        head = b"POST /socket.io/?EIO=4&transport=polling&sid=%b HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
        await peer.send(head % sid + b"40" + nested(90) * 5555)
        await peer.heard()
    finally:
        peer.close()


async def many_headers(port: int) -> None:
    """Open a session by polling with a head that is nearly as large as it may be, and stay."""
    peer = await Peer.open(port)
    try:
        fields = b"".join(b"x-%d: %b\r\n" % (number, b"y" * 100) for number in range(60))
        await peer.request(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
        await peer.ended(30)
    finally:
        peer.close()


async def deflated(port: int) -> None:
    """Offer compression, and send what becomes large when it is inflated."""
    peer, head = await Peer.websocket(port, DEFLATE)
    try:
        if b"permessage-deflate" in head.lower():
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            bomb = packer.compress(b"4" * 15_000_000) + packer.flush(zlib.Z_SYNC_FLUSH)
            await peer.send(frame(bomb[:-4], rsv1=True))
        else:
            await peer.send(connect({}))
        await peer.refused()
    finally:
        peer.close()


ATTACKS: dict[str, Plan] = {
    "CONNECT with a long text": Plan(sending(connect({"token": "", "more": "x" * LARGEST}))),
    "CONNECT with many values": Plan(sending(payload(b"[]", LARGEST))),
    "CONNECT with many levels": Plan(sending(payload(nested(90), LARGEST))),
    "CONNECT of a megabyte, with many levels": Plan(sending(payload(nested(90), 950_000))),
    "MessagePack with many values": Plan(sending(packed([], LARGEST)), parser="msgpack"),
    "MessagePack with many levels": Plan(sending(packed([[[[[[[[[[]]]]]]]]]], LARGEST)), parser="msgpack"),
    "MessagePack of a megabyte": Plan(sending(packed([], 950_000)), parser="msgpack"),
    "half a frame of a megabyte": Plan(half_a_frame, at_once=300),
    "bad tokens": Plan(sending(connect({"token": BAD})), at_once=10),
    "no tokens": Plan(sending(connect({})), at_once=10),
    "CONNECT again and again": Plan(again_and_again, at_once=10),
    "transports that leave": Plan(leaves, at_once=10),
    "WebSockets that never ask": Plan(never_asks, at_once=900),
    "silent connections": Plan(says_nothing, at_once=900),
    "half a head": Plan(half_a_head, at_once=900),
    "heads without an end": Plan(endless_head),
    "polling sessions with large heads": Plan(many_headers, at_once=900),
    "polling bodies of a megabyte": Plan(large_bodies),
    "compressed frames": Plan(deflated),
}


async def make(name: str, port: int, seconds: float) -> int:
    """Make an attack for some seconds; return how many attempts were begun."""
    plan = ATTACKS[name]
    end = time.monotonic() + seconds
    attempts = 0

    async def one() -> None:
        nonlocal attempts
        while time.monotonic() < end:
            attempts += 1
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, IndexError):
                await asyncio.wait_for(plan.attempt(port), max(0.01, end - time.monotonic()))
            await asyncio.sleep(0)

    await asyncio.gather(*(one() for _ in range(plan.at_once)))
    return attempts


if __name__ == "__main__":
    # The users' clients share this core: they must not wait for it.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    allow_files(1000)
    sys.stdout.write(f"{asyncio.run(make(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))}\n")
