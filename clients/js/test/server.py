"""A real iogate server for the tests of the client, with switches that they turn by HTTP.

It prints its port, and ends when its standard input does. What it remembers, it remembers by subject: each test has one
of its own. `/socket.io` wants the token at CONNECT; `/in-band` gives half a second for `authenticate`.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvicorn
from joserfc import jwt
from joserfc.jwk import OctKey

from iogate import JWTAuth, Refused, Server, Socket
from iogate.server.session.reasons import CloseReason

PACKAGE = Path(__file__).parents[1]
SECRET = "a-secret-for-the-tests-that-is-long-enough"  # noqa: S105
DEADLINE = 0.5  # seconds for `authenticate`
FILES = {
    "/": ("test/page.html", "text/html"),
    "/src/": ("src", "text/javascript"),
    "/socket.io-client.js": ("node_modules/socket.io-client/dist/socket.io.esm.min.js", "text/javascript"),
}


class Record:
    """What happened to one subject."""

    def __init__(self) -> None:
        self.attempts: list[float] = []
        self.connects = 0
        self.refreshes = 0
        self.gone: list[str] = []
        self.payload: Any = None
        self.refusal: Any = None
        self.notes: list[Any] = []
        self.free = asyncio.Event()  # While it is clear, the server decides on none of this subject's tokens.
        self.free.set()
        self.sockets: set[Socket] = set()


records: defaultdict[str, Record] = defaultdict(Record)


async def decide(claims: Mapping[str, Any]) -> str:
    """Wait until a test wants this subject's tokens to be decided on."""
    subject: str = claims["sub"]
    await records[subject].free.wait()
    return subject


def protect(**settings: Any) -> Server:
    """Return a server with the handlers that the tests know."""
    path = settings.pop("path")
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"], **settings)
    auth.load_user(decide)
    io = Server(auth=auth, path=path, cors_allowed_origins=["*"], ping_interval=0.5, ping_timeout=0.5)
    for namespace in (io, io.of(re.compile(r"/[\w-]+"))):

        @namespace.use
        async def refuse(socket: Socket) -> None:
            record = records[socket.principal.subject]
            record.attempts.append(time.monotonic())
            await record.free.wait()
            if record.refusal is not None:
                raise Refused("refused by the test", data=record.refusal)

        @namespace.on("connect")
        async def count(socket: Socket) -> None:
            record = records[socket.principal.subject]
            record.connects += 1
            record.payload = socket.handshake.auth
            record.sockets.add(socket)

        @namespace.on("refresh")
        async def note(socket: Socket, old: Any, new: Any) -> None:
            records[new.subject].refreshes += 1

        @namespace.on("disconnect")
        async def forget(socket: Socket, reason: str) -> None:
            record = records[socket.principal.subject]
            record.gone.append(reason)
            record.sockets.discard(socket)

        @namespace.on("echo")
        async def echo(socket: Socket, *args: Any) -> Any:
            return args

        @namespace.on("who")
        async def who(socket: Socket) -> Any:
            return socket.principal.subject

        @namespace.on("note")
        async def take_down(socket: Socket, text: Any) -> None:
            records[socket.principal.subject].notes.append(text)

        @namespace.on("unanswered")
        async def never(socket: Socket) -> None:
            await asyncio.Event().wait()

    return io


plain = protect(path="/socket.io")
in_band = protect(path="/in-band", authenticate_within=DEADLINE)


async def control(path: str, body: dict[str, Any]) -> Any:
    """Turn a switch."""
    record = records[body["sub"]]
    if path == "/token":
        key = OctKey.import_key(body.get("secret", SECRET))
        now = time.time()
        claims = {"sub": body["sub"], "iat": now, "exp": now + body["life"]}
        return jwt.encode({"alg": "HS256", "typ": "JWT"}, claims, key)
    if path == "/refuse":
        record.refusal = body["data"]
    elif path == "/hold":
        record.free.clear()
    elif path == "/release":
        record.free.set()
    elif path == "/revoke":
        for io in (plain, in_band):
            await io.revoke(subject=body["sub"])
    elif path == "/kick":
        for connected in list(record.sockets):
            connected.disconnect()
    elif path == "/cut":
        for connected in list(record.sockets):
            connected._connection.close(CloseReason.TRANSPORT_CLOSE)
    now = time.monotonic()
    return {
        "attempts": [round(now - then, 3) for then in record.attempts],
        "connects": record.connects,
        "refreshes": record.refreshes,
        "gone": record.gone,
        "payload": record.payload,
        "notes": record.notes,
        "inside": len(record.sockets),
    }


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer what is not Socket.IO."""
    if scope["type"] == "lifespan":
        return
    kind, status = "application/json", 200
    if scope["method"] == "POST":
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        answer = json.dumps(await control(scope["path"], json.loads(body))).encode()
    else:
        path = scope["path"]
        name, kind = FILES.get(path) or FILES["/src/"]
        file = PACKAGE / name / (path.removeprefix("/src/") if name == "src" else "")
        status = 200 if file.is_file() else 404
        answer = file.read_bytes() if status == 200 else b""
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})
    await send({"type": "http.response.body", "body": answer})


async def main() -> None:
    """Serve until the test has gone."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    app = plain.asgi(in_band.asgi(application))
    config = uvicorn.Config(
        app, ws="websockets-sansio", lifespan="off", log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for io in (plain, in_band):
        await io.shutdown(timeout=0.5)
    server.should_exit = True
    await serving


asyncio.run(main())
