"""The gate in front of Flask-SocketIO, and of Flask: `JWT_SECRET=... flask --app examples.flask.app run`."""

import os

from flask import Flask, g, request
from flask_socketio import SocketIO, emit

from iogate import JWTAuth
from iogate.http.flask import require
from iogate.integrations import protect

auth = JWTAuth(secret=os.environ["JWT_SECRET"], algorithms=["HS256"])
app = Flask(__name__)
socketio = SocketIO(app, async_mode="threading")
gate = protect(socketio, auth)


@app.post("/messages")
@require(auth, scopes="chat:write")
def post() -> str:
    socketio.emit("message", {"from": g.principal.subject, "text": request.args["text"]})
    return ""


@socketio.on("message")
@gate.requires("chat:write")
def relay(text: str) -> None:
    emit("message", {"from": gate.principal().subject, "text": text}, broadcast=True)
