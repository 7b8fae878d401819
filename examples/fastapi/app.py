"""Sockets and REST with one identity, on FastAPI: `JWT_SECRET=... iogate run examples.fastapi.app:app`."""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from iogate import JWTAuth, Principal, Server, Socket
from iogate.http.fastapi import require

io = Server(auth=JWTAuth(secret=os.environ["JWT_SECRET"], algorithms=["HS256"]))
writer = require(io, scopes="chat:write")
web = FastAPI()


@web.post("/messages")
async def post(text: str, user: Annotated[Principal, Depends(writer)]) -> None:
    io.emit("message", {"from": user.subject, "text": text})


@io.on("message", scopes="chat:write")
async def relay(socket: Socket, text: str) -> None:
    io.emit("message", {"from": socket.principal.subject, "text": text})


app = io.asgi(web)
