"""The gate in front of the versions of python-socketio that are supported besides the one that is installed."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from iogate.integrations.layout import VERSIONS
from tests.gate import test_every_server
from tests.integrations import test_frames
from tests.processes import run

ROOT = Path(__file__).parents[2]
OLDER = Path(sys.prefix) / "older"
WITHIN = 100.0  # seconds that the tests of one version may take
WEBSOCKET = "AsyncServer-websocket or Server-websocket or Flask-SocketIO-websocket"


def test_the_newest_that_is_supported_is_the_one_that_all_tests_run_with() -> None:
    assert version("python-socketio").startswith(f"{VERSIONS[-1]}.")
    assert len(VERSIONS) == 3


@pytest.mark.parametrize("minor", VERSIONS[:-1])
async def test_the_gate_stands_in_front_of(minor: str) -> None:
    path = OLDER / minor
    assert (path / "socketio").is_dir(), f"{path} is missing: run the tests with `make test`"
    code = f"import socketio, importlib.metadata as m; assert m.version('python-socketio').startswith('{minor}.')"
    status, said = await run(
        *(sys.executable, "-c", f"{code}; import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"),
        *(
            "-q",
            "-p",
            "no:cacheprovider",
            *(str(Path(str(module.__file__))) for module in (test_every_server, test_frames)),
            "-k",
            f"(({WEBSOCKET}) and not not_a_packet) or would_have_read",
        ),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT / "src"), str(ROOT)])},
        within=WITHIN,
    )
    assert status == 0, said
