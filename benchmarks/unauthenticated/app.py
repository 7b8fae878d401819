"""The server that is attacked. The environment chooses the parser."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any, Literal, cast

from iogate import JWTAuth, Server, Socket

SECRET = "the benchmark's own secret, of 32 bytes or more"  # noqa: S105
SLOW = "slow"
"""The subject whose user takes a while to load, as from a database."""

parser = cast(Literal["json", "msgpack"], os.environ.get("PARSER", "json"))
auth = JWTAuth(secret=SECRET, algorithms=["HS256"])
io = Server(auth=auth, parser=parser)


@auth.load_user
async def load_user(claims: Mapping[str, Any]) -> Mapping[str, Any]:
    """Load the user of a token."""
    if claims["sub"] == SLOW:
        await asyncio.sleep(0.05)
    return claims


@io.on("echo")
async def echo(socket: Socket, text: str) -> str:
    """Answer what a user says."""
    return text


app = io.asgi()
