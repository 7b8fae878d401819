"""The load generator, as Python starts it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.compare.errors import MeasurementError
from benchmarks.compare.processes import start, stop

TOO_LONG = 180.0
"""Seconds, beyond what was asked for, after which a run of the load generator is given up."""


class Load:
    """Starts the load generator on its core.

    Args:
        program: the load generator.
        core: where it runs.
    """

    def __init__(self, program: Path, core: int) -> None:
        self._program = program
        self._core = core

    def run(self, mode: str, **options: Any) -> dict[str, Any]:
        """Run it to its end, and return what it has measured.

        Args:
            mode: one of its modes.
            options: its options by name, without the dashes.

        Raises:
            MeasurementError: it failed.
        """
        process = self._start(mode, options)
        try:
            output, errors = process.communicate(timeout=TOO_LONG)
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"load {mode} has not ended after {TOO_LONG:.0f} s") from None
        finally:
            stop(process)
        if process.returncode:
            raise MeasurementError(f"load {mode}: {errors.decode(errors='replace').strip()}")
        result: dict[str, Any] = json.loads(output.splitlines()[-1])
        return result

    @contextmanager
    def beside(self, mode: str, *, wait: bool = False, **options: Any) -> Iterator[dict[str, Any]]:
        """Run it beside other things; what it has measured is in the dictionary after the `with`.

        Args:
            mode: one of its modes.
            wait: begin only when all its connections are in; only in the modes where they stay.
            options: its options by name, without the dashes.

        Raises:
            MeasurementError: it failed.
        """
        process = self._start(mode, options)
        result: dict[str, Any] = {}
        try:
            if wait:
                _answer(process)
            yield result
            output, errors = process.communicate(timeout=TOO_LONG)
            if process.returncode:
                raise MeasurementError(f"load {mode}: {errors.decode(errors='replace').strip()}")
            result.update(json.loads(output.splitlines()[-1]))
        finally:
            stop(process)

    @contextmanager
    def hold(self, **options: Any) -> Iterator[Held]:
        """Have connections that stay.

        Raises:
            MeasurementError: they were not let in.
        """
        process = self._start("hold", options)
        try:
            yield Held(process, _answer(process)["seconds"])
        finally:
            stop(process)

    def _start(self, mode: str, options: dict[str, Any]) -> subprocess.Popen[bytes]:
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return start([str(self._program), mode, *words], self._core)


class Held:
    """Connections that stay until they are told to leave, or the `with` ends.

    Args:
        process: the load generator.
        opened_in: seconds in which all were let in.
    """

    def __init__(self, process: subprocess.Popen[bytes], opened_in: float) -> None:
        self._process = process
        self.opened_in = opened_in

    def leave(self) -> float:
        """Let all leave; return in how many seconds they had.

        Raises:
            MeasurementError: some could not.
        """
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(b"close\n")
        self._process.stdin.flush()
        seconds: float = _answer(self._process)["seconds"]
        return seconds


def _answer(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    line = process.stdout.readline()
    if not line:
        raise MeasurementError(f"load: {process.stderr.read().decode(errors='replace').strip()}")
    answer: dict[str, Any] = json.loads(line)
    return answer
