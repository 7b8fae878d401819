"""The load generator says what is wrong with its command line, and how it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.compare.programs import Programs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the load generator needs epoll")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "MODE is missing"),
        (["dance"], "dance is no mode"),
        (["echo"], "--port is missing"),
        (["echo", "--port", "80"], "--tokens is missing"),
        (["echo", "--port"], "--port needs a value"),
        (["echo", "--port", "http"], '--port is "http": give a number from 1 to 65535'),
        (["echo", "--port", "80x"], '--port is "80x"'),
        (["echo", "--connections", "0"], '--connections is "0": give a number from 1'),
        (["echo", "--source", "localhost"], "--source is no IPv4 address"),
        (["echo", "--colour", "blue"], "--colour is no option"),
    ],
)
def test_a_wrong_command_line_is_told(programs: Programs, words: list[str], error: str) -> None:
    done = subprocess.run([str(programs.load), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert error in done.stderr
    assert "usage: load MODE" in done.stderr
    assert done.stdout == ""


def test_a_file_of_tokens_that_is_not_there_is_told(programs: Programs, tmp_path: Path) -> None:
    words = ["echo", "--port", "80", "--tokens", str(tmp_path / "none")]
    done = subprocess.run([str(programs.load), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the tokens cannot be read from" in done.stderr


def test_a_file_without_tokens_is_told(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "tokens").touch()
    words = ["echo", "--port", "80", "--tokens", str(tmp_path / "tokens")]
    done = subprocess.run([str(programs.load), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the file of tokens is empty" in done.stderr


def test_the_floor_says_how_it_is_used(programs: Programs) -> None:
    done = subprocess.run([str(programs.floor)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: floor PORT" in done.stderr
