"""Processes on a core of their own, and what they take of the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

STOP_WITHIN = 6.0
"""Seconds that a process has to end when it is asked to."""


@dataclass(frozen=True)
class Cores:
    """Which core the server has, and which the load."""

    server: int
    load: int

    @property
    def shared(self) -> bool:
        """Whether there is only one core for both: then a server's figure is that of both together."""
        return self.server == self.load


def choose_cores() -> Cores:
    """Take the last core that this process may run on for the server, and the first for the load and all else."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(server=allowed[-1], load=allowed[0])


def start(
    command: Sequence[str],
    core: int,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    output: IO[bytes] | int = subprocess.PIPE,
    errors: IO[bytes] | int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start a process that runs on one core only, with all threads that it will have."""
    # A child inherits where its parent may run, before it can start a thread elsewhere.
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            cwd=folder,
        )
    finally:
        os.sched_setaffinity(0, allowed)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process: asked first, then made to."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that all threads of a process have had.

    By the process's own clock: `/proc/PID/stat` has the same figure, but in steps of 10 ms.
    """
    return time.clock_gettime(~pid << 3 | 2)  # What clock_getcpuclockid(3) returns on Linux.


def memory_bytes(pid: int) -> int:
    """Return the memory of a process: its own pages, and its share of those that it has in common with others (PSS).

    What the kernel holds for its sockets is in no figure of a process, and not in this one.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/smaps_rollup has no line Pss")
