"""The target of a command: import the server or the authenticator that `module:name` names."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

import iogate
from iogate.asgi import SocketIOApp
from iogate.auth import Auth
from iogate.auth.interface import is_auth
from iogate.errors import ConfigurationError
from iogate.server.server import Server, core_of
from iogate.serving.target import NoTarget, named

_DEPTH = 8
"""Levels of nested applications that are searched for a server."""
_INNER = ("app", "engineio_server", "engineio_app", "wsgi_app", "server")
"""Attributes in which an application stores the one that it wraps: ASGI, python-socketio, Flask, Flask-SocketIO."""


class CannotLoad(click.ClickException):
    """The target does not exist, or its module fails for a reason other than iogate's configuration."""

    exit_code = 2


class Misconfigured(Exception):
    """iogate rejects the configuration in the module. The message says what is wrong, and where."""


class Target(NamedTuple):
    """The server and the authenticator of a target. A target that is a `JWTAuth` has no server."""

    server: Server | None
    auth: Auth | None


def load(name: str, app_dir: str) -> Target:
    """Import a module, and return the server and the authenticator that it configures.

    Args:
        name: `module:name` of a `Server`, of an application with one in it, or of a `JWTAuth`.
        app_dir: the folder in which Python finds the module.

    Raises:
        CannotLoad: the name has no server in it, or the module cannot be imported.
        Misconfigured: iogate rejects the configuration.
    """
    sys.path.insert(0, app_dir)
    module, _, attribute = name.partition(":")
    try:
        found = named(name)
    except NoTarget as error:
        raise CannotLoad(_without_advice(str(error))) from None
    except ConfigurationError as error:
        raise Misconfigured(f"{error}{place(error.__context__ or error)}") from None
    except Exception as error:
        raise CannotLoad(f"{module} cannot be imported: {what(error)}{place(error)}") from None
    except SystemExit as error:
        # The exit code of the module must not become that of the command, where 0 means that nothing is wrong.
        raise CannotLoad(
            f"{module} ends the process while it is imported{place(error)}: do that under"
            ' if __name__ == "__main__", and not in the module'
        ) from None
    if is_auth(found):
        return Target(None, found)
    server = next(_servers_in(found), None)
    if server is None:
        raise CannotLoad(f"no Server of iogate was found in {name}{_candidates(module, attribute)}")
    return Target(server, core_of(server).auth)


def _servers_in(found: Any, depth: int = _DEPTH) -> Iterator[Server]:
    """Find the servers in an application: mounted in it, as a route, or wrapped in middleware."""
    if isinstance(found, Server):
        yield found
    elif isinstance(behind := getattr(found, "__iogate__", None), Server):  # `protect` sets this attribute.
        yield behind
    elif isinstance(found, SocketIOApp):
        yield found.server
    elif depth and not isinstance(found, type):
        inner = [
            *(getattr(found, name, None) for name in _INNER),
            *(getattr(route, "app", None) for route in _routes(found)),
        ]
        for app in inner:
            if app is not None and app is not found:
                yield from _servers_in(app, depth - 1)


def _routes(found: Any) -> list[Any]:
    routes = getattr(found, "routes", None)
    return list(routes) if isinstance(routes, (list, tuple)) else []


def _candidates(module: str, attribute: str) -> str:
    """Return advice for the error message: the names of the servers in the module, if it has any."""
    names = [name for name, value in vars(sys.modules[module]).items() if isinstance(value, Server)]
    if names:
        return f": write {' or '.join(f'{module}:{name}' for name in sorted(names))}"
    return f": name the Server itself, what io.asgi() returns, or a JWTAuth, in place of {attribute!r}"


def _without_advice(text: str) -> str:
    return text.replace("what to serve: write", "what to look into: write").partition(": write app =")[0]


def what(error: BaseException) -> str:
    """Return a one-line description of an error in the application."""
    if isinstance(error, KeyError) and _frames(error)[-1:] and "os" in _frames(error)[-1].filename:
        return f"the environment variable {error} is not set"
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({error.filename}, line {error.lineno})"
    return f"{type(error).__name__}: {error}"


def place(error: BaseException) -> str:
    """Return the file and line of an error, from the last frame that is not in a library; empty if there is none."""
    if isinstance(error, SyntaxError):
        return ""
    own = str(Path(iogate.__file__).parent)
    for frame in reversed(_frames(error)):
        path = frame.filename
        if not path.startswith((own, "<")) and "site-packages" not in path and Path(path).parent.name != "importlib":
            shown = Path(path)
            return f" ({shown.name if shown.parent == Path.cwd() else shown}, line {frame.lineno})"
    return ""


def _frames(error: BaseException) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)
