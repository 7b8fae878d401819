"""Sockets and REST with one identity, on Django: `JWT_SECRET=... iogate run examples.django.app:app`."""

import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from iogate import JWTAuth, Server, Socket
from iogate.http.django import require

io = Server(auth=JWTAuth(secret=os.environ["JWT_SECRET"], algorithms=["HS256"]))
settings.configure(  # In one file; a project has a settings module, with the last two lines in it.
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["iogate.http.django.JWTMiddleware"],
    IOGATE={"auth": io},
)


@csrf_exempt
@require("chat:write")
async def post(request: HttpRequest) -> HttpResponse:
    io.emit("message", {"from": request.principal.subject, "text": request.GET["text"]})
    return HttpResponse()


@io.on("message", scopes="chat:write")
async def relay(socket: Socket, text: str) -> None:
    io.emit("message", {"from": socket.principal.subject, "text": text})


urlpatterns = [path("messages", post)]
app = io.asgi(get_asgi_application())
