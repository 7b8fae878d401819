"""Checks of whether the gate can protect a server. A server with unknown internals is rejected: it could fail open."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

import socketio
from engineio.async_socket import AsyncSocket as AsyncEngineSocket
from engineio.socket import Socket as EngineSocket

from iogate.errors import ConfigurationError

VERSIONS = ("5.16", "5.17", "5.18")
"""The versions of python-socketio that the tests run with."""

SIGNATURES = {
    "_handle_connect": ("eio_sid", "namespace", "data"),
    "_handle_disconnect": ("eio_sid", "namespace", "reason"),
    "_handle_event": ("eio_sid", "namespace", "id", "data"),
    "_handle_ack": ("eio_sid", "namespace", "id", "data"),
    "_handle_eio_connect": ("eio_sid", "environ"),
    "_handle_eio_message": ("eio_sid", "data"),
    "_handle_eio_disconnect": ("eio_sid", "reason"),
    "_send_packet": ("eio_sid", "pkt"),
    "_send_eio_packet": ("eio_sid", "eio_pkt"),
    "_trigger_event": ("event", "namespace", "args"),
    "disconnect": ("sid", "namespace", "ignore_queue"),
    "shutdown": (),
    "enter_room": ("sid", "room", "namespace"),
    "leave_room": ("sid", "room", "namespace"),
    "close_room": ("room", "namespace"),
}
"""The methods of a server that the gate calls or replaces, with their parameters."""
OF_AN_ENGINE_SOCKET = {
    "poll": (),
    "receive": ("pkt",),
    "close": ("wait", "abort"),
    "schedule_ping": (),
    "handle_get_request": ("environ",),
    "handle_post_request": ("environ",),
    "_websocket_handler": ("ws",),
}
"""The methods of python-engineio's sockets that the gate calls or replaces, with their first parameters."""
OF_ROOMS = ("enter_room", "leave_room", "close_room")
"""The methods of a server that take a room name from the application."""
OF_THE_MANAGER = ("basic_enter_room", "basic_disconnect", "is_connected")
"""The methods of python-socketio's manager that the gate calls."""


def check(sio: Any, *, flask_extension: bool) -> bool:
    """Check that the gate can protect a server, and return True if the server runs its handlers on threads.

    Args:
        sio: the server of python-socketio.
        flask_extension: True if `sio` is the server of a `flask_socketio.SocketIO`, where it may be None.

    Raises:
        ConfigurationError: the gate cannot protect this server.
    """
    if flask_extension and sio is None:
        raise ConfigurationError("this SocketIO has no server yet: call protect after init_app(app)")
    if not isinstance(sio, socketio.AsyncServer | socketio.Server):
        raise ConfigurationError(
            "protect takes a socketio.AsyncServer, a socketio.Server or a flask_socketio.SocketIO,"
            f" and not {type(sio).__name__}"
        )
    found = version("python-socketio")
    if not found.startswith(tuple(f"{known}." for known in VERSIONS)):
        raise ConfigurationError(
            f"python-socketio {found} is not one of the versions whose inside is known ({', '.join(VERSIONS)}): what"
            " has changed there could let somebody past the gate. Install one of those, or a newer iogate"
        )
    if hasattr(sio, "__iogate__"):
        raise ConfigurationError("this server is protected already")
    strange = [name for name, takes in SIGNATURES.items() if _parameters(getattr(sio, name, None)) != takes]
    strange += [name for name in OF_THE_MANAGER if not callable(getattr(sio.manager, name, None))]
    threaded = isinstance(sio, socketio.Server)
    engine = EngineSocket if threaded else AsyncEngineSocket
    strange += [
        name
        for name, takes in OF_AN_ENGINE_SOCKET.items()
        if (_parameters(getattr(engine, name, None)) or ())[: len(takes) + 1] != ("self", *takes)
    ]
    if not threaded and not callable(sio.eio._async.get("translate_request")):
        strange.append("translate_request")
    if strange:
        raise ConfigurationError(
            f"{', '.join(strange)} of this {type(sio).__name__} are not python-socketio's own: the gate would stand"
            " beside what lets clients in. Call protect before anything else changes the server"
        )
    if sio.eio.sockets:
        raise ConfigurationError("somebody is connected to this server already: call protect before it serves")
    if sio.packet_class is not socketio.packet.Packet:
        raise ConfigurationError("the gate reads packets in JSON: leave out serializer=, or use iogate's own server")
    if threaded and sio.async_mode != "threading":
        raise ConfigurationError(
            f"the gate has an event loop on a thread of its own, which {sio.async_mode} does not know of: use"
            ' async_mode="threading", or an AsyncServer'
        )
    return threaded


def _parameters(method: Any) -> tuple[str, ...] | None:
    return tuple(inspect.signature(method).parameters) if callable(method) else None
