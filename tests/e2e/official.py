"""The official JavaScript client in a Node process, driven by the steps of a test (see `js/client.mjs`)."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).parent / "js" / "client.mjs"

Step = dict[str, Any]
Line = dict[str, Any]


def connect(ns: str = "/", *, name: str | None = None, **options: Any) -> Step:
    """Open a namespace. The options are those of the JavaScript `io()`, for this socket; `name` is for later steps."""
    return {"do": "connect", "ns": ns, "as": name or ns, "options": options}


def wait(what: str, on: str = "/") -> Step:
    """Wait until this has happened once more: connect, connect_error, disconnect, upgrade, reconnect, ack..."""
    return {"do": "wait", "what": what, "as": on}


def wait_event(event: str, on: str = "/") -> Step:
    """Wait until an event of this name has come once more."""
    return {"do": "wait", "what": "event", "event": event, "as": on}


def emit(*args: Any, on: str = "/", times: int = 1, volatile: bool = False) -> Step:
    """Send an event, or several: the string `$n` among the arguments is then its number."""
    return {"do": "emit", "args": list(args), "as": on, "times": times, "volatile": volatile}


def call(*args: Any, on: str = "/", timeout_ms: int = 5000) -> Step:
    """Send an event and wait for its acknowledgement: a line `ack` or `ack_timeout`."""
    return {"do": "call", "args": list(args), "as": on, "timeout": timeout_ms}


def answer(event: str, *args: Any, on: str = "/") -> Step:
    """Acknowledge every event of this name with these values."""
    return {"do": "answer", "event": event, "args": list(args), "as": on}


def disconnect(on: str = "/") -> Step:
    """Leave the namespace."""
    return {"do": "disconnect", "as": on}


def reconnect(on: str = "/") -> Step:
    """Enter a left namespace again."""
    return {"do": "reconnect", "as": on}


def drop(on: str = "/") -> Step:
    """Close the engine under the socket, from the client's side."""
    return {"do": "drop", "as": on}


async def run_client(url: str, *steps: Step, within: float = 15.0, **options: Any) -> list[Line]:
    """Run the steps against a server and return what happened, in order.

    Args:
        url: of the server, without a path.
        steps: what the client does, one after the other.
        within: seconds until the process is killed and the test fails.
        options: of the JavaScript `io()`, for all sockets.
    """
    node = shutil.which("node")
    assert node is not None, "Node is not on the PATH: run the tests with `make test`"
    process = await asyncio.create_subprocess_exec(
        node,
        str(CLIENT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    job = json.dumps(_pack({"url": url, "options": options, "steps": steps}))
    process.stdin.write(job.encode())
    process.stdin.close()
    lines: list[Line] = []

    async def read(stream: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stream.read(1 << 16):
            *whole, rest = (rest + chunk).split(b"\n")
            lines.extend(_unpack(json.loads(line)) for line in whole)

    errors = asyncio.create_task(process.stderr.read())
    try:
        async with asyncio.timeout(within):
            await read(process.stdout)
            code = await process.wait()
    except TimeoutError:
        raise AssertionError(f"the client did not finish within {within} s; so far: {_short(lines)}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        complaints = (await errors).decode()
    # Node's own status 13: a step waits for what can no longer happen.
    assert code == 0, f"the client ended with status {code}; so far: {_short(lines)}; {complaints}"
    return lines


def of(lines: list[Line], what: str, on: str | None = None) -> list[Line]:
    """Return the lines of one kind, of one socket or of all."""
    return [line for line in lines if line["what"] == what and on in {None, line["as"]}]


def events(lines: list[Line], event: str, on: str | None = None) -> list[list[Any]]:
    """Return the arguments of every event of this name, in order."""
    return [line["args"] for line in of(lines, "event", on) if line["event"] == event]


def _pack(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [_pack(item) for item in value]
    if isinstance(value, dict):
        return {key: _pack(item) for key, item in value.items()}
    return value


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"$bytes"}:
            return base64.b64decode(value["$bytes"])
        return {key: _unpack(item) for key, item in value.items()}
    return value


def _short(lines: list[Line]) -> str:
    return json.dumps(_pack(lines[-20:]))[:2000]
